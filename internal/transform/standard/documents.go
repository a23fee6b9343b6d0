package standard

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"weiche/internal/foreignxml"
)

const (
	xsdNamespace = "http://www.w3.org/2001/XMLSchema"
	xmlNamespace = "http://www.w3.org/XML/1998/namespace"
)

// Document is one schema document of a standard.
type Document struct {
	File   string // in the standard's folder
	Target string // target namespace; without one, that of the including document
	Root   *etree.Element
}

// schemaLimits bound one schema file.
var schemaLimits = foreignxml.Limits{Bytes: 32 << 20, Depth: 100, Elements: 500_000, Attributes: 100}

// Documents reads the schema documents that the standard's entry schemas reach,
// each checked against the manifest. They are read anew: keep them no longer than
// needed.
func (s *Standard) Documents() ([]*Document, error) {
	if err := s.checkFiles(); err != nil {
		return nil, err
	}
	return readDocuments(os.DirFS(s.Dir), s.Schemas, s.Locations)
}

// readDocuments follows the references from the entries inside fsys; where
// they leave it, locations maps them to files in it.
func readDocuments(fsys fs.FS, entries []string, locations map[string]string) ([]*Document, error) {
	type job struct{ file, chameleon string }
	queue := []job{}
	for _, e := range entries {
		queue = append(queue, job{file: e})
	}
	var out []*Document
	seen := map[job]bool{}
	for len(queue) > 0 {
		j := queue[0]
		queue = queue[1:]
		if seen[j] {
			continue
		}
		seen[j] = true
		d, err := readDocument(fsys, j.file, j.chameleon)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
		for _, el := range d.Root.ChildElements() {
			loc := el.SelectAttrValue("schemaLocation", "")
			if loc == "" || el.Tag != "include" && el.Tag != "import" && el.Tag != "redefine" {
				continue
			}
			file, ok := resolveLocation(fsys, j.file, loc, locations)
			if !ok {
				return nil, fmt.Errorf("the schema %s refers to %s, which the standard's folder does not have", j.file, loc)
			}
			next := job{file: file}
			if el.Tag != "import" {
				next.chameleon = d.Target
			}
			queue = append(queue, next)
		}
	}
	return out, nil
}

func readDocument(fsys fs.FS, file, chameleon string) (*Document, error) {
	raw, err := fs.ReadFile(fsys, file)
	if err != nil {
		return nil, fmt.Errorf("the schema %s is missing", file)
	}
	if err := foreignxml.Check(bytes.NewReader(raw), schemaLimits); err != nil {
		return nil, fmt.Errorf("the schema %s: %w", file, err)
	}
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(raw); err != nil || doc.Root() == nil {
		return nil, fmt.Errorf("the schema %s is not well-formed XML", file)
	}
	root := doc.Root()
	if root.Tag != "schema" || root.NamespaceURI() != xsdNamespace {
		return nil, fmt.Errorf("%s is no XML schema", file)
	}
	return &Document{File: file, Target: root.SelectAttrValue("targetNamespace", chameleon), Root: root}, nil
}

// resolveLocation finds the file a schemaLocation names, never outside fsys.
func resolveLocation(fsys fs.FS, from, location string, locations map[string]string) (string, bool) {
	if to, ok := locations[location]; ok {
		return to, true
	}
	if strings.Contains(location, "://") || strings.HasPrefix(location, "/") {
		return "", false
	}
	file := path.Join(path.Dir(from), location)
	if !fs.ValidPath(file) {
		return "", false
	}
	if to, ok := locations[file]; ok {
		return to, true
	}
	if info, err := fs.Stat(fsys, file); err != nil || info.IsDir() {
		return "", false
	}
	return file, true
}

// Resolve returns namespace and local name of a qualified name that el writes.
func (d *Document) Resolve(el *etree.Element, name string) (space, local string) {
	prefix, local, ok := strings.Cut(name, ":")
	if !ok {
		prefix, local = "", name
	}
	for e := el; e != nil; e = e.Parent() {
		for _, a := range e.Attr {
			if prefix == "" && a.Space == "" && a.Key == "xmlns" || prefix != "" && a.Space == "xmlns" && a.Key == prefix {
				return a.Value, local
			}
		}
	}
	if prefix == "xml" {
		return xmlNamespace, local
	}
	if prefix == "" && d.Root.SelectAttr("targetNamespace") == nil {
		return d.Target, local // chameleon
	}
	return "", local
}

// globalElements lists the elements of a namespace that can be a message.
func globalElements(docs []*Document, space string) []string {
	var out []string
	for _, d := range docs {
		if d.Target != space {
			continue
		}
		for _, el := range d.Root.ChildElements() {
			if name := el.SelectAttrValue("name", ""); el.Tag == "element" && name != "" && el.SelectAttrValue("abstract", "") != "true" {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// unresolved returns the first reference to a component that no schema
// declares; "" where every one is found. A validator may pass over such a gap
// until a message needs it.
func unresolved(docs []*Document) string {
	declared := declarations(docs)
	for _, d := range docs {
		for _, el := range d.Root.FindElements(".//*") {
			if el.NamespaceURI() != xsdNamespace {
				continue
			}
			for _, a := range el.Attr {
				if a.Space != "" {
					continue
				}
				kind := "type"
				switch a.Key {
				case "type", "base", "itemType", "memberTypes":
				case "ref":
					kind = el.Tag
				default:
					continue
				}
				for _, name := range strings.Fields(a.Value) {
					space, local := d.Resolve(el, name)
					if !declared[component{kind, space, local}] && space != xsdNamespace && space != xmlNamespace {
						return fmt.Sprintf("%s: %s=%q names nothing that is declared", d.File, a.Key, name)
					}
				}
			}
		}
	}
	return ""
}

type component struct{ kind, space, local string }

func declarations(docs []*Document) map[component]bool {
	out := map[component]bool{}
	for _, d := range docs {
		for _, el := range d.Root.ChildElements() {
			kind := el.Tag
			if kind == "complexType" || kind == "simpleType" {
				kind = "type"
			}
			out[component{kind, d.Target, el.SelectAttrValue("name", "")}] = true
		}
	}
	return out
}
