package http

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"slices"
	"sync"
	"time"

	"weiche/internal/adapters/dial"
	"weiche/internal/fault"
)

const maxPEM = 4 << 20 // bytes; a system's whole bundle is a tenth of it

// pingTime is how long an HTTP/2 connection may be silent before it is asked
// whether it lives, and how long it has for the answer. A dead one would hold
// every message of its destination until TCP gives up.
const pingTime = 5 * time.Second

// connector makes the transport and remakes it when one of its files has changed,
// so that no connection lives on under a certificate that was replaced. It is
// safe for concurrent use.
type connector struct {
	caFile, certFile, keyFile string
	dialer                    dial.Dialer
	idle                      int // connections kept, 0 for none
	idleTime                  time.Duration

	mu    sync.Mutex
	files [][]byte // trip was made with
	trip  *http.Transport
}

// transport returns the present transport.
func (c *connector) transport() (*http.Transport, *fault.Error) {
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

func (c *connector) read() ([][]byte, *fault.Error) {
	files := make([][]byte, 3)
	for i, path := range []string{c.caFile, c.certFile, c.keyFile} {
		if path == "" {
			continue
		}
		b, err := readFile(path, maxPEM)
		if err != nil {
			return nil, misconfigured(err, []string{"ca_file", "cert_file", "key_file"}[i]+": "+err.Error())
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
			return nil, misconfigured(nil, "ca_file holds no certificate")
		}
	}
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, misconfigured(err, "cert_file and key_file hold no certificate with its key")
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

func (c *connector) make(conf *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // a proxy would resolve names out of our sight
		DialContext:            c.dialer.DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    c.dialer.Timeout,
		ExpectContinueTimeout:  time.Second,
		MaxIdleConns:           c.idle,
		MaxIdleConnsPerHost:    max(1, c.idle),
		DisableKeepAlives:      c.idle == 0,
		IdleConnTimeout:        c.idleTime,
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

// close closes idle connections; those in use follow when they are done.
func (c *connector) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trip != nil {
		c.trip.CloseIdleConnections()
	}
}

func misconfigured(err error, detail string) *fault.Error {
	return fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "%s", detail)
}
