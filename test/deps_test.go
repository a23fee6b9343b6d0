package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What make deps does on a bare Debian, with an apt-get that refuses the first call
// and gcc in every other.
func TestDeps(t *testing.T) {
	dir := t.TempDir()
	bin, policy, log := filepath.Join(dir, "bin"), filepath.Join(dir, "policy-rc.d"), filepath.Join(dir, "log")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tr", "chmod", "rm"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skip(name + " is missing")
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	stub := func(name, script string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	stub("id", "echo 0\n")
	stub("apt-get", `"$WEICHE_POLICY" ssh start; echo "$? $*" >>"`+log+`"
case "$*" in *update*) exit 0 ;; *gcc*) echo "E: Packages need to be removed but remove is disabled." >&2; exit 100 ;; esac
`)
	run := func() string {
		_ = os.Remove(log)
		cmd := exec.Command("/bin/sh", "deps.sh")
		cmd.Env = []string{"PATH=" + bin, "WEICHE_POLICY=" + policy}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	out := run()
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Count(out, "is not installed") != 1 || !strings.Contains(out, "deps: gcc is not installed") {
		t.Errorf("it does not say that gcc alone is not installed:\n%s", out)
	}
	lines := strings.Split(strings.TrimSpace(string(calls)), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, "101 ") {
			t.Errorf("services may start during %s", line)
		}
		if strings.Contains(line, "install") && !strings.Contains(line, "--no-remove") {
			t.Errorf("others' packages may be removed by %s", line)
		}
	}
	if last := lines[len(lines)-1]; len(lines) < 4 || strings.Contains(last, "gcc") {
		t.Errorf("the others were not tried one after the other:\n%s", calls)
	}
	if _, err := os.Stat(policy); err == nil {
		t.Error("the policy was left behind")
	}
	// An administrator's own stays, and decides.
	if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 0\n"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	run()
	if b, err := os.ReadFile(policy); err != nil || string(b) != "#!/bin/sh\nexit 0\n" {
		t.Errorf("somebody's own policy was changed: %q, %v", b, err)
	}
}
