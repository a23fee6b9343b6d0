package transform

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"weiche/internal/foreignxml"
)

// Canonical writes a document one element a line, so that two documents can be
// compared: names with their namespace instead of a prefix, attributes sorted,
// whitespace between elements and comments dropped. The document must be
// well-formed and within the default limits of foreignxml.Check.
func Canonical(raw []byte) ([]byte, error) {
	if err := foreignxml.Check(bytes.NewReader(raw), foreignxml.Limits{}); err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader(raw))
	var out bytes.Buffer
	var text strings.Builder
	depth := 0
	flush := func() {
		if s := text.String(); strings.TrimSpace(s) != "" {
			fmt.Fprintf(&out, "%s%q\n", strings.Repeat("  ", depth), s)
		}
		text.Reset()
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		switch e := t.(type) {
		case xml.StartElement:
			flush()
			fmt.Fprintf(&out, "%s<%s", strings.Repeat("  ", depth), qname{e.Name.Space, e.Name.Local})
			slices.SortFunc(e.Attr, func(a, b xml.Attr) int {
				return strings.Compare(a.Name.Space+" "+a.Name.Local, b.Name.Space+" "+b.Name.Local)
			})
			for _, a := range e.Attr {
				if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
					continue
				}
				fmt.Fprintf(&out, " %s=%q", qname{a.Name.Space, a.Name.Local}, a.Value)
			}
			out.WriteString(">\n")
			depth++
		case xml.EndElement:
			flush()
			depth--
		case xml.CharData:
			text.Write(e)
		}
	}
}

// Difference compares two documents canonically. It returns "" where they are
// equal, else the first line in which they differ. It quotes values: it is for
// examples and tests, not for messages.
func Difference(want, got []byte) (string, error) {
	w, err := Canonical(want)
	if err != nil {
		return "", fmt.Errorf("the expected document: %w", err)
	}
	g, err := Canonical(got)
	if err != nil {
		return "", fmt.Errorf("the document: %w", err)
	}
	a, b := strings.Split(string(w), "\n"), strings.Split(string(g), "\n")
	for i := range max(len(a), len(b)) {
		line := func(l []string) string {
			if i < len(l) {
				return strings.TrimSpace(l[i])
			}
			return "the end"
		}
		if line(a) != line(b) || i < len(a) && i < len(b) && a[i] != b[i] {
			return fmt.Sprintf("expected %s, got %s (item %d)", line(a), line(b), i+1), nil
		}
	}
	return "", nil
}
