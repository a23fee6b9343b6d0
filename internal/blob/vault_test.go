package blob_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"weiche/internal/blob"
	"weiche/internal/fault"
	"weiche/internal/seal"
)

// dayKeys is the log of day keys, in memory.
type dayKeys struct {
	mu   sync.Mutex
	keys []string
	vals [][]byte
}

func (l *dayKeys) Append(_ context.Context, key string, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys, l.vals = append(l.keys, key), append(l.vals, value)
	return nil
}

func (l *dayKeys) Load(_ context.Context, fn func(string, []byte) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.keys {
		if err := fn(l.keys[i], l.vals[i]); err != nil {
			return err
		}
	}
	return nil
}

var (
	noon   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	prefix = blob.Prefix("08", noon, "submission-1", "append-1")
)

func newDataKey(t testing.TB) *seal.DataKey {
	t.Helper()
	k, err := seal.Open(t.TempDir(), nil, &dayKeys{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := k.NewDataKey(t.Context(), "08", noon)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func files(t testing.TB, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestSectionsSmallAndLarge(t *testing.T) {
	dir := t.TempDir()
	v, key := blob.NewVault(openFS(t, dir), 1000), newDataKey(t)
	box := &seal.Box{Key: key.Wrapped()}
	sections := map[string][]byte{
		"submission": bytes.Repeat([]byte("Łukasz "), 100),  // in the box
		"xml":        bytes.Repeat([]byte("<Łukasz>"), 200), // in a blob
		"empty":      {},
	}
	for name, plain := range sections {
		if err := v.PutSection(t.Context(), key, box, prefix, name, plain); err != nil {
			t.Fatal(err)
		}
	}
	value, err := box.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if box, err = seal.ParseBox(value, "submission-1"); err != nil {
		t.Fatal(err)
	}
	for name, plain := range sections {
		if got, err := v.Section(t.Context(), key, box, name); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("section %s: %d bytes, %v; want %d", name, len(got), err, len(plain))
		}
	}
	stored := files(t, dir)
	if len(stored) != 1 || !strings.HasPrefix(stored[0], filepath.Join(dir, prefix)+"/xml-") {
		t.Fatalf("stored: %q; want one, the large section", stored)
	}
	content, err := os.ReadFile(stored[0])
	if err != nil || bytes.Contains(content, []byte("ukasz")) || bytes.Contains(value, []byte("ukasz")) {
		t.Error("plain text lies in the store or in the record")
	}
	_, err = v.Section(t.Context(), key, box, "none")
	wantFault(t, err, fault.Permanent, fault.ReasonUndecodable)

	// A repeat must leave what the first record names.
	if err := v.PutSection(t.Context(), key, &seal.Box{Key: key.Wrapped()}, prefix, "xml", bytes.Repeat([]byte("y"), 2000)); err != nil {
		t.Fatal(err)
	}
	if got, err := v.Section(t.Context(), key, box, "xml"); err != nil || !bytes.Equal(got, sections["xml"]) {
		t.Errorf("after a repeat: %d bytes, %v", len(got), err)
	}
}

func TestSectionsThatWereTamperedWith(t *testing.T) {
	dir := t.TempDir()
	v, key := blob.NewVault(openFS(t, dir), 1000), newDataKey(t)
	box := &seal.Box{Key: key.Wrapped()}
	for name, size := range map[string]int{"small": 10, "large": 2000} {
		if err := v.PutSection(t.Context(), key, box, prefix, name, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	small, _ := box.Section("small")
	large, _ := box.Section("large")
	flip := func(b []byte) []byte { c := bytes.Clone(b); c[0] ^= 1; return c }
	for what, data := range map[string][]byte{
		"another section's":         large,
		"taken for a reference":     flip(small),
		"a reference taken for one": flip(large),
	} {
		bad := &seal.Box{Subject: box.Subject, Key: box.Key}
		bad.Put("small", data)
		if what == "a reference taken for one" {
			bad.Sections[0].Name = "large"
		}
		_, err := v.Section(t.Context(), key, bad, bad.Sections[0].Name)
		if f := fault.Of(err); f == nil || f.Reason != fault.ReasonUndecryptable {
			t.Errorf("%s: %v", what, err)
		}
	}
	other := &seal.Box{Subject: "submission-2", Key: box.Key, Sections: box.Sections}
	_, err := v.Section(t.Context(), key, other, "small")
	wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
	err = v.PutSection(t.Context(), key, other, prefix, "x", nil)
	wantFault(t, err, fault.Permanent, fault.ReasonMalformed)
	err = v.PutSection(t.Context(), key, box, "../x/y/z", "x", nil)
	wantFault(t, err, fault.Permanent, fault.ReasonMalformed)
	for _, data := range [][]byte{nil, {2}, {0}, {1}} {
		_, err = v.Section(t.Context(), key, &seal.Box{Subject: "submission-1", Sections: []seal.Section{{Name: "x", Data: data}}}, "x")
		if f := fault.Of(err); f == nil || f.Class != fault.Permanent {
			t.Errorf("section %v: %v", data, err)
		}
	}
	if err := os.Remove(files(t, dir)[0]); err != nil {
		t.Fatal(err)
	}
	_, err = v.Section(t.Context(), key, box, "large")
	wantFault(t, err, fault.Permanent, fault.ReasonBlobMissing)
}

func TestFilesComeBackVerified(t *testing.T) {
	dir := t.TempDir()
	v, key := blob.NewVault(openFS(t, dir), 0), newDataKey(t)
	for _, size := range []int{0, 1, 5000, 1 << 20, 3<<20 + 1} {
		plain := bytes.Repeat([]byte("Lageplan"), size/8+1)[:size]
		name := blob.FileName(prefix, size)
		n, sum, err := v.PutFile(t.Context(), key, name, bytes.NewReader(plain))
		want := sha512.Sum512(plain)
		if err != nil || n != int64(size) || sum != hex.EncodeToString(want[:]) {
			t.Fatalf("put %d, %s, %v", n, sum, err)
		}
		for _, s := range []string{sum, strings.ToUpper(sum)} {
			r, err := v.OpenFile(t.Context(), key, name, s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, plain) || r.Close() != nil {
				t.Fatalf("%d bytes came back, %v; want %d", len(got), err, size)
			}
		}
	}
}

func TestFilesWhoseBytesAreNotTheRightOnes(t *testing.T) {
	dir := t.TempDir()
	store := openFS(t, dir)
	v, key := blob.NewVault(store, 0), newDataKey(t)
	name := blob.FileName(prefix, 1)
	_, sum, err := v.PutFile(t.Context(), key, name, strings.NewReader("right"))
	if err != nil {
		t.Fatal(err)
	}
	readAll := func(key *seal.DataKey, name, sum string) error {
		r, err := v.OpenFile(t.Context(), key, name, sum)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		_, err = io.ReadAll(r)
		if _, again := r.Read(make([]byte, 1)); err != nil && !errors.Is(again, err) {
			t.Errorf("after %v a read gave %v", err, again)
		}
		return err
	}
	wantFault(t, readAll(key, name, strings.Repeat("0", 128)), fault.Permanent, fault.ReasonUndecryptable)
	wantFault(t, readAll(key, name, "short"), fault.Permanent, fault.ReasonUndecodable)
	wantFault(t, readAll(newDataKey(t), name, sum), fault.Permanent, fault.ReasonUndecryptable)
	wantFault(t, readAll(key, blob.FileName(prefix, 2), sum), fault.Permanent, fault.ReasonBlobMissing)

	sealed, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	moved := blob.FileName(prefix, 3)
	for what, content := range map[string][]byte{
		"cut": sealed[:len(sealed)-1], "empty": nil, "flipped": append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), "moved": sealed,
	} {
		if _, err := store.Put(t.Context(), moved, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		if f := fault.Of(readAll(key, moved, sum)); f == nil || f.Class != fault.Permanent || f.Reason != fault.ReasonUndecryptable {
			t.Errorf("%s: %v", what, f)
		}
	}
}

func TestAFileWhoseSourceFailsIsNotStored(t *testing.T) {
	dir := t.TempDir()
	v, key := blob.NewVault(openFS(t, dir), 0), newDataKey(t)
	tooLarge := fault.New(fault.Permanent, fault.ReasonTooLarge, "too large")
	for _, before := range []int{0, 10, 2 << 20} {
		src := io.MultiReader(bytes.NewReader(make([]byte, before)), errReader{tooLarge})
		_, _, err := v.PutFile(t.Context(), key, blob.FileName(prefix, 1), src)
		if !errors.Is(err, tooLarge) {
			t.Errorf("after %d bytes: %v; want the source's own error", before, err)
		}
	}
	cut := fmt.Errorf("connection: %w", io.EOF)
	if _, _, err := v.PutFile(t.Context(), key, blob.FileName(prefix, 1), io.MultiReader(strings.NewReader("x"), errReader{cut})); !errors.Is(err, cut) {
		t.Errorf("a source that was cut off: %v", err)
	}
	if left := files(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestSweepTakesOldOrphansOnly(t *testing.T) {
	dir := t.TempDir()
	store := openFS(t, dir)
	v := blob.NewVault(store, 0)
	now := time.Now()
	write := func(name string, age time.Duration) {
		t.Helper()
		if _, err := store.Put(t.Context(), name, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, name), now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	day := 24 * time.Hour
	write("08/2026-11-20/s1/wanted/1", 2*day)
	write("08/2026-11-20/s1/orphan/1", 2*day)
	write("08/2026-11-20/s1/orphan/2", 2*day)
	write("08/2026-11-22/s2/orphan/1", time.Hour) // may still be appended
	write("14/2026-11-20/s3/orphan/1", 2*day)
	write("not/ours", 2*day)
	temp := filepath.Join(dir, ".tmp", "half")
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(temp, now.Add(-2*day), now.Add(-2*day)); err != nil {
		t.Fatal(err)
	}

	asked := map[string]int{}
	n, err := v.Sweep(t.Context(), now.Add(-day), func(submissionID, appendID string) (bool, error) {
		asked[submissionID+"/"+appendID]++
		return appendID == "wanted", nil
	})
	if err != nil || n != 4 {
		t.Errorf("swept %d, %v; want 4", n, err)
	}
	if asked["s1/orphan"] != 1 || asked["s2/orphan"] != 0 {
		t.Errorf("asked %v; want each old append once", asked)
	}
	var left []string
	for _, f := range files(t, dir) {
		rel, _ := filepath.Rel(dir, f)
		left = append(left, rel)
	}
	if got := strings.Join(left, " "); got != "08/2026-11-20/s1/wanted/1 08/2026-11-22/s2/orphan/1 not/ours" {
		t.Errorf("left: %s", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "14")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("empty directories are left")
	}
	down := errors.New("down")
	if _, err := v.Sweep(t.Context(), now, func(string, string) (bool, error) { return false, down }); !errors.Is(err, down) {
		t.Errorf("error %v; want keep's", err)
	}
	if len(files(t, dir)) != 3 {
		t.Error("something was swept though nobody could say whether it is wanted")
	}
}
