package seal_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weiche/internal/fault"
	"weiche/internal/seal"
)

func openSigner(t testing.TB, dir, file string) *seal.Signer {
	t.Helper()
	s, err := seal.OpenSigner(dir, file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestReceiptsVerifyWithNothingButTheStandard checks a signature as a portal
// would: the published key, RFC 7515, RFC 7638, RFC 8037, and no library of ours.
func TestReceiptsVerifyWithNothingButTheStandard(t *testing.T) {
	s := openSigner(t, t.TempDir(), "")
	payload := []byte(`{"id":"1"}`)
	jws, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []struct{ Kty, Crv, X, Kid, Alg, Use, D string }
	}
	if err := json.Unmarshal(s.JWKS(), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("JWKS %s, %v", s.JWKS(), err)
	}
	key := set.Keys[0]
	if key.Kty != "OKP" || key.Crv != "Ed25519" || key.Alg != "EdDSA" || key.Use != "sig" || key.D != "" {
		t.Errorf("JWKS %s", s.JWKS())
	}
	thumb := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + key.X + `"}`))
	if kid := base64.RawURLEncoding.EncodeToString(thumb[:]); key.Kid != kid {
		t.Errorf("kid %q; want the thumbprint %q", key.Kid, kid)
	}
	parts := strings.Split(jws, ".")
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || string(header) != `{"alg":"EdDSA","kid":"`+key.Kid+`"}` {
		t.Errorf("header %s, %v", header, err)
	}
	x, _ := base64.RawURLEncoding.DecodeString(key.X)
	sig, _ := base64.RawURLEncoding.DecodeString(parts[2])
	body, _ := base64.RawURLEncoding.DecodeString(parts[1])
	if !bytes.Equal(body, payload) || !ed25519.Verify(x, []byte(parts[0]+"."+parts[1]), sig) {
		t.Error("the receipt does not verify")
	}
}

func TestTheSamePayloadGivesTheSameReceiptForEver(t *testing.T) {
	dir := t.TempDir()
	a, err := openSigner(t, dir, "").Sign([]byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	s := openSigner(t, dir, "")
	for range 10 {
		if b, err := s.Sign([]byte("payload")); err != nil || a != b {
			t.Fatalf("%q, %v; want %q", b, err, a)
		}
	}
	if plain, err := s.Verify(a); err != nil || string(plain) != "payload" {
		t.Errorf("verified %q, %v", plain, err)
	}
}

func TestForgedReceipts(t *testing.T) {
	s := openSigner(t, t.TempDir(), "")
	good, err := s.Sign([]byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := openSigner(t, t.TempDir(), "").Sign([]byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	p := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	for name, bad := range map[string]string{
		"empty": "", "no JWS": "a.b", "a stranger's": stranger,
		"another payload": p[0] + "." + b64([]byte("Payload")) + "." + p[2],
		"alg none":        b64([]byte(`{"alg":"none"}`)) + "." + p[1] + ".",
		"alg HS256":       b64([]byte(`{"alg":"HS256"}`)) + "." + p[1] + "." + p[2],
		"no signature":    p[0] + "." + p[1] + ".",
		"no kid":          b64([]byte(`{"alg":"EdDSA"}`)) + "." + p[1] + "." + p[2],
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Verify(bad)
			wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
		})
	}
}

func TestReceiptsOfAKeyOfThePastStayGood(t *testing.T) {
	oldDir, dir := t.TempDir(), t.TempDir()
	old := openSigner(t, oldDir, "")
	receipt, err := old.Sign([]byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	openSigner(t, dir, "")
	oldPEM, err := os.ReadFile(filepath.Join(oldDir, "signing.key"))
	if err != nil {
		t.Fatal(err)
	}
	newPEM, err := os.ReadFile(filepath.Join(dir, "signing.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(oldPEM)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.(ed25519.PrivateKey).Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	file := filepath.Join(t.TempDir(), "keys.pem")
	for _, content := range [][]byte{append(bytes.Clone(newPEM), oldPEM...), append(bytes.Clone(newPEM), public...)} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openSigner(t, "", file)
		if _, err := s.Verify(receipt); err != nil {
			t.Error(err)
		}
		if again, err := s.Sign([]byte("payload")); err != nil || again == receipt {
			t.Errorf("the old key still signs, or nothing does: %v", err)
		}
		if n := strings.Count(string(s.JWKS()), `"kid"`); n != 2 || strings.Contains(string(s.JWKS()), `"d"`) {
			t.Errorf("JWKS %s; want two public keys", s.JWKS())
		}
	}
}

func TestSigningKeysThatAreNone(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "no PEM": "hello", "another type": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"broken": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "k")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := seal.OpenSigner("", file); err == nil || !strings.Contains(err.Error(), file) {
				t.Errorf("error %v; want one that names the file", err)
			}
		})
	}
	if _, err := seal.OpenSigner(t.TempDir(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a named file that is missing was made up")
	}
}
