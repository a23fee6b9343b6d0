package http

import (
	"context"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"weiche/internal/adapters/credential"
	"weiche/internal/adapters/trip"
	"weiche/internal/fault"
	"weiche/internal/oauth"
)

// Ways in which a token endpoint is told who asks: RFC 6749 section 2.3.1, and
// RFC 8705 section 2.
const (
	authBasic = "basic" // user and password of the request
	authPost  = "post"  // in the form
	authTLS   = "tls"   // the client certificate
)

const (
	tokenTime = 15 * time.Second // for the endpoint to answer
	renewAt   = 0.9              // share of a token's lifetime after which the next one is fetched
)

// tokens is where a bearer token comes from. refused is one that the receiver has
// just refused, or ""; when there is no other, it is returned again.
type tokens interface {
	Token(ctx context.Context, refused string) (string, *fault.Error)
}

// noToken sends none.
type noToken struct{}

func (noToken) Token(context.Context, string) (string, *fault.Error) { return "", nil }

// tokenFile reads the token for every message.
type tokenFile string

func (f tokenFile) Token(context.Context, string) (string, *fault.Error) {
	b, err := credential.Read(string(f), maxFile)
	t := strings.TrimSpace(string(b))
	if err != nil || !oauth.Wellformed(t) {
		return "", trip.Misconfigured(err, "token_file is missing or does not hold one token")
	}
	return t, nil
}

// endpoint fills in what is the same for every token endpoint of a destination.
func endpoint(e oauth.Endpoint, auth, secretFile string, c *trip.Connector) oauth.Endpoint {
	e.Style = oauth2.AuthStyleInParams
	if auth == authBasic {
		e.Style = oauth2.AuthStyleInHeader
	}
	if auth != authTLS {
		e.Secret = func() (string, *fault.Error) { return clientSecret(secretFile) }
	}
	e.Transport = func() (http.RoundTripper, *fault.Error) {
		via, f := c.Transport()
		if f != nil {
			return nil, f
		}
		return via, nil
	}
	e.Failed = trip.Classify
	e.Delay = func(r *http.Response) time.Duration { return trip.Answered(r, time.Now()).RetryAfter }
	e.Timeout, e.RenewAt = tokenTime, renewAt
	return e
}

func clientSecret(file string) (string, *fault.Error) {
	b, err := credential.Read(file, maxFile)
	secret := strings.TrimRight(string(b), "\r\n")
	if err != nil || secret == "" || strings.ContainsFunc(secret, func(r rune) bool { return r < ' ' }) {
		return "", trip.Misconfigured(err, "client_secret_file is missing or does not hold one secret")
	}
	return secret, nil
}
