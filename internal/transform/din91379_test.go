package transform

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Of each character, alone and behind a letter, it is said what becomes of it: a
// text of the data type C, not longer than before, or an error.
func TestDIN91379OfEveryCharacter(t *testing.T) {
	kept := 0
	for r := range rune(utf8.MaxRune + 1) {
		if !utf8.ValidRune(r) {
			continue
		}
		for _, s := range []string{string(r), "K" + string(r)} {
			v, err := din91379Text(s)
			if err != nil {
				continue
			}
			kept++
			checkDIN91379(t, s, v)
		}
	}
	if kept < 1300 {
		t.Errorf("%d texts are kept", kept)
	}
}

func checkDIN91379(t *testing.T, from string, v any) {
	t.Helper()
	s, _ := v.(string)
	if s == "" || !norm.NFC.IsNormalString(s) || !din91379.MatchString(s) || utf8.RuneCountInString(s) > utf8.RuneCountInString(from) {
		t.Errorf("%q becomes %q", from, s)
	}
	if again, err := din91379Text(s); err != nil || again != s {
		t.Errorf("%q becomes %q, and that %q (%v)", from, s, again, err)
	}
}

func TestDIN91379(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "",
		"Müller":               "Müller",
		"Mu\u0308ller":         "Müller",
		"A\u00adB\u200b\ufeff": "AB",
		"a\u2003b\u00a0c":      "a b\u00a0c",
		"a\u2028b\tc\r\n":      "a\nb\tc\r\n",
		"s\u0323\u0304":        "ṣ\u0304",
		"Ł’€":                  "Ł’€",
		"\u212bngström":        "Ångström",
	} {
		if got, err := din91379Text(in); err != nil || got != want {
			t.Errorf("%q becomes %q (%v), not %q", in, got, err, want)
		}
	}
	for _, in := range []string{"\u200b", "Жук", "α", "☺", "„x“", "ﬁ", "e\u0489"} {
		if got, err := din91379Text(in); err == nil {
			t.Errorf("%q becomes %q", in, got)
		}
	}
	if got, err := din91379Text(nil); err != nil || got != "" {
		t.Errorf("nothing becomes %q (%v)", got, err)
	}
}

// A form's text is proven to fit a target of the data type C as long as the
// target is.
func TestDIN91379IsProven(t *testing.T) {
	std := standardOf(t, strings.Replace(`<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:v" xmlns="urn:test:v" elementFormDefault="qualified">
  <xs:element name="m"><xs:complexType><xs:sequence><xs:element name="c"><xs:simpleType><xs:restriction base="xs:string"><xs:maxLength value="9"/><xs:pattern value="PATTERN"/></xs:restriction></xs:simpleType></xs:element>
  </xs:sequence></xs:complexType></xs:element></xs:schema>`, "PATTERN", xsdPattern(), 1))
	form, problems := ParseFormSchema("form.json", []byte(`{"type": "object", "required": ["nine", "ten"], "properties": {"nine": {"type": "string", "minLength": 1, "maxLength": 9}, "ten": {"type": "string", "minLength": 1, "maxLength": 10}}}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct{ value, refused string }{
		{"din91379(form.nine)", ""},
		{"form.nine", "in form.nine"},
		{"din91379(form.ten)", "in form.ten"},
	} {
		raw := fmt.Sprintf("<m xmlns=\"urn:test:v\" xmlns:w=\"urn:weiche:mapping:1\" w:unused=\"form\">\n<c w:value=%q/></m>", c.value)
		m, problems := compileMapping("m.xml", []byte(raw), std, form, nil)
		switch {
		case c.refused == "" && (m == nil || !m.Settled()):
			t.Errorf("%s: %v", c.value, problems)
		case c.refused != "" && (m != nil || !strings.Contains(problems[0].Text, c.refused)):
			t.Errorf("%s: %v", c.value, problems)
		}
	}
}

// xsdPattern is the pattern as XML Schema writes it: anchored by itself.
func xsdPattern() string {
	var out strings.Builder
	s := strings.TrimSuffix(strings.TrimPrefix(din91379Pattern, "^(?:"), ")*$")
	for {
		at := strings.Index(s, `\x{`)
		if at < 0 {
			break
		}
		out.WriteString(s[:at])
		fmt.Fprintf(&out, "&#x%s;", s[at+3:at+7])
		s = s[at+8:]
	}
	return "(" + out.String() + s + ")*"
}

func FuzzDIN91379(f *testing.F) {
	for _, s := range []string{"Mu\u0308ller", "\u0344", "K\u0302", "\u200b", "a\u2028", "\xff", "ﬁ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := din91379Text(s); err == nil && s != "" {
			checkDIN91379(t, s, v)
		}
	})
}
