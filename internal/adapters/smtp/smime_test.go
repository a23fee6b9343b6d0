package smtp_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/spec"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// issuer is an authority for S/MIME certificates.
type issuer struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, dir: t.TempDir()}
	var err error
	i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &i.key.PublicKey, i.key)
	must(t, err)
	i.cert, err = x509.ParseCertificate(der)
	must(t, err)
	i.file = i.pem("ca.pem", "CERTIFICATE", der)
	return i
}

func (i *issuer) pem(name, kind string, der []byte) string {
	path := filepath.Join(i.dir, name)
	must(i.t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// issue makes <name>.pem and <name>.key of an address's certificate.
func (i *issuer) issue(name string, key crypto.Signer, usage x509.KeyUsage) (cert, secret string) {
	i.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(i.t, err)
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, EmailAddresses: []string{name + "@bauamt.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: usage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, i.cert, key.Public(), i.key)
	must(i.t, err)
	secretDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(i.t, err)
	return i.pem(name+".pem", "CERTIFICATE", der), i.pem(name+".key", "PRIVATE KEY", secretDER)
}

func rsaKey(t *testing.T) crypto.Signer {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	return k
}

func ecKey(t *testing.T) crypto.Signer {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

// openssl runs the command with -out and returns what it wrote.
func openssl(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	said, err := exec.Command(adaptertest.Program(t, "openssl"), append(args, "-out", out)...).CombinedOutput()
	if err != nil {
		t.Logf("openssl %s: %s", args[1], said)
		return nil, err
	}
	b, err := os.ReadFile(out)
	must(t, err)
	return b, nil
}

func bothRead(t *testing.T, d *submission.Delivery, entity []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "entity")
	must(t, os.WriteFile(path, entity, 0o600))
	m := parse(t, path)[0]
	r := m.received()
	if m.Type != "multipart/mixed" || !bytes.Equal(r.Message, d.Message) || len(r.Attachments) != 2 || !bytes.Equal(r.Attachments[0], []byte("Anlage "+adaptertest.Canary)) {
		t.Errorf("a %s with %d parts came out, and not what went in", m.Type, len(m.Parts))
	}
}

// OpenSSL decrypts and verifies what Exim took; each in every combination.
func TestSMIME(t *testing.T) {
	x := startExim(t)
	i := newIssuer(t)
	const encipher, sign = x509.KeyUsageKeyEncipherment, x509.KeyUsageDigitalSignature
	certA, keyA := i.issue("amt", rsaKey(t), encipher)
	certB, keyB := i.issue("archiv", rsaKey(t), 0)
	a, err := os.ReadFile(certA)
	must(t, err)
	b, err := os.ReadFile(certB)
	must(t, err)
	both := filepath.Join(i.dir, "both.pem")
	must(t, os.WriteFile(both, append(a, b...), 0o600))
	for name, c := range map[string]struct {
		encrypt bool
		signer  crypto.Signer
	}{
		"encrypted": {true, nil}, "signed, RSA": {false, rsaKey(t)}, "signed, ECDSA": {false, ecKey(t)}, "signed and encrypted": {true, ecKey(t)},
	} {
		t.Run(name, func(t *testing.T) {
			deps := spec.Deps{DataDir: t.TempDir()}
			secret(t, deps, eximPassword)
			settings := x.base()
			if c.encrypt {
				settings += "encrypt_to_file: " + both + "\n"
			}
			if c.signer != nil {
				cert, key := i.issue("weiche", c.signer, sign)
				settings += "sign_cert_file: " + cert + "\nsign_key_file: " + key + "\n"
			}
			d := adaptertest.NewDelivery([]byte("Anlage "+adaptertest.Canary), bytes.Repeat([]byte{0}, 100_000))
			must(t, open(t, deps, "%s", settings).Deliver(t.Context(), d))
			files := x.files()
			file := files[len(files)-1]
			mail := parse(t, file)[0]
			if mail.header("Message-ID") != "<"+d.ID+"@land.test>" || mail.header("Weiche-Delivery-Id") != d.ID {
				t.Error("the head is another one with S/MIME")
			}
			if !c.encrypt {
				mustVerify(t, i, d, file)
				return
			}
			if len(mail.Parts) != 1 || mail.Parts[0].Type != "application/pkcs7-mime" || mail.Parts[0].Filename != "smime.p7m" {
				t.Errorf("a mail of %d parts came, the first %+v", len(mail.Parts), mail.Parts[0])
			}
			for _, pair := range [][2]string{{certA, keyA}, {certB, keyB}} {
				plain, err := openssl(t, "cms", "-decrypt", "-in", file, "-recip", pair[0], "-inkey", pair[1])
				must(t, err)
				if c.signer == nil {
					bothRead(t, d, plain)
					continue
				}
				inner := filepath.Join(t.TempDir(), "inner")
				must(t, os.WriteFile(inner, plain, 0o600))
				mustVerify(t, i, d, inner)
			}
			if c.signer == nil {
				_, otherKey := i.issue("fremd", rsaKey(t), encipher)
				if plain, err := openssl(t, "cms", "-decrypt", "-in", file, "-inkey", otherKey); err == nil && bytes.Contains(plain, []byte("multipart")) {
					t.Error("another's key opens it")
				}
			}
		})
	}
}

func mustVerify(t *testing.T, i *issuer, d *submission.Delivery, file string) {
	t.Helper()
	plain, err := openssl(t, "cms", "-verify", "-in", file, "-CAfile", i.file)
	must(t, err)
	bothRead(t, d, plain)
	b, err := os.ReadFile(file)
	must(t, err)
	forged := filepath.Join(t.TempDir(), "forged")
	must(t, os.WriteFile(forged, bytes.Replace(b, []byte("Leistung:   99012008001000"), []byte("Leistung:   99012008001001"), 1), 0o600))
	if _, err := openssl(t, "cms", "-verify", "-in", forged, "-CAfile", i.file); err == nil {
		t.Error("a forged mail is verified")
	}
}

func TestSMIMEFaults(t *testing.T) {
	x := startExim(t)
	i := newIssuer(t)
	good, goodKey := i.issue("gut", rsaKey(t), x509.KeyUsageKeyEncipherment|x509.KeyUsageDigitalSignature)
	signs, signsKey := i.issue("unterschreibt", rsaKey(t), x509.KeyUsageDigitalSignature)
	curve, _ := i.issue("kurve", ecKey(t), 0)
	empty := filepath.Join(i.dir, "empty")
	must(t, os.WriteFile(empty, []byte("nichts\n"), 0o600))
	later, earlier := time.Now().Add(2*time.Hour), time.Now().Add(-2*time.Hour)
	for _, c := range []struct {
		name, settings string
		now            time.Time
		class          fault.Class
		reason         fault.Reason
	}{
		{"well", "encrypt_to_file: " + good + "\nsign_cert_file: " + good + "\nsign_key_file: " + goodKey, time.Now(), 0, ""},
		{"recipient's has expired", "encrypt_to_file: " + good, later, fault.Destination, fault.ReasonCertificate},
		{"recipient's not valid yet", "encrypt_to_file: " + good, earlier, fault.Destination, fault.ReasonCertificate},
		{"recipient's for signatures only", "encrypt_to_file: " + signs, time.Now(), fault.Destination, fault.ReasonCertificate},
		{"recipient's key on a curve", "encrypt_to_file: " + curve, time.Now(), fault.Destination, fault.ReasonMisconfigured},
		{"recipient's missing", "encrypt_to_file: nowhere", time.Now(), fault.Destination, fault.ReasonMisconfigured},
		{"no certificate in it", "encrypt_to_file: " + empty, time.Now(), fault.Destination, fault.ReasonMisconfigured},
		{"a key in it", "encrypt_to_file: " + goodKey, time.Now(), fault.Destination, fault.ReasonMisconfigured},
		{"signer's has expired", "sign_cert_file: " + signs + "\nsign_key_file: " + signsKey, later, fault.Destination, fault.ReasonCertificate},
		{"signer's key is another's", "sign_cert_file: " + signs + "\nsign_key_file: " + goodKey, time.Now(), fault.Destination, fault.ReasonMisconfigured},
		{"too large when encrypted", "max_message: 5KB\nencrypt_to_file: " + good, time.Now(), fault.Permanent, fault.ReasonTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(x.files())
			deps := spec.Deps{DataDir: t.TempDir(), Clock: func() time.Time { return c.now }}
			secret(t, deps, eximPassword)
			err := open(t, deps, "%s%s", x.base(), c.settings).Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 1000)))
			if c.reason == "" {
				must(t, err)
				return
			}
			mustFault(t, c.name, err, c.class, c.reason)
			if err != nil && strings.Contains(err.Error(), i.dir) {
				t.Errorf("a path stands in the error: %v", err)
			}
			if len(x.files()) != before {
				t.Error("a mail went out all the same")
			}
		})
	}
}
