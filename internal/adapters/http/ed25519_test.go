package http

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/edwards25519"
	"pgregory.net/rapid"
)

func secretsOf(t interface {
	Fatal(...any)
	TempDir() string
}, lines ...string) *Secrets {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return NewSecrets(file)
}

// passes says whether a body with this signature is taken.
func passes(t *testing.T, s *Secrets, id, sig string, at time.Time, body []byte) bool {
	t.Helper()
	h := http.Header{}
	h.Set(HeaderID, id)
	h.Set(HeaderTimestamp, "1614265330")
	h.Set(HeaderSignature, sig)
	v, err := s.Verify(h, at, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range body {
		_, _ = v.Write([]byte{b})
	}
	return v.Check() == nil
}

// The example of the official Go library's own test (webhook_asymmetric_test.go).
func TestPublishedSignature(t *testing.T) {
	const (
		seed = "VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="
		id   = "msg_p5jXN8AQM9LWM0D4loKWxJek"
		sig  = "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
	)
	raw, err := base64.StdEncoding.DecodeString(seed)
	if err != nil {
		t.Fatal(err)
	}
	private := ed25519.NewKeyFromSeed(raw)
	public := "whpk_" + base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
	now, body := time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`)
	const shared = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	for name, s := range map[string]*Secrets{
		"seed": secretsOf(t, "whsk_"+seed), "seed and public": secretsOf(t, "whsk_"+base64.StdEncoding.EncodeToString(private)),
		"public": secretsOf(t, public), "among others": secretsOf(t, shared, "# from today", public),
	} {
		for _, c := range []struct {
			id, sig string
			body    []byte
			want    bool
		}{
			{id, sig, body, true},
			{id, "v1,AAAA v2,BBBB v1a,CCCC " + sig, body, true},
			{id + "x", sig, body, false},
			{id, sig, append(bytes.Clone(body), ' '), false},
			{id, "v1," + sig[4:], body, false},
			{id, sig[:20] + "A" + sig[21:], body, false},
			{id, strings.Repeat("v1a,"+base64.StdEncoding.EncodeToString(make([]byte, 64))+" ", 5) + sig, body, true},
			{id, strings.Repeat("v1a,"+base64.StdEncoding.EncodeToString(make([]byte, 64))+" ", maxChecked) + sig, body, false}, // work is bounded
		} {
			if got := passes(t, s, c.id, c.sig, now, c.body); got != c.want {
				t.Errorf("%s: %.60s passes: %t", name, c.sig, got)
			}
		}
	}
	keys, err := PublicKeys(secretsOf(t, shared, "", "whsk_"+seed).path)
	if err != nil || len(keys) != 2 || keys[0] != (PublicKey{Line: 1}) || keys[1] != (PublicKey{Line: 3, Text: public}) {
		t.Errorf("the public keys are %v (%v)", keys, err)
	}
}

// The standard library judges what is signed here, and what it signs is taken
// here, whatever the key, the body and the way the body comes in pieces.
func TestAgreesWithTheStandardLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
		pieces := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 200), 0, 5).Draw(t, "pieces")
		private := ed25519.NewKeyFromSeed(seed)
		public := private.Public().(ed25519.PublicKey)
		key := newPrivateKey(seed)
		if !bytes.Equal(key.public.text, public) {
			t.Fatal("the public key is another one")
		}
		write := func(s interface{ Write([]byte) (int, error) }) {
			for _, p := range pieces {
				_, _ = s.Write(p)
			}
		}
		text := append([]byte("id.1."), bytes.Join(pieces, nil)...)
		ours, again := key.sign("id.1."), key.sign("id.1.")
		write(ours)
		write(again)
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(ours.signature(), "v1a,"))
		if err != nil || !ed25519.Verify(public, text, raw) {
			t.Fatal("the standard library refuses the signature")
		}
		if ours.signature() == again.signature() {
			t.Fatal("a nonce was used twice")
		}
		first := ours.signature()
		_, _ = ours.Write([]byte("more"))
		if ours.signature() != first {
			t.Fatal("one nonce signed two texts")
		}

		sig := ed25519.Sign(private, text)
		switch rapid.IntRange(0, 3).Draw(t, "harm") {
		case 1:
			sig[rapid.IntRange(0, 63).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 2: // the same signature written otherwise: S + L
			sig = append(sig[:32], addOrder(sig[32:])...)
		case 3:
			pieces = append(pieces, []byte("y"))
		}
		c := key.check("id.1.", []string{"v1a," + base64.StdEncoding.EncodeToString(sig)})
		write(c)
		if got, want := c.fits(), ed25519.Verify(public, append([]byte("id.1."), bytes.Join(pieces, nil)...), sig); got != want {
			t.Fatalf("taken: %t, by the standard library: %t", got, want)
		}
	})
}

// addOrder adds the group's order, little endian, which a lax verifier takes for
// the same number.
func addOrder(s []byte) []byte {
	order, _ := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	out, carry := make([]byte, 32), 0
	for i := range out {
		n := int(s[i]) + int(order[i]) + carry
		out[i], carry = byte(n), n>>8
	}
	return out
}

func TestKeysThatAreNone(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	one := edwards25519.NewIdentityPoint().Bytes()
	other := ed25519.NewKeyFromSeed(make([]byte, 32))
	for name, line := range map[string]string{
		"private too short":   "whsk_" + b64(make([]byte, 31)),
		"private no base64":   "whsk_geheim!",
		"foreign public half": "whsk_" + b64(append(bytes.Repeat([]byte{1}, 32), other[32:]...)),
		"public too long":     "whpk_" + b64(make([]byte, 33)),
		"public no point":     "whpk_" + b64(append([]byte{2}, make([]byte, 31)...)),
		"public of order one": "whpk_" + b64(one),
		"public of order two": "whpk_" + b64(append([]byte{0xec}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...)),
		"eleven":              strings.Repeat("whsk_"+b64(make([]byte, 32))+"\n", 11),
	} {
		if _, err := secretsOf(t, line).load(); !errors.Is(err, errSecretFile) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", name, err)
		}
	}
	public := secretsOf(t, "whsk_"+b64(make([]byte, 32)), newPrivateKey(make([]byte, 32)).public.String())
	if _, err := public.load(); err != nil {
		t.Errorf("a receiver may have both: %v", err)
	}
	if _, err := public.signers(); !errors.Is(err, errSecretFile) {
		t.Errorf("a sender cannot sign with a public key: %v", err)
	}
}

// A secret changed in place, in the same moment, to one of the same length is
// seen: no time of the file is relied on.
func TestChangedInPlace(t *testing.T) {
	s := secretsOf(t, "whsec_"+strings.Repeat("A", 32))
	first, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path, []byte("whsec_"+strings.Repeat("B", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(s.path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	second, err := s.load()
	if err != nil || bytes.Equal(first[0].(sharedKey), second[0].(sharedKey)) {
		t.Errorf("the old secret is used on (%v)", err)
	}
}
