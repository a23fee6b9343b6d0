package transform

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"weiche/internal/transform/xsd"
)

// sketch is an element of a draft, or a comment.
type sketch struct {
	tag      string // "" for a comment
	text     string // of a comment, or a constant
	attrs    []sketchAttr
	children []*sketch
	fields   []string // of the form that it looks at
	guard    string   // under which it is there, where it must be said
	lacks    bool     // a comment about something required
	before   string   // a comment above the root
}

type sketchAttr struct{ name, value string }

func note(text string, args ...any) *sketch { return &sketch{text: fmt.Sprintf(text, args...)} }

func lacking(text string, args ...any) *sketch {
	return &sketch{text: "missing: " + fmt.Sprintf(text, args...), lacks: true}
}

func (s *sketch) add(more ...*sketch) { s.children = append(s.children, more...) }

func (s *sketch) set(name, value string) { s.attrs = append(s.attrs, sketchAttr{name, value}) }

func (s *sketch) get(name string) string {
	for _, a := range s.attrs {
		if a.name == name {
			return a.value
		}
	}
	return ""
}

func (s *sketch) elements() []*sketch {
	return slices.DeleteFunc(slices.Clone(s.children), func(c *sketch) bool { return c.tag == "" })
}

func (s *sketch) comments() []*sketch {
	return slices.DeleteFunc(slices.Clone(s.children), func(c *sketch) bool { return c.tag != "" })
}

func hasElement(all []*sketch) bool {
	return slices.ContainsFunc(all, func(s *sketch) bool { return s.tag != "" })
}

// filled counts the values in it that come from the form or the submission.
func (s *sketch) filled() int {
	n := filledIn(s.children)
	if s.get("w:value") != "" || s.tag == "w:data" {
		n++
	}
	return n
}

func filledIn(all []*sketch) int {
	n := 0
	for _, s := range all {
		n += s.filled()
	}
	return n
}

func (s *sketch) missing() int {
	n := 0
	if s.lacks {
		n = 1
	}
	for _, c := range s.children {
		n += c.missing()
	}
	return n
}

// constant says that something in it is written whatever the form says.
func (s *sketch) constant() bool {
	return s.tag != "" && (s.text != "" || s.get("w:required") != "" || slices.ContainsFunc(s.children, (*sketch).constant))
}

func (s *sketch) used(into map[string]bool) map[string]bool {
	for _, f := range s.fields {
		into[f] = true
	}
	for _, c := range s.children {
		c.used(into)
	}
	return into
}

// write is the draft as a file.
func (d *drafter) write(root *sketch) []byte {
	var b bytes.Buffer
	root.attrs = append(d.prefixes.declarations(), root.attrs...)
	comment(&b, root.before)
	root.write(&b, 0)
	return b.Bytes()
}

func comment(b *bytes.Buffer, text string) {
	for strings.Contains(text, "--") {
		text = strings.ReplaceAll(text, "--", "- -")
	}
	b.WriteString("<!-- " + strings.TrimSuffix(printable(text), "-") + " -->\n")
}

// printable leaves out what XML cannot carry: names of a form may hold it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0xFFFE || r == 0xFFFF {
			return -1
		}
		return r
	}, s)
}

func (s *sketch) write(b *bytes.Buffer, depth int) {
	indent := strings.Repeat("  ", depth)
	b.WriteString(indent)
	if s.tag == "" {
		comment(b, s.text)
		return
	}
	b.WriteString("<" + s.tag)
	for i, a := range s.attrs {
		if s.before != "" && i > 0 {
			b.WriteString("\n   ")
		}
		b.WriteString(" " + a.name + `="`)
		escape(b, a.value)
		b.WriteString(`"`)
	}
	switch {
	case s.text != "":
		b.WriteString(">")
		escape(b, s.text)
	case len(s.children) == 0:
		b.WriteString("/>\n")
		return
	case len(s.children) == 1 && s.children[0].tag != "" && len(s.children[0].children) == 0:
		b.WriteString(">") // a code in its element
		var inner bytes.Buffer
		s.children[0].write(&inner, 0)
		b.Write(bytes.TrimSuffix(inner.Bytes(), []byte("\n")))
	default:
		b.WriteString(">\n")
		for _, c := range s.children {
			c.write(b, depth+1)
		}
		b.WriteString(indent)
	}
	b.WriteString("</" + s.tag + ">\n")
}

func escape(b *bytes.Buffer, s string) {
	var raw bytes.Buffer
	_ = xml.EscapeText(&raw, []byte(s)) // a buffer takes everything
	b.WriteString(strings.ReplaceAll(raw.String(), "&#39;", "'"))
}

// literal is a constant text in the language, where braces mean something.
func literal(s string) string {
	return strings.NewReplacer("{", "{{", "}", "}}").Replace(s)
}

// prefixes names the namespaces of a draft.
type prefixes struct {
	of    map[string]string
	order []string
}

func newPrefixes(standard, space string) *prefixes {
	p := &prefixes{of: map[string]string{}}
	if space != "" {
		p.name(space, standard)
	}
	return p
}

// tag is an element's name with its prefix; unqualified ones have none.
func (p *prefixes) tag(n xsd.Name) string {
	if n.Space == "" {
		return n.Local
	}
	if _, ok := p.of[n.Space]; !ok {
		p.name(n.Space, lastWord(n.Space))
	}
	return p.of[n.Space] + ":" + n.Local
}

func (p *prefixes) name(space, like string) {
	var letters strings.Builder
	for _, r := range strings.ToLower(like) {
		if r >= 'a' && r <= 'z' {
			letters.WriteRune(r)
		}
	}
	base := letters.String()
	if base == "" || strings.HasPrefix(base, "xml") || base == "w" || base == "xsi" {
		base = "n"
	}
	taken := func(name string) bool {
		for _, have := range p.of {
			if have == name {
				return true
			}
		}
		return false
	}
	name := base
	for i := 2; taken(name); i++ {
		name = fmt.Sprint(base, i)
	}
	p.of[space] = name
	p.order = append(p.order, space)
}

// lastWord is the last part of a namespace that is a word.
func lastWord(space string) string {
	parts := strings.FieldsFunc(space, func(r rune) bool { return strings.ContainsRune("/:#.", r) })
	slices.Reverse(parts)
	for _, part := range parts {
		if strings.Trim(part, "0123456789_-") == part && len(part) > 2 && part != "schema" && part != "schemata" {
			return part
		}
	}
	return "n"
}

func (p *prefixes) declarations() []sketchAttr {
	var out []sketchAttr
	for _, space := range p.order {
		out = append(out, sketchAttr{"xmlns:" + p.of[space], space})
	}
	return append(out, sketchAttr{"xmlns:w", mappingNamespace})
}
