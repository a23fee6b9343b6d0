package embedded

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestStartOnALargeLog says what the README says: how long a start takes, and in
// how much memory, on a log of WEICHE_LOG_GIB (1) in batches of WEICHE_LOG_BATCH
// (4) records of 4 KB. It runs with WEICHE_SOAK=1. The log is laid down without
// a broker, as after a kill: there are no snapshots.
func TestStartOnALargeLog(t *testing.T) {
	if os.Getenv("WEICHE_SOAK") == "" {
		t.Skip("long; runs with WEICHE_SOAK=1")
	}
	dir := t.TempDir()
	b := startHere(t, dir)
	const topics, partitions = 7, 8
	for i := range topics {
		if err := b.cluster.CreateTopic(fmt.Sprintf("t%d", i), partitions, map[string]string{"retention.ms": "-1", "retention.bytes": "-1"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	bytes := setting(t, "WEICHE_LOG_GIB", 1) * (1 << 30) / (topics * partitions)
	n := 0
	for i := range topics {
		for p := range partitions {
			n += layDown(t, filepath.Join(dir, "log", "partitions", fmt.Sprintf("t%d-%d", i, p)), int64(bytes))
		}
	}
	for _, how := range []string{"after a kill", "again"} {
		begin := time.Now()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "EMBEDDED_CHILD="+dir)
		in, _ := cmd.StdinPipe()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		t.Logf("%s: start with %d batches in %s: %s, peak %s", strings.TrimSpace(line), n, how, time.Since(begin).Round(10*time.Millisecond), status(t, cmd.Process.Pid, "VmHWM"))
		before, idle := ticks(t, cmd.Process.Pid), time.Now()
		time.Sleep(10 * time.Second) // what is measured is doing nothing
		t.Logf("idle: %.2f %% of a core, resident %s", float64(ticks(t, cmd.Process.Pid)-before)/time.Since(idle).Seconds(), status(t, cmd.Process.Pid, "VmRSS"))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = in.Close()
	}
}

func setting(t *testing.T, name string, def int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// layDown writes a partition of that many bytes, and returns its batches.
func layDown(t *testing.T, dir string, bytes int64) (batches int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	records := setting(t, "WEICHE_LOG_BATCH", 4)
	random := rand.NewChaCha8([32]byte{1})
	value := make([]byte, 4096)
	next := int64(0)
	for written := int64(0); written < bytes; {
		f, err := os.Create(filepath.Join(dir, segmentFile{base: next}.name()))
		if err != nil {
			t.Fatal(err)
		}
		w := bufio.NewWriterSize(f, 1<<20)
		size := 0
		for size < segmentBytes {
			var body []byte
			for i := range records {
				_, _ = random.Read(value)
				r := binary.AppendVarint([]byte{0, 0}, int64(i))
				r = append(r, 1) // no key
				r = append(binary.AppendVarint(r, int64(len(value))), value...)
				r = append(r, 0)
				body = append(append(body, binary.AppendVarint(nil, int64(len(r)))...), r...)
			}
			batch := marshal(next, int64(records), 0, uint32(records), body)
			_, _ = w.Write(batch)
			size += len(batch)
			next += int64(records)
			batches++
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		written += int64(size)
	}
	return batches
}

func status(t *testing.T, pid int, field string) string {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			return strconv.Itoa(kb/1024) + " MiB"
		}
	}
	t.Fatalf("no %s", field)
	return ""
}

// ticks is the process's CPU time in hundredths of a second.
func ticks(t *testing.T, pid int) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}
