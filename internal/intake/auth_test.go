package intake

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"weiche/internal/config"
	"weiche/internal/fault"
)

const (
	testIssuer   = "https://login.example"
	testAudience = "weiche"
)

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, claims any) string {
	t.Helper()
	opts := &jose.SignerOptions{}
	if kid != "" {
		opts = opts.WithHeader("kid", kid)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func keySetJSON(t *testing.T, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func authConfig(dir string, j *config.JWT) *config.Config {
	h := sha256.Sum256([]byte("the-api-key"))
	return &config.Config{Dir: dir, Portals: map[string]*config.Portal{
		"p":     {ID: "p", Auth: config.Auth{APIKeySHA256: []string{hex.EncodeToString(h[:])}, JWT: j}},
		"other": {ID: "other"},
	}}
}

func TestAuthenticate(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	dir := t.TempDir()
	file := filepath.Join(dir, "jwks.json")
	set := keySetJSON(t, jose.JSONWebKey{Key: ec.Public(), KeyID: "ec", Use: "sig"}, jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "rsa"},
		jose.JSONWebKey{Key: ed.Public(), KeyID: "ed"}, jose.JSONWebKey{Key: stranger.Public(), KeyID: "enc", Use: "enc"})
	// A key of a kind we do not know hides none of the others.
	set = []byte(strings.Replace(string(set), `{"keys":[`, `{"keys":[{"kty":"new","kid":"new"},`, 1))
	if err := os.WriteFile(file, set, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthenticator(authConfig(dir, &config.JWT{Issuer: testIssuer, Audience: testAudience, JWKSFile: "jwks.json", Algorithms: []string{"ES256", "RS256"}}),
		map[string]string{"other": hex.EncodeToString(func() []byte { h := sha256.Sum256([]byte("example")); return h[:] }())}, nil, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) *jwt.NumericDate { return jwt.NewNumericDate(now.Add(d)) }
	claims := func(edit func(*jwt.Claims)) jwt.Claims {
		c := jwt.Claims{Issuer: testIssuer, Audience: jwt.Audience{"x", testAudience}, Expiry: at(time.Minute)}
		if edit != nil {
			edit(&c)
		}
		return c
	}
	public, err := x509.MarshalPKIXPublicKey(ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	none := "eyJhbGciOiJub25lIn0." + strings.Split(sign(t, jose.ES256, ec, "ec", claims(nil)), ".")[1] + "."
	good := sign(t, jose.ES256, ec, "ec", claims(nil))
	cases := []struct {
		name, header, portal string
		reason               fault.Reason
	}{
		{"nothing", "", "", fault.ReasonTokenMissing},
		{"scheme only", "Bearer ", "", fault.ReasonTokenMissing},
		{"api key", "Bearer the-api-key", "p", ""},
		{"scheme in small letters", "bearer the-api-key", "p", ""},
		{"api key of the first start", "Bearer example", "other", ""},
		{"part of the api key", "Bearer the-api-ke", "", fault.ReasonUnauthenticated},
		{"hash instead of the key", "Bearer " + authConfig("", nil).Portals["p"].Auth.APIKeySHA256[0], "", fault.ReasonUnauthenticated},
		{"token", "Bearer " + good, "p", ""},
		{"token of RSA", "Bearer " + sign(t, jose.RS256, rsaKey, "rsa", claims(nil)), "p", ""},
		{"token without kid", "Bearer " + sign(t, jose.ES256, ec, "", claims(nil)), "p", ""},
		{"algorithm not allowed", "Bearer " + sign(t, jose.EdDSA, ed, "ed", claims(nil)), "", fault.ReasonUnauthenticated},
		{"PSS not allowed", "Bearer " + sign(t, jose.PS256, rsaKey, "rsa", claims(nil)), "", fault.ReasonUnauthenticated},
		{"none", "Bearer " + none, "", fault.ReasonUnauthenticated},
		{"HMAC with the public key", "Bearer " + sign(t, jose.HS256, publicPEM, "ec", claims(nil)), "", fault.ReasonUnauthenticated},
		{"stranger's key", "Bearer " + sign(t, jose.ES256, stranger, "ec", claims(nil)), "", fault.ReasonUnauthenticated},
		{"key for encryption", "Bearer " + sign(t, jose.ES256, stranger, "enc", claims(nil)), "", fault.ReasonUnauthenticated},
		{"unknown kid", "Bearer " + sign(t, jose.ES256, ec, "zz", claims(nil)), "", fault.ReasonUnauthenticated},
		{"changed", "Bearer " + good[:len(good)-6] + "AAAAAA", "", fault.ReasonUnauthenticated},
		{"other issuer", "Bearer " + sign(t, jose.ES256, ec, "ec", claims(func(c *jwt.Claims) { c.Issuer = "https://evil.example" })), "", fault.ReasonUnauthenticated},
		{"other audience", "Bearer " + sign(t, jose.ES256, ec, "ec", claims(func(c *jwt.Claims) { c.Audience = jwt.Audience{"x"} })), "", fault.ReasonUnauthenticated},
		{"expired within the leeway", "Bearer " + sign(t, jose.ES256, ec, "ec", claims(func(c *jwt.Claims) { c.Expiry = at(-59 * time.Second) })), "p", ""},
		{"expired", "Bearer " + sign(t, jose.ES256, ec, "ec", claims(func(c *jwt.Claims) { c.Expiry = at(-61 * time.Second) })), "", fault.ReasonTokenExpired},
		{"expired and changed", "Bearer " + sign(t, jose.ES256, stranger, "ec", claims(func(c *jwt.Claims) { c.Expiry = at(-time.Hour) })), "", fault.ReasonUnauthenticated},
		{"for ever", "Bearer " + sign(t, jose.ES256, ec, "ec", claims(func(c *jwt.Claims) { c.Expiry = nil })), "", fault.ReasonUnauthenticated},
		{"not yet, within the leeway", "Bearer " + sign(t, jose.ES256, ec, "ec", claims(func(c *jwt.Claims) { c.NotBefore = at(59 * time.Second) })), "p", ""},
		{"not yet", "Bearer " + sign(t, jose.ES256, ec, "ec", claims(func(c *jwt.Claims) { c.NotBefore = at(61 * time.Second) })), "", fault.ReasonUnauthenticated},
		{"too long", "Bearer " + strings.Repeat("a", maxToken+1), "", fault.ReasonUnauthenticated},
	}
	for _, c := range cases {
		portal, err := a.Authenticate(t.Context(), c.header)
		var got fault.Reason
		if err != nil {
			got, portal = ProblemOf(err).Reason, ""
		}
		if got != c.reason || portal != c.portal {
			t.Errorf("%s: %q %q", c.name, portal, got)
		}
	}
	// A file that changed is read again.
	if err := os.WriteFile(file, keySetJSON(t, jose.JSONWebKey{Key: stranger.Public(), KeyID: "new"}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, now, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if p, err := a.Authenticate(t.Context(), "Bearer "+sign(t, jose.ES256, stranger, "new", claims(nil))); p != "p" || err != nil {
		t.Errorf("the new key is not known: %v", err)
	}
	if _, err := a.Authenticate(t.Context(), "Bearer "+good); err == nil {
		t.Error("the old key still counts")
	}
}

// An issuer's keys are fetched once, again for an unknown kid, but not for each.
func TestKeySetFromURL(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var clock atomic.Int64
	key1, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key2, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	var body atomic.Pointer[[]byte]
	var status, fetched atomic.Int32
	serve := func(b []byte) { body.Store(&b) }
	serve(keySetJSON(t, jose.JSONWebKey{Key: key1.Public(), KeyID: "1"}))
	status.Store(500)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		w.WriteHeader(int(status.Load()))
		_, _ = w.Write(*body.Load())
	}))
	defer srv.Close()
	a, err := NewAuthenticator(authConfig("", &config.JWT{Issuer: testIssuer, Audience: testAudience, JWKSURL: srv.URL}), nil, nil,
		func() time.Time { return now.Add(time.Duration(clock.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	try := func(key *ecdsa.PrivateKey, kid string) fault.Reason {
		_, err := a.Authenticate(t.Context(), "Bearer "+sign(t, jose.ES256, key, kid, jwt.Claims{
			Issuer: testIssuer, Audience: jwt.Audience{testAudience}, Expiry: jwt.NewNumericDate(now.Add(24 * time.Hour)),
		}))
		if err != nil {
			return ProblemOf(err).Reason
		}
		return ""
	}
	expect := func(what string, got, want fault.Reason, fetches int32) {
		t.Helper()
		if got != want || fetched.Load() != fetches {
			t.Errorf("%s: %q, want %q; %d fetches, want %d", what, got, want, fetched.Load(), fetches)
		}
	}
	expect("issuer down", try(key1, "1"), fault.ReasonOverloaded, 1)
	status.Store(200)
	expect("asked for a moment ago", try(key1, "1"), fault.ReasonOverloaded, 1)
	clock.Add(int64(jwksPause))
	expect("issuer back", try(key1, "1"), "", 2)
	for range 5 {
		expect("unknown kid, a moment later", try(key2, "2"), fault.ReasonUnauthenticated, 2)
	}
	serve(keySetJSON(t, jose.JSONWebKey{Key: key1.Public(), KeyID: "1"}, jose.JSONWebKey{Key: key2.Public(), KeyID: "2"}))
	clock.Add(int64(jwksPause))
	expect("unknown kid, later", try(key2, "2"), "", 3)
	clock.Add(int64(jwksLifetime + time.Second))
	status.Store(500)
	expect("cannot be had again", try(key2, "2"), "", 4)
	status.Store(200)
	clock.Add(int64(jwksPause))
	serve(make([]byte, maxJWKS+1))
	expect("too large", try(key2, "2"), "", 5)
}

func TestAuthenticatorRefusesAlgorithms(t *testing.T) {
	for _, alg := range []string{"none", "HS256", "ES256K", ""} {
		if _, err := NewAuthenticator(authConfig("", &config.JWT{Issuer: "i", Audience: "a", JWKSFile: "f", Algorithms: []string{alg}}), nil, nil, nil); err == nil {
			t.Errorf("%q was taken", alg)
		}
	}
}
