package wire

import (
	"bytes"
	"context"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"

	"weiche/internal/submission"
)

const deliveryID = "60f6667b-fa45-4bd7-b717-f4d6c65e5edb"

// Media type and names follow the format, alone and beside attachments.
func TestFormats(t *testing.T) {
	xbau := submission.Format{Standard: "xbau", Version: "2.6", Message: "baugenehmigung.antrag.0200"}
	for f, want := range map[submission.Format][2]string{
		xbau:                 {"application/xml", ".xml"},
		submission.FormatCSV: {"text/csv; charset=utf-8; header=present", ".csv"},
		submission.FormatPDF: {"application/pdf", ".pdf"},
	} {
		d := &submission.Delivery{ID: deliveryID, Format: f, Message: []byte("message")}
		if got := NewBody(d, "related").ContentType(); got != want[0] {
			t.Errorf("%s goes as %s", f, got)
		}
		if l, err := NewLayout(d); err != nil || l.Message != deliveryID+want[1] {
			t.Errorf("%s becomes %s, %v", f, l.Message, err)
		}
		d.Attachments = []submission.File{{ID: "a", Filename: "a.txt", MIMEType: "text/plain", Size: 1, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("x")), nil
		}}}
		b := NewBody(d, "related")
		_, params, err := mime.ParseMediaType(b.ContentType())
		if err != nil || params["type"] != want[0] {
			t.Errorf("%s with an attachment goes as %s, %v", f, b.ContentType(), err)
		}
		var out bytes.Buffer
		if err := b.WriteTo(context.Background(), &out); err != nil {
			t.Fatal(err)
		}
		p, err := multipart.NewReader(&out, params["boundary"]).NextRawPart()
		if err != nil || p.Header.Get("Content-Type") != want[0] || p.FileName() != "message"+want[1] {
			t.Errorf("%s is the part %v, %v", f, p.Header, err)
		}
	}
}
