package http

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"weiche/internal/adapters/trip"
	"weiche/internal/fault"
)

// Ways in which a token endpoint is told who asks: RFC 6749 section 2.3.1, and
// RFC 8705 section 2.
const (
	authBasic = "basic" // user and password of the request
	authPost  = "post"  // in the form
	authTLS   = "tls"   // the client certificate
)

const (
	tokenTime  = 15 * time.Second // for the endpoint to answer
	shareError = time.Second      // attempts that fail together share one answer
	renewAt    = 0.9              // share of a token's lifetime after which the next one is fetched
	maxAnswer  = 64 << 10         // bytes of the endpoint's answer
	maxToken   = 16 << 10         // bytes of a token; servers take headers of 8 to 16 KB
)

// tokens is where a bearer token comes from. refused is one that the receiver has
// just refused, or ""; when there is no other, it is returned again.
type tokens interface {
	token(ctx context.Context, refused string) (string, *fault.Error)
}

// noToken sends none.
type noToken struct{}

func (noToken) token(context.Context, string) (string, *fault.Error) { return "", nil }

// tokenFile reads the token for every message.
type tokenFile string

func (f tokenFile) token(context.Context, string) (string, *fault.Error) {
	b, err := trip.ReadFile(string(f), maxFile)
	t := strings.TrimSpace(string(b))
	if err != nil || !headerWord(t) {
		return "", trip.Misconfigured(err, "token_file is missing or does not hold one token")
	}
	return t, nil
}

func headerWord(t string) bool {
	return t != "" && len(t) <= maxToken && !strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' })
}

// grant fetches tokens with the client credentials of RFC 6749 section 4.4 and
// keeps each for renewAt of its lifetime, or until the receiver refuses it. One
// request is under way at a time; who waits for it waits no longer than its
// context. It is safe for concurrent use.
type grant struct {
	url, clientID, secretFile, auth string
	scopes                          []string
	connector                       *trip.Connector
	now                             func() time.Time

	turn        chan struct{} // of capacity 1: held while the fields below are used
	kept        string
	renew, ends time.Time // of kept; zero where the endpoint did not say
	failed      time.Time
	fault       *fault.Error
}

func (g *grant) token(ctx context.Context, refused string) (string, *fault.Error) {
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return "", fault.Of(ctx.Err())
	}
	now := g.now()
	if g.kept != "" && g.kept == refused {
		g.kept = "" // whoever is refused first fetches for all
	}
	if g.kept != "" && (g.renew.IsZero() || now.Before(g.renew)) {
		return g.kept, nil
	}
	if g.fault == nil || now.Sub(g.failed) > shareError || now.Before(g.failed) {
		f := g.fetch(ctx, now)
		if f != nil && ctx.Err() != nil {
			return "", fault.Of(ctx.Err()) // the attempt's end says nothing about the endpoint
		}
		g.fault, g.failed = f, now
	}
	if g.fault != nil && (g.kept == "" || !now.Before(g.ends)) {
		return "", g.fault
	}
	return g.kept, nil
}

// fetch puts a token into kept.
func (g *grant) fetch(ctx context.Context, now time.Time) *fault.Error {
	conf := clientcredentials.Config{ClientID: g.clientID, TokenURL: g.url, Scopes: g.scopes, AuthStyle: oauth2.AuthStyleInParams}
	if g.auth == authBasic {
		conf.AuthStyle = oauth2.AuthStyleInHeader
	}
	if g.auth != authTLS {
		b, err := trip.ReadFile(g.secretFile, maxFile)
		conf.ClientSecret = strings.TrimRight(string(b), "\r\n")
		if err != nil || conf.ClientSecret == "" || strings.ContainsFunc(conf.ClientSecret, func(r rune) bool { return r < ' ' }) {
			return trip.Misconfigured(err, "client_secret_file is missing or does not hold one secret")
		}
	}
	via, f := g.connector.Transport()
	if f != nil {
		return f
	}
	answer := &boundedAnswer{next: via}
	client := &http.Client{Transport: answer, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, client), tokenTime)
	defer cancel()
	got, err := conf.Token(ctx)
	if err != nil {
		// The library keeps only the text of what broke while it read.
		return refusedToken(ctx, err, answer.err)
	}
	if !strings.EqualFold(got.Type(), "Bearer") || !headerWord(got.AccessToken) { // RFC 6749 section 7.1
		return trip.Misconfigured(nil, "token_url gives a token of a kind that is not known, only Bearer is")
	}
	g.kept, g.renew, g.ends = got.AccessToken, time.Time{}, time.Time{}
	if !got.Expiry.IsZero() {
		life := time.Until(got.Expiry)
		g.ends, g.renew = now.Add(life), now.Add(time.Duration(float64(life)*renewAt))
	}
	return nil
}

// boundedAnswer gives up reading an answer that is too long to be a token's, and
// remembers what broke.
type boundedAnswer struct {
	next http.RoundTripper
	body io.ReadCloser
	left int
	err  error
}

var errTooLong = errors.New("the answer is too long")

// RoundTrip implements http.RoundTripper.
func (b *boundedAnswer) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		b.body, b.left, resp.Body = resp.Body, maxAnswer, b
	}
	return resp, err
}

// Read implements io.Reader.
func (b *boundedAnswer) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if b.left -= n; b.left < 0 {
		err = errTooLong
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// Close implements io.Closer.
func (b *boundedAnswer) Close() error { return b.body.Close() }

// refusedToken classes an endpoint's failure; broken is what broke while its
// answer was read. Everything is the destination's fault: no message can be
// delivered. The endpoint's own words are left out, also as a cause: they may
// repeat the secret.
func refusedToken(ctx context.Context, err, broken error) *fault.Error {
	at := func(r fault.Reason, detail string, args ...any) *fault.Error {
		return fault.New(fault.Destination, r, "token_url "+detail, args...)
	}
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	_, exchange := errors.AsType[*url.Error](err)
	switch {
	case ctx.Err() != nil:
		return at(fault.ReasonTimeout, "does not answer in time")
	case errors.Is(broken, errTooLong):
		return at(fault.ReasonMisconfigured, "answers with more than a token")
	case exchange:
		f := trip.Classify(ctx, err)
		return at(f.Reason, "cannot be asked: %s", f.Detail)
	case broken != nil:
		return at(fault.ReasonInterrupted, "breaks off while it answers")
	case !ok || refused.Response == nil:
		return at(fault.ReasonMisconfigured, "answers with something that is no token")
	}
	switch code := refused.Response.StatusCode; {
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		f := at(fault.ReasonUnavailable, "answers %d", code)
		f.RetryAfter = trip.Answered(refused.Response, time.Now()).RetryAfter
		return f
	case code >= 300 && code < 400:
		return at(fault.ReasonRedirected, "redirects, which is not followed, with %d", code)
	case code == http.StatusNotFound || code == http.StatusMethodNotAllowed || code == http.StatusGone:
		return at(fault.ReasonMisconfigured, "answers %d: it is not the address of a token endpoint", code)
	default: // also a 200 with an error in it
		return at(fault.ReasonUnauthorized, "answers %d%s: it refuses client_id, its secret or certificate, or scope", code, knownCode(refused.ErrorCode))
	}
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
