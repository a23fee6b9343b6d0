package dispatch

import (
	"testing"

	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// dies lets delivery say that a decided submission's delivery is dead.
func (r *rig) dies(m submission.Meta) submission.DeliveryMeta {
	r.t.Helper()
	a := r.decided(m, 1)
	d := a.DeliveryMeta(a.Deliveries[0])
	p := r.partition(m)
	epoch := r.store.EpochOf(submission.StageDelivery, p)
	if epoch == 0 {
		var err error
		epoch, err = r.ledger.Acquire(r.ctx(), submission.StageDelivery, p)
		must(r.t, err)
	}
	must(r.t, r.ledger.Append(r.t.Context(), p, submission.Event{ID: uuid.New(), Type: submission.EventDead, At: m.AcceptedAt, Stage: submission.StageDelivery,
		Epoch: epoch, Submission: m.ID, CaseID: m.CaseID, Land: m.Land, Service: m.Service, Revision: 1, DeliveryID: d.DeliveryID, Destination: d.Destination,
		Attempt: 1, Order: 7, Held: &submission.Held{Topic: TopicDead, Partition: p}}))
	r.await(m, "dead", func(a *submission.Account) bool { return a.State == submission.Dead })
	return d
}

// renew is an operator's order to decide a dead submission anew.
func renew(m submission.Meta, d submission.DeliveryMeta, kind submission.InstructionKind, authority string) submission.Meta {
	m.Revision = 2
	m.Instruction = &submission.Instruction{Kind: kind, Operator: "anna", Authority: authority, At: m.AcceptedAt,
		Replaces: []submission.Replaced{{Destination: d.Destination, Order: 7}}}
	return m
}

// A dead delivery is replaced by one of a higher revision, in its place of the
// case; delivery is told, behind it, that the old one holds nothing any more.
func TestReplacesADeadDelivery(t *testing.T) {
	r := newRig(t)
	m, rec := r.accepted("a1", r.in(0, "A"), region)
	r.append(rec)
	old := r.dies(m)
	order := r.record(renew(m, old, submission.InstructRedrive, ""), rec.Value)
	r.append(order)
	a := r.decided(m, 2)
	if a.Decision.Predecessor != 1 || a.Deliveries[0].ID == old.DeliveryID {
		t.Fatalf("%+v", a)
	}
	same(t, "events", r.types(m), accepted, decided, submission.EventDead, submission.EventRedriven, decided)
	r.acked(0)
	check := func(n int) {
		t.Helper()
		out := r.read(TopicDeliveries, m)
		if len(out) != n {
			t.Fatalf("%d records for delivery", len(out))
		}
		released, err := submission.ParseDeliveryMeta(out[n-1].Headers)
		must(t, err)
		if out[n-1].Headers[submission.HeaderType] != submission.TypeControl || released.Instruction.Kind != submission.InstructRelease ||
			released.DeliveryID != old.DeliveryID || released.Destination != old.Destination || released.Revision != 1 {
			t.Fatalf("%+v", released)
		}
	}
	check(3)
	fresh, err := submission.ParseDeliveryMeta(r.read(TopicDeliveries, m)[1].Headers)
	must(t, err)
	if fresh.Revision != 2 || fresh.Order != 7 {
		t.Fatalf("%+v", fresh)
	}
	// The same order again, before delivery has spoken: all of it once more.
	r.append(order)
	r.acked(0)
	check(5)
}

// Where nobody is responsible any more, or the mapping fails now, it is held; the
// case goes on without it. A crash after that was told repeats the word.
func TestReplacedByNothing(t *testing.T) {
	r := newRig(t)
	m, rec := r.accepted("a1", r.in(0, "A"), region)
	r.append(rec)
	old := r.dies(m)
	r.book.maps(func(Job) ([]byte, error) {
		return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "line 3")
	})
	order := r.record(renew(m, old, submission.InstructRedrive, ""), rec.Value)
	for n := 2; n <= 3; n++ {
		r.append(order)
		r.held(m, submission.Dead, fault.ReasonMappingFailed)
		r.acked(0)
		out := r.read(TopicDeliveries, m)
		if len(out) != n || out[n-1].Headers["ce_instruction"] != string(submission.InstructRelease) {
			t.Fatalf("%d records, the last %v", len(out), out[len(out)-1].Headers)
		}
	}
}

// What was redriven before the order came may arrive: it is not replaced.
func TestReplacesNothingAlive(t *testing.T) {
	r := newRig(t)
	m, rec := r.accepted("a1", r.in(0, "A"), region)
	r.append(rec)
	old := r.dies(m)
	must(t, r.ledger.Append(t.Context(), 0, submission.Event{ID: uuid.New(), Type: submission.EventRedriven, At: m.AcceptedAt, Stage: submission.StageDelivery,
		Epoch: r.store.EpochOf(submission.StageDelivery, 0), Submission: m.ID, CaseID: m.CaseID, Land: m.Land, Service: m.Service, Revision: 1,
		DeliveryID: old.DeliveryID, Redrive: 1}))
	r.append(r.record(renew(m, old, submission.InstructRedrive, ""), rec.Value))
	r.acked(0)
	same(t, "events", r.types(m), accepted, decided, submission.EventDead, submission.EventRedriven)
	if n := len(r.read(TopicDeliveries, m)); n != 1 {
		t.Fatalf("%d records", n)
	}
}
