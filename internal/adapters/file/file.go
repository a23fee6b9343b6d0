// Package file puts each message into a directory: <delivery id>.xml, and where
// there are attachments a folder <delivery id>/ beside it.
//
// The message appears last and at once: whoever sees it finds the attachments
// complete. Everything is fsynced before the delivery counts as made. A repeat
// of the same delivery id leaves the same files.
//
// The adapter never makes an absolute directory that is missing: a network share
// that is not mounted would otherwise swallow messages. It deletes nothing but
// its own temporary files.
//
// Whatever the file system refuses (full, read-only, no permission, directory
// missing or replaced) is the destination's fault, with the reason "storage".
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

const stale = 24 * time.Hour

// Kind describes the adapter.
func Kind() spec.Kind {
	return spec.Kind{
		Name:    "file",
		Summary: "Puts each message into a directory.",
		Doc: `The message becomes ` + "`<delivery id>.xml`" + `, or ` + "`.csv` or `.pdf`" + ` after its format. Attachments become files in a folder ` + "`<delivery id>/`" + `, named
` + "`01-<name>`, `02-<name>`" + ` and so on, with the names the portal gave, freed of everything a file system or a person
could stumble over. The message appears last, by renaming: whoever sees it finds the attachments complete. Everything is
fsynced first. A repeat of a delivery leaves the same files; take a file away and a repeat may bring it again, so drop
repeats by delivery id. Names that begin with a dot are the router's own.

| what happens | counts as |
| --- | --- |
| everything written and fsynced | delivered |
| no space, quota, read-only, no permission, directory missing or no directory, input/output error | destination at fault (` + "`storage`" + `) |
| the deadline runs out | retry (` + "`timeout`" + `) |`,
		Fields: []spec.Field{
			{
				Name: "directory", Type: spec.Path, Required: true, Example: "inbox/boeblingen",
				Doc: "Where the files go. A relative directory lies in the router's data directory and is made where it is missing; an absolute one must exist.",
			},
			{
				Name: "group_readable", Type: spec.Bool, Default: false,
				Doc: "Gives the directory's group the right to read and to take away (files 0660, folders 0770, otherwise 0600 and 0700).",
			},
		},
		New: func(_ string, v spec.Values, deps spec.Deps) (spec.Adapter, error) {
			dir := v.Text("directory")
			a := &Adapter{dir: deps.DataPath(dir), own: !filepath.IsAbs(dir), fileMode: 0o600, dirMode: 0o700, clock: deps.Clock}
			if v.Bool("group_readable") {
				a.fileMode, a.dirMode = 0o660, 0o770
			}
			return a, nil
		},
	}
}

// Adapter writes into one directory. It is safe for concurrent use, also by
// several processes.
type Adapter struct {
	dir               string
	own               bool
	fileMode, dirMode fs.FileMode
	clock             func() time.Time

	mu    sync.Mutex
	swept time.Time
}

// Deliver implements spec.Adapter.
func (a *Adapter) Deliver(ctx context.Context, d *submission.Delivery) error {
	if err := ctx.Err(); err != nil {
		return fault.Of(err)
	}
	l, err := wire.NewLayout(d)
	if err != nil {
		return err
	}
	if err := a.deliver(ctx, l, d); err != nil {
		return classify(ctx, err)
	}
	return nil
}

func (a *Adapter) deliver(ctx context.Context, l wire.Layout, d *submission.Delivery) error {
	if err := a.prepare(); err != nil {
		return err
	}
	target, folder := filepath.Join(a.dir, l.Message), filepath.Join(a.dir, l.Folder)
	if same(target, d.Message) && a.complete(folder, l.Files, d.Attachments) {
		// A crash may have come between an earlier rename and its fsync.
		if err := syncFile(target); err != nil {
			return err
		}
		return syncDir(a.dir)
	}
	work, err := os.MkdirTemp(filepath.Join(a.dir, wire.WorkDir), l.ID+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if len(d.Attachments) > 0 {
		if err := a.attachments(ctx, work, folder, l.Files, d.Attachments); err != nil {
			return err
		}
	}
	whole := filepath.Join(work, "message"+d.Format.Extension())
	if err := a.write(whole, func(w io.Writer) error { _, err := w.Write(d.Message); return err }); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.Rename(whole, target); err != nil {
		return err
	}
	return syncDir(a.dir)
}

// prepare makes what the adapter may make, and now and then removes what a
// crash left behind.
func (a *Adapter) prepare() error {
	if a.own {
		if err := os.MkdirAll(a.dir, a.dirMode); err != nil {
			return err
		}
	}
	work := filepath.Join(a.dir, wire.WorkDir)
	if err := os.Mkdir(work, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	now := a.clock()
	a.mu.Lock()
	due := now.Sub(a.swept) > stale
	if due {
		a.swept = now
	}
	a.mu.Unlock()
	if !due {
		return nil
	}
	entries, err := os.ReadDir(work)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > stale {
			_ = os.RemoveAll(filepath.Join(work, e.Name()))
		}
	}
	return nil
}

// attachments writes the files into a folder beside the target and moves it into
// place as a whole.
func (a *Adapter) attachments(ctx context.Context, work, target string, names []string, files []submission.File) error {
	folder := filepath.Join(work, "attachments")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	for i, f := range files {
		err := a.write(filepath.Join(folder, names[i]), func(w io.Writer) error { return wire.Copy(ctx, w, f) })
		if err != nil {
			return err
		}
	}
	if err := os.Chmod(folder, a.dirMode); err != nil {
		return err
	}
	if err := syncDir(folder); err != nil {
		return err
	}
	err := os.Rename(folder, target)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.ENOTDIR) {
		// Of an earlier attempt, or put there by somebody. Rename cannot replace
		// a folder that is not empty, so the old one steps aside first.
		if err := os.Rename(target, filepath.Join(work, "earlier")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err = os.Rename(folder, target)
		if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
			// Another attempt for the same id was quicker; its bytes are these.
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return syncDir(a.dir) // before the message can be seen
}

func (a *Adapter) write(name string, fill func(io.Writer) error) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Chmod(a.fileMode); err != nil {
		return err
	}
	return f.Sync()
}

// complete says whether the folder of an earlier attempt holds every file. The
// folder came into place as a whole, so names and sizes are enough.
func (a *Adapter) complete(folder string, names []string, files []submission.File) bool {
	for i, f := range files {
		info, err := os.Lstat(filepath.Join(folder, names[i]))
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size {
			return false
		}
	}
	return true
}

func same(name string, content []byte) bool {
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(content)) {
		return false
	}
	b, err := os.ReadFile(name)
	return err == nil && bytes.Equal(b, content)
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func syncDir(dir string) error { return syncFile(dir) }

// classify never repeats a path: a path ends in names that a portal chose.
func classify(ctx context.Context, err error) error {
	if src, ok := errors.AsType[*wire.SourceError](err); ok {
		if ctx.Err() != nil {
			return fault.Of(ctx.Err())
		}
		return src.Fault()
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Of(ctx.Err())
	}
	what := "the directory cannot be written"
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		what = fmt.Sprintf("the directory cannot be written: %s", errno.Error())
	}
	return fault.Wrap(err, fault.Destination, fault.ReasonStorage, "%s", what)
}
