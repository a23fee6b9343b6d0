package xmljudge

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestJudgesAgreeOnTheSimplestCase(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	schema := write("a.xsd", `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="a" type="xs:int"/></xs:schema>`)
	rules := write("a.sch", `<schema xmlns="http://purl.oclc.org/dsdl/schematron" queryBinding="xslt2"><pattern><rule context="a"><assert id="small" test=". &lt; 10">x</assert></rule></pattern></schema>`)
	j := Start(t)
	for text, want := range map[string]struct{ valid, clean bool }{
		"<a>1</a>": {true, true}, "<a>11</a>": {true, false}, "<a>x</a>": {false, true}, "<a>": {false, true}, "<b/>": {false, true},
	} {
		file := write("m.xml", text)
		if _, ok := Xmllint(t, schema, "", file); ok != want.valid {
			t.Errorf("%s: xmllint says %v", text, ok)
		}
		if faults := j.Validate(t, schema, "", file); (len(faults) == 0) != want.valid {
			t.Errorf("%s: Xerces says %q", text, faults)
		}
		if !want.valid {
			continue
		}
		if faults := j.Schematron(t, rules, file); (len(faults) == 0) != want.clean || len(faults) > 0 && !slices.Contains(faults, "small at /Q{}a[1]") {
			t.Errorf("%s: SchXslt says %q", text, faults)
		}
	}
}
