package catalog_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"weiche/internal/submission"
	"weiche/internal/transform/standard"
)

// change is a form with one member taken away or one text exchanged.
type change struct {
	what string
	form any
}

// hostile are texts a form may meet: whatever of them a form lets through, the
// message's XSD has to let through as well.
var hostile = []string{
	"x", " x ", "a\nb", "a\r\nb", "a\tb", "a\u00a0b", "Иванов", "Ωμέγα", "日本", "😀", "–", "„Zum Eck“", "…", "™",
	"Ş ș Ț ẞ ỹ ǅ", "K\u0304ru\u0304min\u0327a", "A\u030b ÿ\u0301 s\u031b\u0304 C\u0328\u0306 K\u035fh",
	"a\u0301", "\u200b", "\ufeff", "\u00ad", "\u0000", "\u0007", "\u0085", "\ufffe", "<&>\"'", "]]>", "{x}", "${x}", " ", "\u00a0",
	"\u1680", "0", "00000", "12345678901234567890", "-1", "1.5", "9999-12-31", "1800-01-01", "0001-01-01", "2026-02-30", "2026-11-22T10:00:00Z",
	"DE89370400440532013000", "mailto:x@y", "a@b", "true", "NaN", strings.Repeat("ß", 250), strings.Repeat("ß", 251), strings.Repeat("ß", 4000),
}

var numbers = []json.Number{"0", "-1", "1", "1.0", "1e0", "1E2", "1e-2", "0.005", "0.01", "12.10", "99999999999999999999", "999999999.99", "1e308", "-0"}

// changes returns the forms that differ from form at one place: with every hostile
// text at every place where the long form of the tests is asked for
// (WEICHE_SOAK=1), else with eight of them, others at each place.
func changes(form any) []change {
	var out []change
	texts := 0
	some := func() []int {
		n := len(hostile)
		if os.Getenv("WEICHE_SOAK") != "1" {
			n = 8
		}
		picked := make([]int, n)
		for i := range picked {
			picked[i] = texts % len(hostile)
			texts++
		}
		return picked
	}
	var walk func(at string, v any, put func(any) any)
	walk = func(at string, v any, put func(any) any) {
		switch v := v.(type) {
		case map[string]any:
			names := make([]string, 0, len(v))
			for name := range v {
				names = append(names, name)
			}
			sort.Strings(names)
			for _, name := range names {
				without := map[string]any{}
				for k, x := range v {
					if k != name {
						without[k] = x
					}
				}
				out = append(out, change{at + "/" + name + " left out", put(without)})
				walk(at+"/"+name, v[name], func(x any) any {
					with := map[string]any{}
					for k, y := range v {
						with[k] = y
					}
					with[name] = x
					return put(with)
				})
			}
		case []any:
			for i := range v {
				without := append(append([]any{}, v[:i]...), v[i+1:]...)
				out = append(out, change{fmt.Sprintf("%s/%d left out", at, i), put(without)})
				walk(fmt.Sprintf("%s/%d", at, i), v[i], func(x any) any {
					with := append([]any{}, v...)
					with[i] = x
					return put(with)
				})
			}
		case string:
			for _, i := range some() {
				out = append(out, change{fmt.Sprintf("%s with text %d", at, i), put(hostile[i])})
			}
		case json.Number:
			for _, n := range numbers {
				out = append(out, change{at + " = " + string(n), put(n)})
			}
		case bool:
			out = append(out, change{at + " negated", put(!v)})
		}
	}
	walk("", form, func(x any) any { return x })
	return out
}

// TestShippedFormsAreNoWiderThanTheirMessages takes every example, leaves out or
// exchanges one value after the other, and wants of each form that is still
// accepted a message its XSD accepts: whoever got a receipt must not end as a
// dead letter.
func TestShippedFormsAreNoWiderThanTheirMessages(t *testing.T) {
	for _, p := range shipped(t).Processes() {
		t.Run(p.ID, func(t *testing.T) {
			t.Parallel()
			accepted, refused := 0, 0
			for _, e := range p.Examples {
				in, violations, err := p.ExampleInput(e)
				if err != nil || len(violations) > 0 {
					t.Fatal(err, violations)
				}
				for _, c := range changes(in.Form) {
					if len(p.ValidateForm(c.form)) > 0 {
						refused++
						continue
					}
					// The envelope's attachments answer to the form's; a form that names a
					// file which was not sent is the portal's fault and has its own test.
					if strings.Contains(c.what, "attachmentId with") {
						continue
					}
					accepted++
					changed := in
					changed.Form = c.form
					for _, f := range p.Formats {
						m := p.Mappings[f]
						xml, err := m.Apply(changed)
						if err == nil {
							err = checked(m.Standard, xml, f.Message)
						}
						if err != nil {
							t.Errorf("%s, %s: %s: %v", e.Name, f, c.what, err)
						}
					}
					if t.Failed() && accepted > 2000 {
						t.FailNow()
					}
				}
			}
			t.Logf("%d changed forms accepted, %d refused", accepted, refused)
			if accepted < 50 || refused < 50 {
				t.Errorf("%d accepted and %d refused prove little", accepted, refused)
			}
		})
	}
}

var emptyElement = regexp.MustCompile(`<([\w.:-]+)(\s[^<>]*)?(/>|>\s*</)`)

// TestShippedMessagesCarryNothingEmptyAndNoStrayTestMark holds XBau's rule that no
// element is empty, and XÖV's that the mere presence of test forbids productive
// processing.
func TestShippedMessagesCarryNothingEmptyAndNoStrayTestMark(t *testing.T) {
	for _, p := range shipped(t).Processes() {
		for _, e := range p.Examples {
			in, _, err := p.ExampleInput(e)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range p.Formats {
				for _, test := range []bool{false, true} {
					in.Submission.Test = test
					xml, err := p.Mappings[f].Apply(in)
					if err != nil {
						t.Fatalf("%s/%s %s: %v", p.ID, e.Name, f, err)
					}
					if err := checked(p.Mappings[f].Standard, xml, f.Message); err != nil {
						t.Errorf("%s/%s %s, test %v: %v", p.ID, e.Name, f, test, err)
					}
					if got := strings.Contains(string(xml), testMark(f)); got != test {
						t.Errorf("%s/%s %s: a test submission is %v, a test message %v", p.ID, e.Name, f, test, got)
					}
					if !test && strings.Contains(string(xml), " test=") {
						t.Errorf("%s/%s %s: a productive message carries test", p.ID, e.Name, f)
					}
					if m := emptyElement.FindString(string(xml)); m != "" {
						t.Errorf("%s/%s %s: empty element %s", p.ID, e.Name, f, m)
					}
				}
			}
		}
	}
}

// testMark is how a message says that it is a test.
func testMark(f submission.Format) string {
	switch f.Standard { // two have nothing of their own for it
	case "xdomea":
		return "Hinweis>Testnachricht<"
	case "xjustiz":
		return " (Testnachricht)</j:sonstige>"
	}
	return ` test="Testnachricht"`
}

// TestShippedFormsRefuseAFileThatWasNotSent: the mapping says so instead of naming
// a document the authority never gets. The project's own format lists what was
// sent, and the form as it stands.
func TestShippedFormsRefuseAFileThatWasNotSent(t *testing.T) {
	named := 0
	for _, p := range shipped(t).Processes() {
		for _, e := range p.Examples {
			in, _, err := p.ExampleInput(e)
			if err != nil {
				t.Fatal(err)
			}
			if form, _ := in.Form.(map[string]any); form["anlagen"] == nil {
				continue
			}
			in.Attachments = []submission.Attachment{} // nil would mean the envelope's
			for _, f := range p.Formats {
				if f.Standard == "antrag" {
					continue
				}
				named++
				if _, err := p.Mappings[f].Apply(in); err == nil || !strings.Contains(err.Error(), "mapping-failed") {
					t.Errorf("%s/%s %s: a form that names a missing file: %v, want mapping-failed", p.ID, e.Name, f, err)
				}
			}
		}
	}
	if named < 10 {
		t.Errorf("%d messages name files, more are expected", named)
	}
}

// TestShippedRichPermitIsRich keeps the example that benchmarks stand on.
func TestShippedRichPermitIsRich(t *testing.T) {
	p, _ := shipped(t).Process("baugenehmigung")
	for _, e := range p.Examples {
		if e.Name != "rich" {
			continue
		}
		in, _, err := p.ExampleInput(e)
		if err != nil {
			t.Fatal(err)
		}
		xml, err := p.Mappings[submission.Format{Standard: "xbau", Version: "2.6", Message: "baugenehmigung.antrag.0200"}].Apply(in)
		if err != nil {
			t.Fatal(err)
		}
		form, _ := json.Marshal(in.Form)
		if len(form) < 4<<10 || len(xml) < 6<<10 {
			t.Errorf("%d bytes of form and %d of XML, want 4 and 6 KB", len(form), len(xml))
		}
		for _, want := range []string{"Müller-Łukasz", "Ș", "Ț", "K\u0304", "Nguyễn", "Đ"} {
			if !strings.Contains(string(xml), want) {
				t.Errorf("%q is not in the message", want)
			}
		}
		return
	}
	t.Error("there is no rich example")
}

// TestOwnStandardIsDocumented wants a word in German and one in English at every
// element, attribute and type of the project's own schema.
func TestOwnStandardIsDocumented(t *testing.T) {
	raw, err := os.ReadFile(filepath.FromSlash("../../config/standards/antrag/1.0/antrag.xsd"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(raw), "\n")
	declared := regexp.MustCompile(`^\s*<xs:(element|attribute|complexType|simpleType) name="`)
	n := 0
	for i, line := range lines {
		if !declared.MatchString(line) {
			continue
		}
		n++
		if i+3 >= len(lines) || !strings.Contains(lines[i+2], `xml:lang="de"`) || !strings.Contains(lines[i+3], `xml:lang="en"`) {
			t.Errorf("antrag.xsd:%d: no documentation in both languages: %s", i+1, strings.TrimSpace(line))
		}
	}
	if n < 80 {
		t.Errorf("%d declarations found; the test reads the file wrongly", n)
	}
}

// checked checks a message with all rules of its standard.
func checked(std *standard.Standard, xml []byte, message string) error {
	findings, err := std.Check(xml, standard.About{Message: message})
	if err != nil {
		return err
	}
	return findings.Err(std.Key())
}
