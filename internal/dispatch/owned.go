package dispatch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"weiche/internal/submission"
)

// ownership is a partition that is ours, with the epoch we write under.
type ownership struct {
	partition int32
	epoch     atomic.Int64
	lost      atomic.Bool // another owner has begun; nothing we record takes effect
	held      context.Context
	giveUp    context.CancelFunc
	retakes   sync.WaitGroup
}

// Owned returns the partitions this process dispatches for, with the epoch it
// owns each under.
func (s *Stage) Owned() map[int32]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[int32]int64, len(s.owned))
	for p, o := range s.owned {
		if !o.lost.Load() {
			out[p] = o.epoch.Load()
		}
	}
	return out
}

// retakeAfter gives the group the time to revoke a partition from an owner that
// was superseded rightly.
const retakeAfter = 3 * time.Second

// superseded is told when another owner turns out to have begun. Where the
// partition is ours nevertheless (the other one has lost it by now), it is
// acquired again after a while; else it is revoked before that.
func (s *Stage) superseded(o *ownership) {
	if o.lost.Swap(true) {
		return
	}
	s.logger.Warn("another owner of the partition has begun", "partition", o.partition, "epoch", o.epoch.Load())
	o.retakes.Go(func() {
		for pause := s.retakeAfter; ; pause = min(2*pause, time.Minute) {
			t := time.NewTimer(pause)
			select {
			case <-o.held.Done():
				t.Stop()
				return
			case <-t.C:
			}
			epoch, err := s.ledger.Acquire(o.held, submission.StageDispatch, o.partition)
			if err != nil {
				continue
			}
			o.epoch.Store(epoch)
			o.lost.Store(false)
			s.logger.Info("partition taken back", "partition", o.partition, "epoch", epoch)
			return
		}
	})
}
