package catalog_test

import (
	"os"
	"path/filepath"
	"testing"

	"weiche/internal/catalog"
	"weiche/internal/transform/standard"
	"weiche/internal/xmljudge"
)

// What the shipped services write is valid for libxml2 and for Xerces, and clean
// by the Schematron rules that XBau publishes.
func TestShippedMessagesPassForeignJudges(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a JVM")
	}
	installed := t.TempDir()
	with := []string{shared(t, "codelists/xbau-2.6"), shared(t, "schematron/xbau-2.6")}
	if _, err := standard.Import(t.Context(), shared(t, "standards/xbau/2.6"), installed, with); err != nil {
		t.Fatal(err)
	}
	if _, err := standard.Import(t.Context(), shared(t, "codelists/dvdv/dvdv.praefix_51.xml"), installed, nil); err != nil {
		t.Fatal(err)
	}
	std, problems := standard.Open("../../config/standards", installed)
	if problems.Failed() {
		t.Fatal(problems)
	}
	c, problems := catalog.Load("../../config/services", std)
	if problems.Failed() {
		t.Fatal(problems)
	}
	schemas := map[string]string{
		"xbau/2.6": shared(t, "standards/xbau/2.6/xbau-all.xsd"), "xbau-kernmodul/1.3.0": shared(t, "standards/xbau/2.6/xbauk-all.xsd"),
		"antrag/1.0": "../../config/standards/antrag/1.0/antrag.xsd",
	}
	places := shared(t, "standards/catalog/catalog.xml")
	judge := xmljudge.Start(t)
	judged := map[string]int{}
	for _, p := range c.Processes() {
		for _, r := range p.Run(false) {
			t.Run(r.Process+"/"+r.Example+"/"+r.Format.String(), func(t *testing.T) {
				key := r.Format.Standard + "/" + r.Format.Version
				if !r.OK() || r.XML == nil || schemas[key] == "" {
					t.Fatalf("no message to judge: %v", r.Faults)
				}
				judged[key]++
				file := filepath.Join(t.TempDir(), "m.xml")
				if err := os.WriteFile(file, r.XML, 0o600); err != nil {
					t.Fatal(err)
				}
				if said, ok := xmljudge.Xmllint(t, schemas[key], places, file); !ok {
					t.Errorf("libxml2: %s", said)
				}
				if faults := judge.Validate(t, schemas[key], places, file); len(faults) > 0 {
					t.Errorf("Xerces: %q", faults)
				}
				if key == "antrag/1.0" {
					return
				}
				for _, rules := range []string{"xbau-schematron.sch", "xbau-schematron-leere-elemente.sch"} {
					if faults := judge.Schematron(t, shared(t, "schematron/xbau-2.6/"+rules), file); len(faults) > 0 {
						t.Errorf("%s: %q", rules, faults)
					}
				}
			})
		}
	}
	for key := range schemas {
		if judged[key] == 0 {
			t.Errorf("no message of %s was judged", key)
		}
	}
}
