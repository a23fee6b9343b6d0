package http

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Headers of Standard Webhooks.
const (
	HeaderID        = standardwebhooks.HeaderWebhookID
	HeaderTimestamp = standardwebhooks.HeaderWebhookTimestamp
	HeaderSignature = standardwebhooks.HeaderWebhookSignature
)

const (
	secretPrefix = "whsec_"
	minSecret    = 16 // bytes; the specification recommends 24 to 64
	maxFile      = 64 << 10
)

// Errors of Verification.Check. Their texts are fixed.
var (
	ErrNoHeaders  = errors.New("webhook-id, webhook-timestamp or webhook-signature is missing or malformed")
	ErrTimestamp  = errors.New("webhook-timestamp is too far from this clock")
	ErrSignature  = errors.New("no signature fits body and secrets")
	errSecretFile = errors.New("the secret file cannot be used")
)

// Secrets are signing secrets in a file, one a line, "whsec_" and base64. Lines
// that are empty or begin with # do not count. While secrets are rotated both
// stand in the file: every one signs, any one verifies. The file is read again
// when it has changed. Safe for concurrent use.
//
// Bodies may be gigabytes, and the official library takes a body only as one
// slice of bytes; so the HMAC is taken here as the body streams by. That both
// agree is a test.
type Secrets struct {
	path string

	mu   sync.Mutex
	info os.FileInfo
	keys [][]byte
}

// NewSecrets names the file; it is first read when it is first needed.
func NewSecrets(path string) *Secrets { return &Secrets{path: path} }

// load returns the present secrets. The error never quotes the file.
func (s *Secrets) load() ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, fmt.Errorf("%w: it is missing or cannot be read", errSecretFile)
	}
	if s.info != nil && os.SameFile(s.info, info) && info.ModTime().Equal(s.info.ModTime()) && info.Size() == s.info.Size() {
		return s.keys, nil
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", errSecretFile, maxFile)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("%w: it is missing or cannot be read", errSecretFile)
	}
	var keys [][]byte
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(line, secretPrefix))
		if err != nil || len(key) < minSecret {
			return nil, fmt.Errorf("%w: line %d is not whsec_ and the base64 of at least %d bytes", errSecretFile, i+1, minSecret)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: no secret stands in it", errSecretFile)
	}
	s.info, s.keys = info, keys
	return keys, nil
}

// macs is the HMAC of one message under every secret, fed as the body streams by.
type macs []hash.Hash

func newMACs(keys [][]byte, id, timestamp string) macs {
	m := make(macs, len(keys))
	for i, k := range keys {
		m[i] = hmac.New(sha256.New, k)
		_, _ = m[i].Write([]byte(id + "." + timestamp + "."))
	}
	return m
}

// Write implements io.Writer.
func (m macs) Write(p []byte) (int, error) {
	for _, h := range m {
		_, _ = h.Write(p)
	}
	return len(p), nil
}

// header is the value of webhook-signature.
func (m macs) header() string {
	out := make([]string, len(m))
	for i, h := range m {
		out[i] = "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	return strings.Join(out, " ")
}

// Verification checks one message's signature. Write the body to it as it comes,
// then ask Check.
type Verification struct {
	macs   macs
	passed []string
}

// Verify begins to check a message with these headers: ErrNoHeaders,
// ErrTimestamp when the timestamp is further than tolerance from now, or an
// error of the secret file.
func (s *Secrets) Verify(h http.Header, now time.Time, tolerance time.Duration) (*Verification, error) {
	id, ts, sig := h.Get(HeaderID), h.Get(HeaderTimestamp), h.Get(HeaderSignature)
	seconds, err := strconv.ParseInt(ts, 10, 64)
	if id == "" || sig == "" || err != nil {
		return nil, ErrNoHeaders
	}
	if d := now.Sub(time.Unix(seconds, 0)); d > tolerance || d < -tolerance {
		return nil, ErrTimestamp
	}
	keys, err := s.load()
	if err != nil {
		return nil, err
	}
	// The signed text holds the number, not the header's way of writing it.
	return &Verification{macs: newMACs(keys, id, strconv.FormatInt(seconds, 10)), passed: strings.Fields(sig)}, nil
}

// Write implements io.Writer.
func (v *Verification) Write(p []byte) (int, error) { return v.macs.Write(p) }

// Check says whether one of the signatures fits what was written: nil or
// ErrSignature.
func (v *Verification) Check() error {
	fits := false
	for _, h := range v.macs {
		want := []byte("v1," + base64.StdEncoding.EncodeToString(h.Sum(nil)))
		for _, got := range v.passed {
			fits = hmac.Equal(want, []byte(got)) || fits
		}
	}
	if !fits {
		return ErrSignature
	}
	return nil
}
