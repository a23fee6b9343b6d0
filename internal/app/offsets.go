package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/delivery"
	"weiche/internal/dispatch"
	"weiche/internal/fault"
	kafkadoor "weiche/internal/intake/kafka"
	"weiche/internal/status"
)

// offsetLog is what restoring group offsets needs of the bus.
type offsetLog interface {
	Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error)
	Committed(ctx context.Context, group, topic string) ([]int64, error)
	Commit(ctx context.Context, group, topic string, partition int32, offset int64) error
	ReadTo(ctx context.Context, topic string, partition int32, from, to int64, fn func(*bus.Record) error) error
}

// finished says whether nothing more has to be done for a record, by the
// account. With strict, what the account cannot tell counts as not done.
type finished func(ctx context.Context, rec *bus.Record, strict bool) (bool, error)

// offsets checks a group's offsets against the account before its members join.
//
// A lost offset (deleted, or expired while no router ran: Kafka forgets an empty
// group's after offsets.retention.minutes, seven days) is put to the lowest
// unfinished record. One that passes unfinished records, or the end of the log,
// is put back to the lowest of them. What is read for that is what the janitor
// has not cut yet, never history.
type offsets struct {
	log    offsetLog
	logger *slog.Logger
	// caughtUp returns when the account has everything that stands in the log.
	caughtUp func(ctx context.Context) error
	pause    time.Duration // between two tries where another replica is joining
}

const offsetTries = 30

// restore makes the offsets of a group in a topic right. Its error says why it
// cannot be done; then nothing may consume.
func (o offsets) restore(ctx context.Context, group, topic string, done finished) error {
	for try := 1; ; try++ {
		err := o.once(ctx, group, topic, done)
		// Another replica's member has joined meanwhile: it has checked what we
		// check, and its commits tell by and by.
		if err == nil || try == offsetTries || !errors.Is(err, bus.ErrHasMembers) {
			return err
		}
		t := time.NewTimer(o.pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

func (o offsets) once(ctx context.Context, group, topic string, done finished) error {
	committed, err := o.log.Committed(ctx, group, topic)
	if err != nil {
		return err
	}
	oldest, newest, err := o.log.Offsets(ctx, topic)
	if err != nil {
		return err
	}
	// Everything that was committed stands in the account from here on.
	if err := o.caughtUp(ctx); err != nil {
		return err
	}
	for p := range min(len(committed), len(newest)) {
		if err := o.partition(ctx, group, topic, int32(p), committed[p], oldest[p], newest[p], done); err != nil { //nolint:gosec // a partition number
			return err
		}
	}
	return nil
}

func (o offsets) partition(ctx context.Context, group, topic string, partition int32, at, oldest, newest int64, done finished) error {
	known := at >= 0 && at <= newest
	end := newest
	if known {
		end = at
	}
	low, err := o.lowest(ctx, topic, partition, oldest, end, done, !known)
	if err != nil {
		return err
	}
	if known && low < end { // it is wrong, so nothing is taken for granted
		if low, err = o.lowest(ctx, topic, partition, oldest, low, done, true); err != nil {
			return err
		}
	}
	if low == at || at < 0 && low == oldest { // a group without offset begins at the oldest
		return nil
	}
	if err := o.log.Commit(ctx, group, topic, partition, low); err != nil {
		if errors.Is(err, bus.ErrHasMembers) {
			return fault.Wrap(err, fault.Retryable, fault.ReasonMisconfigured,
				"group %s has the offset %d in %s/%d, the account says that %d is the lowest unfinished, and another router is in the group, so it cannot be set; stop all routers, then start them again", group, at, topic, partition, low)
		}
		return err
	}
	o.warn(group, topic, partition, at, low, oldest, newest)
	return nil
}

var errFound = errors.New("found")

// lowest returns the lowest offset of an unfinished record, end where there is
// none.
func (o offsets) lowest(ctx context.Context, topic string, partition int32, from, end int64, done finished, strict bool) (int64, error) {
	low := end
	err := o.log.ReadTo(ctx, topic, partition, from, end, func(rec *bus.Record) error {
		ok, err := done(ctx, rec, strict)
		if err == nil && !ok {
			low, err = rec.Offset, errFound
		}
		return err
	})
	if err != nil && !errors.Is(err, errFound) {
		return 0, fmt.Errorf("comparing %s/%d with the account: %w", topic, partition, err)
	}
	return low, nil
}

// lowerOnly is restore for a group without members, whose offset another router
// may be moving: a wrong one is put to the oldest record, which is always right,
// and a lost one stays lost, which means the same.
func (o offsets) lowerOnly(ctx context.Context, group, topic string, done finished) error {
	committed, err := o.log.Committed(ctx, group, topic)
	if err != nil {
		return err
	}
	oldest, newest, err := o.log.Offsets(ctx, topic)
	if err != nil {
		return err
	}
	if err := o.caughtUp(ctx); err != nil {
		return err
	}
	for i := range min(len(committed), len(newest)) {
		p, at := int32(i), committed[i] //nolint:gosec // a partition number
		if at <= oldest[i] {
			continue
		}
		low := int64(-1)
		if at <= newest[i] {
			if low, err = o.lowest(ctx, topic, p, oldest[i], at, done, true); err != nil {
				return err
			}
		}
		if low == at {
			continue
		}
		if err := o.log.Commit(ctx, group, topic, p, oldest[i]); err != nil {
			return err
		}
		o.warn(group, topic, p, at, oldest[i], oldest[i], newest[i])
	}
	return nil
}

func (o offsets) warn(group, topic string, partition int32, was, now, oldest, newest int64) {
	o.logger.Warn("a group's offset was lost or wrong and is restored from the account", "group", group, "topic", topic, "partition", partition,
		"was", was, "now", now, "oldest", oldest, "newest", newest)
}

// offsets of this router's groups, against its account.
func (a *App) offsets() offsets {
	return offsets{log: a.bus, logger: a.logger, caughtUp: a.projector.WaitAsked, pause: time.Second}
}

// once runs fn until it succeeds, closes done, and then waits for the end. What
// goes away by itself is tried again; anything else ends the router.
func (a *App) once(fn func(context.Context) error, done chan<- struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			err := fn(ctx)
			if err == nil {
				close(done)
				<-ctx.Done()
				return ctx.Err()
			}
			if f := fault.Of(err); ctx.Err() != nil || f.Class != fault.Retryable || errors.Is(err, bus.ErrHasMembers) {
				return err
			}
			a.logger.Warn("group offsets could not be compared with the account, trying again", "reason", fault.Of(err).Reason)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// past answers from the account for keys whose claims have been forgotten.
type past struct{ a *App }

// Accepted implements intake.Past.
func (p past) Accepted(ctx context.Context, id uuid.UUID) (string, time.Time, bool, error) {
	select {
	case <-p.a.restored: // the account was complete then, and such a claim is older
	default:
		return "", time.Time{}, false, fault.New(fault.Retryable, fault.ReasonStorage, "the account is still being read")
	}
	acct, err := p.a.store.Get(ctx, id)
	if errors.Is(err, status.ErrNotFound) {
		return "", time.Time{}, false, nil
	}
	if err != nil {
		return "", time.Time{}, false, fault.Wrap(err, fault.Retryable, fault.ReasonStorage, "the status store cannot be read")
	}
	return acct.SHA512, acct.AcceptedAt, true, nil
}

// restoreStages makes the offsets of dispatch, delivery and the waiting topic
// right, and waits for what operators have paused.
func (a *App) restoreStages(ctx context.Context) error {
	if err := a.pauses.topic.CaughtUp(ctx); err != nil {
		return err
	}
	o := a.offsets()
	return errors.Join(
		o.restore(ctx, dispatch.Group, dispatch.Topic, func(ctx context.Context, rec *bus.Record, strict bool) (bool, error) {
			return dispatch.Finished(ctx, a.ledger, rec, strict)
		}),
		o.restore(ctx, delivery.Group, delivery.Topic, func(ctx context.Context, rec *bus.Record, _ bool) (bool, error) {
			return delivery.Finished(ctx, a.ledger, rec)
		}),
		o.lowerOnly(ctx, delivery.WaitGroup, delivery.TopicWait, func(ctx context.Context, rec *bus.Record, _ bool) (bool, error) {
			waits, err := delivery.Waits(ctx, a.ledger, rec)
			return !waits, err
		}),
	)
}

// restoreIntake makes the offsets of the portals' own topics right.
func (a *App) restoreIntake(ctx context.Context) error {
	o := a.offsets()
	for _, portal := range a.portals {
		err := o.restore(ctx, kafkadoor.Group, kafkadoor.Topic(portal), func(ctx context.Context, rec *bus.Record, _ bool) (bool, error) {
			return kafkadoor.Finished(ctx, a.store, portal, rec)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
