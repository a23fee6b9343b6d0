package bus

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"
)

// member is one subscription: one member of the group.
type member struct {
	s     *subscriber
	topic string
	// Records go to handle in batches, or, where that is nil, to out one by one.
	handle Handler
	out    chan *message.Message
	group  sarama.ConsumerGroup // set while a session may run

	generation atomic.Int32 // of the session's newest rebalance
	holds      atomic.Int32 // partitions
}

// run joins again and again. A session outlives rebalances that leave it a
// partition; one that ends at once, or with an error, is followed by a pause.
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
		// A new session soon after another is common, a row of them is not.
		if *pause = double(*pause); *pause > 200*time.Millisecond {
			sleep(ctx, *pause/2)
		}
	}
	return nil
}

// Setup implements sarama.ConsumerGroupHandler. It runs before the first
// partition of a session; partitions that come later in it were committed by a
// member that has just read them.
func (m *member) Setup(sess sarama.ConsumerGroupSession) error {
	m.rebalanced(sess)
	m.place(sess)
	return nil
}

func (m *member) rebalanced(sess sarama.ConsumerGroupSession) {
	if g := sess.GenerationID(); m.generation.Swap(g) != g {
		m.s.b.metrics.rebalances.Inc()
	}
}

// catchUp is how long a new leader may take to learn how far the log was
// acknowledged.
const catchUp = 3 * time.Second

// place puts committed offsets that lie outside of the log back into it. A new
// leader may name an end below them for a moment, so that is waited for; where
// it stays so, the log was lost, and its oldest record is the right place to
// begin.
func (m *member) place(sess sarama.ConsumerGroupSession) {
	b, ctx := m.s.b, sess.Context()
	for began := time.Now(); ; {
		at, err := b.Committed(ctx, m.s.g.Name, m.topic)
		if err != nil {
			return // the session will find out by itself
		}
		oldest, newest, err := b.Offsets(ctx, m.topic)
		if err != nil {
			return
		}
		var beyond []int32
		for _, p := range sess.Claims()[m.topic] {
			switch {
			case int(p) >= min(len(at), len(newest)) || at[p] < 0:
			case at[p] > newest[p]:
				beyond = append(beyond, p)
			case at[p] < oldest[p]:
				sess.MarkOffset(m.topic, p, oldest[p], "")
			}
		}
		if len(beyond) == 0 {
			return
		}
		if time.Since(began) > catchUp {
			b.log.Error("committed offset is beyond the end of the log; beginning at the oldest", "group", m.s.g.Name, "topic", m.topic, "partitions", beyond)
			for _, p := range beyond {
				sess.ResetOffset(m.topic, p, oldest[p], "")
			}
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
	m.rebalanced(sess)
	ctx, cancel := context.WithCancel(sess.Context())
	defer cancel()
	m.holds.Add(1)
	defer m.holds.Add(-1)
	p := newPartition(m, sess, claim)
	m.s.b.metrics.held.hold(p, true)
	defer m.s.b.metrics.held.hold(p, false)
	p.run(ctx, cancel)
	return nil
}

// committedAt returns a group's committed offset in one partition, -1 where there
// is none, and the metadata committed with it.
func (b *Bus) committedAt(ctx context.Context, group, topic string, partition int32) (offset int64, metadata string, err error) {
	blk, err := request(ctx, b, "offset of group "+group, func() (*sarama.OffsetFetchResponseBlock, error) {
		res, err := b.admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {partition}})
		if err != nil {
			return nil, err
		}
		if !errors.Is(res.Err, sarama.ErrNoError) {
			return nil, res.Err
		}
		blk := res.GetBlock(topic, partition)
		if blk == nil {
			return nil, sarama.ErrIncompleteResponse
		}
		if !errors.Is(blk.Err, sarama.ErrNoError) {
			return nil, blk.Err
		}
		return blk, nil
	})
	if err != nil {
		return -1, "", err
	}
	return blk.Offset, blk.Metadata, nil
}
