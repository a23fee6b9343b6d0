package test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// receiver is `router receive` in a process of its own: a Fachverfahren.
type receiver struct {
	t      *testing.T
	Dir    string
	Secret string // file
	Addr   string // host:port; stays the same over restarts
	cmd    *exec.Cmd
}

type received struct {
	destination string
	xml         []byte
}

func startReceiver(t *testing.T, flags ...string) *receiver {
	t.Helper()
	dir := t.TempDir()
	r := &receiver{t: t, Dir: filepath.Join(dir, "received"), Secret: filepath.Join(dir, "receiver.key"), Addr: "127.0.0.1:0"}
	r.Start(flags...)
	t.Cleanup(r.Stop)
	return r
}

var listening = regexp.MustCompile(`127\.0\.0\.1:[0-9]+`)

// Start starts the process; after the first start it keeps its address.
func (r *receiver) Start(flags ...string) {
	r.t.Helper()
	cmd := exec.Command(binary, append([]string{"receive", "--listen", r.Addr, "--dir", r.Dir, "--secret-file", r.Secret}, flags...)...)
	cmd.Dir = repo
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.cmd = cmd
	addr := make(chan string, 1)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			if a := listening.FindString(s.Text()); a != "" {
				select {
				case addr <- a:
				default:
				}
			}
		}
	}()
	select {
	case r.Addr = <-addr:
	case <-time.After(20 * time.Second):
		r.t.Fatalf("router receive did not say where it listens: %s", said.String())
	}
}

// Stop ends the process.
func (r *receiver) Stop() {
	if r.cmd != nil {
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

// Messages returns what was stored, by delivery id.
func (r *receiver) Messages() map[string]received {
	r.t.Helper()
	out := map[string]received{}
	err := filepath.WalkDir(r.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".xml") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		id := uuidIn.FindString(path[len(r.Dir):])
		dest := "08-sindelfingen-gewerbe"
		if bytes.Contains(b, []byte("baugenehmigung.antrag.0200")) {
			dest = "08-leonberg-bauaufsicht"
		}
		out[id] = received{dest, b}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return out
}

var uuidIn = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// useReceiver points the configuration's HTTP destinations to a receiver.
func (r *router) useReceiver(recv *receiver) {
	r.t.Helper()
	r.editConfig("lands", func(_, text string) string {
		return strings.ReplaceAll(text, "127.0.0.1:8090", recv.Addr)
	})
	secrets := filepath.Join(r.Data, "secrets")
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		r.t.Fatal(err)
	}
	b, err := os.ReadFile(recv.Secret)
	if err == nil {
		err = os.WriteFile(filepath.Join(secrets, "receiver.key"), b, 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// editConfig gives the router a configuration of its own, a copy of the shipped
// one, with the files below a folder changed.
func (r *router) editConfig(below string, edit func(path, text string) string) {
	r.t.Helper()
	if r.Config == filepath.Join(repo, "config") {
		own := filepath.Join(r.t.TempDir(), "config")
		if err := os.CopyFS(own, os.DirFS(r.Config)); err != nil {
			r.t.Fatal(err)
		}
		r.Config = own
	}
	err := filepath.WalkDir(filepath.Join(r.Config, below), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if after := edit(path, string(b)); after != string(b) {
			return os.WriteFile(path, []byte(after), 0o600)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}
