package status

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/submission"
)

// Outcome says what a call of Project met.
type Outcome struct {
	Undecodable []Place // records nobody can read, passed
	Tampering   []Tampering
}

// Place names a record.
type Place struct {
	Topic     string
	Partition int32
	Offset    int64
	What      string // why, without content
}

// Verify checks a compact JWS and returns its payload.
type Verify func(jws string) ([]byte, error)

// Project folds records in, with their offsets, in one transaction. Records
// that were projected before change nothing. Records of one partition must come
// in the order of the log. verify may be nil: then checkpoints' signatures are
// not checked, only their hashes.
func (s *Store) Project(ctx context.Context, verify Verify, recs ...*bus.Record) (Outcome, error) {
	s.write.Lock()
	defer s.write.Unlock()
	g := s.activeGeneration()
	out, err := s.project(ctx, g, verify, recs)
	if err == nil {
		s.progress.advance(g.offsets, g.epochs)
	}
	return out, err
}

func (s *Store) project(ctx context.Context, g *generation, verify Verify, recs []*bus.Record) (Outcome, error) {
	if ctx.Err() != nil {
		return Outcome{}, ctx.Err()
	}
	b := newBatch(g, verify)
	if err := b.read(recs); err != nil {
		return Outcome{}, fmt.Errorf("status store: %w", err)
	}
	tx, err := s.w.Begin()
	if err != nil {
		return Outcome{}, fmt.Errorf("status store: %w", err)
	}
	b.tx = tx
	if err := b.run(); err != nil {
		return Outcome{}, fmt.Errorf("status store: %w", errors.Join(err, tx.Rollback()))
	}
	if err := tx.Commit(); err != nil {
		return Outcome{}, fmt.Errorf("status store: %w", err)
	}
	failpoint.Hit("status.projected")
	b.publish()
	return b.out, nil
}

// batch is one transaction of the projection. It reads the records, finds the
// accounts they are about, folds them in memory and writes once what became of
// each account.
type batch struct {
	g      *generation
	tx     *sql.Tx
	stmts  map[*sql.Stmt]*sql.Stmt
	verify Verify
	out    Outcome

	items    []item
	works    map[uuid.UUID]*work
	order    []*work // as they were met first
	claims   map[uuid.UUID]int64
	segments map[int32][]*segment

	offsets map[source]int64
	tips    map[int32]tip
	epochs  map[epochKey]epoch
	rows    int64
	touched map[source]bool

	tally    tallying
	copies   map[int32][]copied // new ones
	appended map[int32][]appended
	sums     map[slot]*sums
	planned  map[delivered]int // deliveries by planned or superseded
}

// item is a record that was read; id is what it is about.
type item struct {
	r     *bus.Record
	id    uuid.UUID
	event *submission.Event
	meta  *submission.Meta
	wrong string // why it cannot be read
}

// work is one submission in the batch.
type work struct {
	id    uuid.UUID
	was   *entry // as committed, nil where it has no row
	now   entry
	own   bool // now's account is ours to change
	dirty bool
}

func newBatch(g *generation, verify Verify) *batch {
	return &batch{g: g, verify: verify, stmts: map[*sql.Stmt]*sql.Stmt{}, works: map[uuid.UUID]*work{}, claims: map[uuid.UUID]int64{},
		segments: map[int32][]*segment{}, offsets: maps.Clone(g.offsets), tips: maps.Clone(g.tips), epochs: maps.Clone(g.epochs), rows: g.rows,
		touched: map[source]bool{}, tally: g.tally.clone(), copies: map[int32][]copied{}, appended: map[int32][]appended{}, sums: map[slot]*sums{},
		planned: map[delivered]int{}}
}

// read decodes the records that were not projected before.
func (b *batch) read(recs []*bus.Record) error {
	b.items = make([]item, 0, len(recs))
	events := make([]submission.Event, 0, len(recs))
	for _, r := range recs {
		src := source{r.Topic, r.Partition}
		if r.Offset < b.offsets[src] {
			continue
		}
		i := item{r: r}
		switch r.Topic {
		case TopicEvents:
			events = events[:len(events)+1]
			i.readEvent(&events[len(events)-1])
		case TopicSubmissions:
			i.readSubmission()
		case TopicClaims:
			i.readClaim()
		default:
			return fmt.Errorf("topic %s is not projected", r.Topic)
		}
		b.items = append(b.items, i)
		b.offsets[src], b.touched[src] = r.Offset+1, true
	}
	return nil
}

func (i *item) readEvent(to *submission.Event) {
	ev, err := decode(i.r)
	if err != nil {
		i.wrong = err.Error()
		return
	}
	*to = ev
	i.id, i.event = ev.Submission, to
}

func (i *item) readSubmission() {
	if i.r.Headers[submission.HeaderType] == submission.TypeControl {
		return // an order about a submission that is known
	}
	m, err := submission.ParseMeta(i.r.Headers)
	if err != nil {
		i.wrong = err.Error()
		return
	}
	i.id, i.meta = m.ID, &m
}

func (i *item) readClaim() {
	id, err := uuid.ParseBytes(i.r.Key)
	if err != nil {
		i.wrong = "key is not a UUID"
		return
	}
	i.id = id
}

// The version headers that this release reads.
var versions = [...]string{fmt.Sprint(submission.RecordVersion), fmt.Sprint(submission.RecordVersion - 1)}

// decode reads an event's record. A missing version header is one of a record
// that nobody of this project wrote.
func decode(r *bus.Record) (submission.Event, error) {
	if v := r.Headers[submission.HeaderVersion]; v != versions[0] && v != versions[1] {
		return submission.Event{}, errors.New("record version is missing or unknown")
	}
	e, err := submission.DecodeEvent(r.Value)
	if err != nil {
		// The decoder's own text may quote the record.
		return submission.Event{}, errors.New("value is not an event")
	}
	return e, nil
}

func (b *batch) run() error {
	if err := b.find(); err != nil {
		return err
	}
	for i := range b.items {
		if err := b.fold(&b.items[i]); err != nil {
			return err
		}
	}
	return b.flush()
}

// find looks up whatever the records are about, what is not in memory with few
// questions.
func (b *batch) find() error {
	var ask []any
	for i := range b.items {
		id := b.items[i].id
		if id == uuid.Nil || b.works[id] != nil {
			continue
		}
		w := b.meet(id)
		if e := b.g.cache.get(id); e != nil {
			w.take(e)
		} else if b.g.known.maybe(id, hasRow) {
			ask = append(ask, id[:])
		}
	}
	return b.inLists(b.g.findEntries, ask, func(stmt *sql.Stmt, list []any) error {
		rows, err := stmt.Query(list...)
		if err != nil {
			return err
		}
		return scan(rows, func(rows *sql.Rows) error {
			var id, raw sql.RawBytes
			var row int64
			if err := rows.Scan(&id, &row, &raw); err != nil {
				return err
			}
			e, err := decodeEntry(row, raw)
			if err != nil {
				return err
			}
			b.works[uuid.UUID(id)].take(e)
			return nil
		})
	})
}

func (b *batch) meet(id uuid.UUID) *work {
	w := &work{id: id, own: true, now: entry{acct: &submission.Account{}}}
	b.works[id] = w
	b.order = append(b.order, w)
	return w
}

func (w *work) take(e *entry) { w.was, w.now, w.own = e, *e, false }

func (b *batch) fold(i *item) error {
	switch {
	case i.r.Topic == TopicEvents:
		return b.event(i)
	case i.wrong != "":
		return b.undecodable(i)
	case i.r.Topic == TopicClaims:
		b.claim(i)
	case i.meta != nil:
		b.submission(i)
	}
	return nil
}

func (b *batch) undecodable(i *item) error {
	b.out.Undecodable = append(b.out.Undecodable, Place{i.r.Topic, i.r.Partition, i.r.Offset, i.wrong})
	return b.exec(b.g.putUndecodable, i.r.Topic, i.r.Partition, i.r.Offset)
}

// submission notes an acceptance that dispatch may not have copied yet.
func (b *batch) submission(i *item) {
	w, p := b.works[i.id], i.r.Partition
	b.appended[p] = append(b.appended[p], appendedOf(i))
	if !w.now.acct.Known() {
		w.now.acct.Accept(*i.meta)
		w.now.partition, w.dirty = p, true
	}
}

func (b *batch) claim(i *item) {
	at := i.r.Time
	if t, err := time.Parse(time.RFC3339Nano, i.r.Headers[submission.HeaderTime]); err == nil {
		at = t
	}
	if _, again := b.claims[i.id]; !again {
		b.claims[i.id] = millis(at)
	}
}

func (b *batch) event(i *item) error {
	r := i.r
	last := b.tips[r.Partition]
	next := tip{link: chain(last.link, r)}
	defer func() { b.tips[r.Partition] = next }()
	p := b.copy(r, next.link)
	if i.wrong != "" {
		return b.undecodable(i)
	}
	ev := i.event
	next.quiet = ev.Type == submission.EventCheckpoint
	key := epochKey{ev.Stage, r.Partition}
	current := b.epochs[key]
	switch {
	case ev.Type == submission.EventOwner && ev.Epoch > current.n:
		p.effect = effectChanged
		b.epochs[key] = epoch{ev.Epoch, ev.ID.String()}
		if err := b.exec(b.g.putEpoch, ev.Stage, r.Partition, ev.Epoch, ev.ID.String()); err != nil {
			return err
		}
	case ev.Type == submission.EventOwner || ev.Epoch < current.n && ev.Type != submission.EventCheckpoint:
		p.effect = effectSuperseded
	case ev.Type == submission.EventCheckpoint:
		if err := b.checkpoint(r, *ev); err != nil {
			return err
		}
	case ev.Type == submission.EventRefused:
		p.effect = effectChanged
		if err := b.exec(b.g.putRefusal, r.Partition, r.Offset, ev.ID[:], millis(ev.At), ev.Stage, ev.Portal, ev.Land, ev.Service, ev.Reason, r.Value); err != nil {
			return err
		}
	case ev.Type == submission.EventCounted && ev.Counted != nil:
		took, err := b.count(r.Partition, ev.Counted)
		if err != nil {
			return err
		}
		if took {
			p.effect = effectChanged
		}
	case ev.Submission != uuid.Nil:
		if err := b.apply(b.works[i.id], ev, &p); err != nil {
			return err
		}
	}
	if ev.Submission == uuid.Nil {
		return nil
	}
	return b.note(b.works[i.id], p)
}

// apply folds an event into its account, and notes what was accepted, planned
// and superseded by it.
func (b *batch) apply(w *work, ev *submission.Event, p *place) error {
	before := w.now.acct.Deliveries
	if w.apply(*ev, p); p.effect != effectChanged {
		return nil
	}
	if ev.Type == submission.EventAccepted {
		return b.toldOf(p.partition, ev)
	}
	if ev.DeliveryID != uuid.Nil {
		return nil
	}
	if ev.Type == submission.EventDecided {
		for i := range ev.Decision.Deliveries {
			b.planned[delivered{ev.Decision.Deliveries[i].Destination, planned}]++
		}
	}
	for _, d := range before {
		if w.now.acct.Delivery(d.ID) == nil {
			b.planned[delivered{d.Destination, superseded}]++
		}
	}
	return nil
}

func (w *work) apply(ev submission.Event, p *place) {
	if !w.own {
		w.now.acct, w.own = w.now.acct.Clone(), true
	}
	if w.now.acct.Apply(ev) {
		p.effect, w.dirty = effectChanged, true
		if w.now.partition != p.partition {
			w.now.partition, w.now.next = p.partition, p.offset
		}
	}
}

// note writes an event into the story of its submission, whether it took effect
// or not. What is told of a submission nobody knows strays.
func (b *batch) note(w *work, p place) error {
	if !w.now.acct.Known() {
		return b.exec(b.g.putStray, w.id[:], p.append(nil))
	}
	if w.was != nil && len(w.now.story) == len(w.was.story) {
		w.now.story = append(make([]byte, 0, len(w.was.story)+32), w.was.story...)
	}
	w.now.story, w.dirty = p.append(w.now.story), true
	if p.partition == w.now.partition {
		w.now.next = p.offset + 1
	}
	return nil
}

// copy puts an event into the store's copy of its partition.
func (b *batch) copy(r *bus.Record, link []byte) place {
	list := b.segments[r.Partition]
	if len(list) == 0 || !list[len(list)-1].takes(r) {
		list = append(list, &segment{first: r.Offset})
		b.segments[r.Partition] = list
	}
	s := list[len(list)-1]
	p := place{partition: r.Partition, offset: r.Offset, segment: s.first, at: len(s.data), size: len(r.Value)}
	s.add(r, link)
	return p
}

func (b *batch) checkpoint(r *bus.Record, ev submission.Event) error {
	if ev.Checkpoint == nil {
		return b.tampering(Tampering{r.Partition, r.Offset, 0, "the checkpoint is empty"})
	}
	link, err := b.linkBelow(r.Partition, ev.Checkpoint.Offset)
	if err != nil {
		return err
	}
	if what := checkCheckpoint(r.Partition, *ev.Checkpoint, link, b.verify); what != "" {
		return b.tampering(Tampering{r.Partition, r.Offset, ev.Checkpoint.Offset, what})
	}
	return nil
}

// linkBelow returns the running hash over what lies below an offset.
func (b *batch) linkBelow(partition int32, below int64) ([]byte, error) {
	list := b.segments[partition]
	for i := len(list) - 1; i >= 0; i-- {
		if link := linkBelow(list[i].first, list[i].links, below); link != nil {
			return link, nil
		}
	}
	var n int64
	var links []byte
	err := b.stmt(b.g.linksAt).QueryRow(segmentKey(partition, 0), segmentKey(partition, max(0, below))).Scan(&n, &links)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return linkBelow(n-segmentKey(partition, 0), links, below), err
}

func (b *batch) tampering(t Tampering) error {
	b.out.Tampering = append(b.out.Tampering, t)
	return b.exec(b.g.putTampering, t.Partition, t.Offset, t.Covered, t.What)
}

// publish shows readers what was committed. The progress is told after that:
// who waited for it finds it.
func (b *batch) publish() {
	g := b.g
	for _, w := range b.order {
		if !w.dirty {
			continue
		}
		e := w.now
		g.cache.put(w.id, &e)
		if w.was == nil {
			g.known.add(w.id, hasRow)
			delete(g.claims, w.id)
		}
		if e.acct.Copied && (w.was == nil || !w.was.acct.Copied) {
			g.known.add(w.id, hasCopied)
		}
	}
	b.publishTally()
	g.offsets, g.tips, g.epochs, g.rows = b.offsets, b.tips, b.epochs, b.rows
}

// Tampering is a place where the log does not agree with what was signed.
type Tampering struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`  // of the checkpoint
	Covered   int64  `json:"covered"` // the checkpoint speaks of the events below
	What      string `json:"what"`
}

// statement is what a checkpoint's JWS signs.
type statement struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Hash      string `json:"hash"`
}

// checkCheckpoint returns what is wrong with a checkpoint, "" if nothing is.
func checkCheckpoint(partition int32, c submission.Checkpoint, link []byte, verify Verify) string {
	if verify != nil {
		payload, err := verify(c.JWS)
		if err != nil {
			return "the checkpoint's signature is not ours"
		}
		var s statement
		if json.Unmarshal(payload, &s) != nil || s != (statement{TopicEvents, partition, c.Offset, c.Hash}) {
			return "the checkpoint is signed for something else"
		}
	}
	if hex.EncodeToString(link) != c.Hash {
		return "the events below the checkpoint are not those that were signed"
	}
	return ""
}
