package status_test

import (
	"context"
	"errors"
	"sync"

	"weiche/internal/bus"
)

// simLog is a log in memory: durable the moment it is appended, read by any
// number of projections.
type simLog struct {
	mu      sync.Mutex
	topics  map[string][][]*bus.Record
	oldest  map[string][]int64 // what lies below is cut
	changed chan struct{}
	asked   int // calls of Offsets
}

func newSimLog(partitions int, topics ...string) *simLog {
	l := &simLog{topics: map[string][][]*bus.Record{}, oldest: map[string][]int64{}, changed: make(chan struct{})}
	for _, t := range topics {
		l.oldest[t] = make([]int64, partitions)
		l.topics[t] = make([][]*bus.Record, partitions)
	}
	return l
}

func (l *simLog) Append(ctx context.Context, recs ...*bus.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range recs {
		parts := l.topics[r.Topic]
		r.Offset = int64(len(parts[r.Partition]))
		parts[r.Partition] = append(parts[r.Partition], r)
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

func (l *simLog) Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	for i, p := range l.topics[topic] {
		oldest, newest = append(oldest, l.oldest[topic][i]), append(newest, int64(len(p)))
	}
	return oldest, newest, nil
}

func (l *simLog) from(topic string, partition int32, from int64) ([]*bus.Record, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.topics[topic][partition][max(from, l.oldest[topic][partition]):], l.changed
}

// cut deletes below an offset; as on the bus the last record stays.
func (l *simLog) cut(topic string, partition int32, below int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.oldest[topic][partition] = max(l.oldest[topic][partition], min(below, int64(len(l.topics[topic][partition]))-1))
}

func (l *simLog) ReadTo(_ context.Context, topic string, partition int32, from, to int64, fn func(*bus.Record) error) error {
	recs, _ := l.from(topic, partition, from)
	for _, r := range recs {
		if r.Offset >= to {
			break
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *simLog) Tail(ctx context.Context, topic string, partition int32, from int64, fn func(*bus.Record) error) error {
	for {
		recs, changed := l.from(topic, partition, from)
		for _, r := range recs {
			if err := fn(r); err != nil {
				if errors.Is(err, ctx.Err()) {
					return nil
				}
				return err
			}
			from++
		}
		if len(recs) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
