package transform

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"weiche/internal/transform/standard"
)

// smallForm has names that antrag/1.0 has too.
const smallForm = `{"type": "object", "title": "Antrag auf einen Stand", "required": ["antragsteller"], "additionalProperties": false,
  "$defs": {"wort": {"type": "string", "minLength": 1, "maxLength": 80, "pattern": "^[A-Za-z0-9ÄÖÜäöüß][A-Za-z0-9ÄÖÜäöüß .-]*$"}},
  "properties": {
    "antragsteller": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "object", "additionalProperties": false,
      "oneOf": [{"required": ["person"]}, {"required": ["organisation"]}],
      "properties": {
        "person": {"type": "object", "additionalProperties": false, "required": ["Familienname"], "properties": {
          "Vorname": {"$ref": "#/$defs/wort"}, "Familienname": {"$ref": "#/$defs/wort"},
          "geburtstag": {"type": "string", "format": "date", "pattern": "^(19|20)", "title": "Geburtsdatum"},
          "staatsangehörigkeiten": {"type": "array", "items": {"$ref": "#/$defs/wort"}},
          "anschrift": {"type": "object", "additionalProperties": false, "properties": {"straße": {"$ref": "#/$defs/wort"}, "ort": {"$ref": "#/$defs/wort"}}}}},
        "organisation": {"type": "object", "additionalProperties": false, "required": ["name"], "properties": {"name": {"$ref": "#/$defs/wort"}}}}}},
    "lage": {"$ref": "#/$defs/wort"}}}`

func shippedAntrag(t *testing.T) *standard.Standard {
	t.Helper()
	installed, problems := standard.Open("../../config/standards")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s, ok := installed.Get("antrag", "1.0")
	if !ok {
		t.Fatal("antrag/1.0 is not there")
	}
	return s
}

func formOf(t *testing.T, raw string) *FormSchema {
	t.Helper()
	form, problems := ParseFormSchema("form.json", []byte(raw))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return form
}

// Where the names of a form fit, a draft is a proven mapping.
func TestDraftOfAFormWhoseNamesFit(t *testing.T) {
	std, form := shippedAntrag(t), formOf(t, smallForm)
	d, err := NewDraft(std, "antrag", form)
	if err != nil {
		t.Fatal(err)
	}
	m, problems := compileMapping("draft.xml", d.XML, std, form, nil)
	if m == nil || len(problems) > 0 || d.Missing > 0 || len(d.Unplaced) > 0 {
		t.Fatalf("%v, %d missing, %v without a place\n%s", problems, d.Missing, d.Unplaced, d.XML)
	}
	for _, want := range []string{
		`<antrag:antragsteller w:for="a in form.antragsteller">`, `<w:when w:if="has(a.person)">`,
		`<antrag:geburtsdatum w:value="date(a.person.geburtstag)"/>`,
		`<antrag:staatsangehoerigkeit w:for="s in a.person['staatsangehörigkeiten']" w:value="s"/>`,
		`<antrag:strasse w:value="a.person.anschrift['straße']"/>`,
		`<antrag:nachrichtenUUID w:value="message.id" w:required="true"/>`, `<antrag:code>0100</antrag:code>`,
		`<antrag:bezeichnung>Antrag auf einen Stand</antrag:bezeichnung>`, `<antrag:anlage w:for="datei in attachments">`,
	} {
		if !strings.Contains(string(d.XML), want) {
			t.Errorf("no %s in\n%s", want, d.XML)
		}
	}
}

const draftXSD = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:d" xmlns="urn:test:d">
  <xs:element name="nachricht.0001"><xs:complexType><xs:sequence>
    <xs:element name="fest" type="xs:string" fixed="a {b}"/>
    <xs:element name="kennzahl"><xs:simpleType><xs:restriction base="xs:string"><xs:minLength value="2"/><xs:maxLength value="5"/><xs:pattern value="[a-z]--[a-z]"/></xs:restriction></xs:simpleType></xs:element>
    <xs:choice><xs:element name="links" type="Knoten"/><xs:element name="mitte" type="xs:string"/><xs:element name="rechts" type="xs:string"/></xs:choice>
    <xs:element name="ast" type="Knoten" maxOccurs="unbounded"/>
    <xs:element name="betrag" type="xs:decimal"/>
    <xs:element name="leise" type="xs:string" minOccurs="0"/>
    <xs:element name="beteiligter" minOccurs="0" maxOccurs="9"><xs:complexType><xs:sequence><xs:element name="name" type="xs:string"/></xs:sequence></xs:complexType></xs:element>
    <xs:choice minOccurs="0"><xs:element name="hier" type="xs:string"/><xs:element name="dort" type="xs:string"/></xs:choice>
  </xs:sequence><xs:attribute name="stand" type="xs:date" use="required"/><xs:attribute name="art" use="required" fixed="x"/></xs:complexType></xs:element>
  <xs:complexType name="Knoten"><xs:sequence><xs:element name="wert" type="xs:string"/><xs:element name="unter" type="Knoten" minOccurs="0"/><xs:element name="neben"><xs:complexType><xs:choice><xs:element name="zurueck" type="Knoten"/><xs:element name="ende" type="xs:string"/></xs:choice></xs:complexType></xs:element></xs:sequence></xs:complexType>
</xs:schema>`

// What is fixed is written, what is missing is named with its type, types that
// hold themselves come to an end, and what may be left out is there only where a
// field has its name.
func TestDraftNamesWhatIsMissing(t *testing.T) {
	std := standardOf(t, draftXSD)
	form := formOf(t, `{"type": "object", "properties": {"mitte": {"type": "string"}, "betrag": {"type": "string"}, "dort": {"type": "string"}, "ganz -- anders": {"type": "string"},
		"leute": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "rolle": {"enum": ["beteiligte", "zeuge"]}}}}}}`)
	d, err := NewDraft(std, "nachricht.0001", form)
	if err != nil {
		t.Fatal(err)
	}
	text := string(d.XML)
	for _, want := range []string{
		`<fest>a {{b}}</fest>`, `<!-- missing: <kennzahl> is required: string, at least 2 characters, at most 5 characters, pattern [a-z]- -[a-z] -->`,
		"<!-- or <links> (Knoten) -->", `<mitte w:value="form.mitte"/>`, `<!-- missing: <betrag> is required: decimal -->`, `needs the attribute stand: date`,
		`<beteiligter w:for="l in form.leute" w:if="l.rolle == 'beteiligte'"><name w:value="l.name"/></beteiligter>`, `<dort w:value="form.dort"/>`,
		"form.ganz - - anders", `art="x"`, `<!-- missing: <wert> is required`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, no := range []string{"<leise", "<unter", "<zurueck w", "<hier w"} {
		if strings.Contains(text, no) {
			t.Errorf("%s is there", no)
		}
	}
	if want := []string{"form.betrag", "form.ganz -- anders"}; !slices.Equal(d.Unplaced, want) {
		t.Errorf("without a place: %v", d.Unplaced)
	}
	_, problems := compileMapping("draft.xml", d.XML, std, form, nil)
	said := problems.Error()
	for _, want := range []string{"needs <kennzahl>", "needs <wert>", "needs <betrag>", `needs the attribute "stand"`, "the field form.betrag is mapped nowhere"} {
		if !strings.Contains(said, want) {
			t.Errorf("the check does not say %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s", said, text)
	}
}

func TestDraftOfAnUnknownMessage(t *testing.T) {
	_, err := NewDraft(shippedAntrag(t), "antrga", formOf(t, smallForm))
	var unknown *MessageError
	if !errors.As(err, &unknown) || !slices.Equal(unknown.Near, []string{"antrag"}) || err.Error() != `antrag/1.0 has no message "antrga"; the nearest are antrag` {
		t.Errorf("got %v", err)
	}
}

// Names are likely or not by what they say and by the groups they stand in.
func TestLikeness(t *testing.T) {
	for _, c := range []struct {
		element, field, title string
		path                  string
		least, most           int
	}{
		{"strasse", "straße", "", "m anschrift", 95, 100},
		{"familienname", "nachname", "Familienname", "m person", 95, 100},
		{"antragsteller", "antragsteller", "", "m", 100, 100},
		{"flurstueck", "flurstuecke", "", "m", 90, 95},
		{"bezeichnungDesBauvorhabens", "bezeichnung", "", "m bauvorhaben", 84, 90},
		{"natuerlichePerson", "person", "", "m", 55, 69},
		{"anlageart", "art", "", "m anlage", 84, 95},
		{"ort", "anschrift.ort", "", "m anschrift", 90, 100},
		{"ort", "betrieb.ort", "", "m anschrift", 0, 69},
		{"bezeichnung", "bezeichnung", "", "m a b c d gemarkung", 0, 69},
		{"vorname", "familienname", "", "m", 0, 69},
		{"datum", "ort", "", "m", 0, 0},
	} {
		path := append(strings.Fields(c.path), fold(c.element))
		scope := draftScope{expr: "form", depth: 1}
		got := scope.likeness(c.element, draftMember{names: strings.Split(c.field, "."), title: c.title}, path)
		if got < c.least || got > c.most {
			t.Errorf("%s and %s: %d, want %d to %d", c.element, c.field, got, c.least, c.most)
		}
	}
}
