package delivery

import (
	"sync/atomic"
	"time"
)

// pace is a running mean of how long something takes, the newest counting most.
// It is safe for concurrent use.
type pace struct{ ns atomic.Int64 }

// paceOver is about how many measurements the mean is taken of.
const paceOver = 16

func (p *pace) took(d time.Duration) {
	// One that is lost between two writers does not matter.
	old := p.ns.Load()
	p.ns.Store(old + (int64(d)-old)/paceOver)
}

func (p *pace) mean() time.Duration { return time.Duration(p.ns.Load()) }
