//go:build failpoints

package failpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The process dies at the hit that is named, not before and not behind it.
func TestKillsAtTheHit(t *testing.T) {
	if trace := os.Getenv("WEICHE_FAILPOINT_TRACE"); trace != "" {
		for _, name := range []string{"a.one", "a.two", "a.one", "a.two", "a.one"} {
			Hit(name)
		}
		return
	}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKillsAtTheHit$")
	cmd.Env = append(os.Environ(), "WEICHE_FAILPOINT=a.one:2", "WEICHE_FAILPOINT_TRACE="+trace)
	err := cmd.Run()
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v", err)
	}
	b, err := os.ReadFile(trace)
	if got := strings.Fields(string(b)); err != nil || strings.Join(got, " ") != "a.one a.two a.one" {
		t.Errorf("it hit %v, %v", got, err)
	}
}
