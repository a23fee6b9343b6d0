package transform

import (
	"slices"

	"weiche/internal/transform/xsd"
)

func nameOf(e *xsd.Element) qname { return qname{e.Name.Space, e.Name.Local} }

// isAny says that the type is xs:anyType: everything is allowed in it.
func isAny(t *xsd.Type) bool { return t.Base == nil && t.Kind == xsd.MixedContent }

// content is a type's content model as an automaton over its element
// occurrences (Glushkov): which may follow which, at any distance.
type content struct {
	decls   []*xsd.Element
	any     bool
	reach   [][]bool // position → positions that may come later
	must    []qname  // names that every valid content has
	pending [][2]int
}

func contentOf(t *xsd.Type) *content {
	c := &content{any: isAny(t)}
	if t.Content != nil {
		_, _, _ = c.walk(t.Content)
		c.must = mustHave(t.Content)
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
func (c *content) walk(p *xsd.Particle) (first, last []int, nullable bool) {
	if p.Max == 0 {
		return nil, nil, true
	}
	switch p.Kind {
	case xsd.ParticleWildcard:
		c.any = true
		return nil, nil, true
	case xsd.ParticleElement:
		for _, e := range p.Element.Substitutes {
			c.decls = append(c.decls, e)
			i := len(c.decls) - 1
			first, last = append(first, i), append(last, i)
		}
	case xsd.ParticleChoice:
		nullable = len(p.Parts) == 0
		for _, part := range p.Parts {
			f, l, n := c.walk(part)
			first, last, nullable = append(first, f...), append(last, l...), nullable || n
		}
	case xsd.ParticleAll:
		nullable = true
		for _, part := range p.Parts {
			f, l, n := c.walk(part)
			c.link(last, f)
			c.link(l, first)
			first, last, nullable = append(first, f...), append(last, l...), nullable && n
		}
	default:
		nullable = true
		for _, part := range p.Parts {
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
	if p.Max < 0 || p.Max > 1 {
		c.link(last, first)
	}
	return first, last, nullable || p.Min == 0
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
func mustHave(p *xsd.Particle) []qname {
	if p.Min == 0 || p.Max == 0 {
		return nil
	}
	switch p.Kind {
	case xsd.ParticleElement:
		if len(p.Element.Substitutes) == 1 {
			return []qname{nameOf(p.Element.Substitutes[0])}
		}
	case xsd.ParticleSequence, xsd.ParticleAll:
		var out []qname
		for _, part := range p.Parts {
			out = append(out, mustHave(part)...)
		}
		return out
	case xsd.ParticleChoice:
		if len(p.Parts) == 1 {
			return mustHave(p.Parts[0])
		}
	}
	return nil
}
