package test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weiche/internal/kafkatest"
)

// Portals post over TLS. A certificate that is not there ends the start, and a
// renewed one counts without another.
func TestPortalsOverTLS(t *testing.T) {
	needShared(t)
	authority := kafkatest.NewAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	r := newRouter(t, "WEICHE_TLS_CERT_FILE="+cert, "WEICHE_TLS_KEY_FILE="+key)
	if err := r.start(); err == nil || !strings.Contains(err.Error(), "the public listener's certificate (tls)") || !strings.Contains(err.Error(), cert) {
		t.Fatalf("started without its certificate: %v", err)
	}
	put := func(c kafkatest.Certificate) {
		for to, from := range map[string]string{cert: c.CertFile, key: c.KeyFile} {
			b, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	put(authority.Issue("first", time.Now().Add(time.Hour)))
	r.Start()

	ca, err := os.ReadFile(authority.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	post := func(idempotencyKey string) (status int, server string) {
		t.Helper()
		portal := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}
		body := example(t, "gewerbeanmeldung", "minimal", nil)
		req, err := http.NewRequest("POST", strings.Replace(r.Public, "http:", "https:", 1)+"/v1/submissions", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+r.Keys["service-bw"])
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", idempotencyKey)
		res, err := portal.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode, res.TLS.PeerCertificates[0].Subject.CommonName
	}
	if status, server := post("one"); status != http.StatusAccepted || server != "first" {
		t.Errorf("%d by %s", status, server)
	}
	put(authority.Issue("second", time.Now().Add(time.Hour)))
	if status, server := post("two"); status != http.StatusAccepted || server != "second" {
		t.Errorf("after the renewal %d by %s", status, server)
	}
	// Plain text is told what to do instead of being read.
	if a, err := r.do("GET", "/v1/submissions", r.Keys["service-bw"], nil, nil); err != nil || a.Status != http.StatusBadRequest {
		t.Errorf("plain HTTP: %v %+v", err, a.Status)
	}
}
