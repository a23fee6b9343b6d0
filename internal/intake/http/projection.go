package httpdoor

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"weiche/internal/status"
	"weiche/internal/submission"
)

// Projection is Status on the status store.
type Projection struct {
	Store     *status.Store
	Projector *status.Projector
}

// Get returns the account as far as it is projected.
func (p Projection) Get(ctx context.Context, id uuid.UUID) (*submission.Account, bool, error) {
	a, err := p.Store.Get(ctx, id)
	if errors.Is(err, status.ErrNotFound) {
		return nil, false, nil
	}
	return a, err == nil, err
}

// Events returns the events that had an effect, oldest first.
func (p Projection) Events(ctx context.Context, id uuid.UUID) ([]submission.Event, error) {
	stored, err := p.Store.Events(ctx, id)
	var out []submission.Event
	for _, e := range stored {
		if e.Effective {
			out = append(out, e.Event)
		}
	}
	return out, err
}

// WaitAsked waits until everything is projected that was in the log when it was
// asked.
func (p Projection) WaitAsked(ctx context.Context) error { return p.Projector.WaitAsked(ctx) }
