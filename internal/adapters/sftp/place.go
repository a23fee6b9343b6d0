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
	if p.done(ctx) {
		return p.finish() // a cut may have come between an earlier rename and its sync
	}
	err := p.place(ctx)
	if err != nil && ctx.Err() == nil {
		err = p.settle(ctx, err)
	}
	return err
}

// finish makes durable what lies in its place.
func (p *placing) finish() error {
	for _, name := range []string{path.Join(p.dir, p.l.Message), p.dir} {
		if err := p.sync(name); err != nil {
			return err
		}
	}
	p.remove(p.work())
	return nil
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
	whole := p.work("message" + p.d.Format.Extension())
	err := p.upload(whole, func(w io.Writer) error { _, err := w.Write(p.d.Message); return err })
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.rename(whole, path.Join(p.dir, p.l.Message)); err != nil {
		return err
	}
	return p.finish()
}

// folder brings the attachments into place. A folder that is not there comes as a
// whole. One that is there, of an earlier attempt or put there by somebody, is put
// right file by file: there is no moment at which a file that was right is missing.
func (p *placing) folder(ctx context.Context) error {
	target, folder := path.Join(p.dir, p.l.Folder), p.work("attachments")
	there := p.isDir(target)
	if err := p.mkdir(folder); err != nil {
		return err
	}
	var wrong []string
	for i, f := range p.d.Attachments {
		if there && p.holds(ctx, path.Join(target, p.l.Files[i]), f) {
			continue
		}
		wrong = append(wrong, p.l.Files[i])
		if err := p.upload(path.Join(folder, p.l.Files[i]), func(w io.Writer) error { return wire.Copy(ctx, w, f) }); err != nil {
			return err
		}
	}
	if there {
		return p.mend(folder, target, wrong)
	}
	if err := p.tidy(folder); err != nil {
		return err
	}
	if err := p.sync(folder); err != nil {
		return err
	}
	if err := p.c.Rename(folder, target); err != nil {
		// Something that is no folder has the name; it gives way.
		p.remove(p.work("earlier"))
		if p.isDir(target) || p.c.Rename(target, p.work("earlier")) != nil {
			return err
		}
		if err := p.c.Rename(folder, target); err != nil {
			return err
		}
	}
	return p.sync(p.dir) // before the message can be seen
}

// mend moves files into the folder that is in place, each over the wrong one.
func (p *placing) mend(folder, target string, names []string) error {
	for _, name := range names {
		if p.isDir(path.Join(target, name)) {
			p.remove(path.Join(target, name))
		}
		if err := p.rename(path.Join(folder, name), path.Join(target, name)); err != nil {
			return err
		}
	}
	if err := p.tidy(target); err != nil {
		return err
	}
	return p.sync(target)
}

// tidy removes what an earlier attempt, or somebody else, left under other names.
func (p *placing) tidy(folder string) error {
	entries, err := p.c.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(p.l.Files, e.Name()) {
			p.remove(path.Join(folder, e.Name()))
		}
	}
	return nil
}

// done says that everything lies in its place.
func (p *placing) done(ctx context.Context) bool {
	if !p.same(path.Join(p.dir, p.l.Message), p.d.Message) {
		return false
	}
	for i, f := range p.d.Attachments {
		if !p.holds(ctx, path.Join(p.dir, p.l.Folder, p.l.Files[i]), f) {
			return false
		}
	}
	return true
}

// holds says whether a file in its place has the attachment's bytes. It reads them
// back: a hash put down beside them would say what was once sent, and not what a
// crash, a full disk or somebody left there. It is asked at a repeat only, and
// costs what sending again would cost. Where the account may not read, it is false.
func (p *placing) holds(ctx context.Context, name string, a submission.File) bool {
	info, err := p.c.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != a.Size {
		return false
	}
	f, err := p.c.Open(name)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	old := make([]byte, blockSize)
	in := &blocks{take: func(b []byte, at int64) error {
		if _, err := f.ReadAt(old[:len(b)], at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !bytes.Equal(old[:len(b)], b) {
			return errDiffers
		}
		return nil
	}}
	return wire.Copy(ctx, in, a) == nil && in.flush() == nil
}

var errDiffers = errors.New("other bytes lie there")

func (p *placing) isDir(name string) bool {
	info, err := p.c.Lstat(name)
	return err == nil && info.IsDir()
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
// server lets it: not every one opens a folder, or lets the account read it. What
// it opened it has to sync.
func (p *placing) sync(name string) error {
	if _, ok := p.c.HasExtension(extFsync); !ok {
		return nil
	}
	f, err := p.c.Open(name)
	switch {
	case err == nil:
	case lost(err) || errors.Is(err, fs.ErrNotExist):
		return err
	default:
		return nil
	}
	defer func() { _ = f.Close() }()
	err = f.Sync()
	if status, ok := errors.AsType[*sftp.StatusError](err); ok && status.FxCode() == sftp.ErrSSHFxOpUnsupported || err == nil {
		return nil
	}
	if lost(err) {
		return err
	}
	// It is in place, and may be gone after a crash of the server.
	return fault.Wrap(err, fault.Destination, fault.ReasonStorage, "the server cannot make durable what was written (fsync)")
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
func (p *placing) settle(ctx context.Context, err error) error {
	if lost(err) {
		return err
	}
	if _, ok := errors.AsType[*wire.SourceError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err // of sync
	}
	if p.done(ctx) {
		// Another attempt for the same delivery was quicker; its bytes are these.
		return p.finish()
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
	r := &resumed{f: f, have: have, same: true}
	w := &blocks{take: r.block}
	if err := fill(w); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
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

// blocks passes on what is written in pieces of blockSize.
type blocks struct {
	take func(b []byte, at int64) error
	at   int64
	buf  []byte
}

// Write implements io.Writer.
func (w *blocks) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		k := min(len(b), blockSize-len(w.buf))
		w.buf = append(w.buf, b[:k]...)
		b = b[k:]
		if len(w.buf) == blockSize {
			if err := w.flush(); err != nil {
				return n - len(b), err
			}
		}
	}
	return n, nil
}

func (w *blocks) flush() error {
	b, at := w.buf, w.at
	w.buf, w.at = w.buf[:0], w.at+int64(len(b))
	if len(b) == 0 {
		return nil
	}
	return w.take(b, at)
}

// resumed writes what differs from what is there. A partial file's length proves
// nothing: a crashed server leaves holes, requests overtake each other, and
// somebody may have put it there. Its bytes do.
type resumed struct {
	f    *sftp.File
	have int64 // bytes that were there
	same bool  // so far
	old  []byte
}

// block brings one block into the file.
func (r *resumed) block(b []byte, at int64) error {
	if r.same && at+int64(len(b)) <= r.have {
		if r.old == nil {
			r.old = make([]byte, blockSize)
		}
		_, err := r.f.ReadAt(r.old[:len(b)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if bytes.Equal(r.old[:len(b)], b) {
			return nil
		}
	}
	r.same = false
	if _, err := r.f.WriteAt(b, at); err != nil {
		return &writeError{err}
	}
	return nil
}
