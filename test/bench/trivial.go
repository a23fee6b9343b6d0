package main

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
)

func openBus(ctx context.Context, j job) (*bus.Bus, error) {
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return bus.Open(ctx, busConfig(j.Brokers, j.Partitions), log, prometheus.NewRegistry())
}

func busConfig(brokers []string, partitions int) bus.Config {
	return bus.Config{Brokers: brokers, Partitions: partitions, ReplicationFactor: 1, MinInSyncReplicas: 1, MaxRecordBytes: 17 << 20,
		AllowUnsafe: []string{bus.UnsafeReplicationFactor, bus.UnsafeMinInSyncReplicas, bus.UnsafeUncleanElection}}
}

// busWatermill copies through this bus's Subscriber and Publisher, under
// watermill's router, message by message.
func busWatermill(ctx context.Context, j job, ready func(addresses)) error {
	b, err := openBus(ctx, j)
	if err != nil {
		return err
	}
	defer b.Close()
	sub, err := b.Subscriber(bus.Group{Name: j.Group})
	if err != nil {
		return err
	}
	r, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	r.AddHandler("copy", j.In, sub, j.Out, b.Publisher(), func(m *message.Message) ([]*message.Message, error) {
		out := message.NewMessage(m.UUID, m.Payload)
		for k, v := range m.Metadata {
			out.Metadata[k] = v
		}
		if rec, ok := bus.RecordOf(m); ok {
			out.Metadata[bus.KeyMetadata] = string(rec.Key)
		}
		out.SetContext(m.Context())
		return []*message.Message{out}, nil
	})
	ready(addresses{})
	return r.Run(ctx)
}

// busTrivial copies through this bus in batches.
func busTrivial(ctx context.Context, j job, ready func(addresses)) error {
	b, err := openBus(ctx, j)
	if err != nil {
		return err
	}
	defer b.Close()
	ready(addresses{})
	return b.Consume(ctx, bus.Group{Name: j.Group}, j.In, func(ctx context.Context, recs []*bus.Record) []error {
		out := make([]*bus.Record, len(recs))
		for i, r := range recs {
			out[i] = &bus.Record{Topic: j.Out, Partition: bus.AnyPartition, Key: r.Key, Value: r.Value, Headers: r.Headers}
		}
		if err := b.Append(ctx, out...); err != nil {
			return slices.Repeat([]error{err}, len(recs))
		}
		return nil
	})
}
