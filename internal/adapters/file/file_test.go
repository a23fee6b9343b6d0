package file_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/file"
	"weiche/internal/adapters/spec"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

func open(t *testing.T, settings string, deps spec.Deps) spec.Adapter {
	t.Helper()
	return adaptertest.Open(t, file.Kind(), deps, settings)
}

func TestConformance(t *testing.T) {
	adaptertest.Suite{
		Open: func(t *testing.T, c adaptertest.Condition, deps spec.Deps) adaptertest.Door {
			dir := t.TempDir()
			door := adaptertest.Door{Adapter: open(t, "directory: "+dir, deps), Received: func() []adaptertest.Received { return received(t, dir) }}
			switch c {
			case adaptertest.AtFault:
				// A directory replaced by a file: root meets it like everybody else.
				if err := os.Remove(dir); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(dir, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			case adaptertest.Slow:
				begun := make(chan struct{}, 100)
				door.Begun = begun
				door.Delivery = func() *submission.Delivery {
					d := adaptertest.NewDelivery([]byte("a"))
					d.Attachments[0].Open = func() (io.ReadCloser, error) { return dripping{begun}, nil }
					return d
				}
			}
			return door
		},
		Without: map[adaptertest.Condition]string{
			adaptertest.RefusesForGood: "a directory judges no message",
			adaptertest.RefusesForNow:  "what a file system refuses, it refuses for every message",
			adaptertest.CutsOff:        "nobody but the file system is at the other end; that is the destination at fault",
			adaptertest.RotatesSecret:  "there is no secret",
		},
	}.Run(t)
}

// dripping is an attachment that never ends.
type dripping struct{ begun chan<- struct{} }

func (d dripping) Read(p []byte) (int, error) {
	select {
	case d.begun <- struct{}{}:
	default:
	}
	time.Sleep(5 * time.Millisecond)
	p[0] = 'x'
	return 1, nil
}

func (dripping) Close() error { return nil }

func received(t *testing.T, dir string) []adaptertest.Received {
	t.Helper()
	var out []adaptertest.Received
	names, err := filepath.Glob(filepath.Join(dir, "*.xml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		id := strings.TrimSuffix(filepath.Base(name), ".xml")
		r := adaptertest.Received{ID: id, Message: read(t, name), Beside: map[string]string{"name": filepath.Base(name)}}
		entries, err := os.ReadDir(filepath.Join(dir, id))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			r.Attachments = append(r.Attachments, read(t, filepath.Join(dir, id, e.Name())))
		}
		out = append(out, r)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, ".weiche")); len(left) > 0 {
		t.Errorf("%d temporary files were left behind", len(left))
	}
	return out
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mount puts a tmpfs over dir. It needs root; without it the test is skipped,
// and under CI=true it fails.
func mount(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("a file system has to be mounted, which needs root: %v", err)
	default:
		t.Skipf("no file system can be mounted here: %v", err)
	}
}

// A full file system, a real one: two megabytes of tmpfs.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	mount(t, dir, 0, "size=2m")
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	a := open(t, "directory: "+dir, spec.Deps{})
	err := a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 4<<20)))
	wantStorage(t, err, syscall.ENOSPC)
	if got := received(t, dir); len(got) != 0 {
		t.Error("a message came out without its attachment")
	}
	// Room again: the next message goes through.
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 1<<20))); err != nil {
		t.Error(err)
	}
}

// A share that was remounted read-only.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	mount(t, dir, syscall.MS_RDONLY, "size=1m")
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	err := open(t, "directory: "+dir, spec.Deps{}).Deliver(t.Context(), adaptertest.NewDelivery())
	wantStorage(t, err, syscall.EROFS)
}

func TestMissingDirectory(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "not-mounted")
	err := open(t, "directory: "+gone, spec.Deps{}).Deliver(t.Context(), adaptertest.NewDelivery())
	wantStorage(t, err, syscall.ENOENT)
	if _, err := os.Stat(gone); !os.IsNotExist(err) {
		t.Error("an absolute directory was made; a share that is not mounted would swallow messages")
	}
}

func TestRelativeDirectory(t *testing.T) {
	data := t.TempDir()
	d := adaptertest.NewDelivery()
	if err := open(t, "directory: outbox/bauamt", spec.Deps{DataDir: data}).Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	read(t, filepath.Join(data, "outbox", "bauamt", d.ID+".xml"))
}

func wantStorage(t *testing.T, err error, errno syscall.Errno) {
	t.Helper()
	f := fault.Of(err)
	if f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonStorage || !errors.Is(err, errno) {
		t.Errorf("storage at fault (%v) was expected, not %v", errno, err)
	}
	if f != nil && strings.Contains(f.Error(), "/") {
		t.Errorf("a path stands in the error: %s", f)
	}
}

// What a portal may call its files, and what comes of it: nothing outside the
// message's own folder.
func TestAttachmentNames(t *testing.T) {
	dir := t.TempDir()
	a := open(t, "directory: "+dir, spec.Deps{})
	names := []string{
		"../../etc/passwd", `..\..\boot.ini`, "/etc/shadow", "..", ".", "", "a\x00b.pdf", "plan.pdf", "plan.pdf", "\u202efdp.exe",
		strings.Repeat("ü", 500) + ".pdf", "Lageplan Müller-Łukasz.pdf", "CON:", "-rf", ".bashrc", "\xff\xfe.pdf",
	}
	d := adaptertest.NewDelivery()
	for _, n := range names {
		d.Attachments = append(d.Attachments, adaptertest.NewFile(n, []byte(n)))
	}
	if err := a.Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, d.ID))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want := []string{
		"01-passwd", "02-boot.ini", "03-shadow", "04-attachment", "05-attachment", "06-attachment", "07-ab.pdf", "08-plan.pdf", "09-plan.pdf",
		"10-fdp.exe", "11-" + strings.Repeat("ü", 58) + ".pdf", "12-Lageplan Müller-Łukasz.pdf", "13-CON_", "14--rf", "15-bashrc", "16-_.pdf",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the files are\n%q\nand should be\n%q", got, want)
	}
	top, err := os.ReadDir(dir)
	if err != nil || len(top) != 3 { // .weiche, the folder, the XML
		t.Errorf("%d entries in the directory, 3 were expected (%v)", len(top), err)
	}
}

// Whoever took the XML away gets it again; whoever damaged it too.
func TestRepeatAfterChange(t *testing.T) {
	dir := t.TempDir()
	a := open(t, "directory: "+dir, spec.Deps{})
	d := adaptertest.NewDelivery([]byte("eins"), []byte("zwei"))
	deliver := func() {
		t.Helper()
		if err := a.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		got := received(t, dir)
		if len(got) != 1 || len(got[0].Attachments) != 2 || string(got[0].Attachments[1]) != "zwei" || string(got[0].Message) != string(d.Message) {
			t.Fatalf("%d messages, or not as they were sent", len(got))
		}
	}
	deliver()
	before, err := os.Stat(filepath.Join(dir, d.ID+".xml"))
	if err != nil {
		t.Fatal(err)
	}
	deliver()
	if after, err := os.Stat(filepath.Join(dir, d.ID+".xml")); err != nil || !os.SameFile(before, after) {
		t.Error("a repeat replaced what was there and right")
	}
	if err := os.Remove(filepath.Join(dir, d.ID+".xml")); err != nil {
		t.Fatal(err)
	}
	deliver()
	if err := os.WriteFile(filepath.Join(dir, d.ID+".xml"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	deliver()
	if err := os.RemoveAll(filepath.Join(dir, d.ID)); err != nil {
		t.Fatal(err)
	}
	deliver()
}

// What a crash left is removed after a day, and not before.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	old, fresh := filepath.Join(dir, ".weiche", "old"), filepath.Join(dir, ".weiche", "fresh")
	for _, d := range []string{old, fresh} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	if err := open(t, "directory: "+dir, spec.Deps{}).Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Error("a temporary folder of yesterday was left")
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error("a temporary folder that may be another process's was removed")
	}
}

func TestForeignID(t *testing.T) {
	d := adaptertest.NewDelivery()
	d.ID = "../../etc/cron.d/x"
	err := open(t, "directory: "+t.TempDir(), spec.Deps{}).Deliver(t.Context(), d)
	if f := fault.Of(err); f == nil || f.Class != fault.Permanent {
		t.Errorf("an id that is no UUID went through: %v", err)
	}
}
