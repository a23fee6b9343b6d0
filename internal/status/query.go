package status

import (
	"cmp"
	"context"
	"database/sql"
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
	Before      time.Time // of letters: in their state since before; zero: whenever
	Limit       int       // DefaultLimit where 0, at most MaxLimit
	After       string    // cursor of the list before
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
	e, err := s.entry(id, hasRow)
	if err != nil {
		return nil, wrap(err)
	}
	if e == nil {
		return nil, ErrNotFound
	}
	return e.acct.Clone(), nil
}

// Partition returns the partition in which a submission's case lives.
func (s *Store) Partition(_ context.Context, id uuid.UUID) (int32, error) {
	e, err := s.entry(id, hasRow)
	if err != nil {
		return 0, wrap(err)
	}
	if e == nil {
		return 0, ErrNotFound
	}
	return e.partition, nil
}

func (s *Store) entry(id uuid.UUID, k kind) (*entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.active.entry(id, k)
}

// Events returns the whole story of a submission in the order of the log,
// repeats and superseded events included.
func (s *Store) Events(ctx context.Context, id uuid.UUID) ([]StoredEvent, error) {
	var out []StoredEvent
	err := s.view(func(g *generation) error {
		story, err := g.story(ctx, id)
		if err != nil {
			return err
		}
		slices.SortFunc(story, func(x, y place) int {
			return cmp.Or(cmp.Compare(x.offset, y.offset), cmp.Compare(x.partition, y.partition))
		})
		for _, p := range story {
			raw, err := g.event(ctx, p)
			if err != nil {
				return err
			}
			e := StoredEvent{Partition: p.partition, Offset: p.offset, Effective: p.effect == effectChanged, Superseded: p.effect == effectSuperseded}
			if e.Event, err = submission.DecodeEvent(raw); err != nil {
				return err
			}
			out = append(out, e)
		}
		return nil
	})
	return out, wrap(err)
}

func wrap(err error) error {
	if err == nil || errors.Is(err, ErrCursor) {
		return err
	}
	return fmt.Errorf("status store: %w", err)
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
	values := make([]any, len(lands))
	for i, l := range lands {
		values[i] = string(l)
	}
	w.in(column, values)
}

func (w *where) in(column string, values []any) {
	marks := strings.TrimSuffix(strings.Repeat("?,", len(values)), ",")
	w.add(column+" IN ("+marks+")", values...)
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

func cursor(at int64, id uuid.UUID) string { return strconv.FormatInt(at, 36) + "." + id.String() }

// after narrows to what comes behind a cursor, in the columns at and id.
func (w *where) after(cursor, columns, sign string) error {
	if cursor == "" {
		return nil
	}
	left, right, ok := strings.Cut(cursor, ".")
	at, err := strconv.ParseInt(left, 36, 64)
	id, err2 := uuid.Parse(right)
	if !ok || err != nil || err2 != nil {
		return ErrCursor
	}
	w.add("("+columns+") "+sign+" (?, ?)", at, id[:])
	return nil
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
	if f.State != "" && f.State != submission.Delivered {
		w.add("s.state <> 'delivered'") // lets the partial index serve
	}
	w.equal("s.reason", f.Reason)
	if f.SenderHash != nil {
		hashes := make([]any, len(f.SenderHash))
		for i, h := range f.SenderHash {
			hashes[i] = packed(h)
		}
		w.in("s.sender_hash", hashes)
	}
	if f.CaseID != uuid.Nil {
		w.add("s.case_id = ?", f.CaseID[:])
	}
	if f.Destination != "" {
		w.add("instr(s.destinations, ?) > 0", "\n"+f.Destination+"\n")
	}
	if err := w.after(f.After, "s.accepted_at, s.id", "<"); err != nil {
		return nil, "", err
	}
	limit := f.limit()
	err = s.query(ctx, "SELECT s.n, s.body FROM {}submissions s"+w.String()+" ORDER BY s.accepted_at DESC, s.id DESC LIMIT "+strconv.Itoa(limit+1), w.args,
		func(rows *sql.Rows) error {
			e, err := scanEntry(rows)
			if err == nil {
				list = append(list, e.acct)
			}
			return err
		})
	if len(list) > limit {
		list = list[:limit]
		last := list[limit-1]
		next = cursor(millis(last.AcceptedAt), last.ID)
	}
	return list, next, wrap(err)
}

// scanEntry reads the columns n and body, and what follows them into more.
func scanEntry(rows *sql.Rows, more ...any) (*entry, error) {
	var row int64
	var raw sql.RawBytes
	if err := rows.Scan(append([]any{&row, &raw}, more...)...); err != nil {
		return nil, err
	}
	return decodeEntry(row, raw)
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

// union selects what is in a state: what dispatch holds with the columns own,
// deliveries with the columns one. It is "" where the filter leaves nothing.
func (f Filter) union(state submission.State, own, one string) (q string, args []any) {
	common := func(w *where, at string) {
		w.lands("s.land", f.Lands)
		w.equal("s.land", string(f.Land))
		w.equal("s.service", string(f.Service))
		w.equal("s.portal", f.Portal)
		if !f.Before.IsZero() {
			w.add(at+" < ?", millis(f.Before))
		}
	}
	if f.Destination == "" {
		var w where
		// The constant, so that the partial index serves.
		w.add("s.own IN ('dead', 'unassigned') AND s.own = ?", string(state))
		common(&w, "s.updated_at")
		w.equal("s.reason", f.Reason)
		q, args = "SELECT "+own+" FROM {}submissions s"+w.String(), w.args
	}
	if state == submission.Dead {
		var w where
		w.add("d.state = 'dead'")
		common(&w, "d.updated_at")
		w.equal("d.reason", f.Reason)
		w.equal("d.destination", f.Destination)
		if q != "" {
			q += " UNION ALL "
		}
		q += "SELECT " + one + " FROM {}deliveries d JOIN {}submissions s ON s.n = d.submission" + w.String()
		args = append(args, w.args...)
	}
	return q, args
}

func (s *Store) letters(ctx context.Context, state submission.State, f Filter) (list []Letter, next string, err error) {
	q, args := f.union(state, "s.n AS n, s.body AS body, s.updated_at AS at, s.id AS key, FALSE AS one",
		"s.n AS n, s.body AS body, d.updated_at AS at, d.id AS key, TRUE AS one")
	if q == "" {
		return nil, "", nil
	}
	var page where
	if err := page.after(f.After, "at, key", ">"); err != nil {
		return nil, "", err
	}
	limit := f.limit()
	var cursors []string
	q = "SELECT n, body, at, key, one FROM (" + q + ")" + page.String() + " ORDER BY at, key LIMIT " + strconv.Itoa(limit+1)
	err = s.query(ctx, q, append(args, page.args...), func(rows *sql.Rows) error {
		var at int64
		var key uuid.UUID
		var one bool // delivery, not the submission
		e, err := scanEntry(rows, &at, (*rawID)(&key), &one)
		if err != nil {
			return err
		}
		l := letter(e.acct)
		if d := e.acct.Delivery(key); one && d != nil {
			l.of(d)
		}
		list, cursors = append(list, l), append(cursors, cursor(at, key))
		return nil
	})
	if len(list) > limit {
		list, next = list[:limit], cursors[limit-1]
	}
	return list, next, wrap(err)
}

// EachLetter calls fn with everything that is dead or unassigned and that the
// filter names (Limit and After are not looked at), in no order: the account,
// and the dead delivery or nil where dispatch holds it. fn's error ends it.
func (s *Store) EachLetter(ctx context.Context, state submission.State, f Filter, fn func(*submission.Account, *submission.DeliveryAccount) error) error {
	q, args := f.union(state, "s.n AS n, s.body AS body, s.id AS key", "s.n AS n, s.body AS body, d.id AS key")
	if q == "" {
		return nil
	}
	var stop error
	err := s.query(ctx, q, args, func(rows *sql.Rows) error {
		var key uuid.UUID
		e, err := scanEntry(rows, (*rawID)(&key))
		if err != nil {
			return err
		}
		stop = fn(e.acct, e.acct.Delivery(key))
		return stop
	})
	if stop != nil {
		return stop
	}
	return wrap(err)
}

func letter(a *submission.Account) Letter {
	return Letter{Origin: submission.StageDispatch, State: a.Own, Submission: a.ID, CaseID: a.CaseID, Portal: a.Portal, Land: a.Land,
		Service: a.Service, Reason: a.Reason, Detail: a.Detail, Redrives: a.Redrives, At: a.UpdatedAt, Held: a.Held}
}

// of turns it into the letter of one delivery.
func (l *Letter) of(d *submission.DeliveryAccount) {
	l.Origin, l.State, l.DeliveryID, l.Destination, l.Reason, l.Detail = submission.StageDelivery, d.State, d.ID, d.Destination, d.Reason, d.Detail
	l.Attempts, l.Redrives, l.At, l.Held = d.Attempts, d.Redrives, d.UpdatedAt, d.Held
}

// rawID scans an id of sixteen bytes.
type rawID uuid.UUID

// Scan implements sql.Scanner.
func (id *rawID) Scan(v any) error {
	raw, ok := v.([]byte)
	if !ok || len(raw) != len(id) {
		return errBody
	}
	copy(id[:], raw)
	return nil
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
	if err := w.after(f.After, "at, id", ">"); err != nil {
		return nil, "", err
	}
	limit := f.limit()
	var cursors []string
	err = s.query(ctx, "SELECT at, id, json FROM {}refusals"+w.String()+" ORDER BY at, id LIMIT "+strconv.Itoa(limit+1), w.args, func(rows *sql.Rows) error {
		var at int64
		var id uuid.UUID
		var raw []byte
		if err := rows.Scan(&at, (*rawID)(&id), &raw); err != nil {
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
	return s.query(ctx, `SELECT s.n, s.body, d.id FROM {}deliveries d JOIN {}submissions s ON s.n = d.submission
		WHERE d.partition = ? AND `+where+` ORDER BY d.ord, d.id`, []any{partition}, func(rows *sql.Rows) error {
		var id uuid.UUID
		e, err := scanEntry(rows, (*rawID)(&id))
		if err != nil {
			return err
		}
		d := e.acct.Delivery(id)
		if d == nil {
			return fmt.Errorf("delivery %s is not in its account", id)
		}
		fn(Unfinished{DeliveryMeta: e.acct.DeliveryMeta(d), State: d.State, Token: d.Token, Held: d.Held})
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
	found := map[offer]*Count{}
	at := func(k offer) *Count {
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
	err := s.query(ctx, `SELECT land, service, '', n FROM {}accepted WHERE n <> 0
		UNION ALL SELECT land, service, state, n FROM {}counts WHERE n <> 0`, nil, func(rows *sql.Rows) error {
		var k offer
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
	err := s.query(ctx, `SELECT destination, state, n, 0 FROM {}delivery_counts WHERE state NOT IN ('planned', 'superseded')
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
		var c Claim
		var at int64
		err := rows.Scan((*rawID)(&c.ID), &at)
		c.At = fromMillis(at)
		out = append(out, c)
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
