// Package wire is the shape a message has when it leaves: the message alone, or a
// multipart body of message and attachments whose bytes are the same at every
// attempt, and the payload-free facts that travel beside it.
//
// It opens no connection and keeps no body in memory.
package wire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strings"
	"unicode"
	"unicode/utf8"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Names of the parts of a multipart body.
const (
	PartMessage    = "message"
	PartAttachment = "attachment"
)

// Body writes a delivery's body. Its bytes depend on the message and its
// attachments alone, so a signature over one writing holds for the next.
type Body struct {
	d        *submission.Delivery
	subtype  string
	boundary string
}

// NewBody describes the body of d; subtype ("form-data", "related") is used
// where there are attachments.
func NewBody(d *submission.Delivery, subtype string) *Body {
	b := &Body{d: d, subtype: subtype}
	if len(d.Attachments) == 0 {
		return b
	}
	// A boundary that could be guessed would let whoever writes an attachment
	// forge further parts. It is a hash over everything it separates, so nobody
	// can place it inside; and it is the same at every attempt.
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\n%d\n", d.ID, len(d.Message))
	_, _ = h.Write(d.Message)
	for _, a := range d.Attachments {
		_, _ = fmt.Fprintf(h, "\n%s %d", a.SHA512, a.Size)
	}
	b.boundary = "weiche-" + hex.EncodeToString(h.Sum(nil)[:24])
	return b
}

// ContentType is the media type of the body.
func (b *Body) ContentType() string {
	own := b.d.Format.MediaType()
	if b.boundary == "" {
		return own
	}
	t := "multipart/" + b.subtype + "; boundary=" + b.boundary
	if b.subtype == "related" {
		t += `; type="` + own + `"` // RFC 2387
	}
	return t
}

// SourceError says that an attachment could not be read: the router's own
// trouble, not the destination's.
type SourceError struct{ Err error }

func (e *SourceError) Error() string { return "an attachment cannot be read" }

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// Fault classes the error of a source. Blob store and seal say themselves what
// is wrong; what they leave open is retryable.
func (e *SourceError) Fault() *fault.Error {
	if f, ok := errors.AsType[*fault.Error](e.Err); ok {
		return f
	}
	if errors.Is(e.Err, context.Canceled) || errors.Is(e.Err, context.DeadlineExceeded) {
		return fault.Of(e.Err)
	}
	return fault.Wrap(e.Err, fault.Retryable, fault.ReasonUnknown, "an attachment cannot be read from the router's own store")
}

// WriteTo writes the whole body, and gives up between blocks when ctx ends. An
// attachment that cannot be read, or whose bytes are not those its hash names,
// is a *SourceError.
func (b *Body) WriteTo(ctx context.Context, w io.Writer) error {
	if b.boundary == "" {
		_, err := w.Write(b.d.Message)
		return err
	}
	mw := multipart.NewWriter(w)
	if err := mw.SetBoundary(b.boundary); err != nil {
		return err
	}
	p, err := mw.CreatePart(b.header(PartMessage, "message"+b.d.Format.Extension(), b.d.Format.MediaType()))
	if err != nil {
		return err
	}
	if _, err := p.Write(b.d.Message); err != nil {
		return err
	}
	for i, a := range b.d.Attachments {
		h := b.header(PartAttachment, SafeName(a.Filename, i), MediaType(a.MIMEType))
		h.Set("Content-Id", "<"+Token(a.ID)+">")
		if a.Purpose != "" {
			h.Set("Weiche-Purpose", Token(a.Purpose))
		}
		if sum, err := hex.DecodeString(a.SHA512); err == nil && len(sum) == 64 {
			h.Set("Content-Digest", "sha-512=:"+base64.StdEncoding.EncodeToString(sum)+":")
		}
		p, err := mw.CreatePart(h)
		if err != nil {
			return err
		}
		if err := Copy(ctx, p, a); err != nil {
			return err
		}
	}
	return mw.Close()
}

func (b *Body) header(name, filename, mediaType string) textproto.MIMEHeader {
	h := textproto.MIMEHeader{}
	disposition := `attachment; filename="` + filename + `"`
	if b.subtype == "form-data" {
		disposition = `form-data; name="` + name + `"; filename="` + filename + `"`
	}
	h.Set("Content-Disposition", disposition)
	h.Set("Content-Type", mediaType)
	return h
}

// Copy writes one attachment's plain bytes to w, checking ctx between blocks.
// Errors of the source are *SourceError, those of w are returned as they are.
func Copy(ctx context.Context, w io.Writer, a submission.File) error {
	r, err := a.Open()
	if err != nil {
		return &SourceError{err}
	}
	defer func() { _ = r.Close() }()
	buf := make([]byte, 64<<10)
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		got, rerr := r.Read(buf)
		if got > 0 {
			n += int64(got)
			if _, err := w.Write(buf[:got]); err != nil {
				return err
			}
		}
		if rerr == io.EOF {
			if a.Size > 0 && n != a.Size {
				return &SourceError{fault.New(fault.Permanent, fault.ReasonHashMismatch, "an attachment has %d bytes, %d were accepted", n, a.Size)}
			}
			return nil
		}
		if rerr != nil {
			return &SourceError{rerr}
		}
	}
}

// Counter counts what is written to it.
type Counter struct{ N int64 }

// Write implements io.Writer.
func (c *Counter) Write(p []byte) (int, error) { c.N += int64(len(p)); return len(p), nil }

// Bound returns a size in bytes that the body does not exceed, without reading
// an attachment.
func (b *Body) Bound() int64 {
	n := int64(len(b.d.Message)) + 1024
	for _, a := range b.d.Attachments {
		n += a.Size + 2048
	}
	return n
}

// Bytes returns the whole body; for bodies already known to be small. Without
// attachments it is the message's own bytes, not a copy.
func (b *Body) Bytes(ctx context.Context) ([]byte, error) {
	if b.boundary == "" {
		return b.d.Message, nil
	}
	var buf bytes.Buffer
	if err := b.WriteTo(ctx, &buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// Facts are the payload-free facts that travel beside the message, by a name
// that each adapter writes in its own way. The attempt is left out: it is no
// part of what the message is.
func Facts(d *submission.Delivery) map[string]string {
	f := map[string]string{
		"submissionid": d.SubmissionID, "caseid": d.CaseID, "format": d.Format.String(), "service": string(d.Service),
		"land": string(d.Land), "portal": d.Portal,
	}
	if d.Authority.Key != "" {
		f["authoritykey"] = string(d.Authority.Key)
	}
	if d.Test {
		f["test"] = "true"
	}
	return f
}

// MediaType returns t where it is a media type, application/octet-stream
// otherwise: a header must not be what a portal makes of it.
func MediaType(t string) string {
	base, params, err := mime.ParseMediaType(t)
	if err != nil || !strings.Contains(base, "/") {
		return "application/octet-stream"
	}
	if s := mime.FormatMediaType(base, params); s != "" && len(s) <= 256 {
		return s
	}
	return base
}

// SafeName makes a file name of what a portal sent: no separators, no control
// or formatting characters, nothing hidden, reserved or too long, and valid
// UTF-8. Where nothing is left it is "attachment". The number (from 0) stands
// before it, so that two attachments of one name stay two files.
func SafeName(name string, number int) string {
	name = strings.ToValidUTF8(name, "_")
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs):
			return -1
		case unicode.IsSpace(r):
			return ' '
		case strings.ContainsRune(`<>:"|?*%`, r), r == utf8.RuneError:
			return '_'
		}
		return r
	}, name)
	name = strings.Trim(name, ". ")
	const limit = 120 // bytes; file systems take 255, and others put something around it
	if len(name) > limit {
		ext := ""
		if i := strings.LastIndexByte(name, '.'); i > 0 && len(name)-i <= 16 {
			ext = name[i:]
		}
		name = strings.Trim(cut(name, limit-len(ext)), ". ") + ext
	}
	if name == "" {
		name = "attachment"
	}
	return fmt.Sprintf("%02d-%s", number+1, name)
}

// cut shortens s to at most n bytes at the border of a character.
func cut(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Token keeps letters, digits and a few harmless signs, at most 128 of them.
func Token(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.@", r)) {
			return r
		}
		return '_'
	}, s)
	if len(s) > 128 {
		s = s[:128]
	}
	return s
}
