package transform

import (
	"slices"
	"strconv"
	"sync"

	"github.com/beevik/etree"

	"weiche/internal/transform/standard"
)

const xsdNamespace = "http://www.w3.org/2001/XMLSchema"

// xsdModel is as much of a standard's XSD as the proof of a mapping needs:
// which elements and attributes may stand where, in what order, how often. It
// judges no values; the validator does. Types are built when they are first
// asked for, so it is not safe for concurrent use.
type xsdModel struct {
	mu         sync.Mutex
	elements   map[qname]component
	types      map[qname]component
	groups     map[qname]component
	attributes map[qname]component
	attrGroups map[qname]component
	members    map[qname][]qname // head of a substitution group → its members

	builtElements map[*etree.Element]*elementDecl
	builtTypes    map[*etree.Element]*typeDef
}

type xsdDoc struct {
	*standard.Document
	qualified   bool // elementFormDefault
	qualifiedAt bool // attributeFormDefault
}

type component struct {
	el  *etree.Element
	doc *xsdDoc
}

// elementDecl is one element that may stand somewhere.
type elementDecl struct {
	name     qname
	m        *xsdModel
	el       *etree.Element
	doc      *xsdDoc
	abstract bool
	global   bool
}

// typeDef is a complex or simple type, flattened over its bases.
type typeDef struct {
	name    string
	simple  bool // a simple type, or simple content: text, no elements
	mixed   bool
	open    bool // anyType: everything is allowed
	content *particle
	attrs   map[qname]*attributeDecl
	anyAttr bool
}

type attributeDecl struct {
	required bool
	fixed    string
	hasFixed bool
}

type particleKind uint8

const (
	particleElement particleKind = iota
	particleSequence
	particleChoice
	particleAll
	particleAny
)

type particle struct {
	kind     particleKind
	min, max int // max -1: unbounded
	decl     *elementDecl
	parts    []*particle
}

const maxSchemaNesting = 200

// loadModel tables the components of a standard's schema documents.
func loadModel(docs []*standard.Document) *xsdModel {
	m := &xsdModel{
		elements: map[qname]component{}, types: map[qname]component{}, groups: map[qname]component{},
		attributes: map[qname]component{}, attrGroups: map[qname]component{}, members: map[qname][]qname{},
		builtElements: map[*etree.Element]*elementDecl{}, builtTypes: map[*etree.Element]*typeDef{},
	}
	for _, doc := range docs {
		d := &xsdDoc{
			Document:    doc,
			qualified:   doc.Root.SelectAttrValue("elementFormDefault", "") == "qualified",
			qualifiedAt: doc.Root.SelectAttrValue("attributeFormDefault", "") == "qualified",
		}
		for _, el := range doc.Root.ChildElements() {
			m.add(el, d)
		}
	}
	return m
}

// add tables one global component; what has no name is none.
func (m *xsdModel) add(el *etree.Element, d *xsdDoc) {
	name := el.SelectAttrValue("name", "")
	if name == "" {
		return
	}
	q, c := qname{d.Target, name}, component{el, d}
	switch el.Tag {
	case "element":
		m.elements[q] = c
		if head := el.SelectAttrValue("substitutionGroup", ""); head != "" {
			h := resolveQName(el, d, head)
			m.members[h] = append(m.members[h], q)
		}
	case "complexType", "simpleType":
		m.types[q] = c
	case "group":
		m.groups[q] = c
	case "attribute":
		m.attributes[q] = c
	case "attributeGroup":
		m.attrGroups[q] = c
	}
}

// modelOf returns the model that mappings to a standard are proven against.
// Proofs of one standard run one after another, under its lock.
func modelOf(std *standard.Standard) (*xsdModel, error) {
	m, err := std.Derived(func(docs []*standard.Document) any { return loadModel(docs) })
	if err != nil {
		return nil, err
	}
	return m.(*xsdModel), nil
}

func resolveQName(el *etree.Element, doc *xsdDoc, name string) qname {
	space, local := doc.Resolve(el, name)
	return qname{space, local}
}

// globalElements lists the elements of a namespace that can be a message.
func (m *xsdModel) globalElements(space string) []string {
	var out []string
	for q, c := range m.elements {
		if q.space == space && c.el.SelectAttrValue("abstract", "") != "true" {
			out = append(out, q.local)
		}
	}
	slices.Sort(out)
	return out
}

func (m *xsdModel) element(q qname) *elementDecl {
	c, ok := m.elements[q]
	if !ok {
		return nil
	}
	return m.declare(c.el, c.doc, true)
}

func (m *xsdModel) declare(el *etree.Element, doc *xsdDoc, global bool) *elementDecl {
	if d := m.builtElements[el]; d != nil {
		return d
	}
	d := &elementDecl{m: m, el: el, doc: doc, global: global, abstract: el.SelectAttrValue("abstract", "") == "true"}
	d.name = qname{"", el.SelectAttrValue("name", "")}
	form := el.SelectAttrValue("form", "")
	if global || form == "qualified" || form == "" && doc.qualified {
		d.name.space = doc.Target
	}
	m.builtElements[el] = d
	return d
}

// typ returns the element's type.
func (d *elementDecl) typ() *typeDef {
	if t := d.el.SelectAttrValue("type", ""); t != "" {
		return d.m.typeNamed(resolveQName(d.el, d.doc, t))
	}
	for _, c := range d.el.ChildElements() {
		if c.Tag == "complexType" || c.Tag == "simpleType" {
			return d.m.typeOf(c, d.doc)
		}
	}
	if head := d.el.SelectAttrValue("substitutionGroup", ""); head != "" {
		if h := d.m.element(resolveQName(d.el, d.doc, head)); h != nil && h != d {
			return h.typ()
		}
	}
	return &typeDef{open: true, mixed: true, anyAttr: true}
}

func (m *xsdModel) typeNamed(q qname) *typeDef {
	if q.space == xsdNamespace {
		if q.local == "anyType" {
			return &typeDef{name: q.local, open: true, mixed: true, anyAttr: true}
		}
		return &typeDef{name: q.local, simple: true}
	}
	c, ok := m.types[q]
	if !ok {
		// The validator has compiled the schema, so this is our own gap: judge
		// nothing rather than refuse a good mapping.
		return &typeDef{name: q.local, open: true, mixed: true, anyAttr: true}
	}
	return m.typeOf(c.el, c.doc)
}

func (m *xsdModel) typeOf(el *etree.Element, doc *xsdDoc) *typeDef {
	if t := m.builtTypes[el]; t != nil {
		return t
	}
	t := &typeDef{name: el.SelectAttrValue("name", ""), attrs: map[qname]*attributeDecl{}}
	m.builtTypes[el] = t
	if el.Tag == "simpleType" {
		t.simple = true
		return t
	}
	t.mixed = el.SelectAttrValue("mixed", "") == "true"
	body := el
	for _, c := range el.ChildElements() {
		if c.Tag != "complexContent" && c.Tag != "simpleContent" {
			continue
		}
		if c.SelectAttrValue("mixed", "") == "true" {
			t.mixed = true
		}
		for _, derivation := range c.ChildElements() {
			if derivation.Tag != "extension" && derivation.Tag != "restriction" {
				continue
			}
			body = derivation
			base := m.typeNamed(resolveQName(derivation, doc, derivation.SelectAttrValue("base", "")))
			for q, a := range base.attrs {
				t.attrs[q] = a
			}
			t.anyAttr = base.anyAttr && derivation.Tag == "extension" && !base.open
			if c.Tag == "simpleContent" {
				t.simple = true
			} else if derivation.Tag == "extension" {
				t.content, t.mixed = base.content, t.mixed || base.mixed && !base.open
			}
		}
	}
	own := m.body(body, doc, t)
	switch {
	case t.content == nil:
		t.content = own
	case own != nil:
		t.content = &particle{kind: particleSequence, min: 1, max: 1, parts: []*particle{t.content, own}}
	}
	return t
}

// body reads attributes into t and returns the content's particle.
func (m *xsdModel) body(el *etree.Element, doc *xsdDoc, t *typeDef) *particle {
	var content *particle
	for _, c := range el.ChildElements() {
		switch c.Tag {
		case "sequence", "choice", "all", "group":
			content = m.particle(c, doc, 0)
		default:
			m.attribute(c, doc, t, 0)
		}
	}
	return content
}

func (m *xsdModel) attribute(c *etree.Element, doc *xsdDoc, t *typeDef, depth int) {
	if depth > maxSchemaNesting {
		return
	}
	switch c.Tag {
	case "attribute":
		a := &attributeDecl{required: c.SelectAttrValue("use", "") == "required"}
		q := qname{"", c.SelectAttrValue("name", "")}
		source := c
		if ref := c.SelectAttrValue("ref", ""); ref != "" {
			q = resolveQName(c, doc, ref)
			if g, ok := m.attributes[q]; ok {
				source = g.el
			}
		} else if form := c.SelectAttrValue("form", ""); form == "qualified" || form == "" && doc.qualifiedAt {
			q.space = doc.Target
		}
		for _, s := range []*etree.Element{c, source} {
			if f := s.SelectAttr("fixed"); f != nil {
				a.fixed, a.hasFixed = f.Value, true
			}
		}
		if c.SelectAttrValue("use", "") == "prohibited" {
			delete(t.attrs, q)
			return
		}
		t.attrs[q] = a
	case "attributeGroup":
		if g, ok := m.attrGroups[resolveQName(c, doc, c.SelectAttrValue("ref", ""))]; ok {
			for _, inner := range g.el.ChildElements() {
				m.attribute(inner, g.doc, t, depth+1)
			}
		}
	case "anyAttribute":
		t.anyAttr = true
	}
}

func occurs(el *etree.Element) (lo, hi int) {
	lo, hi = 1, 1
	if v := el.SelectAttrValue("minOccurs", ""); v != "" {
		lo, _ = strconv.Atoi(v)
	}
	if v := el.SelectAttrValue("maxOccurs", ""); v == "unbounded" {
		hi = -1
	} else if v != "" {
		hi, _ = strconv.Atoi(v)
	}
	return lo, hi
}

func (m *xsdModel) particle(el *etree.Element, doc *xsdDoc, depth int) *particle {
	p := &particle{}
	p.min, p.max = occurs(el)
	if depth > maxSchemaNesting {
		p.kind = particleAny
		return p
	}
	switch el.Tag {
	case "any":
		p.kind = particleAny
		return p
	case "element":
		p.kind = particleElement
		ref := el.SelectAttrValue("ref", "")
		if ref == "" {
			p.decl = m.declare(el, doc, false)
			return p
		}
		q := resolveQName(el, doc, ref)
		p.decl = m.element(q)
		if p.decl == nil {
			p.kind = particleAny
			return p
		}
		if subs := m.substitutes(q, nil); len(subs) > 1 || p.decl.abstract {
			p.kind = particleChoice
			for _, s := range subs {
				if d := m.element(s); d != nil && !d.abstract {
					p.parts = append(p.parts, &particle{kind: particleElement, min: 1, max: 1, decl: d})
				}
			}
			p.decl = nil
		}
		return p
	case "group":
		g, ok := m.groups[resolveQName(el, doc, el.SelectAttrValue("ref", ""))]
		if !ok {
			p.kind = particleAny
			return p
		}
		p.kind = particleSequence
		for _, c := range g.el.ChildElements() {
			if c.Tag == "sequence" || c.Tag == "choice" || c.Tag == "all" {
				p.parts = append(p.parts, m.particle(c, g.doc, depth+1))
			}
		}
		return p
	case "choice":
		p.kind = particleChoice
	case "all":
		p.kind = particleAll
	default:
		p.kind = particleSequence
	}
	for _, c := range el.ChildElements() {
		switch c.Tag {
		case "element", "sequence", "choice", "all", "group", "any":
			p.parts = append(p.parts, m.particle(c, doc, depth+1))
		}
	}
	return p
}

// substitutes lists an element and everything that may stand for it.
func (m *xsdModel) substitutes(q qname, seen []qname) []qname {
	if slices.Contains(seen, q) {
		return seen
	}
	seen = append(seen, q)
	for _, s := range m.members[q] {
		seen = m.substitutes(s, seen)
	}
	return seen
}

// content is a type's content model as an automaton over its element
// occurrences (Glushkov): which may follow which, at any distance.
type content struct {
	decls   []*elementDecl
	any     bool
	reach   [][]bool // position → positions that may come later
	must    []qname  // names that every valid content has
	pending [][2]int
}

func (t *typeDef) automaton() *content {
	c := &content{any: t.open}
	if t.content != nil {
		_, _, _ = c.walk(t.content)
		c.must = mustHave(t.content)
	}
	n := len(c.decls)
	c.reach = make([][]bool, n)
	for i := range c.reach {
		c.reach[i] = make([]bool, n)
	}
	for _, e := range c.pending {
		c.reach[e[0]][e[1]] = true
	}
	for k := range n {
		for i := range n {
			if c.reach[i][k] {
				for j := range n {
					if c.reach[k][j] {
						c.reach[i][j] = true
					}
				}
			}
		}
	}
	return c
}

// walk adds a particle's positions; first and last are those it may begin and
// end with.
func (c *content) walk(p *particle) (first, last []int, nullable bool) {
	if p.max == 0 {
		return nil, nil, true
	}
	switch p.kind {
	case particleAny:
		c.any = true
		return nil, nil, true
	case particleElement:
		c.decls = append(c.decls, p.decl)
		i := len(c.decls) - 1
		first, last = []int{i}, []int{i}
	case particleChoice:
		nullable = len(p.parts) == 0
		for _, part := range p.parts {
			f, l, n := c.walk(part)
			first, last, nullable = append(first, f...), append(last, l...), nullable || n
		}
	case particleAll:
		nullable = true
		for _, part := range p.parts {
			f, l, n := c.walk(part)
			c.link(last, f)
			c.link(l, first)
			first, last, nullable = append(first, f...), append(last, l...), nullable && n
		}
	default:
		nullable = true
		for _, part := range p.parts {
			f, l, n := c.walk(part)
			c.link(last, f)
			if nullable {
				first = append(first, f...)
			}
			if n {
				last = append(slices.Clone(last), l...)
			} else {
				last = l
			}
			nullable = nullable && n
		}
	}
	if p.max < 0 || p.max > 1 {
		c.link(last, first)
	}
	return first, last, nullable || p.min == 0
}

func (c *content) link(from, to []int) {
	for _, a := range from {
		for _, b := range to {
			c.pending = append(c.pending, [2]int{a, b})
		}
	}
}

// mustHave lists the names without which no content is valid, as far as
// sequences say; what stands in a choice is left to the validator.
func mustHave(p *particle) []qname {
	if p.min == 0 || p.max == 0 {
		return nil
	}
	switch p.kind {
	case particleElement:
		return []qname{p.decl.name}
	case particleSequence, particleAll:
		var out []qname
		for _, part := range p.parts {
			out = append(out, mustHave(part)...)
		}
		return out
	case particleChoice:
		if len(p.parts) == 1 {
			return mustHave(p.parts[0])
		}
	}
	return nil
}
