package transform

import (
	"fmt"
	"strings"
	"testing"
)

// What a citizen fills in is mapped, or said to be left out.
func TestEveryFieldIsMappedOrDeclaredUnused(t *testing.T) {
	std := testStandard(t)
	form, problems := ParseFormSchema("form.json", []byte(`{"type": "object", "properties": {
  "title": {"type": "string"},
  "words": {"type": "array", "items": {"type": "string"}},
  "persons": {"type": "array", "items": {"$ref": "#/$defs/person"}},
  "rest": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}},
  "$defs": {"person": {"type": "object", "properties": {
    "name": {"type": "string"},
    "boss": {"$ref": "#/$defs/person"}}}}}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	const rest = `<t:title>{form.title} {join(form.words, ' ')}</t:title>`
	for _, c := range []struct {
		name, declared, body string
		want                 []string // file:line and a word of each problem
	}{
		{"all mapped", "form.persons.boss", rest + `<t:person w:for="p in form.persons"><t:name>{p.name} {form.rest.a} {form.rest.b}</t:name></t:person>`, nil},
		{"in a closure", "form.persons.boss", rest + `<t:person><t:name>{join(map(form.persons, .name), ',')} {form.rest.a} {form.rest.b}</t:name></t:person>`, nil},
		{"through a let", "form.persons.boss", rest + `<t:person w:for="p in form.persons" w:let="n = p.name; r = form.rest"><t:name>{n} {r.a} {r.b}</t:name></t:person>`, nil},
		{"declared", "form.persons.name form.persons.boss form.rest", rest, nil},
		{"a list is no use of what is in it", "form.rest", rest + `<t:person w:for="p in form.persons"><t:name>x</t:name></t:person>`, []string{"form.json:7: the field form.persons.name is mapped nowhere", "form.json:8: the field form.persons.boss"}},
		{"left out", "form.persons", `<t:title>{form.title} {form.rest.a}</t:title>`, []string{"form.json:3: the field form.words", "form.json:5: the field form.rest.b"}},
		{"declared and used", "form.persons form.rest form.title", rest, []string{`m.xml:1: w:unused names "form.title", but`}},
		{"misspelt", "form.persons form.rest form.titel", rest, []string{`did you mean "form.title"?`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := fmt.Sprintf(`<t:m.1 xmlns:t="urn:test:t" xmlns:w="urn:weiche:mapping:1" version="1" w:unused="%s"><t:id w:value="message.id"/>%s</t:m.1>`, c.declared, c.body)
			_, problems := compileMapping("m.xml", []byte(raw), std, form, nil)
			if len(problems) != len(c.want) {
				t.Fatalf("got %v", problems)
			}
			for i, want := range c.want {
				if !strings.Contains(problems[i].String(), want) {
					t.Errorf("got %s, want %s", problems[i], want)
				}
			}
		})
	}
}
