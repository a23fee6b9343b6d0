package smtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"weiche/internal/adapters/wire"
	"weiche/internal/submission"
)

// entity is a MIME entity (RFC 2045) whose size is known before it is written,
// so that nothing has to be read to learn that it is too large.
type entity struct {
	head  string // header lines, each with its CRLF
	size  int64  // bytes of the body as it is transferred
	write func(ctx context.Context, w io.Writer) error
}

func (e entity) total() int64 { return int64(len(e.head)) + 2 + e.size }

func (e entity) writeTo(ctx context.Context, w io.Writer) error {
	if _, err := io.WriteString(w, e.head+"\r\n"); err != nil {
		return err
	}
	return e.write(ctx, w)
}

// bytes returns the whole entity; for what a library takes in one piece only.
func (e entity) bytes(ctx context.Context) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(e.total()))
	err := e.writeTo(ctx, &b)
	return b.Bytes(), err
}

func text(head, body string) entity {
	return entity{head, int64(len(body)), func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, body)
		return err
	}}
}

const lineLength = 76 // of base64, RFC 2045 section 6.8

// encoded is a body of n bytes in base64, which passes every relay unchanged.
func encoded(head string, n int64, fill func(context.Context, io.Writer) error) entity {
	size := (n + 2) / 3 * 4
	if size > 0 {
		size += (size - 1) / lineLength * 2
	}
	return entity{head + "Content-Transfer-Encoding: base64\r\n", size, func(ctx context.Context, w io.Writer) error {
		out := bufio.NewWriterSize(w, 32<<10)
		enc := base64.NewEncoder(base64.StdEncoding, &lines{w: out})
		if err := fill(ctx, enc); err != nil {
			return err
		}
		if err := enc.Close(); err != nil {
			return err
		}
		return out.Flush()
	}}
}

func encodedBytes(head string, b []byte) entity {
	return encoded(head, int64(len(b)), func(_ context.Context, w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// lines breaks base64 into lines; no line break follows the last.
type lines struct {
	w   io.Writer
	col int
}

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if l.col == lineLength {
			if _, err := io.WriteString(l.w, "\r\n"); err != nil {
				return 0, err
			}
			l.col = 0
		}
		k := min(len(p), lineLength-l.col)
		if _, err := l.w.Write(p[:k]); err != nil {
			return 0, err
		}
		l.col += k
		p = p[k:]
	}
	return n, nil
}

// multipart puts parts between boundaries. No part can forge one: they are
// base64, which knows no hyphen, or the router's own words.
func multipart(head, boundary string, parts ...entity) entity {
	open, end := "--"+boundary+"\r\n", "--"+boundary+"--\r\n"
	size := int64(len(end))
	for _, p := range parts {
		size += int64(len(open)) + p.total() + 2
	}
	return entity{head, size, func(ctx context.Context, w io.Writer) error {
		for _, p := range parts {
			if _, err := io.WriteString(w, open); err != nil {
				return err
			}
			if err := p.writeTo(ctx, w); err != nil {
				return err
			}
			if _, err := io.WriteString(w, "\r\n"); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, end)
		return err
	}}
}

// content is the message: a few words for a person, the message itself, the attachments.
func content(d *submission.Delivery) entity {
	parts := []entity{
		text("Content-Type: text/plain; charset=us-ascii\r\n", words(d)),
		encodedBytes(partHead(d.Format.MediaType(), wire.Token(d.ID)+d.Format.Extension(), "message."+wire.Token(d.ID), "", digestOf(d.Message)), d.Message),
	}
	for i, a := range d.Attachments {
		sum, _ := hex.DecodeString(a.SHA512)
		head := partHead(leafType(a.MIMEType), wire.SafeName(a.Filename, i), wire.Token(a.ID), a.Purpose, sum)
		parts = append(parts, encoded(head, a.Size, func(ctx context.Context, w io.Writer) error { return wire.Copy(ctx, w, a) }))
	}
	boundary := "weiche-parts-" + wire.Token(d.ID)
	return multipart("Content-Type: multipart/mixed;\r\n boundary=\""+boundary+"\"\r\n", boundary, parts...)
}

func digestOf(b []byte) []byte {
	sum := sha512.Sum512(b)
	return sum[:]
}

// partHead is the head of a part with a file in it. The media type is a portal's
// word and stands alone on its line.
func partHead(mediaType, name, id, purpose string, sum []byte) string {
	var b strings.Builder
	b.WriteString("Content-Type: " + clean(mediaType) + "\r\n")
	b.WriteString("Content-Disposition: attachment;\r\n " + filename(name) + "\r\n")
	b.WriteString("Content-ID: <" + id + "@weiche.invalid>\r\n")
	if purpose != "" {
		b.WriteString("Weiche-Purpose: " + wire.Token(purpose) + "\r\n")
	}
	if len(sum) == sha512.Size {
		b.WriteString("Content-Digest:\r\n sha-512=:" + base64.StdEncoding.EncodeToString(sum) + ":\r\n")
	}
	return b.String()
}

// filename writes a name as the parameter of Content-Disposition: as it is where
// nobody can read it in two ways, by RFC 2231 otherwise. An apostrophe is such a
// sign: some take what stands before it for the name of a character set.
func filename(name string) string {
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	if !strings.ContainsFunc(name, func(r rune) bool { return !letter(r) && !strings.ContainsRune("-_.,()+ ", r) }) {
		return `filename="` + name + `"`
	}
	var b strings.Builder
	b.WriteString("filename*=utf-8''")
	for _, c := range []byte(name) {
		if letter(rune(c)) || strings.IndexByte("-_.", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// leafType is a portal's media type, where it is one that base64 may hold: parts
// of type multipart and message may not be encoded (RFC 2045 section 6.4), and a
// mail program would look into them.
func leafType(t string) string {
	t = wire.MediaType(t)
	if strings.HasPrefix(t, "multipart/") || strings.HasPrefix(t, "message/") {
		return "application/octet-stream"
	}
	return t
}

// words are what a person sees who opens the mail; ids and keys, and ASCII only.
func words(d *submission.Delivery) string {
	note := ""
	if d.Test {
		note = "Dies ist ein Test.\r\n\r\n"
	}
	return note + fmt.Sprintf("Der Antrag liegt bei, seine Anlagen folgen.\r\n\r\n"+
		"Leistung:   %s\r\nFormat:     %s\r\nAntrag:     %s\r\nVorgang:    %s\r\nZustellung: %s\r\n\r\n"+
		"Kommt eine Zustellung mit derselben Kennung noch einmal, ist sie eine Wiederholung.\r\n",
		clean(string(d.Service)), clean(d.Format.String()), clean(d.SubmissionID), clean(d.CaseID), clean(d.ID))
}

// facts are the payload-free facts of package wire, in the order they are
// written.
var facts = []struct{ name, header string }{
	{"submissionid", "Weiche-Submission-Id"}, {"caseid", "Weiche-Case-Id"}, {"service", "Weiche-Service"}, {"land", "Weiche-Land"},
	{"portal", "Weiche-Portal"}, {"format", "Weiche-Format"}, {"authoritykey", "Weiche-Authority-Key"}, {"test", "Weiche-Test"},
}

// envelopeHead is the head of the mail but for the content's own lines. It
// depends on the delivery and the addresses alone, not on attempt or clock.
func (a *Adapter) envelopeHead(d *submission.Delivery) string {
	var b strings.Builder
	line := func(name, value string) { b.WriteString(name + ": " + clean(value) + "\r\n") }
	line("From", a.from)
	b.WriteString("To: " + strings.Join(a.to, ",\r\n ") + "\r\n") // checked with the settings
	line("Date", d.AcceptedAt.UTC().Format(time.RFC1123Z))
	line("Message-ID", "<"+wire.Token(d.ID)+"@"+a.domain()+">")
	// Mail programs show what refers to the same as one conversation.
	line("References", "<case."+wire.Token(d.CaseID)+"@"+a.domain()+">")
	subject := "Antrag"
	if d.Test {
		subject = "Test: Antrag"
	}
	b.WriteString("Subject: " + clean(subject+" "+string(d.Service)+" "+d.Format.String()) + "\r\n " + clean(d.SubmissionID) + "\r\n")
	line("Auto-Submitted", "auto-generated") // RFC 3834: no absence note comes back
	line("X-Auto-Response-Suppress", "All")  // the same, for Exchange
	line("Weiche-Delivery-Id", d.ID)
	of := wire.Facts(d)
	for _, f := range facts {
		if v := of[f.name]; v != "" {
			line(f.header, v)
		}
	}
	line("MIME-Version", "1.0")
	return b.String()
}

func (a *Adapter) domain() string { return a.from[strings.LastIndexByte(a.from, '@')+1:] }

// clean keeps printable ASCII: nothing in a header line may begin another.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
}
