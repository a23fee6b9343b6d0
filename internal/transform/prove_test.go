package transform

import (
	"fmt"
	"strings"
	"testing"
)

const provenXSD = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:p" xmlns="urn:test:p" elementFormDefault="qualified">
  <xs:element name="m"><xs:complexType><xs:sequence>
    <xs:element name="title" type="xs:string"/>
    <xs:element name="party" type="Party" maxOccurs="3"/>
    <xs:element name="payer" type="Party" minOccurs="0"/>
    <xs:choice><xs:element name="cash" type="xs:string"/><xs:sequence><xs:element name="iban" type="xs:string"/><xs:element name="bic" type="xs:string" minOccurs="0"/></xs:sequence></xs:choice>
    <xs:element name="note" minOccurs="0"><xs:complexType><xs:sequence><xs:element name="text" type="xs:string"/><xs:element name="by" type="xs:string" minOccurs="0"/></xs:sequence><xs:attribute name="lang" use="required"/></xs:complexType></xs:element>
  </xs:sequence></xs:complexType></xs:element>
  <xs:complexType name="Party"><xs:choice>
    <xs:element name="person"><xs:complexType><xs:sequence><xs:element name="name" type="xs:string"/><xs:element name="first" type="xs:string" minOccurs="0"/></xs:sequence></xs:complexType></xs:element>
    <xs:element name="firm" type="xs:string"/></xs:choice></xs:complexType>
</xs:schema>`

// provenForm says what the proofs below stand on: of which fields there is always
// one, which exclude each other, how many there are.
const provenForm = `{"type": "object", "required": ["title", "parties", "pay", "many"], "properties": {
  "title": {"type": "string", "minLength": 1},
  "subtitle": {"type": "string", "minLength": 1},
  "blank": {"type": "string"},
  "by": {"type": "string", "minLength": 1},
  "parties": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/party"},
    "allOf": [{"contains": {"properties": {"roles": {"contains": {"const": "payer"}}}}, "minContains": 0, "maxContains": 1}]},
  "many": {"type": "array", "minItems": 1, "maxItems": 4, "items": {"$ref": "#/$defs/party"}},
  "loose": {"type": "array", "items": {"$ref": "#/$defs/party"}},
  "pay": {"enum": ["cash", "bank"]},
  "iban": {"type": "string", "minLength": 15}},
  "if": {"properties": {"pay": {"const": "bank"}}}, "then": {"required": ["iban"]},
  "$defs": {"party": {"type": "object", "required": ["roles"], "oneOf": [{"required": ["person"]}, {"required": ["firm"]}], "properties": {
    "roles": {"type": "array", "minItems": 1, "items": {"enum": ["payer", "owner"]}},
    "person": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "minLength": 1}, "first": {"type": "string", "minLength": 1}}},
    "firm": {"type": "string", "minLength": 1}}}}}`

const (
	goodTitle   = `<title w:value="form.title"/>` + "\n"
	partyBody   = `<person w:if="has(p.person)"><name w:value="p.person.name"/><first w:value="p.person.first"/></person><firm w:value="p.firm"/>`
	goodParties = `<party w:for="p in form.parties">` + partyBody + `</party>` + "\n"
	goodPay     = `<w:choose><w:when w:if="form.pay == 'bank'"><iban w:value="form.iban"/></w:when><w:otherwise><cash>yes</cash></w:otherwise></w:choose>` + "\n"
)

// What every form leads to is proven, what some form certainly breaks is refused
// at its line, and what depends on more is named.
func TestProof(t *testing.T) {
	std := standardOf(t, provenXSD)
	form, problems := ParseFormSchema("form.json", []byte(provenForm))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct {
		name, body string
		line       int    // of the problem or the open rule; 0: all is proven
		refused    string // what the problem says
		open       string // what the open rule says
	}{
		{name: "everything", body: goodTitle + goodParties + goodPay},
		{name: "an optional field where one is required", body: `<title w:value="form.subtitle"/>` + goodParties + goodPay,
			line: 2, refused: "<m> needs <title> before <party>, which is not so when form.subtitle is empty"},
		{name: "with what stands in for it", body: `<title w:value="default(form.subtitle, 'none')"/>` + goodParties + goodPay},
		{name: "a field that may be empty", body: `<title w:value="form.blank"/>` + goodParties + goodPay, line: 2, refused: "form.blank is empty"},
		{name: "said to be checked", body: `<title w:value="form.subtitle" w:required="true"/>` + goodParties + goodPay, line: 2, open: "<title> is never empty"},
		{name: "a conditional", body: `<title w:value="has(form.subtitle) ? form.subtitle : form.title"/>` + goodParties + goodPay},
		{name: "a let", body: `<w:group w:let="s = form.subtitle; u = default(s, form.title)"><title w:value="u"/></w:group>` + goodParties + goodPay},
		{name: "one branch without it", body: `<w:choose><w:when w:if="has(form.by)"><title w:value="form.by"/></w:when><w:otherwise><title w:value="form.subtitle"/></w:otherwise></w:choose>` + goodParties + goodPay,
			line: 2, refused: "needs <title> before <party>, which is not so when form.by is empty, form.subtitle is empty"},
		{name: "no branch for the rest", body: `<w:choose><w:when w:if="has(form.by)"><title>x</title></w:when></w:choose>` + goodParties + goodPay, line: 2, refused: "needs <title>"},
		{name: "a list that may be longer", body: goodTitle + `<party w:for="p in form.many">` + partyBody + `</party>` + goodPay,
			line: 3, refused: "<party> may not stand once more in <m>"},
		{name: "a list that may be absent", body: goodTitle + `<party w:for="p in form.loose" w:if="p_index &lt; 3">` + partyBody + `</party>` + goodPay, line: 3, refused: "<m> needs <party> before <iban>, which is not so when form.loose is empty"},
		{name: "one of an exclusive pair missing", body: goodTitle + `<party w:for="p in form.parties"><firm w:value="p.firm"/></party>` + goodPay,
			line: 3, refused: "needs <party> before <iban>, which is not so when p.firm is empty"},
		{name: "at most one by contains", body: goodTitle + goodParties + `<payer w:for="p in form.parties" w:if="'payer' in p.roles">` + partyBody + `</payer>` + goodPay},
		{name: "not at most one", body: goodTitle + goodParties + `<payer w:for="p in form.parties" w:if="'owner' in p.roles">` + partyBody + `</payer>` + goodPay,
			line: 4, refused: "<payer>"},
		{name: "a condition nothing is known of", body: goodTitle + goodParties + `<w:choose><w:when w:if="form.title startsWith 'A'"><iban w:value="form.title"/></w:when></w:choose>`,
			line: 1, open: "needs <cash> or <iban>"},
		{name: "the other way round", body: goodTitle + goodParties + `<w:choose><w:when w:if="form.pay == 'cash'"><iban w:value="form.iban"/></w:when><w:otherwise><cash>yes</cash></w:otherwise></w:choose>`,
			line: 1, refused: "needs <cash> or <iban>"},
		{name: "a required attribute", body: goodTitle + goodParties + goodPay + `<note lang="{form.by}"><text>x</text></note>`, line: 5, refused: `needs the attribute "lang"`},
		{name: "a required attribute under its condition", body: goodTitle + goodParties + goodPay + `<note w:if="has(form.by)" lang="{form.by}"><text>x</text></note>`},
		{name: "a group that vanishes with all of it", body: goodTitle + goodParties + goodPay + `<note lang="de"><text w:value="form.by"/></note>`},
		{name: "a group that stays without its first", body: goodTitle + goodParties + goodPay + `<note lang="de"><text w:value="form.subtitle"/><by w:value="form.by"/></note>`,
			line: 5, refused: "<note> needs <text> before <by>, which is not so when form.subtitle is empty"},
		{name: "left to the check by name", body: goodTitle + goodParties + goodPay + `<note lang="de" w:checked="the portal asks for both"><text w:value="form.subtitle"/><by w:value="form.by"/></note>`,
			line: 5, open: "<note> needs <text>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := fmt.Sprintf("<m xmlns=\"urn:test:p\" xmlns:w=\"urn:weiche:mapping:1\" w:unused=\"form\">\n%s</m>", c.body)
			m, problems := compileMapping("m.xml", []byte(raw), std, form, nil)
			switch {
			case c.refused != "":
				if m != nil {
					t.Fatalf("accepted, %+v", m.Proof())
				}
				if len(problems) != 1 || problems[0].Line != c.line || !strings.Contains(problems[0].Text, c.refused) {
					t.Errorf("got %v, want line %d: …%s…", problems, c.line, c.refused)
				}
			case m == nil:
				t.Fatal(problems)
			case c.open == "":
				if p := m.Proof(); len(p.Open) > 0 || p.Proven < 3 {
					t.Errorf("got %+v", p)
				}
			default:
				if p := m.Proof(); len(p.Open) != 1 || p.Open[0].Line != c.line || !strings.Contains(p.Open[0].Rule, c.open) || p.Open[0].Reason == "" {
					t.Errorf("got %+v, want line %d: %s", p, c.line, c.open)
				}
			}
		})
	}
}
