package transform

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/optimizer"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
	"github.com/google/uuid"
)

// Bounds of one expression. Cost is bounded by them together with the size of
// the form: closures nest at most maxClosures deep.
const (
	maxExpressionNodes = 500
	maxExpressionBytes = 2000
	maxClosures        = 2
	memoryBudget       = 1_000_000 // of the virtual machine, in items
)

// kind is what is known of an expression's value at load.
type kind uint8

const (
	kindUnknown kind = iota
	kindNothing
	kindText
	kindNumber
	kindBoolean
	kindList
	kindGroup
)

func (k kind) String() string {
	return [...]string{"unknown", "nothing", "text", "number", "boolean", "list", "group of fields"}[k]
}

// shape is the static type of an expression.
type shape struct {
	kind   kind
	nodes  []*formNode // where the value comes from the form
	paths  []string    // what of the submission it comes from, as in form.persons[].name
	item   *shape      // of a list that does not come from the form
	fields map[string]shape
}

func formShape(nodes []*formNode, paths ...string) shape {
	s := shape{nodes: nodes, paths: paths}
	types := typesOf(nodes)
	if slices.Contains(types, "integer") && slices.Contains(types, "number") {
		types = slices.DeleteFunc(types, func(t string) bool { return t == "integer" })
	}
	if len(types) == 1 {
		switch types[0] {
		case "string":
			s.kind = kindText
		case "number", "integer":
			s.kind = kindNumber
		case "boolean":
			s.kind = kindBoolean
		case "array":
			s.kind = kindList
		case "object":
			s.kind = kindGroup
		}
	}
	return s
}

func (s shape) items() shape {
	if s.nodes != nil {
		return formShape(itemsOf(s.nodes), each(s.paths, "[]")...)
	}
	if s.item != nil {
		return *s.item
	}
	return shape{}
}

func each(paths []string, suffix string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = p + suffix
	}
	return out
}

func texts(names ...string) shape {
	s := shape{kind: kindGroup, fields: map[string]shape{}}
	for _, n := range names {
		s.fields[n] = shape{kind: kindText}
	}
	return s
}

// contextShapes are the variables besides form.
func contextShapes() map[string]shape {
	sub := texts("id", "caseId", "service", "serviceURN", "region", "land", "applicationDate", "senderReference", "acceptedAt", "trustLevel")
	sub.fields["test"] = shape{kind: kindBoolean}
	att := texts("attachmentId", "filename", "mimeType", "purpose", "sha512", "description")
	att.fields["size"] = shape{kind: kindNumber}
	att.paths = []string{"attachments[]"}
	pathsOf(sub, "submission")
	pathsOf(att, "attachments[]")
	return map[string]shape{
		"message":     texts("id", "createdAt", "type"),
		"submission":  sub,
		"authority":   texts("id", "key", "prefix", "kennung", "name", "region"),
		"portal":      texts("key", "prefix", "kennung", "name"),
		"attachments": {kind: kindList, item: &att, paths: []string{"attachments"}},
	}
}

// pathsOf notes which of a variable's members a portal writes.
func pathsOf(s shape, at string) {
	for name, f := range s.fields {
		if path := at + "." + name; members[path] != "" {
			f.paths = []string{path}
			s.fields[name] = f
		}
	}
}

// scope holds the names visible at a place in the mapping.
type scope struct {
	parent *scope
	name   string
	key    string // under which the value stands in the environment
	shape  shape
	def    *expression // what w:let says
	list   *expression // what w:for goes through
	// fence ends the names in sight, as a fragment sees nothing of the place it is
	// used at; behind it are these.
	fence   *scope
	lookups *tables
}

// after is the scope behind a name.
func (s *scope) after() *scope {
	if s.fence != nil {
		return s.fence
	}
	return s.parent
}

func (s *scope) find(name string) *scope {
	for ; s != nil; s = s.after() {
		if s.name == name {
			return s
		}
	}
	return nil
}

// bind makes a name visible. A name that hides an outer one, or one behind a
// fence, gets a key of its own: the outer value must still be there when the
// inner ends.
func (s *scope) bind(name string, sh shape) *scope {
	hidden := 0
	for at := s; at != nil; at = at.parent {
		if at.name == name {
			hidden++
		}
	}
	key := name
	if hidden > 0 {
		key = fmt.Sprintf("%s__%d", name, hidden)
	}
	return &scope{parent: s, name: name, key: key, shape: sh}
}

// reserved says that a name is one of the mapping's variables.
func reserved(name string) bool {
	switch name {
	case "form", "message", "submission", "authority", "portal", "attachments":
		return true
	}
	return false
}

func (s *scope) names() []string {
	var out []string
	for ; s != nil; s = s.after() {
		if s.name != "" {
			out = append(out, s.name)
		}
	}
	return out
}

// expression is one compiled expression.
type expression struct {
	src    string
	direct evaluator   // nil where only the virtual machine can
	prog   *vm.Program // nil of a plain path
	shape  shape
	raw    ast.Node // as written
	scope  *scope   // the names in force
	used   []string // fields of the form that it looks at
}

// isPath says that the expression is nothing but a path.
func (e *expression) isPath() bool { return e.prog == nil }

var (
	allowedBuiltins = []string{"len", "filter", "map", "any", "all", "none", "one", "count", "find", "first", "last", "concat", "split", "replace"}
	functions       = map[string]kind{
		"date": kindText, "datetime": kindText, "decimal": kindText, "upper": kindText, "lower": kindText, "trim": kindText,
		"join": kindText, "text": kindText, "number": kindNumber, "uuid5": kindText, "default": kindUnknown, "has": kindBoolean,
		"lookup": kindText, "din91379": kindText,
	}
)

// Names that rewriting puts in; they cannot be written in a mapping.
const (
	fnText   = "text"
	fnNumber = "number"
	fnBool   = "weiche__bool"
	fnList   = "weiche__list"
	fnSized  = "weiche__sized"
)

// compileExpression parses, checks against the scope and compiles src. The
// errors are for the mapping's author; an expression carries no payload.
func compileExpression(src string, in *scope) (*expression, []string) {
	if len(src) > maxExpressionBytes {
		return nil, []string{fmt.Sprintf("the expression is longer than %d bytes", maxExpressionBytes)}
	}
	c := expressionConfig()
	tree, err := parser.ParseWithConfig(src, c)
	if err != nil {
		return nil, []string{"the expression does not parse: " + exprErrorText(err)}
	}
	raw, err := parser.ParseWithConfig(src, c) // rewriting changes the other
	if err != nil {
		return nil, []string{"the expression does not parse: " + exprErrorText(err)}
	}
	r := &rewriter{scope: in, tables: map[string]*table{}}
	node, sh := r.rewrite(tree.Node)
	if len(r.faults) > 0 {
		return nil, r.faults
	}
	ast.Walk(&raw.Node, &tableSetter{r.tables})
	e := &expression{src: src, shape: sh, direct: direct(node), raw: raw.Node, scope: in, used: r.used}
	if plainPath(node) != nil {
		return e, nil
	}
	tree.Node = node
	if _, err := checker.Check(tree, c); err != nil {
		return nil, []string{"the expression is wrong: " + exprErrorText(err)}
	}
	if err := optimizer.Optimize(&tree.Node, c); err != nil {
		return nil, []string{"the expression is wrong: " + exprErrorText(err)}
	}
	if e.prog, err = compiler.Compile(tree, c); err != nil {
		return nil, []string{"the expression does not compile: " + exprErrorText(err)}
	}
	return e, nil
}

func exprErrorText(err error) string {
	var fe *file.Error
	if errors.As(err, &fe) {
		return fe.Message
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

func expressionConfig() *conf.Config {
	c := conf.CreateNew()
	c.MaxNodes = maxExpressionNodes
	// Names are checked by the rewriter, which has a hint for the nearest one.
	c.Strict = false
	c.DisableIfOperator = true
	for name := range c.Builtins {
		if !slices.Contains(allowedBuiltins, name) {
			c.Disabled[name] = true
			delete(c.Builtins, name)
		}
	}
	for name := range functions {
		c.Functions[name] = &builtin.Function{Name: name, Func: implementations[name]}
	}
	for name, f := range hidden {
		c.Functions[name] = &builtin.Function{Name: name, Func: f}
	}
	return c
}

// implementations of the language's functions. uuid5 depends on the submission
// and is bound when the program runs: it reads the environment's hidden member.
var implementations = map[string]func(args ...any) (any, error){
	"date": func(a ...any) (any, error) { return dateText(a[0]) },
	"datetime": func(a ...any) (any, error) {
		return dateTimeText(a[0])
	},
	"decimal": func(a ...any) (any, error) {
		if isEmpty(a[0]) {
			return "", nil
		}
		digits := -1
		if len(a) > 1 {
			n, ok := a[1].(int)
			if !ok || n < 0 || n > 30 {
				return nil, valueError("decimal's digits are a number from 0 to 30")
			}
			digits = n
		}
		s, err := toText(a[0])
		if err != nil {
			return nil, err
		}
		return decimalText(s, digits)
	},
	"upper": func(a ...any) (any, error) { return mapText(a[0], strings.ToUpper) },
	"lower": func(a ...any) (any, error) { return mapText(a[0], strings.ToLower) },
	"trim":  func(a ...any) (any, error) { return mapText(a[0], strings.TrimSpace) },
	"text":  func(a ...any) (any, error) { return toText(a[0]) },
	"join": func(a ...any) (any, error) {
		list, ok := a[0].([]any)
		if !ok && a[0] != nil {
			return nil, valueError("join needs a list")
		}
		sep := ""
		if len(a) > 1 {
			sep, _ = a[1].(string)
		}
		var parts []string
		for _, v := range list {
			s, err := toText(v)
			if err != nil {
				return nil, err
			}
			if s != "" {
				parts = append(parts, s)
			}
		}
		return strings.Join(parts, sep), nil
	},
	"number":   func(a ...any) (any, error) { return toNumber(a[0]) },
	"din91379": func(a ...any) (any, error) { return din91379Text(a[0]) },
	"default": func(a ...any) (any, error) {
		if isEmpty(a[0]) {
			return a[1], nil
		}
		return a[0], nil
	},
	"has": func(a ...any) (any, error) { return !isEmpty(a[0]), nil },
	"lookup": func(a ...any) (any, error) {
		if isEmpty(a[0]) {
			return "", nil
		}
		key, err := toText(a[0])
		if err != nil {
			return nil, err
		}
		var v any
		var found bool
		switch from := a[1].(type) {
		case *table:
			v, found = from.at(key)
		case map[string]any:
			v, found = from[key]
		default:
			return nil, valueError("lookup needs a table")
		}
		if found {
			return v, nil
		}
		if len(a) > 2 {
			return a[2], nil
		}
		return nil, valueError("the value is not in the lookup's table")
	},
	// The first argument is the submission's id, put in by the rewriter.
	"uuid5": func(a ...any) (any, error) {
		ns, ok := a[0].(string)
		if !ok {
			return nil, valueError("uuid5 needs the submission's id")
		}
		space, err := uuid.Parse(ns)
		if err != nil {
			return nil, valueError("uuid5 needs the submission's id")
		}
		var name []byte
		for _, v := range a[1:] {
			s, err := toText(v)
			if err != nil || s == "" {
				return s, err // two of which nothing is known are not the same
			}
			name = fmt.Appendf(name, "%d:%s\x00", len(s), s)
		}
		return uuid.NewSHA1(space, name).String(), nil
	},
}

// arity of the language's functions: least and most arguments as written.
var arity = map[string][2]int{
	"date": {1, 1}, "datetime": {1, 1}, "decimal": {1, 2}, "upper": {1, 1}, "lower": {1, 1}, "trim": {1, 1}, "join": {1, 2},
	"text": {1, 1}, "number": {1, 1}, "uuid5": {1, 16}, "default": {2, 2}, "has": {1, 1}, "lookup": {2, 3}, "din91379": {1, 1},
}

func mapText(v any, f func(string) string) (any, error) {
	s, err := toText(v)
	if err != nil {
		return nil, err
	}
	return f(s), nil
}

// plainPath returns variable and members where the rewritten node is nothing
// but a path.
func plainPath(n ast.Node) []string {
	switch x := n.(type) {
	case *ast.IdentifierNode:
		return []string{x.Value}
	case *ast.ChainNode:
		return plainPath(x.Node)
	case *ast.MemberNode:
		name, ok := x.Property.(*ast.StringNode)
		if !ok {
			return nil
		}
		if p := plainPath(x.Node); p != nil {
			return append(p, name.Value)
		}
	}
	return nil
}

// rewriter checks every path against the scope and makes absent values
// harmless: members are fetched optionally, and operands are converted to what
// the operator needs.
type rewriter struct {
	scope    *scope
	items    []shape // of the closures around
	faults   []string
	used     []string
	closures int
	tables   map[string]*table // by what stands for them
}

func (r *rewriter) fail(text string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(text, args...))
}

func (r *rewriter) rewrite(n ast.Node) (ast.Node, shape) {
	switch x := n.(type) {
	case *ast.NilNode:
		return x, shape{kind: kindNothing}
	case *ast.IntegerNode, *ast.FloatNode:
		return x, shape{kind: kindNumber}
	case *ast.BoolNode:
		return x, shape{kind: kindBoolean}
	case *ast.StringNode:
		return x, shape{kind: kindText}
	case *ast.IdentifierNode:
		s := r.scope.find(x.Value)
		if s == nil {
			known := r.scope.names()
			r.fail("there is no %q here%s", x.Value, hint(x.Value, known))
			return x, shape{}
		}
		r.used = append(r.used, s.shape.paths...)
		if s.def != nil && s.shape.nodes == nil {
			r.used = append(r.used, s.def.used...)
		}
		return &ast.IdentifierNode{Value: s.key}, s.shape
	case *ast.PointerNode:
		switch {
		case x.Name == "index":
			return x, shape{kind: kindNumber}
		case x.Name != "" || len(r.items) == 0:
			r.fail("#%s has no meaning here", x.Name)
			return x, shape{}
		}
		item := r.items[len(r.items)-1]
		r.used = append(r.used, item.paths...)
		return x, item
	case *ast.ChainNode:
		node, s := r.rewrite(x.Node)
		return node, s
	case *ast.MemberNode:
		return r.member(x)
	case *ast.SliceNode:
		node, s := r.rewrite(x.Node)
		x.Node = node
		if x.From != nil {
			x.From, _ = r.rewrite(x.From)
		}
		if x.To != nil {
			x.To, _ = r.rewrite(x.To)
		}
		return x, s
	case *ast.UnaryNode:
		node, s := r.rewrite(x.Node)
		if x.Operator == "!" || x.Operator == "not" {
			x.Node = boolean(node)
			return x, shape{kind: kindBoolean}
		}
		x.Node = convert(fnNumber, node, s, kindNumber)
		return x, shape{kind: kindNumber}
	case *ast.BinaryNode:
		return r.binary(x)
	case *ast.ConditionalNode:
		cond, _ := r.rewrite(x.Cond)
		x.Cond = boolean(cond)
		var a, b shape
		x.Exp1, a = r.rewrite(x.Exp1)
		x.Exp2, b = r.rewrite(x.Exp2)
		return x, either(a, b)
	case *ast.ArrayNode:
		item := shape{}
		for i := range x.Nodes {
			var s shape
			x.Nodes[i], s = r.rewrite(x.Nodes[i])
			if i == 0 {
				item = s
			} else {
				item = either(item, s)
			}
		}
		return x, shape{kind: kindList, item: &item}
	case *ast.MapNode:
		for i := range x.Pairs {
			p, ok := x.Pairs[i].(*ast.PairNode)
			if !ok {
				continue
			}
			if _, constant := p.Key.(*ast.StringNode); !constant {
				r.fail("a table's keys are constant texts")
			}
			p.Value, _ = r.rewrite(p.Value)
		}
		return x, shape{kind: kindGroup}
	case *ast.BuiltinNode:
		return r.builtin(x)
	case *ast.CallNode:
		return r.call(x)
	case *ast.ConstantNode, *ast.BytesNode:
		return x, shape{}
	}
	r.fail("this construct of expr is not part of the mapping language")
	return n, shape{}
}

func either(a, b shape) shape {
	if a.kind == kindNothing {
		return b
	}
	if b.kind == kindNothing {
		return a
	}
	if a.nodes != nil && b.nodes != nil {
		return formShape(append(slices.Clone(a.nodes), b.nodes...), append(slices.Clone(a.paths), b.paths...)...)
	}
	if a.kind == b.kind {
		return shape{kind: a.kind}
	}
	return shape{}
}

func hint(name string, known []string) string {
	if n := nearest(name, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

func (r *rewriter) member(x *ast.MemberNode) (ast.Node, shape) {
	node, s := r.rewrite(x.Node)
	if inner, ok := node.(*ast.ChainNode); ok {
		node = inner.Node // one chain around the whole path
	}
	x.Node = node
	x.Optional = true
	var out shape
	switch p := x.Property.(type) {
	case *ast.StringNode:
		out = r.field(s, p.Value, x.Node)
	case *ast.IntegerNode:
		out = s.items()
		if s.kind != kindList && s.kind != kindUnknown {
			r.fail("[%d] is asked of a %s, not of a list", p.Value, s.kind)
		}
		// An index past the end is absent, not an error.
		return call("weiche__item", x.Node, x.Property), out
	default:
		r.fail("an index is a constant number, a member a constant name")
	}
	return &ast.ChainNode{Node: x}, out
}

func (r *rewriter) field(s shape, name string, of ast.Node) shape {
	switch {
	case s.nodes != nil:
		if found := member(s.nodes, name); found != nil {
			paths := each(s.paths, "."+name)
			r.used = append(r.used, paths...)
			return formShape(found, paths...)
		}
		known := memberNames(s.nodes)
		if s.kind != kindGroup && s.kind != kindUnknown && len(known) == 0 {
			r.fail("%s is a %s in the form's schema and has no field %q", describe(of), s.kind, name)
		} else {
			r.fail("the form's schema has no field %q in %s%s", name, describe(of), hint(name, known))
		}
	case s.fields != nil:
		if f, ok := s.fields[name]; ok {
			r.used = append(r.used, f.paths...)
			return f
		}
		known := make([]string, 0, len(s.fields))
		for k := range s.fields {
			known = append(known, k)
		}
		slices.Sort(known)
		r.fail("%s has no %q%s", describe(of), name, hint(name, known))
	case s.kind != kindUnknown && s.kind != kindGroup:
		r.fail("%s is a %s and has no field %q", describe(of), s.kind, name)
	}
	return shape{}
}

func describe(n ast.Node) string {
	if p := plainPath(n); p != nil {
		return strings.Join(p, ".")
	}
	if _, ok := n.(*ast.PointerNode); ok {
		return "the item"
	}
	return "the value"
}

func call(name string, args ...ast.Node) *ast.CallNode {
	return &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: args}
}

// boolean makes an absent operand false; comparisons need no wrapping, but it
// does no harm.
func boolean(n ast.Node) ast.Node {
	switch x := n.(type) {
	case *ast.BoolNode:
		return n
	case *ast.BinaryNode:
		switch x.Operator {
		case "==", "!=", "<", "<=", ">", ">=", "and", "or", "&&", "||", "in", "contains", "startsWith", "endsWith", "matches":
			return n
		}
	case *ast.UnaryNode:
		if x.Operator == "!" || x.Operator == "not" {
			return n
		}
	}
	return call(fnBool, n)
}

func convert(fn string, n ast.Node, s shape, to kind) ast.Node {
	if s.kind == to && s.nodes == nil {
		switch n.(type) {
		case *ast.IntegerNode, *ast.FloatNode, *ast.StringNode:
			return n
		}
	}
	return call(fn, n)
}

func (r *rewriter) binary(x *ast.BinaryNode) (ast.Node, shape) {
	var a, b shape
	x.Left, a = r.rewrite(x.Left)
	x.Right, b = r.rewrite(x.Right)
	number := func() {
		x.Left, x.Right = convert(fnNumber, x.Left, a, kindNumber), convert(fnNumber, x.Right, b, kindNumber)
	}
	text := func() {
		x.Left, x.Right = convert(fnText, x.Left, a, kindText), convert(fnText, x.Right, b, kindText)
	}
	switch x.Operator {
	case "and", "or", "&&", "||":
		x.Left, x.Right = boolean(x.Left), boolean(x.Right)
		return x, shape{kind: kindBoolean}
	case "+":
		if a.kind == kindText || b.kind == kindText {
			text()
			return x, shape{kind: kindText}
		}
		number()
		return x, shape{kind: kindNumber}
	case "-", "*", "/", "%", "**", "^":
		number()
		if x.Operator == "%" {
			// expr's % wants integers and panics on others; absent has no remainder.
			return call("weiche__mod", x.Left, x.Right), shape{kind: kindNumber}
		}
		return x, shape{kind: kindNumber}
	case "<", "<=", ">", ">=":
		if a.kind == kindText && b.kind == kindText || (a.kind == kindText && !isNumberLiteral(x.Right) && b.kind != kindNumber) || (b.kind == kindText && !isNumberLiteral(x.Left) && a.kind != kindNumber) {
			text()
		} else {
			number()
		}
		return x, shape{kind: kindBoolean}
	case "==", "!=":
		if a.kind == kindNothing || b.kind == kindNothing {
			return x, shape{kind: kindBoolean}
		}
		if a.kind == kindNumber || b.kind == kindNumber {
			number()
		}
		return x, shape{kind: kindBoolean}
	case "in":
		if a.kind == kindNumber {
			x.Left = convert(fnNumber, x.Left, a, kindNumber)
		}
		if _, literal := x.Right.(*ast.ArrayNode); !literal {
			x.Right = call(fnList, x.Right)
		}
		return x, shape{kind: kindBoolean}
	case "contains", "startsWith", "endsWith", "matches":
		if x.Operator == "matches" {
			if _, constant := x.Right.(*ast.StringNode); !constant {
				r.fail("the pattern of matches is a constant text")
			}
		}
		text()
		return x, shape{kind: kindBoolean}
	case "??":
		return x, either(a, b)
	}
	r.fail("the operator %s is not part of the mapping language", x.Operator)
	return x, shape{}
}

func isNumberLiteral(n ast.Node) bool {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		return true
	}
	return false
}

func (r *rewriter) builtin(x *ast.BuiltinNode) (ast.Node, shape) {
	if !slices.Contains(allowedBuiltins, x.Name) {
		r.fail("the function %s is not part of the mapping language", x.Name)
		return x, shape{}
	}
	var first shape
	var predicate shape
	for i, arg := range x.Arguments {
		p, isPredicate := arg.(*ast.PredicateNode)
		if !isPredicate {
			node, s := r.rewrite(arg)
			if i == 0 {
				first = s
				if listBuiltin(x.Name) {
					if s.kind != kindList && s.kind != kindUnknown {
						r.fail("%s needs a list; %s is a %s", x.Name, describe(arg), s.kind)
					}
					node = call(fnList, node)
				} else {
					node = r.sized(x.Name, arg, node, s)
				}
			}
			if x.Name == "concat" {
				if i > 0 {
					node = call(fnList, node)
				}
			}
			x.Arguments[i] = node
			continue
		}
		if r.closures++; r.closures > maxClosures {
			r.fail("closures nest deeper than %d", maxClosures)
		}
		r.items = append(r.items, first.items())
		p.Node, predicate = r.rewrite(p.Node)
		if x.Name != "map" {
			p.Node = boolean(p.Node)
		}
		r.items = r.items[:len(r.items)-1]
		r.closures--
	}
	switch x.Name {
	case "filter", "concat":
		return x, first
	case "find", "first", "last":
		return x, first.items()
	case "map":
		return x, shape{kind: kindList, item: &predicate}
	case "any", "all", "none", "one":
		return x, shape{kind: kindBoolean}
	case "len", "count":
		return x, shape{kind: kindNumber}
	case "replace":
		return x, shape{kind: kindText}
	case "split":
		return call(fnList, x), shape{kind: kindList, item: &shape{kind: kindText}} // expr's is a list of its own
	}
	return x, shape{}
}

// sized is the list or text that len, split and replace begin with; what is absent
// has no length.
func (r *rewriter) sized(name string, arg, node ast.Node, s shape) ast.Node {
	switch {
	case name == "len" && s.kind == kindList:
		return call(fnList, node)
	case name == "len" && (s.kind == kindUnknown || s.kind == kindNothing):
		return call(fnSized, node)
	case s.kind == kindGroup:
		r.fail("%s is a %s, which %s cannot take", describe(arg), s.kind, name)
	case s.kind != kindList && s.kind != kindUnknown:
		return convert(fnText, node, s, kindText)
	}
	return node
}

func listBuiltin(name string) bool {
	return name != "len" && name != "split" && name != "replace"
}

func (r *rewriter) call(x *ast.CallNode) (ast.Node, shape) {
	id, ok := x.Callee.(*ast.IdentifierNode)
	if !ok {
		r.fail("only the language's functions can be called")
		return x, shape{}
	}
	result, known := functions[id.Value]
	if tableKinds[id.Value] > 0 {
		r.fail("%s stands behind lookup's value: lookup(form.x, %s(…))", id.Value, id.Value)
		return x, shape{}
	}
	if !known {
		names := append(slices.Clone(allowedBuiltins), slices.Collect(maps.Keys(tableKinds))...)
		for n := range functions {
			names = append(names, n)
		}
		slices.Sort(names)
		r.fail("there is no function %q%s", id.Value, hint(id.Value, names))
		return x, shape{}
	}
	if n := arity[id.Value]; len(x.Arguments) < n[0] || len(x.Arguments) > n[1] {
		r.fail("%s takes %d to %d arguments, not %d", id.Value, n[0], n[1], len(x.Arguments))
		return x, shape{}
	}
	shapes := make([]shape, len(x.Arguments))
	for i := range x.Arguments {
		if i == 1 && id.Value == "lookup" {
			if t := r.tableOf(x.Arguments[i]); t != nil {
				r.tables[x.Arguments[i].String()] = t
				x.Arguments[i] = &ast.ConstantNode{Value: t}
				continue
			}
		}
		x.Arguments[i], shapes[i] = r.rewrite(x.Arguments[i])
	}
	out := shape{kind: result}
	switch id.Value {
	case "uuid5":
		ns := &ast.ChainNode{Node: &ast.MemberNode{
			Node: &ast.IdentifierNode{Value: "submission"}, Property: &ast.StringNode{Value: "id"}, Optional: true,
		}}
		x.Arguments = append([]ast.Node{ns}, x.Arguments...)
	case "default":
		out = either(shapes[0], shapes[1])
	case "text", "upper", "lower", "trim", "date", "datetime", "decimal", "number", "din91379":
		if k := shapes[0].kind; k == kindList || k == kindGroup {
			r.fail("%s is a %s, which %s cannot take", describe(x.Arguments[0]), k, id.Value)
		}
	case "join":
		if k := shapes[0].kind; k != kindList && k != kindUnknown {
			r.fail("join needs a list; %s is a %s", describe(x.Arguments[0]), k)
		}
	}
	return x, out
}

// hidden functions, put in by the rewriter only.
var hidden = map[string]func(args ...any) (any, error){
	fnBool: func(a ...any) (any, error) { return toBool(a[0]) },
	"weiche__item": func(a ...any) (any, error) {
		list, ok := a[0].([]any)
		i, isInt := a[1].(int)
		if !ok || !isInt {
			return nil, nil
		}
		if i < 0 {
			i += len(list)
		}
		if i < 0 || i >= len(list) {
			return nil, nil
		}
		return list[i], nil
	},
	fnList:  func(a ...any) (any, error) { return toList(a[0]) },
	fnSized: func(a ...any) (any, error) { return toSized(a[0]) },
	"weiche__mod": func(a ...any) (any, error) {
		x, okX := a[0].(int)
		y, okY := a[1].(int)
		if !okX || !okY {
			return math.NaN(), nil
		}
		if y == 0 {
			return nil, valueError("division by zero")
		}
		return x % y, nil
	},
}
