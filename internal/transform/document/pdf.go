package document

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"codeberg.org/go-pdf/fpdf"
	"github.com/go-fonts/dejavu/dejavusans"
	"github.com/go-fonts/dejavu/dejavusansbold"
	"golang.org/x/image/font/sfnt"

	"weiche/internal/fault"
	"weiche/internal/transform"
)

// Sizes in millimetres and points, on A4.
const (
	margin     = 20.0
	labelWidth = 58.0
	valueWidth = 210 - 2*margin - labelWidth
	lineHeight = 5.0
	textSize   = 9.5
	family     = "dejavu"
)

// pdf writes pages: what it is about, the fields under the headings of their
// groups, the list of attachments. The font has all letters of DIN 91379; what it
// has not stands as its code point.
func (d *Document) pdf() ([]byte, error) {
	p := &pages{Fpdf: fpdf.New("P", "mm", "A4", ""), doc: d}
	p.open()
	p.head()
	p.entries(d.Entries, 0)
	p.attachments()
	var out bytes.Buffer
	if err := p.Output(&out); err != nil {
		return nil, fault.Wrap(err, fault.Permanent, fault.ReasonMappingFailed, "the pages cannot be written")
	}
	return out.Bytes(), nil
}

type pages struct {
	*fpdf.Fpdf
	doc *Document
}

func (p *pages) open() {
	d := p.doc
	p.SetCatalogSort(true) // the same bytes every time
	p.SetCreationDate(d.AcceptedAt.UTC())
	p.SetModificationDate(d.AcceptedAt.UTC())
	p.SetTitle(legible(d.Title), true)
	p.SetSubject("Antrag "+d.ID, true)
	p.SetProducer("Weiche", true)
	p.SetLang("de-DE")
	p.AddUTF8FontFromBytes(family, "", dejavusans.TTF)
	p.AddUTF8FontFromBytes(family, "B", dejavusansbold.TTF)
	p.SetMargins(margin, margin, margin)
	p.SetAutoPageBreak(true, margin+4)
	p.AliasNbPages("{n}")
	p.SetHeaderFunc(p.pageHead)
	p.SetFooterFunc(p.pageFoot)
	p.AddPage()
}

func (p *pages) pageHead() {
	if !p.doc.Test {
		return
	}
	p.SetTextColor(170, 0, 0)
	p.font("B", textSize)
	p.CellFormat(0, lineHeight+2, "TEST – kein echter Antrag", "1", 1, "C", false, 0, "")
	p.SetTextColor(0, 0, 0)
	p.Ln(2)
}

func (p *pages) pageFoot() {
	p.SetY(-margin + 4)
	p.font("", 7.5)
	p.SetTextColor(90, 90, 90)
	p.CellFormat(120, 4, "Antrag "+p.doc.ID, "", 0, "L", false, 0, "")
	p.CellFormat(0, 4, fmt.Sprintf("Seite %d von {n}", p.PageNo()), "", 0, "R", false, 0, "")
	p.SetTextColor(0, 0, 0)
}

func (p *pages) font(style string, size float64) { p.SetFont(family, style, size) }

func (p *pages) head() {
	d := p.doc
	p.font("B", 15)
	p.MultiCell(0, 7, legible(d.Title), "", "L", false)
	p.Ln(2)
	p.row("Eingang", when(d.AcceptedAt))
	p.row("Behörde", joined(d.Authority.Name, string(d.Authority.Key)))
	p.row("Portal", d.Portal)
	p.row("Leistung", string(d.Service))
	p.row("Gebiet", string(d.Region))
	p.row("Vorgang", d.Case)
	p.row("Antrag", d.ID)
	p.rule()
}

func joined(name, key string) string {
	if name == "" || key == "" {
		return name + key
	}
	return name + " (" + key + ")"
}

func (p *pages) rule() {
	p.Ln(2)
	p.SetDrawColor(160, 160, 160)
	p.Line(margin, p.GetY(), 210-margin, p.GetY())
	p.Ln(2)
}

func (p *pages) entries(entries []transform.Entry, depth int) {
	for i := range entries {
		e := &entries[i]
		if e.Type != "" {
			p.row(heading(e), value(e))
			continue
		}
		p.section(heading(e), depth)
		p.entries(e.Entries, depth+1)
	}
}

// section is a heading that stays with the line after it.
func (p *pages) section(title string, depth int) {
	if p.GetY() > 297-margin-4-4*lineHeight {
		p.AddPage()
	}
	p.Ln(2)
	p.font("B", max(textSize, 12.5-float64(depth)))
	p.MultiCell(0, 6, legible(title), "", "L", false)
}

// row writes a label and its value beside it, line by line, so that a long value
// goes on on the next page.
func (p *pages) row(label, value string) {
	if value == "" {
		return
	}
	p.font("", textSize)
	labels, values := p.SplitText(legible(label), labelWidth-3), p.SplitText(legible(value), valueWidth-2)
	for i := range max(len(labels), len(values)) {
		p.SetTextColor(90, 90, 90)
		p.CellFormat(labelWidth, lineHeight, line(labels, i), "", 0, "L", false, 0, "")
		p.SetTextColor(0, 0, 0)
		p.CellFormat(valueWidth, lineHeight, line(values, i), "", 1, "L", false, 0, "")
	}
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

func (p *pages) attachments() {
	for i, a := range p.doc.Attachments {
		if i == 0 {
			p.rule()
		}
		p.section("Beigefügte Datei "+strconv.Itoa(i+1), 1)
		p.row("Dateiname", a.Filename)
		p.row("Beschreibung", a.Description)
		p.row("Art", fmt.Sprintf("%s, %d Byte", a.MIMEType, a.Size))
		p.row("Kennung", a.AttachmentID)
		p.row("SHA-512", a.Hash.Content)
	}
}

// heading is a title with the number in its list.
func heading(e *transform.Entry) string {
	if e.Number > 0 {
		return e.Title + " " + strconv.Itoa(e.Number)
	}
	return e.Title
}

// value is a field as a German reader writes it. What is no date or number of the
// usual form stays as it is.
func value(e *transform.Entry) string {
	switch {
	case e.Label != "":
		return e.Label
	case e.Type == "wahrheitswert" && e.Text == "true":
		return "ja"
	case e.Type == "wahrheitswert":
		return "nein"
	case e.Type == "zahl":
		return strings.Replace(e.Text, ".", ",", 1)
	case e.Type == "datum":
		if t, err := time.Parse(time.DateOnly, e.Text); err == nil {
			return t.Format("02.01.2006")
		}
	case e.Type == "zeitpunkt":
		if t, err := time.Parse(time.RFC3339Nano, e.Text); err == nil {
			return when(t)
		}
	}
	return e.Text
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	t = t.In(transform.Zone())
	zone := "MEZ"
	if t.IsDST() {
		zone = "MESZ"
	}
	return t.Format("02.01.2006, 15:04:05 Uhr ") + zone
}

// legible replaces what the font has no sign for by its code point, and what
// would break a line out of place by a space.
func legible(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r > '~' || r < ' ' }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteByte('\n')
		case unicode.IsControl(r):
			b.WriteByte(' ')
		case !drawable(r):
			fmt.Fprintf(&b, "[U+%04X]", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// faces are both fonts, read for what they can draw.
var faces = sync.OnceValue(func() []*sfnt.Font {
	var out []*sfnt.Font
	for _, raw := range [][]byte{dejavusans.TTF, dejavusansbold.TTF} {
		f, err := sfnt.Parse(raw)
		if err != nil {
			panic("the font does not parse: " + err.Error())
		}
		out = append(out, f)
	}
	return out
})

// drawable says whether both fonts have a sign for r. fpdf writes no code points
// beyond the basic plane.
func drawable(r rune) bool {
	if r > 0xFFFF {
		return false
	}
	for _, f := range faces() {
		if i, err := f.GlyphIndex(nil, r); err != nil || i == 0 {
			return false
		}
	}
	return true
}
