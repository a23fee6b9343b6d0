package xsd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weiche/internal/xmljudge"
)

// judged are the standards with the schema that judges of other people's making
// read, and where their messages lie: below ../../../../shared, or in this
// repository.
var judged = []struct {
	standard, schema string
	messages         []string
}{
	{"xbau/2.6", "xbau/2.6/xbau-all.xsd", []string{shared + "/examples/generated/xbau-2.6-*.xml", "../../../config/services/*/expected/*.xbau_2.6_*.xml"}},
	{"xbau-kernmodul/1.3.0", "xbau/2.6/xbauk-all.xsd", []string{shared + "/examples/generated/*xbauk-*.xml", shared + "/examples/generated/neg-semantik*.xml", "../../../config/services/*/expected/*.xbau-kernmodul_*.xml"}},
	{"xbeteiligung/1.2", "xbeteiligung/1.2/xbeteiligung.xsd", []string{shared + "/examples/xbeteiligung/*.xml"}},
	{"xjustiz/3.6.2", "xjustiz/3.6.2/xjustiz_0005_nachrichten_3_2.xsd", []string{shared + "/examples/generated/xjustiz-*.xml"}},
	{"xdomea/3.0.0", "xdomea/3.0.0/xdomea.xsd", []string{shared + "/examples/xdomea-3.0.0/*.xml"}},
}

// sample is one document, its verdict by the router, and what it is.
type sample struct {
	doc  []byte
	ours []Error
	what string
	file string
}

// verdict is what one judge says of a sample.
type verdict struct {
	judge string
	valid bool
	said  string
}

// compare asks libxml2 and Xerces about documents and reports those that they
// judge otherwise, but for what apart explains.
func compare(t *testing.T, jvm *xmljudge.JVM, schema, catalog string, samples []sample, apart func(s *sample, v verdict) bool) {
	t.Helper()
	dir := t.TempDir()
	for from := 0; from < len(samples); from += 500 {
		part := samples[from:min(from+500, len(samples))]
		var files []string
		for i := range part {
			part[i].file = filepath.Join(dir, fmt.Sprintf("%d.xml", i))
			if err := os.WriteFile(part[i].file, part[i].doc, 0o600); err != nil {
				t.Fatal(err)
			}
			files = append(files, part[i].file)
		}
		libxml2 := xmljudge.XmllintAll(t, schema, catalog, files)
		for i := range part {
			s := &part[i]
			ours := len(s.ours) == 0
			faults := jvm.Validate(t, schema, catalog, s.file)
			for _, v := range []verdict{
				{"libxml2", libxml2[s.file] == "", libxml2[s.file]},
				{"Xerces", len(faults) == 0, strings.Join(faults, "\n")},
			} {
				if v.valid != ours && !apart(s, v) {
					t.Errorf("%s: %s says valid is %v %s, ours %v\n%.600s", s.what, v.judge, v.valid, v.said, s.ours, s.doc)
				}
			}
		}
	}
}

// TestJudgesOnFeatures asks libxml2 and Xerces about the documents of each
// feature.
func TestJudgesOnFeatures(t *testing.T) {
	if testing.Short() {
		t.Skip("asks programs of other people's making")
	}
	jvm := xmljudge.Start(t)
	for i := range features {
		f := &features[i]
		t.Run(f.name, func(t *testing.T) {
			dir := t.TempDir()
			files := map[string]string{"main.xsd": f.source()}
			for name, text := range f.files {
				files[name] = text
			}
			for name, text := range files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := f.compile(t)
			var samples []sample
			add := func(doc string) {
				samples = append(samples, sample{doc: []byte(doc), ours: s.Validate([]byte(doc), Options{}), what: doc})
			}
			for _, doc := range f.valid {
				add(doc)
			}
			for doc := range f.wrong {
				add(doc)
			}
			seen := map[string]bool{}
			compare(t, jvm, filepath.Join(dir, "main.xsd"), "", samples, func(s *sample, _ verdict) bool {
				seen[s.what] = true
				return f.apart[s.what] != ""
			})
			for doc := range f.apart {
				if !seen[doc] {
					t.Errorf("%s: all agree", doc)
				}
			}
		})
	}
}

// differences are where the router refuses what others take on purpose, and where
// libxml2 2.9 errs: there Xerces has to agree with the router.
var differences = []struct {
	why  string
	here func(s *sample, v verdict) bool
}{
	{"a DOCTYPE, other encodings than UTF-8, XML 1.1 and what goes beyond the bounds are refused", func(s *sample, v verdict) bool {
		return v.valid && (slices.Contains([]Code{Doctype, NotUTF8, TooDeep, TooLarge, TooManyAttributes}, s.ours[0].Code) || strings.Contains(s.ours[0].Text, "another version than 1.0"))
	}},
	{"libxml2 takes faults of namespaces for warnings", func(s *sample, v verdict) bool {
		return v.judge == "libxml2" && v.valid && s.ours[0].Code == NotWellFormed && strings.Contains(s.ours[0].Text, "namespace")
	}},
	{"libxml2 reads up to a NUL", func(s *sample, v verdict) bool {
		return v.judge == "libxml2" && v.valid && bytes.IndexByte(s.doc, 0) >= 0
	}},
	{"libxml2 passes over characters that base64 does not have", func(s *sample, v verdict) bool {
		return v.judge == "libxml2" && v.valid && strings.Contains(s.ours[0].Text, "base64Binary")
	}},
	{"libxml2 does not collapse white space around dates and times", func(_ *sample, v verdict) bool {
		return v.judge == "libxml2" && !v.valid && regexp.MustCompile(`'(\s[^']*|[^']*\s)' is not a valid value`).MatchString(v.said)
	}},
	{"libxml2 counts 24 digits", func(_ *sample, v verdict) bool {
		return v.judge == "libxml2" && !v.valid && regexp.MustCompile(`'[0-9]{25,}' is not a valid value`).MatchString(v.said)
	}},
	{"libxml2 takes white space in a CDATA section for more than white space", func(s *sample, v verdict) bool {
		return v.judge == "libxml2" && !v.valid && strings.Contains(v.said, "Character content other than whitespace") && bytes.Contains(s.doc, []byte("<![CDATA["))
	}},
}

func difference(s *sample, v verdict) bool {
	for _, d := range differences {
		if (len(s.ours) > 0) == v.valid && d.here(s, v) {
			return true
		}
	}
	return false
}

// TestJudgesOnMessages asks libxml2 and Xerces about every message at hand, and
// about changed versions of each: a few, or, with WEICHE_SOAK=1, hundreds.
func TestJudgesOnMessages(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles large schemas, three times")
	}
	changes, seed := 12, uint64(1)
	if os.Getenv("WEICHE_SOAK") == "1" {
		changes, seed = 600, uint64(os.Getpid())
		t.Logf("seed %d", seed)
	}
	jvm := xmljudge.Start(t)
	for _, j := range judged {
		t.Run(j.standard, func(t *testing.T) {
			s := compileOfficial(t, j.standard)
			var samples []sample
			add := func(what string, doc []byte) {
				samples = append(samples, sample{doc: doc, ours: s.Validate(doc, Options{}), what: what})
			}
			for _, pattern := range j.messages {
				files, err := filepath.Glob(pattern)
				if err != nil || len(files) == 0 {
					t.Fatalf("no message %s", pattern)
				}
				for _, file := range files {
					doc, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					add(filepath.Base(file), doc)
					m := newMutator(s, bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf")), seed)
					for i := range changes {
						what, changed := m.next()
						add(fmt.Sprintf("%s %d %s", filepath.Base(file), i, what), changed)
					}
				}
			}
			compare(t, jvm, shared+"/standards/"+j.schema, shared+"/standards/catalog/catalog.xml", samples, difference)
			valid := 0
			for i := range samples {
				if len(samples[i].ours) == 0 {
					valid++
				}
			}
			t.Logf("%d documents, %d of them valid", len(samples), valid)
		})
	}
}
