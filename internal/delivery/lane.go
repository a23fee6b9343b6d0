package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// lane owns one partition: the records fresh from the deliveries topic come
// through handle, those that wait through the scheduler.
type lane struct {
	stage     *Stage
	partition int32
	epoch     int64

	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}
	wg     sync.WaitGroup

	mu        sync.Mutex
	q         *queue
	committed int64
}

// Why a record is not acknowledged although nothing is wrong with it.
var errAgain = errors.New("the delivery is being attempted; the order comes again")

func newLane(s *Stage, partition int32, epoch int64) *lane {
	ctx, cancel := context.WithCancel(context.Background())
	return &lane{stage: s, partition: partition, epoch: epoch, ctx: ctx, cancel: cancel,
		wake: make(chan struct{}, 1), q: newQueue(), committed: -1}
}

// rebuild reads what waits and what is dead in the partition.
func (l *lane) rebuild(ctx context.Context) error {
	s := l.stage
	oldest, newest, err := s.log.Offsets(ctx, TopicWait)
	if err != nil {
		return err
	}
	committed, err := s.log.Committed(ctx, WaitGroup, TopicWait)
	if err != nil {
		return err
	}
	from := max(oldest[l.partition], committed[l.partition])
	l.q.next = newest[l.partition]
	err = s.log.ReadTo(ctx, TopicWait, l.partition, from, newest[l.partition], func(r *bus.Record) error {
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
		if e := l.q.byID[m.DeliveryID]; e != nil { // appended twice, recorded once
			l.q.done(e.offset)
			l.q.opened(r.Offset)
			e.offset = r.Offset
			return nil
		}
		e := &entry{id: m.DeliveryID, sub: m.ID, key: keyOf(m), order: m.Order, due: m.DueAt, offset: r.Offset, sequence: m.Sequence}
		l.q.opened(r.Offset)
		l.q.put(e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading what waits in partition %d: %w", l.partition, err)
	}
	dead, err := s.ledger.Dead(ctx, l.partition)
	if err != nil {
		return err
	}
	for _, m := range dead {
		l.q.put(&entry{id: m.DeliveryID, sub: m.ID, key: keyOf(m), order: m.Order, offset: noOffset, sequence: m.Sequence, dead: true})
	}
	return nil
}

func (l *lane) start() {
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		l.schedule()
	}()
}

// close cancels what is under way and waits for it. Nothing cancelled is
// counted.
func (l *lane) close() {
	l.cancel()
	l.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), recordGrace)
	defer cancel()
	l.commit(ctx)
	l.mu.Lock()
	l.q = newQueue()
	l.mu.Unlock()
}

func (l *lane) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// commitEvery is how often the lowest unfinished waiting offset is committed.
const commitEvery = 2 * time.Second

// schedule attempts what is due, until the lane closes.
func (l *lane) schedule() {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
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
		case <-tick.C:
			l.commit(l.ctx)
		}
		if timer != nil {
			timer.Stop()
		}
		if l.ctx.Err() != nil {
			return
		}
	}
}

// runDue starts every attempt that may start now and returns when to look
// again (zero: when woken).
func (l *lane) runDue() (next time.Time) {
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
				sooner(now.Add(time.Minute)) // until the configuration names it again
				break
			}
			if ok, _, again := g.try(now); !ok {
				sooner(again)
				break
			}
			e.running = true
			l.q.offer(e.key)
			l.wg.Add(1)
			go func() {
				defer l.wg.Done()
				l.retry(e, dest, g)
			}()
		}
	}
	return next
}

// retry attempts one waiting delivery. The slot of the gate is taken.
func (l *lane) retry(e *entry, dest Destination, g *gate) {
	rec, err := l.stage.log.Fetch(l.ctx, TopicWait, l.partition, e.offset)
	var m submission.DeliveryMeta
	if err == nil {
		m, err = submission.ParseDeliveryMeta(rec.Headers)
	}
	if err != nil {
		g.leave(l.stage.now(), fault.New(fault.Cancelled, fault.ReasonCancelled, ""))
		l.later(e)
		if l.ctx.Err() == nil {
			l.stage.logger.Error("a waiting record cannot be read, trying again", "partition", l.partition, "offset", e.offset, "error", fault.Of(err).Error())
		}
		return
	}
	f := l.attempt(l.ctx, m, rec.Value, dest, g)
	if f != nil && f.Class == fault.Destination {
		// A failed probe changes nothing for the record: it waits as it did.
		l.mu.Lock()
		e.running = false
		l.q.put(e)
		l.mu.Unlock()
		return
	}
	if err := l.settle(l.ctx, m, rec.Value, e, f); err != nil {
		l.later(e)
	}
}

// later brings an entry back whose outcome could not be recorded.
func (l *lane) later(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.running = false
	e.due = l.stage.now().Add(time.Second)
	l.q.put(e)
}

// handle takes one record of the deliveries topic.
func (l *lane) handle(ctx context.Context, rec *bus.Record) error {
	s := l.stage
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
		s.logger.Info("delivery record of another decision dropped", "submission", m.ID, "delivery", m.DeliveryID)
		return nil
	}
	if rec.Headers[submission.HeaderType] == submission.TypeControl {
		return l.control(ctx, m, d)
	}
	m.Attempts, m.Sequence, m.Order = d.Attempts, d.Sequence, max(m.Order, d.Order)

	var redriven *entry
	switch d.State {
	case submission.InFlight:
	case submission.Dead:
		if m.Instruction == nil || m.Instruction.Kind != submission.InstructRedrive || m.Redrives != d.Redrives+1 {
			return nil // a repeat
		}
		// A redrive begins anew: its own attempts, its own time to give up.
		m.Since = time.Time{}
		if redriven, err = l.takeDead(m); err != nil {
			return err
		}
	default:
		return nil // a repeat: it is delivered, or waits in the waiting topic
	}

	l.mu.Lock()
	blocked := redriven == nil && l.q.blocked(keyOf(m))
	l.mu.Unlock()
	if blocked {
		return l.wait(ctx, m, rec.Value, nil, fault.ReasonBehindCase, "parked behind an earlier submission of its case")
	}
	dest, g, ok := s.destination(m.Destination)
	if !ok {
		return l.wait(ctx, m, rec.Value, redriven, fault.ReasonMisconfigured, "the configuration names no such destination at the moment")
	}
	in, why, err := g.enter(ctx, s.now)
	if err != nil {
		l.giveBack(redriven)
		return err
	}
	if !in {
		return l.wait(ctx, m, rec.Value, redriven, why, "the destination takes nothing more at the moment")
	}
	f := l.attempt(ctx, m, rec.Value, dest, g)
	if err := l.settle(ctx, m, rec.Value, redriven, f); err != nil {
		l.giveBack(redriven)
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

// takeDead finds the dead entry of a redrive, marks it as being attempted and
// returns it.
func (l *lane) takeDead(m submission.DeliveryMeta) (*entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.q.byID[m.DeliveryID]
	if e == nil {
		e = &entry{id: m.DeliveryID, sub: m.ID, key: keyOf(m), order: m.Order, offset: noOffset, sequence: m.Sequence, dead: true}
	}
	if e.running {
		return nil, errAgain
	}
	e.running = true
	l.q.put(e)
	return e, nil
}

func (l *lane) giveBack(e *entry) {
	if e == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.running = false
	l.q.put(e)
}

// control carries out an operator's order about a dead or waiting delivery.
func (l *lane) control(ctx context.Context, m submission.DeliveryMeta, d *submission.DeliveryAccount) error {
	if m.Instruction == nil || m.Instruction.Kind != submission.InstructClose {
		return nil
	}
	if d.State != submission.Dead && d.State != submission.Waiting {
		return nil // already ended
	}
	l.mu.Lock()
	e := l.q.byID[m.DeliveryID]
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
	if err := l.stage.ledger.Append(ctx, l.partition, ev); err != nil {
		l.giveBack(e)
		return err
	}
	l.finish(e)
	return nil
}

// settle records the outcome of an attempt and puts the delivery where it
// belongs. e is its entry, nil for a record fresh from the topic. An error
// means that nothing may be acknowledged.
func (l *lane) settle(ctx context.Context, m submission.DeliveryMeta, value []byte, e *entry, f *fault.Error) error {
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
	case f == nil:
		ev := l.event(submission.EventDelivered, m, strconv.Itoa(m.Attempts+1))
		ev.Attempt = m.Attempts + 1
		if err := l.record(rctx, m, ev); err != nil {
			return err
		}
		l.finish(e)
		l.stage.metrics.delivered.WithLabelValues(m.Destination, m.Adapter).Inc()
		return nil
	case f.Class == fault.Destination:
		return l.wait(rctx, m, value, e, f.Reason, f.Detail)
	case f.Class == fault.Permanent:
		return l.bury(rctx, m, value, e, f)
	}
	if m.Since.IsZero() {
		m.Since = now
	}
	if policy.GiveUp > 0 && now.Sub(m.Since) >= policy.GiveUp {
		return l.bury(rctx, m, value, e, fault.New(fault.Permanent, fault.ReasonGaveUp,
			"retried for %s, last fault %s", now.Sub(m.Since).Round(time.Second), f.Reason))
	}
	m.Attempts++
	m.DueAt = now.Add(policy.wait(m.Attempts, f.RetryAfter))
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
		l.giveBack(e)
		return err
	}
	return nil
}

// park appends the waiting record, then the event, then changes the queue: a
// crash in between repeats, it never loses.
func (l *lane) park(ctx context.Context, m submission.DeliveryMeta, value []byte, e *entry, ev submission.Event) error {
	m.Sequence++
	m.Reason = ev.Reason
	redriven := m.Instruction
	m.Instruction = nil
	rec := l.copyOf(TopicWait, m, value)
	if err := l.stage.log.Append(ctx, rec); err != nil {
		l.stage.metrics.unwritten.Inc()
		return err
	}
	ev.Sequence = m.Sequence
	if !m.DueAt.IsZero() {
		ev.DueAt = &m.DueAt
	}
	m.Instruction = redriven
	if err := l.record(ctx, m, ev); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e == nil {
		e = &entry{id: m.DeliveryID, sub: m.ID, key: keyOf(m), order: m.Order}
	} else {
		l.q.done(e.offset)
	}
	l.q.opened(rec.Offset)
	e.offset, e.sequence, e.due, e.dead, e.running = rec.Offset, m.Sequence, m.DueAt, false, false
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
	m.Instruction = instruction
	ev := l.event(submission.EventDead, m, "dead", strconv.Itoa(m.Attempts), strconv.Itoa(m.Redrives))
	ev.Attempt, ev.Reason, ev.Class, ev.Detail = m.Attempts, string(f.Reason), f.Class.String(), f.Detail
	ev.Held = &submission.Held{Topic: TopicDead, Partition: rec.Partition, Offset: rec.Offset}
	if err := l.record(ctx, m, ev); err != nil {
		return err
	}
	l.stage.metrics.dead.WithLabelValues(m.Destination, string(f.Reason)).Inc()
	l.mu.Lock()
	defer l.mu.Unlock()
	if e == nil {
		e = &entry{id: m.DeliveryID, sub: m.ID, key: keyOf(m), order: m.Order}
	} else {
		l.q.done(e.offset)
	}
	e.offset, e.dead, e.running = noOffset, true, false
	l.q.put(e)
	return nil
}

// record appends the event; a redrive is told first, in the same append, so
// that the account never shows a dead letter as alive while nothing is known.
func (l *lane) record(ctx context.Context, m submission.DeliveryMeta, ev submission.Event) error {
	evs := []submission.Event{ev}
	if i := m.Instruction; i != nil && i.Kind == submission.InstructRedrive {
		r := l.event(submission.EventRedriven, m, "redriven", strconv.Itoa(m.Redrives))
		r.Operator, r.At = i.Operator, i.At
		evs = []submission.Event{r, ev}
	}
	if err := l.stage.ledger.Append(ctx, l.partition, evs...); err != nil {
		l.stage.metrics.unwritten.Inc()
		return err
	}
	return nil
}

// finish ends an entry after its end was recorded.
func (l *lane) finish(e *entry) {
	if e == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.q.done(e.offset)
	l.q.remove(e)
	l.nudge()
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
	return l.stage.ledger.Append(ctx, l.partition, ev)
}

// commit moves the waiting topic's lowest unfinished offset.
func (l *lane) commit(ctx context.Context) {
	l.mu.Lock()
	low := l.q.low()
	stale := low == l.committed
	l.mu.Unlock()
	if stale {
		return
	}
	s := l.stage
	if err := s.log.Commit(ctx, WaitGroup, TopicWait, l.partition, low); err != nil {
		s.logger.Debug("commit of the waiting topic failed, trying again", "partition", l.partition, "reason", fault.Of(err).Reason)
		return
	}
	l.mu.Lock()
	l.committed = low
	l.mu.Unlock()
	if err := s.log.DeleteBelow(ctx, TopicWait, l.partition, low); err != nil {
		s.logger.Debug("cutting the waiting topic failed, trying again", "partition", l.partition, "reason", fault.Of(err).Reason)
	}
}
