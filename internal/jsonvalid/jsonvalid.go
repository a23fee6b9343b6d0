// Package jsonvalid finds out fast that a JSON value is valid against a JSON
// Schema of draft 2020-12.
//
// The judge is santhosh-tekuri/jsonschema. It keeps account of each step for the
// error it may have to tell, and what a portal sends is nearly always sound. So
// a Checker, made from the judge's own compiled schema, only ever says "valid";
// everything else, what it is not sure of included, goes to the judge, who finds
// the same verdict and the words for it. Of a schema with a keyword that is not
// known here there is no Checker. The package knows nothing of the project.
package jsonvalid

import (
	"encoding/json"
	"math/big"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schema is a compiled schema: the judge, and a Checker before it where there is
// one. It is immutable and safe for concurrent use.
type Schema struct {
	judge *jsonschema.Schema
	check *Checker
}

// New puts a Checker before a schema.
func New(s *jsonschema.Schema) Schema { return Schema{s, Compile(s)} }

// Validate returns nil where the value is valid, and otherwise the judge's error.
func (s Schema) Validate(v any) error {
	if s.check.Valid(v) {
		return nil
	}
	return s.judge.Validate(v)
}

// Checker knows a schema. It is immutable and safe for concurrent use. The nil
// Checker finds nothing valid.
type Checker struct{ root *node }

// Compile returns a Checker, or nil where the schema has what is not known here.
func Compile(s *jsonschema.Schema) *Checker {
	b := builder{nodes: map[*jsonschema.Schema]*node{}}
	root := b.node(s)
	if b.unknown || b.circular() {
		return nil
	}
	return &Checker{root}
}

// Valid says that a value is valid, decoded as encoding/json does with numbers as
// json.Number. False says nothing.
func (c *Checker) Valid(v any) bool {
	if c == nil {
		return false
	}
	var r run
	return c.root.holds(&r, v) && !r.unsure
}

// run is one check. Once it is unsure, its verdict is worth nothing.
type run struct{ unsure bool }

// node is a schema: what a value must pass, whatever it is, and as one of its
// kind.
type node struct {
	any     []func(*run, any) bool
	objects []func(*run, map[string]any) bool
	arrays  []func(*run, []any) bool
	texts   []func(string) bool
	numbers []func(*run, json.Number) bool

	constant *string // the one text that is valid, where that is all there is to check
	same     []*node // checked for the same value
}

func (n *node) holds(r *run, v any) bool {
	for _, test := range n.any {
		if !test(r, v) {
			return false
		}
	}
	switch v := v.(type) {
	case map[string]any:
		return all(n.objects, r, v)
	case []any:
		return all(n.arrays, r, v)
	case string:
		for _, test := range n.texts {
			if !test(v) {
				return false
			}
		}
	case json.Number:
		return all(n.numbers, r, v)
	case bool, nil:
	default:
		r.unsure = true
	}
	return true
}

func all[T any](tests []func(*run, T) bool, r *run, v T) bool {
	for _, test := range tests {
		if !test(r, v) {
			return false
		}
	}
	return true
}

// kind is a set of JSON's types.
type kind uint8

const (
	isNull kind = 1 << iota
	isBool
	isObject
	isArray
	isText
	isNumber
	isInteger
)

var kinds = map[string]kind{"null": isNull, "boolean": isBool, "object": isObject, "array": isArray, "string": isText, "number": isNumber, "integer": isInteger}

// in says whether a value's type is in the set. A number without a fraction is
// an integer, however it is written.
func (k kind) in(r *run, v any) bool {
	switch v := v.(type) {
	case nil:
		return k&isNull != 0
	case bool:
		return k&isBool != 0
	case map[string]any:
		return k&isObject != 0
	case []any:
		return k&isArray != 0
	case string:
		return k&isText != 0
	case json.Number:
		return k&isNumber != 0 || k&isInteger != 0 && integer(r, v)
	}
	r.unsure = true
	return false
}

func integer(r *run, n json.Number) bool {
	if strings.Trim(string(n), "0123456789") == "" && n != "" {
		return true
	}
	return rat(r, n).IsInt()
}

// rat is a number's value; 0 and unsure where it has none.
func rat(r *run, n json.Number) *big.Rat {
	v, ok := new(big.Rat).SetString(string(n))
	if !ok {
		r.unsure = true
		return new(big.Rat)
	}
	return v
}

// equal compares values as JSON Schema does: numbers by what they are worth.
func equal(r *run, a, b any) bool {
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return ok && a == b
	case nil:
		return b == nil
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	case json.Number:
		b, ok := b.(json.Number)
		return ok && (a == b || rat(r, a).Cmp(rat(r, b)) == 0)
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(r, a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, v := range a {
			if w, ok := b[name]; !ok || !equal(r, v, w) {
				return false
			}
		}
		return true
	}
	r.unsure = true
	return false
}
