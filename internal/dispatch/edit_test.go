package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/seal"
	"weiche/internal/submission"
)

// edited is an operator's edit of a dead submission, with its form sealed as the
// operators' API does it.
func (r *rig) edited(m submission.Meta, value []byte, form, by string, replaces ...submission.Replaced) (submission.Meta, []byte) {
	r.t.Helper()
	box, err := seal.ParseBox(value, m.ID.String())
	must(r.t, err)
	key, err := r.sealed.keeper.OpenDataKey(r.ctx(), box.Key)
	must(r.t, err)
	must(r.t, r.sealed.put(r.ctx(), m, box, key, "submission", fmt.Appendf(nil, `{"data":%q}`, form)))
	value, err = box.MarshalBinary()
	must(r.t, err)
	at := time.Now().UTC()
	held := &submission.Held{Topic: TopicDead, Partition: r.partition(m)}
	m.Revision = 2
	m.Instruction = &submission.Instruction{Kind: submission.InstructEdit, Operator: by, At: at, Replaces: replaces, Edit: &submission.Edit{ID: uuid.New(), Revision: 2,
		Operator: by, Reason: "house number", At: at, Fields: []string{"/address/number"}, Held: held, Original: held}}
	return m, value
}

// proposal is the same as a proposal that stands for an hour.
func (r *rig) proposal(m submission.Meta, value []byte, form, by string) (order *bus.Record, approve func(by string) *bus.Record, e *submission.Edit) {
	r.t.Helper()
	m, value = r.edited(m, value, form, by)
	e = m.Instruction.Edit
	e.Expires = e.At.Add(time.Hour)
	m.Instruction.Kind = submission.InstructPropose
	return r.record(m, nil), func(by string) *bus.Record {
		word, ins := *e, *m.Instruction
		word.By, word.Word = by, "seen"
		ins.Kind, ins.Operator, ins.At, ins.Edit = submission.InstructEdit, by, time.Now().UTC(), &word
		m.Instruction = &ins
		return r.record(m, value)
	}, e
}

func (r *rig) edit(m submission.Meta, id uuid.UUID, want submission.EditState) *submission.Account {
	r.t.Helper()
	return r.await(m, "an edit "+string(want), func(a *submission.Account) bool { e := a.Edit(id); return e != nil && e.State == want })
}

// An edited form is decided on and mapped anew; the delivery has an id of its
// own and its predecessor's place in the case. The same order again tells nothing
// twice.
func TestEditsADeadDelivery(t *testing.T) {
	r := newRig(t)
	m, rec := r.accepted("a1", r.in(0, "A"), region)
	r.append(rec)
	old := r.dies(m)
	em, value := r.edited(m, rec.Value, "edited", "anna", submission.Replaced{Destination: old.Destination, Order: 7})
	order := r.record(em, value)
	r.append(order)
	r.edit(m, em.Instruction.Edit.ID, submission.EditDone)
	a := r.await(m, "decided", func(a *submission.Account) bool { return a.Dispatched == 2 })
	e := a.Edits[0]
	if a.CaseID != m.CaseID || a.Decision.Predecessor != 1 || a.Deliveries[0].ID != submission.NewDeliveryID(m.ID, old.Destination, 2) || a.Redrives != 0 ||
		e.Operator != "anna" || e.Reason != "house number" || len(e.Fields) != 1 || e.Original == nil || e.By != "" {
		t.Fatalf("%+v %+v", a, e)
	}
	r.acked(0)
	check := func(n int) {
		t.Helper()
		same(t, "events", r.types(m), accepted, decided, submission.EventDead, submission.EventEdited, decided)
		out := r.read(TopicDeliveries, m)
		if len(out) != n || r.xml(out[1]) != `<antrag authority="bb">"edited"</antrag>` {
			t.Fatalf("%d records: %s", len(out), r.xml(out[1]))
		}
		dm, err := submission.ParseDeliveryMeta(out[1].Headers)
		must(t, err)
		if dm.Order != 7 || dm.Revision != 2 || dm.Instruction != nil || dm.ID != m.ID || dm.CaseID != m.CaseID {
			t.Fatalf("%+v", dm)
		}
		if out[n-1].Headers["ce_instruction"] != string(submission.InstructRelease) {
			t.Fatal("the old delivery still holds its case")
		}
	}
	check(3)
	r.append(order)
	r.acked(0)
	check(5) // its deliveries might not have been appended
	if ok, err := Finished(t.Context(), r.ledger, order, false); err != nil || !ok {
		t.Fatalf("finished %t, %v", ok, err)
	}
}

// What dispatch itself buried is edited too; where it fails again it is dead with
// the edited form.
func TestEditsWhatCouldNotBeMapped(t *testing.T) {
	r := newRig(t)
	r.book.maps(func(j Job) ([]byte, error) {
		if string(j.Envelope.Data) == `"good"` {
			return []byte("<good/>"), nil
		}
		return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "line 3")
	})
	m, rec := r.accepted("a1", r.in(0, "A"), region)
	r.append(rec)
	r.held(m, submission.Dead, fault.ReasonMappingFailed)
	em, value := r.edited(m, rec.Value, "worse", "anna")
	r.append(r.record(em, value))
	a := r.await(m, "dead again", func(a *submission.Account) bool { return a.Dispatched == 2 && a.State == submission.Dead })
	if a.Edits[0].State != submission.EditDone {
		t.Fatalf("%+v", a.Edits[0])
	}
	em, value = r.edited(m, rec.Value, "good", "anna")
	em.Revision, em.Instruction.Edit.Revision = 3, 3
	r.append(r.record(em, value))
	a = r.decided(m, 3)
	r.acked(0)
	if out := r.read(TopicDeliveries, m); len(out) != 1 || r.xml(out[0]) != "<good/>" || len(a.Edits) != 2 {
		t.Fatalf("%d deliveries, %d edits", len(out), len(a.Edits))
	}
}

// Whoever comes first in the partition counts: an edit that is too late is told as
// declined, once, and nothing is sent.
func TestEditComesTooLate(t *testing.T) {
	for name, c := range map[string]struct {
		before func(r *rig, m submission.Meta, old submission.DeliveryMeta, value []byte)
		cause  string
		sent   int
	}{
		"closed": {func(r *rig, m submission.Meta, old submission.DeliveryMeta, _ []byte) {
			r.says(m, submission.Event{Type: submission.EventClosed, DeliveryID: old.DeliveryID, Reason: "operator"})
			r.await(m, "closed", func(a *submission.Account) bool { return a.State == submission.Rejected })
		}, submission.CauseOvertaken, 1},
		"redriven": {func(r *rig, m submission.Meta, old submission.DeliveryMeta, _ []byte) {
			r.says(m, submission.Event{Type: submission.EventRedriven, DeliveryID: old.DeliveryID, Redrive: 1})
			r.await(m, "redriven", func(a *submission.Account) bool { return a.State == submission.InFlight })
		}, submission.CauseAlive, 1},
		"decided anew": {func(r *rig, m submission.Meta, old submission.DeliveryMeta, value []byte) {
			r.append(r.record(renew(m, old, submission.InstructRedrive, ""), value))
		}, submission.CauseOvertaken, 3},
		"edited by another": {func(r *rig, m submission.Meta, _ submission.DeliveryMeta, value []byte) {
			em, value := r.edited(m, value, "other", "bert")
			r.append(r.record(em, value))
		}, submission.CauseOvertaken, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			m, rec := r.accepted("a1", r.in(0, "A"), region)
			r.append(rec)
			old := r.dies(m)
			c.before(r, m, old, rec.Value)
			em, value := r.edited(m, rec.Value, "late", "anna")
			order := r.record(em, value)
			for range 2 {
				r.append(order)
				a := r.edit(m, em.Instruction.Edit.ID, submission.EditDeclined)
				if e := a.Edit(em.Instruction.Edit.ID); e.Cause != c.cause || e.Operator != "anna" {
					t.Fatalf("%+v", e)
				}
				r.acked(0)
			}
			if n := len(r.read(TopicDeliveries, m)); n != c.sent {
				t.Fatalf("%d records for delivery", n)
			}
			if ok, err := Finished(t.Context(), r.ledger, order, true); err != nil || !ok {
				t.Fatalf("finished %t, %v", ok, err)
			}
		})
	}
}

// says lets delivery tell of a dead delivery.
func (r *rig) says(m submission.Meta, e submission.Event) {
	r.t.Helper()
	p := r.partition(m)
	e.ID, e.At, e.Stage, e.Epoch = uuid.New(), m.AcceptedAt, submission.StageDelivery, r.store.EpochOf(submission.StageDelivery, p)
	e.Submission, e.CaseID, e.Land, e.Service, e.Revision = m.ID, m.CaseID, m.Land, m.Service, 1
	must(r.t, r.ledger.Append(r.t.Context(), p, e))
}

// A proposal changes nothing until another operator approves it; one stands at a
// time, and who made it cannot approve it.
func TestProposal(t *testing.T) {
	r := newRig(t)
	r.book.maps(func(j Job) ([]byte, error) {
		if string(j.Envelope.Data) == `"good"` {
			return []byte("<good/>"), nil
		}
		return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "line 3")
	})
	m, rec := r.accepted("a1", r.in(0, "A"), region)
	r.append(rec)
	dead := r.held(m, submission.Dead, fault.ReasonMappingFailed)
	first, approve, e := r.proposal(m, rec.Value, "good", "anna")
	other, approveOther, second := r.proposal(m, rec.Value, "worse", "bert")
	r.append(first, other, first)
	a := r.edit(m, second.ID, submission.EditDeclined)
	if got := a.Edit(second.ID); got.Cause != submission.CauseCompeting {
		t.Fatalf("%+v", got)
	}
	if p := a.Proposed(); p == nil || p.ID != e.ID || a.State != submission.Dead || a.Dispatched != 1 || !a.UpdatedAt.Equal(dead.UpdatedAt) {
		t.Fatalf("%+v", a)
	}
	r.append(approve("anna"), approveOther("anna"), r.record(m, rec.Value)) // not by the same; not the one that was declined
	r.acked(0)
	if a = r.edit(m, e.ID, submission.EditProposed); a.Dispatched != 1 {
		t.Fatalf("%+v", a)
	}
	yes := approve("carla")
	r.append(yes)
	r.decided(m, 2)
	r.append(yes, first)
	r.acked(0)
	a = r.edit(m, e.ID, submission.EditDone)
	if got := a.Edit(e.ID); got.Operator != "anna" || got.By != "carla" || got.Word != "seen" || got.Closed.IsZero() || len(a.Edits) != 2 {
		t.Fatalf("%+v", got)
	}
	same(t, "events", r.types(m), accepted, submission.EventDead, submission.EventProposed, submission.EventDeclined, submission.EventEdited, decided)
	for _, rec := range []*bus.Record{first, other, yes} {
		if ok, err := Finished(t.Context(), r.ledger, rec, false); err != nil || !ok {
			t.Errorf("finished %t, %v", ok, err)
		}
	}
}

// A proposal ends by a word, by its time, or by what overtakes it; then there is
// room for another.
func TestProposalEnds(t *testing.T) {
	decline := func(r *rig, m submission.Meta, e *submission.Edit, by, cause string, at time.Time) *bus.Record {
		m.Instruction = &submission.Instruction{Kind: submission.InstructDecline, Operator: by, Reason: "no", At: at, Edit: &submission.Edit{ID: e.ID, Revision: 2, Cause: cause}}
		return r.record(m, nil)
	}
	for name, c := range map[string]struct {
		how   func(r *rig, m submission.Meta, rec *bus.Record, e *submission.Edit)
		cause string
		by    string
	}{
		"rejected": {func(r *rig, m submission.Meta, _ *bus.Record, e *submission.Edit) {
			r.append(decline(r, m, e, "bert", submission.CauseRejected, time.Now()))
		}, submission.CauseRejected, "bert"},
		"expired": {func(r *rig, m submission.Meta, _ *bus.Record, e *submission.Edit) {
			r.append(decline(r, m, e, "router", submission.CauseExpired, e.Expires)) // not yet
			r.acked(0)
			r.edit(m, e.ID, submission.EditProposed)
			r.append(decline(r, m, e, "router", submission.CauseExpired, e.Expires.Add(time.Second)))
		}, submission.CauseExpired, "router"},
		"decided anew": {func(r *rig, m submission.Meta, _ *bus.Record, _ *submission.Edit) {
			r.append(r.again(m, submission.Instruction{Kind: submission.InstructRedrive}))
		}, submission.CauseOvertaken, ""},
		"closed": {func(r *rig, m submission.Meta, _ *bus.Record, _ *submission.Edit) {
			m.Instruction = &submission.Instruction{Kind: submission.InstructClose, Operator: "bert", Reason: "by post", At: time.Now()}
			r.append(r.record(m, nil))
		}, submission.CauseOvertaken, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.book.maps(func(Job) ([]byte, error) {
				return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "line 3")
			})
			m, rec := r.accepted("a1", r.in(0, "A"), region)
			r.append(rec)
			r.held(m, submission.Dead, fault.ReasonMappingFailed)
			order, approve, e := r.proposal(m, rec.Value, "x", "anna")
			r.append(order)
			r.edit(m, e.ID, submission.EditProposed)
			c.how(r, m, rec, e)
			a := r.edit(m, e.ID, submission.EditDeclined)
			if got := a.Edit(e.ID); got.Cause != c.cause || got.By != c.by || got.Closed.IsZero() {
				t.Fatalf("%+v", got)
			}
			revision := a.Dispatched
			r.append(approve("bert"), order) // both too late
			r.acked(0)
			a, err := r.ledger.Account(t.Context(), m.ID)
			must(t, err)
			if a.Dispatched != revision || len(a.Edits) != 1 || a.Edits[0].State != submission.EditDeclined {
				t.Fatalf("%+v", a.Edits[0])
			}
		})
	}
}

// A proposal whose time has passed makes room for another before anybody has said
// that it expired, and cannot be approved.
func TestProposalAfterAnExpiredOne(t *testing.T) {
	r := newRig(t)
	r.book.maps(func(Job) ([]byte, error) { return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "line 3") })
	m, rec := r.accepted("a1", r.in(0, "A"), region)
	r.append(rec)
	r.held(m, submission.Dead, fault.ReasonMappingFailed)
	past := func(by string) (*bus.Record, func(string) *bus.Record, *submission.Edit) {
		em, value := r.edited(m, rec.Value, "x", by)
		e := em.Instruction.Edit
		e.At = e.At.Add(-2 * time.Hour)
		e.Expires, em.Instruction.At, em.Instruction.Kind = e.At.Add(time.Hour), e.At, submission.InstructPropose
		return r.record(em, nil), func(by string) *bus.Record {
			word, ins := *e, *em.Instruction
			word.By, ins.Kind, ins.Operator, ins.At, ins.Edit = by, submission.InstructEdit, by, time.Now().UTC(), &word
			em.Instruction = &ins
			return r.record(em, value)
		}, e
	}
	one, approve, e := past("anna")
	r.append(one, approve("bert"))
	if a := r.edit(m, e.ID, submission.EditDeclined); a.Edit(e.ID).Cause != submission.CauseExpired || a.Dispatched != 1 {
		t.Fatalf("%+v", a.Edit(e.ID))
	}
	two, _, e := past("anna")
	three, _, next := r.proposal(m, rec.Value, "y", "bert")
	r.append(two, three)
	r.edit(m, next.ID, submission.EditProposed)
	if a := r.edit(m, e.ID, submission.EditDeclined); a.Edit(e.ID).Cause != submission.CauseExpired {
		t.Fatalf("%+v", a.Edit(e.ID))
	}
}

// A look at payload is told once, however often its order comes, and changes no
// state and no time.
func TestLookIsTold(t *testing.T) {
	r := newRig(t)
	m := r.submit("a1", r.in(0, "A"), nobodys)
	before := r.held(m, submission.Unassigned, fault.ReasonNoAuthority)
	look := func(by string) *bus.Record {
		m := m
		m.Instruction = &submission.Instruction{Kind: submission.InstructLook, ID: uuid.New(), Operator: by, Reason: "a call", At: time.Now().UTC()}
		return r.record(m, nil)
	}
	one, two := look("anna"), look("bert")
	if ok, err := Finished(t.Context(), r.ledger, one, false); err != nil || ok {
		t.Fatalf("finished %t, %v before it was told", ok, err)
	}
	r.append(one, two, one, two)
	r.acked(0)
	a := r.await(m, "looked at", func(a *submission.Account) bool { return a.Looks == 2 })
	if a.State != before.State || !a.UpdatedAt.Equal(before.UpdatedAt) {
		t.Fatalf("%+v", a)
	}
	same(t, "events", r.types(m), accepted, submission.EventUnassigned, submission.EventLooked, submission.EventLooked)
	list, err := r.store.Events(t.Context(), m.ID)
	must(t, err)
	if ev := list[2].Event; ev.Operator != "anna" || ev.Note != "a call" {
		t.Fatalf("%+v", ev)
	}
	if ok, err := Finished(t.Context(), r.ledger, one, false); err != nil || !ok {
		t.Fatalf("finished %t, %v", ok, err)
	}
}

// Where an edit's events or its delivery cannot be written, nothing is
// acknowledged; it comes again and takes effect once.
func TestEditIsNotAcknowledgedBeforeItIsTold(t *testing.T) {
	for _, broken := range []string{"events", "deliveries"} {
		t.Run(broken, func(t *testing.T) {
			r := newRig(t)
			m, rec := r.accepted("a1", r.in(0, "A"), region)
			r.append(rec)
			old := r.dies(m)
			r.acked(0)
			em, value := r.edited(m, rec.Value, "edited", "anna", submission.Replaced{Destination: old.Destination, Order: 7})
			failures := 0
			refuse := fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "")
			r.hurt.set(func(h *hurt) {
				if broken == "events" {
					h.told = func(submission.Event) error {
						if failures++; failures < 4 {
							return refuse
						}
						return nil
					}
					return
				}
				h.append = func(topic string) error {
					if failures++; topic == TopicDeliveries && failures < 4 {
						return refuse
					}
					return nil
				}
			})
			at := r.committed(0)
			r.append(r.record(em, value))
			r.decided(m, 2)
			r.acked(0)
			if failures < 4 || r.committed(0) != at+1 {
				t.Fatalf("%d tries, committed %d", failures, r.committed(0))
			}
			same(t, "events", r.types(m), accepted, decided, submission.EventDead, submission.EventEdited, decided)
			if out := r.read(TopicDeliveries, m); len(out) != 3 || r.xml(out[1]) != `<antrag authority="bb">"edited"</antrag>` {
				t.Fatalf("%d records", len(out))
			}
		})
	}
}
