package xsd

import (
	"slices"
	"strconv"
	"strings"
)

// simpleType builds the simple type at a node, its bases first.
func (c *compiler) simpleType(n *node) (*Type, error) {
	if c.progress[n] == underway {
		return nil, n.fail("the simple type is derived from itself")
	}
	if err := c.enter(n); err != nil {
		return nil, err
	}
	defer c.leave()
	c.progress[n] = underway
	if err := n.allow("name", "final"); err != nil {
		return nil, err
	}
	if _, named := n.lookup("name"); named && !n.global {
		return nil, n.fail("a type that is declared where it is used has no name")
	}
	t := &Type{Kind: SimpleType, Position: n.position(), Documentation: n.documentation(), Appinfo: n.appinfo()}
	if name := n.attr("name"); name != "" {
		t.Name = Name{n.doc.target, name}
	}
	var err error
	if t.final, err = derivations(n, "final", n.doc.final); err != nil {
		return nil, err
	}
	var s *Simple
	for _, k := range n.kids {
		if k.tag() == "annotation" {
			continue
		}
		if s != nil {
			return nil, k.fail("<%s> is not expected here", k.name.Local)
		}
		switch k.tag() {
		case "restriction":
			var base *Type
			if base, err = c.simpleBase(k); err == nil {
				t.Base = base
				s, err = c.restrict(k, base.Simple)
			}
		case "list":
			t.Base = builtins["anySimpleType"]
			s, err = c.list(k)
		case "union":
			t.Base = builtins["anySimpleType"]
			s, err = c.union(k)
		default:
			err = k.fail("<%s> is not supported in a simple type", k.name.Local)
		}
		if err != nil {
			return nil, err
		}
	}
	if s == nil {
		return nil, n.fail("the simple type is derived from nothing")
	}
	s.Name, s.Position = t.Name, t.Position
	t.Simple = s
	c.types[n], c.progress[n] = t, done
	return t, nil
}

// simpleBase is the base type of a restriction, named or inside it.
func (c *compiler) simpleBase(k *node) (*Type, error) {
	if err := k.allow("base"); err != nil {
		return nil, err
	}
	t, err := c.simpleRef(k, "base")
	if err == nil && t.final&byRestriction != 0 {
		err = k.fail("the base type is final")
	}
	return t, err
}

// simpleRef is the simple type that an attribute names or that stands inside.
func (c *compiler) simpleRef(k *node, attribute string) (*Type, error) {
	inner, named := k.child("simpleType"), k.attr(attribute)
	switch {
	case inner != nil && named != "":
		return nil, k.fail("a type is given by name and inside")
	case inner != nil:
		return c.typeOf(inner)
	case named == "":
		return nil, k.fail("%s is missing", attribute)
	}
	t, err := c.typeNamed(k, named)
	if err == nil && t.Kind != SimpleType || err == nil && t.Simple == nil {
		err = k.fail("%s %q is no simple type", attribute, named)
	}
	return t, err
}

func newSimple() *Simple {
	return &Simple{WhiteSpace: Collapse, Length: -1, MinLength: -1, MaxLength: -1, TotalDigits: -1, FractionDigits: -1, facets: true}
}

func (c *compiler) list(k *node) (*Simple, error) {
	if err := k.allow("itemType"); err != nil {
		return nil, err
	}
	item, err := c.simpleRef(k, "itemType")
	if err != nil {
		return nil, err
	}
	if hasList(item.Simple) {
		return nil, k.fail("a list of lists is not allowed")
	}
	s := newSimple()
	s.weight = item.Simple.weight
	s.Variety, s.Item, s.Builtin, s.Base = List, item.Simple, "anySimpleType", builtins["anySimpleType"].Simple
	return s, nil
}

func hasList(s *Simple) bool {
	return s.Variety == List || s.Variety == Union && slices.ContainsFunc(s.Members, hasList)
}

func (c *compiler) union(k *node) (*Simple, error) {
	if err := k.allow("memberTypes"); err != nil {
		return nil, err
	}
	s := newSimple()
	s.Variety, s.Builtin, s.Base, s.WhiteSpace = Union, "anySimpleType", builtins["anySimpleType"].Simple, Preserve
	add := func(t *Type, err error) error {
		if err != nil {
			return err
		}
		if t.Simple == nil || t.Kind != SimpleType {
			return k.fail("a member of the union is no simple type")
		}
		if t.Simple.Variety == Union && len(t.Simple.patterns) == 0 && t.Simple.values == nil {
			s.Members = append(s.Members, t.Simple.Members...)
		} else {
			s.Members = append(s.Members, t.Simple)
		}
		return nil
	}
	for _, name := range strings.Fields(k.attr("memberTypes")) {
		if err := add(c.typeNamed(k, name)); err != nil {
			return nil, err
		}
	}
	for _, inner := range k.kids {
		if inner.tag() == "simpleType" {
			if err := add(c.typeOf(inner)); err != nil {
				return nil, err
			}
		}
	}
	if len(s.Members) == 0 {
		return nil, k.fail("the union has no members")
	}
	for _, m := range s.Members {
		if s.weight += max(m.weight, 1); s.weight > maxWeight {
			return nil, k.fail("the union has too many members")
		}
	}
	return s, nil
}

// restrict returns base restricted by the facets among k's children.
func (c *compiler) restrict(k *node, base *Simple) (*Simple, error) {
	if err := c.spend(k, 10+len(base.Patterns)+len(base.bounds)); err != nil {
		return nil, err
	}
	s := new(Simple)
	*s = *base
	s.Base = base
	var patterns, values []string
	var compiled []*pattern
	canonical := map[string]struct{}{}
	for _, f := range k.kids {
		switch f.tag() {
		case "annotation", "simpleType", "attribute", "attributeGroup", "anyAttribute":
			continue
		}
		value, ok := f.lookup("value")
		if !ok {
			return nil, f.fail("the facet <%s> has no value, or is not supported", f.name.Local)
		}
		if err := f.allow("value", "fixed"); err != nil {
			return nil, err
		}
		s.facets = true
		switch f.tag() {
		case "pattern":
			p, err := c.pattern(f, value)
			if err != nil {
				return nil, err
			}
			patterns, compiled = append(patterns, value), append(compiled, p)
		case "enumeration":
			key, err := c.canonical(f, base, value)
			if err != nil {
				return nil, err
			}
			canonical[string(key)] = struct{}{}
			values = append(values, value)
		default:
			if err := c.facet(f, s, base, value); err != nil {
				return nil, err
			}
		}
	}
	if patterns != nil {
		s.Patterns = append(slices.Clone(base.Patterns), patterns)
		s.patterns = append(slices.Clone(base.patterns), compiled)
	}
	if values != nil {
		s.Enumeration, s.values = values, canonical
	}
	if !s.satisfiable() {
		return nil, k.fail("no value keeps all bounds")
	}
	if s.MinLength >= 0 && s.MaxLength >= 0 && s.MinLength > s.MaxLength || s.Length >= 0 && (s.MinLength > s.Length || s.MaxLength >= 0 && s.MaxLength < s.Length) {
		return nil, k.fail("no length keeps all facets")
	}
	return s, nil
}

func (c *compiler) pattern(f *node, text string) (*pattern, error) {
	if p := c.patterns[text]; p != nil {
		return p, nil
	}
	p, err := compilePattern(text, c.budget)
	if err != nil {
		return nil, f.fail("%v", err)
	}
	c.patterns[text] = p
	return p, nil
}

// facet puts one facet other than pattern and enumeration into s.
func (c *compiler) facet(f *node, s, base *Simple, value string) error {
	if !applies(f.tag(), base) {
		return f.fail("the facet <%s> does not exist, or not for this type", f.name.Local)
	}
	value = strings.TrimSpace(value)
	switch f.tag() {
	case "whiteSpace":
		w, ok := map[string]WhiteSpace{"preserve": Preserve, "replace": Replace, "collapse": Collapse}[value]
		if !ok || w < base.WhiteSpace {
			return f.fail("whiteSpace is unknown, or looser than that of the base type")
		}
		s.WhiteSpace = w
		return nil
	case "minInclusive", "maxInclusive", "minExclusive", "maxExclusive":
		return c.bound(f, s, base, value)
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return f.fail("the facet's value is no number that can be counted to")
	}
	v := int(n)
	// A facet may only narrow its base; the narrower of both holds.
	switch f.tag() {
	case "length":
		if base.Length >= 0 && base.Length != v {
			return f.fail("length differs from that of the base type")
		}
		s.Length = v
	case "minLength":
		s.MinLength = max(v, base.MinLength)
	case "maxLength":
		s.MaxLength = tighter(v, base.MaxLength)
	case "totalDigits":
		if v == 0 {
			return f.fail("totalDigits is 0")
		}
		s.TotalDigits = tighter(v, base.TotalDigits)
	case "fractionDigits":
		s.FractionDigits = tighter(v, base.FractionDigits)
	}
	return nil
}

func tighter(v, base int) int {
	if base < 0 {
		return v
	}
	return min(v, base)
}

// applies says whether a type can have a facet (part 2, 4.1.5).
func applies(facet string, s *Simple) bool {
	switch facet {
	case "whiteSpace":
		return s.Variety != Union
	case "length", "minLength", "maxLength":
		return s.Variety == List || s.Variety == Atomic && (s.kind <= kindNCName || s.kind == kindHex || s.kind == kindBase64 || s.kind == kindURI || s.kind == kindQName)
	case "totalDigits", "fractionDigits":
		return s.Variety == Atomic && (s.kind == kindDecimal || s.kind == kindInteger)
	case "minInclusive", "maxInclusive", "minExclusive", "maxExclusive":
		return s.Variety == Atomic && s.kind >= kindDecimal && s.kind <= kindMonth
	}
	return false
}

func (c *compiler) bound(f *node, s, base *Simple, value string) error {
	ch := checker{}
	if !ch.lexical(base.kind, []byte(value)) {
		return f.fail("the facet's value is not of the type")
	}
	for i := range base.bounds {
		if outer := &base.bounds[i]; !outer.holds(base.kind, []byte(value)) && !outer.same(base.kind, []byte(value)) {
			return f.fail("the bound lies outside those of the base type")
		}
	}
	b := bound{value: []byte(value), lower: strings.HasPrefix(f.tag(), "min"), strict: strings.HasSuffix(f.tag(), "Exclusive")}
	s.bounds = append(slices.Clone(s.bounds), b)
	switch f.tag() {
	case "minInclusive":
		s.MinInclusive, s.MinExclusive = &value, nil
	case "minExclusive":
		s.MinExclusive, s.MinInclusive = &value, nil
	case "maxInclusive":
		s.MaxInclusive, s.MaxExclusive = &value, nil
	case "maxExclusive":
		s.MaxExclusive, s.MaxInclusive = &value, nil
	}
	return nil
}
