package catalog_test

import (
	"os"
	"path/filepath"
	"testing"

	"weiche/internal/xmljudge"
)

// What the shipped services write is valid for libxml2 and for Xerces, and clean
// by the Schematron rules that its standard publishes.
func TestShippedMessagesPassForeignJudges(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a JVM")
	}
	c := shipped(t)
	own := official{key: "antrag/1.0", schema: "../../config/standards/antrag/1.0/antrag.xsd"}
	standards := map[string]official{own.key: own}
	for _, o := range officials {
		o.schema = shared(t, o.schema)
		standards[o.key] = o
	}
	places := shared(t, "standards/catalog/catalog.xml")
	judge := xmljudge.Start(t)
	judged := map[string]int{}
	for _, p := range c.Processes() {
		for _, r := range p.Run(false) {
			if r.Format.BuiltIn() {
				continue // no XML
			}
			t.Run(r.Process+"/"+r.Example+"/"+r.Format.String(), func(t *testing.T) {
				key := r.Format.Standard + "/" + r.Format.Version
				o, known := standards[key]
				if !r.OK() || r.XML == nil || !known {
					t.Fatalf("no message to judge: %v", r.Faults)
				}
				judged[key]++
				file := filepath.Join(t.TempDir(), "m.xml")
				if err := os.WriteFile(file, r.XML, 0o600); err != nil {
					t.Fatal(err)
				}
				if said, ok := xmljudge.Xmllint(t, o.schema, places, file); !ok {
					t.Errorf("libxml2: %s", said)
				}
				if faults := judge.Validate(t, o.schema, places, file); len(faults) > 0 {
					t.Errorf("Xerces: %q", faults)
				}
				for _, rules := range o.rules {
					if faults := judge.Schematron(t, shared(t, rules), file); len(faults) > 0 {
						t.Errorf("%s: %q", rules, faults)
					}
				}
			})
		}
	}
	for key := range standards {
		if judged[key] == 0 {
			t.Errorf("no message of %s was judged", key)
		}
	}
}
