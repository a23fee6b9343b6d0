package embedded_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/fault"
)

// mount puts a small file system over dir. It needs root; without it the test is
// skipped, and under CI=true it fails.
func mount(t *testing.T, dir, options string) {
	t.Helper()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, options)
	switch {
	case err == nil:
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	case os.Getenv("CI") == "true":
		t.Fatalf("a file system has to be mounted, which needs root: %v", err)
	default:
		t.Skipf("no file system can be mounted here: %v", err)
	}
}

// writer appends and remembers what was acknowledged.
type writer struct {
	t     *testing.T
	bus   *bus.Bus
	size  int
	n     int
	acked map[string]string // topic@partition/offset → value
}

func newWriter(t *testing.T, size int) *writer {
	return &writer{t: t, size: size, acked: map[string]string{}}
}

func (w *writer) open(addr string) {
	w.bus = open(w.t, addr)
	for _, topic := range []string{bus.TopicSubmissions, bus.TopicEvents} {
		if err := w.bus.EnsureTopics(w.t.Context(), []bus.Topic{{Name: topic, Partitions: 2, RetentionMS: -1}}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *writer) append(topic string) error {
	w.n++
	v := fmt.Sprintf("%d %s", w.n, strings.Repeat("x", w.size))
	r := &bus.Record{Topic: topic, Key: fmt.Append(nil, w.n), Partition: bus.AnyPartition, Value: []byte(v)}
	err := w.bus.Append(w.t.Context(), r)
	if err == nil {
		w.acked[fmt.Sprintf("%s@%d/%d", topic, r.Partition, r.Offset)] = v
		return nil
	}
	if f := fault.Of(err); f.Class != fault.Retryable || f.Reason != fault.ReasonBrokerUnavailable && f.Reason != fault.ReasonUnknown {
		w.t.Fatalf("the refusal is %s, %s: %v", f.Class, f.Reason, err)
	}
	return err
}

// until appends until it is refused.
func (w *writer) until(topic string) int {
	w.t.Helper()
	for n := range 10000 {
		if w.append(topic) != nil {
			return n
		}
	}
	w.t.Fatal("never refused")
	return 0
}

// again appends until it is taken.
func (w *writer) again(topic string) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); w.append(topic) != nil; {
		if time.Now().After(end) {
			w.t.Fatal("never taken again")
		}
	}
}

// check reads everything; whatever was acknowledged has to be where it was said
// to be.
func (w *writer) check() {
	w.t.Helper()
	have := map[string]string{}
	for _, topic := range []string{bus.TopicSubmissions, bus.TopicEvents} {
		oldest, newest, err := w.bus.Offsets(w.t.Context(), topic)
		if err != nil {
			w.t.Fatal(err)
		}
		for p := range newest {
			if oldest[p] == newest[p] {
				continue
			}
			if err := w.bus.ReadTo(w.t.Context(), topic, int32(p), oldest[p], newest[p], func(r *bus.Record) error {
				have[fmt.Sprintf("%s@%d/%d", topic, r.Partition, r.Offset)] = string(r.Value)
				return nil
			}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	missing := 0
	for place, v := range w.acked {
		if have[place] != v {
			missing++
		}
	}
	w.t.Logf("%d acknowledged, %d there, %d missing", len(w.acked), len(have), missing)
	if missing > 0 {
		w.t.Fatal("acknowledged records are missing")
	}
}

// A disk fills up, a real one. New submissions are refused first, then
// everything, each time by an error that says try again; with room again it goes
// on by itself; and nothing acknowledged is missing after a kill.
func TestFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a file system")
	}
	dir := t.TempDir()
	mount(t, dir, "size=160m")
	addr, kill := child(t, dir)
	w := newWriter(t, 256<<10)
	w.open(addr)
	if n := w.until(bus.TopicSubmissions); n < 10 {
		t.Fatalf("refused after %d records", n)
	}
	if err := w.append(bus.TopicEvents); err != nil {
		t.Fatalf("what is accepted cannot go on: %v", err)
	}
	if n := w.until(bus.TopicEvents); n < 100 {
		t.Fatalf("refused after %d records", n)
	}
	// Another writer takes the last byte.
	other := filepath.Join(dir, "other")
	f, err := os.Create(other)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	_ = f.Close()
	for range 2 {
		if w.append(bus.TopicSubmissions) == nil || w.append(bus.TopicEvents) == nil {
			t.Fatal("acknowledged on a full disk")
		}
	}
	kill()
	_ = w.bus.Close()
	// More room, and a restart: still too little for new submissions.
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	addr, _ = child(t, dir)
	w.open(addr)
	defer func() { _ = w.bus.Close() }()
	w.check()
	if w.append(bus.TopicSubmissions) == nil {
		t.Fatal("accepted on a disk that is still too full")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=400m"); err != nil {
		t.Fatal(err)
	}
	w.again(bus.TopicSubmissions)
	w.again(bus.TopicEvents)
	w.check()
}

// The disk refuses writes although it says there is room (a quota, a file size
// limit, an input/output error). Nothing is acknowledged that is not there, and
// it goes on by itself.
func TestFailingWrites(t *testing.T) {
	dir := t.TempDir()
	addr, pid, kill := process(t, dir)
	w := newWriter(t, 20<<10)
	w.open(addr)
	for range 10 {
		if err := w.append(bus.TopicSubmissions); err != nil {
			t.Fatal(err)
		}
	}
	limit := func(bytes uint64) {
		if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(150_000) // stops within a batch
	w.until(bus.TopicSubmissions)
	w.until(bus.TopicSubmissions)
	limit(unix.RLIM_INFINITY)
	w.again(bus.TopicSubmissions)
	w.check()
	kill()
	_ = w.bus.Close()
	addr, _ = child(t, dir)
	w.open(addr)
	defer func() { _ = w.bus.Close() }()
	w.check()
}

// The log has a limit: submissions stop first, then everything, and what is
// deleted makes room.
func TestLimitOfTheLog(t *testing.T) {
	b, err := embedded.Start(t.TempDir(), embedded.Options{MaxBytes: 2 << 20}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	w := newWriter(t, 16<<10)
	w.bus = open(t, b.Addrs()[0])
	defer func() { _ = w.bus.Close() }()
	for _, topic := range []string{bus.TopicSubmissions, bus.TopicEvents} {
		if err := w.bus.EnsureTopics(t.Context(), []bus.Topic{{Name: topic, Partitions: 1, RetentionMS: -1, SegmentBytes: 64 << 10}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.until(bus.TopicSubmissions); n < 80 || n > 128 {
		t.Errorf("submissions are refused after %d records", n)
	}
	if n := w.until(bus.TopicEvents); n < 5 {
		t.Errorf("events are refused %d records later", n)
	}
	_, newest, err := w.bus.Offsets(t.Context(), bus.TopicSubmissions)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.bus.DeleteBelow(t.Context(), bus.TopicSubmissions, 0, newest[0]); err != nil {
		t.Fatal(err)
	}
	w.again(bus.TopicSubmissions)
	w.again(bus.TopicEvents)
}
