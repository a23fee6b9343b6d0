package transform

import (
	"fmt"
	"slices"
	"strings"

	"weiche/internal/transform/xsd"
)

// proveText proves the text of an element.
func (c *prover) proveText(n *node, decl *xsd.Element, t *xsd.Type) {
	if !t.Kind.HasText() || t.Simple == nil {
		return
	}
	what := "<" + n.tag + ">"
	if n.keep || n.value == nil && len(n.children) == 0 {
		if !t.Simple.Check("") && !nilled(n) {
			c.values(n, n.line, what, verdict{refused: "", is: true})
		}
	}
	if n.inline != nil {
		c.rule(n, what+" is "+n.inline.words(), reasonOf(n, "files are no part of the form"))
		return
	}
	if n.value == nil {
		return
	}
	c.proveValue(n, n.value.line, what, t.Simple, decl.Fixed, n.value)
	c.proveCode(n)
}

func nilled(n *node) bool {
	return slices.ContainsFunc(n.attrs, func(a nodeAttr) bool { return a.name == qname{xsiNamespace, "nil"} })
}

// proveValue proves that what a template may come to is what a type takes, and
// the fixed value where there is one.
func (c *prover) proveValue(n *node, line mark, what string, s *xsd.Simple, fixed *string, t *template) {
	in := t.domains()
	if fixed != nil {
		v, constant := t.constant()
		switch {
		case constant && v == *fixed:
			c.proof.Proven++
		case len(in) == 1 && in[0].kind == domainFinite && slices.Equal(in[0].values, []string{*fixed}):
			c.proof.Proven++
		case constant || n.checked == "":
			c.problem(line, "%s is fixed to %q by the standard", what, *fixed)
		default:
			c.rule(n, what+" is what the standard fixes", n.checked)
		}
		return
	}
	c.values(n, line, what, c.judged.judge(s, in))
}

func (c *prover) values(n *node, line mark, what string, v verdict) {
	rule := what + " has a value of its type"
	at := *n
	at.line = line
	switch {
	case v.is && n.checked == "":
		c.problem(line, "%s: %s", what, v.words())
	case v.is || v.open != "" && n.checked != "":
		c.rule(&at, rule, n.checked)
	default:
		c.rule(&at, rule, v.open)
	}
}

// words says which text is allowed and refused.
func (v verdict) words() string {
	hint := ""
	if strings.HasSuffix(v.refused, ".0") {
		hint = "; write decimal(…, 0)"
	}
	if v.from == "" {
		return fmt.Sprintf("%s is no value of the standard's type%s", quote(v.refused), hint)
	}
	return fmt.Sprintf("the form's schema is wider: it allows %s in %s, which is no value of the standard's type%s", quote(v.refused), v.from, hint)
}

// proveCode proves a code against its list, where the mapping names list and
// version itself.
func (c *prover) proveCode(n *node) {
	if n.name.local != "code" || n.inside == nil {
		return
	}
	uri, version := constantAttr(n.inside, "listURI"), constantAttr(n.inside, "listVersionID")
	if uri == "" || version == "" {
		return
	}
	rule := fmt.Sprintf("<%s> is a code of %s %s", n.tag, uri, version)
	has, ok := c.std.Codes(uri, version)
	if !ok {
		return // see proveList
	}
	for _, d := range n.value.domains() {
		if d.kind != domainFinite {
			c.rule(n, rule, reasonOf(n, "the form's schema does not list the values"))
			return
		}
		for _, v := range d.values {
			if has(v) {
				continue
			}
			if n.checked == "" {
				c.problem(n.value.line, "<%s>: %s is no code of %s, version %s", n.tag, quote(v), uri, version)
				return
			}
			c.rule(n, rule, n.checked)
			return
		}
	}
	c.rule(n, rule, "")
}

// proveList refuses a version that the standard's own list does not have, as the
// check of every message would, and a misspelt list. What the schema fixes is
// right; any other list that is not installed is a warning of the
// configuration's: nothing is refused for it.
func (c *prover) proveList(n *node, t *xsd.Type) {
	uri, version := constantAttr(n, "listURI"), constantAttr(n, "listVersionID")
	use := t.Attribute(xsd.Name{Local: "listVersionID"})
	if uri == "" || version == "" || n.checked != "" || use == nil || use.Fixed != nil {
		return
	}
	if _, ok := c.std.Codes(uri, version); ok {
		return
	}
	var versions, known []string
	for _, l := range c.std.CodeLists {
		if l.URI == uri {
			versions = append(versions, l.Version)
		}
		known = append(known, l.URI)
	}
	switch {
	case len(versions) > 0:
		c.problem(n.line, "<%s>: the code list %s has no version %q; the standard comes with %s", n.tag, uri, version, strings.Join(versions, ", "))
	default:
		const slip = 2 // letters
		if like := nearest(uri, known); like != "" && distance(uri, like) <= slip {
			c.problem(n.line, "<%s>: there is no code list %q; did you mean %q?", n.tag, uri, like)
		}
	}
}

func constantAttr(n *node, local string) string {
	for _, a := range n.attrs {
		if v, constant := a.value.constant(); constant && a.name == (qname{"", local}) {
			return v
		}
	}
	return ""
}

// proveData proves what w:data writes of every field against the type of a
// generic field's text.
func (c *prover) proveData(n *node, m *machine) {
	decl := c.declared(m, qname{n.inside.name.space, "feld"})
	if decl == nil || decl.Type.Simple == nil {
		return
	}
	at := *n
	at.checked = n.inside.checked // w:checked belongs on an element of the target
	n = &at
	if free(decl.Type.Simple) {
		c.proof.Proven++
		return
	}
	tree, r := read(n.data)
	base := r.place(tree)
	if base == nil {
		c.rule(n, "w:data writes values of their type", "nothing is known of its path")
		return
	}
	rule := "w:data writes values of their type"
	for _, d := range leaves(base, nil) {
		v := c.judged.judge(decl.Type.Simple, []domain{d})
		if v.is && n.checked == "" {
			c.problem(n.line, "w:data: %s", v.words())
			return
		}
		if v.is || v.open != "" {
			c.rule(n, rule, reasonOf(n, v.open))
			return
		}
	}
	c.rule(n, rule, "")
}

// leaves are the domains of everything below a place.
func leaves(p *place, around []*formNode) []domain {
	for _, n := range p.nodes {
		if slices.Contains(around, n) {
			return nil
		}
	}
	around = append(slices.Clone(around), p.nodes...)
	if names := memberNames(p.nodes); len(names) > 0 {
		var out []domain
		for _, name := range names {
			out = append(out, leaves(p.member(name), around)...)
		}
		return out
	}
	if items := itemsOf(p.nodes); len(items) > 0 {
		return leaves(&place{key: p.key + "[]", text: p.text, nodes: items, loose: len(items) > 1}, around)
	}
	return p.domains()
}
