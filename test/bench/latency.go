package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// probe says how single submissions are sent to a contender and where they come
// out. Either record is set, with topics or a receiver, or call.
type probe struct {
	record   func(n int) (id string, m *sarama.ProducerMessage) // nil message: no more
	topics   []string                                           // arrivals carry the id in idHeader
	receiver *receiver
	counts   func(m *sarama.ProducerMessage) bool                 // nil: all do
	call     func(ctx context.Context, to addresses, n int) error // returns when the answer is there
}

// pace is how single submissions are sent: on a fixed schedule, whether or not
// those before them have arrived (so nothing is omitted that came late). Each
// one's time counts from when it was due.
type pace struct {
	rate         int // a second
	warm, length time.Duration
	grace        time.Duration // for what is still on its way at the end
	profile      string        // directory for a CPU profile of the pace; empty: none
}

// timed is what came of a pace: the median and the 99th percentile of the times,
// and what it took.
type timed struct {
	p50, p99 float64 // milliseconds
	sample
}

// latency sends submissions at a pace and times them. What has not arrived within
// the grace counts as long as it was waited for.
func (l *lab) latency(ctx context.Context, k contender, p pace) (out timed, err error) {
	err = l.with(ctx, k, 0, func(ctx context.Context, u *setup, c *child) error {
		t := newTimes()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		send, wait, err := l.sending(ctx, u.probe, c, t)
		if err != nil {
			return err
		}
		c.profile(p.profile, k.name+"-pace")
		began := time.Now()
		before, err := l.cpu(c)
		if err != nil {
			return err
		}
		if err := p.run(ctx, t, send); err != nil {
			return err
		}
		t.await(ctx, c, p.grace)
		if out.sample, err = l.used(c, before); err != nil {
			return err
		}
		c.tell("stop")
		out.Records, out.Seconds = int64(p.total()), time.Since(began).Seconds()
		cancel()
		if err := wait(); err != nil {
			return err
		}
		out.p50, out.p99, err = t.quantiles()
		return err
	})
	return out, err
}

// used is what a child and the broker have used since before.
func (l *lab) used(c *child, before [2]float64) (s sample, err error) {
	after, err := l.cpu(c)
	if err != nil {
		return s, err
	}
	s.CPU, s.BrokerCPU = after[0]-before[0], after[1]-before[1]
	s.PeakMiB, err = peakMiB(c.cmd.Process.Pid)
	return s, err
}

func (p pace) gap() time.Duration { return time.Second / time.Duration(p.rate) }

// total is how many are sent.
func (p pace) total() int { return int((p.warm + p.length) / p.gap()) }

// run calls send when each submission is due.
func (p pace) run(ctx context.Context, t *times, send func(n int, due time.Time, counts bool) error) error {
	start := time.Now().Add(100 * time.Millisecond)
	for n := range p.total() {
		due := start.Add(time.Duration(n) * p.gap())
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := send(n, due, due.Sub(start) >= p.warm); err != nil {
			return err
		}
	}
	return nil
}

// sending connects a probe: send sends one, wait ends what listens.
func (l *lab) sending(ctx context.Context, p probe, c *child, t *times) (send func(n int, due time.Time, counts bool) error, wait func() error, err error) {
	if p.call != nil {
		var all sync.WaitGroup
		return func(n int, due time.Time, counts bool) error {
			id := fmt.Sprint(n)
			t.sent(id, due, counts)
			all.Go(func() {
				if p.call(ctx, c.addresses, n) == nil { // a refusal never arrives
					t.arrived(id)
				}
			})
			return nil
		}, func() error { all.Wait(); return nil }, nil
	}
	stop, err := l.listen(p, t)
	if err != nil {
		return nil, nil, err
	}
	s, err := l.newSender()
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return func(n int, due time.Time, counts bool) error {
		id, m := p.record(n)
		if m == nil {
			return fmt.Errorf("only %d submissions are at hand", n)
		}
		if p.counts == nil || p.counts(m) {
			t.sent(id, due, counts)
		}
		s.send(m)
		return nil
	}, func() error { return errors.Join(s.close(), stop()) }, nil
}

// listen notes what arrives.
func (l *lab) listen(p probe, t *times) (stop func() error, err error) {
	if p.receiver != nil {
		fn := t.arrived
		p.receiver.seen.Store(&fn)
		return func() error { p.receiver.seen.Store(nil); return nil }, nil
	}
	client, err := sarama.NewClient(l.brokers, l.client.Config())
	if err != nil {
		return nil, err
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	var open []sarama.PartitionConsumer
	var all sync.WaitGroup
	stop = func() error {
		var errs []error
		for _, pc := range open {
			pc.AsyncClose()
		}
		all.Wait()
		return errors.Join(append(errs, consumer.Close(), client.Close())...)
	}
	for _, topic := range p.topics {
		parts, err := client.Partitions(topic)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		for _, part := range parts {
			pc, err := consumer.ConsumePartition(topic, part, sarama.OffsetOldest)
			if err != nil {
				return nil, errors.Join(err, stop())
			}
			open = append(open, pc)
			all.Go(func() {
				for m := range pc.Messages() {
					for _, h := range m.Headers {
						if string(h.Key) == idHeader {
							t.arrived(string(h.Value))
						}
					}
				}
			})
		}
	}
	return stop, nil
}

// times keeps when submissions were due and how long they took. It is safe for
// concurrent use.
type times struct {
	mu     sync.Mutex
	due    map[string]time.Time // not yet arrived
	counts map[string]bool
	took   []time.Duration
}

func newTimes() *times { return &times{due: map[string]time.Time{}, counts: map[string]bool{}} }

func (t *times) sent(id string, due time.Time, counts bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due[id], t.counts[id] = due, counts
}

// arrived notes the first arrival; a repeat is none.
func (t *times) arrived(id string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	due, ok := t.due[id]
	if !ok {
		return
	}
	delete(t.due, id)
	if t.counts[id] {
		t.took = append(t.took, now.Sub(due))
	}
}

// await waits for what is on its way, and counts what does not come.
func (t *times) await(ctx context.Context, c *child, grace time.Duration) {
	deadline := time.Now().Add(grace)
	for {
		t.mu.Lock()
		left := len(t.due)
		t.mu.Unlock()
		if left == 0 {
			return
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			break
		}
		select {
		case <-c.ended:
			deadline = time.Now()
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, due := range t.due {
		if t.counts[id] {
			t.took = append(t.took, time.Since(due))
		}
	}
	clear(t.due)
}

// quantiles returns them in milliseconds.
func (t *times) quantiles() (p50, p99 float64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.took) == 0 {
		return 0, 0, errors.New("nothing was timed")
	}
	slices.Sort(t.took)
	at := func(q float64) float64 {
		return t.took[min(len(t.took)-1, int(q*float64(len(t.took))))].Seconds() * 1000
	}
	return at(0.5), at(0.99), nil
}
