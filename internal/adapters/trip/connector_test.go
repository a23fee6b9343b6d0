package trip

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"weiche/internal/adapters/dial"
)

// oneServed serves the first connection; to the others nobody says a word.
type oneServed struct {
	net.Listener
	first  sync.Once
	silent chan net.Conn
}

// Accept implements net.Listener.
func (l *oneServed) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		served := false
		l.first.Do(func() { served = true })
		if served {
			return c, nil
		}
		l.silent <- c
	}
}

// A message that waits for its own connection takes another's when that is free
// first. The handshake it had begun may go on, and nobody waits for it: Close ends
// it with the others, and no connection is opened afterwards.
func TestCloseEndsEveryConnection(t *testing.T) {
	asked, answer := make(chan struct{}, 2), make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-answer
	}))
	l := &oneServed{Listener: srv.Listener, silent: make(chan net.Conn, 4)}
	srv.Listener = l
	srv.StartTLS()
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	loopback, err := dial.Parse([]string{"loopback"})
	if err != nil {
		t.Fatal(err)
	}
	c := &Connector{CAFile: ca, Dialer: dial.Dialer{Allowed: loopback, Timeout: time.Minute}, Idle: 4, IdleTime: time.Minute}
	ask := func() error {
		trip, f := c.Transport()
		if f != nil {
			return f
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, nil)
		if err != nil {
			return err
		}
		resp, err := trip.RoundTrip(req)
		if err == nil {
			Drain(resp.Body)
			err = resp.Body.Close()
		}
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- ask() }()
	<-asked
	go func() { ended <- ask() }()
	other := <-l.silent
	defer func() { _ = other.Close() }()
	close(answer)
	for range 2 {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	_ = other.SetReadDeadline(time.Now().Add(20 * time.Second)) // long before the handshake's own minute
	for buf := make([]byte, 4096); ; {
		_, err := other.Read(buf)
		if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // as it comes from the connection
			t.Fatal("the connection is still open after Close")
		}
		if err != nil {
			break
		}
	}
	if err := ask(); err == nil {
		t.Error("a connection was opened after Close")
	}
}
