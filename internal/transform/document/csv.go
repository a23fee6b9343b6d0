package document

import (
	"bytes"
	"encoding/csv"
	"strconv"
	"strings"

	"weiche/internal/fault"
	"weiche/internal/transform"
)

// columns of the CSV. One row is one value ("tall"), and says by itself which
// submission it belongs to, so that files can be put one behind the other.
var columns = []string{"antrag", "vorgang", "leistung", "gebiet", "eingang", "test", "behoerde", "pfad", "gruppe", "bezeichnung", "typ", "wert", "klartext"}

// csv writes RFC 4180: UTF-8 without a byte order mark, commas, CRLF, a header.
func (d *Document) csv() ([]byte, error) {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	w.UseCRLF = true
	every := []string{
		d.ID, d.Case, string(d.Service), string(d.Region), d.AcceptedAt.Format("2006-01-02T15:04:05.000Z07:00"),
		strconv.FormatBool(d.Test), string(d.Authority.Key),
	}
	row := func(pointer, group, title, typ, value, label string) {
		cells := append(every[:len(every):len(every)], pointer, guard(group), guard(title), typ, guard(value), guard(label))
		_ = w.Write(cells) // a buffer takes everything; Error has what else there is
	}
	_ = w.Write(columns)
	fields(d.Entries, func(e *transform.Entry, around []string) {
		row("/data"+e.Pointer, strings.Join(around, " / "), heading(e), e.Type, e.Text, e.Label)
	})
	for i, a := range d.Attachments {
		at, group := "/attachments/"+strconv.Itoa(i), "Beigefügte Datei "+strconv.Itoa(i+1)
		for _, c := range [...]struct{ member, title, typ, value string }{
			{"attachmentId", "Kennung", "text", a.AttachmentID}, {"filename", "Dateiname", "text", a.Filename},
			{"description", "Beschreibung", "text", a.Description}, {"purpose", "Zweck", "text", a.Purpose},
			{"mimeType", "Medientyp", "text", a.MIMEType}, {"size", "Größe in Byte", "ganzzahl", strconv.FormatInt(a.Size, 10)},
			{"hash/content", "SHA-512", "text", a.Hash.Content},
		} {
			if c.value != "" {
				row(at+"/"+c.member, group, c.title, c.typ, c.value, "")
			}
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return nil, fault.Wrap(err, fault.Permanent, fault.ReasonMappingFailed, "the rows cannot be written")
	}
	return out.Bytes(), nil
}

// guard keeps a cell from being a formula where a spreadsheet opens the file: an
// apostrophe before what begins like one, and before an apostrophe, so that a
// reader who takes one away has the value. Numbers, telephone numbers among
// them, stay as they are (OWASP, CSV Injection).
func guard(s string) string {
	if s == "" {
		return s
	}
	switch s[0] {
	case '=', '@', '\t', '\r', '\'':
		return "'" + s
	case '+', '-':
		if strings.Trim(s[1:], "0123456789 ()/.,-") != "" {
			return "'" + s
		}
	}
	return s
}
