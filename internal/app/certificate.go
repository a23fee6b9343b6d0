package app

import (
	"crypto/tls"
	"log/slog"
	"sync"
	"time"

	"weiche/internal/filestamp"
)

// certificate is the server's, from files that may be exchanged under way: a
// renewed one counts from the next handshake on. While the files cannot be read
// or do not go together, as between the exchange of one and of the other, the
// last good pair serves. It is safe for concurrent use.
type certificate struct {
	files  [2]string // certificate and key, PEM
	logger *slog.Logger

	mu   sync.Mutex
	seen filestamp.Stamps // of the files last read
	pair *tls.Certificate
}

// openCertificate reads the files for the first time.
func openCertificate(logger *slog.Logger, cert, key string) (*certificate, error) {
	c := &certificate{files: [2]string{cert, key}, logger: logger}
	_, err := c.get(nil)
	return c, err
}

// get implements tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := filestamp.Of(c.files[:]...)
	if c.pair != nil && now.Same(c.seen) {
		return c.pair, nil
	}
	c.seen = now
	pair, err := tls.LoadX509KeyPair(c.files[0], c.files[1])
	switch {
	case err == nil:
		c.pair = &pair
	case c.pair == nil:
		return nil, err
	default:
		c.logger.Error("the changed certificate cannot be used; the one before serves on until its end", "cert_file", c.files[0], "key_file", c.files[1],
			"not_after", c.pair.Leaf.NotAfter.Format(time.RFC3339), "error", err)
	}
	return c.pair, nil
}
