package xsd

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"
)

// everything is a schema with a bit of all features.
const everything = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:element name="r"><xs:complexType><xs:choice maxOccurs="unbounded">
<xs:element name="s" type="S" nillable="true"/><xs:element name="n" type="xs:decimal" default="1"/><xs:element name="d" type="xs:dateTime"/><xs:element name="u" type="xs:duration"/>
<xs:element name="l" type="L"/><xs:element name="m"><xs:complexType mixed="true"><xs:sequence><xs:any processContents="lax" minOccurs="0" maxOccurs="unbounded"/></xs:sequence><xs:anyAttribute processContents="lax"/></xs:complexType></xs:element>
<xs:element name="k"><xs:complexType><xs:all><xs:element name="a" minOccurs="0"/><xs:element name="b" type="xs:base64Binary"/></xs:all><xs:attribute name="id" type="xs:ID"/><xs:attribute name="to" type="xs:IDREFS"/><xs:attribute name="q" type="xs:QName"/></xs:complexType></xs:element>
<xs:element name="c"><xs:complexType><xs:sequence><xs:element name="x" minOccurs="3" maxOccurs="60"/></xs:sequence></xs:complexType></xs:element>
<xs:element ref="r"/></xs:choice></xs:complexType>
<xs:unique name="U"><xs:selector xpath=".//k|n"/><xs:field xpath="@q|a|."/></xs:unique>
<xs:key name="K"><xs:selector xpath="k"/><xs:field xpath="@id"/></xs:key><xs:keyref name="R" refer="K"><xs:selector xpath=".//k"/><xs:field xpath="b"/></xs:keyref></xs:element>
<xs:simpleType name="S"><xs:restriction base="xs:token"><xs:maxLength value="9"/><xs:pattern value="(\w| |\p{P})*"/></xs:restriction></xs:simpleType>
<xs:simpleType name="L"><xs:list><xs:simpleType><xs:union memberTypes="xs:boolean xs:gYear xs:anyURI"/></xs:simpleType></xs:list></xs:simpleType>
<xs:attribute name="wild" type="xs:ID"/></xs:schema>`

// maxReport bounds what the errors of one document may take, whatever it holds.
const maxReport = 16 << 10

// FuzzValidate: what is valid, and what is only not valid, is well-formed for
// encoding/xml too; no document crashes the validator, and what it says of one is
// bounded and repeats nothing of it.
func FuzzValidate(f *testing.F) {
	schema, err := Compile(fstest.MapFS{"s.xsd": {Data: []byte(everything)}}, []string{"s.xsd"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, doc := range []string{
		`<r/>`, `<r><s>a b</s><n/><n> 1.50 </n></r>`, `<?xml version="1.0"?><!-- c --><r xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><s i:nil="true"/><r i:type="x"/></r>`,
		`<r><d>2024-02-29T24:00:00Z</d><u>-P1Y2M3DT4H5M6.7S</u><l> true 2024 a:b </l></r>`, `<r><m a="1" xml:lang="de">x<y xmlns="urn:y"><![CDATA[]]>&amp;&#x41;</y></m></r>`,
		`<r><k id="a" to="a" q="b"><b>YWI=</b><a/></k><c><x/><x/><x/></c></r>`, "\xef\xbb\xbf<r>\r\n<s>\u00e4\r</s></r>", `<r wild="a"><r wild="a"/></r>`, `<!DOCTYPE r [<!ENTITY e "x">]><r>&e;</r>`, `<r a="1" a="2"/>`, `<r><s>` + strings.Repeat("x", 300) + `</s></r>`,
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		errs := schema.Validate(doc, Options{})
		if len(errs) > 10 {
			t.Fatalf("%d errors", len(errs))
		}
		readable := true
		size := 0
		for _, e := range errs {
			readable = readable && !e.Code.Unreadable()
			size += len(e.Path) + len(e.Text)
			if e.Line < 1 || e.Column < 1 || e.Offset > len(doc) || e.Text == "" {
				t.Fatalf("%+v", e)
			}
		}
		if size > maxReport {
			t.Fatalf("the report takes %d bytes", size)
		}
		// With an error the rest may be unread.
		if len(errs) < 10 && readable {
			// encoding/xml has the names of the fourth edition.
			if err := wellFormed(doc); err != nil && !strings.Contains(err.Error(), "invalid XML name") {
				t.Fatalf("%v, and %v", errs, err)
			}
		}
		if again := schema.Validate(bytes.Clone(doc), Options{}); len(again) != len(errs) {
			t.Fatalf("%v, and then %v", errs, again)
		}
	})
}

// wellFormed asks encoding/xml, which checks less.
func wellFormed(doc []byte) error {
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf"))))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	roots, depth := 0, 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			if roots != 1 {
				return errors.New("not one root")
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch tok.(type) {
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
}

// FuzzCompile: no schema crashes or stalls the compiler; an error names file and
// line; what compiles validates without a crash.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(everything), []byte(`<r><s>x</s></r>`))
	for i := range features {
		f.Add([]byte(features[i].source()), []byte(append(features[i].valid, `<r/>`)[0]))
	}
	f.Fuzz(func(t *testing.T, source, doc []byte) {
		if len(source) > 20_000 {
			return
		}
		fsys := fstest.MapFS{"s.xsd": {Data: source}}
		s, err := Compile(fsys, []string{"s.xsd"}, func(_, location string) (string, bool) {
			return location, fs.ValidPath(location) && fsys[location] != nil
		})
		if err != nil {
			var ce *CompileError
			if !errors.As(err, &ce) || ce.Line < 1 || ce.File != "s.xsd" || len(ce.Text) > 4000 || !utf8.ValidString(ce.Text) {
				t.Fatalf("%.500q", err)
			}
			return
		}
		s.Validate(doc, Options{})
	})
}

// FuzzPattern: a pattern compiles or not, in bounded time, and matches by the
// automaton what it matches by simulation.
func FuzzPattern(f *testing.F) {
	for _, p := range [][2]string{{`\p{Lu}[\w-[\d_]]{1,3}`, "Äbc"}, {`(a|b)*c{2,}`, "abcc"}, {`[^\s]{0,1000}`, "x"}, {`((a?){20}){20}`, "aaa"}, {`\i\c*`, "a:b"}, {`[--z]`, "-"}, {`a{99999}`, "a"}} {
		f.Add(p[0], p[1])
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if len(text) > 200 || !utf8.ValidString(value) {
			return
		}
		p, err := compilePattern(text, newPatternBudget())
		a, err2 := NewAutomaton(text)
		if err != nil {
			return
		}
		if err2 != nil {
			t.Fatal(err2)
		}
		if len(value) > 50 || len(a.code) > 500 {
			return
		}
		states := a.Start()
		for _, c := range value {
			states = a.Step(states, c)
		}
		if got, want := p.match([]byte(value)), a.Accepts(states); got != want {
			t.Fatalf("%q on %q: %v by automaton, %v by simulation", text, value, got, want)
		}
	})
}
