package http

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"hash"
	"strings"

	"filippo.io/edwards25519"
)

const (
	versionPublic = "v1a,"
	maxChecked    = 10 // signatures of a header; each costs a hash over the body
)

// privateKey is an ed25519 key, RFC 8032 section 5.1.5.
//
// The standard library signs and verifies a whole slice of bytes. RFC 8032 makes
// the nonce of the message, so that signing reads it twice; a body of gigabytes
// would have to lie in memory, or its attachments be opened once more. Here the
// nonce is drawn at random and hashed with the key (as in
// draft-irtf-cfrg-det-sigs-with-noise), and the body streams by once. Verifiers
// see no difference.
type privateKey struct {
	scalar *edwards25519.Scalar
	prefix []byte
	public publicKey
}

func newPrivateKey(seed []byte) privateKey {
	h := sha512.Sum512(seed)
	s, _ := new(edwards25519.Scalar).SetBytesWithClamping(h[:32]) // fails for other lengths only
	p := new(edwards25519.Point).ScalarBaseMult(s)
	return privateKey{scalar: s, prefix: h[32:], public: publicKey{text: p.Bytes(), point: p}}
}

func (k privateKey) check(prefix string, passed []string) checker {
	return k.public.check(prefix, passed)
}

func (k privateKey) sign(prefix string) signer {
	noise := make([]byte, 64)
	_, _ = rand.Read(noise) // never fails
	h := sha512.New()
	_, _ = h.Write(noise)
	_, _ = h.Write(k.prefix)
	_, _ = h.Write([]byte(prefix))
	r := uniform(h)
	commit := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	return &edSigner{Hash: challenge(commit, k.public.text, prefix), key: k, nonce: r, commit: commit}
}

// challenge is the hash k of RFC 8032 section 5.1.6, before the body.
func challenge(commit, public []byte, prefix string) hash.Hash {
	h := sha512.New()
	_, _ = h.Write(commit)
	_, _ = h.Write(public)
	_, _ = h.Write([]byte(prefix))
	return h
}

func uniform(h hash.Hash) *edwards25519.Scalar {
	s, _ := new(edwards25519.Scalar).SetUniformBytes(h.Sum(nil)) // fails for other lengths only
	return s
}

type edSigner struct {
	hash.Hash
	key    privateKey
	nonce  *edwards25519.Scalar
	commit []byte
	text   string
}

// signature ends the signature. A nonce serves once: asked again, it is the same
// text, whatever was written since.
func (s *edSigner) signature() string {
	if s.nonce != nil {
		sum := new(edwards25519.Scalar).MultiplyAdd(uniform(s.Hash), s.key.scalar, s.nonce)
		s.text = versionPublic + base64.StdEncoding.EncodeToString(append(bytes.Clone(s.commit), sum.Bytes()...))
		s.nonce = nil
	}
	return s.text
}

// publicKey verifies only.
type publicKey struct {
	text  []byte
	point *edwards25519.Point
}

// String returns the key as receivers' libraries take it.
func (k publicKey) String() string {
	return prefixPublic + base64.StdEncoding.EncodeToString(k.text)
}

func (publicKey) sign(string) signer { return nil }

func (k publicKey) check(prefix string, passed []string) checker {
	var out edChecks
	for _, p := range passed {
		text, ok := strings.CutPrefix(p, versionPublic)
		if !ok {
			continue
		}
		sig, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sig) != 64 {
			continue
		}
		s, err := new(edwards25519.Scalar).SetCanonicalBytes(sig[32:])
		if err != nil {
			continue
		}
		out = append(out, edCheck{Hash: challenge(sig[:32], k.text, prefix), key: k, commit: sig[:32], sum: s})
		if len(out) == maxChecked {
			break
		}
	}
	return out
}

type edChecks []edCheck

type edCheck struct {
	hash.Hash
	key    publicKey
	commit []byte
	sum    *edwards25519.Scalar
}

// Write implements io.Writer.
func (e edChecks) Write(p []byte) (int, error) {
	for _, c := range e {
		_, _ = c.Hash.Write(p)
	}
	return len(p), nil
}

// fits is RFC 8032 section 5.1.7, without the cofactor, as the standard library.
func (e edChecks) fits() bool {
	for _, c := range e {
		minus := new(edwards25519.Point).Negate(c.key.point)
		r := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(uniform(c.Hash), minus, c.sum)
		if bytes.Equal(r.Bytes(), c.commit) {
			return true
		}
	}
	return false
}
