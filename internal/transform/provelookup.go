package transform

import (
	"fmt"

	"github.com/expr-lang/expr/ast"
)

// expressions visits what is computed at a node, with its line.
func (n *node) expressions(visit func(line mark, e *expression)) {
	in := func(t *template) {
		if t == nil {
			return
		}
		for _, p := range t.parts {
			if p.expr != nil {
				visit(t.line, p.expr)
			}
		}
	}
	for _, e := range []*expression{n.each, n.cond, n.data} {
		if e != nil {
			visit(n.line, e)
		}
	}
	for _, l := range n.lets {
		if l.expr != nil {
			visit(n.line, l.expr)
		}
	}
	for _, a := range n.attrs {
		in(a.value)
	}
	in(n.value)
}

// lookups proves that keys which are known stand in a row of what they are looked
// up in. A lookup of which no key does is refused; where some do, what is around
// it may keep the others away, and each message tells.
func (c *prover) lookups(n *node) {
	n.expressions(func(line mark, e *expression) {
		root, r := read(e)
		ast.Walk(&root, visitor(func(x ast.Node) { c.lookup(n, line, r, x) }))
	})
	for _, k := range n.children {
		c.lookups(k)
	}
}

type visitor func(ast.Node)

// Visit implements ast.Visitor.
func (v visitor) Visit(n *ast.Node) { v(*n) }

func (c *prover) lookup(n *node, line mark, r *reading, x ast.Node) {
	call, ok := x.(*ast.CallNode)
	if !ok || call.Callee.String() != "lookup" || len(call.Arguments) != 2 {
		return
	}
	name, has := rowsOf(call)
	keys, missing := r.keys(call.Arguments[0]), ""
	found := 0
	for _, k := range keys {
		switch {
		case has(k):
			found++
		case missing == "":
			missing = k
		}
	}
	if missing == "" {
		return
	}
	at := *n
	at.line = line
	t := tableIn(call)
	if found == 0 && n.checked == "" && (t == nil || !t.areas) {
		c.problem(line, "%s is in no row of %s", quote(missing), name)
		return
	}
	c.rule(&at, fmt.Sprintf("%s is in a row of %s", clip(call.Arguments[0].String()), name), reasonOf(n, quote(missing)+" would not be"))
}

// rowsOf says what a lookup looks in, and which keys have a row there.
func rowsOf(x *ast.CallNode) (string, func(key string) bool) {
	if t := tableIn(x); t != nil {
		return t.name, func(key string) bool { _, ok := t.at(key); return ok }
	}
	keys := map[string]bool{}
	if m, ok := x.Arguments[1].(*ast.MapNode); ok {
		for _, p := range m.Pairs {
			if pair, ok := p.(*ast.PairNode); ok {
				key, _ := constantText(pair.Key)
				keys[key] = true
			}
		}
	}
	return "the table", func(key string) bool { return keys[key] }
}

// keys are all that an expression may come to but nothing; none where that is not
// known.
func (r *reading) keys(n ast.Node) []string {
	var out []string
	for _, d := range r.domains(n) {
		if d.kind != domainFinite {
			return nil
		}
		for _, v := range d.values {
			if v != "" {
				out = append(out, v)
			}
		}
	}
	return out
}
