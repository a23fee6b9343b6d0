package bus

import (
	"context"
	"sync"

	"weiche/internal/fault"
)

// Tailer is what a Follower needs of the bus.
type Tailer interface {
	Append(ctx context.Context, recs ...*Record) error
	Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error)
	Tail(ctx context.Context, topic string, partition int32, from int64, fn func(*Record) error) error
}

// Follower keeps what everyone has to know of a small topic of one partition: it
// reads all of it, goes on reading, and says how far it is, so that who writes
// can wait until what he wrote is known here. It is safe for concurrent use.
type Follower struct {
	log   Tailer
	topic string

	mu    sync.Mutex
	next  int64 // offset behind what was read
	moved chan struct{}
}

// NewFollower returns a follower that has read nothing yet.
func NewFollower(log Tailer, topic string) *Follower {
	return &Follower{log: log, topic: topic, moved: make(chan struct{})}
}

// Run calls take for every record of the topic, from its beginning, until ctx
// ends. To be called once. It returns as Tail does.
func (f *Follower) Run(ctx context.Context, take func(*Record)) error {
	return f.log.Tail(ctx, f.topic, 0, 0, func(r *Record) error {
		take(r)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.next = r.Offset + 1
		close(f.moved)
		f.moved = make(chan struct{})
		return nil
	})
}

// CaughtUp returns when everything is taken that stood in the topic when it was
// called. It fails when the broker cannot be asked, and cancelled with ctx.
func (f *Follower) CaughtUp(ctx context.Context) error {
	oldest, newest, err := f.log.Offsets(ctx, f.topic)
	if err != nil || oldest[0] == newest[0] {
		return err
	}
	return f.wait(ctx, newest[0])
}

// Write appends records to the topic and returns when they are taken here.
func (f *Follower) Write(ctx context.Context, recs ...*Record) error {
	if err := f.log.Append(ctx, recs...); err != nil {
		return err
	}
	return f.wait(ctx, recs[len(recs)-1].Offset+1)
}

// Changed is closed after the next record is taken.
func (f *Follower) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.moved
}

func (f *Follower) wait(ctx context.Context, next int64) error {
	for {
		f.mu.Lock()
		done, moved := f.next >= next, f.moved
		f.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fault.Of(ctx.Err())
		}
	}
}
