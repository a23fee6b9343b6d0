package bus_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"weiche/internal/bus"
	"weiche/internal/kafkatest"
)

const (
	audience     = "kafka.example"
	issuerName   = "https://issuer.example"
	clientID     = "weiche@router"
	clientSecret = "client:secret+1"
)

// issuer signs tokens, and gives them out at a token endpoint.
type issuer struct {
	keys   string // file:// address of its public keys (JWKS)
	signer jose.Signer
	server *httptest.Server
	ca     *kafkatest.Authority
	life   atomic.Int64 // of the endpoint's tokens, seconds
	given  atomic.Int64
}

// claims of a token; zero values are the right ones.
type claims struct {
	audience string
	end      time.Duration // from now, default an hour
}

func newIssuer(t *testing.T, ca *kafkatest.Authority) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		t.Fatal(err)
	}
	i := &issuer{keys: "file://" + file, ca: ca}
	i.life.Store(3600)
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	i.server = httptest.NewUnstartedServer(http.HandlerFunc(i.serve))
	i.server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue("issuer", time.Now().Add(time.Hour)).Pair(t)}, MinVersion: tls.VersionTLS12}
	i.server.StartTLS()
	t.Cleanup(i.server.Close)
	return i
}

func (i *issuer) sign(c claims) (string, error) {
	if c.audience == "" {
		c.audience = audience
	}
	if c.end == 0 {
		c.end = time.Hour
	}
	now := time.Now()
	return jwt.Signed(i.signer).Claims(jwt.Claims{Issuer: issuerName, Subject: "weiche", Audience: jwt.Audience{c.audience},
		IssuedAt: jwt.NewNumericDate(now.Add(-time.Hour)), Expiry: jwt.NewNumericDate(now.Add(c.end))}).Claims(map[string]any{"scope": []string{"kafka"}}).Serialize()
}

func (i *issuer) token(t *testing.T, c claims) string {
	t.Helper()
	s, err := i.sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve is a token endpoint as RFC 6749 has it. Its refusals repeat the secret, as
// a careless one might.
func (i *issuer) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Query().Has("broken"):
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case r.URL.Query().Has("redirect"):
		http.Redirect(w, r, "/token", http.StatusFound)
		return
	}
	id, secret, ok := r.BasicAuth()
	if !ok || id != "weiche%40router" || secret != "client%3Asecret%2B1" || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "kafka more" {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client", "error_description": "not the secret: " + secret + r.FormValue("client_secret")})
		return
	}
	life := time.Duration(i.life.Load()) * time.Second
	c := claims{end: life}
	if r.URL.Query().Has("expired") {
		c.end = -time.Minute
	}
	token, err := i.sign(c)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	i.given.Add(1)
	fmt.Fprintf(w, `{"access_token": %q, "token_type": "Bearer", "expires_in": %d}`, token, int(life.Seconds()))
}

func (i *issuer) file(t *testing.T, token string) *bus.SASLConfig {
	return &bus.SASLConfig{Mechanism: "OAUTHBEARER", TokenFile: secret(t, token)}
}

func (i *issuer) endpoint(t *testing.T) *bus.SASLConfig {
	return &bus.SASLConfig{Mechanism: "OAUTHBEARER", Token: &bus.TokenConfig{
		URL: i.server.URL + "/token", ClientID: clientID, ClientSecretFile: secret(t, clientSecret), Scope: "kafka more", CAFile: i.ca.File}}
}
