package app

import (
	"context"
	"time"

	"github.com/google/uuid"

	"weiche/internal/delivery"
	"weiche/internal/dispatch"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

const (
	cutEvery   = 30 * time.Second
	sweepEvery = time.Hour
	orphanAge  = 24 * time.Hour // design: orphans are swept after a day
	signEvery  = 15 * time.Minute
)

// janitor cuts topics below the lowest unfinished offset and sweeps blobs that
// no submission names, until ctx ends.
func (a *App) janitor(ctx context.Context) error {
	cut := time.NewTicker(cutEvery)
	defer cut.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	sign := time.NewTicker(signEvery)
	defer sign.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sign.C:
			a.checkpoint(ctx)
		case <-cut.C:
			a.cut(ctx, dispatch.Group, dispatch.Topic)
			a.cut(ctx, delivery.Group, delivery.Topic)
		case <-sweep.C:
			n, err := a.vault.Sweep(ctx, a.now().Add(-orphanAge), a.wanted(ctx))
			if err != nil && ctx.Err() == nil {
				a.logger.Error("sweeping orphaned blobs failed, trying again", "error", fault.Of(err).Error())
			} else if n > 0 {
				a.logger.Info("orphaned blobs swept", "blobs", n)
			}
		}
	}
}

// cut deletes what a stage has finished. The projection must have seen it: it
// reads the submissions too.
func (a *App) cut(ctx context.Context, group, topic string) {
	committed, err := a.bus.Committed(ctx, group, topic)
	if err != nil {
		return // the bus says so by itself
	}
	for p, offset := range committed {
		part := int32(p) //nolint:gosec // partition numbers are small
		if topic == dispatch.Topic {
			offset = min(offset, a.store.Progress(topic, part))
		}
		if offset <= 0 {
			continue
		}
		if err := a.bus.DeleteBelow(ctx, topic, part, offset); err != nil && ctx.Err() == nil {
			a.logger.Warn("finished records could not be deleted, trying again", "topic", topic, "partition", p, "reason", fault.Of(err).Reason)
			return
		}
	}
}

// checkpoint signs the running hash of every partition of events that this
// process dispatches for, so that tampering shows.
func (a *App) checkpoint(ctx context.Context) {
	for partition, epoch := range a.dispatch.Owned() {
		err := a.projector.Checkpoint(ctx, partition, func(ctx context.Context, ev submission.Event) error {
			ev.Stage, ev.Epoch = submission.StageDispatch, epoch
			return a.ledger.Append(ctx, partition, ev)
		})
		if err != nil && ctx.Err() == nil {
			a.logger.Warn("a checkpoint could not be written, trying again", "partition", partition, "reason", fault.Of(err).Reason)
		}
	}
}

// wanted says whether an append's blobs are still needed: the append that
// counts of a known submission.
func (a *App) wanted(ctx context.Context) func(submissionID, appendID string) (bool, error) {
	return func(submissionID, appendID string) (bool, error) {
		id, err := uuid.Parse(submissionID)
		if err != nil {
			return true, nil // not ours to judge
		}
		acct, err := a.ledger.Account(ctx, id)
		if err != nil {
			return true, err
		}
		return acct.Known() && acct.Append.String() == appendID, nil
	}
}
