package bus

import (
	"errors"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"weiche/internal/fault"
)

// KeyMetadata is the watermill metadata entry that becomes the record's key
// when a message is published through Bus.Publisher. It is not written as a
// header.
const KeyMetadata = "weiche_key"

// Publisher returns a watermill publisher: payload is the value, metadata the
// headers, KeyMetadata the key; a message without ce_id gets its UUID as such.
// Publish returns after the broker's answer for all messages. Closing the
// publisher ends it, not the bus.
func (b *Bus) Publisher() message.Publisher { return &publisher{b: b} }

type publisher struct {
	b      *Bus
	mu     sync.RWMutex
	closed bool
}

var errPublisherClosed = errors.New("publisher is closed")

// Publish implements message.Publisher.
func (p *publisher) Publish(topic string, msgs ...*message.Message) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return fault.Wrap(errPublisherClosed, fault.Cancelled, fault.ReasonCancelled, "the publisher is closed")
	}
	if len(msgs) == 0 {
		return nil
	}
	recs := make([]*Record, len(msgs))
	for i, m := range msgs {
		r := &Record{Topic: topic, Partition: AnyPartition, Value: m.Payload, Headers: map[string]string{headerID: m.UUID}}
		for k, v := range m.Metadata {
			if k == KeyMetadata {
				r.Key = []byte(v)
				continue
			}
			r.Headers[k] = v
		}
		recs[i] = r
	}
	return p.b.Append(msgs[0].Context(), recs...)
}

// Close implements message.Publisher. It waits for a Publish that is under way.
func (p *publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}
