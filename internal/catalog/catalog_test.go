package catalog

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weiche/internal/config"
	"weiche/internal/submission"
	"weiche/internal/transform/standard"
)

const (
	tinyXSD = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:t" elementFormDefault="qualified"><xs:element name="m.1"><xs:complexType><xs:sequence>
<xs:element name="name" type="xs:string" xmlns="urn:t"/><xs:element name="file" type="xs:string" minOccurs="0" maxOccurs="9"/></xs:sequence></xs:complexType></xs:element></xs:schema>`
	tinyForm = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["name","age"],"additionalProperties":false,"properties":{
"name":{"type":"string","maxLength":5,"pattern":"^[A-Z]"},"age":{"type":"integer","minimum":18},"day":{"type":"string","format":"date"},
"kind":{"oneOf":[{"const":"a"},{"const":"b"}]},"list":{"type":"array","maxItems":2,"items":{"type":"string"}},"a/b":{"type":"boolean"}}}`
	tinyMapping  = `<t:m.1 xmlns:t="urn:t" xmlns:w="urn:weiche:mapping:1" w:unused="form"><t:name w:value="form.name"/><t:file w:for="a in attachments" w:value="a.sha512"/></t:m.1>`
	tinyProcess  = "id: tiny\nservice: \"99012008001000\"\nname: {de: Klein, en: Tiny}\nversion: 1.0.0\nhome: \"08\"\nform: form.json\nformats:\n  t/1/m.1: m.xml\n  other/9/x.1: m.xml\nexamples:\n  - name: one\n    submission: one.json\n    expected: {t/1/m.1: one.xml}\n"
	tinyExample  = `{"publicService":{"identifier":"urn:de:fim:leika:leistung:99012008001000"},"region":"DE081150003003","data":{"name":"Anna","age":20},"attachments":[{"attachmentId":"1","mimeType":"text/plain","purpose":"attachment","content":"YWJj"}]}`
	tinyStandard = "name: t\nversion: \"1\"\nlicence: none stated\nschemas: [t.xsd]\n"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func tiny(t *testing.T, changed map[string]string) (*Catalog, config.Problems, string) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"standards/t/1/standard.yaml": tinyStandard, "standards/t/1/t.xsd": tinyXSD,
		"services/tiny/process.yaml": tinyProcess, "services/tiny/form.json": tinyForm, "services/tiny/m.xml": tinyMapping,
		"services/tiny/one.json": tinyExample,
	}
	for k, v := range changed {
		files[k] = v
	}
	write(t, dir, files)
	std, problems := standard.Open(filepath.Join(dir, "standards"), filepath.Join(dir, "missing"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	c, problems := Load(filepath.Join(dir, "services"), std, nil)
	return c, problems, dir
}

func TestMissingStandardIsAWarningAndRefusesOnlyItsFormat(t *testing.T) {
	c, problems, _ := tiny(t, nil)
	if problems.Failed() || len(problems) != 1 {
		t.Fatal(problems)
	}
	if p := problems[0]; p.Line != 9 || p.Severity != config.Warning || !strings.Contains(p.Text, "router standards import") {
		t.Errorf("got %v", p)
	}
	p, ok := c.Service("99012008001000")
	if !ok {
		t.Fatal("the process is not there")
	}
	if have := (submission.Format{Standard: "t", Version: "1", Message: "m.1"}); !p.Mappable(have) || !c.Mappable(p.Service, have) {
		t.Error("the installed standard's format cannot be mapped")
	}
	if other := (submission.Format{Standard: "other", Version: "9", Message: "x.1"}); p.Mappable(other) || p.Missing[other] != "other/9" {
		t.Errorf("missing: %v", p.Missing)
	}
}

// What no mapping uses is named, and nothing is refused for it. A mapping whose
// standard is not installed counts, and what an example expects is no table.
func TestUnusedFragmentsAndTablesAreNamed(t *testing.T) {
	fragment := func(body string) string {
		return `<w:fragment xmlns:w="urn:weiche:mapping:1" xmlns:t="urn:t" parameters="f">` + body + `</w:fragment>`
	}
	c, problems, dir := tiny(t, map[string]string{
		"services/tiny/m.xml":         strings.Replace(tinyMapping, `<t:name w:value="form.name"/>`, `<w:include fragment="a" f="form"/>`, 1),
		"services/fragments/a.xml":    fragment(`<w:include fragment="p/b" f="f"/>`),
		"services/fragments/p/b.xml":  fragment(`<t:name w:value="lookup(f.name, table('b.csv', 'x'), '-')"/>`),
		"services/fragments/p/b.csv":  "k,x\na,A\n",
		"services/fragments/p/c.csv":  "k,x\na,A\n",
		"services/fragments/none.xml": fragment(`<w:include fragment="only" f="f"/>`),
		"services/fragments/only.xml": fragment(""),
		"services/tiny/own.csv":       "k,x\na,A\n",
	})
	if problems.Failed() || len(c.Processes()) != 1 {
		t.Fatal(problems)
	}
	var got []string
	for _, p := range problems {
		if name, ok := strings.CutPrefix(p.File, filepath.Join(dir, "services")+"/"); ok && strings.HasPrefix(p.Text, "no mapping uses") && p.Severity == config.Warning && p.Line == 1 {
			got = append(got, name)
		}
	}
	if want := "fragments/none.xml fragments/only.xml fragments/p/c.csv tiny/own.csv"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// A fragment belongs to the processes that use it: read with them, and again with
// the next configuration.
func TestFragmentsAreReadWithTheMappings(t *testing.T) {
	fragment := "<w:fragment xmlns:w=\"urn:weiche:mapping:1\" xmlns:t=\"urn:t\" parameters=\"f\">\n<t:name w:value=\"f.name\"/></w:fragment>"
	c, problems, dir := tiny(t, map[string]string{
		"services/tiny/m.xml":               strings.Replace(tinyMapping, `<t:name w:value="form.name"/>`, `<w:include fragment="party/name" f="form"/>`, 1),
		"services/fragments/party/name.xml": fragment,
	})
	if problems.Failed() || len(c.Processes()) != 1 {
		t.Fatal(problems)
	}
	write(t, dir, map[string]string{"services/fragments/party/name.xml": strings.Replace(fragment, "f.name", "f.nmae", 1)})
	std, _ := standard.Open(filepath.Join(dir, "standards"))
	c, problems = Load(filepath.Join(dir, "services"), std, nil)
	if len(c.Processes()) != 0 {
		t.Error("the changed fragment is not read")
	}
	for _, p := range problems {
		if filepath.Base(p.File) == "name.xml" && p.Line == 2 && strings.HasSuffix(p.Text, "; used in m.xml:1") {
			return
		}
	}
	t.Errorf("got %v", problems)
}

func TestEveryFaultOfAFormIsToldWithoutItsValues(t *testing.T) {
	c, _, _ := tiny(t, nil)
	p, _ := c.Process("tiny")
	var form any
	d := json.NewDecoder(strings.NewReader(`{"name":"kanarienvogel","day":"kanarie","kind":"kanarie","list":["kanarie","kanarie",3],"a/b":"kanarie","nmae":"kanarie","kanarie":1}`))
	d.UseNumber()
	if err := d.Decode(&form); err != nil {
		t.Fatal(err)
	}
	got := p.ValidateForm(form)
	want := map[string][]string{
		"/name": {"at most 5", "pattern"}, "/age": {"required"}, "/day": {`"date"`}, "/kind": {"none of the allowed"},
		"/list": {"at most 2"}, "/list/2": {"type number, string"}, "/a~1b": {"type string, boolean"}, "": {`did you mean "name"?`, "does not know."},
	}
	for pointer, texts := range want {
		for _, text := range texts {
			found := false
			for _, v := range got {
				found = found || v.Pointer == pointer && strings.Contains(v.Text, text)
			}
			if !found {
				t.Errorf("nothing says %q at %q", text, pointer)
			}
		}
	}
	for _, v := range got {
		if strings.Contains(strings.ToLower(v.Text+v.Pointer), "kanarie") {
			t.Errorf("%q repeats the form: %s", v.Pointer, v.Text)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	if ok := p.ValidateForm(map[string]any{"name": "Anna", "age": json.Number("18")}); ok != nil {
		t.Errorf("a good form: %v", ok)
	}
	form = map[string]any{"name": "Anna", "age": json.Number("18"), "day": "0000-12-31"}
	if got := p.ValidateForm(form); len(got) != 1 || !strings.Contains(got[0].Text, "for example 2026-11-22; from the year 0001 on") || !strings.Contains(got[0].German, "ab dem Jahr 0001") {
		t.Errorf("a day that XML does not have: %+v", got)
	}
}

func TestABrokenServiceIsRefusedAlone(t *testing.T) {
	for name, c := range map[string]struct {
		file, content string
		at            string
		line          int
		want          string
	}{
		"unknown key":       {"process.yaml", tinyProcess + "colour: red\n", "process.yaml", 14, "colour"},
		"not YAML":          {"process.yaml", "id: [", "process.yaml", 1, ""},
		"bad service":       {"process.yaml", strings.Replace(tinyProcess, "99012008001000", "12", 1), "process.yaml", 2, "LeiKa"},
		"bad home":          {"process.yaml", strings.Replace(tinyProcess, `"08"`, `"17"`, 1), "process.yaml", 5, "Land"},
		"bad format":        {"process.yaml", strings.Replace(tinyProcess, "other/9/x.1", "other", 1), "process.yaml", 9, "format"},
		"other message":     {"process.yaml", strings.Replace(tinyProcess, "t/1/m.1: m", "t/1/m.2: m", 1), "process.yaml", 8, "m.xml writes m.1"},
		"leaves the folder": {"process.yaml", strings.Replace(tinyProcess, "form: form.json", "form: ../x.json", 1), "process.yaml", 6, "leaves"},
		"missing file":      {"process.yaml", strings.Replace(tinyProcess, "t/1/m.1: m.xml", "t/1/m.1: n.xml", 1), "process.yaml", 8, "cannot be read"},
		"wrong id":          {"process.yaml", strings.Replace(tinyProcess, "id: tiny", "id: teeny", 1), "process.yaml", 1, "folder's name"},
		"form not JSON":     {"form.json", "{\n\n,", "form.json", 3, "not JSON"},
		"form wrong":        {"form.json", `{"type":"objekt"}`, "form.json", 0, "does not compile"},
		"mapping wrong":     {"m.xml", strings.Replace(tinyMapping, "form.name", "form.nam", 1), "m.xml", 1, `did you mean "name"?`},
	} {
		t.Run(name, func(t *testing.T) {
			second := strings.NewReplacer("id: tiny", "id: other", "99012008001000", "99050012104000").Replace(tinyProcess)
			cat, problems, _ := tiny(t, map[string]string{
				"services/tiny/" + c.file:     c.content,
				"services/other/process.yaml": second, "services/other/form.json": tinyForm, "services/other/m.xml": tinyMapping, "services/other/one.json": tinyExample,
			})
			if _, ok := cat.Process("tiny"); ok {
				t.Error("the broken process is there")
			}
			if _, ok := cat.Process("other"); !ok {
				t.Errorf("the good one is not: %v", problems)
			}
			for _, p := range problems {
				if strings.HasSuffix(p.File, filepath.Join("tiny", c.at)) && p.Line == c.line && strings.Contains(p.Text, c.want) {
					return
				}
			}
			t.Errorf("got %v", problems)
		})
	}
}

func TestExamplesAreComparedAndUpdated(t *testing.T) {
	// The folder of the expected message is not there before the first update.
	c, _, dir := tiny(t, map[string]string{"services/tiny/process.yaml": strings.Replace(tinyProcess, "one.xml", "expected/one.xml", 1)})
	p, _ := c.Process("tiny")
	results := p.Run(false)
	if len(results) != 1 || results[0].OK() {
		t.Fatalf("without an expected message: %+v", results)
	}
	if r := p.Run(true)[0]; !r.OK() || !r.Updated {
		t.Fatalf("updating: %+v", r)
	}
	if r := p.Run(false)[0]; !r.OK() || r.Updated {
		t.Errorf("after the update: %+v", r)
	}
	write(t, dir, map[string]string{"services/tiny/expected/one.xml": `<m.1 xmlns="urn:t"><name>Anna</name></m.1>`})
	if r := p.Run(false)[0]; r.OK() || !strings.Contains(r.Faults[0], "not the expected one") {
		t.Errorf("another message: %+v", r)
	}
	write(t, dir, map[string]string{"services/tiny/one.json": strings.Replace(tinyExample, "Anna", "anna", 1)})
	if r := p.Run(false)[0]; r.OK() || !strings.Contains(r.Faults[0], "refused at \"/name\"") {
		t.Errorf("a form that is refused: %+v", r)
	}
}

// Folders are read beside each other, what comes of them stands in their order:
// of several processes for one service the first folder's counts.
func TestFoldersAreReadBesideEachOther(t *testing.T) {
	files := map[string]string{}
	for i := range 12 {
		id := fmt.Sprintf("z%02d", i)
		files["services/"+id+"/process.yaml"] = strings.Replace(tinyProcess, "id: tiny", "id: "+id, 1)
		files["services/"+id+"/form.json"], files["services/"+id+"/m.xml"], files["services/"+id+"/one.json"] = tinyForm, tinyMapping, tinyExample
	}
	c, problems, _ := tiny(t, files)
	if p, ok := c.Service("99012008001000"); !ok || p.ID != "tiny" || len(c.Processes()) != 1 {
		t.Fatalf("%v, want the first folder's alone", c.Processes())
	}
	var told []string
	for _, p := range problems {
		if strings.Contains(p.Text, "already the process \"tiny\"'s") {
			told = append(told, filepath.Base(filepath.Dir(p.File)))
		}
	}
	if len(told) != 12 || !slices.IsSorted(told) {
		t.Errorf("told of %v", told)
	}
}
