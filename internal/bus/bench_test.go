package bus_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
)

func benchBus(b *testing.B) (*bus.Bus, string) {
	broker, err := embedded.Start(b.TempDir(), embedded.Options{}, logger(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = broker.Close() })
	bb, err := bus.Open(context.Background(), config(broker.Addrs()), logger(b), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = bb.Close() })
	if err := bb.EnsureTopics(context.Background(), []bus.Topic{{Name: "bench", Partitions: 4, RetentionMS: -1, MaxMessageBytes: 17 << 20}}); err != nil {
		b.Fatal(err)
	}
	return bb, "bench"
}

// One caller after the other: what a single submission waits for.
func BenchmarkAppendAlone(b *testing.B) {
	bb, tp := benchBus(b)
	value := make([]byte, 4<<10)
	for i := 0; b.Loop(); i++ {
		if err := bb.Append(context.Background(), &bus.Record{Topic: tp, Partition: bus.AnyPartition, Key: fmt.Append(nil, i), Value: value}); err != nil {
			b.Fatal(err)
		}
	}
}

// Many callers, each waiting for its own record.
func BenchmarkAppendTogether(b *testing.B) {
	bb, tp := benchBus(b)
	value := make([]byte, 4<<10)
	b.SetParallelism(128)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if err := bb.Append(context.Background(), &bus.Record{Topic: tp, Partition: bus.AnyPartition, Key: fmt.Append(nil, i), Value: value}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// From the topic to a handler that acks at once.
func BenchmarkSubscribe(b *testing.B) {
	bb, tp := benchBus(b)
	var recs []*bus.Record
	for i := range b.N {
		recs = append(recs, &bus.Record{Topic: tp, Partition: bus.AnyPartition, Key: fmt.Append(nil, i), Value: make([]byte, 4<<10)})
	}
	for at := 0; at < len(recs); at += 500 {
		if err := bb.Append(context.Background(), recs[at:min(at+500, len(recs))]...); err != nil {
			b.Fatal(err)
		}
	}
	s, err := bb.Subscriber(bus.Group{Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	ch, err := s.Subscribe(context.Background(), tp)
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		(<-ch).Ack()
	}
	b.StopTimer()
	_ = s.Close()
}

// One record by its offset, as intake reads its claim back.
func BenchmarkFetch(b *testing.B) {
	bb, tp := benchBus(b)
	r := &bus.Record{Topic: tp, Partition: 0, Value: make([]byte, 500)}
	if err := bb.Append(context.Background(), r); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := bb.Fetch(context.Background(), tp, 0, r.Offset); err != nil {
			b.Fatal(err)
		}
	}
}
