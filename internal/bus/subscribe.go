package bus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"weiche/internal/fault"
)

// Group describes a consumer group's member.
type Group struct {
	Name string
	// Topics may be subscribed to; empty means any. Each Subscribe is a member
	// of its own, and the owner of partition n of one topic need not own
	// partition n of another.
	Topics []string
	// MaxInFlight and MaxInFlightBytes bound, for each partition, the records
	// handed out or waiting for their key's turn; defaults 256 (1024 for
	// Consume) and 16 MiB. All partitions of a member share 64 MiB, each has at
	// least 1 MiB; a quarter of MaxInFlightBytes may have been fetched ahead of
	// each, and 32 MiB of all.
	MaxInFlight      int
	MaxInFlightBytes int
	// Key is the ordering key within a partition; nil means the record's key.
	// Records with an empty key have no order among each other.
	Key func(*Record) string
	// Share is how many records of one key may wait for their turn while one of
	// it is in work, default a quarter of MaxInFlight. What is beyond that goes
	// to Spill, which puts it aside (in order, and behind the one in work, which
	// may not have come to its handler yet) so that the key cannot fill the
	// window: acknowledged when Spill says so. Without Spill a key may fill it.
	Share int
	Spill func(ctx context.Context, inWork *Record, recs []*Record) []error
	// BatchRecords and BatchBytes bound what Consume hands over at once,
	// defaults 256 and 1 MiB; Batches is how many of a partition are in work at a
	// time, default 2.
	BatchRecords, BatchBytes, Batches int
	// Owns is asked before finished records are marked for the next commit:
	// whether the partition is still ours by what stands in the log, so that all
	// that was recorded for them took effect. An error is asked again; false ends
	// the session, which begins again at the committed offset. nil means yes.
	Owns func(ctx context.Context, topic string, partition int32) (bool, error)
	// Assigned is called before a partition's first record; an error is
	// retried with backoff for as long as the partition is ours. It must
	// return when its context ends.
	Assigned func(ctx context.Context, topic string, partition int32) error
	// Revoked is called once for each Assigned that returned nil, after the
	// partition's handlers were cancelled and have returned.
	Revoked func(topic string, partition int32)
	// Grace is how long a lost partition waits for handlers that were
	// cancelled; default (and at most) 25 s. What has not returned by then is
	// redelivered elsewhere while it may still be running here.
	Grace time.Duration
}

func (g Group) withDefaults() Group {
	if g.MaxInFlight <= 0 {
		g.MaxInFlight = 256
	}
	if g.MaxInFlightBytes <= 0 {
		g.MaxInFlightBytes = 16 << 20
	}
	if g.Share <= 0 {
		g.Share = max(1, g.MaxInFlight/4)
	}
	if g.BatchRecords <= 0 {
		g.BatchRecords = 256
	}
	if g.BatchBytes <= 0 {
		g.BatchBytes = 1 << 20
	}
	if g.Batches <= 0 {
		g.Batches = 2
	}
	if g.Grace <= 0 || g.Grace > rebalanceTimeout-5*time.Second {
		g.Grace = rebalanceTimeout - 5*time.Second
	}
	if g.Key == nil {
		g.Key = func(r *Record) string { return string(r.Key) }
	}
	return g
}

// Subscriber returns a watermill subscriber for the group.
//
// Subscribe(ctx, topic) joins the group in the background and stays in it, over
// broker outages too, until ctx ends or the subscriber or the bus is closed;
// then the channel is closed. A topic that does not exist is an error. Payload
// is the value, metadata the headers, UUID the ce_id or topic/partition/offset;
// RecordOf gives the record.
//
// Of one key a record is handed out only after the one before it was acked;
// other keys flow beside it. A nack brings the same record again after 100 ms,
// doubling to 10 s, and holds only its key. The committed offset never passes a
// record that was not acked; a group without offset begins at the oldest. A
// message's context is cancelled when its partition is lost or the subscription
// ends; an ack after that still counts if it comes within Group.Grace.
func (b *Bus) Subscriber(g Group) (message.Subscriber, error) {
	return b.subscriber(g)
}

// Handler works on a batch of one partition's records, of a key in the order of
// the log; no other record of these keys is in work beside it. It returns an
// error for each record that is not done, nil for the others; a nil slice means
// that all are. What stands behind a failed record of the same key counts as
// failed. ctx ends when the partition is lost. It must be safe for concurrent
// use.
type Handler func(ctx context.Context, recs []*Record) []error

// Consume is Subscriber for handlers that gain from taking many records at once.
// The rules are the same, with a handler's error for a nack. It joins the group
// and returns when ctx ended, or the bus was closed, and all handlers have
// returned; with an error only where it could not begin.
func (b *Bus) Consume(ctx context.Context, g Group, topic string, handle Handler) error {
	if g.MaxInFlight <= 0 {
		g.MaxInFlight = 1024
	}
	s, err := b.subscriber(g)
	if err != nil {
		return err
	}
	if err := s.start(ctx, &member{s: s, topic: topic, handle: handle, out: make(chan *message.Message)}); err != nil && ctx.Err() == nil {
		return err
	}
	s.wg.Wait()
	return nil
}

func (b *Bus) subscriber(g Group) (*subscriber, error) {
	if g.Name == "" {
		return nil, misconfigured("a consumer group needs a name")
	}
	s := &subscriber{b: b, g: g.withDefaults()}
	s.life, s.cancel = context.WithCancel(b.life)
	for _, t := range g.Topics {
		b.metrics.topic(t)
	}
	return s, nil
}

type subscriber struct {
	b      *Bus
	g      Group
	life   context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	closed bool
}

// Subscribe implements message.Subscriber.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	m := &member{s: s, topic: topic, out: make(chan *message.Message)}
	if err := s.start(ctx, m); err != nil {
		return nil, err
	}
	return m.out, nil
}

// start lets a member join in the background, until ctx ends or the subscriber
// is closed.
func (s *subscriber) start(ctx context.Context, m *member) error {
	topic := m.topic
	if len(s.g.Topics) > 0 && !slices.Contains(s.g.Topics, topic) {
		return misconfigured("group %s does not name topic %s", s.g.Name, topic)
	}
	if err := s.b.exists(ctx, topic); err != nil {
		if r := reasonOf(classify(err, "")); r == fault.ReasonUnknownTopic || r == fault.ReasonNotAuthorised || ctx.Err() != nil {
			return classify(err, "subscribe to "+topic)
		}
		// The broker is away: the member waits for it.
	}
	if _, err := s.b.cfg.member(); err != nil {
		return classify(err, "subscribe to "+topic)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.b.enter() {
		return fault.New(fault.Cancelled, fault.ReasonCancelled, "the subscriber of group %s is closed", s.g.Name)
	}
	s.b.metrics.topic(topic)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	s.wg.Go(func() {
		defer s.b.users.Done()
		defer stop()
		defer cancel()
		defer close(m.out)
		m.run(ctx)
	})
	return nil
}

// Close implements message.Subscriber. It returns when handlers have returned
// (or Group.Grace is over), offsets are committed and the group is left.
func (s *subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	return nil
}

// origin is how a message remembers the record it was made from.
type origin struct{}

// RecordOf returns the record a message of a Subscriber was made from, with its
// partition and offset. It must not be changed.
func RecordOf(msg *message.Message) (*Record, bool) {
	r, ok := msg.Context().Value(origin{}).(*Record)
	return r, ok
}

const headerID = "ce_id"

// recordContext is a message's context: it brings the record along.
type recordContext struct {
	context.Context
	rec *Record
}

// Value implements context.Context.
func (c recordContext) Value(key any) any {
	if key == (origin{}) {
		return c.rec
	}
	return c.Context.Value(key)
}

func messageOf(ctx context.Context, r *Record) (*message.Message, context.CancelFunc) {
	id := r.Headers[headerID]
	if id == "" {
		id = fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset)
	}
	msg := message.NewMessage(id, r.Value)
	msg.Metadata = maps.Clone(r.Headers)
	ctx, cancel := context.WithCancel(recordContext{ctx, r})
	msg.SetContext(ctx)
	return msg, cancel
}
