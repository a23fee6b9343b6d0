package blob_test

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
)

// limitedChild marks the process in which a test runs under a limit.
const limitedChild = "WEICHE_TEST_FILE_LIMIT"

// limitFileSize makes the kernel refuse files above bytes, as a full disk does.
// The limit is the process's, and the test binary writes files of its own for
// `go test`; so the test runs once more, alone, in a process of its own. It
// returns true there, and false where that process has run.
func limitFileSize(t *testing.T, bytes uint64) bool {
	t.Helper()
	if os.Getenv(limitedChild) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), limitedChild+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("under a limit of %d bytes a file: %v\n%s", bytes, err, out)
		}
		return false
	}
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
	})
	return true
}
