package status

import (
	"database/sql"
	"strings"

	"github.com/google/uuid"
	"github.com/klauspost/compress/s2"

	"weiche/internal/submission"
)

func (b *batch) stmt(s *sql.Stmt) *sql.Stmt {
	t := b.stmts[s]
	if t == nil {
		t = b.tx.Stmt(s)
		b.stmts[s] = t
	}
	return t
}

func (b *batch) exec(s *sql.Stmt, args ...any) error {
	_, err := b.stmt(s).Exec(args...)
	return err
}

// insert writes rows, their values one after another, many with a statement.
func (b *batch) insert(p pair, args []any) error {
	for n := many * p.width; len(args) >= n; args = args[n:] {
		if err := b.exec(p.many, args[:n]...); err != nil {
			return err
		}
	}
	for ; len(args) > 0; args = args[p.width:] {
		if err := b.exec(p.one, args[:p.width]...); err != nil {
			return err
		}
	}
	return nil
}

// inLists calls fn with the statement of a pair and its list, until all values
// had their turn. A list that is not full ends in NULLs, which equal nothing.
func (b *batch) inLists(p pair, values []any, fn func(*sql.Stmt, []any) error) error {
	for len(values) > 0 {
		stmt, n := b.stmt(p.many), min(many, len(values))
		list := values[:n]
		switch {
		case n == 1:
			stmt = b.stmt(p.one)
		case n < many:
			list = append(make([]any, 0, many), list...)[:many]
		}
		if err := fn(stmt, list); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}

// changes is what a batch does to the tables, gathered.
type changes struct {
	submissions, deliveries, claimed []any
	accepted                         map[offer]int
	counts                           map[counted]int
	hours                            map[hourly]int
	deliveryCounts                   map[delivered]int
}

// hourly is a state in an hour of acceptance; undispatched is that of what no
// event is known of.
type hourly struct {
	slot  slot
	state submission.State
}

const undispatched submission.State = ""

func hourlyOf(a *submission.Account) hourly {
	if !a.Copied {
		return hourly{slotOf(a), undispatched}
	}
	return hourly{slotOf(a), a.State}
}

// Beside their states, deliveries are counted by what decisions planned, and
// what later decisions made void.
const (
	planned    submission.State = "planned"
	superseded submission.State = "superseded"
)

// offer is a service in a Land.
type offer struct {
	land    submission.Land
	service submission.Service
}

func offerOf(a *submission.Account) offer { return offer{a.Land, a.Service} }

type counted struct {
	offer offer
	state submission.State
}

type delivered struct {
	destination string
	state       submission.State
}

// flush writes what the batch changed.
func (b *batch) flush() error {
	c := &changes{accepted: map[offer]int{}, counts: map[counted]int{}, hours: map[hourly]int{}, deliveryCounts: b.planned}
	for _, w := range b.order {
		if !w.dirty {
			continue
		}
		if err := b.write(w, c); err != nil {
			return err
		}
	}
	if err := b.insert(b.g.putSubmission, c.submissions); err != nil {
		return err
	}
	if err := b.insert(b.g.putDelivery, c.deliveries); err != nil {
		return err
	}
	if err := b.flushClaims(c.claimed); err != nil {
		return err
	}
	if err := b.flushSegments(); err != nil {
		return err
	}
	if err := b.flushCounts(c); err != nil {
		return err
	}
	if err := b.flushTally(); err != nil {
		return err
	}
	for src := range b.touched {
		t := b.tips[src.partition]
		if src.topic != TopicEvents {
			t = tip{}
		}
		if err := b.exec(b.g.putOffset, src.topic, src.partition, b.offsets[src], t.link, t.quiet); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) write(w *work, c *changes) error {
	a := w.now.acct
	sender := packed(a.SenderHash)
	switch {
	case w.was == nil:
		b.rows++
		w.now.row = b.rows
		c.submissions = append(c.submissions, w.now.row, w.id[:], a.CaseID[:], a.Portal, string(a.Land), string(a.Service), string(a.State), string(a.Own),
			a.Reason, millis(a.AcceptedAt), millis(a.UpdatedAt), sender, destinations(a), w.now.body())
		if b.g.claims.may(w.id) {
			c.claimed = append(c.claimed, w.id[:])
		}
	case sameAcceptance(w.was.acct, a):
		if err := b.exec(b.g.setState, string(a.State), string(a.Own), a.Reason, millis(a.UpdatedAt), destinations(a), w.now.body(), w.now.row); err != nil {
			return err
		}
	default:
		if err := b.exec(b.g.setSubmission, a.CaseID[:], a.Portal, string(a.Land), string(a.Service), string(a.State), string(a.Own), a.Reason,
			millis(a.AcceptedAt), millis(a.UpdatedAt), sender, destinations(a), w.now.body(), w.now.row); err != nil {
			return err
		}
	}
	was := &submission.Account{}
	if w.was != nil {
		was = w.was.acct
	}
	c.count(was, a)
	if err := b.writeEdits(w, was); err != nil {
		return err
	}
	return b.writeDeliveries(w, was, c)
}

// sameAcceptance says that only states may have changed.
func sameAcceptance(x, y *submission.Account) bool {
	return x.CaseID == y.CaseID && x.Portal == y.Portal && x.Land == y.Land && x.Service == y.Service &&
		x.AcceptedAt.Equal(y.AcceptedAt) && x.SenderHash == y.SenderHash
}

// packed is a hash as it stands in a column: hex digits as bytes, which take
// half the room. NULL: none.
func packed(hash string) any {
	if hash == "" {
		return nil
	}
	if raw, ok := unhex(hash); ok {
		return raw
	}
	return []byte(hash)
}

// destinations lists the present deliveries' destinations, each between line
// feeds, so that one can be searched for.
func destinations(a *submission.Account) string {
	if len(a.Deliveries) == 1 {
		return "\n" + a.Deliveries[0].Destination + "\n"
	}
	var s strings.Builder
	for _, d := range a.Deliveries {
		s.WriteString("\n" + d.Destination + "\n")
	}
	return s.String()
}

// count moves a submission from one count to the other. How many were accepted
// is counted apart from their states.
func (c *changes) count(was, now *submission.Account) {
	from, to := counted{offerOf(was), was.State}, counted{offerOf(now), now.State}
	if was.Known() && from != to {
		c.counts[from]--
	}
	if !was.Known() || from != to {
		c.counts[to]++
	}
	if f, t := hourlyOf(was), hourlyOf(now); !was.Known() || f != t {
		c.hours[t]++
		if was.Known() {
			c.hours[f]--
		}
	}
	if was.Known() && from.offer != to.offer {
		c.accepted[from.offer]--
	}
	if !was.Known() || from.offer != to.offer {
		c.accepted[to.offer]++
	}
}

// open says whether a delivery has a row: it waits, is dead, or was redriven or has
// taken a dead one's place in its case and nothing is told since. What else is on
// its way or done is found by its submission.
func open(d *submission.DeliveryAccount) bool {
	return d.State == submission.Waiting || d.State == submission.Dead || holds(d)
}

// holds says whether a delivery that nothing is told of holds its case as the dead
// one did before it.
func holds(d *submission.DeliveryAccount) bool {
	return d.State == submission.InFlight && (d.Redrives > 0 || d.Replaces)
}

func (b *batch) writeDeliveries(w *work, was *submission.Account, c *changes) error {
	for _, old := range was.Deliveries {
		now := w.now.acct.Delivery(old.ID)
		if now == nil || now.State != old.State {
			c.deliveryCounts[delivered{old.Destination, old.State}]--
		}
		if open(old) && (now == nil || !open(now)) {
			if err := b.exec(b.g.dropDelivery, w.now.row, old.ID[:]); err != nil {
				return err
			}
		}
	}
	for _, d := range w.now.acct.Deliveries {
		old := was.Delivery(d.ID)
		if old == nil || old.State != d.State {
			c.deliveryCounts[delivered{d.Destination, d.State}]++
		}
		if !open(d) || old != nil && old.State == d.State && old.Redrives == d.Redrives && old.UpdatedAt.Equal(d.UpdatedAt) && old.Order == d.Order &&
			old.Reason == d.Reason && w.was.partition == w.now.partition {
			continue
		}
		since := int64(0)
		if d.WaitingSince != nil {
			since = millis(*d.WaitingSince)
		}
		c.deliveries = append(c.deliveries, w.now.row, d.ID[:], w.now.partition, d.Destination, string(d.State), d.Reason, d.Order, since, millis(d.UpdatedAt))
	}
	return nil
}

// flushClaims keeps the claims of which no submission is known, and drops those
// of the submissions that came.
func (b *batch) flushClaims(came []any) error {
	err := b.inLists(b.g.dropClaims, came, func(stmt *sql.Stmt, list []any) error {
		_, err := stmt.Exec(list...)
		return err
	})
	if err != nil {
		return err
	}
	var open []any
	for id, at := range b.claims {
		if !b.works[id].now.acct.Known() {
			b.g.claims.add(id)
			open = append(open, id[:], at)
		}
	}
	return b.insert(b.g.putClaim, open)
}

// claimed is what may stand in the table of claims, so that a submission whose
// claim came with it asks for no deletion: nothing is missing in it, some may
// be gone from the table. The zero value, and one that was full, knows nothing.
type claimed map[uuid.UUID]struct{}

const claimedLimit = 100_000

func (c *claimed) may(id uuid.UUID) bool {
	_, ok := (*c)[id]
	return ok || *c == nil
}

func (c *claimed) add(id uuid.UUID) {
	if len(*c) >= claimedLimit {
		*c = nil
	}
	if *c != nil {
		(*c)[id] = struct{}{}
	}
}

func (b *batch) flushSegments() error {
	for partition, list := range b.segments {
		for _, s := range list {
			// Hashes and offsets do not compress; the JSON around the events does.
			if err := b.exec(b.g.putSegment, segmentKey(partition, s.first), s.links, s2.Encode(nil, s.data)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *batch) flushCounts(c *changes) error {
	for k, n := range c.accepted {
		if err := b.exec(b.g.addAccepted, string(k.land), string(k.service), n); err != nil {
			return err
		}
	}
	for k, n := range c.counts {
		if n == 0 {
			continue
		}
		if err := b.exec(b.g.addCount, string(k.offer.land), string(k.offer.service), string(k.state), n); err != nil {
			return err
		}
	}
	for k, n := range c.hours {
		if n == 0 {
			continue
		}
		if err := b.exec(b.g.addHourly, int64(k.slot.hour), string(k.slot.offer.land), string(k.slot.offer.service), string(k.state), n); err != nil {
			return err
		}
	}
	for k, n := range c.deliveryCounts {
		if n == 0 {
			continue
		}
		if err := b.exec(b.g.addDeliveryCount, k.destination, string(k.state), n); err != nil {
			return err
		}
	}
	return nil
}
