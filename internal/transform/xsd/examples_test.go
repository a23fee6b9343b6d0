package xsd

import (
	"os"
	"path/filepath"
	"testing"
)

// examples are messages at hand and the standard each is of.
var examples = []struct {
	file, standard string
	valid          bool
}{
	{"generated/golden-xbauk-1.3.0-universellerAntrag.1200.xml", "xbau-kernmodul/1.3.0", true},
	{"generated/xbauk-1.3.0-universellerAntrag.1200.xml", "xbau-kernmodul/1.3.0", true},
	{"generated/xbauk-1.3.0-rueckweisung.1100.xml", "xbau-kernmodul/1.3.0", true},
	{"generated/xbauk-1.3.0-eingangsbestaetigung.1120.xml", "xbau-kernmodul/1.3.0", true},
	{"generated/neg-semantik-only-codelist.xml", "xbau-kernmodul/1.3.0", true},
	{"generated/neg-din91379.xml", "xbau-kernmodul/1.3.0", false},
	{"generated/neg-nachrichtentyp.xml", "xbau-kernmodul/1.3.0", false},
	{"generated/xbau-2.6-baugenehmigung.0200.xml", "xbau/2.6", true},
	{"generated/xjustiz-3.6.2-uebermittlungSchriftgutobjekte.xml", "xjustiz/3.6.2", true},
	{"xbeteiligung/xbeteiligung-test-kommunal.Initiieren.0401.xml", "xbeteiligung/1.2", true},
	{"xdomea-3.0.0/9fde4e7a-b41b-11ec-9225-005056871b7c_Aussonderung.Aussonderung.0503.xml", "xdomea/3.0.0", true},
}

func TestExamples(t *testing.T) {
	schemas := map[string]*Schema{}
	for _, e := range examples {
		t.Run(filepath.Base(e.file), func(t *testing.T) {
			if schemas[e.standard] == nil {
				schemas[e.standard] = compileOfficial(t, e.standard)
			}
			raw, err := os.ReadFile(filepath.Join(shared, "examples", e.file))
			if err != nil {
				t.Fatal(err)
			}
			errs := schemas[e.standard].Validate(raw, Options{})
			if (len(errs) == 0) != e.valid {
				t.Errorf("%v", errs)
			}
			for _, e := range errs {
				t.Log(e)
			}
		})
	}
}
