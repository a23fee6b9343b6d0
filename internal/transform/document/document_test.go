package document

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"weiche/internal/submission"
	"weiche/internal/transform"
)

const schema = `{"type": "object", "properties": {
  "name": {"type": "string", "title": "Name"},
  "geboren": {"type": "string", "format": "date", "title": "Geburtsdatum"},
  "zahl": {"type": "number", "title": "Fläche in m²"},
  "ja": {"type": "boolean", "title": "Denkmal"},
  "art": {"title": "Art", "oneOf": [{"const": "01", "title": "Neubau"}, {"const": "02", "title": "Umbau"}]},
  "person": {"type": "object", "title": "Person", "properties": {"telefon": {"type": "string"}}},
  "liste": {"type": "array", "title": "Flurstücke", "items": {"type": "object", "title": "Flurstück", "properties": {"nummer": {"type": "string", "title": "Nummer"}}}},
  "zettel": {"type": "array", "title": "Zettel", "items": {"type": "array", "items": {"type": "string"}}}
}}`

func documentOf(t testing.TB, form string) *Document {
	t.Helper()
	s, ps := transform.ParseFormSchema("schema.json", []byte(schema))
	if ps.Failed() {
		t.Fatal(ps)
	}
	var v any
	d := json.NewDecoder(strings.NewReader(form))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	doc, err := New("Baugenehmigung", s, transform.Input{
		Form: v,
		Submission: transform.SubmissionInput{
			ID: uuid.MustParse("60f6667b-fa45-4bd7-b717-f4d6c65e5edb"), CaseID: uuid.MustParse("70f6667b-fa45-4bd7-b717-f4d6c65e5edb"),
			Service: "99012002012000", Region: "081150030003", AcceptedAt: time.Date(2026, 11, 22, 9, 15, 30, 123e6, time.UTC), Test: true,
		},
		Portal: transform.PortalInput{Name: "service-bw"}, Authority: submission.Authority{Key: "bab:08115003", Name: "Stadt Böblingen"},
		Attachments: []submission.Attachment{{AttachmentID: "a1", Filename: "=plan.pdf", MIMEType: "application/pdf", Purpose: "attachment", Size: 12, Hash: submission.Hash{Type: "sha512", Content: strings.Repeat("ab", 64)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

const rich = `{"name": "=HYPERLINK(\"x\")", "geboren": "1980-02-01", "zahl": 12.5, "ja": true, "art": "02",
  "person": {"telefon": "+49 7031 669-0"}, "liste": [{"nummer": "12/3"}, {"nummer": "14"}], "zettel": [["a", "b"], ["c"]], "fremd": "x\ny"}`

func TestCSV(t *testing.T) {
	raw, err := documentOf(t, rich).Write(submission.FormatCSV)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(raw, []byte("\r\n")) {
		t.Error("the lines do not end as RFC 4180 says")
	}
	rows, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows[1:] {
		if len(r) != len(columns) || r[0] != "60f6667b-fa45-4bd7-b717-f4d6c65e5edb" || r[4] != "2026-11-22T10:15:30.123+01:00" || r[5] != "true" {
			t.Errorf("row %q", r)
		}
		if !strings.HasPrefix(r[7], "/attachments/") || r[9] == "Dateiname" {
			got = append(got, strings.Join(r[7:], "|"))
		}
	}
	want := []string{
		`/data/name||Name|text|'=HYPERLINK("x")|`,
		"/data/geboren||Geburtsdatum|datum|1980-02-01|",
		"/data/zahl||Fläche in m²|zahl|12.5|",
		"/data/ja||Denkmal|wahrheitswert|true|",
		"/data/art||Art|auswahl|02|Umbau",
		"/data/person/telefon|Person|telefon|text|+49 7031 669-0|",
		"/data/liste/0/nummer|Flurstück 1|Nummer|text|12/3|",
		"/data/liste/1/nummer|Flurstück 2|Nummer|text|14|",
		"/data/zettel/0/0|Zettel 1|Zettel 1|text|a|",
		"/data/zettel/0/1|Zettel 1|Zettel 2|text|b|",
		"/data/zettel/1/0|Zettel 2|Zettel 1|text|c|",
		"/data/fremd||fremd|text|x\ny|",
		"/attachments/0/filename|Beigefügte Datei 1|Dateiname|text|'=plan.pdf|",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A spreadsheet sees no formula, and a reader who takes one apostrophe away has
// the value.
func TestGuard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching("[=+@\t\r'0-9a-z .|!-]{0,8}").Draw(t, "value")
		g := guard(s)
		if strings.TrimPrefix(g, "'") != s {
			t.Errorf("%q became %q", s, g)
		}
		if g != "" && strings.ContainsRune("=@\t\r", rune(g[0])) {
			t.Errorf("%q begins like a formula", g)
		}
	})
	for s, want := range map[string]string{
		"+49 (7031) 669-0": "+49 (7031) 669-0", "-12,5": "-12,5", "+1+cmd|' /C calc'!A0": "'+1+cmd|' /C calc'!A0", "-A1": "'-A1", "'": "''",
	} {
		if got := guard(s); got != want {
			t.Errorf("%q became %q, not %q", s, got, want)
		}
	}
}

func pdfTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: install poppler-utils (make deps does)", name)
		}
		t.Skipf("%s is missing: install poppler-utils (make deps does)", name)
	}
	return path
}

func pdfText(t *testing.T, pdf []byte) string {
	t.Helper()
	tool := pdfTool(t, "pdftotext")
	file := filepath.Join(t.TempDir(), "x.pdf")
	if err := os.WriteFile(file, pdf, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "-layout", "-enc", "UTF-8", file, "-").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestPDF(t *testing.T) {
	d := documentOf(t, rich)
	a, err := d.Write(submission.FormatPDF)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Write(submission.FormatPDF)
	if err != nil || !bytes.Equal(a, b) {
		t.Fatalf("a second writing has other bytes, or %v", err)
	}
	text := pdfText(t, a)
	for _, want := range []string{
		"Baugenehmigung", "TEST – kein echter Antrag", "22.11.2026, 10:15:30 Uhr MEZ", "Stadt Böblingen (bab:08115003)", "Seite 1 von 1",
		`=HYPERLINK("x")`, "01.02.1980", "12,5", "Fläche in m²", "Umbau", "+49 7031 669-0", "Flurstück 2", "12/3", "=plan.pdf", "application/pdf, 12 Byte",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Long texts wrap, also where they have no space, and go on on further pages;
// nothing of them is lost.
func TestLongTexts(t *testing.T) {
	words, solid := strings.Repeat("Müller-Łukasz wohnt hier. ", 400), strings.Repeat("x", 3000)
	form, err := json.Marshal(map[string]any{"name": words, "person": map[string]any{"telefon": solid}})
	if err != nil {
		t.Fatal(err)
	}
	pdf, err := documentOf(t, string(form)).Write(submission.FormatPDF)
	if err != nil {
		t.Fatal(err)
	}
	text := pdfText(t, pdf)
	if n := strings.Count(text, "Łukasz"); n != 400 {
		t.Errorf("%d of 400 names", n)
	}
	if n := strings.Count(text, "x"); n < 3000 || n > 3010 {
		t.Errorf("%d of 3000 letters", n)
	}
	if !strings.Contains(text, "Seite 3 von") {
		t.Error("there is no third page")
	}
}

// The font has every letter of DIN 91379 (datatype E, the largest); what it has
// not is written as its code point.
func TestLetters(t *testing.T) {
	raw, err := os.ReadFile("../../../../shared/standards/xbau/2.6/din-91379-datatypes.xsd")
	if err != nil {
		t.Fatal(err)
	}
	letters := map[rune]bool{}
	d := xml.NewDecoder(bytes.NewReader(raw))
	for {
		tok, err := d.Token()
		if err != nil {
			break
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "pattern" {
			addLetters(letters, []rune(e.Attr[0].Value))
		}
	}
	if len(letters) < 700 {
		t.Fatalf("only %d letters were found", len(letters))
	}
	for r := range letters {
		if !unicode.IsControl(r) && r != 0x00AD && !drawable(r) {
			t.Errorf("the font lacks U+%04X %c", r, r)
		}
	}
	if got := legible("a\U0001F600b\tc\x00"); got != "a[U+1F600]b c " {
		t.Errorf("%q", got)
	}
}

// addLetters reads the characters and ranges of a pattern of the standard's.
func addLetters(to map[rune]bool, pattern []rune) {
	for i := 0; i < len(pattern); i++ {
		r := pattern[i]
		switch {
		case strings.ContainsRune(`()|[]\*+?`, r):
		case i+2 < len(pattern) && pattern[i+1] == '-' && pattern[i+2] != ']':
			end := pattern[i+2]
			if end == '\\' {
				end = pattern[i+3]
			}
			for c := r; c <= end; c++ {
				to[c] = true
			}
			i += 2
		default:
			to[r] = true
		}
	}
}

func TestOtherFormats(t *testing.T) {
	if _, err := documentOf(t, "{}").Write(submission.Format{Standard: "xbau", Version: "2.6", Message: "x"}); err == nil {
		t.Error("a format that is not built in was written")
	}
	deep := strings.Repeat(`{"a":`, 80) + "1" + strings.Repeat("}", 80)
	s, _ := transform.ParseFormSchema("schema.json", []byte(schema))
	var v any
	if err := json.Unmarshal([]byte(deep), &v); err != nil {
		t.Fatal(err)
	}
	if _, err := New("x", s, transform.Input{Form: v}); err == nil || !strings.Contains(err.Error(), "deeper") {
		t.Errorf("a form in 80 groups: %v", err)
	}
}

func BenchmarkDocument(b *testing.B) {
	d := documentOf(b, rich)
	for _, f := range []submission.Format{submission.FormatCSV, submission.FormatPDF} {
		b.Run(f.Standard, func(b *testing.B) {
			for b.Loop() {
				if _, err := d.Write(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
