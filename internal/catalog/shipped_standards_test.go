package catalog_test

import (
	"context"
	"os"
	"sync"
	"testing"

	"weiche/internal/catalog"
	"weiche/internal/config"
	"weiche/internal/transform/standard"
)

// official is a standard of ../shared that shipped services write.
type official struct {
	key    string
	source string   // the package
	with   []string // folders beside it
	schema string   // the schema that other people's validators read
	rules  []string // Schematron
}

var officials = []official{
	{
		"xbau/2.6", "standards/xbau/2.6",
		[]string{"codelists/xbau-2.6", "schematron/xbau-2.6"},
		"standards/xbau/2.6/xbau-all.xsd", xbauRules,
	},
	{"xbau-kernmodul/1.3.0", "", nil, "standards/xbau/2.6/xbauk-all.xsd", xbauRules}, // comes with XBau 2.6
	{"xbau/2.5", "standards/xbau/2.5", []string{"codelists/xbau-2.6"}, "standards/xbau/2.5/xbau.xsd", nil},
	{"xbeteiligung/1.2", "standards/xbeteiligung/1.2", nil, "standards/xbeteiligung/1.2/xbeteiligung.xsd", nil},
	{"xdomea/3.0.0", "standards/xdomea/3.0.0", xdomeaWith, "standards/xdomea/3.0.0/xdomea.xsd", nil},
	{"xdomea/3.1.0", "standards/xdomea/3.1.0", xdomeaWith, "standards/xdomea/3.1.0/xdomea.xsd", nil},
	{
		"xjustiz/3.6.2", "standards/xjustiz/3.6.2", []string{"standards/catalog", "standards/xbau/2.6", "schematron/xjustiz-3.6.2"},
		"standards/xjustiz/3.6.2/xjustiz_0005_nachrichten_3_2.xsd", []string{"schematron/xjustiz-3.6.2/xjustiz.gds_1_3.sch"},
	},
}

// xbauRules are written for XBau 2.6 and the Kernmodul 1.3.0.
var xbauRules = []string{"schematron/xbau-2.6/xbau-schematron.sch", "schematron/xbau-2.6/xbau-schematron-leere-elemente.sch"}

var xdomeaWith = []string{"standards/xdomea/xoev", "codelists/xdomea-3.0.0"}

// library is the process library as it ships, with the official standards beside
// it: loaded once, as proving its mappings takes seconds.
var library struct {
	once     sync.Once
	dir      string
	catalog  *catalog.Catalog
	problems config.Problems
	err      error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if library.dir != "" {
		_ = os.RemoveAll(library.dir)
	}
	os.Exit(code)
}

func shipped(t testing.TB) *catalog.Catalog {
	t.Helper()
	shared(t, "standards")
	library.once.Do(func() { library.err = load() })
	if library.err != nil {
		t.Fatal(library.err)
	}
	for _, p := range library.problems {
		t.Error(p)
	}
	if library.problems.Failed() {
		t.FailNow()
	}
	return library.catalog
}

// load imports the standards, as an operator does, and reads the library.
func load() (err error) {
	const from = "../../../shared/"
	if library.dir, err = os.MkdirTemp("", "standards-"); err != nil {
		return err
	}
	for _, o := range append(officials, official{source: "codelists/dvdv/dvdv.praefix_51.xml"}) {
		var with []string
		for _, w := range o.with {
			with = append(with, from+w)
		}
		if o.source == "" {
			continue
		}
		if _, err := standard.Import(context.Background(), from+o.source, library.dir, with); err != nil {
			return err
		}
	}
	std, problems := standard.Open("../../config/standards", library.dir)
	if problems.Failed() {
		return problems
	}
	library.catalog, library.problems = catalog.Load("../../config/services", std, nil)
	return nil
}
