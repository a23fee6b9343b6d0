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
	hooks   map[string]func()
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
	hook := l.hooks[topic]
	delete(l.hooks, topic)
	l.mu.Unlock()
	if hook != nil {
		hook()
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

// drop takes a record away, or with headers puts something else in its place.
func (l *simLog) drop(topic string, partition int32, offset int64, headers map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[topic][partition][offset] = &bus.Record{Topic: topic, Partition: partition, Offset: offset, Headers: headers}
}

// newest returns the last record of the first partition that has any.
func (l *simLog) newest(topic string) *bus.Record {
	for p := range l.topics[topic] {
		if recs, _ := l.from(topic, int32(p), 0); len(recs) > 0 {
			return recs[len(recs)-1]
		}
	}
	return nil
}

// before calls fn once, when the topic's offsets are asked for next.
func (l *simLog) before(topic string, fn func()) { l.hooks = map[string]func(){topic: fn} }

func (l *simLog) ReadTo(_ context.Context, topic string, partition int32, from, to int64, fn func(*bus.Record) error) error {
	recs, _ := l.from(topic, partition, from)
	for _, r := range recs {
		if r.Offset >= to {
			break
		}
		if r.Headers == nil && r.Value == nil {
			continue // taken away
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
