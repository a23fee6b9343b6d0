package bus

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"sort"
	"strings"
	"time"
)

// window is what is known of one partition's records between their fetch and
// their commit: which wait for their key's turn, which are handed out, and which
// are finished. It has no goroutine, no clock and no Kafka, so that its rules can
// be tried on any schedule; partition drives it.
//
// Its rules: of a key, a record is handed out only after the one before it is
// finished (or together with it, in one batch, in order); the prefix never
// passes a record that is not finished; whatever is finished beyond the prefix
// is remembered.
type window struct {
	bounds
	keys    map[string]*queue
	ready   []*queue // have something to hand out, each once
	spills  []*queue // have used up their share, each once
	backlog []*item  // fetched and not yet admitted
	waiting int      // bytes of the backlog

	admitted, bytes int // unfinished and admitted
	out             int // handed out

	next   int64   // offset behind the newest record taken
	done   []span  // finished, in order, apart from each other; the first begins with the prefix
	stamps []stamp // when records around the prefix were written, about one a second
}

type stamp struct {
	offset int64
	at     time.Time
}

// bounds of a window. Counts are records.
type bounds struct {
	records, bytes int // admitted at once; one record is admitted whatever its size
	share          int // of one key, before the rest is spilled; 0: never
	batch          int // handed out together
	batchBytes     int
	ahead          int // bytes fetched and not yet admitted, before fetching stops
}

// queue holds one key's unfinished records in the order of the log.
type queue struct {
	key        string // "": a record without a key, alone in its queue
	head, tail *item
	n          int  // unfinished, the backlog's included
	in         int  // of them admitted
	out        int  // of them handed out: the first so many
	spilling   bool // what stood behind them is being spilled
	held       bool // refused, until retry
	listed     bool // in ready
	marked     bool // in spills
	refusals   int
}

type item struct {
	rec    *Record
	offset int64
	size   int
	q      *queue
	next   *item // of the same key
}

// parcel is what is handed out together: records whose keys are nowhere else.
type parcel struct {
	items []*item
	spill bool    // to be put aside, not worked on
	ahead *Record // when spilled: the newest one of the key in work
}

// span is the offsets from ≤ o < to.
type span struct{ from, to int64 }

// newWindow begins at the committed offset; done are finished records beyond it.
// A negative offset means that none is committed: the first record's is taken.
func newWindow(b bounds, committed int64, done []span) *window {
	w := &window{bounds: b, keys: map[string]*queue{}, next: committed}
	if committed >= 0 {
		w.done = append(w.done, span{committed, committed})
		for _, s := range done {
			w.mark(s.from, s.to)
		}
	}
	return w
}

// position is the prefix: every record below it is finished. -1 before the
// first record where nothing was committed.
func (w *window) position() int64 {
	if len(w.done) == 0 {
		return -1
	}
	return w.done[0].to
}

// beyond are the finished records behind the prefix.
func (w *window) beyond() []span {
	if len(w.done) < 2 {
		return nil
	}
	return slices.Clone(w.done[1:])
}

// mark adds finished offsets.
func (w *window) mark(from, to int64) {
	if from >= to {
		return
	}
	// The first span that ends at or behind from, and the first that begins
	// behind to: those between melt into one.
	i := sort.Search(len(w.done), func(i int) bool { return w.done[i].to >= from })
	j := i
	for j < len(w.done) && w.done[j].from <= to {
		from, to = min(from, w.done[j].from), max(to, w.done[j].to)
		j++
	}
	if i == j {
		w.done = slices.Insert(w.done, i, span{from, to})
		return
	}
	w.done[i] = span{from, to}
	w.done = slices.Delete(w.done, i+1, j)
}

func (w *window) finished(o int64) bool {
	i := sort.Search(len(w.done), func(i int) bool { return w.done[i].to > o })
	return i < len(w.done) && w.done[i].from <= o
}

// take adds a fetched record; the caller takes them in the order of the log.
// False means that it was finished before and is passed over.
func (w *window) take(rec *Record, key string) bool {
	switch {
	case len(w.done) == 0:
		w.done = append(w.done, span{rec.Offset, rec.Offset})
	case rec.Offset < w.next:
		return false
	default:
		w.mark(w.next, rec.Offset) // markers, and what was compacted or deleted
	}
	w.next = rec.Offset + 1
	if n := len(w.stamps); n == 0 || rec.Time.Sub(w.stamps[n-1].at) >= time.Second {
		w.stamps = append(w.stamps, stamp{rec.Offset, rec.Time})
	}
	if w.finished(rec.Offset) {
		return false
	}
	it := &item{rec: rec, offset: rec.Offset, size: rec.size()}
	if key == "" {
		it.q = &queue{}
	} else if it.q = w.keys[key]; it.q == nil {
		it.q = &queue{key: key}
		w.keys[key] = it.q
	}
	it.q.n++ // in the backlog too: the queue lives until its last record is finished
	w.backlog = append(w.backlog, it)
	w.waiting += it.size
	w.admit()
	return true
}

// admit moves records from the backlog to their keys' queues as far as the
// bounds allow.
func (w *window) admit() {
	n := 0
	for ; n < len(w.backlog); n++ {
		it := w.backlog[n]
		if w.admitted > 0 && (w.admitted >= w.records || w.bytes+it.size > w.bounds.bytes) {
			break
		}
		w.backlog[n] = nil
		w.waiting -= it.size
		w.admitted++
		w.bytes += it.size
		q := it.q
		if q.in++; q.tail == nil {
			q.head = it
		} else {
			q.tail.next = it
		}
		q.tail = it
		w.offer(q)
	}
	if w.backlog = w.backlog[n:]; len(w.backlog) == 0 {
		w.backlog = nil
	}
}

// offer lists a queue where it has something to hand out.
func (w *window) offer(q *queue) {
	switch {
	case q.in == q.out || q.held || q.spilling:
	case q.out == 0:
		if !q.listed {
			q.listed = true
			w.ready = append(w.ready, q)
		}
	case w.share > 0 && q.in-q.out > w.share && !q.marked:
		q.marked = true
		w.spills = append(w.spills, q)
	}
}

// hand returns the next parcel, nil where nothing is ready. Its records belong to
// the caller until each of them is settled.
func (w *window) hand() *parcel {
	if p := w.spill(); p != nil {
		return p
	}
	p := &parcel{}
	size := 0
	full := func(it *item) bool {
		return len(p.items) >= max(1, w.batch) || len(p.items) > 0 && size+it.size > w.batchBytes
	}
	for len(w.ready) > 0 && !full(w.ready[0].head) {
		q := w.ready[0]
		w.ready = w.ready[1:]
		q.listed = false
		for it := q.head; it != nil && !full(it); it = it.next {
			p.items = append(p.items, it)
			size += it.size
			q.out++
		}
		w.offer(q) // it may have used up its share
	}
	if len(p.items) == 0 {
		return nil
	}
	w.out += len(p.items)
	return p
}

// spill returns what of a queue stands behind the records in work, where that is
// more than its share.
func (w *window) spill() *parcel {
	for len(w.spills) > 0 {
		q := w.spills[0]
		w.spills = w.spills[1:]
		q.marked = false
		if q.out == 0 || q.held || q.spilling {
			continue // its turn came, or comes, by itself
		}
		p := &parcel{spill: true}
		it := q.head
		for range q.out {
			p.ahead = it.rec
			it = it.next
		}
		for ; it != nil; it = it.next {
			p.items = append(p.items, it)
		}
		q.spilling = true
		w.out += len(p.items)
		return p
	}
	w.spills = nil
	return nil
}

// refused is a key that has to be tried again.
type refused struct {
	q     *queue
	times int // in a row, from 1
}

// settle takes a parcel back. errs has an error for each record that is not
// finished; nil stands for none. Of a key, what comes behind a record that is
// not finished is not finished either, whatever errs says: it comes again, in
// order. The caller calls retry for each returned key when its time has come.
func (w *window) settle(p *parcel, errs []error) (again []refused) {
	w.out -= len(p.items)
	failed := map[*queue]bool{}
	for i, it := range p.items {
		q := it.q
		switch {
		case failed[q]:
		case i < len(errs) && errs[i] != nil:
			failed[q] = true
		default:
			w.finish(p, it)
			continue
		}
		if !p.spill {
			q.out--
		}
	}
	for i, it := range p.items {
		q := it.q
		if i > 0 && p.items[i-1].q == q {
			continue
		}
		if p.spill {
			q.spilling = false
		}
		switch {
		case failed[q]:
			q.held = true
			q.refusals++
			again = append(again, refused{q, q.refusals})
		case !p.spill:
			q.refusals = 0
		}
		w.offer(q)
	}
	w.admit()
	return again
}

// retry lets a refused key be handed out again.
func (w *window) retry(q *queue) {
	q.held = false
	w.offer(q)
}

func (w *window) finish(p *parcel, it *item) {
	q := it.q
	w.unlink(q, it)
	q.in--
	if !p.spill {
		q.out--
	}
	if q.n--; q.n == 0 && q.key != "" {
		delete(w.keys, q.key)
	}
	w.admitted--
	w.bytes -= it.size
	it.rec = nil
	w.mark(it.offset, it.offset+1)
}

// unlink takes a record out of its queue: the head, or, when it was spilled, one
// behind the records in work.
func (w *window) unlink(q *queue, it *item) {
	var before *item
	at := q.head
	for at != it {
		before, at = at, at.next
	}
	if before == nil {
		q.head = it.next
	} else {
		before.next = it.next
	}
	if q.tail == it {
		q.tail = before
	}
	it.next = nil
}

// crowded says whether fetching should stop until some of the backlog is
// admitted, calm whether it may go on.
func (w *window) crowded() bool { return w.waiting > w.ahead || len(w.backlog) > backlogRecords }
func (w *window) calm() bool {
	return w.waiting <= w.ahead/2 && len(w.backlog) <= backlogRecords/2
}

// backlogRecords may be fetched ahead of a partition's window. sarama brings up
// to 1 MiB more of a partition with the fetch that is under way.
const backlogRecords = 4096

// What all partitions of a member share, in bytes, and what each may have of it:
// a member that holds 64 partitions must not take eight times the memory of one
// that holds eight.
const (
	sharedInFlight, leastInFlight = 64 << 20, 1 << 20
	sharedAhead, leastAhead       = 32 << 20, 512 << 10
)

// bound shares the bytes out among so many partitions; most is what the group
// asks for, and a quarter of that is fetched ahead.
func (w *window) bound(partitions, most int) {
	partitions = max(1, partitions)
	w.bounds.bytes = min(most, max(leastInFlight, sharedInFlight/partitions))
	w.ahead = min(most/4, max(leastAhead, sharedAhead/partitions))
}

// oldest is when the oldest unfinished record was written, to about a second;
// zero when all are finished.
func (w *window) oldest() time.Time {
	at := w.position()
	if at < 0 || at >= w.next {
		return time.Time{}
	}
	for len(w.stamps) > 1 && w.stamps[1].offset <= at {
		w.stamps = w.stamps[1:]
	}
	return w.stamps[0].at
}

// maxMetadata is what Kafka takes as an offset's metadata by default
// (offset.metadata.max.bytes).
const maxMetadata = 4096

const metadataPrefix = "w1:"

// encodeSpans writes what is finished beyond a committed offset into the metadata
// that is committed with it: gap and length of each span as varints. What does
// not fit is left out, from the end: it would be worked on again.
func encodeSpans(committed int64, spans []span) string {
	if len(spans) == 0 {
		return ""
	}
	var b []byte
	at := committed
	for _, s := range spans {
		next := binary.AppendUvarint(b, uint64(s.from-at)) //nolint:gosec // spans ascend
		next = binary.AppendUvarint(next, uint64(s.to-s.from))
		if len(metadataPrefix)+base64.RawStdEncoding.EncodedLen(len(next)) > maxMetadata {
			break
		}
		b, at = next, s.to
	}
	return metadataPrefix + base64.RawStdEncoding.EncodeToString(b)
}

var errMetadata = errors.New("the committed offset's metadata was not written by this bus")

// decodeSpans reads what encodeSpans wrote. No metadata means no spans.
func decodeSpans(committed int64, metadata string) ([]span, error) {
	if metadata == "" {
		return nil, nil
	}
	text, ok := strings.CutPrefix(metadata, metadataPrefix)
	if !ok {
		return nil, errMetadata
	}
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, errMetadata
	}
	var spans []span
	at := committed
	for len(b) > 0 {
		var n [2]int64
		for i := range n {
			v, used := binary.Uvarint(b)
			if used <= 0 || v == 0 || v > 1<<40 {
				return nil, errMetadata
			}
			n[i], b = int64(v), b[used:] //nolint:gosec // bounded above
		}
		spans = append(spans, span{at + n[0], at + n[0] + n[1]})
		at = spans[len(spans)-1].to
	}
	return spans, nil
}
