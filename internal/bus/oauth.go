package bus

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"weiche/internal/fault"
)

// A token endpoint gets tokenTimeout to answer. sarama holds a connection's lock
// while it asks for a token.
const tokenTimeout = 5 * time.Second

// renewAt is the share of a token's lifetime after which the next one is fetched.
// Kafka's own client takes 0.8; sarama authenticates again after 0.85 at the
// earliest, and the token it is given then has to be the next one.
const renewAt = 0.75

// withTokens returns a copy whose clients share one source of tokens.
func (a *SASLConfig) withTokens() *SASLConfig {
	c := *a
	switch {
	case c.Token != nil:
		c.tokens = &tokenEndpoint{conf: *c.Token, extensions: c.Extensions, now: time.Now}
	default:
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
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || notPrintable(r) }) {
		return nil, misconfigured("kafka.sasl.token_file: %s holds no token, or more than one", f.file)
	}
	if end := expiry(token); !end.IsZero() && !f.now().Before(end) {
		return nil, fault.New(fault.Destination, fault.ReasonNotAuthorised,
			"the token in %s expired at %s; see why nothing renews it", f.file, end.UTC().Format(time.RFC3339))
	}
	return &sarama.AccessToken{Token: token, Extensions: f.extensions}, nil
}

// expiry is the claim exp of a token that is a JWT; zero where it is none. Nothing
// is verified: that is the broker's part.
func expiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct{ Exp float64 }
	if err != nil || json.Unmarshal(b, &claims) != nil || claims.Exp <= 0 || claims.Exp > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Exp), 0)
}

// tokenEndpoint fetches tokens and keeps each for renewAt of its lifetime. One
// request is under way at a time. It is safe for concurrent use.
type tokenEndpoint struct {
	conf       TokenConfig
	extensions map[string]string
	now        func() time.Time

	mu          sync.Mutex
	grant       clientcredentials.Config // remembers how the endpoint takes the secret
	token       string
	renew, ends time.Time // of token
	failed      time.Time
	err         error
}

// Token implements sarama.AccessTokenProvider. While the endpoint fails, a token
// that has not expired is used on.
func (e *tokenEndpoint) Token() (*sarama.AccessToken, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if e.token == "" || !now.Before(e.renew) {
		// Connections that fail together share one answer.
		if e.err == nil || now.Sub(e.failed) > time.Second || now.Before(e.failed) {
			e.failed, e.err = now, e.fetch(now)
		}
		if e.err != nil && (e.token == "" || !now.Before(e.ends)) {
			return nil, e.err
		}
	}
	return &sarama.AccessToken{Token: e.token, Extensions: e.extensions}, nil
}

func (e *tokenEndpoint) fetch(now time.Time) error {
	secret, err := readSecret("kafka.sasl.client_secret_file", e.conf.ClientSecretFile)
	if err != nil {
		return err
	}
	client, err := e.conf.client()
	if err != nil {
		return err
	}
	e.grant.ClientID, e.grant.ClientSecret, e.grant.TokenURL, e.grant.Scopes = e.conf.ClientID, secret, e.conf.URL, strings.Fields(e.conf.Scope)
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), oauth2.HTTPClient, client), tokenTimeout)
	defer cancel()
	got, err := e.grant.Token(ctx)
	if err != nil {
		return refusedToken(err)
	}
	e.token = got.AccessToken
	e.ends = expiry(e.token)
	if !got.Expiry.IsZero() {
		e.ends = now.Add(time.Until(got.Expiry))
	}
	// A token that does not say when it ends serves one connection.
	e.renew = now
	if life := e.ends.Sub(now); life > 0 {
		e.renew = now.Add(time.Duration(float64(life) * renewAt))
	}
	return nil
}

// client makes an HTTP client that follows no redirect: the secret is meant for
// this address.
func (t TokenConfig) client() (*http.Client, error) {
	roots, err := readRoots("kafka.sasl.token_ca_file", t.CAFile)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	transport.DisableKeepAlives = true
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// refusedToken classes an endpoint's failure. The endpoint's own words are left
// out, also as a cause: they may repeat the secret.
func refusedToken(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		if _, reason, _ := judge(err); reason == fault.ReasonCertificate {
			return fault.Wrap(err, fault.Destination, reason, "the certificate of kafka.sasl.token_url is not trusted or has expired; token_ca_file names who may vouch for it")
		}
		if errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
			return fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "kafka.sasl.token_url did not answer within %s", tokenTimeout)
		}
		return fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "kafka.sasl.token_url gives no token: it cannot be reached, or answers with something else")
	}
	code := 0
	if refused.Response != nil {
		code = refused.Response.StatusCode
	}
	if code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout {
		return fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "kafka.sasl.token_url answers %d", code)
	}
	return fault.New(fault.Destination, fault.ReasonNotAuthorised,
		"kafka.sasl.token_url answers %d%s: it refuses client_id, the secret in client_secret_file, or scope", code, knownCode(refused.ErrorCode))
}

// knownCode keeps an error code of RFC 6749 section 5.2, and nothing else that an
// endpoint may write there.
func knownCode(code string) string {
	switch code {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope":
		return " (" + code + ")"
	}
	return ""
}
