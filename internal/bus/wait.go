package bus

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errNoAnswer = errors.New("no answer in time")

// wait is how long one Append may take: until its context ends, or its time is
// up. A context of its own for that would cost more than all else Append does.
type wait struct {
	ctx      context.Context
	deadline time.Time
	timer    *time.Timer
	err      error // set once the wait is over
}

var timers = sync.Pool{New: func() any { return time.NewTimer(time.Hour) }}

func newWait(ctx context.Context, start time.Time, limit time.Duration) *wait {
	t := timers.Get().(*time.Timer)
	t.Reset(limit)
	return &wait{ctx: ctx, deadline: start.Add(limit), timer: t}
}

func (w *wait) close() {
	w.timer.Stop()
	timers.Put(w.timer)
}

// context is for the rare steps that take one.
func (w *wait) context() (context.Context, context.CancelFunc) {
	return context.WithDeadline(w.ctx, w.deadline)
}

// over says why the wait is over; nil means it is not.
func (w *wait) over() error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.ctx.Err(); w.err == nil && !time.Now().Before(w.deadline) {
		w.err = errNoAnswer
	}
	return w.err
}

// until waits for done.
func (w *wait) until(done <-chan struct{}) error {
	if w.err == nil {
		select {
		case <-done:
			return nil
		case <-w.ctx.Done():
			w.err = w.ctx.Err()
		case <-w.timer.C:
			w.err = errNoAnswer
		}
	}
	select {
	case <-done:
		return nil
	default:
		return w.err
	}
}

// hand waits until in takes v.
func hand[T any](w *wait, in chan<- T, v T) error {
	select {
	case in <- v:
		return nil
	default:
	}
	if w.err != nil {
		return w.err
	}
	select {
	case in <- v:
	case <-w.ctx.Done():
		w.err = w.ctx.Err()
	case <-w.timer.C:
		w.err = errNoAnswer
	}
	return w.err
}
