package bus

import (
	"sync/atomic"
	"time"
)

// pace is a running mean of how long something takes, the newest counting most.
// It is safe for concurrent use.
type pace struct {
	ns   atomic.Int64
	last atomic.Int64 // when it was measured last, Unix nanoseconds
}

// paceOver is about how many measurements the mean is taken of; paceFor is how
// long they count.
const (
	paceOver = 16
	paceFor  = 10 * time.Second
)

func (p *pace) took(d time.Duration, now time.Time) {
	// One that is lost between two writers does not matter.
	old := p.ns.Load()
	if p.old(now) {
		old = int64(d)
	}
	p.ns.Store(old + (int64(d)-old)/paceOver)
	p.last.Store(now.UnixNano())
}

// mean is 0 where nothing was measured for paceFor.
func (p *pace) mean(now time.Time) time.Duration {
	if p.old(now) {
		return 0
	}
	return time.Duration(p.ns.Load())
}

func (p *pace) old(now time.Time) bool { return now.Sub(time.Unix(0, p.last.Load())) > paceFor }

// Writing returns how long Append takes at the moment where it writes a record of
// a few kilobytes: the mean of the newest, 0 where nothing was written for ten
// seconds. Such appends share a producer, so it tells what one more would take.
func (b *Bus) Writing() time.Duration { return b.small.pace.mean(time.Now()) }
