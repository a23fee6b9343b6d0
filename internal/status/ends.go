package status

import (
	"context"
	"sync"
	"time"

	"weiche/internal/fault"
)

// ends asks the brokers for the ends of a topic once for all who ask at the
// same time. Nobody is given an answer to a request that began before its call:
// it could lack what the caller itself has just appended. So who comes while a
// request is under way shares the following one. It is safe for concurrent use.
type ends struct {
	ask func(ctx context.Context) (oldest, newest []int64, err error)

	mu      sync.Mutex
	running bool
	next    *round
}

type round struct {
	done           chan struct{}
	oldest, newest []int64
	err            error
}

// endsTimeout bounds a request: it belongs to nobody whose context could end it.
const endsTimeout = 30 * time.Second

// now returns the ends as they were at some moment since it was called.
func (e *ends) now(ctx context.Context) (oldest, newest []int64, err error) {
	e.mu.Lock()
	if e.next == nil {
		e.next = &round{done: make(chan struct{})}
	}
	r := e.next
	if !e.running {
		e.running = true
		go e.run()
	}
	e.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, nil, fault.Of(ctx.Err())
	case <-r.done:
		return r.oldest, r.newest, r.err
	}
}

// run asks until nobody waits for an answer.
func (e *ends) run() {
	for {
		e.mu.Lock()
		r := e.next
		e.next, e.running = nil, r != nil
		e.mu.Unlock()
		if r == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), endsTimeout)
		r.oldest, r.newest, r.err = e.ask(ctx)
		cancel()
		close(r.done)
	}
}
