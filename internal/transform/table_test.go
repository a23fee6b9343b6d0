package transform

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"weiche/internal/submission"
	"weiche/internal/transform/standard"
)

// The key of the list is its second column.
const colours = `<gc:CodeList xmlns:gc="http://docs.oasis-open.org/codelist/ns/genericode/1.0/"><Identification><ShortName>colours</ShortName><Version>2</Version>
  <CanonicalUri>urn:test:colours</CanonicalUri></Identification>
  <ColumnSet><Column Id="name" Use="required"><ShortName>name</ShortName><Data Type="string"/></Column><Column Id="code" Use="required"><ShortName>code</ShortName><Data Type="string"/></Column>
    <Key Id="k"><ShortName>k</ShortName><ColumnRef Ref="code"/></Key></ColumnSet>
  <SimpleCodeList><Row><Value ColumnRef="name"><SimpleValue>Red</SimpleValue></Value><Value ColumnRef="code"><SimpleValue>a</SimpleValue></Value></Row>
    <Row><Value ColumnRef="name"><SimpleValue>Blue</SimpleValue></Value><Value ColumnRef="code"><SimpleValue>b</SimpleValue></Value></Row>
    <Row><Value ColumnRef="code"><SimpleValue>c</SimpleValue></Value></Row></SimpleCodeList></gc:CodeList>`

// lookups is a mapping's folder, and a standard with a code list.
func lookups(t testing.TB, files map[string]string) (string, *standard.Standard) {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{
		"std/t/1/t.xsd": testXSD, "std/t/1/colours.xml": colours,
		"std/t/1/standard.yaml": "name: t\nversion: \"1\"\nlicence: none stated\nschemas: [t.xsd]\ncodelists: [{uri: \"urn:test:colours\", version: \"2\", file: colours.xml}]\n",
	}
	for name, content := range files {
		all[name] = content
	}
	for name, content := range all {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	installed, problems := standard.Open(filepath.Join(root, "std"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	std, _ := installed.Get("t", "1")
	return root, std
}

func TestLookups(t *testing.T) {
	root, std := lookups(t, map[string]string{
		"m/kinds.csv":        "\xef\xbb\xbfkey;name;short\na;Art A;A\nb;\"Art;B\";\n",
		"m/comma.csv":        "key,name\r\na,\"Say \"\"A\"\"\"\r\n",
		"fragments/kind.xml": fragmentOf("k", `<t:title w:value="lookup(k, table('own.csv', 'name'))"/>`),
		"fragments/own.csv":  "key,name\na,beside the fragment\n",
	})
	shared := OpenShared(filepath.Join(root, "fragments"), testRegister)
	for _, c := range lookupUses {
		t.Run(c.name, func(t *testing.T) {
			body := `<t:title w:value="` + c.body + `"/>`
			if c.body == "" {
				body = `<w:include fragment="kind" k="form.kind"/>`
			}
			m, problems := compileMapping(filepath.Join(root, "m", "m.xml"), []byte(wrap(body)), std, testFormSchema(t), shared)
			if m == nil {
				t.Fatal(problems)
			}
			got, err := m.Apply(input(t, c.form))
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if c.want != "" {
				want = "<t:title>" + c.want + "</t:title>"
			}
			if want = xmlDeclaration + envelopeStart + want + "</t:m.1>"; string(got) != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
	t.Run("read once", func(t *testing.T) {
		from := &tables{std: std, dir: filepath.Join(root, "m"), shared: shared}
		for kind, words := range map[string][]string{"table": {"kinds.csv", "name"}, "codelist": {"urn:test:colours", "2", "name"}} {
			one, err := from.open(kind, words)
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := from.open(kind, words); one != again {
				t.Errorf("each %s is read for each use", kind)
			}
		}
	})
	t.Run("a key that is in no row", func(t *testing.T) {
		m, problems := compileMapping(filepath.Join(root, "m", "m.xml"), []byte(wrap(`<t:title w:value="lookup(form.title, table('kinds.csv', 'name'))"/>`)), std, testFormSchema(t), shared)
		if m == nil {
			t.Fatal(problems)
		}
		if _, err := m.Apply(input(t, `{"title":"KANARIE"}`)); err == nil || strings.Contains(err.Error(), "KANARIE") || !strings.Contains(err.Error(), "not in the lookup's table") {
			t.Errorf("got %v", err)
		}
	})
}

// testRegister has one authority around another, and two for one area.
var testRegister = []submission.Authority{
	{ID: "kreis", Key: "bab:08115", Name: "Kreis", Region: "08115"},
	{ID: "stadt", Key: "bab:08115003", Name: "Stadt", Region: "081150003003"},
	{ID: "one", Key: "bab:08116", Name: "One", Region: "08116"},
	{ID: "two", Key: "bab:08116001", Name: "Two", Region: "08116"},
	{ID: "strasse", Key: "sbb:14", Name: "Landesamt", Region: "14"},
}

// lookupUses are expressions beside what a form makes of them.
var lookupUses = []construct{
	{"a code list", `lookup(form.kind, codelist('urn:test:colours', '2', 'name'))`, `{"kind":"b"}`, "Blue"},
	{"a code without a value", `lookup('c', codelist('urn:test:colours', '2', 'name'), 'none')`, `{}`, ""},
	{"a code that is not in it", `lookup(form.title, codelist('urn:test:colours', '2', 'name'), 'none')`, `{"title":"x"}`, "none"},
	{"nothing looked up", `lookup(form.kind, codelist('urn:test:colours', '2', 'name'))`, `{}`, ""},
	{"a table", `lookup(form.kind, table('kinds.csv', 'name'))`, `{"kind":"b"}`, "Art;B"},
	{"another column", `lookup(form.kind, table('kinds.csv', 'short'), '-')`, `{"kind":"a"}`, "A"},
	{"an empty cell", `lookup(form.kind, table('kinds.csv', 'short'), '-')`, `{"kind":"b"}`, ""},
	{"commas and quotes", `lookup(form.kind, table('comma.csv', 'name'), '-')`, `{"kind":"a"}`, `Say "A"`},
	{"in a closure", `join(map(form.words, lookup(#, table('comma.csv', 'name'), '-')), '/')`, `{"words":["a","b"]}`, `Say "A"/-`},
	{"the register", `lookup(submission.region, register('bab', 'name'))`, `{}`, "Stadt"},
	{"the register, for the area around", `lookup(form.title, register('bab', 'kennung'))`, `{"title":"DE081150003999"}`, "08115"},
	{"a region of which rules decide", `lookup(form.title, register('bab', 'name'), 'several')`, `{"title":"081160000"}`, "several"},
	{"no region", `lookup(form.title, register('bab', 'name'), 'none')`, `{"title":"8115"}`, "none"},
	{"another kind of authority", `lookup(form.title, register('sbb', 'region'))`, `{"title":"140000000000"}`, "14"},
	{"beside the fragment", "", `{"kind":"a"}`, "beside the fragment"},
}

func TestMistakesInLookups(t *testing.T) {
	root, std := lookups(t, map[string]string{
		"m/kinds.csv": "key;name\na;A\n", "m/twice.csv": "key,name\na,A\nb,B\na,C\n", "m/keyless.csv": "key,name\na,A\n,B\n",
		"m/ragged.csv": "key,name\na,A\nb\n", "m/quote.csv": "key,name\na,\"A\n", "m/empty.csv": "", "m/latin.csv": "key,name\na,M\xfcll\n",
		"outside.csv": "key,name\na,A\n",
	})
	for value, want := range map[string]string{
		`lookup(form.kind, table('kind.csv', 'name'))`:                           "kind.csv cannot be read",
		`lookup(form.kind, table('../outside.csv', 'name'))`:                     "leaves the folder",
		`lookup(form.kind, table('kinds.csv', 'nmae'))`:                          `did you mean "name"?`,
		`lookup(form.kind, table('kinds.csv', 'key'))`:                           `no column "key" behind its key`,
		`lookup(form.kind, table('kinds.csv'))`:                                  "2 constant texts",
		`lookup(form.kind, table(form.title, 'name'))`:                           "2 constant texts",
		`lookup(form.kind, table('twice.csv', 'name'))`:                          `"a" twice, in line 4`,
		`lookup(form.kind, table('keyless.csv', 'name'))`:                        "no key in line 3",
		`lookup(form.kind, table('ragged.csv', 'name'))`:                         "is no CSV: line 3",
		`lookup(form.kind, table('quote.csv', 'name'))`:                          "is no CSV: line",
		`lookup(form.kind, table('empty.csv', 'name'))`:                          "no line of names",
		`lookup(form.kind, table('latin.csv', 'name'))`:                          "not UTF-8",
		`lookup(form.kind, codelist('urn:test:colours', '3', 'name'))`:           "version 3, is not installed",
		`lookup(form.kind, codelist('urn:test:colours', '2', 'nmae'))`:           `no column "nmae"; it has name, code`,
		`lookup(form.kind, codelist('urn:test:colours', '2'))`:                   "3 constant texts",
		`lookup(form.kind, register('bab', 'nmae'))`:                             `did you mean "name"?`,
		`lookup(form.kind, register('bba', 'name'))`:                             `did you mean "bab"?`,
		`lookup(form.kind, register('bab'))`:                                     "2 constant texts",
		`register('bab', 'name')`:                                                "stands behind lookup's value",
		`table('kinds.csv', 'name')`:                                             "stands behind lookup's value",
		`default(form.kind, codelist('urn:test:colours', '2', 'name'))`:          "stands behind lookup's value",
		`lookup(form.kind, tabel('kinds.csv', 'name'))`:                          `did you mean "table"?`,
		`lookup(table('kinds.csv', 'name'), table('kinds.csv', 'name'))`:         "stands behind lookup's value",
		`lookup(form.kind, {'a': table('kinds.csv', 'name')})`:                   "stands behind lookup's value",
		`form.kind == 'a' ? lookup(form.kin, table('kinds.csv', 'name')) : form`: `did you mean "kind"?`,
	} {
		m, problems := compileMapping(filepath.Join(root, "m", "m.xml"), []byte(wrap("<t:title\nw:value=\""+value+"\"/>")), std, testFormSchema(t), OpenShared("", testRegister))
		if m != nil || len(problems) == 0 || problems[0].Line != 4 || !strings.Contains(problems[0].Text, want) {
			t.Errorf("%s\ngot %v, want line 4: …%s…", value, problems, want)
		}
	}
}

// What a lookup may come to is known: the rows of the keys that the form allows.
func TestLookupsAreProven(t *testing.T) {
	root, _ := lookups(t, map[string]string{"m/kinds.csv": "key,code,rest\na,x,1\nb,y,2\nc,z,\n"})
	register := OpenShared("", testRegister)
	std := standardOf(t, `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:v" xmlns="urn:test:v" elementFormDefault="qualified">
  <xs:element name="m"><xs:complexType><xs:sequence><xs:element name="kind" minOccurs="0"><xs:simpleType><xs:restriction base="xs:string"><xs:enumeration value="x"/><xs:enumeration value="y"/></xs:restriction></xs:simpleType></xs:element>
    <xs:element name="rest" type="xs:int" minOccurs="0"/></xs:sequence></xs:complexType></xs:element></xs:schema>`)
	form, problems := ParseFormSchema("form.json", []byte(`{"type": "object", "required": ["ab", "abc", "free"], "properties": {"ab": {"enum": ["a", "b"]}, "abc": {"enum": ["a", "b", "c"]}, "free": {"type": "string"}}}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct{ body, refused, open string }{
		{body: `<kind w:value="lookup(form.ab, table('kinds.csv', 'code'))"/>`},
		{body: `<kind w:value="lookup(form.abc, table('kinds.csv', 'code'))"/>`, refused: `"z" in table(kinds.csv, code)`},
		{body: `<kind w:value="lookup(form.free, table('kinds.csv', 'code'))"/>`, open: `"z" would not fit`},
		{body: `<kind w:value="lookup(form.ab, table('kinds.csv', 'code'), 'w')"/>`, refused: `"w" is no value`},
		{body: `<rest w:value="lookup(form.free, table('kinds.csv', 'rest'))"/>`},
		{body: `<rest w:value="lookup(form.free, table('kinds.csv', 'code'))"/>`, open: `would not fit`},
		{body: `<kind w:value="lookup('d', table('kinds.csv', 'code'))"/>`, refused: `"d" is in no row of table(kinds.csv, code)`},
		{body: `<kind w:value="lookup('d', {'a': 'x'})"/>`, refused: `"d" is in no row of the table`},
		{body: `<kind w:value="lookup(form.ab, {'c': 'x'})"/>`, refused: `"a" is in no row`},
		{body: `<kind w:if="lookup('d', table('kinds.csv', 'code')) == 'x'">x</kind>`, refused: `"d" is in no row`},
		{body: `<kind w:value="lookup(form.abc, {'a': 'x', 'b': 'y'})"/>`, open: `"c" would not be`},
		{body: `<kind w:value="lookup(form.abc, {'a': 'x', 'b': 'y'}, 'x')"/>`},
		{body: `<kind w:checked="an example" w:value="lookup('d', {'a': 'x'})"/>`, open: `an example`},
		{body: `<rest w:value="lookup('14', register('bab', 'kennung'))"/>`, open: `"14" would not be`},
		{body: `<rest w:value="lookup(form.free, register('bab', 'kennung'))"/>`},
		{body: `<rest w:value="lookup(form.free, register('bab', 'name'))"/>`, open: `would not fit`},
		{body: `<rest w:value="lookup('081150003003', register('bab', 'name'))"/>`, open: `would not fit`},
	} {
		raw := "<m xmlns=\"urn:test:v\" xmlns:w=\"urn:weiche:mapping:1\" w:unused=\"form\">\n" + c.body + "</m>"
		m, problems := compileMapping(filepath.Join(root, "m", "m.xml"), []byte(raw), std, form, register)
		switch {
		case c.refused != "":
			if m != nil || len(problems) != 1 || !strings.Contains(problems[0].Text, c.refused) {
				t.Errorf("%s\ngot %v, want …%s…", c.body, problems, c.refused)
			}
		case m == nil:
			t.Errorf("%s\n%v", c.body, problems)
		case c.open == "" && !m.Settled(), c.open != "" && (len(m.Proof().Open) != 1 || !strings.Contains(m.Proof().Open[0].Reason, c.open)):
			t.Errorf("%s\ngot %+v", c.body, m.Proof())
		}
	}
}

// Whatever stands in a file, a table of one's own is read whole or refused.
func FuzzTable(f *testing.F) {
	for _, s := range []string{"key,name\na,A\n", "\xef\xbb\xbfkey;name\na;\"A\n;\"\n", "key,name\na,A\na,B\n", "key,name\n\"", "name\n", "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		rows, err := parseTable("t.csv", raw, "name")
		if err != nil {
			return
		}
		for k, v := range rows {
			if k == "" || !utf8.ValidString(k+v) {
				t.Errorf("%q: %q", k, v)
			}
		}
	})
}
