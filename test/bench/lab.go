package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"weiche/internal/bus"
	"weiche/internal/kafkatest"
)

// Topics of the harness. What the router itself reads and writes is bus.Topics.
const (
	plainIn  = "bench.in"  // submissions as portals post them
	plainOut = "bench.out" // copies of them
)

// lab is a Kafka of its own with what is needed to set it up and look at it.
type lab struct {
	dir     string // everything is below; removed at the end
	repo    string
	brokers []string
	broker  int // process
	client  sarama.Client
	admin   sarama.ClusterAdmin
	bus     *bus.Bus // makes topics as the router does
	close   []func()
	log     io.Writer

	receiver *receiver
	scene
}

// scene is what the next runs are about. accept and landscape set parts of it.
type scene struct {
	partitions int
	plan       plan
	land       *landscape
	stash      string                    // prefix of the topics with accepted submissions
	accepted   string                    // the data directory of the intake whose submissions are in the stash
	singles    []*sarama.ProducerMessage // some of them
}

func (l *lab) busConfig() bus.Config { return busConfig(l.brokers, l.partitions) }

// onBus makes a job for this broker.
func (l *lab) onBus(contender string) job {
	return job{Contender: contender, Brokers: l.brokers, Partitions: l.partitions}
}

// openLab starts the broker. Its Java machine is the one a real broker has, with
// a heap of 1 GB. Its indexes are small: Kafka maps 10 MB for each of the two
// that a partition's segment has, and where the disk reads ahead by megabytes,
// the first record of each partition costs milliseconds of zeroing.
func openLab(ctx context.Context, repo, dir string) (l *lab, err error) {
	l = &lab{dir: dir, repo: repo, log: io.Discard, scene: scene{partitions: 8}}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	cluster, stop, err := kafkatest.Launch(dir, kafkatest.JVM("-Xmx1g", "-Xms1g", "-XX:+UseG1GC"),
		kafkatest.Property("log.index.size.max.bytes", strconv.Itoa(256<<10)),
		kafkatest.Property("log.segment.delete.delay.ms", "1000"), kafkatest.Property("log.retention.check.interval.ms", "5000"))
	if err != nil {
		return l, err
	}
	l.close = append(l.close, stop)
	l.brokers, l.broker = cluster.Addrs(), cluster.Nodes[0].PID()
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	conf.ChannelBufferSize = 4096
	conf.Metadata.AllowAutoTopicCreation = false
	conf.Consumer.Fetch.Default = 4 << 20
	conf.Admin.Timeout = time.Minute
	conf.Net.ReadTimeout = 90 * time.Second
	conf.Net.MaxOpenRequests = 1
	conf.Producer.Idempotent = true
	conf.Producer.Retry.Max = 100 // a topic just made moves its leaders about
	conf.Producer.RequiredAcks = sarama.WaitForAll
	conf.Producer.Return.Successes = true
	conf.Producer.MaxMessageBytes = 17 << 20
	conf.Producer.Partitioner = sarama.NewManualPartitioner
	if l.client, err = sarama.NewClient(l.brokers, conf); err != nil {
		return l, err
	}
	l.close = append(l.close, func() { _ = l.client.Close() })
	if l.admin, err = sarama.NewClusterAdminFromClient(l.client); err != nil {
		return l, err
	}
	patient := l.busConfig()
	patient.AppendTimeout = time.Minute // other work may be on the machine
	if l.bus, err = bus.Open(ctx, patient, slog.New(slog.DiscardHandler), nil); err != nil {
		return l, err
	}
	l.close = append(l.close, func() { _ = l.bus.Close() })
	if l.receiver, err = newReceiver(); err != nil {
		return l, err
	}
	l.close = append(l.close, l.receiver.close)
	return l, nil
}

// Close ends the broker.
func (l *lab) Close() {
	for _, fn := range slices.Backward(l.close) {
		fn()
	}
	l.close = nil
}

// recreate makes topics that are empty.
func (l *lab) recreate(ctx context.Context, topics ...bus.Topic) error {
	there, err := l.admin.ListTopics()
	if err != nil {
		return err
	}
	for _, t := range topics {
		if _, ok := there[t.Name]; !ok {
			continue
		}
		if err := l.admin.DeleteTopic(t.Name); err != nil && !errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %s: %w", t.Name, err)
		}
	}
	// A topic is gone for good a moment after it was deleted.
	deadline := time.Now().Add(30 * time.Second)
	for {
		there, err := l.admin.ListTopics()
		if err != nil {
			return err
		}
		left := slices.ContainsFunc(topics, func(t bus.Topic) bool { _, ok := there[t.Name]; return ok })
		if !left {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("deleted topics do not go away")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := l.bus.EnsureTopics(ctx, topics); err != nil {
		return err
	}
	return l.client.RefreshMetadata()
}

// plainTopic is a topic of the harness.
func plainTopic(name string, partitions int) bus.Topic {
	return bus.Topic{Name: name, Partitions: partitions, RetentionMS: -1, MaxMessageBytes: 17 << 20}
}

// forget deletes consumer groups, so that their next member begins at the oldest
// record.
func (l *lab) forget(groups ...string) error {
	there, err := l.admin.ListConsumerGroups()
	if err != nil {
		return err
	}
	for _, g := range groups {
		if _, ok := there[g]; !ok {
			continue
		}
		// A member that was killed is waited for.
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			err := l.admin.DeleteConsumerGroup(g)
			if err == nil || errors.Is(err, sarama.ErrGroupIDNotFound) {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("delete group %s: %w", g, err)
			}
		}
	}
	return nil
}

// written is how many records the topics have taken, over all partitions. A
// topic just made may have no leader for a moment.
func (l *lab) written(topics ...string) (n int64, err error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if n, err = l.ends(topics); err == nil || time.Now().After(deadline) {
			return n, err
		}
	}
}

func (l *lab) ends(topics []string) (int64, error) {
	ask := map[string]map[int32]int64{}
	for _, t := range topics {
		parts, err := l.client.Partitions(t)
		if err != nil {
			return 0, err
		}
		ask[t] = map[int32]int64{}
		for _, p := range parts {
			ask[t][p] = sarama.OffsetNewest
		}
	}
	res, err := l.admin.ListOffsets(ask, nil)
	if err != nil {
		return 0, err
	}
	var sum int64
	for t, parts := range ask {
		for p := range parts {
			r := res[t][p]
			if r == nil {
				return 0, fmt.Errorf("no end of %s/%d", t, p)
			}
			if r.Offset < 0 {
				return 0, fmt.Errorf("no end of %s/%d: %w", t, p, r.Err)
			}
			sum += r.Offset
		}
	}
	return sum, nil
}

// sender appends records from the harness itself: inputs, and the 500 a second.
type sender struct {
	producer sarama.AsyncProducer
	pending  atomic.Int64
	failed   atomic.Pointer[error]
	done     chan struct{}
}

func (l *lab) newSender() (*sender, error) {
	p, err := sarama.NewAsyncProducerFromClient(l.client)
	if err != nil {
		return nil, err
	}
	s := &sender{producer: p, done: make(chan struct{})}
	go func() {
		for range p.Successes() {
			s.pending.Add(-1)
		}
		close(s.done)
	}()
	go func() {
		for e := range p.Errors() {
			err := error(e)
			s.failed.CompareAndSwap(nil, &err)
			s.pending.Add(-1)
		}
	}()
	return s, nil
}

func (s *sender) send(m *sarama.ProducerMessage) {
	s.pending.Add(1)
	s.producer.Input() <- m
}

// close waits for all answers. A producer that is being closed retries nothing,
// so it is closed after them.
func (s *sender) close() error {
	for s.pending.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
	s.producer.AsyncClose()
	<-s.done
	if e := s.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// read calls fn for limit records of a topic (or all, where it has fewer): the
// first ones of each partition, by its share. Partitions come one after the
// other.
func (l *lab) read(topic string, limit int, fn func(*sarama.ConsumerMessage) error) error {
	consumer, err := sarama.NewConsumerFromClient(l.client)
	if err != nil {
		return err
	}
	defer consumer.Close()
	parts, err := l.client.Partitions(topic)
	if err != nil {
		return err
	}
	shares, err := l.shares(topic, parts, int64(limit))
	if err != nil {
		return err
	}
	for i, p := range parts {
		share := shares[i]
		if share == 0 {
			continue
		}
		pc, err := consumer.ConsumePartition(topic, p, 0)
		if err != nil {
			return err
		}
		for m := range pc.Messages() {
			if err := fn(m); err != nil {
				return err
			}
			if m.Offset+1 >= share {
				break
			}
		}
		if err := pc.Close(); err != nil {
			return err
		}
	}
	return nil
}

// shares splits limit over partitions by what they hold.
func (l *lab) shares(topic string, parts []int32, limit int64) ([]int64, error) {
	ends := make([]int64, len(parts))
	var sum int64
	for i, p := range parts {
		end, err := l.client.GetOffset(topic, p, sarama.OffsetNewest)
		if err != nil {
			return nil, err
		}
		ends[i], sum = end, sum+end
	}
	limit = min(limit, sum)
	var before, given int64
	for i, end := range ends {
		before += end
		if sum > 0 {
			ends[i] = before*limit/sum - given // what is rounded off goes to the next
		}
		given += ends[i]
	}
	return ends, nil
}

// again is a record as it is written once more, by its key as the bus does it.
func (l *lab) again(topic string, m *sarama.ConsumerMessage, partitions int) *sarama.ProducerMessage {
	out := &sarama.ProducerMessage{Topic: topic, Partition: l.bus.PartitionOf(m.Key, partitions), Key: sarama.ByteEncoder(m.Key),
		Value: sarama.ByteEncoder(m.Value), Timestamp: m.Timestamp}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, *h)
	}
	return out
}

// copyTopic writes the first limit records of a topic to another one.
func (l *lab) copyTopic(from, to string, limit int) error {
	parts, err := l.client.Partitions(to)
	if err != nil {
		return err
	}
	s, err := l.newSender()
	if err != nil {
		return err
	}
	err = l.read(from, limit, func(m *sarama.ConsumerMessage) error { s.send(l.again(to, m, len(parts))); return nil })
	return errors.Join(err, s.close())
}
