package oauth

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"weiche/internal/fault"
)

// endpoint answers with the next of its answers, the last one for ever.
func endpoint(t *testing.T, asked *int, answers ...string) Endpoint {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, answers[min(*asked, len(answers)-1)])
		*asked++
	}))
	t.Cleanup(srv.Close)
	return Endpoint{
		URL: srv.URL, ClientID: "weiche", Style: oauth2.AuthStyleInHeader, Timeout: 10 * time.Second, RenewAt: 0.5, Now: time.Now,
		Transport: func() (http.RoundTripper, *fault.Error) { return http.DefaultTransport, nil },
		Failed: func(_ context.Context, err error) *fault.Error {
			return fault.Wrap(err, fault.Destination, fault.ReasonUnreachable, "away")
		},
		Delay: func(*http.Response) time.Duration { return 0 },
	}
}

// A token that does not say when it ends is kept until it is refused, or given out
// once. One that says so in its own claims needs no expires_in.
func TestTokenWithoutAnEnd(t *testing.T) {
	opaque := `{"access_token": "%d-opaque", "token_type": "Bearer"}`
	jwt := "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp": %d}`, time.Now().Add(time.Hour).Unix())) + ".c2ln"
	for name, c := range map[string]struct {
		answer string
		once   bool
		asked  int
	}{
		"kept":                 {opaque, false, 1},
		"once":                 {opaque, true, 3},
		"its own claims, kept": {`{"access_token": "` + jwt + `", "token_type": "Bearer"}`, false, 1},
		"its own claims, once": {`{"access_token": "` + jwt + `", "token_type": "Bearer"}`, true, 1},
	} {
		asked := 0
		e := endpoint(t, &asked, c.answer)
		e.Once = c.once
		g := NewGrant(e)
		for range 3 {
			if _, f := g.Token(t.Context(), ""); f != nil {
				t.Fatalf("%s: %v", name, f)
			}
		}
		if asked != c.asked {
			t.Errorf("%s: asked %d times, %d were expected", name, asked, c.asked)
		}
	}
}

// What is no token is the destination's fault, and nothing of it is told.
func TestWhatIsNoToken(t *testing.T) {
	for name, answer := range map[string]string{
		"another kind": `{"access_token": "geheim", "token_type": "mac"}`,
		"two words":    `{"access_token": "geheim geheim", "token_type": "Bearer"}`,
		"too long":     `{"access_token": "` + strings.Repeat("geheim", 3000) + `", "token_type": "Bearer"}`,
		"no end":       `{"access_token": "` + strings.Repeat("geheim", 20000),
		"no JSON":      `geheim`,
	} {
		asked := 0
		_, f := NewGrant(endpoint(t, &asked, answer)).Token(t.Context(), "")
		if f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonMisconfigured || strings.Contains(f.Error(), "geheim") {
			t.Errorf("%s: %v", name, f)
		}
	}
}
