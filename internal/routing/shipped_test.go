package routing_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"weiche/internal/config"
	"weiche/internal/routing"
	"weiche/internal/submission"
)

const shipped = "../../config"

// mapped is what the shipped process library turns each service into.
func mapped(s submission.Service, f submission.Format) bool {
	return f.BuiltIn() || slices.Contains(map[submission.Service][]string{
		"99012008001000": {"xbau/2.6/baugenehmigung.antrag.0200", "xbau/2.5/baugenehmigung.antrag.0200"},
		"99012010001000": {"xbau/2.6/vorbescheid.antrag.0210", "antrag/1.0/antrag"},
		"99012020189000": {"xbau/2.6/anzeige.baubeginn.0900", "antrag/1.0/antrag"},
		"99012002012000": {"xbau-kernmodul/1.3.0/universellerAntrag.antrag.1200", "antrag/1.0/antrag"},
		"99012012042000": {"xbeteiligung/1.2/kommunal.Initiieren.0401"},
		"99043006060000": {"xjustiz/3.6.2/nachricht.gds.uebermittlungSchriftgutobjekte.0005005"},
		"99050012104000": {"antrag/1.0/antrag"},
		"99041006017000": {"antrag/1.0/antrag"},
		"99108012005000": {"xdomea/3.1.0/FVDaten.SGOErstellen.0604", "xdomea/3.0.0/FVDaten.SGOErstellen.0604", "antrag/1.0/antrag"},
	}[s], f.String())
}

// The shipped Länder decide as their tables say.
func TestShippedRoutes(t *testing.T) {
	cfg, problems := config.Load(shipped, nil)
	for _, p := range problems {
		t.Errorf("%s", p)
	}
	if cfg == nil || len(cfg.Lands) != 2 {
		t.Fatal("two Länder are shipped")
	}
	for key, land := range cfg.Lands {
		t.Run(string(key), func(t *testing.T) {
			table, problems := routing.New(land, mapped)
			if len(problems) > 0 {
				t.Error(problems.Error())
			}
			cases, problems := routing.LoadCases(filepath.Join(land.Dir, config.RoutesTestFile))
			if len(problems) > 0 {
				t.Fatal(problems.Error())
			}
			if len(cases) < 15 {
				t.Errorf("%d cases", len(cases))
			}
			for _, m := range table.Check(cases, time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)) {
				t.Error(m.String())
			}
		})
	}
}
