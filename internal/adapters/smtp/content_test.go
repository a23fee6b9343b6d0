package smtp_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"io"
	"runtime"
	"strings"
	"testing"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/wire"
)

// What lies in the mailbox, read by another: headers, names, types, digests.
func TestContent(t *testing.T) {
	x := startExim(t)
	deps := spec.Deps{DataDir: t.TempDir()}
	secret(t, deps, eximPassword)
	names := []string{
		"Bauplan.pdf", "../../etc/passwd", "Über–Größe Ł Ж 日本 😀.pdf", "a\r\nBcc: x@y.test\r\n\r\n.pdf", `"; filename="x.exe`, "=?utf-8?q?Herr_M=C3=BCller?=.pdf",
		"", strings.Repeat("ß", 400) + ".pdf", "rechts\u202efdp.exe", "utf-8''%41.pdf", "ein name mit; zeichen, (und) klammern\\.pdf", "tab\there.pdf", ".", "\xff\xfe.pdf",
	}
	d := adaptertest.NewDelivery()
	for i, n := range names {
		content := bytes.Repeat([]byte{byte(i), 0, '\n', '.', '\r'}, 40*i) // lines that are a dot, bare CR and LF
		d.Attachments = append(d.Attachments, adaptertest.NewFile(n, content))
	}
	types := []string{"application/pdf", "image/tiff; charset=binary", "message/rfc822", "multipart/mixed; boundary=x", "text/plain\r\nX: y", ""}
	for i, mt := range types {
		d.Attachments[i].MIMEType = mt
	}
	must(t, open(t, deps, "%s", x.base()+"bounces_to: bounces@land.test\n").Deliver(t.Context(), d))
	mails := x.mails()
	if len(mails) != 1 {
		t.Fatalf("%d mails lie in the mailbox", len(mails))
	}
	m := mails[0]
	for header, want := range map[string]string{
		"From": "weiche@land.test", "To": "bauamt@bauamt.test", "Message-ID": "<" + d.ID + "@land.test>", "Date": "Sun, 22 Nov 2026 20:15:30 +0000",
		"Subject":    "Antrag 99012008001000 xbau/2.6/baugenehmigung.antrag.0200 " + d.SubmissionID,
		"References": "<case." + d.CaseID + "@land.test>", "Auto-Submitted": "auto-generated", "Weiche-Delivery-Id": d.ID, "Weiche-Submission-Id": d.SubmissionID,
		"Weiche-Case-Id": d.CaseID, "Weiche-Land": "08", "Weiche-Portal": "service-bw", "Weiche-Authority-Key": "bab:08115003", "Weiche-Test": "",
		"Return-path": "<bounces@land.test>", "Bcc": "",
	} {
		if got := m.header(header); got != want {
			t.Errorf("%s is %q, %q was expected", header, got, want)
		}
	}
	if len(m.Parts) != len(names)+2 {
		t.Fatalf("the mail has %d parts, %d were expected", len(m.Parts), len(names)+2)
	}
	if p := m.Parts[1]; p.Type != "application/xml" || p.Filename != d.ID+".xml" || !bytes.Equal(p.Content, d.Message) {
		t.Errorf("the XML came as %s %s", p.Type, p.Filename)
	}
	for i, p := range m.Parts[1:] {
		sum := sha512.Sum512(p.Content)
		if want := "sha-512=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"; strings.TrimSpace(p.Digest) != want {
			t.Errorf("part %d has the digest %q, its bytes %q", i+1, p.Digest, want)
		}
	}
	for i, p := range m.Parts[2:] {
		if want := wire.SafeName(names[i], i); p.Filename != want {
			t.Errorf("the name %q came out as %q, %q was expected", names[i], p.Filename, want)
		}
		if p.ID != "<"+d.Attachments[i].ID+"@weiche.invalid>" || p.Purpose != "attachment" {
			t.Errorf("attachment %d came with id %s, purpose %s", i, p.ID, p.Purpose)
		}
		want := "application/pdf"
		if i == 1 {
			want = "image/tiff"
		} else if i < len(types) && i > 1 {
			want = "application/octet-stream"
		}
		if p.Type != want {
			t.Errorf("the type %q came out as %s", d.Attachments[i].MIMEType, p.Type)
		}
		b, err := d.Attachments[i].Open()
		must(t, err)
		content, _ := io.ReadAll(b)
		if !bytes.Equal(content, p.Content) {
			t.Errorf("attachment %d came out with other bytes", i)
		}
	}

	d.Test = true
	must(t, open(t, deps, "%s", x.base()).Deliver(t.Context(), d))
	if m := x.mails()[1]; !strings.HasPrefix(m.header("Subject"), "Test: Antrag ") || m.header("Weiche-Test") != "true" {
		t.Errorf("a test submission came with the subject %q", m.header("Subject"))
	}
}

// zeros is a large attachment that nobody holds.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	n := int(min(int64(len(p)), z.left))
	clear(p[:n])
	if z.left -= int64(n); z.left == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (z *zeros) Close() error { return nil }

// A large attachment goes through and does not lie in memory.
func TestStreams(t *testing.T) {
	const size = 16 << 20
	x := startExim(t, setting("message_size_limit = 200M"))
	deps := spec.Deps{DataDir: t.TempDir()}
	secret(t, deps, eximPassword)
	a := open(t, deps, "%s", x.base()+"max_message: 100MB\n")
	d := adaptertest.NewDelivery([]byte("x"))
	d.Attachments[0].Size = size
	d.Attachments[0].Open = func() (io.ReadCloser, error) { return &zeros{size}, nil }
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	must(t, a.Deliver(t.Context(), d))
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > size {
		t.Errorf("%d bytes were allocated for an attachment of %d", n, size)
	} else { // some hundred kilobytes; several megabytes where the race detector empties the pools of crypto/tls
		t.Logf("%d bytes were allocated for an attachment of %d", n, size)
	}
	m := x.mails()
	if len(m) != 1 || len(m[0].Parts) != 3 || len(m[0].Parts[2].Content) != size {
		t.Error("the attachment did not come out whole")
	}
}
