// Package trip is what adapters that speak HTTP share: a transport that follows
// its certificate files, and who is at fault for an answer or for none.
//
// It follows no redirects, uses no proxy and speaks to no address that package
// dial refuses. Of an answer's words it repeats nothing.
package trip

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"weiche/internal/adapters/credential"
	"weiche/internal/adapters/dial"
	"weiche/internal/fault"
)

const maxPEM = 4 << 20 // bytes; a system's whole bundle is a tenth of it

// pingTime is how long an HTTP/2 connection may be silent before it is asked
// whether it lives, and how long it has for the answer. A dead one would hold
// every message of its destination until TCP gives up.
const pingTime = 5 * time.Second

// Connector makes the transport and remakes it when one of its files has changed,
// so that no connection lives on under a certificate that was replaced. It is
// safe for concurrent use.
type Connector struct {
	CAFile, CertFile, KeyFile string
	Dialer                    dial.Dialer
	Idle                      int // connections kept, 0 for none
	IdleTime                  time.Duration

	mu    sync.Mutex
	files [][]byte // trip was made with
	trip  *http.Transport

	connsMu sync.Mutex // taken under mu, never the other way
	open    map[*conn]struct{}
	closed  bool
}

// conn is a connection that Close can find. A transport that is told to close
// what is idle knows nothing of a connection whose handshake is still under way
// for an attempt that was given up.
type conn struct {
	net.Conn
	c *Connector
}

// Close implements net.Conn.
func (k *conn) Close() error {
	k.c.connsMu.Lock()
	delete(k.c.open, k)
	k.c.connsMu.Unlock()
	return k.Conn.Close()
}

func (c *Connector) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := c.Dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.connsMu.Lock()
	defer c.connsMu.Unlock()
	if c.closed {
		_ = raw.Close()
		return nil, net.ErrClosed
	}
	k := &conn{raw, c}
	if c.open == nil {
		c.open = map[*conn]struct{}{}
	}
	c.open[k] = struct{}{}
	return k, nil
}

// Transport returns the present transport.
func (c *Connector) Transport() (*http.Transport, *fault.Error) {
	files, f := c.read()
	if f != nil {
		return nil, f
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trip != nil && slices.EqualFunc(files, c.files, bytes.Equal) {
		return c.trip, nil
	}
	conf, f := tlsConfig(files[0], files[1], files[2])
	if f != nil {
		return nil, f
	}
	if c.trip != nil {
		c.trip.CloseIdleConnections() // those in use follow when they are done
	}
	c.files, c.trip = files, c.make(conf)
	return c.trip, nil
}

func (c *Connector) read() ([][]byte, *fault.Error) {
	files := make([][]byte, 3)
	for i, path := range []string{c.CAFile, c.CertFile, c.KeyFile} {
		if path == "" {
			continue
		}
		b, err := credential.Read(path, maxPEM)
		if err != nil {
			return nil, Misconfigured(err, []string{"ca_file", "cert_file", "key_file"}[i]+": "+err.Error())
		}
		files[i] = b
	}
	return files, nil
}

func tlsConfig(ca, cert, key []byte) (*tls.Config, *fault.Error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != nil {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			return nil, Misconfigured(nil, "ca_file holds no certificate")
		}
	}
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, Misconfigured(err, "cert_file and key_file hold no certificate with its key")
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

func (c *Connector) make(conf *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // a proxy would resolve names out of our sight
		DialContext:            c.dial,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    c.Dialer.Timeout,
		ExpectContinueTimeout:  time.Second,
		MaxIdleConns:           c.Idle,
		MaxIdleConnsPerHost:    max(1, c.Idle),
		DisableKeepAlives:      c.Idle == 0,
		IdleConnTimeout:        c.IdleTime,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     64 << 10,
			MaxReceiveBufferPerConnection: 1 << 20,
			SendPingTimeout:               pingTime,
			PingTimeout:                   pingTime,
		},
	}
}

// Close closes all connections, those included that an attempt which was given
// up has begun to open. It comes after the last attempt.
func (c *Connector) Close() {
	c.mu.Lock()
	trip := c.trip
	c.mu.Unlock()
	c.connsMu.Lock()
	c.closed = true
	open := slices.Collect(maps.Keys(c.open))
	c.connsMu.Unlock()
	if trip != nil {
		trip.CloseIdleConnections()
	}
	for _, k := range open {
		_ = k.Close()
	}
}

// Misconfigured is the destination's fault: its settings, or a file they name.
func Misconfigured(err error, detail string) *fault.Error {
	return fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "%s", detail)
}
