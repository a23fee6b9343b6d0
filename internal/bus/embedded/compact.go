package embedded

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// kfake compacts a partition by deleting its files and writing them anew. A kill
// or a full disk in between takes all of them, and in weiche.keys they are what
// every payload is opened with. So its own timer is off, and the guard compacts
// with a copy beside, which the next start puts back if it finds it.
const (
	copyDir      = "compacting"
	compactEvery = time.Hour
	// A copy of more would not fit into the reserve.
	compactLimit = reserve / 4
)

// putBack restores what an interrupted compaction has left.
func putBack(dir string, note func(string, ...any)) error {
	_ = os.RemoveAll(filepath.Join(dir, copyDir+".tmp"))
	from := filepath.Join(dir, copyDir)
	entries, err := os.ReadDir(from)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		to := filepath.Join(dir, "log", "partitions", e.Name())
		note("put back a partition whose compaction was interrupted", "partition", e.Name())
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(from, e.Name()), to); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(filepath.Join(dir, "log", "partitions")), os.Remove(from))
}

// compact compacts the compacted topics. Until it is done nothing is written; it
// takes milliseconds, and clients try again.
func (g *guard) compact(c *kfake.Cluster) error {
	names, err := g.compacted()
	if err != nil || len(names) == 0 {
		return err
	}
	g.pause(true)
	defer g.pause(false)
	c.ListenAddrs() // waits for the request that is being handled
	if why, _ := g.verdict(); why != "" {
		return nil
	}
	dir := filepath.Dir(g.dir)
	tmp, beside := filepath.Join(dir, copyDir+".tmp"), filepath.Join(dir, copyDir)
	defer func() { _ = os.RemoveAll(tmp) }()
	for _, name := range names {
		if err := copyPartition(filepath.Join(g.dir, "partitions", name), filepath.Join(tmp, name)); err != nil {
			return err
		}
	}
	if err := errors.Join(syncDir(tmp), os.Rename(tmp, beside), syncDir(dir)); err != nil {
		return err
	}
	c.Compact()
	for _, name := range names {
		if err := wholePartition(filepath.Join(g.dir, "partitions", name)); err != nil {
			g.mu.Lock()
			g.stuck = true
			g.mu.Unlock()
			g.fail("compaction failed: " + err.Error() + "; restart the router, which puts back what was there")
			return err
		}
	}
	// A copy that is half deleted must not be put back.
	return errors.Join(os.Rename(beside, tmp), syncDir(dir))
}

// compacted names the partitions that are worth it: those of compacted topics
// with more than one batch.
func (g *guard) compacted() ([]string, error) {
	var topics struct{ Topics []topicState }
	if _, err := readJSON(filepath.Join(g.dir, "topics.json"), &topics); err != nil {
		return nil, err
	}
	var names []string
	total := int64(0)
	for _, t := range topics.Topics {
		if !t.compacted() {
			continue
		}
		for p := range t.Partitions {
			name := url.PathEscape(t.Name) + "-" + strconv.Itoa(p)
			files, err := segmentFiles(filepath.Join(g.dir, "partitions", name))
			if err != nil {
				return nil, err
			}
			for _, f := range files {
				total += f.size
			}
			if len(files) > 0 {
				names = append(names, name)
			}
		}
	}
	if total > compactLimit {
		return nil, fmt.Errorf("compacted topics hold %d MiB, more than %d: they are not compacted", total>>20, compactLimit>>20)
	}
	return names, nil
}

func copyPartition(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := replace(filepath.Join(to, e.Name()), raw); err != nil {
			return err
		}
	}
	return nil
}

// wholePartition says whether a compacted partition's files hold batches, and
// nothing but whole ones.
func wholePartition(dir string) error {
	files, err := segmentFiles(dir)
	if err != nil {
		return err
	}
	next, batches := int64(0), 0
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join(dir, f.name()))
		if err != nil {
			return err
		}
		s := scan(raw, max(next, f.base), true)
		if len(s.flaws) > 0 || s.torn > 0 {
			return fmt.Errorf("%s is not whole", f.name())
		}
		next, batches = s.next, batches+s.batches()
	}
	if batches == 0 {
		return errors.New("nothing is left")
	}
	return syncDir(dir)
}
