package status

import (
	"sync"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// entry is one submission as the tables have it: its account, the events that
// led to it, and how far they go. Once it is in the cache it never changes:
// whoever folds events in makes another one.
type entry struct {
	row  int64 // in submissions
	acct *submission.Account
	// Every event of partition about the submission below next is folded in.
	partition int32
	next      int64
	story     []byte // places of its events
}

// cacheBytes bounds the decoded accounts in memory, roughly; some 20,000 of
// them.
const cacheBytes = 24 << 20

// cache keeps the entries that were written last. Only the projection fills it,
// when it has committed: an entry that a reader put there could be older than
// what was committed meanwhile. It holds two halves and forgets the elder one
// when the younger one is full. It is safe for concurrent use.
type cache struct {
	mu           sync.Mutex
	limit        int // bytes of one half
	young, elder map[uuid.UUID]*entry
	bytes        int // of the young
}

func newCache(limit int) *cache {
	return &cache{limit: limit / 2, young: map[uuid.UUID]*entry{}}
}

func (c *cache) get(id uuid.UUID) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.young[id]; e != nil {
		return e
	}
	return c.elder[id]
}

func (c *cache) put(id uuid.UUID, e *entry) {
	size := e.size()
	c.mu.Lock()
	defer c.mu.Unlock()
	if size > c.limit/4 { // and what stands there is out of date
		delete(c.young, id)
		delete(c.elder, id)
		return
	}
	if c.bytes+size > c.limit {
		c.young, c.elder, c.bytes = make(map[uuid.UUID]*entry, len(c.young)), c.young, 0
	}
	c.young[id] = e
	c.bytes += size
}

// size is about what an entry takes in memory, in bytes.
func (e *entry) size() int {
	a := e.acct
	n := 1000 + len(e.story) + len(a.Portal) + len(a.SHA512) + len(a.SenderHash) + len(a.Reason) + len(a.Detail)
	if d := a.Decision; d != nil {
		n += 500 + len(d.Authority.Name) + len(d.Rule) + len(d.ConfigHash) + 200*len(d.Deliveries)
	}
	for _, d := range a.Deliveries {
		n += 500 + len(d.Destination) + len(d.Detail) + len(d.Token)
	}
	return n
}
