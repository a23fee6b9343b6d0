package bus

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash"
	"strconv"
	"strings"

	"github.com/IBM/sarama"
)

// scram is the client side of SCRAM (RFC 5802) without channel binding. The
// user name and password are taken as they are: SASLprep changes nothing in
// ASCII, and Kafka applies none.
type scram struct {
	hash           func() hash.Hash
	passwordFile   string
	password       string
	firstBare      string
	nonce          string
	serverProof    []byte
	step           int
	minIterations  int
	bindAndChannel string
}

var (
	errSCRAMMessage   = errors.New("scram: the broker's message is malformed")
	errSCRAMSignature = errors.New("scram: the broker does not know the password")
)

// newSCRAM makes the client of one exchange. The password is read from its file
// then, so that a connection made after the file has changed uses the new one.
func newSCRAM(mechanism, passwordFile string) *scram {
	s := &scram{hash: sha256.New, passwordFile: passwordFile, minIterations: 4096, bindAndChannel: "biws"}
	if mechanism == sarama.SASLTypeSCRAMSHA512 {
		s.hash = sha512.New
	}
	return s
}

// Begin implements sarama.SCRAMClient.
func (s *scram) Begin(user, _, _ string) error {
	password, err := readSecret("kafka.sasl.password_file", s.passwordFile)
	if err != nil {
		return err
	}
	var raw [24]byte
	_, _ = rand.Read(raw[:]) // never fails
	s.password, s.nonce, s.step = password, base64.StdEncoding.EncodeToString(raw[:]), 0
	s.firstBare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) + ",r=" + s.nonce
	return nil
}

// Step implements sarama.SCRAMClient.
func (s *scram) Step(challenge string) (string, error) {
	s.step++
	switch s.step {
	case 1:
		return "n,," + s.firstBare, nil
	case 2:
		return s.prove(challenge)
	case 3:
		v, ok := strings.CutPrefix(challenge, "v=")
		if !ok {
			return "", errSCRAMMessage
		}
		got, err := base64.StdEncoding.DecodeString(v)
		if err != nil || subtle.ConstantTimeCompare(got, s.serverProof) != 1 {
			return "", errSCRAMSignature
		}
		return "", nil
	}
	return "", errSCRAMMessage
}

func (s *scram) prove(serverFirst string) (string, error) {
	fields := map[string]string{}
	for f := range strings.SplitSeq(serverFirst, ",") {
		if k, v, ok := strings.Cut(f, "="); ok {
			fields[k] = v
		}
	}
	salt, err := base64.StdEncoding.DecodeString(fields["s"])
	n, errN := strconv.Atoi(fields["i"])
	if err != nil || errN != nil || n < s.minIterations || n > 1<<20 || !strings.HasPrefix(fields["r"], s.nonce) || len(fields["r"]) == len(s.nonce) {
		return "", errSCRAMMessage
	}
	salted, err := pbkdf2.Key(s.hash, s.password, salt, n, s.hash().Size())
	if err != nil {
		return "", err
	}
	clientKey := s.mac(salted, "Client Key")
	stored := s.hash()
	stored.Write(clientKey)
	bare := "c=" + s.bindAndChannel + ",r=" + fields["r"]
	auth := s.firstBare + "," + serverFirst + "," + bare
	signature := s.mac(stored.Sum(nil), auth)
	proof := make([]byte, len(clientKey))
	subtle.XORBytes(proof, clientKey, signature)
	s.serverProof = s.mac(s.mac(salted, "Server Key"), auth)
	return bare + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

func (s *scram) mac(key []byte, text string) []byte {
	m := hmac.New(s.hash, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// Done implements sarama.SCRAMClient.
func (s *scram) Done() bool { return s.step >= 3 }
