package http_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
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

// authority vouches for clients.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key}
}

// client makes a certificate with its key, in one PEM text.
func (a *authority) client(name string, until time.Time) string {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// counted is a TLS server, HTTP/2 where asked for, that counts connections.
func counted(t *testing.T, h http.Handler, http2 bool, conf *tls.Config) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	var opened atomic.Int64
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2, srv.TLS = http2, conf
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, &opened
}

func prepare(t *testing.T, srv *httptest.Server) spec.Deps {
	t.Helper()
	deps := spec.Deps{DataDir: t.TempDir()}
	writeSecret(t, filepath.Join(deps.DataDir, "secret"), newSecret())
	if srv != nil && srv.TLS != nil {
		writeSecret(t, filepath.Join(deps.DataDir, "ca.pem"), pemOf(srv))
	}
	return deps
}

const tlsSettings = "url: %s\nsecret_file: secret\nallow_networks: [loopback]\nca_file: ca.pem\n"

// The client certificate changes while the router runs, and while connections
// are busy: no message after that travels under the old one.
func TestClientCertificateRotated(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%t", http2), func(t *testing.T) {
			ca := newAuthority(t)
			pool := x509.NewCertPool()
			pool.AddCert(ca.cert)
			var mu sync.Mutex
			var names []string
			var valid atomic.Value
			valid.Store("alt")
			srv, _ := counted(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				mu.Lock()
				defer mu.Unlock()
				name := r.TLS.PeerCertificates[0].Subject.CommonName
				names = append(names, name)
				if name != valid.Load() {
					w.WriteHeader(http.StatusForbidden)
				}
			}), http2, &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
			deps := prepare(t, srv)
			file := filepath.Join(deps.DataDir, "client.pem")
			a := open(t, deps, tlsSettings+"cert_file: client.pem\nkey_file: client.pem\n", srv.URL)
			must := func(reason fault.Reason) {
				t.Helper()
				f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 100_000))))
				if reason == "" && f != nil || reason != "" && (f == nil || f.Class != fault.Destination || f.Reason != reason) {
					t.Errorf("%v, %q was expected", f, reason)
				}
			}
			must(fault.ReasonMisconfigured) // none yet
			writeSecret(t, file, ca.client("alt", time.Now().Add(time.Hour)))
			must("")
			must("")
			valid.Store("neu")
			must(fault.ReasonUnauthorized)
			writeSecret(t, file, ca.client("neu", time.Now().Add(time.Hour)))
			must("")
			must("")
			writeSecret(t, file, "-----BEGIN NOTHING-----")
			must(fault.ReasonMisconfigured)
			mu.Lock()
			if got := strings.Join(names, " "); got != "alt alt alt neu neu" {
				t.Errorf("the certificates were %s", got)
			}
			mu.Unlock()
		})
	}
}

// A client certificate that the receiver does not take is the destination's
// fault. With TLS 1.3 its word comes when the request is on its way, and writing
// may fail before it is read; then the next attempt tells.
func TestClientCertificateRefused(t *testing.T) {
	ca, pool := newAuthority(t), x509.NewCertPool()
	pool.AddCert(ca.cert)
	stranger := newAuthority(t)
	for name, c := range map[string]struct {
		cert    string
		version uint16
	}{
		"expired, TLS 1.3": {ca.client("weiche", time.Now().Add(-time.Hour)), tls.VersionTLS13}, "expired, TLS 1.2": {ca.client("weiche", time.Now().Add(-time.Hour)), tls.VersionTLS12},
		"unknown, TLS 1.3": {stranger.client("weiche", time.Now().Add(time.Hour)), tls.VersionTLS13}, "unknown, TLS 1.2": {stranger.client("weiche", time.Now().Add(time.Hour)), tls.VersionTLS12},
	} {
		for _, size := range []int{10, 8 << 20} {
			srv, _ := counted(t, taken, true, &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: c.version})
			deps := prepare(t, srv)
			writeSecret(t, filepath.Join(deps.DataDir, "client.pem"), c.cert)
			a := open(t, deps, tlsSettings+"cert_file: client.pem\nkey_file: client.pem\n", srv.URL)
			f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, size))))
			late := c.version == tls.VersionTLS13 && f != nil && f.Reason == fault.ReasonInterrupted
			if f == nil || !late && (f.Class != fault.Destination || f.Reason != fault.ReasonCertificate) {
				t.Errorf("%s, %d bytes: %v (%v)", name, size, f, f.Unwrap())
			}
		}
	}
}

// Messages in turn share a connection, and with HTTP/2 those at once too.
func TestConnectionsAreReused(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		var proto atomic.Value
		srv, opened := counted(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			proto.Store(r.Proto)
			taken(w, r)
		}), http2, nil)
		a := open(t, prepare(t, srv), tlsSettings, srv.URL)
		for range 20 {
			if err := a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a"))); err != nil {
				t.Fatal(err)
			}
		}
		if opened.Load() != 1 {
			t.Errorf("%s: %d connections for 20 messages in turn", proto.Load(), opened.Load())
		}
		if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2]; proto.Load() != want {
			t.Errorf("the protocol is %s, not %s", proto.Load(), want)
		}
		if !http2 {
			continue
		}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if err := a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 200_000))); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if opened.Load() != 1 {
			t.Errorf("HTTP/2: %d connections", opened.Load())
		}
	}
}

// A connection that the receiver closed while it was not used costs no attempt,
// with whatever body: the message goes over another one at once.
func TestReceiverClosesUnusedConnections(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		srv, opened := counted(t, taken, http2, nil)
		a := open(t, prepare(t, srv), tlsSettings, srv.URL)
		for i := range 30 {
			d := adaptertest.NewDelivery()
			if i%2 == 0 {
				d = adaptertest.NewDelivery(make([]byte, 300_000))
			}
			if err := a.Deliver(t.Context(), d); err != nil {
				t.Errorf("http2=%t, message %d: %v", http2, i, err)
			}
			srv.CloseClientConnections()
		}
		if opened.Load() < 30 {
			t.Errorf("http2=%t: only %d connections: the receiver closed none", http2, opened.Load())
		}
	}
}

// A receiver that hangs up on a used connection as soon as the next request is
// there: that is tried again on a new one, and there it counts.
func TestReceiverHangsUpOnTheSecond(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var connections atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				defer func() { _ = c.Close() }()
				buf := make([]byte, 64<<10)
				if _, err := c.Read(buf); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				_, _ = c.Read(buf)
			}()
		}
	}()
	a := open(t, prepare(t, nil), "url: http://%s\nsecret_file: secret\nallow_networks: [loopback]", l.Addr())
	for i := range 10 {
		if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if connections.Load() != 10 {
		t.Errorf("%d connections, one for each message was expected", connections.Load())
	}
}

// A large body is not sent to a receiver that refuses it by its headers, and the
// answer is seen for certain.
func TestLargeBodyIsAskedFor(t *testing.T) {
	for status, reason := range map[int]fault.Reason{413: fault.ReasonRefused, 401: fault.ReasonUnauthorized, 503: fault.ReasonUnavailable} {
		var came atomic.Int64
		addr := raw(t, func(c net.Conn) {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status)
			n, _ := io.Copy(io.Discard, c)
			came.Add(n)
		})
		a := open(t, prepare(t, nil), "url: http://%s\nsecret_file: secret\nallow_networks: [loopback]", addr)
		if f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 8<<20)))); f == nil || f.Reason != reason {
			t.Errorf("%d became %v", status, f)
		}
		if came.Load() != 0 {
			t.Errorf("%d bytes were sent after %d", came.Load(), status)
		}
	}
	// A receiver that knows no Expect gets the body all the same, after 417 as well.
	var expected atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "" {
			expected.Add(1)
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		taken(w, r)
	}))
	defer srv.Close()
	a := open(t, prepare(t, nil), "url: %s\nsecret_file: secret\nallow_networks: [loopback]", srv.URL)
	if f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 2<<20)))); f == nil || f.Class != fault.Retryable {
		t.Errorf("417 became %v", f)
	}
	for range 2 {
		if err := a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 2<<20))); err != nil {
			t.Errorf("after 417: %v", err)
		}
	}
	if expected.Load() != 1 {
		t.Errorf("Expect came %d times", expected.Load())
	}
}

// Answers that mean to hold the router: it waits as long as the attempt may take
// and no longer, and keeps nothing.
func TestHostileAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		serve  func(net.Conn)
		reason fault.Reason
	}{
		{"1xx without end", func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); err != nil {
					return
				}
			}
		}, fault.ReasonInterrupted},
		{"a few 1xx", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c) // closed with something unread, the answer would be lost
		}, fault.ReasonGone},
		{"drips its headers", func(c net.Conn) {
			for _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); err == nil; _, err = io.WriteString(c, "a") {
				time.Sleep(5 * time.Millisecond)
			}
		}, fault.ReasonTimeout},
		{"drips its status", func(c net.Conn) {
			for _, err := io.WriteString(c, "H"); err == nil; _, err = io.WriteString(c, "T") {
				time.Sleep(5 * time.Millisecond)
			}
		}, fault.ReasonTimeout},
		{"a status line without end", func(c net.Conn) {
			for _, err := io.WriteString(c, "HTTP/1.1 200 "); err == nil; _, err = io.WriteString(c, strings.Repeat("a", 1000)) {
			}
		}, fault.ReasonInterrupted},
		{"one header without end", func(c net.Conn) {
			for _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); err == nil; _, err = io.WriteString(c, strings.Repeat("a", 1000)) {
			}
		}, fault.ReasonInterrupted},
		{"changes the protocol", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"+adaptertest.Canary)
			_, _ = io.Copy(io.Discard, c)
		}, fault.ReasonUnknown},
		{"two lengths", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"+adaptertest.Canary)
		}, fault.ReasonInterrupted},
		{"no number", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 "+adaptertest.Canary+" OK\r\n\r\n") }, fault.ReasonInterrupted},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr := raw(t, c.serve)
			a := open(t, prepare(t, nil), "url: http://%s\nsecret_file: secret\nallow_networks: [loopback]", addr)
			limit := 20 * time.Second
			if c.reason == fault.ReasonTimeout {
				limit = 400 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			f := fault.Of(a.Deliver(ctx, adaptertest.NewDelivery([]byte("a"))))
			if f == nil || f.Reason != c.reason || strings.Contains(f.Error(), adaptertest.Canary) {
				t.Errorf("counts as %v, %s was expected", f, c.reason)
			}
		})
	}
}

// The same over HTTP/2, where the answer comes in frames.
func TestHostileAnswersHTTP2(t *testing.T) {
	end := make(chan struct{})
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		reason fault.Reason
	}{
		"1xx without end": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Header().Set("Link", "</a>")
				w.WriteHeader(http.StatusEarlyHints)
			}
		}, fault.ReasonInterrupted},
		"too many headers": {func(w http.ResponseWriter, _ *http.Request) {
			for i := range 100 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("a", 1000))
			}
		}, fault.ReasonInterrupted},
		"a body without end": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, strings.Repeat("a", 1000))
			}
		}, ""},
		"nothing": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-end:
			}
		}, fault.ReasonTimeout},
		"resets": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fault.ReasonInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			srv, _ := counted(t, c.answer, true, nil)
			a := open(t, prepare(t, srv), tlsSettings, srv.URL)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if c.reason == fault.ReasonTimeout {
				ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
			}
			f := fault.Of(a.Deliver(ctx, adaptertest.NewDelivery([]byte("a"))))
			if f == nil && c.reason != "" || f != nil && f.Reason != c.reason {
				t.Errorf("counts as %v (%v), %q was expected", f, f.Unwrap(), c.reason)
			}
		})
	}
	close(end)
}

// A connection whose other end is gone without a word is left after a while, not
// when TCP gives up on it.
func TestSilentConnectionIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the pings")
	}
	srv, _ := counted(t, taken, true, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var silent atomic.Bool // the first connection passes nothing on
	go func() {
		for first := true; ; first = false {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				return
			}
			drop := first
			pass := func(dst, src net.Conn) {
				buf := make([]byte, 32<<10)
				for {
					n, err := src.Read(buf)
					if err != nil {
						_ = dst.Close()
						return
					}
					if !drop || !silent.Load() {
						_, _ = dst.Write(buf[:n])
					}
				}
			}
			go pass(to, from)
			go pass(from, to)
		}
	}()
	a := open(t, prepare(t, srv), tlsSettings, "https://"+l.Addr().String())
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Fatal(err)
	}
	silent.Store(true)
	lost := 0
	for end := time.Now().Add(30 * time.Second); ; lost++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		f := fault.Of(a.Deliver(ctx, adaptertest.NewDelivery()))
		cancel()
		if f == nil {
			break
		}
		if f.Class != fault.Retryable || time.Now().After(end) {
			t.Fatalf("after %d attempts: %v", lost, f)
		}
	}
	if lost == 0 {
		t.Error("the connection was never silent")
	}
}
