package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/fault"
	"weiche/internal/kafkatest"
)

// engine is what the suite runs on.
type engine struct {
	addrs []string
	kafka *kafkatest.Cluster // nil: embedded
}

func logger(t testing.TB) *slog.Logger {
	level := slog.LevelError
	if os.Getenv("BUS_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: level}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	fmt.Fprint(os.Stderr, w.t.Name(), " ", string(b))
	return len(b), nil
}

func config(addrs []string) bus.Config {
	return bus.Config{Brokers: addrs, ReplicationFactor: 1, MinInSyncReplicas: 1, Partitions: 4, SessionTimeout: 6 * time.Second,
		AllowUnsafe: []string{bus.UnsafeReplicationFactor, bus.UnsafeMinInSyncReplicas, bus.UnsafeUncleanElection}}
}

func open(t testing.TB, cfg bus.Config) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), cfg, logger(t), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

var names atomic.Int64

// topic makes a topic of its own for a test.
func topic(t testing.TB, b *bus.Bus, partitions int) string {
	t.Helper()
	name := fmt.Sprintf("t.%d.%d", names.Add(1), rand.Uint32())
	if err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: name, Partitions: partitions, RetentionMS: -1, MaxMessageBytes: 17 << 20}}); err != nil {
		t.Fatal(err)
	}
	return name
}

func record(topic, key, value string) *bus.Record {
	return &bus.Record{Topic: topic, Partition: bus.AnyPartition, Key: []byte(key), Value: []byte(value), Headers: map[string]string{"ce_type": "test"}}
}

func appendAll(t testing.TB, b *bus.Bus, recs ...*bus.Record) {
	t.Helper()
	if err := b.Append(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
}

func subscribe(t testing.TB, b *bus.Bus, g bus.Group, topic string) (<-chan *message.Message, func()) {
	t.Helper()
	if g.Grace == 0 {
		g.Grace = 500 * time.Millisecond
	}
	s, err := b.Subscriber(g)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := s.Subscribe(context.Background(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	end := func() { once.Do(func() { _ = s.Close() }) }
	t.Cleanup(end)
	return ch, end
}

const patience = 60 * time.Second

func next(t testing.TB, ch <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case m, ok := <-ch:
		if !ok {
			t.Fatal("subscription ended")
		}
		return m
	case <-time.After(patience):
		t.Fatal("no message came")
	}
	return nil
}

func wantReason(t testing.TB, err error, want fault.Reason) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != want {
		t.Fatalf("got %v, want the reason %s", err, want)
	}
}

func TestEmbedded(t *testing.T) {
	b, err := embedded.Start(t.TempDir(), embedded.Options{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	suite(t, engine{addrs: b.Addrs()})
}

func TestApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	c := kafkatest.Start(t, kafkatest.Property("group.min.session.timeout.ms", "1000"))
	suite(t, engine{addrs: c.Addrs(), kafka: c})
	t.Run("broker gone and back", func(t *testing.T) { brokerGone(t, c) })
}

func suite(t *testing.T, e engine) {
	b := open(t, config(e.addrs))
	for name, test := range map[string]func(*testing.T, engine, *bus.Bus){
		"append then read":                appendThenRead,
		"explicit partitions":             explicitPartitions,
		"reading waits":                   regressionReadToWaits,
		"no key in a compacted topic":     noKeyInACompactedTopic,
		"order per key under nack":        orderUnderNack,
		"a nack holds only its key":       nackHoldsOnlyItsKey,
		"completed prefix only":           completedPrefixOnly,
		"batches":                         batches,
		"spilling":                        spilling,
		"superseded owner":                supersededOwner,
		"rebalance loses nothing":         rebalance,
		"hooks":                           hooks,
		"back-pressure":                   backPressure,
		"record of 16 MB":                 large,
		"too large for the topic":         tooLarge,
		"unknown topic":                   unknownTopic,
		"tail":                            tail,
		"delete below":                    deleteBelow,
		"settings that differ are named":  mismatch,
		"commit and committed":            committed,
		"offset beyond the end":           beyondTheEnd,
		"cancelled append":                cancelled,
		"concurrent appends keep offsets": concurrentAppends,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, e, b)
		})
	}
}

func appendThenRead(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 3)
	var recs []*bus.Record
	for i := range 100 {
		recs = append(recs, record(tp, fmt.Sprint("k", i%10), fmt.Sprint(i)))
	}
	appendAll(t, b, recs...)
	appendAll(t, b, &bus.Record{Topic: tp, Partition: 0, Key: []byte("gone")})
	oldest, newest, err := b.Offsets(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for p := range newest {
		sum += newest[p] - oldest[p]
	}
	if sum != 101 {
		t.Fatalf("%d records in %v..%v", sum, oldest, newest)
	}
	for _, r := range recs {
		if want := b.PartitionOf(r.Key, 3); r.Partition != want {
			t.Fatalf("key %s went to %d, PartitionOf says %d", r.Key, r.Partition, want)
		}
		got, err := b.Fetch(t.Context(), tp, r.Partition, r.Offset)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Value, r.Value) || !bytes.Equal(got.Key, r.Key) || got.Headers["ce_type"] != "test" || got.Time.IsZero() {
			t.Fatalf("read %+v, wrote %+v", got, r)
		}
	}
	tomb, err := b.Fetch(t.Context(), tp, 0, newest[0]-1)
	if err != nil || tomb.Value != nil {
		t.Fatalf("tombstone came back as %v, %v", tomb, err)
	}
	if _, err := b.Fetch(t.Context(), tp, 0, newest[0]+5); !errors.Is(err, bus.ErrNotThere) {
		t.Fatalf("beyond the end: %v", err)
	}
	n := 0
	if err := b.ReadTo(t.Context(), tp, 0, 2, newest[0], func(r *bus.Record) error {
		if r.Offset != int64(2+n) {
			return fmt.Errorf("offset %d after %d records", r.Offset, n)
		}
		n++
		return nil
	}); err != nil || int64(n) != newest[0]-2 {
		t.Fatalf("ReadTo brought %d records: %v", n, err)
	}
}

// ReadTo waits for records that are not written yet.
func regressionReadToWaits(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	appendAll(t, b, &bus.Record{Topic: tp, Partition: 0, Value: []byte("0")})
	time.AfterFunc(400*time.Millisecond, func() {
		if err := b.Append(context.Background(), &bus.Record{Topic: tp, Partition: 0, Value: []byte("1")}); err != nil {
			t.Error(err)
		}
	})
	n := 0
	if err := b.ReadTo(t.Context(), tp, 0, 0, 2, func(*bus.Record) error { n++; return nil }); err != nil || n != 2 {
		t.Fatalf("%d records, %v", n, err)
	}
}

// A compacted topic takes no record without a key: trying again cannot help.
func noKeyInACompactedTopic(t *testing.T, e engine, b *bus.Bus) {
	if e.kafka == nil {
		t.Skip("the embedded broker takes it")
	}
	tp := fmt.Sprintf("t.compacted.%d", rand.Uint32())
	if err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: tp, Partitions: 1, Compacted: true}}); err != nil {
		t.Fatal(err)
	}
	err := b.Append(t.Context(), &bus.Record{Topic: tp, Partition: 0, Value: []byte("v")})
	wantReason(t, err, fault.ReasonMalformed)
	if fault.Of(err).Class != fault.Permanent {
		t.Fatalf("%v", err)
	}
}

func explicitPartitions(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 4)
	for p := range int32(4) {
		r := &bus.Record{Topic: tp, Partition: p, Key: []byte("same key"), Value: []byte("v")}
		appendAll(t, b, r)
		if r.Partition != p || r.Offset != 0 {
			t.Fatalf("asked for %d, got %d at %d", p, r.Partition, r.Offset)
		}
	}
	wantReason(t, b.Append(t.Context(), &bus.Record{Topic: tp, Partition: 4, Value: []byte("v")}), fault.ReasonUnknownTopic)
}

// Sixteen handlers at once, every fifth delivery refused: per key the acked ones
// must come in order, each exactly once.
func orderUnderNack(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 3)
	const keys, each = 20, 20
	var recs []*bus.Record
	for i := range each {
		for k := range keys {
			recs = append(recs, record(tp, fmt.Sprint("k", k), fmt.Sprint(i)))
		}
	}
	appendAll(t, b, recs...)
	ch, _ := subscribe(t, b, bus.Group{Name: tp}, tp)
	var mu sync.Mutex
	seen := map[string][]string{}
	busy := map[string]bool{}
	acked := make(chan struct{}, keys*each)
	for w := range 16 {
		go func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for m := range ch {
				r, _ := bus.RecordOf(m)
				key := string(r.Key)
				mu.Lock()
				if busy[key] {
					t.Errorf("two of key %s at once", key)
				}
				busy[key] = true
				mu.Unlock()
				time.Sleep(time.Duration(rnd.IntN(2000)) * time.Microsecond)
				mu.Lock()
				busy[key] = false
				refuse := rnd.IntN(20) == 0
				if !refuse {
					seen[key] = append(seen[key], string(m.Payload))
				}
				mu.Unlock()
				if refuse {
					m.Nack()
				} else {
					m.Ack()
					acked <- struct{}{}
				}
			}
		}()
	}
	for range keys * each {
		select {
		case <-acked:
		case <-time.After(patience):
			t.Fatal("not all came")
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for k, got := range seen {
		for i, v := range got {
			if v != fmt.Sprint(i) {
				t.Fatalf("key %s came as %v", k, got)
			}
		}
		if len(got) != each {
			t.Fatalf("key %s came %d times", k, len(got))
		}
	}
}

func nackHoldsOnlyItsKey(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	appendAll(t, b, record(tp, "bad", "1"), record(tp, "bad", "2"))
	for i := range 50 {
		appendAll(t, b, record(tp, fmt.Sprint("good", i), "x"))
	}
	ch, _ := subscribe(t, b, bus.Group{Name: tp}, tp)
	good, bad := 0, 0
	began := time.Now()
	for good < 50 || bad < 4 {
		m := next(t, ch)
		if r, _ := bus.RecordOf(m); string(r.Key) == "bad" {
			if string(m.Payload) != "1" {
				t.Fatal("the second of a held key came before the first was acked")
			}
			bad++
			m.Nack()
			continue
		}
		good++
		m.Ack()
	}
	// 100 + 200 + 400 ms lie between the first four deliveries.
	if d := time.Since(began); d < 600*time.Millisecond {
		t.Fatalf("four deliveries within %s: a storm", d)
	}
}

// Of ten records the second is never acked: whoever comes next gets it again,
// and nothing else. Where the offset was committed by others, who know nothing
// of what is finished beyond it, everything behind it comes again.
func completedPrefixOnly(t *testing.T, e engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	for i := range 10 {
		appendAll(t, b, record(tp, fmt.Sprint("k", i), fmt.Sprint(i)))
	}
	first := open(t, config(e.addrs))
	ch, end := subscribe(t, first, bus.Group{Name: tp}, tp)
	for range 10 {
		if m := next(t, ch); string(m.Payload) != "1" {
			m.Ack()
		}
	}
	end()
	if at, err := b.Committed(t.Context(), tp, tp); err != nil || at[0] != 1 {
		t.Fatalf("committed %v, %v; want 1", at, err)
	}
	appendAll(t, b, record(tp, "k", "new"))
	collect := func(n int) string {
		ch, end := subscribe(t, b, bus.Group{Name: tp}, tp)
		defer end()
		var got []string
		for range n {
			m := next(t, ch)
			got = append(got, string(m.Payload))
			m.Ack()
		}
		slices.Sort(got)
		return strings.Join(got, " ")
	}
	if got, want := collect(2), "1 new"; got != want {
		t.Fatalf("redelivered %s, want %s", got, want)
	}
	if err := b.Commit(t.Context(), tp, tp, 0, 8); err != nil {
		t.Fatal(err)
	}
	if got, want := collect(3), "8 9 new"; got != want {
		t.Fatalf("after a commit by others came %s, want %s", got, want)
	}
}

func rebalance(t *testing.T, e engine, b *bus.Bus) {
	tp := topic(t, b, 4)
	const n = 400
	var mu sync.Mutex
	seen := map[string]int{}
	all := make(chan struct{})
	consume := func(ch <-chan *message.Message, name string) {
		for m := range ch {
			select {
			case <-m.Context().Done():
				m.Nack()
				continue
			case <-time.After(2 * time.Millisecond):
			}
			mu.Lock()
			seen[string(m.Payload)]++
			if len(seen) == n && seen["done"] == 0 {
				seen["done"] = 1
				close(all)
			}
			mu.Unlock()
			m.Ack()
		}
	}
	one, _ := subscribe(t, b, bus.Group{Name: tp}, tp)
	go consume(one, "one")
	var end func()
	for i := range n {
		appendAll(t, b, record(tp, fmt.Sprint("k", i%40), fmt.Sprint(i)))
		switch i {
		case n / 4:
			other := open(t, config(e.addrs))
			var two <-chan *message.Message
			two, end = subscribe(t, other, bus.Group{Name: tp}, tp)
			go consume(two, "two")
		case 3 * n / 4:
			end()
		}
	}
	select {
	case <-all:
	case <-time.After(patience):
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("%d of %d came", len(seen), n)
	}
}

func hooks(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	appendAll(t, b, record(tp, "k", "v"))
	var tries, revoked atomic.Int32
	ready := make(chan struct{})
	g := bus.Group{Name: tp, Topics: []string{tp},
		Assigned: func(ctx context.Context, topic string, partition int32) error {
			if topic != tp || partition != 0 {
				t.Errorf("assigned %s/%d", topic, partition)
			}
			if tries.Add(1) < 3 {
				return errors.New("not yet")
			}
			close(ready)
			return nil
		},
		Revoked: func(string, int32) { revoked.Add(1) },
	}
	ch, end := subscribe(t, b, g, tp)
	m := next(t, ch)
	select {
	case <-ready:
	default:
		t.Fatal("a record came before Assigned was content")
	}
	end()
	if m.Context().Err() == nil {
		t.Fatal("the message's context outlives the subscription")
	}
	if n := revoked.Load(); n != 1 {
		t.Fatalf("Revoked called %d times", n)
	}
	if _, ok := <-ch; ok {
		t.Fatal("channel still open")
	}
	s, _ := b.Subscriber(g)
	_, err := s.Subscribe(t.Context(), "weiche.other")
	wantReason(t, err, fault.ReasonMisconfigured)
}

func backPressure(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	const n = 3000
	var recs []*bus.Record
	for i := range n {
		recs = append(recs, record(tp, fmt.Sprint("k", i), fmt.Sprint(i)))
	}
	appendAll(t, b, recs...)
	ch, _ := subscribe(t, b, bus.Group{Name: tp, MaxInFlight: 10}, tp)
	var held []*message.Message
	for range 10 {
		held = append(held, next(t, ch))
	}
	select {
	case m := <-ch:
		t.Fatalf("%s came over the limit of ten", m.Payload)
	case <-time.After(time.Second):
	}
	for _, m := range held {
		m.Ack()
	}
	for range n - 10 {
		next(t, ch).Ack()
	}
}

func large(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	r := &bus.Record{Topic: tp, Partition: 0, Key: []byte("k"), Value: value, Headers: map[string]string{"h": "v"}}
	appendAll(t, b, r, record(tp, "k", "small"))
	got, err := b.Fetch(t.Context(), tp, 0, r.Offset)
	if err != nil || !bytes.Equal(got.Value, value) {
		t.Fatalf("fetched %v", err)
	}
	ch, _ := subscribe(t, b, bus.Group{Name: tp, MaxInFlightBytes: 1 << 20}, tp)
	m := next(t, ch)
	if !bytes.Equal(m.Payload, value) {
		t.Fatal("the large record is not what was written")
	}
	m.Ack()
	next(t, ch).Ack()
	wantReason(t, b.Append(t.Context(), &bus.Record{Topic: tp, Value: append(value, value...)}), fault.ReasonTooLarge)
}

// A topic of another owner may take less than ours do: what fits passes even
// where a batch of it does not, and what does not is too-large.
func tooLarge(t *testing.T, _ engine, b *bus.Bus) {
	name := fmt.Sprintf("small.%d", rand.Uint32())
	if err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: name, Partitions: 1, RetentionMS: -1, MaxMessageBytes: 100 << 10}}); err != nil {
		t.Fatal(err)
	}
	var recs []*bus.Record
	for range 20 {
		recs = append(recs, &bus.Record{Topic: name, Value: make([]byte, 60<<10)})
	}
	appendAll(t, b, recs...)
	err := b.Append(t.Context(), &bus.Record{Topic: name, Value: make([]byte, 200<<10)})
	wantReason(t, err, fault.ReasonTooLarge)
	if fault.Of(err).Class != fault.Permanent {
		t.Fatalf("class %s", fault.Of(err).Class)
	}
}

func unknownTopic(t *testing.T, _ engine, b *bus.Bus) {
	for range 5 { // more often than sarama's breakers stand
		wantReason(t, b.Append(t.Context(), record("no.such.topic", "k", "v")), fault.ReasonUnknownTopic)
	}
	s, _ := b.Subscriber(bus.Group{Name: "g"})
	_, err := s.Subscribe(t.Context(), "no.such.topic")
	wantReason(t, err, fault.ReasonUnknownTopic)
	_, _, err = b.Offsets(t.Context(), "no.such.topic")
	wantReason(t, err, fault.ReasonUnknownTopic)
}

func tail(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 2)
	for i := range 10 {
		appendAll(t, b, &bus.Record{Topic: tp, Partition: 1, Value: []byte(fmt.Sprint(i))})
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan int64, 100)
	ended := make(chan error, 2)
	for range 2 { // two at once on one partition
		go func() {
			ended <- b.Tail(ctx, tp, 1, 4, func(r *bus.Record) error {
				got <- r.Offset
				return nil
			})
		}()
	}
	count := map[int64]int{}
	read := func(n int) {
		for range n {
			select {
			case o := <-got:
				count[o]++
			case <-time.After(patience):
				t.Fatalf("tail brought %v", count)
			}
		}
	}
	read(12)
	appendAll(t, b, &bus.Record{Topic: tp, Partition: 1, Value: []byte("new")})
	read(2)
	for o := int64(4); o <= 10; o++ {
		if count[o] != 2 {
			t.Fatalf("offset %d came %d times", o, count[o])
		}
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	stop := errors.New("stop")
	if err := b.Tail(t.Context(), tp, 1, 0, func(*bus.Record) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("fn's error came back as %v", err)
	}
	if err := b.Tail(t.Context(), tp, 1, 100, func(*bus.Record) error { return nil }); !errors.Is(err, bus.ErrBeyondEnd) {
		t.Fatalf("beyond the end: %v", err)
	}
}

func deleteBelow(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	for i := range 10 {
		appendAll(t, b, record(tp, "k", fmt.Sprint(i)))
	}
	if err := b.DeleteBelow(t.Context(), tp, 0, 6); err != nil {
		t.Fatal(err)
	}
	oldest, newest, err := b.Offsets(t.Context(), tp)
	if err != nil || oldest[0] != 6 || newest[0] != 10 {
		t.Fatalf("%v..%v, %v", oldest, newest, err)
	}
	var got []int64
	if err := b.ReadTo(t.Context(), tp, 0, 0, 10, func(r *bus.Record) error { got = append(got, r.Offset); return nil }); err != nil || len(got) != 4 {
		t.Fatalf("read %v, %v", got, err)
	}
	if err := b.ReadTo(t.Context(), tp, 0, 1, 5, func(*bus.Record) error { return errors.New("a deleted record") }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Fetch(t.Context(), tp, 0, 3); !errors.Is(err, bus.ErrNotThere) {
		t.Fatalf("deleted record: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var first int64 = -1
	if err := b.Tail(ctx, tp, 0, 2, func(r *bus.Record) error { first = r.Offset; cancel(); return nil }); err != nil || first != 6 {
		t.Fatalf("tail began at %d, %v", first, err)
	}
	// A group without offset begins at the oldest that is left.
	ch, _ := subscribe(t, b, bus.Group{Name: tp}, tp)
	if r, _ := bus.RecordOf(next(t, ch)); r.Offset != 6 {
		t.Fatalf("the group began at %d", r.Offset)
	}
	if err := b.DeleteBelow(t.Context(), tp, 0, 3); err != nil {
		t.Fatalf("below the oldest: %v", err)
	}
	if err := b.DeleteBelow(t.Context(), tp, 0, 10); err != nil {
		t.Fatal(err)
	}
	if oldest, _, _ := b.Offsets(t.Context(), tp); oldest[0] != 9 {
		t.Fatalf("oldest %v: the last record has to stay", oldest)
	}
}

func mismatch(t *testing.T, _ engine, b *bus.Bus) {
	name := fmt.Sprintf("mismatch.%d", rand.Uint32())
	want := bus.Topic{Name: name, Partitions: 2, RetentionMS: 3600000, MaxMessageBytes: 1 << 20}
	for range 2 { // the second finds it as it shall be
		if err := b.EnsureTopics(t.Context(), []bus.Topic{want}); err != nil {
			t.Fatal(err)
		}
	}
	err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: name, Partitions: 4, RetentionMS: -1, Compacted: false, MaxMessageBytes: 2 << 20}})
	wantReason(t, err, fault.ReasonMisconfigured)
	for _, part := range []string{name, "number of partitions is 2", "kafka.partitions", "retention.ms is 3600000", "retention.ms=-1", "max.message.bytes"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	err = b.EnsureTopics(t.Context(), []bus.Topic{{Name: name, Partitions: 2, RetentionMS: -1, Compacted: true}})
	if err == nil || !strings.Contains(err.Error(), "cleanup.policy is delete, the router needs compact") {
		t.Errorf("cleanup.policy: %v", err)
	}
}

func committed(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 2)
	for i := range 6 {
		appendAll(t, b, &bus.Record{Topic: tp, Partition: 1, Value: []byte(fmt.Sprint(i))})
	}
	at, err := b.Committed(t.Context(), tp, tp)
	if err != nil || !slices.Equal(at, []int64{-1, -1}) {
		t.Fatalf("%v, %v", at, err)
	}
	if err := b.Commit(t.Context(), tp, tp, 1, 4); err != nil {
		t.Fatal(err)
	}
	if at, err = b.Committed(t.Context(), tp, tp); err != nil || !slices.Equal(at, []int64{-1, 4}) {
		t.Fatalf("%v, %v", at, err)
	}
	ch, _ := subscribe(t, b, bus.Group{Name: tp}, tp)
	if r, _ := bus.RecordOf(next(t, ch)); r.Offset != 4 {
		t.Fatalf("began at %d", r.Offset)
	}
}

// A log shorter than the group's offset was lost and made anew: what it holds
// now has to come, not to be waited for.
func beyondTheEnd(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	appendAll(t, b, record(tp, "k", "0"), record(tp, "k", "1"))
	if err := b.Commit(t.Context(), tp, tp, 0, 100); err != nil {
		t.Fatal(err)
	}
	ch, _ := subscribe(t, b, bus.Group{Name: tp}, tp)
	if r, _ := bus.RecordOf(next(t, ch)); r.Offset != 0 {
		t.Fatalf("began at %d", r.Offset)
	}
}

func cancelled(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.Append(ctx, record(tp, "k", "v"))
	if fault.Of(err).Class != fault.Cancelled {
		t.Fatalf("got %v", err)
	}
}

func concurrentAppends(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 2)
	var wg sync.WaitGroup
	var mu sync.Mutex
	at := map[string]string{}
	for w := range 20 {
		wg.Go(func() {
			for i := range 25 {
				r := record(tp, fmt.Sprint("k", w), fmt.Sprint(w, "-", i))
				if err := b.Append(context.Background(), r); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				at[fmt.Sprint(r.Partition, "/", r.Offset)] = string(r.Value)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	_, newest, err := b.Offsets(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	last := map[string]int{}
	for p, end := range newest {
		if err := b.ReadTo(t.Context(), tp, int32(p), 0, end, func(r *bus.Record) error {
			n++
			if got := at[fmt.Sprint(r.Partition, "/", r.Offset)]; got != string(r.Value) {
				return fmt.Errorf("%d/%d holds %s, Append said %s", r.Partition, r.Offset, r.Value, got)
			}
			var w, i int
			_, _ = fmt.Sscanf(string(r.Value), "%d-%d", &w, &i)
			if last[string(r.Key)] != i {
				return fmt.Errorf("key %s: %d comes where %d should", r.Key, i, last[string(r.Key)])
			}
			last[string(r.Key)]++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if n != 500 {
		t.Fatalf("%d records", n)
	}
}
