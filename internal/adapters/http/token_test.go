package http_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/spec"
	"weiche/internal/fault"
)

func pemOf(srv *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
}

// issuer is a token endpoint by RFC 6749 sections 4.4.2, 5.1 and 5.2, and the
// receiver's knowledge of which tokens are good.
type issuer struct {
	*httptest.Server
	mu       sync.Mutex
	secret   string
	lifetime int // seconds
	answer   http.HandlerFunc
	asked    []url.Values // forms, in order
	users    []string     // "user password" of the requests
	good     map[string]bool
}

func newIssuer(t *testing.T, secret string) *issuer {
	i := &issuer{secret: secret, lifetime: 3600, good: map[string]bool{}}
	i.Server = httptest.NewTLSServer(i)
	t.Cleanup(i.Close)
	return i
}

// ServeHTTP implements http.Handler.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := r.ParseForm(); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	user, password, _ := r.BasicAuth()
	i.asked, i.users = append(i.asked, r.PostForm), append(i.users, user+" "+password)
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.Header().Set("Cache-Control", "no-store")
	if i.answer != nil {
		i.answer(w, r)
		return
	}
	if r.PostForm.Get("client_secret") != i.secret && password != url.QueryEscape(i.secret) {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error": "invalid_client", "error_description": "%s %s"}`, adaptertest.Canary, i.secret)
		return
	}
	token := fmt.Sprintf("token-%d-of-this-issuer", len(i.asked))
	i.good[token] = true
	fmt.Fprintf(w, `{"access_token": %q, "token_type": "bearer", "expires_in": %d, "example_parameter": "example_value"}`, token, i.lifetime)
}

func (i *issuer) requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

func (i *issuer) revoke() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.good)
}

func (i *issuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

// guard lets a request through to next that carries a good token.
func (i *issuer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		good := i.good[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		i.mu.Unlock()
		if !good {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guarded is a receiver behind an issuer, and settings to reach it.
func guarded(t *testing.T, deps *spec.Deps, next http.Handler) (*issuer, *atomic.Int64, string) {
	t.Helper()
	deps.DataDir = t.TempDir()
	i := newIssuer(t, "geheim: ä+%")
	var came atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came.Add(1)
		i.guard(next).ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	writeSecret(t, filepath.Join(deps.DataDir, "client"), i.secret)
	writeSecret(t, filepath.Join(deps.DataDir, "idp.pem"), pemOf(i.Server))
	return i, &came, "url: " + srv.URL + "\nsecret_file: secret\nallow_networks: [loopback]\ntoken_url: " + i.URL +
		"\nclient_id: 'weiche:08'\nclient_secret_file: client\ntoken_ca_file: idp.pem\n"
}

var taken = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusNoContent)
})

// RFC 6749 sections 2.3.1 and 4.4.2: what the endpoint is asked.
func TestTokenRequest(t *testing.T) {
	for auth, want := range map[string]struct {
		form url.Values
		user string
	}{
		"basic": {url.Values{"grant_type": {"client_credentials"}, "scope": {"xoev.write antrag"}}, "weiche%3A08 geheim%3A+%C3%A4%2B%25"},
		"post":  {url.Values{"grant_type": {"client_credentials"}, "scope": {"xoev.write antrag"}, "client_id": {"weiche:08"}, "client_secret": {"geheim: ä+%"}}, " "},
	} {
		var deps spec.Deps
		i, _, settings := guarded(t, &deps, taken)
		if err := open(t, deps, "%s", settings+"scope: ' xoev.write  antrag '\nclient_auth: "+auth).Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
			t.Fatalf("%s: %v", auth, err)
		}
		if i.requests() != 1 || i.asked[0].Encode() != want.form.Encode() || i.users[0] != want.user {
			t.Errorf("%s: the endpoint was asked %v as %q", auth, i.asked, i.users)
		}
	}
}

// One token serves until nine tenths of its life are over, and longer while the
// endpoint is away, but not beyond its end; the secret is read for every token.
func TestTokenIsKept(t *testing.T) {
	var now atomic.Int64
	now.Store(1_700_000_000)
	deps := spec.Deps{Clock: func() time.Time { return time.Unix(now.Load(), 0) }}
	i, came, settings := guarded(t, &deps, taken)
	i.lifetime = 1000
	a := open(t, deps, "%s", settings)
	deliver := func(n, requests int) {
		t.Helper()
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				if err := a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a"))); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := i.requests(); got != requests {
			t.Errorf("%d tokens were asked for, %d were expected", got, requests)
		}
	}
	deliver(20, 1)
	now.Add(890)
	deliver(5, 1)
	now.Add(20)
	i.set(func() { i.secret = "another" })
	writeSecret(t, filepath.Join(deps.DataDir, "client"), i.secret)
	deliver(20, 2)
	i.set(func() {
		i.answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
	})
	now.Add(950)
	deliver(1, 3)
	deliver(20, 3) // who fails together shares one answer
	before := came.Load()
	now.Add(60)
	for range 20 {
		f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery()))
		if f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonUnavailable {
			t.Fatalf("with an expired token and no endpoint: %v", f)
		}
	}
	if i.requests() != 4 || came.Load() != before {
		t.Errorf("%d requests, 4 were expected; the receiver saw %d without a token", i.requests(), came.Load()-before)
	}
	i.set(func() { i.answer = nil })
	now.Add(2)
	deliver(20, 5)
}

// A token that the receiver no longer takes is fetched anew, once for all who
// were refused, and the message comes again under its id.
func TestRevokedToken(t *testing.T) {
	var deps spec.Deps
	var mu sync.Mutex
	ids := map[string]int{}
	i, came, settings := guarded(t, &deps, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		ids[r.Header.Get("webhook-id")] += len(body)
	}))
	a := open(t, deps, "%s", settings)
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Fatal(err)
	}
	i.revoke()
	clear(ids)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 50_000))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if i.requests() != 2 || len(ids) != 20 {
		t.Errorf("%d tokens were asked for and %d messages came, 2 and 20 were expected", i.requests(), len(ids))
	}
	for id, n := range ids {
		if n < 50_000 {
			t.Errorf("%s came with %d bytes", id, n)
		}
	}

	// A receiver that takes none: two tries and no more.
	i.set(func() {
		i.good = nil
		i.answer = func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"access_token": "never-good-%d", "token_type": "Bearer"}`, len(i.asked))
		}
	})
	before := came.Load()
	err := a.Deliver(t.Context(), adaptertest.NewDelivery())
	if f := fault.Of(err); f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonUnauthorized || strings.Contains(err.Error(), "never-good") {
		t.Errorf("a receiver that takes no token: %v", err)
	}
	if i.requests() != 3 || came.Load()-before != 2 {
		t.Errorf("%d tokens and %d requests, 3 and 2 were expected", i.requests(), came.Load()-before)
	}

	// An endpoint that has no other token: the message is not sent twice in vain.
	i.set(func() {
		i.answer = func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"access_token": "always-the-same", "token_type": "Bearer"}`)
		}
	})
	_ = a.Deliver(t.Context(), adaptertest.NewDelivery())
	before = came.Load()
	if f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery())); f == nil || f.Reason != fault.ReasonUnauthorized || came.Load()-before != 1 {
		t.Errorf("%v after %d requests, one was expected", f, came.Load()-before)
	}
}

// Each way in which an endpoint gives no token: always the destination's fault,
// and nothing of what it wrote is told.
func TestNoToken(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	write := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	refusal := func(code int, word string) http.HandlerFunc {
		return write(code, `{"error": "`+word+`", "error_description": "`+adaptertest.Canary+`", "error_uri": "https://`+adaptertest.Canary+`.example"}`)
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		reason fault.Reason
		text   string // must be part of the error
	}{
		{"invalid_client, 400", refusal(400, "invalid_client"), fault.ReasonUnauthorized, "400 (invalid_client)"},
		{"invalid_client, 401", refusal(401, "invalid_client"), fault.ReasonUnauthorized, "401 (invalid_client)"},
		{"invalid_scope", refusal(400, "invalid_scope"), fault.ReasonUnauthorized, "(invalid_scope)"},
		{"unauthorized_client", refusal(400, "unauthorized_client"), fault.ReasonUnauthorized, "(unauthorized_client)"},
		{"a word of its own", refusal(400, adaptertest.Canary), fault.ReasonUnauthorized, "answers 400:"},
		{"an error in a 200", refusal(200, "invalid_client"), fault.ReasonUnauthorized, "(invalid_client)"},
		{"forbidden", write(403, adaptertest.Canary), fault.ReasonUnauthorized, "403"},
		{"not found", write(404, "<html>"+adaptertest.Canary), fault.ReasonMisconfigured, "404"},
		{"gone is not the receiver's word", write(410, ""), fault.ReasonMisconfigured, "410"},
		{"too many", write(429, adaptertest.Canary), fault.ReasonUnavailable, "429"},
		{"broken", write(500, adaptertest.Canary), fault.ReasonUnavailable, "500"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, fault.ReasonRedirected, "307"},
		{"a page", write(200, "<html>"+adaptertest.Canary), fault.ReasonMisconfigured, "no token"},
		{"nothing", write(200, ""), fault.ReasonMisconfigured, "no token"},
		{"no token", write(200, `{"token_type": "Bearer"}`), fault.ReasonMisconfigured, "no token"},
		{"another kind", write(200, `{"access_token": "`+adaptertest.Canary+`", "token_type": "mac"}`), fault.ReasonMisconfigured, "kind"},
		{"two lines", write(200, `{"access_token": "a\r\nX-Evil: `+adaptertest.Canary+`", "token_type": "Bearer"}`), fault.ReasonMisconfigured, "kind"},
		{"too long", write(200, `{"access_token": "`+strings.Repeat(adaptertest.Canary, 2000)+`", "token_type": "Bearer"}`), fault.ReasonMisconfigured, ""},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1000)); err != nil {
					return
				}
			}
		}, fault.ReasonMisconfigured, "more than a token"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"access_token": "`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, fault.ReasonInterrupted, "breaks off"},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fault.ReasonInterrupted, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var deps spec.Deps
			i, came, settings := guarded(t, &deps, taken)
			i.answer = c.answer
			err := open(t, deps, "%s", settings).Deliver(t.Context(), adaptertest.NewDelivery())
			f := fault.Of(err)
			if f == nil || f.Class != fault.Destination || f.Reason != c.reason || !strings.Contains(f.Error(), c.text) {
				t.Fatalf("counts as %v", err)
			}
			for _, word := range []string{adaptertest.Canary, i.secret, "geheim", i.URL} {
				if strings.Contains(err.Error(), word) {
					t.Errorf("the error tells %q: %v", word, err)
				}
			}
			if f.Unwrap() != nil {
				t.Errorf("the endpoint's words are kept as a cause: %v", f.Unwrap())
			}
			if came.Load() != 0 {
				t.Error("the message was sent without a token")
			}
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("the secret was carried along a redirect")
	}
}

func TestTokenEndpointOutOfReach(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	var deps spec.Deps
	i, _, settings := guarded(t, &deps, taken)
	for _, c := range []struct {
		name, from, to string
		reason         fault.Reason
	}{
		{"nobody listens", i.URL, "https://" + closed.Addr().String(), fault.ReasonUnreachable},
		{"no such name", i.URL, "https://gibt-es-nicht.invalid", fault.ReasonUnreachable},
		{"not trusted", "token_ca_file: idp.pem\n", "", fault.ReasonCertificate},
		{"address not allowed", "allow_networks: [loopback]", "allow_networks: [127.0.0.2]", fault.ReasonMisconfigured},
		{"no secret", "client_secret_file: client", "client_secret_file: nowhere", fault.ReasonMisconfigured},
		{"no authority", "token_ca_file: idp.pem", "token_ca_file: client", fault.ReasonMisconfigured},
	} {
		f := fault.Of(open(t, deps, "%s", strings.Replace(settings, c.from, c.to, 1)).Deliver(t.Context(), adaptertest.NewDelivery()))
		if f == nil || f.Class != fault.Destination || f.Reason != c.reason || strings.Contains(f.Error(), "geheim") {
			t.Errorf("%s: %v", c.name, f)
		}
	}
	// Its Retry-After is when the destination is asked again.
	i.set(func() {
		i.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "90")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	if f := fault.Of(open(t, deps, "%s", settings).Deliver(t.Context(), adaptertest.NewDelivery())); f == nil || f.RetryAfter != 90*time.Second {
		t.Errorf("the endpoint's Retry-After: %v", f)
	}
	// Slow: an attempt's own end is no fault of the endpoint's, and is not shared.
	release := make(chan struct{})
	i.set(func() {
		i.answer = func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}
	})
	a := open(t, deps, "%s", settings)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if f := fault.Of(a.Deliver(ctx, adaptertest.NewDelivery())); f == nil || f.Class != fault.Retryable || f.Reason != fault.ReasonTimeout {
				t.Errorf("a slow endpoint, and an attempt that ends: %v", f)
			}
		})
	}
	all.Wait()
	close(release)
	i.set(func() { i.answer = nil })
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Errorf("after a slow endpoint: %v", err)
	}
}

// A token file that was rotated between reading and the 401 is read once more.
func TestTokenFileRotated(t *testing.T) {
	deps := spec.Deps{DataDir: t.TempDir()}
	file := filepath.Join(deps.DataDir, "token")
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	writeSecret(t, file, "old")
	var came atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if came.Add(1); r.Header.Get("Authorization") != "Bearer new" {
			if came.Load() > 1 {
				writeSecret(t, file, "new")
			}
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer srv.Close()
	a := open(t, deps, "url: %s\nsecret_file: secret\nallow_networks: [loopback]\ntoken_file: token", srv.URL)
	if f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery())); f == nil || f.Reason != fault.ReasonUnauthorized || came.Load() != 1 {
		t.Errorf("the same token again: %v, %d requests", f, came.Load())
	}
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil || came.Load() != 3 {
		t.Errorf("another token: %v, %d requests", err, came.Load())
	}
}
