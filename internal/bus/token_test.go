package bus

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weiche/internal/fault"
)

// clock is set by the test.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(c.at.Load(), 0) }
func (c *clock) pass(d time.Duration)    { c.at.Add(int64(d.Seconds())) }
func file(t *testing.T, s string) string { return fileOf(t, []byte(s)) }
func fileOf(t *testing.T, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A token of 1000 s is fetched once for many connections, anew after 750 s, and
// used until its end while the endpoint is away. Who finds no token gets the
// endpoint's reason, and many who ask together cost one request.
func TestTokenIsRenewedInTime(t *testing.T) {
	var asked, away atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)
		if code := away.Load(); code != 0 {
			w.WriteHeader(int(code))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token": "token-%d", "token_type": "Bearer", "expires_in": 1000}`, n)
	}))
	defer server.Close()
	now := &clock{}
	now.at.Store(1_700_000_000)
	e := newTokenEndpoint(TokenConfig{URL: server.URL, ClientID: "weiche", ClientSecretFile: file(t, "s"),
		CAFile: fileOf(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))},
		map[string]string{"logicalCluster": "lkc-1"}, nil, now.now)
	want := func(token string, requests int64) {
		t.Helper()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				got, err := e.Token()
				if err != nil || got.Token != token || got.Extensions["logicalCluster"] != "lkc-1" {
					t.Errorf("got %v, %v; want %s", got, err, token)
				}
			})
		}
		all.Wait()
		if asked.Load() != requests {
			t.Errorf("%d requests, want %d", asked.Load(), requests)
		}
	}
	want("token-1", 1)
	now.pass(740 * time.Second)
	want("token-1", 1)
	now.pass(20 * time.Second)
	want("token-2", 2)
	away.Store(http.StatusServiceUnavailable)
	now.pass(900 * time.Second)
	want("token-2", 3)
	now.pass(110 * time.Second)
	for range 20 {
		if _, err := e.Token(); fault.Of(err).Reason != fault.ReasonBrokerUnavailable {
			t.Fatalf("an expired token is used, or the reason is wrong: %v", err)
		}
	}
	if asked.Load() != 4 {
		t.Errorf("%d requests, want 4", asked.Load())
	}
	away.Store(0)
	now.pass(2 * time.Second)
	want("token-5", 5)
}

// What a token file holds is judged as far as it can be; nothing of it is told.
func TestTokenFile(t *testing.T) {
	jwt := func(claims string) string {
		return "eyJhbGciOiJFUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		content string
		reason  fault.Reason // empty: it is sent
	}{
		{jwt(`{"exp": 1700000060}`) + "\n", ""},
		{jwt(`{"exp": 1700000000}`), fault.ReasonNotAuthorised},
		{jwt(`{"exp": 1699999999.5}`), fault.ReasonNotAuthorised},
		{jwt(`{"exp": "soon"}`), ""}, // the broker's to judge
		{jwt(`{"exp": 1e300}`), ""},
		{jwt(`[`), ""},
		{"opaque-token", ""},
		{"", fault.ReasonMisconfigured},
		{"\n", fault.ReasonMisconfigured},
		{" \n", fault.ReasonMisconfigured},
		{"secret-one\nsecret-two", fault.ReasonMisconfigured},
		{"secret-one\x01auth=x", fault.ReasonMisconfigured},
		{"secret-ünreal", fault.ReasonMisconfigured},
		{strings.Repeat("secret-", 1<<20) + "ö", fault.ReasonMisconfigured},
	} {
		f := tokenFile{file: file(t, c.content), now: func() time.Time { return now }}
		got, err := f.Token()
		switch {
		case c.reason == "" && (err != nil || got.Token != strings.TrimSpace(c.content)):
			t.Errorf("%.40q: %v, %v", c.content, got, err)
		case c.reason != "" && (fault.Of(err) == nil || fault.Of(err).Reason != c.reason):
			t.Errorf("%.40q: %v, want %s", c.content, err, c.reason)
		case err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "eyJ")):
			t.Errorf("the token is told: %v", err)
		}
	}
	if _, err := (tokenFile{file: filepath.Join(t.TempDir(), "absent"), now: time.Now}).Token(); fault.Of(err).Reason != fault.ReasonMisconfigured {
		t.Errorf("absent: %v", err)
	}
}
