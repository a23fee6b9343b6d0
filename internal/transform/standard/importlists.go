package standard

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/beevik/etree"
)

// namesOf lists a package's files with one of the extensions, sorted.
func namesOf(p map[string][]byte, extensions ...string) []string {
	var names []string
	for name := range p {
		if slices.Contains(extensions, strings.ToLower(path.Ext(name))) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

type listID struct{ uri, version string }

// codeLists takes the package's own lists, and from the with directories those
// that the schemas name.
func (im *importer) codeLists(man *Manifest, content map[string][]byte, schemas [][]byte) error {
	have := map[listID][]byte{}
	mentioned := func(uri string) bool {
		return slices.ContainsFunc(schemas, func(raw []byte) bool { return bytes.Contains(raw, []byte(uri)) })
	}
	for i, p := range append([]map[string][]byte{im.pkg}, im.with...) {
		for _, name := range namesOf(p, ".xml", ".gc") {
			h, ok := readListHead(p[name])
			if !ok || i > 0 && !mentioned(h.uri) {
				continue
			}
			id := listID{h.uri, h.version}
			if before := have[id]; before != nil {
				if i == 0 && !bytes.Equal(before, p[name]) {
					return fmt.Errorf("the code list %s, version %s, stands in it twice and differs", h.uri, h.version)
				}
				continue
			}
			have[id] = p[name]
			if err := usable(name, p[name]); err != nil {
				return err
			}
			file := freeName(content, "codelists/", name)
			content[file] = p[name]
			man.CodeLists = append(man.CodeLists, CodeList{URI: h.uri, Version: h.version, File: file, ValidFrom: h.validFrom, ValidUntil: h.validUntil})
		}
	}
	return nil
}

// usable says whether codes can be looked up in a list.
func usable(name string, raw []byte) error {
	values, err := readListValues(raw, "")
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if len(values) == 0 {
		return fmt.Errorf("%q: the code list has no code", name)
	}
	return nil
}

// freeName returns the place of a file in a folder of the standard, under a name
// that is free yet.
func freeName(content map[string][]byte, folder, name string) string {
	file := folder + path.Base(name)
	for n := 2; content[file] != nil; n++ {
		file = fmt.Sprintf("%s%d-%s", folder, n, path.Base(name))
	}
	return file
}

// loneList is a code list that comes without a standard.
type loneList struct {
	file string
	head listHead
}

// loneLists returns the lists of a package that has no schema.
func (im *importer) loneLists() []loneList {
	if len(namesOf(im.pkg, ".xsd")) > 0 {
		return nil
	}
	var out []loneList
	for _, name := range namesOf(im.pkg, ".xml", ".gc") {
		if h, ok := readListHead(im.pkg[name]); ok {
			out = append(out, loneList{name, h})
		}
	}
	return out
}

// prepareList writes a code list into tmp as what is installed of a standard: a
// folder of its own, named by the last part of the list's URI.
func (im *importer) prepareList(l loneList, tmp string) (Imported, error) {
	name := strings.ToLower(l.head.uri[strings.LastIndexAny(l.head.uri, ":/")+1:])
	if !safeName.MatchString(name) || !safeName.MatchString(l.head.version) {
		return Imported{}, fmt.Errorf("%q: the list's URI and version cannot be a folder's name", l.file)
	}
	if err := usable(l.file, im.pkg[l.file]); err != nil {
		return Imported{}, err
	}
	file := path.Base(l.file)
	man := Manifest{
		Name: name, Version: l.head.version, Title: "code list " + l.head.uri, Licence: noLicence, Source: im.source, Files: map[string]string{},
		ValidFrom: l.head.validFrom, ValidUntil: l.head.validUntil,
		CodeLists: []CodeList{{URI: l.head.uri, Version: l.head.version, File: file, ValidFrom: l.head.validFrom, ValidUntil: l.head.validUntil}},
	}
	dir := filepath.Join(tmp, name, man.Version)
	if err := writeFiles(dir, &man, map[string][]byte{file: im.pkg[l.file]}); err != nil {
		return Imported{}, err
	}
	if err := writeManifest(dir, man); err != nil {
		return Imported{}, err
	}
	return Imported{Name: name, Version: man.Version, Title: man.Title, Licence: man.Licence, CodeLists: 1}, nil
}

const schematronNamespace = "http://purl.oclc.org/dsdl/schematron"

// schematron keeps the rule files that speak of the standard's namespace, or of
// none. They are kept, not run; but of XBau's rule against empty elements the
// router has one of its own.
func (im *importer) schematron(man *Manifest, namespace string, content map[string][]byte) {
	for _, p := range append([]map[string][]byte{im.pkg}, im.with...) {
		for _, name := range namesOf(p, ".sch") {
			doc := etree.NewDocument()
			if doc.ReadFromBytes(p[name]) != nil || doc.Root() == nil || doc.Root().NamespaceURI() != schematronNamespace || !speaksOf(doc.Root(), namespace) {
				continue
			}
			file := freeName(content, "schematron/", name)
			content[file] = p[name]
			man.Schematron = append(man.Schematron, file)
			if forbidsEmpty(doc.Root()) {
				man.EmptyElements = Refused
			}
		}
	}
}

func speaksOf(root *etree.Element, namespace string) bool {
	any := false
	for _, c := range root.ChildElements() {
		if c.Tag == "ns" {
			any = true
			if c.SelectAttrValue("uri", "") == namespace {
				return true
			}
		}
	}
	return !any
}

// forbidsEmpty finds the rule that XÖV standards write against elements that
// have neither a child nor text, for every element.
func forbidsEmpty(root *etree.Element) bool {
	everywhere, rule := false, false
	for _, el := range root.FindElements(".//*") {
		switch el.Tag {
		case "rule":
			everywhere = everywhere || el.SelectAttrValue("context", "") == "//*"
		case "assert":
			rule = rule || strings.Join(strings.Fields(el.SelectAttrValue("test", "")), "") == "not(not(*)andnormalize-space(.)='')"
		}
	}
	return everywhere && rule
}
