package standard

import (
	"encoding/xml"
	"strings"

	"github.com/beevik/etree"
)

// graph is what the check of a message knows of a standard's schemas: which
// element has which children, and of which of them an XSD leaves something open.
// A child's type follows from its parent's type and its name (XSD 1.0, Element
// Declarations Consistent), so a message is followed from its root by names
// alone. It is immutable.
type graph struct {
	elements map[xml.Name]*shape // global
	types    map[xml.Name]*shape // named, for xsi:type
	codes    []*codeRule
}

// shape is one type.
type shape struct {
	children map[string]*child
	open     bool // a wildcard: global elements may stand here
	attrs    map[string]attr
	code     *codeRule
	// authority: the type names an authority by directory and key.
	authority bool
	// checked: something at it or below it is to be looked at.
	checked bool
	latin   *latin // simple types of DIN 91379
	base    *shape
	column  string // genutzteCodeSpalte
	simple  *simple
}

// child is one element a type may have; same holds those of the same local name
// in other namespaces.
type child struct {
	space string
	shape *shape
	role  role
	same  *child
}

type attr struct {
	fixed    string
	hasFixed bool
}

// role is what an element means whatever its type says.
type role uint8

const (
	roleNone      role = iota
	roleCode           // the code within a code type
	roleDirectory      // verzeichnisdienst of an authority
	roleKey            // kennung of an authority
	roleMessageID      // nachrichtenUUID
	roleType           // nachrichtentyp
	roleCreated        // erstellungszeitpunkt
)

// ofHeader says whether the role is of the message itself only in its header.
func (r role) ofHeader() bool { return r == roleMessageID || r == roleType || r == roleCreated }

// codeRule is a code type. URI and version are "" where the message gives them.
type codeRule struct {
	uri, version string
	column       string
	// closed: the schema lists the values (type 1), nothing is left to check.
	closed bool
}

type graphBuilder struct {
	global  map[component]declared
	members map[xml.Name][]xml.Name
	shapes  map[*etree.Element]*shape
	order   []*shape
	queue   []func()
}

type declared struct {
	el  *etree.Element
	doc *Document
}

// newGraph reads the schema documents. What it does not understand it leaves
// unchecked: the schema validator is the judge of structure.
func newGraph(docs []*Document) *graph {
	b := &graphBuilder{global: map[component]declared{}, members: map[xml.Name][]xml.Name{}, shapes: map[*etree.Element]*shape{}}
	for _, d := range docs {
		for _, el := range d.Root.ChildElements() {
			b.declare(el, d)
		}
	}
	g := &graph{elements: map[xml.Name]*shape{}, types: map[xml.Name]*shape{}}
	for c, d := range b.global {
		switch c.kind {
		case "type":
			g.types[xml.Name{Space: c.space, Local: c.local}] = b.typeOf(d.el, d.doc)
		case "element":
			g.elements[xml.Name{Space: c.space, Local: c.local}] = b.elementType(d.el, d.doc)
		}
	}
	for len(b.queue) > 0 {
		next := b.queue[0]
		b.queue = b.queue[1:]
		next()
	}
	for _, s := range b.order {
		s.settle()
		if s.code != nil {
			g.codes = append(g.codes, s.code)
		}
	}
	b.spread()
	return g
}

func (b *graphBuilder) declare(el *etree.Element, d *Document) {
	name := el.SelectAttrValue("name", "")
	if name == "" {
		return
	}
	kind := el.Tag
	switch kind {
	case "complexType", "simpleType":
		kind = "type"
	case "element":
		if head := el.SelectAttrValue("substitutionGroup", ""); head != "" {
			h := named(el, d, head)
			b.members[h] = append(b.members[h], xml.Name{Space: d.Target, Local: name})
		}
	}
	b.global[component{kind, d.Target, name}] = declared{el, d}
}

func named(el *etree.Element, d *Document, name string) xml.Name {
	space, local := d.Resolve(el, name)
	return xml.Name{Space: space, Local: local}
}

// elementType returns the shape of an element's type; nil where it is not known.
func (b *graphBuilder) elementType(el *etree.Element, d *Document) *shape {
	if t := el.SelectAttrValue("type", ""); t != "" {
		return b.typeNamed(named(el, d, t))
	}
	for _, c := range el.ChildElements() {
		if c.Tag == "complexType" || c.Tag == "simpleType" {
			return b.typeOf(c, d)
		}
	}
	return nil
}

func (b *graphBuilder) typeNamed(n xml.Name) *shape {
	d, ok := b.global[component{"type", n.Space, n.Local}]
	if !ok {
		return nil
	}
	return b.typeOf(d.el, d.doc)
}

// typeOf returns the shape of a type. Bases are read at once, the types of
// elements later, since they may lead back here.
func (b *graphBuilder) typeOf(el *etree.Element, d *Document) *shape {
	if s := b.shapes[el]; s != nil {
		return s
	}
	s := &shape{children: map[string]*child{}, attrs: map[string]attr{}, column: usedColumn(el)}
	b.shapes[el] = s
	b.order = append(b.order, s)
	if el.Tag == "simpleType" {
		b.simpleType(s, el, d)
		return s
	}
	body := el
	for _, c := range el.ChildElements() {
		if c.Tag != "complexContent" && c.Tag != "simpleContent" {
			continue
		}
		for _, derivation := range c.ChildElements() {
			if derivation.Tag == "extension" || derivation.Tag == "restriction" {
				body = derivation
				b.derive(s, derivation, d)
			}
		}
	}
	b.fill(s, body, d, map[component]bool{})
	return s
}

func (b *graphBuilder) derive(s *shape, derivation *etree.Element, d *Document) {
	base := b.typeNamed(named(derivation, d, derivation.SelectAttrValue("base", "")))
	if base == nil {
		return
	}
	s.base, s.latin = base, base.latin
	for k, a := range base.attrs {
		s.attrs[k] = a
	}
	if s.column == "" {
		s.column = base.column
	}
	if derivation.Tag == "extension" {
		s.open = base.open
		for k, c := range base.children {
			s.children[k] = c
		}
	}
}

func (b *graphBuilder) simpleType(s *shape, el *etree.Element, d *Document) {
	s.simple = readSimple(el)
	s.latin = latinOf(el, d)
	for _, c := range el.ChildElements() {
		if base := c.SelectAttrValue("base", ""); c.Tag == "restriction" && base != "" {
			if up := b.typeNamed(named(c, d, base)); up != nil && up != s {
				s.base = up
				if s.latin == nil {
					s.latin = up.latin
				}
			}
		}
	}
}

// fill reads content and attributes of a type, each group once.
func (b *graphBuilder) fill(s *shape, el *etree.Element, d *Document, groups map[component]bool) {
	for _, c := range el.ChildElements() {
		switch c.Tag {
		case "sequence", "choice", "all":
			b.fill(s, c, d, groups)
		case "any":
			s.open = true
		case "element":
			b.element(s, c, d)
		case "group", "attributeGroup":
			k := key(c.Tag, named(c, d, c.SelectAttrValue("ref", "")))
			if g, ok := b.global[k]; ok && !groups[k] {
				groups[k] = true
				b.fill(s, g.el, g.doc, groups)
			}
		case "attribute":
			b.attribute(s, c, d)
		}
	}
}

func key(kind string, n xml.Name) component { return component{kind, n.Space, n.Local} }

func (b *graphBuilder) element(s *shape, el *etree.Element, d *Document) {
	ref := el.SelectAttrValue("ref", "")
	if ref == "" {
		n := xml.Name{Local: el.SelectAttrValue("name", "")}
		if form := el.SelectAttrValue("form", d.Root.SelectAttrValue("elementFormDefault", "")); form == "qualified" {
			n.Space = d.Target
		}
		b.child(s, n, el, d)
		return
	}
	seen := map[xml.Name]bool{}
	heads := []xml.Name{named(el, d, ref)}
	for len(heads) > 0 {
		n := heads[0]
		heads = heads[1:]
		if seen[n] {
			continue
		}
		seen[n] = true
		if g, ok := b.global[key("element", n)]; ok {
			b.child(s, n, g.el, g.doc)
		}
		heads = append(heads, b.members[n]...)
	}
}

func (b *graphBuilder) child(s *shape, n xml.Name, el *etree.Element, d *Document) {
	first := s.children[n.Local]
	for c := first; c != nil; c = c.same {
		if c.space == n.Space {
			return
		}
	}
	c := &child{space: n.Space, role: roleOf(n.Local), same: first}
	s.children[n.Local] = c
	b.queue = append(b.queue, func() { c.shape = b.elementType(el, d) })
}

func roleOf(local string) role {
	switch strings.ToLower(local) {
	case "nachrichtenuuid":
		return roleMessageID
	case "nachrichtentyp":
		return roleType
	case "erstellungszeitpunkt":
		return roleCreated
	}
	return roleNone
}

func (b *graphBuilder) attribute(s *shape, el *etree.Element, d *Document) {
	name, source := el.SelectAttrValue("name", ""), el
	if ref := el.SelectAttrValue("ref", ""); ref != "" {
		n := named(el, d, ref)
		if n.Space != "" {
			return // of no rule
		}
		name = n.Local
		if g, ok := b.global[key("attribute", n)]; ok {
			source = g.el
		}
	}
	if el.SelectAttrValue("use", "") == "prohibited" {
		delete(s.attrs, name)
		return
	}
	var a attr
	for _, e := range []*etree.Element{source, el} {
		for _, k := range []string{"default", "fixed"} {
			if f := e.SelectAttr(k); f != nil {
				a = attr{f.Value, true}
			}
		}
	}
	s.attrs[name] = a
}

// usedColumn returns the column of the code list whose values the type takes,
// as the standard's own annotation names it.
func usedColumn(el *etree.Element) string {
	for _, a := range el.ChildElements() {
		if a.Tag != "annotation" {
			continue
		}
		for _, info := range a.ChildElements() {
			if c := childText(info, "genutzteCodeSpalte"); info.Tag == "appinfo" && c != "" {
				return c
			}
		}
	}
	return ""
}

// settle finds the rules of a type once its children are known.
func (s *shape) settle() {
	_, uri := s.attrs["listURI"]
	_, version := s.attrs["listVersionID"]
	if code := s.children["code"]; code != nil && (uri || version) {
		s.code = &codeRule{uri: s.attrs["listURI"].fixed, version: s.attrs["listVersionID"].fixed, column: s.column, closed: code.shape.enumerated()}
		s.children["code"] = &child{space: code.space, shape: code.shape, role: roleCode, same: code.same}
		s.checked = !s.code.closed
	}
	directory, key := s.children["verzeichnisdienst"], s.children["kennung"]
	if directory != nil && key != nil {
		s.authority, s.checked = true, true
		s.children["verzeichnisdienst"] = &child{space: directory.space, shape: directory.shape, role: roleDirectory, same: directory.same}
		s.children["kennung"] = &child{space: key.space, shape: key.shape, role: roleKey, same: key.same}
	}
	for _, c := range s.children {
		s.checked = s.checked || c.role != roleNone && c.role != roleCode
	}
	s.checked = s.checked || s.open
}

func (s *shape) enumerated() bool {
	const deepest = 100 // a circle of bases does not compile; here it must only end
	for n := 0; s != nil && n < deepest; s, n = s.base, n+1 {
		if s.simple != nil && s.simple.enumerated {
			return true
		}
	}
	return false
}

// spread marks what leads to something checked: parents of it, and bases, since
// xsi:type may put a derived type in their place.
func (b *graphBuilder) spread() {
	for changed := true; changed; {
		changed = false
		for _, s := range b.order {
			if s.checked && s.base != nil && !s.base.checked {
				s.base.checked, changed = true, true
			}
			if s.checked {
				continue
			}
			for _, c := range s.children {
				for ; c != nil && !s.checked; c = c.same {
					if c.shape != nil && c.shape.checked {
						s.checked, changed = true, true
					}
				}
			}
		}
	}
}
