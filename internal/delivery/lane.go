package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/status"
	"weiche/internal/submission"
)

// lane owns one partition under one epoch: the records fresh from the
// deliveries topic come through handle, those that wait through the scheduler.
type lane struct {
	stage     *Stage
	partition int32
	epoch     int64

	ctx    context.Context // ends when the partition is given up
	cancel context.CancelFunc
	wake   chan struct{}
	wg     sync.WaitGroup
	lost   atomic.Bool // another owner has begun; nothing we record takes effect

	mu        sync.Mutex
	q         *queue
	committed int64
}

// Why a record is not acknowledged although nothing is wrong with it.
var (
	errAgain = errors.New("the delivery is being attempted; the order comes again")
	errLost  = fault.New(fault.Cancelled, fault.ReasonCancelled, "another owner of the partition has begun")
)

func newLane(s *Stage, partition int32, epoch int64) *lane {
	ctx, cancel := context.WithCancel(context.Background())
	return &lane{stage: s, partition: partition, epoch: epoch, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), q: newQueue(), committed: -1}
}

// superseded is told when another owner turns out to have begun. The lane does
// nothing more. Where the partition is ours nevertheless (the other one has lost
// it by now), the bus lets it be taken over again.
func (l *lane) superseded() {
	if !l.lost.Swap(true) {
		l.stage.logger.Warn("another owner of the partition has begun", "partition", l.partition, "epoch", l.epoch)
	}
}

// tell appends events in the lane's name.
func (l *lane) tell(ctx context.Context, evs ...submission.Event) error {
	err := l.stage.ledger.Append(ctx, l.partition, evs...)
	if errors.Is(err, status.ErrSuperseded) {
		l.superseded()
	}
	if err != nil {
		l.stage.metrics.unwritten.Inc()
	}
	return err
}

// rebuild reads what waits and what is dead in the partition.
func (l *lane) rebuild(ctx context.Context) error {
	s := l.stage
	oldest, newest, err := s.log.Offsets(ctx, TopicWait)
	if err != nil {
		return err
	}
	l.q.next = newest[l.partition]
	// From the oldest, not from the committed offset: that one is ours to write and
	// anybody's to set, and what lies below it is cut every few seconds.
	err = s.log.ReadTo(ctx, TopicWait, l.partition, oldest[l.partition], newest[l.partition], func(r *bus.Record) error {
		m, err := submission.ParseDeliveryMeta(r.Headers)
		if err != nil {
			return nil // only this stage writes here; what it cannot read it cannot have recorded
		}
		acct, err := s.ledger.Account(ctx, m.ID)
		if err != nil {
			return err
		}
		d := acct.Delivery(m.DeliveryID)
		if d == nil || d.State != submission.Waiting || d.Sequence != m.Sequence {
			return nil // a newer record, or the end of it, stands behind
		}
		e := l.q.byID[m.DeliveryID]
		if e == nil {
			e = newEntry(m)
			// What was recorded counts: a record may have been appended twice.
			if d.DueAt != nil {
				e.due = *d.DueAt
			}
			if dest, _, ok := s.destination(m.Destination); ok {
				e.due = dest.Policy.notAfter(e.due, s.now())
			}
		}
		l.q.moved(e, r.Offset)
		l.q.put(e)
		return l.expect(ctx, r, m)
	})
	if err != nil {
		return fmt.Errorf("reading what waits in partition %d: %w", l.partition, err)
	}
	dead, err := s.ledger.Dead(ctx, l.partition)
	if err != nil {
		return err
	}
	// A crash may have come between a redrive's event and its outcome's, though
	// they were appended together, or between a decision that replaces a dead
	// delivery and the record of the new one. Then the order was not acknowledged
	// and comes again; until then the delivery holds its case as the dead one did.
	expected, err := s.ledger.Expected(ctx, l.partition)
	if err != nil {
		return err
	}
	for _, m := range append(dead, expected...) {
		e := newEntry(m)
		e.dead = true
		l.q.put(e)
	}
	return nil
}

// expect holds a case for the delivery that a waiting one was parked behind
// while it was being attempted. Where its outcome is not recorded, its record
// was not acknowledged either: it comes again, and has to go first.
func (l *lane) expect(ctx context.Context, waiting *bus.Record, m submission.DeliveryMeta) error {
	b, ok := parseBehind(waiting.Headers[headerBehind])
	if !ok || l.q.byID[b.delivery] != nil {
		return nil
	}
	acct, err := l.stage.ledger.Account(ctx, b.submission)
	if err != nil {
		return err
	}
	if d := acct.Delivery(b.delivery); d != nil && d.State == submission.InFlight {
		l.q.put(&entry{id: b.delivery, sub: b.submission, key: keyOf(m), order: b.order, offset: noOffset, running: true, fresh: true, record: b.record})
	}
	return nil
}

func (l *lane) start() {
	l.wg.Go(l.schedule)
	l.wg.Go(l.cut)
}

// stop cancels what is under way and waits for it. Nothing cancelled is
// counted. An adapter that does not return is left behind: what it does is
// fenced by the epoch, and a rebalance must not wait for it.
func (l *lane) stop() {
	l.cancel()
	ended := make(chan struct{})
	go func() { l.wg.Wait(); close(ended) }()
	bound := time.NewTimer(stopBound)
	defer bound.Stop()
	select {
	case <-ended:
	case <-bound.C:
		l.stage.logger.Error("an attempt did not end after it was cancelled; it is left behind", "partition", l.partition)
	}
}

func (l *lane) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

const (
	cutEvery  = 2 * time.Second // commits of the lowest unfinished waiting offset
	stopBound = recordGrace + 2*time.Second
)

// schedule attempts what is due, until the lane stops.
func (l *lane) schedule() {
	// The clock may be set while we wait.
	look := time.NewTicker(5 * time.Second)
	defer look.Stop()
	for {
		next := l.runDue()
		var due <-chan time.Time
		var timer *time.Timer
		if !next.IsZero() {
			timer = time.NewTimer(max(time.Millisecond, next.Sub(l.stage.now())))
			due = timer.C
		}
		select {
		case <-l.ctx.Done():
		case <-l.wake:
		case <-due:
		case <-look.C:
		}
		if timer != nil {
			timer.Stop()
		}
		if l.ctx.Err() != nil {
			return
		}
	}
}

// cut gives the waiting topic's finished records up, until the lane stops. It
// has a goroutine of its own: a broker that is slow to commit keeps nothing due
// waiting.
func (l *lane) cut() {
	tick := time.NewTicker(l.stage.cutEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			// What is not cut now is read again and dropped by the next owner.
			return
		case <-tick.C:
			l.commit(l.ctx)
		}
	}
}

// runDue starts every attempt that may start now and returns when to look
// again (zero: when woken).
func (l *lane) runDue() (next time.Time) {
	if l.lost.Load() {
		return time.Time{}
	}
	now := l.stage.now()
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, h := range l.q.ready {
		for len(h.list) > 0 {
			e := h.list[0]
			if e.due.After(now) {
				sooner(e.due)
				break
			}
			dest, g, ok := l.stage.destination(id)
			if !ok {
				break // until the configuration names it again, which wakes
			}
			if ok, _, again := g.try(now); !ok {
				sooner(again)
				break
			}
			e.running = true
			l.q.offer(e.key)
			l.wg.Go(func() { l.retry(e, dest, g) })
		}
	}
	return next
}

// retry attempts one waiting delivery. The slot of the gate is taken.
func (l *lane) retry(e *entry, dest Destination, g *gate) {
	rec, m, due, err := l.waitingRecord(e)
	if err != nil {
		g.back()
		l.later(e)
		if l.ctx.Err() == nil {
			l.stage.logger.Error("a waiting record cannot be read, trying again", "partition", l.partition, "offset", e.offset, "error", fault.Of(err).Error())
		}
		return
	}
	if !due {
		g.back()
		return
	}
	out := l.attempt(l.ctx, m, rec.Value, dest, g)
	switch f, p := out.fault, out.pending; {
	case f != nil && f.Class == fault.Destination && string(f.Reason) == m.Reason:
		// Another failed probe changes nothing for the record: it waits as it did.
		l.release(e)
		return
	case p != nil && p.Token == m.Token && m.Reason == string(fault.ReasonHandedOver):
		// Still no word: asked again later, with nothing new to record.
		l.mu.Lock()
		e.due = l.stage.now().Add(p.After)
		l.mu.Unlock()
		l.release(e)
		return
	}
	if err := l.settle(l.ctx, m, rec.Value, e, out); err != nil {
		l.later(e)
	}
}

// waitingRecord reads what an entry waits with, and brings both up to what the
// account says. It may say more than we know: an append that failed for us may
// have been written all the same. due is false where nothing is to be attempted
// now; then the entry is where it belongs.
func (l *lane) waitingRecord(e *entry) (rec *bus.Record, m submission.DeliveryMeta, due bool, err error) {
	acct, err := l.stage.ledger.Account(l.ctx, e.sub)
	if err != nil {
		return nil, m, false, err
	}
	if !acct.Known() {
		return nil, m, false, fault.New(fault.Retryable, fault.ReasonUnknown, "the account does not know a submission that waits")
	}
	d := acct.Delivery(e.id)
	switch {
	case d == nil || d.State.Final():
		l.finish(e)
		return nil, m, false, nil
	case d.State == submission.Dead:
		l.dies(e)
		return nil, m, false, nil
	}
	if rec, err = l.stage.log.Fetch(l.ctx, TopicWait, l.partition, e.offset); err != nil {
		return nil, m, false, err
	}
	if m, err = submission.ParseDeliveryMeta(rec.Headers); err != nil {
		return nil, m, false, err
	}
	if d.Sequence > m.Sequence && d.DueAt != nil && d.DueAt.After(l.stage.now()) && d.DueAt.After(e.due) {
		l.mu.Lock()
		e.due = *d.DueAt
		l.mu.Unlock()
		l.release(e)
		return nil, m, false, nil
	}
	m.Attempts, m.Sequence, m.Redrives = max(m.Attempts, d.Attempts), max(m.Sequence, d.Sequence), max(m.Redrives, d.Redrives)
	m.Token = d.Token
	return rec, m, true, nil
}

// later brings an entry back whose outcome could not be recorded.
func (l *lane) later(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.running = false
	e.due = l.stage.now().Add(time.Second)
	l.q.put(e)
	l.nudge()
}

// handle takes one record of the deliveries topic.
func (l *lane) handle(ctx context.Context, rec *bus.Record) error { return l.take(ctx, rec, false) }

// spill takes one that may not be attempted now.
func (l *lane) spill(ctx context.Context, rec *bus.Record) error { return l.take(ctx, rec, true) }

// holdFor lets a record that is in the bus's hands hold its case, though it may
// not have been taken yet: what is parked behind it must not be attempted first.
func (l *lane) holdFor(ctx context.Context, rec *bus.Record) error {
	m, err := submission.ParseDeliveryMeta(rec.Headers)
	if err != nil || rec.Headers[submission.HeaderType] == submission.TypeControl {
		return nil // it will be attempted by nobody
	}
	open := func() (bool, error) {
		acct, err := l.account(ctx, m)
		if err != nil {
			return false, err
		}
		d := acct.Delivery(m.DeliveryID)
		return d != nil && d.State == submission.InFlight && d.Revision == m.Revision && acct.DecisionID == m.Decision, nil
	}
	known := func() bool { return l.q.byID[m.DeliveryID] != nil }
	l.mu.Lock()
	if known() {
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	if is, err := open(); err != nil || !is {
		return err
	}
	l.mu.Lock()
	if known() {
		l.mu.Unlock()
		return nil
	}
	e := newEntry(m)
	e.fresh, e.running, e.record = true, true, rec.Offset
	l.q.put(e)
	l.mu.Unlock()
	// It may have been taken and settled between the two looks.
	if is, err := open(); err != nil || !is {
		l.finish(e)
		return err
	}
	return nil
}

func (l *lane) take(ctx context.Context, rec *bus.Record, spill bool) error {
	s := l.stage
	if l.lost.Load() {
		return errLost
	}
	m, err := submission.ParseDeliveryMeta(rec.Headers)
	if err != nil {
		return l.undecodable(ctx, rec, err)
	}
	acct, err := l.account(ctx, m)
	if err != nil {
		return err
	}
	d := acct.Delivery(m.DeliveryID)
	if d == nil || d.Revision != m.Revision || acct.DecisionID != m.Decision {
		if d == nil && m.Instruction != nil && m.Instruction.Kind == submission.InstructRelease {
			return l.forget(m)
		}
		s.logger.Info("delivery record of another decision dropped", "submission", m.ID, "delivery", m.DeliveryID)
		return nil
	}
	if rec.Headers[submission.HeaderType] == submission.TypeControl {
		return l.control(ctx, m, d)
	}
	redrive := m.Instruction != nil && m.Instruction.Kind == submission.InstructRedrive
	wanted := m.Redrives
	m.Attempts, m.Sequence, m.Order, m.Redrives, m.Token = d.Attempts, d.Sequence, max(m.Order, d.Order), d.Redrives, d.Token
	if redrive {
		// A redrive begins anew: its own waits, its own time to give up.
		m.Waited, m.Before = 0, d.Attempts
	}

	l.mu.Lock()
	e := l.q.byID[m.DeliveryID]
	// A record that could not be settled before comes again as what it was.
	again := e != nil && e.fresh && e.record == rec.Offset
	switch {
	case e != nil && e.running && !again:
		l.mu.Unlock()
		if !redrive {
			return nil // a repeat
		}
		return errAgain
	case d.State == submission.InFlight:
		if e == nil {
			// It holds its case from now on: what is spilled behind it must not
			// be attempted before it.
			e = newEntry(m)
			e.fresh, e.record = true, rec.Offset
		}
	case d.State == submission.Dead && redrive && wanted == d.Redrives+1:
		m.Redrives = wanted
		if e == nil {
			e = newEntry(m)
			e.dead = true
		}
	case d.State == submission.Dead:
		l.mu.Unlock()
		if e == nil {
			e = newEntry(m)
		}
		l.dies(e)
		return nil // a repeat
	case d.State.Final():
		l.mu.Unlock()
		l.finish(e)
		return nil // a repeat
	case e != nil && !e.dead && !again:
		l.mu.Unlock()
		return nil // a repeat: it waits in the waiting topic
	default:
		// The account says that it waits, and nothing waits here: recording it
		// seemed to fail and was done all the same.
		l.mu.Unlock()
		return l.waitAgain(ctx, m, rec.Value, e, d)
	}
	e.running = true
	l.q.put(e)
	blocked := l.q.blocked(e)
	l.mu.Unlock()
	if blocked || spill {
		return l.wait(ctx, m, rec.Value, e, fault.ReasonBehindCase, "parked behind an earlier submission of its case")
	}
	dest, g, ok := s.destination(m.Destination)
	if !ok {
		return l.wait(ctx, m, rec.Value, e, fault.ReasonMisconfigured, "the configuration names no such destination at the moment")
	}
	in, why, err := g.enter(ctx, l.partition, s.now)
	if err != nil {
		l.release(e)
		return err
	}
	if !in {
		return l.wait(ctx, m, rec.Value, e, why, "the destination takes nothing more at the moment")
	}
	out := l.attempt(ctx, m, rec.Value, dest, g)
	if err := l.settle(ctx, m, rec.Value, e, out); err != nil {
		l.release(e)
		return err
	}
	return nil
}

// account returns the submission's account, fresh enough to know the decision
// this record was made from.
func (l *lane) account(ctx context.Context, m submission.DeliveryMeta) (*submission.Account, error) {
	acct, err := l.stage.ledger.Account(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	if acct.Dispatched >= m.Revision {
		return acct, nil
	}
	// Decided by another process a moment ago: the decision stands in the log
	// before the record does.
	if err := l.stage.ledger.CatchUp(ctx, l.partition); err != nil {
		return nil, err
	}
	return l.stage.ledger.Account(ctx, m.ID)
}

// release ends an attempt that changed nothing.
func (l *lane) release(e *entry) {
	if e == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.fresh {
		return // it comes again, and holds its case until then
	}
	e.running = false
	l.q.put(e)
	l.nudge()
}

// dies notes that a delivery is dead by the account: it holds its case.
func (l *lane) dies(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.offset, e.dead, e.running, e.fresh = noOffset, true, false, false
	l.q.put(e)
}

// forget ends a dead delivery whose place a higher revision has taken: the
// account knows it no longer, and it holds its case no longer.
func (l *lane) forget(m submission.DeliveryMeta) error {
	l.mu.Lock()
	e := l.q.byID[m.DeliveryID]
	running := e != nil && e.running
	l.mu.Unlock()
	if running {
		return errAgain
	}
	l.finish(e)
	return nil
}

// control carries out an operator's order about a dead or waiting delivery.
func (l *lane) control(ctx context.Context, m submission.DeliveryMeta, d *submission.DeliveryAccount) error {
	if m.Instruction == nil || m.Instruction.Kind != submission.InstructClose {
		return nil
	}
	l.mu.Lock()
	e := l.q.byID[m.DeliveryID]
	if d.State != submission.Dead && d.State != submission.Waiting {
		l.mu.Unlock()
		if d.State.Final() && e != nil && !e.running {
			l.finish(e) // recorded, though it seemed to fail
		}
		return nil
	}
	if e != nil {
		if e.running {
			l.mu.Unlock()
			return errAgain
		}
		e.running = true
		l.q.offer(e.key)
	}
	l.mu.Unlock()
	ev := l.event(submission.EventClosed, m, "closed")
	ev.Reason, ev.Operator, ev.Note = string(fault.ReasonOperator), m.Instruction.Operator, m.Instruction.Reason
	if err := l.tell(ctx, ev); err != nil {
		l.release(e)
		return err
	}
	failpoint.Hit("delivery.closed")
	l.finish(e)
	return nil
}

// settle records the outcome of an attempt and puts the delivery where it
// belongs. e is its entry, nil for a record fresh from the topic. An error
// means that nothing may be acknowledged.
func (l *lane) settle(ctx context.Context, m submission.DeliveryMeta, value []byte, e *entry, out outcome) error {
	f := out.fault
	if f != nil && f.Class == fault.Cancelled {
		return f
	}
	// The attempt was made; recording it must not fail for a shutdown that came
	// meanwhile. A partition lost meanwhile is fenced by the epoch.
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordGrace)
	defer cancel()
	policy := Policy{}
	if dest, _, ok := l.stage.destination(m.Destination); ok {
		policy = dest.Policy
	}
	now := l.stage.now()
	switch {
	case out.pending != nil:
		m.DueAt = now.Add(out.pending.After)
		ev := l.event(submission.EventHandedOver, m, strconv.Itoa(m.Sequence+1))
		ev.Reason, ev.Token = string(fault.ReasonHandedOver), out.pending.Token
		return l.park(rctx, m, value, e, ev)
	case f == nil:
		ev := l.event(submission.EventDelivered, m, strconv.Itoa(m.Attempts+1))
		ev.Attempt = m.Attempts + 1
		if err := l.record(rctx, m, ev); err != nil {
			return err
		}
		failpoint.Hit("delivery.delivered")
		l.finish(e)
		l.stage.metrics.delivered.WithLabelValues(m.Destination, m.Adapter).Inc()
		return nil
	case f.Class == fault.Destination:
		// Told as an attempt without a number: it was made, and is not counted.
		m.DueAt = time.Time{}
		ev := l.event(submission.EventAttempt, m, f.Class.String(), strconv.Itoa(m.Sequence+1))
		ev.Reason, ev.Class, ev.Detail = string(f.Reason), f.Class.String(), f.Detail
		return l.park(rctx, m, value, e, ev)
	case f.Class == fault.Permanent:
		return l.bury(rctx, m, value, e, f)
	}
	if policy.GiveUp > 0 && m.Waited >= policy.GiveUp {
		return l.bury(rctx, m, value, e, fault.New(fault.Permanent, fault.ReasonGaveUp,
			"retried for %s, last fault %s", m.Waited.Round(time.Second), f.Reason))
	}
	m.Attempts++
	wait := policy.wait(m.Attempts-m.Before, m.Waited, f.RetryAfter)
	m.Waited += wait
	m.DueAt = now.Add(wait)
	ev := l.event(submission.EventAttempt, m, strconv.Itoa(m.Attempts))
	ev.Attempt, ev.Reason, ev.Class, ev.Detail = m.Attempts, string(f.Reason), f.Class.String(), f.Detail
	return l.park(rctx, m, value, e, ev)
}

// wait puts a delivery into the waiting topic without counting an attempt.
func (l *lane) wait(ctx context.Context, m submission.DeliveryMeta, value []byte, e *entry, why fault.Reason, detail string) error {
	m.DueAt = time.Time{}
	ev := l.event(submission.EventWaiting, m, "waiting", strconv.Itoa(m.Sequence+1))
	ev.Reason, ev.Detail = string(why), detail
	if err := l.park(ctx, m, value, e, ev); err != nil {
		l.release(e)
		return err
	}
	return nil
}

// waitAgain appends what waits by the account, with its time.
func (l *lane) waitAgain(ctx context.Context, m submission.DeliveryMeta, value []byte, e *entry, d *submission.DeliveryAccount) error {
	m.DueAt = time.Time{}
	if d.DueAt != nil {
		m.DueAt = *d.DueAt
	}
	m.Instruction = nil
	ev := l.event(submission.EventWaiting, m, "waiting", strconv.Itoa(m.Sequence+1))
	ev.Reason, ev.Detail = d.Reason, d.Detail
	return l.park(ctx, m, value, e, ev)
}

// park appends the waiting record, then the event, then changes the queue: a
// crash in between repeats, it never loses.
func (l *lane) park(ctx context.Context, m submission.DeliveryMeta, value []byte, e *entry, ev submission.Event) error {
	l.mu.Lock()
	end := l.q.appending()
	l.mu.Unlock()
	defer func() { l.mu.Lock(); end(); l.mu.Unlock() }()

	m.Sequence++
	m.Reason = ev.Reason
	redriven := m.Instruction
	m.Instruction = nil
	rec := l.copyOf(TopicWait, m, value)
	if e != nil {
		l.mu.Lock()
		if b, ok := l.q.behind(e); ok {
			rec.Headers[headerBehind] = b.String()
		}
		l.mu.Unlock()
	}
	if err := l.stage.log.Append(ctx, rec); err != nil {
		l.stage.metrics.unwritten.Inc()
		if f := fault.Of(err); f.Reason == fault.ReasonTooLarge {
			// It will never fit: the headers grew over the limit.
			if ev.Attempt > 0 {
				m.Attempts--
			}
			m.Sequence, m.Instruction = m.Sequence-1, redriven
			return l.bury(ctx, m, value, e, fault.New(fault.Permanent, fault.ReasonTooLarge, "the record is too large to wait; last fault %s", ev.Reason))
		}
		return err
	}
	failpoint.Hit("delivery.wait-appended")
	ev.Sequence = m.Sequence
	if !m.DueAt.IsZero() {
		ev.DueAt = &m.DueAt
	}
	m.Instruction = redriven
	if err := l.record(ctx, m, ev); err != nil {
		return err
	}
	failpoint.Hit("delivery.wait-told")
	l.mu.Lock()
	defer l.mu.Unlock()
	if e == nil {
		e = newEntry(m)
	}
	l.q.moved(e, rec.Offset)
	e.due, e.dead, e.running, e.fresh = m.DueAt, false, false, false
	l.q.put(e)
	l.nudge()
	return nil
}

// bury writes the dead letter, then the event. A dead letter that could not be
// written is none: no acknowledgement.
func (l *lane) bury(ctx context.Context, m submission.DeliveryMeta, value []byte, e *entry, f *fault.Error) error {
	m.Attempts++
	m.Reason = string(f.Reason)
	instruction := m.Instruction
	m.Instruction = nil
	m.DueAt = time.Time{}
	rec := l.copyOf(TopicDead, m, value)
	if err := l.stage.log.Append(ctx, rec); err != nil {
		l.stage.metrics.unwritten.Inc()
		l.stage.logger.Error("the dead letter could not be written; the record is not acknowledged", "submission", m.ID, "destination", m.Destination, "reason", fault.Of(err).Reason)
		return err
	}
	failpoint.Hit("delivery.dead-appended")
	m.Instruction = instruction
	ev := l.event(submission.EventDead, m, "dead", strconv.Itoa(m.Attempts), strconv.Itoa(m.Redrives))
	ev.Attempt, ev.Reason, ev.Class, ev.Detail = m.Attempts, string(f.Reason), f.Class.String(), f.Detail
	ev.Held = &submission.Held{Topic: TopicDead, Partition: rec.Partition, Offset: rec.Offset}
	if f.Reason == fault.ReasonGaveUp || f.Reason == fault.ReasonNoReport {
		ev.Token = m.Token // a redrive asks what became of it; after a last word it hands over anew
	}
	if err := l.record(ctx, m, ev); err != nil {
		return err
	}
	failpoint.Hit("delivery.dead-told")
	l.stage.metrics.dead.WithLabelValues(m.Destination, string(f.Reason)).Inc()
	if e == nil {
		e = newEntry(m)
	}
	l.dies(e)
	return nil
}

// record appends the event; a redrive is told first, in the same append, so
// that the account never shows a dead letter as alive while nothing is known.
func (l *lane) record(ctx context.Context, m submission.DeliveryMeta, ev submission.Event) error {
	evs := []submission.Event{ev}
	if i := m.Instruction; i != nil && i.Kind == submission.InstructRedrive {
		r := l.event(submission.EventRedriven, m, "redriven", strconv.Itoa(m.Redrives))
		r.Operator, r.At, r.Note = i.Operator, i.At, i.Note()
		evs = []submission.Event{r, ev}
	}
	return l.tell(ctx, evs...)
}

// finish ends an entry after its end was recorded.
func (l *lane) finish(e *entry) {
	if e == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.q.remove(e); len(l.q.cases[e.key]) > 0 {
		l.nudge() // the next one of the case has come up
	}
}

func (l *lane) event(t submission.EventType, m submission.DeliveryMeta, parts ...string) submission.Event {
	return submission.Event{
		ID:   submission.NewEventID(t, m.DeliveryID, append(parts, strconv.Itoa(m.Redrives))...),
		Type: t, At: l.stage.now().UTC(), Stage: submission.StageDelivery, Epoch: l.epoch,
		Submission: m.ID, CaseID: m.CaseID, Portal: m.Portal, Land: m.Land, Service: m.Service, Revision: m.Revision,
		DeliveryID: m.DeliveryID, Destination: m.Destination, Adapter: m.Adapter, Redrive: m.Redrives, Order: m.Order,
	}
}

func (l *lane) copyOf(topic string, m submission.DeliveryMeta, value []byte) *bus.Record {
	return &bus.Record{Topic: topic, Partition: l.partition, Key: []byte(m.CaseID.String()), Value: value,
		Headers: m.Headers(submission.TypeDelivery), Time: l.stage.now()}
}

// undecodable passes a record nobody can read: to the dead letters, as it is.
func (l *lane) undecodable(ctx context.Context, rec *bus.Record, cause error) error {
	headers := maps.Clone(rec.Headers)
	if headers == nil {
		headers = map[string]string{}
	}
	headers["ce_reason"] = string(fault.ReasonUndecodable)
	out := &bus.Record{Topic: TopicDead, Partition: l.partition, Key: rec.Key, Value: rec.Value, Headers: headers, Time: l.stage.now()}
	if err := l.stage.log.Append(ctx, out); err != nil {
		return err
	}
	ev := submission.Event{
		ID:   submission.NewEventID(submission.EventRefused, [16]byte{}, rec.Topic, strconv.Itoa(int(rec.Partition)), strconv.FormatInt(rec.Offset, 10)),
		Type: submission.EventRefused, At: l.stage.now().UTC(), Stage: submission.StageDelivery, Epoch: l.epoch,
		Reason: string(fault.ReasonUndecodable), Detail: cause.Error(),
		Held: &submission.Held{Topic: TopicDead, Partition: out.Partition, Offset: out.Offset},
	}
	l.stage.logger.Error("a delivery record that cannot be read went to the dead letters", "partition", rec.Partition, "offset", rec.Offset, "error", cause.Error())
	return l.tell(ctx, ev)
}

// commit moves the waiting topic's lowest unfinished offset and cuts what lies
// below. The group has no members that a broker could fence, so we do: only an
// owner whose every event took effect may take bytes away.
func (l *lane) commit(ctx context.Context) {
	l.mu.Lock()
	low := l.q.low()
	stale := low == l.committed
	l.mu.Unlock()
	if stale || l.lost.Load() {
		return
	}
	s := l.stage
	owned, err := s.ledger.Owns(ctx, submission.StageDelivery, l.partition, l.epoch)
	if err != nil {
		return // what is behind it is told elsewhere
	}
	if !owned {
		l.superseded()
		return
	}
	if err := s.log.Commit(ctx, WaitGroup, TopicWait, l.partition, low); err != nil {
		s.logger.Debug("commit of the waiting topic failed, trying again", "partition", l.partition, "reason", fault.Of(err).Reason)
		return
	}
	if err := s.log.DeleteBelow(ctx, TopicWait, l.partition, low); err != nil {
		s.logger.Debug("cutting the waiting topic failed, trying again", "partition", l.partition, "reason", fault.Of(err).Reason)
		return
	}
	l.mu.Lock()
	l.committed = low
	l.mu.Unlock()
}
