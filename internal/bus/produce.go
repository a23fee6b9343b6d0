package bus

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/fault"
)

// errNoOffset stands for an acknowledgement without an offset, which a broker
// gives for a batch it has seen so long ago that it forgot where it lies.
var errNoOffset = errors.New("acknowledged without an offset")

// smallBytes parts small calls from bulk.
const smallBytes = 64 << 10

// lane chooses the producer for a call. A producer has one request in flight at
// a broker, and what comes meanwhile waits for the next; so what a portal waits
// for would stand behind megabytes that some stage writes. Compression is a
// producer's too: it pays for claims and events, which are JSON, and not for
// what is sealed. A call stays whole, so its order does. See ADR 0010.
func (b *Bus) lane(recs []*Record, bytes int) *lane {
	switch {
	case !slices.ContainsFunc(recs, func(r *Record) bool { return r.Topic != TopicEvents && r.Topic != TopicClaims }):
		return b.books
	case bytes > smallBytes:
		return b.bulk
	default:
		return b.small
	}
}

// Append writes the records and returns after the broker's answer for all of
// them, with acks=all. On success it has filled Partition and Offset of each.
// Records of one call with the same partition keep their order; so do calls of
// which the next begins after the one before has returned.
//
// A key's partition follows from the number of partitions: in a topic that
// EnsureTopics has seen, the number it had then, whatever an administrator adds
// later; in any other topic the number the cluster names, so that adding
// partitions there parts a key's later records from its earlier ones.
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
	err := b.append(ctx, start, recs)
	if err != nil {
		b.metrics.appendErrors.WithLabelValues(string(reasonOf(err))).Inc()
		return err
	}
	b.metrics.appendSeconds.Observe(time.Since(start).Seconds())
	return nil
}

func (b *Bus) append(ctx context.Context, start time.Time, recs []*Record) error {
	if err := ctx.Err(); err != nil {
		return fault.Of(err)
	}
	w := newWait(ctx, start, b.cfg.AppendTimeout)
	defer w.close()
	items, bytes, err := b.pack(w, start, recs)
	if err != nil {
		return err
	}
	through := b.lane(recs, bytes)
	if err := send(w, through, items); err != nil {
		return b.failed(err, recs[0].Topic)
	}
	if err := b.resendOversized(w, items); err != nil {
		return b.failed(err, recs[0].Topic)
	}
	for i := range items {
		if err := items[i].err; err != nil {
			if reasonOf(classify(err, "")) == fault.ReasonUnknownTopic {
				b.known.Delete(recs[i].Topic)
			}
			return b.failed(err, recs[i].Topic)
		}
	}
	for i := range items {
		recs[i].Partition, recs[i].Offset = items[i].msg.Partition, items[i].msg.Offset
	}
	now := time.Now()
	through.pace.took(now.Sub(start), now)
	return nil
}

// failed is what Append says of an error.
func (b *Bus) failed(err error, topic string) error {
	if errors.Is(err, errNoAnswer) {
		return fault.Wrap(err, fault.Retryable, fault.ReasonBrokerUnavailable, "append to %s: no answer within %s", topic, b.cfg.AppendTimeout)
	}
	return classify(err, "append to "+topic)
}

// pack checks the records and packs them. It returns their size, too.
func (b *Bus) pack(w *wait, start time.Time, recs []*Record) ([]*outgoing, int, error) {
	headers, headerBytes, bytes := 0, 0, 0
	for _, r := range recs {
		if r.Topic == "" {
			return nil, 0, fault.New(fault.Permanent, fault.ReasonUnknownTopic, "a record names no topic")
		}
		hb := r.headerBytes()
		n := r.sizeWith(hb)
		if n > b.cfg.MaxRecordBytes {
			return nil, 0, fault.New(fault.Permanent, fault.ReasonTooLarge, "append to %s: the record has %d bytes, more than %d", r.Topic, n, b.cfg.MaxRecordBytes)
		}
		headers, headerBytes, bytes = headers+len(r.Headers), headerBytes+hb, bytes+n
	}
	all, items := make([]outgoing, len(recs)), make([]*outgoing, len(recs))
	p := newPacker(headers, headerBytes, start)
	var in place
	for i, r := range recs {
		if r.Topic != in.topic {
			var err error
			if in, err = b.seek(w, r.Topic); err != nil {
				return nil, 0, b.failed(err, r.Topic)
			}
		}
		items[i] = &all[i]
		p.fill(items[i], r)
		items[i].partition = in.partition(r)
	}
	return items, bytes, nil
}

func (b *Bus) seek(w *wait, topic string) (place, error) {
	if v, ok := b.known.Load(topic); ok {
		return v.(place), nil
	}
	ctx, cancel := w.context()
	defer cancel()
	in, err := b.locate(ctx, topic)
	if err != nil && ctx.Err() != nil {
		err = w.over()
	}
	return in, err
}

// resendOversized sends alone what a broker refused as too large: sarama fills
// batches up to the largest record any topic takes, so a batch may be too large
// for a topic whose records are not.
func (b *Bus) resendOversized(w *wait, items []*outgoing) error {
	var again []*outgoing
	for _, it := range items {
		if errors.Is(it.err, sarama.ErrMessageSizeTooLarge) || errors.Is(it.err, sarama.ErrMessageSetSizeTooLarge) {
			again = append(again, it)
		} else if it.err != nil {
			return nil
		}
	}
	if len(again) == 0 {
		return nil
	}
	return send(w, b.single, again)
}
