package bus

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
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
	// handed out or waiting for their key's turn; defaults 256 and 64 MiB.
	MaxInFlight      int
	MaxInFlightBytes int
	// Key is the ordering key within a partition; nil means the record's key.
	// Records with an empty key have no order among each other.
	Key func(*Record) string
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
		g.MaxInFlightBytes = 64 << 20
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
	if len(s.g.Topics) > 0 && !slices.Contains(s.g.Topics, topic) {
		return nil, misconfigured("group %s does not name topic %s", s.g.Name, topic)
	}
	if err := s.b.exists(ctx, topic); err != nil {
		if r := reasonOf(classify(err, "")); r == fault.ReasonUnknownTopic || r == fault.ReasonNotAuthorised || ctx.Err() != nil {
			return nil, classify(err, "subscribe to "+topic)
		}
		// The broker is away: the member waits for it.
	}
	if _, err := s.b.cfg.member(); err != nil {
		return nil, classify(err, "subscribe to "+topic)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.b.enter() {
		return nil, fault.New(fault.Cancelled, fault.ReasonCancelled, "the subscriber of group %s is closed", s.g.Name)
	}
	s.b.metrics.topic(topic)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	m := &member{s: s, topic: topic, out: make(chan *message.Message)}
	s.wg.Go(func() {
		defer s.b.users.Done()
		defer stop()
		defer cancel()
		defer close(m.out)
		m.run(ctx)
	})
	return m.out, nil
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

// member is one subscription: one member of the group.
type member struct {
	s     *subscriber
	topic string
	out   chan *message.Message
	group sarama.ConsumerGroup // set while a session may run
}

// run joins again and again. A session ends with every rebalance, which is
// normal; one that ends at once, or with an error, is followed by a pause.
func (m *member) run(ctx context.Context) {
	var pause time.Duration
	for ctx.Err() == nil {
		began := time.Now()
		err := m.join(ctx, &pause)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause = 0
		}
		pause = double(pause)
		m.s.b.log.Warn("group session failed", "group", m.s.g.Name, "topic", m.topic, "reason", reasonOf(classify(err, "")), "pause", pause.String())
		sleep(ctx, pause)
	}
}

// join runs sessions with one client until an error.
func (m *member) join(ctx context.Context, pause *time.Duration) error {
	conf, err := m.s.b.cfg.member()
	if err != nil {
		return err
	}
	client, err := sarama.NewClient(m.s.b.cfg.Brokers, conf)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	group, err := sarama.NewConsumerGroupFromClient(m.s.g.Name, client)
	if err != nil {
		return err
	}
	m.group = group
	defer func() { _ = group.Close() }() // leaves the group, so that nobody has to wait for its silence
	for ctx.Err() == nil {
		began := time.Now()
		if err := group.Consume(ctx, []string{m.topic}, m); err != nil {
			return err
		}
		if time.Since(began) > 2*time.Second {
			*pause = 0
			continue
		}
		// A rebalance soon after a rebalance is common, a row of them is not.
		if *pause = double(*pause); *pause > 200*time.Millisecond {
			sleep(ctx, *pause/2)
		}
	}
	return nil
}

// Setup implements sarama.ConsumerGroupHandler.
func (m *member) Setup(sess sarama.ConsumerGroupSession) error {
	m.s.b.metrics.rebalances.Inc()
	m.awaitEnd(sess)
	return nil
}

// catchUp is how long a new leader may take to learn how far the log was
// acknowledged.
const catchUp = 3 * time.Second

// awaitEnd waits until the logs reach the committed offsets. A new leader may
// name an end below them for a moment, and a session that began then would
// begin at the oldest. Where it stays so, the log was lost, and the oldest is
// right.
func (m *member) awaitEnd(sess sarama.ConsumerGroupSession) {
	b, ctx := m.s.b, sess.Context()
	for began := time.Now(); ; {
		at, err := b.Committed(ctx, m.s.g.Name, m.topic)
		if err != nil {
			return // the session will find out by itself
		}
		_, newest, err := b.Offsets(ctx, m.topic)
		if err != nil {
			return
		}
		beyond := slices.DeleteFunc(slices.Clone(sess.Claims()[m.topic]), func(p int32) bool {
			return int(p) >= min(len(at), len(newest)) || at[p] <= newest[p]
		})
		if len(beyond) == 0 {
			return
		}
		if time.Since(began) > catchUp {
			b.log.Error("committed offset is beyond the end of the log; beginning at the oldest", "group", m.s.g.Name, "topic", m.topic, "partitions", beyond)
			return
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return
		}
	}
}

// Cleanup implements sarama.ConsumerGroupHandler.
func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim implements sarama.ConsumerGroupHandler.
func (m *member) ConsumeClaim(sess sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	ctx, cancel := context.WithCancel(sess.Context())
	defer cancel()
	p := newPartition(m, sess, claim)
	m.s.b.metrics.lag.hold(p, true)
	defer m.s.b.metrics.lag.hold(p, false)
	p.run(ctx, cancel)
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

func messageOf(ctx context.Context, r *Record) (*message.Message, context.CancelFunc) {
	id := r.Headers[headerID]
	if id == "" {
		id = fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset)
	}
	msg := message.NewMessage(id, r.Value)
	for k, v := range r.Headers {
		msg.Metadata[k] = v
	}
	ctx, cancel := context.WithCancel(context.WithValue(ctx, origin{}, r))
	msg.SetContext(ctx)
	return msg, cancel
}
