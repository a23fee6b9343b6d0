package standard

import (
	"archive/zip"
	"bytes"
	"context"
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
	"unicode/utf8"

	"weiche/internal/foreignxml"
)

// Bounds of a package, compressed or not.
const (
	maxPackageFiles = 20_000
	maxPackageFile  = 64 << 20
	maxPackageBytes = 256 << 20
)

// readPackage reads the files of a package that matter, bounded. Where it is
// strict, one bad file refuses the whole package; else the file is left out, as
// if it were not there.
func readPackage(ctx context.Context, src string, strict bool) (map[string][]byte, error) {
	info, err := os.Stat(src)
	if err != nil {
		return nil, errors.New(osText(err))
	}
	p := &packageReader{files: map[string][]byte{}, ctx: ctx, strict: strict}
	switch {
	case info.IsDir():
		err = p.dir(src)
	case slices.Contains([]string{".xml", ".gc"}, strings.ToLower(filepath.Ext(src))):
		err = p.single(src)
	default:
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
	case ".xsd", ".xml", ".gc", ".sch":
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
		raw = utf8From(raw)
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

var latin1 = regexp.MustCompile(`^(<\?xml[^>]*encoding=)["'](?i:iso-8859-1|latin1|us-ascii)["']([^>]*\?>)`)

// utf8From turns a document that says it is ISO 8859-1, as older code lists of
// the XRepository do, into UTF-8. Any other is left as it is, and refused by
// the check behind it where it is not UTF-8.
func utf8From(raw []byte) []byte {
	head := raw[:min(len(raw), 200)]
	m := latin1.FindSubmatchIndex(head)
	if m == nil {
		return raw
	}
	out := make([]byte, 0, len(raw)+len(raw)/16)
	out = append(out, raw[m[2]:m[3]]...)
	out = append(out, `"UTF-8"`...)
	out = append(out, raw[m[4]:m[5]]...)
	for _, c := range raw[m[1]:] {
		out = utf8.AppendRune(out, rune(c))
	}
	return out
}

// single reads a code list that comes as a file of its own.
func (p *packageReader) single(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return errors.New(osText(err))
	}
	defer f.Close()
	return p.add(filepath.Base(file), f)
}

func (p *packageReader) dir(root string) error {
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("it cannot be read: %s", osText(err))
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
			return fmt.Errorf("%q cannot be read: %s", name, osText(err))
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
		if folded := strings.ToLower(name); seen[folded] { // on some file systems one would overwrite the other
			return fmt.Errorf("the entry %q stands twice", name)
		} else {
			seen[folded] = true
		}
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
