package test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A newcomer clones the repository, types `make run`, runs the curl line it
// prints, and finds the message at the town's door; then the building
// application, after importing XBau.
func TestNewcomer(t *testing.T) {
	needCommand(t, "xmllint")
	needCommand(t, "curl")
	needCommand(t, "git")
	clone := filepath.Join(t.TempDir(), "weiche")
	cmd := exec.Command("git", "clone", "-q", "--no-hardlinks", repo, clone)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v\n%s", err, b)
	}
	run := exec.Command("make", "run")
	run.Dir = clone
	run.Env = append(os.Environ(), "WEICHE_LISTEN=127.0.0.1:0", "WEICHE_OPS=127.0.0.1:0")
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	logFile, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	run.Stderr = logFile
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-run.Process.Pid, syscall.SIGTERM)
		run.Wait()
		if b, _ := os.ReadFile(logFile.Name()); t.Failed() {
			t.Log(tail(string(b), 8000))
		}
	})
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
	}()
	curl := ""
	for timeout := time.After(5 * time.Minute); curl == ""; {
		select {
		case l, ok := <-lines:
			if !ok {
				t.Fatal("make run ended without a curl line")
			}
			if strings.HasPrefix(l, "curl ") {
				curl = l
			}
		case <-timeout:
			t.Fatal("make run printed no curl line within five minutes")
		}
	}
	post := exec.Command("sh", "-c", curl)
	post.Dir = clone
	out, err := post.Output()
	if err != nil {
		t.Fatalf("%s: %v", curl, err)
	}
	began := time.Now()
	var a accepted
	if err := json.Unmarshal(out, &a); err != nil || a.SubmissionID == "" || a.Receipt == "" {
		t.Fatalf("the printed curl answered %s", out)
	}
	outbox := filepath.Join(clone, "data/outbox/boeblingen-gewerbe")
	var file string
	eventually(t, 5*time.Second, func() (bool, string) {
		found, _ := filepath.Glob(filepath.Join(outbox, "*.xml"))
		if len(found) == 1 {
			file = found[0]
		}
		return file != "", "no XML in " + outbox
	})
	t.Logf("arrived %s after the receipt", time.Since(began).Round(time.Millisecond))
	lint(t, filepath.Join(clone, "config/standards/antrag/1.0/antrag.xsd"), file)

	cli := func(args ...string) string {
		t.Helper()
		c := exec.Command("bin/router", args...)
		c.Dir = clone
		b, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("router %s: %v\n%s", strings.Join(args, " "), err, b)
		}
		return string(b)
	}
	var story string
	eventually(t, 5*time.Second, func() (bool, string) {
		story = cli("trace", a.SubmissionID)
		return strings.Contains(story, "delivered"), story
	})
	for _, want := range []string{"accepted", "decided", "08-boeblingen-gewerbe", "antrag/1.0/antrag", "delivered"} {
		if !strings.Contains(story, want) {
			t.Errorf("the story lacks %q:\n%s", want, story)
		}
	}

	// The building application: refused before XBau is installed, delivered
	// after, without a restart.
	needShared(t)
	building := filepath.Join("config/services/baugenehmigung/examples/minimal.json")
	submit := func() (string, error) {
		c := exec.Command("bin/router", "submit", building)
		c.Dir = clone
		b, err := c.CombinedOutput()
		return string(b), err
	}
	if out, err := submit(); err == nil || !strings.Contains(out, "standards import") && !strings.Contains(out, "standard-missing") {
		t.Fatalf("a building application without XBau: %v\n%s", err, out)
	}
	if out := cli("standards", "import", filepath.Join(shared, "standards/xbau/2.6"), "--with", filepath.Join(shared, "codelists/xbau-2.6")); !strings.Contains(out, "xbau/2.6") || !strings.Contains(out, "xbau-kernmodul/1.3.0") || !strings.Contains(strings.ToLower(out), "licence") {
		t.Fatalf("standards import said:\n%s", out)
	}
	var id string
	eventually(t, 30*time.Second, func() (bool, string) {
		out, err := submit()
		if m := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).FindString(out); err == nil {
			id = m
			return true, ""
		}
		return false, out
	})
	eventually(t, 10*time.Second, func() (bool, string) {
		story = cli("trace", id)
		return strings.Contains(story, "xbau/2.6/baugenehmigung.antrag.0200") && strings.Contains(story, "delivered"), story
	})
	found, _ := filepath.Glob(filepath.Join(clone, "data/outbox/*/*.xml"))
	valid := 0
	for _, f := range found {
		if b, _ := os.ReadFile(f); strings.Contains(string(b), "baugenehmigung.antrag.0200") {
			lint(t, filepath.Join(shared, "standards/xbau/2.6/xbau-all.xsd"), f)
			valid++
		}
	}
	if valid != 1 {
		t.Fatalf("%d building applications in the outboxes, want 1", valid)
	}
}
