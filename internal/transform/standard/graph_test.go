package standard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// imported installs files as a package and returns the standard.
func imported(t testing.TB, key string, files map[string]string) *Standard {
	t.Helper()
	src, into := t.TempDir(), t.TempDir()
	for name, text := range files {
		file := filepath.Join(src, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Import(t.Context(), src, into, nil); err != nil {
		t.Fatal(err)
	}
	s, problems := Open(into)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return get(t, s, key)
}

// Codes are found wherever the schema allows one: by a wildcard, a derived type,
// a substitute, a group, in either namespace.
func TestCodesAreFoundWhereverTheSchemaAllowsThem(t *testing.T) {
	std := imported(t, "ruled/1", map[string]string{"m.xsd": ruledSchema, "l.xml": tinyList})
	for name, c := range map[string]struct{ old, fresh, want string }{
		"as it is":                      {"", "", ""},
		"wrong":                         {"y z", "x", " code-unknown code"},
		"normalised":                    {"y z", " y \n\tz ", ""},
		"CDATA":                         {"y z", "<![CDATA[x]]>", " code-unknown code"},
		"by a wildcard":                 {"</c>", `</c><r:free listURI="urn:test:list" listVersionID="3"><code>q</code></r:free>`, " code-unknown code"},
		"unknown by wildcard":           {"</c>", `</c><z:free xmlns:z="urn:other"><code>q</code></z:free>`, ""},
		"by xsi:type":                   {"<c ", `<c xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="r:Code" `, ""},
		"quotes":                        {`listURI="urn:test:list"`, `listURI='urn:test:list' `, ""},
		"another version":               {`listVersionID="3"`, `listVersionID="4"`, " code-list-unknown c"},
		"no list":                       {` listURI="urn:test:list" listVersionID="3"`, "", ""},
		"no UUID":                       {"60f6667b-fa45", "60f6667b_fa45", " message-id nachrichtenUUID"},
		"another kind":                  {"</nachrichtenUUID>", "</nachrichtenUUID><nachrichtentyp><code>0200</code></nachrichtentyp>", " message-type code"},
		"its kind":                      {"</nachrichtenUUID>", "</nachrichtenUUID><nachrichtentyp><code>0100</code></nachrichtentyp>", ""},
		"a key without the DVDV's list": {"bab:1", "bab1", " authority-key-unknown kennung"},
		"a greater-than sign":           {`version="1"`, `version="1" test="a>b"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := ruledMessage
			if c.old != "" {
				if !strings.Contains(m, c.old) {
					t.Fatalf("no %q", c.old)
				}
				m = strings.Replace(m, c.old, c.fresh, 1)
			}
			fs, err := std.Check([]byte(m), About{})
			if err != nil {
				t.Fatal(err)
			}
			if got := refusals(fs); got != c.want {
				t.Errorf("got %q, want %q: %v", got, c.want, fs)
			}
		})
	}
}
