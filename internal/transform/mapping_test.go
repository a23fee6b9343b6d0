package transform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
	"weiche/internal/transform/standard"
)

const testXSD = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:t" xmlns="urn:test:t" elementFormDefault="qualified" version="1">
  <xs:element name="m.1"><xs:complexType><xs:complexContent><xs:extension base="Head"><xs:sequence>
      <xs:element name="title" type="xs:string" minOccurs="0"/>
      <xs:element name="person" type="Person" minOccurs="0" maxOccurs="unbounded"/>
      <xs:choice minOccurs="0"><xs:element name="left" type="xs:string"/><xs:element name="right" type="xs:string"/></xs:choice>
      <xs:element name="plain" form="unqualified" type="xs:string" minOccurs="0"/>
      <xs:element name="data" minOccurs="0"><xs:complexType><xs:group ref="Generic"/></xs:complexType></xs:element>
      <xs:element name="file" minOccurs="0" maxOccurs="9"><xs:complexType><xs:simpleContent><xs:extension base="xs:string"><xs:attribute name="size" type="xs:int"/></xs:extension></xs:simpleContent></xs:complexType></xs:element>
  </xs:sequence></xs:extension></xs:complexContent></xs:complexType></xs:element>
  <xs:complexType name="Head"><xs:sequence><xs:element name="id" type="xs:string"/></xs:sequence>
    <xs:attribute name="version" use="required" fixed="1"/><xs:attribute name="test"/></xs:complexType>
  <xs:complexType name="Person"><xs:sequence>
      <xs:element name="name" type="xs:string" minOccurs="0"/><xs:element name="born" type="xs:date" minOccurs="0"/>
      <xs:element name="code" minOccurs="0"><xs:complexType><xs:sequence><xs:element name="v" form="unqualified"/></xs:sequence><xs:attribute name="list"/></xs:complexType></xs:element>
      <xs:element name="n" type="xs:decimal" minOccurs="0"/>
    </xs:sequence><xs:attribute name="nr"/></xs:complexType>
  <xs:group name="Generic"><xs:choice><xs:element name="gruppe" minOccurs="0" maxOccurs="unbounded"><xs:complexType><xs:group ref="Generic" minOccurs="0" maxOccurs="unbounded"/><xs:attributeGroup ref="Named"/></xs:complexType></xs:element>
    <xs:element name="feld" minOccurs="0" maxOccurs="unbounded"><xs:complexType><xs:simpleContent><xs:extension base="xs:string"><xs:attributeGroup ref="Named"/></xs:extension></xs:simpleContent></xs:complexType></xs:element></xs:choice></xs:group>
  <xs:attributeGroup name="Named"><xs:attribute name="name" use="required"/><xs:attribute name="titel"/><xs:attribute name="typ"/><xs:attribute name="bezeichnung"/><xs:attribute name="nummer" type="xs:int"/></xs:attributeGroup>
</xs:schema>`

const testForm = `{"type": "object", "properties": {
  "title": {"type": "string", "title": "The title"}, "ok": {"type": "boolean"}, "amount": {"type": "number"}, "count": {"type": "integer"},
  "adr": {"$ref": "#/$defs/adr", "title": "Where"},
  "kind": {"oneOf": [{"const": "a", "title": "Kind A"}, {"const": "b", "title": "Kind B"}]},
  "words": {"type": "array", "items": {"type": "string"}, "title": "Words"},
  "persons": {"type": "array", "items": {"allOf": [{"$ref": "#/$defs/person"}, {"properties": {"role": {"enum": ["x", "y"]}}}]}},
  "day": {"type": "string", "format": "date"}},
  "$defs": {"adr": {"type": "object", "properties": {"town": {"type": "string"}, "up": {"$ref": "#/$defs/adr"}}},
    "person": {"type": "object", "properties": {"name": {"type": "string"}, "born": {"type": "string"}, "n": {"type": "number"}, "adr": {"$ref": "#/$defs/adr"}}}}}`

func testStandard(t testing.TB) *standard.Standard {
	t.Helper()
	return standardOf(t, testXSD)
}

func standardOf(t testing.TB, xsd string) *standard.Standard {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "t", "1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"t.xsd": xsd, "standard.yaml": "name: t\nversion: \"1\"\nlicence: none stated\nschemas: [t.xsd]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	installed, problems := standard.Open(root)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s, _ := installed.Get("t", "1")
	return s
}

func testFormSchema(t testing.TB) *FormSchema {
	t.Helper()
	f, problems := ParseFormSchema("form.json", []byte(testForm))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return f
}

// wrap puts a mapping's body into the test message; the body begins on line 3.
func wrap(body string) string {
	return `<t:m.1 xmlns:t="urn:test:t" xmlns:w="urn:weiche:mapping:1" w:unused="form" version="1" test="{submission.test ? 'yes' : nil}">
<t:id w:value="message.id" w:required="true"/>
` + body + `
</t:m.1>`
}

// refusedAt says that a mapping with such a body is refused at the line.
func refusedAt(t *testing.T, body string, std *standard.Standard, form *FormSchema, line int, want string) {
	t.Helper()
	m, problems := compileMapping("m.xml", []byte(wrap(body)), std, form, nil)
	if m != nil {
		t.Fatal("accepted")
	}
	for _, p := range problems {
		if p.File == "m.xml" && p.Line == line && strings.Contains(p.Text, want) {
			return
		}
	}
	t.Errorf("got %v, want line %d: …%s…", problems, line, want)
}

func input(t testing.TB, form string) Input {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(form))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return Input{
		Form:       v,
		Message:    MessageInput{ID: uuid.MustParse("60f6667b-fa45-4bd7-b717-f4d6c65e5edb"), CreatedAt: time.Date(2026, 7, 1, 22, 30, 0, 5_000_000, time.UTC)},
		Submission: SubmissionInput{ID: uuid.MustParse("0f8fad5b-d9cb-469f-a165-70867728950e"), Service: "99012008001000", Region: "081150003003"},
		Authority:  submission.Authority{ID: "a", Key: "bab:08115003", Name: "Stadt Böblingen"},
		Portal:     PortalInput{Key: "bap:080000000001", Name: "service-bw"},
		Attachments: []submission.Attachment{
			{AttachmentID: "1", Filename: "plan & \"ansicht\".pdf", MIMEType: "application/pdf", Size: 12},
			{AttachmentID: "2", Filename: "b<c>.pdf", Size: 3},
		},
	}
}

const envelopeStart = `<t:m.1 xmlns:t="urn:test:t" version="1"><t:id>60f6667b-fa45-4bd7-b717-f4d6c65e5edb</t:id>`

// Each case is a construct of the language beside what it writes. Every message
// is checked against the XSD and against the tree that etree builds.
func TestConstructs(t *testing.T) {
	std, form := testStandard(t), testFormSchema(t)
	for _, c := range constructs {
		t.Run(c.name, func(t *testing.T) {
			m, problems := compileMapping("m.xml", []byte(wrap(c.body)), std, form, nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			in := input(t, c.form)
			got, err := m.Apply(in)
			if err != nil {
				t.Fatal(err)
			}
			want := xmlDeclaration + envelopeStart + c.want + `</t:m.1>`
			if string(got) != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			tree, err := m.ApplyTree(in)
			if err != nil {
				t.Fatal(err)
			}
			same, err := tree.WriteToBytes()
			if err != nil || !bytes.Equal(same, got) {
				t.Errorf("etree writes %s (%v)", same, err)
			}
			if c.name != "generic data" { // the test schema's generic part is a choice
				if err := std.Validate(got); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// construct is an example that runs.
type construct struct{ name, body, form, want string }

var constructs = []construct{
	{"a value", `<t:title w:value="form.title"/>`, `{"title":"A & B < C"}`, `<t:title>A &amp; B &lt; C</t:title>`},
	{"an absent value leaves nothing", `<t:title w:value="form.title"/>`, `{}`, ``},
	{"an absent parent is harmless", `<t:title w:value="form.adr.up.up.town"/>`, `{"adr":{}}`, ``},
	{"keep writes it anyway", `<t:title w:value="form.title" w:keep="true"/>`, `{}`, `<t:title/>`},
	{"an element without content is written as it stands", `<t:title/>`, `{}`, `<t:title/>`},
	{"constant text", "<t:title>\n  fest }}{{ \n</t:title>", `{}`, `<t:title>fest }{</t:title>`},
	{"text with expressions", `<t:title>Ort {form.adr.town}!</t:title>`, `{"adr":{"town":"X"}}`, `<t:title>Ort X!</t:title>`},
	{"text with an empty expression is empty", `<t:title>Ort {form.adr.town}!</t:title>`, `{}`, ``},
	{"braces in an expression", `<t:title>{lookup(form.kind, {'a': '}', 'b': 'B'})}</t:title>`, `{"kind":"a"}`, `<t:title>}</t:title>`},
	{"a repeat with index", `<t:person w:for="p in form.persons" nr="{p_index + 1}"><t:name w:value="p.name"/></t:person>`,
		`{"persons":[{"name":"A"},{},{"name":"C"}]}`, `<t:person nr="1"><t:name>A</t:name></t:person><t:person nr="3"><t:name>C</t:name></t:person>`},
	{"a repeat over what is absent", `<t:person w:for="p in form.persons"><t:name w:value="p.name"/></t:person>`, `{}`, ``},
	{"a filtered repeat", `<t:person w:for="p in filter(form.persons, .role == 'y')"><t:name w:value="p.name"/></t:person>`,
		`{"persons":[{"name":"A","role":"x"},{"name":"B","role":"y"}]}`, `<t:person><t:name>B</t:name></t:person>`},
	{"repeat and condition", `<t:person w:for="p in form.persons" w:if="has(p.born)"><t:name w:value="p.name"/></t:person>`,
		`{"persons":[{"name":"A"},{"name":"B","born":"2000-01-01"}]}`, `<t:person><t:name>B</t:name></t:person>`},
	{"a code vanishes with its list", `<t:person><t:name>x</t:name><t:code list="urn:l"><v w:value="form.kind"/></t:code></t:person>`, `{}`, `<t:person><t:name>x</t:name></t:person>`},
	{"a code", `<t:person><t:code list="urn:l"><v w:value="form.kind"/></t:code></t:person>`, `{"kind":"b"}`, `<t:person><t:code list="urn:l"><v>b</v></t:code></t:person>`},
	{"attributes escape", `<t:person nr="{form.title}"><t:name>x</t:name></t:person>`, `{"title":"a\"b\n<&\t"}`, `<t:person nr="a&quot;b&#xA;&lt;&amp;&#x9;"><t:name>x</t:name></t:person>`},
	{"choose", `<w:choose><w:when w:if="form.ok"><t:left>l</t:left></w:when><w:otherwise><t:right>r</t:right></w:otherwise></w:choose>`, `{}`, `<t:right>r</t:right>`},
	{"choose, first true", `<w:choose><w:when w:if="form.ok"><t:left>l</t:left></w:when><w:otherwise><t:right>r</t:right></w:otherwise></w:choose>`, `{"ok":true}`, `<t:left>l</t:left>`},
	{"group with let", `<w:group w:let="a = form.adr; b = a.town" w:if="has(b)"><t:title w:value="b"/></w:group>`, `{"adr":{"town":"T"}}`, `<t:title>T</t:title>`},
	{"an inner name hides an outer one and gives it back", `<w:group w:for="p in form.persons"><w:group w:for="p in form.words"><w:group w:let="q = p"/></w:group><t:person><t:name w:value="p.name"/></t:person></w:group>`,
		`{"words":["a","b"],"persons":[{"name":"A"},{"name":"B"}]}`, `<t:person><t:name>A</t:name></t:person><t:person><t:name>B</t:name></t:person>`},
	{"unqualified", `<plain w:value="form.title"/>`, `{"title":"t"}`, `<plain>t</plain>`},
	{"numbers keep what is written", `<t:title w:value="form.amount"/>`, `{"amount":12.10}`, `<t:title>12.10</t:title>`},
	{"numbers lose an exponent", `<t:title w:value="form.amount"/>`, `{"amount":1.5e3}`, `<t:title>1500</t:title>`},
	{"comparison of numbers", `<t:title w:if="form.amount &gt; 9 and form.count == 2">yes</t:title>`, `{"amount":10.5,"count":2}`, `<t:title>yes</t:title>`},
	{"an absent number compares false", `<t:title w:if="form.amount &lt; 9 or form.amount &gt; 1">yes</t:title>`, `{}`, ``},
	{"arithmetic", `<t:title w:value="form.count * 2 + 1"/>`, `{"count":3}`, `<t:title>7</t:title>`},
	{"absent in arithmetic is absent", `<t:title w:value="form.count * 2"/>`, `{}`, ``},
	{"concatenation with absent", `<t:title w:value="form.title + '-' + form.adr.town"/>`, `{"title":"a"}`, `<t:title>a-</t:title>`},
	{"not of an absent boolean", `<t:title w:if="!form.ok">no</t:title>`, `{}`, `<t:title>no</t:title>`},
	{"join skips empties", `<t:title w:value="join([form.title, form.adr.town, form.count], ', ')"/>`, `{"title":"a","count":3}`, `<t:title>a, 3</t:title>`},
	{"join and map", `<t:title w:value="join(map(form.persons, .name), '; ')"/>`, `{"persons":[{"name":"A"},{},{"name":"B"}]}`, `<t:title>A; B</t:title>`},
	{"any over absent", `<t:title w:if="any(form.persons, .n &gt; 3)">x</t:title>`, `{}`, ``},
	{"an index past the end", `<t:title w:value="form.persons[3].name"/>`, `{"persons":[]}`, ``},
	{"an index", `<t:title w:value="form.words[1]"/>`, `{"words":["a","b"]}`, `<t:title>b</t:title>`},
	{"a German date", `<t:person><t:born w:value="date(form.day)"/></t:person>`, `{"day":"3.4.2026"}`, `<t:person><t:born>2026-04-03</t:born></t:person>`},
	{"the day in Berlin", `<t:title w:value="date(message.createdAt)"/>`, `{}`, `<t:title>2026-07-02</t:title>`},
	{"times with milliseconds and zone", `<t:title w:value="message.createdAt"/>`, `{}`, `<t:title>2026-07-02T00:30:00.005+02:00</t:title>`},
	{"a date as a time", `<t:title w:value="datetime(form.day)"/>`, `{"day":"2026-01-02"}`, `<t:title>2026-01-02T00:00:00.000+01:00</t:title>`},
	{"decimal", `<t:title w:value="decimal(form.amount, 2)"/>`, `{"amount":2.345}`, `<t:title>2.35</t:title>`},
	{"default and upper", `<t:title w:value="upper(default(form.title, 'ä'))"/>`, `{}`, `<t:title>Ä</t:title>`},
	{"in", `<t:title w:if="form.kind in ['a', 'c']">in</t:title>`, `{"kind":"a"}`, `<t:title>in</t:title>`},
	{"authority and portal", `<t:title w:value="authority.key + ' ' + authority.prefix + ' ' + authority.kennung + ' ' + portal.key"/>`, `{}`, `<t:title>bab:08115003 bab 08115003 bap:080000000001</t:title>`},
	{"a stable UUID", `<t:title w:value="uuid5('person', form.count)"/>`, `{"count":1}`, `<t:title>` + uuid.NewSHA1(uuid.MustParse("0f8fad5b-d9cb-469f-a165-70867728950e"), []byte("6:person\x001:1\x00")).String() + `</t:title>`},
	{"a UUID of nothing is none", `<t:title w:value="uuid5('person', form.count)"/>`, `{}`, ``},
	{"the length of a list", `<t:title w:value="len(form.words)"/>`, `{"words":["a","b"]}`, `<t:title>2</t:title>`},
	{"an absent list has no length", `<t:title w:value="len(form.words)"/>`, `{}`, `<t:title>0</t:title>`},
	{"an absent text has no length", `<t:title w:value="len(form.title)"/>`, `{}`, `<t:title>0</t:title>`},
	{"DIN 91379", `<t:title w:value="din91379(form.title)"/>`, `{"title":"Mu\u0308l\u00adler\u2009Gm\u200bbH\u2028K\u0302"}`, "<t:title>Müller GmbH\nK\u0302</t:title>"},
	{"DIN 91379 of nothing", `<t:title w:value="din91379(form.title)"/>`, `{}`, ``},
	{"attachments", `<t:file w:for="a in attachments" size="{a.size}" w:value="a.filename"/>`, `{}`, `<t:file size="12">plan &amp; "ansicht".pdf</t:file><t:file size="3">b&lt;c&gt;.pdf</t:file>`},
	{"generic data", `<t:data><w:data of="form"/></t:data>`,
		`{"zusatz":"z","kind":"b","title":"T","ok":false,"count":3,"amount":1.50,"day":"2026-01-02","words":["a","","c"],"persons":[{"name":"A"},{},{"name":"B","adr":{"town":"X"}}],"adr":{"up":{}}}`,
		`<t:data><t:feld name="title" titel="The title" typ="text">T</t:feld><t:feld name="ok" typ="wahrheitswert">false</t:feld><t:feld name="amount" typ="zahl">1.50</t:feld><t:feld name="count" typ="ganzzahl">3</t:feld>` +
			`<t:feld name="kind" typ="auswahl" bezeichnung="Kind B">b</t:feld><t:feld name="words" titel="Words" typ="text" nummer="1">a</t:feld><t:feld name="words" titel="Words" typ="text" nummer="3">c</t:feld>` +
			`<t:gruppe name="persons" nummer="1"><t:feld name="name" typ="text">A</t:feld></t:gruppe><t:gruppe name="persons" nummer="3"><t:feld name="name" typ="text">B</t:feld><t:gruppe name="adr"><t:feld name="town" typ="text">X</t:feld></t:gruppe></t:gruppe>` +
			`<t:feld name="day" typ="datum">2026-01-02</t:feld><t:feld name="zusatz" typ="text">z</t:feld></t:data>`},
	{"generic data of nothing", `<t:data><w:data of="form.adr"/></t:data>`, `{"adr":{"up":{}}}`, ``},
	{"left to the check of each message", `<t:person><t:born w:value="form.title" w:checked="the portal asks for a day"/></t:person>`, `{"title":"2026-01-02"}`, `<t:person><t:born>2026-01-02</t:born></t:person>`},
	{"lower, trim and text", `<t:title w:value="lower(trim(form.title)) + text(form.ok)"/>`, `{"title":" Ab ","ok":false}`, `<t:title>abfalse</t:title>`},
	{"number", `<t:title w:value="number(form.title) + 1"/>`, `{"title":"2"}`, `<t:title>3</t:title>`},
	{"all, none and one", `<t:title w:if="all(form.words, # != 'x') and none(form.words, # == 'x') and one(form.words, # == 'a')">yes</t:title>`, `{"words":["a","b"]}`, `<t:title>yes</t:title>`},
	{"count", `<t:title w:value="count(form.words, # startsWith 'a')"/>`, `{"words":["a","b","ab"]}`, `<t:title>2</t:title>`},
	{"find", `<t:title w:value="find(form.persons, .role == 'y').name"/>`, `{"persons":[{"role":"x","name":"A"},{"role":"y","name":"B"}]}`, `<t:title>B</t:title>`},
	{"first and last", `<t:title w:value="first(form.words) + last(form.words)"/>`, `{"words":["a","b","c"]}`, `<t:title>ac</t:title>`},
	{"concat", `<t:title w:value="join(concat(form.words, ['z']), '')"/>`, `{"words":["a","b"]}`, `<t:title>abz</t:title>`},
	{"split and replace", `<t:title w:value="join(split(replace(form.title, ';', ','), ','), '/')"/>`, `{"title":"a,b;c"}`, `<t:title>a/b/c</t:title>`},
	{"a repeat over the parts of a text", `<t:person w:for="s in split(form.title, ',')"><t:name w:value="s"/></t:person>`, `{"title":"a,b"}`, `<t:person><t:name>a</t:name></t:person><t:person><t:name>b</t:name></t:person>`},
	{"contains, endsWith, matches", `<t:title w:if="form.title contains 'b' and form.title endsWith 'c' and form.title matches '^[a-c]+$'">yes</t:title>`, `{"title":"abc"}`, `<t:title>yes</t:title>`},
	{"a choice of values", `<t:title w:value="form.ok ? 'yes' : form.title ?? 'no'"/>`, `{}`, `<t:title>no</t:title>`},
	{"the rest of a division", `<t:title w:value="form.count % 3"/>`, `{"count":5}`, `<t:title>2</t:title>`},
}

// Each mistake is refused at load, at its line.
func TestMistakesAreRefusedWithTheirLine(t *testing.T) {
	std, form := testStandard(t), testFormSchema(t)
	for _, c := range []struct {
		name, body string
		line       int
		want       string
	}{
		{"misspelt field", "\n<t:title w:value=\"form.titel\"/>", 4, `did you mean "title"?`},
		{"misspelt field in depth", `<t:title w:value="form.adr.up.twon"/>`, 3, `did you mean "town"?`},
		{"misspelt field of an item", `<t:person w:for="p in form.persons"><t:name w:value="p.nam"/></t:person>`, 3, `did you mean "name"?`},
		{"misspelt field in a closure", `<t:title w:if="any(form.persons, .rolle == 'x')">y</t:title>`, 3, `did you mean "role"?`},
		{"misspelt field in text", `<t:title>{form.tit}</t:title>`, 3, `did you mean`},
		{"misspelt field on the attribute's own line", "<t:person\n  nr=\"{form.cont}\"><t:name>x</t:name></t:person>", 4, `did you mean "count"?`},
		{"misspelt context", `<t:title w:value="authority.nam"/>`, 3, `did you mean "name"?`},
		{"misspelt variable", `<t:title w:value="from.title"/>`, 3, `did you mean "form"?`},
		{"misspelt function", `<t:title w:value="uper(form.title)"/>`, 3, `did you mean "upper"?`},
		{"forbidden function", `<t:title w:value="now()"/>`, 3, `now`},
		{"too few arguments", `<t:title w:value="default(form.title)"/>`, 3, `takes 2 to 2 arguments`},
		{"syntax", `<t:title w:value="form.title +"/>`, 3, `does not parse`},
		{"a list as text", `<t:title w:value="form.words"/>`, 3, `is a list, not a text`},
		{"a repeat over a text", `<t:person w:for="p in form.title"><t:name>x</t:name></t:person>`, 3, `needs a list`},
		{"a condition that is none", `<t:title w:if="form.title">x</t:title>`, 3, `say has(`},
		{"a taken name", `<t:person w:for="form in form.persons"><t:name>x</t:name></t:person>`, 3, `is taken`},
		{"unknown element", `<t:titel>x</t:titel>`, 3, `did you mean "title"?`},
		{"unknown element in depth", `<t:person><t:nam>x</t:nam></t:person>`, 3, `did you mean "name"?`},
		{"qualified where unqualified", `<t:plain>x</t:plain>`, 3, `without a prefix`},
		{"unqualified where qualified", `<title>x</title>`, 3, `belongs to the namespace`},
		{"wrong order", "<t:person><t:born>2000-01-01</t:born>\n<t:name>x</t:name></t:person>", 4, `must stand before <t:born>`},
		{"twice", "<t:title>x</t:title>\n<t:title>y</t:title>", 4, `may stand once`},
		{"repeated what may stand once", `<t:title w:for="p in form.persons" w:value="p.name"/>`, 3, `may stand once`},
		{"both of a choice", "<t:left>x</t:left>\n<t:right>y</t:right>", 4, `exclude each other`},
		{"unknown attribute", `<t:person nrr="1"><t:name>x</t:name></t:person>`, 3, `did you mean "nr"?`},
		{"text where elements belong", `<t:person>x</t:person>`, 3, `holds elements, no text`},
		{"elements where text belongs", `<t:title><t:name>x</t:name></t:title>`, 3, `holds text, no elements`},
		{"missing required element", `<t:person><t:code list="x"/></t:person>`, 3, `needs <v>`},
		{"data where it is not allowed", `<t:person><w:data of="form"/></t:person>`, 3, `does not allow`},
		{"unknown directive", `<t:title w:vlaue="form.title"/>`, 3, `did you mean "value"?`},
		{"unknown language element", `<w:gruop><t:title>x</t:title></w:gruop>`, 3, `did you mean "group"?`},
		{"when outside", `<w:when w:if="form.ok"><t:title>x</t:title></w:when>`, 3, `outside of a choose`},
		{"undeclared prefix", `<x:title>x</x:title>`, 3, `not declared`},
		{"open brace", `<t:title>{form.title</t:title>`, 3, `without its`},
		{"not well-formed", `<t:title>`, 4, `not well-formed`},
		{"closures too deep", `<t:title w:if="any(form.persons, any(form.persons, any(form.persons, .name == 'x')))">x</t:title>`, 3, `closures nest deeper`},
	} {
		t.Run(c.name, func(t *testing.T) {
			refusedAt(t, c.body, std, form, c.line, c.want)
		})
	}
	t.Run("fixed attribute and missing element of the root", func(t *testing.T) {
		_, problems := compileMapping("m.xml", []byte(`<t:m.1 xmlns:t="urn:test:t" xmlns:w="urn:weiche:mapping:1" version="2"><t:title>x</t:title></t:m.1>`), std, form, nil)
		if text := problems.Error(); !strings.Contains(text, "fixed") || !strings.Contains(text, "needs <id>") {
			t.Error(text)
		}
	})
	t.Run("unknown message", func(t *testing.T) {
		_, problems := compileMapping("m.xml", []byte(`<t:m.2 xmlns:t="urn:test:t" xmlns:w="urn:weiche:mapping:1"/>`), std, form, nil)
		if text := problems.Error(); !strings.Contains(text, `did you mean "m.1"?`) {
			t.Error(text)
		}
	})
	t.Run("doctype", func(t *testing.T) {
		_, problems := compileMapping("m.xml", []byte(`<!DOCTYPE a><t:m.1 xmlns:t="urn:test:t"/>`), std, form, nil)
		if !problems.Failed() || !strings.Contains(problems.Error(), "DOCTYPE") {
			t.Error(problems)
		}
	})
}

// A message's own faults are permanent, name the place and repeat no value.
func TestFaultsOfOneMessageNameNoValue(t *testing.T) {
	std, form := testStandard(t), testFormSchema(t)
	for _, c := range []struct{ name, body, form string }{
		{"no date", `<t:title w:value="date(form.day)"/>`, `{"day":"KANARIE"}`},
		{"no number", `<t:title w:value="decimal(form.title)"/>`, `{"title":"KANARIE"}`},
		{"not in the table", `<t:title w:value="lookup(form.title, {'a': 'b'})"/>`, `{"title":"KANARIE"}`},
		{"no character of DIN 91379", `<t:title w:value="din91379(form.title)"/>`, `{"title":"KANARIE ☺"}`},
		{"nothing to be seen", `<t:title w:value="din91379(form.title)"/>`, `{"title":"\u200b","words":["KANARIE"]}`},
		{"no XML character", `<t:title w:value="form.title"/>`, `{"title":"KANARIE\u0000"}`},
		{"no XML character in an attribute", `<t:person nr="{form.title}"><t:name>x</t:name></t:person>`, `{"title":"KANARIE\uffff"}`},
		{"a list where the schema says text", `<t:title w:value="form.title"/>`, `{"title":["KANARIE"]}`},
		{"a text where the schema says list", `<t:person w:for="p in form.persons"><t:name>x</t:name></t:person>`, `{"persons":"KANARIE"}`},
		{"a text where the schema says number", `<t:title w:value="form.count + 1"/>`, `{"count":"KANARIE"}`},
		{"a number too large", `<t:title w:value="form.amount"/>`, `{"amount":1e999999999}`},
		{"required", `<t:title w:value="form.title" w:required="true"/>`, `{"words":["KANARIE"]}`},
		{"division by zero", `<t:title w:value="form.count / 0"/>`, `{"count":3}`},
		{"a huge range", `<t:title w:value="len(split(form.title, '')) + len(filter(form.persons, .name matches '(a+)+b'))"/>`, `{"persons":"KANARIE"}`},
		{"deep data", `<t:data><w:data of="form"/></t:data>`, strings.Repeat(`{"adr":{"up":`, 400) + `{"adr":{"town":"KANARIE"}}` + strings.Repeat(`}}`, 400)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, problems := compileMapping("m.xml", []byte(wrap(c.body)), std, form, nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			got, err := m.Apply(input(t, c.form))
			var f *fault.Error
			if !errors.As(err, &f) {
				t.Fatalf("got %s, %v", got, err)
			}
			if f.Class != fault.Permanent || f.Reason != fault.ReasonMappingFailed || !strings.Contains(f.Detail, "m.xml:3 <") {
				t.Errorf("got %v %v", f.Class, f)
			}
			if strings.Contains(fmt.Sprintf("%v %+v", err, errors.Unwrap(err)), "KANARIE") {
				t.Errorf("the fault repeats the form's value: %v", err)
			}
			// The pooled state is clean again.
			if _, err := m.Apply(input(t, `{}`)); err != nil && c.name != "required" && !strings.Contains(err.Error(), "list") {
				t.Logf("an empty form: %v", err)
			}
		})
	}
}

func TestApplyIsSafeForConcurrentUse(t *testing.T) {
	std, form := testStandard(t), testFormSchema(t)
	m, problems := compileMapping("m.xml", []byte(wrap(`<t:title w:value="upper(form.title)"/><t:person w:for="p in form.persons"><t:name w:value="p.name + '!'"/></t:person>`)), std, form, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	done := make(chan error)
	for g := range 4 {
		in := input(t, fmt.Sprintf(`{"title":"t%d","persons":[{"name":"p%d"}]}`, g, g))
		go func() {
			for range 200 {
				got, err := m.Apply(in)
				if err == nil && !strings.Contains(string(got), fmt.Sprintf("<t:title>T%d</t:title><t:person><t:name>p%d!</t:name>", g, g)) {
					err = fmt.Errorf("goroutine %d got %s", g, got)
				}
				if err == nil {
					err = std.Validate(got)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
