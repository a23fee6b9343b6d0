package transform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
	"strconv"
	"strings"

	"weiche/internal/config"
)

// FormSchema is a form's JSON Schema (2020-12) as far as mappings need it:
// which members exist, of what type, in what order, under what title. It does
// not validate; the catalog does. It is immutable and safe for concurrent use.
type FormSchema struct {
	File string
	Raw  []byte // the schema as it was read
	root *formNode
}

// formNode is one schema or subschema. References and combinators stay apart
// and are walked through by views.
type formNode struct {
	title     string
	types     []string
	format    string
	props     []formProp
	items     *formNode
	prefix    []*formNode
	extra     *formNode // additionalProperties or patternProperties as a schema
	closed    bool      // additionalProperties or unevaluatedProperties is false
	choices   []choice  // enum and const
	isEnum    bool
	parts     []*formNode // allOf, anyOf, oneOf, if, then, else, dependentSchemas
	ref       *formNode
	isNothing bool // the schema false

	limits
	// What the schema says of combinations of members; parts has them too.
	allOf, anyOf, oneOf []*formNode
	not, on, then, els  *formNode
	required            []string
	needs               map[string][]string // dependentRequired
	contains            *formNode
}

// limits are a schema's bounds of sizes and numbers. What is not said is -1 or
// nil.
type limits struct {
	patterns                   []string
	minLength, maxLength       int
	minItems, maxItems         int
	minProperties              int
	minContains, maxContains   int
	minimum, maximum, multiple *big.Rat
	above, below               bool // minimum, maximum are exclusive
}

func newFormNode() *formNode {
	return &formNode{limits: limits{minLength: -1, maxLength: -1, minItems: -1, maxItems: -1, minProperties: -1, minContains: -1, maxContains: -1}}
}

type formProp struct {
	name string
	node *formNode
	line int
}

// choice is one allowed value.
type choice struct {
	value any
}

const maxSchemaDepth = 200

// LoadFormSchema reads a form's JSON Schema. References must stay inside the
// file (#, #/$defs/…).
func LoadFormSchema(file string) (*FormSchema, config.Problems) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, config.Problems{{File: file, Text: "the form schema cannot be read: " + plainOSError(err)}}
	}
	return ParseFormSchema(file, raw)
}

// ParseFormSchema is LoadFormSchema on bytes; file stands in the problems.
func ParseFormSchema(file string, raw []byte) (*FormSchema, config.Problems) {
	doc, err := orderedJSON(raw)
	if err != nil {
		line := 0
		var at *jsonError
		if errors.As(err, &at) {
			line = 1 + bytes.Count(raw[:min(int(at.offset), len(raw))], []byte("\n"))
		}
		return nil, config.Problems{{File: file, Line: line, Text: "the form schema is not JSON: " + err.Error()}}
	}
	b := &formBuilder{doc: doc, seen: map[any]*formNode{}, lines: lineStarts(raw)}
	root := b.node(doc, "#", 0)
	if len(b.faults) > 0 {
		var ps config.Problems
		for _, f := range b.faults {
			ps = append(ps, config.Problem{File: file, Text: f})
		}
		return nil, ps
	}
	return &FormSchema{File: file, Raw: raw, root: root}, nil
}

type jsonObject struct {
	keys []string
	vals map[string]any
	ends map[string]int64 // where a member's name ends
}

// lineStarts are the offsets at which lines begin.
func lineStarts(raw []byte) []int64 {
	out := []int64{0}
	for i, c := range raw {
		if c == '\n' {
			out = append(out, int64(i)+1)
		}
	}
	return out
}

type jsonError struct {
	offset int64
	text   string
}

func (e *jsonError) Error() string { return e.text }

// orderedJSON decodes JSON keeping the order of object members.
func orderedJSON(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := orderedValue(d, 0)
	if err != nil {
		return nil, &jsonError{d.InputOffset(), err.Error()}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &jsonError{d.InputOffset(), "something follows the value"}
	}
	return v, nil
}

func orderedValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxSchemaDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxSchemaDepth)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		o := &jsonObject{vals: map[string]any{}, ends: map[string]int64{}}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			key, _ := k.(string)
			o.ends[key] = d.InputOffset()
			v, err := orderedValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			if _, twice := o.vals[key]; twice {
				return nil, fmt.Errorf("the member %q stands twice in one object", key)
			}
			o.keys = append(o.keys, key)
			o.vals[key] = v
		}
		_, err := d.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := orderedValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return t, nil
}

type formBuilder struct {
	doc    any
	seen   map[any]*formNode // *jsonObject → node; references may be circular
	lines  []int64
	faults []string
}

func (b *formBuilder) line(offset int64) int {
	i, _ := slices.BinarySearch(b.lines, offset)
	if i < len(b.lines) && b.lines[i] == offset {
		i++
	}
	return i
}

func (b *formBuilder) fail(at, text string, args ...any) {
	b.faults = append(b.faults, "at "+at+": "+fmt.Sprintf(text, args...))
}

func (b *formBuilder) node(v any, at string, depth int) *formNode {
	switch s := v.(type) {
	case bool:
		n := newFormNode()
		n.isNothing = !s
		return n
	case *jsonObject:
		if n, ok := b.seen[s]; ok {
			return n
		}
		n := newFormNode()
		b.seen[s] = n
		b.fill(n, s, at, depth)
		return n
	}
	b.fail(at, "a schema is an object or a boolean")
	return newFormNode()
}

func (b *formBuilder) fill(n *formNode, s *jsonObject, at string, depth int) {
	if depth > maxSchemaDepth {
		b.fail(at, "nested deeper than %d", maxSchemaDepth)
		return
	}
	sub := func(v any, key string) *formNode { return b.node(v, at+"/"+key, depth+1) }
	members := func(key string, each func(name string, n *formNode)) {
		o, ok := s.vals[key].(*jsonObject)
		if !ok {
			if s.vals[key] != nil {
				b.fail(at+"/"+key, "an object is expected")
			}
			return
		}
		for _, name := range o.keys {
			each(name, sub(o.vals[name], key+"/"+name))
		}
	}
	for _, key := range s.keys {
		v := s.vals[key]
		switch key {
		case "title":
			n.title, _ = v.(string)
		case "type":
			switch t := v.(type) {
			case string:
				n.types = []string{t}
			case []any:
				for _, x := range t {
					if name, ok := x.(string); ok {
						n.types = append(n.types, name)
					}
				}
			}
		case "format":
			n.format, _ = v.(string)
		case "properties":
			members(key, func(name string, p *formNode) {
				o, _ := s.vals[key].(*jsonObject)
				n.props = append(n.props, formProp{name, p, b.line(o.ends[name])})
			})
		case "dependentSchemas":
			members(key, func(_ string, p *formNode) { n.parts = append(n.parts, p) })
		case "patternProperties":
			members(key, func(_ string, p *formNode) { n.extra = p })
		case "$defs", "definitions":
			members(key, func(string, *formNode) {})
		case "additionalProperties", "unevaluatedProperties":
			if o, ok := v.(*jsonObject); ok {
				n.extra = sub(o, key)
			}
			if v == false {
				n.closed = true
			}
		case "items":
			n.items = sub(v, key)
		case "prefixItems":
			list, _ := v.([]any)
			for i, x := range list {
				n.prefix = append(n.prefix, sub(x, key+"/"+strconv.Itoa(i)))
			}
		case "enum":
			n.isEnum = true
			list, _ := v.([]any)
			for _, x := range list {
				n.choices = append(n.choices, choice{value: x})
			}
		case "const":
			n.choices = append(n.choices, choice{value: v})
		case "allOf", "anyOf", "oneOf":
			list, _ := v.([]any)
			var all []*formNode
			for i, x := range list {
				all = append(all, sub(x, key+"/"+strconv.Itoa(i)))
			}
			n.parts = append(n.parts, all...)
			switch key {
			case "allOf":
				n.allOf = all
			case "anyOf":
				n.anyOf = all
			default:
				n.oneOf = all
			}
		case "if", "then", "else":
			part := sub(v, key)
			n.parts = append(n.parts, part)
			switch key {
			case "if":
				n.on = part
			case "then":
				n.then = part
			default:
				n.els = part
			}
		case "not":
			n.not = sub(v, key)
		case "contains":
			n.contains = sub(v, key)
		case "required":
			n.required = stringsOf(v)
		case "dependentRequired":
			if o, ok := v.(*jsonObject); ok {
				n.needs = map[string][]string{}
				for _, name := range o.keys {
					n.needs[name] = stringsOf(o.vals[name])
				}
			}
		case "$ref":
			ref, _ := v.(string)
			target, ok := b.resolve(ref)
			if !ok {
				b.fail(at, "$ref %q is not found; only references inside the file (#, #/$defs/…) are supported", ref)
				continue
			}
			n.ref = b.node(target, ref, depth+1)
		case "$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor":
			b.fail(at, "%s is not supported; use $ref with a JSON pointer", key)
		default:
			n.limit(key, v)
		}
	}
}

// limit reads the keywords that bound sizes and numbers.
func (l *limits) limit(key string, v any) {
	if s, ok := v.(string); ok && key == "pattern" {
		l.patterns = append(l.patterns, s)
		return
	}
	number, ok := v.(json.Number)
	if !ok || !decimalNumber.MatchString(string(number)) {
		return
	}
	r, ok := new(big.Rat).SetString(string(number))
	if !ok {
		return
	}
	sizes := map[string]*int{
		"minLength": &l.minLength, "maxLength": &l.maxLength, "minItems": &l.minItems, "maxItems": &l.maxItems,
		"minProperties": &l.minProperties, "minContains": &l.minContains, "maxContains": &l.maxContains,
	}
	if size, ok := sizes[key]; ok && r.IsInt() && r.Num().IsInt64() {
		*size = int(r.Num().Int64())
		return
	}
	switch key {
	case "minimum", "exclusiveMinimum":
		if l.minimum == nil || r.Cmp(l.minimum) >= 0 {
			l.minimum, l.above = r, key != "minimum"
		}
	case "maximum", "exclusiveMaximum":
		if l.maximum == nil || r.Cmp(l.maximum) <= 0 {
			l.maximum, l.below = r, key != "maximum"
		}
	case "multipleOf":
		l.multiple = r
	}
}

func stringsOf(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, x := range list {
		if s, ok := x.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func (b *formBuilder) resolve(ref string) (any, bool) {
	if ref == "#" {
		return b.doc, true
	}
	path, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return nil, false
	}
	v := b.doc
	for _, p := range strings.Split(path, "/") {
		p = strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~")
		switch x := v.(type) {
		case *jsonObject:
			if v, ok = x.vals[p]; !ok {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(x) {
				return nil, false
			}
			v = x[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// views returns the schemas that speak about the same value as the given ones:
// themselves, what they refer to, and every branch of their combinators.
func views(nodes []*formNode) []*formNode {
	var out []*formNode
	var add func(n *formNode)
	add = func(n *formNode) {
		if n == nil || slices.Contains(out, n) {
			return
		}
		out = append(out, n)
		add(n.ref)
		for _, p := range n.parts {
			add(p)
		}
	}
	for _, n := range nodes {
		add(n)
	}
	return out
}

// member returns the schemas of a member, or nothing where no schema names it.
func member(nodes []*formNode, name string) []*formNode {
	var named, extra []*formNode
	for _, v := range views(nodes) {
		for _, p := range v.props {
			if p.name == name && !p.node.isNothing {
				named = append(named, p.node)
			}
		}
		if v.extra != nil {
			extra = append(extra, v.extra)
		}
	}
	if len(named) > 0 {
		return named
	}
	return extra
}

// memberNames returns the members that the schemas name, in the order in which
// they name them.
func memberNames(nodes []*formNode) []string {
	var out []string
	for _, v := range views(nodes) {
		for _, p := range v.props {
			if !slices.Contains(out, p.name) {
				out = append(out, p.name)
			}
		}
	}
	return out
}

// itemsOf returns the schemas of a list's items.
func itemsOf(nodes []*formNode) []*formNode {
	var out []*formNode
	for _, v := range views(nodes) {
		if v.items != nil && !v.items.isNothing {
			out = append(out, v.items)
		}
		out = append(out, v.prefix...)
	}
	return out
}

// typesOf returns the JSON types the schemas allow, "null" left out; nothing
// where they do not say. "integer" is told apart from "number".
func typesOf(nodes []*formNode) []string {
	var out []string
	add := func(t string) {
		if t != "null" && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	for _, v := range views(nodes) {
		for _, t := range v.types {
			add(t)
		}
		if len(v.types) > 0 {
			continue
		}
		for _, c := range v.choices {
			switch c.value.(type) {
			case string:
				add("string")
			case json.Number:
				add("number")
			case bool:
				add("boolean")
			}
		}
		if len(v.props) > 0 {
			add("object")
		}
		if v.items != nil || len(v.prefix) > 0 {
			add("array")
		}
	}
	return out
}

// titleOf returns the first title: a property's own before its reference's.
func titleOf(nodes []*formNode) string {
	for _, n := range nodes {
		for m, hops := n, 0; m != nil && hops < maxSchemaDepth; m, hops = m.ref, hops+1 {
			if m.title != "" {
				return m.title
			}
		}
	}
	return ""
}

// nearest returns the known name closest to a misspelt one, "" if none is close.
func nearest(name string, known []string) string {
	best, at := "", max(2, len(name)/3)+1
	for _, k := range known {
		if strings.EqualFold(k, name) {
			return k
		}
		if d := distance(name, k); d < at {
			best, at = k, d
		}
	}
	return best
}

// distance is Levenshtein's, over bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			above := row[j]
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			row[j] = min(cost, above+1, row[j-1]+1)
			diagonal = above
		}
	}
	return row[len(b)]
}

// plainOSError says what the operating system said, without the path.
func plainOSError(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// Known returns how many of the leading names and indexes of a place in the form
// the schema itself names. Names that a schema allows without naming them are
// chosen by whoever writes the form.
func (f *FormSchema) Known(at []string) int {
	nodes := []*formNode{f.root}
	for n, p := range at {
		if slices.Contains(memberNames(nodes), p) {
			nodes = member(nodes, p)
			continue
		}
		if nodes = itemsOf(nodes); len(nodes) == 0 || !isIndex(p) {
			return n
		}
	}
	return len(at)
}

func isIndex(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil
}

// NearestField returns the field of the group at a place of the form (member
// names and list indexes) whose name is closest to the given one, "" where none
// is close.
func (f *FormSchema) NearestField(at []string, name string) string {
	nodes := []*formNode{f.root}
	for _, p := range at {
		if found := member(nodes, p); found != nil {
			nodes = found
		} else {
			nodes = itemsOf(nodes)
		}
	}
	return nearest(name, memberNames(nodes))
}
