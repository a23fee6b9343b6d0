package filestamp_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"weiche/internal/filestamp"
)

func TestChangesShow(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string, when time.Time) {
		do(os.WriteFile(at(name), []byte(text), 0o600))
		do(os.Chtimes(at(name), when, when))
	}
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	write("old", "aaa", noon)
	write("new", "bbb", noon)
	do(os.Symlink("old", at("link")))
	for name, change := range map[string]func(){
		"another size":         func() { write("old", "aaaa", noon) },
		"another time":         func() { do(os.Chtimes(at("old"), noon, noon.Add(time.Millisecond))) },
		"the link of a secret": func() { do(os.Remove(at("link"))); do(os.Symlink("new", at("link"))) },
		"one that comes":       func() { write("later", "", noon) },
		"one that goes":        func() { do(os.Remove(at("new"))) },
	} {
		look := func() filestamp.Stamps { return filestamp.Of(at("old"), at("link"), at("new"), at("later")) }
		before := look()
		if !look().Same(before) {
			t.Errorf("before %s: nothing changed and it shows", name)
		}
		if change(); look().Same(before) {
			t.Errorf("%s does not show", name)
		}
	}
	if filestamp.Of(at("old")).Same(nil) {
		t.Error("what was never looked at is the same")
	}
}
