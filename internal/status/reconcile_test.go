package status_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"weiche/internal/bus"
	"weiche/internal/status"
	"weiche/internal/status/statustest"
	"weiche/internal/submission"
)

// books is a log, what stages do to it, and a store that follows as it likes.
type books struct {
	log       *simLog
	dir       string
	store     *status.Store
	projector *status.Projector

	n         int
	metas     []submission.Meta
	first     map[uuid.UUID]bool           // appended
	done      map[uuid.UUID]int            // revision
	next      [statustest.Partitions]int64 // dispatch's committed offset
	epoch     [statustest.Partitions]int64
	projected map[string]*[statustest.Partitions]int
}

var eight = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

func newBooks(dir string) *books {
	w := &books{log: memory(), dir: dir, first: map[uuid.UUID]bool{}, done: map[uuid.UUID]int{}}
	w.open("status.db")
	return w
}

// open opens a store; a new file is projected anew.
func (w *books) open(file string) {
	s, err := status.Open(filepath.Join(w.dir, file))
	check(err)
	w.store, w.projector = s, status.NewProjector(s, status.Options{Log: w.log})
	w.projected = map[string]*[statustest.Partitions]int{}
	for _, topic := range []string{status.TopicEvents, status.TopicSubmissions, status.TopicClaims} {
		w.projected[topic] = &[statustest.Partitions]int{}
		for p := range int32(statustest.Partitions) {
			w.projected[topic][p] = int(s.Progress(topic, p))
		}
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func (w *books) put(topic string, p int32, key string, headers map[string]string, value []byte) *submission.Held {
	r := &bus.Record{Topic: topic, Partition: p, Key: []byte(key), Headers: headers, Value: value, Time: eight}
	check(w.log.Append(context.Background(), r))
	return &submission.Held{Topic: topic, Partition: p, Offset: r.Offset}
}

// hold appends what goes on from there: a submission's bytes, or a delivery's.
func (w *books) hold(topic string, p int32, headers map[string]string) *submission.Held {
	return w.put(topic, p, "k", headers, nil)
}

func (w *books) event(p int32, m *submission.Meta, t submission.EventType, e submission.Event) {
	w.n++
	e.Type, e.At, e.ID = t, eight.Add(time.Duration(w.n)*time.Second), submission.NewEventID(t, uuid.Nil, fmt.Sprint(w.n))
	e.Stage = submission.StageDispatch
	if e.DeliveryID != uuid.Nil {
		e.Stage = submission.StageDelivery
	} else {
		e.Epoch = w.epoch[p]
	}
	if m != nil {
		e.Submission, e.CaseID, e.Portal, e.Land, e.Service = m.ID, m.CaseID, m.Portal, m.Land, m.Service
	}
	value, err := e.Encode()
	check(err)
	w.put(status.TopicEvents, p, "k", e.Headers(), value)
}

func (w *books) meta(i int) submission.Meta {
	id := submission.NewID("service-bw", fmt.Sprint(i))
	return submission.Meta{ID: id, CaseID: submission.NewCaseID(id), Portal: "service-bw", Land: submission.Land([]string{"08", "14"}[i%2]),
		Service: "99050012104000", Region: "08", AcceptedAt: eight.Add(time.Duration(i) * 17 * time.Minute), SHA512: "ab", Revision: 1, Append: id}
}

// post appends a submission, new or once more.
func (w *books) post(m submission.Meta) {
	if !w.first[m.ID] {
		w.metas = append(w.metas, m)
		w.first[m.ID] = true
	}
	w.n++
	m.Append = uuid.NewSHA1(m.ID, []byte(fmt.Sprint(w.n)))
	w.put(status.TopicClaims, 0, m.ID.String(), m.Headers(submission.TypeClaim), nil)
	w.put(status.TopicSubmissions, statustest.Partition(m.ID), "k", m.Headers(submission.TypeSubmission), nil)
}

// dispatch takes the next record of a partition and commits it.
func (w *books) dispatch(p int32, how int) {
	recs, _ := w.log.from(status.TopicSubmissions, p, w.next[p])
	if len(recs) == 0 {
		return
	}
	w.next[p] = recs[0].Offset + 1
	m, err := submission.ParseMeta(recs[0].Headers)
	check(err)
	if w.done[m.ID] > 0 {
		return // a repeat
	}
	w.done[m.ID] = 1
	w.event(p, &m, submission.EventAccepted, submission.Event{Revision: 1, Accepted: &submission.Acceptance{AcceptedAt: m.AcceptedAt, SHA512: m.SHA512, Append: m.Append, Offset: recs[0].Offset}})
	switch how {
	case 0:
		at := w.hold(bus.TopicUnassigned, p, m.Headers(submission.TypeSubmission))
		w.event(p, &m, submission.EventUnassigned, submission.Event{Revision: 1, Reason: "no-authority", Held: at})
	case 1:
		at := w.hold(bus.TopicDeadLetters, p, m.Headers(submission.TypeSubmission))
		w.event(p, &m, submission.EventDead, submission.Event{Revision: 1, Reason: "mapping-failed", Held: at})
	default:
		w.decide(&m, how)
	}
}

func (w *books) decide(m *submission.Meta, how int) {
	d := &submission.Decision{At: eight}
	for _, to := range []string{"a", "b"}[:1+how%2] {
		d.Deliveries = append(d.Deliveries, submission.PlannedDelivery{ID: submission.NewDeliveryID(m.ID, to, w.done[m.ID]), Destination: to, Adapter: "file"})
	}
	w.event(statustest.Partition(m.ID), m, submission.EventDecided, submission.Event{Revision: w.done[m.ID], Decision: d})
	for _, planned := range d.Deliveries {
		w.hold(bus.TopicDeliveries, statustest.Partition(m.ID), w.delivery(m, planned.Destination, 0).Headers(submission.TypeDelivery))
	}
}

func (w *books) delivery(m *submission.Meta, to string, n int) submission.DeliveryMeta {
	return submission.DeliveryMeta{Meta: *m, DeliveryID: submission.NewDeliveryID(m.ID, to, w.done[m.ID]), Destination: to, Adapter: "file",
		Format: submission.Format{Standard: "antrag", Version: "1.0", Message: "antrag"}, Decision: m.ID, Sequence: n}
}

func (w *books) deliver(m *submission.Meta, t submission.EventType, to string, n int) {
	p := statustest.Partition(m.ID)
	d := w.delivery(m, to, n)
	e := submission.Event{DeliveryID: d.DeliveryID, Destination: to, Revision: w.done[m.ID], Attempt: n, Sequence: n, Redrive: n}
	switch t {
	case submission.EventWaiting, submission.EventAttempt:
		w.hold(bus.TopicWaiting, p, d.Headers(submission.TypeDelivery))
	case submission.EventDead:
		e.Held = w.hold(bus.TopicDeadLetters, p, d.Headers(submission.TypeDelivery))
	}
	w.event(p, m, t, e)
}

// own makes a new owner of dispatch's partition begin; what the former one still
// writes has no effect, and is done again.
func (w *books) own(p int32, late *submission.Meta) {
	w.epoch[p]++
	w.event(p, nil, submission.EventOwner, submission.Event{})
	if late != nil {
		w.epoch[p]--
		w.event(p, late, submission.EventAccepted, submission.Event{Revision: 1, Accepted: &submission.Acceptance{AcceptedAt: late.AcceptedAt}})
		w.epoch[p]++
	}
}

// project follows a partition of a topic by so many records; 0: to its end.
func (w *books) project(topic string, p int32, n int) {
	at := &w.projected[topic][p]
	recs, _ := w.log.from(topic, p, int64(*at))
	if n > 0 {
		recs = recs[:min(n, len(recs))]
	}
	if len(recs) > 0 {
		_, err := w.store.Project(context.Background(), nil, recs...)
		check(err)
		*at = int(recs[len(recs)-1].Offset) + 1
	}
}

func (w *books) catchUp(topics ...string) {
	for _, topic := range topics {
		for p := range int32(statustest.Partitions) {
			w.project(topic, p, 0)
		}
	}
}

// count does what the owner of a partition does before it cuts.
func (w *books) count(p int32) {
	w.project(status.TopicEvents, p, 0)
	t, err := w.projector.Tally(context.Background(), p, w.next[p])
	check(err)
	if t != nil {
		w.event(p, nil, submission.EventCounted, submission.Event{Counted: t})
	}
}

func (w *books) cut(p int32) {
	w.log.cut(status.TopicSubmissions, p, min(w.next[p], w.store.CountedBelow(p)))
}

func (w *books) reconcile() status.Reconciliation {
	r, err := w.store.Reconcile(context.Background(), status.ReconcileFilter{})
	check(err)
	return r
}

func accepted(r status.Reconciliation) (n int) {
	for _, l := range r.Lines {
		n += l.Accepted
	}
	return n
}

// Whatever happens, in whatever order the projection learns of it, and however
// often it begins anew: at no point does the account differ.
func TestReconcileAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "reconcile")
		check(err)
		defer os.RemoveAll(dir)
		w := newBooks(dir)
		defer func() { _ = w.store.Close() }()
		stores := 0
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			p := int32(rapid.IntRange(0, statustest.Partitions-1).Draw(rt, "partition"))
			n := rapid.IntRange(0, 5).Draw(rt, "n")
			step := rapid.IntRange(0, 16).Draw(rt, "step")
			switch step {
			case 0, 1, 2:
				w.post(w.meta(rapid.IntRange(0, 9).Draw(rt, "which")))
			case 3, 4, 5:
				w.dispatch(p, n)
			case 6, 7:
				if len(w.metas) > 0 {
					m := rapid.SampledFrom(w.metas).Draw(rt, "of")
					if w.done[m.ID] == 0 {
						continue
					}
					w.deliver(&m, rapid.SampledFrom([]submission.EventType{submission.EventWaiting, submission.EventAttempt, submission.EventDelivered, submission.EventDead,
						submission.EventRedriven, submission.EventClosed, submission.EventRejected}).Draw(rt, "what"), rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "to"), n)
				}
			case 8:
				if len(w.metas) > 0 {
					if m := rapid.SampledFrom(w.metas).Draw(rt, "again"); w.done[m.ID] > 0 {
						w.done[m.ID]++
						w.decide(&m, n)
					}
				}
			case 9:
				var late *submission.Meta
				if len(w.metas) > 0 {
					late = &w.metas[0]
				}
				w.own(p, late)
			case 10:
				w.count(p)
				if n == 0 {
					w.count(p) // before its own word is projected: what it says twice counts once
				}
			case 11:
				w.cut(p)
			case 12:
				check(w.store.Close())
				w.open(fmt.Sprintf("status%d.db", stores))
			case 13:
				check(w.store.Close())
				stores++
				w.open(fmt.Sprintf("status%d.db", stores))
			default:
				w.project(rapid.SampledFrom([]string{status.TopicEvents, status.TopicEvents, status.TopicSubmissions, status.TopicClaims}).Draw(rt, "topic"), p, n)
			}
			if r := w.reconcile(); !r.Balanced() {
				rt.Fatalf("after step %d: %+v", step, r)
			}
		}
		w.catchUp(status.TopicEvents, status.TopicSubmissions, status.TopicClaims)
		if r := w.reconcile(); !r.Balanced() || accepted(r) != len(w.first) {
			rt.Fatalf("%d were appended: %+v", len(w.first), r)
		}
		if r, err := w.projector.Recount(context.Background(), status.ReconcileFilter{}); err != nil || !r.Balanced() || accepted(r) != len(w.first) {
			rt.Fatalf("by the topics, of %d: %+v, %v", len(w.first), r, err)
		}
	})
}

// One record that is gone is a difference of one, with its name where the store
// can know it.
func TestReconcileOneGone(t *testing.T) {
	const n = 6
	histories := map[string]struct {
		gone func(w *books, lost submission.Meta)
		what string
	}{
		"the event of its acceptance": {func(w *books, lost submission.Meta) { w.remove(status.TopicEvents, lost.ID, submission.EventAccepted) },
			"no event tells that dispatch took it up"},
		"all its events": {func(w *books, lost submission.Meta) { w.remove(status.TopicEvents, lost.ID, "") }, "no event tells that dispatch took it up"},
	}
	for name, h := range histories {
		t.Run(name, func(t *testing.T) {
			w := newBooks(t.TempDir())
			defer func() { _ = w.store.Close() }()
			for i := range n {
				w.post(w.meta(i))
			}
			for range n {
				for p := range int32(statustest.Partitions) {
					w.dispatch(p, 2)
				}
			}
			lost := w.metas[2]
			h.gone(w, lost)
			w.catchUp(status.TopicSubmissions, status.TopicEvents)
			for p := range int32(statustest.Partitions) {
				w.count(p)
			}
			w.catchUp(status.TopicEvents)
			r := w.reconcile()
			if r.Difference != 1 || len(r.Differing) != 1 || r.Differing[0].Submission != lost.ID || !strings.Contains(r.Differing[0].What, h.what) || accepted(r) != n {
				t.Errorf("%+v", r)
			}
			for _, l := range r.Lines {
				want := 0
				if l.Hour.Equal(submission.HourOf(lost.AcceptedAt).Time()) && l.Land == lost.Land {
					want = 1
				}
				if l.Difference != want {
					t.Errorf("%+v", l)
				}
			}
			if r, err := w.store.Reconcile(t.Context(), status.ReconcileFilter{Land: "14"}); err != nil || r.Difference != 0 && lost.Land != "14" {
				t.Errorf("of another Land: %+v, %v", r, err)
			}
			want := `
# HELP weiche_reconcile_difference_submissions Accepted submissions, as counted in the submissions topic, that are in no state, or the reverse; rows lost from the store as of the last reconciliation.
# TYPE weiche_reconcile_difference_submissions gauge
weiche_reconcile_difference_submissions{land="08",service="99050012104000"} 1
weiche_reconcile_difference_submissions{land="14",service="99050012104000"} 0
`
			if err := testutil.CollectAndCompare(status.NewCollector(w.projector, nil), strings.NewReader(want), "weiche_reconcile_difference_submissions"); err != nil {
				t.Error(err)
			}
			// Its record is not cut. So it can be dispatched after all, and the
			// difference is gone.
			p := statustest.Partition(lost.ID)
			w.cut(p)
			oldest, _, err := w.log.Offsets(t.Context(), status.TopicSubmissions)
			check(err)
			recs, _ := w.log.from(status.TopicSubmissions, p, 0)
			if oldest[p] > w.offset(lost.ID) || len(recs) == 0 {
				t.Errorf("cut to %d", oldest[p])
			}
			delete(w.done, lost.ID)
			w.next[p] = w.offset(lost.ID)
			w.dispatch(p, 2)
			w.catchUp(status.TopicEvents)
			if r := w.reconcile(); !r.Balanced() || accepted(r) != n {
				t.Errorf("dispatched after all: %+v", r)
			}
		})
	}
}

// A row that is gone from the store differs by one; the topics say which.
func TestReconcileLostRow(t *testing.T) {
	w := newBooks(t.TempDir())
	for i := range 5 {
		w.post(w.meta(i))
	}
	for range 5 {
		w.dispatch(0, 2)
		w.dispatch(1, 2)
	}
	w.catchUp(status.TopicEvents, status.TopicSubmissions, status.TopicClaims)
	lost := w.metas[3]
	check(w.store.Close())
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "status.db"))
	check(err)
	res, err := db.Exec(`DELETE FROM g1_submissions WHERE id = ?`, lost.ID[:])
	check(err)
	if n, _ := res.RowsAffected(); n != 1 {
		t.Fatalf("%d rows deleted", n)
	}
	check(db.Close())
	w.open("status.db")
	defer func() { _ = w.store.Close() }()
	if r := w.reconcile(); r.Difference != 1 {
		t.Errorf("%+v", r)
	}
	r, err := w.projector.Reconcile(t.Context(), status.ReconcileFilter{})
	if err != nil || r.Difference != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if n := testutil.CollectAndCount(status.NewCollector(w.projector, nil), "weiche_reconcile_difference_submissions"); n != 2 {
		t.Errorf("%d series", n)
	}
	r, err = w.projector.Recount(t.Context(), status.ReconcileFilter{})
	if err != nil || r.Difference != 1 || len(r.Differing) != 1 || r.Differing[0].Submission != lost.ID || !strings.Contains(r.Differing[0].What, "the store lacks it") {
		t.Errorf("by the topics: %+v, %v", r, err)
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "*recount*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What is unassigned, waiting or dead and has lost its record differs by one, by
// the topics, with its name: cut away, or overwritten by something else.
func TestReconcileLostRecord(t *testing.T) {
	lose := map[string]func(w *books, at *submission.Held){
		"cut": func(w *books, at *submission.Held) { w.log.drop(at.Topic, at.Partition, at.Offset, nil) },
		"overwritten": func(w *books, at *submission.Held) {
			w.log.drop(at.Topic, at.Partition, at.Offset, map[string]string{})
		},
	}
	for how, lost := range lose {
		for _, topic := range []string{bus.TopicUnassigned, bus.TopicWaiting, bus.TopicDeadLetters} {
			t.Run(how+" in "+topic, func(t *testing.T) {
				w := newBooks(t.TempDir())
				defer func() { _ = w.store.Close() }()
				for i := range 12 {
					m := w.meta(i)
					w.post(m)
					w.dispatch(statustest.Partition(m.ID), min(i/3, 2))
					if w.done[m.ID] > 0 && i >= 6 {
						w.deliver(&m, []submission.EventType{submission.EventWaiting, submission.EventDead}[i%2], "a", 1)
					}
				}
				w.catchUp(status.TopicEvents, status.TopicSubmissions, status.TopicClaims)
				recount := func(f status.ReconcileFilter) status.Reconciliation {
					t.Helper()
					r, err := w.projector.Recount(t.Context(), f)
					check(err)
					return r
				}
				if r := recount(status.ReconcileFilter{}); !r.Balanced() {
					t.Fatalf("before: %+v", r)
				}
				rec := w.log.newest(topic)
				lost(w, &submission.Held{Topic: topic, Partition: rec.Partition, Offset: rec.Offset})
				m, err := submission.ParseMeta(rec.Headers)
				check(err)
				r := recount(status.ReconcileFilter{})
				if r.Difference != 1 || len(r.Differing) != 1 || r.Differing[0].Submission != m.ID || !strings.Contains(r.Differing[0].What, "its record is not in "+topic) {
					t.Errorf("%+v", r)
				}
				if r := recount(status.ReconcileFilter{Land: "14"}); r.Difference != 0 != (m.Land == "14") {
					t.Errorf("of Land 14, it is of %s: %+v", m.Land, r)
				}
				// It ended meanwhile: then nothing has to be there.
				if d, err := submission.ParseDeliveryMeta(rec.Headers); err == nil {
					w.deliver(&m, submission.EventClosed, d.Destination, 0)
					w.catchUp(status.TopicEvents)
					if r := recount(status.ReconcileFilter{}); !r.Balanced() {
						t.Errorf("closed: %+v", r)
					}
				}
			})
		}
	}
}

// What is in flight and has lost its record differs by one, with its name, and
// with the place of the record that no event tells of.
func TestReconcileLostInFlight(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(w *books, m *submission.Meta, p int32)
		what string
	}{
		"the delivery's record": {func(w *books, m *submission.Meta, p int32) {
			w.hold(status.TopicSubmissions, p, m.Headers(submission.TypeControl)) // an operator's order about it
			w.hold(bus.TopicDeliveries, p, w.delivery(m, "a", 0).Headers(submission.TypeControl))
		}, "is in-flight, and its record is neither in weiche.submissions nor in weiche.deliveries"},
		"the word that it waits": {func(w *books, m *submission.Meta, _ int32) {
			w.deliver(m, submission.EventWaiting, "a", 1)
			w.remove(status.TopicEvents, m.ID, submission.EventWaiting)
		}, "no event tells why its record is in weiche.waiting"},
		"the word that it is dead": {func(w *books, m *submission.Meta, _ int32) {
			w.deliver(m, submission.EventDead, "a", 1)
			w.remove(status.TopicEvents, m.ID, submission.EventDead)
		}, "no event tells why its record is in weiche.deadletters"},
		"the decision": {func(w *books, m *submission.Meta, _ int32) {
			w.remove(status.TopicEvents, m.ID, submission.EventDecided)
		}, "it is in-flight, and its record is not in weiche.submissions"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBooks(t.TempDir())
			defer func() { _ = w.store.Close() }()
			m := w.meta(0)
			p := statustest.Partition(m.ID)
			w.post(m)
			w.dispatch(p, 2)
			recount := func() status.Reconciliation {
				t.Helper()
				w.catchUp(status.TopicEvents, status.TopicSubmissions, status.TopicClaims)
				r, err := w.projector.Recount(t.Context(), status.ReconcileFilter{})
				check(err)
				return r
			}
			if r := recount(); !r.Balanced() {
				t.Fatalf("before: %+v", r)
			}
			w.count(p)
			w.log.drop(status.TopicSubmissions, p, 0, nil)
			if r := recount(); !r.Balanced() {
				t.Fatalf("with its delivery's record alone: %+v", r)
			}
			check(w.store.Close())
			c.lose(w, &m, p)
			w.log.drop(bus.TopicDeliveries, p, 0, nil)
			w.open("anew.db")
			r := recount()
			if r.Difference != 1 || len(r.Differing) != 1 || r.Differing[0].Submission != m.ID || !strings.Contains(r.Differing[0].What, c.what) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A record that is kept of a submission which nothing tells of differs by one,
// with its name. What was refused was never accepted, and what is told of while
// the topics are read is no difference.
func TestReconcileStray(t *testing.T) {
	for _, topic := range []string{bus.TopicWaiting, bus.TopicUnassigned, bus.TopicDeadLetters} {
		w := newBooks(t.TempDir())
		m, refused := w.meta(0), w.meta(1)
		p := statustest.Partition(m.ID)
		w.hold(bus.TopicDeadLetters, p, refused.Headers(submission.TypeRefused))
		recount := func(f status.ReconcileFilter) status.Reconciliation {
			t.Helper()
			w.catchUp(status.TopicEvents, status.TopicSubmissions, status.TopicClaims)
			r, err := w.projector.Recount(t.Context(), f)
			check(err)
			return r
		}
		if r := recount(status.ReconcileFilter{}); !r.Balanced() {
			t.Errorf("refused: %+v", r)
		}
		headers := w.delivery(&m, "a", 1).Headers(submission.TypeDelivery)
		if topic == bus.TopicUnassigned {
			headers = m.Headers(submission.TypeSubmission)
		}
		for range 2 {
			w.hold(topic, p, headers)
		}
		r := recount(status.ReconcileFilter{})
		if r.Difference != 1 || len(r.Differing) != 1 || r.Differing[0].Submission != m.ID || !strings.Contains(r.Differing[0].What, "no event tells of it, and a record of it is in "+topic) {
			t.Errorf("%s: %+v", topic, r)
		}
		for _, other := range []status.ReconcileFilter{{Land: "14"}, {Lands: []submission.Land{"14"}}, {Service: "99000000000001"}, {Since: eight.Add(time.Hour)}, {Until: eight}} {
			if r := recount(other); !r.Balanced() {
				t.Errorf("%s, asked about %+v: %+v", topic, other, r)
			}
		}
		// It is told, and its acceptance cut, while the topics are read: between the
		// look at the end of events and that at submissions.
		w.log.before(topic, func() {
			w.log.before(status.TopicSubmissions, func() {
				w.post(m)
				w.dispatch(p, 0)
				w.count(p)
				w.log.drop(status.TopicSubmissions, p, 0, nil)
			})
		})
		if r := recount(status.ReconcileFilter{}); !r.Balanced() {
			t.Errorf("%s, told meanwhile: %+v", topic, r)
		}
		check(w.store.Close())
	}
}

// What goes on while the topics are read is no difference, though its record is
// cut before the reading comes to it.
func TestReconcileWhileItGoesOn(t *testing.T) {
	w := newBooks(t.TempDir())
	defer func() { _ = w.store.Close() }()
	m := w.meta(0)
	w.post(m)
	p := statustest.Partition(m.ID)
	w.dispatch(p, 2)
	w.deliver(&m, submission.EventWaiting, "a", 1)
	w.catchUp(status.TopicEvents, status.TopicSubmissions, status.TopicClaims)
	w.log.before(bus.TopicWaiting, func() {
		w.deliver(&m, submission.EventDelivered, "a", 2)
		w.log.drop(bus.TopicWaiting, p, 0, nil)
	})
	if r, err := w.projector.Recount(t.Context(), status.ReconcileFilter{}); err != nil || !r.Balanced() {
		t.Errorf("%+v, %v", r, err)
	}
	if at, _ := w.log.from(bus.TopicWaiting, p, 0); len(at) != 1 || at[0].Headers != nil {
		t.Error("nothing was cut meanwhile")
	}
}

// A delivery that was planned and is in no state differs by one.
func TestReconcileLostDelivery(t *testing.T) {
	w := newBooks(t.TempDir())
	for i := range 4 {
		w.post(w.meta(i))
		w.dispatch(statustest.Partition(w.meta(i).ID), 3)
	}
	m := w.metas[0]
	w.done[m.ID]++
	w.decide(&m, 2) // a later decision, to one destination less
	w.catchUp(status.TopicEvents)
	r := w.reconcile()
	if d := r.Destinations; !r.Balanced() || len(d) != 2 || d[0].Planned != 5 || d[0].Superseded != 1 || d[1].Planned != 4 || d[1].Superseded != 1 || d[1].States[submission.InFlight] != 3 {
		t.Errorf("%+v", r)
	}
	check(w.store.Close())
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "status.db"))
	check(err)
	_, err = db.Exec(`UPDATE g1_delivery_counts SET n = n - 1 WHERE state = 'in-flight' AND destination = 'b'`)
	check(err)
	check(db.Close())
	w.open("status.db")
	defer func() { _ = w.store.Close() }()
	if r := w.reconcile(); r.Difference != 1 || r.Destinations[1].Difference != 1 {
		t.Errorf("%+v", r)
	}
	want := `
# HELP weiche_reconcile_difference_deliveries Deliveries that decisions planned and that are neither in a state nor superseded, or the reverse.
# TYPE weiche_reconcile_difference_deliveries gauge
weiche_reconcile_difference_deliveries{destination="a"} 0
weiche_reconcile_difference_deliveries{destination="b"} 1
`
	if err := testutil.CollectAndCompare(status.NewCollector(w.projector, nil), strings.NewReader(want), "weiche_reconcile_difference_deliveries"); err != nil {
		t.Error(err)
	}
}

// What is lost can be posted again: it counts once.
func TestReconcileLostIsPostedAgain(t *testing.T) {
	w := newBooks(t.TempDir())
	defer func() { _ = w.store.Close() }()
	m := w.meta(0)
	p := statustest.Partition(m.ID)
	w.post(m)
	w.next[p] = 1 // passed
	w.count(p)
	w.catchUp(status.TopicEvents)
	if r := w.reconcile(); r.Difference != 1 || accepted(r) != 1 {
		t.Errorf("passed: %+v", r)
	}
	w.post(m)
	w.catchUp(status.TopicSubmissions)
	if r := w.reconcile(); r.Difference != 1 || accepted(r) != 1 {
		t.Errorf("posted again: %+v", r)
	}
	w.dispatch(p, 2)
	w.count(p)
	w.catchUp(status.TopicEvents)
	if r := w.reconcile(); !r.Balanced() || accepted(r) != 1 {
		t.Errorf("dispatched: %+v", r)
	}
	w.cut(p)
	if oldest, _, err := w.log.Offsets(t.Context(), status.TopicSubmissions); err != nil || oldest[p] != 1 {
		t.Errorf("cut to %v, %v", oldest, err)
	}
}

// Records that were gone before the first tally count as dispatch says.
func TestReconcileOpensLate(t *testing.T) {
	w := newBooks(t.TempDir())
	defer func() { _ = w.store.Close() }()
	for i := 0; len(w.metas) < 4; i++ {
		if m := w.meta(i); statustest.Partition(m.ID) == 0 {
			w.post(m)
			w.dispatch(0, 2)
		}
	}
	w.log.cut(status.TopicSubmissions, 0, 2)
	w.catchUp(status.TopicEvents, status.TopicSubmissions)
	for range 2 {
		w.count(0)
		w.catchUp(status.TopicEvents)
		if r := w.reconcile(); !r.Balanced() || accepted(r) != 4 {
			t.Errorf("%+v", r)
		}
	}
}

// An acceptance that was never appended is a difference too.
func TestReconcileForged(t *testing.T) {
	w := newBooks(t.TempDir())
	defer func() { _ = w.store.Close() }()
	m, forged := w.meta(0), w.meta(0)
	p := statustest.Partition(m.ID)
	w.post(m)
	w.dispatch(p, 2)
	w.count(p)
	forged.ID[0]++
	w.event(p, &forged, submission.EventAccepted, submission.Event{Revision: 1, Accepted: &submission.Acceptance{AcceptedAt: forged.AcceptedAt}})
	w.catchUp(status.TopicEvents)
	if r := w.reconcile(); r.Difference != 1 || r.Lines[0].Difference != -1 {
		t.Errorf("%+v", r)
	}
}

// A tally that is gone is a difference of what it counted.
func TestReconcileLostTally(t *testing.T) {
	w := newBooks(t.TempDir())
	defer func() { _ = w.store.Close() }()
	for i := 0; len(w.metas) < 3; i++ {
		if m := w.meta(2 * i); statustest.Partition(m.ID) == 0 { // of one Land
			w.post(m)
			w.dispatch(0, 2)
			w.count(0)
		}
	}
	w.remove(status.TopicEvents, uuid.Nil, submission.EventCounted, 1)
	check(w.store.Close())
	w.open("anew.db")
	w.catchUp(status.TopicEvents, status.TopicSubmissions)
	r := w.reconcile()
	if r.Difference != 1 || accepted(r) != 2 {
		t.Errorf("%+v", r)
	}
}

// remove takes a record out of the log, or all about a submission; which: the
// how manieth.
func (w *books) remove(topic string, id uuid.UUID, t submission.EventType, which ...int) {
	seen := 0
	for p := range w.log.topics[topic] {
		var kept []*bus.Record
		for _, r := range w.log.topics[topic][p] {
			e, err := submission.DecodeEvent(r.Value)
			check(err)
			if hit := e.Submission == id && (t == "" || e.Type == t); hit {
				if seen++; len(which) == 0 || which[0] == seen-1 {
					r = &bus.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Time: r.Time,
						Headers: w.blank().Headers(), Value: encoded(w.blank())}
				}
			}
			kept = append(kept, r)
		}
		w.log.topics[topic][p] = kept
	}
}

// blank is an event that says nothing, in the place of what was removed: offsets
// stay as they are.
func (w *books) blank() submission.Event {
	return submission.Event{ID: uuid.New(), Type: "nothing", At: eight, Stage: submission.StageDispatch, Epoch: 1 << 40}
}

func encoded(e submission.Event) []byte {
	value, err := e.Encode()
	check(err)
	return value
}

// offset is where a submission's first record lies.
func (w *books) offset(id uuid.UUID) int64 {
	for _, r := range w.log.topics[status.TopicSubmissions][statustest.Partition(id)] {
		if m, err := submission.ParseMeta(r.Headers); err == nil && m.ID == id {
			return r.Offset
		}
	}
	return -1
}
