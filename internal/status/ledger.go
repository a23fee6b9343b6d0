package status

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// overlayLimit bounds the events that were appended and are not yet projected;
// at the bound Append waits for the projection.
const overlayLimit = 100_000

// ErrSuperseded says that another owner of the stage's partition has begun: the
// events were not written, since they would take no effect. Whoever still owns
// the partition acquires it again.
var ErrSuperseded = fault.New(fault.Retryable, fault.ReasonUnknown, "another owner of this partition has begun; nothing was recorded")

// Ledger is the stages' view of the account: the projection, and over it the
// events of this process that are not projected yet. It knows events only: a
// submission that dispatch has not copied to them is unknown here. One process
// has one Ledger, shared by its stages. Its methods are safe for concurrent
// use; the events of one submission must be appended one after the other.
type Ledger struct {
	store *Store
	log   Log
	now   func() time.Time

	mu      sync.Mutex
	pending map[uuid.UUID][]own
	queues  map[int32][]told // by partition, about in order of offsets
	count   int
	shrunk  chan struct{}
	done    map[int32]int64 // offsets below which events are projected

	ends ends
}

type own struct {
	partition int32
	offset    int64
	event     submission.Event
}

type told struct {
	offset int64
	id     uuid.UUID
}

// NewLedger returns the ledger over a store that a Projector keeps up to date.
func NewLedger(store *Store, log Log, now func() time.Time) *Ledger {
	if now == nil {
		now = time.Now
	}
	l := &Ledger{store: store, log: log, now: now, pending: map[uuid.UUID][]own{}, queues: map[int32][]told{}, shrunk: make(chan struct{}), done: map[int32]int64{}}
	l.ends.ask = func(ctx context.Context) (oldest, newest []int64, err error) { return log.Offsets(ctx, TopicEvents) }
	store.progress.mu.Lock()
	defer store.progress.mu.Unlock()
	l.projected(store.progress.offsets)
	store.progress.watch = append(store.progress.watch, l.projected)
	return l
}

// projected drops what the projection knows by now. It is called under the
// progress's lock, so nobody may ask for progress who holds the ledger's.
func (l *Ledger) projected(now map[source]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.count
	for src, o := range now {
		if src.topic != TopicEvents {
			continue
		}
		l.done[src.partition] = o
		q := l.queues[src.partition]
		n := 0
		for n < len(q) && q[n].offset < o {
			l.drop(q[n].id, src.partition, o)
			n++
		}
		if n == len(q) {
			delete(l.queues, src.partition)
		} else if n > 0 {
			l.queues[src.partition] = q[n:]
		}
	}
	if l.count < before {
		close(l.shrunk)
		l.shrunk = make(chan struct{})
	}
}

func (l *Ledger) drop(id uuid.UUID, partition int32, below int64) {
	list := l.pending[id]
	kept := slices.DeleteFunc(list, func(o own) bool { return o.partition == partition && o.offset < below })
	l.count -= len(list) - len(kept)
	if len(kept) == 0 {
		delete(l.pending, id)
		return
	}
	l.pending[id] = kept
}

// Account returns where a submission stands by all events this process knows
// of, as a copy of the caller's own. An unknown submission's account is zero:
// Known is false.
func (l *Ledger) Account(_ context.Context, id uuid.UUID) (*submission.Account, error) {
	// The overlay first: an event that is projected in between stands in both,
	// and its offset tells.
	l.mu.Lock()
	list := slices.Clone(l.pending[id])
	l.mu.Unlock()

	e, err := l.store.entry(id, hasCopied)
	if err != nil {
		return nil, fault.Wrap(err, fault.Retryable, fault.ReasonStorage, "the status store cannot be read")
	}
	a := &submission.Account{}
	if e == nil {
		e = &entry{}
	} else if e.acct.Copied {
		a = e.acct.Clone()
	}
	slices.SortFunc(list, func(x, y own) int { return cmp.Compare(x.offset, y.offset) })
	for i := range list {
		if o := &list[i]; o.partition != e.partition || o.offset >= e.next {
			a.Apply(clone(o.event))
		}
	}
	return a, nil
}

// clone keeps what an account takes over from an event apart from the overlay.
func clone(e submission.Event) submission.Event {
	if e.Held != nil {
		h := *e.Held
		e.Held = &h
	}
	if e.DueAt != nil {
		t := *e.DueAt
		e.DueAt = &t
	}
	if e.Decision != nil {
		d := *e.Decision
		d.Deliveries = slices.Clone(d.Deliveries)
		e.Decision = &d
	}
	return e
}

// Append writes events to a partition of the account and returns when they are
// durable; from then on Account knows them. Its errors are faults of the bus,
// or ErrSuperseded.
func (l *Ledger) Append(ctx context.Context, partition int32, evs ...submission.Event) error {
	recs, all := make([]*bus.Record, len(evs)), make([]bus.Record, len(evs))
	var checked epochKey
	var newest int64
	for i := range evs {
		ev := &evs[i]
		if k := (epochKey{ev.Stage, partition}); k != checked {
			checked, newest = k, l.store.epochOf(ev.Stage, partition).n
		}
		if ev.Epoch > 0 && newest > ev.Epoch {
			return ErrSuperseded
		}
		var err error
		if all[i], err = record(partition, ev); err != nil {
			return err
		}
		recs[i] = &all[i]
	}
	if err := l.room(ctx); err != nil {
		return err
	}
	if err := l.log.Append(ctx, recs...); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	done := l.done[partition]
	for i := range evs {
		ev := &evs[i]
		// Where the projection was faster there is nothing to overlay.
		if ev.Submission == uuid.Nil || done > recs[i].Offset {
			continue
		}
		l.pending[ev.Submission] = append(l.pending[ev.Submission], own{partition, recs[i].Offset, *ev})
		l.queues[partition] = append(l.queues[partition], told{recs[i].Offset, ev.Submission})
		l.count++
	}
	return nil
}

func (l *Ledger) room(ctx context.Context) error {
	for {
		l.mu.Lock()
		full, shrunk := l.count >= overlayLimit, l.shrunk
		l.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.Of(ctx.Err())
		case <-shrunk:
		}
	}
}

func record(partition int32, ev *submission.Event) (bus.Record, error) {
	value, err := ev.Encode()
	if err != nil {
		return bus.Record{}, fmt.Errorf("event %s: %w", ev.Type, err)
	}
	key := ev.CaseID.String()
	if ev.CaseID == uuid.Nil {
		key = string(ev.Type)
	}
	return bus.Record{Topic: TopicEvents, Partition: partition, Key: []byte(key), Value: value, Headers: ev.Headers(), Time: ev.At}, nil
}

// Acquire makes the caller the writer of a stage's events in a partition: it
// waits until everything in the partition is projected, writes an epoch one
// above the last, waits until that is projected, and returns the epoch. Events
// of the former owner take no effect from then on.
//
// Where somebody else took that number first it returns ErrSuperseded and does
// not ask for another one: a caller that stood still in here past its group
// session would take the partition from the owner that the group has chosen
// since. Only a caller whose partition it still is may try again.
func (l *Ledger) Acquire(ctx context.Context, stage submission.Stage, partition int32) (int64, error) {
	if err := l.CatchUp(ctx, partition); err != nil {
		return 0, err
	}
	next := l.store.epochOf(stage, partition).n + 1
	// Drawn, not derived: two who take the same number must be told apart.
	id := uuid.New()
	r, err := record(partition, &submission.Event{ID: id, Type: submission.EventOwner, At: l.now().UTC(), Stage: stage, Epoch: next})
	if err != nil {
		return 0, err
	}
	if err := l.log.Append(ctx, &r); err != nil {
		return 0, err
	}
	failpoint.Hit("status.owner-told")
	if err := l.store.progress.wait(ctx, map[source]int64{{TopicEvents, partition}: r.Offset + 1}); err != nil {
		return 0, fault.Of(err)
	}
	if e := l.store.epochOf(stage, partition); e.owner != id.String() {
		return 0, ErrSuperseded
	}
	return next, nil
}

// Owns says whether epoch is still the newest of a stage's partition, by
// everything that stood in the log when it was called. Then every event that
// its owner had appended by then has taken effect: epochs only rise. Many may
// ask at once; one request to the brokers answers them all.
func (l *Ledger) Owns(ctx context.Context, stage submission.Stage, partition int32, epoch int64) (bool, error) {
	// What is known to be lost needs no question.
	if l.store.epochOf(stage, partition).n > epoch {
		return false, nil
	}
	if err := l.CatchUp(ctx, partition); err != nil {
		return false, err
	}
	return l.store.epochOf(stage, partition).n == epoch, nil
}

// CatchUp returns when everything is projected that stood in the partition of
// events when it was called.
func (l *Ledger) CatchUp(ctx context.Context, partition int32) error {
	oldest, newest, err := l.ends.now(ctx)
	if err != nil {
		return err
	}
	if int(partition) >= len(newest) {
		return fault.New(fault.Retryable, fault.ReasonUnknownTopic, "%s has no partition %d", TopicEvents, partition)
	}
	if oldest[partition] == newest[partition] {
		return nil
	}
	if err := l.store.progress.wait(ctx, map[source]int64{{TopicEvents, partition}: newest[partition]}); err != nil {
		return fault.Of(err)
	}
	return nil
}

// Dead returns the dead deliveries of a partition, as projected.
func (l *Ledger) Dead(ctx context.Context, partition int32) ([]submission.DeliveryMeta, error) {
	all, err := l.store.Unfinished(ctx, partition)
	if err != nil {
		return nil, fault.Wrap(err, fault.Retryable, fault.ReasonStorage, "the status store cannot be read")
	}
	var out []submission.DeliveryMeta
	for _, u := range all {
		if u.State == submission.Dead {
			out = append(out, u.DeliveryMeta)
		}
	}
	return out, nil
}

// Expected returns the deliveries of a partition that come back to life in the
// place of a dead one, and of which nothing is told since, as projected: those
// that are told as redriven, and those of a higher revision.
func (l *Ledger) Expected(ctx context.Context, partition int32) ([]submission.DeliveryMeta, error) {
	var out []submission.DeliveryMeta
	err := l.store.deliveries(ctx, `d.state = 'in-flight'`, partition, func(u Unfinished) { out = append(out, u.DeliveryMeta) })
	if err != nil {
		return nil, fault.Wrap(err, fault.Retryable, fault.ReasonStorage, "the status store cannot be read")
	}
	return out, nil
}

// EpochOf returns the epoch of a stage's present owner in a partition, 0 before
// the first.
func (s *Store) EpochOf(stage submission.Stage, partition int32) int64 {
	return s.epochOf(stage, partition).n
}

func (s *Store) epochOf(stage submission.Stage, partition int32) epoch {
	s.progress.mu.Lock()
	defer s.progress.mu.Unlock()
	return s.progress.epochs[epochKey{stage, partition}]
}
