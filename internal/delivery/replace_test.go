package delivery

import (
	"context"
	"strconv"
	"testing"
	"time"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// replace is what dispatch does when an operator has a dead submission decided
// anew: the decision, the delivery in its predecessor's place, and the word that
// the predecessor holds its case no longer. To no destination: it is held.
// between is called when the decision is told and the delivery not appended yet.
func (r *rig) replace(old submission.DeliveryMeta, dest string, between func()) submission.DeliveryMeta {
	r.t.Helper()
	p := r.partition(old.Meta)
	ev := func(t submission.EventType) submission.Event {
		return submission.Event{ID: submission.NewEventID(t, old.ID, strconv.Itoa(old.Revision+1)), Type: t, At: time.Now().UTC(), Stage: submission.StageDispatch,
			Epoch: r.epochs[p], Submission: old.ID, CaseID: old.CaseID, Portal: old.Portal, Land: old.Land, Service: old.Service, Revision: old.Revision + 1}
	}
	m := old
	m.Revision, m.DeliveryID, m.Destination = old.Revision+1, submission.NewDeliveryID(old.ID, dest, old.Revision+1), dest
	if dest == "" {
		e := ev(submission.EventUnassigned)
		e.Held = &submission.Held{Topic: "weiche.unassigned"}
		must(r.t, r.ledger.Append(r.t.Context(), p, ev(submission.EventRedriven), e))
	} else {
		e := ev(submission.EventDecided)
		m.Decision = e.ID
		e.Decision = &submission.Decision{Authority: submission.Authority{ID: "bb"}, Predecessor: old.Revision,
			Deliveries: []submission.PlannedDelivery{{ID: m.DeliveryID, Destination: dest, Adapter: "test", Format: format, Replaces: dest == old.Destination, Order: old.Order}}}
		must(r.t, r.ledger.Append(r.t.Context(), p, ev(submission.EventRedriven), e))
		between()
		value, err := r.sealed.seal(r.t.Context(), m.Meta, "<new/>")
		must(r.t, err)
		must(r.t, r.bus.Append(r.t.Context(), r.record(m, value)))
	}
	release := submission.DeliveryMeta{Meta: old.Meta, DeliveryID: old.DeliveryID, Destination: old.Destination, Order: old.Order}
	release.Instruction = &submission.Instruction{Kind: submission.InstructRelease, Operator: "anna", At: time.Now()}
	rec := r.record(release, nil)
	must(r.t, r.bus.Append(r.t.Context(), rec, r.record(release, nil))) // twice: a repeat changes nothing
	return m
}

// A higher revision takes its dead predecessor's place in the case, at the same
// destination or another; where it goes nowhere, the case goes on without it.
func TestReplaced(t *testing.T) {
	for _, c := range []struct {
		to    string
		order int // in which the new one comes at x; -1: never
	}{{"x", 0}, {"y", -1}, {"", -1}} {
		t.Run("to "+c.to, func(t *testing.T) {
			x, y := newDoor(), newDoor()
			r := newRig(t, place("x", x, quick), place("y", y, quick))
			refused := r.in(0, "A")
			x.tell(func(_ context.Context, d *submission.Delivery, _ int) error {
				if string(d.Message) == "<1/>" {
					return permanent()
				}
				return nil
			})
			a1, a2, a3 := r.submit("1", refused, "x"), r.submit("2", refused, "x"), r.submit("3", refused, "x")
			r.state(a1, submission.Dead)
			r.waits(a2, fault.ReasonBehindCase)
			r.waits(a3, fault.ReasonBehindCase)
			n := r.replace(a1, c.to, func() {})
			r.state(a2, submission.Delivered)
			r.state(a3, submission.Delivered)
			want := ids(a2, a3)
			if c.to != "" {
				r.state(n, submission.Delivered)
			}
			if c.order == 0 {
				want = ids(n, a2, a3)
			}
			same(t, "order at x", x.order(), want...)
			r.acked(0)
			r.restart()
			b := r.submit("4", refused, "x")
			r.state(b, submission.Delivered)
		})
	}
}

// The process dies between the decision on a higher revision and its record: until
// that comes the case is held for it, as it was for the dead one.
func TestReplacedOverADeath(t *testing.T) {
	x := newDoor()
	r := newRig(t, place("x", x, quick))
	refused, other := r.in(0, "A"), r.in(0, "B")
	x.tell(func(_ context.Context, d *submission.Delivery, _ int) error {
		if string(d.Message) == "<1/>" {
			return permanent()
		}
		return nil
	})
	a1, a2, a3 := r.submit("1", refused, "x"), r.submit("2", refused, "x"), r.submit("3", refused, "x")
	r.state(a1, submission.Dead)
	r.waits(a2, fault.ReasonBehindCase)
	r.waits(a3, fault.ReasonBehindCase)
	var b submission.DeliveryMeta
	n := r.replace(a1, "x", func() {
		r.restart()
		b = r.submit("b", other, "x")
		r.state(b, submission.Delivered) // what is not of the case flows
		r.waits(a2, fault.ReasonBehindCase)
	})
	for _, m := range []submission.DeliveryMeta{n, a2, a3} {
		r.state(m, submission.Delivered)
	}
	same(t, "order at x", x.order(), ids(b, n, a2, a3)...)
	r.acked(0)
	r.restart() // what is done holds nothing
	a4 := r.submit("4", refused, "x")
	r.state(a4, submission.Delivered)
}
