package xsd

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
)

const shared = "../../../../shared"

// official are the entry schemas of the standards that the router serves.
var official = []struct {
	name, dir string
	entries   []string
}{
	{"xbau/2.6", "xbau/2.6", []string{"xbau-all.xsd"}},
	{"xbau-kernmodul/1.3.0", "xbau/2.6", []string{"xbauk-all.xsd"}},
	{"xbau/2.5", "xbau/2.5", []string{"xbau.xsd"}},
	{"xbeteiligung/1.2", "xbeteiligung/1.2", []string{"xbeteiligung.xsd"}},
	{"xdomea/3.0.0", "xdomea/3.0.0", []string{"xdomea.xsd"}},
	{"xdomea/3.1.0", "xdomea/3.1.0", []string{"xdomea.xsd"}},
	{"xjustiz/3.6.2", "xjustiz/3.6.2", []string{"xjustiz_0005_nachrichten_3_2.xsd"}},
}

// resolver finds references as the catalog beside the standards does.
func resolver(fsys fs.FS) Resolve {
	return func(from, location string) (string, bool) {
		file := path.Join(path.Dir(from), location)
		if strings.Contains(location, "://") {
			file = ""
		}
		base := path.Base(location)
		for _, f := range []string{file, path.Join(path.Dir(from), base), "catalog/" + base, "xbau/2.6/" + base} {
			if f == "" {
				continue
			}
			if info, err := fs.Stat(fsys, f); err == nil && !info.IsDir() {
				return f, true
			}
		}
		return "", false
	}
}

func compileOfficial(t testing.TB, name string) *Schema {
	t.Helper()
	schema, err := compilerOf(t, name).compile()
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// compilerOf has read a standard's files, and compiled nothing.
func compilerOf(t testing.TB, name string) *compiler {
	t.Helper()
	root := shared + "/standards"
	if _, err := os.Stat(root); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the official standards are missing: %v", err)
		}
		t.Skip("the official standards are not beside the repository")
	}
	for _, s := range official {
		if s.name != name {
			continue
		}
		fsys := os.DirFS(root)
		c := newCompiler(fsys, resolver(fsys))
		for _, e := range s.entries {
			if err := c.load(s.dir+"/"+e, false, "", Position{}); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	t.Fatalf("%s is not known", name)
	return nil
}

func TestCompileTheOfficialStandards(t *testing.T) {
	for _, s := range official {
		t.Run(s.name, func(t *testing.T) {
			schema := compileOfficial(t, s.name)
			states, edges := 0, 0
			for _, ty := range schema.types {
				states += len(ty.states)
				for _, st := range ty.states {
					edges += len(st.next)
				}
			}
			t.Logf("%d elements, %d types, %d names, %d states, %d edges", len(schema.elements), len(schema.types), len(schema.names.list), states, edges)
		})
	}
}
