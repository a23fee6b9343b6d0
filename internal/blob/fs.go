package blob

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"weiche/internal/fault"
)

// tempDir holds blobs that are being written. No blob's name begins with a dot.
const tempDir = ".tmp"

// maxTries bounds how often a Put makes its directories anew because a Delete
// beside it took them away, empty as they still were.
const maxTries = 20

// FS is a Store in a directory: a file a blob. Writing goes to a temporary file
// that is fsynced, then renamed, and every directory on the way is fsynced too.
// Several processes may share the directory. It is safe for concurrent use.
type FS struct {
	dir  string
	root *os.Root // keeps every path inside, whatever links lie there
}

// OpenFS opens the directory, making it where it is missing (mode 0700).
func OpenFS(dir string) (*FS, error) {
	if err := makeRoot(dir); err != nil {
		return nil, fmt.Errorf("the blob store's directory cannot be made: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("the blob store's directory cannot be opened: %w", err)
	}
	s := &FS{dir: dir, root: root}
	if err := root.Mkdir(tempDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(fmt.Errorf("the blob store's directory cannot be written: %w", err), root.Close())
	}
	return s, nil
}

// Close releases the directory. Readers that are open stay so.
func (s *FS) Close() error { return s.root.Close() }

// Put implements Store.
func (s *FS) Put(ctx context.Context, name string, r io.Reader) (int64, error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	temp := path.Join(tempDir, randomName())
	f, err := s.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, storage(err, "a blob cannot be begun")
	}
	renamed := false
	defer func() {
		_ = f.Close() // a second time, where it was well
		if !renamed {
			_ = s.root.Remove(temp)
		}
	}()
	src := &sourceReader{ctx: ctx, r: r}
	n, err := io.Copy(onlyWriter{f}, src)
	switch {
	case src.err != nil:
		return 0, src.err
	case err != nil:
		return 0, storage(err, "a blob cannot be written")
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return 0, storage(err, "a blob cannot be made durable")
	}
	for try := 0; ; try++ {
		if err = s.makeDirs(path.Dir(name)); err == nil {
			err = s.root.Rename(temp, name)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || try == maxTries {
			return 0, storage(err, "a blob cannot be given its name")
		}
	}
	renamed = true
	// A directory that is gone again was emptied by a delete that came after.
	if err := s.syncDir(path.Dir(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, storage(err, "a blob's directory cannot be made durable")
	}
	return n, nil
}

// makeDirs makes the directories and makes their entries durable, from the top
// down. Those that were there are fsynced too: whoever made one may not have
// come to it yet, and an fsync with nothing to do costs next to nothing.
func (s *FS) makeDirs(dir string) error {
	if dir == "." {
		return nil
	}
	parent := path.Dir(dir)
	if err := s.makeDirs(parent); err != nil {
		return err
	}
	if err := s.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.syncDir(parent)
}

func (s *FS) syncDir(dir string) error {
	d, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeRoot makes the store's own directory and those above it, durably.
func makeRoot(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if parent != dir {
		if err := makeRoot(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open implements Store.
func (s *FS) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.Of(err)
	}
	f, err := s.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(err, fault.Permanent, fault.ReasonBlobMissing, "the blob store has no such blob")
	}
	if err != nil {
		return nil, storage(err, "a blob cannot be opened")
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, fault.Wrap(fs.ErrNotExist, fault.Permanent, fault.ReasonBlobMissing, "the blob store has no such blob")
	}
	return &fileReader{f: f}, nil
}

// Delete implements Store. It also removes directories that it leaves empty.
func (s *FS) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fault.Of(err)
	}
	if err := s.root.Remove(name); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return storage(err, "a blob cannot be deleted")
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if s.root.Remove(dir) != nil {
			break // not empty
		}
	}
	return nil
}

// List implements Store; the order is that of the names' parts.
func (s *FS) List(ctx context.Context, fn func(name string, modified time.Time) error) error {
	return s.walk(ctx, ".", func(name string, info fs.FileInfo) error { return fn(name, info.ModTime()) })
}

func (s *FS) walk(ctx context.Context, dir string, fn func(name string, info fs.FileInfo) error) error {
	d, err := s.root.Open(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		return storage(err, "a directory of the blob store cannot be read")
	}
	entries, err := d.ReadDir(-1)
	_ = d.Close()
	if err != nil {
		return storage(err, "a directory of the blob store cannot be read")
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return fault.Of(err)
		}
		name := path.Join(dir, e.Name())
		if CheckName(name) != nil {
			continue // temporary, or not the store's
		}
		if e.IsDir() {
			if err := s.walk(ctx, name, fn); err != nil {
				return err
			}
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return storage(err, "a directory of the blob store cannot be read")
		}
		if err := fn(name, info); err != nil {
			return err
		}
	}
	return nil
}

// SweepTemp removes what broken-off writes have left and no one has written to
// since olderThan. It returns how many files it removed.
func (s *FS) SweepTemp(ctx context.Context, olderThan time.Time) (int, error) {
	d, err := s.root.Open(tempDir)
	if err != nil {
		return 0, storage(err, "the directory of unfinished blobs cannot be read")
	}
	entries, err := d.ReadDir(-1)
	_ = d.Close()
	if err != nil {
		return 0, storage(err, "the directory of unfinished blobs cannot be read")
	}
	removed := 0
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return removed, fault.Of(err)
		}
		info, err := e.Info()
		if err != nil || !info.ModTime().Before(olderThan) {
			continue
		}
		switch err := s.root.Remove(path.Join(tempDir, e.Name())); {
		case err == nil:
			removed++
		case !errors.Is(err, fs.ErrNotExist):
			return removed, storage(err, "an unfinished blob cannot be removed")
		}
	}
	return removed, nil
}

func randomName() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// storage classes an error of the file system: disk full, no permission, broken
// disk. All may be mended without the message, so all are retryable.
func storage(err error, detail string) error {
	return fault.Wrap(err, fault.Retryable, fault.ReasonStorage, detail)
}

// sourceReader tells errors of the source from those of the disk, and gives up
// when the context ends.
type sourceReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		s.err = fault.Of(err)
		return 0, s.err
	}
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// onlyWriter hides ReadFrom, so that reading and writing stay apart.
type onlyWriter struct{ io.Writer }

// fileReader classes the disk's errors.
type fileReader struct{ f *os.File }

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = storage(err, "a blob cannot be read")
	}
	return n, err
}

func (r *fileReader) Close() error { return r.f.Close() }
