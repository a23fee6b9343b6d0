package bus

import (
	"context"
	"math"
	"math/rand/v2"

	"github.com/IBM/sarama"
)

// partitionOf is FNV-1a modulo the count. It must never change: a case's order
// hangs on it.
func partitionOf(key []byte, partitions int32) int32 {
	h := uint32(2166136261)
	for _, c := range key {
		h = (h ^ uint32(c)) * 16777619
	}
	return int32(h % uint32(partitions))
}

// PartitionOf returns the partition that Append chooses for a key in a topic of
// that many partitions. It needs no connection.
func (b *Bus) PartitionOf(key []byte, partitions int) int32 {
	return partitionOf(key, int32(partitions))
}

// partitioner honours what Append has chosen. What it left open, records of
// topics whose partitions are not ours to count, goes by key, or anywhere
// without one.
type partitioner struct{}

func newPartitioner(string) sarama.Partitioner { return partitioner{} }

func (partitioner) Partition(m *sarama.ProducerMessage, partitions int32) (int32, error) {
	switch it := m.Metadata.(*outgoing); {
	case it.partition >= partitions, it.partition < AnyPartition:
		return 0, sarama.ErrInvalidPartition
	case it.partition != AnyPartition:
		return it.partition, nil
	case m.Key == nil:
		return rand.Int32N(partitions), nil
	default:
		return partitionOf(it.key, partitions), nil
	}
}

// RequiresConsistency implements sarama.Partitioner: a key's partition must not
// depend on which partitions have a leader just now.
func (partitioner) RequiresConsistency() bool { return true }

// place is what Append knows of a topic.
type place struct {
	topic string
	count int32 // the partitions EnsureTopics has seen; 0: the cluster's count, whatever it is
}

// partition chooses a record's partition where that is ours to choose.
func (in place) partition(r *Record) int32 {
	switch {
	case in.count == 0:
		return r.Partition
	case r.Partition >= in.count:
		return math.MaxInt32 // refused by the partitioner
	case r.Partition != AnyPartition:
		return r.Partition
	case r.Key == nil:
		return rand.Int32N(in.count)
	default:
		return partitionOf(r.Key, in.count)
	}
}

// locate answers from what was seen before, and asks the cluster otherwise. An
// unknown topic must not reach a producer: it would trip the breakers that
// other topics' records share.
func (b *Bus) locate(ctx context.Context, topic string) (place, error) {
	if v, ok := b.known.Load(topic); ok {
		return v.(place), nil
	}
	_, err := try(ctx, func() ([]int32, error) { return b.meta.Partitions(topic) })
	if err != nil {
		return place{}, err
	}
	in := place{topic: topic}
	b.mu.Lock() // EnsureTopics forgets what is known under the same lock
	defer b.mu.Unlock()
	for _, t := range b.ensured {
		if t.Name == topic {
			in.count = int32(t.Partitions)
			break
		}
	}
	b.known.Store(topic, in)
	return in, nil
}

func (b *Bus) exists(ctx context.Context, topic string) error {
	_, err := b.locate(ctx, topic)
	return err
}
