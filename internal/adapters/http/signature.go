package http

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Headers of Standard Webhooks.
const (
	HeaderID        = standardwebhooks.HeaderWebhookID
	HeaderTimestamp = standardwebhooks.HeaderWebhookTimestamp
	HeaderSignature = standardwebhooks.HeaderWebhookSignature
)

const versionShared = "v1,"

// Errors of Verify and Verification.Check. Their texts are fixed.
var (
	ErrNoHeaders = errors.New("webhook-id, webhook-timestamp or webhook-signature is missing or malformed")
	ErrTimestamp = errors.New("webhook-timestamp is too far from this clock")
	ErrSignature = errors.New("no signature fits body and secrets")
)

// signer takes a body as it streams by.
type signer interface {
	io.Writer
	signature() string
}

// checker takes a body as it streams by.
type checker interface {
	io.Writer
	fits() bool
}

// sharedKey is known at both ends.
type sharedKey []byte

func (k sharedKey) mac(prefix string) hash.Hash {
	h := hmac.New(sha256.New, k)
	_, _ = h.Write([]byte(prefix))
	return h
}

func (k sharedKey) sign(prefix string) signer { return macSigner{k.mac(prefix)} }

func (k sharedKey) check(prefix string, passed []string) checker {
	return macCheck{macSigner{k.mac(prefix)}, passed}
}

type macSigner struct{ hash.Hash }

func (s macSigner) signature() string {
	return versionShared + base64.StdEncoding.EncodeToString(s.Sum(nil))
}

type macCheck struct {
	macSigner
	passed []string
}

func (c macCheck) fits() bool {
	want, ok := []byte(c.signature()), false
	for _, p := range c.passed {
		ok = hmac.Equal(want, []byte(p)) || ok
	}
	return ok
}

func signedPrefix(id, timestamp string) string { return id + "." + timestamp + "." }

// signatures are one message's, under every key.
type signatures []signer

func newSignatures(keys []key, id, timestamp string) signatures {
	out := make(signatures, len(keys))
	for i, k := range keys {
		out[i] = k.sign(signedPrefix(id, timestamp))
	}
	return out
}

// Write implements io.Writer.
func (s signatures) Write(p []byte) (int, error) {
	for _, one := range s {
		_, _ = one.Write(p)
	}
	return len(p), nil
}

// header is the value of webhook-signature.
func (s signatures) header() string {
	out := make([]string, len(s))
	for i, one := range s {
		out[i] = one.signature()
	}
	return strings.Join(out, " ")
}

// Verification checks one message's signature. Write the body to it as it comes,
// then ask Check.
type Verification struct{ checks []checker }

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
	v, passed := &Verification{}, strings.Fields(sig)
	for _, k := range keys {
		// The signed text holds the number, not the header's way of writing it.
		v.checks = append(v.checks, k.check(signedPrefix(id, strconv.FormatInt(seconds, 10)), passed))
	}
	return v, nil
}

// Write implements io.Writer.
func (v *Verification) Write(p []byte) (int, error) {
	for _, c := range v.checks {
		_, _ = c.Write(p)
	}
	return len(p), nil
}

// Check says whether one of the signatures fits what was written: nil or
// ErrSignature.
func (v *Verification) Check() error {
	fits := false
	for _, c := range v.checks {
		fits = c.fits() || fits
	}
	if !fits {
		return ErrSignature
	}
	return nil
}
