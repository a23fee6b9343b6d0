package app

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// forms draws forms from a JSON Schema: every construct that the shipped forms
// use, sizes up to the longest, what is optional there and not there.
type forms struct {
	doc  map[string]any
	strs map[string]*rapid.Generator[string]
}

func (f *forms) resolve(s map[string]any) map[string]any {
	ref, ok := s["$ref"].(string)
	if !ok {
		return s
	}
	var at any = f.doc
	for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		at = at.(map[string]any)[part]
	}
	out := map[string]any{}
	for k, v := range f.resolve(at.(map[string]any)) {
		out[k] = v
	}
	for k, v := range s {
		if k != "$ref" {
			out[k] = v
		}
	}
	return out
}

func list(v any) []map[string]any {
	var out []map[string]any
	all, _ := v.([]any)
	for _, x := range all {
		out = append(out, x.(map[string]any))
	}
	return out
}

func bound(s map[string]any, key string, def int) int {
	if n, ok := s[key].(float64); ok {
		return int(n)
	}
	return def
}

func names(v any) []string {
	var out []string
	all, _ := v.([]any)
	for _, x := range all {
		out = append(out, x.(string))
	}
	return out
}

func sortedNames(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

func (f *forms) draw(t *rapid.T, s map[string]any, depth int) any {
	s = f.resolve(s)
	if v, ok := s["const"]; ok {
		return v
	}
	if all, ok := s["enum"].([]any); ok {
		return rapid.SampledFrom(all).Draw(t, "enum")
	}
	kind, _ := s["type"].(string)
	if kind != "object" {
		for _, key := range []string{"oneOf", "anyOf"} {
			if all := list(s[key]); len(all) > 0 {
				return f.draw(t, rapid.SampledFrom(all).Draw(t, key), depth)
			}
		}
	}
	switch kind {
	case "string":
		return f.text(t, s)
	case "integer", "number":
		return f.number(t, s, kind == "integer")
	case "boolean":
		return rapid.Bool().Draw(t, "bool")
	case "array":
		return f.items(t, s, depth)
	case "object":
		return f.group(t, s, depth)
	}
	t.Fatalf("the generator does not know the schema %v", s)
	return nil
}

func (f *forms) group(t *rapid.T, s map[string]any, depth int) any {
	properties, _ := s["properties"].(map[string]any)
	wanted := map[string]bool{}
	excluded := map[string]bool{}
	for _, name := range names(s["required"]) {
		wanted[name] = true
	}
	alternatives := list(s["oneOf"])
	if len(alternatives) == 0 {
		alternatives = list(s["anyOf"])
	}
	if len(alternatives) > 0 {
		pick := rapid.IntRange(0, len(alternatives)-1).Draw(t, "alternative")
		for i, alt := range alternatives {
			for _, name := range names(alt["required"]) {
				if i == pick {
					wanted[name] = true
				} else if !wanted[name] {
					excluded[name] = true
				}
			}
		}
	}
	if not, ok := s["not"].(map[string]any); ok {
		if both := names(not["required"]); len(both) > 1 {
			excluded[rapid.SampledFrom(both).Draw(t, "not")] = true
		}
	}
	sorted := sortedNames(properties)
	out := map[string]any{}
	put := func(name string) {
		if p, ok := properties[name].(map[string]any); ok && out[name] == nil {
			out[name] = f.draw(t, p, depth+1)
		}
	}
	for _, name := range sorted {
		if wanted[name] || !excluded[name] && rapid.IntRange(0, 2+depth).Draw(t, name+"?") == 0 {
			put(name)
		}
	}
	if n := bound(s, "minProperties", 0); len(out) < n {
		for _, name := range sorted {
			if len(out) < n && !excluded[name] {
				put(name)
			}
		}
	}
	f.complete(t, s, out, depth)
	return out
}

// complete adds what depends on what a group has already, and takes out what
// must not be there.
func (f *forms) complete(t *rapid.T, s, out map[string]any, depth int) {
	properties, _ := s["properties"].(map[string]any)
	put := func(name string) {
		if p, ok := properties[name].(map[string]any); ok && out[name] == nil {
			out[name] = f.draw(t, p, depth+1)
		}
	}
	if needs, ok := s["dependentRequired"].(map[string]any); ok {
		for _, name := range sortedNames(needs) {
			for _, other := range names(needs[name]) {
				if out[name] != nil {
					put(other)
				}
			}
		}
	}
	if cond, ok := s["if"].(map[string]any); ok {
		branch := "then"
		if !meets(out, cond) {
			branch = "else"
		}
		rule, _ := s[branch].(map[string]any)
		for _, name := range names(rule["required"]) {
			put(name)
		}
		not, _ := rule["not"].(map[string]any)
		for _, name := range names(not["required"]) {
			delete(out, name)
		}
	}
}

// meets tells whether a group is as an "if" of the shipped forms says.
func meets(group map[string]any, cond map[string]any) bool {
	for _, name := range names(cond["required"]) {
		if group[name] == nil {
			return false
		}
	}
	properties, _ := cond["properties"].(map[string]any)
	for name, p := range properties {
		if v := group[name]; v != nil && v != p.(map[string]any)["const"] {
			return false
		}
	}
	return true
}

func (f *forms) items(t *rapid.T, s map[string]any, depth int) any {
	item, _ := s["items"].(map[string]any)
	least, most := bound(s, "minItems", 0), bound(s, "maxItems", 5)
	n := min(most, least+rapid.IntRange(0, 2).Draw(t, "more"))
	if depth < 2 && rapid.IntRange(0, 60).Draw(t, "full") == 0 {
		n = min(most, 25)
	}
	out := []any{}
	seen := map[string]bool{}
	for tries := 0; len(out) < n && tries < n+20; tries++ {
		v := f.draw(t, item, depth+1)
		key, _ := json.Marshal(v)
		if s["uniqueItems"] == true && seen[string(key)] {
			continue
		}
		seen[string(key)] = true
		out = append(out, v)
	}
	f.contain(out, s)
	for _, v := range out {
		if group, ok := v.(map[string]any); ok {
			f.complete(t, f.resolve(item), group, depth+1)
		}
	}
	return out
}

// contain mends a list that has something more or less often than its schema
// says: a member's constant, or one in a member's list, as in the shipped forms.
func (f *forms) contain(items []any, s map[string]any) {
	for _, part := range append(list(s["allOf"]), s) {
		c, ok := part["contains"].(map[string]any)
		if !ok {
			continue
		}
		least, most := bound(part, "minContains", 1), bound(part, "maxContains", math.MaxInt)
		for name, p := range c["properties"].(map[string]any) {
			m := member{name: name, value: p.(map[string]any)["const"]}
			if inner, ok := p.(map[string]any)["contains"].(map[string]any); ok {
				m.inList, m.value = true, inner["const"]
			}
			m.spread(items, least, most)
		}
	}
}

// member is a value that a list's groups have under a name.
type member struct {
	name   string
	value  any
	inList bool
}

func (m member) spread(items []any, least, most int) {
	count := 0
	for _, item := range items {
		if group := item.(map[string]any); m.in(group) {
			if count++; count > most {
				m.remove(group)
			}
		}
	}
	for _, item := range items {
		if group := item.(map[string]any); count < least && !m.in(group) {
			m.add(group)
			count++
		}
	}
}

func (m member) in(group map[string]any) bool {
	if !m.inList {
		return group[m.name] == m.value
	}
	all, _ := group[m.name].([]any)
	return slices.Contains(all, m.value)
}

// remove leaves something in a list: an empty one may not be allowed.
func (m member) remove(group map[string]any) {
	all, _ := group[m.name].([]any)
	left := slices.DeleteFunc(slices.Clone(all), func(v any) bool { return v == m.value })
	if len(left) == 0 {
		left = []any{"grundstueckseigentuemer"}
	}
	group[m.name] = left
}

func (m member) add(group map[string]any) {
	if !m.inList {
		group[m.name] = m.value
		return
	}
	all, _ := group[m.name].([]any)
	group[m.name] = append(slices.Clone(all), m.value)
}

func (f *forms) text(t *rapid.T, s map[string]any) any {
	if s["format"] == "date" {
		return fmt.Sprintf("%04d-%02d-%02d", rapid.IntRange(1900, 2100).Draw(t, "year"), rapid.IntRange(1, 12).Draw(t, "month"), rapid.IntRange(1, 28).Draw(t, "day"))
	}
	patterns := []string{}
	for _, part := range append([]map[string]any{s}, list(s["allOf"])...) {
		if p, ok := part["pattern"].(string); ok {
			patterns = append(patterns, p)
		}
	}
	least, most := bound(s, "minLength", 0), bound(s, "maxLength", 4000)
	fits := func(v string) bool {
		n := utf8.RuneCountInString(v)
		if n < least || n > most {
			return false
		}
		for _, p := range patterns {
			if !regexp.MustCompile(p).MatchString(v) {
				return false
			}
		}
		return true
	}
	if len(patterns) == 0 {
		return rapid.StringOfN(rapid.Rune(), least, min(most, 20), -1).Draw(t, "text")
	}
	g := f.strs[patterns[0]]
	if g == nil {
		g = rapid.StringMatching(patterns[0])
		f.strs[patterns[0]] = g
	}
	v := g.Draw(t, "text")
	if rapid.IntRange(0, 20).Draw(t, "long") == 0 {
		if grown := string([]rune(strings.Repeat(v, most/max(1, utf8.RuneCountInString(v))+1))); fits(clipTo(grown, most)) {
			return clipTo(grown, most)
		}
	}
	for tries := 0; tries < 20 && !fits(v); tries++ {
		v = g.Draw(t, "again")
	}
	return v
}

func clipTo(s string, n int) string {
	r := []rune(s)
	return string(r[:min(n, len(r))])
}

func (f *forms) number(t *rapid.T, s map[string]any, integer bool) any {
	value := func(key string, def float64) float64 {
		if v, ok := s[key].(float64); ok {
			return v
		}
		return def
	}
	lo, hi := value("minimum", value("exclusiveMinimum", -1e6)), value("maximum", value("exclusiveMaximum", 1e6))
	step := value("multipleOf", 1)
	if integer {
		step = 1
	}
	n := rapid.Int64Range(int64(lo/step), int64(hi/step)).Draw(t, "number")
	if _, open := s["exclusiveMinimum"]; open && float64(n)*step <= lo {
		n++
	}
	digits := 0
	for x := step; x < 1 && digits < 6; x *= 10 {
		digits++
	}
	text := fmt.Sprintf("%.*f", digits, float64(n)*step)
	if integer && rapid.IntRange(0, 9).Draw(t, "written") == 0 {
		text += ".0" // JSON Schema: an integer too
	}
	return json.Number(text)
}

// wild is what people and programs write that no form asks for.
var wild = []any{
	"", " ", "Иванов", "Ωμέγα", "a\u0000b", "\u202e\ufeff", "𝔘", "a\u030a\u0327", strings.Repeat("ä", 5000), "0000-01-01", "9999-12-31", "2026-02-30",
	"]]>", "<!DOCTYPE a>", "&amp;", "{form}", "-0", json.Number("1e400"), json.Number("-0.0"), json.Number("1E+2"), nil, true, []any{}, map[string]any{}, []any{nil},
}

// disturb puts something wild in the place of one of a form's values.
func disturb(t *rapid.T, v any) any {
	switch x := v.(type) {
	case map[string]any:
		if all := sortedNames(x); len(all) > 0 {
			name := rapid.SampledFrom(all).Draw(t, "where")
			x[name] = disturb(t, x[name])
			return x
		}
	case []any:
		if len(x) > 0 {
			i := rapid.IntRange(0, len(x)-1).Draw(t, "which")
			x[i] = disturb(t, x[i])
			return x
		}
	}
	return rapid.SampledFrom(wild).Draw(t, "wild")
}
