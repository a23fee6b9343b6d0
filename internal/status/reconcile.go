package status

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// ReconcileFilter narrows a reconciliation; empty fields match everything.
type ReconcileFilter struct {
	Lands        []submission.Land // what the asker may see, nil for all
	Land         submission.Land
	Service      submission.Service
	Since, Until time.Time // of acceptance, in whole hours; Until is without its own hour
}

// Line is the account of one hour of acceptance for a service of a Land:
// accepted is what was counted in the submissions topic, and the states are
// those of the submissions that the store has.
type Line struct {
	Hour       time.Time                `json:"hour"`            // its beginning, UTC
	Hours      int                      `json:"hours,omitempty"` // more than one: folded, from Hour on
	Land       submission.Land          `json:"land"`
	Service    submission.Service       `json:"service"`
	Accepted   int                      `json:"accepted"`
	States     map[submission.State]int `json:"states"`     // every state, zero included
	Difference int                      `json:"difference"` // accepted less the sum of the states

	lost int // part of the difference: rows that should be in the table
}

// DestinationLine is the account of one destination's deliveries.
type DestinationLine struct {
	Destination string                   `json:"destination"`
	Planned     int                      `json:"planned"` // by decisions
	States      map[submission.State]int `json:"states"`
	Superseded  int                      `json:"superseded"` // a later decision made them void
	Difference  int                      `json:"difference"`
}

// Differing is a submission by which the two sides differ.
type Differing struct {
	Submission uuid.UUID          `json:"submission"`
	Hour       time.Time          `json:"hour,omitzero"`
	Land       submission.Land    `json:"land,omitempty"`
	Service    submission.Service `json:"service,omitempty"`
	What       string             `json:"what"`
}

// Reconciliation is the account of what was accepted against what is known of
// it, and of what was planned against what became of it.
type Reconciliation struct {
	Lines        []Line            `json:"lines"`
	Destinations []DestinationLine `json:"destinations"`
	Differing    []Differing       `json:"differing"` // where it can be known, at most MaxLimit
	Difference   int               `json:"difference"`
}

// Balanced says that nothing differs.
func (r *Reconciliation) Balanced() bool { return r.Difference == 0 && len(r.Differing) == 0 }

// Reconcile compares the two sides of the account, as far as they are projected.
// It counts the store's rows by hour too, and reads them where their number is
// not what it should be.
func (s *Store) Reconcile(ctx context.Context, f ReconcileFilter) (Reconciliation, error) {
	var out Reconciliation
	err := s.snapshot(ctx, func(v snapshot) error {
		var err error
		out, err = v.reconcile(ctx, f)
		return err
	})
	return out, wrap(err)
}

// Reconcile compares the two sides of the account after everything is projected
// that stood in the log when it was called. What it finds lost in the store's
// tables stands in the metric from then on, until it is called again.
func (p *Projector) Reconcile(ctx context.Context, f ReconcileFilter) (Reconciliation, error) {
	if err := p.WaitAsked(ctx); err != nil {
		return Reconciliation{}, err
	}
	out, err := p.store.Reconcile(ctx, f)
	if err == nil && f.everything() {
		lost := map[offer]int{}
		for i := range out.Lines {
			if l := &out.Lines[i]; l.lost != 0 {
				lost[offer{l.Land, l.Service}] += magnitude(l.lost)
			}
		}
		p.lost.Store(&lost)
	}
	return out, err
}

// everything says that the filter leaves nothing out.
func (f ReconcileFilter) everything() bool {
	return f.Lands == nil && f.Land == "" && f.Service == "" && f.Since.IsZero() && f.Until.IsZero()
}

// differences are the running differences by Land and service, from an index
// that holds only what differs.
func (s *Store) differences(ctx context.Context) (map[offer]int, error) {
	out := map[offer]int{}
	err := s.query(ctx, `SELECT land, service, SUM(ABS(counted - matched)) FROM {}hours WHERE counted <> matched GROUP BY land, service`, nil, func(rows *sql.Rows) error {
		var k offer
		var n int
		err := rows.Scan(&k.land, &k.service, &n)
		out[k] = n
		return err
	})
	return out, wrap(err)
}

// deliveryDifferences are those of the deliveries, by destination.
func (s *Store) deliveryDifferences(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	err := s.query(ctx, `SELECT destination, SUM(CASE state WHEN 'planned' THEN n ELSE -n END) FROM {}delivery_counts GROUP BY destination`, nil, func(rows *sql.Rows) error {
		var id string
		var n int
		err := rows.Scan(&id, &n)
		out[id] = magnitude(n)
		return err
	})
	return out, wrap(err)
}

// snapshot is the store as it was at one moment.
type snapshot struct {
	g  *generation
	tx *sql.Tx
}

// snapshot runs queries that all see the same. A rebuild waits for its end.
func (s *Store) snapshot(ctx context.Context, fn func(snapshot) error) error {
	return s.view(func(g *generation) error {
		tx, err := s.r.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		return fn(snapshot{g, tx})
	})
}

func (v snapshot) query(ctx context.Context, q string, args []any, fn func(*sql.Rows) error) error {
	rows, err := v.tx.QueryContext(ctx, v.g.sql(q), args...)
	if err != nil {
		return err
	}
	return scan(rows, fn)
}

// Fold makes one line of all that add up and are of an hour before, for each
// service of a Land.
func (r *Reconciliation) Fold(before time.Time) {
	folded := map[offer]*Line{}
	var kept, elder []Line
	for _, l := range r.Lines { // the eldest first
		if l.Difference != 0 || !l.Hour.Before(before) {
			kept = append(kept, l)
			continue
		}
		k := offer{l.Land, l.Service}
		into := folded[k]
		if into == nil {
			c := l
			c.Hours, c.States = 1, maps.Clone(l.States)
			folded[k] = &c
			continue
		}
		into.Hours++
		into.Accepted += l.Accepted
		for st, n := range l.States {
			into.States[st] += n
		}
	}
	for _, l := range folded {
		elder = append(elder, *l)
	}
	r.Lines = append(elder, kept...)
	sortLines(r.Lines)
}

func sortLines(lines []Line) {
	slices.SortStableFunc(lines, func(x, y Line) int {
		return cmp.Or(x.Hour.Compare(y.Hour), cmp.Compare(x.Land, y.Land), cmp.Compare(x.Service, y.Service))
	})
}

// reckoning is one slot while it is compared.
type reckoning struct {
	sums   sums
	untold int // submissions of which a row is there and no event
	states map[submission.State]int
	rows   map[submission.State]int // as counted in the table, nil where their number is right
}

func (f ReconcileFilter) where(hour string) *where {
	var w where
	w.lands("land", f.Lands)
	w.equal("land", string(f.Land))
	w.equal("service", string(f.Service))
	if !f.Since.IsZero() {
		w.add(hour+" >= ?", int64(submission.HourOf(f.Since)))
	}
	if !f.Until.IsZero() {
		w.add(hour+" < ?", int64(submission.HourOf(f.Until)))
	}
	return &w
}

func (v snapshot) reconcile(ctx context.Context, f ReconcileFilter) (Reconciliation, error) {
	slots, out := map[slot]*reckoning{}, Reconciliation{Lines: []Line{}, Destinations: []DestinationLine{}, Differing: []Differing{}}
	at := func(k slot) *reckoning {
		if slots[k] == nil {
			slots[k] = &reckoning{states: map[submission.State]int{}}
		}
		return slots[k]
	}
	for _, step := range []func(context.Context, ReconcileFilter, func(slot) *reckoning, *Reconciliation) error{v.sums, v.states, v.untold, v.rows, v.strays} {
		if err := step(ctx, f, at, &out); err != nil {
			return out, err
		}
	}
	for k, r := range slots {
		out.Lines = append(out.Lines, r.line(k))
	}
	sortLines(out.Lines)
	if f.Lands == nil && f.Land == "" && f.Service == "" { // a destination's account knows neither, nor hours
		var err error
		if out.Destinations, err = v.destinations(ctx); err != nil {
			return out, err
		}
	}
	for i := range out.Lines {
		out.Difference += magnitude(out.Lines[i].Difference)
	}
	for i := range out.Destinations {
		out.Difference += magnitude(out.Destinations[i].Difference)
	}
	return out, nil
}

func magnitude(n int) int { return max(n, -n) }

func (r *reckoning) line(k slot) Line {
	l := Line{Hour: k.hour.Time(), Land: k.offer.land, Service: k.offer.service, States: map[submission.State]int{}}
	undecided := r.states[undispatched] - r.untold
	l.Accepted = r.sums.counted + r.sums.told - r.sums.matched + undecided
	from := r.states
	if r.rows != nil {
		for _, n := range r.states {
			l.lost += n
		}
		for _, n := range r.rows {
			l.lost -= n
		}
		from, undecided = r.rows, -r.untold
	}
	l.Difference = l.Accepted
	for _, st := range submission.States() {
		l.States[st] = from[st]
		if st == submission.InFlight {
			l.States[st] += undecided
		}
		l.Difference -= l.States[st]
	}
	return l
}

func (v snapshot) sums(ctx context.Context, f ReconcileFilter, at func(slot) *reckoning, _ *Reconciliation) error {
	w := f.where("hour")
	return v.query(ctx, `SELECT hour, land, service, counted, matched, told FROM {}hours`+w.String(), w.args, func(rows *sql.Rows) error {
		var k slot
		var n sums
		err := rows.Scan(&k.hour, &k.offer.land, &k.offer.service, &n.counted, &n.matched, &n.told)
		at(k).sums = n
		return err
	})
}

func (v snapshot) states(ctx context.Context, f ReconcileFilter, at func(slot) *reckoning, _ *Reconciliation) error {
	w := f.where("hour")
	w.add("n <> 0")
	return v.query(ctx, `SELECT hour, land, service, state, n FROM {}hourly`+w.String(), w.args, func(rows *sql.Rows) error {
		var k slot
		var st submission.State
		var n int
		err := rows.Scan(&k.hour, &k.offer.land, &k.offer.service, &st, &n)
		at(k).states[st] = n
		return err
	})
}

func (v snapshot) untold(ctx context.Context, f ReconcileFilter, at func(slot) *reckoning, out *Reconciliation) error {
	w := f.where("hour")
	return v.query(ctx, `SELECT u.id, u.hour, u.land, u.service, EXISTS (SELECT 1 FROM {}submissions s WHERE s.id = u.id) FROM (SELECT * FROM {}untold`+w.String()+`) u
		ORDER BY u.hour, u.id`, w.args, func(rows *sql.Rows) error {
		var id uuid.UUID
		var k slot
		var row bool
		if err := rows.Scan((*rawID)(&id), &k.hour, &k.offer.land, &k.offer.service, &row); err != nil {
			return err
		}
		if row {
			at(k).untold++
		}
		out.differs(Differing{id, k.hour.Time(), k.offer.land, k.offer.service, "accepted, and no event tells that dispatch took it up"})
		return nil
	})
}

func (r *Reconciliation) differs(d Differing) {
	if len(r.Differing) < MaxLimit {
		r.Differing = append(r.Differing, d)
	}
}

// rows counts the store's rows by hour, from an index, and looks closer where
// their number is not the states' sum.
func (v snapshot) rows(ctx context.Context, f ReconcileFilter, at func(slot) *reckoning, _ *Reconciliation) error {
	hours := ReconcileFilter{Since: f.Since, Until: f.Until}.where("hour")
	expected := map[submission.Hour]int{}
	err := v.query(ctx, `SELECT hour, SUM(n) FROM {}hourly`+hours.String()+` GROUP BY hour`, hours.args, func(rows *sql.Rows) error {
		var h submission.Hour
		var n int
		err := rows.Scan(&h, &n)
		expected[h] = n
		return err
	})
	if err != nil {
		return err
	}
	var w where
	ms := time.Hour.Milliseconds()
	if !f.Since.IsZero() {
		w.add("accepted_at >= ?", int64(submission.HourOf(f.Since))*ms)
	}
	if !f.Until.IsZero() {
		w.add("accepted_at < ?", int64(submission.HourOf(f.Until))*ms)
	}
	length := strconv.FormatInt(ms, 10)
	err = v.query(ctx, `SELECT accepted_at / `+length+`, COUNT(*) FROM {}submissions`+w.String()+` GROUP BY 1`, w.args, func(rows *sql.Rows) error {
		var h submission.Hour
		var n int
		err := rows.Scan(&h, &n)
		if expected[h] -= n; expected[h] == 0 {
			delete(expected, h)
		}
		return err
	})
	if err != nil {
		return err
	}
	for h, n := range expected {
		if n != 0 {
			if err := v.rowsOf(ctx, h, f, at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v snapshot) rowsOf(ctx context.Context, h submission.Hour, f ReconcileFilter, at func(slot) *reckoning) error {
	found := map[slot]map[submission.State]int{}
	f.Since, f.Until = time.Time{}, time.Time{}
	w := f.where("")
	ms := time.Hour.Milliseconds()
	w.add("accepted_at >= ? AND accepted_at < ?", int64(h)*ms, int64(h+1)*ms)
	err := v.query(ctx, `SELECT land, service, state, COUNT(*) FROM {}submissions`+w.String()+` GROUP BY land, service, state`, w.args, func(rows *sql.Rows) error {
		k := slot{hour: h}
		var st submission.State
		var n int
		if err := rows.Scan(&k.offer.land, &k.offer.service, &st, &n); err != nil {
			return err
		}
		if found[k] == nil {
			found[k] = map[submission.State]int{}
		}
		found[k][st] = n
		return nil
	})
	if err != nil {
		return err
	}
	w = f.where("")
	w.add("hour = ?", int64(h))
	err = v.query(ctx, `SELECT DISTINCT land, service FROM {}hourly`+w.String(), w.args, func(rows *sql.Rows) error {
		k := slot{hour: h}
		err := rows.Scan(&k.offer.land, &k.offer.service)
		if found[k] == nil {
			found[k] = map[submission.State]int{}
		}
		return err
	})
	for k, rows := range found {
		at(k).rows = rows
	}
	return err
}

// strays names what events tell of that nobody knows as accepted: the event of
// its acceptance is gone. They belong to no Land that could be told.
func (v snapshot) strays(ctx context.Context, f ReconcileFilter, _ func(slot) *reckoning, out *Reconciliation) error {
	if !f.everything() {
		return nil
	}
	var last uuid.UUID
	return v.query(ctx, `SELECT submission, place FROM {}strays WHERE submission NOT IN (SELECT id FROM {}untold)
		AND submission NOT IN (SELECT id FROM {}submissions) ORDER BY submission`, nil, func(rows *sql.Rows) error {
		var id uuid.UUID
		var raw []byte
		if err := rows.Scan((*rawID)(&id), &raw); err != nil {
			return err
		}
		list, err := places(raw)
		// Refusals and what a superseded owner wrote may tell of anything.
		if err == nil && id != last && list[0].effect == effectNone {
			last = id
			out.differs(Differing{Submission: id, What: "events tell of it, and none of its acceptance"})
		}
		return err
	})
}

func (v snapshot) destinations(ctx context.Context) ([]DestinationLine, error) {
	found := map[string]*DestinationLine{}
	err := v.query(ctx, `SELECT destination, state, n FROM {}delivery_counts`, nil, func(rows *sql.Rows) error {
		var id string
		var st submission.State
		var n int
		if err := rows.Scan(&id, &st, &n); err != nil {
			return err
		}
		d := found[id]
		if d == nil {
			d = &DestinationLine{Destination: id, States: map[submission.State]int{}}
			for _, st := range submission.States() {
				if st != submission.Unassigned { // no delivery is
					d.States[st] = 0
				}
			}
			found[id] = d
		}
		switch st {
		case planned:
			d.Planned = n
			d.Difference += n
		case superseded:
			d.Superseded = n
			d.Difference -= n
		default:
			d.States[st] = n
			d.Difference -= n
		}
		return nil
	})
	out := make([]DestinationLine, 0, len(found))
	for _, d := range found {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(x, y DestinationLine) int { return cmp.Compare(x.Destination, y.Destination) })
	return out, err
}
