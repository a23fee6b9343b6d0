package app

import (
	"crypto/tls"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// certificate is the server's, from files that may be exchanged under way: a
// renewed one counts from the next handshake on. While the files cannot be read
// or do not go together, as between the exchange of one and of the other, the
// last good pair serves. It is safe for concurrent use.
type certificate struct {
	files  [2]string // certificate and key, PEM
	logger *slog.Logger

	mu   sync.Mutex
	seen []os.FileInfo // of the files last read
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
	now := c.look()
	if c.pair != nil && slices.EqualFunc(now, c.seen, unchanged) {
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

// look returns what there is to tell of the files; nil of one that is not there.
func (c *certificate) look() []os.FileInfo {
	out := make([]os.FileInfo, len(c.files))
	for i, f := range c.files {
		if info, err := os.Stat(f); err == nil {
			out[i] = info
		}
	}
	return out
}

// unchanged compares more than times: Kubernetes exchanges a link.
func unchanged(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
