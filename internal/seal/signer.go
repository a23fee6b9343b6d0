package seal

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"path/filepath"

	jose "github.com/go-jose/go-jose/v4"

	"weiche/internal/fault"
)

// Signer signs receipts and checkpoints. It is safe for concurrent use.
type Signer struct {
	signer jose.Signer
	keys   jose.JSONWebKeySet // public, the signing one first
	jwks   []byte
}

// Sensitive marks the type for the log's redaction.
func (*Signer) Sensitive() {}

// Format prints a placeholder, whatever the verb.
func (*Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[seal.Signer]") }

// OpenSigner reads the signing key, an Ed25519 key as PKCS#8 PEM. Where file is
// empty it is signing.key in dir, made (mode 0600) where it is missing; a named
// file has to exist. Further PEM blocks, private or PUBLIC KEY, are keys of the
// past: published and accepted, never signed with.
func OpenSigner(dir, file string) (*Signer, error) {
	var content []byte
	var err error
	if file != "" {
		content, err = readKeyFile(file)
	} else {
		file = filepath.Join(dir, "signing.key")
		if err = makeDir(dir); err == nil {
			content, err = readOrMakeKeyFile(file, freshSigningKey)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the signing key cannot be opened: %w", err)
	}
	s := new(Signer)
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		private, public, err := parseKey(block)
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w", file, err)
		}
		jwk, err := publicJWK(public)
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w", file, err)
		}
		if s.signer == nil {
			if private == nil {
				return nil, fmt.Errorf("signing key %s: its first PEM block must be the private key to sign with", file)
			}
			s.signer, err = jose.NewSigner(jose.SigningKey{
				Algorithm: jose.EdDSA,
				Key:       jose.JSONWebKey{Key: private, KeyID: jwk.KeyID, Algorithm: string(jose.EdDSA)},
			}, nil)
			if err != nil {
				return nil, fmt.Errorf("signing key %s: %w", file, err)
			}
		}
		s.keys.Keys = append(s.keys.Keys, jwk)
	}
	if s.signer == nil {
		return nil, fmt.Errorf("signing key %s holds no PEM block: an Ed25519 key is expected (openssl genpkey -algorithm ed25519)", file)
	}
	if s.jwks, err = json.Marshal(s.keys); err != nil {
		return nil, err
	}
	return s, nil
}

// Sign returns payload as a compact JWS (EdDSA, kid the RFC 7638 thumbprint).
// The same payload under the same key gives the same JWS.
func (s *Signer) Sign(payload []byte) (string, error) {
	jws, err := s.signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// Verify returns the payload of a compact JWS that one of the signer's keys
// made. Anything else is a fault, Permanent and undecryptable.
func (s *Signer) Verify(compact string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return nil, fault.Wrap(err, fault.Permanent, fault.ReasonUndecryptable, "the signed text is no compact JWS with EdDSA")
	}
	for _, key := range s.keys.Key(jws.Signatures[0].Protected.KeyID) {
		if payload, err := jws.Verify(key); err == nil {
			return payload, nil
		}
	}
	return nil, fault.New(fault.Permanent, fault.ReasonUndecryptable, "the signature is not by a key of this router")
}

// JWKS returns the public keys as a JSON Web Key Set (RFC 7517).
func (s *Signer) JWKS() []byte { return append([]byte(nil), s.jwks...) }

func freshSigningKey() ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(block *pem.Block) (ed25519.PrivateKey, ed25519.PublicKey, error) {
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	}
	if err == nil {
		switch k := key.(type) {
		case ed25519.PrivateKey:
			return k, k.Public().(ed25519.PublicKey), nil
		case ed25519.PublicKey:
			return nil, k, nil
		}
	}
	return nil, nil, fmt.Errorf("a PEM block is no Ed25519 key (PKCS#8 PRIVATE KEY, or PUBLIC KEY)")
}

func publicJWK(public ed25519.PublicKey) (jose.JSONWebKey, error) {
	jwk := jose.JSONWebKey{Key: public, Algorithm: string(jose.EdDSA), Use: "sig"}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return jwk, err
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(sum)
	return jwk, nil
}
