package bus

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"
)

// maxDone bounds how many finished records may lie behind one that is not: after
// a crash they are all delivered again.
const maxDone = 1 << 16

// partition hands out one partition's records for as long as it is ours. All of
// its state belongs to the goroutine of run.
//
// Back-pressure: what sarama has fetched is always taken off its channel, into
// the backlog, and the partition is paused until the backlog is admitted. Not
// reading the channel instead would do for the heartbeats (they have a
// goroutine of their own), but sarama fetches all partitions of a broker in one
// request and lets them all wait for the one that is not read.
type partition struct {
	m     *member
	sess  sarama.ConsumerGroupSession
	claim sarama.ConsumerGroupClaim
	topic string
	id    int32

	window  []*item          // in offset order, from the first unfinished on
	keys    map[string]*item // the key's head, which is handed out or about to be
	ready   []*item
	backlog []*item
	paused  bool

	admitted, bytes int // unfinished records in window
	out             int // handed out

	results  chan verdict
	retries  chan *item
	giveUp   chan struct{}
	position atomic.Int64 // next offset to commit, -1 before it is known
}

type item struct {
	rec      *Record // nil once done: the window may hold many finished ones
	offset   int64
	size     int
	key      string
	next     *item // of the same key
	last     *item // at the head: the queue's end
	done     bool
	attempts int
	msg      *message.Message
	cancel   context.CancelFunc
}

type verdict struct {
	it    *item
	acked bool
}

func newPartition(m *member, sess sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) *partition {
	p := &partition{
		m: m, sess: sess, claim: claim, topic: claim.Topic(), id: claim.Partition(),
		keys: map[string]*item{}, results: make(chan verdict), retries: make(chan *item), giveUp: make(chan struct{}),
	}
	p.position.Store(max(claim.InitialOffset(), -1))
	return p
}

func (p *partition) lag() int64 {
	at := p.position.Load()
	if at < 0 {
		return 0 // nothing has come yet
	}
	return max(0, p.claim.HighWaterMarkOffset()-at)
}

// run returns when the partition is lost, its handlers have returned, and
// Revoked has been called. sarama commits what is marked after that.
func (p *partition) run(ctx context.Context, cancel context.CancelFunc) {
	assigned := make(chan error, 1)
	go func() { assigned <- p.assign(ctx) }()
	begun, heard := p.serve(ctx, assigned)

	cancel()
	p.settle()
	if !heard {
		begun = <-assigned == nil
	}
	if begun && p.m.s.g.Revoked != nil {
		p.m.s.g.Revoked(p.topic, p.id)
	}
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

func (p *partition) serve(ctx context.Context, assigned <-chan error) (begun, heard bool) {
	for {
		var out chan<- *message.Message
		var head *item
		var msg *message.Message
		if begun && len(p.ready) > 0 {
			head = p.ready[0]
			if head.msg == nil {
				head.msg, head.cancel = messageOf(ctx, head.rec)
			}
			msg, out = head.msg, p.m.out
		}
		select {
		case <-ctx.Done():
			return begun, heard
		case err := <-assigned:
			begun, heard = err == nil, true
			assigned = nil
		case m, ok := <-p.claim.Messages():
			if !ok {
				return begun, heard
			}
			p.take(m)
		case out <- msg:
			p.ready = p.ready[1:]
			p.handedOut(head)
		case v := <-p.results:
			p.conclude(ctx, v)
		case it := <-p.retries:
			p.m.s.b.metrics.redeliveries.WithLabelValues(p.topic).Inc()
			p.ready = append(p.ready, it)
		}
	}
}

func (p *partition) take(m *sarama.ConsumerMessage) {
	p.position.CompareAndSwap(-1, m.Offset)
	rec := record(m.Topic, m.Partition, m.Offset, m.Key, m.Value, m.Headers, m.Timestamp)
	p.backlog = append(p.backlog, &item{rec: rec, offset: rec.Offset, size: rec.size(), key: p.m.s.g.Key(rec)})
	p.admit()
}

// admit moves records from the backlog to their keys' queues as far as the
// limits allow; one record is admitted whatever its size.
func (p *partition) admit() {
	g := p.m.s.g
	for len(p.backlog) > 0 {
		it := p.backlog[0]
		if p.admitted > 0 && (p.admitted >= g.MaxInFlight || p.bytes+it.size > g.MaxInFlightBytes || len(p.window) >= maxDone) {
			p.pause(true)
			return
		}
		p.backlog[0] = nil
		p.backlog = p.backlog[1:]
		p.admitted++
		p.bytes += it.size
		p.window = append(p.window, it)
		switch head := p.keys[it.key]; {
		case it.key == "":
			p.ready = append(p.ready, it)
		case head == nil:
			it.last = it
			p.keys[it.key] = it
			p.ready = append(p.ready, it)
		default:
			head.last.next = it
			head.last = it
		}
	}
	p.backlog = nil
	p.pause(false)
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

func (p *partition) handedOut(it *item) {
	p.out++
	p.m.s.b.metrics.inFlight.WithLabelValues(p.topic).Inc()
	msg := it.msg
	go func() {
		v := verdict{it: it}
		select {
		case <-msg.Acked():
			v.acked = true
		case <-msg.Nacked():
		case <-p.giveUp:
			return
		}
		select {
		case p.results <- v:
		case <-p.giveUp:
		}
	}()
}

func (p *partition) conclude(ctx context.Context, v verdict) {
	it := v.it
	p.out--
	p.m.s.b.metrics.inFlight.WithLabelValues(p.topic).Dec()
	it.cancel()
	it.msg, it.cancel = nil, nil
	if v.acked {
		p.finish(it)
		return
	}
	pause := 100 * time.Millisecond << min(it.attempts, 7)
	it.attempts++
	time.AfterFunc(min(pause, 10*time.Second), func() {
		select {
		case p.retries <- it:
		case <-ctx.Done():
		}
	})
}

func (p *partition) finish(it *item) {
	it.done, it.rec = true, nil
	p.admitted--
	p.bytes -= it.size
	if it.key != "" {
		if next := it.next; next != nil {
			next.last = it.last
			p.keys[it.key] = next
			p.ready = append(p.ready, next)
		} else {
			delete(p.keys, it.key)
		}
	}
	var passed int64 = -1
	for len(p.window) > 0 && p.window[0].done {
		passed = p.window[0].offset
		p.window[0] = nil
		p.window = p.window[1:]
	}
	if passed >= 0 {
		p.sess.MarkOffset(p.topic, p.id, passed+1, "")
		p.position.Store(passed + 1)
	}
	p.admit()
}

// settle waits for the handlers, whose contexts are cancelled by now. An ack
// still counts: the work was done. A nack needs nothing more.
func (p *partition) settle() {
	defer close(p.giveUp)
	grace := time.NewTimer(p.m.s.g.Grace)
	defer grace.Stop()
	for p.out > 0 {
		select {
		case v := <-p.results:
			p.out--
			p.m.s.b.metrics.inFlight.WithLabelValues(p.topic).Dec()
			if v.acked {
				p.finish(v.it)
			}
		case <-grace.C:
			p.m.s.b.metrics.inFlight.WithLabelValues(p.topic).Sub(float64(p.out))
			p.m.s.b.log.Error("handlers did not return after their partition was lost", "group", p.m.s.g.Name,
				"topic", p.topic, "partition", p.id, "handlers", p.out, "grace", p.m.s.g.Grace.String())
			p.out = 0
		}
	}
	for _, it := range p.ready {
		if it.cancel != nil {
			it.cancel()
		}
	}
}
