package delivery

import (
	"context"
	"strconv"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// Accounts is what Finished and Waits ask.
type Accounts interface {
	Account(ctx context.Context, id uuid.UUID) (*submission.Account, error)
	// Refused says whether the event of a refusal is in the account.
	Refused(ctx context.Context, event uuid.UUID) (bool, error)
}

// Finished says whether the stage would do nothing more for a record of the
// deliveries topic, by the account. It is how a lost or forged group offset is
// told from a right one. The account must have everything that stood in events
// when the offset was read.
func Finished(ctx context.Context, acc Accounts, rec *bus.Record) (bool, error) {
	m, err := submission.ParseDeliveryMeta(rec.Headers)
	if err != nil {
		return acc.Refused(ctx, submission.NewEventID(submission.EventRefused, uuid.Nil,
			rec.Topic, strconv.Itoa(int(rec.Partition)), strconv.FormatInt(rec.Offset, 10)))
	}
	d, err := decided(ctx, acc, m)
	if err != nil || d == nil {
		return err == nil, err
	}
	i := m.Instruction
	if rec.Headers[submission.HeaderType] == submission.TypeControl {
		// What the account learned after an order was given, the order did not
		// speak of.
		return i == nil || i.Kind != submission.InstructClose || d.State != submission.Dead && d.State != submission.Waiting || d.UpdatedAt.After(i.At), nil
	}
	if i != nil && i.Kind == submission.InstructRedrive && d.State == submission.Dead {
		return m.Redrives != d.Redrives+1, nil
	}
	return d.State != submission.InFlight, nil
}

// Waits says whether a record of the waiting topic is the one its delivery
// waits with, by the account.
func Waits(ctx context.Context, acc Accounts, rec *bus.Record) (bool, error) {
	m, err := submission.ParseDeliveryMeta(rec.Headers)
	if err != nil {
		return false, nil // only this stage writes there; what it cannot read it cannot have recorded
	}
	a, err := acc.Account(ctx, m.ID)
	if err != nil {
		return false, err
	}
	d := a.Delivery(m.DeliveryID)
	return d != nil && d.State == submission.Waiting && d.Sequence == m.Sequence, nil
}

// decided returns the delivery as the account has it, nil where the record is of
// a decision that does not count.
func decided(ctx context.Context, acc Accounts, m submission.DeliveryMeta) (*submission.DeliveryAccount, error) {
	a, err := acc.Account(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	d := a.Delivery(m.DeliveryID)
	if d == nil || d.Revision != m.Revision || a.DecisionID != m.Decision {
		return nil, nil
	}
	return d, nil
}

// Owned returns the partitions this process delivers for, with the epoch it owns
// each under.
func (s *Stage) Owned() map[int32]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[int32]int64, len(s.lanes))
	for p, l := range s.lanes {
		if !l.lost.Load() {
			out[p] = l.epoch
		}
	}
	return out
}
