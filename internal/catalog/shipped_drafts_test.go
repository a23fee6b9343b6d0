package catalog_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"weiche/internal/transform"
	"weiche/internal/transform/standard"
)

// leftToDo is what a draft may lack; everything else that is said of one is a
// fault of the draft.
var leftToDo = regexp.MustCompile(`needs <|needs the attribute|is mapped nowhere in|is no value of the standard's type|may not stand once more in`)

// A draft of any message of any standard for any shipped form is a mapping in
// itself: what it has stands in the schema's order, and only what is missing is
// found fault with. It comes out the same every time. Drafting takes
// milliseconds, proving more: with WEICHE_SOAK=1 every draft is proven, else a
// third.
func TestDraftsOfEveryMessage(t *testing.T) {
	cat := shipped(t)
	installed, problems := standard.Open("../../config/standards", library.dir)
	if problems.Failed() {
		t.Fatal(problems)
	}
	forms := cat.Processes()
	drafts, filled, missing := 0, 0, 0
	for _, std := range installed.List() {
		for _, message := range std.MessageNames() {
			form := forms[drafts%len(forms)].Schema
			d := draftOf(t, std, message.Name, form)
			if drafts%5 == 0 && !bytes.Equal(d.XML, draftOf(t, std, message.Name, form).XML) {
				t.Errorf("%s of %s is not the same again", message.Name, std.Key())
			}
			if drafts%3 == 0 || os.Getenv("WEICHE_SOAK") == "1" {
				onlyLacking(t, std, message.Name, form, d)
			}
			drafts, filled, missing = drafts+1, filled+d.Filled, missing+d.Missing
		}
	}
	t.Logf("%d drafts, %d values filled in, %d missing", drafts, filled, missing)
}

// Of the shipped services' own messages a draft fills in a good part.
func TestDraftsOfTheShippedServices(t *testing.T) {
	cat := shipped(t)
	installed, problems := standard.Open("../../config/standards", library.dir)
	if problems.Failed() {
		t.Fatal(problems)
	}
	for _, p := range cat.Processes() {
		for _, f := range p.Formats {
			std, _ := installed.Get(f.Standard, f.Version)
			d := draftOf(t, std, f.Message, p.Schema)
			todo := onlyLacking(t, std, f.Message, p.Schema, d)
			t.Logf("%s as %s: %d filled in, %d missing, %d fields without a place, %d problems", p.ID, f, d.Filled, d.Missing, len(d.Unplaced), todo)
			if f.Standard == "antrag" && (d.Missing > 1 || len(d.Unplaced) > 0) || f.Message == "baugenehmigung.antrag.0200" && d.Filled < 130 {
				t.Errorf("the draft of %s for %s is poorer than it was", f, p.ID)
			}
		}
	}
}

func draftOf(t *testing.T, std *standard.Standard, message string, form *transform.FormSchema) *transform.Draft {
	t.Helper()
	d, err := transform.NewDraft(std, message, form)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// onlyLacking proves a draft and returns how much is left to do.
func onlyLacking(t *testing.T, std *standard.Standard, message string, form *transform.FormSchema, d *transform.Draft) int {
	t.Helper()
	file := filepath.Join(t.TempDir(), "draft.xml")
	if err := os.WriteFile(file, d.XML, 0o600); err != nil {
		t.Fatal(err)
	}
	_, problems := transform.CompileMapping(file, std, form, nil)
	for _, p := range problems {
		if !leftToDo.MatchString(p.Text) {
			t.Errorf("%s of %s for %s: line %d: %s", message, std.Key(), filepath.Base(filepath.Dir(form.File)), p.Line, p.Text)
		}
	}
	return len(problems)
}
