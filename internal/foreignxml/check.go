// Package foreignxml looks at XML that others wrote before a parser does that
// builds a tree.
package foreignxml

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"

	"weiche/internal/fault"
)

// Limits bound a foreign XML document. A field that is zero takes its default.
type Limits struct {
	Bytes      int64 // of the whole document; default 64 MiB
	Depth      int   // of nested elements; default 256
	Elements   int   // in all; default 1,000,000
	Attributes int   // on one element; default 256
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 64 << 20
	}
	if l.Depth == 0 {
		l.Depth = 256
	}
	if l.Elements == 0 {
		l.Elements = 1_000_000
	}
	if l.Attributes == 0 {
		l.Attributes = 256
	}
	return l
}

// Check reads a foreign XML document as a stream and refuses it when it
// carries a DOCTYPE, is not UTF-8, is not well-formed, or exceeds a limit. It
// keeps no tree, so its memory is bounded by the limits on depth and bytes;
// whatever passes may be given to a parser that recurses. The error is a
// *fault.Error, permanent, and quotes nothing of the document.
func Check(r io.Reader, limits Limits) error {
	l := limits.withDefaults()
	bounded := &boundedReader{r: r, left: l.Bytes}
	d := xml.NewDecoder(bounded)
	// Without a charset reader the decoder refuses every declared encoding but
	// UTF-8; mojibake must not travel on.
	d.CharsetReader = nil
	depth, elements, roots := 0, 0, 0
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		line, _ := d.InputPos()
		if err != nil {
			if bounded.over {
				return fault.New(fault.Permanent, fault.ReasonTooLarge, "the XML document is larger than %d bytes", l.Bytes)
			}
			// Some of the decoder's own texts quote the document.
			return fault.Wrap(err, fault.Permanent, fault.ReasonMalformed, "the XML document is not well-formed UTF-8 XML (line %d)", line)
		}
		switch e := t.(type) {
		case xml.StartElement:
			if depth++; depth > l.Depth {
				return fault.New(fault.Permanent, fault.ReasonTooDeep, "the XML document nests deeper than %d elements (line %d)", l.Depth, line)
			}
			if elements++; elements > l.Elements {
				return fault.New(fault.Permanent, fault.ReasonTooMany, "the XML document has more than %d elements (line %d)", l.Elements, line)
			}
			if len(e.Attr) > l.Attributes {
				return fault.New(fault.Permanent, fault.ReasonTooMany, "an element has more than %d attributes (line %d)", l.Attributes, line)
			}
			if depth == 1 {
				roots++
			}
		case xml.EndElement:
			depth--
		case xml.Directive:
			return fault.New(fault.Permanent, fault.ReasonMalformed, "the XML document carries a DOCTYPE or another declaration, which is refused (line %d)", line)
		case xml.CharData:
			if depth == 0 && !blank(e) {
				return fault.New(fault.Permanent, fault.ReasonMalformed, "the XML document has text outside its root element (line %d)", line)
			}
		}
	}
	if roots != 1 {
		return fault.New(fault.Permanent, fault.ReasonMalformed, "the XML document has %d root elements, one is expected", roots)
	}
	return nil
}

var errTooLarge = errors.New("larger than allowed")

// boundedReader fails, and remembers that it did, once more than left bytes
// were read.
type boundedReader struct {
	r    io.Reader
	left int64
	over bool
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		n, err := b.r.Read(one[:])
		if n > 0 {
			b.over = true
			return 0, errTooLarge
		}
		return 0, err
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("reading the document: %w", err)
	}
	return n, err
}

func blank(b []byte) bool {
	for _, c := range b {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' && c != 0xEF && c != 0xBB && c != 0xBF {
			return false
		}
	}
	return true
}
