package delivery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weiche/internal/fault"
)

var testPolicy = Policy{Initial: time.Second, Max: time.Minute, Factor: 2, Jitter: 0.2, GiveUp: time.Hour, Probe: 10 * time.Second, Timeout: time.Second, InFlight: 2}

func instantly() time.Duration { return 0 }

func destinationFault() *fault.Error {
	return fault.New(fault.Destination, fault.ReasonUnreachable, "")
}

func TestGatePausesAndProbesOneAtATime(t *testing.T) {
	woken := 0
	g := newGate(testPolicy, func() { woken++ }, instantly)
	now := time.Unix(1000, 0)
	mustEnter := func(now time.Time) {
		t.Helper()
		if ok, why, _ := g.try(now); !ok {
			t.Fatalf("refused: %s", why)
		}
	}
	mustRefuse := func(now time.Time, want fault.Reason) time.Time {
		t.Helper()
		ok, why, again := g.try(now)
		if ok || why != want {
			t.Fatalf("ok=%v why=%s, want refused for %s", ok, why, want)
		}
		return again
	}

	mustEnter(now)
	mustEnter(now)
	mustRefuse(now, fault.ReasonBusy)
	if !g.leave(now, destinationFault()) {
		t.Fatal("the first destination fault must pause")
	}
	if again := mustRefuse(now, fault.ReasonPaused); !again.Equal(now.Add(10 * time.Second)) {
		t.Fatalf("next probe at %v", again)
	}
	g.leave(now, destinationFault())

	probe := now.Add(10 * time.Second)
	mustEnter(probe)
	mustRefuse(probe, fault.ReasonPaused) // one probe at a time
	g.leave(probe, destinationFault())
	mustRefuse(probe.Add(9*time.Second), fault.ReasonPaused)

	probe = probe.Add(10 * time.Second)
	mustEnter(probe)
	g.leave(probe, fault.New(fault.Cancelled, fault.ReasonCancelled, "")) // a shutdown proves nothing
	mustEnter(probe)
	if !g.leave(probe, fault.New(fault.Permanent, fault.ReasonRefused, "")) {
		t.Fatal("a destination that answers is not at fault")
	}
	mustEnter(probe)
	if woken == 0 {
		t.Fatal("nobody was woken")
	}
}

func TestGateByHand(t *testing.T) {
	g := newGate(testPolicy, func() {}, instantly)
	now := time.Unix(1000, 0)
	g.pauseByHand(HandPause{Operator: "anna", Until: now.Add(time.Minute)})
	if ok, why, again := g.try(now); ok || why != fault.ReasonPaused || !again.Equal(now.Add(time.Minute)) {
		t.Fatalf("ok=%v why=%s again=%v", ok, why, again)
	}
	if ok, _, _ := g.try(now.Add(time.Minute)); !ok {
		t.Fatal("an operator's pause ends at its expiry")
	}
	g.leave(now, nil)
	g.pauseByHand(HandPause{Operator: "anna"})
	g.resume()
	if ok, _, _ := g.try(now); !ok {
		t.Fatal("resumed, and still closed")
	}
}

func TestGateEnterEndsWithItsContext(t *testing.T) {
	g := newGate(testPolicy, func() {}, instantly)
	now := func() time.Time { return time.Unix(1000, 0) }
	for range 2 {
		if ok, _, err := g.enter(t.Context(), 0, now); !ok || err != nil {
			t.Fatal("free slots refused")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := g.enter(ctx, 0, now); !errors.Is(err, context.Canceled) {
		t.Fatalf("err = %v", err)
	}
}

func TestWaitGrowsWithinItsBounds(t *testing.T) {
	for attempt := 1; attempt < 40; attempt++ {
		w := testPolicy.wait(attempt, 0, 0)
		most := min(time.Second<<min(attempt-1, 20), time.Minute)
		if w > most || w < most*8/10-time.Millisecond {
			t.Fatalf("attempt %d waits %s, want %s less at most 20 %%", attempt, w, most)
		}
	}
	if w := testPolicy.wait(1, 0, time.Hour); w != time.Hour {
		t.Fatalf("Retry-After of an hour gave %s", w)
	}
}

func TestGateKeepsItsStateOverAnotherPolicy(t *testing.T) {
	g := newGate(testPolicy, func() {}, instantly)
	now := time.Unix(1000, 0)
	g.pauseByHand(HandPause{Operator: "anna"})
	p := testPolicy
	p.InFlight = 1
	g.follow(p)
	if ok, why, _ := g.try(now); ok || why != fault.ReasonPaused {
		t.Fatal("another policy resumed what an operator paused")
	}
	g.resume()
	if ok, _, _ := g.try(now); !ok {
		t.Fatal("resumed, and still closed")
	}
	if ok, why, _ := g.try(now); ok || why != fault.ReasonBusy {
		t.Fatal("the new bound does not hold")
	}
}

func TestGateProbeThatProvesNothing(t *testing.T) {
	g := newGate(testPolicy, func() {}, instantly)
	now := time.Unix(1000, 0)
	if ok, _, _ := g.try(now); !ok {
		t.Fatal("closed")
	}
	g.leave(now, destinationFault())
	now = now.Add(testPolicy.Probe)
	if ok, _, _ := g.try(now); !ok {
		t.Fatal("no probe")
	}
	// While a probe is under way nobody is told to look again at a time that
	// has passed: that would be a busy loop.
	if ok, _, again := g.try(now); ok || !again.IsZero() {
		t.Fatalf("ok=%v again=%v", ok, again)
	}
	if g.leave(now, fault.New(fault.Retryable, fault.ReasonTimeout, "")) {
		t.Fatal("silence is no answer")
	}
	if ok, _, again := g.try(now); ok || !again.Equal(now.Add(testPolicy.Probe)) {
		t.Fatalf("ok=%v again=%v", ok, again)
	}
	now = now.Add(testPolicy.Probe)
	if ok, _, _ := g.try(now); !ok {
		t.Fatal("no probe")
	}
	g.back() // our own fault: the destination was not asked
	if st := g.state(now); !st.Paused || st.InFlight != 0 {
		t.Fatalf("%+v", st)
	}
	if ok, _, _ := g.try(now); !ok {
		t.Fatal("the probe is still owed")
	}
	if !g.leave(now, fault.New(fault.Retryable, fault.ReasonUnavailable, "")) {
		t.Fatal("503 is an answer")
	}
}

func TestDueTimesAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	if w := testPolicy.wait(1, 0, 1000*time.Hour); w != testPolicy.GiveUp {
		t.Fatalf("a Retry-After of six weeks gave %s", w)
	}
	if got := testPolicy.notAfter(now.Add(1000*time.Hour), now); !got.Equal(now.Add(testPolicy.GiveUp)) {
		t.Fatalf("a due time under another clock stands at %v", got)
	}
}

// A destination that keeps up lets everybody in, in the order they came, and
// sends nothing to the waiting topic; one that is slow keeps only a few places.
func TestLineBeforeADestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Policy{InFlight: 1}, func() {}, instantly)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range maxQueued {
			time.Sleep(time.Microsecond)
			wg.Go(func() {
				ok, why, err := g.enter(t.Context(), 0, time.Now)
				if !ok || err != nil {
					t.Errorf("%d was not let in: %s, %v", i, why, err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				time.Sleep(5 * time.Millisecond)
				g.leave(time.Now(), nil)
			})
		}
		wg.Wait()
		if !slices.IsSorted(order) {
			t.Errorf("let in as %v", order)
		}
		if g.busy != 0 || len(g.lined) != 0 || len(g.queued) != 0 {
			t.Errorf("left behind: %+v", g)
		}

		// Now the one inside stays.
		if ok, _, _ := g.try(time.Now()); !ok {
			t.Fatal("no slot")
		}
		refused := make(chan time.Duration, maxQueued+10)
		for range maxQueued + 10 {
			wg.Go(func() {
				began := time.Now()
				if ok, why, _ := g.enter(t.Context(), 0, time.Now); ok || why != fault.ReasonBusy {
					t.Errorf("%v, %s", ok, why)
				}
				refused <- time.Since(began)
			})
		}
		wg.Wait()
		at := map[time.Duration]int{}
		for range maxQueued + 10 {
			at[<-refused]++
		}
		if at[0] != 10 || at[slotPatience] != maxQueued {
			t.Errorf("refused after: %v", at)
		}
		// It counts as slow, for each partition by itself, until it has shown better.
		for _, partition := range []int32{0, 1} {
			for range maxQueuedSlow {
				wg.Go(func() { _, _, _ = g.enter(t.Context(), partition, time.Now) })
			}
			synctest.Wait()
			began := time.Now()
			if ok, _, _ := g.enter(t.Context(), partition, time.Now); ok || time.Since(began) > 0 {
				t.Error("a slow destination has more than its few places")
			}
		}
		wg.Wait()
		g.leave(time.Now(), nil)
		time.Sleep(2 * slowFor)
		if ok, _, _ := g.enter(t.Context(), 0, time.Now); !ok {
			t.Error("not let in again")
		}
	})
}

// A destination whose attempts take no longer than our own writing is not what is
// slow: nothing is gained by writing down that a delivery waits for it.
func TestGateWaitsWhereWeAreSlow(t *testing.T) {
	const attempt = time.Second
	for own, patient := range map[time.Duration]bool{0: false, attempt / 10: false, attempt / 2: true, attempt: true} {
		t.Run(own.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(Policy{InFlight: 2}, func() {}, func() time.Duration { return own })
				var in, out atomic.Int32
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						ok, why, err := g.enter(t.Context(), 0, time.Now)
						switch {
						case err != nil || !ok && why != fault.ReasonBusy:
							t.Errorf("%v, %s, %v", ok, why, err)
						case !ok:
							out.Add(1)
							return
						}
						in.Add(1)
						time.Sleep(attempt)
						g.leave(time.Now(), nil)
					})
				}
				wg.Wait()
				if patient && in.Load() != 20 || !patient && out.Load() == 0 {
					t.Errorf("%d let in, %d parked", in.Load(), out.Load())
				}
			})
		})
	}
}

// One that frees no slot is slow, whatever we are.
func TestGateGivesUpOnOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Policy{InFlight: 1}, func() {}, func() time.Duration { return time.Hour })
		if ok, _, _ := g.try(time.Now()); !ok {
			t.Fatal("no slot")
		}
		began := time.Now()
		if ok, why, _ := g.enter(t.Context(), 0, time.Now); ok || why != fault.ReasonBusy || time.Since(began) != slotPatience {
			t.Errorf("%v, %s after %s", ok, why, time.Since(began))
		}
	})
}

// After a pause the slots come back one by one: what has piled up must not
// throw the destination down again.
func TestGateRampsUp(t *testing.T) {
	p := testPolicy
	p.InFlight = 4
	now := time.Unix(1000, 0)
	inside := func(g *gate) (n int) {
		for {
			if ok, _, _ := g.try(now); !ok {
				return n
			}
			n++
		}
	}
	for name, reopen := range map[string]func(g *gate){
		"a probe": func(g *gate) {
			now = now.Add(p.Probe)
			if ok, _, _ := g.try(now); !ok {
				t.Fatal("no probe")
			}
			if !g.leave(now, nil) {
				t.Fatal("still closed")
			}
		},
		"an operator": func(g *gate) { g.resume() },
		"an expiry": func(g *gate) {
			g.resume()
			g.pauseByHand(HandPause{Operator: "anna", Until: now.Add(time.Minute)})
			now = now.Add(time.Minute)
		},
	} {
		g := newGate(p, func() {}, instantly)
		if n := inside(g); n != 4 {
			t.Fatalf("%d slots at first", n)
		}
		for range 4 {
			g.leave(now, destinationFault())
		}
		reopen(g)
		var got []int
		for len(got) < 5 {
			n := inside(g)
			got = append(got, n)
			for range n {
				g.leave(now, nil)
			}
		}
		if !slices.Equal(got, []int{1, 2, 4, 4, 4}) {
			t.Errorf("after %s: %v attempts at once", name, got)
		}
	}
	// Silence brings nothing back.
	g := newGate(p, func() {}, instantly)
	g.resume()
	for range 3 {
		if n := inside(g); n != 1 {
			t.Fatalf("%d slots", n)
		}
		g.leave(now, fault.New(fault.Retryable, fault.ReasonTimeout, ""))
	}
}

func TestGateClosesWhereMostIsRefused(t *testing.T) {
	p := testPolicy
	p.DeadRatio, p.InFlight = 0.5, 1
	refused := fault.New(fault.Permanent, fault.ReasonRefused, "")
	now := time.Unix(1000, 0)
	g := newGate(p, func() {}, instantly)
	once := func(f *fault.Error) (changed bool) {
		t.Helper()
		if ok, why, _ := g.try(now); !ok {
			t.Fatalf("closed: %s", why)
		}
		return g.leave(now, f)
	}
	for i := range 200 { // nine of twenty are bad messages
		var f *fault.Error
		if i%20 < 9 {
			f = refused
		}
		if once(f) {
			t.Fatalf("closed after %d", i)
		}
		once(fault.New(fault.Retryable, fault.ReasonUnavailable, "")) // no last word
	}
	n := 1
	for !once(refused) {
		n++
	}
	if n > 10 {
		t.Errorf("%d died before it closed", n)
	}
	if st := g.state(now); !st.Paused || st.Reason != fault.ReasonTooManyDead {
		t.Fatalf("%+v", st)
	}
	// Each probe that dies doubles the time to the next one, up to an hour.
	var waits []time.Duration
	for range 11 {
		_, _, again := g.try(now)
		waits = append(waits, again.Sub(now))
		now = again
		if once(refused) {
			t.Fatal("a refusal opened it")
		}
	}
	if waits[0] != p.Probe || waits[1] != 2*p.Probe || waits[2] != 4*p.Probe || waits[10] != rarestProbe {
		t.Errorf("probed after %v", waits)
	}
	_, _, now = g.try(now)
	if !once(nil) || g.state(now).Paused {
		t.Error("a delivery does not open it")
	}
	for i := range ratioOver - 1 {
		if once(refused) {
			t.Fatalf("closed again after %d", i+1)
		}
	}

	p.DeadRatio = 0
	g = newGate(p, func() {}, instantly)
	for range 100 {
		if once(refused) {
			t.Fatal("closed, though the ratio is switched off")
		}
	}
}

func TestGateStaysClosedWhenGone(t *testing.T) {
	g := newGate(testPolicy, func() {}, instantly)
	now := time.Unix(1000, 0)
	for range 2 {
		if ok, _, _ := g.try(now); !ok {
			t.Fatal("closed")
		}
	}
	g.leave(now, fault.New(fault.Destination, fault.ReasonGone, ""))
	g.leave(now, fault.New(fault.Permanent, fault.ReasonRefused, "")) // was under way
	if ok, why, again := g.try(now.Add(1000 * time.Hour)); ok || why != fault.ReasonPaused || !again.IsZero() {
		t.Fatalf("ok=%v why=%s again=%v", ok, why, again)
	}
	if st := g.state(now); !st.Paused || st.Reason != fault.ReasonGone || !st.NextProbe.IsZero() {
		t.Errorf("%+v", st)
	}
	g.resume()
	if ok, _, _ := g.try(now); !ok {
		t.Error("resumed, and still closed")
	}
}
