package httpdoor_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"weiche/internal/intake"
	"weiche/internal/intake/intaketest"
	"weiche/internal/submission"
)

// rehearsal refuses forms of more than ten employees, and fails inside at 13.
type rehearsal struct{ asked atomic.Int32 }

func (r *rehearsal) Rehearse(m submission.Meta, env *submission.Envelope) []intake.Fault {
	r.asked.Add(1)
	form, err := env.Form()
	if err != nil || m.Land != "08" || len(env.Attachments) > 0 && env.Attachments[0].Size == 0 {
		return []intake.Fault{{Pointer: "/data", Text: intake.Text{EN: "the rehearsal was given less than dispatch gets"}}}
	}
	n, _ := form.(map[string]any)["employees"].(interface{ Int64() (int64, error) })
	if n == nil {
		return nil
	}
	switch i, _ := n.Int64(); {
	case i == 13:
		panic(canary)
	case i > 10:
		return []intake.Fault{{Pointer: "/data/employees", Text: intake.Text{EN: "Rule schema-invalid.", DE: "Regel schema-invalid."}}}
	}
	return nil
}

// What would become a dead letter by the form's fault is refused at the door:
// nothing of it stays, its key is free for the mended form, and what was accepted
// before is not judged again.
func TestWhatWouldDieIsRefused(t *testing.T) {
	r := &rehearsal{}
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{Rehearsal: r}))
	body := func(employees int) intaketest.Body {
		return intaketest.Sound().With("data", map[string]any{"name": canary, "born": "1980-02-29", "employees": employees}).
			With("attachments", []any{intaketest.File("a", "", []byte("x"))})
	}
	a := s.post("key", body(11))
	p := a.problem(t)
	if a.status != 422 || p.Type != intake.ProblemBase+"message-refused" || len(p.Errors) != 1 || p.Errors[0].Pointer != "/data/employees" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := len(s.Records(t, intake.TopicSubmissions)) + s.BlobCount(t); n != 0 {
		t.Errorf("%d records and blobs of a refused submission", n)
	}
	first := s.post("key", body(3)).accepted(t)
	asked := r.asked.Load()
	if again := s.post("key", body(3)).accepted(t); again.Receipt != first.Receipt || r.asked.Load() != asked {
		t.Error("a repeat is rehearsed, or has another receipt")
	}
	s.post("inside", body(13)).accepted(t)
	if log := s.Log.String(); !strings.Contains(log, "a rehearsal failed inside") || strings.Contains(log, canary) {
		t.Error("the log repeats payload, or says nothing")
	}
}
