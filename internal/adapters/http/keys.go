package http

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"

	"filippo.io/edwards25519"

	"weiche/internal/adapters/credential"
)

// What a line of a secret file begins with, by Standard Webhooks.
const (
	prefixShared  = "whsec_" // HMAC-SHA256
	prefixPrivate = "whsk_"  // ed25519, the seed
	prefixPublic  = "whpk_"  // ed25519, for receivers
)

const (
	minShared  = 16 // bytes; the specification recommends 24 to 64
	maxSecrets = 10 // a rotation needs two; each costs a hash over the body
	maxFile    = 64 << 10
)

var errSecretFile = errors.New("the secret file cannot be used")

// key is one line of a secret file.
type key interface {
	// sign begins a signature over what follows the prefix "id.timestamp."; nil
	// where the key cannot sign.
	sign(prefix string) signer
	// check begins to check the signatures of a header's value.
	check(prefix string, passed []string) checker
}

// Secrets are signing secrets in a file, one a line: "whsec_" (HMAC-SHA256, at
// both ends), "whsk_" (ed25519, the sender's) or "whpk_" (its public key, for
// receivers), each followed by base64. Lines that are empty or begin with # do
// not count. While secrets are rotated old and new ones stand in the file, of
// whatever kind: every one signs, any one verifies. The file is read for every
// message. Safe for concurrent use.
//
// Bodies may be gigabytes, and the official library takes a body only as one
// slice of bytes; so signatures are taken here as the body streams by. That both
// agree is a test.
type Secrets struct {
	path string

	mu   sync.Mutex
	text []byte // of keys
	keys []key
}

// NewSecrets names the file; it is first read when it is first needed.
func NewSecrets(path string) *Secrets { return &Secrets{path: path} }

// load returns the present keys. The error never quotes the file.
func (s *Secrets) load() ([]key, error) {
	text, err := credential.Read(s.path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSecretFile, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys != nil && bytes.Equal(text, s.text) {
		return s.keys, nil
	}
	lines, err := parseKeys(text)
	if err != nil {
		return nil, err
	}
	keys := make([]key, len(lines))
	for i, l := range lines {
		keys[i] = l.key
	}
	s.text, s.keys = text, keys
	return keys, nil
}

// signers are load, for a sender: a public key in the file is somebody's mistake.
func (s *Secrets) signers() ([]key, error) {
	keys, err := s.load()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if _, public := k.(publicKey); public {
			return nil, fmt.Errorf("%w: a public key (%s) stands in it, which signs nothing", errSecretFile, prefixPublic)
		}
	}
	return keys, nil
}

// line is a key with its place in the file, from 1.
type line struct {
	number int
	key    key
}

func parseKeys(text []byte) ([]line, error) {
	var out []line
	for i, raw := range strings.Split(string(text), "\n") {
		raw = strings.TrimSpace(raw)
		if raw == "" || raw[0] == '#' {
			continue
		}
		k, err := parseKey(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d is not %w", errSecretFile, i+1, err)
		}
		out = append(out, line{i + 1, k})
	}
	switch {
	case len(out) == 0:
		return nil, fmt.Errorf("%w: no secret stands in it", errSecretFile)
	case len(out) > maxSecrets:
		return nil, fmt.Errorf("%w: more than %d secrets stand in it", errSecretFile, maxSecrets)
	}
	return out, nil
}

func parseKey(raw string) (key, error) {
	decode := base64.StdEncoding.DecodeString
	if rest, ok := strings.CutPrefix(raw, prefixPrivate); ok {
		b, err := decode(rest)
		if err == nil && len(b) == ed25519.PrivateKeySize && bytes.Equal(ed25519.NewKeyFromSeed(b[:ed25519.SeedSize]), b) {
			b = b[:ed25519.SeedSize] // some libraries keep the public key beside the seed
		}
		if err != nil || len(b) != ed25519.SeedSize {
			return nil, fmt.Errorf("%s and the base64 of %d bytes", prefixPrivate, ed25519.SeedSize)
		}
		return newPrivateKey(b), nil
	}
	if rest, ok := strings.CutPrefix(raw, prefixPublic); ok {
		b, err := decode(rest)
		if err != nil {
			return nil, fmt.Errorf("%s and the base64 of %d bytes", prefixPublic, ed25519.PublicKeySize)
		}
		return newPublicKey(b)
	}
	b, err := decode(strings.TrimPrefix(raw, prefixShared))
	if err != nil || len(b) < minShared {
		return nil, fmt.Errorf("%s and the base64 of at least %d bytes", prefixShared, minShared)
	}
	return sharedKey(b), nil
}

func newPublicKey(b []byte) (publicKey, error) {
	p, err := new(edwards25519.Point).SetBytes(b)
	if err != nil || new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		// A point of small order takes signatures that anybody can make.
		return publicKey{}, fmt.Errorf("%s and the base64 of an ed25519 key", prefixPublic)
	}
	return publicKey{text: b, point: p}, nil
}

// NewPrivateKey makes a line with a fresh ed25519 key, NewSharedSecret one with a
// fresh HMAC secret.
func NewPrivateKey() string { return prefixPrivate + fresh() }

// NewSharedSecret is described at NewPrivateKey.
func NewSharedSecret() string { return prefixShared + fresh() }

func fresh() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// PublicKey is what a receiver may know of one secret.
type PublicKey struct {
	Line int    `json:"line"`                 // in the file, from 1
	Text string `json:"public_key,omitempty"` // "whpk_" and base64; "" for a secret that both ends share
}

// PublicKeys lists what receivers may know of a secret file. The error never
// quotes the file.
func PublicKeys(path string) ([]PublicKey, error) {
	text, err := credential.Read(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSecretFile, err)
	}
	lines, err := parseKeys(text)
	if err != nil {
		return nil, err
	}
	out := make([]PublicKey, len(lines))
	for i, l := range lines {
		out[i].Line = l.number
		switch k := l.key.(type) {
		case privateKey:
			out[i].Text = k.public.String()
		case publicKey:
			out[i].Text = k.String()
		}
	}
	return out, nil
}
