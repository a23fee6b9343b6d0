// Package oauth fetches bearer tokens with the client credentials of RFC 6749
// section 4.4 and keeps each for most of its life. The brokers' door and the
// adapters' take theirs from here.
//
// It reads no file and opens no connection: secret and transport are the
// caller's, who also knows which networks may be spoken to. Of what an endpoint
// writes nothing is repeated but the error codes of RFC 6749 section 5.2: the
// rest may quote the secret.
package oauth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"weiche/internal/fault"
)

const (
	shareError = time.Second // attempts that fail together share one answer
	maxAnswer  = 64 << 10    // bytes of the endpoint's answer
	maxToken   = 16 << 10    // bytes of a token; servers take headers of 8 to 16 KB
)

// Endpoint is a token endpoint, who asks it, and how it is reached.
type Endpoint struct {
	URL, ClientID string
	Scopes        []string
	// Style says where id and secret stand; AutoDetect tries the header first and
	// remembers what worked.
	Style oauth2.AuthStyle
	// Secret is asked for every token; nil where a client certificate says who asks.
	Secret func() (string, *fault.Error)
	// Transport is asked for every token. It must follow no redirect of its own.
	Transport func() (http.RoundTripper, *fault.Error)
	// Failed says who is at fault for an exchange without an answer.
	Failed func(context.Context, error) *fault.Error
	// Delay reads an answer's Retry-After.
	Delay func(*http.Response) time.Duration
	// Timeout bounds one request.
	Timeout time.Duration
	// RenewAt is the share of a token's life after which the next one is fetched.
	RenewAt float64
	// Once: a token that does not say when it ends is given out once, because
	// nobody would tell that it is refused. Otherwise it is kept until it is.
	Once bool
	Now  func() time.Time
}

// Grant holds the token of one endpoint. One request is under way at a time; who
// waits for it waits no longer than its context. While the endpoint fails, a
// token that has not ended is used on. It is safe for concurrent use.
type Grant struct {
	at Endpoint

	turn        chan struct{}            // of capacity 1: held while the fields below are used
	conf        clientcredentials.Config // remembers how the endpoint takes the secret
	kept        string
	renew, ends time.Time // of kept; zero where it does not say
	failed      time.Time
	fault       *fault.Error
}

// NewGrant makes a grant that has no token yet.
func NewGrant(at Endpoint) *Grant {
	return &Grant{at: at, turn: make(chan struct{}, 1)}
}

// Token returns the token at hand or a new one. refused is one that has just been
// refused, or ""; when there is no other, it is returned again. Faults are the
// destination's, and their details begin with the setting's name ("token_url").
func (g *Grant) Token(ctx context.Context, refused string) (string, *fault.Error) {
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return "", fault.Of(ctx.Err())
	}
	now := g.at.Now()
	if g.kept != "" && g.kept == refused {
		g.kept = "" // whoever is refused first fetches for all
	}
	if g.kept != "" && now.Before(g.renew) || g.kept != "" && g.renew.IsZero() && !g.at.Once {
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
func (g *Grant) fetch(ctx context.Context, now time.Time) *fault.Error {
	secret, f := "", (*fault.Error)(nil)
	if g.at.Secret != nil {
		if secret, f = g.at.Secret(); f != nil {
			return f
		}
	}
	via, f := g.at.Transport()
	if f != nil {
		return f
	}
	g.conf.ClientID, g.conf.ClientSecret, g.conf.TokenURL = g.at.ClientID, secret, g.at.URL
	g.conf.Scopes, g.conf.AuthStyle = g.at.Scopes, g.at.Style
	answer := &boundedAnswer{next: via}
	client := &http.Client{Transport: answer, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, client), g.at.Timeout)
	defer cancel()
	got, err := g.conf.Token(ctx)
	if err != nil {
		// The library keeps only the text of what broke while it read.
		return g.refused(ctx, err, answer.err)
	}
	if !strings.EqualFold(got.Type(), "Bearer") || !Wellformed(got.AccessToken) { // RFC 6749 section 7.1
		return at(fault.ReasonMisconfigured, "gives a token of a kind that is not known, only Bearer is")
	}
	g.kept, g.renew, g.ends = got.AccessToken, time.Time{}, Expiry(got.AccessToken)
	if !got.Expiry.IsZero() {
		g.ends = now.Add(time.Until(got.Expiry))
	}
	if !g.ends.IsZero() {
		g.renew = now.Add(time.Duration(float64(g.ends.Sub(now)) * g.at.RenewAt))
	}
	return nil
}

// Wellformed says that a text is one token and can stand in a header.
func Wellformed(token string) bool {
	return token != "" && len(token) <= maxToken && !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Expiry is the claim exp of a token that is a JWT (RFC 7519); zero where it is
// none. Nothing is verified: that is the part of whoever gets the token.
func Expiry(token string) time.Time {
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

func at(r fault.Reason, detail string, args ...any) *fault.Error {
	return fault.New(fault.Destination, r, "token_url "+detail, args...)
}

// refused classes an endpoint's failure; broken is what broke while its answer
// was read. Everything is the destination's fault: no message can be delivered.
func (g *Grant) refused(ctx context.Context, err, broken error) *fault.Error {
	answer, ok := errors.AsType[*oauth2.RetrieveError](err)
	_, exchange := errors.AsType[*url.Error](err)
	switch {
	case ctx.Err() != nil:
		return at(fault.ReasonTimeout, "does not answer in time")
	case errors.Is(broken, errTooLong):
		return at(fault.ReasonMisconfigured, "answers with more than a token")
	case exchange:
		f := g.at.Failed(ctx, err)
		return at(f.Reason, "cannot be asked: %s", f.Detail)
	case broken != nil:
		return at(fault.ReasonInterrupted, "breaks off while it answers")
	case !ok || answer.Response == nil:
		return at(fault.ReasonMisconfigured, "answers with something that is no token")
	}
	switch code := answer.Response.StatusCode; {
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		f := at(fault.ReasonUnavailable, "answers %d", code)
		f.RetryAfter = g.at.Delay(answer.Response)
		return f
	case code >= 300 && code < 400:
		return at(fault.ReasonRedirected, "redirects, which is not followed, with %d", code)
	case code == http.StatusNotFound || code == http.StatusMethodNotAllowed || code == http.StatusGone:
		return at(fault.ReasonMisconfigured, "answers %d: it is not the address of a token endpoint", code)
	default: // also a 200 with an error in it
		return at(fault.ReasonUnauthorized, "answers %d%s: it refuses client_id, its secret or certificate, or scope", code, knownCode(answer.ErrorCode))
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
