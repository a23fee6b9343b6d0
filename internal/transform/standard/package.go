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
	"strings"

	"weiche/internal/foreignxml"
)

// Bounds of a package, compressed or not.
const (
	maxPackageFiles = 20_000
	maxPackageFile  = 64 << 20
	maxPackageBytes = 512 << 20
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
