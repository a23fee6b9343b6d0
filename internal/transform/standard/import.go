package standard

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	"go.yaml.in/yaml/v3"
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

const noLicence = "none stated"

// Import installs the standards of a package, a directory or a ZIP as
// XRepository hands them out, below into. A package may hold several; each is
// recognised by what its schemas say of themselves (appinfo, else namespace and
// version). References that leave the package are looked up, by file name and
// namespace, in the with directories, and code lists the schemas name are taken
// from there too, as are Schematron rules for it; nothing is fetched. A package
// without schemas, or a single file, may bring code lists: each is installed by
// itself, named by its URI's last part, and serves every standard.
//
// A package that is damaged, hostile or does not compile installs nothing: every
// standard is checked in a temporary folder, written to disk and renamed into
// place. A crash leaves standards that are whole or not there.
func Import(ctx context.Context, src string, into string, with []string, opts ...Option) ([]Imported, error) {
	pkg, err := readPackage(ctx, src, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src, err)
	}
	im := &importer{ctx: ctx, pkg: pkg, schemas: map[string]*schemaFile{}, source: filepath.Base(src)}
	for _, o := range opts {
		o(im)
	}
	for _, dir := range with {
		extra, err := readPackage(ctx, dir, false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		im.with = append(im.with, extra)
	}
	prepare, err := im.plan()
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
	sweep(into)
	var done []Imported
	for _, one := range prepare {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		did, err := one(tmp)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", src, err)
		}
		done = append(done, did)
	}
	if err := install(tmp, into, done); err != nil {
		return nil, err
	}
	return done, nil
}

// Option changes an import.
type Option func(*importer)

// Valid says from which day until which the standards of a package are valid
// (2026-05-01), where they do not say it themselves; "" leaves it open.
func Valid(from, until string) Option {
	return func(im *importer) { im.validFrom, im.validUntil = from, until }
}

// plan says what the package has to be prepared for: its standards, or, where it
// has no schema, its code lists.
func (im *importer) plan() ([]func(tmp string) (Imported, error), error) {
	for _, d := range []string{im.validFrom, im.validUntil} {
		if d != "" && day(d) != d {
			return nil, fmt.Errorf("%q is no day, as in 2026-05-01", d)
		}
	}
	var out []func(string) (Imported, error)
	if lists := im.loneLists(); lists != nil {
		for _, l := range lists {
			out = append(out, func(tmp string) (Imported, error) { return im.prepareList(l, tmp) })
		}
		return out, nil
	}
	found, err := im.recognise()
	for _, s := range found {
		out = append(out, func(tmp string) (Imported, error) {
			one, err := im.prepare(s, tmp)
			if err != nil {
				err = fmt.Errorf("%s/%s: %w", s.name, s.version, err)
			}
			return one, err
		})
	}
	return out, err
}

// sweep removes what imports and removals left that a crash ended. One that is
// under way is younger.
func sweep(into string) {
	for _, pattern := range []string{".import-*", ".remove-*"} {
		left, _ := filepath.Glob(filepath.Join(into, pattern)) // the pattern is good
		for _, dir := range left {
			if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
				_ = os.RemoveAll(dir)
			}
		}
	}
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
	man.ValidFrom, man.ValidUntil = cmp.Or(im.validFrom, s.validFrom), cmp.Or(im.validUntil, s.validUntil)
	if err := im.codeLists(&man, content, text); err != nil {
		return Imported{}, err
	}
	im.schematron(&man, s.namespace, content)
	dir := filepath.Join(tmp, s.name, s.version)
	if err := writeFiles(dir, &man, content); err != nil {
		return Imported{}, err
	}
	std := &Standard{Manifest: man, Dir: dir}
	schema, err := std.Schema()
	if err != nil {
		return Imported{}, err
	}
	for _, e := range messagesOf(schema, s.namespace) {
		man.Messages = append(man.Messages, Message{Name: e, Namespace: s.namespace, Element: e})
	}
	if err := writeManifest(dir, man); err != nil {
		return Imported{}, err
	}
	return Imported{
		Name: s.name, Version: s.version, Title: s.title, Licence: man.Licence, Messages: len(man.Messages), CodeLists: len(man.CodeLists),
	}, nil
}

// writeFiles writes a standard's files and notes their sums.
func writeFiles(dir string, man *Manifest, content map[string][]byte) error {
	for name, raw := range content {
		sum := sha256.Sum256(raw)
		man.Files[name] = hex.EncodeToString(sum[:])
		if err := writeSynced(filepath.Join(dir, filepath.FromSlash(name)), raw); err != nil {
			return err
		}
	}
	return nil
}

// writeManifest writes the manifest, the last file of a standard, and makes
// the folders' entries durable.
func writeManifest(dir string, man Manifest) error {
	raw, err := yaml.Marshal(man)
	if err != nil {
		return fmt.Errorf("describing the standard: %w", err)
	}
	if err := writeSynced(filepath.Join(dir, manifestFile), raw); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
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
