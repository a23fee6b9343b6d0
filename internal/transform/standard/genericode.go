package standard

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// listHead is what a genericode list says of itself (OASIS genericode 1.0; the
// dates are the XÖV Codelisten-Handbuch's).
type listHead struct {
	uri, version, shortName string
	validFrom, validUntil   string // 2006-01-02, "" where it is not said
	columns                 []string
	key                     string // the recommended key column, else the first key's
}

// readListHead reads a genericode list up to its first row. ok is false for what
// is no genericode list that can be named.
func readListHead(raw []byte) (h listHead, ok bool) {
	if !bytes.Contains(raw[:min(len(raw), 1024)], []byte("CodeList")) {
		return h, false
	}
	r := listReader{d: xml.NewDecoder(bytes.NewReader(raw))}
	if err := r.head(); err != nil {
		return h, false
	}
	return r.h, r.h.uri != ""
}

// readListValues returns the values of one column of a genericode list. The
// error quotes nothing of it.
func readListValues(raw []byte, column string) (values, error) {
	r := listReader{d: xml.NewDecoder(bytes.NewReader(raw))}
	if err := r.head(); err != nil {
		return nil, err
	}
	if column == "" || !r.has(column) {
		column = r.h.key
	}
	if column == "" {
		return nil, errors.New("the code list names no key column")
	}
	return r.rows(column)
}

type listReader struct {
	d    *xml.Decoder
	path []string
	h    listHead
	good bool // it is the recommended one
}

func (r *listReader) has(column string) bool {
	for _, c := range r.h.columns {
		if c == column {
			return true
		}
	}
	return false
}

func (r *listReader) next() (xml.Token, error) {
	t, err := r.d.Token()
	switch e := t.(type) {
	case xml.StartElement:
		r.path = append(r.path, e.Name.Local)
	case xml.EndElement:
		r.path = r.path[:len(r.path)-1]
	}
	return t, err
}

// at says whether the path ends in the names.
func (r *listReader) at(names ...string) bool {
	if len(r.path) < len(names) {
		return false
	}
	for i, n := range names {
		if r.path[len(r.path)-len(names)+i] != n {
			return false
		}
	}
	return true
}

// head reads up to the rows.
func (r *listReader) head() error {
	for {
		t, err := r.next()
		if errors.Is(err, io.EOF) {
			return r.settle()
		}
		if err != nil {
			return errors.New("the code list is not well-formed XML")
		}
		switch e := t.(type) {
		case xml.StartElement:
			if len(r.path) == 1 && (e.Name.Local != "CodeList" || !strings.Contains(e.Name.Space, "genericode")) {
				return errors.New("it is no genericode list")
			}
			if len(r.path) == 2 && e.Name.Local == "SimpleCodeList" {
				return r.settle()
			}
			r.start(e)
		case xml.CharData:
			r.text(strings.TrimSpace(string(e)))
		}
	}
}

func (r *listReader) settle() error {
	if len(r.h.columns) == 0 && r.h.uri == "" {
		return errors.New("it is no genericode list")
	}
	return nil
}

func (r *listReader) start(e xml.StartElement) {
	switch {
	case r.at("ColumnSet", "Column"):
		r.h.columns = append(r.h.columns, attribute(e, "Id"))
	case r.at("ColumnSet", "Key"):
		r.good = false
	case e.Name.Local == "recommendedKeyColumn":
		r.good = true
	case r.at("Key", "ColumnRef"):
		if ref := attribute(e, "Ref"); r.h.key == "" || r.good {
			r.h.key = ref
		}
	}
}

func (r *listReader) text(s string) {
	if s == "" || len(r.path) < 3 {
		return
	}
	switch {
	case r.at("Identification", "CanonicalUri"):
		r.h.uri += s
	case r.at("Identification", "Version"):
		r.h.version += s
	case r.at("Identification", "ShortName"):
		r.h.shortName += s
	case r.at("Description", "validFrom"), r.at("Description", "datumgueltigkeitab"):
		r.h.validFrom = day(s)
	case r.at("Description", "validTo"), r.at("Description", "validUntil"), r.at("Description", "datumgueltigkeitbis"):
		r.h.validUntil = day(s)
	}
}

// rows reads the values of a column.
func (r *listReader) rows(column string) (values, error) {
	out := values{}
	err := r.cells(func(at, value string) error {
		if at != column {
			return nil
		}
		if len(out) >= maxListRows {
			return errListRows
		}
		out[value] = struct{}{}
		return nil
	}, nil)
	return out, err
}

// cells reads the values row by row. A Value without ColumnRef is of the column
// behind the one before (genericode 1.0, section 4.7).
func (r *listReader) cells(value func(column, text string) error, row func() error) error {
	current, next := "", 0
	var text strings.Builder
	for {
		t, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errors.New("the code list is not well-formed XML")
		}
		switch e := t.(type) {
		case xml.StartElement:
			switch {
			case r.at("SimpleCodeList", "Row"):
				next = 0
			case r.at("Row", "Value"):
				current = attribute(e, "ColumnRef")
				if current == "" && next < len(r.h.columns) {
					current = r.h.columns[next]
				}
				next = r.index(current) + 1
				text.Reset()
			}
		case xml.CharData:
			if r.at("Value", "SimpleValue") {
				text.Write(e)
			}
		case xml.EndElement:
			switch {
			case e.Name.Local == "SimpleValue":
				err = value(current, string(token([]byte(text.String()))))
			case e.Name.Local == "Row" && row != nil:
				err = row()
			}
			if err != nil {
				return err
			}
		}
	}
}

// maxListRows bounds one list; the largest official one (all Flurstücke apart)
// has some tens of thousands.
const maxListRows = 2_000_000

var errListRows = fmt.Errorf("the code list has more than %d rows", maxListRows)

// readListColumn returns one column of a genericode list by its key column, of
// which each value may stand once. A row without the column has "".
func readListColumn(raw []byte, column string) (map[string]string, error) {
	r := listReader{d: xml.NewDecoder(bytes.NewReader(raw))}
	if err := r.head(); err != nil {
		return nil, err
	}
	switch {
	case r.h.key == "":
		return nil, errors.New("the code list names no key column")
	case !r.has(column):
		return nil, fmt.Errorf("the code list has no column %q; it has %s", column, strings.Join(r.h.columns, ", "))
	}
	out := map[string]string{}
	key, text := "", ""
	err := r.cells(func(at, v string) error {
		if at == r.h.key {
			key = v
		}
		if at == column {
			text = v
		}
		return nil
	}, func() error {
		_, twice := out[key]
		switch {
		case key == "" || twice:
			return errors.New("the code list has a row without a key, or a key twice")
		case len(out) >= maxListRows:
			return errListRows
		}
		out[key] = text
		key, text = "", ""
		return nil
	})
	return out, err
}

func (r *listReader) index(column string) int {
	for i, c := range r.h.columns {
		if c == column {
			return i
		}
	}
	return len(r.h.columns)
}

func attribute(e xml.StartElement, local string) string {
	for _, a := range e.Attr {
		if a.Name.Space == "" && a.Name.Local == local {
			return a.Value
		}
	}
	return ""
}

// day returns the day of a date or time as ISO 8601 writes them, "" for
// anything else.
func day(s string) string {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return ""
	}
	for i, c := range []byte(s[:10]) {
		if i != 4 && i != 7 && (c < '0' || c > '9') {
			return ""
		}
	}
	return s[:10]
}

// token normalises as xs:token does: trimmed, runs of white space to one space.
// It returns b itself where nothing is to be done.
func token(b []byte) []byte {
	b = trimLeft(trimRight(b))
	for i, c := range b {
		if c == '\t' || c == '\r' || c == '\n' || c == ' ' && b[i-1] == ' ' {
			return bytes.Join(bytes.Fields(b), []byte(" "))
		}
	}
	return b
}
