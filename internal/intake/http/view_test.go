package httpdoor

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// A portal sees what concerns it: no attempt, no dead letter, no destination.
func TestPortalEvents(t *testing.T) {
	id := submission.NewID("p", "k")
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	meta := submission.Meta{ID: id, CaseID: submission.NewCaseID(id), Portal: "p", Land: "08", Service: "99050012104000", Region: "08", AcceptedAt: at}
	delivery := uuid.New()
	n := 0
	event := func(typ submission.EventType, edit func(*submission.Event)) submission.Event {
		n++
		e := submission.Event{ID: uuid.New(), Type: typ, At: at.Add(time.Duration(n) * time.Second), Submission: id, CaseID: meta.CaseID, Revision: 1, DeliveryID: delivery, Reason: "internal-reason", Detail: "internal detail"}
		if edit != nil {
			edit(&e)
		}
		return e
	}
	evs := []submission.Event{
		event(submission.EventAccepted, func(e *submission.Event) {
			e.DeliveryID = uuid.Nil
			e.Accepted = &submission.Acceptance{AcceptedAt: at}
		}),
		event(submission.EventDecided, func(e *submission.Event) {
			e.DeliveryID = uuid.Nil
			e.Decision = &submission.Decision{
				Authority:  submission.Authority{ID: "internal-id", Key: "xga:08115003", Name: "Stadt Böblingen"},
				Deliveries: []submission.PlannedDelivery{{ID: delivery, Destination: "internal-destination", Adapter: "internal-adapter"}},
			}
		}),
		event(submission.EventAttempt, func(e *submission.Event) { e.Attempt = 1 }),
		event(submission.EventAttempt, func(e *submission.Event) { e.Attempt = 2 }),
		event(submission.EventDead, nil),
		event(submission.EventRedriven, func(e *submission.Event) { e.Redrive = 1 }),
		event(submission.EventDelivered, nil),
		event(submission.EventDelivered, nil), // a repeat
		event(submission.EventRejected, nil),
	}
	var a submission.Account
	a.Accept(meta)
	var states []string
	for i, e := range evs {
		a.Apply(e)
		views := portalEvents(&a, evs[:i+1])
		states = append(states, views[len(views)-1].Type+"="+string(stateForPortal(a.State)))
	}
	want := "accepted=in-flight decided=in-flight waiting=waiting waiting=waiting waiting=in-flight waiting=in-flight delivered=delivered delivered=delivered rejected=rejected"
	if got := strings.Join(states, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	b, err := json.Marshal(portalEvents(&a, evs))
	if err != nil || strings.Contains(string(b), "internal") || !strings.Contains(string(b), "Stadt Böblingen") {
		t.Errorf("%s %v", b, err)
	}
}
