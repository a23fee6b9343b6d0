package bus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"weiche/internal/bus"
)

// Whoever takes nothing from one topic holds up nobody who reads another, though
// the broker has sent more than is in hand.
func TestTopicsAreReadApart(t *testing.T) {
	b, _, slow := shelfBus(t)
	quick := topic(t, b, 1)
	var many []*bus.Record
	for i := range 200 {
		many = append(many, record(slow, "", fmt.Sprint(i)))
	}
	appendAll(t, b, many...)

	held, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 2)
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan string, 3)
	tail := func(topic string, fn func(*bus.Record) error) {
		go func() { ended <- b.Tail(ctx, topic, 0, 0, fn) }()
	}
	first := true
	tail(slow, func(*bus.Record) error {
		if first {
			first = false
			close(held)
			<-release
		}
		return nil
	})
	tail(quick, func(r *bus.Record) error {
		got <- string(r.Value)
		return nil
	})
	<-held
	// Beside each other they would wait for ten seconds: for the tail's patience.
	within := time.After(8 * time.Second)
	for i := range 3 {
		appendAll(t, b, record(quick, "", fmt.Sprint(i)))
		select {
		case v := <-got:
			if v != fmt.Sprint(i) {
				t.Errorf("got %s, want %d", v, i)
			}
		case <-within:
			t.Fatal("the other topic's reader holds it up")
		}
	}
	let()
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// What an append takes is measured where deliveries and parking are written, not
// at the producer of events.
func TestWritingIsWhereDeliveriesAreWritten(t *testing.T) {
	b, _, tp := shelfBus(t)
	if err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: bus.TopicEvents, Partitions: 1, RetentionMS: -1}}); err != nil {
		t.Fatal(err)
	}
	appendAll(t, b, record(bus.TopicEvents, "", "event"))
	appendAll(t, b, record(tp, "", string(make([]byte, 1<<20))))
	if got := b.Writing(); got != 0 {
		t.Errorf("%s before a delivery was written", got)
	}
	began := time.Now()
	appendAll(t, b, record(tp, "", "delivery"))
	if got := b.Writing(); got <= 0 || got > time.Since(began) {
		t.Errorf("the first append took %s of %s", got, time.Since(began))
	}
}
