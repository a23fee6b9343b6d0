package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
)

// Log is what jobs need of the bus.
type Log interface {
	Fetcher
	bus.Tailer
}

// chunkItems is how many items are carried out, and told as done, together. A
// crash repeats what it asked of a chunk's items.
const chunkItems = 128

// The records of a job in the topic, by key. The job itself comes last of a
// preview: items without it are a preview that was never finished.
//
//	<id>              the Job
//	<id>/items/<n>    a chunk of items
//	<id>/word/<uuid>  what was said to it
//	<id>/chunk/<n>    what was done of a chunk; the newest counts
const (
	partItems = "items"
	partWord  = "word"
	partChunk = "chunk"
)

// chunk is what was done of a chunk of items.
type chunk struct {
	Progress
	Complete bool      `json:"complete"`
	Failures []Failure `json:"failures,omitempty"`
}

// book is what the topic says, as far as it is read. It keeps no item in memory,
// only where they lie. It is safe for concurrent use.
type book struct {
	*bus.Follower
	log Fetcher
	now func() time.Time

	mu   sync.Mutex
	jobs map[uuid.UUID]*entry
}

// entry is one job in the book.
type entry struct {
	job    *Job
	words  []Word
	items  map[int]int64 // chunk → offset of its items
	chunks map[int]done
	keys   map[string]struct{}
	seen   time.Time // of the newest record
}

// done is what was done of a chunk and where its failures stand.
type done struct {
	Progress
	complete bool
	offset   int64
}

func newBook(log Log, now func() time.Time) *book {
	return &book{Follower: bus.NewFollower(log, bus.TopicJobs), log: log, now: now, jobs: map[uuid.UUID]*entry{}}
}

// follow reads the topic until ctx ends.
func (b *book) follow(ctx context.Context, broken func(offset int64)) error {
	return b.Run(ctx, func(r *bus.Record) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.apply(r) {
			broken(r.Offset)
		}
	})
}

// apply takes one record in; false where it cannot be read.
func (b *book) apply(r *bus.Record) bool {
	key := string(r.Key)
	name, part, _ := strings.Cut(key, "/")
	id, err := uuid.Parse(name)
	if err != nil {
		return false
	}
	if r.Value == nil {
		b.forget(id, key)
		return true
	}
	e := b.jobs[id]
	if e == nil {
		e = &entry{items: map[int]int64{}, chunks: map[int]done{}, keys: map[string]struct{}{}}
		b.jobs[id] = e
	}
	e.keys[key], e.seen = struct{}{}, r.Time
	what, rest, _ := strings.Cut(part, "/")
	switch what {
	case "":
		var j Job
		if json.Unmarshal(r.Value, &j) != nil {
			return false
		}
		e.job = &j
		return true
	case partWord:
		var w Word
		if json.Unmarshal(r.Value, &w) != nil {
			return false
		}
		e.words = append(e.words, w)
		return true
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		return false
	}
	switch what {
	case partItems:
		e.items[n] = r.Offset
	case partChunk:
		var c chunk
		if json.Unmarshal(r.Value, &c) != nil {
			return false
		}
		// Who has lost the job may still tell of the part that was done by then.
		if c.Complete || !e.chunks[n].complete {
			e.chunks[n] = done{c.Progress, c.Complete, r.Offset}
		}
	default:
		return false
	}
	return true
}

func (b *book) forget(id uuid.UUID, key string) {
	e := b.jobs[id]
	if e == nil {
		return
	}
	if delete(e.keys, key); len(e.keys) == 0 {
		delete(b.jobs, id)
	}
	if key == id.String() {
		e.job = nil
	}
}

func (b *book) record(key string, v any) (*bus.Record, error) {
	r := &bus.Record{Topic: bus.TopicJobs, Key: []byte(key), Time: b.now()}
	if v == nil {
		return r, nil
	}
	var err error
	if r.Value, err = json.Marshal(v); err != nil {
		return nil, fmt.Errorf("record %s: %w", key, err)
	}
	return r, nil
}

func part(id uuid.UUID, what string, n int) string {
	return id.String() + "/" + what + "/" + strconv.Itoa(n)
}

// view returns one job, nil where there is none.
func (b *book) view(id uuid.UUID) *View {
	for _, v := range b.views() {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// views returns every job, the newest first. Of those that are told to run the
// first one told so runs.
func (b *book) views() []*View {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*View
	var first *View
	for _, e := range b.jobs {
		if e.job == nil {
			continue
		}
		v := e.view()
		if v.State == Running && (first == nil || earlier(v, first)) {
			if first != nil {
				first.State = Queued
			}
			first = v
		} else if v.State == Running {
			v.State = Queued
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(x, y *View) int { return cmp.Or(y.At.Compare(x.At), strings.Compare(x.ID.String(), y.ID.String())) })
	return out
}

func earlier(x, y *View) bool {
	return cmp.Or(x.began().Compare(y.began()), strings.Compare(x.ID.String(), y.ID.String())) < 0
}

func (e *entry) view() *View {
	v := &View{Job: *e.job, State: Previewed, Words: slices.Clone(e.words)}
	complete := 0
	v.Progress.add(Progress{})
	for _, c := range e.chunks {
		v.Progress.add(c.Progress)
		if c.complete {
			complete++
		}
	}
	switch v.last().Verb {
	case Run, Resume:
		v.State = Running
	case Stop:
		v.State = Stopped
	}
	if v.State != Previewed && complete == len(e.items) {
		v.State = Done
	}
	return v
}

// open returns the first chunk of a job that is not complete; -1 where all are.
func (b *book) open(id uuid.UUID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.jobs[id]
	if e == nil {
		return -1
	}
	for _, n := range slices.Sorted(maps.Keys(e.items)) {
		if !e.chunks[n].complete {
			return n
		}
	}
	return -1
}

// places returns the offsets of a job's items, or of what was done of its
// chunks, in the order of the chunks.
func (b *book) places(id uuid.UUID, what string) []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []int64
	if e := b.jobs[id]; e != nil {
		for _, n := range slices.Sorted(maps.Keys(e.items)) {
			if what == partItems {
				out = append(out, e.items[n])
			} else if c, ok := e.chunks[n]; ok {
				out = append(out, c.offset)
			}
		}
	}
	return out
}

func (b *book) place(id uuid.UUID, n int) (int64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.jobs[id]; e != nil {
		o, ok := e.items[n]
		return o, ok
	}
	return 0, false
}

// load reads what a record of the topic holds into v.
func (b *book) load(ctx context.Context, offset int64, v any) error {
	r, err := b.log.Fetch(ctx, bus.TopicJobs, 0, offset)
	if err != nil {
		return err
	}
	return json.Unmarshal(r.Value, v)
}

// stale returns the keys of jobs that are not at work and of which nothing was
// heard since before, and of previews that were not finished or not used.
func (b *book) stale(kept, unused time.Time) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, e := range b.jobs {
		before := kept
		switch {
		case e.job == nil:
			before = unused
		case e.view().State == Previewed:
			before = unused
		case e.view().State == Running:
			continue
		}
		if e.seen.Before(before) {
			out = append(out, slices.Sorted(maps.Keys(e.keys))...)
		}
	}
	return out
}
