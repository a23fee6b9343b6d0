package bus

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
)

const (
	// markEvery is how often finished work is confirmed and marked; sarama
	// commits what is marked once a second.
	markEvery = 500 * time.Millisecond
	// askEvery is how often it is asked whether a partition is still ours when
	// nothing was finished.
	askEvery = 5 * time.Second
	// confirmGrace bounds the last confirmation of a partition that is lost.
	confirmGrace = 3 * time.Second
)

// partition drives the window of one partition for as long as it is ours. All of
// its state belongs to the goroutine of run, but for what is atomic.
//
// Back-pressure: what sarama has fetched is always taken off its channel, into
// the window's backlog, and the partition is paused while that is crowded. Not
// reading the channel instead would do for the heartbeats (they have a
// goroutine of their own), but sarama fetches all partitions of a broker in one
// request and lets them all wait for the one that is not read.
type partition struct {
	m     *member
	sess  sarama.ConsumerGroupSession
	claim sarama.ConsumerGroupClaim
	topic string
	id    int32

	w      *window
	paused bool
	works  int    // parcels with a batch handler
	offer  *offer // of the watermill channel, not yet taken

	settlements chan settlement
	retries     chan *queue
	giveUp      chan struct{}
	confirmed   chan mark // answers of confirm; nil while none is asked
	last        mark      // marked
	stirred     bool      // something was refused since the last confirmation
	asking      time.Time // when the last one began

	seen measure
}

// measure is what the metrics read.
type measure struct {
	position atomic.Int64 // the committed offset as marked, -1 before it is known
	oldest   atomic.Int64 // Unix milliseconds of the oldest unfinished record, 0: none
	behind   atomic.Int64 // Unix milliseconds since when finished work is not marked, 0: all is
}

type settlement struct {
	parcel *parcel
	errs   []error
}

// offer is one record for the watermill channel.
type offer struct {
	parcel *parcel
	msg    *message.Message
	cancel context.CancelFunc
}

// mark is a state of the window that may be committed.
type mark struct {
	position int64
	metadata string
	owned    bool
	err      error
}

func newPartition(m *member, sess sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) *partition {
	p := &partition{
		m: m, sess: sess, claim: claim, topic: claim.Topic(), id: claim.Partition(),
		settlements: make(chan settlement), retries: make(chan *queue), giveUp: make(chan struct{}),
	}
	p.last.position = max(claim.InitialOffset(), -1)
	p.seen.position.Store(p.last.position)
	return p
}

// run returns when the partition is lost, its handlers have returned, and
// Revoked has been called. sarama commits what is marked after that.
func (p *partition) run(ctx context.Context, cancel context.CancelFunc) {
	p.open(ctx)
	assigned := make(chan error, 1)
	go func() { assigned <- p.assign(ctx) }()
	begun, heard := p.serve(ctx, assigned)

	cancel()
	p.settle()
	if !heard {
		begun = <-assigned == nil
	}
	if begun {
		p.conclude(ctx)
	}
	if begun && p.m.s.g.Revoked != nil {
		p.m.s.g.Revoked(p.topic, p.id)
	}
}

// open makes the window, with what an earlier owner has finished beyond its
// prefix.
func (p *partition) open(ctx context.Context) {
	g := p.m.s.g
	b := bounds{records: g.MaxInFlight, batch: 1}
	if g.Spill != nil {
		b.share = g.Share
	}
	if p.m.handle != nil {
		b.batch, b.batchBytes = g.BatchRecords, g.BatchBytes
	}
	var spans []span
	if p.last.position > 0 {
		spans = p.remembered(ctx)
	}
	p.w = newWindow(b, p.last.position, spans)
	p.bound()
	p.last.metadata = encodeSpans(p.w.position(), p.w.beyond())
}

// bound gives the window its share of the member's memory; partitions come and
// go.
func (p *partition) bound() { p.w.bound(int(p.m.holds.Load()), p.m.s.g.MaxInFlightBytes) }

// remembered reads what was finished beyond the committed offset. Where it
// cannot be read, or names what the log has not, it counts for nothing: the
// records are worked on again.
func (p *partition) remembered(ctx context.Context) []span {
	b, group := p.m.s.b, p.m.s.g.Name
	at, metadata, err := b.committedAt(ctx, group, p.topic, p.id)
	if err != nil || at != p.last.position || metadata == "" {
		return nil
	}
	spans, err := decodeSpans(at, metadata)
	if err != nil {
		b.log.Warn("metadata of a committed offset ignored", "group", group, "topic", p.topic, "partition", p.id, "error", err.Error())
		return nil
	}
	end, err := request(ctx, b, "offsets of "+p.topic, func() (int64, error) { return b.meta.GetOffset(p.topic, p.id, sarama.OffsetNewest) })
	if err != nil || len(spans) == 0 || spans[len(spans)-1].to > end {
		return nil
	}
	return spans
}

func (p *partition) assign(ctx context.Context) error {
	if p.m.s.g.Assigned == nil {
		return nil
	}
	for pause := time.Duration(0); ; {
		err := p.m.s.g.Assigned(ctx, p.topic, p.id)
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause = double(pause)
		p.m.s.b.log.Warn("partition not taken over yet", "group", p.m.s.g.Name, "topic", p.topic, "partition", p.id,
			"reason", reasonOf(classify(err, "")), "pause", pause.String())
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// serve works until the partition is lost.
func (p *partition) serve(ctx context.Context, assigned <-chan error) (begun, heard bool) {
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for {
		var out chan<- *message.Message
		var msg *message.Message
		if begun {
			p.hand(ctx)
			if p.offer != nil {
				out, msg = p.m.out, p.offer.msg
			}
		}
		select {
		case <-ctx.Done():
			return begun, heard
		case err := <-assigned:
			begun, heard = err == nil, true
			assigned = nil
		case m, ok := <-p.claim.Messages():
			if !ok || !p.takeAll(m) {
				return begun, heard
			}
		case out <- msg:
			p.await(p.offer)
			p.offer = nil
		case o := <-p.settlements:
			p.resolve(ctx, o)
		case q := <-p.retries:
			p.m.s.b.metrics.redeliveries.WithLabelValues(p.topic).Inc()
			p.w.retry(q)
		case <-tick.C:
			p.bound()
			p.measure()
			if begun {
				p.confirm(ctx)
			}
		case c := <-p.confirmed:
			p.confirmed = nil
			if !p.mark(c) {
				return begun, heard
			}
		}
	}
}

// takeAll takes a record and those that stand behind it already. False: the
// claim has ended.
func (p *partition) takeAll(m *sarama.ConsumerMessage) bool {
	for {
		rec := record(m.Topic, m.Partition, m.Offset, m.Key, m.Value, m.Headers, m.Timestamp)
		if !p.w.take(rec, p.m.s.g.Key(rec)) {
			p.m.s.b.metrics.skipped.WithLabelValues(p.topic).Inc()
		}
		if p.w.crowded() {
			p.pause(true)
			return true
		}
		var ok bool
		select {
		case m, ok = <-p.claim.Messages():
			if !ok {
				return false
			}
		default:
			return true
		}
	}
}

func (p *partition) pause(yes bool) {
	if p.paused == yes {
		return
	}
	p.paused = yes
	which := map[string][]int32{p.topic: {p.id}}
	if yes {
		p.m.group.Pause(which)
	} else {
		p.m.group.Resume(which)
	}
}

// hand gives out what may be worked on.
func (p *partition) hand(ctx context.Context) {
	for p.offer == nil && (p.m.handle == nil || p.works < p.m.s.g.Batches) {
		next := p.w.hand()
		switch {
		case next == nil:
			return
		case next.spill:
			p.m.s.b.metrics.spilled.WithLabelValues(p.topic).Add(float64(len(next.items)))
			go p.work(ctx, next, func(ctx context.Context, recs []*Record) []error { return p.m.s.g.Spill(ctx, next.ahead, recs) })
		case p.m.handle != nil:
			p.works++
			p.m.s.b.metrics.batch.WithLabelValues(p.topic).Observe(float64(len(next.items)))
			go p.work(ctx, next, p.m.handle)
		default:
			msg, cancel := messageOf(ctx, next.items[0].rec)
			p.offer = &offer{next, msg, cancel}
			continue
		}
		p.m.s.b.metrics.inFlight.WithLabelValues(p.topic).Add(float64(len(next.items)))
	}
}

// work has a parcel handled. A panic is an error of all its records: one message
// must not stop the others. Its value may quote payload, so only its type and
// the stack are logged.
func (p *partition) work(ctx context.Context, c *parcel, handle Handler) {
	recs := make([]*Record, len(c.items))
	for i, it := range c.items {
		recs[i] = it.rec
	}
	p.report(settlement{c, p.guarded(ctx, recs, handle)})
}

func (p *partition) guarded(ctx context.Context, recs []*Record, handle Handler) (errs []error) {
	defer func() {
		if v := recover(); v != nil {
			p.m.s.b.log.Error("a handler failed inside", "group", p.m.s.g.Name, "topic", p.topic, "partition", p.id,
				"panic", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			errs = make([]error, len(recs))
			for i := range errs {
				errs[i] = fault.New(fault.Retryable, fault.ReasonUnknown, "the handler failed inside; the log has the stack")
			}
		}
	}()
	return handle(ctx, recs)
}

// errRefused stands for a message that was nacked.
var errRefused = []error{fault.New(fault.Retryable, fault.ReasonUnknown, "not acknowledged")}

// await waits for a message's ack or nack.
func (p *partition) await(o *offer) {
	p.m.s.b.metrics.inFlight.WithLabelValues(p.topic).Inc()
	go func() {
		defer o.cancel()
		select {
		case <-o.msg.Acked():
			p.report(settlement{o.parcel, nil})
		case <-o.msg.Nacked():
			p.report(settlement{o.parcel, errRefused})
		case <-p.giveUp:
		}
	}()
}

func (p *partition) report(o settlement) {
	select {
	case p.settlements <- o:
	case <-p.giveUp:
	}
}

func (p *partition) settled(o settlement) []refused {
	p.m.s.b.metrics.inFlight.WithLabelValues(p.topic).Sub(float64(len(o.parcel.items)))
	if p.m.handle != nil && !o.parcel.spill {
		p.works--
	}
	return p.w.settle(o.parcel, o.errs)
}

func (p *partition) resolve(ctx context.Context, o settlement) {
	for _, r := range p.settled(o) {
		p.stirred = true
		pause := min(100*time.Millisecond<<min(r.times-1, 7), 10*time.Second)
		time.AfterFunc(pause, func() {
			select {
			case p.retries <- r.q:
			case <-ctx.Done():
			}
		})
	}
	if p.paused && p.w.calm() {
		p.pause(false)
	}
}

// now is the window as it may be committed.
func (p *partition) now() mark {
	at := p.w.position()
	return mark{position: at, metadata: encodeSpans(at, p.w.beyond())}
}

func (k mark) same(o mark) bool { return k.position == o.position && k.metadata == o.metadata }

// confirm asks whether what is finished took effect. The state is taken before
// the question, so that the answer covers it.
func (p *partition) confirm(ctx context.Context) {
	k := p.now()
	if p.confirmed != nil || k.same(p.last) && !p.stirred && time.Since(p.asking) < askEvery {
		return
	}
	p.stirred, p.asking = false, time.Now()
	answer := make(chan mark, 1)
	p.confirmed = answer
	go func() { answer <- p.asked(ctx, k) }()
}

func (p *partition) asked(ctx context.Context, k mark) mark {
	k.owned = true
	if p.m.s.g.Owns != nil {
		k.owned, k.err = p.m.s.g.Owns(ctx, p.topic, p.id)
	}
	return k
}

// mark marks what is confirmed for the next commit. False: another owner has
// begun, and what was finished here may have had no effect. The partition is
// given up then, and taken over again from the committed offset.
func (p *partition) mark(k mark) bool {
	if k.err != nil {
		return true // asked again with the next tick
	}
	if !k.owned {
		p.m.s.b.metrics.superseded.WithLabelValues(p.topic).Inc()
		p.m.s.b.log.Warn("another owner of the partition has begun; beginning again at the committed offset",
			"group", p.m.s.g.Name, "topic", p.topic, "partition", p.id, "committed", p.last.position)
		return false
	}
	if k.same(p.last) {
		return true
	}
	// Either moves forward or stays with other metadata; sarama has a call for
	// each, and the wrong one does nothing.
	p.sess.ResetOffset(p.topic, p.id, k.position, k.metadata)
	p.sess.MarkOffset(p.topic, p.id, k.position, k.metadata)
	failpoint.Hit("bus.marked")
	p.last = k
	p.measure()
	return true
}

func (p *partition) measure() {
	at := p.last.position
	if at < 0 {
		at = p.w.position() // nothing is committed yet: from the first record on
	}
	p.seen.position.Store(at)
	oldest := int64(0)
	if t := p.w.oldest(); !t.IsZero() {
		oldest = t.UnixMilli()
	}
	p.seen.oldest.Store(oldest)
	switch k := p.now(); {
	case k.same(p.last):
		p.seen.behind.Store(0)
	case p.seen.behind.Load() == 0:
		p.seen.behind.Store(time.Now().UnixMilli())
	}
}

// settle waits for the handlers, whose contexts are cancelled by now. An ack
// still counts: the work was done. A nack needs nothing more.
func (p *partition) settle() {
	defer close(p.giveUp)
	out := p.w.out
	if o := p.offer; o != nil {
		o.cancel()
		out -= len(o.parcel.items)
	}
	grace := time.NewTimer(p.m.s.g.Grace)
	defer grace.Stop()
	for out > 0 {
		select {
		case o := <-p.settlements:
			out -= len(o.parcel.items)
			p.settled(o)
		case <-grace.C:
			p.m.s.b.metrics.inFlight.WithLabelValues(p.topic).Sub(float64(out))
			p.m.s.b.log.Error("handlers did not return after their partition was lost", "group", p.m.s.g.Name,
				"topic", p.topic, "partition", p.id, "records", out, "grace", p.m.s.g.Grace.String())
			out = 0
		}
	}
}

// conclude marks what was finished before the partition was lost, if it took
// effect.
func (p *partition) conclude(ctx context.Context) {
	k := p.now()
	if k.position < 0 || k.same(p.last) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmGrace)
	defer cancel()
	p.mark(p.asked(ctx, k))
}

// lag is how many records no committed offset has passed.
func (p *partition) lag() int64 {
	at := p.seen.position.Load()
	if at < 0 {
		return 0 // nothing has come yet
	}
	return max(0, p.claim.HighWaterMarkOffset()-at)
}
