package delivery

import (
	"context"
	"errors"
	"testing"
	"time"

	"weiche/internal/fault"
)

var testPolicy = Policy{Initial: time.Second, Max: time.Minute, Factor: 2, Jitter: 0.2, GiveUp: time.Hour, Probe: 10 * time.Second, Timeout: time.Second, InFlight: 2}

func destinationFault() *fault.Error {
	return fault.New(fault.Destination, fault.ReasonUnreachable, "")
}

func TestGatePausesAndProbesOneAtATime(t *testing.T) {
	woken := 0
	g := newGate(testPolicy, func() { woken++ })
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
	g := newGate(testPolicy, func() {})
	now := time.Unix(1000, 0)
	g.pauseByHand(HandPause{Operator: "anna", Until: now.Add(time.Minute)})
	if ok, why, again := g.try(now); ok || why != fault.ReasonPaused || !again.Equal(now.Add(time.Minute)) {
		t.Fatalf("ok=%v why=%s again=%v", ok, why, again)
	}
	if ok, _, _ := g.try(now.Add(time.Minute)); !ok {
		t.Fatal("an operator's pause ends at its expiry")
	}
	g.pauseByHand(HandPause{Operator: "anna"})
	g.resume()
	if ok, _, _ := g.try(now); !ok {
		t.Fatal("resumed, and still closed")
	}
}

func TestGateEnterEndsWithItsContext(t *testing.T) {
	g := newGate(testPolicy, func() {})
	now := func() time.Time { return time.Unix(1000, 0) }
	for range 2 {
		if ok, _, err := g.enter(t.Context(), now); !ok || err != nil {
			t.Fatal("free slots refused")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := g.enter(ctx, now); !errors.Is(err, context.Canceled) {
		t.Fatalf("err = %v", err)
	}
}

func TestWaitGrowsWithinItsBounds(t *testing.T) {
	for attempt := 1; attempt < 40; attempt++ {
		w := testPolicy.wait(attempt, 0)
		most := min(time.Second<<min(attempt-1, 20), time.Minute)
		if w > most || w < most*8/10-time.Millisecond {
			t.Fatalf("attempt %d waits %s, want %s less at most 20 %%", attempt, w, most)
		}
	}
	if w := testPolicy.wait(1, time.Hour); w != time.Hour {
		t.Fatalf("Retry-After of an hour gave %s", w)
	}
}

func TestGateKeepsItsStateOverAnotherPolicy(t *testing.T) {
	g := newGate(testPolicy, func() {})
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
	g := newGate(testPolicy, func() {})
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
	if w := testPolicy.wait(1, 1000*time.Hour); w != testPolicy.GiveUp {
		t.Fatalf("a Retry-After of six weeks gave %s", w)
	}
	if got := testPolicy.notAfter(now.Add(1000*time.Hour), now); !got.Equal(now.Add(testPolicy.GiveUp)) {
		t.Fatalf("a due time under another clock stands at %v", got)
	}
}
