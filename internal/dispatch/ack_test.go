package dispatch

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Dispatch's rows of the design's ack table, on a real broker, a real status
// store, real rules and real keys. The mappings do what the tests tell them.

func same[T comparable](t *testing.T, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

const (
	region   = submission.Region("081150003003")
	several  = submission.Region("081110000000")
	nobodys  = submission.Region("089999999999")
	accepted = submission.EventAccepted
	decided  = submission.EventDecided
)

func TestAckDecided(t *testing.T) {
	r := newRig(t)
	m, rec := r.accepted("a1", r.in(0, "A"), region)
	r.append(rec)
	a := r.decided(m, 1)
	if a.State != submission.InFlight || a.Decision.Authority.ID != "bb" || a.Decision.ConfigHash != "one" || !a.Decision.At.Equal(m.AcceptedAt) {
		t.Fatalf("%+v", a.Decision)
	}
	same(t, "events", r.types(m), accepted, decided)
	r.acked(0)
	out := r.read(TopicDeliveries, m)
	if len(out) != 1 {
		t.Fatalf("%d deliveries", len(out))
	}
	dm, err := submission.ParseDeliveryMeta(out[0].Headers)
	must(t, err)
	if dm.DeliveryID != submission.NewDeliveryID(m.ID, "08-bb", 1) || dm.Destination != "08-bb" || dm.Decision != a.DecisionID ||
		dm.Order != rec.Offset || out[0].Partition != rec.Partition || string(out[0].Key) != m.CaseID.String() {
		t.Fatalf("%+v", dm)
	}
	if xml := r.xml(out[0]); xml != `<antrag authority="bb">"a1"</antrag>` {
		t.Fatal(xml)
	}

	// Another append of the same submission, and this one again once delivery
	// has spoken: repeats, dropped.
	twin := m
	twin.Append = uuid.New()
	r.append(r.record(twin, rec.Value))
	r.acked(0)
	epoch, err := r.ledger.Acquire(r.ctx(), submission.StageDelivery, 0)
	must(t, err)
	must(t, r.ledger.Append(t.Context(), 0, submission.Event{ID: uuid.New(), Type: submission.EventDelivered, At: m.AcceptedAt, Stage: submission.StageDelivery,
		Epoch: epoch, Submission: m.ID, CaseID: m.CaseID, Land: m.Land, Service: m.Service, Revision: 1, DeliveryID: dm.DeliveryID, Attempt: 1}))
	r.append(r.record(m, rec.Value))
	r.acked(0)
	if n := len(r.read(TopicDeliveries, m)); n != 1 {
		t.Fatalf("%d deliveries", n)
	}
	if a := r.await(m, "delivered", func(a *submission.Account) bool { return a.State == submission.Delivered }); a.Append != m.Append {
		t.Fatal("the first append does not count")
	}
}

func TestAckMappingFails(t *testing.T) {
	r := newRig(t)
	bad := map[string]func() ([]byte, error){
		"schema": func() ([]byte, error) {
			return nil, fault.New(fault.Permanent, fault.ReasonSchemaInvalid, "element x is missing")
		},
		"mapping": func() ([]byte, error) {
			return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "field y")
		},
		"panic": func() ([]byte, error) { panic("Müller, Stuttgart") },
	}
	r.book.maps(func(j Job) ([]byte, error) {
		for name, f := range bad {
			if strings.Contains(string(j.Envelope.Data), name) {
				return f()
			}
		}
		return []byte("<ok/>"), nil
	})
	var ms []submission.Meta
	for name, why := range map[string]fault.Reason{"schema": fault.ReasonSchemaInvalid, "mapping": fault.ReasonMappingFailed, "panic": fault.ReasonMappingFailed} {
		m := r.submit(name, r.in(0, name), region)
		a := r.held(m, submission.Dead, why)
		same(t, "events", r.types(m), accepted, submission.EventDead)
		if a.Held.Topic != TopicDead || len(r.read(TopicDead, m)) != 1 || len(r.read(TopicDeliveries, m)) != 0 {
			t.Fatalf("%+v", a.Held)
		}
		ms = append(ms, m)
	}
	r.decided(r.submit("good", r.in(0, "good"), region), 1) // neighbours pass
	r.acked(0)
	if strings.Contains(r.text(), "Müller") {
		t.Fatal("a panic's value stands in the log")
	}

	// The mapping is mended: a redrive makes it well, one revision higher.
	r.book.maps(nil)
	for _, m := range ms {
		r.append(r.again(m, submission.Instruction{Kind: submission.InstructRedrive}))
		a := r.decided(m, 2)
		if a.Redrives != 1 || a.Decision.Predecessor != 1 {
			t.Fatalf("%+v", a)
		}
		r.eventually("sent on", func() bool { return len(r.read(TopicDeliveries, m)) == 1 })
		same(t, "events", r.types(m), accepted, submission.EventDead, submission.EventRedriven, decided)
	}
}

func TestAckUndecryptableAndUndecodable(t *testing.T) {
	r := newRig(t)
	m, rec := r.accepted("a1", r.in(0, "A"), region)
	forged := r.record(m, append(slices.Clone(rec.Value[:len(rec.Value)-1]), rec.Value[len(rec.Value)-1]^1))
	n, other := r.accepted("a2", r.in(0, "A"), region)
	broken := r.record(n, other.Value)
	broken.Headers["ce_revision"] = "first"
	r.append(forged, broken, other)
	r.await(m, "dead", func(a *submission.Account) bool { return a.State == submission.Dead && a.Held != nil })
	r.decided(n, 1)
	r.acked(0)
	dead := r.read(TopicDead, n)
	if len(dead) != 1 || dead[0].Headers["ce_reason"] != string(fault.ReasonUndecodable) || string(dead[0].Value) != string(other.Value) {
		t.Fatalf("%d dead letters", len(dead))
	}
}

func TestAckUnassigned(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		region submission.Region
		why    fault.Reason
	}{{nobodys, fault.ReasonNoAuthority}, {several, fault.ReasonSeveralAuthorities}, {"146250000000", fault.ReasonConfigBroken}} {
		m := r.submit(string(c.region), r.in(0, "A"), c.region)
		a := r.held(m, submission.Unassigned, c.why)
		same(t, "events", r.types(m), accepted, submission.EventUnassigned)
		if a.Held.Topic != TopicUnassigned || len(r.read(TopicUnassigned, m)) != 1 || len(r.read(TopicDeliveries, m)) != 0 {
			t.Fatalf("%+v", a.Held)
		}
	}
	// It holds nothing back, not even in its own case.
	r.decided(r.submit("next", r.in(0, "A"), region), 1)
	r.acked(0)

	// Assigned: above every rule, one revision higher, at the end of its case.
	m := submission.Meta{ID: submission.NewID("p", string(nobodys)), CaseID: r.in(0, "A")}
	order := r.again(m, submission.Instruction{Kind: submission.InstructAssign, Authority: "spare"})
	again := *order
	r.append(order)
	a := r.decided(m, 2)
	if a.Decision.Authority.ID != "spare" || a.State != submission.InFlight {
		t.Fatalf("%+v", a.Decision)
	}
	same(t, "events", r.types(m), accepted, submission.EventUnassigned, submission.EventAssigned, decided)
	r.eventually("sent on", func() bool { return len(r.read(TopicDeliveries, m)) == 1 })
	dm, err := submission.ParseDeliveryMeta(r.read(TopicDeliveries, m)[0].Headers)
	must(t, err)
	if dm.Order != order.Offset || dm.Instruction != nil || dm.DeliveryID != submission.NewDeliveryID(m.ID, "08-spare", 2) {
		t.Fatalf("%+v", dm)
	}
	// Another operator's assignment to somebody else came too late.
	other, err := submission.ParseMeta(again.Headers)
	must(t, err)
	other.Instruction.Authority = "bb"
	r.append(r.record(other, again.Value))
	r.acked(0)
	if a := r.decided(m, 2); a.Decision.Authority.ID != "spare" {
		t.Fatal("decided twice")
	}
	for _, rec := range r.read(TopicDeliveries, m) {
		if rec.Headers["ce_destination"] != "08-spare" {
			t.Fatal("sent to two authorities")
		}
	}
}

// Closed, and then an order that was given before: nothing comes back to life.
func TestAckClose(t *testing.T) {
	r := newRig(t)
	m := r.submit("a1", r.in(0, "A"), nobodys)
	r.held(m, submission.Unassigned, fault.ReasonNoAuthority)
	late := r.again(m, submission.Instruction{Kind: submission.InstructAssign, Authority: "bb"})
	c := m
	c.Instruction = &submission.Instruction{Kind: submission.InstructClose, Operator: "anna", Reason: "withdrawn", At: m.AcceptedAt}
	r.append(r.record(c, nil), late, r.record(c, nil))
	r.acked(0)
	r.await(m, "rejected", func(a *submission.Account) bool { return a.State == submission.Rejected })
	if n := len(r.read(TopicDeliveries, m)); n != 0 {
		t.Fatalf("%d deliveries of what was closed", n)
	}
	same(t, "events", r.types(m), accepted, submission.EventUnassigned, submission.EventClosed)
}

// A crash between the decision and its deliveries, and another configuration
// after it: the first decision stands.
func TestAckCrashAfterDecision(t *testing.T) {
	r := newRig(t)
	r.hurt.set(func(h *hurt) {
		h.append = func(topic string) error {
			if topic == TopicDeliveries {
				return fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "")
			}
			return nil
		}
	})
	m := r.submit("a1", r.in(0, "A"), region)
	first := r.decided(m, 1)
	r.eventually("tried again", func() bool { return r.book.asked() > 1 })
	if r.committed(0) > 0 || len(r.read(TopicDeliveries, m)) > 0 {
		t.Fatal("acknowledged without a delivery")
	}
	r.stop()
	r.hurt.set(func(h *hurt) { h.append = nil })
	r.book.rules(t, "08", "two", map[submission.Region][]string{"08115": {"other"}})
	r.open()
	r.acked(0)
	out := r.read(TopicDeliveries, m)
	if len(out) != 1 || out[0].Headers["ce_destination"] != "08-bb" || out[0].Headers["ce_decision"] != first.DecisionID.String() {
		t.Fatalf("%d deliveries: %v", len(out), out)
	}
	if xml := r.xml(out[0]); !strings.Contains(xml, `authority="bb"`) {
		t.Fatal(xml)
	}
	if a := r.decided(m, 1); a.Decision.ConfigHash != "one" {
		t.Fatal("decided anew")
	}
	// What comes now is decided by the new one.
	if a := r.decided(r.submit("a2", r.in(0, "A"), region), 1); a.Decision.Authority.ID != "other" {
		t.Fatalf("%+v", a.Decision)
	}
}

// A crash between the two deliveries of a submission, of which the first is
// delivered before dispatch comes back: the second still goes out.
func TestAckCrashBetweenDeliveries(t *testing.T) {
	r := newRig(t)
	r.book.rules(t, "08", "one", map[submission.Region][]string{"08115": {"bb+cc"}})
	r.hurt.set(func(h *hurt) {
		h.record = func(rec *bus.Record) error {
			if rec.Topic == TopicDeliveries && rec.Headers["ce_destination"] == "08-cc" {
				return fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "")
			}
			return nil
		}
	})
	m := r.submit("a1", r.in(0, "A"), region)
	first := r.decided(m, 1)
	r.eventually("the first is appended", func() bool { return len(r.read(TopicDeliveries, m)) > 0 })
	epoch, err := r.ledger.Acquire(r.ctx(), submission.StageDelivery, 0)
	must(t, err)
	bb, cc := submission.NewDeliveryID(m.ID, "08-bb", 1), submission.NewDeliveryID(m.ID, "08-cc", 1)
	must(t, r.ledger.Append(t.Context(), 0, submission.Event{ID: uuid.New(), Type: submission.EventDelivered, At: m.AcceptedAt, Stage: submission.StageDelivery,
		Epoch: epoch, Submission: m.ID, CaseID: m.CaseID, Land: m.Land, Service: m.Service, Revision: 1, DeliveryID: bb, Attempt: 1}))
	r.stop()
	r.hurt.set(func(h *hurt) { h.record = nil })
	r.open()
	r.acked(0)
	out := r.read(TopicDeliveries, m)
	out = slices.DeleteFunc(out, func(rec *bus.Record) bool { return rec.Headers["ce_destination"] == "08-bb" })
	if len(out) != 1 || out[0].Headers["ce_destination"] != "08-cc" || out[0].Headers["ce_decision"] != first.DecisionID.String() {
		t.Fatalf("%d deliveries to the second destination: %v", len(out), out)
	}
	if dm, err := submission.ParseDeliveryMeta(out[0].Headers); err != nil || dm.DeliveryID != cc {
		t.Fatalf("%+v, %v", dm, err)
	}
}

// Nothing is acknowledged that could not be recorded or appended, a case keeps
// its order meanwhile, and all goes on when it can.
func TestAckRecordingFails(t *testing.T) {
	down := fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "")
	topic := func(name string) func(h *hurt) {
		return func(h *hurt) {
			h.append = func(to string) error {
				if to == name {
					return down
				}
				return nil
			}
		}
	}
	event := func(kind submission.EventType) func(h *hurt) {
		return func(h *hurt) {
			h.told = func(ev submission.Event) error {
				if ev.Type == kind {
					return down
				}
				return nil
			}
		}
	}
	for name, c := range map[string]struct {
		region submission.Region
		fail   func(h *hurt)
		broken bool
		state  submission.State
	}{
		"decided":           {region, event(decided), false, submission.InFlight},
		"unassigned":        {nobodys, event(submission.EventUnassigned), false, submission.Unassigned},
		"unassigned record": {nobodys, topic(TopicUnassigned), false, submission.Unassigned},
		"dead":              {region, event(submission.EventDead), true, submission.Dead},
		"dead letter":       {region, topic(TopicDead), true, submission.Dead},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if c.broken {
				r.book.maps(func(Job) ([]byte, error) { return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "") })
			}
			r.hurt.set(c.fail)
			m := r.submit("a1", r.in(0, "A"), c.region)
			r.eventually("refused twice", func() bool { return strings.Count(r.text(), "not acknowledged") >= 2 })
			if r.committed(0) > 0 {
				t.Fatal("acknowledged")
			}
			if a, err := r.store.Get(t.Context(), m.ID); err != nil || a.State != submission.InFlight || a.Dispatched != 0 {
				t.Fatalf("%+v, %v", a, err)
			}
			r.hurt.set(func(h *hurt) { h.append, h.told = nil, nil })
			r.acked(0)
			r.await(m, string(c.state), func(a *submission.Account) bool { return a.State == c.state && a.Dispatched == 1 })
		})
	}
}

// A fault that may go away keeps the record and the order of its case; other
// cases pass.
func TestAckRetryableFault(t *testing.T) {
	r := newRig(t)
	r.book.maps(func(j Job) ([]byte, error) {
		if strings.Contains(string(j.Envelope.Data), "a1") {
			return nil, fault.New(fault.Retryable, fault.ReasonStorage, "disk")
		}
		return []byte("<ok/>"), nil
	})
	a1, a2 := r.submit("a1", r.in(0, "A"), region), r.submit("a2", r.in(0, "A"), region)
	r.decided(r.submit("b1", r.in(0, "B"), region), 1)
	if r.committed(0) > 0 {
		t.Fatal("acknowledged beyond what failed")
	}
	r.book.maps(nil)
	r.decided(a1, 1)
	r.decided(a2, 1)
	r.acked(0)
	first, second := r.read(TopicDeliveries, a1), r.read(TopicDeliveries, a2)
	if len(first) != 1 || len(second) != 1 || first[0].Offset > second[0].Offset {
		t.Fatal("out of order")
	}
}

func TestAckTooLargeForARecord(t *testing.T) {
	r := newRig(t)
	r.hurt.set(func(h *hurt) {
		h.append = func(topic string) error {
			if topic == TopicDeliveries {
				return fault.New(fault.Permanent, fault.ReasonTooLarge, "")
			}
			return nil
		}
	})
	m := r.submit("a1", r.in(0, "A"), region)
	r.held(m, submission.Dead, fault.ReasonTooLarge)
	r.acked(0)
}

// Another owner begins while a record is in hand: what we record takes no
// effect, the record is not acknowledged, and when the partition is ours after
// all it is taken back.
func TestAckSuperseded(t *testing.T) {
	r := newRig(t)
	begun, hold := make(chan struct{}, 10), make(chan struct{})
	r.book.maps(func(Job) ([]byte, error) {
		begun <- struct{}{}
		<-hold
		return []byte("<ok/>"), nil
	})
	m := r.submit("a1", r.in(0, "A"), region)
	<-begun
	epoch, err := r.ledger.Acquire(r.ctx(), submission.StageDispatch, 0)
	must(t, err)
	close(hold)
	r.decided(m, 1)
	same(t, "events that took effect", r.types(m), accepted, decided)
	if now := r.store.EpochOf(submission.StageDispatch, 0); now <= epoch {
		t.Fatalf("epoch %d: not taken back", now)
	}
	r.acked(0)
	r.eventually("owned", func() bool { return r.stage.Owned()[0] > epoch })
}

// Decisions of one revision have ids of their own, unless they are the same.
func TestDecisionIDs(t *testing.T) {
	r := newRig(t)
	r.hurt.set(func(h *hurt) {
		h.told = func(ev submission.Event) error {
			if ev.Type == decided {
				return fault.New(fault.Retryable, fault.ReasonTimeout, "")
			}
			return nil
		}
	})
	seen := make(chan uuid.UUID, 100)
	r.hurt.set(func(h *hurt) {
		before := h.told
		h.told = func(ev submission.Event) error {
			if ev.Type == decided {
				seen <- ev.ID
			}
			return before(ev)
		}
	})
	m := r.submit("a1", r.in(0, "A"), region)
	one, repeat := <-seen, <-seen
	if one != repeat {
		t.Fatal("the same decision under two ids")
	}
	r.book.rules(t, "08", "two", map[submission.Region][]string{"08115": {"bb"}})
	for id := range seen {
		if id != one {
			break
		}
	}
	r.hurt.set(func(h *hurt) { h.told = nil })
	if a := r.decided(m, 1); a.DecisionID == one {
		t.Fatal("another decision under the same id")
	}
}
