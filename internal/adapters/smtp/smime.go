package smtp

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"time"

	"github.com/smallstep/pkcs7"
	"golang.org/x/sync/semaphore"

	"weiche/internal/adapters/credential"
	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// The library's own defaults are DES and are set for the whole process. AES-256
// in CBC with PKCS #1 is what every S/MIME program opens (RFC 8551 section 2.7);
// the library's GCM is not the AuthEnvelopedData of RFC 5083 that they expect.
func init() {
	pkcs7.ContentEncryptionAlgorithm = pkcs7.EncryptionAlgorithmAES256CBC
	pkcs7.KeyEncryptionAlgorithm = pkcs7.OIDEncryptionAlgorithmRSA
}

// No library for CMS that is kept up works on a stream. What it takes was measured
// (TestSMIMEMemory): signing and encrypting has up to five times the mail's size in
// use, and the mail that comes of it up to twice.
const (
	makingBytes  = 512 << 20 // for all destinations together
	makingFactor = 5
	heldFactor   = 2
	maxSMIME     = 100 << 20 // a mail
)

var making = semaphore.NewWeighted(makingBytes)

const maxFile = 1 << 20 // bytes of a certificate, key or password file

// smime signs and encrypts. Its files are read for every message, so that a new
// certificate is used from the next one on.
type smime struct {
	encryptTo         string // certificates of the recipients, PEM; "" for none
	signCert, signKey string
	clock             func() time.Time
}

func (s smime) on() bool { return s.encryptTo != "" || s.signCert != "" }

// wrap signs first and encrypts what was signed, RFC 8551 section 3.7: who
// carries the mail does not see who signed it.
func (s smime) wrap(ctx context.Context, d *submission.Delivery, e entity) (entity, error) {
	if s.signCert != "" {
		var err error
		if e, err = s.sign(ctx, d, e); err != nil {
			return e, err
		}
	}
	if s.encryptTo == "" {
		return e, nil
	}
	certs, err := s.recipients()
	if err != nil {
		return e, err
	}
	plain, err := e.bytes(ctx)
	if err != nil {
		return e, err
	}
	sealed, err := pkcs7.Encrypt(plain, certs)
	if err != nil {
		return e, fault.Wrap(err, fault.Destination, fault.ReasonCertificate, "the message cannot be encrypted to the certificates of encrypt_to_file")
	}
	return encodedBytes("Content-Type: application/pkcs7-mime; smime-type=enveloped-data;\r\n name=\"smime.p7m\"\r\n"+
		"Content-Disposition: attachment; filename=\"smime.p7m\"\r\n", sealed), nil
}

func (s smime) sign(ctx context.Context, d *submission.Delivery, e entity) (entity, error) {
	pair, leaf, err := s.signer()
	if err != nil {
		return e, err
	}
	plain, err := e.bytes(ctx)
	if err != nil {
		return e, err
	}
	signature, err := detached(plain, leaf, pair)
	if err != nil {
		return e, fault.Wrap(err, fault.Destination, fault.ReasonCertificate, "the message cannot be signed with sign_cert_file and sign_key_file")
	}
	// What is between the boundaries has to be the signed bytes, so they are
	// written from here and not made a second time.
	signed := entity{e.head, e.size, func(_ context.Context, w io.Writer) error {
		_, err := w.Write(plain[len(e.head)+2:])
		return err
	}}
	boundary := "weiche-signed-" + wire.Token(d.ID)
	return multipart("Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n micalg=sha-256; boundary=\""+boundary+"\"\r\n", boundary, signed,
		encodedBytes("Content-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\nContent-Disposition: attachment; filename=\"smime.p7s\"\r\n", signature)), nil
}

func detached(plain []byte, leaf *x509.Certificate, pair tls.Certificate) ([]byte, error) {
	sd, err := pkcs7.NewSignedData(plain)
	if err != nil {
		return nil, err
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := sd.AddSigner(leaf, pair.PrivateKey, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, err
	}
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		sd.AddCertificate(c)
	}
	sd.Detach()
	return sd.Finish()
}

func (s smime) signer() (tls.Certificate, *x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(s.signCert, s.signKey)
	if err != nil {
		return pair, nil, fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "sign_cert_file and sign_key_file cannot be loaded")
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return pair, nil, fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "sign_cert_file and sign_key_file cannot be loaded")
	}
	switch pair.PrivateKey.(crypto.Signer).Public().(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
	default:
		return pair, nil, fault.New(fault.Destination, fault.ReasonMisconfigured, "sign_key_file holds a key that is neither RSA nor ECDSA")
	}
	return pair, leaf, s.valid(leaf, "sign_cert_file", x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment)
}

// recipients reads the certificates to encrypt to. They are trusted because they
// are named; that they have not ended is asked all the same.
func (s smime) recipients() ([]*x509.Certificate, error) {
	rest, err := credential.Read(s.encryptTo, maxFile)
	if err != nil {
		return nil, fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "encrypt_to_file cannot be read")
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, fault.New(fault.Destination, fault.ReasonMisconfigured, "encrypt_to_file holds something that is no certificate")
		}
		if _, ok := c.PublicKey.(*rsa.PublicKey); !ok {
			return nil, fault.New(fault.Destination, fault.ReasonMisconfigured, "encrypt_to_file holds a certificate whose key is not RSA")
		}
		if err := s.valid(c, "encrypt_to_file", x509.KeyUsageKeyEncipherment); err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fault.New(fault.Destination, fault.ReasonMisconfigured, "encrypt_to_file holds no certificate")
	}
	return certs, nil
}

func (s smime) valid(c *x509.Certificate, field string, usage x509.KeyUsage) error {
	now := s.clock()
	switch {
	case now.After(c.NotAfter):
		return fault.New(fault.Destination, fault.ReasonCertificate, "a certificate of %s has expired", field)
	case now.Before(c.NotBefore):
		return fault.New(fault.Destination, fault.ReasonCertificate, "a certificate of %s is not valid yet", field)
	case c.KeyUsage != 0 && c.KeyUsage&usage == 0:
		return fault.New(fault.Destination, fault.ReasonCertificate, "a certificate of %s is for another use", field)
	}
	return nil
}
