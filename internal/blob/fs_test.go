package blob_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weiche/internal/blob"
	"weiche/internal/blob/blobtest"
	"weiche/internal/fault"
)

func openFS(t testing.TB, dir string) *blob.FS {
	t.Helper()
	s, err := blob.OpenFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestFS(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return openFS(t, filepath.Join(t.TempDir(), "data", "blobs")) })
}

func wantFault(t testing.TB, err error, class fault.Class, reason fault.Reason) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Class != class || f.Reason != reason {
		t.Fatalf("error %v (%T); want %s/%s", err, err, class, reason)
	}
}

func TestFSFollowsNoLinkOutOfItsDirectory(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	s := openFS(t, dir)
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), "link/secret"); err == nil {
		t.Error("a blob was read from outside")
	}
	if _, err := s.Put(t.Context(), "link/new", strings.NewReader("x")); err == nil {
		t.Error("a blob was written outside")
	}
	if err := s.Delete(t.Context(), "link/secret"); err == nil {
		t.Error("a blob was deleted outside")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside lies %v, %v", entries, err)
	}
}

func TestFSLeavesNoTemporaryFileAndSweepsThoseOfADeadProcess(t *testing.T) {
	dir := t.TempDir()
	s := openFS(t, dir)
	temps := func() int {
		entries, err := os.ReadDir(filepath.Join(dir, ".tmp"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if _, err := s.Put(t.Context(), "a/1", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "a/2", io.MultiReader(strings.NewReader("x"), failing{})); err == nil {
		t.Fatal("a failing source was stored")
	}
	if n := temps(); n != 0 {
		t.Fatalf("%d temporary files are left", n)
	}
	// What a killed process leaves: an old one, and one that is being written.
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 25 * time.Hour, "young": time.Minute} {
		p := filepath.Join(dir, ".tmp", name)
		if err := os.WriteFile(p, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.SweepTemp(t.Context(), now.Add(-24*time.Hour)); n != 1 || err != nil || temps() != 1 {
		t.Errorf("swept %d, %v; %d are left; want one and one", n, err, temps())
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("source") }

// A disk that is full is a fault of the storage, for now: not of the message.
func TestFSSaysThatTheDiskIsFull(t *testing.T) {
	if !limitFileSize(t, 64<<10) {
		return
	}
	dir := t.TempDir()
	s := openFS(t, dir)
	_, err := s.Put(t.Context(), "a/1", strings.NewReader(strings.Repeat("x", 1<<20)))
	wantFault(t, err, fault.Retryable, fault.ReasonStorage)
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("the cause is lost: %v", errors.Unwrap(err))
	}
	if entries, err := os.ReadDir(filepath.Join(dir, ".tmp")); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if _, err := s.Put(t.Context(), "a/1", strings.NewReader("small")); err != nil {
		t.Errorf("what fits: %v", err)
	}
}

func TestFSWhoseDirectoryIsInTheWay(t *testing.T) {
	s := openFS(t, t.TempDir())
	if _, err := s.Put(t.Context(), "a/b", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	_, err := s.Put(t.Context(), "a/b/c", strings.NewReader("x"))
	wantFault(t, err, fault.Retryable, fault.ReasonStorage)
	_, err = s.Put(t.Context(), "a", strings.NewReader("x"))
	wantFault(t, err, fault.Retryable, fault.ReasonStorage)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.OpenFS(file); err == nil {
		t.Error("a file was opened as a store")
	}
}
