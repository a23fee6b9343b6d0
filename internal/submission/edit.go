package submission

import (
	"slices"
	"time"

	"github.com/google/uuid"
)

// EditState is where an operator's edit of a form stands.
type EditState string

// The states of an edit. A proposal waits for a second operator; of the others
// nothing more becomes.
const (
	EditProposed EditState = "proposed"
	EditDone     EditState = "done"
	EditDeclined EditState = "declined"
)

// Why an edit came to nothing.
const (
	CauseRejected  = "rejected"      // a second operator said no
	CauseWithdrawn = "withdrawn"     // who proposed it took it back
	CauseExpired   = "expired"       // nobody approved it in time
	CauseOvertaken = "overtaken"     // the submission was decided anew, or ended, before
	CauseAlive     = "alive"         // it is no longer dead: what may arrive is not replaced
	CauseCompeting = "competing"     // another proposal stands
	CauseSameHand  = "same-operator" // who proposed it cannot approve it
)

// Edit is what the account says of an operator's edit of a form: who, why, when
// and which fields. It is free of payload: Fields are places of the form as its
// schema names them (JSON Pointers, RFC 6901), with "*" for a name that only
// whoever wrote the form chose; no value stands in it. Both forms lie sealed in
// the records that Held and Original name.
type Edit struct {
	ID       uuid.UUID `json:"id"`
	Revision int       `json:"revision"` // the revision it makes
	State    EditState `json:"state,omitempty"`
	Operator string    `json:"operator,omitempty"`
	Reason   string    `json:"reason,omitempty"` // why, in the operator's words
	At       time.Time `json:"at,omitzero"`
	Fields   []string  `json:"fields,omitempty"`
	More     int       `json:"more,omitempty"` // changed fields beyond those
	// Authority is whom an operator had assigned it to before, which stays so.
	Authority string    `json:"authority,omitempty"`
	Expires   time.Time `json:"expires,omitzero"`   // of a proposal
	By        string    `json:"by,omitempty"`       // who approved or declined it
	Word      string    `json:"word,omitempty"`     // what they said
	Cause     string    `json:"cause,omitempty"`    // why it was declined
	Closed    time.Time `json:"closed,omitzero"`    // when it was approved or declined
	Held      *Held     `json:"held,omitempty"`     // what it was edited to
	Original  *Held     `json:"original,omitempty"` // what it was before
}

// MaxEdits bounds the edits of one submission, proposals included, and
// MaxEditFields the fields that one of them names.
const (
	MaxEdits      = 32
	MaxEditFields = 100
)

func (e *Edit) clone() *Edit {
	c := *e
	c.Fields, c.Held, c.Original = slices.Clone(e.Fields), cloneOf(e.Held), cloneOf(e.Original)
	return &c
}

// Expired says whether a proposal's time has passed.
func (e *Edit) Expired(at time.Time) bool {
	return e.State == EditProposed && !e.Expires.IsZero() && at.After(e.Expires)
}

// Edit returns the edit with this id, or nil.
func (a *Account) Edit(id uuid.UUID) *Edit {
	if i := slices.IndexFunc(a.Edits, func(e *Edit) bool { return e.ID == id }); i >= 0 {
		return a.Edits[i]
	}
	return nil
}

// Proposed returns the edit that waits for a second operator, or nil.
func (a *Account) Proposed() *Edit {
	if i := slices.IndexFunc(a.Edits, func(e *Edit) bool { return e.State == EditProposed }); i >= 0 {
		return a.Edits[i]
	}
	return nil
}

// lookedKept is how many looks are remembered by their id, so that a repeat
// after a crash counts once.
const lookedKept = 16

// applyDesk folds in what happened on an operator's desk and changes no state.
func (a *Account) applyDesk(e Event) bool {
	if !a.Copied {
		return false
	}
	if e.Type == EventLooked {
		if slices.Contains(a.Looked, e.ID) {
			return false
		}
		a.Looks++
		a.Looked = append(slices.Clone(a.Looked[max(0, len(a.Looked)+1-lookedKept):]), e.ID)
		return true
	}
	if e.Edit == nil {
		return false
	}
	known := a.Edit(e.Edit.ID)
	if e.Type == EventProposed {
		if known != nil || a.Proposed() != nil || a.State.Final() || e.Edit.Revision != a.Dispatched+1 {
			return false
		}
		a.editing(e, EditProposed)
		return true
	}
	switch {
	case known == nil:
		known = a.editing(e, EditDeclined)
	case known.State == EditDeclined, known.State == EditDone && a.Dispatched >= known.Revision:
		return false
	}
	known.decline(e.Operator, e.Note, e.Reason, e.At)
	return true
}

// editing notes an edit that is told of for the first time.
func (a *Account) editing(e Event, state EditState) *Edit {
	n := e.Edit.clone()
	n.State = state
	a.Edits = append(a.Edits, n)
	return n
}

func (e *Edit) decline(by, word, cause string, at time.Time) {
	e.State, e.By, e.Word, e.Cause, e.Closed = EditDeclined, by, word, cause, at
}

// edited notes that an edit took effect, be it a proposal that was approved.
func (a *Account) edited(e Event) {
	if e.Edit == nil {
		return
	}
	known := a.Edit(e.Edit.ID)
	if known == nil {
		known = a.editing(e, EditDone)
	}
	known.State, known.By, known.Word, known.Cause, known.Original = EditDone, e.Edit.By, e.Edit.Word, "", cloneOf(e.Edit.Original)
	if known.By != "" {
		known.Closed = e.At
	}
}

// overtake ends the proposal that the submission has left behind.
func (a *Account) overtake(at time.Time) {
	if p := a.Proposed(); p != nil && (a.State.Final() || a.Dispatched >= p.Revision) {
		p.decline("", "", CauseOvertaken, at)
	}
}
