package transform

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const mutatedForm = `{"type": "object", "required": ["name", "list"], "properties": {
  "name": {"$ref": "#/$defs/text"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}, "note": {"type": "string"},
  "list": {"type": "array", "minItems": 1, "maxItems": 4, "items": {"type": "object", "required": ["kind"], "properties": {"kind": {"enum": ["a", "b", "c"]}, "extra": {"type": "boolean"}}}},
  "loose": {"type": "array", "items": {"$ref": "#/$defs/text"}}, "day": {"type": "string", "format": "date"},
  "n": {"type": "integer", "minimum": 1, "maximum": 9}},
  "$defs": {"text": {"type": "string", "minLength": 2, "maxLength": 7, "pattern": "^[A-Za-z\u0308]+$"}}}`

// Mutations go to the bounds of what the schema says, leave the original as it
// is, and are the same every time.
func TestMutations(t *testing.T) {
	form := formOf(t, mutatedForm)
	const raw = `{"name":"Abc","zip":"12345","note":"x","list":[{"kind":"a","extra":true}],"loose":["Ab","Cd"],"day":"2026-11-22","n":3}`
	read := func() (v any) {
		d := json.NewDecoder(strings.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	original := read()
	all, count := form.Mutations(original, func(any) bool { return true }, 1000)
	if count != len(all) || !reflect.DeepEqual(original, read()) {
		t.Fatalf("%d of %d, or the original has changed: %v", len(all), count, original)
	}
	again, _ := form.Mutations(read(), func(any) bool { return true }, 1000)
	if !reflect.DeepEqual(all, again) {
		t.Error("not the same again")
	}
	at := func(pointer, kind string) string {
		i := slices.IndexFunc(all, func(m Mutation) bool { return m.Pointer == pointer && m.Kind == kind })
		if i < 0 {
			return "no such mutation"
		}
		v, err := json.Marshal(all[i].Form)
		if err != nil {
			t.Fatal(err)
		}
		return string(v)
	}
	for _, c := range []struct{ pointer, kind, has, hasNot string }{
		{"/zip", "left out", `"name":"Abc"`, "zip"},
		{"/list/0/extra", "left out", `[{"kind":"a"}]`, "extra"},
		{"/name", "the longest text", `"name":"AbcAbcA"`, ""},
		{"/name", "the shortest text", `"name":"Ab"`, ""},
		{"/name", "the longest text of composed letters", "\"name\":\"C\u0308C\u0308C\u0308\"", ""},
		{"/note", "the shortest text", `"note":""`, ""},
		{"/loose", "an empty list", `"loose":[]`, ""},
		{"/list", "a list of 4", `{"extra":true,"kind":"a"},{"extra":true,"kind":"a"},{"extra":true,"kind":"a"},{"extra":true,"kind":"a"}]`, ""},
		{"/list/0/kind", "value 3 of 3", `"kind":"c"`, ""},
		{"/list/0/extra", "the other of true and false", `"extra":false`, ""},
		{"/day", "the latest day", `"day":"9999-12-31"`, ""},
		{"/n", "the greatest number", `"n":9`, ""},
		{"/n", "written with a decimal", `"n":3.0`, ""},
		{"", "all that may be left out is", `{"list":[{"kind":"a"}],"name":"Abc"}`, ""},
	} {
		got := at(c.pointer, c.kind)
		if !strings.Contains(got, c.has) || c.hasNot != "" && strings.Contains(got, c.hasNot) {
			t.Errorf("%s, %s: %s", c.pointer, c.kind, got)
		}
	}
	for _, no := range [][2]string{{"/name", "left out"}, {"/list", "an empty list"}, {"/zip", "the longest text"}, {"/list/0/kind", "value 1 of 3"}} {
		if got := at(no[0], no[1]); got != "no such mutation" {
			t.Errorf("%v: %s", no, got)
		}
	}
	if some, count := form.Mutations(read(), func(any) bool { return true }, 7); len(some) != 7 || count != len(all) {
		t.Errorf("%d of %d where 7 are asked for", len(some), count)
	}
	// What the schema does not let go stays.
	bare, _ := form.Mutations(read(), func(v any) bool { return v.(map[string]any)["note"] != nil }, 1000)
	if v := bare[len(bare)-1].Form.(map[string]any); v["note"] == nil || v["zip"] != nil {
		t.Errorf("left out: %v", v)
	}
}
