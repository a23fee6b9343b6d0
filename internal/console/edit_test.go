package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/console"
	"weiche/internal/fault"
	"weiche/internal/jobs"
	"weiche/internal/submission"
)

// forms is an Editor: a form with "bad" in it breaks its schema, one with "stuck"
// cannot be mapped. Sealed is what stands behind "sealed:", else the first form.
type forms struct {
	mu     sync.Mutex
	rules  config.Edits
	stuck  bool
	broken error
}

const firstForm = `{"canary":1,"name":"Xaver Musterfrau","list":["a"]}`

func (f *forms) set(do func(*forms)) { f.mu.Lock(); defer f.mu.Unlock(); do(f) }

func (f *forms) open(_ context.Context, m submission.Meta, value []byte) (*submission.Envelope, []byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return nil, nil, f.broken
	}
	data := []byte(firstForm)
	if sealed, ok := bytes.CutPrefix(value, []byte("sealed:")); ok {
		data = sealed
	}
	return &submission.Envelope{Region: string(m.Region), Data: data}, value, nil
}

// Check implements console.Editor.
func (f *forms) Check(_ submission.Meta, data json.RawMessage) ([]console.Fault, error) {
	if strings.Contains(string(data), "bad") {
		return []console.Fault{{Pointer: "/name", Detail: "The field is required and is missing."}}, nil
	}
	return nil, nil
}

// Name implements console.Editor.
func (f *forms) Name(_ submission.Meta, at []string) string {
	if at[0] != "name" && at[0] != "list" {
		return "/*"
	}
	return submission.Pointer(at)
}

// Try implements console.Editor.
func (f *forms) Try(_ context.Context, m submission.Meta, env *submission.Envelope) jobs.Trial {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stuck || strings.Contains(string(env.Data), "stuck") || m.Instruction.Kind != submission.InstructEdit {
		return jobs.Trial{Reason: "schema-invalid", Detail: "element zip is missing"}
	}
	return jobs.Trial{Destinations: []string{"bb"}}
}

// Seal implements console.Editor.
func (f *forms) Seal(_ context.Context, _ submission.Meta, _ []byte, env *submission.Envelope) ([]byte, error) {
	return append([]byte("sealed:"), env.Data...), nil
}

// Edits implements console.Editor.
func (f *forms) Edits(submission.Land) config.Edits { f.mu.Lock(); defer f.mu.Unlock(); return f.rules }

// desk does what dispatch does with an order that is about an edit or a look.
func (w *world) desk(r *bus.Record, m submission.Meta) error {
	ins := m.Instruction
	tell := func(t submission.EventType, by, word, cause string, more ...submission.Event) error {
		ev := event(submission.StageDispatch, t, m, ins.ID.String())
		ev.At, ev.Operator, ev.Note, ev.Reason, ev.Edit = ins.At, by, word, cause, ins.Edit
		if ins.Edit != nil {
			ev.ID = submission.NewEventID(t, ins.Edit.ID)
		}
		return w.ledger.Append(w.ctx, r.Partition, append([]submission.Event{ev}, more...)...)
	}
	a, err := w.ledger.Account(w.ctx, m.ID)
	if err != nil {
		return err
	}
	switch {
	case ins.Kind == submission.InstructLook:
		return tell(submission.EventLooked, ins.Operator, ins.Reason, "")
	case ins.Kind == submission.InstructPropose:
		return tell(submission.EventProposed, ins.Operator, ins.Edit.Reason, "")
	case ins.Kind == submission.InstructDecline:
		return tell(submission.EventDeclined, ins.Operator, ins.Reason, ins.Edit.Cause)
	case a.Dispatched >= m.Revision:
		return tell(submission.EventDeclined, "", "", submission.CauseOvertaken)
	}
	if !strings.HasPrefix(string(r.Value), "sealed:") {
		w.t.Errorf("an edit carries %q", r.Value)
	}
	return tell(submission.EventEdited, ins.Edit.Operator, ins.Edit.Reason, "", decided(m, "bb"))
}

func (w *world) edit(token string, m submission.Meta, revision int, data, reason string, preview bool) answer {
	w.t.Helper()
	body, err := json.Marshal(console.EditRequest{Revision: revision, Data: json.RawMessage(data), Reason: reason, Preview: preview})
	w.must(err)
	return w.ask(token, "POST", "submissions/"+m.ID.String()+"/edit", string(body))
}

// kind is the last part of a problem's type.
func (a answer) kind() string {
	s, _ := a.body["type"].(string)
	return s[strings.LastIndex(s, "/")+1:]
}

func (a answer) is(t *testing.T, what string, code int, kind string) {
	t.Helper()
	if a.code != code || kind != "" && a.kind() != kind {
		t.Errorf("%s: %d %s, want %d %s", what, a.code, a.raw, code, kind)
	}
	for _, secret := range []string{"Musterfrau", "Xaver", "Neumann"} {
		if code >= 400 && strings.Contains(a.raw, secret) {
			t.Errorf("%s: a value of the form is told: %s", what, a.raw)
		}
	}
}

const better = `{"canary":1,"name":"Yvonne Neumann","list":["a","b"]}`

// An edit is refused for what is wrong with it, in words and with a code that says
// whether trying again helps; one that is sound takes effect, and the story says
// who, why and which fields.
func TestEdit(t *testing.T) {
	w := newWorld(t, 10*time.Second)
	w.owners()
	m := w.dead("dead", "08")
	const bw = "token-bw"
	w.edit("token-clerk", m, 1, better, "typo", false).is(t, "without the right payload", 403, "forbidden")
	w.edit("token-view", m, 1, better, "typo", false).is(t, "without any right", 403, "forbidden")
	w.edit(bw, w.dead("other", "14"), 1, better, "typo", false).is(t, "another Land's", 404, "not-found")
	w.edit(bw, m, 1, better, "", false).is(t, "no reason", 400, "malformed")
	w.edit(bw, m, 0, better, "typo", false).is(t, "no revision", 400, "malformed")
	w.edit(bw, m, 2, better, "typo", false).is(t, "the wrong revision", 409, "revision-changed")
	w.edit(bw, m, 1, firstForm, "typo", false).is(t, "nothing changed", 422, "nothing-changed")
	w.edit(bw, m, 1, better, "was yvonne-neumann before", false).is(t, "a reason that quotes", 422, "reason-quotes-form")
	w.edit(bw, m, 1, better, "musterfrau has moved", false).is(t, "a reason that quotes what was there", 422, "reason-quotes-form")
	w.ask(bw, "GET", "submissions/"+m.ID.String()+"/payload?reason=Xaver+Musterfrau+called", "").is(t, "a look that quotes", 422, "reason-quotes-form")
	w.edit(bw, m, 1, `{"name":"stuck"}`, "typo", false).is(t, "still failing", 422, "still-failing")
	w.edit(bw, w.unassigned("nobody's", "08"), 1, better, "typo", false).is(t, "unassigned", 409, "not-editable")
	w.ask(bw, "POST", "submissions/"+m.ID.String()+"/edit", `{"revision":1,"data":{,"reason":"typo"}`).is(t, "no JSON", 400, "malformed")
	w.edit(bw, m, 1, `{"name":"`+strings.Repeat("x", 3<<20)+`"}`, "typo", false).is(t, "too large", 413, "too-large")
	got := w.edit(bw, m, 1, `{"name":"bad"}`, "typo", false)
	got.is(t, "against the schema", 422, "form-invalid")
	if !strings.Contains(got.raw, `"errors":[{"pointer":"/name"`) {
		t.Errorf("it does not say where: %s", got.raw)
	}
	got = w.edit(bw, m, 1, better, "typo", true)
	if got.code != 200 || got.body["revision"] != 2.0 || got.body["secondOperator"] != false || !strings.Contains(got.raw, `"fields":["/list/1","/name"]`) {
		t.Errorf("preview: %d %s", got.code, got.raw)
	}
	if a, err := w.store.Get(w.ctx, m.ID); err != nil || len(a.Edits) != 0 || a.Dispatched != 1 {
		t.Errorf("what was refused or previewed has an effect: %+v %v", a, err)
	}

	large := `{"canary":1,"name":"` + strings.Repeat("Neumann ", 100_000) + `"}`
	got = w.edit(bw, m, 1, large, "name was cut off", false)
	got.is(t, "edit", 200, "")
	e, _ := got.body["edit"].(map[string]any)
	if got.body["dispatched"] != 2.0 || got.body["state"] != "in-flight" || e["state"] != "done" || e["operator"] != "frau-berg" || e["reason"] != "name was cut off" {
		t.Fatalf("%s", got.raw)
	}
	story := w.ask("token-view", "GET", "submissions/"+m.ID.String(), "").raw
	if !strings.Contains(story, `"type":"edited"`) || !strings.Contains(story, `"fields":["/list","/name"]`) || strings.Contains(story, "Neumann") {
		t.Errorf("the story: %.2000s", story)
	}
	w.edit(bw, m, 1, better, "typo", false).is(t, "a second time", 409, "not-editable")

	// Both forms are shown to who has the right, and the look is told.
	path := "submissions/" + m.ID.String() + "/edits/" + e["id"].(string)
	w.ask("token-clerk", "GET", path+"?reason=audit", "").is(t, "difference without the right", 403, "forbidden")
	w.ask(bw, "GET", path, "").is(t, "difference without a reason", 400, "malformed")
	w.ask(bw, "GET", "submissions/"+m.ID.String()+"/edits/"+uuid.NewString()+"?reason=audit", "").is(t, "another edit", 404, "not-found")
	got = w.ask(bw, "GET", path+"?reason=audit", "")
	if got.code != 200 || !strings.Contains(got.raw, `{"path":"/name","old":"Xaver Musterfrau","new":"Neumann `) || !strings.Contains(got.raw, `"original":`+firstForm) {
		t.Errorf("difference: %d %.500s", got.code, got.raw)
	}
	if a, err := w.store.Get(w.ctx, m.ID); err != nil || a.Looks != 1 {
		t.Errorf("%d looks, %v", a.Looks, err)
	}
	if log := w.logged.String(); strings.Contains(log, "Neumann") || strings.Contains(log, "Musterfrau") || !strings.Contains(log, "deed=edit") {
		t.Errorf("the log: %.3000s", log)
	}
}

// What cannot be read, or needs a person first, will not be possible in a moment:
// 409 and what to do, not "try again".
func TestLastingFaultsAreNoTryAgain(t *testing.T) {
	w := newWorld(t, 10*time.Second)
	w.owners()
	m := w.dead("dead", "08")
	look := "submissions/" + m.ID.String() + "/payload?reason=" + url.QueryEscape("a call")
	for _, c := range []struct {
		err  error
		code int
		kind string
		says string
	}{
		{fault.New(fault.Permanent, fault.ReasonUndecryptable, "the day's key is gone"), 409, "undecryptable", "the day's key is gone. What was destroyed"},
		{fault.New(fault.Permanent, fault.ReasonUndecodable, ""), 409, "undecodable", "close it"},
		{fault.New(fault.Permanent, fault.ReasonBlobMissing, ""), 409, "blob-missing", "from a backup"},
		{fault.New(fault.Retryable, fault.ReasonMisconfigured, "the master key of Land 08 is missing"), 409, "misconfigured", "is missing. Mend that setting or file"},
		{fault.New(fault.Permanent, fault.ReasonTooLarge, ""), 422, "too-large", "changes nothing"},
		{fault.New(fault.Permanent, fault.ReasonServiceNotOffered, ""), 422, "service-not-offered", "changes nothing"},
		{fault.New(fault.Retryable, fault.ReasonStorage, ""), 503, "storage", "Try again"},
	} {
		w.forms.set(func(f *forms) { f.broken = c.err })
		for what, got := range map[string]answer{"payload": w.ask("token-bw", "GET", look, ""), "edit": w.edit("token-bw", m, 1, better, "typo", false)} {
			got.is(t, fmt.Sprint(what, " with ", c.err), c.code, c.kind)
			if !strings.Contains(got.raw, c.says) {
				t.Errorf("%s with %s says no word of what to do: %s", what, c.err, got.raw)
			}
			if retry := got.header.Get("Retry-After") != ""; retry != (c.code == 503) {
				t.Errorf("%s with %s: try again: %t", what, c.err, retry)
			}
		}
	}
	w.forms.set(func(f *forms) { f.broken = nil })
	// The record that held it is gone.
	gone := w.meta("gone", "08")
	e := event(submission.StageDispatch, submission.EventDead, gone, "1")
	e.Reason, e.Held = "mapping-failed", &submission.Held{Topic: bus.TopicDeadLetters, Partition: w.partition(gone), Offset: 1 << 40}
	w.must(w.ledger.Append(w.ctx, w.partition(gone), accepted(gone), e))
	for _, got := range []answer{
		w.ask("token-bw", "GET", "submissions/"+gone.ID.String()+"/payload?reason=x", ""), w.edit("token-bw", gone, 1, better, "typo", false),
		w.ask("token-bw", "POST", "submissions/"+gone.ID.String()+"/redrive", "{}"), w.ask("token-bw", "POST", "submissions/"+gone.ID.String()+"/assign", `{"authority":"a"}`),
	} {
		got.is(t, "gone", 409, "gone")
	}
}

func (w *world) propose(token, key string) (m submission.Meta, path string) {
	w.t.Helper()
	m = w.dead(key, "08")
	got := w.edit(token, m, 1, better, "typo", false)
	e, _ := got.body["edit"].(map[string]any)
	if got.code != 200 || e["state"] != "proposed" || got.body["state"] != "dead" {
		w.t.Fatalf("%d %s", got.code, got.raw)
	}
	return m, "submissions/" + m.ID.String() + "/edits/" + e["id"].(string)
}

// Where a Land asks for a second pair of eyes an edit is a proposal until another
// named operator approves it.
func TestSecondOperator(t *testing.T) {
	w := newWorld(t, 10*time.Second)
	w.owners()
	w.forms.set(func(f *forms) { f.rules = config.Edits{SecondOperator: true, Expire: time.Hour} })
	const bw, anna, local, yes = "token-bw", "token-anna", "token-all", `{"reason":"seen"}`
	w.edit(local, w.dead("local", "08"), 1, better, "typo", false).is(t, "by nobody by name", 403, "nameless")
	m, path := w.propose(bw, "one")
	if got := w.edit(anna, w.dead("two", "08"), 1, better, "typo", true); got.body["secondOperator"] != true {
		t.Errorf("preview: %s", got.raw)
	}
	list := w.ask("token-view", "GET", "proposals", "")
	if items := list.body["items"].([]any); len(items) != 1 || !strings.Contains(list.raw, m.ID.String()) || !strings.Contains(list.raw, `"fields":["/list/1","/name"]`) ||
		!strings.Contains(list.raw, `"expires":`) || strings.Contains(list.raw, "Neumann") {
		t.Errorf("list: %s", list.raw)
	}
	if got := w.ask("token-view", "GET", "proposals?land=14", ""); len(got.body["items"].([]any)) != 0 {
		t.Errorf("another Land's list: %s", got.raw)
	}
	w.edit(anna, m, 1, better, "typo", false).is(t, "a second proposal", 409, "proposed-already")
	w.ask(bw, "POST", path+"/approve", yes).is(t, "by the same", 403, "same-operator")
	w.ask(local, "POST", path+"/approve", yes).is(t, "by nobody by name", 403, "nameless")
	w.ask("token-clerk", "POST", path+"/approve", yes).is(t, "without the right payload", 403, "forbidden")
	w.ask(anna, "POST", path+"/approve", `{}`).is(t, "without a reason", 400, "malformed")
	w.ask(anna, "POST", path+"/approve", `{"reason":"Neumann it is"}`).is(t, "with a reason that quotes", 422, "reason-quotes-form")

	// What was sound may not be by the configuration of today; the proposal stands.
	w.forms.set(func(f *forms) { f.stuck = true })
	w.ask(anna, "POST", path+"/approve", yes).is(t, "no longer mappable", 422, "still-failing")
	// What the Land asks for now does not change what was proposed.
	w.forms.set(func(f *forms) { f.stuck, f.rules.SecondOperator = false, false })
	w.ask(bw, "POST", path+"/approve", yes).is(t, "by the same, later", 403, "same-operator")
	if got := w.ask(anna, "GET", path+"?reason=to+approve+it", ""); got.code != 200 || !strings.Contains(got.raw, `"new":"Yvonne Neumann"`) {
		t.Errorf("difference: %d %s", got.code, got.raw)
	}
	got := w.ask(anna, "POST", path+"/approve", yes)
	e, _ := got.body["edit"].(map[string]any)
	if got.code != 200 || got.body["dispatched"] != 2.0 || e["state"] != "done" || e["operator"] != "frau-berg" || e["by"] != "anna" || e["word"] != "seen" {
		t.Fatalf("%d %s", got.code, got.raw)
	}
	w.ask(anna, "POST", path+"/approve", yes).is(t, "twice", 409, "not-proposed")
	if got := w.ask(bw, "GET", "proposals", ""); len(got.body["items"].([]any)) != 0 {
		t.Errorf("it is still listed: %s", got.raw)
	}
}

// A proposal is rejected by another, taken back by who made it, expires, and is
// overtaken by what is done to the submission.
func TestProposalComesToNothing(t *testing.T) {
	w := newWorld(t, 10*time.Second)
	w.owners()
	rules := config.Edits{SecondOperator: true, Expire: time.Hour}
	w.forms.set(func(f *forms) { f.rules = rules })
	const bw, anna, no = "token-bw", "token-anna", `{"reason":"wrong person"}`
	cause := func(m submission.Meta) string {
		w.must(w.projector.WaitAsked(w.ctx))
		a, err := w.store.Get(w.ctx, m.ID)
		w.must(err)
		return a.Edits[0].Cause
	}
	m, path := w.propose(bw, "rejected")
	w.ask("token-clerk", "POST", path+"/reject", `{"reason":"not Neumann"}`).is(t, "reject with a quotation", 422, "reason-quotes-form")
	w.ask("token-clerk", "POST", path+"/reject", no).is(t, "reject", 200, "")
	if got := cause(m); got != submission.CauseRejected {
		t.Errorf("rejected: %s", got)
	}
	w.ask(anna, "POST", path+"/approve", no).is(t, "after that", 409, "not-proposed")
	if got := w.edit(anna, m, 1, better, "typo", false); got.code != 200 {
		t.Errorf("another proposal: %d %s", got.code, got.raw)
	}
	m, path = w.propose(bw, "withdrawn")
	w.ask(bw, "POST", path+"/reject", no).is(t, "take back", 200, "")
	if got := cause(m); got != submission.CauseWithdrawn {
		t.Errorf("withdrawn: %s", got)
	}
	m, path = w.propose(bw, "rerouted")
	w.ask(anna, "POST", "submissions/"+m.ID.String()+"/assign", `{"authority":"a"}`).is(t, "assign", 200, "")
	w.ask(anna, "POST", path+"/approve", no).is(t, "after that", 409, "not-proposed")
	if got := cause(m); got != submission.CauseOvertaken {
		t.Errorf("overtaken: %s", got)
	}
	w.forms.set(func(f *forms) { f.rules.Expire = time.Nanosecond })
	m, path = w.propose(bw, "expired")
	w.ask(anna, "POST", path+"/approve", no).is(t, "approve", 409, "expired")
	if n, err := console.ExpireProposals(w.ctx, w.store, w.log, time.Now()); n != 1 || err != nil {
		t.Errorf("%d expired, %v", n, err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for cause(m) != submission.CauseExpired {
		if time.Now().After(deadline) {
			t.Fatalf("expired: %s", cause(m))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n, err := console.ExpireProposals(w.ctx, w.store, w.log, time.Now()); n != 0 || err != nil {
		t.Errorf("%d expired again, %v", n, err)
	}
}

// Two who edit at the same time: one is told that the other was faster.
func TestEditsCompete(t *testing.T) {
	w := newWorld(t, 10*time.Second)
	m := w.dead("dead", "08")
	var wg sync.WaitGroup
	answers := make([]answer, 2)
	for i, token := range []string{"token-bw", "token-anna"} {
		wg.Go(func() { answers[i] = w.edit(token, m, 1, better, "typo", false) })
	}
	// Both orders lie there before anybody carries one out.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, newest, err := w.log.Offsets(w.ctx, bus.TopicSubmissions)
		w.must(err)
		if newest[w.partition(m)] == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("two orders were expected")
		}
	}
	w.owners()
	wg.Wait()
	won, lost := answers[0], answers[1]
	if won.code != 200 {
		won, lost = lost, won
	}
	won.is(t, "the first", 200, "")
	lost.is(t, "the second", 409, "overtaken")
}
