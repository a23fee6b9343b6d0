package jobs

import (
	"context"
	"errors"
	"sync"
	"time"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/status"
	"weiche/internal/submission"
)

const (
	lookEvery  = time.Second      // for what is to be run
	tidyEvery  = time.Hour        // for what is to be forgotten
	againAfter = 2 * time.Second  // a failed append, or a store that cannot be read
	effectWait = 15 * time.Second // for the owners to come to a chunk's orders; they stand in the log, so it goes on then
	maxBatch   = 64               // orders in one append
	fetchers   = 8                // held records read beside each other
	// A job stops itself where so many of at least so many redriven letters died
	// again: whatever it was redriven for is not mended.
	stopShare, stopLeast = 0.5, 20
)

// Run carries out jobs while this replica owns them, one after the other, until
// ctx ends. A job that was running when a process ended goes on.
func (j *Jobs) Run(ctx context.Context) error {
	var tidied time.Time
	for ctx.Err() == nil {
		changed := j.book.Changed()
		if j.Owns() {
			if err := j.step(ctx, &tidied); err != nil && ctx.Err() == nil {
				j.Logger.Warn("a job could not go on, trying again", "reason", fault.Of(err).Reason, "error", fault.Of(err).Error())
				sleep(ctx, againAfter)
				continue
			} else if err == nil && j.running() != nil {
				continue
			}
		}
		look := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-look.C:
		}
		look.Stop()
	}
	return ctx.Err()
}

func (j *Jobs) running() *View {
	for _, v := range j.book.views() {
		if v.State == Running {
			return v
		}
	}
	return nil
}

// step carries out a chunk of the job that runs, if there is one.
func (j *Jobs) step(ctx context.Context, tidied *time.Time) error {
	if err := j.book.CaughtUp(ctx); err != nil {
		return err
	}
	if now := j.Now(); now.Sub(*tidied) > tidyEvery {
		if err := j.tidy(ctx); err != nil {
			return err
		}
		*tidied = now
	}
	v := j.running()
	if v == nil {
		return nil
	}
	n := j.book.open(v.ID)
	at, ok := j.book.place(v.ID, n)
	if !ok {
		return nil
	}
	r := run{Jobs: j, view: v}
	if err := j.book.load(ctx, at, &r.items); err != nil {
		return err
	}
	if err := r.carry(ctx); err != nil {
		return err
	}
	failpoint.Hit("jobs.seen")
	rec, err := j.book.record(part(v.ID, partChunk, n), r.done)
	if err != nil {
		return err
	}
	if err := j.book.Write(ctx, rec); err != nil {
		return err
	}
	failpoint.Hit("jobs.told")
	return j.judge(ctx, v)
}

// judge ends a job, or stops it where it makes nothing better.
func (j *Jobs) judge(ctx context.Context, v *View) error {
	now := j.book.view(v.ID)
	if now == nil {
		return nil
	}
	if now.State == Done {
		j.Logger.Info("a job is done", "job", v.ID, "kind", string(v.Kind), "items", v.Items, "ordered", now.Progress.Ordered, "left", now.Progress.Left)
		return nil
	}
	p := now.Progress
	dead := p.Outcomes[string(submission.Dead)]
	if v.Kind != Close && now.State == Running && !now.force() && now.last().Verb == Run && dead >= stopLeast && float64(dead) >= stopShare*float64(p.Ordered) {
		_, err := j.Say(ctx, v.ID, Word{Verb: Stop, Operator: Router, Reason: "most of what was redriven died again"})
		return err
	}
	return nil
}

// run is one chunk of a job at work.
type run struct {
	*Jobs
	view    *View
	items   []Item
	done    chunk
	pending []wanted // ordered, and not seen to be carried out
}

// outcomePending is the outcome of an order that its owner has not come to.
const outcomePending = "pending"

// wanted is an item that was ordered.
type wanted struct {
	item  Item
	order Order
}

// carry comes to each item: orders it, or says why not. It ends early when the
// job is stopped or another replica runs it; what it did by then is told too.
func (r *run) carry(ctx context.Context) error {
	// By everything that stands in the log: an order must not be given to a state
	// that has passed.
	if err := r.Projector.WaitAsked(ctx); err != nil {
		return err
	}
	rate := r.view.rate()
	size := max(1, min(maxBatch, int(rate/4)))
	r.done.Outcomes = map[string]int{}
	next := r.Now()
	stopped := false
	for from := 0; from < len(r.items); from += size {
		if stopped = !r.mayGoOn(); stopped {
			break
		}
		batch := r.items[from:min(from+size, len(r.items))]
		fresh, err := r.order(ctx, batch)
		if err != nil {
			return err
		}
		if fresh == 0 {
			continue // done before; what was done already takes no time
		}
		next = next.Add(time.Duration(float64(fresh) / rate * float64(time.Second)))
		if d := next.Sub(r.Now()); d > 0 && !r.Sleep(ctx, d) {
			return ctx.Err()
		}
	}
	if err := r.see(ctx); err != nil {
		return err
	}
	r.done.Complete = !stopped
	return nil
}

func (r *run) mayGoOn() bool {
	v := r.book.view(r.view.ID)
	return v != nil && v.State == Running && r.Owns()
}

// order gives the orders for a batch and returns how many. Held records are read
// beside each other; the orders are appended in the batch's order, which is that
// of acceptance.
func (r *run) order(ctx context.Context, batch []Item) (int, error) {
	type made struct {
		order *Order
		left  string
		err   error
	}
	out := make([]made, len(batch))
	var wg sync.WaitGroup
	slots := make(chan struct{}, fetchers)
	for i := range batch {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out[i].order, out[i].left, out[i].err = r.make(ctx, batch[i])
		})
	}
	wg.Wait()
	var recs []*bus.Record
	var list []wanted
	for i, m := range out {
		switch {
		case m.err != nil:
			return 0, m.err
		case m.left != "":
			r.leave(batch[i], m.left)
		case m.order == nil: // it was ordered before
			r.pending = append(r.pending, wanted{batch[i], Order{Done: func(*submission.Account) bool { return true }}})
			r.done.Done++
			r.done.Ordered++
		default:
			recs, list = append(recs, m.order.Record), append(list, wanted{batch[i], *m.order})
		}
	}
	return len(recs), r.append(ctx, recs, list)
}

// append appends orders; where one of them is too large for a record, it finds
// out which by appending them one by one.
func (r *run) append(ctx context.Context, recs []*bus.Record, list []wanted) error {
	if len(recs) == 0 {
		return nil
	}
	err := r.Log.Append(ctx, recs...)
	var f *fault.Error
	switch {
	case err == nil:
		failpoint.Hit("jobs.ordered")
		r.pending = append(r.pending, list...)
		r.done.Done += len(list)
		r.done.Ordered += len(list)
		r.metrics.items.WithLabelValues(outcomeOrdered).Add(float64(len(list)))
		return nil
	case !errors.As(err, &f) || f.Reason != fault.ReasonTooLarge:
		return err
	case len(recs) == 1:
		r.leave(list[0].item, LeftTooLarge)
		return nil
	}
	for i := range recs {
		if err := r.append(ctx, recs[i:i+1], list[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) leave(i Item, why string) {
	r.done.Done++
	r.done.Left++
	r.done.Failures = append(r.done.Failures, Failure{i.Submission, i.Delivery, why})
	r.metrics.items.WithLabelValues(why).Inc()
}

// make makes the order for an item: nil where it was given before, or left says
// why there is none.
func (r *run) make(ctx context.Context, i Item) (o *Order, left string, err error) {
	acct, err := r.Store.Get(ctx, i.Submission)
	if errors.Is(err, status.ErrNotFound) {
		return nil, LeftUnknown, nil
	}
	if err != nil {
		return nil, "", err
	}
	done, same := i.stands(acct, r.view.Kind, r.view.Filter.State)
	switch {
	case done:
		return nil, "", nil
	case !same:
		return nil, LeftChanged, nil
	case r.view.Kind != Close && i.often() && !r.view.force():
		return nil, LeftOften, nil
	}
	w := r.view.Job
	by := r.view.last().Operator
	ins := &submission.Instruction{Operator: by, Job: w.ID.String(), At: r.Now().UTC()}
	d := acct.Delivery(i.Delivery)
	var made Order
	switch {
	case w.Kind == Close:
		ins.Kind, ins.Reason = submission.InstructClose, w.Reason
		if d != nil {
			made = CloseDelivery(acct, d, d.Held.Partition, ins)
		} else {
			made = CloseSubmission(acct, acct.Held.Partition, ins)
		}
	case w.Kind.anew():
		ins.Kind, ins.Force = submission.InstructRedrive, i.often()
		if w.Kind == Reroute {
			ins.Kind, ins.Authority = submission.InstructAssign, w.Authority
		}
		made, err = Renew(ctx, r.Log, acct, ins)
	case d != nil:
		ins.Kind, ins.Force = submission.InstructRedrive, i.often()
		made, err = Again(ctx, r.Log, d, ins)
	default:
		ins.Kind, ins.Force = submission.InstructRedrive, i.often()
		made, err = Renew(ctx, r.Log, acct, ins)
	}
	switch {
	case errors.Is(err, ErrUnreadable):
		return nil, LeftUnreadable, nil
	case errors.Is(err, ErrAlive):
		return nil, LeftAlive, nil
	case errors.Is(err, bus.ErrNotThere):
		return nil, LeftGone, nil
	case err != nil:
		return nil, "", err
	}
	return &made, "", nil
}

// stands says whether an item was ordered already since it was previewed, and
// whether it still is what it was.
func (i Item) stands(acct *submission.Account, kind Kind, state submission.State) (done, same bool) {
	if kind.anew() {
		return acct.Dispatched > i.Revision, acct.Dispatched == i.Revision && (acct.Own == state || acct.State == state)
	}
	if i.Delivery != (Item{}).Delivery {
		d := acct.Delivery(i.Delivery)
		switch {
		case d == nil:
			return false, false
		case kind == Redrive && d.Redrives > i.Redrives:
			return true, true
		case kind == Close && d.State == submission.Rejected:
			return true, true
		}
		return false, d.State == submission.Dead && d.Held != nil && d.Redrives == i.Redrives
	}
	switch {
	case kind == Redrive && acct.Dispatched > i.Revision:
		return true, true
	case kind == Close && acct.Own == submission.Rejected:
		return true, true
	}
	return false, Held(acct) && acct.Own == state && acct.Dispatched == i.Revision
}

// see waits until the owners have carried the orders out, for a while, and
// counts what came of them.
func (r *run) see(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, effectWait)
	defer cancel()
	for _, w := range r.pending {
		for {
			changed := r.Store.Changed()
			acct, err := r.Store.Get(ctx, w.item.Submission)
			if err != nil {
				return err
			}
			if w.order.Done(acct) {
				r.done.Outcomes[string(stateOf(acct, w.item))]++
				break
			}
			if wait.Err() != nil {
				r.done.Outcomes[outcomePending]++
				break
			}
			select {
			case <-changed:
			case <-wait.Done():
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	return nil
}
