package status

import (
	"context"
	"database/sql"
	"maps"
	"slices"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// The other way round: a record is kept to go on from, and by the account there is
// nothing to go on with. A record that is not needed any more, or was appended
// twice, is no fault; its submission is known. One whose submission no event and no
// acceptance tells of has lost its story.

// strays finds records that are kept for submissions which a store does not know,
// and for each that is missing while in flight, whether a record is kept elsewhere.
func (p *Projector) strays(ctx context.Context, s *Store, f ReconcileFilter, missing map[holdingKey]*holding) ([]Differing, error) {
	unknown := map[uuid.UUID]Differing{}
	moving := map[uuid.UUID][]*holding{} // by submission
	for k, h := range missing {
		if k.state == submission.InFlight {
			moving[k.submission] = append(moving[k.submission], h)
		}
	}
	var failed error
	for _, topic := range []string{bus.TopicWaiting, bus.TopicUnassigned, bus.TopicDeadLetters} {
		err := p.each(ctx, topic, func(r *bus.Record) {
			m, err := submission.ParseMeta(r.Headers)
			if err != nil || failed != nil || r.Headers[submission.HeaderType] == submission.TypeRefused || !f.covers(m) {
				return // what was refused was never accepted
			}
			at := &submission.Held{Topic: topic, Partition: r.Partition, Offset: r.Offset}
			for _, h := range moving[m.ID] {
				if h.is(r) {
					h.strayed = at
				}
			}
			known, err := s.knows(ctx, m.ID)
			if failed = err; err == nil && !known {
				unknown[m.ID] = differing(m, "no event tells of it, and a record of it is in "+placeOf(at))
			}
		})
		if err != nil {
			return nil, err
		}
		if failed != nil {
			return nil, failed
		}
	}
	// Dispatch keeps a record, tells of it, and only then the acceptance may be cut.
	// So whose acceptance the first look misses, the second one finds told.
	for range 2 {
		if err := p.learn(ctx, s, unknown); err != nil {
			return nil, err
		}
	}
	return slices.SortedFunc(maps.Values(unknown), func(x, y Differing) int { return slices.Compare(x.Submission[:], y.Submission[:]) }), nil
}

// learn takes out what the store knows by now.
func (p *Projector) learn(ctx context.Context, s *Store, unknown map[uuid.UUID]Differing) error {
	if len(unknown) == 0 {
		return nil
	}
	to, err := asked(ctx, p.Log, TopicEvents, TopicSubmissions)
	if err != nil {
		return err
	}
	if err := p.fill(ctx, s, to); err != nil {
		return err
	}
	for id := range unknown {
		known, err := s.knows(ctx, id)
		if err != nil {
			return err
		}
		if known {
			delete(unknown, id)
		}
	}
	return nil
}

// knows says whether a submission was ever accepted, as far as it is projected.
func (s *Store) knows(ctx context.Context, id uuid.UUID) (known bool, err error) {
	err = s.query(ctx, `SELECT 1 FROM {}submissions WHERE id = ?`, []any{id[:]}, func(*sql.Rows) error { known = true; return nil })
	return known, wrap(err)
}

// covers says whether a submission is one that the filter asks about.
func (f ReconcileFilter) covers(m submission.Meta) bool {
	hour := submission.HourOf(m.AcceptedAt)
	return (f.Lands == nil || slices.Contains(f.Lands, m.Land)) && (f.Land == "" || f.Land == m.Land) &&
		(f.Service == "" || f.Service == m.Service) &&
		(f.Since.IsZero() || hour >= submission.HourOf(f.Since)) && (f.Until.IsZero() || hour < submission.HourOf(f.Until))
}
