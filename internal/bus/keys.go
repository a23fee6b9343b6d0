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
	topic  string
	count  int32 // of partitions, when it was first seen
	pinned bool  // a topic of EnsureTopics: the count stands, whatever the cluster says later
	seed   int   // spreads the topics over the lanes
}

// route chooses a record's partition, where that is ours to choose, and the
// lane. A key's records all take one lane, or their order within a call would be
// lost; so the lane follows the first count even where the partition does not.
func (in place) route(r *Record, lanes int) (partition int32, lane int) {
	partition = r.Partition
	if partition == AnyPartition {
		if r.Key == nil {
			partition = rand.Int32N(in.count)
		} else {
			partition = partitionOf(r.Key, in.count)
		}
	} else if in.pinned && partition >= in.count {
		return math.MaxInt32, 0 // refused by the partitioner
	}
	lane = (in.seed + int(max(partition, 0))) % lanes
	if r.Partition == AnyPartition && !in.pinned {
		partition = AnyPartition
	}
	return partition, lane
}

// locate answers from what was seen before, and asks the cluster otherwise. An
// unknown topic must not reach a producer: it would trip the breakers that
// other topics' records share.
func (b *Bus) locate(ctx context.Context, topic string) (place, error) {
	if v, ok := b.known.Load(topic); ok {
		return v.(place), nil
	}
	ids, err := try(ctx, func() ([]int32, error) { return b.meta.Partitions(topic) })
	if err != nil {
		return place{}, err
	}
	in := place{topic: topic, count: int32(len(ids)), seed: int(partitionOf([]byte(topic), 1<<16))}
	b.mu.Lock() // EnsureTopics forgets what is known under the same lock
	defer b.mu.Unlock()
	for _, t := range b.ensured {
		if t.Name == topic {
			in.count, in.pinned = int32(t.Partitions), true
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
