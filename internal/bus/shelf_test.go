package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/fault"
)

func shelfBus(t testing.TB) (b *bus.Bus, addrs []string, tp string) {
	broker, err := embedded.Start(t.TempDir(), embedded.Options{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	b = open(t, config(broker.Addrs()))
	return b, broker.Addrs(), topic(t, b, 1)
}

// appendOneBatch appends the numbers below n as one batch. The bus would send what
// is there when a request may leave, which is several batches on a busy machine.
func appendOneBatch(t testing.TB, addrs []string, topic string, n int) {
	t.Helper()
	c := sarama.NewConfig()
	c.Producer.Return.Successes = true
	c.Producer.Flush.Messages = n
	p, err := sarama.NewSyncProducer(addrs, c)
	if err != nil {
		t.Fatal(err)
	}
	var msgs []*sarama.ProducerMessage
	for i := range n {
		msgs = append(msgs, &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(fmt.Sprint(i))})
	}
	if err := errors.Join(p.SendMessages(msgs), p.Close()); err != nil {
		t.Fatal(err)
	}
}

func fetch(t testing.TB, b *bus.Bus, topic string, offset int64) {
	t.Helper()
	rec, err := b.Fetch(t.Context(), topic, 0, offset)
	if err != nil || rec.Offset != offset || string(rec.Value) != fmt.Sprint(offset) {
		t.Fatalf("at %d: %v, %v", offset, rec, err)
	}
}

// What was appended together and is asked for one by one is read a few times, not
// once for each record; so is what was appended one by one and is gone through.
func TestFetchReadsABatchOnce(t *testing.T) {
	b, addrs, tp := shelfBus(t)
	const n = 400
	appendOneBatch(t, addrs, tp, n)
	for i := range n / 4 {
		appendAll(t, b, record(tp, "", fmt.Sprint(n+i)))
	}

	fetch(t, b, tp, 0) // the others at once, in any order
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if rec, err := b.Fetch(t.Context(), tp, 0, int64(i)); err != nil || string(rec.Value) != fmt.Sprint(i) {
				t.Errorf("at %d: %v, %v", i, rec, err)
			}
		})
	}
	wg.Wait()
	for i := range n / 4 {
		fetch(t, b, tp, int64(n+i))
	}
	if got := b.Reads(); got > 20 {
		t.Errorf("%d reads for %d records", got, n+n/4)
	}
}

// A deleted record is found for two seconds at most, and one that never was is
// not waited for by those who ask for others.
func TestFetchForgets(t *testing.T) {
	b, _, tp := shelfBus(t)
	for i := range 4 {
		appendAll(t, b, record(tp, "", fmt.Sprint(i)))
	}
	fetch(t, b, tp, 0)
	if err := b.DeleteBelow(t.Context(), tp, 0, 2); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for {
		_, err := b.Fetch(t.Context(), tp, 0, 0)
		if errors.Is(err, bus.ErrNotThere) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("still there: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}

	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := b.Fetch(ctx, tp, 0, 4) // the next to be written
		gone <- err
	}()
	time.Sleep(20 * time.Millisecond)
	fetch(t, b, tp, 3)
	cancel()
	if err := <-gone; fault.Of(err) == nil || fault.Of(err).Class != fault.Cancelled {
		t.Errorf("the cancelled one: %v", err)
	}
	fetch(t, b, tp, 2)
}

// 1,000 records of 4 KB were appended together, as in an outage, and are asked
// for one by one.
func BenchmarkFetchTogether(b *testing.B) {
	bb, _, tp := shelfBus(b)
	var recs []*bus.Record
	for range 1000 {
		recs = append(recs, record(tp, "", string(make([]byte, 4<<10))))
	}
	appendAll(b, bb, recs...)
	for i := 0; b.Loop(); i++ {
		if _, err := bb.Fetch(b.Context(), tp, 0, int64(i%len(recs))); err != nil {
			b.Fatal(err)
		}
	}
}
