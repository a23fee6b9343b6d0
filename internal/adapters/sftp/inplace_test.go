package sftp_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// troubled is OpenSSH's server on a disk that can be told to fail: a library of
// the test's stands before two of the system's calls.
type troubled struct {
	*sshd
	flags string // directory: a file of that name there turns a trouble on
}

const (
	failFsync  = "fail-fsync"  // of directories: EIO
	slowRename = "slow-rename" // a tenth of a second after each
)

const library = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

int fsync(int fd) {
	struct stat st;
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && access(FLAGS "/fail-fsync", F_OK) == 0) {
		errno = EIO;
		return -1;
	}
	return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int rename(const char *from, const char *to) {
	int r = ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
	int saved = errno;
	if (access(FLAGS "/slow-rename", F_OK) == 0)
		usleep(100000);
	errno = saved;
	return r;
}
`

func startTroubled(t *testing.T) *troubled {
	t.Helper()
	gcc := adaptertest.Program(t, "gcc")
	dir, err := os.MkdirTemp("", "weiche-trouble-") // where the server's user comes, too
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755)) //nolint:gosec // as said
	source, object := filepath.Join(dir, "trouble.c"), filepath.Join(dir, "trouble.so")
	must(t, os.WriteFile(source, []byte(library), 0o600))
	out, err := exec.Command(gcc, "-shared", "-fPIC", `-DFLAGS="`+dir+`"`, "-o", object, source, "-ldl").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return &troubled{startSSHDWith(t, []string{"LD_PRELOAD=" + object}), dir}
}

func (x *troubled) turn(name string, on bool) {
	x.t.Helper()
	file := filepath.Join(x.flags, name)
	if !on {
		must(x.t, os.Remove(file))
		return
	}
	must(x.t, os.WriteFile(file, nil, 0o644)) //nolint:gosec // the server's user asks for it
}

// spoil puts other bytes of the same length into an attachment that is in place.
func (s *sshd) spoil(d *submission.Delivery, nth int) string {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.inbox, d.ID))
	must(s.t, err)
	name := filepath.Join(s.inbox, d.ID, entries[nth].Name())
	must(s.t, os.WriteFile(name, bytes.Repeat([]byte{0}, len(read(s.t, name))), 0o600))
	return name
}

func (s *sshd) mustHold(d *submission.Delivery, attachments ...[]byte) {
	s.t.Helper()
	got := s.received()
	if len(got) != 1 || !bytes.Equal(got[0].Message, d.Message) || len(got[0].Attachments) != len(attachments) {
		s.t.Fatal("what came out is not what went in")
	}
	for i, a := range attachments {
		if !bytes.Equal(got[0].Attachments[i], a) {
			s.t.Errorf("attachment %d has other bytes", i)
		}
	}
}

// A length and a name prove nothing, in its place neither: a server that crashed
// may have left zeros there.
func TestContentInPlaceIsVerified(t *testing.T) {
	one, two := bytes.Repeat([]byte("eins"), 700_000), []byte("zwei")
	for name, cut := range map[string]bool{"everything in place": false, "cut before the XML": true} {
		t.Run(name, func(t *testing.T) {
			x, deps := startSSHD(t), newDeps(t)
			a, d := open(t, deps, x.base(deps)), adaptertest.NewDelivery(one, two)
			must(t, a.Deliver(t.Context(), d))
			for nth := range 2 {
				x.spoil(d, nth)
				if cut {
					must(t, os.Remove(filepath.Join(x.inbox, d.ID+".xml")))
				}
				must(t, a.Deliver(t.Context(), d))
				x.mustHold(d, one, two)
			}
		})
	}
}

// While one file of a folder is put right, the folder and the others stay.
func TestNothingIsMissingMeanwhile(t *testing.T) {
	x, deps := startTroubled(t), newDeps(t)
	a, d := open(t, deps, x.base(deps)), adaptertest.NewDelivery([]byte("eins"), []byte("zwei"))
	must(t, a.Deliver(t.Context(), d))
	wrong := x.spoil(d, 1)
	entries, err := os.ReadDir(filepath.Join(x.inbox, d.ID))
	must(t, err)
	watched := []string{filepath.Join(x.inbox, d.ID, entries[0].Name()), wrong, filepath.Join(x.inbox, d.ID+".xml")}
	x.turn(slowRename, true)
	ended, missing := make(chan error, 1), map[string]bool{}
	go func() { ended <- a.Deliver(t.Context(), d) }()
	for running := true; running; time.Sleep(time.Millisecond) {
		select {
		case err := <-ended:
			must(t, err)
			running = false
		default:
		}
		for _, name := range watched {
			if _, err := os.Lstat(name); err != nil {
				missing[filepath.Base(name)] = true
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("missing for a while: %v", missing)
	}
	x.mustHold(d, []byte("eins"), []byte("zwei"))
}

// What the server cannot make durable does not count as delivered.
func TestFolderCannotBeSynced(t *testing.T) {
	x, deps := startTroubled(t), newDeps(t)
	a, d := open(t, deps, x.base(deps)), adaptertest.NewDelivery([]byte("eins"))
	x.turn(failFsync, true)
	for range 2 {
		mustFault(t, a.Deliver(t.Context(), d), fault.Destination, fault.ReasonStorage)
	}
	plain := adaptertest.NewDelivery()
	for range 2 { // the second finds the XML in its place
		mustFault(t, a.Deliver(t.Context(), plain), fault.Destination, fault.ReasonStorage)
	}
	must(t, os.Remove(filepath.Join(x.inbox, plain.ID+".xml")))
	must(t, os.RemoveAll(filepath.Join(x.inbox, ".weiche", plain.ID)))
	x.turn(failFsync, false)
	must(t, a.Deliver(t.Context(), d))
	x.mustHold(d, []byte("eins"))
}

// A folder's name that something else has is given to the folder.
func TestFileInTheFoldersPlace(t *testing.T) {
	x, deps := startSSHD(t), newDeps(t)
	d := adaptertest.NewDelivery([]byte("eins"))
	must(t, os.WriteFile(filepath.Join(x.inbox, d.ID), []byte("x"), 0o600))
	must(t, os.Chown(filepath.Join(x.inbox, d.ID), x.uid, x.gid))
	must(t, open(t, deps, x.base(deps)).Deliver(t.Context(), d))
	x.mustHold(d, []byte("eins"))
}

// What reading back costs at a repeat, beside sending it: the figures of
// docs/reference and of the choice against a manifest.
func TestCostOfARepeat(t *testing.T) {
	if testing.Short() {
		t.Skip("only says what it costs")
	}
	x, deps := startSSHD(t), newDeps(t)
	r := newRelay(t, addr(x.port))
	a := open(t, deps, x.base(deps).with("port", fmt.Sprint(r.port)))
	d := adaptertest.NewDelivery(make([]byte, 64<<20))
	for _, what := range []string{"first", "repeat"} {
		began, before := time.Now(), r.up.Load()
		must(t, a.Deliver(t.Context(), d))
		sent := r.up.Load() - before
		t.Logf("%s: %d ms, %d bytes sent", what, time.Since(began).Milliseconds(), sent)
		if what == "repeat" && sent > 1<<20 {
			t.Errorf("%d bytes were sent again of a message that was in place", sent)
		}
	}
}
