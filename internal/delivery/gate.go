package delivery

import (
	"context"
	"sync"
	"time"

	"weiche/internal/fault"
)

// gate bounds the work on one destination and closes while the destination is
// at fault. One gate serves every partition of the process.
type gate struct {
	policy Policy
	slots  chan struct{}
	wake   func() // tells the lanes that something may go on

	mu      sync.Mutex
	queued  int // handlers waiting for a slot
	paused  bool
	since   time.Time
	reason  fault.Reason
	probeAt time.Time
	probing bool
	hand    *HandPause
	last    fault.Reason // of the last failed attempt
}

// HandPause is an operator's pause.
type HandPause struct {
	Operator string    `json:"operator"`
	Reason   string    `json:"reason"`
	Until    time.Time `json:"until,omitzero"` // zero: until resumed
	Since    time.Time `json:"since"`
}

// maxQueued bounds how many records may stand before one destination's slots;
// more than that go to the waiting topic, so that one slow destination cannot
// fill a partition's window.
const maxQueued = 16

// slotPatience is how long a record waits for a slot before it goes to the
// waiting topic.
const slotPatience = 2 * time.Second

func newGate(p Policy, wake func()) *gate {
	return &gate{policy: p, slots: make(chan struct{}, max(1, p.InFlight)), wake: wake}
}

// try takes a slot without waiting. When it cannot, the reason says why; a
// paused gate also says when its next probe is due (zero: nobody knows yet).
func (g *gate) try(now time.Time) (ok bool, why fault.Reason, again time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h := g.hand; h != nil {
		if h.Until.IsZero() || now.Before(h.Until) {
			return false, fault.ReasonPaused, h.Until
		}
		g.hand = nil
	}
	if g.paused && (g.probing || now.Before(g.probeAt)) {
		return false, fault.ReasonPaused, g.probeAt
	}
	select {
	case g.slots <- struct{}{}:
		g.probing = g.paused
		return true, "", time.Time{}
	default:
		return false, fault.ReasonBusy, time.Time{}
	}
}

// enter is try with patience, for records fresh from the deliveries topic.
func (g *gate) enter(ctx context.Context, now func() time.Time) (bool, fault.Reason, error) {
	ok, why, _ := g.try(now())
	if ok || why == fault.ReasonPaused {
		return ok, why, nil
	}
	g.mu.Lock()
	if g.queued >= maxQueued {
		g.mu.Unlock()
		return false, fault.ReasonBusy, nil
	}
	g.queued++
	g.mu.Unlock()
	defer func() { g.mu.Lock(); g.queued--; g.mu.Unlock() }()

	t := time.NewTimer(slotPatience)
	defer t.Stop()
	select {
	case g.slots <- struct{}{}:
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.paused || g.hand != nil { // closed while we stood before it
			<-g.slots
			return false, fault.ReasonPaused, nil
		}
		return true, "", nil
	case <-t.C:
		return false, fault.ReasonBusy, nil
	case <-ctx.Done():
		return false, "", ctx.Err()
	}
}

// leave gives the slot back and learns from the attempt. f is nil after a
// delivery. It reports whether the gate's state changed.
func (g *gate) leave(now time.Time, f *fault.Error) (changed bool) {
	g.mu.Lock()
	wasProbe := g.probing && g.paused
	switch {
	case f != nil && f.Class == fault.Cancelled:
		if wasProbe {
			g.probing = false
		}
	case f != nil && f.Class == fault.Destination:
		changed = !g.paused
		if changed {
			g.since = now
		}
		wait := max(g.policy.Probe, f.RetryAfter)
		g.paused, g.probing, g.reason, g.last = true, false, f.Reason, f.Reason
		g.probeAt = now.Add(wait)
	default:
		// It answered, so it is not at fault, whatever it said of the message.
		changed = g.paused
		g.paused, g.probing, g.reason = false, false, ""
		if f != nil {
			g.last = f.Reason
		}
	}
	g.mu.Unlock()
	<-g.slots
	g.wake()
	return changed
}

func (g *gate) pauseByHand(h HandPause) {
	g.mu.Lock()
	g.hand = &h
	g.mu.Unlock()
}

func (g *gate) resume() {
	g.mu.Lock()
	g.hand, g.paused, g.probing, g.reason = nil, false, false, ""
	g.mu.Unlock()
	g.wake()
}

// DestinationState is what an operator sees of one destination.
type DestinationState struct {
	ID         string       `json:"id"`
	Adapter    string       `json:"adapter"`
	Paused     bool         `json:"paused"`
	Since      time.Time    `json:"since,omitzero"`
	Reason     fault.Reason `json:"reason,omitempty"`
	NextProbe  time.Time    `json:"nextProbe,omitzero"`
	Hand       *HandPause   `json:"pausedBy,omitempty"`
	LastFault  fault.Reason `json:"lastFault,omitempty"`
	InFlight   int          `json:"inFlight"`
	InFlightOf int          `json:"inFlightLimit"`
}

func (g *gate) state() DestinationState {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := DestinationState{
		Paused: g.paused || g.hand != nil, Reason: g.reason, Hand: g.hand, LastFault: g.last,
		InFlight: len(g.slots), InFlightOf: cap(g.slots),
	}
	if g.paused {
		s.Since, s.NextProbe = g.since, g.probeAt
	}
	if g.hand != nil {
		s.Since, s.Reason = g.hand.Since, fault.ReasonOperator
	}
	return s
}
