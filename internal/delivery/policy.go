package delivery

import (
	"math"
	"math/rand/v2"
	"time"
)

// Policy says how a destination is tried. The zero value is not usable; the
// configuration fills every field.
type Policy struct {
	Initial  time.Duration // before the second attempt
	Max      time.Duration // longest wait between two attempts
	Factor   float64       // growth per attempt
	Jitter   float64       // share of the wait that is drawn, 0 to 1
	GiveUp   time.Duration // of waiting in all, without pauses; then dead
	Probe    time.Duration // between two probes of a paused destination
	Timeout  time.Duration // of one attempt
	InFlight int           // attempts at once
	// DeadRatio is the share of refusals for good among the newest last words
	// (ratioOver of them) from which on the destination pauses, 0: never.
	DeadRatio float64
}

// wait returns how long to wait after the given attempt (1-based), in whole
// milliseconds. The last attempt is made when GiveUp is used up, by what it has
// waited already. What the destination asked for stands where it is longer, up
// to GiveUp: waiting longer is waiting for the dead letter.
func (p Policy) wait(attempt int, waited, asked time.Duration) time.Duration {
	w := float64(p.Initial) * math.Pow(p.Factor, float64(attempt-1))
	w = min(w, float64(p.Max))
	w -= w * p.Jitter * rand.Float64()
	if p.GiveUp > 0 {
		w = min(w, float64(p.GiveUp-waited))
		asked = min(asked, p.GiveUp)
	}
	return max(time.Duration(w), asked, time.Millisecond).Round(time.Millisecond)
}

// notAfter bounds a due time that was written under another clock: nothing
// waits longer than the policy ever would.
func (p Policy) notAfter(due, now time.Time) time.Time {
	if last := now.Add(max(p.Max, p.GiveUp)); due.After(last) {
		return last
	}
	return due
}

// probe is the time between two probes; never none, which would be a storm.
func (p Policy) probe() time.Duration { return max(p.Probe, 10*time.Millisecond) }
