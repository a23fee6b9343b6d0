package adaptertest

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// holdings are the process's goroutines and open descriptors (sockets, files) at
// one moment. Timers cannot be counted; one that fires makes a goroutine or keeps
// a connection, and those show.
type holdings struct {
	goroutines  map[string]string // number → stack
	descriptors map[string]string // number and target → target
}

var numbered = regexp.MustCompile(`^goroutine (\d+) `)

func held() holdings {
	h := holdings{map[string]string{}, map[string]string{}}
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	for _, stack := range strings.Split(string(buf), "\n\n") {
		if m := numbered.FindStringSubmatch(stack); m != nil {
			h.goroutines[m[1]] = stack
		}
	}
	// Elsewhere than on Linux goroutines alone are looked at.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return h
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || !strings.HasPrefix(target, "socket:") && !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/dev/") {
			continue // gone, or the runtime's own
		}
		h.descriptors[e.Name()+" "+target] = target
	}
	return h
}

// since lists what is held now and was not before, but for what is shared.
func since(before holdings, shared func(string) bool) []string {
	var out []string
	now := held()
	for id, stack := range now.goroutines {
		if _, was := before.goroutines[id]; !was && !shared(stack) {
			out = append(out, stack)
		}
	}
	for id, target := range now.descriptors {
		if _, was := before.descriptors[id]; !was && !shared(target) {
			out = append(out, "descriptor "+target)
		}
	}
	return out
}

// mustLeave waits until nothing is held that was not held before.
func mustLeave(t *testing.T, before holdings, when string, shared func(string) bool) {
	t.Helper()
	var left []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if left = since(before, shared); len(left) == 0 {
			return
		}
	}
	t.Errorf("%d goroutines, connections or files are left %s:\n%s", len(left), when, strings.Join(left, "\n\n"))
}

// notOurs is true of goroutines that no adapter's own code is in: what the
// conditions' servers hold is theirs.
func notOurs(what string) bool {
	for _, line := range strings.Split(what, "\n") {
		line = strings.TrimPrefix(line, "created by ")
		if rest, ok := strings.CutPrefix(line, "weiche/internal/adapters/"); ok {
			pkg, _, _ := strings.Cut(rest, ".")
			if !strings.HasSuffix(pkg, "test") {
				return false
			}
		}
	}
	return true
}
