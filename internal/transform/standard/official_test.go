package standard

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"weiche/internal/xmljudge"
)

// source is a package of ../shared and what is looked up beside it.
type source struct {
	path string
	with []string
}

var (
	xbau26 = source{"standards/xbau/2.6", []string{"codelists/xbau-2.6", "schematron/xbau-2.6"}}
	dvdv   = source{"codelists/dvdv/dvdv.praefix_51.xml", nil}
)

// installed is where the official standards are imported, once for all tests.
var installed struct {
	mu   sync.Mutex
	dir  string
	have map[string]bool
}

func TestMain(m *testing.M) {
	code := m.Run()
	if installed.dir != "" {
		_ = os.RemoveAll(installed.dir)
	}
	os.Exit(code)
}

// official returns the installed standards, those of the sources among them; by
// default XBau and the DVDV's prefixes.
func official(t testing.TB, sources ...source) *Installed {
	t.Helper()
	if len(sources) == 0 {
		sources = []source{xbau26, dvdv}
	}
	installed.mu.Lock()
	defer installed.mu.Unlock()
	if installed.dir == "" {
		dir, err := os.MkdirTemp("", "standards-")
		if err != nil {
			t.Fatal(err)
		}
		installed.dir, installed.have = dir, map[string]bool{}
	}
	for _, s := range sources {
		if installed.have[s.path] {
			continue
		}
		var with []string
		for _, w := range s.with {
			with = append(with, shared(t, w))
		}
		if _, err := Import(t.Context(), shared(t, s.path), installed.dir, with); err != nil {
			t.Fatal(err)
		}
		installed.have[s.path] = true
	}
	s, problems := Open(installed.dir)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return s
}

const catalog = "standards/catalog/catalog.xml"

// officials are the standards of ../shared, with the schema that judges of other
// people's making read, and the examples at hand.
var officials = []struct {
	key      string
	source   source
	schema   string
	examples string // a pattern
	messages string // that services write
}{
	{"xbau/2.6", xbau26, "standards/xbau/2.6/xbau-all.xsd", "generated/xbau-2.6-*.xml", "baugenehmigung.antrag.0200 vorbescheid.antrag.0210 anzeige.baubeginn.0900"},
	{"xbau-kernmodul/1.3.0", xbau26, "standards/xbau/2.6/xbauk-all.xsd", "generated/*xbauk-*.xml", "universellerAntrag.antrag.1200"},
	{"xbau/2.5", source{"standards/xbau/2.5", []string{"codelists/xbau-2.6"}}, "standards/xbau/2.5/xbau.xsd", "", "baugenehmigung.antrag.0200"},
	{"xbeteiligung/1.2", source{"standards/xbeteiligung/1.2", nil}, "standards/xbeteiligung/1.2/xbeteiligung.xsd", "xbeteiligung/*.xml", "kommunal.Initiieren.0401"},
	{"xjustiz/3.6.2", source{"standards/xjustiz/3.6.2", []string{"standards/catalog", "standards/xbau/2.6", "schematron/xjustiz-3.6.2"}},
		"standards/xjustiz/3.6.2/xjustiz_0005_nachrichten_3_2.xsd", "generated/xjustiz-*.xml", "nachricht.gds.uebermittlungSchriftgutobjekte.0005005"},
}

// TestOfficialStandards imports each standard and asks libxml2 and Xerces about
// each example, and about examples that were changed: all have to agree with
// the router's validator. Schematron rules are asked about those that are clean.
func TestOfficialStandards(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles large schemas, three times")
	}
	judge := xmljudge.Start(t)
	for _, o := range officials {
		t.Run(o.key, func(t *testing.T) {
			std := get(t, official(t, o.source), o.key)
			for _, m := range strings.Fields(o.messages) {
				if _, ok := std.Message(m); !ok {
					t.Errorf("no message %s", m)
				}
			}
			if o.examples == "" {
				return
			}
			files, err := filepath.Glob(filepath.Join(shared(t, "examples"), filepath.FromSlash(o.examples)))
			if err != nil || len(files) == 0 {
				t.Fatalf("no example: %v", err)
			}
			for _, file := range files {
				raw, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if found, _, ok := official(t, o.source).For(raw); !ok || found.Key() != o.key {
					t.Errorf("%s is taken for %v", filepath.Base(file), found)
				}
				agree(t, judge, std, o.schema, filepath.Base(file), raw, true)
				for i, bad := range damaged(raw) {
					if i > 0 && i%(len(files)) != 0 {
						continue // a share of them for each of many examples
					}
					agree(t, judge, std, o.schema, fmt.Sprintf("%s, change %d", filepath.Base(file), i), bad, false)
				}
			}
		})
	}
	t.Run("schematron", func(t *testing.T) { schematronOfExamples(t, judge) })
}

// agree asks all three about a message.
func agree(t *testing.T, judge *xmljudge.JVM, std *Standard, schema, name string, raw []byte, good bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "m.xml")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ours := std.Validate(raw)
	said, valid := xmljudge.Xmllint(t, shared(t, schema), shared(t, catalog), file)
	faults := judge.Validate(t, shared(t, schema), shared(t, catalog), file)
	if valid != (ours == nil) || valid != (len(faults) == 0) || good && !valid {
		t.Errorf("%s:\nours: %v\nlibxml2: %s\nXerces: %q", name, ours, said, faults)
	}
}

// damaged are versions of a message with one change each: an element renamed,
// left out, doubled, emptied, given a foreign character.
func damaged(raw []byte) [][]byte {
	s := string(raw)
	var leaves [][2]int
	for from := 0; ; {
		i := strings.Index(s[from:], "</")
		if i < 0 {
			break
		}
		end := from + i
		start := strings.LastIndex(s[:end], "<")
		if close := strings.Index(s[end:], ">"); start >= 0 && close >= 0 && s[start+1] != '/' && s[start+1] != '!' && !strings.Contains(s[start:end], "/>") {
			leaves = append(leaves, [2]int{start, end + close + 1})
		}
		from = end + 2
	}
	var out [][]byte
	for n := range 6 {
		if len(leaves) == 0 {
			break
		}
		l := leaves[(n*len(leaves)/6)%len(leaves)]
		leaf := s[l[0]:l[1]]
		text := strings.Index(leaf, ">") + 1
		change := []string{
			strings.ReplaceAll(leaf, "<", "<x"), "", leaf + leaf, leaf[:text] + leaf[strings.LastIndex(leaf, "<"):],
			leaf[:text] + "И" + leaf[text:], leaf[:text] + "<y/>" + leaf[text:],
		}[n]
		out = append(out, []byte(s[:l[0]]+change+s[l[1]:]))
	}
	return out
}

// schematronOfExamples asks for examples by the rules that their standards
// publish.
func schematronOfExamples(t *testing.T, judge *xmljudge.JVM) {
	rules := "schematron/xbau-2.6/xbau-schematron.sch"
	empty := "schematron/xbau-2.6/xbau-schematron-leere-elemente.sch"
	for _, c := range []struct{ rules, message string }{
		{rules, "generated/golden-xbauk-1.3.0-universellerAntrag.1200.xml"},
		{empty, "generated/golden-xbauk-1.3.0-universellerAntrag.1200.xml"},
		{rules, "generated/xbau-2.6-baugenehmigung.0200.xml"},
		{"schematron/xjustiz-3.6.2/xjustiz.gds_1_3.sch", "generated/xjustiz-3.6.2-uebermittlungSchriftgutobjekte.xml"},
	} {
		if faults := judge.Schematron(t, shared(t, c.rules), shared(t, "examples/"+c.message)); len(faults) > 0 {
			t.Errorf("%s by %s: %q", c.message, c.rules, faults)
		}
	}
	// The rule against empty elements, as the router has it and as XBau publishes it.
	std := get(t, official(t), "xbau/2.6")
	raw := example(t, "generated/xbau-2.6-baugenehmigung.0200.xml")
	fs, err := std.Inspect(raw, About{})
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, f := range fs {
		if f.Reason == "empty-element" && !f.Warning {
			ours++
		}
	}
	theirs := judge.Schematron(t, shared(t, empty), shared(t, "examples/generated/xbau-2.6-baugenehmigung.0200.xml"))
	if ours != len(theirs) || ours == 0 {
		t.Errorf("%d empty elements, Schematron finds %d: %q", ours, len(theirs), theirs)
	}
}
