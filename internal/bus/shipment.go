package bus

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/fault"
)

// outgoing is one record on its way through sarama and back. It is a copy: an
// answer may come after Append has given up, when the record is the caller's
// again.
type outgoing struct {
	msg       sarama.ProducerMessage
	key       octets
	value     octets
	partition int32 // asked for
	ship      *shipment
	err       error
}

// settle takes the broker's answer.
func (it *outgoing) settle(err error) {
	it.err = err
	if err == nil && it.msg.Offset < 0 {
		it.err = errNoOffset
	}
	if it.ship.pending.Add(-1) == 0 {
		close(it.ship.done)
	}
}

// octets is a sarama.Encoder that lies in the item, so that it needs no
// interface value of its own on the heap.
type octets []byte

// Encode implements sarama.Encoder.
func (o *octets) Encode() ([]byte, error) { return *o, nil }

// Length implements sarama.Encoder.
func (o *octets) Length() int { return len(*o) }

// shipment is what one Append has under way in one lane.
type shipment struct {
	lane    *lane
	p       *producer
	items   []*outgoing
	pending atomic.Int32
	done    chan struct{}
}

// dispatch hands the items to the lane's producer. Only await gives it back.
func dispatch(w *wait, l *lane, items []*outgoing) (*shipment, error) {
	p, err := l.enter(w)
	if err != nil {
		return nil, err
	}
	s := &shipment{lane: l, p: p, items: items, done: make(chan struct{})}
	s.pending.Store(int32(len(items)))
	in := p.async.Input()
	for _, it := range items {
		it.ship = s
		if hand(w, in, &it.msg) != nil {
			break // await says so
		}
	}
	return s, nil
}

// await waits for the answers to all items. An error nobody can interpret, or
// none at all, ends the producer: sarama's circuit breakers and sequence
// numbers outlive the fault that tripped them, and a new one has none of them.
func (s *shipment) await(w *wait) error {
	defer s.p.leave()
	if err := w.until(s.done); err != nil {
		if errors.Is(err, errNoAnswer) {
			s.lane.discard(s.p, true)
		}
		return err
	}
	for _, it := range s.items {
		if it.err == nil {
			continue
		}
		if _, reason, _ := judge(it.err); reason == fault.ReasonUnknown || reason == fault.ReasonBrokerUnavailable {
			s.lane.discard(s.p, false)
			break
		}
	}
	return nil
}

func send(w *wait, l *lane, items []*outgoing) error {
	s, err := dispatch(w, l, items)
	if err != nil {
		return err
	}
	return s.await(w)
}

// packer fills items from records. All headers of a call share two slices.
type packer struct {
	now     time.Time
	headers []sarama.RecordHeader
	bytes   []byte
}

func newPacker(headers, bytes int, now time.Time) *packer {
	return &packer{now: now, headers: make([]sarama.RecordHeader, 0, headers), bytes: make([]byte, 0, bytes)}
}

func (p *packer) fill(it *outgoing, r *Record) {
	it.key, it.value = r.Key, r.Value
	it.msg = sarama.ProducerMessage{Topic: r.Topic, Offset: -1, Timestamp: r.Time, Metadata: it}
	if r.Time.IsZero() {
		it.msg.Timestamp = p.now
	}
	if r.Key != nil {
		it.msg.Key = &it.key
	}
	if r.Value != nil {
		it.msg.Value = &it.value
	}
	from := len(p.headers)
	for k, v := range r.Headers {
		p.headers = append(p.headers, sarama.RecordHeader{Key: p.copy(k), Value: p.copy(v)})
	}
	it.msg.Headers = p.headers[from:len(p.headers):len(p.headers)]
}

func (p *packer) copy(s string) []byte {
	from := len(p.bytes)
	p.bytes = append(p.bytes, s...)
	return p.bytes[from:len(p.bytes):len(p.bytes)]
}

// size is what the record takes at most in a batch of its own.
func (r *Record) size() int {
	return r.sizeWith(r.headerBytes())
}

func (r *Record) sizeWith(headerBytes int) int {
	return len(r.Key) + len(r.Value) + 64 + headerBytes + 10*len(r.Headers)
}

func (r *Record) headerBytes() int {
	n := 0
	for k, v := range r.Headers {
		n += len(k) + len(v)
	}
	return n
}
