package adaptertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Program returns the path of the first of these programs that is there.
func Program(t *testing.T, names ...string) string {
	t.Helper()
	for _, n := range names {
		if path, err := exec.LookPath(n); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	Missing(t, names[0]+" is missing; make deps installs it, or says what to install")
	return ""
}

// Missing ends a test that lacks a part: under CI=true it fails, elsewhere it is
// skipped.
func Missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
