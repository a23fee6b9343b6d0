package transform

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sharedOf writes fragments; a name stands for fragments/<name>.xml.
func sharedOf(t testing.TB, fragments map[string]string) *Shared {
	t.Helper()
	dir := t.TempDir()
	for name, content := range fragments {
		file := filepath.Join(dir, filepath.FromSlash(name)+".xml")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return OpenShared(dir, nil)
}

// fragmentOf is one with a body that begins on line 2.
func fragmentOf(parameters, body string) string {
	return fmt.Sprintf("<w:fragment xmlns:w=\"urn:weiche:mapping:1\" xmlns:t=\"urn:test:t\" parameters=%q>\n%s\n</w:fragment>", parameters, body)
}

func TestFragments(t *testing.T) {
	std, form := testStandard(t), testFormSchema(t)
	shared := sharedOf(t, map[string]string{
		"name":     fragmentOf("p", `<t:name w:value="p.name"/>`),
		"t/person": fragmentOf("p nr", `<t:person nr="{nr}"><w:include fragment="name" p="p"/><t:born w:value="date(p.born)"/></t:person>`),
		"each":     fragmentOf("list", `<t:person w:for="p in list"><w:include fragment="name" p="p"/></t:person>`),
		"title":    fragmentOf("", `<t:title w:value="form.title"/>`),
		"p":        fragmentOf("p", `<w:group w:let="q = p"/>`),
	})
	for _, c := range fragmentUses {
		t.Run(c.name, func(t *testing.T) {
			m, problems := compileMapping("m.xml", []byte(wrap(c.body)), std, form, shared)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			got, err := m.Apply(input(t, c.form))
			if err != nil {
				t.Fatal(err)
			}
			if want := xmlDeclaration + envelopeStart + c.want + `</t:m.1>`; string(got) != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

var fragmentUses = []construct{
	{"one parameter", `<t:person w:for="x in form.persons"><w:include fragment="name" p="x"/></t:person>`, `{"persons":[{"name":"A"},{}]}`, `<t:person><t:name>A</t:name></t:person>`},
	{"fragments in fragments", `<w:include w:for="x in form.persons" w:if="has(x.born)" fragment="t/person" p="x" nr="x_index + 1"/>`,
		`{"persons":[{"name":"A"},{"name":"B","born":"1.2.2000"}]}`, `<t:person nr="2"><t:name>B</t:name><t:born>2000-02-01</t:born></t:person>`},
	{"a list as parameter", `<w:include fragment="each" list="filter(form.persons, .role == 'y')"/>`, `{"persons":[{"name":"A","role":"x"},{"name":"B","role":"y"}]}`, `<t:person><t:name>B</t:name></t:person>`},
	{"an absent parameter", `<t:person><w:include fragment="name" p="form.persons[3]"/></t:person>`, `{}`, ``},
	{"the mapping's own variables", `<w:include fragment="title"/>`, `{"title":"T"}`, `<t:title>T</t:title>`},
	{"a parameter hides a name and gives it back", `<w:group w:for="p in form.persons"><w:include fragment="p" p="form.adr.town"/><t:person><t:name w:value="p.name"/></t:person></w:group>`,
		`{"adr":{"town":"T"},"persons":[{"name":"A"}]}`, `<t:person><t:name>A</t:name></t:person>`},
}

// Each mistake is refused with the file and line it stands in, and with the place
// of use where that is another.
func TestMistakesInFragments(t *testing.T) {
	std, form := testStandard(t), testFormSchema(t)
	fragments := map[string]string{
		"name":     fragmentOf("p", `<t:name w:value="p.name"/>`),
		"misspelt": fragmentOf("p", "\n<t:name w:value=\"p.nmae\"/>"),
		"outer":    fragmentOf("p", `<w:include fragment="misspelt" p="p"/>`),
		"unknown":  fragmentOf("p", `<t:nmae w:value="p.name"/>`),
		"peeks":    fragmentOf("p", `<t:name w:value="x.name"/>`),
		"loop":     fragmentOf("p", "\n\n<w:include fragment=\"loop2\" p=\"p\"/>"),
		"loop2":    fragmentOf("p", `<w:include fragment="loop" p="p"/>`),
		"other":    `<w:fragment xmlns:w="urn:weiche:mapping:1" xmlns:t="urn:other"/>`,
		"default":  `<w:fragment xmlns:w="urn:weiche:mapping:1" xmlns="urn:other"/>`,
		"none":     `<t:name xmlns:t="urn:test:t"/>`,
		"broken":   "<w:fragment\n",
		"doctype":  `<!DOCTYPE a><w:fragment xmlns:w="urn:weiche:mapping:1"/>`,
		"bad":      fragmentOf("form", ``),
		"twice":    fragmentOf("a a", ``),
		"colour":   strings.Replace(fragmentOf("p", ``), "parameters", "colour", 1),
		"text":     fragmentOf("p", `hello`),
		"unused":   fragmentOf("p", `<t:name w:unused="form.title">x</t:name>`),
	}
	for i := range maxFragments + 1 {
		fragments[fmt.Sprint("deep", i)] = fragmentOf("p", fmt.Sprintf(`<w:include fragment="deep%d" p="p"/>`, i+1))
	}
	for i := range maxFragments - 1 {
		fragments[fmt.Sprint("bomb", i)] = fragmentOf("p", strings.Repeat(fmt.Sprintf(`<w:include fragment="bomb%d" p="p"/>`, i+1), 12))
	}
	fragments[fmt.Sprint("bomb", maxFragments-1)] = fragmentOf("p", ``)
	shared := sharedOf(t, fragments)
	for _, c := range []struct {
		name, include string
		file          string
		line          int
		want          string
	}{
		{"no such fragment", `fragment="nmae" p="x"`, "m.xml", 4, `did you mean "name"?`},
		{"no name", `p="x"`, "m.xml", 4, `needs fragment=`},
		{"leaves the folder", `fragment="../name" p="x"`, "m.xml", 4, "names no fragment"},
		{"missing parameter", `fragment="name"`, "m.xml", 4, `needs p=`},
		{"unknown parameter", "fragment=\"name\" p=\"x\"\nq=\"x\"", "m.xml", 5, `no parameter "q"`},
		{"misspelt field of a parameter", `fragment="name" p="x.adr"`, "name.xml", 2, `no field "name"`},
		{"wrong type of a parameter", `fragment="name" p="'x'"`, "name.xml", 2, `is a text and has no field "name"`},
		{"misspelt field", `fragment="misspelt" p="x"`, "misspelt.xml", 3, `did you mean "name"? (in "p.nmae"); used in m.xml:4`},
		{"misspelt field, two deep", `fragment="outer" p="x"`, "misspelt.xml", 3, `; used in outer.xml:2, in m.xml:4`},
		{"what the standard does not have", `fragment="unknown" p="x"`, "unknown.xml", 2, `did you mean "name"?; used in m.xml:4`},
		{"a name of the place of use", `fragment="peeks" p="x"`, "peeks.xml", 2, `there is no "x" here`},
		{"a circle", `fragment="loop" p="x"`, "loop2.xml", 2, `includes itself; used in loop.xml:4, in m.xml:4`},
		{"too deep", `fragment="deep0" p="x"`, fmt.Sprintf("deep%d.xml", maxFragments-1), 2, "deep"},
		{"too many", `fragment="bomb0" p="x"`, fmt.Sprintf("bomb%d.xml", maxFragments-2), 2, "more than"},
		{"another namespace", `fragment="other"`, "other.xml", 1, `the prefix "t" stands for`},
		{"another default namespace", `fragment="default"`, "default.xml", 1, `the prefix "" stands for`},
		{"no fragment", `fragment="none"`, "none.xml", 1, "w:fragment"},
		{"not XML", `fragment="broken"`, "broken.xml", 2, "not well-formed"},
		{"DOCTYPE", `fragment="doctype"`, "doctype.xml", 1, "DOCTYPE"},
		{"a taken name", `fragment="bad"`, "bad.xml", 1, `"form" cannot be`},
		{"a name twice", `fragment="twice"`, "twice.xml", 1, `stands twice`},
		{"an unknown attribute", `fragment="colour"`, "colour.xml", 1, `not "colour"`},
		{"text", `fragment="text" p="x"`, "text.xml", 1, "cannot hold text"},
		{"unused belongs to the mapping", `fragment="unused" p="x"`, "unused.xml", 2, "root element"},
		{"a value", `fragment="name" p="x" w:value="x.name"`, "m.xml", 4, "belongs on an element of the target"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, problems := compileMapping("m.xml", []byte(wrap("<t:person w:for=\"x in form.persons\">\n<w:include "+c.include+"/></t:person>")), std, form, shared)
			if m != nil {
				t.Fatal("it is accepted")
			}
			for _, p := range problems {
				if filepath.Base(p.File) == c.file && p.Line == c.line && strings.Contains(p.Text, c.want) {
					return
				}
			}
			t.Errorf("want %s:%d: …%s…, got\n%v", c.file, c.line, c.want, problems)
		})
	}
	t.Run("content", func(t *testing.T) {
		_, problems := compileMapping("m.xml", []byte(wrap("<t:person w:for=\"x in form.persons\">\n<w:include fragment=\"name\" p=\"x\"><t:name>a</t:name></w:include>\n<t:nmae/></t:person>")), std, form, shared)
		if len(problems) != 2 || problems[0].Line != 4 || problems[1].Line != 5 {
			t.Errorf("got %v", problems)
		}
	})
	t.Run("none at hand", func(t *testing.T) {
		_, problems := compileMapping("m.xml", []byte(wrap(`<w:include fragment="name"/>`)), std, form, nil)
		if len(problems) != 1 || problems[0].Line != 3 {
			t.Errorf("got %v", problems)
		}
	})
}

// What is not proven, what fails, and where a text comes from, names the line of
// the mapping and that of the fragment.
func TestFragmentsAreNamed(t *testing.T) {
	std, form := testStandard(t), testFormSchema(t)
	shared := sharedOf(t, map[string]string{"born": fragmentOf("p", "\n<t:born w:value=\"p.born\"/>\n<t:n w:value=\"number(p.name)\"/>")})
	_, problems := compileMapping("m.xml", []byte(wrap(`<t:person w:for="x in form.persons"><w:include fragment="born" p="x"/></t:person>`)), std, form, shared)
	if len(problems) == 0 {
		t.Fatal("any text is no xs:date")
	}
	if p := problems[0]; filepath.Base(p.File) != "born.xml" || p.Line != 3 || !strings.HasSuffix(p.Text, "; used in m.xml:3") {
		t.Errorf("got %v", p)
	}
	shared = sharedOf(t, map[string]string{"born": fragmentOf("p", "\n<t:born w:value=\"date(p.born)\"/>\n<t:n w:value=\"number(p.name)\" w:checked=\"the portal asks for one\"/>")})
	m, problems := compileMapping("m.xml", []byte(wrap(`<t:person w:for="x in form.persons"><w:include fragment="born" p="x"/></t:person>`)), std, form, shared)
	if m == nil {
		t.Fatal(problems)
	}
	for _, o := range m.Proof().Open {
		if o.Line != 3 || !strings.HasPrefix(o.Fragment, "born.xml:") {
			t.Errorf("open: %+v", o)
		}
	}
	if _, err := m.Apply(input(t, `{"persons":[{"name":"A"}]}`)); err == nil || !strings.Contains(err.Error(), "m.xml:3 <t:n> (fragment born.xml:4)") {
		t.Errorf("got %v", err)
	}
	_, trace, err := m.Trace(input(t, `{"persons":[{"born":"1.2.2000"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	last := trace.Origins[len(trace.Origins)-1]
	if last.Line != 3 || last.Fragment != "born.xml:3" || strings.Join(last.Fields, "") != "/data/persons/0/born" {
		t.Errorf("got %+v", last)
	}
}
