package embedded

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func startHere(t *testing.T, dir string) *Broker {
	t.Helper()
	b, err := Start(dir, Options{Partitions: 1}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// produced sends one batch as an idempotent producer does, and returns the
// answer's error code and offset.
func produced(t *testing.T, addr, topic string, epoch int16, seq uint32, key ...byte) (int16, int64) {
	t.Helper()
	record := []byte{0, 0, 0} // attributes, time, offset
	record = append(binary.AppendVarint(record, int64(len(key))), key...)
	record = append(record, 2, 'v', 0) // value, no headers
	record = append(binary.AppendVarint(nil, int64(len(record))), record...)
	raw := marshal(0, 1, 0, 1, record)
	binary.BigEndian.PutUint64(raw[43:], 77)
	binary.BigEndian.PutUint16(raw[51:], uint16(epoch))
	binary.BigEndian.PutUint32(raw[53:], seq)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 7, -1, 5000
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: raw}}}}

	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	body := binary.BigEndian.AppendUint16(nil, uint16(req.Key()))
	body = binary.BigEndian.AppendUint16(body, uint16(req.Version))
	body = binary.BigEndian.AppendUint32(body, 1)
	body = append(body, 0xff, 0xff) // no client id
	body = req.AppendTo(body)
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)); err != nil {
		t.Fatal(err)
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatal(err)
	}
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = req.Version
	if err := resp.ReadFrom(answer[4:]); err != nil {
		t.Fatal(err)
	}
	p := resp.Topics[0].Partitions[0]
	return p.ErrorCode, p.BaseOffset
}

// eventually polls until the guard lets everything through again.
func eventually(t *testing.T, g *guard) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if why, _ := g.verdict(); why == "" {
			return
		} else if time.Now().After(end) {
			t.Fatalf("still refuses: %s", why)
		}
	}
}

// A batch cannot be written, its answer gets lost, and the client sends it again:
// kfake would acknowledge it as a repeat, and it would be nowhere.
func TestRegressionRepeatOfAnUnwrittenBatch(t *testing.T) {
	dir := t.TempDir()
	b := startHere(t, dir)
	addr := b.Addrs()[0]
	if err := b.cluster.CreateTopic("t", 1, nil); err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(dir, "log", "partitions", "t-0")
	if err := os.MkdirAll(filepath.Dir(inTheWay), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _ := produced(t, addr, "t", 0, 0); code == 0 {
		t.Fatal("acknowledged what cannot be written")
	}
	if code, _ := produced(t, addr, "t", 5, 0); code != kerr.KafkaStorageError.Code {
		t.Fatalf("the next producer gets error %d", code)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	eventually(t, b.guard)
	if code, _ := produced(t, addr, "t", 0, 0); code != kerr.OutOfOrderSequenceNumber.Code {
		t.Fatalf("the repeat gets error %d", code)
	}
	if code, offset := produced(t, addr, "t", 1, 0); code != 0 || offset != 0 {
		t.Fatalf("a new epoch gets error %d, offset %d", code, offset)
	}
	// An honest repeat is acknowledged and not written again.
	if code, offset := produced(t, addr, "t", 1, 0); code != 0 || offset != 0 {
		t.Fatalf("a repeat gets error %d, offset %d", code, offset)
	}
	if code, offset := produced(t, addr, "t", 1, 1); code != 0 || offset != 1 {
		t.Fatalf("the next batch gets error %d, offset %d", code, offset)
	}
}

// A topic that is made while topics.json cannot be written would be forgotten
// with all its records. Nothing is taken until it is written.
func TestTopicThatIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	b := startHere(t, dir)
	inTheWay := filepath.Join(dir, "log", "topics.json.tmp")
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	_ = b.cluster.CreateTopic("t", 1, nil)
	if code, _ := produced(t, b.Addrs()[0], "t", 0, 0); code != kerr.KafkaStorageError.Code {
		t.Fatalf("got error %d", code)
	}
	b.guard.close()
	b.guard.round(b.cluster) // it is tried, and fails again
	if why, _ := b.guard.verdict(); why == "" {
		t.Fatal("topics.json was not written, and the guard has given up")
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	b.guard.round(b.cluster)
	if code, _ := produced(t, b.Addrs()[0], "t", 0, 0); code != 0 {
		t.Fatalf("got error %d", code)
	}
	var topics struct{ Topics []topicState }
	if _, err := readJSON(filepath.Join(dir, "log", "topics.json"), &topics); err != nil || len(topics.Topics) != 1 {
		t.Fatalf("topics.json holds %v, %v", topics, err)
	}
}

// compactedTopic makes a topic with three keys of two records each, and returns
// its partition's directory.
func compactedTopic(t *testing.T, b *Broker, dir string) string {
	t.Helper()
	if err := b.cluster.CreateTopic("keys", 1, map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if code, _ := produced(t, b.Addrs()[0], "keys", 0, uint32(i), byte('a'+i%3)); code != 0 {
			t.Fatalf("error %d", code)
		}
	}
	return filepath.Join(dir, "log", "partitions", "keys-0")
}

func batchesIn(t *testing.T, dir string) (n int) {
	t.Helper()
	files, err := segmentFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join(dir, f.name()))
		if err != nil {
			t.Fatal(err)
		}
		s := scan(raw, f.base, true)
		n += s.batches()
	}
	return n
}

// Compaction removes what is superseded, and only that.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	b := startHere(t, dir)
	part := compactedTopic(t, b, dir)
	if err := b.guard.compact(b.cluster); err != nil {
		t.Fatal(err)
	}
	// kfake leaves the last batch out of account: its key is there twice.
	if n := batchesIn(t, part); n != 4 {
		t.Fatalf("%d batches are left", n)
	}
	if code, offset := produced(t, b.Addrs()[0], "keys", 0, 6, 'a'); code != 0 || offset != 6 {
		t.Fatalf("goes on with error %d at offset %d", code, offset)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	startHere(t, dir).guard.close()
	if left, _ := filepath.Glob(filepath.Join(dir, copyDir+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A kill in the middle of a compaction, when the files are deleted and not yet
// written again: the next start has all of it.
func TestInterruptedCompaction(t *testing.T) {
	dir := t.TempDir()
	b := startHere(t, dir)
	part := compactedTopic(t, b, dir)
	if err := copyPartition(part, filepath.Join(dir, copyDir, filepath.Base(part))); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(part, "0.dat")); err != nil {
		t.Fatal(err)
	}
	b = startHere(t, dir)
	b.guard.close()
	if n := batchesIn(t, part); n < 4 {
		t.Fatalf("%d batches are left", n)
	}
	if code, offset := produced(t, b.Addrs()[0], "keys", 0, 6, 'a'); code != 0 || offset != 6 {
		t.Fatalf("goes on with error %d at offset %d", code, offset)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, copyDir+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
