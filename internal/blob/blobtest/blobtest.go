// Package blobtest is the conformance suite of blob stores: every
// implementation runs it. It tests what can be seen through the interface; that
// a blob survives a power cut it cannot see.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weiche/internal/blob"
	"weiche/internal/fault"
)

const name = "08/2026-11-22/6f1c2a34-5b6d-5e7f-8a9b-0c1d2e3f4a5b/0b1c2d3e-4f5a-5b6c-8d7e-9f0a1b2c3d4e/1"

// Run runs the suite; open returns an empty store.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	t.Run("what was put is there", func(t *testing.T) {
		s := open(t)
		for _, size := range []int{0, 1, 100_000, 3 << 20} {
			content := bytes.Repeat([]byte{byte(size), 1, 2}, size/3+1)[:size]
			n, err := s.Put(t.Context(), name, bytes.NewReader(content))
			if err != nil || n != int64(size) {
				t.Fatalf("put %d bytes, %v; want %d", n, err, size)
			}
			if got := read(t, s, name); !bytes.Equal(got, content) {
				t.Fatalf("%d bytes came back; want the %d that were put", len(got), size)
			}
		}
	})

	t.Run("what is not there is missing", func(t *testing.T) {
		s := open(t)
		put(t, s, name, "x")
		for _, n := range []string{"a/b", "08", "08/2026-11-22", name + "0", name + "/1"} {
			_, err := s.Open(t.Context(), n)
			var f *fault.Error
			if !errors.As(err, &f) || f.Reason == fault.ReasonBlobMissing && (f.Class != fault.Permanent || !errors.Is(err, fs.ErrNotExist)) {
				t.Fatalf("open %s: %v", n, err)
			}
			if n != name+"/1" && f.Reason != fault.ReasonBlobMissing {
				t.Errorf("open %s: reason %s; want blob-missing", n, f.Reason)
			}
		}
	})

	t.Run("names that could leave the store are refused", func(t *testing.T) {
		s := open(t)
		for _, n := range []string{
			"", "/", ".", "..", "../x", "a/../b", "a/..", "/etc/passwd", "a//b", "a/", "a/.b", ".tmp/x", "a\\b", "a\x00b",
			"a b", "ä", "a\n", "-a", "C:x", strings.Repeat("x", 129), strings.Repeat("a/", 16) + "a",
		} {
			_, putErr := s.Put(t.Context(), n, strings.NewReader("x"))
			_, openErr := s.Open(t.Context(), n)
			for op, err := range map[string]error{"put": putErr, "open": openErr, "delete": s.Delete(t.Context(), n)} {
				var f *fault.Error
				if !errors.As(err, &f) || f.Class != fault.Permanent || f.Reason != fault.ReasonMalformed {
					t.Errorf("%s %q: %v; want permanent, malformed", op, n, err)
				} else if n != "" && len(n) > 3 && strings.Contains(err.Error(), n) {
					t.Errorf("%s: the error repeats the name", op)
				}
			}
		}
		if names := list(t, s); len(names) > 0 {
			t.Errorf("the store holds %q", names)
		}
	})

	t.Run("a failing source leaves the name as it was", func(t *testing.T) {
		s := open(t)
		broken := errors.New("source")
		failing := func() io.Reader {
			return io.MultiReader(strings.NewReader(strings.Repeat("x", 100_000)), failingReader{broken})
		}
		if _, err := s.Put(t.Context(), name, failing()); !errors.Is(err, broken) {
			t.Fatalf("error %v; want the source's own", err)
		}
		if names := list(t, s); len(names) > 0 {
			t.Fatalf("the store holds %q", names)
		}
		put(t, s, name, "before")
		if _, err := s.Put(t.Context(), name, failing()); !errors.Is(err, broken) {
			t.Fatalf("error %v; want the source's own", err)
		}
		if got := read(t, s, name); string(got) != "before" {
			t.Errorf("the blob has %d bytes; want what was there before", len(got))
		}
	})

	t.Run("a cancelled put leaves nothing", func(t *testing.T) {
		s := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := s.Put(ctx, name, readerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }))
		if f := fault.Of(err); f == nil || f.Class != fault.Cancelled {
			t.Fatalf("error %v; want a cancelled one", err)
		}
		if names := list(t, s); len(names) > 0 {
			t.Errorf("the store holds %q", names)
		}
	})

	t.Run("a blob being read stays whole while it is replaced and deleted", func(t *testing.T) {
		s := open(t)
		first := strings.Repeat("1", 2<<20)
		put(t, s, name, first)
		r, err := s.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		head := make([]byte, 10)
		if _, err := io.ReadFull(r, head); err != nil {
			t.Fatal(err)
		}
		put(t, s, name, "2")
		if err := s.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(r)
		if err != nil || string(head)+string(rest) != first {
			t.Errorf("%d bytes were read, %v; want the %d of the blob that was opened", len(head)+len(rest), err, len(first))
		}
	})

	t.Run("delete is final and may be repeated", func(t *testing.T) {
		s := open(t)
		put(t, s, name, "x")
		put(t, s, "14/other", "y")
		for range 2 {
			if err := s.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Open(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open after delete: %v", err)
		}
		if names := list(t, s); !slices.Equal(names, []string{"14/other"}) {
			t.Errorf("the store holds %q; want the other one", names)
		}
		put(t, s, name, "again")
		if got := read(t, s, name); string(got) != "again" {
			t.Errorf("%q after it was put again", got)
		}
	})

	t.Run("list tells every blob with its time", func(t *testing.T) {
		s := open(t)
		begun := time.Now().Add(-5 * time.Second) // a store's clock may be coarse
		var want []string
		for i := range 20 {
			n := fmt.Sprintf("%02d/2026-11-22/s%d/a/%d", 1+i%16, i, i)
			put(t, s, n, "x")
			want = append(want, n)
		}
		slices.Sort(want)
		if got := list(t, s); !slices.Equal(got, want) {
			t.Errorf("listed %q; want %q", got, want)
		}
		err := s.List(t.Context(), func(n string, modified time.Time) error {
			if modified.Before(begun) || modified.After(time.Now().Add(5*time.Second)) {
				t.Errorf("%s modified at %s", n, modified)
			}
			return s.Delete(t.Context(), n)
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := list(t, s); len(got) > 0 {
			t.Errorf("%q is left after all were deleted while listed", got)
		}
	})

	t.Run("list stops at the first error", func(t *testing.T) {
		s := open(t)
		put(t, s, "a/1", "x")
		put(t, s, "a/2", "x")
		stop, calls := errors.New("stop"), 0
		err := s.List(t.Context(), func(string, time.Time) error { calls++; return stop })
		if !errors.Is(err, stop) || calls != 1 {
			t.Errorf("error %v after %d calls; want the callback's after one", err, calls)
		}
	})

	t.Run("many at once", func(t *testing.T) {
		s := open(t)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 10 {
					own := fmt.Sprintf("08/2026-11-22/s%d/a/%d", i, j)
					content := strings.Repeat(own, 500)
					if _, err := s.Put(t.Context(), own, strings.NewReader(content)); err != nil {
						t.Error(err)
						return
					}
					// One name that all write, and one that all delete.
					if _, err := s.Put(t.Context(), "shared/1", strings.NewReader(content)); err != nil {
						t.Error(err)
					}
					if _, err := s.Put(t.Context(), "gone/2026/1", strings.NewReader("x")); err != nil {
						t.Error(err)
					}
					if err := s.Delete(t.Context(), "gone/2026/1"); err != nil {
						t.Error(err)
					}
					if r, err := s.Open(t.Context(), own); err != nil {
						t.Error(err)
					} else if got, err := io.ReadAll(r); err != nil || string(got) != content || r.Close() != nil {
						t.Errorf("%s: %d bytes, %v", own, len(got), err)
					}
				}
			})
		}
		wg.Wait()
		if !t.Failed() && len(read(t, s, "shared/1")) < 500 {
			t.Error("the shared blob is not one of those that were put")
		}
	})
}

func put(t *testing.T, s blob.Store, name, content string) {
	t.Helper()
	if _, err := s.Put(t.Context(), name, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, s blob.Store, name string) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func list(t *testing.T, s blob.Store) []string {
	t.Helper()
	var names []string
	if err := s.List(t.Context(), func(n string, _ time.Time) error { names = append(names, n); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
