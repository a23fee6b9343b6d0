package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weiche/internal/bus"
)

// consume runs a batch handler until the test ends or the returned function is
// called.
func consume(t testing.TB, b *bus.Bus, g bus.Group, topic string, h bus.Handler) (end func()) {
	t.Helper()
	if g.Grace == 0 {
		g.Grace = 500 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Consume(ctx, g, topic, h) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// Many records of few keys, some of them failing once: each is done once, in
// order, and several come at once.
func batches(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 2)
	const keys, each = 10, 100
	var recs []*bus.Record
	for i := range each {
		for k := range keys {
			recs = append(recs, record(tp, fmt.Sprint("k", k), fmt.Sprint(i)))
		}
	}
	appendAll(t, b, recs...)
	var mu sync.Mutex
	done, failed, busy := map[string][]string{}, map[string]bool{}, map[string]bool{}
	count, largest := 0, 0
	consume(t, b, bus.Group{Name: tp, BatchRecords: 50}, tp, func(_ context.Context, recs []*bus.Record) []error {
		mu.Lock()
		largest = max(largest, len(recs))
		mine := map[string]bool{}
		for _, r := range recs {
			if k := string(r.Key); busy[k] && !mine[k] {
				t.Errorf("key %s in two batches at once", k)
			}
			busy[string(r.Key)], mine[string(r.Key)] = true, true
		}
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		errs := make([]error, len(recs))
		for i, r := range recs {
			k, v := string(r.Key), string(r.Value)
			busy[k] = false
			// What stands behind a failed one of its key is done here all the
			// same; it must come again nevertheless, so it does not count.
			if v == "50" && !failed[k] {
				failed[k] = true
				errs[i] = errors.New("not now")
				mine[k] = false
			}
			if mine[k] {
				done[k] = append(done[k], v)
				count++
			}
		}
		return errs
	})
	eventually(t, "not all came", func() bool { mu.Lock(); defer mu.Unlock(); return count == keys*each })
	mu.Lock()
	defer mu.Unlock()
	for k, got := range done {
		for i, v := range got {
			if v != fmt.Sprint(i) {
				t.Fatalf("key %s came as %v", k, got)
			}
		}
	}
	if largest < 2 || largest > 50 {
		t.Fatalf("the largest batch had %d records", largest)
	}
	if len(failed) != keys {
		t.Fatalf("%d of %d keys failed once", len(failed), keys)
	}
}

// One key whose first record takes its time: what it sends beyond its share is
// spilled in order, other keys go on, and when the first is done the rest of the
// key comes as usual.
func spilling(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	for i := range 40 {
		appendAll(t, b, record(tp, "greedy", fmt.Sprint(i)))
	}
	for i := range 20 {
		appendAll(t, b, record(tp, fmt.Sprint("modest", i), "x"))
	}
	var mu sync.Mutex
	var spilled, normal []string
	g := bus.Group{Name: tp, MaxInFlight: 16, Share: 4, Spill: func(_ context.Context, inWork *bus.Record, recs []*bus.Record) []error {
		mu.Lock()
		defer mu.Unlock()
		if string(inWork.Value) != "0" {
			t.Errorf("spilled behind %s", inWork.Value)
		}
		for _, r := range recs {
			if string(r.Key) != "greedy" {
				t.Errorf("key %s was spilled", r.Key)
			}
			spilled = append(spilled, string(r.Value))
		}
		return nil
	}}
	ch, _ := subscribe(t, b, g, tp)
	slow := next(t, ch)
	for modest := 0; modest < 20; {
		m := next(t, ch)
		if r, _ := bus.RecordOf(m); string(r.Key) == "greedy" {
			t.Fatalf("record %s of the key in work was handed out", m.Payload)
		}
		modest++
		m.Ack()
	}
	slow.Ack()
	go func() {
		for m := range ch {
			mu.Lock()
			normal = append(normal, string(m.Payload))
			mu.Unlock()
			m.Ack()
		}
	}()
	eventually(t, "not all of the key came", func() bool { mu.Lock(); defer mu.Unlock(); return len(spilled)+len(normal) == 39 })
	mu.Lock()
	defer mu.Unlock()
	// Spilled are those behind the first, in order; what was never spilled comes
	// after them.
	for i, v := range append(append([]string{}, spilled...), normal...) {
		if v != fmt.Sprint(i+1) {
			t.Fatalf("spilled %v, then %v", spilled, normal)
		}
	}
	if len(spilled) < 5 {
		t.Fatalf("only %v were spilled", spilled)
	}
	eventually(t, "not all were committed", func() bool {
		at, err := b.Committed(t.Context(), tp, tp)
		return err == nil && at[0] == 60
	})
}

// Whoever is no longer the owner commits nothing of what is finished, and begins
// again at the committed offset.
func supersededOwner(t *testing.T, _ engine, b *bus.Bus) {
	tp := topic(t, b, 1)
	for i := range 5 {
		appendAll(t, b, record(tp, "k", fmt.Sprint(i)))
	}
	var owner, assigned, handled, asked atomic.Int32
	consume(t, b, bus.Group{Name: tp,
		Assigned: func(context.Context, string, int32) error { assigned.Add(1); return nil },
		Owns: func(context.Context, string, int32) (bool, error) {
			if asked.Add(1) == 1 {
				return false, errors.New("not known yet")
			}
			return owner.Load() == 1, nil
		},
	}, tp, func(_ context.Context, recs []*bus.Record) []error { handled.Add(int32(len(recs))); return nil })
	eventually(t, "it did not begin again", func() bool { return assigned.Load() >= 2 && handled.Load() >= 10 })
	if at, err := b.Committed(t.Context(), tp, tp); err != nil || at[0] > 0 {
		t.Fatalf("committed %v, %v, though another was the owner", at, err)
	}
	owner.Store(1)
	eventually(t, "nothing was committed", func() bool {
		at, err := b.Committed(t.Context(), tp, tp)
		return err == nil && at[0] == 5
	})
}
