package transform

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Mutation is a form that was changed in one place. It shares with the original
// what is not changed.
type Mutation struct {
	Pointer string // JSON pointer to the field, "" for the whole form
	Kind    string // what was done to it, in words, without its value
	Form    any
}

const (
	maxMutatedList  = 30   // items of a list without a bound
	maxMutatedText  = 3000 // characters of a text without a bound
	maxMutatedItems = 4    // of a list, whose fields are changed
	maxMutatedCodes = 60   // of an enumeration
)

// Mutations are changes of a form at the bounds of what its schema says: what may
// be missing is left out, alone and all at once; lists are empty and at their
// longest; texts at their longest and shortest, and of the composed letters of
// DIN 91379; enumerations run through. accepts says whether the schema takes a
// form. The same form leads to the same mutations in the same order; where there
// are more than most, every so manieth of them is returned. all counts them.
func (f *FormSchema) Mutations(form any, accepts func(form any) bool, most int) (chosen []Mutation, all int) {
	m := &mutator{form: form}
	m.place(form, []*formNode{f.root}, nil)
	if bare := m.bare(form, []*formNode{f.root}, nil, accepts); bare != nil {
		m.out = append(m.out, Mutation{"", "all that may be left out is", bare})
	}
	all = len(m.out)
	if all <= most {
		return m.out, all
	}
	for i := range most {
		chosen = append(chosen, m.out[i*all/most])
	}
	return chosen, all
}

type mutator struct {
	form any
	out  []Mutation
}

// add notes that a place has another value; nil takes it out.
func (m *mutator) add(at []string, kind string, value any) {
	m.out = append(m.out, Mutation{pointerTo(at), kind, replaced(m.form, at, value)})
}

func pointerTo(at []string) string {
	var b strings.Builder
	for _, p := range at {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	return b.String()
}

// replaced is a copy of a form with another value at a place.
func replaced(v any, at []string, value any) any {
	if len(at) == 0 {
		return value
	}
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, member := range x {
			out[k] = member
		}
		if out[at[0]] = replaced(x[at[0]], at[1:], value); out[at[0]] == nil {
			delete(out, at[0])
		}
		return out
	case []any:
		out := slices.Clone(x)
		if i, err := strconv.Atoi(at[0]); err == nil && i < len(out) {
			out[i] = replaced(out[i], at[1:], value)
		}
		return out
	}
	return v
}

func (m *mutator) place(v any, nodes []*formNode, at []string) {
	switch x := v.(type) {
	case map[string]any:
		eachMember(x, nodes, at, func(inner any, nodes []*formNode, here []string, needed bool) {
			if !needed {
				m.add(here, "left out", nil)
			}
			m.place(inner, nodes, here)
		})
	case []any:
		m.list(x, nodes, at)
	case string:
		if !m.values(v, nodes, at) {
			m.texts(x, nodes, at)
		}
	case json.Number:
		if !m.values(v, nodes, at) {
			m.numbers(x, nodes, at)
		}
	case bool:
		m.add(at, "the other of true and false", !x)
	}
}

// eachMember visits the members that are there, in the schema's order.
func eachMember(x map[string]any, nodes []*formNode, at []string, visit func(inner any, nodes []*formNode, here []string, needed bool)) {
	for _, name := range memberNames(nodes) {
		if inner, there := x[name]; there {
			visit(inner, member(nodes, name), append(slices.Clip(at), name), requires(nodes, name))
		}
	}
}

func requires(nodes []*formNode, name string) bool {
	return slices.ContainsFunc(conjuncts(nodes), func(n *formNode) bool { return slices.Contains(n.required, name) })
}

// boundsOf are the tightest of what all schemas of a value say.
func boundsOf(nodes []*formNode) limits {
	out := newFormNode().limits
	for _, n := range conjuncts(nodes) {
		out.patterns = append(out.patterns, n.patterns...)
		out.minLength, out.minItems = max(out.minLength, n.minLength), max(out.minItems, n.minItems)
		for _, b := range []struct {
			have *int
			said int
		}{{&out.maxLength, n.maxLength}, {&out.maxItems, n.maxItems}} {
			if b.said >= 0 && (*b.have < 0 || b.said < *b.have) {
				*b.have = b.said
			}
		}
		if n.minimum != nil && (out.minimum == nil || n.minimum.Cmp(out.minimum) > 0) {
			out.minimum = n.minimum
		}
		if n.maximum != nil && (out.maximum == nil || n.maximum.Cmp(out.maximum) < 0) {
			out.maximum = n.maximum
		}
	}
	return out
}

func (m *mutator) list(x []any, nodes []*formNode, at []string) {
	b := boundsOf(nodes)
	if b.minItems <= 0 && len(x) > 0 {
		m.add(at, "an empty list", []any{})
	}
	if b.minItems > 0 && len(x) > b.minItems {
		m.add(at, "the shortest list", x[:b.minItems])
	}
	longest := maxMutatedList
	if b.maxItems >= 0 {
		longest = min(b.maxItems, longest)
	}
	if longest > len(x) && len(x) > 0 {
		long := make([]any, 0, longest)
		for i := range longest {
			long = append(long, x[i%len(x)])
		}
		m.add(at, fmt.Sprintf("a list of %d", longest), long)
	}
	items := itemsOf(nodes)
	for i, item := range x[:min(len(x), maxMutatedItems)] {
		m.place(item, items, append(slices.Clip(at), strconv.Itoa(i)))
	}
}

// values runs through an enumeration; false where there is none.
func (m *mutator) values(v any, nodes []*formNode, at []string) bool {
	var all []any
	for _, n := range views(nodes) {
		for _, c := range n.choices {
			switch c.value.(type) {
			case string, json.Number, bool:
				if !slices.Contains(all, c.value) {
					all = append(all, c.value)
				}
			}
		}
	}
	for i, value := range all[:min(len(all), maxMutatedCodes)] {
		if value != v {
			m.add(at, fmt.Sprintf("value %d of %d", i+1, len(all)), value)
		}
	}
	return len(all) > 0
}

func (m *mutator) numbers(x json.Number, nodes []*formNode, at []string) {
	b := boundsOf(nodes)
	for _, bound := range []struct {
		kind string
		r    *big.Rat
	}{{"the least number", b.minimum}, {"the greatest number", b.maximum}} {
		if bound.r == nil {
			continue
		}
		text := bound.r.FloatString(6)
		if bound.r.IsInt() {
			text = bound.r.Num().String()
		}
		m.add(at, bound.kind, json.Number(text))
	}
	if decimalNumber.MatchString(string(x)) && !strings.Contains(string(x), ".") {
		m.add(at, "written with a decimal", json.Number(string(x)+".0"))
	}
}

// composed are letters of DIN 91379 that have no code point of their own.
const composed = "C\u0308"

func (m *mutator) texts(x string, nodes []*formNode, at []string) {
	if slices.ContainsFunc(conjuncts(nodes), func(n *formNode) bool { return n.format == "date" }) {
		m.add(at, "the earliest day", "0001-01-01")
		m.add(at, "the latest day", "9999-12-31")
		return
	}
	b := boundsOf(nodes)
	longest := maxMutatedText
	if b.maxLength >= 0 {
		longest = min(b.maxLength, longest)
	}
	if text, ok := b.grown(x, longest); ok {
		m.add(at, "the longest text", text)
	}
	if text, ok := b.shrunk(x); ok {
		m.add(at, "the shortest text", text)
	}
	m.add(at, "the longest text of composed letters", repeated(composed, longest-longest%2))
	for _, letters := range []string{"A\u030bC\u0308 C\u0328\u0306 K\u035fH Z\u030c\u0327 \u1e61", composed, "\u0141"} {
		if utf8.RuneCountInString(letters) <= longest {
			m.add(at, "composed letters", letters)
			break
		}
	}
}

// grown is the longest text that is known to match.
func (l limits) grown(x string, longest int) (string, bool) {
	last, _ := utf8.DecodeLastRuneInString(x)
	for n := longest; n > 0; n-- {
		for _, c := range []string{repeated(x, n), x + repeated(string(last), n-utf8.RuneCountInString(x)), repeated("a", n), repeated("A", n), repeated("1", n)} {
			if utf8.RuneCountInString(c) == n && l.matches(c) {
				return c, c != x
			}
		}
		if n > 100 && n < longest-100 {
			n = 100 // patterns without a bound match at once
		}
	}
	return "", false
}

// shrunk is the shortest text that is known to match.
func (l limits) shrunk(x string) (string, bool) {
	for n := max(0, l.minLength); n <= 40; n++ {
		for _, c := range []string{repeated(x, n), repeated("a", n), repeated("A", n), repeated("1", n)} {
			if utf8.RuneCountInString(c) == n && l.matches(c) {
				return c, c != x
			}
		}
	}
	return "", false
}

func (l limits) matches(text string) bool {
	for _, p := range l.patterns {
		re, err := compilePattern(p)
		if err != nil || !re.MatchString(text) {
			return false
		}
	}
	return true
}

// repeated is a text of n characters, of another again and again.
func repeated(s string, n int) string {
	letters := []rune(s)
	if len(letters) == 0 || n <= 0 {
		return ""
	}
	out := make([]rune, 0, n)
	for i := range n {
		out = append(out, letters[i%len(letters)])
	}
	return string(out)
}

// bare leaves out, from the outside in, everything that the schema lets go; nil
// where that is nothing.
func (m *mutator) bare(form any, nodes []*formNode, at []string, accepts func(any) bool) any {
	now, changed := form, false
	var strip func(v any, nodes []*formNode, at []string)
	strip = func(v any, nodes []*formNode, at []string) {
		switch x := v.(type) {
		case map[string]any:
			eachMember(x, nodes, at, func(inner any, nodes []*formNode, here []string, needed bool) {
				if !needed {
					if less := replaced(now, here, nil); accepts(less) {
						now, changed = less, true
						return
					}
				}
				strip(inner, nodes, here)
			})
		case []any:
			for i, item := range x {
				strip(item, itemsOf(nodes), append(slices.Clip(at), strconv.Itoa(i)))
			}
		}
	}
	strip(form, nodes, at)
	if !changed {
		return nil
	}
	return now
}
