package cli

import (
	"testing"

	"weiche/internal/config"
	"weiche/internal/submission"
)

// A portal that is there for one service posts that one and nothing else, in
// whatever order their names are.
func TestExamplePortalMaySendTheService(t *testing.T) {
	const planning, permit = submission.Service("99012012042000"), submission.Service("99012008001000")
	one := []submission.Service{planning}
	cfg := &config.Config{Portals: map[string]*config.Portal{
		"a-planning": {Home: "08", Services: one}, "b-all": {Home: "08"}, "c-planning": {Home: "08", Services: one}, "d-other-land": {Home: "14"},
	}}
	keys := map[string]string{"a-planning": "k", "b-all": "k", "d-other-land": "k", "gone": "k"}
	for _, c := range []struct {
		land    submission.Land
		service submission.Service
		want    string
	}{
		{"08", permit, "b-all"}, {"08", planning, "a-planning"}, {"14", permit, "d-other-land"}, {"09", permit, ""},
	} {
		if got := examplePortal(cfg, keys, c.land, c.service); got != c.want {
			t.Errorf("Land %s, service %s: %q, want %q", c.land, c.service, got, c.want)
		}
	}
}
