package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrDamaged is wrapped by Start's error when the directory's files are not as
// the broker left them. Nothing was changed.
var ErrDamaged = errors.New("the log is damaged")

// kfake, left alone, cuts every segment at its first bad batch, passes over
// missing files, and starts anew where meta.json is missing: acknowledged records
// would go without a word. So the directory is checked before kfake sees it.

// damage is one place where something is wrong.
type damage struct {
	file string // relative to the broker's directory
	at   int64  // byte
	what string
	lost string
	mend func(keep string) error // goes on without what is lost; nil: only a backup helps
}

func (d damage) key() string { return fmt.Sprintf("%s@%d", d.file, d.at) }

const (
	acceptFile = "accept-loss"
	keepDir    = "damaged"
)

// check reads everything below dir, heals what a kill leaves behind, and returns
// an error that wraps ErrDamaged when there is more wrong. What the operator has
// accepted, line by line, is taken out; the files as they were are kept.
func check(dir string, note func(string, ...any)) error {
	c := &checker{dir: dir, root: filepath.Join(dir, "log"), note: note, commits: committed{}}
	if _, err := os.Stat(c.root); os.IsNotExist(err) {
		return nil
	}
	if err := c.run(); err != nil {
		return err
	}
	if len(c.found) > 0 {
		if err := c.settle(); err != nil {
			return err
		}
		again := &checker{dir: dir, root: c.root, note: note, commits: committed{}}
		if err := again.run(); err != nil {
			return err
		}
		if len(again.found) > 0 {
			return again.refuse(again.found)
		}
		c = again
	}
	for _, heal := range c.heal {
		if err := heal(); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	dir, root string
	note      func(string, ...any)
	topics    []topicState
	commits   committed
	found     []damage
	heal      []func() error // harmless: run once nothing is found
	buf       []byte
}

func (c *checker) rel(name string) string {
	r, err := filepath.Rel(c.dir, name)
	if err != nil {
		return name
	}
	return filepath.ToSlash(r)
}

func (c *checker) run() error {
	dirs, err := c.partitionDirs()
	if err != nil {
		return err
	}
	if err := c.state(len(dirs) > 0); err != nil {
		return err
	}
	if err := c.frames("groups.log", "committed offsets; what was finished is read again, and dropped by its ids", c.commits.apply); err != nil {
		return err
	}
	if err := c.frames("pids.log", "numbers of producers; nothing of the records", func([]byte) {}); err != nil {
		return err
	}
	known := map[string]bool{}
	for _, t := range c.topics {
		for p := range t.Partitions {
			name := url.PathEscape(t.Name) + "-" + strconv.Itoa(p)
			known[name] = true
			if err := c.partition(t, p, filepath.Join(c.root, "partitions", name)); err != nil {
				return err
			}
		}
	}
	for _, name := range dirs {
		if !known[name] {
			if err := c.orphan(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) partitionDirs() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(c.root, "partitions"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// state checks the JSON files of the whole broker.
func (c *checker) state(partitions bool) error {
	if err := c.meta(partitions); err != nil {
		return err
	}
	const lost = "the topics and their settings; all records would be out of reach"
	var topics struct{ Topics []topicState }
	if err := c.json("topics.json", &topics, partitions, lost, nil); err != nil {
		return err
	}
	c.topics = topics.Topics
	for _, name := range optional {
		var content map[string]any
		aside := func(keep string) error { return setAside(keep, c.root, name) }
		if err := c.json(name, &content, false, "nothing of the records", aside); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) meta(partitions bool) error {
	const name = "meta.json"
	anew := func(keep string) error {
		if err := setAside(keep, c.root, name); err != nil {
			return err
		}
		return replace(filepath.Join(c.root, name), fmt.Appendf(nil, `{"version":%d,"cluster_id":%q}`, stateFormat, clusterID))
	}
	var meta struct{ Version int }
	err := c.json(name, &meta, partitions, "nothing, but without it the broker would begin anew", anew)
	if err == nil && meta.Version > stateFormat {
		return fmt.Errorf("%s is of format %d, and this router knows %d: it is older than the one that wrote it", filepath.Join(c.root, name), meta.Version, stateFormat)
	}
	return err
}

// json reads a state file into v, and notes where it makes no sense or is
// missing although it has to be there.
func (c *checker) json(file string, v any, required bool, lost string, mend func(string) error) error {
	name := filepath.Join(c.root, file)
	found, err := readJSON(name, v)
	if u := (unreadable{}); errors.As(err, &u) {
		c.add(name, u.where(), "is no state file", lost, mend)
		return nil
	}
	if err == nil && !found && required {
		c.add(name, 0, "is missing", lost, mend)
	}
	return err
}

func (c *checker) frames(file, lost string, fn func([]byte)) error {
	name := filepath.Join(c.root, file)
	raw, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	keep, flaws, torn := scanFrames(raw, fn)
	size := int64(len(raw))
	if torn > 0 {
		// kfake would write behind it, and not read that at the next start.
		c.heal = append(c.heal, func() error {
			c.note("cut an unfinished write", "file", c.rel(name), "byte", size-torn, "bytes", torn)
			return cut(name, size-torn)
		})
	}
	mend := func(aside string) error {
		if err := copyAside(aside, c.root, file); err != nil {
			return err
		}
		var out []byte
		for _, k := range keep {
			out = append(out, raw[k.from:k.to]...)
		}
		return replace(name, out)
	}
	for _, f := range flaws {
		c.add(name, f.at, f.what, lost, mend)
	}
	return nil
}

// orphan is a directory of records which no topic names: kfake would not open it.
func (c *checker) orphan(name string) error {
	dir := filepath.Join(c.root, "partitions", name)
	segs, err := segmentFiles(dir)
	if err != nil {
		return err
	}
	bytes := int64(0)
	for _, s := range segs {
		bytes += s.size
	}
	if bytes > 0 {
		c.add(dir, 0, "is a partition that topics.json does not name", fmt.Sprintf("all its records, %d bytes", bytes),
			func(keep string) error { return setAside(keep, c.root, filepath.Join("partitions", name)) })
	}
	return nil
}

type segmentFile struct{ base, size int64 }

func (s segmentFile) name() string { return strconv.FormatInt(s.base, 10) + ".dat" }

func segmentFiles(dir string) ([]segmentFile, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []segmentFile
	for _, e := range entries {
		stem, ok := strings.CutSuffix(e.Name(), ".dat")
		base, err := strconv.ParseInt(stem, 10, 64)
		if !ok || err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		out = append(out, segmentFile{base, info.Size()})
	}
	slices.SortFunc(out, func(a, b segmentFile) int { return int(min(1, max(-1, a.base-b.base))) })
	return out, nil
}

// checked is a segment file with what was found in it.
type checked struct {
	segmentFile
	scanned
	begin int64 // offset at which it should begin
}

func (c *checker) partition(t topicState, part int, dir string) error {
	files, err := segmentFiles(dir)
	if err != nil {
		return err
	}
	var snap snapshot
	snapName := filepath.Join(dir, "snapshot.json")
	_, err = readJSON(snapName, &snap)
	if u := (unreadable{}); errors.As(err, &u) {
		c.add(snapName, u.where(), "is no state file", "where the log begins; what was deleted may be read again, and is dropped by its ids",
			func(keep string) error {
				return setAside(keep, c.root, filepath.Join("partitions", filepath.Base(dir), "snapshot.json"))
			})
	} else if err != nil {
		return err
	}
	p := partition{c: c, topic: t, number: part, dir: dir, snap: snap}
	return p.check(files)
}

type partition struct {
	c      *checker
	topic  topicState
	number int
	dir    string
	snap   snapshot
	segs   []checked
	torn   int64
}

func (p *partition) check(files []segmentFile) error {
	next := int64(0)
	for i, f := range files {
		if f.size == 0 {
			continue // kfake passes over it, and may write into it
		}
		raw, err := p.c.read(filepath.Join(p.dir, f.name()), f.size)
		if err != nil {
			return err
		}
		if len(p.segs) == 0 || p.topic.compacted() {
			next = max(next, f.base)
		}
		s := checked{f, scan(raw, max(next, f.base), p.topic.compacted()), next}
		p.segs = append(p.segs, s)
		p.judge(len(p.segs)-1, i == len(files)-1)
		next = max(next, s.next)
	}
	p.judgeEnd(next)
	return nil
}

// judge reports what is wrong with one segment.
func (p *partition) judge(i int, last bool) {
	s := &p.segs[i]
	name := filepath.Join(p.dir, s.name())
	if s.base > s.begin {
		before := p.segs[i-1]
		p.add(filepath.Join(p.dir, before.name()), before.size, "ends early, or a file behind it is missing", s.begin, s.base)
	}
	for _, f := range s.flaws {
		from, to := s.around(f.at)
		if to < 0 && !last {
			to = s.next
		}
		p.add(name, f.at, f.what, from, to)
	}
	if s.torn == 0 {
		return
	}
	if !last {
		p.add(name, s.size-s.torn, "the file ends in the middle of a record batch", s.next, -1)
		return
	}
	p.torn = s.torn
	size, torn := s.size-s.torn, s.torn
	p.c.heal = append(p.c.heal, func() error {
		p.c.note("cut an unfinished write, which was not acknowledged", "file", p.c.rel(name), "byte", size, "bytes", torn)
		return cut(name, size)
	})
}

// around returns the offsets that are missing at a byte; to is -1 when nothing
// behind it says so.
func (s *checked) around(at int64) (from, to int64) {
	from = max(s.begin, s.base)
	for _, g := range s.good {
		if g.from > at || g.from == at && g.first > from {
			return from, g.first
		}
		from = g.next
	}
	return from, -1
}

// judgeEnd compares the log's end with what is known of it from elsewhere.
func (p *partition) judgeEnd(end int64) {
	known, how := int64(0), ""
	if p.snap.HighWatermark > known {
		known, how = p.snap.HighWatermark, "its last orderly state ended at"
	}
	if group, at := p.c.commits.of(p.topic.Name, p.number); at > known {
		known, how = at, "group "+group+" has read up to"
	}
	if end < known {
		if len(p.segs) == 0 && !p.topic.unlimited() {
			// Retention may have deleted everything. The offsets must go on.
			p.c.heal = append(p.c.heal, func() error { return p.writeSegment(known-1, filler(known-1, known)) })
			return
		}
		file, at := p.dir, int64(0)
		if n := len(p.segs); n > 0 {
			file, at = filepath.Join(p.dir, p.segs[n-1].name()), p.segs[n-1].size
		}
		p.add(file, at, fmt.Sprintf("the log ends at offset %d, but %s %d", end, how, known), end, known)
		return
	}
	p.c.heal = append(p.c.heal, func() error { return p.tidy(end) })
}

func (p *partition) add(file string, at int64, what string, from, to int64) {
	lost := fmt.Sprintf("records of %s/%d from offset %d on", p.topic.Name, p.number, from)
	if to > from {
		lost = fmt.Sprintf("the records of %s/%d with the offsets %d to %d", p.topic.Name, p.number, from, to-1)
	}
	p.c.add(file, at, what, lost, p.mend)
}

func (c *checker) add(file string, at int64, what, lost string, mend func(string) error) {
	c.found = append(c.found, damage{c.rel(file), at, what, lost, mend})
}

// read uses one buffer for all: a segment is at most its topic's segment.bytes
// and one batch long.
func (c *checker) read(name string, size int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	c.buf = slices.Grow(c.buf[:0], int(size))[:size]
	n, err := f.ReadAt(c.buf, 0)
	if int64(n) < size {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return c.buf, nil
}

// settle takes out what the operator has accepted. It does all or nothing.
func (c *checker) settle() error {
	raw, err := os.ReadFile(filepath.Join(c.dir, acceptFile))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	accepted := strings.Fields(string(raw))
	var open []damage
	for _, d := range c.found {
		if d.mend == nil || !slices.Contains(accepted, d.key()) {
			open = append(open, d)
		}
	}
	if len(open) > 0 {
		return c.refuse(open)
	}
	keep := filepath.Join(c.dir, keepDir, time.Now().UTC().Format("20060102T150405.000"))
	if err := os.MkdirAll(keep, 0o700); err != nil {
		return err
	}
	for _, d := range c.found {
		c.note("going on without lost records, as accepted", "place", d.key(), "what", d.what, "lost", d.lost, "kept", c.rel(keep))
		if err := d.mend(keep); err != nil {
			return fmt.Errorf("mend %s: %w", d.key(), err)
		}
	}
	return os.Rename(filepath.Join(c.dir, acceptFile), filepath.Join(keep, acceptFile))
}

// refuse says which file, at which byte, what is lost, and what to do.
func (c *checker) refuse(found []damage) error {
	const most = 20
	var b strings.Builder
	final := false
	var lines []string
	for i, d := range found {
		final = final || d.mend == nil
		lines = append(lines, d.key())
		if i < most {
			fmt.Fprintf(&b, "\n  %s, byte %d: %s; lost: %s", d.file, d.at, d.what, d.lost)
		}
	}
	if len(found) > most {
		fmt.Fprintf(&b, "\n  and %d places more", len(found)-most)
	}
	fmt.Fprintf(&b, "\nNothing was changed. Restore %s from a backup", c.dir)
	if final {
		b.WriteString("; without one, move it away and begin anew")
	} else {
		fmt.Fprintf(&b, "; or, to go on without what is lost, write these lines into %s and start again"+
			" (the files as they are now are kept in %s):\n  %s",
			filepath.Join(c.dir, acceptFile), filepath.Join(c.dir, keepDir), strings.Join(lines, "\n  "))
	}
	return fmt.Errorf("%w:%s", ErrDamaged, b.String())
}

// snapshotJSON is what kfake loads instead of reading all records into memory at
// once, as it does without one that fits.
func (p *partition) snapshotJSON(end int64) ([]byte, bool) {
	s := p.snap
	s.Version, s.HighWatermark, s.LastStableOffset, s.Segments = stateFormat, end, end, nil
	for i, seg := range p.segs {
		size := seg.size
		if i == len(p.segs)-1 {
			size -= p.torn
		}
		if seg.txn {
			return nil, false
		}
		if size > 0 {
			s.Segments = append(s.Segments, segmentSize{seg.base, size})
		}
	}
	if len(s.Segments) == 0 {
		return nil, false
	}
	s.LogStartOffset = max(s.LogStartOffset, p.segs[0].base)
	raw, err := json.Marshal(s)
	return raw, err == nil
}
