package sftp

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"weiche/internal/adapters/credential"
	"weiche/internal/fault"
)

const maxFile = 4 << 20 // bytes; known_hosts of a large house

// logins reads what a login needs, anew at each delivery.
type logins struct {
	pins                                             pins
	knownFile, keyFile, passphraseFile, passwordFile string
}

// login is what the files held at one moment.
type login struct {
	pins                             pins
	knownFile                        string
	known, key, passphrase, password []byte
	tag                              [32]byte // tells one state of the files from another
}

func (l logins) read() (*login, *fault.Error) {
	out := &login{pins: l.pins, knownFile: l.knownFile}
	h := sha256.New()
	for _, f := range []struct {
		name, path string
		into       *[]byte
		text       bool
	}{
		{"known_hosts_file", l.knownFile, &out.known, false}, {"key_file", l.keyFile, &out.key, false},
		{"passphrase_file", l.passphraseFile, &out.passphrase, true}, {"password_file", l.passwordFile, &out.password, true},
	} {
		if f.path == "" {
			continue
		}
		b, err := credential.Read(f.path, maxFile)
		if f.text {
			b = bytes.TrimRight(b, "\r\n")
		}
		if err != nil || len(b) == 0 {
			return nil, misconfigured(err, f.name+" is missing, empty or cannot be read")
		}
		*f.into = b
		fmt.Fprintf(h, "%s %d\n", f.name, len(b))
		h.Write(b)
	}
	h.Sum(out.tag[:0])
	return out, nil
}

// methods are the ways of proving who we are, the key first. Parsing a key with a
// passphrase takes time on purpose, so it is done for a new connection only.
func (l *login) methods() ([]ssh.AuthMethod, *fault.Error) {
	var out []ssh.AuthMethod
	if l.key != nil {
		signer, err := l.signer()
		if err != nil {
			return nil, misconfigured(err, "key_file and passphrase_file give no private key")
		}
		out = append(out, ssh.PublicKeys(signer))
	}
	if l.password != nil {
		password := string(l.password)
		out = append(out, ssh.Password(password), ssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
			// PAM asks for the password this way. Nothing else is answered.
			switch {
			case len(questions) == 0:
				return nil, nil
			case len(questions) == 1 && !echos[0]:
				return []string{password}, nil
			}
			return nil, errors.New("the server asks for more than a password")
		}))
	}
	return out, nil
}

func (l *login) signer() (ssh.Signer, error) {
	if l.passphrase != nil {
		return ssh.ParsePrivateKeyWithPassphrase(l.key, l.passphrase)
	}
	return ssh.ParsePrivateKey(l.key)
}

// pin is one accepted host key.
type pin struct{ fingerprint, keyType string } // keyType is "" where only the fingerprint is known

type pins []pin

func parsePins(list []string) (pins, error) {
	var out pins
	for _, s := range list {
		if strings.HasPrefix(s, "SHA256:") && len(s) == len("SHA256:")+43 {
			out = append(out, pin{s, ""})
			continue
		}
		k, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(s))
		if _, isCert := k.(*ssh.Certificate); err != nil || isCert || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("%q is neither a fingerprint (SHA256:…) nor a public key (ssh-ed25519 AAAA…)", s)
		}
		out = append(out, pin{ssh.FingerprintSHA256(k), k.Type()})
	}
	return out, nil
}

// families are the kinds of host keys, the best first. A server shows one key of
// those it is asked for; of which kind the pinned one is, a fingerprint does not
// say, so they are asked for one after the other.
var families = [][]string{
	{ssh.KeyAlgoED25519},
	{ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521},
	{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
}

// wants says whether a key of this family could be an accepted one.
func (l *login) wants(family []string) bool {
	if l.known != nil {
		return true
	}
	return slices.ContainsFunc(l.pins, func(p pin) bool {
		return p.keyType == "" || slices.Contains(family, p.keyType) || p.keyType == ssh.KeyAlgoRSA && slices.Contains(family, ssh.KeyAlgoRSASHA512)
	})
}

// judge returns what decides over a host key.
func (l *login) judge() (ssh.HostKeyCallback, *fault.Error) {
	if l.known == nil {
		return func(_ string, _ net.Addr, key ssh.PublicKey) error {
			print := ssh.FingerprintSHA256(key)
			if slices.ContainsFunc(l.pins, func(p pin) bool { return p.fingerprint == print }) {
				return nil
			}
			return errors.New("not pinned")
		}, nil
	}
	known, err := knownhosts.New(l.knownFile)
	if err != nil {
		return nil, misconfigured(err, "known_hosts_file is not as OpenSSH keeps it")
	}
	return known, nil
}

func misconfigured(err error, detail string) *fault.Error {
	return fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "%s", detail)
}
