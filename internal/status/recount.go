package status

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Recount makes the account anew from the topics alone, in a file of its own
// beside the store, and compares the store with it: both as they are at the
// same offsets. The result is the account by the topics, and every submission in
// which the store differs from it counts as a difference too, and every record
// that is missing although its submission or delivery is not at its end, and every
// submission of which a record is kept and nothing is told. The file takes as much
// room as the store does, while it runs.
func (p *Projector) Recount(ctx context.Context, f ReconcileFilter) (out Reconciliation, err error) {
	if !p.rebuilding.TryLock() {
		return out, fault.New(fault.Retryable, fault.ReasonBusy, "a rebuild is under way")
	}
	defer p.rebuilding.Unlock()
	// One at a time: under this name lies at most what a killed process left.
	dir := p.store.path + ".recount"
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return out, fmt.Errorf("status store: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	shadow, err := Open(filepath.Join(dir, "status.db"))
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, shadow.Close()) }()

	// Most of it first, so that what is compared at the end is held still for a
	// moment only.
	if err := p.WaitAsked(ctx); err != nil {
		return out, err
	}
	p.store.write.Lock()
	reached := maps.Clone(p.store.activeGeneration().offsets)
	p.store.write.Unlock()
	if err := p.fill(ctx, shadow, reached); err != nil {
		return out, err
	}
	err = p.store.snapshot(ctx, func(v snapshot) error {
		at, err := v.offsets(ctx)
		if err != nil {
			return err
		}
		if err := p.fill(ctx, shadow, at); err != nil {
			return err
		}
		return shadow.snapshot(ctx, func(topics snapshot) error {
			if out, err = topics.reconcile(ctx, f); err != nil {
				return err
			}
			return compare(ctx, v, topics, f, &out)
		})
	})
	if err != nil {
		return out, wrap(err)
	}
	missing, err := p.unheld(ctx, shadow, f)
	if err != nil {
		return out, wrap(err)
	}
	strays, err := p.strays(ctx, shadow, f, missing)
	out.unheld(missing)
	for _, d := range strays {
		out.Difference++
		out.differs(d)
	}
	return out, wrap(err)
}

func (v snapshot) offsets(ctx context.Context) (map[source]int64, error) {
	out := map[source]int64{}
	err := v.query(ctx, `SELECT topic, partition, offset FROM {}offsets`, nil, func(rows *sql.Rows) error {
		var s source
		var o int64
		err := rows.Scan(&s.topic, &s.partition, &o)
		out[s] = o
		return err
	})
	return out, err
}

// fill projects the log into a store up to offsets, from where it is.
func (p *Projector) fill(ctx context.Context, s *Store, to map[source]int64) error {
	var recs []*bus.Record
	size := 0
	flush := func() error {
		_, err := s.Project(ctx, p.Verify, recs...)
		recs, size = nil, 0
		return err
	}
	for _, topic := range []string{TopicEvents, TopicSubmissions, TopicClaims} {
		oldest, newest, err := p.Log.Offsets(ctx, topic)
		if err != nil {
			return err
		}
		for i := range newest {
			src := source{topic, int32(i)} //nolint:gosec // a partition number
			from, end := max(oldest[i], s.Progress(topic, src.partition)), min(to[src], newest[i])
			if from >= end {
				continue
			}
			err := p.Log.ReadTo(ctx, topic, src.partition, from, end, func(r *bus.Record) error {
				if topic != TopicEvents {
					r = &bus.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Headers: r.Headers, Time: r.Time}
				}
				recs, size = append(recs, r), size+len(r.Value)
				if len(recs) < batchRecords && size < batchBytes {
					return nil
				}
				return flush()
			})
			if err != nil {
				return err
			}
		}
	}
	return flush()
}

// known is what two stores must say alike of a submission.
type known struct {
	id            uuid.UUID
	land          submission.Land
	service       submission.Service
	state, reason string
	accepted      int64
}

// accepted is the filter on a store's submissions, whose table has this prefix.
func (f ReconcileFilter) accepted(prefix string) *where {
	var w where
	w.lands(prefix+"land", f.Lands)
	w.equal(prefix+"land", string(f.Land))
	w.equal(prefix+"service", string(f.Service))
	ms := time.Hour.Milliseconds()
	if !f.Since.IsZero() {
		w.add(prefix+"accepted_at >= ?", int64(submission.HourOf(f.Since))*ms)
	}
	if !f.Until.IsZero() {
		w.add(prefix+"accepted_at < ?", int64(submission.HourOf(f.Until))*ms)
	}
	return &w
}

// walk goes through a store's submissions by their ids.
type walk struct {
	rows *sql.Rows
	at   known
	ok   bool
}

func (v snapshot) walk(ctx context.Context, f ReconcileFilter) (*walk, error) {
	w := f.accepted("")
	rows, err := v.tx.QueryContext(ctx, v.g.sql(`SELECT id, land, service, state, reason, accepted_at FROM {}submissions`+w.String()+` ORDER BY id`), w.args...)
	if err != nil {
		return nil, err
	}
	c := &walk{rows: rows}
	return c, c.next()
}

func (c *walk) next() error {
	if c.ok = c.rows.Next(); !c.ok {
		return c.rows.Err()
	}
	a := &c.at
	return c.rows.Scan((*rawID)(&a.id), &a.land, &a.service, &a.state, &a.reason, &a.accepted)
}

// compare walks both stores and adds where they differ.
func compare(ctx context.Context, store, topics snapshot, f ReconcileFilter, out *Reconciliation) error {
	named := map[uuid.UUID]bool{}
	for _, d := range out.Differing {
		named[d.Submission] = true
	}
	differs := func(k known, what string) {
		if named[k.id] {
			return // counted by the topics themselves
		}
		out.Difference++
		out.differs(Differing{k.id, submission.HourOf(fromMillis(k.accepted)).Time(), k.land, k.service, what})
	}
	a, err := store.walk(ctx, f)
	if err != nil {
		return err
	}
	defer a.rows.Close()
	b, err := topics.walk(ctx, f)
	if err != nil {
		return err
	}
	defer b.rows.Close()
	for a.ok || b.ok {
		order := -1
		switch {
		case !a.ok:
			order = 1
		case b.ok:
			order = bytes.Compare(a.at.id[:], b.at.id[:])
		}
		switch {
		case order < 0:
			differs(a.at, "the store has it as "+a.at.state+", the topics do not")
		case order > 0:
			differs(b.at, "the store lacks it; by the topics it is "+b.at.state)
		case a.at != b.at:
			differs(b.at, "the store says "+a.at.state+"; by the topics it is "+b.at.state)
		}
		if order <= 0 {
			if err := a.next(); err != nil {
				return err
			}
		}
		if order >= 0 {
			if err := b.next(); err != nil {
				return err
			}
		}
	}
	return nil
}
