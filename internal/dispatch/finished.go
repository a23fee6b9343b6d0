package dispatch

import (
	"context"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// Accounts is what Finished asks.
type Accounts interface {
	Account(ctx context.Context, id uuid.UUID) (*submission.Account, error)
	// Refused says whether the event of a refusal is in the account.
	Refused(ctx context.Context, event uuid.UUID) (bool, error)
}

// Finished says whether the stage would do nothing more for a record of the
// submissions topic, by the account. It is how a lost or forged group offset is
// told from a right one. The account must have everything that stood in events
// when the offset was read.
//
// Of a decision that no delivery speaks of yet, nobody can say whether its
// deliveries were appended. With strict they count as not: to append them again
// is harmless. Without, they count as appended, since no offset passes a record
// before that.
func Finished(ctx context.Context, acc Accounts, rec *bus.Record, strict bool) (bool, error) {
	m, err := submission.ParseMeta(rec.Headers)
	if err != nil {
		return acc.Refused(ctx, refusalID(rec))
	}
	a, err := acc.Account(ctx, m.ID)
	if err != nil || a.State.Final() {
		return err == nil, err
	}
	if rec.Headers[submission.HeaderType] == submission.TypeControl {
		return !closes(a, m.Instruction) && !pending(a, m.Instruction), nil
	}
	if e := a.Edit(editID(m)); e != nil && e.State == submission.EditDeclined {
		return true, nil
	}
	if a.Dispatched < m.Revision {
		return false, nil
	}
	return !strict || !unspoken(a, m), nil
}

// closes says whether an order would end what dispatch holds. What the account
// learned after the order was given, the order did not speak of.
func closes(a *submission.Account, i *submission.Instruction) bool {
	return i != nil && i.Kind == submission.InstructClose && (a.Own == submission.Unassigned || a.Own == submission.Dead) && !a.UpdatedAt.After(i.At)
}

// pending says whether an order about an edit or a look at payload has not been
// told yet. Of looks that are older than those the account remembers nobody can
// say; no offset passes one before it is told.
func pending(a *submission.Account, i *submission.Instruction) bool {
	if i == nil {
		return false
	}
	if i.Kind == submission.InstructLook {
		return !slices.Contains(a.Looked, lookID(a.ID, i)) && a.Looks == len(a.Looked)
	}
	if i.Edit == nil {
		return false
	}
	known := a.Edit(i.Edit.ID)
	switch i.Kind {
	case submission.InstructPropose:
		return known == nil
	case submission.InstructDecline:
		return known != nil && known.State == submission.EditProposed
	}
	return false
}

func unspoken(a *submission.Account, m submission.Meta) bool {
	if a.Dispatched != m.Revision || a.Decision == nil || m.Revision == 1 && a.Append != m.Append {
		return false
	}
	for _, d := range a.Deliveries {
		if d.State == submission.InFlight && d.Attempts == 0 {
			return true
		}
	}
	return false
}

// refusalID is the id of the event that tells of a record nobody can read.
func refusalID(rec *bus.Record) uuid.UUID {
	return submission.NewEventID(submission.EventRefused, uuid.Nil, rec.Topic, strconv.Itoa(int(rec.Partition)), strconv.FormatInt(rec.Offset, 10))
}
