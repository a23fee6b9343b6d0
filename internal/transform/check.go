package transform

import (
	"fmt"
	"slices"
	"strings"

	"weiche/internal/config"
	"weiche/internal/transform/standard"
	"weiche/internal/transform/xsd"
)

// prover proves a mapping's template against the standard's schema.
type prover struct {
	file     string
	model    *xsd.Schema
	problems config.Problems
	std      *standard.Standard
	judged   judged
	proof    Proof
	machines map[*xsd.Type]*machine
}

// checkTemplate proves every element and attribute of the mapping: known at its
// place, in the right namespace, in the schema's order, no more often than
// allowed, nothing missing that every message has.
// Only where nothing is wrong in itself is it asked what forms can make of it;
// readable says whether everything in the file could be read.
func checkTemplate(file string, root *node, readable bool, model *xsd.Schema, std *standard.Standard) (Proof, config.Problems) {
	c := &prover{file: file, model: model, std: std, judged: judged{}}
	if root.kind != nodeElement {
		return c.proof, nil
	}
	decl := model.Element(xsd.Name{Space: root.name.space, Local: root.name.local})
	if decl == nil {
		var known []string
		for _, e := range model.Elements() {
			if e.Name.Space == root.name.space && !e.Abstract {
				known = append(known, e.Name.Local)
			}
		}
		c.problem(root.line, "the standard has no message %s%s", root.name, hint(root.name.local, known))
		return c.proof, c.problems
	}
	c.element(root, decl)
	c.untyped(root)
	if readable && len(c.problems) == 0 {
		c.prove(root, decl, &facts{}, &facts{})
		c.lookups(root)
		c.proof.values = true
	}
	slices.SortStableFunc(c.proof.Open, func(a, b Open) int { return a.Line - b.Line })
	return c.proof, c.problems
}

// typeFor is the type an element has where the mapping stands: its declaration's,
// or that of a constant xsi:type.
func (c *prover) typeFor(n *node, decl *xsd.Element) *xsd.Type {
	for _, a := range n.attrs {
		if v, constant := a.value.constant(); constant && !a.decl && a.name == (qname{xsiNamespace, "type"}) {
			if t := c.xsiType(n, v); t != nil {
				return t
			}
		}
	}
	return decl.Type
}

func (c *prover) problem(at mark, text string, args ...any) {
	c.problems = append(c.problems, at.problem(c.file, fmt.Sprintf(text, args...)))
}

func (c *prover) element(n *node, decl *xsd.Element) {
	for i := range n.attrs {
		a := &n.attrs[i]
		if a.decl || a.name.space != xsiNamespace {
			continue
		}
		if v, constant := a.value.constant(); constant && a.name.local == "type" && c.xsiType(n, v) == nil {
			c.problem(a.line, "the standard has no type %q", v)
		}
	}
	t := c.typeFor(n, decl)
	c.attributes(n, t)
	if n.inline != nil {
		if c.inline(n, decl, t); !t.Kind.HasText() {
			return // said already
		}
	}
	if isAny(t) {
		return
	}
	if t.Kind.HasText() {
		for _, k := range flatten(n.children, nil) {
			c.problem(k.n.line, "<%s> holds text, no elements; <%s> cannot stand in it", n.tag, k.n.tag)
		}
		return
	}
	if n.value != nil && t.Kind != xsd.MixedContent {
		c.problem(n.line, "<%s> holds elements, no text%s", n.tag, insideHint(t))
	}
	c.content(n, t)
}

// xsiType resolves a constant xsi:type by the root's declarations.
func (c *prover) xsiType(n *node, v string) *xsd.Type {
	prefix, local, ok := strings.Cut(v, ":")
	if !ok {
		prefix, local = "", v
	}
	top := n
	for top.inside != nil {
		top = top.inside
	}
	space := ""
	for _, a := range top.attrs {
		if a.decl && (a.tag == "xmlns:"+prefix || prefix == "" && a.tag == "xmlns") {
			space, _ = a.value.constant()
		}
	}
	return c.model.Type(xsd.Name{Space: space, Local: local})
}

func insideHint(t *xsd.Type) string {
	if a := contentOf(t); len(a.decls) > 0 {
		return fmt.Sprintf("; inside it stands <%s>", a.decls[0].Name.Local)
	}
	return ""
}

func (c *prover) attributes(n *node, t *xsd.Type) {
	if isAny(t) {
		return
	}
	have := map[qname]bool{}
	for _, a := range n.attrs {
		if a.decl || a.name.space == xsiNamespace {
			continue
		}
		have[a.name] = true
		decl := t.Attribute(xsd.Name{Space: a.name.space, Local: a.name.local})
		if decl == nil {
			if t.AnyAttribute != nil {
				continue
			}
			known := make([]string, 0, len(t.Attributes))
			for _, u := range t.Attributes {
				known = append(known, u.Name.Local)
			}
			slices.Sort(known)
			c.problem(a.line, "<%s> has no attribute %q in the standard%s", n.tag, a.tag, hint(a.name.local, known))
			continue
		}
		if v, constant := a.value.constant(); constant && decl.Fixed != nil && v != *decl.Fixed {
			c.problem(a.line, "the attribute %q of <%s> is fixed to %q by the standard", a.tag, n.tag, *decl.Fixed)
		}
	}
	var missing []string
	for _, u := range t.Attributes {
		if u.Required && !have[qname{u.Name.Space, u.Name.Local}] {
			missing = append(missing, u.Name.Local)
		}
	}
	slices.Sort(missing)
	for _, name := range missing {
		c.problem(n.line, "<%s> needs the attribute %q", n.tag, name)
	}
}

// sibling is a child in document order, seen through groups and choices.
type sibling struct {
	n        *node
	branches []branch // the choices around it
	maybe    bool     // it may be left out
	repeats  *node    // the innermost loop around it, itself included
	selected bool     // a condition picks among the loop's items
	generic  bool     // a member of w:data
	local    string
}

type branch struct{ choose, when *node }

func flatten(nodes []*node, around *sibling) []sibling {
	var out []sibling
	for _, n := range nodes {
		s := sibling{n: n}
		if around != nil {
			s.branches, s.maybe, s.repeats, s.selected = around.branches, around.maybe, around.repeats, around.selected
		}
		if n.each != nil {
			s.repeats = n
			s.selected = n.each.prog != nil // filter(…) and the like
		}
		if n.cond != nil && s.repeats != nil {
			s.selected = true
		}
		if n.cond != nil || n.each != nil {
			s.maybe = true
		}
		switch n.kind {
		case nodeElement:
			if _, constant := n.value.constant(); n.value != nil && !constant || n.value == nil && len(n.children) > 0 {
				s.maybe = s.maybe || !n.required
			}
			out = append(out, s)
		case nodeGroup:
			out = append(out, flatten(n.children, &s)...)
		case nodeChoose:
			for _, w := range n.children {
				in := s
				in.maybe = true
				in.branches = append(slices.Clone(s.branches), branch{n, w})
				out = append(out, flatten(w.children, &in)...)
			}
		case nodeData:
			for _, local := range []string{"gruppe", "feld"} {
				g := s
				g.maybe, g.generic, g.local = true, true, local
				out = append(out, g)
			}
		}
	}
	return out
}

// exclusive says that two siblings stand in different branches of one choice.
func exclusive(a, b sibling) bool {
	for _, x := range a.branches {
		for _, y := range b.branches {
			if x.choose == y.choose && x.when != y.when {
				return true
			}
		}
	}
	return false
}

func (c *prover) content(n *node, t *xsd.Type) {
	model := contentOf(t)
	kids := flatten(n.children, nil)
	at := make([][]int, len(kids)) // positions in the automaton
	present := map[qname]bool{}
	for i, k := range kids {
		name := k.n.name
		if k.generic {
			name = qname{n.name.space, k.local}
		}
		present[name] = true
		for p, d := range model.decls {
			if nameOf(d) == name {
				at[i] = append(at[i], p)
			}
		}
		switch {
		case len(at[i]) > 0:
			if !k.generic {
				c.element(k.n, model.decls[at[i][0]])
			}
		case model.any:
			if g := c.model.Element(xsd.Name{Space: name.space, Local: name.local}); g != nil && !k.generic {
				c.element(k.n, g)
			}
		case k.generic:
			c.problem(k.n.line, "w:data writes <%s>, which the standard does not allow in <%s>", k.local, n.tag)
		default:
			c.unknown(n, k.n, model)
		}
	}
	for i, a := range kids {
		if len(at[i]) == 0 {
			continue
		}
		// A loop with a condition may well come true once: the form's schema can
		// say so, and the validator has the last word on every message.
		if a.repeats != nil && !a.selected && !a.generic && !c.reachable(model, at[i], at[i]) {
			c.problem(a.n.line, "<%s> may stand once in <%s>, but w:for repeats it", a.n.tag, n.tag)
		}
		for j := i + 1; j < len(kids); j++ {
			b := kids[j]
			if len(at[j]) == 0 || exclusive(a, b) || a.n == b.n || c.reachable(model, at[i], at[j]) {
				continue
			}
			switch {
			case overlap(at[i], at[j]):
				if !a.maybe && !b.maybe {
					c.problem(b.n.line, "<%s> may stand once in <%s>", b.n.tag, n.tag)
				}
			case c.reachable(model, at[j], at[i]):
				c.problem(b.n.line, "<%s> must stand before <%s> in <%s>", b.n.tag, a.n.tag, n.tag)
			case !a.maybe && !b.maybe:
				c.problem(b.n.line, "<%s> and <%s> exclude each other in <%s>", a.n.tag, b.n.tag, n.tag)
			}
		}
	}
	for _, q := range model.must {
		if !present[q] {
			c.problem(n.line, "<%s> needs <%s>, which the mapping does not write", n.tag, q.local)
		}
	}
}

func overlap(a, b []int) bool {
	for _, x := range a {
		if slices.Contains(b, x) {
			return true
		}
	}
	return false
}

func (c *prover) reachable(model *content, from, to []int) bool {
	for _, a := range from {
		for _, b := range to {
			if model.reach[a][b] {
				return true
			}
		}
	}
	return false
}

func (c *prover) unknown(parent, n *node, model *content) {
	for _, d := range model.decls {
		if d.Name.Local == n.name.local {
			if d.Name.Space == "" {
				c.problem(n.line, "<%s> is unqualified in the standard: write it without a prefix, <%s>", n.tag, n.name.local)
			} else {
				c.problem(n.line, "<%s> belongs to the namespace %s in <%s>; give it that namespace's prefix", n.tag, d.Name.Space, parent.tag)
			}
			return
		}
	}
	known := make([]string, 0, len(model.decls))
	for _, d := range model.decls {
		known = append(known, d.Name.Local)
	}
	c.problem(n.line, "the standard has no <%s> in <%s>%s", n.tag, parent.tag, hint(n.name.local, known))
}

func sortProblems(ps config.Problems) {
	slices.SortStableFunc(ps, func(a, b config.Problem) int { return a.Line - b.Line })
}
