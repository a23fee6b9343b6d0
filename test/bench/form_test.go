package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"weiche/internal/app"
	"weiche/internal/config"
	"weiche/internal/submission"
)

// The figures of docs/benchmarks.md say 4.3 KB, 6 KB, 20,000 rules, 8
// destinations: here it is counted.
func TestWorkIsWhatIsSaid(t *testing.T) {
	repo := needShared(t)
	dir := t.TempDir()
	l, err := newLandscape(filepath.Join(dir, "config"), repo, standardPlan())
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if err := installStandards(t.Context(), repo, data); err != nil {
		t.Fatal(err)
	}
	cfg, problems := config.Load(l.dir, []string{"WEICHE_DATA=" + data})
	const few = 5 // of what may be 20,000 lines
	if problems.Failed() {
		t.Fatal(problems[:min(few, len(problems))])
	}
	lib, problems := app.LoadLibrary(cfg)
	if problems.Failed() {
		t.Fatal(problems[:min(few, len(problems))])
	}
	rules := 0
	for _, land := range cfg.Lands {
		rules += len(land.Rules)
	}
	if rules != 20_000 {
		t.Errorf("%d rules", rules)
	}
	reached := map[string]bool{}
	for n := range 64 {
		form := formOf(n, l.region(n), standardShape)
		m := mapper{lib}
		out, xml, err := m.message(form)
		if err != nil {
			t.Fatal(err)
		}
		reached[out] = true
		if j, x := len(form), len(xml); j < 4200 || j > 4400 || x < 5800 || x > 6200 {
			t.Fatalf("%d bytes of JSON, %d of XML\n%s", j, x, xml)
		}
	}
	for _, s := range sizes { // those that show how cost grows are sound too
		form := formOf(1, l.region(1), s)
		if _, _, err := (mapper{lib}).message(form); err != nil {
			t.Errorf("%d bytes: %v", len(form), err)
		}
		var env submission.Envelope
		if err := json.Unmarshal(form, &env); err != nil {
			t.Fatal(err)
		}
		data, err := jsonschema.UnmarshalJSON(bytes.NewReader(env.Data))
		if err != nil {
			t.Fatal(err)
		}
		f, ok := lib.Form(config.Offer{Service: service, Process: "universeller-antrag"})
		if !ok {
			t.Fatal("the process is missing")
		}
		if faults := f.Check(data); len(faults) > 0 {
			t.Errorf("%d bytes: %v", len(form), faults[0])
		}
	}
	if first, last := len(formOf(1, l.region(1), sizes[0])), len(formOf(1, l.region(1), sizes[len(sizes)-1])); first > 1200 || last < 890_000 || last > 950_000 {
		t.Errorf("sizes from %d to %d bytes", first, last)
	}
	if len(reached) != 8 {
		t.Errorf("%d destinations are reached", len(reached))
	}
}

// needShared returns the repository's root, or skips.
func needShared(t testing.TB) string {
	t.Helper()
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(repo, "..", "shared", "registers")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("needs the registers and standards in ../shared")
	}
	return repo
}
