package transform

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weiche/internal/transform/standard"
)

const valuesXSD = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:v" xmlns="urn:test:v" elementFormDefault="qualified">
  <xs:simpleType name="Line"><xs:restriction base="xs:token"><xs:minLength value="1"/><xs:maxLength value="10"/><xs:pattern value="[ -~ä-ü]*"/></xs:restriction></xs:simpleType>
  <xs:simpleType name="Kind"><xs:restriction base="xs:token"><xs:enumeration value="a"/><xs:enumeration value="b"/></xs:restriction></xs:simpleType>
  <xs:simpleType name="Percent"><xs:restriction base="xs:decimal"><xs:minInclusive value="0"/><xs:maxInclusive value="100"/><xs:fractionDigits value="2"/></xs:restriction></xs:simpleType>
  <xs:simpleType name="Post"><xs:restriction base="xs:string"><xs:pattern value="\d{5}"/></xs:restriction></xs:simpleType>
  <xs:element name="m"><xs:complexType><xs:sequence>
    <xs:element name="line" type="Line" minOccurs="0"/><xs:element name="kind" type="Kind" minOccurs="0"/><xs:element name="count" type="xs:int" minOccurs="0"/>
    <xs:element name="percent" type="Percent" minOccurs="0"/><xs:element name="day" type="xs:date" minOccurs="0"/><xs:element name="at" type="xs:dateTime" minOccurs="0"/>
    <xs:element name="flag" type="xs:boolean" minOccurs="0"/><xs:element name="post" type="Post" minOccurs="0"/><xs:element name="one" type="xs:string" fixed="1" minOccurs="0"/>
    <xs:element name="any" type="xs:string" minOccurs="0"/>
  </xs:sequence><xs:attribute name="kind" type="Kind"/></xs:complexType></xs:element>
</xs:schema>`

const valuesForm = `{"type": "object", "properties": {
  "line": {"type": "string", "maxLength": 10, "pattern": "^[A-Za-zäöü ]*$", "minLength": 1, "allOf": [{"pattern": "\\S"}]},
  "blank": {"type": "string", "maxLength": 10, "pattern": "^[a-z ]*$"},
  "long": {"type": "string", "maxLength": 11, "pattern": "^[a-z]+$"},
  "longer": {"type": "string", "pattern": "^[a-z]+$"},
  "greek": {"type": "string", "maxLength": 10, "pattern": "^[a-zα-ω]+$"},
  "free": {"type": "string"},
  "notDigit": {"type": "string", "maxLength": 10, "pattern": "^[a-z0-9]+$", "not": {"pattern": "[0-9]"}},
  "ab": {"enum": ["a", "b"]}, "abc": {"enum": ["a", "b", "c"]}, "titled": {"oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]},
  "count": {"type": "integer", "minimum": 0, "maximum": 100}, "huge": {"type": "integer"},
  "share": {"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01}, "over": {"type": "number", "minimum": 0, "maximum": 100.5, "multipleOf": 0.01}, "fine": {"type": "number", "minimum": 0, "maximum": 100},
  "day": {"type": "string", "format": "date", "pattern": "^(19|20)"}, "old": {"type": "string", "format": "date"}, "time": {"type": "string", "format": "date-time"},
  "flag": {"type": "boolean"},
  "post": {"type": "string", "pattern": "^[0-9]{5}$"}, "posts": {"type": "string", "pattern": "^[0-9]{4,5}$"}, "within": {"type": "string", "pattern": "[0-9]{5}"}}}`

// The form's schema is no wider than the types of its targets: proven, refused
// with a text that shows it, or named.
func TestValuesAreProvenAgainstFacets(t *testing.T) {
	std := standardOf(t, valuesXSD)
	form, problems := ParseFormSchema("form.json", []byte(valuesForm))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct{ body, refused, open string }{
		{body: `<line w:value="form.line"/>`},
		{body: `<line w:value="form.notDigit"/>`},
		{body: `<line w:value="form.blank"/>`, refused: `it allows " " in form.blank`}, // nothing is left of it in a token
		{body: `<line w:value="form.long"/>`, refused: `"aaaaaaaaaaa" in form.long`},
		{body: `<line w:value="form.longer"/>`, refused: `in form.longer`},
		{body: `<line w:value="form.greek"/>`, refused: `"α"`},
		{body: `<line w:value="form.free"/>`, refused: `in form.free`},
		{body: `<line w:value="form.free" w:checked="the portal sees to it"/>`, open: "the portal sees to it"},
		{body: `<line w:value="default(form.line, 'none')"/>`},
		{body: `<line w:value="default(form.line, 'none of all these')"/>`, refused: `"none of all these"`},
		{body: `<line w:value="form.free matches '^[a-z]{1,9}$' ? form.free : 'x'"/>`},
		{body: `<line>{form.ab}-{form.ab}</line>`},
		{body: `<line w:value="upper(form.line)"/>`, open: "nothing is known of upper(form.line)"},
		{body: `<line>far too long a text</line>`, refused: `"far too long a text"`},
		{body: `<line w:value="form.line" w:keep="true"/>`, refused: `"" is no value`},
		{body: `<kind w:value="form.ab"/>`},
		{body: `<kind w:value="form.titled"/>`},
		{body: `<kind w:value="form.abc"/>`, refused: `it allows "c" in form.abc`},
		{body: `<kind w:value="lookup(form.abc, {'a': 'a', 'b': 'b', 'c': 'b'})"/>`},
		{body: `<kind w:value="lookup(form.abc, {'a': 'a', 'b': 'b', 'c': 'C'})"/>`, refused: `"C" is no value`},
		{body: `<kind w:value="form.line"/>`, refused: `in form.line`},
		{body: `<count w:value="decimal(form.count, 0)"/>`},
		{body: `<count w:value="form.count"/>`, refused: `write decimal(`},
		{body: `<count w:value="decimal(form.huge, 0)"/>`, refused: `in form.huge`},
		{body: `<count w:value="form.line"/>`, refused: `in form.line`},
		{body: `<percent w:value="form.share"/>`},
		{body: `<percent w:value="decimal(form.fine, 2)"/>`},
		{body: `<percent w:value="form.fine"/>`, refused: `in form.fine`},
		{body: `<percent w:value="form.over"/>`, refused: `it allows "100.5" in form.over`},
		{body: `<day w:value="form.day"/>`},
		{body: `<day w:value="date(form.day)"/>`},
		{body: `<day w:value="form.old"/>`},
		{body: `<day w:value="form.line"/>`, refused: `in form.line`},
		{body: `<day w:value="message.createdAt"/>`, refused: `T10:15:30`},
		{body: `<at w:value="datetime(form.day)"/>`},
		{body: `<at w:value="form.time"/>`, open: "write datetime(form.time)"},
		{body: `<flag w:value="form.flag"/>`},
		{body: `<flag w:value="form.ab"/>`, refused: `"a" in form.ab`},
		{body: `<post w:value="form.post"/>`},
		{body: `<post w:value="form.posts"/>`, refused: `"0000" in form.posts`},
		{body: `<post w:value="form.within"/>`, refused: `in form.within`},
		{body: `<one>1</one>`},
		{body: `<one>2</one>`, refused: `is fixed to "1"`},
		{body: `<one w:value="form.ab"/>`, refused: `is fixed to "1"`},
		{body: `<any w:value="form.free"/>`},
	} {
		t.Run(c.body, func(t *testing.T) {
			raw := fmt.Sprintf("<m xmlns=\"urn:test:v\" xmlns:w=\"urn:weiche:mapping:1\" w:unused=\"form\">\n%s</m>", c.body)
			m, problems := compileMapping("m.xml", []byte(raw), std, form, nil)
			switch {
			case c.refused != "":
				if m != nil {
					t.Fatalf("accepted, %+v", m.Proof())
				}
				if len(problems) != 1 || problems[0].Line != 2 || !strings.Contains(problems[0].Text, c.refused) {
					t.Errorf("got %v, want line 2: …%s…", problems, c.refused)
				}
			case m == nil:
				t.Fatal(problems)
			case c.open == "":
				if !m.Settled() {
					t.Errorf("got %+v", m.Proof())
				}
			case len(m.Proof().Open) != 1 || !strings.Contains(m.Proof().Open[0].Reason, c.open):
				t.Errorf("got %+v, want …%s…", m.Proof(), c.open)
			}
		})
	}
}

const codedXSD = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:c" xmlns="urn:test:c" elementFormDefault="qualified">
  <xs:element name="m"><xs:complexType><xs:sequence>
    <xs:element name="medium"><xs:complexType><xs:sequence><xs:element name="code" type="xs:token"/></xs:sequence><xs:attribute name="listURI"/><xs:attribute name="listVersionID"/></xs:complexType></xs:element>
  </xs:sequence></xs:complexType></xs:element></xs:schema>`

const codedList = `<gc:CodeList xmlns:gc="http://docs.oasis-open.org/codelist/ns/genericode/1.0/"><Identification><ShortName>medium</ShortName><Version>1.0</Version>
  <CanonicalUri>urn:test:codeliste:medium</CanonicalUri></Identification>
  <ColumnSet><Column Id="code" Use="required"><ShortName>code</ShortName><Data Type="string"/></Column><Key Id="k"><ShortName>k</ShortName><ColumnRef Ref="code"/></Key></ColumnSet>
  <SimpleCodeList><Row><Value ColumnRef="code"><SimpleValue>paper</SimpleValue></Value></Row><Row><Value ColumnRef="code"><SimpleValue>file</SimpleValue></Value></Row></SimpleCodeList></gc:CodeList>`

// A code list that the standard has is used as it is: a misspelt one, a version it
// does not have and a code that is not in it are refused where they stand.
func TestCodeListsOfMappings(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "c", "1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"c.xsd": codedXSD, "medium.xml": codedList,
		"standard.yaml": "name: c\nversion: \"1\"\nlicence: none stated\nschemas: [c.xsd]\ncodelists: [{uri: \"urn:test:codeliste:medium\", version: \"1.0\", file: medium.xml}]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	installed, problems := standard.Open(root)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	std, _ := installed.Get("c", "1")
	form, problems := ParseFormSchema("form.json", []byte(`{"type": "object", "required": ["on"], "properties": {"on": {"enum": ["paper", "file"]}}}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct{ name, uri, version, code, refused string }{
		{"a code of the list", "urn:test:codeliste:medium", "1.0", ` w:value="form.on"/>`, ""},
		{"a code that the list does not have", "urn:test:codeliste:medium", "1.0", `>film</code>`, `"film" is no code of urn:test:codeliste:medium, version 1.0`},
		{"another version", "urn:test:codeliste:medium", "2.0", ` w:value="form.on"/>`, `has no version "2.0"; the standard comes with 1.0`},
		{"a misspelt list", "urn:test:codeliste:mediun", "1.0", ` w:value="form.on"/>`, `there is no code list "urn:test:codeliste:mediun"; did you mean "urn:test:codeliste:medium"?`},
		{"somebody else's list", "urn:elsewhere:list", "7", ` w:value="form.on"/>`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := fmt.Sprintf("<m xmlns=\"urn:test:c\" xmlns:w=\"urn:weiche:mapping:1\" w:unused=\"form\">\n<medium listURI=%q listVersionID=%q><code%s</medium></m>", c.uri, c.version, c.code)
			m, problems := compileMapping("m.xml", []byte(raw), std, form, nil)
			if c.refused == "" {
				if m == nil {
					t.Error(problems)
				}
				return
			}
			if m != nil || len(problems) != 1 || problems[0].Line != 2 || !strings.Contains(problems[0].Text, c.refused) {
				t.Errorf("got %v, want line 2: …%s…", problems, c.refused)
			}
		})
	}
}
