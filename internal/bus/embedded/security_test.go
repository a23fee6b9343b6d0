package embedded_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"weiche/internal/bus"
	"weiche/internal/fault"
)

func certificate(t *testing.T, dir string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// The bus reaches a broker with TLS and each SASL mechanism, and an unknown CA
// is told apart from a broker that is gone.
func TestTLSAndSASL(t *testing.T) {
	dir := t.TempDir()
	cert, ca := certificate(t, dir)
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	for name, text := range map[string]string{good: "pass,word=1\n", bad: "other"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}),
				kfake.EnableSASL(), kfake.Superuser(mechanism, "weiche", "pass,word=1"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			cfg := bus.Config{Brokers: c.ListenAddrs(), ReplicationFactor: 1, AppendTimeout: 3 * time.Second,
				TLS: &bus.TLSConfig{CAFile: ca}, SASL: &bus.SASLConfig{Mechanism: mechanism, Username: "weiche", PasswordFile: good}}
			b, err := bus.Open(t.Context(), cfg, quiet, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.Close() }()
			if err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: "t", Partitions: 1, RetentionMS: -1}}); err != nil {
				t.Fatal(err)
			}
			if err := b.Append(t.Context(), &bus.Record{Topic: "t", Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
			cfg.SASL = &bus.SASLConfig{Mechanism: mechanism, Username: "weiche", PasswordFile: bad}
			// Apache Kafka says what is wrong before it hangs up; kfake only hangs up.
			if _, err := bus.Open(t.Context(), cfg, quiet, nil); err == nil {
				t.Error("a wrong password was let in")
			}
			cfg.TLS = &bus.TLSConfig{}
			if _, err := bus.Open(t.Context(), cfg, quiet, nil); fault.Of(err).Reason != fault.ReasonCertificate {
				t.Errorf("unknown CA: %v (%v)", err, errors.Unwrap(err))
			}
			cfg.SASL.PasswordFile = filepath.Join(dir, "absent")
			if _, err := bus.Open(t.Context(), cfg, quiet, nil); fault.Of(err).Reason != fault.ReasonMisconfigured {
				t.Errorf("absent password file: %v", err)
			}
		})
	}
}
