package status

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// Limits of a list.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// ErrCursor says that a cursor was not made by this store.
var ErrCursor = errors.New("the cursor is not one that a list returned")

// Filter narrows a list. Empty fields match everything; Lands is what the asker
// may see, nil for all.
type Filter struct {
	Lands       []submission.Land
	Land        submission.Land
	Service     submission.Service
	Portal      string
	State       submission.State
	Destination string
	Reason      string
	SenderHash  []string // any of these; nil: every submission
	CaseID      uuid.UUID
	Limit       int    // DefaultLimit where 0, at most MaxLimit
	After       string // cursor of the list before
}

// StoredEvent is one event of a submission with its place in the log.
type StoredEvent struct {
	Partition int32 `json:"partition"`
	Offset    int64 `json:"offset"`
	// Effective says whether it changed the account; repeats and late ones do
	// not. Superseded says that it came from an owner that had been replaced.
	Effective  bool             `json:"effective"`
	Superseded bool             `json:"superseded,omitempty"`
	Event      submission.Event `json:"event"`
}

// Get returns a submission's account, ErrNotFound where it is not projected.
func (s *Store) Get(_ context.Context, id uuid.UUID) (*submission.Account, error) {
	a := &submission.Account{}
	err := s.view(func(g *generation) error {
		var raw []byte
		var partition int32
		var below int64
		if err := g.readAccount.QueryRow(id.String()).Scan(&raw, &partition, &below); err != nil {
			return err
		}
		return json.Unmarshal(raw, a)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("status store: %w", err)
	}
	return a, nil
}

// Partition returns the partition in which a submission's case lives.
func (s *Store) Partition(_ context.Context, id uuid.UUID) (int32, error) {
	var partition int32
	err := s.view(func(g *generation) error {
		var raw []byte
		var below int64
		return g.readAccount.QueryRow(id.String()).Scan(&raw, &partition, &below)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return 0, ErrNotFound
	}
	return partition, err
}

// Events returns the whole story of a submission in the order of the log,
// repeats and superseded events included.
func (s *Store) Events(ctx context.Context, id uuid.UUID) ([]StoredEvent, error) {
	var out []StoredEvent
	err := s.view(func(g *generation) error {
		return each(ctx, g.readEvents, func(rows *sql.Rows) error {
			var e StoredEvent
			var effect int
			var raw []byte
			if err := rows.Scan(&e.Partition, &e.Offset, &effect, &raw); err != nil {
				return err
			}
			var err error
			e.Effective, e.Superseded = effect == effectChanged, effect == effectSuperseded
			e.Event, err = submission.DecodeEvent(raw)
			out = append(out, e)
			return err
		}, id.String())
	})
	return out, wrap(err)
}

func wrap(err error) error {
	if err == nil || errors.Is(err, ErrCursor) {
		return err
	}
	return fmt.Errorf("status store: %w", err)
}

func each(ctx context.Context, stmt *sql.Stmt, fn func(*sql.Rows) error, args ...any) error {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return scan(rows, fn)
}

func scan(rows *sql.Rows, fn func(*sql.Rows) error) error {
	for rows.Next() {
		if err := fn(rows); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

func (s *Store) query(ctx context.Context, q string, args []any, fn func(*sql.Rows) error) error {
	return s.view(func(g *generation) error {
		rows, err := s.r.QueryContext(ctx, g.sql(q), args...)
		if err != nil {
			return err
		}
		return scan(rows, fn)
	})
}

// where collects conditions; only constants of this package become SQL.
type where struct {
	conds []string
	args  []any
}

func (w *where) add(cond string, args ...any) {
	w.conds, w.args = append(w.conds, cond), append(w.args, args...)
}

func (w *where) equal(column, value string) {
	if value != "" {
		w.add(column+" = ?", value)
	}
}

func (w *where) lands(column string, lands []submission.Land) {
	if lands == nil {
		return
	}
	in(w, column, lands)
}

func in[T ~string](w *where, column string, values []T) {
	marks := make([]string, len(values))
	for i, v := range values {
		marks[i] = "?"
		w.args = append(w.args, string(v))
	}
	w.conds = append(w.conds, column+" IN ("+strings.Join(marks, ",")+")")
}

func (w *where) String() string {
	if len(w.conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conds, " AND ")
}

func (f Filter) limit() int {
	if f.Limit <= 0 {
		return DefaultLimit
	}
	return min(f.Limit, MaxLimit)
}

func cursor(at int64, id string) string { return strconv.FormatInt(at, 36) + "." + id }

func parseCursor(s string) (at int64, id string, err error) {
	left, id, ok := strings.Cut(s, ".")
	at, err = strconv.ParseInt(left, 36, 64)
	if !ok || err != nil {
		return 0, "", ErrCursor
	}
	return at, id, nil
}

// Submissions lists accounts, the newest acceptance first. next is the cursor
// of the following page, "" at the end.
func (s *Store) Submissions(ctx context.Context, f Filter) (list []*submission.Account, next string, err error) {
	var w where
	w.lands("s.land", f.Lands)
	w.equal("s.land", string(f.Land))
	w.equal("s.service", string(f.Service))
	w.equal("s.portal", f.Portal)
	w.equal("s.state", string(f.State))
	w.equal("s.reason", f.Reason)
	if f.SenderHash != nil {
		// The first condition lets the partial index serve.
		w.add("s.sender_hash <> ''")
		in(&w, "s.sender_hash", f.SenderHash)
	}
	if f.CaseID != uuid.Nil {
		w.equal("s.case_id", f.CaseID.String())
	}
	if f.Destination != "" {
		w.add("EXISTS (SELECT 1 FROM {}deliveries d WHERE d.submission = s.id AND d.destination = ?)", f.Destination)
	}
	if f.After != "" {
		at, id, err := parseCursor(f.After)
		if err != nil {
			return nil, "", err
		}
		w.add("(s.accepted_at, s.id) < (?, ?)", at, id)
	}
	limit := f.limit()
	err = s.query(ctx, "SELECT s.json FROM {}submissions s"+w.String()+" ORDER BY s.accepted_at DESC, s.id DESC LIMIT "+strconv.Itoa(limit+1), w.args,
		func(rows *sql.Rows) error {
			var raw []byte
			a := &submission.Account{}
			if err := rows.Scan(&raw); err != nil {
				return err
			}
			list = append(list, a)
			return json.Unmarshal(raw, a)
		})
	if len(list) > limit {
		list = list[:limit]
		last := list[limit-1]
		next = cursor(millis(last.AcceptedAt), last.ID.String())
	}
	return list, next, wrap(err)
}

// Letter is something that needs an operator: a dead letter, an unassigned
// submission, or a record that was refused and never accepted.
type Letter struct {
	Origin      submission.Stage   `json:"origin"`
	State       submission.State   `json:"state,omitempty"` // empty: never accepted
	Submission  uuid.UUID          `json:"submission,omitzero"`
	CaseID      uuid.UUID          `json:"caseId,omitzero"`
	Portal      string             `json:"portal,omitempty"`
	Land        submission.Land    `json:"land,omitempty"`
	Service     submission.Service `json:"service,omitempty"`
	DeliveryID  uuid.UUID          `json:"deliveryId,omitzero"`
	Destination string             `json:"destination,omitempty"`
	Reason      string             `json:"reason"`
	Detail      string             `json:"detail,omitempty"`
	Attempts    int                `json:"attempts,omitempty"`
	Redrives    int                `json:"redrives"`
	At          time.Time          `json:"at"`
	Held        *submission.Held   `json:"held,omitempty"`
}

// DeadLetters lists what is dead, the longest dead first: submissions that
// dispatch gave up, deliveries that delivery gave up. next is the cursor of the
// following page, "" at the end.
func (s *Store) DeadLetters(ctx context.Context, f Filter) (list []Letter, next string, err error) {
	return s.letters(ctx, submission.Dead, f)
}

// UnassignedList lists what waits for an operator to name the authority, the
// longest waiting first.
func (s *Store) UnassignedList(ctx context.Context, f Filter) (list []Letter, next string, err error) {
	return s.letters(ctx, submission.Unassigned, f)
}

func (s *Store) letters(ctx context.Context, state submission.State, f Filter) (list []Letter, next string, err error) {
	common := func(w *where) {
		w.lands("s.land", f.Lands)
		w.equal("s.land", string(f.Land))
		w.equal("s.service", string(f.Service))
		w.equal("s.portal", f.Portal)
	}
	var q string
	var args []any
	if f.Destination == "" {
		var w where
		// The constant, so that the partial index serves.
		w.add("s.own IN ('dead', 'unassigned') AND s.own = ?", string(state))
		common(&w)
		w.equal("s.reason", f.Reason)
		q, args = "SELECT s.updated_at AS at, s.id AS key, s.json AS json, '' AS delivery FROM {}submissions s"+w.String(), w.args
	}
	if state == submission.Dead {
		var w where
		w.add("d.state = 'dead'")
		common(&w)
		w.equal("d.reason", f.Reason)
		w.equal("d.destination", f.Destination)
		if q != "" {
			q += " UNION ALL "
		}
		q += "SELECT d.updated_at AS at, d.id AS key, s.json AS json, d.id AS delivery FROM {}deliveries d JOIN {}submissions s ON s.id = d.submission" + w.String()
		args = append(args, w.args...)
	}
	if q == "" {
		return nil, "", nil
	}
	q = "SELECT at, key, json, delivery FROM (" + q + ")"
	if f.After != "" {
		at, id, err := parseCursor(f.After)
		if err != nil {
			return nil, "", err
		}
		q += " WHERE (at, key) > (?, ?)"
		args = append(args, at, id)
	}
	limit := f.limit()
	var cursors []string
	err = s.query(ctx, q+" ORDER BY at, key LIMIT "+strconv.Itoa(limit+1), args, func(rows *sql.Rows) error {
		var at int64
		var key, delivery string
		var raw []byte
		if err := rows.Scan(&at, &key, &raw, &delivery); err != nil {
			return err
		}
		var a submission.Account
		if err := json.Unmarshal(raw, &a); err != nil {
			return err
		}
		list, cursors = append(list, letter(&a, delivery)), append(cursors, cursor(at, key))
		return nil
	})
	if len(list) > limit {
		list, next = list[:limit], cursors[limit-1]
	}
	return list, next, wrap(err)
}

func letter(a *submission.Account, delivery string) Letter {
	l := Letter{Origin: submission.StageDispatch, State: a.Own, Submission: a.ID, CaseID: a.CaseID, Portal: a.Portal, Land: a.Land,
		Service: a.Service, Reason: a.Reason, Detail: a.Detail, Redrives: a.Redrives, At: a.UpdatedAt, Held: a.Held}
	for _, d := range a.Deliveries {
		if d.ID.String() == delivery {
			l.Origin, l.State, l.DeliveryID, l.Destination, l.Reason, l.Detail = submission.StageDelivery, d.State, d.ID, d.Destination, d.Reason, d.Detail
			l.Attempts, l.Redrives, l.At, l.Held = d.Attempts, d.Redrives, d.UpdatedAt, d.Held
		}
	}
	return l
}

// Refusals lists the records that were refused and never accepted, the oldest
// first. A record whose Land is not known is shown only to who may see all.
func (s *Store) Refusals(ctx context.Context, f Filter) (list []Letter, next string, err error) {
	var w where
	w.lands("land", f.Lands)
	w.equal("land", string(f.Land))
	w.equal("service", string(f.Service))
	w.equal("portal", f.Portal)
	w.equal("reason", f.Reason)
	if f.After != "" {
		at, id, err := parseCursor(f.After)
		if err != nil {
			return nil, "", err
		}
		w.add("(at, id) > (?, ?)", at, id)
	}
	limit := f.limit()
	var cursors []string
	err = s.query(ctx, "SELECT at, id, json FROM {}refusals"+w.String()+" ORDER BY at, id LIMIT "+strconv.Itoa(limit+1), w.args, func(rows *sql.Rows) error {
		var at int64
		var id string
		var raw []byte
		if err := rows.Scan(&at, &id, &raw); err != nil {
			return err
		}
		e, err := submission.DecodeEvent(raw)
		list = append(list, Letter{Origin: e.Stage, Submission: e.Submission, CaseID: e.CaseID, Portal: e.Portal, Land: e.Land, Service: e.Service,
			Reason: e.Reason, Detail: e.Detail, At: e.At, Held: e.Held})
		cursors = append(cursors, cursor(at, id))
		return err
	})
	if len(list) > limit {
		list, next = list[:limit], cursors[limit-1]
	}
	return list, next, wrap(err)
}

// Unfinished is one delivery that waits or is dead, with what delivery needs to
// know again which cases it holds back.
type Unfinished struct {
	submission.DeliveryMeta
	State submission.State
	Token string // of what was handed over and is not confirmed
	Held  *submission.Held
}

// Unfinished returns every delivery of a partition that is waiting or dead, in
// the order of their cases.
func (s *Store) Unfinished(ctx context.Context, partition int32) ([]Unfinished, error) {
	var out []Unfinished
	err := s.deliveries(ctx, `d.state IN ('waiting', 'dead')`, partition, func(u Unfinished) { out = append(out, u) })
	return out, wrap(err)
}

// deliveries calls fn with each delivery of a partition that the condition
// names, in the order of their cases.
func (s *Store) deliveries(ctx context.Context, where string, partition int32, fn func(Unfinished)) error {
	return s.query(ctx, `SELECT d.id, s.json FROM {}deliveries d JOIN {}submissions s ON s.id = d.submission
		WHERE d.partition = ? AND `+where+` ORDER BY d.ord, d.id`, []any{partition}, func(rows *sql.Rows) error {
		var id string
		var raw []byte
		if err := rows.Scan(&id, &raw); err != nil {
			return err
		}
		var a submission.Account
		if err := json.Unmarshal(raw, &a); err != nil {
			return err
		}
		i := slices.IndexFunc(a.Deliveries, func(d *submission.DeliveryAccount) bool { return d.ID.String() == id })
		if i < 0 {
			return fmt.Errorf("delivery %s is not in its account", id)
		}
		d := a.Deliveries[i]
		fn(Unfinished{DeliveryMeta: a.DeliveryMeta(d), State: d.State, Token: d.Token, Held: d.Held})
		return nil
	})
}

// Count is the account of states of one Land and service.
type Count struct {
	Land     submission.Land          `json:"land"`
	Service  submission.Service       `json:"service"`
	Accepted int                      `json:"accepted"` // distinct submissions
	States   map[submission.State]int `json:"states"`   // every state, zero included
	// AddsUp says that accepted is the sum of the states. The two are counted
	// apart.
	AddsUp bool `json:"addsUp"`
}

// Counts returns the account of states by Land and service.
func (s *Store) Counts(ctx context.Context) ([]Count, error) {
	type key struct {
		land    submission.Land
		service submission.Service
	}
	found := map[key]*Count{}
	at := func(k key) *Count {
		c := found[k]
		if c == nil {
			c = &Count{Land: k.land, Service: k.service, States: map[submission.State]int{}}
			for _, st := range submission.States() {
				c.States[st] = 0
			}
			found[k] = c
		}
		return c
	}
	err := s.query(ctx, `SELECT land, service, '', COUNT(*) FROM {}submissions GROUP BY land, service
		UNION ALL SELECT land, service, state, n FROM {}counts WHERE n <> 0`, nil, func(rows *sql.Rows) error {
		var k key
		var state submission.State
		var n int
		if err := rows.Scan(&k.land, &k.service, &state, &n); err != nil {
			return err
		}
		if state == "" {
			at(k).Accepted = n
		} else {
			at(k).States[state] = n
		}
		return nil
	})
	if err != nil {
		return nil, wrap(err)
	}
	out := make([]Count, 0, len(found))
	for _, c := range found {
		sum := 0
		for _, n := range c.States {
			sum += n
		}
		c.AddsUp = sum == c.Accepted
		out = append(out, *c)
	}
	slices.SortFunc(out, func(x, y Count) int {
		return strings.Compare(string(x.Land)+string(x.Service), string(y.Land)+string(y.Service))
	})
	return out, nil
}

// DestinationCount is the account of one destination's deliveries.
type DestinationCount struct {
	Destination string                   `json:"destination"`
	States      map[submission.State]int `json:"states"`
	// OldestWaiting is since when the longest waiting delivery waits; zero where
	// none does.
	OldestWaiting time.Time `json:"oldestWaiting,omitzero"`
}

// Destinations returns the deliveries by destination and state, and since when
// the oldest waits.
func (s *Store) Destinations(ctx context.Context) ([]DestinationCount, error) {
	found := map[string]*DestinationCount{}
	err := s.query(ctx, `SELECT destination, state, n, 0 FROM {}delivery_counts
		UNION ALL SELECT destination, '', 0, MIN(waiting_since) FROM {}deliveries WHERE state = 'waiting' GROUP BY destination`, nil,
		func(rows *sql.Rows) error {
			var id string
			var state submission.State
			var n int
			var since int64
			if err := rows.Scan(&id, &state, &n, &since); err != nil {
				return err
			}
			d := found[id]
			if d == nil {
				d = &DestinationCount{Destination: id, States: map[submission.State]int{}}
				found[id] = d
			}
			if state == "" {
				d.OldestWaiting = fromMillis(since)
			} else {
				d.States[state] = n
			}
			return nil
		})
	if err != nil {
		return nil, wrap(err)
	}
	out := make([]DestinationCount, 0, len(found))
	for _, d := range found {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(x, y DestinationCount) int { return strings.Compare(x.Destination, y.Destination) })
	return out, nil
}

// Claim is a submission that was claimed and never appended: it was never
// answered with a receipt.
type Claim struct {
	ID uuid.UUID `json:"id"`
	At time.Time `json:"at"`
}

// Abandoned lists the claims from before a time that no submission followed,
// the oldest first, at most MaxLimit.
func (s *Store) Abandoned(ctx context.Context, before time.Time) ([]Claim, error) {
	var out []Claim
	err := s.query(ctx, "SELECT id, at FROM {}claims WHERE at < ? ORDER BY at, id LIMIT "+strconv.Itoa(MaxLimit), []any{millis(before)}, func(rows *sql.Rows) error {
		var id string
		var at int64
		if err := rows.Scan(&id, &at); err != nil {
			return err
		}
		u, err := uuid.Parse(id)
		out = append(out, Claim{u, fromMillis(at)})
		return err
	})
	return out, wrap(err)
}

// Tampering returns where the projection found the account of events changed
// after it was signed.
func (s *Store) Tampering(ctx context.Context) ([]Tampering, error) {
	var out []Tampering
	err := s.query(ctx, "SELECT partition, offset, covered, what FROM {}tampering ORDER BY partition, offset", nil, func(rows *sql.Rows) error {
		var t Tampering
		err := rows.Scan(&t.Partition, &t.Offset, &t.Covered, &t.What)
		out = append(out, t)
		return err
	})
	return out, wrap(err)
}

// Undecodable returns how many records the projection passed because nobody can
// read them.
func (s *Store) Undecodable(ctx context.Context) (n int, err error) {
	err = s.query(ctx, "SELECT COUNT(*) FROM {}undecodable", nil, func(rows *sql.Rows) error { return rows.Scan(&n) })
	return n, wrap(err)
}

// stateCounts is Counts without counting the accepted ones.
func (s *Store) stateCounts(ctx context.Context) ([]Count, error) {
	var out []Count
	err := s.query(ctx, `SELECT land, service, state, n FROM {}counts`, nil, func(rows *sql.Rows) error {
		var c Count
		var state submission.State
		var n int
		if err := rows.Scan(&c.Land, &c.Service, &state, &n); err != nil {
			return err
		}
		c.States = map[submission.State]int{state: n}
		out = append(out, c)
		return nil
	})
	return out, wrap(err)
}
