package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/kafkatest"
)

// Restoring on a real broker, with an account that is given.
func TestRestoreOffsets(t *testing.T) {
	t.Run("embedded broker", func(t *testing.T) {
		broker, err := embedded.Start(t.TempDir(), embedded.Options{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = broker.Close() })
		restoreSuite(t, broker.Addrs())
	})
	t.Run("Apache Kafka", func(t *testing.T) {
		if testing.Short() {
			t.Skip("starts Apache Kafka")
		}
		restoreSuite(t, kafkatest.Start(t).Addrs())
	})
}

const none = -1 // no offset is committed

func restoreSuite(t *testing.T, addrs []string) {
	b, err := bus.Open(t.Context(), bus.Config{Brokers: addrs, ReplicationFactor: 1}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	for n, c := range []struct {
		name           string
		cut, committed int64
		open           string // offsets of unfinished records; those in brackets only by a strict look
		want, lowered  int64
	}{
		{"right", 0, 6, "7", 6, 6},
		{"right, and nothing is open", 3, 10, "", 10, 10},
		{"lost before the first commit", 0, none, "0 1", none, none},
		{"lost, and nothing is open", 2, none, "", 10, none},
		{"lost, and some is open", 2, none, "5 8", 5, none},
		{"lost, and nobody knows of some", 2, none, "(4) 8", 4, none},
		{"too high", 2, 9, "3 8", 3, 2},
		{"too high, and nobody knows of some", 2, 9, "(4) 8", 4, 2},
		{"right, and nobody knows of some", 2, 9, "(4)", 9, 2},
		{"at the end, and the last is open", 2, 10, "9", 9, 2},
		{"beyond the end", 2, 500, "7", 7, 2},
		{"beyond the end, and nothing is open", 2, 500, "", 10, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			topic := fmt.Sprintf("restore.%d", n)
			fill(t, b, topic, c.cut)
			o := offsets{log: b, logger: slog.New(slog.DiscardHandler), caughtUp: func(context.Context) error { return nil }, pause: time.Millisecond}
			open := strings.Fields(c.open)
			seen := map[int64]bool{}
			done := func(_ context.Context, rec *bus.Record, strict bool) (bool, error) {
				seen[rec.Offset] = true
				for _, f := range open {
					if f == fmt.Sprint(rec.Offset) || strict && f == fmt.Sprintf("(%d)", rec.Offset) {
						return false, nil
					}
				}
				return true, nil
			}
			for name, restore := range map[string]func(context.Context, string, string, finished) error{"r": o.restore, "l": o.lowerOnly} {
				group := topic + name
				if c.committed != none {
					must(t, b.Commit(t.Context(), group, topic, 0, c.committed))
				}
				for range 2 { // the second time it finds it right
					must(t, restore(t.Context(), group, topic, done))
				}
				at, err := b.Committed(t.Context(), group, topic)
				must(t, err)
				if want := map[string]int64{"r": c.want, "l": c.lowered}[name]; at[0] != want {
					t.Errorf("%s: offset %d, want %d", name, at[0], want)
				}
			}
			for at := range seen {
				if at < c.cut {
					t.Errorf("looked at offset %d, which was cut", at)
				}
			}
		})
	}
	t.Run("another router is in the group", func(t *testing.T) {
		const topic = "restore.members"
		fill(t, b, topic, 0)
		must(t, b.Commit(t.Context(), topic, topic, 0, 8))
		sub, err := b.Subscriber(bus.Group{Name: topic})
		must(t, err)
		ch, err := sub.Subscribe(t.Context(), topic)
		must(t, err)
		(<-ch).Nack() // it has joined
		o := offsets{log: b, logger: slog.New(slog.DiscardHandler), caughtUp: func(context.Context) error { return nil }, pause: time.Millisecond}
		err = o.restore(t.Context(), topic, topic, func(_ context.Context, rec *bus.Record, _ bool) (bool, error) { return rec.Offset != 3, nil })
		if !errors.Is(err, bus.ErrHasMembers) || !strings.Contains(err.Error(), "stop all routers") {
			t.Errorf("got %v", err)
		}
		must(t, sub.Close())
		must(t, o.restore(t.Context(), topic, topic, func(_ context.Context, rec *bus.Record, _ bool) (bool, error) { return rec.Offset != 3, nil }))
		if at, err := b.Committed(t.Context(), topic, topic); err != nil || at[0] != 3 {
			t.Errorf("offset %v, %v", at, err)
		}
	})
}

// fill makes a topic of one partition with ten records, the first ones cut.
func fill(t *testing.T, b *bus.Bus, topic string, cut int64) {
	t.Helper()
	must(t, b.EnsureTopics(t.Context(), []bus.Topic{{Name: topic, Partitions: 1, RetentionMS: -1}}))
	for i := range 10 {
		must(t, b.Append(t.Context(), &bus.Record{Topic: topic, Key: []byte("k"), Value: fmt.Append(nil, i)}))
	}
	must(t, b.DeleteBelow(t.Context(), topic, 0, cut))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
