package app

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weiche/internal/kafkatest"
)

// A renewed certificate counts without a restart, and one that cannot be used
// closes no door.
func TestCertificateIsRenewedUnderWay(t *testing.T) {
	authority := kafkatest.NewAuthority(t)
	one, two := authority.Issue("one", time.Now().Add(time.Hour)), authority.Issue("two", time.Now().Add(time.Hour))
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	// As certificates are renewed: another file takes the name.
	put := func(from, to string) {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(to+".new", to); err != nil {
			t.Fatal(err)
		}
	}
	var told lines
	logger := slog.New(slog.NewTextHandler(&told, nil))
	if _, err := openCertificate(logger, cert, key); err == nil || !strings.Contains(err.Error(), cert) {
		t.Fatalf("opened what is not there: %v", err)
	}
	put(one.CertFile, cert)
	put(one.KeyFile, key)
	c, err := openCertificate(logger, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) { _ = conn.(*tls.Conn).Handshake(); _ = conn.Close() }(conn)
		}
	}()
	greeted := func(want string) {
		t.Helper()
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the name is looked at here
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if got := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("greeted by %q, want %q", got, want)
		}
	}
	greeted("one")
	put(two.CertFile, cert) // the key is not there yet
	greeted("one")
	greeted("one")
	if n := told.Load(); n != 1 {
		t.Errorf("told %d times", n)
	}
	put(two.KeyFile, key)
	greeted("two")
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	greeted("two")
}

// lines counts what is logged.
type lines struct{ atomic.Int32 }

func (l *lines) Write(p []byte) (int, error) { l.Add(1); return len(p), nil }

// A handshake costs no reading of keys.
func BenchmarkCertificate(b *testing.B) {
	issued := kafkatest.NewAuthority(b).Issue("one", time.Now().Add(time.Hour))
	c, err := openCertificate(slog.New(slog.DiscardHandler), issued.CertFile, issued.KeyFile)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("kept", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.get(nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read at each handshake", func(b *testing.B) {
		for b.Loop() {
			if _, err := tls.LoadX509KeyPair(issued.CertFile, issued.KeyFile); err != nil {
				b.Fatal(err)
			}
		}
	})
}
