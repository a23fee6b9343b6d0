package dispatch

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

type given struct {
	acct    submission.Account
	refused map[uuid.UUID]bool
}

func (g given) Account(context.Context, uuid.UUID) (*submission.Account, error) {
	return g.acct.Clone(), nil
}
func (g given) Refused(_ context.Context, id uuid.UUID) (bool, error) { return g.refused[id], nil }

func TestFinished(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	m := submission.Meta{ID: submission.NewID("p", "k"), Portal: "p", Land: "08", Service: "99050012104000", Region: "08115", Revision: 1,
		AcceptedAt: at, Append: uuid.New()}
	m.CaseID = submission.NewCaseID(m.ID)
	again := m
	again.Revision, again.Instruction = 2, &submission.Instruction{Kind: submission.InstructRedrive, Operator: "o", At: at}
	twin := m
	twin.Append = uuid.New()
	closing := m
	closing.Instruction = &submission.Instruction{Kind: submission.InstructClose, Operator: "o", Reason: "r", At: at}
	rec := func(m submission.Meta, kind string) *bus.Record {
		return &bus.Record{Topic: Topic, Partition: 1, Offset: 7, Headers: m.Headers(kind)}
	}
	plain, order, control := rec(m, submission.TypeSubmission), rec(again, submission.TypeSubmission), rec(closing, submission.TypeControl)
	repeat := rec(twin, submission.TypeSubmission)
	broken := rec(m, submission.TypeSubmission)
	broken.Headers["ce_revision"] = "first"

	accepted := submission.Account{ID: m.ID, Copied: true, Append: m.Append, State: submission.InFlight, Own: submission.InFlight, UpdatedAt: at}
	decided := accepted
	decided.Dispatched, decided.Decision = 1, &submission.Decision{}
	unspoken := decided
	unspoken.Deliveries = []*submission.DeliveryAccount{{State: submission.InFlight}}
	waiting := decided
	waiting.Deliveries = []*submission.DeliveryAccount{{State: submission.Waiting, Attempts: 1}}
	dead := accepted
	dead.State, dead.Own, dead.Dispatched = submission.Dead, submission.Dead, 1
	later := dead
	later.UpdatedAt = at.Add(time.Second)
	ended := decided
	ended.State = submission.Delivered

	for name, c := range map[string]struct {
		acct           submission.Account
		rec            *bus.Record
		finished, held bool // without strict, with strict
	}{
		"never heard of":                      {submission.Account{}, plain, false, false},
		"accepted only":                       {accepted, plain, false, false},
		"decided, no delivery speaks":         {unspoken, plain, true, false},
		"decided, a repeat's append":          {unspoken, repeat, true, true},
		"decided, its delivery waits":         {waiting, plain, true, true},
		"dead":                                {dead, plain, true, true},
		"dead, to be redriven":                {dead, order, false, false},
		"delivered":                           {ended, plain, true, true},
		"delivered, an order came late":       {ended, order, true, true},
		"dead, to be closed":                  {dead, control, false, false},
		"died after the order to close it":    {later, control, true, true},
		"delivered before the order to close": {ended, control, true, true},
		"unreadable":                          {accepted, broken, false, false},
	} {
		for strict, want := range map[bool]bool{false: c.finished, true: c.held} {
			got, err := Finished(t.Context(), given{acct: c.acct}, c.rec, strict)
			if err != nil || got != want {
				t.Errorf("%s, strict %v: %v, %v", name, strict, got, err)
			}
		}
	}
	told := given{refused: map[uuid.UUID]bool{refusalID(broken): true}}
	if ok, err := Finished(t.Context(), told, broken, true); !ok || err != nil {
		t.Errorf("unreadable and refused: %v, %v", ok, err)
	}
}
