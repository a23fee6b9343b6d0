package dispatch

import (
	"slices"
	"strconv"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// editID returns which edit a record carries, the zero id where it carries none.
func editID(m submission.Meta) uuid.UUID {
	if i := m.Instruction; i != nil && i.Edit != nil {
		return i.Edit.ID
	}
	return uuid.Nil
}

// edits stops an edit whose time has passed, and says whether it is done with. An
// operator looked at a state that may be another one by now: whoever came first
// in the partition counts.
func (w *work) edits() bool {
	i := w.meta.Instruction
	if i == nil || i.Edit == nil {
		return false
	}
	known := w.acct.Edit(i.Edit.ID)
	switch {
	case known != nil && known.State == submission.EditDeclined:
		w.metrics.repeats.Inc()
		return true
	case known != nil && known.State == submission.EditDone && w.acct.Dispatched >= known.Revision:
		return false // a repeat, whose deliveries may not be appended yet
	}
	switch cause := w.hinders(i, known); cause {
	case "":
		return false
	case submission.CauseSameHand:
		w.logger.Warn("an approval by who proposed the edit is dropped; the proposal stands", "submission", w.meta.ID, "edit", i.Edit.ID, "operator", i.Operator)
	default:
		w.decline(i.Edit, known, "", "", cause)
	}
	return true
}

// hinders says why an edit cannot be carried out, "" where it can.
func (w *work) hinders(i *submission.Instruction, known *submission.Edit) string {
	a := w.acct
	proposed := known != nil && known.State == submission.EditProposed
	switch {
	case a.State.Final() || a.Dispatched >= w.meta.Revision:
		return submission.CauseOvertaken
	case a.State != submission.Dead || slices.ContainsFunc(a.Deliveries, func(d *submission.DeliveryAccount) bool { return d.State != submission.Dead }):
		return submission.CauseAlive
	case i.Edit.By != "" && known == nil:
		return submission.CauseOvertaken
	case proposed && (i.Edit.By == "" || i.Edit.By == known.Operator || i.Edit.By != i.Operator):
		return submission.CauseSameHand
	case proposed && known.Expired(i.At):
		return submission.CauseExpired
	}
	return ""
}

// edited tells that an edit takes effect. It stands before the decision that is
// made on it, in the same append.
func (w *work) edited() submission.Event {
	i := w.meta.Instruction
	ev := w.event(submission.EventEdited, i.Edit.ID.String())
	ev.At, ev.Operator, ev.Note, ev.Edit = i.At, i.Edit.Operator, i.Edit.Reason, i.Edit
	return ev
}

// desk tells of what operators did that changes no state: a look at payload, a
// proposal, and its end. It says whether the order is one of these.
func (w *work) desk(i *submission.Instruction) bool {
	switch {
	case i == nil || !w.acct.Known():
		return false
	case i.Kind == submission.InstructLook:
		ev := w.event(submission.EventLooked)
		ev.ID, ev.At, ev.Operator, ev.Note = lookID(w.meta.ID, i), i.At, i.Operator, i.Reason
		w.events = []submission.Event{ev}
	case i.Edit == nil:
		return false
	case i.Kind == submission.InstructPropose:
		w.propose(i)
	case i.Kind == submission.InstructDecline:
		known := w.acct.Edit(i.Edit.ID)
		// What was approved in time is not expired, whatever the clock says since.
		if known != nil && known.State == submission.EditProposed && (i.Edit.Cause != submission.CauseExpired || known.Expired(i.At)) {
			w.decline(i.Edit, known, i.Operator, i.Reason, i.Edit.Cause)
		}
	}
	return true
}

// lookID is the id of the event that tells of a look at payload.
func lookID(id uuid.UUID, i *submission.Instruction) uuid.UUID {
	return submission.NewEventID(submission.EventLooked, id, i.ID.String())
}

// propose keeps an edit for a second operator. One proposal stands at a time, the
// first; one whose time has passed makes room.
func (w *work) propose(i *submission.Instruction) {
	if w.acct.Edit(i.Edit.ID) != nil {
		return // a repeat
	}
	cause := w.hinders(i, nil)
	if other := w.acct.Proposed(); other != nil && cause == "" {
		if !other.Expired(i.At) {
			cause = submission.CauseCompeting
		} else {
			w.decline(other, other, "", "", submission.CauseExpired)
		}
	}
	if cause != "" {
		w.decline(i.Edit, nil, "", "", cause)
		return
	}
	ev := w.event(submission.EventProposed, i.Edit.ID.String())
	ev.At, ev.Operator, ev.Note, ev.Edit = i.At, i.Edit.Operator, i.Edit.Reason, i.Edit
	w.events = append(w.events, ev)
}

// decline tells that an edit came to nothing. What is known of it already is not
// told again.
func (w *work) decline(e, known *submission.Edit, by, word, cause string) {
	ev := w.event(submission.EventDeclined, e.ID.String(), strconv.Itoa(w.meta.Revision))
	ev.Operator, ev.Note, ev.Reason, ev.Edit = by, word, cause, e
	if i := w.meta.Instruction; by != "" {
		ev.At = i.At
	}
	if known != nil {
		ev.Edit = &submission.Edit{ID: e.ID, Revision: known.Revision}
	}
	w.events = append(w.events, ev)
	w.logger.Info("an operator's edit came to nothing", "submission", w.meta.ID, "edit", e.ID, "cause", cause)
}
