// Package test holds the end-to-end tests: the router as its users run it, a
// process of its own beside real brokers and receivers on loopback.
package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The services the repository ships, and where its Länder offer them.
const (
	serviceBuilding = "99012008001000"
	serviceTrade    = "99050012104000"
	serviceParental = "99041006017000"
	serviceGeneral  = "99012002012000"
	serviceQuestion = "99012010001000"
	serviceStart    = "99012020189000"
	serviceRoads    = "99108012005000"
	servicePlanning = "99012012042000"
	serviceLand     = "99043006060000"
	regionBoeblngen = "DE081150003003"
	regionNobody    = "081150029029" // whose trade registrations are nobody's
)

var (
	repo   string // the repository's root
	shared string // ../shared beside it
	binary string // the router, built once
)

func TestMain(m *testing.M) {
	_, file, _, _ := runtime.Caller(0)
	repo = filepath.Dir(filepath.Dir(file))
	shared = filepath.Join(filepath.Dir(repo), "shared")
	dir, err := os.MkdirTemp("", "weiche-test-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "router")
	// As `make build` does, so that the build cache serves both.
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/router")
	build.Dir = repo
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the router:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// need skips a test whose part is missing; under CI=true that is a failure.
func need(t *testing.T, what string, ok bool) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing; `make deps` installs what the tests need", what)
	}
	t.Skipf("%s is missing; `make deps` installs what the tests need", what)
}

func needCommand(t *testing.T, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	need(t, name, err == nil)
}

func needShared(t *testing.T) {
	t.Helper()
	_, err := os.Stat(filepath.Join(shared, "standards"))
	need(t, "../shared", err == nil)
}

// soak says whether the long forms are asked for (`make soak`).
func soak() bool { return os.Getenv("WEICHE_SOAK") == "1" }

// router is a router in a process of its own.
type router struct {
	t      *testing.T
	Binary string // what serves; the command line is always the plain one
	Data   string
	Config string
	Env    []string
	Public string // http://…
	Ops    string
	Kafka  []string
	Keys   map[string]string // example portals' keys

	mu    sync.Mutex
	log   bytes.Buffer // stderr and stdout over all starts
	out   bytes.Buffer // stdout of this start
	cmd   *exec.Cmd
	ended chan struct{}
}

func newRouter(t *testing.T, env ...string) *router {
	t.Helper()
	r := &router{t: t, Binary: binary, Data: filepath.Join(t.TempDir(), "data"), Config: filepath.Join(repo, "config"), Env: env}
	t.Cleanup(func() {
		last := tail(r.Log(), 8000)
		if t.Failed() && r.cmd != nil {
			_ = r.cmd.Process.Signal(syscall.SIGCONT) // a test may have stopped it
			r.signal(syscall.SIGQUIT)                 // what its goroutines wait for goes to the log
		}
		r.Kill()
		if t.Failed() {
			t.Logf("log of the router in %s: %s, what it last said:\n%s", filepath.Base(r.Data), r.keepLog(), last)
		}
	})
	return r
}

// keepLog writes the whole log where it survives the test.
func (r *router) keepLog() string {
	f, err := os.CreateTemp("", "weiche-router-*.log")
	if err == nil {
		_, err = f.WriteString(r.Log())
		f.Close()
	}
	if err != nil {
		return err.Error()
	}
	return f.Name()
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

type lockedWriter struct {
	mu *sync.Mutex
	w  []io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.w {
		w.Write(p)
	}
	return len(p), nil
}

// Start starts the process and waits until it is ready.
func (r *router) Start() *router {
	r.t.Helper()
	if err := r.start(); err != nil {
		r.t.Fatal(err)
	}
	return r
}

func (r *router) start() error {
	r.mu.Lock()
	r.out.Reset()
	r.mu.Unlock()
	os.Remove(filepath.Join(r.Data, "addresses.json"))
	cmd := exec.Command(r.Binary, "serve", "--config", r.Config, "--data", r.Data, "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0")
	cmd.Dir = repo
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Stdout = lockedWriter{&r.mu, []io.Writer{&r.log, &r.out}}
	cmd.Stderr = lockedWriter{&r.mu, []io.Writer{&r.log}}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	r.cmd, r.ended = cmd, ended
	deadline := time.Now().Add(90 * time.Second)
	for time.Now().Before(deadline) {
		var a struct {
			Public, Ops string
			Kafka       []string
		}
		if b, err := os.ReadFile(filepath.Join(r.Data, "addresses.json")); err == nil && json.Unmarshal(b, &a) == nil {
			r.Public, r.Ops, r.Kafka = "http://"+a.Public, "http://"+a.Ops, a.Kafka
			if res, err := http.Get(r.Ops + "/readyz"); err == nil {
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					r.Keys = map[string]string{}
					b, err := os.ReadFile(filepath.Join(r.Data, "example-keys.json"))
					if err != nil {
						return err
					}
					return json.Unmarshal(b, &r.Keys)
				}
			}
		}
		select {
		case <-ended:
			return fmt.Errorf("the router ended while starting\n%s", tail(r.Log(), 4000))
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("the router was not ready within 90 s\n" + tail(r.Log(), 4000))
}

// Log returns everything the process has printed, over all starts.
func (r *router) Log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// Kill ends the process with SIGKILL.
func (r *router) Kill() { r.signal(syscall.SIGKILL) }

// Stop ends the process with SIGTERM and waits for it.
func (r *router) Stop() { r.signal(syscall.SIGTERM) }

func (r *router) signal(s syscall.Signal) {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(s) // it may have ended by itself
	<-r.ended
}

// CLI runs the router's command line on this router's data.
func (r *router) CLI(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "--config", r.Config, "--data", r.Data)...)
	cmd.Dir = repo
	cmd.Env = append(os.Environ(), r.Env...)
	b, err := cmd.CombinedOutput()
	r.mu.Lock()
	fmt.Fprintf(&r.log, "$ router %s\n%s", strings.Join(args, " "), b)
	r.mu.Unlock()
	return string(b), err
}

// MustCLI is CLI that must succeed.
func (r *router) MustCLI(args ...string) string {
	r.t.Helper()
	out, err := r.CLI(args...)
	if err != nil {
		r.t.Fatalf("router %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// importXBau installs XBau, as an operator does.
func (r *router) importXBau() {
	r.t.Helper()
	needShared(r.t)
	r.MustCLI("standards", "import", filepath.Join(shared, "standards/xbau/2.6"), "--with", filepath.Join(shared, "codelists/xbau-2.6"))
}

// importStandards installs every official standard that shipped services write.
func (r *router) importStandards() {
	r.t.Helper()
	r.importXBau()
	r.MustCLI("standards", "import", filepath.Join(shared, "standards/xbau/2.5"), "--with", filepath.Join(shared, "codelists/xbau-2.6"))
	r.MustCLI("standards", "import", filepath.Join(shared, "standards/xbeteiligung/1.2"))
	r.MustCLI("standards", "import", filepath.Join(shared, "standards/xjustiz/3.6.2"), "--with", filepath.Join(shared, "standards/catalog"),
		"--with", filepath.Join(shared, "standards/xbau/2.6"))
	for _, version := range []string{"3.0.0", "3.1.0"} {
		r.MustCLI("standards", "import", filepath.Join(shared, "standards/xdomea", version), "--with", filepath.Join(shared, "standards/xdomea/xoev"),
			"--with", filepath.Join(shared, "codelists/xdomea-3.0.0"))
	}
}

// answer is what the public listener said.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// accepted is the body of a 202.
type accepted struct {
	SubmissionID, CaseID, Status, AcceptedAt, Receipt string
}

func (a answer) accepted(t *testing.T) accepted {
	t.Helper()
	var v accepted
	if a.Status != http.StatusAccepted || json.Unmarshal(a.Body, &v) != nil {
		t.Fatalf("not accepted: %d %s", a.Status, a.Body)
	}
	return v
}

// problem is an application/problem+json body.
type problem struct {
	Type, Title, Detail string
	Status              int
	Errors              []struct{ Pointer, Detail string }
}

var client = &http.Client{Timeout: 60 * time.Second}

func (r *router) do(method, path, key string, header map[string]string, body io.Reader) (answer, error) {
	req, err := http.NewRequest(method, r.Public+path, body)
	if err != nil {
		return answer{}, err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, b}, err
}

// Post posts a body as a portal.
func (r *router) Post(portal, idempotencyKey string, body []byte) (answer, error) {
	return r.do("POST", "/v1/submissions", r.Keys[portal],
		map[string]string{"Content-Type": "application/json", "Idempotency-Key": idempotencyKey}, bytes.NewReader(body))
}

// MustPost is Post that must be answered.
func (r *router) MustPost(portal, idempotencyKey string, body []byte) answer {
	r.t.Helper()
	a, err := r.Post(portal, idempotencyKey, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// State returns the submission's state as the portal sees it.
func (r *router) State(portal, id string) string {
	a, err := r.do("GET", "/v1/submissions/"+id, r.Keys[portal], nil, nil)
	if err != nil {
		return err.Error()
	}
	var v struct{ Status string }
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &v) != nil {
		return fmt.Sprintf("%d %s", a.Status, a.Body)
	}
	return v.Status
}

// example returns a shipped example form with some members of the envelope
// replaced.
func example(t *testing.T, process, name string, with map[string]any) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repo, "config/services", process, "examples", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	for k, x := range with {
		if x == nil {
			delete(v, k)
		} else {
			v[k] = x
		}
	}
	b, err = json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eventually waits until ok holds; the last word of what is missing is the
// failure's text.
func eventually(t *testing.T, within time.Duration, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		done, missing := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, missing)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// lint checks XML files with xmllint, offline.
func lint(t *testing.T, schema string, files ...string) {
	t.Helper()
	cmd := exec.Command("xmllint", append([]string{"--nonet", "--noout", "--schema", schema}, files...)...)
	cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+filepath.Join(shared, "standards/catalog/catalog.xml"))
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("xmllint with %s: %v\n%s", filepath.Base(schema), err, tail(string(b), 4000))
	}
}
