package kafkadoor

import (
	"context"
	"strconv"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// Accounts is what Finished asks.
type Accounts interface {
	// Accepted says whether a submission was appended, dispatched or not.
	Accepted(ctx context.Context, id uuid.UUID) (bool, error)
	// Refused says whether the event of a refusal is in the account.
	Refused(ctx context.Context, event uuid.UUID) (bool, error)
}

// Finished says whether a record of a portal's topic was accepted or refused, by
// the account. It is how a lost or forged group offset is told from a right one.
func Finished(ctx context.Context, acc Accounts, portal string, rec *bus.Record) (bool, error) {
	if isBlank(rec) {
		return true, nil
	}
	id := submission.NewID(portal, rec.Headers[submission.HeaderID])
	if ok, err := acc.Accepted(ctx, id); ok || err != nil {
		return ok, err
	}
	for _, id := range []uuid.UUID{id, nobody(portal, rec)} {
		if ok, err := acc.Refused(ctx, refusalID(id, rec)); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func place(rec *bus.Record) string {
	return rec.Topic + "/" + strconv.Itoa(int(rec.Partition)) + "/" + strconv.FormatInt(rec.Offset, 10)
}

// nobody is the id of a record that names none: no Idempotency-Key has a zero
// byte.
func nobody(portal string, rec *bus.Record) uuid.UUID {
	return submission.NewID(portal, "\x00"+place(rec))
}

// refusalID is the id of the event that tells of a refused record, and of its
// dead letter's append.
func refusalID(id uuid.UUID, rec *bus.Record) uuid.UUID {
	return submission.NewEventID(submission.EventRefused, id, place(rec))
}
