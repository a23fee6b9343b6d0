package xta

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"

	"weiche/internal/adapters/wire"
	"weiche/internal/submission"
)

// Content ids of the parts; the attachments' are numbered from 1.
const (
	cidEnvelope   = "envelope@weiche"
	cidMessage    = "message@weiche"
	cidAttachment = "attachment-%d@weiche"
)

// pack is a request's body, MIME multipart/related of XOP (W3C XOP 1.0 section
// 4.1, as the WSDL's policy demands of every message): the envelope, and for
// sendMessage the message and the attachments, whose bytes pass through and are never
// kept.
type pack struct {
	contentType string
	length      int64
	pieces      []piece
}

// piece is text, or where file is set a file's bytes.
type piece struct {
	text []byte
	file *submission.File
}

// newPack packs an envelope, and d's parts unless it is nil.
func newPack(o operation, envelope []byte, d *submission.Delivery) *pack {
	// The border must not be guessable: whoever writes an attachment could forge
	// parts with it.
	var random [24]byte
	_, _ = rand.Read(random[:]) // never fails
	border := "weiche-" + hex.EncodeToString(random[:])
	info := quoted(`application/soap+xml; action="` + o.action + `"`)
	p := &pack{contentType: fmt.Sprintf(`multipart/related; type="application/xop+xml"; start="<%s>"; start-info=%s; boundary="%s"`, cidEnvelope, info, border)}
	part := func(contentType, cid string) {
		p.text(fmt.Sprintf("\r\n--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <%s>\r\n\r\n", border, contentType, cid))
	}
	part("application/xop+xml; charset=UTF-8; type="+info, cidEnvelope)
	p.text(string(envelope))
	if d != nil {
		part("application/octet-stream", cidMessage)
		p.text(string(d.Message))
		for i := range d.Attachments {
			part("application/octet-stream", fmt.Sprintf(cidAttachment, i+1))
			p.pieces = append(p.pieces, piece{file: &d.Attachments[i]})
			p.length += d.Attachments[i].Size
		}
	}
	p.text("\r\n--" + border + "--\r\n")
	return p
}

func (p *pack) text(s string) {
	p.pieces = append(p.pieces, piece{text: []byte(s)})
	p.length += int64(len(s))
}

// WriteTo writes the body; an attachment that cannot be read is a
// *wire.SourceError.
func (p *pack) WriteTo(ctx context.Context, w io.Writer) error {
	for _, piece := range p.pieces {
		if piece.file != nil {
			if err := wire.Copy(ctx, w, *piece.file); err != nil {
				return err
			}
		} else if _, err := w.Write(piece.text); err != nil {
			return err
		}
	}
	return nil
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

var errTooLong = errors.New("the answer is too long")

// unpack returns the envelope of an answer, in memory: alone, or as the root of a
// multipart body, whose other parts are passed over.
func unpack(resp *http.Response) ([]byte, error) {
	body := io.Reader(&bounded{r: resp.Body, left: maxAnswer})
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/related" {
		return io.ReadAll(body)
	}
	parts := multipart.NewReader(body, params["boundary"])
	for {
		p, err := parts.NextRawPart()
		if err != nil {
			return nil, err
		}
		// Without a start the first part is the root (RFC 2387 section 3.2).
		if params["start"] == "" || strings.TrimSpace(p.Header.Get("Content-Id")) == params["start"] {
			return io.ReadAll(p)
		}
	}
}

// bounded fails once more than left bytes were read.
type bounded struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLong
	}
	return n, err
}
