package transform

import (
	"fmt"

	"github.com/expr-lang/expr/ast"
)

// step is one thing an element's children lead to: an element under a condition,
// or a loop over more steps.
type step struct {
	n     *node
	name  qname
	guard *formula // under which it is written
	loop  *stepLoop
}

// stepLoop repeats its body: for each item of a list, or for those of them that
// pass a test.
type stepLoop struct {
	list     *place // nil: of a list nothing is known of
	item     *place
	test     *formula // of the item
	min, max int      // how often, where there is a list; max -1 is unbounded
	counted  bool     // min and max count the items that pass the test
	body     []step
}

// steps lists what nodes lead to, in their order.
func steps(nodes []*node) []step {
	var out []step
	for _, n := range nodes {
		out = append(out, stepsOf(n)...)
	}
	return out
}

func stepsOf(n *node) []step {
	cond := always
	if n.cond != nil && n.kind != nodeWhen {
		cond = truth(n.cond)
	}
	inner := func(cond *formula) []step { return guarded(cond, bodyOf(n)) }
	if n.each == nil {
		return inner(cond)
	}
	l := loopOf(n, cond)
	l.body = inner(always)
	return []step{{n: n, guard: always, loop: l}}
}

// bodyOf lists the steps of a node apart from its loop and condition.
func bodyOf(n *node) []step {
	switch n.kind {
	case nodeElement:
		guard := filled(n)
		if n.required {
			guard = always // empty is a fault, not an absence
		}
		return []step{{n: n, name: n.name, guard: guard}}
	case nodeChoose:
		var out []step
		before := always
		for _, w := range n.children {
			cond := before
			if w.kind == nodeWhen {
				c := truth(w.cond)
				cond, before = both(before, c), both(before, negate(c))
			}
			out = append(out, guarded(cond, steps(w.children))...)
		}
		return out
	case nodeData:
		return []step{dataStep(n)}
	}
	return steps(n.children)
}

// guarded puts steps under a condition; a loop keeps its own.
func guarded(cond *formula, in []step) []step {
	if cond.isAlways() {
		return in
	}
	out := make([]step, len(in))
	for i, s := range in {
		s.guard = both(cond, s.guard)
		out[i] = s
	}
	return out
}

// dataStep is w:data: any number of groups and fields in any order.
func dataStep(n *node) step {
	body := []step{{n: n, name: qname{n.inside.name.space, "gruppe"}, guard: opaque(fmt.Sprintf("group@%p", n), "w:data writes a group")}}
	body = append(body, step{n: n, name: qname{n.inside.name.space, "feld"}, guard: negate(body[0].guard)})
	l := &stepLoop{min: 0, max: -1, body: body, test: always}
	guard := opaque(fmt.Sprintf("data@%p", n), "w:data writes something")
	tree, r := read(n.data)
	if p := r.place(tree); p != nil {
		guard = both(has(p), guard)
		if writes(p.nodes, 0) {
			l.min, guard = 1, has(p)
		}
	}
	return step{n: n, guard: guard, loop: l}
}

// writes says that w:data of a group writes something whatever is in it.
func writes(nodes []*formNode, depth int) bool {
	if depth > 20 {
		return false
	}
	group := &place{nodes: nodes}
	for _, n := range conjuncts(nodes) {
		for _, name := range n.required {
			m := group.member(name)
			if m.loose || !nonEmpty(m) {
				continue
			}
			switch formShape(m.nodes).kind {
			case kindGroup:
				if writes(m.nodes, depth+1) {
					return true
				}
			case kindList:
				items := &place{nodes: itemsOf(m.nodes)}
				if formShape(items.nodes).kind == kindGroup && writes(items.nodes, depth+1) || formShape(items.nodes).kind != kindGroup && nonEmpty(items) {
					return true
				}
			case kindText, kindNumber, kindBoolean:
				return true
			}
		}
	}
	return false
}

// filled is the statement that an element's content is written.
func filled(n *node) *formula {
	if n.keep || n.inside == nil || n.value == nil && len(n.children) == 0 {
		return always
	}
	return n.content()
}

// content is the statement that something stands in the element.
func (n *node) content() *formula {
	if n.some == nil {
		if n.value != nil {
			n.some = written(n.value)
		} else {
			n.some = some(n.inner())
		}
	}
	return n.some
}

// inner lists the steps of an element's children.
func (n *node) inner() []step {
	if n.steps == nil {
		n.steps = steps(n.children)
	}
	return n.steps
}

// asserted is what every message says that is written at all: a w:required
// element inside that is empty is a fault.
func asserted(n *node) *formula {
	if n.required {
		return n.content()
	}
	out := always
	for _, k := range n.children {
		if k.kind == nodeElement && k.each == nil && k.cond == nil {
			out = both(out, asserted(k))
		}
	}
	return out
}

// some is the statement that at least one of some steps writes something.
func some(all []step) *formula {
	out := never
	for _, s := range all {
		if s.loop == nil {
			out = any1(out, s.guard)
			continue
		}
		out = any1(out, both(s.guard, s.loop.some(s.n)))
	}
	return out
}

// some is the statement that a loop writes something.
func (l *stepLoop) some(n *node) *formula {
	if n.kind == nodeData {
		return always // its guard says it
	}
	maybe := opaque(fmt.Sprintf("loop@%p", n), fmt.Sprintf("w:for in %s writes something", n.line.words()))
	if l.list == nil {
		return maybe
	}
	facts := (&facts{}).about(l)
	certain := facts != nil && counter(facts, some(l.body)) == nil
	switch {
	case certain && l.test.isAlways():
		return has(l.list)
	case certain && l.counted && l.min > 0:
		return has(l.list)
	}
	return both(has(l.list), maybe)
}

// about returns the facts that hold of an item the loop's body sees; nil where
// there is none.
func (x *facts) about(l *stepLoop) *facts {
	if l.item == nil {
		return x
	}
	out, ok := x.assume(l.test)
	if !ok {
		return nil
	}
	return out
}

// loopOf reads w:for: a path, or filter over one.
func loopOf(n *node, cond *formula) *stepLoop {
	l := &stepLoop{test: cond, min: 0, max: -1}
	l.item = n.eachScope.item()
	tree, r := read(n.each)
	if b, ok := tree.(*ast.BuiltinNode); ok && b.Name == "filter" && len(b.Arguments) == 2 {
		if p, ok := b.Arguments[1].(*ast.PredicateNode); ok && r.place(b.Arguments[0]) != nil {
			tree = b.Arguments[0]
			inner := &reading{scope: r.scope, items: append(r.items, l.item)}
			l.test = both(inner.truth(p.Node), cond)
		}
	}
	l.list = r.place(tree)
	if l.list == nil {
		return l
	}
	if l.list.loose {
		l.min = 0
		return l
	}
	l.bounds()
	return l
}

// bounds reads how often the list's schema lets the body run.
func (l *stepLoop) bounds() {
	l.min = 1 // the list is there, so it is not empty
	for _, n := range conjuncts(l.list.nodes) {
		l.min = max(l.min, n.minItems)
		if n.maxItems >= 0 && (l.max < 0 || n.maxItems < l.max) {
			l.max = n.maxItems
		}
	}
	if l.test.isAlways() {
		l.counted = true
		return
	}
	least, most := -1, l.max
	for _, n := range conjuncts(l.list.nodes) {
		if n.contains == nil || l.item == nil {
			continue
		}
		f := statement(n.contains, l.item)
		if f == nil || f.key() != l.test.key() {
			continue
		}
		least = max(least, 1, n.minContains)
		if n.minContains == 0 {
			least = 0
		}
		if n.maxContains >= 0 {
			most = n.maxContains
		}
	}
	if least >= 0 {
		l.min, l.max, l.counted = least, most, true
	}
}

// statement reads a schema as a statement about a value, where it is nothing but
// one; nil where it says more.
func statement(n *formNode, p *place) *formula {
	switch {
	case len(n.choices) == 1 && len(n.props) == 0:
		return equals(p, choiceTexts(n.choices)[0])
	case n.contains != nil && len(n.contains.choices) == 1:
		return contains(p, choiceTexts(n.contains.choices)[0])
	case len(n.props) == 1 && len(n.choices) == 0 && n.not == nil && len(n.parts) == 0:
		m := p.member(n.props[0].name)
		// A schema without the member holds as well: it must be there.
		if (&facts{known: map[string]fact{"has " + p.key: {has(p).atom, true}}}).present(m) != yes && !containsName(n.required, m.name) {
			return nil
		}
		return statement(n.props[0].node, m)
	}
	return nil
}

func containsName(list []string, name string) bool {
	for _, s := range list {
		if s == name {
			return true
		}
	}
	return false
}

// key tells formulas apart.
func (f *formula) key() string {
	if f.op == opAtom {
		return f.atom.key
	}
	out := fmt.Sprint(f.op, "(")
	for _, a := range f.args {
		if a != nil {
			out += a.key() + ","
		}
	}
	return out + ")"
}
