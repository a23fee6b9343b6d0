package transform

import (
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// grammar writes expressions over the variables of directScope. It has no literal
// true or false: the optimizer cuts what stands beside them, errors included.
type grammar struct{ t *rapid.T }

func (g grammar) one(of ...string) string { return rapid.SampledFrom(of).Draw(g.t, "part") }

func (g grammar) scalar(depth int) string {
	if depth == 0 {
		return g.one("s", "n", "b", "x", "g.s", "g.n", "g.h.s", "g.h.x", "'a'", "''", "1", "2.5", "nil", "l[0].s", "l[-1].x", "l[7]")
	}
	a, b := func() string { return g.scalar(depth - 1) }, func() string { return g.condition(depth - 1) }
	switch rapid.IntRange(0, 12).Draw(g.t, "scalar") {
	case 0:
		return fmt.Sprintf("(%s ? %s : %s)", b(), a(), a())
	case 1:
		return fmt.Sprintf("(%s ?? %s)", a(), a())
	case 2:
		return fmt.Sprintf("(%s %s %s)", a(), g.one("+", "-", "*", "/"), a())
	case 3:
		return fmt.Sprintf("%s(%s)", g.one("text", "number", "upper", "trim", "decimal", "date", "din91379"), a())
	case 4:
		return fmt.Sprintf("default(%s, %s)", a(), a())
	case 5:
		return fmt.Sprintf("lookup(%s, {'a': '1', 'b': '2', '1': 'x'}, %s)", a(), a())
	case 6:
		return fmt.Sprintf("join([%s, %s], '-')", a(), a())
	case 7:
		return fmt.Sprintf("decimal(%s, %d)", a(), rapid.IntRange(0, 3).Draw(g.t, "places"))
	case 8:
		return fmt.Sprintf("uuid5(%s)", a())
	case 9:
		return fmt.Sprintf("uuid5(%s, %s)", a(), a())
	case 10:
		return fmt.Sprintf("lookup(%s, table('t.csv', 'v'), %s)", a(), a())
	case 11:
		return fmt.Sprintf("len(%s)", g.one("s", "x", "l", "t", "g.s", "g.h.x", "map(l, .s)", a()))
	}
	return g.condition(depth)
}

func (g grammar) condition(depth int) string {
	if depth == 0 {
		return g.one("b", "has(s)", "has(g)", "has(l)", "not b", "x")
	}
	a, b := func() string { return g.scalar(depth - 1) }, func() string { return g.condition(depth - 1) }
	switch rapid.IntRange(0, 5).Draw(g.t, "condition") {
	case 0:
		return fmt.Sprintf("(%s %s %s)", b(), g.one("and", "or", "&&", "||"), b())
	case 1:
		return fmt.Sprintf("not (%s)", b())
	case 2:
		return fmt.Sprintf("(%s %s %s)", a(), g.one("==", "!=", "<", "<=", ">", ">="), a())
	case 3:
		return fmt.Sprintf("(%s %s ['a', 'b', '1'])", a(), g.one("in", "not in"))
	case 4:
		return fmt.Sprintf("(%s %s %s)", a(), g.one("in", "not in"), g.one("[1, 2]", "['a', 1]", "[]", "map(l, .s)", "map(l, #.x)", "t"))
	}
	return fmt.Sprintf("has(%s)", a())
}

func directScope() *scope {
	item := shape{kind: kindGroup, fields: map[string]shape{"s": {kind: kindText}, "x": {}}}
	inner := shape{kind: kindGroup, fields: map[string]shape{"s": {kind: kindText}, "x": {}}}
	group := shape{kind: kindGroup, fields: map[string]shape{"s": {kind: kindText}, "n": {kind: kindNumber}, "h": inner}}
	var out *scope
	for name, s := range map[string]shape{
		"s": {kind: kindText}, "n": {kind: kindNumber}, "b": {kind: kindBoolean}, "x": {}, "g": group,
		"l": {kind: kindList, item: &item}, "t": {kind: kindList, item: &shape{kind: kindText}},
		"submission": texts("id"),
	} {
		out = out.bind(name, s)
	}
	return out
}

func directValues(t *rapid.T) map[string]any {
	maybe := func(what string, values ...any) any { return rapid.SampledFrom(append(values, nil)).Draw(t, what) }
	text := func(what string) any {
		return maybe(what, "", "a", "b", "1", "2026-11-23", " x ", "u\u0308", "\u00ad", "я")
	}
	number := func(what string) any {
		return maybe(what, json.Number("1"), json.Number("2.50"), json.Number("-0.5"), json.Number("1e3"), json.Number("007"), 2.0, 1)
	}
	other := func(what string) any {
		return maybe(what, "a", "", json.Number("2"), true, []any{}, []any{"a"}, map[string]any{}, map[string]any{"s": "a"})
	}
	group := func(what string) any {
		return maybe(what, map[string]any{}, map[string]any{"s": text(what), "x": other(what), "n": number(what)})
	}
	list := []any{}
	for i := range rapid.IntRange(0, 2).Draw(t, "items") {
		list = append(list, group(fmt.Sprint("item", i)))
	}
	g := group("g")
	if m, ok := g.(map[string]any); ok {
		m["h"] = group("h")
	}
	return map[string]any{
		"s": text("s"), "n": number("n"), "b": maybe("b", true, false), "x": other("x"), "g": g,
		"l": maybe("l", list), "t": maybe("t", []any{"a", "c"}, []any{json.Number("1")}),
		"submission": map[string]any{"id": "0194a3a4-7c40-7c3e-a3a1-4b1a2c3d4e5f"},
	}
}

// What is computed directly is what the virtual machine computes, errors
// included.
func TestDirectIsTheMachine(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "t.csv"), []byte("k,v\na,1\nb,\n1,x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := directScope()
	in.lookups = &tables{dir: dir, shared: OpenShared(dir, nil)}
	kinds := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			kinds[compareWays(t, in)]++
		}
	})
	if kinds["value"] < kinds["refused"] || kinds["value"] < kinds["error"] || kinds["error"] == 0 {
		t.Errorf("the expressions say little: %v", kinds)
	}
}

// compareWays says what came of one expression on one form.
func compareWays(t *rapid.T, in *scope) string {
	src := grammar{t}.scalar(rapid.IntRange(0, 3).Draw(t, "depth"))
	e, faults := compileExpression(src, in)
	switch {
	case len(faults) > 0:
		return "refused"
	case e.isPath() || e.direct == nil:
		return "not direct"
	}
	r := &run{env: directValues(t)}
	r.vm.MemoryBudget = memoryBudget
	got, gotErr := r.eval(e)
	want, wantErr := r.machine(e)
	switch {
	case fmt.Sprint(gotErr) != fmt.Sprint(wantErr), gotErr == nil && !same(got, want):
		t.Fatalf("%s with %#v\ndirectly: %#v, %v\nmachine:  %#v, %v", src, r.env, got, gotErr, want, wantErr)
	case gotErr != nil:
		return "error"
	}
	return "value"
}

func same(a, b any) bool {
	return reflect.DeepEqual(a, b) || fmt.Sprintf("%T %v", a, a) == fmt.Sprintf("%T %v", b, b) // NaN
}

// A plain decimal is padded as the exact arithmetic would.
func TestPlainDecimals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`-?[0-9]{1,4}(\.[0-9]{0,4})?`).Draw(t, "number")
		digits := rapid.IntRange(0, 5).Draw(t, "digits")
		got, err := decimalText(s, digits)
		r, ok := new(big.Rat).SetString(s)
		if err != nil || !ok {
			t.Fatalf("%q: %v", s, err)
		}
		if want := r.FloatString(digits); got != want {
			t.Errorf("%q to %d places is %q, not %q", s, digits, got, want)
		}
		if got, err := decimalText(s, -1); err != nil || got != strings.TrimPrefix(s, "+") {
			t.Errorf("%q as it is: %q, %v", s, got, err)
		}
	})
}
