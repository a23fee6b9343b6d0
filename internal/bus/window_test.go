package bus

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The world of the schedule test: one partition of Kafka and the account beside
// it, and processes that own the partition one after the other, or believe so.
// Time is the order of the steps; every step is drawn.
type world struct {
	t       *rapid.T
	log     []*Record // by offset; nil: a marker
	commit  int64     // the group's offset, as a broker keeps it
	beyond  string    // and its metadata
	epoch   int       // of the account's newest owner
	effects []effect  // what took effect, in order
	put     []effect  // what was spilled and took effect, in order
	cases   map[string][]int64
	owners  []*owner
	crashes int
}

type effect struct {
	key    string
	offset int64
	epoch  int
}

// owner is a process with the partition.
type owner struct {
	w      *window
	epoch  int
	next   int64 // to fetch
	out    []*parcel
	held   []*queue
	marks  []mark  // taken and not yet confirmed
	late   bool    // it lost the partition and does not know it yet
	wrote  []int64 // offsets it recorded
	failed bool    // something it recorded had no effect
}

var boundsForTest = rapid.Custom(func(t *rapid.T) bounds {
	return bounds{records: rapid.IntRange(1, 12).Draw(t, "records"), bytes: 1 << 20, share: rapid.IntRange(0, 4).Draw(t, "share"),
		batch: rapid.IntRange(1, 6).Draw(t, "batch"), batchBytes: 1 << 20}
})

// TestWindowOnAnySchedule draws keys, latencies (what is handed out comes back
// in any order), failures, rebalances, crashes and late owners, and holds the
// rules against every one of them.
func TestWindowOnAnySchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, commit: -1, cases: map[string][]int64{}}
		b := boundsForTest.Draw(t, "bounds")
		n := rapid.IntRange(1, 60).Draw(t, "log")
		for i := range n {
			if i > 0 && rapid.IntRange(0, 9).Draw(t, "marker") == 0 {
				w.log = append(w.log, nil)
				continue
			}
			key := rapid.SampledFrom([]string{"a", "b", "c", "d", ""}).Draw(t, "key")
			w.log = append(w.log, &Record{Offset: int64(i), Key: []byte(key), Time: time.Unix(int64(i), 0)})
			if key != "" {
				w.cases[key] = append(w.cases[key], int64(i))
			}
		}
		w.acquire(b)
		for range rapid.IntRange(0, 400).Draw(t, "steps") {
			o := rapid.SampledFrom(w.owners).Draw(t, "who")
			switch step := rapid.IntRange(0, 99).Draw(t, "step"); {
			case step < 25:
				w.fetch(o)
			case step < 50:
				w.hand(o)
			case step < 80:
				w.settle(o, true)
			case step < 85:
				w.retry(o)
			case step < 90 && o.w.position() >= 0:
				o.marks = append(o.marks, mark{position: o.w.position(), metadata: encodeSpans(o.w.position(), o.w.beyond())})
			case step < 95:
				w.confirm(o, b)
			case step < 98:
				w.lose(b)
			default:
				w.crash(o, b)
			}
			w.check()
		}
		w.drain(b)
	})
}

// acquire begins a new owner at the committed offset, with an epoch above all
// others.
func (w *world) acquire(b bounds) {
	w.epoch++
	spans, err := decodeSpans(w.commit, w.beyond)
	if err != nil {
		w.t.Fatal(err)
	}
	w.owners = append(w.owners, &owner{w: newWindow(b, w.commit, spans), epoch: w.epoch, next: max(w.commit, 0)})
}

func (w *world) fetch(o *owner) {
	for n := rapid.IntRange(1, 8).Draw(w.t, "fetched"); n > 0 && int(o.next) < len(w.log); n-- {
		if r := w.log[o.next]; r != nil {
			o.w.take(r, string(r.Key))
		}
		o.next++
	}
}

func (w *world) hand(o *owner) {
	p := o.w.hand()
	if p == nil {
		return
	}
	for _, it := range p.items {
		if slices.Contains(o.held, it.q) {
			w.t.Fatalf("offset %d is handed out while its key is held", it.offset)
		}
		for _, q := range o.out {
			for _, other := range q.items {
				if other.rec == it.rec {
					w.t.Fatalf("offset %d is handed out twice", it.offset)
				}
				if it.q.key != "" && other.q == it.q && !p.spill {
					w.t.Fatalf("offset %d of key %s is handed out while %d is", it.offset, it.q.key, other.offset)
				}
			}
		}
	}
	o.out = append(o.out, p)
}

// settle lets a parcel come back: records are written to the account under the
// owner's epoch, up to the first that fails.
func (w *world) settle(o *owner, failures bool) {
	if len(o.out) == 0 {
		return
	}
	i := rapid.IntRange(0, len(o.out)-1).Draw(w.t, "parcel")
	p := o.out[i]
	o.out = slices.Delete(o.out, i, i+1)
	errs := make([]error, len(p.items))
	broken := map[*queue]bool{}
	for i, it := range p.items {
		if failures && rapid.IntRange(0, 9).Draw(w.t, "fails") == 0 {
			errs[i] = errors.New("not now")
			broken[it.q] = true
		}
		if !broken[it.q] {
			w.record(o, it.rec, p.spill)
		}
	}
	for _, r := range o.w.settle(p, errs) {
		o.held = append(o.held, r.q)
	}
}

// record is what the account makes of an event: a superseded owner's has no
// effect, and a repeat none either.
func (w *world) record(o *owner, r *Record, spill bool) {
	o.wrote = append(o.wrote, r.Offset)
	if o.epoch < w.epoch {
		o.failed = true
		return
	}
	for _, e := range w.effects {
		if e.offset == r.Offset {
			return
		}
	}
	e := effect{string(r.Key), r.Offset, o.epoch}
	w.effects = append(w.effects, e)
	if spill {
		w.put = append(w.put, e)
	}
}

func (w *world) retry(o *owner) {
	if len(o.held) > 0 {
		i := rapid.IntRange(0, len(o.held)-1).Draw(w.t, "held")
		o.w.retry(o.held[i])
		o.held = slices.Delete(o.held, i, i+1)
	}
}

// confirm answers the oldest mark by the account as it is now, and commits it. A
// broker would refuse the commit of a late owner too; here only the epoch does.
func (w *world) confirm(o *owner, b bounds) {
	if len(o.marks) == 0 {
		return
	}
	k := o.marks[0]
	o.marks = o.marks[1:]
	if o.epoch == w.epoch {
		if k.position < w.commit {
			w.t.Fatalf("the commit goes back from %d to %d", w.commit, k.position)
		}
		w.commit, w.beyond = k.position, k.metadata
		return
	}
	w.end(o)
	if !o.late {
		w.acquire(b) // superseded by a late one: taken over again
	}
}

// lose moves the partition: the owner does not know it yet, or takes it back
// over the new one as a late owner does.
func (w *world) lose(b bounds) {
	w.owners[len(w.owners)-1].late = true
	if late := w.owners[0]; late.late && rapid.Bool().Draw(w.t, "late takes over") {
		// Paused inside of Acquire: it takes an epoch above the true owner's.
		w.epoch++
		late.epoch = w.epoch
		late.w = newWindow(b, w.commit, nil)
		late.next, late.out, late.held, late.marks, late.failed = max(w.commit, 0), nil, nil, nil, false
	}
	w.acquire(b)
}

func (w *world) end(o *owner) {
	w.owners = slices.DeleteFunc(w.owners, func(other *owner) bool { return other == o })
	if len(w.owners) == 0 {
		w.owners = nil
	}
}

func (w *world) crash(o *owner, b bounds) {
	w.crashes++
	w.end(o)
	if !o.late || len(w.owners) == 0 {
		w.acquire(b)
	}
}

// check holds what has to be true after every step.
func (w *world) check() {
	if len(w.owners) == 0 {
		w.t.Fatal("nobody owns the partition")
	}
	took := map[int64]bool{}
	last := map[string]int64{}
	for _, e := range w.effects {
		took[e.offset] = true
		if e.key == "" {
			continue
		}
		if before, ok := last[e.key]; ok && e.offset < before && !w.spilled(before) {
			w.t.Fatalf("key %s: %d took effect after %d", e.key, e.offset, before)
		}
		last[e.key] = max(last[e.key], e.offset)
	}
	spans, err := decodeSpans(w.commit, w.beyond)
	if err != nil {
		w.t.Fatal(err)
	}
	done := func(o int64) bool {
		return o < w.commit || slices.ContainsFunc(spans, func(s span) bool { return s.from <= o && o < s.to })
	}
	for _, r := range w.log {
		if r != nil && done(r.Offset) && !took[r.Offset] {
			w.t.Fatalf("offset %d is committed (%d, %v) and took no effect", r.Offset, w.commit, spans)
		}
	}
	for _, o := range w.owners {
		if o.w.admitted > max(1, o.w.records) {
			w.t.Fatalf("%d records are admitted, %d may be", o.w.admitted, o.w.records)
		}
	}
}

// spilled says whether a record was put aside: only the one in work, which stood
// before it, may take effect after it.
func (w *world) spilled(offset int64) bool {
	return slices.ContainsFunc(w.put, func(e effect) bool { return e.offset == offset })
}

// drain lets the last owner finish in peace: everything takes effect once.
func (w *world) drain(b bounds) {
	w.owners = nil
	w.acquire(b)
	o := w.owners[0]
	for range 20 * (len(w.log) + 10) {
		w.fetch(o)
		w.hand(o)
		w.settle(o, false)
		w.retry(o)
	}
	w.commit, w.beyond = o.w.position(), encodeSpans(o.w.position(), o.w.beyond())
	w.check()
	end := int64(len(w.log))
	for end > 0 && w.log[end-1] == nil {
		end-- // nobody knows of markers before a record comes behind them
	}
	if w.commit != end || w.beyond != "" {
		w.t.Fatalf("at the end %d of %d are committed, beyond: %q", w.commit, end, w.beyond)
	}
	if len(o.w.keys) != 0 || o.w.admitted != 0 || o.w.bytes != 0 || o.w.out != 0 || o.w.waiting != 0 || len(o.w.backlog) != 0 {
		w.t.Fatalf("left behind: %+v", o.w)
	}
	n := 0
	for _, r := range w.log {
		if r != nil {
			n++
		}
	}
	if len(w.effects) != n {
		w.t.Fatalf("%d of %d took effect", len(w.effects), n)
	}
}

func TestSpansInMetadata(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.Int64Range(0, 1<<40).Draw(t, "at")
		var spans []span
		next := at
		for range rapid.IntRange(0, 2000).Draw(t, "spans") {
			from := next + rapid.Int64Range(1, 1000).Draw(t, "gap")
			next = from + rapid.Int64Range(1, 1<<20).Draw(t, "length")
			spans = append(spans, span{from, next})
		}
		text := encodeSpans(at, spans)
		if len(text) > maxMetadata {
			t.Fatalf("%d bytes", len(text))
		}
		got, err := decodeSpans(at, text)
		if err != nil || !slices.Equal(got, spans[:len(got)]) {
			t.Fatalf("%v: %v became %v", err, spans, got)
		}
		if len(spans) < 400 && len(got) != len(spans) {
			t.Fatalf("%d of %d spans fit", len(got), len(spans))
		}
	})
	for _, text := range []string{"w1:!", "w1:gA", "w1:AAE", "w1:AQA", "other", "w1:AQ", "w1://///////////////////w"} {
		if spans, err := decodeSpans(7, text); !errors.Is(err, errMetadata) {
			t.Errorf("%q gave %v, %v", text, spans, err)
		}
	}
}

// A window works through a filled topic; its cost for a record must not grow with
// what is in it.
func BenchmarkWindow(b *testing.B) {
	for _, inFlight := range []int{64, 1024, 16384} {
		b.Run(fmt.Sprint("in flight ", inFlight), func(b *testing.B) {
			w := newWindow(bounds{records: inFlight, bytes: 1 << 30, share: inFlight / 4, batch: 128, batchBytes: 1 << 20}, 0, nil)
			var out []*parcel
			keys := make([]string, 5000)
			for i := range keys {
				keys[i] = fmt.Sprint("key", i)
			}
			rec := Record{Value: make([]byte, 100)}
			for i := range b.N {
				r := rec
				r.Offset = int64(i)
				w.take(&r, keys[i%len(keys)])
				for p := w.hand(); p != nil; p = w.hand() {
					out = append(out, p)
				}
				for len(out) > 0 && w.admitted >= inFlight/2 {
					w.settle(out[0], nil)
					out = out[1:]
				}
			}
		})
	}
}

// A member's memory does not grow with the partitions it holds, but for the
// least that each needs.
func TestPartitionsShareTheirMembersMemory(t *testing.T) {
	for _, c := range []struct{ partitions, most, inFlight, ahead int }{
		{0, 16 << 20, 16 << 20, 4 << 20}, {1, 16 << 20, 16 << 20, 4 << 20}, {8, 16 << 20, 8 << 20, 4 << 20}, {16, 4 << 20, 4 << 20, 1 << 20},
		{64, 16 << 20, 1 << 20, 512 << 10}, {1000, 16 << 20, 1 << 20, 512 << 10},
	} {
		w := newWindow(bounds{}, 0, nil)
		w.bound(c.partitions, c.most)
		if w.bounds.bytes != c.inFlight || w.ahead != c.ahead {
			t.Errorf("%d partitions: %d bytes in flight and %d ahead, want %d and %d", c.partitions, w.bounds.bytes, w.ahead, c.inFlight, c.ahead)
		}
	}
}
