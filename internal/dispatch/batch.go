package dispatch

import (
	"context"
	"errors"
	"runtime"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// batch carries records of one partition through the stage together: what they
// lead to is planned one by one, and written with three appends for all of them.
// Waiting for the broker is the same for one record and for many.
type batch struct {
	*Stage
	partition int32
	epoch     int64
	cat       Catalogue

	errs   []error          // by record
	failed map[string]error // by key: what stands behind a failed record has to wait for it
}

func (b *batch) run(ctx context.Context, recs []*bus.Record) {
	var works []*work
	planned := map[uuid.UUID]bool{}
	bytes := 0
	flush := func() {
		b.carry(ctx, works)
		works, bytes = nil, 0
		clear(planned)
	}
	for i, rec := range recs {
		// Planning a batch takes milliseconds of computing, and each of the dozen hops
		// between goroutines that a delivery takes would stand behind all batches of
		// all partitions, so that nothing but dispatch came forward.
		runtime.Gosched()
		w := &work{batch: b, index: i, rec: rec}
		var err error
		if w.meta, err = submission.ParseMeta(rec.Headers); err != nil {
			w.undecodable(err)
			works = append(works, w)
			continue
		}
		if planned[w.meta.ID] {
			flush() // what it leads to depends on what is recorded by then
		}
		if err = b.failed[string(rec.Key)]; err == nil {
			if err = ctx.Err(); err == nil {
				err = w.plan(ctx)
				w.env = nil // a large form lies in the blob store, and its record says nothing of its size
			}
		}
		if err != nil {
			w.fail(err)
			continue
		}
		if len(w.deliveries) > 1 {
			flush()
			b.carry(ctx, []*work{w}) // in two steps, see deliver
			continue
		}
		planned[w.meta.ID] = true
		works = append(works, w)
		if bytes += w.bytes(); bytes > carryBytes {
			flush()
		}
	}
	flush()
}

// carryBytes is how much is planned before it is written.
const carryBytes = 4 << 20

// bytes is what the work keeps in memory until it is written.
func (w *work) bytes() (n int) {
	for _, d := range w.deliveries {
		n += len(d.Value)
	}
	if w.held != nil {
		n += len(w.held.Value)
	}
	return n
}

func (w *work) fail(err error) {
	w.errs[w.index] = fault.Of(err)
	w.failed[string(w.rec.Key)] = w.errs[w.index]
}

// carry writes what the works lead to. Where one of them is too large, it finds
// out which by writing them one by one: what was appended twice is dropped by
// those who read it.
func (b *batch) carry(ctx context.Context, works []*work) {
	if len(works) == 0 {
		return
	}
	err := b.write(ctx, works)
	var f *fault.Error
	switch {
	case err == nil:
		for _, w := range works {
			if w.done != nil {
				w.done()
			}
		}
	case !errors.As(err, &f) || f.Reason != fault.ReasonTooLarge:
		for _, w := range works {
			w.fail(err)
		}
	case len(works) > 1:
		for _, w := range works {
			if before := b.failed[string(w.rec.Key)]; before != nil {
				w.fail(before)
				continue
			}
			b.carry(ctx, []*work{w})
		}
	case works[0].held == nil && len(works[0].deliveries) > 0:
		w := works[0]
		w.bury(fault.Wrap(err, fault.Permanent, fault.ReasonTooLarge, "the message is too large for a record"))
		b.carry(ctx, works)
	default:
		works[0].fail(err)
	}
}

// write appends copies, events and deliveries, in this order: an event names
// where its copy lies, and a decision is recorded before it is carried out.
// Nothing is acknowledged unless all of it is appended.
func (b *batch) write(ctx context.Context, works []*work) error {
	failpoint.Hit("dispatch.decided")
	var copies, deliveries []*bus.Record
	var events []submission.Event
	for _, w := range works {
		if w.held != nil {
			copies = append(copies, w.held)
		}
	}
	if err := b.append(ctx, copies); err != nil {
		return err
	}
	for _, w := range works {
		if w.held != nil {
			failpoint.Hit("dispatch.copy-appended")
			w.events[len(w.events)-1].Held = &submission.Held{Topic: w.held.Topic, Partition: w.held.Partition, Offset: w.held.Offset}
		}
		events = append(events, w.events...)
	}
	if len(events) > 0 {
		if err := b.ledger.Append(ctx, b.partition, events...); err != nil {
			return err
		}
		failpoint.Hit("dispatch.told")
	}
	for _, w := range works {
		if len(w.deliveries) > 0 {
			deliveries = append(deliveries, w.deliveries[0])
		}
	}
	if err := b.append(ctx, deliveries); err != nil || len(works) > 1 || len(deliveries) == 0 {
		return err
	}
	failpoint.Hit("dispatch.first-appended")
	return b.append(ctx, works[0].deliveries[1:])
}

func (b *batch) append(ctx context.Context, recs []*bus.Record) error {
	if len(recs) == 0 {
		return nil
	}
	return b.log.Append(ctx, recs...)
}
