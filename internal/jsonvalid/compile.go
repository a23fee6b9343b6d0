package jsonvalid

import (
	"encoding/json"
	"math/big"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// builder turns the judge's schemas into nodes.
type builder struct {
	nodes   map[*jsonschema.Schema]*node // also those that are not finished: references may be circular
	unknown bool
}

// node returns the node of a schema, nil of none.
func (b *builder) node(s *jsonschema.Schema) *node {
	if s == nil {
		return nil
	}
	if n, ok := b.nodes[s]; ok {
		return n
	}
	n := &node{}
	b.nodes[s] = n
	b.unknown = b.unknown || !known(s)
	if s.Bool != nil {
		allowed := *s.Bool
		n.any = append(n.any, func(*run, any) bool { return allowed })
		return n
	}
	b.value(n, s)
	b.object(n, s)
	b.array(n, s)
	text(n, s)
	number(n, s)
	if s.Const != nil && len(n.any) == 1 && len(n.objects)+len(n.arrays)+len(n.texts)+len(n.numbers) == 0 {
		if word, ok := (*s.Const).(string); ok {
			n.constant = &word
		}
	}
	return n
}

// known says whether all that a schema asserts is read here.
func known(s *jsonschema.Schema) bool {
	return s.DraftVersion == 2020 && s.RecursiveRef == nil && s.DynamicRef == nil && s.Dependencies == nil &&
		s.UnevaluatedProperties == nil && s.UnevaluatedItems == nil && s.Items == nil && s.AdditionalItems == nil &&
		s.ContentEncoding == nil && s.ContentMediaType == nil && s.ContentSchema == nil && len(s.Extensions) == 0
}

// same is the node of a schema for the same value.
func (b *builder) same(n *node, s *jsonschema.Schema) *node {
	sub := b.node(s)
	n.same = append(n.same, sub)
	return sub
}

func (b *builder) list(n *node, list []*jsonschema.Schema) []*node {
	out := make([]*node, len(list))
	for i, s := range list {
		out[i] = b.same(n, s)
	}
	return out
}

// value is what is checked whatever the value is.
func (b *builder) value(n *node, s *jsonschema.Schema) {
	test := func(t func(*run, any) bool) { n.any = append(n.any, t) }
	if s.Types != nil && !s.Types.IsEmpty() {
		var k kind
		for _, name := range s.Types.ToStrings() {
			k |= kinds[name]
		}
		if s.Const == nil || !k.in(&run{}, *s.Const) { // else the constant says it
			test(func(r *run, v any) bool { return k.in(r, v) })
		}
	}
	if s.Const != nil {
		want := *s.Const
		test(func(r *run, v any) bool { return equal(r, want, v) })
	}
	if s.Enum != nil {
		test(oneOf(s.Enum.Values))
	}
	if s.Format != nil {
		test(func(_ *run, v any) bool { return s.Format.Validate(v) == nil })
	}
	if s.Ref != nil {
		test(b.same(n, s.Ref).holds)
	}
	for _, sub := range b.list(n, s.AllOf) {
		test(sub.holds)
	}
	if len(s.AnyOf) > 0 {
		test(alternatives(b.list(n, s.AnyOf), func(count int) bool { return count > 0 }))
	}
	if len(s.OneOf) > 0 {
		test(alternatives(b.list(n, s.OneOf), func(count int) bool { return count == 1 }))
	}
	if s.Not != nil {
		not := b.same(n, s.Not)
		test(func(r *run, v any) bool { return !not.holds(r, v) })
	}
	if s.If != nil {
		var branch [2]*node
		cond := b.same(n, s.If)
		if s.Then != nil {
			branch[1] = b.same(n, s.Then)
		}
		if s.Else != nil {
			branch[0] = b.same(n, s.Else)
		}
		test(func(r *run, v any) bool {
			next := branch[0]
			if cond.holds(r, v) {
				next = branch[1]
			}
			return next == nil || next.holds(r, v)
		})
	}
}

// oneOf is enum.
func oneOf(values []any) func(*run, any) bool {
	words := map[string]bool{}
	for _, v := range values {
		if word, ok := v.(string); ok {
			words[word] = true
		}
	}
	return func(r *run, v any) bool {
		if word, ok := v.(string); ok {
			return words[word]
		}
		for _, want := range values {
			if equal(r, want, v) {
				return true
			}
		}
		return false
	}
}

// alternatives counts how many schemas hold. Those that are constants, as code
// lists write them, are counted before.
func alternatives(list []*node, enough func(count int) bool) func(*run, any) bool {
	words := map[string]int{}
	var others []*node
	for _, n := range list {
		if n.constant != nil {
			words[*n.constant]++
		} else {
			others = append(others, n)
		}
	}
	return func(r *run, v any) bool {
		count := 0
		if word, ok := v.(string); ok {
			count = words[word]
		}
		for _, n := range others {
			if n.holds(r, v) {
				count++
			}
		}
		return enough(count)
	}
}

func (b *builder) object(n *node, s *jsonschema.Schema) {
	test := func(t func(*run, map[string]any) bool) { n.objects = append(n.objects, t) }
	if least := s.MinProperties; least != nil {
		test(func(_ *run, o map[string]any) bool { return len(o) >= *least })
	}
	if most := s.MaxProperties; most != nil {
		test(func(_ *run, o map[string]any) bool { return len(o) <= *most })
	}
	if len(s.Required) > 0 {
		test(func(_ *run, o map[string]any) bool { return has(o, s.Required) })
	}
	if len(s.DependentRequired) > 0 {
		test(func(_ *run, o map[string]any) bool {
			for name, needed := range s.DependentRequired {
				if _, ok := o[name]; ok && !has(o, needed) {
					return false
				}
			}
			return true
		})
	}
	for name, sub := range s.DependentSchemas {
		dependent := b.same(n, sub)
		test(func(r *run, o map[string]any) bool {
			_, ok := o[name]
			return !ok || dependent.holds(r, o)
		})
	}
	if s.PropertyNames != nil {
		names := b.node(s.PropertyNames)
		test(func(r *run, o map[string]any) bool {
			for name := range o {
				if !names.holds(r, name) {
					return false
				}
			}
			return true
		})
	}
	if len(s.Properties) > 0 || len(s.PatternProperties) > 0 || s.AdditionalProperties != nil {
		test(b.members(s))
	}
}

func has(o map[string]any, names []string) bool {
	for _, name := range names {
		if _, ok := o[name]; !ok {
			return false
		}
	}
	return true
}

// members checks each member by the schemas that speak of it.
func (b *builder) members(s *jsonschema.Schema) func(*run, map[string]any) bool {
	type matched struct {
		name jsonschema.Regexp
		node *node
	}
	named := map[string]*node{}
	for name, sub := range s.Properties {
		named[name] = b.node(sub)
	}
	var patterns []matched
	for re, sub := range s.PatternProperties {
		patterns = append(patterns, matched{re, b.node(sub)})
	}
	closed := false
	var other *node
	switch a := s.AdditionalProperties.(type) {
	case nil:
	case bool:
		closed = !a
	case *jsonschema.Schema:
		other = b.node(a)
	default:
		b.unknown = true
	}
	return func(r *run, o map[string]any) bool {
		for name, v := range o {
			n, met := named[name]
			if met && !n.holds(r, v) {
				return false
			}
			for _, p := range patterns {
				if p.name.MatchString(name) {
					met = true
					if !p.node.holds(r, v) {
						return false
					}
				}
			}
			if !met && (closed || other != nil && !other.holds(r, v)) {
				return false
			}
		}
		return true
	}
}

func (b *builder) array(n *node, s *jsonschema.Schema) {
	test := func(t func(*run, []any) bool) { n.arrays = append(n.arrays, t) }
	if least := s.MinItems; least != nil {
		test(func(_ *run, a []any) bool { return len(a) >= *least })
	}
	if most := s.MaxItems; most != nil {
		test(func(_ *run, a []any) bool { return len(a) <= *most })
	}
	if len(s.PrefixItems) > 0 || s.Items2020 != nil {
		var prefix []*node
		for _, sub := range s.PrefixItems {
			prefix = append(prefix, b.node(sub))
		}
		rest := b.node(s.Items2020)
		test(func(r *run, a []any) bool {
			for i, v := range a {
				item := rest
				if i < len(prefix) {
					item = prefix[i]
				}
				if item != nil && !item.holds(r, v) {
					return false
				}
			}
			return true
		})
	}
	if s.Contains != nil {
		item := b.node(s.Contains)
		test(func(r *run, a []any) bool {
			count := 0
			for _, v := range a {
				if item.holds(r, v) {
					count++
				}
			}
			if least := s.MinContains; least != nil && count < *least || least == nil && count == 0 {
				return false
			}
			return s.MaxContains == nil || count <= *s.MaxContains
		})
	}
	if s.UniqueItems {
		test(unique)
	}
}

// unique compares each with each; the judge has a better way for long lists.
func unique(r *run, a []any) bool {
	const long = 32
	r.unsure = r.unsure || len(a) > long
	for i := 1; i < len(a) && !r.unsure; i++ {
		for _, before := range a[:i] {
			if equal(r, a[i], before) {
				return false
			}
		}
	}
	return true
}

func text(n *node, s *jsonschema.Schema) {
	test := func(t func(string) bool) { n.texts = append(n.texts, t) }
	if least := s.MinLength; least != nil {
		test(func(v string) bool { return utf8.RuneCountInString(v) >= *least })
	}
	if most := s.MaxLength; most != nil {
		test(func(v string) bool { return len(v) <= *most || utf8.RuneCountInString(v) <= *most })
	}
	if s.Pattern != nil {
		test(matcher(s.Pattern))
	}
}

func number(n *node, s *jsonschema.Schema) {
	compare := func(bound *big.Rat, holds func(sign int) bool) {
		if bound == nil {
			return
		}
		n.numbers = append(n.numbers, func(r *run, v json.Number) bool { return holds(rat(r, v).Cmp(bound)) })
	}
	compare(s.Minimum, func(sign int) bool { return sign >= 0 })
	compare(s.Maximum, func(sign int) bool { return sign <= 0 })
	compare(s.ExclusiveMinimum, func(sign int) bool { return sign > 0 })
	compare(s.ExclusiveMaximum, func(sign int) bool { return sign < 0 })
	if step := s.MultipleOf; step != nil {
		n.numbers = append(n.numbers, func(r *run, v json.Number) bool { return new(big.Rat).Quo(rat(r, v), step).IsInt() })
	}
}

// circular says whether a schema refers to itself for the same value, so that a
// check would never end. Below a member or an item the value ends it.
func (b *builder) circular() bool {
	const entered, left = 1, 2
	state := map[*node]int{}
	var visit func(n *node) bool
	visit = func(n *node) bool {
		switch state[n] {
		case entered:
			return true
		case left:
			return false
		}
		state[n] = entered
		for _, next := range n.same {
			if visit(next) {
				return true
			}
		}
		state[n] = left
		return false
	}
	for _, n := range b.nodes {
		if visit(n) {
			return true
		}
	}
	return false
}
