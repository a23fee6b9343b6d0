package transform

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// All that the compiler knows stands on the reference page and in an example that
// runs.
func TestTheReferenceIsWhole(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/mapping-language.md")
	if err != nil {
		t.Fatal(err)
	}
	var examples strings.Builder
	for _, c := range slices.Concat(constructs, fragmentUses, lookupUses, inlineUses) {
		examples.WriteString(wrap(c.body) + "\n")
	}
	examples.WriteString(fragmentOf("", ""))
	look := func(what, onPage, inExample string) {
		t.Helper()
		if !regexp.MustCompile(onPage).Match(page) {
			t.Errorf("the reference does not name %s", what)
		}
		if !regexp.MustCompile(inExample).MatchString(examples.String()) {
			t.Errorf("no example has %s", what)
		}
	}
	for _, name := range elements {
		look("<w:"+name+">", `w:`+name+`\b`, `<w:`+name+`\b`)
	}
	for _, name := range directiveNames {
		look("w:"+name, "`w:"+name+`=`, ` w:`+name+`="`)
	}
	for name := range maps.Keys(functions) {
		look(name, "`"+name+`\(`, `\b`+name+`\(`)
	}
	for name := range maps.Keys(tableKinds) {
		look(name, name+`\(`, `\b`+name+`\(`)
	}
	own := regexp.MustCompile("(?m)^expr's own: `([^`]*)`").FindSubmatch(page)
	if own == nil {
		t.Fatal("the reference has no list of expr's own functions")
	}
	for _, name := range allowedBuiltins {
		if !slices.Contains(strings.Fields(string(own[1])), name) {
			t.Errorf("the reference does not name %s", name)
		}
		look(name, name, `\b`+name+`\(`)
	}
	for _, name := range strings.Fields(string(own[1])) {
		if _, ours := functions[name]; !ours && !slices.Contains(allowedBuiltins, name) {
			t.Errorf("the reference names %s, which the compiler does not know", name)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(contextShapes())) {
		look(s, "- `"+s+"`", `\b`+s+`\b`)
	}
}
