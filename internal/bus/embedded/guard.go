package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"
)

const (
	// Below reserve nothing is taken any more. It holds the largest request, the
	// state files that are written at a stop, and some seconds of other writers.
	reserve = 64 << 20
	// Below acceptReserve no submission is accepted, while what is accepted goes
	// on and frees room.
	acceptReserve = 128 << 20
	inodeReserve  = 64
	// kfake keeps some 75 bytes in memory for each batch of the log.
	maxBatches = 4 << 20
	guardPause = 2 * time.Second
)

// accepting are the topics whose records are new work.
var accepting = []string{"weiche.claims", "weiche.submissions"}

// guard stands before kfake, which acknowledges what it could not sync, forgets
// what state it could not write, and takes a record for a repeat that it failed
// to write the first time. It refuses what could not be kept with
// KAFKA_STORAGE_ERROR, which clients try again.
type guard struct {
	dir   string // with the log
	limit int64  // bytes of log
	log   *slog.Logger

	mu       sync.Mutex
	trouble  string // what went wrong with a write; until it has been tried again
	topics   bool   // topics.json has to be written again
	stuck    bool   // only a restart helps
	paused   bool   // for a compaction
	used     int64  // bytes of log
	batches  int64
	dirty    bool // something was appended since the last round
	said     string
	failed   map[producer]struct{} // who had a batch that was not written
	seen     kmsg.Request          // the request being handled
	current  []producer            // of it
	once     sync.Once
	stop     chan struct{}
	finished sync.WaitGroup
}

// producer is an idempotent producer's number and epoch.
type producer struct {
	id    int64
	epoch int16
}

func newGuard(dir string, limit int64, log *slog.Logger) *guard {
	return &guard{dir: dir, limit: limit, log: log, failed: map[producer]struct{}{}, stop: make(chan struct{})}
}

// watch begins to guard the cluster, and ends with close.
func (g *guard) watch(c *kfake.Cluster) {
	g.measure()
	writes := []kmsg.Key{kmsg.CreateTopics, kmsg.CreatePartitions, kmsg.DeleteTopics, kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs}
	c.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.OutOfOrderSequenceNumber, Count: -1, When: g.repeats},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.KafkaStorageError, Count: -1, When: g.refuses},
		kfake.Fault{Keys: writes, Err: kerr.KafkaStorageError, Count: -1, When: g.refuses},
		kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.CoordinatorNotAvailable, Count: -1, When: g.refuses},
	)
	for _, topic := range accepting {
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.KafkaStorageError, Count: -1, When: g.refusesNew})
	}
	g.finished.Go(func() {
		t, hourly := time.NewTicker(guardPause), time.NewTicker(compactEvery)
		defer t.Stop()
		defer hourly.Stop()
		g.tend(c)
		for {
			select {
			case <-g.stop:
				return
			case <-t.C:
				g.round(c)
			case <-hourly.C:
				g.tend(c)
			}
		}
	})
}

// close ends the watch; what was refused stays refused.
func (g *guard) close() {
	g.once.Do(func() { close(g.stop) })
	g.finished.Wait()
}

// tend does what kfake does by its own timer in a way that can lose records.
func (g *guard) tend(c *kfake.Cluster) {
	c.ApplyRetention()
	if err := g.compact(c); err != nil {
		g.log.Warn("embedded broker: not compacted", "why", err)
	}
}

func (g *guard) pause(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = on
}

// repeats says whether a producer sends again after one of its batches was not
// written. kfake counts a batch as seen before it writes it, and would
// acknowledge the repeat without writing it. The error makes a client take a new
// epoch.
func (g *guard) repeats(r kmsg.Request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r != g.seen {
		g.see(r.(*kmsg.ProduceRequest))
	}
	for _, p := range g.current {
		if _, ok := g.failed[p]; ok && p.id >= 0 {
			return true
		}
	}
	return false
}

func (g *guard) refuses(kmsg.Request) bool {
	why, all := g.verdict()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused || why != "" && all
}

func (g *guard) refusesNew(kmsg.Request) bool {
	why, _ := g.verdict()
	return why != ""
}

// see takes in a request the first time kfake asks about it; it asks for each
// partition again.
func (g *guard) see(r *kmsg.ProduceRequest) {
	g.seen, g.current, g.dirty = r, g.current[:0], true
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			g.used += int64(len(p.Records))
			g.batches++
			if len(p.Records) >= batchHeader {
				g.current = append(g.current, producer{int64(binary.BigEndian.Uint64(p.Records[43:])), int16(binary.BigEndian.Uint16(p.Records[51:]))})
			}
		}
	}
}

// verdict says why something is refused, "" when nothing is, and whether that
// goes for all records or for new work only.
func (g *guard) verdict() (why string, all bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	why, all = g.judge()
	if why != g.said && (why == "" || g.said == "" || all) {
		g.say(why, all)
	}
	return why, all
}

func (g *guard) say(why string, all bool) {
	switch {
	case why == "":
		g.log.Info("embedded broker takes records again")
	case all:
		g.log.Error("embedded broker takes no records", "why", why)
	default:
		g.log.Error("embedded broker takes no new submissions; accepted ones go on", "why", why)
	}
	g.said = why
}

func (g *guard) judge() (why string, all bool) {
	if g.trouble != "" {
		return g.trouble, true
	}
	var s unix.Statfs_t
	if err := unix.Statfs(g.dir, &s); err != nil {
		return "the file system does not say how much room is left", true
	}
	free, inodes := int64(s.Bavail)*s.Bsize, s.Files == 0 || s.Ffree > inodeReserve
	full := fmt.Sprintf("the log is at its limit of %d MiB, or of %d batches: this is a broker for small tests, use a Kafka cluster", g.limit>>20, maxBatches)
	switch {
	case free < reserve:
		return fmt.Sprintf("less than %d MiB are free on the disk", reserve>>20), true
	case !inodes:
		return fmt.Sprintf("fewer than %d files more fit on the disk", inodeReserve), true
	case g.used >= g.limit || g.batches >= maxBatches:
		return full, true
	case free < acceptReserve:
		return fmt.Sprintf("less than %d MiB are free on the disk", acceptReserve>>20), false
	case g.used >= g.limit/10*9 || g.batches >= maxBatches/10*9:
		return full, false
	}
	return "", false
}

// round tries whether the disk takes writes, and measures the log.
func (g *guard) round(c *kfake.Cluster) {
	g.mu.Lock()
	busy, trouble, stuck := g.dirty || g.said != "", g.trouble != "", g.stuck
	g.dirty, g.seen = false, nil
	g.mu.Unlock()
	if !busy && !trouble || stuck {
		return
	}
	if err := g.probe(); err != nil {
		g.fail("the disk does not take a write: " + err.Error())
		return
	}
	if trouble && !g.recover(c) {
		return
	}
	g.measure()
	g.verdict()
}

// probe writes and syncs a file beside the log.
func (g *guard) probe() error {
	name := filepath.Join(filepath.Dir(g.dir), "probe")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Sync(), f.Close())
}

// measure counts the log's bytes and batches by its files' sizes.
func (g *guard) measure() {
	var bytes, entries int64
	_ = filepath.WalkDir(filepath.Join(g.dir, "partitions"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil // deleted in between
		}
		bytes += info.Size()
		if strings.HasSuffix(d.Name(), ".idx") {
			entries += info.Size() / indexEntry
		}
		return nil
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used, g.batches = bytes, entries
}

func (g *guard) fail(why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trouble = why
	if g.said != why {
		g.say(why, true)
	}
}

// hear is called with what kfake logs, on its own goroutine, in the middle of the
// request: from here on the guard refuses, and what the failed write left in the
// state logs is cut before anything is written behind it.
func (g *guard) hear(format, text string) {
	if !strings.HasPrefix(format, "persist ") && !strings.HasPrefix(format, "rebuildSegments") {
		return
	}
	g.fail("a write failed: " + text)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case strings.HasPrefix(format, "persist batch"):
		for _, p := range g.current {
			g.failed[p] = struct{}{}
		}
	case strings.HasPrefix(format, "persist group entry"):
		g.stuck = cutFrames(filepath.Join(g.dir, "groups.log")) != nil || g.stuck
	case strings.HasPrefix(format, "persist pid entry"):
		g.stuck = cutFrames(filepath.Join(g.dir, "pids.log")) != nil || g.stuck
	case strings.HasPrefix(format, "rebuildSegments"):
		g.stuck = true // the copy that was made before is put back at the next start
	default:
		g.topics = true
	}
}

func cutFrames(name string) error {
	raw, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, flaws, torn := scanFrames(raw, func([]byte) {}); torn > 0 || len(flaws) > 0 {
		if len(flaws) > 0 {
			torn = int64(len(raw)) - flaws[0].at
		}
		return cut(name, int64(len(raw))-torn)
	}
	return nil
}

// recover makes sure that the files are whole again before more is written.
func (g *guard) recover(c *kfake.Cluster) bool {
	if err := g.tails(); err != nil {
		g.mu.Lock()
		g.stuck = true
		g.mu.Unlock()
		g.fail("after a failed write " + err.Error() + "; restart the router")
		return false
	}
	g.mu.Lock()
	again := g.topics
	g.topics = false
	g.mu.Unlock()
	if again {
		// Any change of topics writes all of them.
		_ = c.DeleteTopic(scratch)
		if err := errors.Join(c.CreateTopic(scratch, 1, nil), c.DeleteTopic(scratch)); err != nil {
			g.fail("topics.json cannot be written: " + err.Error())
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if again && g.topics {
		return false
	}
	g.trouble = ""
	return true
}

const scratch = "weiche-embedded-scratch"

// tails cuts what a failed write has left at the end of the partitions' last
// files. kfake does so itself, and does not look whether it could.
func (g *guard) tails() error {
	dirs, err := os.ReadDir(filepath.Join(g.dir, "partitions"))
	if err != nil {
		return nil //nolint:nilerr // there is nothing yet
	}
	for _, d := range dirs {
		dir := filepath.Join(g.dir, "partitions", d.Name())
		files, err := segmentFiles(dir)
		if err != nil {
			return err
		}
		if len(files) == 0 {
			continue
		}
		last := files[len(files)-1]
		raw, err := os.ReadFile(filepath.Join(dir, last.name()))
		if err != nil {
			return err
		}
		s := scan(raw, last.base, true)
		if len(s.flaws) > 0 {
			return fmt.Errorf("%s is not whole at byte %d", last.name(), s.flaws[0].at)
		}
		if s.torn > 0 {
			if err := cut(filepath.Join(dir, last.name()), int64(len(raw))-s.torn); err != nil {
				return err
			}
		}
		idx := filepath.Join(dir, strconv.FormatInt(last.base, 10)+".idx")
		if info, err := os.Stat(idx); err == nil && info.Size() > int64(s.batches()*indexEntry) {
			if err := cut(idx, int64(s.batches()*indexEntry)); err != nil {
				return err
			}
		}
	}
	return nil
}
