package transform

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/beevik/etree"
	"go.yaml.in/yaml/v3"

	"weiche/internal/foreignxml"
)

// Imported is one standard that an import installed.
type Imported struct {
	Name, Version, Licence string
	Title                  string
	Messages, CodeLists    int
	Dir                    string
	// Already says that the very same files were installed before.
	Already bool
}

// Bounds of a package, compressed or not.
const (
	maxPackageFiles = 20_000
	maxPackageFile  = 64 << 20
	maxPackageBytes = 512 << 20
)

const noLicence = "none stated"

// Import installs the standards of a package, a directory or a ZIP as
// XRepository hands them out, below into. A package may hold several; each is
// recognised by what its schemas say of themselves (appinfo, else namespace and
// version). References that leave the package are looked up, by file name and
// namespace, in the with directories, and code lists the schemas name are taken
// from there too; nothing is fetched. A package that is damaged, hostile or does
// not compile installs nothing: every standard is checked in a temporary folder
// and renamed into place.
func Import(ctx context.Context, src string, into string, with []string) ([]Imported, error) {
	pkg, err := readPackage(ctx, src, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src, err)
	}
	im := &importer{ctx: ctx, pkg: pkg, schemas: map[string]*schemaFile{}, source: filepath.Base(src)}
	for _, dir := range with {
		extra, err := readPackage(ctx, dir, false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		im.with = append(im.with, extra)
	}
	found, err := im.recognise()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src, err)
	}
	if err := os.MkdirAll(into, 0o755); err != nil {
		return nil, fmt.Errorf("the standards directory cannot be made: %w", err)
	}
	tmp, err := os.MkdirTemp(into, ".import-")
	if err != nil {
		return nil, fmt.Errorf("the standards directory cannot be written: %w", err)
	}
	defer os.RemoveAll(tmp)
	var done []Imported
	for _, s := range found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one, err := im.prepare(s, tmp)
		if err != nil {
			return nil, fmt.Errorf("%s: %s/%s: %w", src, s.name, s.version, err)
		}
		done = append(done, one)
	}
	if err := install(tmp, into, done); err != nil {
		return nil, err
	}
	return done, nil
}

// readPackage reads the files of a package that matter, bounded. Where it is
// strict, one bad file refuses the whole package; else the file is left out, as
// if it were not there.
func readPackage(ctx context.Context, src string, strict bool) (map[string][]byte, error) {
	info, err := os.Stat(src)
	if err != nil {
		return nil, errors.New(plainOSError(err))
	}
	p := &packageReader{files: map[string][]byte{}, ctx: ctx, strict: strict}
	if info.IsDir() {
		err = p.dir(src)
	} else {
		err = p.zip(src)
	}
	return p.files, err
}

type packageReader struct {
	ctx    context.Context
	files  map[string][]byte
	strict bool
	count  int
	bytes  int64
}

func (p *packageReader) admit() error {
	if p.count++; p.count > maxPackageFiles {
		return fmt.Errorf("it has more than %d files", maxPackageFiles)
	}
	return p.ctx.Err()
}

// wanted says which files are read; documents and pictures are not.
func wanted(name string) bool {
	base := strings.ToLower(path.Base(name))
	switch path.Ext(base) {
	case ".xsd", ".xml", ".gc":
		return true
	}
	return licenceFile(base)
}

func licenceFile(base string) bool {
	base = strings.ToLower(base)
	ext := path.Ext(base)
	return (ext == "" || ext == ".txt" || ext == ".md") &&
		(strings.HasPrefix(base, "licen") || strings.HasPrefix(base, "lizenz") || strings.HasPrefix(base, "copying"))
}

func (p *packageReader) add(name string, r io.Reader) error {
	left := min(int64(maxPackageFile), maxPackageBytes-p.bytes)
	raw, err := io.ReadAll(io.LimitReader(r, left+1))
	if err != nil {
		return fmt.Errorf("the file %q is damaged", name)
	}
	if int64(len(raw)) > left {
		return fmt.Errorf("the file %q makes it larger than allowed (%d MiB a file, %d MiB in all)", name, maxPackageFile>>20, maxPackageBytes>>20)
	}
	p.bytes += int64(len(raw))
	if !licenceFile(path.Base(name)) {
		if err := foreignxml.Check(bytes.NewReader(raw), foreignxml.Limits{Bytes: maxPackageFile, Depth: 100, Elements: 5_000_000}); err != nil {
			if !p.strict {
				return nil
			}
			return fmt.Errorf("the file %q: %w", name, err)
		}
	}
	p.files[name] = raw
	return nil
}

func (p *packageReader) dir(root string) error {
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("it cannot be read: %s", plainOSError(err))
		}
		if err := p.admit(); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%q is neither a file nor a directory (links are refused)", name)
		}
		if !wanted(name) {
			return nil
		}
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("%q cannot be read: %s", name, plainOSError(err))
		}
		defer f.Close()
		return p.add(name, f)
	})
}

func (p *packageReader) zip(file string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return errors.New("it is neither a directory nor a ZIP file, or it is damaged")
	}
	defer z.Close()
	seen := map[string]bool{}
	for _, f := range z.File {
		if err := p.admit(); err != nil {
			return err
		}
		name := strings.TrimSuffix(f.Name, "/")
		if strings.Contains(name, `\`) || !fs.ValidPath(name) {
			return fmt.Errorf("the entry %q leaves the package", f.Name)
		}
		if mode := f.Mode(); !mode.IsRegular() && !mode.IsDir() {
			return fmt.Errorf("%q is neither a file nor a directory (links are refused)", name)
		}
		if f.Mode().IsDir() || strings.HasSuffix(f.Name, "/") || !wanted(name) {
			continue
		}
		if seen[name] {
			return fmt.Errorf("the entry %q stands twice", name)
		}
		seen[name] = true
		r, err := f.Open()
		if err != nil {
			return fmt.Errorf("the entry %q cannot be read", name)
		}
		err = p.add(name, r)
		_ = r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// schemaFile is one schema document and what it says of itself.
type schemaFile struct {
	file       string
	target     string
	version    string // the schema's own attribute
	name       string // nameTechnisch of the standard
	stdVersion string
	title      string
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
	files                []*schemaFile // of the namespace, in order
}

type importer struct {
	ctx     context.Context
	pkg     map[string][]byte
	with    []map[string][]byte
	schemas map[string]*schemaFile
	source  string
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
	names := make([]string, 0, len(im.pkg))
	for name := range im.pkg {
		if strings.EqualFold(path.Ext(name), ".xsd") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, errors.New("it has no XML schema (.xsd)")
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

// prepare writes one standard into tmp, compiles it and describes it.
func (im *importer) prepare(s *found, tmp string) (Imported, error) {
	locations := map[string]string{}
	var own []*schemaFile
	for _, f := range s.files {
		if f.declares || len(f.refs) > 0 {
			own = append(own, f)
		}
	}
	if _, err := im.closure(own, locations); err != nil {
		return Imported{}, err
	}
	man := Manifest{
		Name: s.name, Version: s.version, Title: s.title, Source: im.source, Locations: locations, Files: map[string]string{},
		PartLicences: map[string]string{},
	}
	// One entry that reaches every part; where the package has none, it is made.
	var entry *schemaFile
	var files []string
	for _, f := range own {
		reached, err := im.closure([]*schemaFile{f}, locations)
		if err != nil {
			return Imported{}, err
		}
		whole := true
		for _, o := range own {
			if o.declares && !slices.Contains(reached, o.file) {
				whole = false
			}
		}
		if whole && (entry == nil || len(reached) > len(files)) {
			entry, files = f, reached
		}
	}
	content := map[string][]byte{}
	if entry != nil {
		man.Schemas = []string{entry.file}
	} else {
		var parts []*schemaFile
		for _, f := range own {
			if f.declares {
				parts = append(parts, f)
			}
		}
		var err error
		if files, err = im.closure(parts, locations); err != nil {
			return Imported{}, err
		}
		name := s.name + "-entry.xsd"
		for slices.Contains(files, name) {
			name = "all-" + name
		}
		content[name] = entrySchema(s.namespace, parts)
		man.Schemas = []string{name}
	}
	var text [][]byte
	for _, f := range files {
		content[f] = im.pkg[f]
		text = append(text, im.pkg[f])
		if l := im.schemas[f].licence; l != "" {
			man.PartLicences[f] = l
		}
	}
	man.Licence = im.licence(s, content)
	im.codeLists(&man, content, text)
	dir := filepath.Join(tmp, s.name, s.version)
	for name, raw := range content {
		sum := sha256.Sum256(raw)
		man.Files[name] = hex.EncodeToString(sum[:])
		if err := writeSynced(filepath.Join(dir, filepath.FromSlash(name)), raw); err != nil {
			return Imported{}, err
		}
	}
	std := &Standard{Manifest: man, Dir: dir}
	if err := std.Check(); err != nil {
		return Imported{}, err
	}
	if gap := std.model.unresolved(); gap != "" {
		return Imported{}, fmt.Errorf("the schema does not compile: %s", gap)
	}
	for _, e := range std.model.globalElements(s.namespace) {
		man.Messages = append(man.Messages, Message{Name: e, Namespace: s.namespace, Element: e})
	}
	raw, err := yaml.Marshal(man)
	if err != nil {
		return Imported{}, fmt.Errorf("describing the standard: %w", err)
	}
	if err := writeSynced(filepath.Join(dir, manifestFile), raw); err != nil {
		return Imported{}, err
	}
	return Imported{
		Name: s.name, Version: s.version, Title: s.title, Licence: man.Licence, Messages: len(man.Messages), CodeLists: len(man.CodeLists),
	}, nil
}

func entrySchema(namespace string, parts []*schemaFile) []byte {
	doc := etree.NewDocument()
	doc.CreateProcInst("xml", `version="1.0" encoding="UTF-8"`)
	root := doc.CreateElement("xs:schema")
	root.CreateAttr("xmlns:xs", xsdNamespace)
	if namespace != "" {
		root.CreateAttr("targetNamespace", namespace)
	}
	root.CreateComment(" made by the import: includes every part of the standard ")
	for _, p := range parts {
		root.CreateElement("xs:include").CreateAttr("schemaLocation", p.file)
	}
	doc.Indent(2)
	out, _ := doc.WriteToBytes() // to memory: it cannot fail
	return out
}

// licence names what the package states for the standard itself: a licence
// file, or a statement in the standard's own schemas.
func (im *importer) licence(s *found, content map[string][]byte) string {
	for _, f := range s.files {
		if f.licence != "" {
			return f.licence
		}
	}
	var names []string
	for name := range im.pkg {
		if licenceFile(path.Base(name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return noLicence
	}
	content[names[0]] = im.pkg[names[0]]
	line, _, _ := strings.Cut(strings.TrimSpace(string(im.pkg[names[0]])), "\n")
	if line = strings.TrimSpace(line); len(line) > 120 {
		line = line[:120]
	}
	return strings.ToValidUTF8(line, "") + " (" + path.Base(names[0]) + ")"
}

// codeLists takes the package's own lists, and from the with directories those
// that the schemas name.
func (im *importer) codeLists(man *Manifest, content map[string][]byte, schemas [][]byte) {
	type key struct{ uri, version string }
	have := map[key]bool{}
	mentioned := func(uri string) bool {
		for _, raw := range schemas {
			if bytes.Contains(raw, []byte(uri)) {
				return true
			}
		}
		return false
	}
	for i, p := range append([]map[string][]byte{im.pkg}, im.with...) {
		names := make([]string, 0, len(p))
		for name := range p {
			if ext := strings.ToLower(path.Ext(name)); ext == ".xml" || ext == ".gc" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			uri, version, ok := genericodeID(p[name])
			if !ok || have[key{uri, version}] || i > 0 && !mentioned(uri) {
				continue
			}
			have[key{uri, version}] = true
			file := "codelists/" + path.Base(name)
			for n := 2; content[file] != nil; n++ {
				file = fmt.Sprintf("codelists/%d-%s", n, path.Base(name))
			}
			content[file] = p[name]
			man.CodeLists = append(man.CodeLists, CodeList{URI: uri, Version: version, File: file})
		}
	}
}

// install renames the prepared standards into place, all or none. One that is
// there already with the very same files stays; with others it is an error.
func install(tmp, into string, done []Imported) error {
	var moved []string
	undo := func() {
		for _, dir := range moved {
			_ = os.RemoveAll(dir)
		}
	}
	for i := range done {
		d := &done[i]
		from, to := filepath.Join(tmp, d.Name, d.Version), filepath.Join(into, d.Name, d.Version)
		d.Dir = to
		if old, err := os.ReadFile(filepath.Join(to, manifestFile)); err == nil {
			fresh, err := os.ReadFile(filepath.Join(from, manifestFile))
			if err != nil || !sameFiles(old, fresh) {
				undo()
				return fmt.Errorf("%s/%s is installed already, from other files; remove it first (router standards remove %s/%s)", d.Name, d.Version, d.Name, d.Version)
			}
			d.Already = true
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			undo()
			return fmt.Errorf("installing %s/%s: %w", d.Name, d.Version, err)
		}
		if err := os.Rename(from, to); err != nil {
			undo()
			return fmt.Errorf("installing %s/%s: %w", d.Name, d.Version, err)
		}
		moved = append(moved, to)
		for _, dir := range []string{filepath.Dir(to), into} {
			if err := syncDir(dir); err != nil {
				undo()
				return fmt.Errorf("installing %s/%s: %w", d.Name, d.Version, err)
			}
		}
	}
	return nil
}

func sameFiles(a, b []byte) bool {
	var x, y Manifest
	if yaml.Unmarshal(a, &x) != nil || yaml.Unmarshal(b, &y) != nil || len(x.Files) != len(y.Files) {
		return false
	}
	for f, sum := range x.Files {
		if y.Files[f] != sum {
			return false
		}
	}
	return true
}

func writeSynced(file string, raw []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("writing the standard: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("writing the standard: %w", err)
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("writing the standard: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
