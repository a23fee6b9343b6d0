package delivery

import (
	"container/heap"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// caseKey is what order is kept by (P3).
type caseKey struct {
	portal      string
	caseID      uuid.UUID
	destination string
}

func keyOf(d submission.DeliveryMeta) caseKey { return caseKey{d.Portal, d.CaseID, d.Destination} }

// entry is one unfinished delivery of a partition. Its bytes lie in the waiting
// topic (or, when dead, among the dead letters), not in memory.
type entry struct {
	id      uuid.UUID // delivery
	sub     uuid.UUID
	key     caseKey
	order   int64
	due     time.Time
	offset  int64 // in the waiting topic; noOffset while it has no record there
	dead    bool
	running bool
	fresh   bool  // running, and its record is the bus's, not the waiting topic's
	record  int64 // offset of that record in the deliveries topic
}

const noOffset int64 = -1

func newEntry(d submission.DeliveryMeta) *entry {
	return &entry{id: d.DeliveryID, sub: d.ID, key: keyOf(d), order: d.Order, offset: noOffset}
}

// queue holds the unfinished deliveries of one partition: by case, in the order
// of acceptance, and the heads of the cases by destination and due time. It is
// not safe for concurrent use; its lane locks.
type queue struct {
	byID  map[uuid.UUID]*entry
	cases map[caseKey][]*entry
	ready map[string]*heads // by destination
	next  int64             // offset behind the newest waiting record that was recorded
	// floors of appends to the waiting topic whose event is not recorded yet:
	// their records lie at the floor or above, and must not be cut.
	floors map[*int64]struct{}
}

func newQueue() *queue {
	return &queue{byID: map[uuid.UUID]*entry{}, cases: map[caseKey][]*entry{}, ready: map[string]*heads{}, floors: map[*int64]struct{}{}}
}

// blocked says whether another unfinished delivery of its case holds e back: one
// that stands before it, or one that is being attempted.
func (q *queue) blocked(e *entry) bool {
	c := q.cases[e.key]
	return c[0] != e || slices.ContainsFunc(c[1:], func(o *entry) bool { return o.running })
}

// behind names the delivery fresh from the bus that stands before e in its case,
// if there is one.
func (q *queue) behind(e *entry) (behind, bool) {
	for _, o := range q.cases[e.key] {
		if o == e {
			break
		}
		if o.fresh {
			return behind{submission: o.sub, delivery: o.id, order: o.order, record: o.record}, true
		}
	}
	return behind{}, false
}

// put adds an entry or brings a changed one back into its place.
func (q *queue) put(e *entry) {
	if q.byID[e.id] == nil {
		q.byID[e.id] = e
		c := q.cases[e.key]
		i := sort.Search(len(c), func(i int) bool { return c[i].order > e.order })
		c = append(c, nil)
		copy(c[i+1:], c[i:])
		c[i] = e
		q.cases[e.key] = c
	}
	q.offer(e.key)
}

// remove ends an entry; the next one of its case comes up.
func (q *queue) remove(e *entry) {
	delete(q.byID, e.id)
	c := q.cases[e.key]
	for i := range c {
		if c[i] == e {
			c = append(c[:i], c[i+1:]...)
			break
		}
	}
	if len(c) == 0 {
		delete(q.cases, e.key)
	} else {
		q.cases[e.key] = c
	}
	q.offer(e.key)
}

// offer puts the head of a case where the scheduler finds it, or takes it away.
func (q *queue) offer(k caseKey) {
	h := q.ready[k.destination]
	if h == nil {
		h = &heads{at: map[caseKey]int{}}
		q.ready[k.destination] = h
	}
	c := q.cases[k]
	if len(c) == 0 || c[0].dead || c[0].running {
		h.drop(k)
	} else {
		h.set(k, c[0])
	}
	if len(h.list) == 0 {
		delete(q.ready, k.destination)
	}
}

// appending notes that a record is about to be appended to the waiting topic;
// the returned function ends that, after its event was recorded or given up.
func (q *queue) appending() (end func()) {
	floor := q.next
	q.floors[&floor] = struct{}{}
	return func() { delete(q.floors, &floor) }
}

// moved gives an entry its newest waiting record.
func (q *queue) moved(e *entry, offset int64) {
	e.offset = offset
	q.next = max(q.next, offset+1)
}

// low returns the lowest offset of the waiting topic that is still needed.
func (q *queue) low() int64 {
	low := q.next
	for _, e := range q.byID {
		if e.offset != noOffset {
			low = min(low, e.offset)
		}
	}
	for floor := range q.floors {
		low = min(low, *floor)
	}
	return low
}

// heads is a heap of case heads of one destination by due time, then order.
type heads struct {
	list []*entry
	at   map[caseKey]int
}

func (h *heads) Len() int { return len(h.list) }
func (h *heads) Less(i, j int) bool {
	if !h.list[i].due.Equal(h.list[j].due) {
		return h.list[i].due.Before(h.list[j].due)
	}
	return h.list[i].order < h.list[j].order
}
func (h *heads) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.at[h.list[i].key], h.at[h.list[j].key] = i, j
}
func (h *heads) Push(x any) {
	e := x.(*entry)
	h.at[e.key] = len(h.list)
	h.list = append(h.list, e)
}
func (h *heads) Pop() any {
	e := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	delete(h.at, e.key)
	return e
}

func (h *heads) set(k caseKey, e *entry) {
	if i, ok := h.at[k]; ok {
		h.list[i] = e
		heap.Fix(h, i)
		return
	}
	heap.Push(h, e)
}

func (h *heads) drop(k caseKey) {
	if i, ok := h.at[k]; ok {
		heap.Remove(h, i)
	}
}

// headerBehind is the header of a waiting record that was parked behind a
// delivery fresh from the bus: of that one only the account and the bus know.
const headerBehind = "ce_behind"

type behind struct {
	submission, delivery uuid.UUID
	order, record        int64
}

// String writes the header's value.
func (b behind) String() string {
	return fmt.Sprintf("%s %s %d %d", b.submission, b.delivery, b.order, b.record)
}

func parseBehind(text string) (b behind, ok bool) {
	var sub, delivery string
	if n, _ := fmt.Sscanf(text, "%s %s %d %d", &sub, &delivery, &b.order, &b.record); n != 4 {
		return b, false
	}
	var err, other error
	b.submission, err = uuid.Parse(sub)
	b.delivery, other = uuid.Parse(delivery)
	return b, err == nil && other == nil
}
