package main

import (
	"context"

	"github.com/IBM/sarama"
)

// rawSarama copies records from a topic to another by sarama alone, tuned as far
// as its settings go: the least that at-least-once costs with this client.
// Records are marked after the broker's answer, in order, because a record goes
// to the partition that has the number of its own.
func rawSarama(ctx context.Context, j job, ready func(addresses)) error {
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	conf.ChannelBufferSize = 4096
	conf.Consumer.Offsets.Initial = sarama.OffsetOldest
	conf.Consumer.Fetch.Default = 4 << 20
	conf.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategySticky()}
	conf.Net.MaxOpenRequests = 1 // what sarama's idempotent producer asks for
	conf.Producer.Idempotent = true
	conf.Producer.RequiredAcks = sarama.WaitForAll
	conf.Producer.Retry.Max = 10
	conf.Producer.Return.Successes = true
	conf.Producer.Partitioner = sarama.NewManualPartitioner
	client, err := sarama.NewClient(j.Brokers, conf)
	if err != nil {
		return err
	}
	defer client.Close()
	producer, err := sarama.NewAsyncProducerFromClient(client)
	if err != nil {
		return err
	}
	group, err := sarama.NewConsumerGroup(j.Brokers, j.Group, conf)
	if err != nil {
		return err
	}
	defer group.Close()
	c := &copying{in: producer.Input(), out: j.Out, failed: make(chan error, 1)}
	go func() {
		for m := range producer.Successes() {
			o := m.Metadata.(origin)
			o.session.MarkMessage(o.msg, "")
		}
	}()
	go func() {
		for e := range producer.Errors() {
			select {
			case c.failed <- e.Err:
			default:
			}
		}
	}()
	ready(addresses{})
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{j.In}, c); err != nil {
			return err
		}
		select {
		case err := <-c.failed:
			return err
		default:
		}
	}
	return producer.Close()
}

type copying struct {
	in     chan<- *sarama.ProducerMessage
	out    string
	failed chan error
}

type origin struct {
	session sarama.ConsumerGroupSession
	msg     *sarama.ConsumerMessage
}

// Setup implements sarama.ConsumerGroupHandler.
func (*copying) Setup(sarama.ConsumerGroupSession) error { return nil }

// Cleanup implements sarama.ConsumerGroupHandler.
func (*copying) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim implements sarama.ConsumerGroupHandler.
func (c *copying) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for m := range claim.Messages() {
		p := &sarama.ProducerMessage{Topic: c.out, Partition: m.Partition, Key: sarama.ByteEncoder(m.Key), Value: sarama.ByteEncoder(m.Value),
			Metadata: origin{s, m}}
		for _, h := range m.Headers {
			p.Headers = append(p.Headers, *h)
		}
		select {
		case c.in <- p:
		case <-s.Context().Done():
			return nil
		case err := <-c.failed:
			return err
		}
	}
	return nil
}
