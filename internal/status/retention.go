package status

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Accepted says whether a submission is projected, be it dispatched or not.
func (s *Store) Accepted(ctx context.Context, id uuid.UUID) (bool, error) {
	_, err := s.Get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Refused says whether the event of a refusal is projected.
func (s *Store) Refused(ctx context.Context, event uuid.UUID) (bool, error) {
	return s.RefusedFrom(ctx, event, time.Time{})
}

// RefusedFrom is Refused for an event of that time or later.
func (s *Store) RefusedFrom(ctx context.Context, event uuid.UUID, from time.Time) (found bool, err error) {
	err = s.query(ctx, `SELECT 1 FROM {}refusals WHERE id IN (?, ?) AND at >= ?`, []any{event.String(), event[:], millis(from)}, func(*sql.Rows) error {
		found = true
		return nil
	})
	return found, wrap(err)
}

// Refused says whether the event of a refusal is projected.
func (l *Ledger) Refused(ctx context.Context, event uuid.UUID) (bool, error) {
	found, err := l.store.Refused(ctx, event)
	if err != nil {
		return false, fault.Wrap(err, fault.Retryable, fault.ReasonStorage, "the status store cannot be read")
	}
	return found, nil
}

// Held calls fn with the place of every record that holds the bytes of
// something unfinished: what dispatch holds unassigned or dead, what delivery
// holds dead, what was refused at refusedFrom or later, and both forms of what
// was edited at editedFrom or later.
func (s *Store) Held(ctx context.Context, refusedFrom, editedFrom time.Time, fn func(submission.Held)) error {
	if err := s.edited(ctx, editedFrom, fn); err != nil {
		return err
	}
	for _, list := range []func(context.Context, Filter) ([]Letter, string, error){s.DeadLetters, s.UnassignedList, s.Refusals} {
		for f := (Filter{Limit: MaxLimit}); ; {
			page, next, err := list(ctx, f)
			if err != nil {
				return err
			}
			for _, l := range page {
				if l.Held != nil && (l.State != "" || !l.At.Before(refusedFrom)) {
					fn(*l.Held)
				}
			}
			if f.After = next; next == "" {
				break
			}
		}
	}
	return nil
}

// UnfinishedCount counts what is accepted and neither delivered nor rejected, of all
// Länder, dispatched or not.
func (s *Store) UnfinishedCount(ctx context.Context) (n int, err error) {
	err = s.query(ctx, `SELECT COALESCE(SUM(n), 0) FROM {}counts WHERE state NOT IN ('delivered', 'rejected')`, nil, func(rows *sql.Rows) error {
		return rows.Scan(&n)
	})
	return n, wrap(err)
}

// UnfinishedOf says whether a Land has a submission that was accepted at from or
// later and before to, and is neither delivered nor rejected.
func (s *Store) UnfinishedOf(ctx context.Context, land submission.Land, from, to time.Time) (found bool, err error) {
	err = s.query(ctx, `SELECT 1 FROM {}submissions WHERE state IN ('in-flight', 'unassigned', 'waiting', 'dead')
		AND accepted_at >= ? AND accepted_at < ? AND land = ? LIMIT 1`, []any{millis(from), millis(to), land}, func(*sql.Rows) error {
		found = true
		return nil
	})
	return found, wrap(err)
}
