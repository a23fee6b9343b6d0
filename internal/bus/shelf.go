package bus

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"weiche/internal/fault"
)

// shelf keeps what Fetch has read last, a batch for each partition. What waits,
// or is dead, was often appended together and is asked for one by one, and for
// each of them a broker sends the whole batch.
type shelf struct {
	mu      sync.Mutex
	read    map[spot]shelved
	reading map[spot]*reading
	reads   int
}

// reading is one who reads.
type reading struct {
	ended chan struct{}
	err   error // before ended is closed
}

type spot struct {
	topic     string
	partition int32
}

// shelved is what stood in the log at the offsets from ≤ o < next.
type shelved struct {
	from, next int64
	records    []*Record
	bytes      int
	at         time.Time
}

const (
	// shelfLife bounds how long a record may still be found that was deleted.
	shelfLife  = 2 * time.Second
	shelfBytes = 8 << 20 // of all partitions
	// shelfPatience is how long one waits for another one's reading.
	shelfPatience = time.Second
	// shelfAhead is how near behind the last one a record is asked for by somebody
	// who goes through the log.
	shelfAhead = 1024
)

func newShelf() *shelf { return &shelf{read: map[spot]shelved{}, reading: map[spot]*reading{}} }

// turn is the caller's leave to read, or what is known already.
type turn struct {
	rec   *Record // nil with known: there is none
	known bool
	near  bool // what is asked for lies right behind what was read last
	end   func(err error)
}

// ask returns when the record is known, or when it is the caller's turn to read;
// who has a turn ends it. One reads a partition at a time, because the others want
// what lies beside. Where that one fails, or has no answer for a while, they do not
// wait for each other any more.
func (s *shelf) ask(ctx context.Context, at spot, offset int64) (turn, error) {
	patience := time.NewTimer(shelfPatience)
	defer patience.Stop()
	for {
		s.mu.Lock()
		if rec, known := s.look(at, offset); known {
			s.mu.Unlock()
			return turn{rec: rec, known: true}, nil
		}
		other := s.reading[at]
		if other == nil {
			defer s.mu.Unlock()
			return s.begin(at, offset), nil
		}
		s.mu.Unlock()
		select {
		case <-other.ended:
			if other.err != nil {
				return turn{end: func(error) {}}, nil
			}
		case <-patience.C:
			return turn{end: func(error) {}}, nil
		case <-ctx.Done():
			return turn{}, fault.Of(ctx.Err())
		}
	}
}

// begin makes the caller the one who reads. The caller has the lock.
func (s *shelf) begin(at spot, offset int64) turn {
	s.reads++
	mine := &reading{ended: make(chan struct{})}
	s.reading[at] = mine
	b, ok := s.read[at]
	return turn{near: ok && offset >= b.next && offset < b.next+shelfAhead, end: func(err error) {
		s.mu.Lock()
		delete(s.reading, at)
		s.mu.Unlock()
		mine.err = err
		close(mine.ended)
	}}
}

// look has the lock.
func (s *shelf) look(at spot, offset int64) (rec *Record, known bool) {
	b, ok := s.read[at]
	if !ok || offset < b.from || offset >= b.next || time.Since(b.at) > shelfLife {
		return nil, false
	}
	i, found := slices.BinarySearchFunc(b.records, offset, func(r *Record, o int64) int { return cmp.Compare(r.Offset, o) })
	if !found {
		return nil, true
	}
	return b.records[i], true
}

// put keeps what was read from an offset on.
func (s *shelf) put(at spot, from int64, b batch) {
	n := 0
	for _, r := range b.records {
		n += r.size()
	}
	if n > shelfBytes/2 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read[at] = shelved{from, b.next, b.records, n, time.Now()}
	s.trim()
}

// trim lets go of the oldest where there is too much.
func (s *shelf) trim() {
	for {
		sum := 0
		var oldest spot
		var since time.Time
		for at, b := range s.read {
			sum += b.bytes
			if since.IsZero() || b.at.Before(since) {
				oldest, since = at, b.at
			}
		}
		if sum <= shelfBytes {
			return
		}
		delete(s.read, oldest)
	}
}
