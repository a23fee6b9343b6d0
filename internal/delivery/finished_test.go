package delivery

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

type given struct{ acct submission.Account }

func (g given) Account(context.Context, uuid.UUID) (*submission.Account, error) {
	return g.acct.Clone(), nil
}
func (g given) Refused(context.Context, uuid.UUID) (bool, error) { return false, nil }

func TestFinishedAndWaits(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	decision := uuid.New()
	m := submission.DeliveryMeta{Meta: submission.Meta{ID: submission.NewID("p", "k"), Portal: "p", Land: "08", Service: "99050012104000", Region: "08115",
		Revision: 1, AcceptedAt: at, Append: uuid.New()}, Destination: "08-x", Adapter: "file", Decision: decision, Sequence: 2,
		Format: submission.Format{Standard: "a", Version: "1", Message: "m"}}
	m.CaseID = submission.NewCaseID(m.ID)
	m.DeliveryID = submission.NewDeliveryID(m.ID, m.Destination, 1)
	rec := func(change func(*submission.DeliveryMeta), kind string) *bus.Record {
		m := m
		change(&m)
		return &bus.Record{Topic: Topic, Headers: m.Headers(kind)}
	}
	plain := rec(func(*submission.DeliveryMeta) {}, submission.TypeDelivery)
	foreign := rec(func(m *submission.DeliveryMeta) { m.Decision = uuid.New() }, submission.TypeDelivery)
	older := rec(func(m *submission.DeliveryMeta) { m.Sequence = 1 }, submission.TypeDelivery)
	redrive := rec(func(m *submission.DeliveryMeta) {
		m.Redrives, m.Instruction = 1, &submission.Instruction{Kind: submission.InstructRedrive, Operator: "o", At: at}
	}, submission.TypeDelivery)
	closing := rec(func(m *submission.DeliveryMeta) {
		m.Instruction = &submission.Instruction{Kind: submission.InstructClose, Operator: "o", Reason: "r", At: at}
	}, submission.TypeControl)
	broken := rec(func(*submission.DeliveryMeta) {}, submission.TypeDelivery)
	broken.Headers["ce_revision"] = "first"

	account := func(s submission.State, redrives int, updated time.Time) submission.Account {
		return submission.Account{ID: m.ID, Copied: true, State: s, Own: submission.InFlight, Dispatched: 1, DecisionID: decision,
			Deliveries: []*submission.DeliveryAccount{{ID: m.DeliveryID, Revision: 1, State: s, Sequence: 2, Redrives: redrives, UpdatedAt: updated}}}
	}
	for name, c := range map[string]struct {
		acct     submission.Account
		rec      *bus.Record
		finished bool
	}{
		"in flight":                           {account(submission.InFlight, 0, at), plain, false},
		"in flight, of another decision":      {account(submission.InFlight, 0, at), foreign, true},
		"waiting":                             {account(submission.Waiting, 0, at), plain, true},
		"waiting, to be closed":               {account(submission.Waiting, 0, at), closing, false},
		"dead":                                {account(submission.Dead, 0, at), plain, true},
		"dead, to be redriven":                {account(submission.Dead, 0, at), redrive, false},
		"dead again after the redrive":        {account(submission.Dead, 1, at), redrive, true},
		"told as redriven, no outcome":        {account(submission.InFlight, 1, at), redrive, false},
		"dead, to be closed":                  {account(submission.Dead, 0, at), closing, false},
		"died after the order to close it":    {account(submission.Dead, 0, at.Add(time.Second)), closing, true},
		"delivered":                           {account(submission.Delivered, 0, at), plain, true},
		"delivered before the order to close": {account(submission.Delivered, 0, at), closing, true},
		"never decided":                       {submission.Account{}, plain, true},
		"unreadable":                          {account(submission.Delivered, 0, at), broken, false},
	} {
		if got, err := Finished(t.Context(), given{c.acct}, c.rec); err != nil || got != c.finished {
			t.Errorf("%s: finished %v, %v", name, got, err)
		}
	}
	for name, c := range map[string]struct {
		acct  submission.Account
		rec   *bus.Record
		waits bool
	}{
		"waiting":         {account(submission.Waiting, 0, at), plain, true},
		"an older record": {account(submission.Waiting, 0, at), older, false},
		"delivered":       {account(submission.Delivered, 0, at), plain, false},
		"never heard of":  {submission.Account{}, plain, false},
		"nobody can read": {account(submission.Waiting, 0, at), broken, false},
	} {
		if got, err := Waits(t.Context(), given{c.acct}, c.rec); err != nil || got != c.waits {
			t.Errorf("%s: waits %v, %v", name, got, err)
		}
	}
}
