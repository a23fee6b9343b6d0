package delivery

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// The queue's contract, against random histories: a case is offered one entry
// at a time and in the order of acceptance, nothing is offered while an earlier
// one is running or dead, and the lowest unfinished offset is exact.
func TestQueueKeepsCasesInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue()
		var nextOffset int64
		order := int64(0)
		entries := []*entry{}
		open := map[int64]bool{}
		newKey := func() caseKey {
			return caseKey{"p", uuid.UUID{byte(rapid.IntRange(0, 3).Draw(t, "case"))}, string(rune('a' + rapid.IntRange(0, 2).Draw(t, "dest")))}
		}
		now := time.Unix(1000, 0)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1: // a new one is parked or waits
				order++
				e := &entry{id: uuid.New(), key: newKey(), order: order, offset: nextOffset,
					due: now.Add(time.Duration(rapid.IntRange(0, 50).Draw(t, "due")) * time.Second)}
				q.moved(e, nextOffset)
				open[nextOffset] = true
				nextOffset++
				q.put(e)
				entries = append(entries, e)
			default:
				if len(entries) == 0 {
					continue
				}
				e := entries[rapid.IntRange(0, len(entries)-1).Draw(t, "which")]
				if q.cases[e.key][0] != e {
					continue // only heads are ever attempted
				}
				switch rapid.IntRange(0, 3).Draw(t, "deed") {
				case 0:
					e.running = true
					q.put(e)
				case 1: // failed: a new waiting record
					delete(open, e.offset)
					e.running, e.dead = false, false
					q.moved(e, nextOffset)
					open[nextOffset] = true
					nextOffset++
					q.put(e)
				case 2:
					delete(open, e.offset)
					e.offset, e.running, e.dead = noOffset, false, true
					q.put(e)
				case 3:
					delete(open, e.offset)
					q.remove(e)
					for i := range entries {
						if entries[i] == e {
							entries = append(entries[:i], entries[i+1:]...)
							break
						}
					}
				}
			}
			want := map[caseKey]*entry{}
			for _, e := range entries { // entries are in order of acceptance
				if want[e.key] == nil {
					want[e.key] = e
				}
			}
			offered := 0
			for dest, h := range q.ready {
				for i, e := range h.list {
					offered++
					if want[e.key] != e || e.running || e.dead || e.key.destination != dest || h.at[e.key] != i {
						t.Fatalf("offered %+v, the head is %+v", e, want[e.key])
					}
					if i > 0 && h.Less(i, (i-1)/2) {
						t.Fatalf("the heap of %s is not in order at %d", dest, i)
					}
				}
			}
			for _, e := range want {
				if !e.running && !e.dead {
					offered--
				}
			}
			if offered != 0 {
				t.Fatalf("%d heads too many (or too few) are offered", offered)
			}
			low := nextOffset
			for o := range open {
				low = min(low, o)
			}
			if q.low() != low {
				t.Fatalf("lowest unfinished offset %d, want %d", q.low(), low)
			}
			// What is appended and not recorded yet is not cut, whatever others do.
			end := q.appending()
			other := &entry{id: uuid.New(), key: newKey(), order: order + 1}
			q.moved(other, nextOffset+1) // the one being appended got nextOffset
			q.put(other)
			q.remove(other)
			if q.low() > nextOffset {
				t.Fatalf("offset %d is cut while its event is not recorded yet", nextOffset)
			}
			end()
			q.next = nextOffset
		}
	})
}
