package http_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"weiche/internal/adapters/adaptertest"
	webhook "weiche/internal/adapters/http"
	"weiche/internal/adapters/spec"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

func open(t *testing.T, deps spec.Deps, settings string, args ...any) spec.Adapter {
	t.Helper()
	return adaptertest.Open(t, webhook.Kind(), deps, fmt.Sprintf(settings, args...))
}

func newSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return "whsec_" + base64.StdEncoding.EncodeToString(b)
}

func writeSecret(t *testing.T, path string, lines ...string) {
	t.Helper()
	// Renamed into place, as whoever rotates secrets should.
	if err := os.WriteFile(path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// fachverfahren takes messages, and proves each with the official library.
type fachverfahren struct {
	t      *testing.T
	mu     sync.Mutex
	secret string
	got    []adaptertest.Received
}

func (f *fachverfahren) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := verify(f.secret, body, r.Header); err != nil {
		f.t.Errorf("the signature is refused: %v", err)
		w.WriteHeader(401)
		return
	}
	if r.ContentLength != int64(len(body)) {
		f.t.Errorf("Content-Length is %d, the body has %d bytes", r.ContentLength, len(body))
	}
	m := adaptertest.Received{ID: r.Header.Get("webhook-id"), Beside: map[string]string{}}
	for k, v := range r.Header {
		if k != "Authorization" { // the token's own place
			m.Beside[k] = strings.Join(v, "\n")
		}
	}
	mediaType, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if mediaType == "application/xml" {
		m.Message = body
	} else {
		parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		for {
			p, err := parts.NextPart()
			if err != nil {
				break
			}
			b, _ := io.ReadAll(p)
			if p.FormName() == "message" {
				m.Message = b
			} else {
				m.Attachments = append(m.Attachments, b)
			}
		}
	}
	f.got = append(f.got, m)
	w.WriteHeader(204)
}

// verify is the official library for HMAC, and the standard library's ed25519 by
// the specification's word, since the library that can is not released for Go.
func verify(secret string, body []byte, h http.Header) error {
	seed, ok := strings.CutPrefix(secret, "whsk_")
	if !ok {
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return err
		}
		return wh.Verify(body, h)
	}
	raw, err := base64.StdEncoding.DecodeString(seed)
	if err != nil {
		return err
	}
	public := ed25519.NewKeyFromSeed(raw).Public().(ed25519.PublicKey)
	signed := append([]byte(h.Get("webhook-id")+"."+h.Get("webhook-timestamp")+"."), body...)
	for _, s := range strings.Split(h.Get("webhook-signature"), " ") {
		if text, ok := strings.CutPrefix(s, "v1a,"); ok {
			if sig, err := base64.StdEncoding.DecodeString(text); err == nil && ed25519.Verify(public, signed, sig) {
				return nil
			}
		}
	}
	return errors.New("no v1a signature fits")
}

func (f *fachverfahren) received() []adaptertest.Received {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]adaptertest.Received(nil), f.got...)
}

func TestConformance(t *testing.T) {
	t.Run("plain", func(t *testing.T) { conform(t, false) })
	t.Run("HTTP/2 with client certificate and tokens", func(t *testing.T) { conform(t, true) })
}

func conform(t *testing.T, whole bool) {
	adaptertest.Suite{
		Repeats: true,
		Open: func(t *testing.T, c adaptertest.Condition, deps spec.Deps) adaptertest.Door {
			secret := newSecret()
			file := filepath.Join(deps.SecretsDir, "secret")
			writeSecret(t, file, secret)
			fv := &fachverfahren{t: t, secret: secret}
			door := adaptertest.Door{Received: fv.received, Secrets: []string{secret, strings.TrimPrefix(secret, "whsec_")}}
			end := make(chan struct{})
			handler := conditioned(c, fv, &door, end)
			rotateSigning := func() {
				fv.mu.Lock()
				defer fv.mu.Unlock()
				// Both stand in the file while the receiver knows one only, and
				// it goes from one kind to the other and back.
				old := fv.secret
				if fv.secret = newSecret(); strings.HasPrefix(old, "whsec_") {
					fv.secret = strings.Replace(fv.secret, "whsec_", "whsk_", 1)
				}
				writeSecret(t, file, old, "# from today", fv.secret)
			}
			door.Rotate = rotateSigning
			settings := "secret_file: secret\nallow_networks: [loopback]\n"
			if c == adaptertest.Idle {
				settings += "idle_timeout: 200ms\n"
			}
			if !whole {
				srv := httptest.NewServer(handler)
				t.Cleanup(func() { close(end); srv.Close() })
				door.Adapter = open(t, deps, "url: %s/xoev\n%s", srv.URL, settings)
				return door
			}
			idp, ca := newIssuer(t, "Geheimwort"), newAuthority(t)
			pool := x509.NewCertPool()
			pool.AddCert(ca.cert)
			srv, _ := counted(t, idp.guard(handler), true, &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
			t.Cleanup(func() { close(end) })
			path := func(name string) string { return filepath.Join(deps.SecretsDir, name) }
			writeSecret(t, path("ca"), pemOf(srv))
			writeSecret(t, path("idp"), pemOf(idp.Server))
			writeSecret(t, path("client"), idp.secret)
			writeSecret(t, path("cert"), ca.client("weiche", time.Now().Add(time.Hour)))
			door.Secrets = append(door.Secrets, "Geheimwort", "of-this-issuer")
			door.Rotate = func() {
				rotateSigning()
				idp.revoke()
				idp.set(func() { idp.secret += "!" })
				writeSecret(t, path("client"), idp.secret)
				writeSecret(t, path("cert"), ca.client("weiche", time.Now().Add(time.Hour)))
			}
			door.Adapter = open(t, deps, "url: %s/xoev\n%sca_file: ca\ncert_file: cert\nkey_file: cert\ntoken_url: %s/token\ntoken_ca_file: idp\nclient_id: weiche\nclient_secret_file: client\n", srv.URL, settings, idp.URL)
			return door
		},
	}.Run(t)
}

// conditioned is a receiver in one condition.
func conditioned(c adaptertest.Condition, well http.Handler, door *adaptertest.Door, end <-chan struct{}) http.Handler {
	status := map[adaptertest.Condition]int{adaptertest.RefusesForGood: 422, adaptertest.RefusesForNow: 503, adaptertest.AtFault: 403}[c]
	switch {
	case status != 0:
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(status)
			_, _ = w.Write(body) // an answer that quotes everything
		})
	case c == adaptertest.Slow:
		begun := make(chan struct{}, 10)
		door.Begun = begun
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			begun <- struct{}{}
			select {
			case <-r.Context().Done():
			case <-end:
			}
		})
	case c == adaptertest.CutsOff:
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 100)
			panic(http.ErrAbortHandler)
		})
	}
	return well
}

// Each status, and what it counts as: the table of the package comment.
func TestAnswers(t *testing.T) {
	var status atomic.Int64
	after, date := "17", ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header()["Date"] = nil // none
		if date != "" {
			w.Header().Set("Date", date)
		}
		w.Header().Set("Retry-After", after)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(status.Load()))
	}))
	defer srv.Close()
	deps := spec.Deps{DataDir: t.TempDir()}
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	a := open(t, deps, "url: %s\nsecret_file: secret\nallow_networks: [loopback]", srv.URL)

	for _, c := range []struct {
		class  fault.Class
		reason fault.Reason
		codes  []int
	}{
		{0, fault.ReasonDelivered, []int{200, 201, 202, 204, 299}},
		{fault.Destination, fault.ReasonRedirected, []int{300, 301, 302, 303, 304, 307, 308}},
		{fault.Destination, fault.ReasonUnauthorized, []int{401, 403, 407}},
		{fault.Destination, fault.ReasonMisconfigured, []int{404, 405, 421, 426}},
		{fault.Destination, fault.ReasonGone, []int{410}},
		{fault.Retryable, fault.ReasonTimeout, []int{408}},
		{fault.Retryable, fault.ReasonUnavailable, []int{409, 417, 423, 425, 429, 500, 501, 502, 503, 504, 507, 599}},
		{fault.Permanent, fault.ReasonRefused, []int{400, 402, 406, 411, 412, 413, 414, 415, 422, 431, 451, 499}},
		{fault.Retryable, fault.ReasonUnknown, []int{600, 999}},
	} {
		for _, code := range c.codes {
			status.Store(int64(code))
			err := a.Deliver(t.Context(), adaptertest.NewDelivery())
			if c.reason == fault.ReasonDelivered {
				if err != nil {
					t.Errorf("%d: %v", code, err)
				}
				continue
			}
			f := fault.Of(err)
			if f == nil || f.Class != c.class || f.Reason != c.reason {
				t.Errorf("%d counts as %v, not as %s %s", code, f, c.class, c.reason)
				continue
			}
			if want := 17 * time.Second; c.class == fault.Retryable && f.RetryAfter != want || c.class != fault.Retryable && f.RetryAfter != 0 {
				t.Errorf("%d: Retry-After became %s", code, f.RetryAfter)
			}
		}
	}

	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	deps.Clock = func() time.Time { return now }
	a = open(t, deps, "url: %s\nsecret_file: secret\nallow_networks: [loopback]", srv.URL)
	status.Store(429)
	for _, c := range []struct {
		header, date string
		want         time.Duration
	}{
		{"", "", 0}, {"0", "", 0}, {"-5", "", 0}, {"soon", "", 0}, {"1.5", "", 0}, {"99999999999", "", 24 * time.Hour},
		{"99999999999999999999999", "", 24 * time.Hour}, {"-99999999999999999999999", "", 0},
		{"Sun, 22 Nov 2026 20:01:00 GMT", "", time.Minute}, {"Sun, 22 Nov 2026 19:00:00 GMT", "", 0}, {"Mon, 22 Nov 2027 19:00:00 GMT", "", 24 * time.Hour},
		{"Fri, 31 Dec 9999 23:59:59 GMT", "", 24 * time.Hour}, {"Mon, 01 Jan 0001 00:00:00 GMT", "", 0},
		{"Sunday, 22-Nov-26 20:01:00 GMT", "", time.Minute}, {"Sun Nov 22 20:01:00 2026", "", time.Minute}, // RFC 9110 section 5.6.7
		// The receiver's clock is an hour behind, or ahead.
		{"Sun, 22 Nov 2026 19:01:00 GMT", "Sun, 22 Nov 2026 19:00:00 GMT", time.Minute}, {"Sun, 22 Nov 2026 21:01:00 GMT", "Sun, 22 Nov 2026 21:00:00 GMT", time.Minute},
		{"Sun, 22 Nov 2026 20:01:00 GMT", "gestern", time.Minute}, {"120", "Sun, 22 Nov 2026 21:00:00 GMT", 2 * time.Minute},
	} {
		after, date = c.header, c.date
		if f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery())); f == nil || f.RetryAfter != c.want {
			t.Errorf("Retry-After %q became %v, not %s", c.header, f, c.want)
		}
	}
}

// Faults before any status: who is to blame without an answer.
func TestNoAnswer(t *testing.T) {
	deps := spec.Deps{DataDir: t.TempDir()}
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	garbage := raw(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n\r\n") })
	hangsUp := raw(t, func(net.Conn) {})
	endless := raw(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for range 1000 {
			if _, err := io.WriteString(c, "X-Filler: "+strings.Repeat("a", 1000)+"\r\n"); err != nil {
				return
			}
		}
	})
	for _, c := range []struct {
		name, settings string
		class          fault.Class
		reason         fault.Reason
	}{
		{"connection refused", "url: http://" + closed.Addr().String() + "\nallow_networks: [loopback]", fault.Destination, fault.ReasonUnreachable},
		{"no such host", "url: https://gibt-es-nicht.invalid/", fault.Destination, fault.ReasonUnreachable},
		{"untrusted certificate", "url: " + secure.URL + "\nallow_networks: [loopback]", fault.Destination, fault.ReasonCertificate},
		{"no TLS at all", "url: https" + strings.TrimPrefix(plain.URL, "http") + "\nallow_networks: [loopback]", fault.Destination, fault.ReasonCertificate},
		{"private address", "url: " + secure.URL, fault.Destination, fault.ReasonMisconfigured},
		{"private address behind a name", "url: https://localhost:" + port(secure.URL), fault.Destination, fault.ReasonMisconfigured},
		{"mapped address", "url: 'https://[::ffff:127.0.0.1]:" + port(secure.URL) + "'", fault.Destination, fault.ReasonMisconfigured},
		{"plain text to a public address", "url: http://[3ffe::1]/\nallow_networks: [loopback]", fault.Destination, fault.ReasonMisconfigured},
		{"plain text to another network", "url: " + plain.URL + "\nallow_networks: [private]", fault.Destination, fault.ReasonMisconfigured},
		{"no HTTP", "url: http://" + garbage + "\nallow_networks: [loopback]", fault.Retryable, fault.ReasonInterrupted},
		{"hangs up", "url: http://" + hangsUp + "\nallow_networks: [loopback]", fault.Retryable, fault.ReasonInterrupted},
		{"endless headers", "url: http://" + endless + "\nallow_networks: [loopback]", fault.Retryable, fault.ReasonInterrupted},
		{"ca_file missing", "url: " + secure.URL + "\nallow_networks: [loopback]\nca_file: nowhere", fault.Destination, fault.ReasonMisconfigured},
		{"token_file missing", "url: " + plain.URL + "\nallow_networks: [loopback]\ntoken_file: nowhere", fault.Destination, fault.ReasonMisconfigured},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := open(t, deps, "%s\nsecret_file: secret\n", c.settings)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			f := fault.Of(a.Deliver(ctx, adaptertest.NewDelivery([]byte("a"))))
			if f == nil || f.Class != c.class || f.Reason != c.reason {
				t.Errorf("counts as %v (%v), not as %s %s", f, f.Unwrap(), c.class, c.reason)
			}
		})
	}
}

func port(url string) string { return url[strings.LastIndexByte(url, ':')+1:] }

// raw is a server that reads a request's beginning and then does as it likes.
func raw(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	return adaptertest.Serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 64<<10))
		serve(c)
	}).String()
}

// An answer whose body never ends is an answer: its status counts.
func TestEndlessAnswer(t *testing.T) {
	addr := raw(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			if _, err := io.WriteString(c, "1\r\na\r\n"); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	deps := spec.Deps{DataDir: t.TempDir()}
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	a := open(t, deps, "url: http://%s\nsecret_file: secret\nallow_networks: [loopback]", addr)
	begin := time.Now()
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
}

// A redirect would carry the message to somewhere nobody configured.
func TestRedirectIsNotFollowed(t *testing.T) {
	var reached atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer elsewhere.Close()
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	deps := spec.Deps{DataDir: t.TempDir()}
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	err := open(t, deps, "url: %s\nsecret_file: secret\nallow_networks: [loopback]", srv.URL).Deliver(t.Context(), adaptertest.NewDelivery())
	if f := fault.Of(err); f == nil || f.Reason != fault.ReasonRedirected || reached.Load() {
		t.Errorf("the redirect gave %v, and the other place was reached: %t", err, reached.Load())
	}
}

// The receiver's authority comes from a file and may change while we run.
func TestOwnAuthorityAndToken(t *testing.T) {
	var token atomic.Value
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		token.Store(r.Header.Get("Authorization"))
		w.WriteHeader(204)
	}))
	defer srv.Close()
	deps := spec.Deps{DataDir: t.TempDir()}
	dir := deps.DataDir
	writeSecret(t, filepath.Join(dir, "secret"), newSecret())
	writeSecret(t, filepath.Join(dir, "token"), "geheim-1")
	other, err := otherCA()
	if err != nil {
		t.Fatal(err)
	}
	writeSecret(t, filepath.Join(dir, "ca.pem"), string(other))
	a := open(t, deps, "url: %s\nsecret_file: secret\nallow_networks: [loopback]\nca_file: ca.pem\ntoken_file: token", srv.URL)
	if f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery())); f == nil || f.Reason != fault.ReasonCertificate {
		t.Fatalf("a receiver whose authority is not in ca_file gave %v", f)
	}
	writeSecret(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	for _, want := range []string{"geheim-1", "geheim-2"} {
		writeSecret(t, filepath.Join(dir, "token"), want)
		if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
			t.Fatal(err)
		}
		if got := token.Load(); got != "Bearer "+want {
			t.Errorf("the token sent is %q, %q stands in the file", got, want)
		}
	}
}

// Secrets that do not work pause the destination, and come out nowhere.
func TestSecretFile(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	defer srv.Close()
	deps := spec.Deps{DataDir: t.TempDir()}
	file := filepath.Join(deps.DataDir, "secret")
	a := open(t, deps, "url: %s\nsecret_file: secret\nallow_networks: [loopback]", srv.URL)
	for _, c := range []struct{ name, content string }{
		{"missing", ""}, {"empty", "\n"}, {"comment only", "# soon\n"}, {"no base64", "whsec_not!base64\n"}, {"too short", "whsec_YWJj\n"}, {"good and bad", newSecret() + "\nKennwort123\n"},
	} {
		if c.content != "" {
			writeSecret(t, file, c.content)
		}
		f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery()))
		if f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonMisconfigured {
			t.Errorf("%s: %v", c.name, f)
		}
		for _, word := range []string{"Kennwort", "not!base64", "YWJj", deps.DataDir} {
			if f != nil && strings.Contains(f.Error(), word) {
				t.Errorf("%s: the error quotes %q: %s", c.name, word, f)
			}
		}
	}
	writeSecret(t, file, newSecret())
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Errorf("after the file was mended: %v", err)
	}
}

// The same delivery gives the same bytes, whatever the attempt; and nobody who
// writes an attachment can foresee the boundary.
func TestBodyIsStable(t *testing.T) {
	var bodies [][]byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies = append(bodies, append([]byte(r.Header.Get("Content-Type")+"\n"), b...))
		w.WriteHeader(204)
	}))
	defer srv.Close()
	deps := spec.Deps{DataDir: t.TempDir()}
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	a := open(t, deps, "url: %s\nsecret_file: secret\nallow_networks: [loopback]", srv.URL)
	d := adaptertest.NewDelivery([]byte("eins"))
	other := *d
	other.Attachments = []submission.File{adaptertest.NewFile(d.Attachments[0].Filename, []byte("zwei"))}
	for i, x := range []*submission.Delivery{d, d, &other} {
		x.Attempt = i + 1
		if err := a.Deliver(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(bodies[0], bodies[1]) {
		t.Error("a repeat has another body")
	}
	line := func(b []byte) string { l, _, _ := bytes.Cut(b, []byte("\n")); return string(l) }
	if line(bodies[0]) == line(bodies[2]) {
		t.Error("the boundary does not depend on the attachment's bytes")
	}
}

// A gigabyte-sized body never stands in memory.
func TestStreams(t *testing.T) {
	const size = 256 << 20
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.Copy(io.Discard, r.Body)
		n.Store(got)
		w.WriteHeader(204)
	}))
	defer srv.Close()
	deps := spec.Deps{DataDir: t.TempDir()}
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	a := open(t, deps, "url: %s\nsecret_file: secret\nallow_networks: [loopback]", srv.URL)
	d := adaptertest.NewDelivery([]byte("a"))
	d.Attachments[0].Size = size
	d.Attachments[0].Open = func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, size)), nil }
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := a.Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d MiB were allocated for one message", grown>>20)
	}
	if n.Load() < size {
		t.Errorf("%d bytes came out, more than %d went in", n.Load(), size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A receiver that answers in the middle of a long body and hangs up: the answer
// where it was seen in time, a broken transfer otherwise, never its fault as a whole.
func TestEarlyRefusal(t *testing.T) {
	addr := raw(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		_, _ = io.CopyN(io.Discard, c, 1<<20)
	})
	deps := spec.Deps{DataDir: t.TempDir()}
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	a := open(t, deps, "url: http://%s\nsecret_file: secret\nallow_networks: [loopback]", addr)
	f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 8<<20))))
	if f == nil || f.Class == fault.Permanent && f.Reason != fault.ReasonRefused || f.Class == fault.Destination {
		t.Errorf("an early 413 gave %v", f)
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct{ settings, want string }{
		{"url: https://a.example/x\nsecret_file: s", ""},
		{"secret_file: s", "needs url"},
		{"url: https://a.example", "needs secret_file"},
		{"url: ftp://a.example\nsecret_file: s", "destinations.yaml:1:6: url"},
		{"url: https://u:p@a.example\nsecret_file: s", "user or password"},
		{"url: http://a.example\nsecret_file: s", "allow_networks"},
		{"url: http://10.0.0.1\nsecret_file: s\nallow_networks: [loopback]", ""},
		{"url: https://a.example\nsecret_file: s\nsecretfile: x", "destinations.yaml:3:1: unknown field"},
		{"url: https://a.example\nsecret_file: s\ncert_file: x", "key_file"},
		{"url: https://a.example\nsecret_file: s\nallow_networks: [private, 10.1.2.3/8]", "destinations.yaml:3:1"},
		{"url: https://a.example\nsecret_file: s\nconnect_timeout: -1s", "destinations.yaml:3:18"},
		{"url: https://a.example\nsecret_file: s\nidle_timeout: 0s", "idle_timeout"},
		{"url: https://a.example\nsecret_file: s\nclient_id: x", "needs token_url"},
		{"url: https://a.example\nsecret_file: s\ntoken_url: https://b.example", "needs client_id"},
		{"url: https://a.example\nsecret_file: s\ntoken_url: https://b.example\nclient_id: x", "needs client_secret_file"},
		{"url: https://a.example\nsecret_file: s\ntoken_url: https://b.example\nclient_id: x\nclient_secret_file: c", ""},
		{"url: https://a.example\nsecret_file: s\ntoken_url: https://b.example\nclient_id: x\nclient_secret_file: c\ntoken_file: t", "not from both"},
		{"url: https://a.example\nsecret_file: s\ntoken_url: http://b.example\nclient_id: x\nclient_secret_file: c", "allow_networks"},
		{"url: https://a.example\nsecret_file: s\ntoken_url: https://b.example\nclient_id: x\nclient_secret_file: c\nclient_auth: jwt", "one of basic, post, tls"},
		{"url: https://a.example\nsecret_file: s\ntoken_url: https://b.example\nclient_id: x\nclient_auth: tls", "cert_file"},
		{"url: https://a.example\nsecret_file: s\ntoken_url: https://b.example\nclient_id: x\nclient_auth: tls\ncert_file: c\nkey_file: c", ""},
	} {
		s, err := config.ParseSettings("destinations.yaml", c.settings)
		if err != nil {
			t.Fatal(err)
		}
		_, ps := webhook.Kind().Decode(s)
		if got := ps.Error(); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%q says %q, %q was expected", c.settings, got, c.want)
		}
	}
}

// otherCA is a certificate that vouches for nobody here.
func otherCA() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}
