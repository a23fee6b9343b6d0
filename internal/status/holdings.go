package status

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// What is not at its end goes on from a record of its own: without it there is a
// state, and nothing to decide, to attempt, to assign or to redrive.

// holding is a record that must be there by the account.
type holding struct {
	account  submission.Meta
	delivery uuid.UUID // nil: dispatch has the submission itself
	to       string    // the delivery's destination
	state    submission.State
	sequence int              // of what waits; of what is in flight, how often it began
	at       *submission.Held // of what is held; nil where no event named the place
	strayed  *submission.Held // of what is in flight: a record that no event tells of
}

// holdingKey is a holding that stays the same: what waits anew, or is held
// elsewhere, is another.
type holdingKey struct {
	submission, delivery uuid.UUID
	state                submission.State
	sequence             int
	at                   submission.Held
}

func (h *holding) key() holdingKey {
	k := holdingKey{submission: h.account.ID, delivery: h.delivery, state: h.state, sequence: h.sequence}
	if h.at != nil {
		k.at = *h.at
	}
	return k
}

func (h *holding) missing() Differing {
	what := "it is " + string(h.state)
	if h.delivery != uuid.Nil {
		what = fmt.Sprintf("delivery %s to %s is %s", h.delivery, h.to, h.state)
	}
	switch {
	case h.state == submission.Waiting:
		what += ", and its record is not in " + bus.TopicWaiting
	case h.state == submission.InFlight && h.strayed != nil:
		what += ", and no event tells why its record is in " + placeOf(h.strayed)
	case h.state == submission.InFlight && h.delivery == uuid.Nil:
		what += ", and its record is not in " + bus.TopicSubmissions
	case h.state == submission.InFlight:
		what += ", and its record is neither in " + bus.TopicSubmissions + " nor in " + bus.TopicDeliveries
	case h.at == nil:
		what += ", and no event says where its record is"
	default:
		what += ", and its record is not in " + placeOf(h.at)
	}
	return differing(h.account, what)
}

func placeOf(at *submission.Held) string {
	return fmt.Sprintf("%s, partition %d, offset %d", at.Topic, at.Partition, at.Offset)
}

func differing(m submission.Meta, what string) Differing {
	return Differing{m.ID, submission.HourOf(m.AcceptedAt).Time(), m.Land, m.Service, what}
}

// holdings returns every record that must be there.
func (v snapshot) holdings(ctx context.Context, f ReconcileFilter) (map[holdingKey]*holding, error) {
	out := map[holdingKey]*holding{}
	add := func(h holding) { out[h.key()] = &h }
	// The constants, so that the partial indexes serve.
	for _, which := range []string{
		"s.own IN ('dead', 'unassigned')",
		"s.state = 'in-flight' AND s.state <> 'delivered'",
		"s.n IN (SELECT submission FROM {}deliveries WHERE state IN ('waiting', 'dead'))",
	} {
		w := f.accepted("s.")
		w.add(which)
		err := v.query(ctx, `SELECT s.n, s.body FROM {}submissions s`+w.String(), w.args, func(rows *sql.Rows) error {
			e, err := scanEntry(rows)
			if err != nil {
				return err
			}
			a := e.acct
			switch {
			case a.Own == submission.Dead || a.Own == submission.Unassigned:
				add(holding{account: a.Meta(), state: a.Own, at: a.Held})
			case a.Own == submission.InFlight && a.Copied && len(a.Deliveries) == 0:
				add(holding{account: a.Meta(), state: a.Own, sequence: a.Instructed})
			}
			for _, d := range a.Deliveries {
				switch d.State {
				case submission.InFlight:
					add(holding{account: a.Meta(), delivery: d.ID, to: d.Destination, state: d.State, sequence: d.Redrives})
				case submission.Waiting:
					add(holding{account: a.Meta(), delivery: d.ID, to: d.Destination, state: d.State, sequence: d.Sequence})
				case submission.Dead:
					add(holding{account: a.Meta(), delivery: d.ID, to: d.Destination, state: d.State, at: d.Held})
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// unheld looks for the records that must be there by a store's account, and
// returns what has none. What went on meanwhile, so that its record was cut, is
// not among it: an event tells of that before the record goes.
func (p *Projector) unheld(ctx context.Context, s *Store, f ReconcileFilter) (map[holdingKey]*holding, error) {
	read := func() (out map[holdingKey]*holding, err error) {
		err = s.snapshot(ctx, func(v snapshot) error { out, err = v.holdings(ctx, f); return err })
		return out, err
	}
	left, err := read()
	if err != nil || len(left) == 0 {
		return nil, err
	}
	if err := p.strikeMoving(ctx, left); err != nil {
		return nil, err
	}
	if err := p.strikeWaiting(ctx, left); err != nil {
		return nil, err
	}
	if err := p.strikeHeld(ctx, left); err != nil || len(left) == 0 {
		return nil, err
	}
	to, err := asked(ctx, p.Log, TopicEvents, TopicSubmissions)
	if err != nil {
		return nil, err
	}
	if err := p.fill(ctx, s, to); err != nil {
		return nil, err
	}
	now, err := read()
	maps.DeleteFunc(left, func(k holdingKey, _ *holding) bool { return now[k] == nil })
	return left, err
}

// strikeMoving takes out what is in flight and has its record in one of the
// topics that it moves through; operators' orders carry nothing to go on from.
// Submissions go first: what is not there any more stood in deliveries before it
// went.
func (p *Projector) strikeMoving(ctx context.Context, left map[holdingKey]*holding) error {
	moving := map[uuid.UUID][]holdingKey{} // by submission
	for k := range left {
		if k.state == submission.InFlight {
			moving[k.submission] = append(moving[k.submission], k)
		}
	}
	if len(moving) == 0 {
		return nil
	}
	err := p.each(ctx, bus.TopicSubmissions, func(r *bus.Record) {
		if m, err := submission.ParseMeta(r.Headers); err == nil && r.Headers[submission.HeaderType] != submission.TypeControl {
			for _, k := range moving[m.ID] {
				delete(left, k)
			}
		}
	})
	if err != nil {
		return err
	}
	return p.each(ctx, bus.TopicDeliveries, func(r *bus.Record) {
		m, err := submission.ParseDeliveryMeta(r.Headers)
		if err != nil || r.Headers[submission.HeaderType] == submission.TypeControl {
			return
		}
		for _, k := range moving[m.ID] {
			if k.delivery == m.DeliveryID {
				delete(left, k)
			}
		}
	})
}

// strikeWaiting takes out what has its record in the waiting topic.
func (p *Projector) strikeWaiting(ctx context.Context, left map[holdingKey]*holding) error {
	return p.each(ctx, bus.TopicWaiting, func(r *bus.Record) {
		if m, err := submission.ParseDeliveryMeta(r.Headers); err == nil {
			delete(left, holdingKey{submission: m.ID, delivery: m.DeliveryID, state: submission.Waiting, sequence: m.Sequence})
		}
	})
}

// each reads what stands in a topic.
func (p *Projector) each(ctx context.Context, topic string, fn func(*bus.Record)) error {
	oldest, newest, err := p.Log.Offsets(ctx, topic)
	if err != nil {
		return err
	}
	for i := range newest {
		err := p.Log.ReadTo(ctx, topic, int32(i), oldest[i], newest[i], func(r *bus.Record) error { fn(r); return nil }) //nolint:gosec // a partition number
		if err != nil {
			return err
		}
	}
	return nil
}

// strikeHeld takes out what has its record where the account says. A topic that
// holds for long is read from the first such place to the last one only.
func (p *Projector) strikeHeld(ctx context.Context, left map[holdingKey]*holding) error {
	held := map[source]map[int64]*holding{}
	for _, h := range left {
		if h.at == nil {
			continue
		}
		src := source{h.at.Topic, h.at.Partition}
		if held[src] == nil {
			held[src] = map[int64]*holding{}
		}
		held[src][h.at.Offset] = h
	}
	for src, places := range held {
		_, newest, err := p.Log.Offsets(ctx, src.topic)
		if err != nil {
			return err
		}
		if int(src.partition) >= len(newest) {
			continue
		}
		from, to := bounds(places)
		err = p.Log.ReadTo(ctx, src.topic, src.partition, from, min(to+1, newest[src.partition]), func(r *bus.Record) error {
			if h := places[r.Offset]; h != nil && h.is(r) {
				delete(left, h.key())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func bounds(places map[int64]*holding) (first, last int64) {
	offsets := slices.Sorted(maps.Keys(places))
	return offsets[0], offsets[len(offsets)-1]
}

// is says whether a record is the one that holds it.
func (h *holding) is(r *bus.Record) bool {
	if h.delivery == uuid.Nil {
		m, err := submission.ParseMeta(r.Headers)
		return err == nil && m.ID == h.account.ID
	}
	m, err := submission.ParseDeliveryMeta(r.Headers)
	return err == nil && m.DeliveryID == h.delivery
}

// unheld adds what has no record to the differences, in the order of acceptance.
func (r *Reconciliation) unheld(missing map[holdingKey]*holding) {
	list := slices.SortedFunc(maps.Values(missing), func(x, y *holding) int {
		return cmp.Or(x.account.AcceptedAt.Compare(y.account.AcceptedAt), slices.Compare(x.account.ID[:], y.account.ID[:]), slices.Compare(x.delivery[:], y.delivery[:]))
	})
	for _, h := range list {
		r.Difference++
		r.differs(h.missing())
	}
}
