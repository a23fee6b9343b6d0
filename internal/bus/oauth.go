package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/oauth2"

	"weiche/internal/fault"
	"weiche/internal/oauth"
)

// A token endpoint gets tokenTimeout to answer. sarama holds a connection's lock
// while it asks for a token.
const tokenTimeout = 5 * time.Second

// renewAt is the share of a token's lifetime after which the next one is fetched.
// Kafka's own client takes 0.8; sarama authenticates again after 0.85 at the
// earliest, and the token it is given then has to be the next one.
const renewAt = 0.75

// withTokens returns a copy whose clients share one source of tokens.
func (a *SASLConfig) withTokens(dial Dial) *SASLConfig {
	c := *a
	if c.Token != nil {
		c.tokens = newTokenEndpoint(*c.Token, c.Extensions, dial, time.Now)
	} else {
		c.tokens = tokenFile{file: c.TokenFile, extensions: c.Extensions, now: time.Now}
	}
	return &c
}

// check looks for what no broker and no endpoint needs to be asked for.
func (a *SASLConfig) check() error {
	if (a.TokenFile == "") == (a.Token == nil) {
		return misconfigured("kafka.sasl: OAUTHBEARER needs either token_file or token_url")
	}
	for name, value := range a.Extensions {
		if !extensionName(name) || strings.ContainsFunc(value, notPrintable) {
			return misconfigured("kafka.sasl.extensions: %q: a name of letters other than auth, and a printable value, are expected", name)
		}
	}
	if a.Token == nil {
		_, err := readSecret("kafka.sasl.token_file", a.TokenFile)
		return err
	}
	if u, err := url.Parse(a.Token.URL); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return misconfigured("kafka.sasl.token_url is no https:// address without user and password")
	}
	if a.Token.ClientID == "" {
		return misconfigured("kafka.sasl.client_id is empty")
	}
	if _, err := readRoots("kafka.sasl.token_ca_file", a.Token.CAFile); err != nil {
		return err
	}
	_, err := readSecret("kafka.sasl.client_secret_file", a.Token.ClientSecretFile)
	return err
}

func extensionName(s string) bool {
	notLetter := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }
	return s != "" && s != sarama.SASLExtKeyAuth && !strings.ContainsFunc(s, notLetter)
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }

// tokenFile reads the token at every connection.
type tokenFile struct {
	file       string
	extensions map[string]string
	now        func() time.Time
}

// Token implements sarama.AccessTokenProvider.
func (f tokenFile) Token() (*sarama.AccessToken, error) {
	token, err := readSecret("kafka.sasl.token_file", f.file)
	if err != nil {
		return nil, err
	}
	token = strings.TrimSpace(token)
	if !oauth.Wellformed(token) {
		return nil, misconfigured("kafka.sasl.token_file: %s holds no token, or more than one", f.file)
	}
	if end := oauth.Expiry(token); !end.IsZero() && !f.now().Before(end) {
		return nil, fault.New(fault.Destination, fault.ReasonNotAuthorised,
			"the token in %s expired at %s; see why nothing renews it", f.file, end.UTC().Format(time.RFC3339))
	}
	return &sarama.AccessToken{Token: token, Extensions: f.extensions}, nil
}

// tokenEndpoint gives a grant's tokens to sarama.
type tokenEndpoint struct {
	grant      *oauth.Grant
	extensions map[string]string
}

func newTokenEndpoint(t TokenConfig, extensions map[string]string, dial Dial, now func() time.Time) *tokenEndpoint {
	return &tokenEndpoint{extensions: extensions, grant: oauth.NewGrant(oauth.Endpoint{
		URL: t.URL, ClientID: t.ClientID, Scopes: strings.Fields(t.Scope), Style: oauth2.AuthStyleAutoDetect,
		Secret: func() (string, *fault.Error) {
			secret, err := readSecret("kafka.sasl.client_secret_file", t.ClientSecretFile)
			return secret, fault.Of(err)
		},
		Transport: func() (http.RoundTripper, *fault.Error) { return t.transport(dial) },
		Failed:    unasked,
		Delay:     func(*http.Response) time.Duration { return 0 },
		Timeout:   tokenTimeout, RenewAt: renewAt, Now: now,
		Once: true, // a broker's refusal does not come back to whoever gave the token
	})}
}

// Token implements sarama.AccessTokenProvider.
func (e *tokenEndpoint) Token() (*sarama.AccessToken, error) {
	token, f := e.grant.Token(context.Background(), "")
	if f != nil {
		return nil, ours(f)
	}
	return &sarama.AccessToken{Token: token, Extensions: e.extensions}, nil
}

// transport serves one request.
func (t TokenConfig) transport(dial Dial) (http.RoundTripper, *fault.Error) {
	roots, err := readRoots("kafka.sasl.token_ca_file", t.CAFile)
	if err != nil {
		return nil, fault.Of(err)
	}
	via := http.DefaultTransport.(*http.Transport).Clone()
	via.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	via.DisableKeepAlives = true
	if dial != nil {
		via.DialContext, via.Proxy = dial, nil // a proxy would resolve names out of its sight
	}
	return via, nil
}

// unasked classes an exchange without an answer. What a Dial has classed stays.
func unasked(_ context.Context, err error) *fault.Error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if _, reason, _ := judgeTLS(err); reason == fault.ReasonCertificate {
		return fault.Wrap(err, fault.Destination, reason, "its certificate is not trusted or has expired; token_ca_file names who may vouch for it")
	}
	return fault.Wrap(err, fault.Destination, fault.ReasonUnreachable, "it cannot be reached")
}

// ours says in the bus's words what keeps a token away.
func ours(f *fault.Error) error {
	class, reason := fault.Retryable, fault.ReasonBrokerUnavailable
	switch f.Reason {
	case fault.ReasonCertificate:
		class, reason = f.Class, f.Reason
	case fault.ReasonUnauthorized, fault.ReasonRedirected:
		class, reason = fault.Destination, fault.ReasonNotAuthorised
	case fault.ReasonMisconfigured:
		if f.Class == fault.Permanent { // a file of ours, in our own words
			return f
		}
		class, reason = f.Class, f.Reason
	}
	return fault.Wrap(f, class, reason, "kafka.sasl.%s", f.Detail)
}
