package status

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/klauspost/compress/s2"

	"weiche/internal/bus"
)

// Effects of an event, as stored.
const (
	effectNone       = 0 // a repeat, too late, or not about a submission
	effectChanged    = 1
	effectSuperseded = 2 // of an owner that had been replaced
)

// place says where an event stands: in the log, and in the store's copy of it.
type place struct {
	partition int32
	offset    int64
	effect    int
	segment   int64 // its first offset
	at, size  int   // in the segment's data
}

func (p place) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(p.partition)) //nolint:gosec // partitions and offsets are not negative
	b = binary.AppendUvarint(b, uint64(p.offset))    //nolint:gosec // likewise
	b = append(b, byte(p.effect))
	b = binary.AppendUvarint(b, uint64(p.offset-p.segment)) //nolint:gosec // likewise
	b = binary.AppendUvarint(b, uint64(p.at))               //nolint:gosec // likewise
	return binary.AppendUvarint(b, uint64(p.size))          //nolint:gosec // likewise
}

// places reads a story.
func places(story []byte) ([]place, error) {
	r := rowReader{b: story}
	var out []place
	for len(r.b) > 0 {
		p := place{partition: int32(r.uint()), offset: int64(r.uint())} //nolint:gosec // as they were written
		if effect := r.take(1); len(effect) == 1 {
			p.effect = int(effect[0])
		}
		p.segment = p.offset - int64(r.uint())      //nolint:gosec // likewise
		p.at, p.size = int(r.uint()), int(r.uint()) //nolint:gosec // likewise
		out = append(out, p)
	}
	if r.failed {
		return nil, errBody
	}
	return out, nil
}

// segment is a run of a partition of events as it is copied into one row:
// their values, and the running hash behind each.
type segment struct {
	first       int64
	data, links []byte
}

// segmentBytes bounds a segment's data: who reads one event reads all of them.
const segmentBytes = 64 << 10

// linkSize is the distance to the first offset, and a SHA-256.
const linkSize = 4 + sha256.Size

// segmentKey is the row of the segment that begins at an offset; partitions' offsets
// go up to 2^40.
func segmentKey(partition int32, offset int64) int64 { return int64(partition)<<40 | offset }

// takes says whether the next event belongs into this segment.
func (s *segment) takes(r *bus.Record) bool {
	return s != nil && len(s.data)+len(r.Value) <= segmentBytes && r.Offset-s.first < 1<<32
}

func (s *segment) add(r *bus.Record, link []byte) {
	s.links = binary.BigEndian.AppendUint32(s.links, uint32(r.Offset-s.first)) //nolint:gosec // takes sees to it
	s.links = append(s.links, link...)
	s.data = append(s.data, r.Value...)
}

// linkBelow returns the running hash over everything below an offset, as far as
// a segment reaches; nil where it begins later.
func linkBelow(first int64, links []byte, below int64) []byte {
	for len(links) >= linkSize {
		last := links[len(links)-linkSize:]
		if first+int64(binary.BigEndian.Uint32(last)) < below {
			return last[4:]
		}
		links = links[:len(links)-linkSize]
	}
	return nil
}

// chain is the running hash over a partition of events in log order. Each
// record adds its offset, key and value.
func chain(last []byte, r *bus.Record) []byte {
	b := make([]byte, 0, 2048) // on the stack
	b = append(b, last...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Offset)) //nolint:gosec // offsets are not negative
	for _, part := range [][]byte{r.Key, r.Value} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

var errSegment = errors.New("a segment of events in the store cannot be read")

// event returns the bytes of one event.
func (g *generation) event(ctx context.Context, p place) ([]byte, error) {
	var raw []byte
	if err := g.readSegment.QueryRowContext(ctx, segmentKey(p.partition, p.segment)).Scan(&raw); err != nil {
		return nil, fmt.Errorf("%w: %w", errSegment, err)
	}
	data, err := s2.Decode(nil, raw)
	if err != nil || p.at+p.size > len(data) {
		return nil, errSegment
	}
	return data[p.at : p.at+p.size], nil
}

// story returns where the events of a submission stand, those of before it was
// known included.
func (g *generation) story(ctx context.Context, id uuid.UUID) ([]place, error) {
	e, err := g.entry(id, hasRow)
	if err != nil {
		return nil, err
	}
	var all []byte
	if e != nil {
		all = append(all, e.story...)
	}
	rows, err := g.readStrays.QueryContext(ctx, id[:])
	if err != nil {
		return nil, err
	}
	err = scan(rows, func(rows *sql.Rows) error {
		var raw []byte
		err := rows.Scan(&raw)
		all = append(all, raw...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return places(all)
}
