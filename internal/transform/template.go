package transform

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"weiche/internal/config"
	"weiche/internal/foreignxml"
	"weiche/internal/transform/standard"
)

// mappingNamespace is the namespace of the language's directives.
const mappingNamespace = "urn:weiche:mapping:1"

const (
	xmlNamespace = "http://www.w3.org/XML/1998/namespace"
	xsiNamespace = "http://www.w3.org/2001/XMLSchema-instance"
)

// mappingLimits bound a mapping file: it is configuration, but the recursion
// over it must not depend on that.
var mappingLimits = foreignxml.Limits{Bytes: 4 << 20, Depth: 100, Elements: 50_000, Attributes: 100}

type nodeKind uint8

const (
	nodeElement nodeKind = iota
	nodeGroup
	nodeChoose
	nodeWhen
	nodeOtherwise
	nodeData
	nodeInclude
)

// The language's elements and directives.
var (
	elements       = []string{"group", "choose", "when", "otherwise", "data", "include", "fragment"}
	directiveNames = []string{"for", "let", "if", "value", "inline", "max", "types", "required", "keep", "checked", "unused"}
)

// node is one element of a mapping: of the target, or of the language.
type node struct {
	kind     nodeKind
	line     mark
	tag      string // as written, with its prefix
	name     qname
	attrs    []nodeAttr
	children []*node

	each      *expression // w:for
	eachKey   string
	indexKey  string
	eachScope *scope // that of its item
	lets      []letting
	cond      *expression // w:if
	value     *template   // w:value, text, or what w:inline names
	inline    *inlining
	keep      bool
	required  bool
	checked   string      // why what is not proven of it is left to the check of each message
	data      *expression // w:data of
	dataDeep  []*formNode // the schemas of what w:data writes
	inside    *node       // the element of the target around this node
	some      *formula    // see content
	steps     []step      // see inner
	hasText   bool
}

type letting struct {
	key  string
	expr *expression
}

// nodeAttr is an attribute as it leaves, namespace declarations included.
type nodeAttr struct {
	line  mark
	tag   string
	name  qname
	decl  bool // xmlns
	value *template
}

// template is text with expressions in it.
type template struct {
	line  mark
	parts []templatePart
}

type templatePart struct {
	text string
	expr *expression
}

// constant returns the text where there is no expression in it.
func (t *template) constant() (string, bool) {
	if t == nil {
		return "", true
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.expr != nil {
			return "", false
		}
		b.WriteString(p.text)
	}
	return b.String(), true
}

type qname struct{ space, local string }

func (q qname) String() string {
	if q.space == "" {
		return q.local
	}
	return "{" + q.space + "}" + q.local
}

// position of a start tag and the lines of its attributes.
type position struct {
	line  int
	attrs map[string]int // written name → line
}

// positions lists the start tags of a document in order; etree keeps none.
func positions(raw []byte) ([]position, error) {
	d := xml.NewDecoder(bytes.NewReader(raw))
	var out []position
	for {
		line, _ := d.InputPos()
		from := d.InputOffset()
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if _, ok := t.(xml.StartElement); !ok {
			continue
		}
		out = append(out, position{line, attributeLines(raw[from:d.InputOffset()], line)})
	}
}

var attributeStart = regexp.MustCompile(`([^\s<>/="']+)\s*=\s*("[^"]*"|'[^']*')`)

func attributeLines(tag []byte, line int) map[string]int {
	lines := map[string]int{}
	for _, m := range attributeStart.FindAllSubmatchIndex(tag, -1) {
		lines[string(tag[m[2]:m[3]])] = line + bytes.Count(tag[:m[2]], []byte("\n"))
	}
	return lines
}

// reader turns the etree of a mapping into nodes.
type reader struct {
	page
	file     string // the mapping's
	std      *standard.Standard
	shared   *Shared
	parsed   map[string]parsed // fragments by name
	spaces   map[string]string // the root's prefixes
	globals  *scope
	size     int // elements, those of fragments at each place of use
	form     *FormSchema
	used     map[string]bool // fields of the form that some expression looks at
	unused   []unused
	problems config.Problems
}

func (r *reader) problem(line int, text string, args ...any) {
	r.problems = append(r.problems, r.mark(line).problem(r.file, fmt.Sprintf(text, args...)))
}

func (r *reader) mark(line int) mark { return mark{line, r.in} }

// expression compiles one expression and notes what it looks at.
func (r *reader) expression(src string, line int, in *scope) *expression {
	e, faults := compileExpression(src, in)
	for _, f := range faults {
		r.problem(line, "%s (in %q)", f, src)
	}
	if e != nil {
		for _, path := range e.used {
			r.used[path] = true
		}
	}
	return e
}

// readMapping parses a mapping and compiles its expressions.
func readMapping(file string, raw []byte, std *standard.Standard, form *FormSchema, shared *Shared) (*node, config.Problems) {
	r := &reader{file: file, std: std, form: form, shared: shared, used: map[string]bool{}, parsed: map[string]parsed{}}
	doc := r.parse(raw)
	if doc == nil {
		return nil, r.problems
	}
	r.spaces = namespaces(doc.Root())
	for n, s := range contextShapes() {
		r.globals = r.globals.bind(n, s)
	}
	r.globals = r.globals.bind("form", formShape([]*formNode{form.root}, "form"))
	if r.globals.shape.kind == kindUnknown {
		r.globals.shape.kind = kindGroup
	}
	r.globals.lookups = r.tablesBeside(file)
	root := r.element(doc.Root(), r.globals, nil)
	if root != nil && root.kind != nodeElement {
		r.problem(root.line.line, "the root element belongs to the language; it must be the target message's root")
	} else if root != nil && (root.each != nil || root.cond != nil) {
		r.problem(root.line.line, "the root element can neither repeat nor be left out")
	}
	if len(r.problems) == 0 {
		r.problems = checkFields(file, form, r.used, r.unused)
	}
	return root, r.problems
}

func (r *reader) tablesBeside(file string) *tables {
	return &tables{std: r.std, dir: filepath.Dir(file), shared: r.shared}
}

// page is the file being read.
type page struct {
	in   *inclusion // nil: the mapping itself
	pos  []position
	next int
}

// parse reads a mapping or a fragment and turns to its first element; nil where
// it cannot be read.
func (r *reader) parse(raw []byte) *etree.Document {
	if err := foreignxml.Check(bytes.NewReader(raw), mappingLimits); err != nil {
		d := xml.NewDecoder(bytes.NewReader(raw))
		line := 0
		for {
			if _, e := d.Token(); e != nil {
				line, _ = d.InputPos()
				var se *xml.SyntaxError
				if errors.As(e, &se) { // a mapping is no payload: say what is wrong
					r.problem(se.Line, "the mapping is not well-formed XML: %s", se.Msg)
					return nil
				}
				break
			}
		}
		r.problem(line, "%v", err)
		return nil
	}
	pos, err := positions(raw)
	if err != nil {
		r.problem(0, "the mapping is not well-formed XML")
		return nil
	}
	r.pos, r.next = pos, 0
	doc := etree.NewDocument()
	doc.ReadSettings.PreserveDuplicateAttrs = true
	if err := doc.ReadFromBytes(raw); err != nil || doc.Root() == nil {
		r.problem(0, "the mapping is not well-formed XML")
		return nil
	}
	return doc
}

// position is that of the next start tag.
func (r *reader) position() position {
	p := position{}
	if r.next < len(r.pos) {
		p = r.pos[r.next]
	}
	r.next++
	r.size++
	return p
}

func (r *reader) element(el *etree.Element, in *scope, parent *node) *node {
	p := r.position()
	n := &node{line: r.mark(p.line), tag: el.FullTag(), name: qname{el.NamespaceURI(), el.Tag}}
	if n.inside = parent; parent != nil && parent.kind != nodeElement {
		n.inside = parent.inside
	}
	lineOf := func(attr string) int {
		if l, ok := p.attrs[attr]; ok {
			return l
		}
		return p.line
	}
	if el.Space != "" && n.name.space == "" {
		r.problem(p.line, "the prefix %q is not declared", el.Space)
	}
	if n.name.space == mappingNamespace {
		switch el.Tag {
		case "group":
			n.kind = nodeGroup
		case "choose":
			n.kind = nodeChoose
		case "when":
			n.kind = nodeWhen
		case "otherwise":
			n.kind = nodeOtherwise
		case "data":
			n.kind = nodeData
		case "include":
			n.kind = nodeInclude
		case "fragment":
			r.problem(p.line, "w:fragment is the root of a file of its own")
		default:
			r.problem(p.line, "the language has no element %q%s", el.Tag, hint(el.Tag, elements))
		}
	}
	if (n.kind == nodeWhen || n.kind == nodeOtherwise) && (parent == nil || parent.kind != nodeChoose) {
		r.problem(p.line, "%s stands outside of a choose", el.Tag)
	}
	if parent != nil && parent.kind == nodeChoose && n.kind != nodeWhen && n.kind != nodeOtherwise {
		r.problem(p.line, "inside a choose only when and otherwise may stand")
	}

	directives := map[string]etree.Attr{}
	var plain []etree.Attr
	seen := map[string]bool{}
	for _, a := range el.Attr {
		full := a.FullKey()
		if seen[full] {
			r.problem(lineOf(full), "the attribute %s stands twice", full)
			continue
		}
		seen[full] = true
		isDecl := a.Space == "xmlns" || (a.Space == "" && a.Key == "xmlns")
		switch {
		case isDecl && a.Value == mappingNamespace:
		case !isDecl && a.Space != "" && a.NamespaceURI() == mappingNamespace:
			directives[a.Key] = a
		case isDecl && parent != nil:
			r.problem(lineOf(full), "namespaces are declared on the root element")
		case isDecl && a.Space == "" && a.Value != "" && n.kind == nodeElement:
			plain = append(plain, a)
		default:
			plain = append(plain, a)
		}
	}
	expr := func(key, src string, in *scope) *expression {
		return r.expression(src, lineOf(key), in)
	}
	take := func(key string) (string, string, bool) {
		a, ok := directives[key]
		delete(directives, key)
		return a.Value, a.FullKey(), ok
	}

	if v, key, ok := take("for"); ok {
		if n.kind == nodeWhen || n.kind == nodeOtherwise {
			r.problem(lineOf(key), "%s takes no w:for; put a group inside it", el.Tag)
		}
		name, src, found := strings.Cut(v, " in ")
		name, src = strings.TrimSpace(name), strings.TrimSpace(src)
		if !found || !identifier.MatchString(name) || src == "" {
			r.problem(lineOf(key), `w:for is written "name in list", as in "p in form.personen"`)
		} else {
			n.each = expr(key, src, in)
			item := shape{}
			if n.each != nil {
				if k := n.each.shape.kind; k != kindList && k != kindUnknown {
					r.problem(lineOf(key), "w:for needs a list; %s is a %s", src, k)
				}
				item = n.each.shape.items()
			}
			if reserved(name) {
				r.problem(lineOf(key), "the name %q is taken", name)
			}
			in = in.bind(name, item)
			in.list, n.eachScope = n.each, in
			n.eachKey = in.key
			in = in.bind(name+"_index", shape{kind: kindNumber})
			n.indexKey = in.key
		}
	}
	if v, key, ok := take("let"); ok {
		for _, one := range strings.Split(v, ";") {
			if strings.TrimSpace(one) == "" {
				continue
			}
			name, src, found := strings.Cut(one, "=")
			name, src = strings.TrimSpace(name), strings.TrimSpace(src)
			if !found || !identifier.MatchString(name) || src == "" || src[0] == '=' {
				r.problem(lineOf(key), `w:let is written "name = expression", several separated by ";"`)
				continue
			}
			if reserved(name) {
				r.problem(lineOf(key), "the name %q is taken", name)
				continue
			}
			e := expr(key, src, in)
			s := shape{}
			if e != nil {
				s = e.shape
			}
			in = in.bind(name, s)
			in.def = e
			n.lets = append(n.lets, letting{in.key, e})
		}
	}
	if v, key, ok := take("if"); ok {
		if n.kind == nodeOtherwise || n.kind == nodeChoose {
			r.problem(lineOf(key), "%s takes no w:if", el.Tag)
		}
		n.cond = expr(key, v, in)
		if n.cond != nil {
			if k := n.cond.shape.kind; k != kindBoolean && k != kindUnknown {
				r.problem(lineOf(key), "w:if needs true or false; %q is a %s: say has(…) for \"is there\"", v, k)
			}
		}
	} else if n.kind == nodeWhen {
		r.problem(p.line, "when needs a w:if")
	}
	for _, flag := range []string{"required", "keep"} {
		v, key, ok := take(flag)
		if !ok {
			continue
		}
		if v != "true" && v != "false" {
			r.problem(lineOf(key), `w:%s is "true" or "false"`, flag)
		}
		if n.kind != nodeElement {
			r.problem(lineOf(key), "w:%s belongs on an element of the target", flag)
		}
		if flag == "required" {
			n.required = v == "true"
		} else {
			n.keep = v == "true"
		}
	}
	if v, key, ok := take("checked"); ok {
		if n.kind != nodeElement || strings.TrimSpace(v) == "" {
			r.problem(lineOf(key), "w:checked belongs on an element of the target and says why")
		}
		n.checked = strings.TrimSpace(v)
	}
	if n.required && n.keep {
		r.problem(p.line, "w:required and w:keep exclude each other")
	}
	if v, key, ok := take("unused"); ok {
		if parent != nil || r.in != nil {
			r.problem(lineOf(key), "w:unused stands on the root element")
		}
		for _, path := range strings.Fields(v) {
			r.unused = append(r.unused, unused{unlisted(path), lineOf(key)})
		}
	}
	valueOf, valueKey, hasValue := take("value")
	if hasValue {
		if n.kind != nodeElement {
			r.problem(lineOf(valueKey), "w:value belongs on an element of the target")
		}
		if e := expr(valueKey, valueOf, in); e != nil {
			r.scalar(e, lineOf(valueKey))
			n.value = &template{line: r.mark(lineOf(valueKey)), parts: []templatePart{{expr: e}}}
		}
	}
	r.inline(n, take, lineOf, in)
	if hasValue && n.inline != nil {
		r.problem(lineOf(valueKey), "<%s> has both w:value and w:inline", n.tag)
	}
	for key, a := range directives {
		r.problem(lineOf(a.FullKey()), "the language has no directive w:%s%s", key, hint(key, directiveNames))
	}
	if n.kind == nodeInclude {
		r.include(el, n, plain, lineOf, in)
		return n
	}

	for _, a := range plain {
		key := a.FullKey()
		if n.kind != nodeElement {
			if n.kind == nodeData && key == "of" {
				if e := expr(key, a.Value, in); e != nil {
					if !e.isPath() {
						r.problem(lineOf(key), "of names a path into the form")
					}
					if e.shape.nodes == nil && e.shape.kind != kindUnknown {
						r.problem(lineOf(key), "of names a path into the form; %q is none", a.Value)
					}
					n.data, n.dataDeep = e, e.shape.nodes
					r.useAll(e.shape.paths)
				}
				continue
			}
			r.problem(lineOf(key), "w:%s has no attribute %q%s", el.Tag, key, missingPrefix(key))
			continue
		}
		na := nodeAttr{line: r.mark(lineOf(key)), tag: key, name: qname{a.NamespaceURI(), a.Key}}
		if a.Space == "" {
			na.name.space = ""
		}
		if a.Space == "xmlns" || (a.Space == "" && a.Key == "xmlns") {
			na.decl = true
			na.value = &template{parts: []templatePart{{text: a.Value}}}
		} else {
			if a.Space == "xml" {
				na.name.space = xmlNamespace
			} else if a.Space != "" && na.name.space == "" {
				r.problem(na.line.line, "the prefix %q is not declared", a.Space)
			}
			na.value = r.template(a.Value, na.line.line, in)
		}
		n.attrs = append(n.attrs, na)
	}
	if n.kind == nodeData && n.data == nil && !seen["of"] {
		r.problem(p.line, `w:data needs of="form" or another path into the form`)
	}

	var text strings.Builder
	for _, child := range el.Child {
		switch c := child.(type) {
		case *etree.Element:
			n.children = append(n.children, r.element(c, in, n))
		case *etree.CharData:
			text.WriteString(c.Data)
		case *etree.ProcInst:
			r.problem(p.line, "processing instructions have no place in a mapping")
		case *etree.Directive:
			r.problem(p.line, "a DOCTYPE has no place in a mapping")
		}
	}
	if s := strings.TrimSpace(text.String()); s != "" {
		n.hasText = true
		switch {
		case n.kind != nodeElement:
			r.problem(p.line, "w:%s cannot hold text", el.Tag)
		case len(n.children) > 0:
			r.problem(p.line, "<%s> has both text and elements; put the text into an element of its own", n.tag)
		case hasValue, n.inline != nil:
			r.problem(p.line, "<%s> has both w:value or w:inline and text", n.tag)
		default:
			n.value = r.template(s, p.line, in)
		}
	}
	if (hasValue || n.inline != nil) && len(n.children) > 0 {
		r.problem(p.line, "<%s> has both w:value or w:inline and elements", n.tag)
	}
	if n.kind == nodeData && len(n.children) > 0 {
		r.problem(p.line, "w:data holds nothing")
	}
	if n.kind == nodeChoose {
		for i, c := range n.children {
			if c.kind == nodeOtherwise && i != len(n.children)-1 {
				r.problem(c.line.line, "otherwise is the last of its choose")
			}
		}
	}
	if n.required && n.value == nil && len(n.children) == 0 {
		r.problem(p.line, "w:required needs a value or elements inside")
	}
	return n
}

func missingPrefix(key string) string {
	if slices.Contains(directiveNames, key) {
		return "; write w:" + key
	}
	return ""
}

// scalar refuses a value that can never be a text.
func (r *reader) scalar(e *expression, line int) {
	if k := e.shape.kind; k == kindList || k == kindGroup {
		r.problem(line, "%q is a %s, not a text", e.src, k)
	}
}

var identifier = regexp.MustCompile(`^[a-z][A-Za-z0-9_]*$`)

// template splits "Flur {form.flur}" into text and expressions.
func (r *reader) template(s string, line int, in *scope) *template {
	t := &template{line: r.mark(line)}
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			t.parts = append(t.parts, templatePart{text: text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case (c == '{' || c == '}') && i+1 < len(s) && s[i+1] == c:
			text.WriteByte(c)
			i++
		case c == '}':
			r.problem(line, "a } without its {; a literal brace is written }}")
			return t
		case c == '{':
			end := closingBrace(s[i:])
			if end < 0 {
				r.problem(line, "a { without its }; a literal brace is written {{")
				return t
			}
			flush()
			src := s[i+1 : i+end]
			if e := r.expression(src, line, in); e != nil {
				r.scalar(e, line)
				t.parts = append(t.parts, templatePart{expr: e})
			}
			i += end
		default:
			text.WriteByte(c)
		}
	}
	flush()
	return t
}

// closingBrace finds the brace that closes the one s begins with, over nested
// ones and quoted texts; -1 where there is none.
func closingBrace(s string) int {
	depth := 0
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}
