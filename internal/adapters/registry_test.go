package adapters_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weiche/internal/adapters"
	"weiche/internal/adapters/spec"
	"weiche/internal/config"
)

// WEICHE_UPDATE_DOCS=1 writes the page anew (`make docs`).
func TestReference(t *testing.T) {
	const page = "../../docs/reference/adapters.md"
	var want bytes.Buffer
	if err := adapters.WriteReference(&want); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("WEICHE_UPDATE_DOCS") == "1" {
		if err := os.WriteFile(page, want.Bytes(), 0o644); err != nil { //nolint:gosec // a page for everybody
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/reference/adapters.md is not what the kinds say of themselves; run: make docs")
	}
}

// What every kind has to say of itself, so that its page is of use.
func TestKinds(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	seen := map[string]bool{}
	for _, k := range adapters.Kinds() {
		if !name.MatchString(k.Name) || seen[k.Name] || k.Summary == "" || !strings.Contains(k.Doc, "counts as") || k.New == nil {
			t.Errorf("kind %q: name, summary, a table of what counts as what, and a constructor are needed", k.Name)
		}
		seen[k.Name] = true
		fields := map[string]bool{}
		for _, f := range k.Fields {
			if !name.MatchString(f.Name) || fields[f.Name] || f.Type == "" || !strings.HasSuffix(f.Doc, ".") {
				t.Errorf("kind %s, field %q: a unique name, a type and a sentence are needed", k.Name, f.Name)
			}
			if f.Required && f.Default != nil {
				t.Errorf("kind %s, field %s is required and has a default", k.Name, f.Name)
			}
			if secret := regexp.MustCompile(`secret|password|token|key$`); secret.MatchString(f.Name) && !f.Secret && f.Type != spec.URL && !strings.HasSuffix(f.Name, "_file") {
				t.Errorf("kind %s, field %s looks like a secret that stands in the configuration", k.Name, f.Name)
			}
			fields[f.Name] = true
		}
		// Defaults and their types fit.
		s, err := config.ParseSettings("x.yaml", "{}")
		if err != nil {
			t.Fatal(err)
		}
		v, _ := k.Decode(s)
		if len(v.Masked()) != len(k.Fields) {
			t.Errorf("kind %s: %d settings are listed, it has %d", k.Name, len(v.Masked()), len(k.Fields))
		}
	}
}

func destination(t *testing.T, adapter, settings string) config.Destination {
	t.Helper()
	s, err := config.ParseSettings("destinations.yaml", settings)
	if err != nil {
		t.Fatal(err)
	}
	return config.Destination{ID: "bauamt", Adapter: adapter, Settings: s, Pos: config.Pos{File: "destinations.yaml", Line: 7, Column: 5}}
}

func TestUnknownAdapter(t *testing.T) {
	d := destination(t, "ftp", "{}")
	want := `destinations.yaml:7:5: adapter "ftp" is not known; one of kafka, http, sftp, smtp, xta, file is expected`
	if got := adapters.Check(d).Error(); got != want {
		t.Errorf("it says %q", got)
	}
	_, err := adapters.New("08-bauamt", d, adapters.Deps{})
	if _, ok := errors.AsType[config.Problems](err); !ok {
		t.Errorf("New says %v, not where it is wrong", err)
	}
}

// All faults of one destination at once, each with its place.
func TestCheckNamesEveryFault(t *testing.T) {
	ps := adapters.Check(destination(t, "http", "url: 7\nallow_networks: perhaps\nsecrets: x\nconnect_timeout: 5"))
	for _, want := range []string{"destinations.yaml:2:17: ", "destinations.yaml:3:1: ", "destinations.yaml:4:18: "} {
		if !strings.Contains(ps.Error(), want) {
			t.Errorf("no problem at %s in\n%s", want, ps.Error())
		}
	}
}

func TestDescribeMasks(t *testing.T) {
	list, ps := adapters.Describe(destination(t, "http", "url: https://a.example/x?key=geheim\nsecret_file: s"))
	if ps != nil {
		t.Fatal(ps)
	}
	values := map[string]adapters.Setting{}
	for _, s := range list {
		values[s.Name] = s
		if strings.Contains(s.Value, "geheim") {
			t.Errorf("%s shows %q", s.Name, s.Value)
		}
	}
	if values["url"].Value != "https://a.example/x?***" || values["url"].Default {
		t.Errorf("url shows as %+v", values["url"])
	}
	if values["connect_timeout"].Value != "10s" || !values["connect_timeout"].Default {
		t.Errorf("connect_timeout shows as %+v", values["connect_timeout"])
	}
}

// The destinations that ship are right.
func TestShippedDestinations(t *testing.T) {
	cfg, _ := config.Load(filepath.Join("..", "..", "config"), nil)
	if cfg == nil || len(cfg.Lands) == 0 {
		t.Fatal("the shipped configuration has no Land")
	}
	n := 0
	for _, land := range cfg.Lands {
		for _, d := range land.Destinations {
			n++
			if ps := adapters.Check(d); ps != nil {
				t.Error(ps)
			}
			if _, err := adapters.New("x", d, adapters.Deps{DataDir: t.TempDir()}); err != nil {
				t.Error(err)
			}
		}
	}
	if n == 0 {
		t.Error("no destination ships")
	}
}
