package standard

import (
	"archive/zip"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weiche/internal/fault"
)

// shared returns a path beside the repository; CI must have it.
func shared(t testing.TB, path string) string {
	t.Helper()
	p := "../../../../shared/" + path
	if _, err := os.Stat(p); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", p)
		}
		t.Skipf("%s is not at hand", p)
	}
	return p
}

func TestImportOfXBauBringsTwoStandards(t *testing.T) {
	into := t.TempDir()
	got, err := Import(t.Context(), shared(t, "standards/xbau/2.6"), into, []string{shared(t, "codelists/xbau-2.6")})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	byKey := map[string]Imported{}
	for _, i := range got {
		byKey[i.Name+"/"+i.Version] = i
		if i.Licence != "none stated" {
			t.Errorf("%s: licence %q", i.Name, i.Licence)
		}
	}
	if i := byKey["xbau/2.6"]; i.Messages < 80 || i.CodeLists < 50 {
		t.Errorf("xbau/2.6 has %d messages and %d code lists", i.Messages, i.CodeLists)
	}
	if i := byKey["xbau-kernmodul/1.3.0"]; i.Messages < 5 || i.CodeLists < 5 {
		t.Errorf("xbau-kernmodul/1.3.0 has %d messages and %d code lists", i.Messages, i.CodeLists)
	}
	std, problems := Open(into)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for file, key := range map[string][3]string{
		"xbau-2.6-baugenehmigung.0200.xml":               {"xbau", "2.6", "baugenehmigung.antrag.0200"},
		"golden-xbauk-1.3.0-universellerAntrag.1200.xml": {"xbau-kernmodul", "1.3.0", "universellerAntrag.antrag.1200"},
		"xbauk-1.3.0-rueckweisung.1100.xml":              {"xbau-kernmodul", "1.3.0", "prozessnachrichten.rueckweisung.1100"},
	} {
		s, ok := std.Get(key[0], key[1])
		if !ok {
			t.Fatalf("%v is not installed", key)
		}
		raw, err := os.ReadFile(shared(t, "examples/generated/"+file))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(raw); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if _, ok := s.Message(key[2]); !ok && !strings.Contains(file, "1100") {
			t.Errorf("%v has no message %s", key, key[2])
		}
	}
	for _, file := range []string{"neg-din91379.xml", "neg-nachrichtentyp.xml"} {
		s, _ := std.Get("xbau-kernmodul", "1.3.0")
		raw, err := os.ReadFile(shared(t, "examples/generated/"+file))
		if err != nil {
			t.Fatal(err)
		}
		err = s.Validate(raw)
		if err == nil {
			t.Errorf("%s is accepted", file)
			continue
		}
		if !strings.Contains(err.Error(), "line ") || strings.Contains(err.Error(), "Иванов") {
			t.Errorf("%s: %v", file, err)
		}
	}
	// Again: the same files change nothing.
	again, err := Import(t.Context(), shared(t, "standards/xbau/2.6"), into, []string{shared(t, "codelists/xbau-2.6")})
	if err != nil || !again[0].Already {
		t.Errorf("importing again: %+v, %v", again, err)
	}
	// Without the code lists it is another package.
	if _, err := Import(t.Context(), shared(t, "standards/xbau/2.6"), into, nil); err == nil || !strings.Contains(err.Error(), "remove it first") {
		t.Errorf("importing other files over an installed standard: %v", err)
	}
	if err := Remove(into, "xbau", "2.6"); err != nil {
		t.Fatal(err)
	}
	std, _ = Open(into)
	if len(std.List()) != 1 {
		t.Errorf("after removal: %v", std.List())
	}
}

func TestImportWithoutEntrySchemaMakesOne(t *testing.T) {
	src := t.TempDir()
	files, err := filepath.Glob(filepath.Join(shared(t, "standards/xbau/2.6"), "*.xsd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "-all.xsd") {
			continue
		}
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, filepath.Base(f)), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	into := t.TempDir()
	got, err := Import(t.Context(), src, into, nil)
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	std, _ := Open(into)
	s, _ := std.Get("xbau", "2.6")
	for _, m := range []string{"baugenehmigung.antrag.0200", "anzeige.baubeginn.0900", "vorbescheid.antrag.0210"} {
		if _, ok := s.Message(m); !ok {
			t.Errorf("no message %s", m)
		}
	}
	raw, err := os.ReadFile(shared(t, "examples/generated/xbau-2.6-baugenehmigung.0200.xml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(raw); err != nil {
		t.Error(err)
	}
}

func TestImportOfOtherStandards(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles large schemas")
	}
	for _, c := range []struct {
		src, key string
		with     []string
	}{
		{"standards/xbau/2.5", "xbau/2.5", nil},
		{"standards/xbeteiligung/1.2", "xbeteiligung/1.2", nil},
		{"standards/xjustiz/3.6.2", "xjustiz/3.6.2", []string{"standards/catalog", "standards/xbau/2.6"}},
	} {
		t.Run(c.key, func(t *testing.T) {
			with := []string{}
			for _, w := range c.with {
				with = append(with, shared(t, w))
			}
			got, err := Import(t.Context(), shared(t, c.src), t.TempDir(), with)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range got {
				t.Logf("%s/%s: %d messages, %s", i.Name, i.Version, i.Messages, i.Licence)
				if i.Name+"/"+i.Version == c.key {
					return
				}
			}
			t.Errorf("got %+v", got)
		})
	}
}

const tinySchema = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:tiny" xmlns="urn:test:tiny" version="1.0" elementFormDefault="qualified">
<xs:annotation><xs:appinfo><standard><nameTechnisch>tiny</nameTechnisch></standard><versionStandard><version>1.0</version></versionStandard></xs:appinfo></xs:annotation>
%s<xs:element name="m.1" type="xs:string"/></xs:schema>`

func TestHostilePackagesAreRefusedWhole(t *testing.T) {
	good := fmt.Sprintf(tinySchema, "")
	type entry struct {
		name, content string
		mode          os.FileMode
	}
	for name, c := range map[string]struct {
		entries []entry
		want    string
	}{
		"path traversal": {[]entry{{"a.xsd", good, 0o644}, {"../evil.xsd", good, 0o644}}, "leaves the package"},
		"absolute path":  {[]entry{{"/etc/evil.xsd", good, 0o644}}, "leaves the package"},
		"backslashes":    {[]entry{{`..\evil.xsd`, good, 0o644}}, "leaves the package"},
		"symlink":        {[]entry{{"a.xsd", good, 0o644}, {"b.xsd", "/etc/passwd", os.ModeSymlink | 0o777}}, "links are refused"},
		"twice":          {[]entry{{"a.xsd", good, 0o644}, {"a.xsd", good, 0o644}}, "twice"},
		"doctype":        {[]entry{{"a.xsd", `<!DOCTYPE x [<!ENTITY a "b">]>` + good, 0o644}}, "DOCTYPE"},
		"bomb":           {[]entry{{"a.xsd", good, 0o644}, {"b.xml", "<a>" + strings.Repeat(" ", 70<<20) + "</a>", 0o644}}, "larger than allowed"},
		"twice by case":  {[]entry{{"a.xsd", good, 0o644}, {"A.XSD", good, 0o644}}, "twice"},
		"a list without codes": {[]entry{{"a.xsd", good, 0o644}, {"l.xml", strings.Replace(tinyList, "<Row>", "<Row><!--", 1)[:strings.Index(tinyList, "<Row>")] + "</SimpleCodeList></gc:CodeList>", 0o644}},
			"has no code"},
		"a list without a key":    {[]entry{{"a.xsd", good, 0o644}, {"l.xml", strings.Replace(tinyList, `<Key Id="k"><ColumnRef Ref="b"/></Key>`, "", 1), 0o644}}, "no key column"},
		"two lists of one name":   {[]entry{{"a.xsd", good, 0o644}, {"l.xml", tinyList, 0o644}, {"m.xml", strings.Replace(tinyList, "x</", "w</", 1), 0o644}}, "twice and differs"},
		"a list's name is a path": {[]entry{{"l.xml", strings.Replace(tinyList, "urn:test:list", "urn:test:..", 1), 0o644}}, "folder's name"},
		"a list with a DOCTYPE":   {[]entry{{"l.xml", "<!DOCTYPE a>" + tinyList, 0o644}}, "DOCTYPE"},
		"no schema":               {[]entry{{"a.xml", "<a/>", 0o644}}, "no XML schema"},
		"not a schema":            {[]entry{{"a.xsd", "<a/>", 0o644}}, "no XML schema"},
		"deep":                    {[]entry{{"a.xsd", strings.Repeat("<a>", 100_000), 0o644}}, "deeper"},
		"does not compile": {[]entry{{"a.xsd", fmt.Sprintf(tinySchema, `<xs:element name="x" type="missing"/>`), 0o644}},
			"does not compile"},
		"leaves the folder": {[]entry{{"a.xsd", fmt.Sprintf(tinySchema, `<xs:import namespace="urn:other" schemaLocation="https://example.org/other.xsd"/>`), 0o644}},
			"--with"},
		"name is a path": {[]entry{{"a.xsd", strings.Replace(good, "<nameTechnisch>tiny", "<nameTechnisch>../tiny", 1), 0o644}}, "folder's name"},
	} {
		t.Run(name, func(t *testing.T) {
			var buf bytes.Buffer
			z := zip.NewWriter(&buf)
			for _, e := range c.entries {
				h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
				h.SetMode(e.mode)
				w, err := z.CreateHeader(h)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write([]byte(e.content)); err != nil {
					t.Fatal(err)
				}
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			file, into := filepath.Join(t.TempDir(), "p.zip"), t.TempDir()
			if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := Import(t.Context(), file, into, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			left, err := os.ReadDir(into)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	t.Run("damaged", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "p.zip")
		if err := os.WriteFile(file, []byte("PK\x03\x04 and then nothing"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Import(t.Context(), file, t.TempDir(), nil); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("a link in a directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a.xsd"), []byte(good), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/etc/passwd", filepath.Join(dir, "b.xsd")); err != nil {
			t.Fatal(err)
		}
		if _, err := Import(t.Context(), dir, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "links are refused") {
			t.Errorf("got %v", err)
		}
	})
}

// A package of many files is refused by their number, before they are read.
func TestTooManyFilesAreRefused(t *testing.T) {
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for i := range maxPackageFiles + 1 {
		if _, err := z.Create(fmt.Sprintf("%d.txt", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "p.zip")
	if err := os.WriteFile(file, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), file, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

// What a crash left is no standard, disturbs nothing, and goes in time.
func TestCrashLeavesNothingHalf(t *testing.T) {
	into := t.TempDir()
	old, fresh := filepath.Join(into, ".import-1"), filepath.Join(into, ".import-2")
	for _, dir := range []string{old, fresh, filepath.Join(into, ".remove-3")} {
		half := filepath.Join(dir, "tiny", "1.0")
		if err := os.MkdirAll(half, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(half, "a.xsd"), []byte("<"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, before, before); err != nil {
		t.Fatal(err)
	}
	if s, problems := Open(into); len(problems) > 0 || len(s.List()) > 0 {
		t.Errorf("found %v, %v", s.List(), problems)
	}
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "a.xsd"), []byte(fmt.Sprintf(tinySchema, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), src, into, nil); err != nil {
		t.Fatal(err)
	}
	if s, problems := Open(into); len(problems) > 0 || len(s.List()) != 1 {
		t.Errorf("found %v, %v", s.List(), problems)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("what a crash left a day ago is still there")
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error("an import under way was swept")
	}
}

// An installed file that was changed is not used.
func TestChangedFilesAreNotUsed(t *testing.T) {
	std := imported(t, "ruled/1", map[string]string{"m.xsd": ruledSchema, "l.xml": tinyList})
	list := filepath.Join(std.Dir, std.CodeLists[0].File)
	raw, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, bytes.Replace(raw, []byte("y  z"), []byte("hidden"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	installed, _ := Open(filepath.Dir(filepath.Dir(std.Dir)))
	again := get(t, installed, "ruled/1")
	if l, _ := again.lists.get([]byte("urn:test:list"), []byte("3")); l == nil {
		t.Error("the list is not found")
	} else if _, err := l.load(""); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("the list: %v", err)
	}
	if _, err := again.Inspect([]byte(ruledMessage), About{}); fault.Of(err).Reason != fault.ReasonStandardMissing {
		t.Errorf("the check: %v", err)
	}
	if err := os.WriteFile(filepath.Join(std.Dir, "m.xsd"), []byte(ruledSchema+"<!-- -->"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again.Compile(); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("got %v", err)
	}
}

func TestListsComeAloneToo(t *testing.T) {
	src, into := t.TempDir(), t.TempDir()
	latin := strings.Replace(tinyList, "<gc:CodeList", `<?xml version="1.0" encoding="ISO-8859-1"?>`+"\n<gc:CodeList", 1)
	latin = strings.Replace(latin, "y  z", "M\xfcll", 1)
	file := filepath.Join(src, "l.xml")
	if err := os.WriteFile(file, []byte(latin), 0o600); err != nil {
		t.Fatal(err)
	}
	done, err := Import(t.Context(), file, into, nil, Valid("2026-02-01", ""))
	if err != nil || len(done) != 1 || done[0].Name != "list" || done[0].Version != "3" {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, err := Import(t.Context(), src, into, nil); err != nil {
		t.Errorf("the same again, as a folder: %v", err)
	}
	s, problems := Open(into)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	std := get(t, s, "list/3")
	if std.ValidFrom != "2026-01-01" || len(std.CodeLists) != 1 {
		t.Errorf("%+v", std.Manifest)
	}
	l, known := std.lists.get([]byte("urn:test:list"), []byte("3"))
	if l == nil || !known {
		t.Fatal("not found")
	}
	for column, want := range map[string]string{"": "Müll", "b": "Müll", "a": "x", "nowhere": "Müll"} {
		if v, err := l.load(column); err != nil || len(v) != 1 || !func() bool { _, ok := v[want]; return ok }() {
			t.Errorf("column %q: %v, %v", column, v, err)
		}
	}
	if err := Remove(into, "list", "3"); err != nil {
		t.Error(err)
	}
}

func TestLicenceIsNamed(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"a.xsd": fmt.Sprintf(tinySchema, ""), "LICENSE.txt": "Creative Commons BY 4.0\n\nmore"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Import(t.Context(), dir, t.TempDir(), nil)
	if err != nil || got[0].Licence != "Creative Commons BY 4.0 (LICENSE.txt)" {
		t.Errorf("%+v, %v", got, err)
	}
}
