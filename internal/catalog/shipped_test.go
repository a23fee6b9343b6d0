package catalog_test

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the expected messages of the shipped examples")

// shared returns a path beside the repository; CI must have it.
func shared(t testing.TB, path string) string {
	t.Helper()
	p := "../../../shared/" + path
	if _, err := os.Stat(p); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", p)
		}
		t.Skipf("%s is not at hand", p)
	}
	return p
}

func TestShippedProcessesDoWhatTheirExamplesSay(t *testing.T) {
	c := shipped(t)
	for _, want := range []string{"99012008001000", "99012010001000", "99012020189000", "99012012042000", "99050012104000", "99041006017000", "99043006060000", "99108012005000"} {
		found := false
		for _, p := range c.Processes() {
			found = found || string(p.Service) == want
		}
		if !found {
			t.Errorf("the service %s has no process", want)
		}
	}
	for _, p := range c.Processes() {
		results := p.Run(*update)
		if len(results) < 2 {
			t.Errorf("%s has %d examples with an expected message, two are needed", p.ID, len(results))
		}
		for _, r := range results {
			t.Run(r.Process+"/"+r.Example, func(t *testing.T) {
				if r.Skipped != "" {
					t.Fatalf("the standard %s is missing", r.Skipped)
				}
				for _, f := range r.Faults {
					t.Error(f)
				}
				if r.Updated {
					t.Log("written anew")
				}
			})
		}
	}
}
