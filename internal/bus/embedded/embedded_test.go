package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// TestMain lets the test binary be the broker's process, so that it can be
// killed.
func TestMain(m *testing.M) {
	dir := os.Getenv("EMBEDDED_CHILD")
	if dir == "" {
		os.Exit(m.Run())
	}
	signal.Ignore(unix.SIGXFSZ) // a file at its limit shall be a failed write
	b, err := embedded.Start(dir, embedded.Options{}, quiet)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(b.Addrs()[0])
	_, _ = io.Copy(io.Discard, os.Stdin) // until killed, or until the test is gone
	os.Exit(0)
}

func child(t *testing.T, dir string) (addr string, kill func()) {
	t.Helper()
	addr, _, kill = process(t, dir)
	return addr, kill
}

func process(t *testing.T, dir string) (addr string, pid int, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "EMBEDDED_CHILD="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error") {
		t.Fatalf("child says %q, %v", line, err)
	}
	var done atomic.Bool
	kill = func() {
		if done.Swap(true) {
			return
		}
		_ = cmd.Process.Kill() // SIGKILL
		_ = cmd.Wait()
		_ = in.Close()
	}
	t.Cleanup(kill)
	return strings.TrimSpace(line), cmd.Process.Pid, kill
}

func open(t *testing.T, addr string) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Config{Brokers: []string{addr}, ReplicationFactor: 1, AppendTimeout: 3 * time.Second}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Three times the process is killed while four writers append. Whatever was
// acknowledged is there afterwards, at its offset; so is the committed offset.
func TestAcknowledgedRecordsSurviveKill(t *testing.T) {
	dir := t.TempDir()
	type place struct {
		partition int32
		offset    int64
		value     string
	}
	const topic, writers = "kill.test", 4
	var acked []place
	for round := range 3 {
		addr, kill := child(t, dir)
		b := open(t, addr)
		if err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: topic, Partitions: 2, RetentionMS: -1}}); err != nil {
			t.Fatal(err)
		}
		places := make(chan place, 100000)
		ended := make(chan struct{}, writers)
		for w := range writers {
			go func() {
				defer func() { ended <- struct{}{} }()
				for i := 0; ; i++ {
					r := &bus.Record{Topic: topic, Partition: bus.AnyPartition, Key: fmt.Append(nil, w), Value: fmt.Appendf(nil, "%d-%d-%d %s", round, w, i, strings.Repeat("x", 500))}
					if err := b.Append(context.Background(), r); err != nil {
						return
					}
					places <- place{r.Partition, r.Offset, string(r.Value)}
				}
			}()
		}
		for range 500 * (round + 1) {
			acked = append(acked, <-places)
		}
		if round == 0 {
			if err := b.Commit(t.Context(), "g", topic, 0, 5); err != nil {
				t.Fatal(err)
			}
		}
		kill()
		for range writers {
			<-ended
		}
		close(places)
		for p := range places {
			acked = append(acked, p)
		}
		_ = b.Close()
	}
	addr, _ := child(t, dir)
	b := open(t, addr)
	defer func() { _ = b.Close() }()
	_, newest, err := b.Offsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	have := map[place]bool{}
	for p, end := range newest {
		if err := b.ReadTo(t.Context(), topic, int32(p), 0, end, func(r *bus.Record) error {
			have[place{r.Partition, r.Offset, string(r.Value)}] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	missing := 0
	for _, p := range acked {
		if !have[p] {
			missing++
		}
	}
	t.Logf("%d acknowledged, %d there, %d missing", len(acked), len(have), missing)
	if missing > 0 {
		t.Fatal("acknowledged records are missing")
	}
	if at, err := b.Committed(t.Context(), "g", topic); err != nil || at[0] != 5 {
		t.Fatalf("committed %v, %v; want 5", at, err)
	}
}

// kfake keeps the end of an empty log in memory only. Deleting everything and a
// kill must not let offsets begin at 0 again.
func TestRegressionOffsetsGoOnAfterDeleteAndKill(t *testing.T) {
	dir := t.TempDir()
	addr, kill := child(t, dir)
	b := open(t, addr)
	if err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: "t", Partitions: 1, RetentionMS: -1}}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := b.Append(t.Context(), &bus.Record{Topic: "t", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.DeleteBelow(t.Context(), "t", 0, 10); err != nil {
		t.Fatal(err)
	}
	kill()
	_ = b.Close()
	addr, _ = child(t, dir)
	b = open(t, addr)
	defer func() { _ = b.Close() }()
	r := &bus.Record{Topic: "t", Value: []byte("v")}
	if err := b.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if r.Offset != 10 {
		t.Fatalf("offsets go on at %d, want 10", r.Offset)
	}
}

func TestSecondProcessIsKeptOff(t *testing.T) {
	dir := t.TempDir()
	_, kill := child(t, dir)
	if _, err := embedded.Start(dir, embedded.Options{}, quiet); !errors.Is(err, embedded.ErrLocked) || !strings.Contains(err.Error(), "in use by the process") {
		t.Fatalf("got %v", err)
	}
	kill() // the lock goes with the process
	b, err := embedded.Start(dir, embedded.Options{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Start(dir, embedded.Options{}, quiet); !errors.Is(err, embedded.ErrLocked) {
		t.Fatalf("twice in one process: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, err = embedded.Start(dir, embedded.Options{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.Addrs()[0], "127.0.0.1:") {
		t.Fatalf("listens on %v", b.Addrs())
	}
	_ = b.Close()
}
