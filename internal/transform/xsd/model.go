package xsd

import (
	"slices"
	"sync"
)

// Unbounded is a Max without bound.
const Unbounded = -1

// Position is a place in a schema file.
type Position struct {
	File string
	Line int
}

// Schema is a compiled schema. It is immutable and safe for concurrent use; so
// is everything that can be reached from it.
type Schema struct {
	names    *names
	elements map[Name]*Element
	types    map[Name]*Type
	attrs    map[Name]*Attribute
	targets  []string   // of the entries, in their order, each once
	roots    []*Element // by symbol, nil where none is global
	globals  []*Attribute
	pool     sync.Pool // of *validator
}

// Element returns a global element, nil where there is none of that name.
func (s *Schema) Element(n Name) *Element { return s.elements[n] }

// Type returns a named type, a built-in one too.
func (s *Schema) Type(n Name) *Type {
	if n.Space == schemaNamespace {
		return builtins[n.Local]
	}
	return s.types[n]
}

// Attribute returns a global attribute.
func (s *Schema) Attribute(n Name) *Attribute { return s.attrs[n] }

// Elements returns the global elements by namespace and name.
func (s *Schema) Elements() []*Element {
	out := make([]*Element, 0, len(s.elements))
	for _, e := range s.elements {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *Element) int { return compareNames(a.Name, b.Name) })
	return out
}

// Types returns the named types by namespace and name.
func (s *Schema) Types() []*Type {
	out := make([]*Type, 0, len(s.types))
	for _, t := range s.types {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *Type) int { return compareNames(a.Name, b.Name) })
	return out
}

// Targets returns the target namespaces of the entries, in their order.
func (s *Schema) Targets() []string { return slices.Clone(s.targets) }

// Element is an element declaration.
type Element struct {
	Name     Name
	Type     *Type
	Global   bool
	Abstract bool
	Nillable bool
	// Fixed and Default are as the schema writes them, nil where it gives none.
	Fixed, Default *string
	// Documentation is the text of the annotation, in one line.
	Documentation string
	Position      Position
	// Substitutes are the declarations that may stand where this one is referred
	// to, itself included unless it is abstract.
	Substitutes []*Element

	symbol      int32
	head        *Element
	block       derivationSet
	fixed       []byte // canonical
	constraints []*constraint
}

// Attribute is an attribute declaration.
type Attribute struct {
	Name           Name
	Type           *Type
	Fixed, Default *string
	Documentation  string
	Position       Position

	symbol int32
	fixed  []byte
}

// AttributeUse is an attribute of a type.
type AttributeUse struct {
	*Attribute
	Required bool
	// Fixed and Default are the use's own, or else the declaration's.
	Fixed, Default *string

	fixed []byte
}

// Kind says what a type's content is.
type Kind uint8

// The kinds of types. Simple types, and complex ones with simple content, have a
// Simple; the last two have a Content.
const (
	SimpleType Kind = iota
	SimpleContent
	EmptyContent
	ElementContent
	MixedContent
)

// HasText says whether the content is a value of a simple type.
func (k Kind) HasText() bool { return k <= SimpleContent }

// Type is a simple or complex type.
type Type struct {
	Name     Name // "" for a type declared where it is used
	Kind     Kind
	Abstract bool
	// Base is what the type is derived from; nil for xs:anyType.
	Base *Type
	// Extends: derived by extension, else by restriction, list or union.
	Extends bool
	// Simple is the type of the text of simple types and simple content.
	Simple *Simple
	// Content is what elements may stand in it, in the form of the schema: nil
	// where none may.
	Content *Particle
	// Attributes are those of the type and its bases, by name.
	Attributes    []*AttributeUse
	AnyAttribute  *Wildcard
	Documentation string
	// Appinfo are the texts of the elements in the annotation's xs:appinfo, by
	// local name; nil where there are none.
	Appinfo  map[string]string
	Position Position

	block    derivationSet
	final    derivationSet
	all      *allGroup
	states   []state         // nil where no element may stand
	required int             // attributes that are
	implied  []*AttributeUse // whose default is an ID or refers to one
}

// use returns the use of an attribute by its number.
func (t *Type) use(symbol int32) *AttributeUse {
	for _, u := range t.Attributes {
		if u.symbol == symbol {
			return u
		}
	}
	return nil
}

// Attribute returns the use of an attribute, nil where the type has none.
func (t *Type) Attribute(n Name) *AttributeUse {
	i, ok := slices.BinarySearchFunc(t.Attributes, n, func(u *AttributeUse, n Name) int { return compareNames(u.Name, n) })
	if !ok {
		return nil
	}
	return t.Attributes[i]
}

// DerivedFrom says whether t is base, derived from it, or so related to a member
// type of base, a union (part 1, 3.14.6).
func (t *Type) DerivedFrom(base *Type) bool {
	for ; t != nil; t = t.Base {
		if t == base || base.hasMember(t) {
			return true
		}
	}
	return false
}

// hasMember says whether m is a member of a union that adds no facets of its own:
// those a member's values need not keep.
func (t *Type) hasMember(m *Type) bool {
	s := t.Simple
	return t.Kind == SimpleType && m.Kind == SimpleType && s != nil && s.Variety == Union && s.values == nil && len(s.patterns) == 0 && slices.Contains(s.Members, m.Simple)
}

// ParticleKind says what a particle is.
type ParticleKind uint8

// The kinds of particles.
const (
	ParticleElement ParticleKind = iota
	ParticleWildcard
	ParticleSequence
	ParticleChoice
	ParticleAll
)

// Particle is one term of a content model, with its bounds. A reference to a
// group stands as the group's own sequence, choice or all.
type Particle struct {
	Kind     ParticleKind
	Min, Max int // Max may be Unbounded
	Element  *Element
	Wildcard *Wildcard
	Parts    []*Particle
	Position Position
}

// Process says how what a wildcard lets in is checked.
type Process uint8

// The values of processContents.
const (
	Strict Process = iota
	Lax
	Skip
)

// Wildcard is an xs:any or xs:anyAttribute.
type Wildcard struct {
	Process Process
	// Any: every namespace but those in Except; else those in Only, "" being none.
	Any    bool
	Except []string
	Only   []string

	except, only []int32
}

// Allows says whether a namespace is let in.
func (w *Wildcard) Allows(space string) bool {
	if w.Any {
		return !slices.Contains(w.Except, space)
	}
	return slices.Contains(w.Only, space)
}

func (w *Wildcard) allows(space int32) bool {
	if w.Any {
		return !slices.Contains(w.except, space)
	}
	return slices.Contains(w.only, space)
}

// State is a state of the automaton of a type's content model, which is
// deterministic. The zero State is the start.
type State int

// Transition leads from a state over an element to another.
type Transition struct {
	// Element is the declaration taken, nil where a Wildcard lets it in.
	Element  *Element
	Wildcard *Wildcard
	To       State
	// Min and Max bound how often the element stands in a row: 1 and 1 but for
	// large bounds, which are counted in the state To, not spelled out.
	Min, Max int
}

// States returns how many states the content model has; 0 for a type whose
// content has no elements, or is an xs:all group (see Content).
func (t *Type) States() int { return len(t.states) }

// Accepting says whether the content may end in a state.
func (t *Type) Accepting(s State) bool { return t.states[s].accept }

// Transitions lists what may follow in a state, elements by name, then
// wildcards. Elements that substitute another have transitions of their own.
func (t *Type) Transitions(s State) []Transition {
	st := &t.states[s]
	out := make([]Transition, 0, len(st.next)+len(st.wild))
	for _, e := range st.next {
		out = append(out, t.transition(e.elem, nil, e.to))
	}
	for _, w := range st.wild {
		out = append(out, t.transition(nil, w.wildcard, w.to))
	}
	return out
}

func (t *Type) transition(e *Element, w *Wildcard, to int32) Transition {
	tr := Transition{Element: e, Wildcard: w, To: State(to), Min: 1, Max: 1}
	if c := t.states[to].count; c != nil {
		tr.Min, tr.Max = c.min, c.max
	}
	return tr
}

func compareNames(a, b Name) int {
	switch {
	case a.Space < b.Space:
		return -1
	case a.Space > b.Space:
		return 1
	case a.Local < b.Local:
		return -1
	case a.Local > b.Local:
		return 1
	}
	return 0
}
