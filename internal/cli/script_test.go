package cli_test

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"weiche/internal/app"
	"weiche/internal/cli"
)

// The scripts call the command line as a person does: each `router` is a process
// of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"router": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}})
}

const sharedXBau = "../../../shared/standards/xbau/2.6"

// TestScripts runs testdata/script: one case a file, in the language of
// testscript and the words below.
//
//	config               copies the shipped configuration to ./config
//	edit FILE OLD NEW    replaces the one place where OLD stands in FILE
//	exits CODE CMD …     runs CMD and wants this exit code
//	until REGEXP CMD …   runs CMD until its standard output matches
//	ready                waits until the router on ./data takes submissions
//	found NAME REGEXP    puts what REGEXP's group matches in the last output into $NAME
//	submitted NAME       is found for the submission id of a receipt
//	zip FILE NAME FROM   makes a ZIP with FROM as its entry NAME
//	form FILE FROM ARS   writes the submission FROM for another region
//	[shared]             the official standards are there
func TestScripts(t *testing.T) {
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	shared, err := filepath.Abs(sharedXBau)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			for _, kv := range os.Environ() {
				if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "WEICHE_") {
					e.Setenv(name, "")
				}
			}
			e.Setenv("WEICHE_CONFIG", filepath.Join(repo, "config"))
			e.Setenv("WEICHE_DATA", "data")
			e.Setenv("WEICHE_LISTEN", "127.0.0.1:0")
			e.Setenv("WEICHE_OPS", "127.0.0.1:0")
			e.Setenv("EXAMPLES", filepath.Join(repo, "config", "services"))
			e.Setenv("XBAU", shared)
			e.Setenv("CODELISTS", filepath.Join(shared, "../../../codelists/xbau-2.6"))
			e.Setenv("DVDV", filepath.Join(shared, "../../../codelists/dvdv"))
			e.Setenv("MESSAGES", filepath.Join(shared, "../../../examples/generated"))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "shared" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			_, err := os.Stat(shared)
			if err != nil && os.Getenv("CI") == "true" {
				return false, fmt.Errorf("under CI=true the official standards have to be there: %w", err)
			}
			return err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"config": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Check(os.CopyFS(ts.MkAbs("config"), os.DirFS(filepath.Join(repo, "config"))))
				ts.Setenv("WEICHE_CONFIG", "config")
			},
			"edit":      edit,
			"exits":     exits,
			"until":     until,
			"ready":     ready,
			"found":     found,
			"submitted": submitted,
			"zip":       zipped,
			"form":      form,
		},
	})
}

func want(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

func edit(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "edit FILE OLD NEW")
	text := ts.ReadFile(args[0])
	if n := strings.Count(text, args[1]); n != 1 {
		ts.Fatalf("%q stands %d times in %s", args[1], n, args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o600))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "exits CODE CMD …")
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != code {
		ts.Fatalf("exit code %d, not %d", got, code)
	}
}

const patience = 30 * time.Second

func until(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "until REGEXP CMD …")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && re.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no match for %q within %s; last error: %v", args[0], patience, err)
		}
	}
}

func ready(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 0, "ready")
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if a, err := app.ReadAddresses(ts.MkAbs("data")); err == nil {
			if res, err := http.Get("http://" + a.Ops + "/readyz"); err == nil {
				_ = res.Body.Close()
				if res.StatusCode == http.StatusOK {
					return
				}
			}
		}
		if time.Now().After(end) {
			ts.Fatalf("the router is not ready after %s", patience)
		}
	}
}

func found(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "found NAME REGEXP")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("no match for %q in the last output", args[1])
	}
	ts.Setenv(args[0], m[1])
}

func submitted(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "submitted NAME")
	found(ts, neg, []string{args[0], `"submissionId": "([^"]+)"`})
}

func zipped(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "zip FILE NAME FROM")
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	z := zip.NewWriter(f)
	w, err := z.Create(args[1])
	ts.Check(err)
	_, err = w.Write([]byte(ts.ReadFile(args[2])))
	ts.Check(err)
	ts.Check(z.Close())
}

func form(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "form FILE FROM ARS")
	var s map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &s))
	s["region"] = args[2]
	b, err := json.Marshal(s)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}
