package status

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// The account of acceptance has two sides. One is counted in the submissions
// topic, by the owner of each partition, before it deletes anything: a tally.
// The other is what dispatch copied to events. They are compared at the offset
// in submissions up to which a partition is counted, and both stand in the same
// partition of events; so every replica and every rebuild finds the same, and
// nothing differs for the time being because one side has come further.

// slot is what the account of acceptance is kept by.
type slot struct {
	hour  submission.Hour
	offer offer
}

func slotOf(a *submission.Account) slot { return slot{submission.HourOf(a.AcceptedAt), offerOf(a)} }

// tallied is how far a partition of submissions is counted.
type tallied struct {
	offset int64
	begun  bool
}

// copied is an acceptance of which an event is known, and whose record is not
// counted yet.
type copied struct {
	offset int64
	slot   slot
}

// untold is a counted submission of which no event is known.
type untold struct {
	partition int32
	offset    int64
	slot      slot
}

// sums is one slot of the account.
type sums struct {
	counted int // in the submissions topic
	matched int // events of acceptances whose records are counted
	told    int // events of acceptances
}

// tallying is what the writer keeps in memory of it, as committed. A batch
// changes a copy: the maps are its own, the lists are only appended to beyond
// their ends or replaced.
type tallying struct {
	counted map[int32]tallied
	copies  map[int32][]copied
	untold  map[uuid.UUID]untold
}

func (t tallying) clone() tallying {
	return tallying{maps.Clone(t.counted), maps.Clone(t.copies), t.untold}
}

// toldOf notes the event of an acceptance that took effect.
func (b *batch) toldOf(partition int32, ev *submission.Event) error {
	s := slot{submission.HourOf(ev.Accepted.AcceptedAt), offer{ev.Land, ev.Service}}
	sum := b.sum(s)
	sum.told++
	at := b.tally.counted[partition]
	_, was := b.tally.untold[ev.Submission]
	switch {
	case was: // counted long ago, and dispatched after all
		sum.matched++
		b.tally.untold = maps.Clone(b.tally.untold)
		delete(b.tally.untold, ev.Submission)
		return b.exec(b.g.dropUntold, ev.Submission[:])
	case at.begun && ev.Accepted.Offset < at.offset:
		sum.matched++ // what was counted there did not include it: a difference
	default:
		c := copied{ev.Accepted.Offset, s}
		b.tally.copies[partition] = append(b.tally.copies[partition], c)
		b.copies[partition] = append(b.copies[partition], c)
	}
	return nil
}

func (b *batch) sum(s slot) *sums {
	if b.sums[s] == nil {
		b.sums[s] = &sums{}
	}
	return b.sums[s]
}

// count folds a tally in. One that begins below what is counted already is a
// repeat. One that begins above it, and does not say why, follows one that is
// gone: what that one counted is missing.
func (b *batch) count(partition int32, t *submission.Tally) (bool, error) {
	at := b.tally.counted[partition]
	if t.To < t.From || at.begun && t.From < at.offset {
		return false, nil
	}
	from := at.offset
	if t.Opens || !at.begun {
		from = t.From
	}
	still := func(list []copied) (rest []copied) {
		for _, c := range list {
			if c.offset >= t.To {
				rest = append(rest, c)
			}
		}
		return rest
	}
	for _, c := range b.tally.copies[partition] {
		if c.offset >= from && c.offset < t.To {
			b.sum(c.slot).matched++
		}
	}
	b.tally.copies[partition], b.copies[partition] = still(b.tally.copies[partition]), still(b.copies[partition])
	for _, n := range t.Counts {
		b.sum(slot{n.Hour, offer{n.Land, n.Service}}).counted += n.N
	}
	if len(t.Untold) > 0 {
		b.tally.untold = maps.Clone(b.tally.untold)
	}
	for _, u := range t.Untold {
		b.tally.untold[u.Submission] = untold{partition, u.Offset, slot{u.Hour, offer{u.Land, u.Service}}}
		if err := b.exec(b.g.putUntold, u.Submission[:], partition, u.Offset, int64(u.Hour), string(u.Land), string(u.Service)); err != nil {
			return false, err
		}
	}
	b.tally.counted[partition] = tallied{t.To, true}
	if err := b.exec(b.g.dropCopies, partition, t.To); err != nil {
		return false, err
	}
	return true, b.exec(b.g.putTallied, partition, t.To)
}

// flushTally writes what the batch changed in the account of acceptance.
func (b *batch) flushTally() error {
	for partition, list := range b.copies {
		if len(list) == 0 {
			continue
		}
		raw, last := encodeCopies(list)
		if err := b.exec(b.g.putCopies, partition, last, raw); err != nil {
			return err
		}
	}
	for s, n := range b.sums {
		if err := b.exec(b.g.addHour, int64(s.hour), string(s.offer.land), string(s.offer.service), n.counted, n.matched, n.told); err != nil {
			return err
		}
	}
	return nil
}

func encodeCopies(list []copied) (raw []byte, last int64) {
	w := make(rowWriter, 0, 32*len(list))
	for _, c := range list {
		last = max(last, c.offset)
		w.int(c.offset)
		w.int(int64(c.slot.hour))
		w.text(string(c.slot.offer.land))
		w.text(string(c.slot.offer.service))
	}
	return w, last
}

func decodeCopies(raw []byte) (list []copied, err error) {
	r := rowReader{b: raw}
	for len(r.b) > 0 {
		list = append(list, copied{r.int(), slot{submission.Hour(r.int()), offer{submission.Land(r.text()), submission.Service(r.text())}}})
	}
	if r.failed {
		return nil, errBody
	}
	return list, nil
}

// loadTally reads what the writer keeps in memory of the account of acceptance.
func (g *generation) loadTally(db *sql.DB) error {
	g.tally = tallying{map[int32]tallied{}, map[int32][]copied{}, map[uuid.UUID]untold{}}
	rows, err := db.Query(g.sql(`SELECT partition, offset FROM {}tallied`))
	if err != nil {
		return err
	}
	err = scan(rows, func(rows *sql.Rows) error {
		var p int32
		at := tallied{begun: true}
		err := rows.Scan(&p, &at.offset)
		g.tally.counted[p] = at
		return err
	})
	if err != nil {
		return err
	}
	if rows, err = db.Query(g.sql(`SELECT partition, data FROM {}copies ORDER BY n`)); err != nil {
		return err
	}
	err = scan(rows, func(rows *sql.Rows) error {
		var p int32
		var raw []byte
		if err := rows.Scan(&p, &raw); err != nil {
			return err
		}
		list, err := decodeCopies(raw)
		at := g.tally.counted[p]
		for _, c := range list {
			if !at.begun || c.offset >= at.offset {
				g.tally.copies[p] = append(g.tally.copies[p], c)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	if rows, err = db.Query(g.sql(`SELECT id, partition, offset, hour, land, service FROM {}untold`)); err != nil {
		return err
	}
	return scan(rows, func(rows *sql.Rows) error {
		var id uuid.UUID
		var u untold
		err := rows.Scan((*rawID)(&id), &u.partition, &u.offset, &u.slot.hour, &u.slot.offer.land, &u.slot.offer.service)
		g.tally.untold[id] = u
		return err
	})
}

// appended is a submission's record as the projection read it.
type appended struct {
	offset int64
	id     uuid.UUID
	slot   slot
}

// recentLimit bounds what is kept of a partition of submissions until it is
// counted; beyond it the log is asked again.
const recentLimit = 16_384

// recent keeps what the projection read of one partition of submissions from an
// offset up to another, so that counting need not read it again.
type recent struct {
	from, to int64
	list     []appended
}

// take adds what was read from an offset up to another. What is too much is not
// kept, nor what comes behind that.
func (r *recent) take(list []appended, from, to int64) {
	if r.to == from && len(r.list)+len(list) <= recentLimit {
		r.list, r.to = append(r.list, list...), to
	}
}

// drop forgets what lies below an offset. What was not kept beyond it is left
// out from now on: read is how far the projection is.
func (r *recent) drop(below, read int64) {
	n := 0
	for n < len(r.list) && r.list[n].offset < below {
		n++
	}
	r.list, r.from = append([]appended(nil), r.list[n:]...), max(r.from, below)
	if r.from >= r.to && r.to < read {
		r.from, r.to = read, read
	}
}

// publishTally shows what the batch did to the account of acceptance.
func (b *batch) publishTally() {
	for src := range b.touched {
		if src.topic == TopicSubmissions {
			b.g.recentOf(src.partition).take(b.appended[src.partition], b.g.offsets[src], b.offsets[src])
		}
	}
	for p, at := range b.tally.counted {
		if at != b.g.tally.counted[p] {
			b.g.recentOf(p).drop(at.offset, b.offsets[source{TopicSubmissions, p}])
		}
	}
	b.g.tally = b.tally
}

func (g *generation) recentOf(p int32) *recent {
	r := g.recent[p]
	if r == nil {
		at := g.offsets[source{TopicSubmissions, p}]
		r = &recent{from: at, to: at}
		g.recent[p] = r
	}
	return r
}

// tallyRecords bounds what one tally counts, and so how large its event is.
const tallyRecords = 4096

// Tally counts the submissions whose records lie in a partition of the
// submissions topic between what is counted already and below, at most some
// thousand records; nil where there is nothing to count. Everything that
// dispatch says of the records below that offset has to be projected: then what
// no event knows was passed by dispatch. Whoever owns dispatch's partition
// appends it as an event, and deletes no record before that is projected.
func (p *Projector) Tally(ctx context.Context, partition int32, below int64) (*submission.Tally, error) {
	oldest, newest, err := p.Log.Offsets(ctx, TopicSubmissions)
	if err != nil {
		return nil, err
	}
	if int(partition) >= len(newest) {
		return nil, nil
	}
	s := p.store
	s.write.Lock()
	g := s.activeGeneration()
	known, at := g.tally, g.tally.counted[partition]
	copies := known.copies[partition]
	known.untold = maps.Clone(known.untold)
	kept := recent{}
	if r := g.recent[partition]; r != nil {
		kept = *r
	}
	s.write.Unlock()

	t := &submission.Tally{From: max(at.offset, oldest[partition])}
	t.Opens = !at.begun || t.From > at.offset
	t.To = min(below, newest[partition], t.From+tallyRecords)
	if t.To <= t.From {
		return nil, nil
	}
	told := make(map[int64]struct{}, len(copies))
	for _, c := range copies {
		told[c.offset] = struct{}{}
	}
	counts := map[slot]int{}
	err = p.appended(ctx, partition, t.From, t.To, kept, func(a appended) error {
		if _, ok := told[a.offset]; !ok {
			// A repeat, or passed by dispatch.
			e, err := s.entry(a.id, hasCopied)
			if err != nil {
				return wrap(err)
			}
			if e != nil && e.acct.Copied {
				return nil
			}
			if _, ok := known.untold[a.id]; ok {
				return nil
			}
			known.untold[a.id] = untold{}
			t.Untold = append(t.Untold, submission.Untold{Submission: a.id, Offset: a.offset, Hour: a.slot.hour, Land: a.slot.offer.land, Service: a.slot.offer.service})
		}
		counts[a.slot]++
		return nil
	})
	if err != nil {
		return nil, err
	}
	for s, n := range counts {
		t.Counts = append(t.Counts, submission.Tallied{Hour: s.hour, Land: s.offer.land, Service: s.offer.service, N: n})
	}
	slices.SortFunc(t.Counts, func(x, y submission.Tallied) int {
		return cmp.Or(cmp.Compare(x.Hour, y.Hour), cmp.Compare(x.Land, y.Land), cmp.Compare(x.Service, y.Service))
	})
	return t, nil
}

// appended calls fn with every submission's record from an offset up to another,
// those that were kept and those that are read again.
func (p *Projector) appended(ctx context.Context, partition int32, from, to int64, kept recent, fn func(appended) error) error {
	read := func(from, to int64) error {
		if from >= to {
			return nil
		}
		return p.Log.ReadTo(ctx, TopicSubmissions, partition, from, to, func(r *bus.Record) error {
			i := item{r: r}
			if i.readSubmission(); i.meta == nil {
				return nil
			}
			return fn(appendedOf(&i))
		})
	}
	if kept.from >= kept.to {
		return read(from, to)
	}
	if err := read(from, min(to, kept.from)); err != nil {
		return err
	}
	for _, a := range kept.list {
		if a.offset >= from && a.offset < to {
			if err := fn(a); err != nil {
				return err
			}
		}
	}
	return read(max(from, kept.to), to)
}

func appendedOf(i *item) appended {
	m := i.meta
	return appended{i.r.Offset, m.ID, slot{submission.HourOf(m.AcceptedAt), offer{m.Land, m.Service}}}
}

// CountedBelow returns the offset in a partition of the submissions topic below
// which no record is needed any more to know what was accepted: everything below
// is counted, and nothing there is a submission that dispatch passed without a
// word. 0 before the first tally.
func (s *Store) CountedBelow(partition int32) int64 {
	s.write.Lock()
	defer s.write.Unlock()
	t := s.activeGeneration().tally
	low := t.counted[partition].offset
	for _, u := range t.untold {
		if u.partition == partition {
			low = min(low, u.offset)
		}
	}
	return low
}
