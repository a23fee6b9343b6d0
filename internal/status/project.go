package status

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
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
	s.mu.RLock()
	g := s.active
	s.mu.RUnlock()
	out, err := s.project(ctx, g, verify, recs)
	if err == nil {
		s.progress.advance(g.offsets, g.epochs)
	}
	return out, err
}

func (s *Store) project(ctx context.Context, g *generation, verify Verify, recs []*bus.Record) (out Outcome, err error) {
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	tx, err := s.w.Begin()
	if err != nil {
		return out, fmt.Errorf("status store: %w", err)
	}
	b := &batch{g: g, tx: tx, verify: verify, accounts: map[uuid.UUID]*entry{}, stmts: map[*sql.Stmt]*sql.Stmt{},
		offsets: maps.Clone(g.offsets), chains: maps.Clone(g.chains), epochs: maps.Clone(g.epochs), touched: map[source]bool{}}
	for _, r := range recs {
		if err = b.record(r); err != nil {
			break
		}
	}
	if err == nil {
		err = b.flush()
	}
	if err != nil {
		return out, fmt.Errorf("status store: %w", errors.Join(err, tx.Rollback()))
	}
	if err = tx.Commit(); err != nil {
		return out, fmt.Errorf("status store: %w", err)
	}
	failpoint.Hit("status.projected")
	g.offsets, g.chains, g.epochs = b.offsets, b.chains, b.epochs
	return b.out, nil
}

// batch is one transaction of the projection.
type batch struct {
	g        *generation
	tx       *sql.Tx
	stmts    map[*sql.Stmt]*sql.Stmt
	verify   Verify
	accounts map[uuid.UUID]*entry
	offsets  map[source]int64
	chains   map[int32][]byte
	epochs   map[epochKey]epoch
	touched  map[source]bool
	out      Outcome
}

// entry is one account in the batch, with what the tables say of it now.
type entry struct {
	acct       *submission.Account
	partition  int32
	dirty      bool
	was        submission.State
	deliveries map[uuid.UUID]submission.DeliveryAccount
}

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

func (b *batch) record(r *bus.Record) error {
	src := source{r.Topic, r.Partition}
	if r.Offset < b.offsets[src] {
		return nil
	}
	var err error
	switch r.Topic {
	case TopicEvents:
		err = b.event(r)
	case TopicSubmissions:
		err = b.submission(r)
	case TopicClaims:
		err = b.claim(r)
	default:
		return fmt.Errorf("topic %s is not projected", r.Topic)
	}
	b.offsets[src], b.touched[src] = r.Offset+1, true
	return err
}

func (b *batch) undecodable(r *bus.Record, what string) error {
	b.out.Undecodable = append(b.out.Undecodable, Place{r.Topic, r.Partition, r.Offset, what})
	return b.exec(b.g.putUndecodable, r.Topic, r.Partition, r.Offset)
}

// submission notes an acceptance that dispatch may not have copied yet.
func (b *batch) submission(r *bus.Record) error {
	if r.Headers[submission.HeaderType] == submission.TypeControl {
		return nil // an order about a submission that is known
	}
	m, err := submission.ParseMeta(r.Headers)
	if err != nil {
		return b.undecodable(r, err.Error())
	}
	e, err := b.account(m.ID, r.Partition)
	if err != nil {
		return err
	}
	if !e.acct.Known() {
		e.acct.Accept(m)
		e.partition, e.dirty = r.Partition, true
	}
	return nil
}

func (b *batch) claim(r *bus.Record) error {
	id, err := uuid.ParseBytes(r.Key)
	if err != nil {
		return b.undecodable(r, "key is not a UUID")
	}
	at := r.Time
	if t, err := time.Parse(time.RFC3339Nano, r.Headers[submission.HeaderTime]); err == nil {
		at = t
	}
	if e := b.accounts[id]; e != nil && e.acct.Known() {
		return nil
	}
	return b.exec(b.g.putClaim, id.String(), millis(at))
}

// chain is the running hash over a partition of events in log order. Each
// record adds its offset, key and value.
func chain(last []byte, r *bus.Record) []byte {
	h := sha256.New()
	h.Write(last)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(r.Offset)) //nolint:gosec // offsets are not negative
	h.Write(n[:])
	for _, part := range [][]byte{r.Key, r.Value} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	return h.Sum(nil)
}

// decode reads an event's record. A missing version header is one of a record
// that nobody of this project wrote.
func decode(r *bus.Record) (submission.Event, error) {
	switch v := r.Headers[submission.HeaderVersion]; v {
	case fmt.Sprint(submission.RecordVersion), fmt.Sprint(submission.RecordVersion - 1):
	default:
		return submission.Event{}, errors.New("record version is missing or unknown")
	}
	e, err := submission.DecodeEvent(r.Value)
	if err != nil {
		// The decoder's own text may quote the record.
		return submission.Event{}, errors.New("value is not an event")
	}
	return e, nil
}

func (b *batch) event(r *bus.Record) error {
	link := chain(b.chains[r.Partition], r)
	b.chains[r.Partition] = link
	ev, err := decode(r)
	if err != nil {
		if err := b.undecodable(r, err.Error()); err != nil {
			return err
		}
		return b.exec(b.g.putEvent, r.Partition, r.Offset, nil, "undecodable", millis(r.Time), effectNone, nil, link)
	}
	effect := effectNone
	key := epochKey{ev.Stage, r.Partition}
	current := b.epochs[key]
	switch {
	case ev.Type == submission.EventOwner && ev.Epoch > current.n:
		effect = effectChanged
		b.epochs[key] = epoch{ev.Epoch, ev.ID.String()}
		if err := b.exec(b.g.putEpoch, ev.Stage, r.Partition, ev.Epoch, ev.ID.String()); err != nil {
			return err
		}
	case ev.Type == submission.EventOwner || ev.Epoch < current.n && ev.Type != submission.EventCheckpoint:
		effect = effectSuperseded
	case ev.Type == submission.EventCheckpoint:
		if err := b.checkpoint(r, ev); err != nil {
			return err
		}
	case ev.Type == submission.EventRefused:
		err := b.exec(b.g.putRefusal, r.Partition, r.Offset, ev.ID.String(), millis(ev.At), ev.Stage, ev.Portal, ev.Land, ev.Service, ev.Reason, r.Value)
		if err != nil {
			return err
		}
		effect = effectChanged
	case ev.Submission != uuid.Nil:
		e, err := b.account(ev.Submission, r.Partition)
		if err != nil {
			return err
		}
		if e.acct.Apply(ev) {
			e.dirty, e.partition, effect = true, r.Partition, effectChanged
		}
	}
	var about any
	if ev.Submission != uuid.Nil {
		about = ev.Submission.String()
	}
	return b.exec(b.g.putEvent, r.Partition, r.Offset, about, ev.Type, millis(ev.At), effect, r.Value, link)
}

func (b *batch) checkpoint(r *bus.Record, ev submission.Event) error {
	if ev.Checkpoint == nil {
		return b.tampering(Tampering{r.Partition, r.Offset, 0, "the checkpoint is empty"})
	}
	var link []byte
	err := b.stmt(b.g.chainAt).QueryRow(r.Partition, ev.Checkpoint.Offset).Scan(&link)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if what := checkCheckpoint(r.Partition, *ev.Checkpoint, link, b.verify); what != "" {
		return b.tampering(Tampering{r.Partition, r.Offset, ev.Checkpoint.Offset, what})
	}
	return nil
}

func (b *batch) tampering(t Tampering) error {
	b.out.Tampering = append(b.out.Tampering, t)
	return b.exec(b.g.putTampering, t.Partition, t.Offset, t.Covered, t.What)
}

func (b *batch) account(id uuid.UUID, partition int32) (*entry, error) {
	if e := b.accounts[id]; e != nil {
		return e, nil
	}
	e := &entry{acct: &submission.Account{}, partition: partition, deliveries: map[uuid.UUID]submission.DeliveryAccount{}}
	var raw []byte
	err := b.stmt(b.g.getAccount).QueryRow(id.String()).Scan(&e.partition, &raw)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(raw, e.acct); err != nil {
			return nil, fmt.Errorf("account %s: %w", id, err)
		}
		e.was = e.acct.State
		for _, d := range e.acct.Deliveries {
			e.deliveries[d.ID] = *d
		}
	}
	b.accounts[id] = e
	return e, nil
}

// flush writes what the batch changed.
func (b *batch) flush() error {
	for id, e := range b.accounts {
		if !e.dirty {
			continue
		}
		if err := b.write(id, e); err != nil {
			return err
		}
	}
	for src := range b.touched {
		var link any
		if src.topic == TopicEvents {
			link = b.chains[src.partition]
		}
		if err := b.exec(b.g.putOffset, src.topic, src.partition, b.offsets[src], link); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) write(id uuid.UUID, e *entry) error {
	a := e.acct
	raw, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := b.exec(b.g.putSubmission, id.String(), e.partition, a.CaseID.String(), a.Portal, a.Land, a.Service, a.State, a.Own, a.Reason,
		millis(a.AcceptedAt), millis(a.UpdatedAt), a.SenderHash, raw); err != nil {
		return err
	}
	if e.was == "" {
		if err := b.exec(b.g.dropClaim, id.String()); err != nil {
			return err
		}
	}
	if e.was != a.State {
		if e.was != "" {
			if err := b.exec(b.g.addCount, a.Land, a.Service, e.was, -1); err != nil {
				return err
			}
		}
		if err := b.exec(b.g.addCount, a.Land, a.Service, a.State, 1); err != nil {
			return err
		}
	}
	gone := e.deliveries
	for _, d := range a.Deliveries {
		old, known := gone[d.ID]
		delete(gone, d.ID)
		if known && old.State == d.State && old.UpdatedAt.Equal(d.UpdatedAt) && old.Order == d.Order && old.Reason == d.Reason {
			continue
		}
		if !known || old.State != d.State {
			if known {
				if err := b.exec(b.g.addDeliveryCount, old.Destination, old.State, -1); err != nil {
					return err
				}
			}
			if err := b.exec(b.g.addDeliveryCount, d.Destination, d.State, 1); err != nil {
				return err
			}
		}
		since := int64(0)
		if d.WaitingSince != nil {
			since = millis(*d.WaitingSince)
		}
		if err := b.exec(b.g.putDelivery, d.ID.String(), id.String(), e.partition, d.Destination, d.Adapter, d.State, d.Reason,
			d.Order, since, millis(d.UpdatedAt)); err != nil {
			return err
		}
	}
	for _, d := range gone { // of an earlier revision
		if err := b.exec(b.g.addDeliveryCount, d.Destination, d.State, -1); err != nil {
			return err
		}
		if err := b.exec(b.g.dropDelivery, d.ID.String()); err != nil {
			return err
		}
	}
	return nil
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
