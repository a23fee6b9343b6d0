package bus

import (
	"context"
	"errors"
	"log/slog"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
)

// Bus is a connection to one cluster. All methods are safe for concurrent use.
// Errors are *fault.Error throughout.
type Bus struct{}

var errUnfinished = errors.New("bus: not there yet")

// Open connects to the cluster. It fails with broker-unavailable when no broker
// answers in time.
func Open(ctx context.Context, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Bus, error) {
	return nil, errUnfinished
}

// Close ends everything the bus started, subscriptions included, after their
// offsets are committed.
func (b *Bus) Close() error { return errUnfinished }

// Ping asks a broker for the cluster's metadata; nil means the cluster answers.
func (b *Bus) Ping(ctx context.Context) error { return errUnfinished }

// Topic is a topic as the router wants it.
type Topic struct {
	Name            string
	Partitions      int
	Compacted       bool
	RetentionMS     int64 // -1: for ever
	MaxMessageBytes int
}

// Topics returns the pipeline's own topics, and an intake topic for each portal.
func Topics(cfg Config, portals []string) []Topic { return nil }

// EnsureTopics creates what is missing and compares what exists; the error says
// what differs, where, and what to do.
func (b *Bus) EnsureTopics(ctx context.Context, topics []Topic) error { return errUnfinished }

// CheckSafety refuses settings of the cluster that can lose acknowledged
// records, unless Config.AllowUnsafe allows them by name.
func (b *Bus) CheckSafety(ctx context.Context) error { return errUnfinished }

// Append writes the records and returns after the broker's answer for all.
func (b *Bus) Append(ctx context.Context, recs ...*Record) error { return errUnfinished }

// Publisher returns a watermill publisher: payload is the value, metadata the
// headers, KeyMetadata the key.
func (b *Bus) Publisher() message.Publisher { return nil }

// Group describes a consumer group's member.
type Group struct {
	Name   string
	Topics []string
	// MaxInFlight and MaxInFlightBytes bound, for each partition, the records
	// handed out or waiting for their key's turn; defaults 256 and 64 MiB.
	MaxInFlight      int
	MaxInFlightBytes int
	// Key is the ordering key within a partition; nil means the record's key.
	Key func(*Record) string
	// Assigned is called before a partition's first record; an error is
	// retried with backoff for as long as the partition is ours.
	Assigned func(ctx context.Context, topic string, partition int32) error
	// Revoked is called once for each Assigned that returned nil, after the
	// partition's handlers were cancelled and have returned.
	Revoked func(topic string, partition int32)
}

// Subscriber returns a watermill subscriber for the group.
func (b *Bus) Subscriber(g Group) (message.Subscriber, error) { return nil, errUnfinished }

// RecordOf returns the record a message of a Subscriber was made from.
func RecordOf(msg *message.Message) (*Record, bool) { return nil, false }

// Tail calls fn for every record from an offset on, until ctx ends or fn fails.
func (b *Bus) Tail(ctx context.Context, topic string, partition int32, from int64, fn func(*Record) error) error {
	return errUnfinished
}

// ReadTo calls fn for every record with from ≤ offset < to.
func (b *Bus) ReadTo(ctx context.Context, topic string, partition int32, from, to int64, fn func(*Record) error) error {
	return errUnfinished
}

// Fetch reads one record.
func (b *Bus) Fetch(ctx context.Context, topic string, partition int32, offset int64) (*Record, error) {
	return nil, errUnfinished
}

// Offsets returns by partition the oldest offset and the next one to be written.
func (b *Bus) Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error) {
	return nil, nil, errUnfinished
}

// Committed returns by partition the group's committed offset, -1 where none is.
func (b *Bus) Committed(ctx context.Context, group, topic string) ([]int64, error) {
	return nil, errUnfinished
}

// Commit sets a group's offset; the group must have no member at the time.
func (b *Bus) Commit(ctx context.Context, group, topic string, partition int32, offset int64) error {
	return errUnfinished
}

// DeleteBelow deletes a partition's records below offset.
func (b *Bus) DeleteBelow(ctx context.Context, topic string, partition int32, offset int64) error {
	return errUnfinished
}

// PartitionOf returns the partition that Append chooses for a key in a topic of
// that many partitions. It needs no connection.
func (b *Bus) PartitionOf(key []byte, partitions int) int32 { return 0 }
