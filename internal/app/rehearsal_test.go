package app

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/dispatch"
	"weiche/internal/intake"
	"weiche/internal/submission"
)

// What the proof of a mapping leaves open a rehearsal finds, and says at which
// field: a form that names a file nobody sent, a code that its list does not
// have.
func TestRehearsalNamesRuleAndField(t *testing.T) {
	shippedLibrary(t)
	lib, err := loadShipped(wider(t))
	if err != nil {
		t.Fatal(err)
	}
	const service, land = submission.Service("99012008001000"), submission.Land("08")
	p, _ := lib.Catalog.Service(service)
	job := func(change func(*submission.Envelope, map[string]any)) dispatch.Job {
		in, violations, err := p.ExampleInput(p.Examples[len(p.Examples)-1])
		if err != nil || len(violations) > 0 {
			t.Fatal(err, violations)
		}
		env := *in.Envelope
		form, _ := in.Form.(map[string]any)
		if change != nil {
			change(&env, form)
		}
		if env.Data, err = json.Marshal(form); err != nil {
			t.Fatal(err)
		}
		if faults := p.ValidateForm(form); len(faults) > 0 {
			t.Fatal(faults)
		}
		return dispatch.Job{
			Meta:     submission.Meta{ID: uuid.New(), CaseID: uuid.New(), Service: service, Region: in.Submission.Region, Land: land, AcceptedAt: time.Now()},
			Envelope: &env, Authority: in.Authority, Portal: submission.Authority{Key: in.Portal.Key, Name: in.Portal.Name},
			Format: p.Formats[0], MessageID: uuid.New(), CreatedAt: time.Now(),
		}
	}
	if faults := lib.rehearse(job(nil)); len(faults) != 0 {
		t.Errorf("a sound form: %v", faults)
	}
	// What the mapping or the configuration is to blame for is no fault of the form.
	foreign := job(nil)
	foreign.Authority.Name = "Ωμέγα"
	if faults := lib.rehearse(foreign); len(faults) != 0 {
		t.Errorf("an authority's name: %v", faults)
	}
	for _, c := range []struct {
		name, pointer, rule string
		change              func(*submission.Envelope, map[string]any)
	}{
		{"a file nobody sent", "/data/anlagen/0/attachmentId", "mapping-failed", func(e *submission.Envelope, _ map[string]any) { e.Attachments = e.Attachments[1:] }},
		{"a code its list does not have", "/data/beteiligte/1/person/anschrift/staat", "code-unknown (X011)", func(_ *submission.Envelope, form map[string]any) {
			person := form["beteiligte"].([]any)[1].(map[string]any)["person"].(map[string]any)
			person["anschrift"].(map[string]any)["staat"] = "001"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			faults := lib.rehearse(job(c.change))
			if len(faults) == 0 {
				t.Fatal("accepted")
			}
			for _, f := range faults {
				if !strings.Contains(f.Text.EN, c.rule) || f.Text.DE == "" || strings.Contains(f.Text.EN, "/tmp") {
					t.Errorf("%s: %+v", f.Pointer, f.Text)
				}
			}
			if !slices.ContainsFunc(faults, func(f intake.Fault) bool { return f.Pointer == c.pointer }) {
				t.Errorf("got %+v, want %s", faults, c.pointer)
			}
		})
	}
}

// wider is the process library with one entry, whose form takes any three digits
// for a state.
func wider(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"baugenehmigung", "fragments"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join("../../config/services", part))); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "baugenehmigung", "form.schema.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const narrow, wide = `"$ref": "#/$defs/staat"`, `"type": "string", "pattern": "^[0-9]{3}$"`
	if !strings.Contains(string(raw), narrow) {
		t.Fatal("the form of baugenehmigung has no state any more")
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(raw), narrow, wide)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
