package standard

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const tinyList = `<gc:CodeList xmlns:gc="http://docs.oasis-open.org/codelist/ns/genericode/1.0/"><Annotation><Description><validFrom>2026-01-01</validFrom></Description></Annotation>
<Identification><ShortName>l</ShortName><Version>3</Version><CanonicalUri>urn:test:list</CanonicalUri></Identification>
<ColumnSet><Column Id="a"/><Column Id="b"/><Key Id="k"><ColumnRef Ref="b"/></Key></ColumnSet>
<SimpleCodeList><Row><Value ColumnRef="a"><SimpleValue>x</SimpleValue></Value><Value><SimpleValue> y  z </SimpleValue></Value></Row></SimpleCodeList></gc:CodeList>`

// FuzzGenericode: a list is read or refused; what is read has its key column.
func FuzzGenericode(f *testing.F) {
	f.Add([]byte(tinyList))
	f.Add([]byte(strings.ReplaceAll(tinyList, "ColumnRef=\"a\"", "")))
	f.Add([]byte("<CodeList/>"))
	f.Add([]byte(`<?xml version="1.0" encoding="ISO-8859-1"?><a>` + "\xe4</a>"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = utf8From(raw)
		h, ok := readListHead(raw)
		values, err := readListValues(raw, h.key)
		if err == nil && ok && h.key == "" {
			t.Error("read without a key column")
		}
		for v := range values {
			if len(v) > len(raw) {
				t.Error("a value longer than the list")
			}
		}
		_, _ = readListValues(raw, "a")
		if column, err := readListColumn(raw, "a"); err == nil && len(column) > len(values) {
			t.Error("more rows than keys")
		}
	})
}

// FuzzImport: a ZIP is installed whole or not at all, and leaves nothing behind.
func FuzzImport(f *testing.F) {
	pack := func(entries ...string) []byte {
		var buf bytes.Buffer
		z := zip.NewWriter(&buf)
		for i := 0; i+1 < len(entries); i += 2 {
			w, err := z.Create(entries[i])
			if err != nil {
				f.Fatal(err)
			}
			if _, err := w.Write([]byte(entries[i+1])); err != nil {
				f.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			f.Fatal(err)
		}
		return buf.Bytes()
	}
	good := strings.Replace(tinySchema, "%s", "", 1)
	f.Add(pack("a.xsd", good, "l.xml", tinyList))
	f.Add(pack("l.xml", tinyList))
	f.Add(pack("../a.xsd", good))
	f.Add(pack("a.xsd", good, "A.xsd", good))
	f.Add([]byte("PK\x03\x04"))
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir, err := os.MkdirTemp(root, "f-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		file, into := filepath.Join(dir, "p.zip"), filepath.Join(dir, "in", "to")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		done, err := Import(t.Context(), file, into, nil)
		entries, _ := os.ReadDir(into)
		if err != nil && len(entries) > 0 {
			t.Errorf("refused (%v), but %v is left", err, entries)
		}
		if around, _ := os.ReadDir(dir); len(around) > 2 {
			t.Errorf("written beside the folder: %v", around)
		}
		if err != nil {
			return
		}
		s, problems := Open(into)
		if problems.Failed() || len(s.List()) != len(done) {
			t.Errorf("installed %v, found %d: %v", done, len(s.List()), problems)
		}
	})
}

// FuzzMessage: a check ends, does not panic, and repeats no value of a message
// that is longer than a name.
func FuzzMessage(f *testing.F) {
	dir := f.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.MkdirAll(src, 0o755); err != nil {
		f.Fatal(err)
	}
	for name, text := range map[string]string{"m.xsd": ruledSchema, "l.xml": tinyList} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	if _, err := Import(f.Context(), src, filepath.Join(dir, "into"), nil); err != nil {
		f.Fatal(err)
	}
	s, _ := Open(filepath.Join(dir, "into"))
	std, ok := s.Get("ruled", "1")
	if !ok {
		f.Fatal("not installed")
	}
	f.Add([]byte(ruledMessage))
	f.Add([]byte(strings.Replace(ruledMessage, "y z", "<![CDATA[y z]]>", 1)))
	f.Add([]byte(strings.Replace(ruledMessage, "y z", "&#x79; z", 1)))
	f.Add([]byte(strings.Replace(ruledMessage, "<c ", "<c xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:type='Code' ", 1)))
	f.Add([]byte("<a"))
	f.Add([]byte("<!DOCTYPE a><a/>"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		const secret = "Geheimnisvoll"
		raw = bytes.ReplaceAll(raw, []byte("§"), []byte(secret))
		for _, about := range []About{{}, {Traffic: Productive, At: time.Unix(0, 0), RefuseMissingLists: true, Message: "m.0100"}} {
			// Also what no validator has seen must do no harm.
			fs, err := std.Inspect(raw, about)
			if err != nil || len(fs) > maxFindings+1 {
				t.Fatalf("%v, %d findings", err, len(fs))
			}
			if fs, err = std.Check(raw, about); err != nil {
				t.Fatal(err)
			}
			for _, f := range fs {
				if strings.Contains(f.Text, secret) {
					t.Errorf("a value is repeated: %v", f)
				}
			}
		}
		_, _, _ = s.For(raw)
		_, _ = MessageID(raw)
	})
}

const ruledSchema = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:test:ruled" xmlns="urn:test:ruled" version="1">
<xs:annotation><xs:appinfo><standard><nameTechnisch>ruled</nameTechnisch></standard><versionStandard><version>1</version></versionStandard></xs:appinfo></xs:annotation>
<xs:element name="m.0100"><xs:complexType><xs:sequence>
  <xs:element name="h"><xs:complexType><xs:sequence><xs:element name="nachrichtenUUID" type="xs:string"/><xs:element name="nachrichtentyp" type="Code" minOccurs="0"/>
    <xs:element name="an"><xs:complexType><xs:sequence><xs:element name="verzeichnisdienst" type="Code"/><xs:element name="kennung" type="xs:string"/></xs:sequence></xs:complexType></xs:element>
  </xs:sequence></xs:complexType></xs:element>
  <xs:element name="c" type="Code" maxOccurs="unbounded"/><xs:any namespace="##targetNamespace urn:other" minOccurs="0" maxOccurs="unbounded" processContents="lax"/>
</xs:sequence><xs:attribute name="test"/><xs:attribute name="version"/></xs:complexType></xs:element>
<xs:element name="free" type="Code"/>
<xs:complexType name="Code"><xs:sequence><xs:element name="code" type="xs:token"/></xs:sequence><xs:attribute name="listURI" type="xs:anyURI"/><xs:attribute name="listVersionID"/></xs:complexType>
</xs:schema>`

const ruledMessage = `<r:m.0100 xmlns:r="urn:test:ruled" version="1"><h><nachrichtenUUID>60f6667b-fa45-4bd7-b717-f4d6c65e5edb</nachrichtenUUID><an><verzeichnisdienst><code>DVDV</code></verzeichnisdienst><kennung>bab:1</kennung></an></h>
<c listURI="urn:test:list" listVersionID="3"><code>y z</code></c></r:m.0100>`
