package transform

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// reading turns expressions into statements about the form, as far as they are
// such; the rest stays opaque.
type reading struct {
	scope *scope
	items []*place // of the closures around
}

func read(e *expression) (ast.Node, *reading) {
	return e.raw, &reading{scope: e.scope}
}

// written is the statement that the text of a template is not empty.
func written(t *template) *formula {
	out := always
	for _, p := range t.parts {
		if p.expr != nil {
			n, r := read(p.expr)
			out = both(out, r.filled(n))
		}
	}
	if len(t.parts) == 0 {
		return never
	}
	return out
}

// truth is the statement an expression makes as a condition.
func truth(e *expression) *formula {
	n, r := read(e)
	return r.truth(n)
}

// place is what a path names; nil where the expression is none.
func (r *reading) place(n ast.Node) *place {
	switch x := n.(type) {
	case *ast.ChainNode:
		return r.place(x.Node)
	case *ast.PointerNode:
		if x.Name == "" && len(r.items) > 0 {
			return r.items[len(r.items)-1]
		}
	case *ast.IdentifierNode:
		s := r.scope.find(x.Value)
		if s == nil {
			return nil
		}
		return s.place()
	case *ast.MemberNode:
		base := r.place(x.Node)
		if base == nil {
			return nil
		}
		switch p := x.Property.(type) {
		case *ast.StringNode:
			m := base.member(p.Value)
			m.always = contextAlways(m.key)
			m.sure = base.attachment && attachmentAlways(p.Value)
			return m
		case *ast.IntegerNode:
			name := fmt.Sprintf("[%d]", p.Value)
			return &place{key: base.key + name, name: name, text: base.text + name, up: base, nodes: itemsOf(base.nodes), loose: true}
		}
	}
	return nil
}

// place is what the name stands for.
func (s *scope) place() *place {
	switch {
	case s.def != nil:
		n, r := read(s.def)
		if p := r.place(n); p != nil {
			return p
		}
		if b, ok := n.(*ast.BuiltinNode); ok && (b.Name == "find" || b.Name == "first" || b.Name == "last") && len(b.Arguments) > 0 {
			p := s.item()
			p.loose, p.attachment = true, r.attachments(b.Arguments[0])
			return p
		}
	case s.list != nil:
		return s.item()
	case s.parent == nil || reserved(s.name):
		return &place{key: s.name, text: s.name, nodes: s.shape.nodes, always: s.name != "form" && s.name != "attachments"}
	}
	return nil
}

// counts says that the name is the number of a loop's item.
func (s *scope) counts() bool {
	return strings.HasSuffix(s.name, "_index") && s.shape.kind == kindNumber && s.def == nil
}

// item is the item that a loop is at.
func (s *scope) item() *place {
	p := &place{key: fmt.Sprintf("%s#%p", s.name, s), text: s.name, nodes: s.shape.nodes, loose: len(s.shape.nodes) > 1}
	if s.list != nil {
		n, r := read(s.list)
		p.attachment = r.attachments(n)
	}
	return p
}

// attachments says whether an expression's items are files of the submission.
func (r *reading) attachments(n ast.Node) bool {
	if b, ok := n.(*ast.BuiltinNode); ok && b.Name == "filter" && len(b.Arguments) > 0 {
		n = b.Arguments[0]
	}
	p := r.place(n)
	return p != nil && p.key == "attachments"
}

// attachmentAlways says what intake wants of every file, or finds out itself.
func attachmentAlways(name string) bool {
	switch name {
	case "attachmentId", "mimeType", "purpose", "sha512", "size":
		return true
	}
	return false
}

// contextAlways says which of the router's own values no message lacks: what
// identifies message, submission, authority and portal. Keys and names are the
// configuration's.
func contextAlways(key string) bool {
	switch key {
	case "message.id", "message.createdAt", "message.type",
		"submission.id", "submission.caseId", "submission.service", "submission.serviceURN", "submission.region", "submission.land",
		"submission.acceptedAt", "submission.test",
		"authority.id", "authority.key", "authority.prefix", "authority.kennung", "authority.name", "authority.region",
		"portal.key", "portal.prefix", "portal.kennung", "portal.name":
		return true
	}
	return false
}

// filled is the statement that an expression's value is not empty.
func (r *reading) filled(n ast.Node) *formula {
	switch x := n.(type) {
	case *ast.NilNode:
		return never
	case *ast.StringNode:
		if x.Value == "" {
			return never
		}
		return always
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return always
	case *ast.ConditionalNode:
		c := r.truth(x.Cond)
		return any1(both(c, r.filled(x.Exp1)), both(negate(c), r.filled(x.Exp2)))
	case *ast.BinaryNode:
		return r.filledBinary(x)
	case *ast.UnaryNode:
		return always
	case *ast.CallNode:
		return r.filledCall(x)
	case *ast.BuiltinNode:
		switch x.Name {
		case "len", "count", "any", "all", "none", "one":
			return always
		}
	case *ast.IdentifierNode:
		if s := r.scope.find(x.Value); s != nil && s.def != nil {
			inner, ir := read(s.def)
			return ir.filled(inner)
		} else if s != nil && s.counts() {
			return always
		}
	}
	if p := r.place(n); p != nil {
		return has(p)
	}
	return r.opaque(n, "has(%s)")
}

func (r *reading) filledBinary(x *ast.BinaryNode) *formula {
	a, b := r.filled(x.Left), r.filled(x.Right)
	switch x.Operator {
	case "+":
		if r.isText(x.Left) || r.isText(x.Right) {
			return any1(a, b)
		}
		return both(a, b)
	case "-", "*", "/", "%", "**", "^":
		return both(a, b)
	case "??":
		return any1(a, b)
	}
	return always // a comparison is true or false
}

func (r *reading) isText(n ast.Node) bool {
	switch x := n.(type) {
	case *ast.StringNode:
		return true
	case *ast.BinaryNode:
		return x.Operator == "+" && (r.isText(x.Left) || r.isText(x.Right))
	case *ast.CallNode:
		id, ok := x.Callee.(*ast.IdentifierNode)
		return ok && functions[id.Value] == kindText
	}
	p := r.place(n)
	return p != nil && (formShape(p.nodes).kind == kindText || p.always)
}

func (r *reading) filledCall(x *ast.CallNode) *formula {
	id, ok := x.Callee.(*ast.IdentifierNode)
	if !ok || len(x.Arguments) == 0 {
		return r.opaque(x, "has(%s)")
	}
	first := x.Arguments[0]
	switch id.Value {
	case "has":
		return always
	case "uuid5":
		out := always
		for _, name := range x.Arguments {
			out = both(out, r.filled(name))
		}
		return out
	case "default":
		return any1(r.filled(first), r.filled(x.Arguments[1]))
	case "date", "datetime", "decimal", "upper", "lower", "text", "number", "din91379":
		return r.filled(first)
	case "join":
		if list, ok := first.(*ast.ArrayNode); ok {
			out := never
			for _, item := range list.Nodes {
				out = any1(out, r.filled(item))
			}
			return out
		}
	case "lookup":
		out := r.filled(first)
		if t := tableIn(x); t != nil && t.gaps {
			return both(out, r.opaque(x, "has(%s)"))
		}
		for _, v := range tableValues(x) {
			if !r.filled(v).isAlways() {
				return both(out, r.opaque(x, "has(%s)"))
			}
		}
		return out
	}
	if p := r.place(first); p != nil {
		return both(has(p), r.opaque(x, "has(%s)"))
	}
	return r.opaque(x, "has(%s)")
}

// tableValues are the values a lookup may have.
func tableValues(x *ast.CallNode) []ast.Node {
	var out []ast.Node
	if m, ok := x.Arguments[1].(*ast.MapNode); ok {
		for _, p := range m.Pairs {
			if pair, ok := p.(*ast.PairNode); ok {
				out = append(out, pair.Value)
			}
		}
	}
	return append(out, x.Arguments[2:]...)
}

func (r *reading) truth(n ast.Node) *formula {
	switch x := n.(type) {
	case *ast.BoolNode:
		if x.Value {
			return always
		}
		return never
	case *ast.NilNode:
		return never
	case *ast.UnaryNode:
		if x.Operator == "!" || x.Operator == "not" {
			return negate(r.truth(x.Node))
		}
	case *ast.BinaryNode:
		if f := r.truthBinary(x); f != nil {
			return f
		}
	case *ast.ConditionalNode:
		c := r.truth(x.Cond)
		return any1(both(c, r.truth(x.Exp1)), both(negate(c), r.truth(x.Exp2)))
	case *ast.CallNode:
		if id, ok := x.Callee.(*ast.IdentifierNode); ok && id.Value == "has" && len(x.Arguments) == 1 {
			return r.filled(x.Arguments[0])
		}
	case *ast.IdentifierNode:
		if s := r.scope.find(x.Value); s != nil && s.def != nil {
			inner, ir := read(s.def)
			return ir.truth(inner)
		}
	}
	if p := r.place(n); p != nil {
		return equals(p, "true")
	}
	return r.opaque(n, "%s")
}

// truthBinary is nil where it is none of the statements that are understood.
func (r *reading) truthBinary(x *ast.BinaryNode) *formula {
	switch x.Operator {
	case "and", "&&":
		return both(r.truth(x.Left), r.truth(x.Right))
	case "or", "||":
		return any1(r.truth(x.Left), r.truth(x.Right))
	case "matches", "contains", "startsWith", "endsWith":
		pattern, ok := x.Right.(*ast.StringNode)
		p := r.place(x.Left)
		if !ok || p == nil || pattern.Value == "" {
			return nil
		}
		if re, err := compilePattern(pattern.Value); x.Operator == "matches" && (err != nil || re.MatchString("")) {
			return nil
		}
		return both(has(p), r.opaque(x, "%s"))
	case "<", "<=", ">", ">=":
		f := r.opaque(x, "%s")
		for _, side := range []ast.Node{x.Left, x.Right} {
			if p := r.place(side); p != nil {
				f = both(has(p), f) // nothing compares with what is absent
			}
		}
		return f
	case "==", "!=":
		f := r.equality(x.Left, x.Right)
		if f == nil {
			f = r.equality(x.Right, x.Left)
		}
		if f != nil && x.Operator == "!=" {
			return negate(f)
		}
		return f
	case "in":
		if value, ok := constantText(x.Left); ok {
			if p := r.place(x.Right); p != nil {
				return contains(p, value)
			}
		}
		list, ok := x.Right.(*ast.ArrayNode)
		p := r.place(x.Left)
		if !ok || p == nil {
			return nil
		}
		out := never
		for _, item := range list.Nodes {
			value, ok := constantText(item)
			if !ok {
				return nil
			}
			out = any1(out, equals(p, value))
		}
		return out
	}
	return nil
}

func (r *reading) equality(path, value ast.Node) *formula {
	p := r.place(path)
	if p == nil {
		return nil
	}
	if text, ok := constantText(value); ok {
		return equals(p, text)
	}
	return nil
}

func constantText(n ast.Node) (string, bool) {
	switch x := n.(type) {
	case *ast.StringNode:
		return x.Value, true
	case *ast.IntegerNode:
		return fmt.Sprint(x.Value), true
	case *ast.BoolNode:
		return fmt.Sprint(x.Value), true
	}
	return "", false
}

// opaque is an expression's own statement: the same text over the same names says
// the same.
func (r *reading) opaque(n ast.Node, as string) *formula {
	text := n.String()
	v := &nameVisitor{}
	ast.Walk(&n, v)
	key := fmt.Sprintf(as, text)
	for _, name := range v.found {
		if s := r.scope.find(name); s != nil {
			key += fmt.Sprintf("|%s@%p", name, s)
		}
	}
	for _, i := range r.items {
		key += "|" + i.key
	}
	if len(text) > 80 {
		text = text[:80] + "…"
	}
	return opaque(key, fmt.Sprintf(as, text))
}

type nameVisitor struct{ found []string }

// Visit implements ast.Visitor.
func (v *nameVisitor) Visit(n *ast.Node) {
	if id, ok := (*n).(*ast.IdentifierNode); ok && !slices.Contains(v.found, id.Value) {
		v.found = append(v.found, id.Value)
	}
}

// words says a fact as an author would.
func (f fact) words() string {
	a := f.atom
	switch {
	case a.kind == atomHas && f.value:
		return a.text + " is there"
	case a.kind == atomHas:
		return a.text + " is empty"
	case f.value:
		return a.text
	}
	return "not " + a.text
}

// words are the facts that x has beyond those of base, without those that
// others imply.
func (x *facts) words(base *facts) string {
	var out []string
	for key, f := range x.known {
		if _, told := base.known[key]; told {
			continue
		}
		if f.value && f.atom.kind == atomHas && x.impliedBy(f.atom) {
			continue
		}
		out = append(out, f.words())
	}
	slices.Sort(out)
	if len(out) > 5 {
		out = append(out[:5], "…")
	}
	return strings.Join(out, ", ")
}

func (x *facts) impliedBy(a *atom) bool {
	for _, f := range x.known {
		if f.value && f.atom != a && f.atom.at != nil && (f.atom.at.key == a.at.key || strings.HasPrefix(f.atom.at.key, a.at.key+".")) {
			return true
		}
	}
	return false
}
