package submission

import (
	"encoding/json"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

var (
	t0     = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	anID   = NewID("service-bw", "key-1")
	anApp  = uuid.MustParse("6f1c1d6e-2f0c-4a55-9d7e-111111111111")
	format = Format{"antrag", "1.0", "antrag.0100"}
)

// at makes the events of one story, each a second after the last.
type story struct{ n int }

func (s *story) event(t EventType, e Event) Event {
	s.n++
	e.Type, e.Submission, e.CaseID, e.Portal, e.Land, e.Service = t, anID, NewCaseID(anID), "service-bw", "08", "99050012104000"
	e.At = t0.Add(time.Duration(s.n) * time.Second)
	e.ID = NewEventID(t, anID, strconv.Itoa(s.n))
	e.Stage = StageDispatch
	if e.DeliveryID != uuid.Nil {
		e.Stage = StageDelivery
	}
	return e
}

func (s *story) accepted() Event {
	return s.event(EventAccepted, Event{Revision: 1, Accepted: &Acceptance{Region: "081150003003", AcceptedAt: t0, SHA512: "ab", Append: anApp}})
}

func delivery(destination string, revision int) uuid.UUID {
	return NewDeliveryID(anID, destination, revision)
}

func (s *story) decided(revision int, destinations ...string) Event {
	d := &Decision{Authority: Authority{ID: "bb"}, Rule: "rules.yaml:3", At: t0}
	for _, to := range destinations {
		d.Deliveries = append(d.Deliveries, PlannedDelivery{ID: delivery(to, revision), Destination: to, Adapter: "file", Format: format})
	}
	return s.event(EventDecided, Event{Revision: revision, Decision: d})
}

func (s *story) about(t EventType, destination string, e Event) Event {
	e.DeliveryID, e.Destination = delivery(destination, max(1, e.Revision)), destination
	return s.event(t, e)
}

func TestStates(t *testing.T) {
	due := t0.Add(time.Hour)
	held := &Held{Topic: "weiche.deadletters", Partition: 1, Offset: 7}
	for _, c := range []struct {
		name   string
		events func(s *story) []Event
		state  State
		reason string
	}{
		{"accepted", func(s *story) []Event { return []Event{s.accepted()} }, InFlight, ""},
		{"nothing is known before the acceptance", func(s *story) []Event { return []Event{s.decided(1, "a")} }, "", ""},
		{"no authority", func(s *story) []Event {
			return []Event{s.accepted(), s.event(EventUnassigned, Event{Revision: 1, Reason: "no-authority", Held: held})}
		}, Unassigned, "no-authority"},
		{"assigned and decided", func(s *story) []Event {
			return []Event{s.accepted(), s.event(EventUnassigned, Event{Revision: 1, Reason: "no-authority"}), s.event(EventAssigned, Event{Revision: 2}), s.decided(2, "a")}
		}, InFlight, ""},
		{"assigned, not yet decided", func(s *story) []Event {
			return []Event{s.accepted(), s.event(EventUnassigned, Event{Revision: 1, Reason: "no-authority"}), s.event(EventAssigned, Event{Revision: 2})}
		}, Unassigned, "no-authority"},
		{"mapping failed", func(s *story) []Event {
			return []Event{s.accepted(), s.event(EventDead, Event{Revision: 1, Reason: "mapping-failed"})}
		}, Dead, "mapping-failed"},
		{"mapping failed after the decision was recorded", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.event(EventDead, Event{Revision: 1, Reason: "mapping-failed"})}
		}, Dead, "mapping-failed"},
		{"first decision stands", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.decided(1, "b"), s.about(EventDelivered, "b", Event{Attempt: 1}), s.about(EventDelivered, "a", Event{Attempt: 1})}
		}, Delivered, ""},
		{"unassigned after a decision of the same revision is too late", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.event(EventUnassigned, Event{Revision: 1, Reason: "no-authority"})}
		}, InFlight, ""},
		{"waits for its next attempt", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventAttempt, "a", Event{Attempt: 1, Sequence: 1, Reason: "unavailable", DueAt: &due})}
		}, Waiting, "unavailable"},
		{"parked", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventWaiting, "a", Event{Sequence: 1, Reason: "paused"})}
		}, Waiting, "paused"},
		{"handed over", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventHandedOver, "a", Event{Sequence: 1, Token: "t", Reason: "handed-over"})}
		}, Waiting, "handed-over"},
		{"delivered at the second attempt", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventAttempt, "a", Event{Attempt: 1, Reason: "timeout"}), s.about(EventDelivered, "a", Event{Attempt: 2})}
		}, Delivered, ""},
		{"the least finished counts", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a", "b"), s.about(EventDelivered, "a", Event{Attempt: 1}), s.about(EventWaiting, "b", Event{Sequence: 1, Reason: "busy"})}
		}, Waiting, "busy"},
		{"dead before waiting", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a", "b"), s.about(EventDead, "a", Event{Attempt: 1, Reason: "refused", Held: held}), s.about(EventWaiting, "b", Event{Sequence: 1, Reason: "busy"})}
		}, Dead, "refused"},
		{"what is dead does not wait by itself", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventDead, "a", Event{Attempt: 1, Reason: "refused"}), s.about(EventWaiting, "a", Event{Sequence: 9, Reason: "busy"})}
		}, Dead, "refused"},
		{"redriven", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventDead, "a", Event{Attempt: 1, Reason: "refused"}), s.about(EventRedriven, "a", Event{Redrive: 1})}
		}, InFlight, ""},
		{"redriven and dead again", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventDead, "a", Event{Attempt: 1, Reason: "refused"}), s.about(EventRedriven, "a", Event{Redrive: 1}),
				s.about(EventDead, "a", Event{Attempt: 2, Reason: "gave-up"})}
		}, Dead, "gave-up"},
		{"closed while waiting", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventWaiting, "a", Event{Sequence: 1}), s.about(EventClosed, "a", Event{Reason: "operator", Note: "double"})}
		}, Rejected, "operator"},
		{"closed while unassigned, then decided too late", func(s *story) []Event {
			return []Event{s.accepted(), s.event(EventUnassigned, Event{Revision: 1}), s.event(EventClosed, Event{Revision: 1, Reason: "operator"}), s.decided(2, "a")}
		}, Rejected, "operator"},
		{"in flight cannot be closed", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventClosed, "a", Event{Reason: "operator"}), s.event(EventClosed, Event{Revision: 1, Reason: "operator"})}
		}, InFlight, ""},
		{"refused by the Fachverfahren after delivery", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventDelivered, "a", Event{Attempt: 1}), s.about(EventRejected, "a", Event{Reason: "refused"})}
		}, Rejected, "refused"},
		{"rejected never becomes delivered", func(s *story) []Event {
			return []Event{s.accepted(), s.decided(1, "a"), s.about(EventRejected, "a", Event{Reason: "refused"}), s.about(EventDelivered, "a", Event{Attempt: 1})}
		}, Rejected, "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var a Account
			for _, e := range c.events(&story{}) {
				a.Apply(e)
			}
			if a.State != c.state || a.Reason != c.reason {
				t.Errorf("state %q reason %q, want %q %q", a.State, a.Reason, c.state, c.reason)
			}
		})
	}
}

func TestWaitingSinceKeepsTheFirst(t *testing.T) {
	s, a := &story{}, Account{}
	first := s.accepted()
	a.Apply(first)
	a.Apply(s.decided(1, "a"))
	w := s.about(EventWaiting, "a", Event{Sequence: 1})
	a.Apply(w)
	a.Apply(s.about(EventAttempt, "a", Event{Attempt: 1, Sequence: 2}))
	if since := a.Deliveries[0].WaitingSince; since == nil || !since.Equal(w.At) {
		t.Errorf("waiting since %v, want %v", since, w.At)
	}
	a.Apply(s.about(EventDelivered, "a", Event{Attempt: 2}))
	if since := a.Deliveries[0].WaitingSince; since != nil {
		t.Errorf("delivered, and waiting since %v", since)
	}
}

// A decision of the acceptance comes from events alone, whenever the submission
// record itself was seen.
func TestAcceptChangesNothingAfterwards(t *testing.T) {
	s := &story{}
	events := []Event{s.accepted(), s.decided(1, "a"), s.about(EventWaiting, "a", Event{Sequence: 1})}
	m := Meta{ID: anID, CaseID: NewCaseID(anID), Portal: "service-bw", Land: "08", Service: "99050012104000", Region: "081150003003",
		AcceptedAt: t0, SHA512: "ab", Append: uuid.New(), Revision: 1}
	var want Account
	for _, e := range events {
		want.Apply(e)
	}
	for i := range events {
		var a Account
		for j, e := range events {
			if i == j {
				a.Accept(m)
			}
			a.Apply(e)
		}
		if !reflect.DeepEqual(a, want) {
			t.Errorf("accepted before event %d: %+v, want %+v", i, a, want)
		}
	}
}

// anyEvent draws an event that a stage could write, sensible or not.
func anyEvent(rt *rapid.T, s *story) Event {
	dest := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "destination")
	n := rapid.IntRange(1, 4).Draw(rt, "number")
	rev := rapid.IntRange(1, 3).Draw(rt, "revision")
	reason := rapid.SampledFrom([]string{"timeout", "refused", "paused"}).Draw(rt, "reason")
	held := &Held{Topic: "weiche.deadletters", Offset: int64(s.n)}
	switch rapid.IntRange(0, 12).Draw(rt, "type") {
	case 0:
		return s.accepted()
	case 1:
		return s.decided(rev, rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID[string]).Draw(rt, "destinations")...)
	case 2:
		return s.event(EventUnassigned, Event{Revision: rev, Reason: reason, Held: held})
	case 3:
		return s.event(EventAssigned, Event{Revision: rev})
	case 4:
		return s.event(EventRedriven, Event{Revision: rev})
	case 5:
		return s.event(EventDead, Event{Revision: rev, Reason: reason, Held: held})
	case 6:
		return s.event(EventClosed, Event{Revision: rev, Reason: "operator"})
	case 7:
		return s.about(EventWaiting, dest, Event{Revision: rev, Sequence: n, Reason: reason})
	case 8:
		return s.about(EventAttempt, dest, Event{Revision: rev, Attempt: n, Sequence: n, Reason: reason})
	case 9:
		return s.about(EventDelivered, dest, Event{Revision: rev, Attempt: n})
	case 10:
		return s.about(EventDead, dest, Event{Revision: rev, Attempt: n, Reason: reason, Held: held})
	case 11:
		return s.about(EventRedriven, dest, Event{Revision: rev, Redrive: n})
	default:
		return s.about(rapid.SampledFrom([]EventType{EventClosed, EventRejected, EventHandedOver}).Draw(rt, "end"), dest,
			Event{Revision: rev, Attempt: n, Sequence: n, Reason: reason, Token: "t"})
	}
}

func TestFoldProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &story{}
		var a Account
		a.Apply(s.accepted())
		var effective []Event
		decisions := map[int]uuid.UUID{}
		for range rapid.IntRange(1, 40).Draw(rt, "events") {
			before := a.Clone()
			e := anyEvent(rt, s)
			changed := a.Apply(e)
			if !changed && !reflect.DeepEqual(*before, a) {
				rt.Fatalf("%s says it changed nothing and did", e.Type)
			}
			if changed {
				effective = append(effective, e)
			}
			// Exactly one state, a known one, and derived alike for the parts.
			known := 0
			for _, st := range States() {
				if st == a.State {
					known++
				}
			}
			if known != 1 {
				rt.Fatalf("state %q is not one of the states", a.State)
			}
			if before.State.Final() && a.State != before.State && (before.State != Delivered || a.State != Rejected) {
				rt.Fatalf("%s turned the final state %s into %s", e.Type, before.State, a.State)
			}
			if a.Decision != nil {
				if id, ok := decisions[a.Dispatched]; ok && id != a.DecisionID {
					rt.Fatalf("revision %d was decided twice", a.Dispatched)
				}
				decisions[a.Dispatched] = a.DecisionID
			}
			if a.Dispatched < before.Dispatched {
				rt.Fatalf("dispatched revision fell from %d to %d", before.Dispatched, a.Dispatched)
			}
			for _, d := range a.Deliveries {
				if d.Revision != a.Dispatched {
					rt.Fatalf("a delivery of revision %d stands in the account of revision %d", d.Revision, a.Dispatched)
				}
				if (d.State == Waiting) != (d.WaitingSince != nil) {
					rt.Fatalf("state %s and waiting since %v", d.State, d.WaitingSince)
				}
				if d.State.Final() && (d.Held != nil || d.DueAt != nil) {
					rt.Fatalf("final, and held %v, due %v", d.Held, d.DueAt)
				}
			}
			// Whatever took effect takes none when it comes again, at once or late.
			if len(effective) > 0 {
				again := rapid.SampledFrom(effective).Draw(rt, "again")
				now := a.Clone()
				if a.Apply(again) || !reflect.DeepEqual(*now, a) {
					rt.Fatalf("the repeat of %s (%d in all) changed the account\nfrom %s\nto   %s", again.Type, len(effective), dump(now), dump(&a))
				}
			}
		}
		// The account survives its store.
		raw, err := json.Marshal(a)
		if err != nil {
			rt.Fatal(err)
		}
		var back Account
		if err := json.Unmarshal(raw, &back); err != nil {
			rt.Fatal(err)
		}
		if !reflect.DeepEqual(a, back) {
			rt.Fatalf("stored %s, read %s", raw, dump(&back))
		}
	})
}

func dump(a *Account) string {
	b, err := json.Marshal(a)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestCloneSharesNothing(t *testing.T) {
	s, a := &story{}, Account{}
	due := t0.Add(time.Minute)
	for _, e := range []Event{s.accepted(), s.decided(1, "a", "b"), s.about(EventAttempt, "a", Event{Attempt: 1, DueAt: &due}),
		s.about(EventDead, "b", Event{Attempt: 1, Held: &Held{Topic: "x"}})} {
		a.Apply(e)
	}
	want := dump(&a)
	c := a.Clone()
	c.Deliveries[0].State, *c.Deliveries[0].DueAt, *c.Deliveries[0].WaitingSince = Dead, t0, t0
	c.Deliveries[1].Held.Topic, c.Decision.Deliveries[0].Destination = "y", "z"
	c.Deliveries = append(c.Deliveries[:1], c.Deliveries[0])
	if got := dump(&a); got != want {
		t.Errorf("changing the copy changed the account\nfrom %s\nto   %s", want, got)
	}
}

// A destination at fault is told as an attempt without a number: it makes the
// delivery wait and is not counted.
func TestAttemptThatDoesNotCount(t *testing.T) {
	d := uuid.New()
	a := &Account{Copied: true, Own: InFlight, State: InFlight, Deliveries: []*DeliveryAccount{{ID: d, State: InFlight}}}
	if !a.Apply(Event{Type: EventAttempt, DeliveryID: d, Class: "destination", Reason: "unreachable", Sequence: 1}) {
		t.Fatal("it changes nothing")
	}
	got := a.Delivery(d)
	if got.State != Waiting || got.Attempts != 0 || got.Sequence != 1 || got.Reason != "unreachable" {
		t.Fatalf("%+v", got)
	}
	if a.Apply(Event{Type: EventAttempt, DeliveryID: d, Class: "destination", Sequence: 1}) {
		t.Fatal("a repeat changes something")
	}
}
