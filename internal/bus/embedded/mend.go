package embedded

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// tidy leaves the partition so that kfake finds nothing to guess: no empty files,
// an index entry for each batch, and a snapshot that fits.
func (p *partition) tidy(end int64) error {
	files, err := segmentFiles(p.dir)
	if err != nil || len(files) == 0 {
		return err
	}
	for _, f := range files {
		if f.size == 0 {
			_ = os.Remove(filepath.Join(p.dir, f.name()))
			_ = os.Remove(filepath.Join(p.dir, strconv.FormatInt(f.base, 10)+".idx"))
		}
	}
	for _, s := range p.segs {
		idx := filepath.Join(p.dir, strconv.FormatInt(s.base, 10)+".idx")
		if info, err := os.Stat(idx); err == nil && info.Size() == int64(s.batches()*indexEntry) || s.txn {
			continue
		}
		if err := replace(idx, index(s.batches())); err != nil {
			return err
		}
	}
	snap, ok := p.snapshotJSON(end)
	if !ok || p.snap.HighWatermark == end && p.snapshotFits() {
		return nil
	}
	return replace(filepath.Join(p.dir, "snapshot.json"), snap)
}

// mend rewrites the partition's files without what is damaged. Batches without
// records take the place of the offsets that are lost, so that no offset is given
// twice. It is called for each damage of a partition, and does its work once.
func (p *partition) mend(keep string) error {
	if p.c == nil {
		return nil
	}
	c := p.c
	p.c = nil
	known := p.snap.HighWatermark
	if _, at := c.commits.of(p.topic.Name, p.number); at > known {
		known = at
	}
	next := int64(0)
	if len(p.segs) > 0 {
		next = p.segs[0].base
	}
	for i, s := range p.segs {
		raw, err := c.read(filepath.Join(p.dir, s.name()), s.size)
		if err != nil {
			return err
		}
		var out []byte
		if !p.topic.compacted() && next < s.base {
			next = s.base // filled at the end of the segment before
		}
		for _, g := range s.good {
			if g.first > next && !p.topic.compacted() {
				out = append(out, filler(next, g.first)...)
			}
			out = append(out, raw[g.from:g.to]...)
			next = g.next
		}
		upTo := known
		if i+1 < len(p.segs) {
			upTo = p.segs[i+1].base
		}
		if next < upTo && (!p.topic.compacted() || i+1 == len(p.segs)) {
			out = append(out, filler(next, upTo)...)
			next = upTo
		}
		if string(out) == string(raw) {
			continue
		}
		if err := copyAside(keep, c.root, filepath.Join("partitions", filepath.Base(p.dir), s.name())); err != nil {
			return err
		}
		if err := p.writeSegment(s.base, out); err != nil {
			return err
		}
	}
	if len(p.segs) == 0 {
		return p.writeSegment(known-1, filler(known-1, known))
	}
	return nil
}

func (p *partition) writeSegment(base int64, content []byte) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(p.dir, strconv.FormatInt(base, 10)+".idx")) // tidy writes it
	return replace(filepath.Join(p.dir, strconv.FormatInt(base, 10)+".dat"), content)
}

// indexEntry is what kfake keeps beside each batch: version, checksum, epoch,
// time (not used), in a transaction. With one node and no transactions all are
// alike.
const indexEntry = 15

func index(batches int) []byte {
	var e [indexEntry]byte
	e[0] = stateFormat
	binary.LittleEndian.PutUint32(e[2:], 0)
	e[1] = byte(crc32.Checksum(e[2:], castagnoli))
	out := make([]byte, 0, batches*indexEntry)
	for range batches {
		out = append(out, e[:]...)
	}
	return out
}

// setAside moves root/name to keep/log/name, if it is there.
func setAside(keep, root, name string) error {
	to := filepath.Join(keep, filepath.Base(root), name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	err := os.Rename(filepath.Join(root, name), to)
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// copyAside copies root/name to keep/log/name.
func copyAside(keep, root, name string) error {
	raw, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return err
	}
	to := filepath.Join(keep, filepath.Base(root), name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return replace(to, raw)
}

func (p *partition) snapshotFits() bool {
	return p.torn == 0 && slices.EqualFunc(p.snap.Segments, p.segs, func(a segmentSize, b checked) bool {
		return a.BaseOffset == b.base && a.Size == b.size
	})
}
