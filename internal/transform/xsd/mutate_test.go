package xsd

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// span is one element of a document: where its tags begin and end, in bytes.
type span struct {
	open, inner, close, end int // <a>|…|</a>; inner == close == end for <a/>
	name                    string
	parent                  int // -1 for the root
	leaf                    bool
	typ                     *Type // nil where it is not known
}

// spans finds the elements of a well-formed document, with the types that the
// schema gives them.
func spans(s *Schema, doc []byte) []span {
	d := xml.NewDecoder(bytes.NewReader(doc))
	var out []span
	var stack []int
	for {
		at := int(d.InputOffset())
		tok, err := d.Token()
		if err != nil {
			return out
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			e := span{open: at, inner: int(d.InputOffset()), parent: -1, leaf: true}
			e.name = string(bytes.FieldsFunc(doc[at+1:], func(r rune) bool { return strings.ContainsRune(" \t\r\n/>", r) })[0])
			name := Name{tok.Name.Space, tok.Name.Local}
			if len(stack) > 0 {
				e.parent = stack[len(stack)-1]
				out[e.parent].leaf = false
				e.typ = typeWithin(s, out[e.parent].typ, name)
			} else if root := s.Element(name); root != nil {
				e.typ = root.Type
			}
			stack = append(stack, len(out))
			out = append(out, e)
		case xml.EndElement:
			e := &out[stack[len(stack)-1]]
			e.close, e.end = at, int(d.InputOffset())
			stack = stack[:len(stack)-1]
		}
	}
}

func typeWithin(s *Schema, parent *Type, name Name) *Type {
	if parent == nil {
		return nil
	}
	if id, ok := s.names.byName[name]; ok {
		if e := parent.declares(id); e != nil {
			return e.Type
		}
	}
	return nil
}

// mutator makes changed versions of one document.
type mutator struct {
	schema *Schema
	doc    []byte
	spans  []span
	rand   *rand.Rand
	types  []Name // named types of the schema
}

func newMutator(s *Schema, doc []byte, seed uint64) *mutator {
	m := &mutator{schema: s, doc: doc, spans: spans(s, doc), rand: rand.New(rand.NewPCG(seed, 1))}
	for n := range s.types {
		m.types = append(m.types, n)
	}
	sortNames(m.types)
	return m
}

// next returns a changed document and what was changed.
func (m *mutator) next() (string, []byte) {
	kinds := []struct {
		name string
		make func() []byte
	}{
		{"drop", m.drop}, {"double", m.double}, {"swap", m.swap}, {"rename", m.rename}, {"namespace", m.namespace},
		{"attribute", m.attribute}, {"attribute", m.attribute}, {"new attribute", m.newAttribute},
		{"text", m.text}, {"text", m.text}, {"text", m.text}, {"border", m.border}, {"border", m.border}, {"border", m.border},
		{"type", m.xsiType}, {"nil", m.xsiNil}, {"insert", m.insert}, {"bytes", m.bytes}, {"document", m.document}, {"empty", m.empty},
		{"break up", m.breakUp},
	}
	for {
		k := kinds[m.rand.IntN(len(kinds))]
		if out := k.make(); out != nil {
			return k.name, out
		}
	}
}

func (m *mutator) pick() *span { return &m.spans[m.rand.IntN(len(m.spans))] }

func (m *mutator) leaf() *span {
	for range 50 {
		if s := m.pick(); s.leaf && s.inner < s.end {
			return s
		}
	}
	return nil
}

// put replaces what lies between two offsets.
func (m *mutator) put(from, to int, text string) []byte {
	return []byte(string(m.doc[:from]) + text + string(m.doc[to:]))
}

func (m *mutator) of(list ...string) string { return list[m.rand.IntN(len(list))] }

func (m *mutator) drop() []byte {
	s := m.pick()
	if s.parent < 0 {
		return nil
	}
	return m.put(s.open, s.end, "")
}

func (m *mutator) double() []byte {
	s := m.pick()
	return m.put(s.end, s.end, strings.Repeat(string(m.doc[s.open:s.end]), 1+m.rand.IntN(2)))
}

func (m *mutator) swap() []byte {
	i := m.rand.IntN(len(m.spans))
	for j := i + 1; j < len(m.spans); j++ {
		a, b := m.spans[i], m.spans[j]
		if a.parent == b.parent && a.parent >= 0 {
			return m.put(a.open, b.end, string(m.doc[b.open:b.end])+string(m.doc[a.end:b.open])+string(m.doc[a.open:a.end]))
		}
	}
	return nil
}

func (m *mutator) rename() []byte {
	s := m.pick()
	name := m.of(m.pick().name, "x"+s.name, strings.ToUpper(s.name), s.name+"x", "ns0:"+s.name, "xml"+s.name, "é"+s.name)
	tag := "<" + name + string(m.doc[s.open+1+len(s.name):s.inner])
	if s.inner == s.end {
		return m.put(s.open, s.end, tag)
	}
	return m.put(s.open, s.end, tag+string(m.doc[s.inner:s.close])+"</"+name+">")
}

func (m *mutator) namespace() []byte {
	s := m.pick()
	at := s.open + 1 + len(s.name)
	decl := m.of(` xmlns=""`, ` xmlns="urn:other"`, ` xmlns:ns9="urn:other"`, ` xmlns:ns9=""`, ` xmlns:xml="urn:x"`, ` xmlns:xmlns="urn:x"`, ` xmlns="http://www.w3.org/2000/xmlns/"`)
	if s.parent < 0 || m.rand.IntN(3) == 0 {
		// Another namespace for a declaration that is there.
		i := bytes.Index(m.doc, []byte("xmlns"))
		if i < 0 {
			return nil
		}
		i += bytes.IndexByte(m.doc[i:], '"') + 1
		return m.put(i, i, m.of("x", "urn:", " "))
	}
	return m.put(at, at, decl)
}

// attributes returns where the values of a start tag's attributes lie, quotes not
// included, and where the attributes begin.
func (m *mutator) attributes(s *span) (values [][3]int) {
	tag := m.doc[s.open:s.inner]
	at := 1 + len(s.name)
	for {
		eq := bytes.IndexByte(tag[at:], '=')
		if eq < 0 {
			return values
		}
		from := at + eq + 1
		for tag[from] != '"' && tag[from] != '\'' {
			from++
		}
		to := from + 1 + bytes.IndexByte(tag[from+1:], tag[from])
		values = append(values, [3]int{s.open + at, s.open + from + 1, s.open + to})
		at = to + 1
	}
}

func (m *mutator) attribute() []byte {
	for range 50 {
		s := m.pick()
		values := m.attributes(s)
		if len(values) == 0 {
			continue
		}
		v := values[m.rand.IntN(len(values))]
		switch m.rand.IntN(4) {
		case 0:
			return m.put(v[0], v[2]+1, "")
		case 1:
			return m.put(v[2]+1, v[2]+1, string(m.doc[v[0]:v[2]+1]))
		case 2:
			return m.put(v[1], v[2], m.value(string(m.doc[v[1]:v[2]])))
		}
		return m.put(v[1], v[2], m.of(" ", "\n\t", "&#9;", "&#xA;", "&#x20;")+string(m.doc[v[1]:v[2]])+m.of("", " ", "\n"))
	}
	return nil
}

const xsiDeclared = ` xmlns:xsi9="http://www.w3.org/2001/XMLSchema-instance"`

func (m *mutator) newAttribute() []byte {
	s := m.pick()
	at := s.open + 1 + len(s.name)
	text := m.of(` foo="1"`, ` xml:lang="de"`, ` xml:lang="d e"`, ` xml:space="preserve"`, ` xml:id="a"`, ` listVersionID="1"`, ` listURI="urn:x"`, ` name="x"`, ` id="a"`, ` foo='1'bar="2"`, ` foo=1`, ` foo`,
		` ns9:foo="1"`, ` xmlns:ns9="urn:other" ns9:foo="1"`, ` xmlns:a="urn:o" xmlns:b="urn:o" a:x="" b:x=""`, xsiDeclared+` xsi9:schemaLocation="urn:x nowhere.xsd"`, xsiDeclared+` xsi9:foo="x"`, ` a="<"`, ` a="&amp;&lt;"`, ` a="&x;"`)
	if s.typ != nil && len(s.typ.Attributes) > 0 && m.rand.IntN(2) == 0 {
		u := s.typ.Attributes[m.rand.IntN(len(s.typ.Attributes))]
		text = " " + u.Name.Local + `="` + m.value("1") + `"`
	}
	return m.put(at, at, text)
}

// value is another value, in all sorts of lexical forms.
func (m *mutator) value(old string) string {
	if m.rand.IntN(3) == 0 {
		switch m.rand.IntN(7) {
		case 0:
			return old + old
		case 1:
			return " " + old
		case 2:
			return old + "\n"
		case 3:
			return strings.ToUpper(old)
		case 4:
			return strings.Replace(old, "-", "", 1)
		case 5:
			return old[:len(old)/2]
		}
		return old + "x"
	}
	return m.of("", " ", "x", "0", "1", "-1", "+1", "1.0", "1.", "01", "1e5", "1,5", "true", "TRUE", "false", " true ", "2024-02-29", "2023-02-29", "2024-13-01", "2024-1-1", "2024-02-29Z", "2024-02-29+14:00", "2024-02-29+14:01",
		"2024-02-29T10:00:00", "2024-02-29T24:00:00", "2024-02-29T25:00:00", "2024-02-29T10:00:00.123Z", "2024-02-29t10:00:00", "10:00:00", "24:00:00", "10:00", "2024", "2024-02", "--02-29", "P1Y", "PT", "0000-01-01", "-0001-01-01", "12024-01-01",
		"Ä", "И", "ß", "a\u0301", "\u00A0", "\u200B", "\uFFFD", "\U0001F600", "\u0085", "x y", "x  y", "\tx\t", "x&#13;y", "&#x9;x", "a&amp;b", "&lt;", "urn:a:b", "http://[", "%zz", "a:b", ":", "_a", "1a", "60f6667b-fa45-4bd7-b717-f4d6c65e5edb",
		"YWI=", "YWI", "Y W I =", "0aF", "0aFF", "de", "de-DE", "toolonglanguage", strings.Repeat("x", 251), strings.Repeat("x", 3000), strings.Repeat("9", 40), "00000000-0000-0000-0000-000000000000", "9999-12-31", "NaN", "INF")
}

func (m *mutator) text() []byte {
	s := m.leaf()
	if s == nil {
		return nil
	}
	old := string(m.doc[s.inner:s.close])
	return m.put(s.inner, s.close, m.value(old))
}

// border gives an element a value at the border of a facet of its type.
func (m *mutator) border() []byte {
	for range 50 {
		s := m.leaf()
		if s == nil || s.typ == nil || s.typ.Simple == nil {
			continue
		}
		if v := m.borders(s.typ.Simple); len(v) > 0 {
			var escaped strings.Builder
			_ = xml.EscapeText(&escaped, []byte(v[m.rand.IntN(len(v))]))
			return m.put(s.inner, s.close, escaped.String())
		}
	}
	return nil
}

func (m *mutator) borders(s *Simple) (out []string) {
	for _, n := range []int{s.Length, s.MinLength, s.MaxLength} {
		if n >= 0 && n < 5000 {
			for _, unit := range []string{"x", "ä", "\U0001D11E", " x"} {
				out = append(out, strings.Repeat(unit, max(n-1, 0)), strings.Repeat(unit, n), strings.Repeat(unit, n+1))
			}
		}
	}
	for _, p := range []*string{s.MinInclusive, s.MaxInclusive, s.MinExclusive, s.MaxExclusive} {
		if p == nil {
			continue
		}
		out = append(out, *p, *p+"0", "0"+*p, *p+".0", *p+".1", "-"+*p, *p+"Z")
		if n, err := strconv.Atoi(*p); err == nil {
			out = append(out, strconv.Itoa(n-1), strconv.Itoa(n+1), fmt.Sprintf("%d.000", n))
		}
	}
	for _, v := range s.Enumeration {
		out = append(out, v, v+" ", " "+v, v+"x", strings.ToLower(v), "0"+v)
	}
	for _, n := range []int{s.TotalDigits, s.FractionDigits} {
		if n >= 0 && n < 100 {
			out = append(out, strings.Repeat("9", n), strings.Repeat("9", n+1), "0."+strings.Repeat("1", n), "0."+strings.Repeat("1", n+1), "0."+strings.Repeat("1", n)+"000", "000"+strings.Repeat("9", n))
		}
	}
	for _, group := range s.Patterns {
		for _, p := range group {
			if a, err := NewAutomaton(p); err == nil {
				out = append(out, m.walk(a), m.walk(a)+m.of("", " ", "x", "é", "\n"))
			}
		}
	}
	return out
}

// walk makes a text that a pattern lets through, or almost.
func (m *mutator) walk(a *Automaton) string {
	states := a.Start()
	var out []rune
	for len(out) < 60 {
		if a.Accepts(states) && m.rand.IntN(4) == 0 {
			return string(out)
		}
		in := a.code[states[m.rand.IntN(len(states))]]
		if in.op != opSet || len(a.sets[in.set]) == 0 {
			return string(out)
		}
		r := a.sets[in.set][m.rand.IntN(len(a.sets[in.set]))]
		c := r.lo + m.rand.Int32N(r.hi-r.lo+1)
		if !isXMLChar(c) || c == '\r' {
			return string(out)
		}
		out = append(out, c)
		if states = a.Step(states, c); len(states) == 0 {
			return string(out)
		}
	}
	return string(out)
}

func (m *mutator) xsiType() []byte {
	s := m.pick()
	at := s.open + 1 + len(s.name)
	var n Name
	switch m.rand.IntN(4) {
	case 0:
		n = Name{schemaNamespace, m.of("string", "token", "date", "anyType", "anySimpleType", "int", "nothing")}
	case 1:
		n = m.types[m.rand.IntN(len(m.types))]
	default:
		if s.typ == nil {
			return nil
		}
		// The own type, a base, or one derived from it.
		n = s.typ.Name
		if m.rand.IntN(3) == 0 && s.typ.Base != nil {
			n = s.typ.Base.Name
		}
		for range 200 {
			if t := m.schema.types[m.types[m.rand.IntN(len(m.types))]]; t != s.typ && t.DerivedFrom(s.typ) {
				n = t.Name
				break
			}
		}
	}
	if n.Local == "" {
		return nil
	}
	decl, prefix := ` xmlns:ty9="`+n.Space+`"`, "ty9:"
	if n.Space == "" {
		decl, prefix = "", ""
	}
	return m.put(at, at, decl+xsiDeclared+` xsi9:type="`+prefix+n.Local+`"`)
}

func (m *mutator) xsiNil() []byte {
	s := m.pick()
	out := m.put(s.open+1+len(s.name), s.open+1+len(s.name), xsiDeclared+` xsi9:nil="`+m.of("true", "1", "false", "0", "no", "")+`"`)
	if m.rand.IntN(2) == 0 && s.inner < s.end {
		grown := len(out) - len(m.doc)
		return append(out[:s.inner+grown:s.inner+grown], out[s.close+grown:]...)
	}
	return out
}

// insert puts something between two tags.
func (m *mutator) insert() []byte {
	s := m.pick()
	if s.inner == s.end {
		return nil
	}
	at := []int{s.inner, s.close}[m.rand.IntN(2)]
	return m.put(at, at, m.of("x", " ", "\n", "<!-- c -->", "<!-- a--b -->", "<!---->", "<?p i?>", "<?xml version='1.0'?>", "<![CDATA[]]>", "<![CDATA[ ]]>", "<![CDATA[x]]>", "&#32;", "&#x9;", "&amp;", "&nope;", "&#0;", "&#xFFFE;", "]]>", ">",
		"<x/>", "<"+s.name+"/>", `<x xmlns="urn:other"/>`, `<q:x xmlns:q="urn:other"/>`, "<x>", "</x>", "\u00A0", "\r", "<!DOCTYPE x>", "<!ELEMENT x ANY>"))
}

// breakUp writes a text in another form that means the same.
func (m *mutator) breakUp() []byte {
	s := m.leaf()
	if s == nil || s.close-s.inner < 2 || m.doc[s.inner] == '<' || bytes.ContainsAny(m.doc[s.inner:s.close], "&<") {
		return nil
	}
	at := s.inner + 1
	for at < s.close && m.doc[at]&0xC0 == 0x80 {
		at++
	}
	switch m.rand.IntN(4) {
	case 0:
		return m.put(at, at, m.of("<!-- c -->", "<?p i?>", "<![CDATA[]]>"))
	case 1:
		return m.put(s.inner, s.close, "<![CDATA["+string(m.doc[s.inner:s.close])+"]]>")
	case 2:
		return m.put(s.inner, at, fmt.Sprintf("&#x%X;", []rune(string(m.doc[s.inner:at]))[0]))
	}
	return m.put(s.inner, s.inner+0, m.of(" ", "\n", "\t", "&#10;"))
}

func (m *mutator) empty() []byte {
	s := m.pick()
	if s.inner == s.end || m.rand.IntN(2) == 0 {
		return m.put(s.inner, max(s.close, s.inner), "")
	}
	return m.put(s.inner-1, s.end, "/>")
}

// bytes puts bytes in that no document may have, or only some places.
func (m *mutator) bytes() []byte {
	at := m.rand.IntN(len(m.doc))
	if m.rand.IntN(3) > 0 {
		if s := m.leaf(); s != nil {
			at = s.inner
		}
	}
	return m.put(at, at, m.of("\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x28", "\x00", "\x0b", "\x1f", "\xef\xbf\xbe", "\xef\xbb\xbf", "\x7f", "\xc2\x85", "&", "<", "\xf0\x9f\x98\x80", "\xc3"))
}

// document changes what stands around the root.
func (m *mutator) document() []byte {
	switch m.rand.IntN(8) {
	case 0:
		return m.doc[:m.rand.IntN(len(m.doc))]
	case 1:
		return append(bytes.Clone(m.doc), m.of("x", "<x/>", "<!-- c -->", "\n\n", "&#32;", "<?p i?>", "</x>", "\x00", "<![CDATA[]]>")...)
	case 2:
		return append([]byte(m.of(" ", "\n", "x", "<!-- c -->", "\xef\xbb\xbf", "<?p i?>")), m.doc...)
	case 3:
		body := m.doc[m.spans[0].open:]
		return append([]byte(m.of("", "<?xml version=\"1.0\"?>", "<?xml version='1.0' encoding='utf-8' standalone='yes'?>", "<?xml version=\"1.1\"?>", "<?xml version=\"1.0\" encoding=\"US-ASCII\"?>", "<?xml encoding=\"UTF-8\"?>", "<?xml version=\"1.0\" standalone=\"maybe\"?>", "<?xml version=\"1.0\" encoding=\"UTF-8\"", "<?XML version=\"1.0\"?>")), body...)
	case 4:
		root := m.spans[0]
		return m.put(root.open, root.open, m.of("<!DOCTYPE x>", `<!DOCTYPE x [<!ENTITY e "x">]>`, "<!-- c -->\n"))
	case 5:
		return bytes.ReplaceAll(m.doc, []byte("\n"), []byte(m.of("\r\n", "\r", " ", "")))
	case 6:
		return bytes.ReplaceAll(m.doc, []byte("><"), []byte(">\n\t<"))
	}
	return bytes.ReplaceAll(m.doc, []byte(">\n"), []byte(m.of(">", "> ", ">\t\n")))
}

func sortNames(names []Name) { slices.SortFunc(names, compareNames) }
