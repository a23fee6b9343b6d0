// Package blob keeps what is too large for a record: attachments, and sections
// above a threshold (claim check). What it stores is ciphertext; the record that
// names a blob holds the key to it and its SHA-512.
//
// A Store is durable when Put returns, and knows names and bytes only. The Vault
// seals, checks and sweeps. The package refuses names that could leave the
// store, and never returns the end of a blob whose bytes are not the right ones.
package blob

import (
	"context"
	"io"
	"strings"
	"time"

	"weiche/internal/fault"
)

// Store keeps blobs by name. Names are 1 to 16 parts parted by slashes; a part
// is up to 128 letters, digits, dots, hyphens and underscores and begins with a
// letter or a digit. Implementations are safe for concurrent use and pass
// blobtest.Run. Their own faults are Retryable and storage, unless said
// otherwise; a name that breaks the rule is Permanent and malformed.
type Store interface {
	// Put stores what r gives and returns its size in bytes. When it returns the
	// blob is durable under its name, whole; before, and after an error, the name
	// is as it was. Errors of r come back as they are.
	Put(ctx context.Context, name string, r io.Reader) (int64, error)
	// Open returns the blob's bytes, the caller's to close. A name that is not
	// there is Permanent and blob-missing, and errors.Is(err, fs.ErrNotExist).
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// Delete removes the blob. It is no error that there is none.
	Delete(ctx context.Context, name string) error
	// List calls back for every blob, in no promised order, until fn fails; then
	// it returns that error. fn may delete. Blobs put or deleted meanwhile may
	// be told or not.
	List(ctx context.Context, fn func(name string, modified time.Time) error) error
}

const (
	maxParts     = 16
	maxPartBytes = 128
)

// CheckName says whether a store takes the name.
func CheckName(name string) error {
	parts := strings.Split(name, "/")
	ok := len(parts) <= maxParts
	for _, p := range parts {
		ok = ok && p != "" && len(p) <= maxPartBytes && alphanumeric(p[0])
		for i := 0; ok && i < len(p); i++ {
			ok = alphanumeric(p[i]) || p[i] == '.' || p[i] == '-' || p[i] == '_'
		}
	}
	if !ok {
		return fault.New(fault.Permanent, fault.ReasonMalformed, "a blob's name is malformed")
	}
	return nil
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
