// Package seal keeps payload unreadable from intake to adapter, and signs what
// the router vouches for.
//
// A submission has a data key of its own. It travels in the record, wrapped by
// the key of the submission's Land and day; day keys live in a small compacted
// log (KeyLog), wrapped by the Land's master key, a file. Destroying a day key
// (a tombstone in that log) makes every copy of that day's records unreadable.
// Everything is bound to its Land, its day key and its place (associated data),
// so nothing sealed can be moved elsewhere.
//
// The package knows no Kafka, no HTTP and no blob store. It refuses to make up
// a key where one was lost: a Land with day keys in the log and no master key is
// an error, never a new key. It refuses key files that others can read. No text
// of its errors and nothing its types print contains a key or a sealed byte.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

const (
	keyBytes = 32 // AES-256

	// Overhead is how many bytes a sealed section is longer than its plain text:
	// nonce and tag.
	Overhead = 12 + 16
)

// The purposes that associated data begins with, so that nothing sealed for one
// opens as another. They are part of the format.
const (
	purposeDayKey  = "weiche/day-key/v1"
	purposeDataKey = "weiche/data-key/v1"
	purposeSection = "weiche/section/v1"
	purposeStream  = "weiche/stream/v1"
)

// Wrapped is a data key as it travels: sealed by the day key that it names.
type Wrapped struct {
	Land   submission.Land
	DayKey string // land/yyyy-mm-dd/random, as in the key log
	Bytes  []byte
}

// Sensitive marks the type for the log's redaction.
func (Wrapped) Sensitive() {}

// Format prints what the key belongs to, never the key.
func (w Wrapped) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "[seal.Wrapped of %q]", w.Land)
}

// DataKey is the opened key of one submission. It is safe for concurrent use.
// Nothing prints it.
type DataKey struct {
	wrapped Wrapped
	secret  []byte
	aead    cipher.AEAD
}

// Sensitive marks the type for the log's redaction.
func (*DataKey) Sensitive() {}

// Format prints a placeholder, whatever the verb.
func (*DataKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[seal.DataKey]") }

// newDataKey readies an opened key. Sections and streams get keys derived for
// them, so that one secret never serves two algorithms.
func newDataKey(w Wrapped, secret []byte) (*DataKey, error) {
	block, err := aes.NewCipher(derive(secret, purposeSection))
	if err != nil {
		return nil, err
	}
	// The same bytes as tink's AESGCM (12 random bytes of nonce, ciphertext, tag).
	// It also makes the nonce itself and takes none, but writes to where the
	// caller wants it, and is made in a fraction of the time: tink checks and
	// copies the key several times, and there is a key for every submission.
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &DataKey{wrapped: w, secret: secret, aead: a}, nil
}

// derive is HKDF-SHA256 (RFC 5869) without salt, for one block: crypto/hkdf
// without its allocations, which took longer than opening a submission.
func derive(secret []byte, purpose string) []byte {
	key := mac([sha256.Size]byte{}, secret)
	key = mac(key, append([]byte(purpose), 1))
	return key[:]
}

// mac is HMAC-SHA256 (RFC 2104) with a key of 32 bytes.
func mac(key [sha256.Size]byte, message []byte) [sha256.Size]byte {
	inner := make([]byte, sha256.BlockSize, sha256.BlockSize+64)
	outer := make([]byte, sha256.BlockSize, sha256.BlockSize+sha256.Size)
	copy(inner, key[:])
	copy(outer, key[:])
	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	sum := sha256.Sum256(append(inner, message...))
	return sha256.Sum256(append(outer, sum[:]...))
}

// Wrapped returns the key as it travels in a record.
func (k *DataKey) Wrapped() Wrapped { return k.wrapped }

// Seal encrypts plain (AES-256-GCM, a random nonce before the ciphertext) and
// binds it to aad, the Land and the day key.
func (k *DataKey) Seal(aad string, plain []byte) ([]byte, error) {
	return k.AppendSeal(make([]byte, 0, len(plain)+Overhead), aad, plain)
}

// AppendSeal is Seal, appending to dst; plain must not be a part of dst.
func (k *DataKey) AppendSeal(dst []byte, aad string, plain []byte) ([]byte, error) {
	if len(plain) > maxBoxBytes {
		return nil, tooLarge("%d bytes cannot be sealed in one piece", len(plain))
	}
	return k.aead.Seal(dst, nil, plain, bind(purposeSection, string(k.wrapped.Land), k.wrapped.DayKey, aad)), nil
}

// Open decrypts what Seal made with the same aad. Anything else is a fault,
// Permanent and undecryptable.
func (k *DataKey) Open(aad string, sealed []byte) ([]byte, error) {
	plain, err := k.aead.Open(nil, nil, sealed, bind(purposeSection, string(k.wrapped.Land), k.wrapped.DayKey, aad))
	if err != nil {
		return nil, fault.Wrap(err, fault.Permanent, fault.ReasonUndecryptable, "sealed bytes are damaged, forged, or of another place")
	}
	return plain, nil
}

// bind writes associated data: a purpose and its parts, each with its length,
// so that no two lists of parts give the same bytes.
func bind(purpose string, parts ...string) []byte {
	n := len(purpose)
	for _, p := range parts {
		n += 4 + len(p)
	}
	b := append(make([]byte, 0, n), purpose...)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

func newSecret() []byte {
	b := make([]byte, keyBytes)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}
