package blob

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	"weiche/internal/fault"
	"weiche/internal/seal"
	"weiche/internal/submission"
)

// DefaultThreshold is the size in bytes above which a section goes to a blob.
const DefaultThreshold = 512 << 10

// maxSection bounds what a section in a blob may have; the record that names it
// is authentic, so this guards against faults of our own.
const maxSection = 256 << 20

// Vault seals sections and files, and moves what is large out of the record. It
// is safe for concurrent use, as far as the Box it works on is not shared.
type Vault struct {
	store     Store
	threshold int
}

// NewVault returns a vault over store. Sections above threshold bytes go to
// blobs; 0 means DefaultThreshold.
func NewVault(store Store, threshold int) *Vault {
	if threshold <= 0 {
		threshold = DefaultThreshold
	}
	return &Vault{store: store, threshold: threshold}
}

// Prefix returns the place of a submission's blobs, one append of it:
// land/yyyy-mm-dd/submission/append, the day in UTC.
func Prefix(land submission.Land, acceptedAt time.Time, submissionID, appendID string) string {
	return strings.Join([]string{string(land), acceptedAt.UTC().Format("2006-01-02"), submissionID, appendID}, "/")
}

// FileName returns the name of the n-th attachment under prefix.
func FileName(prefix string, n int) string { return prefix + "/" + strconv.Itoa(n) }

// A section in a box begins with one byte that says where it is. It need not be
// authentic: each kind has associated data of its own.
const (
	inBox  = 0
	inBlob = 1
)

// reference is the claim check of a section in a blob.
type reference struct {
	Blob   string `json:"blob"`
	Size   int64  `json:"size"`
	SHA512 string `json:"sha512"`
}

// PutSection seals plain into the box as section name, or, above the threshold,
// into a blob under prefix (see Prefix) with the section naming it. The box
// takes the submission id of prefix as its subject; a box with another subject
// is refused. The blob is durable when PutSection returns.
func (v *Vault) PutSection(ctx context.Context, key *seal.DataKey, box *seal.Box, prefix, name string, plain []byte) error {
	parts := strings.Split(prefix, "/")
	if len(parts) != 4 || CheckName(prefix) != nil {
		return fault.New(fault.Permanent, fault.ReasonMalformed, "the place of a submission's blobs is malformed: land/day/submission/append is expected")
	}
	if box.Subject == "" {
		box.Subject = parts[2]
	}
	if box.Subject != parts[2] {
		return fault.New(fault.Permanent, fault.ReasonMalformed, "a section of one submission does not go into another's record")
	}
	kind, content := byte(inBox), plain
	if len(plain) > v.threshold {
		// A name of its own: a repeat must not replace what a record names.
		blobName := prefix + "/" + name + "-" + randomName()
		size, sum, err := v.PutFile(ctx, key, blobName, bytes.NewReader(plain))
		if err != nil {
			return err
		}
		if content, err = json.Marshal(reference{Blob: blobName, Size: size, SHA512: sum}); err != nil {
			return err
		}
		kind = inBlob
	}
	data := append(make([]byte, 0, 1+len(content)+seal.Overhead), kind)
	data, err := key.AppendSeal(data, sectionAAD(box.Subject, name, kind), content)
	if err != nil {
		return err
	}
	box.Put(name, data)
	return nil
}

// Section returns the plain bytes of a section, from the box or from the blob
// it names. A section that is missing is Permanent and undecodable.
func (v *Vault) Section(ctx context.Context, key *seal.DataKey, box *seal.Box, name string) ([]byte, error) {
	data, ok := box.Section(name)
	if !ok || len(data) == 0 || data[0] > inBlob {
		return nil, fault.New(fault.Permanent, fault.ReasonUndecodable, "a record lacks a section that it needs, or has it in an unknown form")
	}
	plain, err := key.Open(sectionAAD(box.Subject, name, data[0]), data[1:])
	if err != nil || data[0] == inBox {
		return plain, err
	}
	var ref reference
	if err := json.Unmarshal(plain, &ref); err != nil || ref.Size < 0 || ref.Size > maxSection {
		return nil, fault.Wrap(err, fault.Permanent, fault.ReasonUndecodable, "the reference to a section's blob cannot be read")
	}
	r, err := v.OpenFile(ctx, key, ref.Blob, ref.SHA512)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	buf := bytes.NewBuffer(make([]byte, 0, ref.Size+bytes.MinRead))
	if _, err := buf.ReadFrom(io.LimitReader(r, ref.Size+1)); err != nil {
		return nil, err
	}
	if int64(buf.Len()) != ref.Size {
		return nil, wrongBytes()
	}
	return buf.Bytes(), nil
}

func sectionAAD(subject, name string, kind byte) string {
	if kind == inBlob {
		return subject + "/" + name + "/blob"
	}
	return subject + "/" + name
}

// PutFile seals what plain gives into the blob name and returns its plain size
// in bytes and its plain SHA-512 in hex. It is durable when PutFile returns.
// Errors of plain come back as they are, and leave nothing behind.
func (v *Vault) PutFile(ctx context.Context, key *seal.DataKey, name string, plain io.Reader) (size int64, sha512hex string, err error) {
	e := &encrypting{plain: plain, sum: sha512.New(), chunk: make([]byte, firstChunk)}
	if e.enc, err = key.EncryptTo(&e.sealed, name); err != nil {
		return 0, "", err
	}
	if _, err = v.store.Put(ctx, name, e); err != nil {
		return 0, "", err
	}
	return e.size, hex.EncodeToString(e.sum.Sum(nil)), nil
}

// How many bytes of a file are in hand at first and at most: many files are
// small.
const (
	firstChunk = 2 << 10
	lastChunk  = 32 << 10
)

// encrypting turns a plain reader into a sealed one, as it is read: the store
// pulls, and nothing runs beside it.
type encrypting struct {
	plain  io.Reader
	enc    io.WriteCloser
	sealed bytes.Buffer
	sum    hash.Hash
	size   int64
	chunk  []byte // grows while it is filled
	ended  bool
	err    error
}

func (e *encrypting) Read(p []byte) (int, error) {
	for e.sealed.Len() == 0 {
		if e.err != nil {
			return 0, e.err
		}
		if e.ended {
			return 0, io.EOF
		}
		n, err := e.plain.Read(e.chunk)
		if n > 0 {
			e.sum.Write(e.chunk[:n])
			e.size += int64(n)
			if _, werr := e.enc.Write(e.chunk[:n]); werr != nil {
				e.err = werr
				continue
			}
		}
		if n == len(e.chunk) && n < lastChunk {
			e.chunk = make([]byte, 4*n)
		}
		switch {
		case err == io.EOF: // itself: an error that wraps it is a source cut off
			e.ended = true
			e.err = e.enc.Close()
		case err != nil:
			e.err = err
		}
	}
	if e.err != nil {
		return 0, e.err // what is still buffered will not be stored
	}
	return e.sealed.Read(p)
}

// OpenFile returns the plain bytes of the blob name, the caller's to close. They
// are verified as they are read: where they are not those that sha512hex (128
// hex digits) names, the last Read returns a fault, Permanent and undecryptable,
// in place of io.EOF. A blob that is not there is Permanent and blob-missing.
func (v *Vault) OpenFile(ctx context.Context, key *seal.DataKey, name, sha512hex string) (io.ReadCloser, error) {
	want, err := hex.DecodeString(sha512hex)
	if err != nil || len(want) != sha512.Size {
		return nil, fault.New(fault.Permanent, fault.ReasonUndecodable, "the SHA-512 of a blob is not 128 hex digits")
	}
	f, err := v.store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	plain, err := key.DecryptFrom(f, name)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &verifying{plain: plain, file: f, sum: sha512.New(), want: want}, nil
}

// verifying hashes what it gives out and judges at the end.
type verifying struct {
	plain io.Reader
	file  io.Closer
	sum   hash.Hash
	want  []byte
	err   error
}

func (v *verifying) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.plain.Read(p)
	v.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && !bytes.Equal(v.sum.Sum(nil), v.want) {
		err = wrongBytes()
	}
	v.err = err
	return n, err
}

func (v *verifying) Close() error { return v.file.Close() }

func wrongBytes() error {
	return fault.New(fault.Permanent, fault.ReasonUndecryptable, "a blob's bytes are not the ones its record names")
}

// Sweep removes the blobs last modified before olderThan whose append keep does
// not want, and what broken-off writes have left since then. Blobs with names
// that are not Prefix's are left alone. It stops at the first error, keep's
// included, and returns how many it removed.
func (v *Vault) Sweep(ctx context.Context, olderThan time.Time, keep func(submissionID, appendID string) (bool, error)) (removed int, err error) {
	var last [2]string
	kept := true
	err = v.store.List(ctx, func(name string, modified time.Time) error {
		p := strings.Split(name, "/")
		if len(p) != 5 || !modified.Before(olderThan) {
			return nil
		}
		if id := [2]string{p[2], p[3]}; id != last {
			k, err := keep(id[0], id[1])
			if err != nil {
				return err
			}
			last, kept = id, k
		}
		if kept {
			return nil
		}
		if err := v.store.Delete(ctx, name); err != nil {
			return err
		}
		removed++
		return nil
	})
	if err != nil {
		return removed, err
	}
	if s, ok := v.store.(interface {
		SweepTemp(ctx context.Context, olderThan time.Time) (int, error)
	}); ok {
		n, err := s.SweepTemp(ctx, olderThan)
		return removed + n, err
	}
	return removed, nil
}
