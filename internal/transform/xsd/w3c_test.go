package xsd

import (
	"encoding/xml"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// suiteSet is a file of the W3C's test suite for XML Schema: groups of tests,
// each of a schema and of documents.
type suiteSet struct {
	Version string       `xml:"version,attr"`
	Groups  []suiteGroup `xml:"testGroup"`
}

type suiteGroup struct {
	Name      string      `xml:"name,attr"`
	Version   string      `xml:"version,attr"`
	Schemas   []suiteTest `xml:"schemaTest"`
	Instances []suiteTest `xml:"instanceTest"`
}

type suiteTest struct {
	Name      string          `xml:"name,attr"`
	Version   string          `xml:"version,attr"`
	Schemas   []suiteDocument `xml:"schemaDocument"`
	Instances []suiteDocument `xml:"instanceDocument"`
	Expected  []struct {
		Validity string `xml:"validity,attr"`
		Version  string `xml:"version,attr"`
	} `xml:"expected"`
	Current struct {
		Status string `xml:"status,attr"`
	} `xml:"current"`
}

type suiteDocument struct {
	Href string `xml:"http://www.w3.org/1999/xlink href,attr"`
}

// oneZero says whether what carries a version is meant for XSD 1.0.
func oneZero(version string) bool {
	return version == "" || slices.Contains(strings.Fields(version), "1.0")
}

// valid says what the suite expects of XSD 1.0; known is false where it does not
// say.
func (s *suiteTest) valid() (valid, known bool) {
	if !oneZero(s.Version) {
		return false, false
	}
	for _, e := range s.Expected {
		if oneZero(e.Version) && (e.Validity == "valid" || e.Validity == "invalid") {
			return e.Validity == "valid", true
		}
	}
	return false, false
}

type suiteCount struct {
	schemas, refused, lenient int
	documents, different      int
}

// elsewhere are the documents about which the suite says something else, and why
// the router's answer stands.
var elsewhere = []struct{ file, why string }{
	{`gDay-maxInclusive-[23]-|gMonth-(minExclusive-3|maxExclusive-2)-`, "the file's name says the contrary of what its schema does"},
	{`/(targetNS00101m|ST_name00401m|ST_targetNS00[12]01m)/|test264908_1|particlesB013|attgD034|ctL021|schA1`, "a document names the schema it wants: xsi:schemaLocation is ignored, and a root has to be declared"},
	{`attP031`, "an attribute that is prohibited where no base has it is no attribute of the type; libxml2 says so too"},
	{`gMonth00[24]`, "the form --05-- is that of the first edition"},
	{`particlesZ001`, "the schema, not the document, is at fault: its restriction is none, which is not checked"},
	{`regex/re(J|L9[89]|M98|N99|S21|S42|T63|T84)`, "characters beyond the first 65,536 keep their Unicode category and block; libxml2 says so too"},
}

// unsupported is what the compiler may say of a schema that the suite calls valid.
var unsupported = regexp.MustCompile(`is not supported|which the standard's folder does not have|is too large|names nothing that is declared` +
	`|names another version than 1.0|no number that can be counted to|not declared by the schema that is redefined|the simple type is derived from itself`)

// lenient is how many schemas that the suite calls invalid compile: rules that
// do not change what a document has to be like are not checked (see the package's
// comment).
const lenient = 622

// TestW3CSuite runs the W3C's test suite for XML Schema, where WEICHE_XSTS names a
// folder with it.
func TestW3CSuite(t *testing.T) {
	dir := os.Getenv("WEICHE_XSTS")
	if dir == "" {
		t.Skip("needs the W3C's XML Schema test suite in the folder WEICHE_XSTS")
	}
	var all suiteCount
	t.Run("nist", func(t *testing.T) { all.nist(t, os.DirFS(dir)) })
	var files []string
	for _, p := range []string{"*Meta/*.testSet", "msMeta/*.xml", "common/*.testSet"} {
		found, _ := filepath.Glob(filepath.Join(dir, p))
		files = append(files, found...)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var set suiteSet
		if err := xml.Unmarshal(raw, &set); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		rel, _ := filepath.Rel(dir, file)
		t.Run(rel, func(t *testing.T) {
			if !oneZero(set.Version) {
				t.Skip("for XSD 1.1")
			}
			for _, g := range set.Groups {
				if oneZero(g.Version) {
					all.group(t, os.DirFS(dir), path.Dir(rel), &g)
				}
			}
		})
	}
	t.Logf("%+v", all)
	if all.schemas < 13_000 || all.documents < 24_000 {
		t.Error("the suite is not whole")
	}
	if all.lenient > lenient {
		t.Errorf("%d schemas compile that should not, %d are known", all.lenient, lenient)
	}
}

func (c *suiteCount) group(t *testing.T, fsys fs.FS, base string, g *suiteGroup) {
	var schema *Schema
	for i := range g.Schemas {
		test := &g.Schemas[i]
		valid, known := test.valid()
		var entries []string
		for _, d := range test.Schemas {
			entries = append(entries, path.Join(base, d.Href))
		}
		s, err := Compile(fsys, entries, suiteResolver(fsys))
		var ce *CompileError
		if err != nil && !errors.As(err, &ce) {
			t.Errorf("%s: %v", test.Name, err)
		}
		if !known {
			continue
		}
		c.schemas++
		switch {
		case valid && err != nil:
			c.refuse(t, err)
		case !valid && err == nil:
			c.lenient++
			t.Logf("LENIENT %s: %s", test.Name, entries)
		}
		if err == nil && valid {
			schema = s
		}
	}
	if schema == nil {
		return
	}
	for i := range g.Instances {
		test := &g.Instances[i]
		valid, known := test.valid()
		if !known {
			continue
		}
		for _, d := range test.Instances {
			c.document(t, fsys, schema, path.Join(base, d.Href), valid)
		}
	}
}

func (c *suiteCount) document(t *testing.T, fsys fs.FS, schema *Schema, file string, valid bool) {
	raw, err := fs.ReadFile(fsys, file)
	if err != nil {
		t.Errorf("%s: %v", file, err)
		return
	}
	c.documents++
	errs := schema.Validate(raw, Options{Limits: Limits{Attributes: 10_000}})
	if valid == (len(errs) == 0) {
		return
	}
	c.different++
	for _, e := range elsewhere {
		if regexp.MustCompile(e.file).MatchString(file) {
			return
		}
	}
	t.Errorf("%s: valid is %v, found %v", file, valid, errs)
}

func (c *suiteCount) refuse(t *testing.T, err error) {
	c.refused++
	if !unsupported.MatchString(err.Error()) {
		t.Error(err)
	}
}

var nistInstance = regexp.MustCompile(`/NISTXML-(SV-(II|IV)-.*)-\d+\.xml$`)

// nist runs the suite's tests of NIST, whose files' names say what is expected.
func (c *suiteCount) nist(t *testing.T, fsys fs.FS) {
	schemas := map[string]*Schema{}
	err := fs.WalkDir(fsys, "nistData", func(file string, _ fs.DirEntry, err error) error {
		m := nistInstance.FindStringSubmatch(file)
		if err != nil || m == nil {
			return err
		}
		name := path.Join(path.Dir(file), "NISTSchema-"+m[1]+".xsd")
		schema, known := schemas[name]
		if !known {
			c.schemas++
			if schema, err = Compile(fsys, []string{name}, suiteResolver(fsys)); err != nil {
				c.refuse(t, err)
				schema = nil
			}
			schemas[name] = schema
		}
		if schema != nil {
			c.document(t, fsys, schema, file, m[2] == "IV")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func suiteResolver(fsys fs.FS) Resolve {
	return func(from, location string) (string, bool) {
		file := path.Join(path.Dir(from), location)
		_, err := fs.Stat(fsys, file)
		return file, err == nil
	}
}
