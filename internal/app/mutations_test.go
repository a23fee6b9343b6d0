package app

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weiche/internal/catalog"
	"weiche/internal/config"
	"weiche/internal/transform/standard"
)

// Whatever is done to the examples of the shipped services at the bounds of their
// forms is refused by the form, refused at the door by name, or valid.
func TestMutationsOfTheShippedServices(t *testing.T) {
	lib := shippedLibrary(t)
	most := 120
	if os.Getenv("WEICHE_SOAK") == "1" {
		most = 100_000
	}
	for _, p := range lib.Catalog.Processes() {
		all := lib.Mutate(t.Context(), p, most)
		if len(all) == 0 {
			t.Errorf("%s has no format to try", p.ID)
		}
		for _, m := range all {
			t.Logf("%s as %s: %d tried, %d valid, %d refused by the form, %d at the door, %d left", p.ID, m.Format, m.Tried, m.Valid, m.ByForm, len(m.Door), m.Untried)
			for _, f := range m.Faults {
				t.Errorf("%s as %s: %s, %s, %s: %s", p.ID, m.Format, f.Example, f.Pointer, f.Kind, f.Text)
			}
			if m.Tried < 100 || m.Valid < m.Tried/2 || m.Tried != m.Valid+m.ByForm+len(m.Door)+len(m.Faults) {
				t.Errorf("%s as %s: mutations that say little: %+v", p.ID, m.Format, m)
			}
		}
	}
}

const holeXSD = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:hole">
  <xs:element name="m"><xs:complexType><xs:sequence>
    <xs:element name="title"><xs:simpleType><xs:restriction base="xs:string"><xs:maxLength value="10"/></xs:restriction></xs:simpleType></xs:element>
    <xs:element name="mark" minOccurs="0"><xs:simpleType><xs:restriction base="xs:string"><xs:enumeration value="right"/></xs:restriction></xs:simpleType></xs:element>
  </xs:sequence></xs:complexType></xs:element></xs:schema>`

// holed is a library with one service, whose mapping leaves to the check of each
// message what its form is too wide for.
func holed(t *testing.T, title, mark string) (*Library, *catalog.Process) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"standards/hole/1/hole.xsd":      holeXSD,
		"standards/hole/1/standard.yaml": "name: hole\nversion: \"1\"\nlicence: none stated\nschemas: [hole.xsd]\n",
		"services/probe/process.yaml": "id: probe\nservice: \"99012008001000\"\nname: {de: Probe, en: Probe}\nversion: 1.0.0\nhome: \"08\"\nform: form.schema.json\n" +
			"formats:\n  hole/1/m: m.xml\nexamples:\n  - {name: only, submission: only.json}\n",
		"services/probe/form.schema.json": `{"type": "object", "required": ["title"], "additionalProperties": false, "properties": {
			"title": {"type": "string", "minLength": 1, "maxLength": 20, "pattern": "^[a-z]+$"}, "note": {"type": "string", "maxLength": 5}}}`,
		"services/probe/only.json": `{"publicService": {"identifier": "urn:de:fim:leika:leistung:99012008001000"}, "region": "DE081150003003", "data": {"title": "kurz", "note": "x"}}`,
		"services/probe/m.xml": `<h:m xmlns:h="urn:test:hole" xmlns:w="urn:weiche:mapping:1" w:unused="form">` +
			"<title " + title + "/>" + mark + "</h:m>",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	std, problems := standard.Open(filepath.Join(dir, "standards"))
	cat, ps := catalog.Load(filepath.Join(dir, "services"), std, nil)
	if problems = append(problems, ps...); problems.Failed() {
		t.Fatal(problems)
	}
	p, _ := cat.Process("probe")
	return &Library{Catalog: cat, Standards: std, Config: &config.Config{}}, p
}

// An element too short for the longest text, left to the check of each message,
// is found, with field, kind and rule; and what the door cannot tell of any field
// is a fault.
func TestMutationsFindPlantedHoles(t *testing.T) {
	lib, p := holed(t, `w:value="form.title" w:checked="titles are short"`, "")
	m := lib.Mutate(t.Context(), p, 1000)[0]
	if len(m.Faults) > 0 || len(m.Door) == 0 || m.Valid == 0 || m.ByForm == 0 {
		t.Fatalf("got %+v", m)
	}
	if f := m.Door[0]; f != (MutationFound{"only", "/title", "the longest text", "schema-invalid"}) {
		t.Errorf("got %+v", f)
	}

	lib, p = holed(t, `w:value="form.title == 'a' ? 'a' : 'b'"`, `<mark w:if="len(form.title) &gt; 15" w:checked="titles are short">wrong</mark>`)
	m = lib.Mutate(t.Context(), p, 1000)[0]
	if len(m.Faults) == 0 {
		t.Fatalf("not found: %+v", m)
	}
	if f := m.Faults[0]; f.Pointer != "/title" || f.Kind != "the longest text" || !strings.Contains(f.Text, "let in at the door, and then schema-invalid") || strings.Contains(f.Text, "kurzkurz") {
		t.Errorf("got %+v", f)
	}
}

// What a mapping reads beside the form is changed too.
func TestMutationsChangeTheEnvelope(t *testing.T) {
	lib, p := holed(t, `w:value="default(submission.senderReference, 'none')" w:checked="references are short"`, "")
	for _, f := range lib.Mutate(t.Context(), p, 1000)[0].Door {
		if f == (MutationFound{"only", "/additionalReferenceInfo/senderReference", "the longest", "schema-invalid"}) {
			return
		}
	}
	t.Error("a reference too long for the message is not found")
}

// Number and time are bounded, and what was not tried is said.
func TestMutationsAreBounded(t *testing.T) {
	lib, p := holed(t, `w:value="form.title" w:checked="titles are short"`, "")
	all := lib.Mutate(t.Context(), p, 1000)[0]
	const around = 4 // changes outside of the form, of an example without files
	if few := lib.Mutate(t.Context(), p, 3)[0]; few.Tried != 3+around || few.Untried != all.Tried-few.Tried {
		t.Errorf("got %+v of %d", few, all.Tried)
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	if none := lib.Mutate(over, p, 3)[0]; none.Tried != 0 || none.Untried != all.Tried-around {
		t.Errorf("got %+v of %d", none, all.Tried)
	}
}
