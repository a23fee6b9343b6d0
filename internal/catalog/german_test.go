package catalog

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// Every sentence about a form exists in both languages, with the same verbs.
func TestEverySentenceIsGermanToo(t *testing.T) {
	src, err := os.ReadFile("form.go")
	if err != nil {
		t.Fatal(err)
	}
	verbs := regexp.MustCompile(`%[a-z]`)
	said := regexp.MustCompile(`c\.add\(.*?, ("(?:[^"\\]|\\.)*")`).FindAllStringSubmatch(string(src), -1)
	if len(said) < 25 {
		t.Fatalf("only %d sentences found in form.go", len(said))
	}
	for _, m := range said {
		en, err := strconv.Unquote(m[1])
		if err != nil {
			t.Fatal(err)
		}
		de, ok := german[en]
		if !ok {
			t.Errorf("no German for %q", en)
		} else if !slices.Equal(verbs.FindAllString(en, -1), verbs.FindAllString(de, -1)) {
			t.Errorf("%q and %q have other verbs", en, de)
		}
	}
}
