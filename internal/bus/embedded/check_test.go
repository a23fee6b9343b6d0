package embedded_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
)

const (
	wholeTopic = "t"
	perRun     = 40 // records in the directory that the cases damage
)

// whole makes a directory with one topic of one partition, some segments long,
// read by a group up to its end, and stopped in order.
func whole(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	b, err := embedded.Start(dir, embedded.Options{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, b.Addrs()[0])
	if err := c.EnsureTopics(t.Context(), []bus.Topic{{Name: wholeTopic, Partitions: 1, RetentionMS: -1, SegmentBytes: 4096}}); err != nil {
		t.Fatal(err)
	}
	for i := range perRun {
		if err := c.Append(t.Context(), &bus.Record{Topic: wholeTopic, Value: value(i)}); err != nil {
			t.Fatal(err)
		}
		if err := c.Commit(t.Context(), "g", wholeTopic, 0, int64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(c.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func value(i int) []byte { return []byte(strings.Repeat(strconv.Itoa(i)+" ", 150)) }

// values reads the log from the beginning and returns what is at which offset,
// and where the next record goes.
func values(t *testing.T, dir string) (map[int64]string, int64) {
	t.Helper()
	b, err := embedded.Start(dir, embedded.Options{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	c := open(t, b.Addrs()[0])
	defer func() { _ = c.Close() }()
	oldest, newest, err := c.Offsets(t.Context(), wholeTopic)
	if err != nil {
		t.Fatal(err)
	}
	got := map[int64]string{}
	if err := c.ReadTo(t.Context(), wholeTopic, 0, oldest[0], newest[0], func(r *bus.Record) error {
		got[r.Offset] = string(r.Value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r := &bus.Record{Topic: wholeTopic, Value: []byte("next")}
	if err := c.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return got, r.Offset
}

// tree is a digest of every file but the lock and the port.
func tree(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	out := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Dir(name) == dir {
			return err
		}
		raw, err := os.ReadFile(name)
		out[name] = sha256.Sum256(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// segments are the partition's files in order.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "log", "partitions", wholeTopic+"-0", "*.dat"))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(names, func(a, b string) int { return int(baseOf(a) - baseOf(b)) })
	if len(names) < 4 {
		t.Fatalf("only %d segments", len(names))
	}
	return names
}

func baseOf(name string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(filepath.Base(name), ".dat"), 10, 64)
	return n
}

// batches are the byte positions at which a segment's batches begin.
func batches(t *testing.T, name string) []int64 {
	raw := content(t, name)
	var at []int64
	for pos := 0; pos < len(raw); pos += 12 + int(binary.BigEndian.Uint32(raw[pos+8:])) {
		at = append(at, int64(pos))
	}
	return at
}

func content(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func flip(t *testing.T, name string, at int64) {
	t.Helper()
	raw := content(t, name)
	raw[at] ^= 0x10
	put(t, name, raw)
}

func put(t *testing.T, name string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(name); err != nil {
		t.Fatal(err)
	}
}

func offsets(from, to int64) (out []int64) {
	for ; from < to; from++ {
		out = append(out, from)
	}
	return out
}

// Every damage refuses the start, names file and byte, and changes nothing. With
// the lines of the refusal accepted the router goes on: only what was named is
// lost, and no offset is given twice.
func TestDamageRefusesTheStart(t *testing.T) {
	const everything = -1
	log := func(dir, name string) string { return filepath.Join(dir, "log", name) }
	part := func(dir string) string { return log(dir, "partitions/"+wholeTopic+"-0") }
	for name, c := range map[string]struct {
		do     func(t *testing.T, dir string) (lost []int64)
		says   string
		backup bool // no other way
	}{
		"a byte of a record in the first file": {says: "CRC-32C does not match", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)[0]
			flip(t, s, batches(t, s)[2]+100)
			return []int64{2}
		}},
		"a byte of the last record": {says: "CRC-32C does not match", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)
			at := batches(t, s[len(s)-1])
			flip(t, s[len(s)-1], at[len(at)-1]+100)
			return []int64{perRun - 1}
		}},
		"a record's offset": {says: "begins at offset", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)[1]
			flip(t, s, batches(t, s)[1]+6)
			return []int64{baseOf(s) + 1}
		}},
		"a record's length, too long for the file": {says: "record batch has", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)[1]
			flip(t, s, batches(t, s)[1]+9)
			return []int64{baseOf(s) + 1}
		}},
		"the last record's length": {says: "record batch has", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)
			at := batches(t, s[len(s)-1])
			flip(t, s[len(s)-1], at[len(at)-1]+9)
			return []int64{perRun - 1}
		}},
		"a page of zeros": {says: "no header of a record batch", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)[1]
			at := batches(t, s)
			raw := content(t, s)
			clear(raw[at[1]:at[3]])
			put(t, s, raw)
			return []int64{baseOf(s) + 1, baseOf(s) + 2}
		}},
		"an earlier file cut between records": {says: "ends early, or a file behind it is missing", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)
			at := batches(t, s[0])
			put(t, s[0], content(t, s[0])[:at[len(at)-1]])
			return []int64{baseOf(s[1]) - 1}
		}},
		"an earlier file cut within a record": {says: "ends in the middle of a record batch", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)
			put(t, s[1], content(t, s[1])[:batches(t, s[1])[2]+70])
			return offsets(baseOf(s[1])+2, baseOf(s[2]))
		}},
		"the last file cut between records": {says: "the log ends at offset", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)
			at := batches(t, s[len(s)-1])
			put(t, s[len(s)-1], content(t, s[len(s)-1])[:at[len(at)-1]])
			return []int64{perRun - 1}
		}},
		"the last file cut within a record": {says: "the log ends at offset", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)
			at := batches(t, s[len(s)-1])
			put(t, s[len(s)-1], content(t, s[len(s)-1])[:at[len(at)-1]+80])
			return []int64{perRun - 1}
		}},
		"the last file cut after a kill": {says: "group g has read up to", do: func(t *testing.T, dir string) []int64 {
			remove(t, filepath.Join(part(dir), "snapshot.json"))
			s := segments(t, dir)
			at := batches(t, s[len(s)-1])
			put(t, s[len(s)-1], content(t, s[len(s)-1])[:at[len(at)-1]])
			return []int64{perRun - 1}
		}},
		"a file missing in the middle": {says: "a file behind it is missing", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)
			remove(t, s[1])
			return offsets(baseOf(s[1]), baseOf(s[2]))
		}},
		"the last file missing": {says: "the log ends at offset", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)
			remove(t, s[len(s)-1])
			return offsets(baseOf(s[len(s)-1]), perRun)
		}},
		"all files missing": {says: "the log ends at offset 0", do: func(t *testing.T, dir string) []int64 {
			remove(t, part(dir))
			return []int64{everything}
		}},
		"two places": {says: "CRC-32C does not match", do: func(t *testing.T, dir string) []int64 {
			s := segments(t, dir)
			flip(t, s[0], batches(t, s[0])[0]+100)
			flip(t, s[2], batches(t, s[2])[1]+100)
			return []int64{0, baseOf(s[2]) + 1}
		}},
		"garbage in meta.json": {says: "meta.json, byte", do: func(t *testing.T, dir string) []int64 {
			put(t, log(dir, "meta.json"), []byte("{]"))
			return nil
		}},
		"meta.json missing": {says: "meta.json, byte 0: is missing", do: func(t *testing.T, dir string) []int64 {
			remove(t, log(dir, "meta.json"))
			return nil
		}},
		"garbage in a snapshot": {says: "snapshot.json, byte", do: func(t *testing.T, dir string) []int64 {
			put(t, filepath.Join(part(dir), "snapshot.json"), []byte("\x00\x00\x00"))
			return nil
		}},
		"garbage in seq_windows.json": {says: "seq_windows.json, byte", do: func(t *testing.T, dir string) []int64 {
			put(t, log(dir, "seq_windows.json"), []byte(`{"version":1,"windows":[{`))
			return nil
		}},
		"a byte in groups.log": {says: "groups.log, byte 0: an entry's CRC-32C does not match", do: func(t *testing.T, dir string) []int64 {
			flip(t, log(dir, "groups.log"), 20)
			return nil
		}},
		"a partition that no topic names": {says: "topics.json does not name", do: func(t *testing.T, dir string) []int64 {
			if err := os.CopyFS(log(dir, "partitions/u-0"), os.DirFS(part(dir))); err != nil {
				t.Fatal(err)
			}
			return nil
		}},
		"garbage in topics.json": {says: "topics.json, byte 1", backup: true, do: func(t *testing.T, dir string) []int64 {
			put(t, log(dir, "topics.json"), []byte("x"))
			return nil
		}},
		"topics.json missing": {says: "topics.json, byte 0: is missing", backup: true, do: func(t *testing.T, dir string) []int64 {
			remove(t, log(dir, "topics.json"))
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := whole(t)
			lost := c.do(t, dir)
			before := tree(t, dir)
			b, err := embedded.Start(dir, embedded.Options{}, quiet)
			if !errors.Is(err, embedded.ErrDamaged) {
				if err == nil {
					_ = b.Close()
				}
				t.Fatalf("started, or %v", err)
			}
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "Restore "+dir+" from a backup") {
				t.Errorf("says %v", err)
			}
			if !maps.Equal(before, tree(t, dir)) {
				t.Error("a refused start has changed files")
			}
			_, lines, ok := strings.Cut(err.Error(), "are kept in "+filepath.Join(dir, "damaged")+"):\n")
			if ok == c.backup {
				t.Fatalf("says %v", err)
			}
			if c.backup {
				return
			}
			first, _, _ := strings.Cut(lines, "\n")
			if strings.TrimSpace(first) != strings.TrimSpace(lines) {
				put(t, filepath.Join(dir, "accept-loss"), []byte(first))
				if _, err := embedded.Start(dir, embedded.Options{}, quiet); !errors.Is(err, embedded.ErrDamaged) {
					t.Fatalf("one of several places was accepted: %v", err)
				}
			}
			put(t, filepath.Join(dir, "accept-loss"), []byte(lines))
			got, next := values(t, dir)
			want := map[int64]string{}
			for i := range perRun {
				if !slices.Contains(lost, int64(i)) && !slices.Contains(lost, everything) {
					want[int64(i)] = string(value(i))
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("offsets %v are there; lost should be %v", slices.Sorted(maps.Keys(got)), lost)
			}
			if next != perRun {
				t.Errorf("goes on at offset %d, want %d", next, perRun)
			}
			if kept, _ := filepath.Glob(filepath.Join(dir, "damaged", "*", "accept-loss")); len(kept) != 1 {
				t.Error("what was accepted is not kept")
			}
			// What was mended is whole: the next start asks for nothing.
			if again, _ := values(t, dir); len(again) != len(want)+1 {
				t.Errorf("%d records the time after, want %d", len(again), len(want)+1)
			}
		})
	}
}

// A group reads on over the places where records were lost, also at the end.
func TestSubscribersPassLostRecords(t *testing.T) {
	dir := whole(t)
	s := segments(t, dir)
	flip(t, s[0], batches(t, s[0])[1]+100)
	remove(t, s[2])
	last := batches(t, s[len(s)-1])
	flip(t, s[len(s)-1], last[len(last)-1]+100)
	lost := int(baseOf(s[3])-baseOf(s[2])) + 2
	_, err := embedded.Start(dir, embedded.Options{}, quiet)
	if err == nil {
		t.Fatal("started")
	}
	_, lines, _ := strings.Cut(err.Error(), "):\n")
	put(t, filepath.Join(dir, "accept-loss"), []byte(lines))
	b, err := embedded.Start(dir, embedded.Options{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	c := open(t, b.Addrs()[0])
	defer func() { _ = c.Close() }()
	if err := c.Append(t.Context(), &bus.Record{Topic: wholeTopic, Value: []byte("next")}); err != nil {
		t.Fatal(err)
	}
	sub, err := c.Subscriber(bus.Group{Name: "other", Grace: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Subscribe(t.Context(), wholeTopic)
	if err != nil {
		t.Fatal(err)
	}
	for range perRun - lost + 1 {
		select {
		case m := <-messages:
			m.Ack()
		case <-time.After(30 * time.Second):
			t.Fatal("nothing comes any more")
		}
	}
}

// What a kill in the middle of a write leaves behind is no damage, at whatever
// byte it stopped.
func TestUnfinishedWriteIsCut(t *testing.T) {
	dir := whole(t)
	s := segments(t, dir)
	last := s[len(s)-1]
	at := batches(t, last)
	full := content(t, last)
	batch := slices.Clone(full[at[len(at)-1]:])
	binary.BigEndian.PutUint64(batch, perRun)
	for _, n := range []int{1, 7, 8, 11, 12, 16, 17, 40, 60, 61, 100, len(batch) - 1} {
		for _, tail := range [][]byte{batch[:n], make([]byte, n)} {
			t.Run(fmt.Sprintf("%d bytes", n), func(t *testing.T) {
				torn := t.TempDir()
				if err := os.CopyFS(filepath.Join(torn, "log"), os.DirFS(filepath.Join(dir, "log"))); err != nil {
					t.Fatal(err)
				}
				s := segments(t, torn)
				put(t, s[len(s)-1], append(slices.Clone(full), tail...))
				got, next := values(t, torn)
				if len(got) != perRun || next != perRun {
					t.Fatalf("%d records, and the next at %d", len(got), next)
				}
			})
		}
	}
}

// kfake passes over an unfinished entry of groups.log and writes behind it; at
// the start after that all of it is gone.
func TestRegressionCommitsAfterAnUnfinishedOneStay(t *testing.T) {
	dir := whole(t)
	groups := filepath.Join(dir, "log", "groups.log")
	raw := content(t, groups)
	put(t, groups, append(raw, raw[:25]...))
	addr, kill := child(t, dir)
	c := open(t, addr)
	if err := c.Commit(t.Context(), "g", wholeTopic, 0, 7); err != nil {
		t.Fatal(err)
	}
	kill()
	_ = c.Close()
	addr, _ = child(t, dir)
	c = open(t, addr)
	defer func() { _ = c.Close() }()
	if at, err := c.Committed(t.Context(), "g", wholeTopic); err != nil || at[0] != 7 {
		t.Fatalf("committed %v, %v; want 7", at, err)
	}
}

// A directory that an older router made gets the topics that a newer one wants.
func TestUpgradeAddsTopics(t *testing.T) {
	dir := whole(t)
	b, err := embedded.Start(dir, embedded.Options{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	cfg := bus.Config{Brokers: b.Addrs(), ReplicationFactor: 1, Partitions: 4}
	c := open(t, b.Addrs()[0])
	defer func() { _ = c.Close() }()
	topics := append(bus.Topics(cfg, []string{"portal"}), bus.Topic{Name: wholeTopic, Partitions: 1, RetentionMS: -1, SegmentBytes: 4096})
	for range 2 {
		if err := c.EnsureTopics(t.Context(), topics); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range topics {
		if err := c.Append(t.Context(), &bus.Record{Topic: topic.Name, Key: []byte("k"), Value: []byte("v")}); err != nil {
			t.Errorf("%s: %v", topic.Name, err)
		}
	}
	if _, newest, err := c.Offsets(t.Context(), wholeTopic); err != nil || newest[0] != perRun+1 {
		t.Errorf("the old topic ends at %v, %v", newest, err)
	}
}
