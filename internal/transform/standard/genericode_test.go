package standard

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every official list at hand can be read: who it is, and its codes.
func TestOfficialCodeListsCanBeRead(t *testing.T) {
	root, n := shared(t, "codelists"), 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".xml" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		raw = utf8From(raw)
		h, ok := readListHead(raw)
		if !ok || h.uri == "" || h.version == "" || h.key == "" {
			t.Errorf("%s: %+v", filepath.Base(path), h)
		}
		if err := usable(filepath.Base(path), raw); err != nil {
			t.Error(err)
		}
		return nil
	})
	if err != nil || n < 100 {
		t.Errorf("%d lists, %v", n, err)
	}
}

func TestRowsOfCodeLists(t *testing.T) {
	const head = `<gc:CodeList xmlns:gc="http://docs.oasis-open.org/codelist/ns/genericode/1.0/" xmlns:x="urn:x"><Identification><Version>1</Version><CanonicalUri>urn:l</CanonicalUri></Identification>
<ColumnSet><Column Id="a"/><Column Id="b"/><Column Id="c"/>
<Key Id="first"><ColumnRef Ref="a"/></Key><Key Id="second"><Annotation><AppInfo><x:recommendedKeyColumn/></AppInfo></Annotation><ColumnRef Ref="b"/></Key></ColumnSet>`
	for name, c := range map[string]struct{ rows, column, want string }{
		"the recommended key":          {`<Row><Value ColumnRef="a"><SimpleValue>1</SimpleValue></Value><Value ColumnRef="b"><SimpleValue>2</SimpleValue></Value></Row>`, "", "2"},
		"the column that is asked for": {`<Row><Value ColumnRef="a"><SimpleValue>1</SimpleValue></Value><Value ColumnRef="b"><SimpleValue>2</SimpleValue></Value></Row>`, "a", "1"},
		"values in the columns' order": {`<Row><Value><SimpleValue>1</SimpleValue></Value><Value><SimpleValue>2</SimpleValue></Value><Value><SimpleValue>3</SimpleValue></Value></Row>`, "c", "3"},
		"one that follows a named one": {`<Row><Value ColumnRef="b"><SimpleValue>2</SimpleValue></Value><Value><SimpleValue>3</SimpleValue></Value></Row>`, "c", "3"},
		"a value that is not there":    {`<Row><Value ColumnRef="a"/></Row>`, "a", ""},
		"escaped, in pieces, with space": {`<Row><Value ColumnRef="b"><SimpleValue> a&amp;<!-- --><![CDATA[ b]]>
 c </SimpleValue></Value></Row>`, "b", "a& b c"},
	} {
		values, err := readListValues([]byte(head+"<SimpleCodeList>"+c.rows+"</SimpleCodeList></gc:CodeList>"), c.column)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for v := range values {
			got = append(got, v)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for name, raw := range map[string]string{
		"another document": "<a/>", "cut off": head, "not well-formed": head + "<SimpleCodeList><Row></SimpleCodeList>",
		"another namespace": strings.Replace(head, "genericode", "other", 1) + "</gc:CodeList>",
	} {
		if values, err := readListValues([]byte(raw), ""); err == nil {
			t.Errorf("%s: %v", name, values)
		}
	}
}
