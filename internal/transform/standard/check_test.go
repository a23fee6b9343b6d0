package standard

import (
	"encoding/csv"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/fault"
)

func example(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(shared(t, "examples/"+name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func get(t testing.TB, s *Installed, key string) *Standard {
	t.Helper()
	name, version, _ := strings.Cut(key, "/")
	std, ok := s.Get(name, version)
	if !ok {
		t.Fatalf("%s is not installed", key)
	}
	return std
}

func refusals(fs Findings) string {
	var out []string
	for _, f := range fs {
		if !f.Warning {
			out = append(out, f.Code+" "+string(f.Reason)+" "+f.Path[strings.LastIndex(f.Path, "/")+1:])
		}
	}
	return strings.Join(out, ", ")
}

func TestNegativeExamplesAreRefusedWithXBausReason(t *testing.T) {
	std := get(t, official(t), "xbau-kernmodul/1.3.0")
	for _, c := range []struct {
		file, want string
		lines      []int
	}{
		{"neg-semantik-only-codelist.xml", "S091 authority-key-unknown kennung, X011 code-unknown code", []int{15, 35}},
		{"neg-nachrichtentyp.xml", "X001 schema-invalid code", []int{9}},
		{"neg-din91379.xml", "X001 characters name", nil},
	} {
		raw := example(t, "generated/"+c.file)
		fs, err := std.Check(raw, About{})
		if err != nil {
			t.Fatal(err)
		}
		if got := refusals(fs); got != c.want {
			t.Errorf("%s: %s, want %s\n%v", c.file, got, c.want, fs)
		}
		i := 0
		for _, f := range fs {
			t.Logf("%s: %s", c.file, f)
			if !f.Warning && i < len(c.lines) {
				if f.Line != c.lines[i] {
					t.Errorf("%s: line %d, want %d", c.file, f.Line, c.lines[i])
				}
				i++
			}
			if strings.Contains(f.String(), "Иванов") || strings.Contains(f.String(), "irgendwas") || strings.Contains(f.String(), "1199") {
				t.Errorf("%s: a value is repeated: %s", c.file, f)
			}
		}
	}
}

func TestGoodExamplesPass(t *testing.T) {
	s := official(t)
	for file, key := range map[string]string{
		"xbau-2.6-baugenehmigung.0200.xml":               "xbau/2.6",
		"golden-xbauk-1.3.0-universellerAntrag.1200.xml": "xbau-kernmodul/1.3.0",
		"xbauk-1.3.0-universellerAntrag.1200.xml":        "xbau-kernmodul/1.3.0",
		"xbauk-1.3.0-rueckweisung.1100.xml":              "xbau-kernmodul/1.3.0",
		"xbauk-1.3.0-eingangsbestaetigung.1120.xml":      "xbau-kernmodul/1.3.0",
	} {
		fs, err := get(t, s, key).Check(example(t, "generated/"+file), About{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fs {
			t.Logf("%s: %v", file, f)
		}
		if strings.HasPrefix(file, "golden") && fs.Refused() {
			t.Errorf("%s is refused", file)
		}
	}
}

const goodID = "60f6667b-fa45-4bd7-b717-f4d6c65e5edb"

func TestEachRuleOfTheMessageCheck(t *testing.T) {
	std := get(t, official(t), "xbau-kernmodul/1.3.0")
	good := string(example(t, "generated/golden-xbauk-1.3.0-universellerAntrag.1200.xml"))
	replace := func(pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(good, pairs[i]) {
				t.Fatalf("the example has no %q", pairs[i])
			}
		}
		return strings.NewReplacer(pairs...).Replace(good)
	}
	land := `listVersionID="2010-04-01"><code>08</code>`
	for name, c := range map[string]struct {
		message string
		about   About
		want    string
	}{
		"nothing wrong":                 {good, About{Traffic: Test, Message: "universellerAntrag.antrag.1200", ID: uuid.MustParse(goodID)}, ""},
		"a code with an entity":         {replace(land, `listVersionID="2010-04-01"><code> &#48;<!-- x -->8 </code>`), About{}, ""},
		"a code that the list lacks":    {replace(land, `listVersionID="2010-04-01"><code>17</code>`), About{}, "X011 code-unknown code"},
		"a version that is none":        {replace(land, `listVersionID="2011-04-01"><code>08</code>`), About{}, "X010 code-list-unknown bundesland"},
		"a list that is not installed":  {good, About{RefuseMissingLists: true}, " code-list-missing verzeichnisdienst,  code-list-missing artDesAntrags"},
		"no prefix":                     {replace("bab:08115003", "08115003"), About{}, "S091 authority-key-unknown kennung"},
		"a prefix that is none":         {replace("bab:08115003", "xyz:08115003"), About{}, "S091 authority-key-unknown kennung"},
		"no key":                        {replace("bab:08115003", "bab:"), About{}, "S091 authority-key-unknown kennung"},
		"not in the DVDV":               {replace("<code>DVDV</code></verzeichnisdienst>\n      <kennung>bab:08115003", "<code>andere</code></verzeichnisdienst>\n      <kennung>x"), About{}, ""},
		"marked as a test":              {good, About{Traffic: Productive}, "S102 test-mark universellerAntrag.antrag.1200"},
		"a test without its mark":       {replace(` test="Testnachricht"`, ""), About{Traffic: Test}, "S102 test-mark universellerAntrag.antrag.1200"},
		"a productive message":          {replace(` test="Testnachricht"`, ""), About{Traffic: Productive}, ""},
		"another version":               {replace(`version="1.3.0">`, `version="1.2.0">`), About{}, "V000 version-not-served universellerAntrag.antrag.1200"},
		"another message":               {good, About{Message: "prozessnachrichten.rueckweisung.1100"}, "V001 message-not-served universellerAntrag.antrag.1200"},
		"another id":                    {good, About{ID: uuid.MustParse("70f6667b-fa45-4bd7-b717-f4d6c65e5edb")}, "S999 message-id nachrichtenUUID"},
		"not well-formed":               {good[:len(good)-20], About{}, "X000 not-well-formed universellerAntrag.antrag.1200"},
		"a DOCTYPE":                     {strings.Replace(good, "?>", "?><!DOCTYPE a>", 1), About{}, "X000 not-well-formed "},
		"another standard's message":    {`<a xmlns="urn:x"/>`, About{}, "V000 version-not-served a"},
		"no message of the standard":    {`<a xmlns="http://www.xleitstelle.de/xbau/kernmodul/1/3/0"/>`, About{}, "V001 message-not-served a"},
		"an empty element":              {replace("<name>Stadt Böblingen, Baurechtsamt</name>", "<name> <!-- --> </name>"), About{}, "S999 empty-element name"},
		"an empty element with a short": {replace("<name>Stadt Böblingen, Baurechtsamt</name>", "<name/>"), About{}, "S999 empty-element name"},
	} {
		t.Run(name, func(t *testing.T) {
			fs, err := std.Check([]byte(c.message), c.about)
			if err != nil {
				t.Fatal(err)
			}
			if got := refusals(fs); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if (fs.Err("x") == nil) != (c.want == "") {
				t.Errorf("the error is %v", fs.Err("x"))
			}
		})
	}
}

func TestMissingListIsAWarningSaidOnce(t *testing.T) {
	std := get(t, official(t), "xbau-kernmodul/1.3.0")
	fs, err := std.Check(example(t, "generated/golden-xbauk-1.3.0-universellerAntrag.1200.xml"), About{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range fs {
		if !f.Warning || f.Reason != fault.ReasonCodeListMissing || seen[f.Text] {
			t.Errorf("%v", f)
		}
		seen[f.Text] = true
	}
	// The two authorities' directories are of one list; the kind of application is of another.
	if len(fs) != 2 {
		t.Errorf("%v", fs)
	}
}

func TestTimeOfAStandard(t *testing.T) {
	s := get(t, official(t), "xbau-kernmodul/1.3.0")
	std := &Standard{Manifest: s.Manifest, Dir: s.Dir, lists: s.lists}
	raw := example(t, "generated/golden-xbauk-1.3.0-universellerAntrag.1200.xml")
	for _, c := range []struct {
		from, until string
		at          time.Time
		warned      bool
	}{
		{"", "", time.Time{}, false},
		{"2026-11-22", "2026-11-22", time.Time{}, false}, // the message's own day
		{"2026-11-23", "", time.Time{}, true},
		{"", "2026-11-21", time.Time{}, true},
		{"2026-11-23", "", time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), false},
	} {
		std.ValidFrom, std.ValidUntil = c.from, c.until
		fs, err := std.Inspect(raw, About{At: c.at})
		if err != nil {
			t.Fatal(err)
		}
		warned := false
		for _, f := range fs {
			warned = warned || f.Reason == fault.ReasonOutOfValidity && f.Warning
		}
		if warned != c.warned || fs.Refused() {
			t.Errorf("%+v: %v", c, fs)
		}
	}
}

// BenchmarkInspect is the cost of what comes behind the schema's check, for the
// rich building permit, as it leaves, and a small application.
func BenchmarkInspect(b *testing.B) {
	s := official(b)
	rich, err := os.ReadFile("../../../config/services/baugenehmigung/expected/rich.xbau_2.6_baugenehmigung.antrag.0200.xml")
	if err != nil {
		b.Fatal(err)
	}
	rich = regexp.MustCompile(`>\s+<`).ReplaceAll(rich, []byte("><")) // the file is indented for people
	for _, c := range []struct {
		key string
		raw []byte
	}{
		{"xbau/2.6", rich}, {"xbau-kernmodul/1.3.0", example(b, "generated/golden-xbauk-1.3.0-universellerAntrag.1200.xml")},
	} {
		std := get(b, s, c.key)
		b.Run(std.Name, func(b *testing.B) {
			b.SetBytes(int64(len(c.raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := std.Inspect(c.raw, About{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The codes are the official ones, and each reason is one of the router's.
func TestRulesCarryOfficialCodes(t *testing.T) {
	f, err := os.Open(shared(t, "registers/xbau-fehlerkennzahlen_2.2.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	official := map[string]bool{}
	for _, r := range rows[1:] {
		official[r[0]] = true
	}
	for _, r := range Rules() {
		if r.XBau != "" && !official[r.XBau] {
			t.Errorf("%s: %s is none of XBau's", r.Reason, r.XBau)
		}
		if !slices.Contains(fault.Reasons(), r.Reason) {
			t.Errorf("%s is not among the router's reasons", r.Reason)
		}
	}
	if other := (&Standard{Manifest: Manifest{Name: "xjustiz"}}); other.OfficialCode(fault.ReasonCodeUnknown) != "" {
		t.Error("another standard carries XBau's codes")
	}
	own := &Standard{Manifest: Manifest{Name: "x", Reasons: map[fault.Reason]string{fault.ReasonCodeUnknown: "F7"}}}
	if own.OfficialCode(fault.ReasonCodeUnknown) != "F7" {
		t.Error("a standard's own word is not used")
	}
}
