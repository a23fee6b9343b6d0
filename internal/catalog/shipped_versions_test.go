package catalog_test

import (
	"strings"
	"testing"

	"weiche/internal/submission"
)

// The same permit as XBau 2.6 and as 2.5: what the older version has no code for
// is said in words there, and nothing is lost.
func TestShippedPermitSaysInWordsWhatTheOlderVersionHasNoCodeFor(t *testing.T) {
	p, _ := shipped(t).Process("baugenehmigung")
	in, _, err := p.ExampleInput(p.Examples[len(p.Examples)-1])
	if err != nil {
		t.Fatal(err)
	}
	form := in.Form.(map[string]any)
	form["vorhaben"].(map[string]any)["nachweise"] = []any{
		map[string]any{"art": "1", "pruefungErforderlich": true},
		map[string]any{"art": "6", "pruefungErforderlich": true},
		map[string]any{"art": "6", "pruefungErforderlich": false},
	}
	if violations := p.ValidateForm(form); len(violations) > 0 {
		t.Fatal(violations)
	}
	for _, c := range []struct {
		version string
		counts  map[string]int
	}{
		{"2.6", map[string]int{"<xbau:pruefungBautechnischeNachweise>": 3, "<code>99</code>": 2, "Sonstiger bautechnischer Nachweis": 0, "keine Fachrichtung": 0}},
		{"2.5", map[string]int{
			"<xbau:pruefungBautechnischeNachweise>": 1, "<code>99</code>": 0, "keine Fachrichtung": 2,
			"Sonstiger bautechnischer Nachweis, Prüfung beantragt": 1, "Sonstiger bautechnischer Nachweis, Prüfung nicht beantragt": 1,
		}},
	} {
		m := p.Mappings[submission.Format{Standard: "xbau", Version: c.version, Message: "baugenehmigung.antrag.0200"}]
		xml, err := m.Apply(in)
		if err == nil {
			err = checked(m.Standard, xml, "baugenehmigung.antrag.0200")
		}
		if err != nil {
			t.Errorf("%s: %v", c.version, err)
		}
		for text, want := range c.counts {
			if got := strings.Count(string(xml), text); got != want {
				t.Errorf("%s: %d times %q, want %d", c.version, got, text, want)
			}
		}
	}
}
