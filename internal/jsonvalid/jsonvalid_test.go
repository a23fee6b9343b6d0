package jsonvalid

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

func decode(t interface{ Fatal(...any) }, raw []byte) any {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type offline struct{}

func (offline) Load(string) (any, error) { return nil, errors.New("offline") }

func compile(schema any) (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(offline{})
	if err := c.AddResource("weiche:///schema.json", schema); err != nil {
		return nil, err
	}
	return c.Compile("weiche:///schema.json")
}

// compared checks a value both ways. Where there is a Checker its verdict is the
// judge's, and not only where it says "valid".
func compared(t interface{ Errorf(string, ...any) }, s *jsonschema.Schema, c *Checker, v any, what string) {
	want := s.Validate(v) == nil
	if got := c.Valid(v); c != nil && got != want {
		t.Errorf("%s: %v, the judge says %v", what, got, want)
	}
}

// names and words are few, so that values and schemas often meet.
var (
	names = []string{"a", "b", "c"}
	words = []string{"", "a", "bb", "ccc", "ä", "2026-02-28", "2026-02-30", "x1", "\U0001d518"}
	sums  = []string{"0", "1", "-1", "1.0", "1.5", "2", "10", "1e1", "0.1", "-0", "1E-1", "12345678901234567890"}
)

func drawValue(t *rapid.T, depth int) any {
	top := 6
	if depth == 0 {
		top = 4
	}
	switch rapid.IntRange(0, top).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2, 3:
		return rapid.SampledFrom(words).Draw(t, "word")
	case 4:
		return json.Number(rapid.SampledFrom(sums).Draw(t, "number"))
	case 5:
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			list = append(list, drawValue(t, depth-1))
		}
		return list
	}
	group := map[string]any{}
	for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID[string]).Draw(t, "names") {
		group[name] = drawValue(t, depth-1)
	}
	return group
}

// drawSchema draws every keyword that a Checker knows.
func drawSchema(t *rapid.T, depth int) any {
	if depth == 0 || rapid.IntRange(0, 9).Draw(t, "bool") == 0 {
		switch rapid.IntRange(0, 3).Draw(t, "leaf") {
		case 0:
			return rapid.Bool().Draw(t, "all or nothing")
		case 1:
			return map[string]any{"const": drawValue(t, 1)}
		case 2:
			return map[string]any{"$ref": "#/$defs/d"}
		}
		return map[string]any{"type": rapid.SampledFrom([]string{"null", "boolean", "object", "array", "string", "number", "integer"}).Draw(t, "type")}
	}
	sub := func() any { return drawSchema(t, depth-1) }
	list := func() any {
		out := []any{}
		for range rapid.IntRange(1, 3).Draw(t, "schemas") {
			out = append(out, sub())
		}
		return out
	}
	count := func() any { return json.Number(fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "count"))) }
	sum := func() any { return json.Number(rapid.SampledFrom(sums).Draw(t, "number")) }
	group := func(each func() any) any {
		out := map[string]any{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID[string]).Draw(t, "names") {
			out[name] = each()
		}
		return out
	}
	some := func() any {
		out := []any{}
		for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID[string]).Draw(t, "names") {
			out = append(out, name)
		}
		return out
	}
	pattern := func() string {
		return rapid.SampledFrom([]string{`\S`, `^a*$`, `^(?:[a-c]|ä)+$`, `^[0-9]{4}-`, `b`, `^(x[0-9]){1}$`, `^(18|20)[0-9]{2}-`, `^$`}).Draw(t, "pattern")
	}
	draw := map[string]func() any{
		"type": func() any {
			return []any{"object", rapid.SampledFrom([]string{"array", "string", "number", "integer", "null"}).Draw(t, "type")}
		},
		"const": func() any { return drawValue(t, 2) }, "enum": func() any { return []any{drawValue(t, 1), drawValue(t, 1), "a", "bb"} },
		"format": func() any { return "date" }, "pattern": func() any { return pattern() },
		"minLength": count, "maxLength": count, "minItems": count, "maxItems": count, "minProperties": count, "maxProperties": count,
		"minimum": sum, "maximum": sum, "exclusiveMinimum": sum, "exclusiveMaximum": sum, "multipleOf": func() any { return json.Number("0.5") },
		"items": sub, "prefixItems": list, "contains": sub, "minContains": count, "maxContains": count, "uniqueItems": func() any { return true },
		"properties": func() any { return group(sub) }, "patternProperties": func() any { return map[string]any{"^[ab]": sub()} },
		"additionalProperties": sub, "propertyNames": sub, "required": some, "dependentRequired": func() any { return group(some) },
		"dependentSchemas": func() any { return group(sub) },
		"allOf":            list, "anyOf": list, "oneOf": list, "not": sub, "if": sub, "then": sub, "else": sub, "$ref": func() any { return "#/$defs/d" },
	}
	keys := []string{}
	for k := range draw {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := map[string]any{}
	for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 4, rapid.ID[string]).Draw(t, "keywords") {
		out[k] = draw[k]()
	}
	return out
}

// Whatever the schema and whatever the value, the verdict is the judge's.
func TestVerdictsAreTheJudges(t *testing.T) {
	valid, without := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		doc, ok := drawSchema(t, 3).(map[string]any)
		if !ok {
			return
		}
		doc["$defs"] = map[string]any{"d": drawSchema(t, 1)}
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		s, err := compile(decode(t, raw))
		if err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		c := Compile(s)
		if c == nil {
			without++
			return
		}
		for range 10 {
			v := drawValue(t, 3)
			if c.Valid(v) {
				valid++
			}
			text, _ := json.Marshal(v)
			compared(t, s, c, v, fmt.Sprintf("%s against %s", text, raw))
		}
	})
	t.Logf("%d values valid; %d schemas without a checker", valid, without)
}

// What is not known is the judge's alone: keywords, numbers of another kind, and
// schemas that never end.
func TestWhatIsNotKnownIsTheJudges(t *testing.T) {
	for _, schema := range []string{
		`{"unevaluatedProperties": false}`, `{"unevaluatedItems": false}`, `{"$dynamicRef": "#"}`, `{"$ref": "#"}`,
		`{"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#"}}}}`,
		`{"properties": {"a": {"anyOf": [{"unevaluatedItems": true}]}}}`, `{"$schema": "http://json-schema.org/draft-07/schema#"}`,
	} {
		s, err := compile(decode(t, []byte(schema)))
		if err != nil {
			t.Fatal(schema, err)
		}
		if Compile(s) != nil {
			t.Errorf("%s has a checker", schema)
		}
	}
	s, err := compile(decode(t, []byte(`{"minimum": 1, "properties": {"a": {"$ref": "#"}}}`)))
	if err != nil {
		t.Fatal(err)
	}
	c := Compile(s)
	for _, v := range []any{1.5, 2, json.Number("x"), map[string]any{"a": 2}, struct{}{}} {
		if c == nil || c.Valid(v) {
			t.Errorf("%v: found valid", v)
		}
	}
	if !c.Valid(map[string]any{"a": map[string]any{"a": json.Number("2")}}) {
		t.Error("a circle through members is none")
	}
	if err := New(s).Validate(1.5); err != nil {
		t.Errorf("the judge was not asked: %v", err)
	}
	if err := New(s).Validate(json.Number("0")); err == nil {
		t.Error("the judge's error is lost")
	}
}

// A release of the judge that asserts more than this one must not be taken for
// one that does not.
func TestTheJudgeHasNoOtherKeywords(t *testing.T) {
	read := strings.Fields(`DraftVersion Bool Ref RecursiveRef DynamicRef Types Enum Const Not AllOf AnyOf OneOf If Then Else Format
		MaxProperties MinProperties Required PropertyNames Properties PatternProperties AdditionalProperties Dependencies DependentRequired DependentSchemas UnevaluatedProperties
		MinItems MaxItems UniqueItems Contains MinContains MaxContains Items AdditionalItems PrefixItems Items2020 UnevaluatedItems
		MinLength MaxLength Pattern ContentEncoding ContentMediaType ContentSchema Maximum Minimum ExclusiveMaximum ExclusiveMinimum MultipleOf Extensions`)
	assertsNothing := strings.Fields(`Location ID Anchor RecursiveAnchor DynamicAnchor Title Description Default Comment ReadOnly WriteOnly Examples Deprecated`)
	for f := range reflect.TypeFor[jsonschema.Schema]().Fields() {
		if f.IsExported() && !slices.Contains(read, f.Name) && !slices.Contains(assertsNothing, f.Name) {
			t.Errorf("nothing is known of %s", f.Name)
		}
	}
}

func TestPatternsMatchAsTheyDid(t *testing.T) {
	patterns := shippedPatterns(t)
	rows := 0
	for _, p := range patterns {
		re := regexp.MustCompile(p)
		row, ok := rowOf(p)
		match := matcher(re)
		drawn := rapid.OneOf(rapid.StringMatching(p), rapid.String(), rapid.SampledFrom(words))
		found := false
		rapid.Check(t, func(t *rapid.T) {
			s := drawn.Draw(t, "text")
			if rapid.IntRange(0, 3).Draw(t, "cut") == 0 && s != "" {
				s = s[:rapid.IntRange(0, len(s)-1).Draw(t, "at")] // letters in pieces, too
			}
			if match(s) != re.MatchString(s) {
				t.Fatalf("%s: %q: %v", p, s, match(s))
			}
			found = found || ok && row.match(s)
		})
		if found {
			rows++
		} else {
			t.Logf("no text is found without the regular expression: %s", p)
		}
	}
	if rows*4 < len(patterns)*3 {
		t.Errorf("%d of %d patterns are found by sets in a row", rows, len(patterns))
	}
}

// shippedPatterns are those of the shipped forms.
func shippedPatterns(t *testing.T) []string {
	files, err := filepath.Glob("../../config/services/*/form.schema.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var out []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if p, ok := v["pattern"].(string); ok && !slices.Contains(out, p) {
				out = append(out, p)
			}
			for _, sub := range v {
				walk(sub)
			}
		case []any:
			for _, sub := range v {
				walk(sub)
			}
		}
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		walk(decode(t, raw))
	}
	return out
}

// suite is where the official test suite (github.com/json-schema-org/JSON-Schema-Test-Suite)
// is in full in a registry: among the test data of another validator.
const (
	suite    = "github.com/google/jsonschema-go@v0.3.0"
	suiteSum = "h1:6AH2TxVNtk3IlvkkhjrtbUc4S8AvO0Xii0DxIygDg+Q="
)

// official returns the suite's folder of draft 2020-12, downloading it where it is
// not there.
func official(t *testing.T) string {
	t.Helper()
	var got struct{ Dir, Sum, Error string }
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", suite).Output()
	if e := json.Unmarshal(out, &got); err == nil {
		err = e
	}
	switch {
	case err == nil && got.Sum != suiteSum:
		t.Fatalf("%s has the checksum %s, not %s", suite, got.Sum, suiteSum)
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("download %s: %v %s", suite, err, got.Error)
	default:
		t.Skipf("needs %s: %v %s", suite, err, got.Error)
	}
	return filepath.Join(got.Dir, "jsonschema", "testdata", "draft2020-12")
}

// Where there is a checker, it says of the official suite what the judge says.
func TestOfficialSuite(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(official(t), "*.json"))
	schemas, known, values := 0, 0, 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range decode(t, raw).([]any) {
			group := g.(map[string]any)
			s, err := compile(group["schema"])
			if err != nil {
				continue // a reference to elsewhere
			}
			schemas++
			c := Compile(s)
			if c == nil {
				continue
			}
			known++
			for _, x := range group["tests"].([]any) {
				test := x.(map[string]any)
				values++
				compared(t, s, c, test["data"], fmt.Sprintf("%s: %s: %s", filepath.Base(file), group["description"], test["description"]))
			}
		}
	}
	t.Logf("%d schemas, %d of them with a checker; %d values", schemas, known, values)
	if known < 200 || values < 800 {
		t.Error("that is not the suite")
	}
}
