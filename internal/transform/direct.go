package transform

import (
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm/runtime"
)

// evaluator computes an expression over a run's variables.
type evaluator func(r *run) (any, error)

const errExpression = valueError("the expression failed on this form's values")

// direct makes an evaluator of a rewritten expression; nil where the virtual
// machine has to do it (closures, patterns, computed lists). What mappings are
// full of (a path, has, a choice by comparison, a lookup in a constant table)
// takes a machine longer to enter than to compute. Both give the same values;
// a test holds them against each other.
func direct(n ast.Node) evaluator {
	if p := plainPath(n); p != nil {
		return func(r *run) (any, error) { return r.walk(p), nil }
	}
	if v, ok := constantOf(n); ok {
		return func(*run) (any, error) { return v, nil }
	}
	switch x := n.(type) {
	case *ast.ChainNode:
		return direct(x.Node)
	case *ast.MemberNode:
		return directMember(x)
	case *ast.UnaryNode:
		return directNot(x)
	case *ast.BinaryNode:
		return directBinary(x)
	case *ast.ConditionalNode:
		return directConditional(x)
	case *ast.CallNode:
		return directCall(x)
	case *ast.ArrayNode:
		return directList(x)
	case *ast.BuiltinNode:
		if x.Name == "len" {
			return directLen(x)
		}
		return directMap(x)
	}
	return nil
}

// walk follows a path; what is no group has no members.
func (r *run) walk(path []string) any {
	v := r.env[path[0]]
	for _, name := range path[1:] {
		v = memberOf(v, name)
	}
	return v
}

func memberOf(v any, name string) any {
	group, _ := v.(map[string]any)
	return group[name]
}

// constantOf is the value of a literal, and of a table of literals, which is
// built once: nothing in the language changes a value.
func constantOf(n ast.Node) (any, bool) {
	switch x := n.(type) {
	case *ast.NilNode:
		return nil, true
	case *ast.StringNode:
		return x.Value, true
	case *ast.IntegerNode:
		return x.Value, true
	case *ast.FloatNode:
		return x.Value, true
	case *ast.BoolNode:
		return x.Value, true
	case *ast.ConstantNode:
		return x.Value, true
	case *ast.ArrayNode:
		list := make([]any, len(x.Nodes))
		for i := range x.Nodes {
			v, ok := constantOf(x.Nodes[i])
			if !ok {
				return nil, false
			}
			list[i] = v
		}
		return list, true
	case *ast.MapNode:
		table := make(map[string]any, len(x.Pairs))
		for i := range x.Pairs {
			p, ok := x.Pairs[i].(*ast.PairNode)
			if !ok {
				return nil, false
			}
			key, isText := p.Key.(*ast.StringNode)
			v, constant := constantOf(p.Value)
			if !isText || !constant {
				return nil, false
			}
			table[key.Value] = v
		}
		return table, true
	}
	return nil, false
}

func directMember(x *ast.MemberNode) evaluator {
	of := direct(x.Node)
	name, ok := x.Property.(*ast.StringNode)
	if of == nil || !ok {
		return nil
	}
	return func(r *run) (any, error) {
		v, err := of(r)
		return memberOf(v, name.Value), err
	}
}

func directNot(x *ast.UnaryNode) evaluator {
	of := direct(x.Node)
	if of == nil || x.Operator != "!" && x.Operator != "not" {
		return nil
	}
	return func(r *run) (any, error) {
		yes, err := r.holds(of)
		return !yes, err
	}
}

// holds is the value of what the rewriter made a condition.
func (r *run) holds(of evaluator) (bool, error) {
	v, err := of(r)
	if err != nil {
		return false, err
	}
	yes, ok := v.(bool)
	if !ok {
		return false, errExpression
	}
	return yes, nil
}

func directConditional(x *ast.ConditionalNode) evaluator {
	cond, yes, no := direct(x.Cond), direct(x.Exp1), direct(x.Exp2)
	if cond == nil || yes == nil || no == nil {
		return nil
	}
	return func(r *run) (any, error) {
		holds, err := r.holds(cond)
		switch {
		case err != nil:
			return nil, err
		case holds:
			return yes(r)
		}
		return no(r)
	}
}

// operators that look at both sides, with the virtual machine's own meaning.
var operators = map[string]func(a, b any) any{
	"==": func(a, b any) any { return runtime.Equal(a, b) },
	"!=": func(a, b any) any { return !runtime.Equal(a, b) },
	"<":  func(a, b any) any { return runtime.Less(a, b) },
	"<=": func(a, b any) any { return runtime.LessOrEqual(a, b) },
	">":  func(a, b any) any { return runtime.More(a, b) },
	">=": func(a, b any) any { return runtime.MoreOrEqual(a, b) },
	"+":  runtime.Add,
	"-":  runtime.Subtract,
	"*":  runtime.Multiply,
	"/":  func(a, b any) any { return runtime.Divide(a, b) },
	"in": isIn,
}

func directBinary(x *ast.BinaryNode) evaluator {
	left, right := direct(x.Left), direct(x.Right)
	if left == nil || right == nil {
		return nil
	}
	switch x.Operator {
	case "and", "&&", "or", "||":
		until := x.Operator == "or" || x.Operator == "||"
		return func(r *run) (any, error) {
			yes, err := r.holds(left)
			if err != nil || yes == until {
				return yes, err
			}
			return right(r)
		}
	case "??":
		return func(r *run) (any, error) {
			if v, err := left(r); v != nil || err != nil {
				return v, err
			}
			return right(r)
		}
	case "in":
		if set := textSet(x.Right); set != nil {
			return directAmong(left, set)
		}
	}
	op, ok := operators[x.Operator]
	if !ok {
		return nil
	}
	return func(r *run) (any, error) {
		a, err := left(r)
		if err != nil {
			return nil, err
		}
		b, err := right(r)
		if err != nil {
			return nil, err
		}
		return attempt(op, a, b)
	}
}

func isIn(a, b any) any {
	list, isList := b.([]any)
	text, isText := a.(string)
	if !isList || !isText {
		return runtime.In(a, b)
	}
	return slices.ContainsFunc(list, func(v any) bool { s, ok := v.(string); return ok && s == text })
}

// textSet is a literal list of texts as a set; nil where it is none.
func textSet(n ast.Node) map[string]bool {
	list, ok := n.(*ast.ArrayNode)
	if !ok || len(list.Nodes) == 0 {
		return nil
	}
	set := make(map[string]bool, len(list.Nodes))
	for _, n := range list.Nodes {
		text, ok := n.(*ast.StringNode)
		if !ok {
			return nil
		}
		set[text.Value] = true
	}
	return set
}

// directAmong takes what is absent for "", and refuses what is no text, as the
// virtual machine does with a list of texts.
func directAmong(of evaluator, set map[string]bool) evaluator {
	return func(r *run) (any, error) {
		v, err := of(r)
		if err != nil {
			return nil, err
		}
		s, ok := v.(string)
		if !ok && v != nil {
			return nil, errExpression
		}
		return set[s], nil
	}
}

// attempt turns the panic of an operator that does not take these kinds into an
// error.
func attempt(op func(a, b any) any, a, b any) (v any, err error) {
	defer func() {
		if recover() != nil {
			v, err = nil, errExpression
		}
	}()
	return op(a, b), nil
}

func directCall(x *ast.CallNode) evaluator {
	id, ok := x.Callee.(*ast.IdentifierNode)
	if !ok {
		return nil
	}
	args := make([]evaluator, len(x.Arguments))
	for i := range x.Arguments {
		if args[i] = direct(x.Arguments[i]); args[i] == nil {
			return nil
		}
	}
	f := implementations[id.Value]
	if f == nil {
		f = hidden[id.Value]
	}
	switch {
	case f == nil:
		return nil
	case len(args) == 1 && simple[id.Value] != nil:
		f := simple[id.Value]
		return func(r *run) (any, error) {
			v, err := args[0](r)
			if err != nil {
				return nil, err
			}
			return f(v)
		}
	}
	return func(r *run) (any, error) {
		values, err := r.all(args)
		if err != nil {
			return nil, err
		}
		v, err := f(values...)
		return v, plainError(err)
	}
}

func directList(x *ast.ArrayNode) evaluator {
	items := make([]evaluator, len(x.Nodes))
	for i := range x.Nodes {
		if items[i] = direct(x.Nodes[i]); items[i] == nil {
			return nil
		}
	}
	return func(r *run) (any, error) { return r.all(items) }
}

// all computes a list of values.
func (r *run) all(of []evaluator) ([]any, error) {
	out := make([]any, len(of))
	for i, f := range of {
		v, err := f(r)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// directMap is map(list, .member), whose cost is the list's length. What other
// closures cost is for the virtual machine to bound.
func directMap(x *ast.BuiltinNode) evaluator {
	if x.Name != "map" || len(x.Arguments) != 2 {
		return nil
	}
	list := direct(x.Arguments[0])
	name, ok := itemMember(x.Arguments[1])
	if list == nil || !ok {
		return nil
	}
	return func(r *run) (any, error) {
		v, err := list(r)
		if err != nil {
			return nil, err
		}
		items, _ := v.([]any)
		out := make([]any, len(items))
		for i := range items {
			out[i] = memberOf(items[i], name)
		}
		return out, nil
	}
}

// directLen is len(x), whose argument the rewriter made a list or a text.
func directLen(x *ast.BuiltinNode) evaluator {
	of := direct(x.Arguments[0])
	if of == nil {
		return nil
	}
	return func(r *run) (any, error) {
		v, err := of(r)
		if err != nil {
			return nil, err
		}
		switch x := v.(type) {
		case []any:
			return len(x), nil
		case string:
			return utf8.RuneCountInString(x), nil
		}
		return nil, errExpression
	}
}

// itemMember is the name where a closure is nothing but a member of the item.
func itemMember(n ast.Node) (string, bool) {
	p, ok := n.(*ast.PredicateNode)
	if !ok {
		return "", false
	}
	n = p.Node
	if chain, ok := n.(*ast.ChainNode); ok {
		n = chain.Node
	}
	m, ok := n.(*ast.MemberNode)
	if !ok {
		return "", false
	}
	item, isItem := m.Node.(*ast.PointerNode)
	name, isName := m.Property.(*ast.StringNode)
	if !isItem || item.Name != "" || !isName {
		return "", false
	}
	return name.Value, true
}

// simple are the functions of one value, without a list of arguments.
var simple = map[string]func(any) (any, error){
	"has":    func(v any) (any, error) { return !isEmpty(v), nil },
	fnNumber: toNumber,
	fnList:   toList,
	fnSized:  toSized,
	fnBool:   func(v any) (any, error) { return toBool(v) },
	fnText: func(v any) (any, error) {
		if _, already := v.(string); already {
			return v, nil // as it is, without a new interface
		}
		return toText(v)
	},
}

// plainError keeps what the language says of a value, and nothing that a
// library says, which may quote it.
func plainError(err error) error {
	if err == nil {
		return nil
	}
	var ve valueError
	if errors.As(err, &ve) {
		return ve
	}
	return errExpression
}
