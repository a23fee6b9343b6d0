package sftp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/pkg/sftp"

	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// stale left-overs are removed. No policy gives up later by default than after
// seven days, and a transfer that long ago is not worth going on with.
const stale = 8 * 24 * time.Hour

const (
	extFsync  = "fsync@openssh.com"
	extRename = "posix-rename@openssh.com"
)

// placing puts one message into place over one connection.
type placing struct {
	c   *sftp.Client
	dir string
	l   wire.Layout
	d   *submission.Delivery
}

func (p *placing) work(names ...string) string {
	return path.Join(append([]string{p.dir, wire.WorkDir, p.l.ID}, names...)...)
}

func (p *placing) deliver(ctx context.Context) error {
	if p.done() {
		p.sync(path.Join(p.dir, p.l.XML)) // a cut may have come between an earlier rename and its sync
		p.sync(p.dir)
		p.remove(p.work())
		return nil
	}
	err := p.place(ctx)
	if err != nil && ctx.Err() == nil {
		err = p.settle(err)
	}
	return err
}

func (p *placing) place(ctx context.Context) error {
	for _, dir := range []string{path.Join(p.dir, wire.WorkDir), p.work()} {
		if err := p.mkdir(dir); err != nil {
			return err
		}
	}
	if len(p.d.Attachments) > 0 {
		if err := p.folder(ctx); err != nil {
			return err
		}
	}
	xml := p.work("message.xml")
	err := p.upload(xml, func(w io.Writer) error { _, err := w.Write(p.d.XML); return err })
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.rename(xml, path.Join(p.dir, p.l.XML)); err != nil {
		return err
	}
	p.sync(p.dir)
	p.remove(p.work())
	return nil
}

// folder writes the attachments and moves them into place as a whole.
func (p *placing) folder(ctx context.Context) error {
	target, folder := path.Join(p.dir, p.l.Folder), p.work("attachments")
	if p.complete(target) {
		return nil
	}
	if err := p.mkdir(folder); err != nil {
		return err
	}
	for i, f := range p.d.Attachments {
		if err := p.upload(path.Join(folder, p.l.Files[i]), func(w io.Writer) error { return wire.Copy(ctx, w, f) }); err != nil {
			return err
		}
	}
	// What an earlier attempt, or somebody else, left there under other names.
	entries, err := p.c.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(p.l.Files, e.Name()) {
			p.remove(path.Join(folder, e.Name()))
		}
	}
	p.sync(folder)
	if err := p.c.Rename(folder, target); err != nil {
		// Of an earlier attempt, or put there by somebody.
		p.remove(p.work("earlier"))
		if p.c.Rename(target, p.work("earlier")) != nil {
			return err
		}
		if err := p.c.Rename(folder, target); err != nil {
			return err
		}
	}
	p.sync(p.dir) // before the XML can be seen
	return nil
}

// done says that everything lies in its place.
func (p *placing) done() bool {
	return p.same(path.Join(p.dir, p.l.XML), p.d.XML) && p.complete(path.Join(p.dir, p.l.Folder))
}

// complete says whether the folder holds every file. It came into place as a
// whole, so names and sizes are enough.
func (p *placing) complete(folder string) bool {
	for i, f := range p.d.Attachments {
		info, err := p.c.Lstat(path.Join(folder, p.l.Files[i]))
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size {
			return false
		}
	}
	return true
}

func (p *placing) same(name string, content []byte) bool {
	info, err := p.c.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(content)) {
		return false
	}
	f, err := p.c.Open(name)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, len(content))
	_, err = f.ReadAt(b, 0)
	return (err == nil || errors.Is(err, io.EOF)) && bytes.Equal(b, content)
}

// mkdir makes a folder where there is none. Something else under its name, a link
// too, is refused: it would lead the files elsewhere.
func (p *placing) mkdir(name string) error {
	err := p.c.Mkdir(name)
	if err == nil {
		return nil
	}
	if info, lerr := p.c.Lstat(name); lerr == nil && info.IsDir() {
		return nil
	}
	return err
}

func (p *placing) rename(from, to string) error {
	if _, ok := p.c.HasExtension(extRename); ok {
		return p.c.PosixRename(from, to)
	}
	// The plain rename of version 3 replaces nothing.
	if err := p.c.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return p.c.Rename(from, to)
}

// sync makes a file or folder durable that is complete and closed, as far as the
// server lets it: not every one opens a folder.
func (p *placing) sync(name string) {
	if _, ok := p.c.HasExtension(extFsync); !ok {
		return
	}
	if f, err := p.c.Open(name); err == nil {
		_ = f.Sync()
		_ = f.Close()
	}
}

// remove takes a left-over away; what cannot be removed lies in nobody's way.
func (p *placing) remove(name string) { _ = p.c.RemoveAll(name) }

// sweep removes left-overs last touched before a time.
func (p *placing) sweep(before time.Time) {
	root := path.Join(p.dir, wire.WorkDir)
	entries, err := p.c.ReadDir(root)
	if err != nil {
		return
	}
	for _, e := range entries {
		if uuid.Validate(e.Name()) == nil && e.ModTime().Before(before) {
			p.remove(path.Join(root, e.Name()))
		}
	}
}

// writeError says that the server took the file but not its bytes.
type writeError struct{ err error }

func (e *writeError) Error() string { return "a file cannot be written" }

// Unwrap returns the cause.
func (e *writeError) Unwrap() error { return e.err }

// settle looks once more before an error counts.
func (p *placing) settle(err error) error {
	if lost(err) {
		return err
	}
	if _, ok := errors.AsType[*wire.SourceError](err); ok {
		return err
	}
	if p.done() {
		// Another attempt for the same delivery was quicker; its bytes are these.
		return nil
	}
	if _, ok := errors.AsType[*writeError](err); ok {
		// The protocol has one word for disk full, quota and file too large. What lies
		// there would be in others' way, and a trial tells whose fault it is.
		p.remove(p.work())
		if p.trial() {
			return fault.Wrap(err, fault.Retryable, fault.ReasonStorage, "the server has room, but not for this message")
		}
		return fault.Wrap(err, fault.Destination, fault.ReasonStorage, "the server has no room for files")
	}
	if errors.Is(err, fs.ErrNotExist) {
		if info, serr := p.c.Stat(path.Join(p.dir, wire.WorkDir)); serr == nil && info.IsDir() {
			return fault.Wrap(err, fault.Retryable, fault.ReasonInterrupted, "another attempt, or somebody, took the files away")
		}
	}
	return err
}

func (p *placing) trial() bool {
	defer p.remove(p.work())
	if p.mkdir(p.work()) != nil {
		return false
	}
	b := make([]byte, 4<<10)
	_, _ = rand.Read(b)
	return p.upload(p.work("trial"), func(w io.Writer) error { _, err := w.Write(b); return err }) == nil
}

// upload writes a file whose bytes may partly be there already.
func (p *placing) upload(name string, fill func(io.Writer) error) (err error) {
	if info, err := p.c.Lstat(name); err == nil && !info.Mode().IsRegular() {
		p.remove(name) // a link would lead elsewhere
	}
	f, have, err := p.open(name)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = &writeError{cerr}
		}
	}()
	w := &resumed{f: f, have: have, same: true}
	if err := fill(w); err != nil {
		return err
	}
	if err := w.block(); err != nil {
		return err
	}
	if have > w.at {
		if err := f.Truncate(w.at); err != nil {
			return &writeError{err}
		}
	}
	if _, ok := p.c.HasExtension(extFsync); ok {
		if err := f.Sync(); err != nil {
			return &writeError{err}
		}
	}
	return nil
}

// open opens a file for going on, and says how long it is. Where the account may
// not read, it begins anew.
func (p *placing) open(name string) (f *sftp.File, have int64, err error) {
	f, err = p.c.OpenFile(name, os.O_RDWR|os.O_CREATE)
	if errors.Is(err, fs.ErrPermission) {
		f, err = p.c.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		return f, 0, err
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

const blockSize = 1 << 20 // bytes; 32 requests at once

// resumed writes what differs from what is there. A partial file's length proves
// nothing: a crashed server leaves holes, requests overtake each other, and
// somebody may have put it there. Its bytes do.
type resumed struct {
	f    *sftp.File
	have int64 // bytes that were there
	same bool  // so far
	at   int64
	buf  []byte
}

// Write implements io.Writer.
func (r *resumed) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		k := min(len(b), blockSize-len(r.buf))
		r.buf = append(r.buf, b[:k]...)
		b = b[k:]
		if len(r.buf) == blockSize {
			if err := r.block(); err != nil {
				return n - len(b), err
			}
		}
	}
	return n, nil
}

// block brings one block into the file.
func (r *resumed) block() error {
	b, at := r.buf, r.at
	r.buf, r.at = r.buf[:0], r.at+int64(len(r.buf))
	if len(b) == 0 {
		return nil
	}
	if r.same && r.at <= r.have {
		old := make([]byte, len(b))
		_, err := r.f.ReadAt(old, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if bytes.Equal(old, b) {
			return nil
		}
	}
	r.same = false
	if _, err := r.f.WriteAt(b, at); err != nil {
		return &writeError{err}
	}
	return nil
}
