package standard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/beevik/etree"
)

const xsdNamespace = "http://www.w3.org/2001/XMLSchema"

// schemaFile is one schema document and what it says of itself.
type schemaFile struct {
	file       string
	target     string
	version    string // the schema's own attribute
	name       string // nameTechnisch of the standard
	stdVersion string
	title      string
	from       string // first day it is valid
	until      string // last day
	licence    string
	refs       []schemaRef
	declares   bool // it has components of its own
	elements   int  // global elements
}

type schemaRef struct {
	location, namespace string
	include             bool
}

type found struct {
	name, version, title string
	namespace            string
	validFrom            string
	validUntil           string
	files                []*schemaFile // of the namespace, in order
}

type importer struct {
	ctx     context.Context
	pkg     map[string][]byte
	with    []map[string][]byte
	schemas map[string]*schemaFile
	source  string

	validFrom, validUntil string
}

func parseSchema(file string, raw []byte) (*schemaFile, error) {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(raw); err != nil || doc.Root() == nil {
		return nil, fmt.Errorf("the schema %q is not well-formed XML", file)
	}
	root := doc.Root()
	if root.Tag != "schema" || root.NamespaceURI() != xsdNamespace {
		return nil, fmt.Errorf("%q is no XML schema", file)
	}
	s := &schemaFile{file: file, target: root.SelectAttrValue("targetNamespace", ""), version: root.SelectAttrValue("version", "")}
	for _, el := range root.ChildElements() {
		switch el.Tag {
		case "include", "import", "redefine":
			if loc := el.SelectAttrValue("schemaLocation", ""); loc != "" {
				ns := el.SelectAttrValue("namespace", "")
				if el.Tag != "import" {
					ns = s.target
				}
				s.refs = append(s.refs, schemaRef{loc, ns, el.Tag != "import"})
			}
		case "annotation":
			for _, info := range el.ChildElements() {
				if info.Tag != "appinfo" {
					continue
				}
				for _, part := range info.ChildElements() {
					switch part.Tag {
					case "standard":
						s.name = childText(part, "nameTechnisch")
						s.title = childText(part, "nameLang")
					case "versionStandard":
						s.stdVersion = childText(part, "version")
						s.from, s.until = day(childText(part, "datumGueltigkeitAb")), day(childText(part, "datumGueltigkeitBis"))
					}
				}
			}
		default:
			s.declares = true
			if el.Tag == "element" && el.SelectAttrValue("abstract", "") != "true" {
				s.elements++
			}
		}
	}
	if m := statedLicence.FindSubmatch(raw); m != nil {
		s.licence = strings.TrimSpace(string(m[1]))
	}
	return s, nil
}

var statedLicence = regexp.MustCompile(`<(?:[A-Za-z0-9_-]+:)?(?:lizenz|licence|license)>([^<]{1,300})</`)

func childText(el *etree.Element, tag string) string {
	for _, c := range el.ChildElements() {
		if c.Tag == tag {
			return strings.TrimSpace(c.Text())
		}
	}
	return ""
}

// recognise finds the standards in the package.
func (im *importer) recognise() ([]*found, error) {
	names := namesOf(im.pkg, ".xsd")
	if len(names) == 0 {
		return nil, errors.New("it has no XML schema (.xsd) and no code list")
	}
	byNamespace := map[string]*found{}
	var order []string
	for _, name := range names {
		s, err := parseSchema(name, im.pkg[name])
		if err != nil {
			return nil, err
		}
		im.schemas[name] = s
		f := byNamespace[s.target]
		if f == nil {
			f = &found{namespace: s.target}
			byNamespace[s.target] = f
			order = append(order, s.target)
		}
		f.files = append(f.files, s)
	}
	var out []*found
	for _, ns := range order {
		f := byNamespace[ns]
		elements := 0
		for _, s := range f.files {
			elements += s.elements
			if s.name == "" {
				continue
			}
			if f.name != "" && (f.name != s.name || f.version != s.stdVersion) {
				return nil, fmt.Errorf("the namespace %s claims to be both %s/%s and %s/%s; import the versions one by one", ns, f.name, f.version, s.name, s.stdVersion)
			}
			f.name, f.version, f.title = s.name, s.stdVersion, s.title
			f.validFrom, f.validUntil = s.from, s.until
		}
		// Shared datatypes carry a standard's name too, but no message.
		if f.name != "" && elements > 0 {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		f := im.unnamed(byNamespace, order)
		if f == nil {
			return nil, errors.New("no schema says which standard it belongs to (appinfo: standard/nameTechnisch), and none can be told by namespace and version")
		}
		out = []*found{f}
	}
	seen := map[string]bool{}
	for _, f := range out {
		f.name, f.version = strings.ToLower(f.name), strings.TrimPrefix(f.version, "v")
		if !safeName.MatchString(f.name) || !safeName.MatchString(f.version) {
			return nil, fmt.Errorf("the namespace %s names its standard %q, version %q, which cannot be a folder's name", f.namespace, f.name, f.version)
		}
		if key := f.name + "/" + f.version; seen[key] {
			return nil, fmt.Errorf("the package holds %s in two namespaces", key)
		}
		seen[f.name+"/"+f.version] = true
	}
	return out, nil
}

// unnamed guesses the standard of a package without appinfo: the one namespace
// that has messages and that no other schema imports, named after the last word
// of its namespace.
func (im *importer) unnamed(by map[string]*found, order []string) *found {
	imported := map[string]bool{}
	for _, s := range im.schemas {
		for _, r := range s.refs {
			if !r.include {
				imported[r.namespace] = true
			}
		}
	}
	var only *found
	for _, ns := range order {
		f := by[ns]
		for _, s := range f.files {
			if s.elements > 0 && !imported[ns] && ns != "" && s.version != "" {
				if only != nil && only != f {
					return nil
				}
				only, f.version = f, s.version
			}
		}
	}
	if only == nil {
		return nil
	}
	words := regexp.MustCompile(`[A-Za-z][A-Za-z0-9-]*`).FindAllString(strings.TrimPrefix(strings.TrimPrefix(only.namespace, "http://"), "https://"), -1)
	if len(words) == 0 {
		return nil
	}
	only.name = words[len(words)-1]
	return only
}

// closure collects the files a standard needs, following references.
func (im *importer) closure(start []*schemaFile, locations map[string]string) ([]string, error) {
	var out []string
	queue := make([]string, 0, len(start))
	for _, s := range start {
		queue = append(queue, s.file)
	}
	for len(queue) > 0 {
		file := queue[0]
		queue = queue[1:]
		if slices.Contains(out, file) {
			continue
		}
		out = append(out, file)
		for _, r := range im.schemas[file].refs {
			to, err := im.resolve(file, r, locations)
			if err != nil {
				return nil, err
			}
			queue = append(queue, to)
		}
	}
	slices.Sort(out)
	return out, nil
}

// resolve finds what a reference names: in the package, else by file name and
// namespace in the package, else in the with directories.
func (im *importer) resolve(from string, r schemaRef, locations map[string]string) (string, error) {
	remote := strings.Contains(r.location, "://")
	key := r.location
	if !remote {
		key = path.Join(path.Dir(from), r.location)
		if fs.ValidPath(key) && im.schemas[key] != nil {
			return key, nil
		}
	}
	if remote || !fs.ValidPath(key) {
		key = r.location // as it is written
	}
	remember := func(file string) (string, error) {
		locations[key] = file
		return file, nil
	}
	base := path.Base(r.location)
	fits := func(s *schemaFile) bool {
		return s.target == r.namespace || r.include && s.target == ""
	}
	var own []string
	for name, s := range im.schemas {
		if path.Base(name) == base && fits(s) {
			own = append(own, name)
		}
	}
	if slices.Sort(own); len(own) > 0 {
		return remember(own[0])
	}
	for _, w := range im.with {
		names := make([]string, 0, 4)
		for name := range w {
			if path.Base(name) == base {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			s, err := parseSchema(name, w[name])
			if err != nil || !fits(s) {
				continue
			}
			file := "external/" + base
			for n := 2; im.schemas[file] != nil && !bytes.Equal(im.pkg[file], w[name]); n++ {
				file = fmt.Sprintf("external/%d-%s", n, base)
			}
			s.file = file
			im.schemas[file], im.pkg[file] = s, w[name]
			return remember(file)
		}
	}
	return "", fmt.Errorf("the schema %q refers to %s, which the package does not have; name a folder that has it with --with", from, r.location)
}
