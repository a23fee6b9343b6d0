package standard

import (
	"encoding/xml"
	"strings"

	"weiche/internal/transform/xsd"
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
	checked    bool
	latin      *latin // simple types of DIN 91379
	base       *shape
	column     string // genutzteCodeSpalte
	enumerated bool   // the schema lists the values
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
	shapes map[*xsd.Type]*shape
	latins map[*xsd.Simple]*latin
	order  []*shape
	queue  []func()
}

// newGraph reads the schema.
func newGraph(schema *xsd.Schema) *graph {
	b := &graphBuilder{shapes: map[*xsd.Type]*shape{}, latins: map[*xsd.Simple]*latin{}}
	g := &graph{elements: map[xml.Name]*shape{}, types: map[xml.Name]*shape{}}
	for _, t := range schema.Types() {
		g.types[xmlName(t.Name)] = b.typeOf(t)
	}
	for _, e := range schema.Elements() {
		g.elements[xmlName(e.Name)] = b.typeOf(e.Type)
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

func xmlName(n xsd.Name) xml.Name { return xml.Name{Space: n.Space, Local: n.Local} }

// typeOf returns the shape of a type; nil for one of XML Schema itself. Bases are
// read at once, the types of elements later, since they may lead back here.
func (b *graphBuilder) typeOf(t *xsd.Type) *shape {
	if t == nil || t.Name.Space == xsdNamespace {
		return nil
	}
	if s := b.shapes[t]; s != nil {
		return s
	}
	s := &shape{children: map[string]*child{}, attrs: map[string]attr{}, column: t.Appinfo["genutzteCodeSpalte"], enumerated: t.Simple != nil && t.Simple.Enumeration != nil}
	b.shapes[t] = s
	b.order = append(b.order, s)
	if s.base = b.typeOf(t.Base); s.base != nil && s.column == "" && t.Kind != xsd.SimpleType {
		s.column = s.base.column
	}
	if t.Simple != nil {
		s.latin = b.latinOf(t.Simple)
	}
	for _, u := range t.Attributes {
		b.attribute(s, u)
	}
	if t.Content != nil {
		b.fill(s, t.Content, map[*xsd.Particle]bool{})
	}
	return s
}

// fill reads a content model, each part once.
func (b *graphBuilder) fill(s *shape, p *xsd.Particle, seen map[*xsd.Particle]bool) {
	if seen[p] {
		return
	}
	seen[p] = true
	switch p.Kind {
	case xsd.ParticleWildcard:
		s.open = true
	case xsd.ParticleElement:
		for _, e := range p.Element.Substitutes {
			b.child(s, e)
		}
	}
	for _, part := range p.Parts {
		b.fill(s, part, seen)
	}
}

func (b *graphBuilder) child(s *shape, e *xsd.Element) {
	first := s.children[e.Name.Local]
	for c := first; c != nil; c = c.same {
		if c.space == e.Name.Space {
			return
		}
	}
	c := &child{space: e.Name.Space, role: roleOf(e.Name.Local), same: first}
	s.children[e.Name.Local] = c
	b.queue = append(b.queue, func() { c.shape = b.typeOf(e.Type) })
}

func (b *graphBuilder) attribute(s *shape, u *xsd.AttributeUse) {
	if u.Name.Space != "" {
		return // of no rule
	}
	var a attr
	for _, v := range []*string{u.Default, u.Fixed} {
		if v != nil {
			a = attr{*v, true}
		}
	}
	s.attrs[u.Name.Local] = a
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

// settle finds the rules of a type once its children are known.
func (s *shape) settle() {
	_, uri := s.attrs["listURI"]
	_, version := s.attrs["listVersionID"]
	if code := s.children["code"]; code != nil && (uri || version) {
		s.code = &codeRule{uri: s.attrs["listURI"].fixed, version: s.attrs["listVersionID"].fixed, column: s.column, closed: code.shape != nil && code.shape.enumerated}
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
