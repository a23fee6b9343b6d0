package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/jobs"
	"weiche/internal/status"
	"weiche/internal/submission"
)

// Editor is what the console needs to know of forms.
type Editor interface {
	// Check says what is wrong with a form by the schema of its service. What is no
	// sound JSON, or no form of a service that is offered now, is a *Problem.
	Check(m submission.Meta, data json.RawMessage) ([]Fault, error)
	// Name writes a place of the form so that only names of its schema stand in it.
	Name(m submission.Meta, at []string) string
	// Try says what dispatch would make of a submission now.
	Try(ctx context.Context, m submission.Meta, env *submission.Envelope) jobs.Trial
	// Seal returns a held record's value with another envelope.
	Seal(ctx context.Context, m submission.Meta, value []byte, env *submission.Envelope) ([]byte, error)
	// Edits are the Land's rules for edits.
	Edits(land submission.Land) config.Edits
}

// EditRequest changes the form of a dead submission.
type EditRequest struct {
	Revision int             `json:"revision"` // what it was when it was read
	Data     json.RawMessage `json:"data"`     // the whole form
	Reason   string          `json:"reason"`
	Preview  bool            `json:"preview,omitempty"` // check it, and do nothing
}

// EditPreview says what would become of an edit. No value of the form is in it.
type EditPreview struct {
	Revision       int      `json:"revision"` // that it would make
	Fields         []string `json:"fields"`
	More           int      `json:"more,omitempty"`
	Destinations   []string `json:"destinations"`
	SecondOperator bool     `json:"secondOperator"` // another operator has to approve it
}

// Edited is the submission after an edit, and the edit.
type Edited struct {
	Story
	Edit *submission.Edit `json:"edit,omitempty"`
}

// Difference is what an edit changes, or changed.
type Difference struct {
	Edit     *submission.Edit    `json:"edit"`
	Changes  []submission.Change `json:"changes"`
	Original json.RawMessage     `json:"original"`
	Edited   json.RawMessage     `json:"edited"`
}

// draft is an edit that was checked.
type draft struct {
	acct    *submission.Account
	source  jobs.Source
	env     *submission.Envelope
	fields  []string
	more    int
	assigns string // the authority an operator had named
	trial   jobs.Trial
}

func (a *API) edit(c *call) (int, any, error) {
	var in EditRequest
	if err := c.body(&in); err != nil {
		return 0, nil, err
	}
	reason, err := words("reason", in.Reason, true)
	if err != nil {
		return 0, nil, err
	}
	if in.Revision < 1 || len(in.Data) == 0 {
		return 0, nil, invalid("revision and data are needed: what was read, and the whole form as it shall be.")
	}
	acct, err := a.fresh(c)
	if err != nil {
		return 0, nil, err
	}
	rules, err := a.editable(c, acct, in.Revision)
	if err != nil {
		return 0, nil, err
	}
	d, err := a.draft(c, acct, in.Data, reason)
	if err != nil {
		return 0, nil, err
	}
	if in.Preview {
		return http.StatusOK, EditPreview{acct.Dispatched + 1, d.fields, d.more, d.trial.Destinations, rules.SecondOperator}, nil
	}
	e := &submission.Edit{ID: uuid.New(), Revision: acct.Dispatched + 1, Operator: c.operator.Name, Reason: reason, At: a.Now().UTC(),
		Fields: d.fields, More: d.more, Authority: d.assigns, Original: &d.source.At}
	return a.give(c, d, e, rules)
}

// editable refuses what cannot be edited now.
func (a *API) editable(c *call, acct *submission.Account, revision int) (config.Edits, error) {
	var none config.Edits
	if a.Editor == nil || a.Open == nil {
		return none, conflict("no-payload", "This router shows no payload.")
	}
	if acct.State != submission.Dead {
		return none, conflict("not-editable", "Only what is dead can be edited; this is "+string(acct.State)+".")
	}
	if revision != acct.Dispatched {
		return none, conflict("revision-changed", fmt.Sprintf("It was read at revision %d and is at revision %d now. Read it again.", revision, acct.Dispatched))
	}
	if p := acct.Proposed(); p != nil && !p.Expired(a.Now()) {
		return none, conflict("proposed-already", "An edit by "+p.Operator+" waits for a second operator. Approve or reject it first.")
	}
	if len(acct.Edits) >= submission.MaxEdits {
		return none, conflict("edited-often", fmt.Sprintf("It was edited %d times. It can be redriven, rerouted or closed.", len(acct.Edits)))
	}
	rules := a.Editor.Edits(acct.Land)
	if rules.SecondOperator && c.operator.Name == config.LocalOperator {
		return none, nameless()
	}
	return rules, nil
}

func nameless() *Problem {
	return &Problem{Status: http.StatusForbidden, Type: "nameless", Title: "Two named operators are asked for",
		Detail: "The operator " + config.LocalOperator + " is whoever can read its token, so it is neither of the two."}
}

// draft checks an edited form as intake checks one, and then as dispatch would.
func (a *API) draft(c *call, acct *submission.Account, data json.RawMessage, reason string) (*draft, error) {
	d := &draft{acct: acct}
	var err error
	if d.source, err = jobs.SourceOf(c.Context(), a.Log, acct); err != nil {
		return nil, unmakeable(err)
	}
	before, _, err := a.Open(c.Context(), d.source.Meta, d.source.Value)
	if err != nil {
		return nil, err
	}
	if err := a.checked(d.source.Meta, data); err != nil {
		return nil, err
	}
	d.env = before.WithData(data)
	changes, err := changesOf(before, d.env)
	if err != nil {
		return nil, err
	}
	if len(changes) == 0 {
		return nil, unprocessable("nothing-changed", "Nothing was changed", "The form is what it was. To send it again, redrive it.")
	}
	if err := unquoted(reason, before, d.env); err != nil {
		return nil, err
	}
	for _, ch := range changes {
		if name := a.Editor.Name(d.source.Meta, ch.Path); !slices.Contains(d.fields, name) {
			if d.fields = append(d.fields, name); len(d.fields) > submission.MaxEditFields {
				d.fields, d.more = d.fields[:submission.MaxEditFields], d.more+1
			}
		}
	}
	if d.assigns, err = a.assigned(c.Context(), acct); err != nil {
		return nil, err
	}
	d.trial, err = a.tried(c.Context(), d)
	return d, err
}

// checked refuses data that intake would refuse.
func (a *API) checked(m submission.Meta, data json.RawMessage) error {
	faults, err := a.Editor.Check(m, data)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		p := unprocessable("form-invalid", "The form breaks its schema", fmt.Sprintf("%d things are wrong with it, see errors.", len(faults)))
		p.Errors = faults[:min(len(faults), maxFaults)]
		return p
	}
	return nil
}

// maxFaults bounds how many faults of one form are told at once.
const maxFaults = 200

// tried refuses what dispatch could not send now.
func (a *API) tried(ctx context.Context, d *draft) (jobs.Trial, error) {
	m := d.source.Meta
	m.Revision = d.acct.Dispatched + 1
	m.Instruction = &submission.Instruction{Kind: submission.InstructEdit, Authority: d.assigns, At: a.Now().UTC()}
	now := a.Editor.Try(ctx, m, d.env)
	if now.Reason == "" {
		return now, nil
	}
	what := "It would die again"
	if now.Unassigned {
		what = "It would be unassigned"
	}
	return now, unprocessable("still-failing", "The edited form does not make a message", what+": "+now.Reason+" ("+now.Detail+").")
}

// assigned is the authority that an operator named and that the submission is
// for since then; "" where the rules decide.
func (a *API) assigned(ctx context.Context, acct *submission.Account) (string, error) {
	events, err := a.Store.Events(ctx, acct.ID)
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(events) {
		switch ev := e.Event; {
		case !e.Effective || ev.DeliveryID != uuid.Nil:
		case ev.Type == submission.EventAssigned:
			return ev.Note, nil
		case ev.Type == submission.EventRedriven:
			return "", nil
		}
	}
	return "", nil
}

// changesOf compares two forms.
func changesOf(before, after *submission.Envelope) ([]submission.Change, error) {
	x, err := before.Form()
	if err != nil {
		return nil, conflict("undecodable", "The held form cannot be read; it can only be closed.")
	}
	y, err := after.Form()
	if err != nil {
		return nil, invalid("data is not JSON.")
	}
	return submission.Changes(x, y), nil
}

// give keeps both forms, and orders the edit or its proposal. The copy comes
// first, since the order names it; alone it has no effect.
func (a *API) give(c *call, d *draft, e *submission.Edit, rules config.Edits) (int, any, error) {
	value, err := a.Editor.Seal(c.Context(), d.source.Meta, d.source.Value, d.env)
	if err != nil {
		return 0, nil, err
	}
	kept := d.source.Copy(value, e.At)
	if err := a.Log.Append(c.Context(), kept); err != nil {
		return 0, nil, err
	}
	e.Held = &submission.Held{Topic: kept.Topic, Partition: kept.Partition, Offset: kept.Offset}
	ins := &submission.Instruction{Kind: submission.InstructEdit, Operator: c.operator.Name, Authority: d.assigns, Edit: e, At: e.At}
	if rules.SecondOperator {
		e.Expires, ins.Kind = e.At.Add(rules.Expire), submission.InstructPropose
		return a.settled(c, d.acct, "propose an edit", d.source.Propose(ins), e.ID, submission.EditProposed)
	}
	return a.settled(c, d.acct, "edit", d.source.Edit(value, ins), e.ID, submission.EditDone)
}

// settled gives an order about an edit and tells what became of the edit: what
// came in between may have been faster, so that it is not in the state want.
func (a *API) settled(c *call, acct *submission.Account, deed string, o jobs.Order, id uuid.UUID, want submission.EditState) (int, any, error) {
	code, out, err := a.carry(c, acct, deed, []jobs.Order{o})
	if err != nil {
		return 0, nil, err
	}
	story, ok := out.(Story)
	if !ok {
		return code, out, nil
	}
	e := story.Edit(id)
	if code == http.StatusOK && e != nil && e.State != want {
		return 0, nil, overtaken(e)
	}
	return code, Edited{story, e}, nil
}

// overtaken says what was faster than an order about an edit.
func overtaken(e *submission.Edit) *Problem {
	if e.State == submission.EditDone {
		return conflict("overtaken", "It was approved by "+e.By+" in the meantime.")
	}
	detail := map[string]string{
		submission.CauseOvertaken: "It was decided anew, edited or closed in the meantime.",
		submission.CauseAlive:     "It was redriven in the meantime and may arrive.",
		submission.CauseCompeting: "Another edit of it was proposed in the meantime.",
		submission.CauseExpired:   "The proposal's time has passed.",
		submission.CauseRejected:  "The proposal was rejected in the meantime.",
		submission.CauseWithdrawn: "The proposal was taken back in the meantime.",
	}[e.Cause]
	return conflict("overtaken", detail+" The edit has no effect; look at the submission again.")
}

func (a *API) proposals(c *call) (int, any, error) {
	f, err := c.filter(a.Now())
	if err != nil {
		return 0, nil, err
	}
	list, next, err := a.Store.Proposals(c.Context(), f)
	return page(list, next, err)
}

// edited finds an edit that the request's path names.
func (a *API) edited(c *call) (*submission.Account, *submission.Edit, error) {
	id, err := uuid.Parse(c.PathValue("edit"))
	if err != nil {
		return nil, nil, invalid("An edit's id is a UUID.")
	}
	acct, err := a.fresh(c)
	if err != nil {
		return nil, nil, err
	}
	e := acct.Edit(id)
	if e == nil {
		return nil, nil, errNotFound
	}
	return acct, e, nil
}

// difference shows both forms of an edit and where they differ.
func (a *API) difference(c *call) (int, any, error) {
	reason, err := words("reason", c.URL.Query().Get("reason"), true)
	if err != nil {
		return 0, nil, err
	}
	acct, e, err := a.edited(c)
	if err != nil {
		return 0, nil, err
	}
	if a.Open == nil || e.Held == nil || e.Original == nil {
		return 0, nil, conflict("no-payload", "This router shows no payload.")
	}
	before, after, err := a.forms(c.Context(), acct, e)
	if told := a.look(c, acct, reason, before, after); told != nil {
		return 0, nil, told
	}
	if err != nil {
		return 0, nil, err
	}
	changes, err := changesOf(before, after)
	return http.StatusOK, Difference{e, changes, before.Data, after.Data}, err
}

// forms opens both forms of an edit.
func (a *API) forms(ctx context.Context, acct *submission.Account, e *submission.Edit) (before, after *submission.Envelope, err error) {
	if before, _, err = a.open(ctx, acct, e.Original); err == nil {
		after, _, err = a.open(ctx, acct, e.Held)
	}
	return before, after, err
}

// verdict reads what an operator says to a proposal.
func (a *API) verdict(c *call) (*submission.Account, *submission.Edit, string, error) {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := c.body(&in); err != nil {
		return nil, nil, "", err
	}
	reason, err := words("reason", in.Reason, true)
	if err != nil {
		return nil, nil, "", err
	}
	acct, e, err := a.edited(c)
	if err == nil && e.State != submission.EditProposed {
		err = conflict("not-proposed", "Only an edit that waits for a second operator can be approved or rejected; this one is "+string(e.State)+".")
	}
	return acct, e, reason, err
}

// approve lets a proposal take effect. It is checked once more: what was sound
// when it was proposed may not be by the configuration of today.
func (a *API) approve(c *call) (int, any, error) {
	acct, e, reason, err := a.verdict(c)
	if err != nil {
		return 0, nil, err
	}
	switch {
	case c.operator.Name == config.LocalOperator:
		return 0, nil, nameless()
	case c.operator.Name == e.Operator:
		return 0, nil, &Problem{Status: http.StatusForbidden, Type: "same-operator", Title: "A second operator is asked for",
			Detail: "Who proposed an edit cannot approve it. Rejecting it takes it back."}
	case e.Expired(a.Now()):
		return 0, nil, conflict("expired", "The proposal's time has passed. Propose the edit again.")
	case a.Editor == nil || a.Open == nil || e.Held == nil:
		return 0, nil, conflict("no-payload", "This router shows no payload.")
	}
	d := &draft{acct: acct, assigns: e.Authority}
	if d.source, err = jobs.SourceOf(c.Context(), a.Log, acct); err != nil {
		return 0, nil, unmakeable(err)
	}
	value, err := a.proposed(c.Context(), d, e, reason)
	if err != nil {
		return 0, nil, err
	}
	order := *e
	order.State, order.By, order.Word = "", c.operator.Name, reason
	ins := &submission.Instruction{Kind: submission.InstructEdit, Operator: c.operator.Name, Authority: e.Authority, Edit: &order, At: a.Now().UTC()}
	return a.settled(c, acct, "approve an edit", d.source.Edit(value, ins), e.ID, submission.EditDone)
}

// proposed opens a proposal's form and checks it by the configuration of today.
func (a *API) proposed(ctx context.Context, d *draft, e *submission.Edit, reason string) ([]byte, error) {
	before, _, err := a.Open(ctx, d.source.Meta, d.source.Value)
	if err != nil {
		return nil, err
	}
	m, value, err := jobs.Read(ctx, a.Log, d.acct.ID, e.Held)
	if err != nil {
		return nil, unmakeable(err)
	}
	if d.env, _, err = a.Open(ctx, m, value); err != nil {
		return nil, err
	}
	if err := a.checked(m, d.env.Data); err != nil {
		return nil, err
	}
	if err := unquoted(reason, before, d.env); err != nil {
		return nil, err
	}
	_, err = a.tried(ctx, d)
	return value, err
}

// reject ends a proposal without effect; by who made it, it is taken back.
func (a *API) reject(c *call) (int, any, error) {
	acct, e, reason, err := a.verdict(c)
	if err != nil {
		return 0, nil, err
	}
	partition, err := a.Store.Partition(c.Context(), acct.ID)
	if err != nil {
		return 0, nil, err
	}
	if a.Open != nil && e.Held != nil && e.Original != nil {
		// What cannot be opened cannot be quoted, and is rejected all the same.
		before, after, _ := a.forms(c.Context(), acct, e)
		if err := unquoted(reason, before, after); err != nil {
			return 0, nil, err
		}
	}
	cause := submission.CauseRejected
	if e.Operator == c.operator.Name {
		cause = submission.CauseWithdrawn
	}
	ins := &submission.Instruction{Kind: submission.InstructDecline, Operator: c.operator.Name, Reason: reason,
		Edit: &submission.Edit{ID: e.ID, Revision: e.Revision, Cause: cause}, At: a.Now().UTC()}
	return a.settled(c, acct, "reject an edit", jobs.Decline(acct, partition, ins), e.ID, submission.EditDeclined)
}

// look tells the account that an operator reads payload, and returns when it
// knows. What is not told is not shown. The forms are those that will be shown,
// nil where one could not be opened.
func (a *API) look(c *call, acct *submission.Account, reason string, shown ...*submission.Envelope) error {
	if err := unquoted(reason, shown...); err != nil {
		return err
	}
	partition, err := a.Store.Partition(c.Context(), acct.ID)
	if err != nil {
		return err
	}
	ins := &submission.Instruction{Kind: submission.InstructLook, ID: uuid.New(), Operator: c.operator.Name, Reason: reason, At: a.Now().UTC()}
	a.Logger.Warn("an operator looks at payload", "audit", "payload", "operator", c.operator.Name, "submission", acct.ID, "land", string(acct.Land),
		"service", string(acct.Service), "at", ins.At)
	code, _, err := a.carry(c, acct, "look at payload", []jobs.Order{jobs.Look(acct, partition, ins)})
	if err == nil && code != http.StatusOK {
		err = &Problem{Status: http.StatusServiceUnavailable, Type: "timeout", Title: "No answer in time",
			Detail: "Nothing is shown before the account says who looked. Try again in a moment."}
	}
	return err
}

// ExpireProposals ends the proposals whose time has passed, so that the account
// says so. Each is told once, however often it is called and by how many.
func ExpireProposals(ctx context.Context, store *status.Store, log Log, now time.Time) (n int, err error) {
	for f := (status.Filter{Limit: status.MaxLimit}); ; {
		list, next, err := store.Proposals(ctx, f)
		if err != nil {
			return n, err
		}
		for _, p := range list {
			if p.Edit == nil || !p.Edit.Expired(now) {
				continue
			}
			acct, err := store.Get(ctx, p.Submission)
			if err != nil {
				return n, err
			}
			partition, err := store.Partition(ctx, p.Submission)
			if err != nil {
				return n, err
			}
			o := jobs.Decline(acct, partition, &submission.Instruction{Kind: submission.InstructDecline, Operator: jobs.Router,
				Edit: &submission.Edit{ID: p.Edit.ID, Revision: p.Edit.Revision, Cause: submission.CauseExpired}, At: now.UTC()})
			if err := log.Append(ctx, o.Record); err != nil {
				return n, err
			}
			n++
		}
		if f.After = next; next == "" {
			return n, nil
		}
	}
}

func unprocessable(kind, title, detail string) *Problem {
	return &Problem{Status: http.StatusUnprocessableEntity, Type: kind, Title: title, Detail: detail}
}

// unmakeable makes the problem of an order that cannot be made one that an
// operator understands.
func unmakeable(err error) error {
	if errors.Is(err, jobs.ErrUnreadable) {
		return conflict("undecodable", "The held record cannot be read; it can only be closed.")
	}
	if errors.Is(err, jobs.ErrAlive) {
		return conflict("alive", "A delivery of it is not dead: what arrived, or still may, must not arrive as something else too.")
	}
	if errors.Is(err, bus.ErrNotThere) {
		return conflict("gone", "The record that held its bytes is not there any more; it can only be closed.")
	}
	return err
}
