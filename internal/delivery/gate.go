package delivery

import (
	"context"
	"slices"
	"sync"
	"time"

	"weiche/internal/fault"
)

// gate bounds the work on one destination and closes while the destination is
// at fault. One gate serves every partition of the process.
type gate struct {
	wake func()               // tells the lanes that something may go on
	own  func() time.Duration // how long our own writing takes at the moment

	mu      sync.Mutex
	policy  Policy
	busy    int             // slots taken
	freed   int             // slots given back, ever
	lined   []chan struct{} // who waits for a slot, first come first served; closed when to look again
	refused bool            // a slot was asked for in vain since wake was called last
	queued  map[int32]int   // handlers waiting for a slot, by partition
	crowded time.Time       // until when it counts as slow: somebody waited for a slot in vain
	paused  bool
	since   time.Time
	reason  fault.Reason
	probeAt time.Time
	probing bool
	every   time.Duration // between probes; grows while each of them costs a dead letter
	hand    *HandPause
	last    fault.Reason // of the last failed attempt
	ramp    int          // slots while it recovers, one more for each answer; 0: all
	recent  []bool       // the newest last words on deliveries; true: refused for good
}

// How many last words the ratio of dead letters is taken of. Half of twenty
// tells a bad deploy from a few bad messages before many have died.
const ratioOver = 20

// Probes of a destination that refuses everything cost a dead letter each, so
// they become rare: 15 s, 30 s, … up to an hour.
const rarestProbe = time.Hour

// HandPause is an operator's pause.
type HandPause struct {
	Operator string    `json:"operator"`
	Reason   string    `json:"reason"`
	Until    time.Time `json:"until,omitzero"` // zero: until resumed
	Since    time.Time `json:"since"`
}

// How many records of a partition may stand before one destination's slots; more
// than that go to the waiting topic, so that one destination cannot fill a
// partition's window. One that keeps up has half of the window; one that was
// found to be slow a few places only.
const (
	maxQueued     = InFlight / 2
	maxQueuedSlow = 4
)

// slotPatience is how long a record waits for a slot before it goes to the
// waiting topic, unless the destination keeps up (see keepsUp). slowFor is how
// long the destination counts as slow after that.
const (
	slotPatience = 2 * time.Second
	slowFor      = 10 * time.Second
)

// slowTimes our own writing is how long a destination may take with an attempt
// before it is the one that is slow.
const slowTimes = 4

func newGate(p Policy, wake func(), own func() time.Duration) *gate {
	return &gate{policy: p, wake: wake, own: own, queued: map[int32]int{}}
}

// follow takes over another policy; everything else stays: a new timeout must
// not resume what an operator paused.
func (g *gate) follow(p Policy) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.policy = p
	g.call(len(g.lined))
}

// call lets the first n in the line look again. The caller has the lock.
func (g *gate) call(n int) {
	n = min(n, len(g.lined))
	for _, ch := range g.lined[:n] {
		close(ch)
	}
	g.lined = slices.Delete(g.lined, 0, n)
}

// stir lets n of those in the line look again, and the lanes, where one of them
// was refused.
func (g *gate) stir(n int) {
	g.mu.Lock()
	g.call(n)
	wake := g.refused
	g.refused = false
	g.mu.Unlock()
	if wake {
		g.wake()
	}
}

// try takes a slot without waiting. When it cannot, the reason says why, and
// again when to ask next (zero: when woken).
func (g *gate) try(now time.Time) (ok bool, why fault.Reason, again time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { g.refused = g.refused || !ok }()
	if g.byHand(now) {
		return false, fault.ReasonPaused, g.hand.Until
	}
	if g.hand != nil { // it has just run out
		g.hand = nil
		g.ramp = 1
	}
	switch {
	case g.disabled():
		return false, fault.ReasonPaused, time.Time{} // until an operator resumes it
	case g.paused && g.probing:
		return false, fault.ReasonPaused, time.Time{} // the probe's end wakes
	case g.paused && now.Before(g.probeAt):
		return false, fault.ReasonPaused, g.probeAt
	case g.busy >= g.slots():
		return false, fault.ReasonBusy, time.Time{}
	}
	g.busy++
	g.probing = g.paused
	return true, "", time.Time{}
}

// slots is how many attempts may run at once. The caller has the lock.
func (g *gate) slots() int {
	n := max(1, g.policy.InFlight)
	if g.ramp > 0 {
		n = min(n, g.ramp)
	}
	return n
}

// disabled says whether the destination has said that it is gone: then nobody
// probes it. The caller has the lock.
func (g *gate) disabled() bool { return g.paused && g.reason == fault.ReasonGone }

// byHand says whether an operator's pause holds. The caller has the lock.
func (g *gate) byHand(now time.Time) bool {
	return g.hand != nil && (g.hand.Until.IsZero() || now.Before(g.hand.Until))
}

// enter is try with patience, for records fresh from a partition of the
// deliveries topic.
func (g *gate) enter(ctx context.Context, partition int32, now func() time.Time) (bool, fault.Reason, error) {
	ok, why, _ := g.try(now())
	if ok || why == fault.ReasonPaused {
		return ok, why, nil
	}
	g.mu.Lock()
	places := maxQueued
	if now().Before(g.crowded) {
		places = maxQueuedSlow
	}
	if g.queued[partition] >= places {
		g.mu.Unlock()
		return false, fault.ReasonBusy, nil
	}
	g.queued[partition]++
	freed := g.freed
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.queued[partition]--; g.queued[partition] == 0 {
			delete(g.queued, partition)
		}
	}()

	t := time.NewTimer(slotPatience)
	defer t.Stop()
	for {
		called := make(chan struct{})
		g.mu.Lock()
		g.lined = append(g.lined, called)
		g.mu.Unlock()
		// Asked after it stands in the line: what is freed from now on is heard.
		if ok, why, _ := g.try(now()); ok || why == fault.ReasonPaused {
			g.leaveLine(called)
			return ok, why, nil
		}
		for waiting := true; waiting; {
			select {
			case <-called:
				waiting = false
			case <-t.C:
				if freed, waiting = g.keepsUp(freed); waiting {
					t.Reset(slotPatience)
					continue
				}
				g.leaveLine(called)
				g.mu.Lock()
				g.crowded = now().Add(slowFor)
				g.mu.Unlock()
				return false, fault.ReasonBusy, nil
			case <-ctx.Done():
				g.leaveLine(called)
				return false, "", ctx.Err()
			}
		}
	}
}

// keepsUp says whether the destination is no slower than we are, by the slots that
// were freed while one stood in its line for slotPatience: all of them were taken
// then. Where our own
// writing takes as long as its attempts, the router or its broker is what has too
// much to do, and two more records for each delivery, as parking costs, would keep
// it so for good.
func (g *gate) keepsUp(before int) (freed int, yes bool) {
	own := g.own()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.freed == before {
		return g.freed, false
	}
	attempt := slotPatience * time.Duration(g.slots()) / time.Duration(g.freed-before)
	return g.freed, attempt <= slowTimes*own
}

// leaveLine takes one out of the line. Where it was called already, the next one
// is called instead.
func (g *gate) leaveLine(called chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.lined, called); i >= 0 {
		g.lined = slices.Delete(g.lined, i, i+1)
		return
	}
	g.call(1)
}

// proven says whether a fault proves that the destination answers. One that was
// silent, or that nobody understands, may as well be down.
func proven(f *fault.Error) bool {
	if f == nil || f.Class == fault.Permanent {
		return true
	}
	switch f.Reason {
	case fault.ReasonTimeout, fault.ReasonInterrupted, fault.ReasonUnreachable, fault.ReasonUnknown:
		return false
	}
	return true
}

// back gives an unused slot back: the destination was not asked.
func (g *gate) back() {
	g.mu.Lock()
	g.busy--
	g.freed++
	g.probing = false
	g.mu.Unlock()
	g.stir(1)
}

// leave gives the slot back and learns from the attempt. f is nil after a
// delivery. It reports whether the gate has closed or opened.
func (g *gate) leave(now time.Time, f *fault.Error) (changed bool) {
	if f != nil && f.Class == fault.Cancelled {
		g.back()
		return false
	}
	g.mu.Lock()
	if f != nil {
		g.last = f.Reason
	}
	g.busy--
	g.freed++
	more := 1
	switch {
	case f != nil && f.Class == fault.Destination:
		changed = g.shut(now, f.Reason, g.policy.probe())
		g.probeAt = now.Add(max(g.every, min(f.RetryAfter, g.policy.Max)))
	case g.refusesAll(f):
		changed = g.shut(now, fault.ReasonTooManyDead, g.policy.probe())
		g.probeAt = now.Add(g.every)
	case g.paused && !g.proves(f):
		// The pause goes on. An attempt that began before it is no probe.
		if g.probing {
			g.probing = false
			if g.reason == fault.ReasonTooManyDead {
				g.every = min(2*g.every, max(rarestProbe, g.policy.probe()))
			}
			g.probeAt = now.Add(g.every)
		}
	case g.paused:
		changed = true
		g.open()
	case g.ramp > 0 && proven(f):
		if g.ramp++; g.ramp >= max(1, g.policy.InFlight) {
			g.ramp = 0
		}
		more = 2
	}
	if changed {
		more = len(g.lined)
	}
	g.mu.Unlock()
	g.stir(more)
	return changed
}

// shut closes the gate. The caller has the lock.
func (g *gate) shut(now time.Time, why fault.Reason, every time.Duration) (changed bool) {
	if changed = !g.paused; changed {
		g.since = now
	}
	g.paused, g.probing, g.reason, g.every = true, false, why, every
	g.recent = nil
	return changed
}

// open ends every pause. What waits does not storm in: one attempt at first, and
// another one for each answer. The caller has the lock.
func (g *gate) open() {
	g.paused, g.probing, g.reason, g.ramp, g.recent = false, false, "", 1, nil
}

// proves says whether an attempt's end opens a closed gate.
func (g *gate) proves(f *fault.Error) bool {
	switch g.reason {
	case fault.ReasonGone:
		return f == nil // one that was under way when it said so
	case fault.ReasonTooManyDead:
		return f == nil && g.probing
	}
	// It answered, so it is not at fault, whatever it said of the message.
	return proven(f)
}

// refusesAll notes a last word on a delivery, and says whether so many of the
// newest ones were refusals that the destination rather than the messages must
// be at fault: a bad deploy must not flood the dead letters.
func (g *gate) refusesAll(f *fault.Error) bool {
	if g.paused || g.policy.DeadRatio <= 0 || f != nil && f.Class != fault.Permanent {
		return false
	}
	g.recent = append(g.recent, f != nil)
	if over := len(g.recent) - ratioOver; over > 0 {
		g.recent = slices.Delete(g.recent, 0, over)
	}
	dead := 0
	for _, d := range g.recent {
		if d {
			dead++
		}
	}
	return len(g.recent) == ratioOver && float64(dead) >= g.policy.DeadRatio*ratioOver
}

func (g *gate) pauseByHand(h HandPause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hand = &h
	g.call(len(g.lined))
}

func (g *gate) resume() {
	g.mu.Lock()
	g.hand = nil
	g.open()
	n := len(g.lined)
	g.mu.Unlock()
	g.stir(n)
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

func (g *gate) state(now time.Time) DestinationState {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := DestinationState{Reason: g.reason, LastFault: g.last, InFlight: g.busy, InFlightOf: g.slots()}
	if g.paused {
		s.Paused, s.Since = true, g.since
		if !g.disabled() {
			s.NextProbe = g.probeAt
		}
	}
	if g.byHand(now) {
		s.Paused, s.Hand, s.Since, s.Reason = true, g.hand, g.hand.Since, fault.ReasonOperator
	}
	return s
}
