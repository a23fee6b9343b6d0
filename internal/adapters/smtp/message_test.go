package smtp

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/mail"
	"strings"
	"testing"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/wire"
	"weiche/internal/submission"
)

// The size is known before anything is read, to the byte: the server is told it.
func TestSizeIsExact(t *testing.T) {
	a := &Adapter{from: "weiche@land.test", to: []string{"bauamt@bauamt.test", "archiv@bauamt.test"}, maxMessage: 1 << 30}
	for n := range 240 {
		d := adaptertest.NewDelivery(make([]byte, n), nil, make([]byte, 57*n))
		d.Message = bytes.Repeat([]byte("x"), n)
		d.Test = n%2 == 0
		e, _, err := a.compose(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		b, err := e.bytes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(b)) != e.total() {
			t.Fatalf("with %d bytes: %d are written, %d were told", n, len(b), e.total())
		}
		if strings.Contains(strings.ReplaceAll(string(b), "\r\n", ""), "\n") {
			t.Fatal("a line ends without CR")
		}
	}
}

// Whatever stands in a delivery, it does not become a header line of its own,
// nor a part.
func TestForgedHeaders(t *testing.T) {
	const evil = "x\r\nBcc: evil@anderswo.test\r\n\r\n--weiche-parts"
	a := &Adapter{from: "weiche@land.test", to: []string{"bauamt@bauamt.test"}, maxMessage: 1 << 30}
	d := adaptertest.NewDelivery([]byte("a"))
	d.SubmissionID, d.CaseID, d.Portal, d.Land, d.Service = evil, evil, evil, submission.Land(evil), submission.Service(evil)
	d.Format.Message, d.Authority.Key = evil, submission.AuthorityKey(evil)
	f := &d.Attachments[0]
	f.ID, f.Filename, f.MIMEType, f.Purpose, f.SHA512 = evil, evil, "text/plain; x=\""+evil+"\"", evil, evil
	e, _, err := a.compose(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.bytes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("\nBcc")) || bytes.Count(b, []byte("\r\n--weiche-parts")) != 4 {
		t.Errorf("a line was forged:\n%s", b)
	}
	m, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil || len(m.Header["Bcc"]) > 0 {
		t.Errorf("the head is not as it should be: %v", err)
	}
	for _, header := range facts {
		if m.Header.Get(header.header) == "" && header.name != "test" {
			t.Errorf("%s is missing", header.header)
		}
	}
	d.Test = true
	if got := wire.Facts(d); len(got) != len(facts) {
		t.Errorf("%d facts travel beside a message, the mail has headers for %d", len(got), len(facts))
	}
}

func TestLeafType(t *testing.T) {
	for from, want := range map[string]string{
		"application/pdf": "application/pdf", "message/rfc822": "application/octet-stream", "Multipart/Mixed; boundary=x": "application/octet-stream",
		"text/plain; charset=utf-8": "text/plain; charset=utf-8", "": "application/octet-stream", "kaputt": "application/octet-stream",
	} {
		if got := leafType(from); got != want {
			t.Errorf("%q became %q", from, got)
		}
	}
}

// Whatever a portal calls a file, the parameter says it and nothing else.
func FuzzFilename(f *testing.F) {
	for _, s := range []string{"Bauplan.pdf", "utf-8''%41.pdf", "Größe.pdf", `"; x="`, "a\r\nb", "", "\xff", strings.Repeat("ß", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := wire.SafeName(s, 0)
		line := filename(name)
		_, params, err := mime.ParseMediaType("attachment; " + line)
		if err != nil || len(params) != 1 || params["filename"] != name || len(line) > 900 || clean(line) != line {
			t.Errorf("%q became %q: %v, %v", name, line, params, err)
		}
	})
}

// A source that ends early, or is cancelled, never looks like a whole mail.
func TestShortSource(t *testing.T) {
	a := &Adapter{from: "weiche@land.test", to: []string{"bauamt@bauamt.test"}, maxMessage: 1 << 30}
	d := adaptertest.NewDelivery([]byte("abc"))
	d.Attachments[0].Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("ab")), nil }
	e, _, err := a.compose(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.bytes(t.Context()); err == nil {
		t.Error("a source that is too short makes a mail")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.bytes(ctx); err == nil {
		t.Error("a cancelled context makes a mail")
	}
}
