package bus

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/fault"
)

// partitioner honours an explicit partition, hashes the key otherwise, and
// spreads records without a key.
type partitioner struct{}

func newPartitioner(string) sarama.Partitioner { return partitioner{} }

func (partitioner) Partition(m *sarama.ProducerMessage, partitions int32) (int32, error) {
	if o := m.Metadata.(*outcome); o.partition != AnyPartition {
		if o.partition < 0 || o.partition >= partitions {
			return 0, sarama.ErrInvalidPartition
		}
		return o.partition, nil
	}
	if m.Key == nil {
		return rand.Int32N(partitions), nil
	}
	key, err := m.Key.Encode()
	if err != nil {
		return 0, err
	}
	return partitionOf(key, partitions), nil
}

// RequiresConsistency implements sarama.Partitioner: a key's partition must not
// depend on which partitions have a leader just now.
func (partitioner) RequiresConsistency() bool { return true }

// partitionOf is FNV-1a modulo the count. It must never change: a case's order
// hangs on it.
func partitionOf(key []byte, partitions int32) int32 {
	h := fnv.New32a()
	_, _ = h.Write(key)
	return int32(h.Sum32() % uint32(partitions))
}

// PartitionOf returns the partition that Append chooses for a key in a topic of
// that many partitions. It needs no connection.
func (b *Bus) PartitionOf(key []byte, partitions int) int32 {
	return partitionOf(key, int32(partitions))
}

// outcome follows one record through sarama and back. It never touches the
// caller's Record: an answer may come after Append has given up.
type outcome struct {
	call      *appendCall
	index     int
	partition int32 // asked for
}

type result struct {
	partition int32
	offset    int64
	err       error
}

type appendCall struct {
	pending atomic.Int32
	results []result
	done    chan struct{}
}

func (c *appendCall) settle(i int, r result) {
	c.results[i] = r
	if c.pending.Add(-1) == 0 {
		close(c.done)
	}
}

// producer is one generation of a sarama producer with a client of its own.
type producer struct {
	client sarama.Client
	async  sarama.AsyncProducer

	mu     sync.RWMutex // read: sending to Input; write: closing it
	closed bool
}

func openProducer(cfg Config, tune func(*sarama.Config)) (*producer, error) {
	conf, err := cfg.producer()
	if err != nil {
		return nil, err
	}
	if tune != nil {
		tune(conf)
	}
	if err := conf.Validate(); err != nil {
		return nil, err
	}
	client, err := sarama.NewClient(cfg.Brokers, conf)
	if err != nil {
		return nil, err
	}
	async, err := sarama.NewAsyncProducerFromClient(client)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	return &producer{client: client, async: async}, nil
}

func (p *producer) collect(done *sync.WaitGroup) {
	done.Go(func() {
		for m := range p.async.Successes() {
			o := m.Metadata.(*outcome)
			o.call.settle(o.index, result{partition: m.Partition, offset: m.Offset})
		}
	})
	done.Go(func() {
		for e := range p.async.Errors() {
			o := e.Msg.Metadata.(*outcome)
			o.call.settle(o.index, result{err: e.Err})
		}
	})
}

// close ends this generation. With kill, what is unanswered fails at once
// instead of being tried further; otherwise it is flushed.
func (p *producer) close(kill bool) {
	if kill {
		_ = p.client.Close()
	}
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if !closed {
		p.async.AsyncClose()
	}
}

// slot holds the producer in use and makes a new one when there is none.
type slot struct {
	cfg  Config
	tune func(*sarama.Config)

	making  chan struct{} // holds a token while nobody makes one
	mu      sync.Mutex
	current *producer
	failed  time.Time
	err     error
	shut    bool
	open    sync.WaitGroup // generations not yet closed to the end
}

func newSlot(cfg Config, tune func(*sarama.Config)) *slot {
	s := &slot{cfg: cfg, tune: tune, making: make(chan struct{}, 1)}
	s.making <- struct{}{}
	return s
}

func (s *slot) peek() (*producer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return nil, fault.New(fault.Cancelled, fault.ReasonCancelled, "the bus is closed")
	}
	if s.current != nil {
		return s.current, nil
	}
	// Those who queued behind a failed attempt share its answer.
	if s.err != nil && time.Since(s.failed) < 200*time.Millisecond {
		return nil, s.err
	}
	return nil, nil
}

// get returns the producer in use. Making one goes on when ctx ends, for
// whoever comes next.
func (s *slot) get(ctx context.Context) (*producer, error) {
	for {
		if p, err := s.peek(); p != nil || err != nil {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.making:
		}
		if p, err := s.peek(); p != nil || err != nil {
			s.making <- struct{}{}
			return p, err
		}
		made := make(chan struct{})
		go func() {
			defer close(made)
			defer func() { s.making <- struct{}{} }()
			p, err := openProducer(s.cfg, s.tune)
			s.mu.Lock()
			defer s.mu.Unlock()
			if err != nil {
				s.failed, s.err = time.Now(), err
				return
			}
			s.err = nil
			p.collect(&s.open)
			if s.shut {
				p.close(false)
				return
			}
			s.current = p
		}()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-made:
		}
	}
}

// discard takes p out of use. What is still in it gets its answers.
func (s *slot) discard(p *producer, kill bool) {
	s.mu.Lock()
	if s.current == p {
		s.current = nil
	}
	s.mu.Unlock()
	s.open.Go(func() { p.close(kill) })
}

// close flushes and ends the producer.
func (s *slot) close() {
	s.mu.Lock()
	p := s.current
	s.current, s.shut = nil, true
	s.mu.Unlock()
	if p != nil {
		p.close(false)
	}
	s.open.Wait()
}

var errNoAnswer = errors.New("no answer in time")

// errNoOffset stands for an acknowledgement without an offset, which a broker
// gives for a batch it has seen so long ago that it forgot where it lies.
var errNoOffset = errors.New("acknowledged without an offset")

// send hands the records to the producer and waits for all answers. It returns
// errNoAnswer when wait ends first; some records may then still be written.
func (s *slot) send(wait context.Context, recs []*Record) ([]result, error) {
	for {
		p, err := s.get(wait)
		if err != nil {
			if wait.Err() != nil {
				return nil, errNoAnswer
			}
			return nil, err
		}
		call := &appendCall{results: make([]result, len(recs)), done: make(chan struct{})}
		call.pending.Store(int32(len(recs)))
		p.mu.RLock()
		if p.closed {
			p.mu.RUnlock()
			s.discard(p, false)
			continue
		}
		stuck := false
		for i, r := range recs {
			select {
			case p.async.Input() <- encode(r, &outcome{call: call, index: i, partition: r.Partition}):
				continue
			case <-wait.Done():
				stuck = true
			}
			break
		}
		p.mu.RUnlock()
		if !stuck {
			select {
			case <-call.done:
				renew := false
				for i := range call.results {
					res := &call.results[i]
					if res.err == nil && res.offset < 0 {
						res.err = errNoOffset
					}
					if res.err != nil {
						_, reason, _ := judge(res.err)
						renew = renew || reason == fault.ReasonUnknown || reason == fault.ReasonBrokerUnavailable
					}
				}
				// sarama's circuit breakers and sequence numbers outlive the
				// fault that tripped them; a new producer has none of them.
				if renew {
					s.discard(p, false)
				}
				return call.results, nil
			case <-wait.Done():
			}
		}
		if errors.Is(context.Cause(wait), errNoAnswer) {
			s.discard(p, true)
		}
		return nil, errNoAnswer
	}
}

func encode(r *Record, o *outcome) *sarama.ProducerMessage {
	m := &sarama.ProducerMessage{Topic: r.Topic, Offset: -1, Timestamp: r.Time, Metadata: o}
	if r.Key != nil {
		m.Key = sarama.ByteEncoder(r.Key)
	}
	if r.Value != nil {
		m.Value = sarama.ByteEncoder(r.Value)
	}
	for k, v := range r.Headers {
		m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(k), Value: []byte(v)})
	}
	return m
}

// size is what the record takes at most in a batch of its own.
func (r *Record) size() int {
	n := len(r.Key) + len(r.Value) + 64
	for k, v := range r.Headers {
		n += len(k) + len(v) + 10
	}
	return n
}

// Append writes the records and returns after the broker's answer for all of
// them, with acks=all. On success it has filled Partition and Offset of each.
// Records of one call with the same partition keep their order.
//
// It ends within Config.AppendTimeout. After an error some of the records may
// have been written, or may still be: at least once is the contract, and the
// caller who repeats must repeat all. The bytes must not be changed afterwards.
//
// Reasons: broker-unavailable, quorum-lost, unknown (retryable), too-large
// (permanent), unknown-topic and not-authorised (the destination's), cancelled.
func (b *Bus) Append(ctx context.Context, recs ...*Record) error {
	if len(recs) == 0 {
		return nil
	}
	start := time.Now()
	err := b.append(ctx, recs)
	if err != nil {
		b.metrics.appendErrors.WithLabelValues(string(reasonOf(err))).Inc()
		return err
	}
	b.metrics.appendSeconds.Observe(time.Since(start).Seconds())
	return nil
}

func (b *Bus) append(ctx context.Context, recs []*Record) error {
	for _, r := range recs {
		if r.Topic == "" {
			return fault.New(fault.Permanent, fault.ReasonUnknownTopic, "a record names no topic")
		}
		if n := r.size(); n > b.cfg.MaxRecordBytes {
			return fault.New(fault.Permanent, fault.ReasonTooLarge, "append to %s: the record has %d bytes, more than %d", r.Topic, n, b.cfg.MaxRecordBytes)
		}
	}
	if err := ctx.Err(); err != nil {
		return fault.Of(err)
	}
	wait, cancel := context.WithTimeoutCause(ctx, b.cfg.AppendTimeout, errNoAnswer)
	defer cancel()
	what := "append to " + recs[0].Topic
	for _, r := range recs {
		if err := b.exists(wait, r.Topic); err != nil && wait.Err() == nil {
			return classify(err, "append to "+r.Topic)
		}
	}
	results, err := b.bulk.send(wait, recs)
	if err == nil {
		results, err = b.resendOversized(wait, recs, results)
	}
	if errors.Is(err, errNoAnswer) {
		if ctx.Err() != nil {
			return fault.Of(ctx.Err())
		}
		return fault.Wrap(err, fault.Retryable, fault.ReasonBrokerUnavailable, "%s: no answer within %s", what, b.cfg.AppendTimeout)
	}
	if err != nil {
		return classify(err, what)
	}
	for i, res := range results {
		if res.err != nil {
			if reasonOf(classify(res.err, "")) == fault.ReasonUnknownTopic {
				b.known.Delete(recs[i].Topic)
			}
			return classify(res.err, "append to "+recs[i].Topic)
		}
	}
	for i, res := range results {
		recs[i].Partition, recs[i].Offset = res.partition, res.offset
	}
	return nil
}

// resendOversized sends alone what a broker refused as too large: sarama fills
// batches up to the largest record any topic takes, so a batch may be too large
// for a topic whose records are not.
func (b *Bus) resendOversized(wait context.Context, recs []*Record, results []result) ([]result, error) {
	var again []*Record
	var at []int
	for i, res := range results {
		if errors.Is(res.err, sarama.ErrMessageSizeTooLarge) || errors.Is(res.err, sarama.ErrMessageSetSizeTooLarge) {
			again, at = append(again, recs[i]), append(at, i)
		} else if res.err != nil {
			return results, nil
		}
	}
	if len(again) == 0 {
		return results, nil
	}
	second, err := b.single.send(wait, again)
	if err != nil {
		return nil, err
	}
	for j, res := range second {
		results[at[j]] = res
	}
	return results, nil
}
