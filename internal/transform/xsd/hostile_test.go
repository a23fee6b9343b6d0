package xsd

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// rows writes a format once for each number up to n, with the number and the one
// before it.
func rows(n int, format string) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		b.WriteString(strings.NewReplacer("{i}", fmt.Sprint(i), "{h}", fmt.Sprint(i-1)).Replace(format) + "\n")
	}
	return b.String()
}

// hostile are schemas that would take all time or memory, did the compiler not
// count its steps.
var hostile = map[string]string{
	"groups that double": `<xs:group name="g0"><xs:sequence/></xs:group>` + rows(90, `<xs:group name="g{i}"><xs:sequence><xs:group ref="g{h}"/><xs:group ref="g{h}"/></xs:sequence></xs:group>`),
	"elements that double": `<xs:group name="g0"><xs:sequence><xs:element name="e"/></xs:sequence></xs:group>` +
		rows(90, `<xs:group name="g{i}"><xs:sequence><xs:group ref="g{h}"/><xs:group ref="g{h}"/></xs:sequence></xs:group>`),
	"a group in itself":            `<xs:group name="g"><xs:sequence><xs:group ref="g"/></xs:sequence></xs:group>`,
	"attribute groups":             `<xs:attributeGroup name="g0"/>` + rows(90, `<xs:attributeGroup name="g{i}"><xs:attributeGroup ref="g{h}"/><xs:attributeGroup ref="g{h}"/></xs:attributeGroup>`),
	"an attribute group in itself": `<xs:attributeGroup name="g"><xs:attributeGroup ref="g"/></xs:attributeGroup>`,
	"empty sequences without end":  `<xs:element name="r"><xs:complexType><xs:sequence maxOccurs="2000000000"><xs:sequence maxOccurs="2000000000"/></xs:sequence></xs:complexType></xs:element>`,
	"sequences within sequences":   `<xs:element name="r"><xs:complexType>` + strings.Repeat(`<xs:sequence minOccurs="3" maxOccurs="9">`, 40) + `<xs:element name="e"/>` + strings.Repeat(`</xs:sequence>`, 40) + `</xs:complexType></xs:element>`,
	"an automaton of all sets": `<xs:element name="r"><xs:complexType><xs:sequence><xs:choice minOccurs="0" maxOccurs="unbounded"><xs:element name="a" type="xs:int"/><xs:element name="b" type="xs:int"/></xs:choice><xs:element name="a" type="xs:int"/>` +
		strings.Repeat(`<xs:choice><xs:element name="a" type="xs:int"/><xs:element name="b" type="xs:int"/></xs:choice>`, 40) + `</xs:sequence></xs:complexType></xs:element>`,
	"types upon types":        `<xs:simpleType name="t0"><xs:restriction base="xs:string"/></xs:simpleType>` + rows(5000, `<xs:simpleType name="t{i}"><xs:restriction base="t{h}"><xs:pattern value="a"/></xs:restriction></xs:simpleType>`) + `<xs:element name="r" type="t5000"/>`,
	"types downwards":         rows(5000, `<xs:simpleType name="t{h}"><xs:restriction base="t{i}"/></xs:simpleType>`) + `<xs:simpleType name="t5000"><xs:restriction base="xs:string"/></xs:simpleType>`,
	"complex types downwards": rows(5000, `<xs:complexType name="t{h}"><xs:complexContent><xs:extension base="t{i}"><xs:attribute name="a{i}"/></xs:extension></xs:complexContent></xs:complexType>`) + `<xs:complexType name="t5000"/>`,
	"heads of heads":          rows(5000, `<xs:element name="e{h}" substitutionGroup="e{i}"/>`) + `<xs:element name="e5000"/>`,
	"unions of unions": `<xs:simpleType name="u0"><xs:restriction><xs:simpleType><xs:union memberTypes="xs:int xs:date"/></xs:simpleType><xs:pattern value="."/></xs:restriction></xs:simpleType>` +
		rows(60, `<xs:simpleType name="u{i}"><xs:restriction><xs:simpleType><xs:union memberTypes="u{h} u{h}"/></xs:simpleType><xs:pattern value="."/></xs:restriction></xs:simpleType>`),
	"members in every place":   `<xs:element name="h"/>` + rows(3000, `<xs:element name="e{i}" substitutionGroup="h"/><xs:complexType name="t{i}"><xs:sequence><xs:element ref="h"/><xs:element ref="h"/></xs:sequence></xs:complexType>`),
	"patterns that repeat":     rows(400, `<xs:simpleType name="t{i}"><xs:restriction base="xs:string"><xs:pattern value="[a-{{i}]{1,9000}"/></xs:restriction></xs:simpleType>`),
	"patterns of nothing":      `<xs:simpleType name="t"><xs:restriction base="xs:string"><xs:pattern value="(((){20000}){20000}){20000}"/></xs:restriction></xs:simpleType>`,
	"a billion occurrences":    `<xs:element name="r"><xs:complexType><xs:sequence minOccurs="1000000000" maxOccurs="1000000000"><xs:element name="e"/></xs:sequence></xs:complexType></xs:element>`,
	"a type of itself":         `<xs:simpleType name="t"><xs:restriction base="t"/></xs:simpleType>`,
	"a list of itself":         `<xs:simpleType name="t"><xs:list itemType="t"/></xs:simpleType>`,
	"a union of itself":        `<xs:simpleType name="t"><xs:union memberTypes="t"/></xs:simpleType>`,
	"a complex type of itself": `<xs:complexType name="t"><xs:complexContent><xs:extension base="u"/></xs:complexContent></xs:complexType><xs:complexType name="u"><xs:complexContent><xs:extension base="t"/></xs:complexContent></xs:complexType>`,
	"a head of itself":         `<xs:element name="a" substitutionGroup="b"/><xs:element name="b" substitutionGroup="a"/>`,
	"elements without end":     rows(1_100_000/100, strings.Repeat(`<xs:notation name="n" public="p"/>`, 100)),
	"annotations in depth":     strings.Repeat("<xs:annotation>", 200) + strings.Repeat("</xs:annotation>", 200),
	"a long name":              `<xs:element ` + strings.Repeat("n", 1<<20) + `="1"/>`,
	"entities":                 `<!ENTITY x "y">`,
}

func TestHostileSchemas(t *testing.T) {
	for name, body := range hostile {
		t.Run(name, func(t *testing.T) {
			source := `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">` + body + `</xs:schema>`
			_, err := Compile(fstest.MapFS{"s.xsd": {Data: []byte(source)}}, []string{"s.xsd"}, nil)
			var ce *CompileError
			if !errors.As(err, &ce) || ce.Line < 1 || ce.File != "s.xsd" || len(ce.Text) > 600 {
				t.Fatalf("%v", err)
			}
			t.Log(err)
		})
	}
}

// TestManyPatterns: beyond a bound patterns are simulated, and match as before.
func TestManyPatterns(t *testing.T) {
	budget := newPatternBudget()
	budget.table = 1000
	for i := range 20 {
		p, err := compilePattern(fmt.Sprintf(`(a|b)*a(a|b){%d}`, i), budget)
		if err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]bool{"a" + strings.Repeat("b", i): true, "ba" + strings.Repeat("a", i): true, "b" + strings.Repeat("b", i): false, "": false, "a" + strings.Repeat("c", i+1): false} {
			if p.match([]byte(text)) != want {
				t.Errorf("%s on %s: not %v", p.text, text, want)
			}
		}
	}
	if budget.table >= 0 {
		t.Error("no pattern was simulated")
	}
}

// TestSchemaLimitsLeaveRoom: official standards stay far from the bounds.
func TestSchemaLimitsLeaveRoom(t *testing.T) {
	for _, s := range official {
		c := compilerOf(t, s.name)
		if _, err := c.compile(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d steps, %d elements, %d instructions of patterns, %d entries of tables", s.name, c.effort, c.read, 1_000_000-c.budget.instructions, 32<<20-c.budget.table)
		if c.effort > maxEffort/20 || c.read > maxNodes/20 || c.budget.instructions < 800_000 || c.budget.table < 16<<20 || c.budget.work < 100_000_000 {
			t.Errorf("%s is near the bounds", s.name)
		}
	}
}
