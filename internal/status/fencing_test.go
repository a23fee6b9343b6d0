package status_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"weiche/internal/bus"
	"weiche/internal/status"
	"weiche/internal/status/statustest"
	"weiche/internal/submission"
)

// claimKey is one stage's part of a partition.
type claimKey struct {
	stage     submission.Stage
	partition int32
}

// gate stops a writer at the door of the log, as a process that stands still.
type gate struct{ arrived, release chan struct{} }

type gatedLog struct {
	*simLog
	next atomic.Pointer[gate]
}

func (l *gatedLog) Append(ctx context.Context, recs ...*bus.Record) error {
	if g := l.next.Swap(nil); g != nil {
		close(g.arrived)
		<-g.release
	}
	return l.simLog.Append(ctx, recs...)
}

// process is one replica: a store of its own, and what it believes to own.
type process struct {
	dir    string
	log    *gatedLog
	store  *status.Store
	ledger *status.Ledger
	owned  map[claimKey]int64
	under  []*underway
}

// underway is an acquisition or an append that stands at the door.
type underway struct {
	*gate
	done chan struct{}
	key  claimKey
	n    int64 // the epoch it got; 0 for an append
	err  error
}

// world is a log and its processes, with what a reader of the log alone says.
type world struct {
	rt        *rapid.T
	log       *simLog
	processes []*process
	ids       []uuid.UUID
	events    int
}

func (w *world) open(p *process) {
	var err error
	if p.store, err = status.Open(filepath.Join(p.dir, "status.db")); err != nil {
		w.rt.Fatal(err)
	}
	p.ledger = status.NewLedger(p.store, p.log, nil)
	p.owned = map[claimKey]int64{}
}

// project lets a process see at most n more records of each partition.
func (w *world) project(p *process, n int) {
	for part := range int32(statustest.Partitions) {
		recs, _ := w.log.from(status.TopicEvents, part, p.store.Progress(status.TopicEvents, part))
		if recs = recs[:min(n, len(recs))]; len(recs) == 0 {
			continue
		}
		if _, err := p.store.Project(context.Background(), nil, recs...); err != nil {
			w.rt.Fatal(err)
		}
	}
}

// until lets the process follow the log until one of the channels is closed.
func (w *world) until(p *process, a, b <-chan struct{}) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Microsecond) {
		w.project(p, 1000)
		select {
		case <-a:
			return
		case <-b:
			return
		default:
		}
	}
	w.rt.Fatal("it never comes to its end")
}

// begin starts something and lets it go as far as the door.
func (w *world) begin(p *process, key claimKey, do func(u *underway)) {
	u := &underway{gate: &gate{make(chan struct{}), make(chan struct{})}, done: make(chan struct{}), key: key}
	p.log.next.Store(u.gate)
	go func() {
		defer close(u.done)
		do(u)
	}()
	w.until(p, u.arrived, u.done)
	p.log.next.Store(nil)
	p.under = append(p.under, u)
}

// end opens the door.
func (w *world) end(p *process, i int) {
	u := p.under[i]
	p.under = append(p.under[:i:i], p.under[i+1:]...)
	close(u.release)
	w.until(p, u.done, nil)
	if u.err != nil && !errors.Is(u.err, status.ErrSuperseded) {
		w.rt.Fatal(u.err)
	}
	if u.n > 0 && u.err == nil {
		p.owned[u.key] = u.n
	}
}

func (w *world) acquire(p *process, key claimKey) {
	w.begin(p, key, func(u *underway) { u.n, u.err = p.ledger.Acquire(context.Background(), key.stage, key.partition) })
}

// write appends what the owner of a stage could tell of a submission.
func (w *world) write(p *process, key claimKey, epoch int64) {
	id := rapid.SampledFrom(w.ids).Draw(w.rt, "submission")
	for statustest.Partition(id) != key.partition {
		id = w.ids[(int(id[14])+w.events)%len(w.ids)]
		w.events++
	}
	w.events++
	e := submission.Event{ID: submission.NewEventID("any", id, strconv.Itoa(w.events)), At: time.UnixMilli(int64(w.events)).UTC(), Stage: key.stage, Epoch: epoch,
		Submission: id, CaseID: submission.NewCaseID(id), Portal: "service-bw", Land: "08", Service: "99050012104000", Revision: 1}
	delivery := submission.NewDeliveryID(id, "a", 1)
	evs := []submission.Event{e}
	if key.stage == submission.StageDispatch {
		evs[0].Type, evs[0].Accepted = submission.EventAccepted, &submission.Acceptance{AcceptedAt: e.At, Append: e.ID, SHA512: "ab"}
		e.ID, e.Type = submission.NewEventID("any", id, "decided", strconv.Itoa(w.events)), submission.EventDecided
		// Each owner decides otherwise: who is superseded must leave no trace.
		e.Decision = &submission.Decision{Rule: fmt.Sprint("epoch ", epoch), Deliveries: []submission.PlannedDelivery{{ID: delivery, Destination: "a"}}}
		evs = append(evs, e)
	} else {
		n := rapid.IntRange(1, 4).Draw(w.rt, "attempt")
		evs[0].Type, evs[0].Attempt, evs[0].Sequence = submission.EventAttempt, n, n
		evs[0].DeliveryID, evs[0].Destination, evs[0].Reason = delivery, "a", fmt.Sprint("epoch ", epoch)
		if rapid.IntRange(0, 4).Draw(w.rt, "end") == 0 {
			evs[0].Type = submission.EventDelivered
		}
	}
	w.begin(p, key, func(u *underway) { u.err = p.ledger.Append(context.Background(), key.partition, evs...) })
}

// truth reads the log alone: the accounts, and which events were superseded.
func (w *world) truth() (accounts map[uuid.UUID]*submission.Account, superseded map[uuid.UUID]bool, newest map[claimKey]int64) {
	accounts, superseded, newest = map[uuid.UUID]*submission.Account{}, map[uuid.UUID]bool{}, map[claimKey]int64{}
	for part := range int32(statustest.Partitions) {
		recs, _ := w.log.from(status.TopicEvents, part, 0)
		for _, r := range recs {
			var e submission.Event
			if err := json.Unmarshal(r.Value, &e); err != nil {
				w.rt.Fatal(err)
			}
			key := claimKey{e.Stage, part}
			if e.Type == submission.EventOwner {
				newest[key] = max(newest[key], e.Epoch)
				continue
			}
			if accounts[e.Submission] == nil {
				accounts[e.Submission] = &submission.Account{}
			}
			if superseded[e.ID] = e.Epoch < newest[key]; !superseded[e.ID] {
				accounts[e.Submission].Apply(e)
			}
		}
	}
	return accounts, superseded, newest
}

// owns asks a process whether a part is still its own. If it says so, nothing
// that it has appended was in vain, and its ledger knows what is true.
func (w *world) owns(p *process, key claimKey, epoch int64) {
	done := make(chan struct{})
	var owns bool
	var err error
	go func() {
		defer close(done)
		owns, err = p.ledger.Owns(context.Background(), key.stage, key.partition, epoch)
	}()
	w.until(p, done, nil)
	if err != nil {
		w.rt.Fatal(err)
	}
	accounts, superseded, newest := w.truth()
	if owns != (newest[key] == epoch) {
		w.rt.Fatalf("%+v at epoch %d: owns is %v, and the newest epoch is %d", key, epoch, owns, newest[key])
	}
	if !owns {
		delete(p.owned, key)
		return
	}
	recs, _ := w.log.from(status.TopicEvents, key.partition, 0)
	for _, r := range recs {
		if e, err := submission.DecodeEvent(r.Value); err != nil || e.Epoch == epoch && e.Stage == key.stage && superseded[e.ID] {
			w.rt.Fatalf("it owns %+v, and %s at %d took no effect (%v)", key, e.Type, r.Offset, err)
		}
	}
	for _, id := range w.ids {
		want := accounts[id]
		if want == nil || !want.Copied || statustest.Partition(id) != key.partition {
			want = &submission.Account{}
		}
		if got, err := p.ledger.Account(context.Background(), id); statustest.Partition(id) == key.partition && (err != nil || asJSON(got) != asJSON(want)) {
			w.rt.Fatalf("the owner of %+v knows %s, %v\nthe log says %s", key, asJSON(got), err, asJSON(want))
		}
	}
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// step lets something happen to one process.
func (w *world) step(p *process) {
	key := claimKey{rapid.SampledFrom([]submission.Stage{submission.StageDispatch, submission.StageDelivery}).Draw(w.rt, "stage"), rapid.Int32Range(0, 1).Draw(w.rt, "partition")}
	epoch := p.owned[key]
	switch what := rapid.IntRange(0, 15).Draw(w.rt, "what"); {
	case what < 3 && len(p.under) > 0:
		w.end(p, rapid.IntRange(0, len(p.under)-1).Draw(w.rt, "which"))
	case what < 5:
		w.acquire(p, key)
		if rapid.Bool().Draw(w.rt, "at once") {
			w.end(p, len(p.under)-1)
		}
	case what < 11 && epoch > 0:
		w.write(p, key, epoch)
		if rapid.IntRange(0, 2).Draw(w.rt, "late") > 0 {
			w.end(p, len(p.under)-1)
		}
	case what == 11 && epoch > 0:
		w.owns(p, key, epoch)
	case what == 12 && len(p.under) == 0:
		if err := p.store.Close(); err != nil {
			w.rt.Fatal(err)
		}
		w.open(p)
	case what == 13:
		w.rebuild(p)
	default:
		w.project(p, rapid.IntRange(1, 5).Draw(w.rt, "records"))
	}
}

func (w *world) rebuild(p *process) {
	if err := status.NewProjector(p.store, status.Options{Log: w.log}).Rebuild(context.Background()); err != nil {
		w.rt.Fatal(err)
	}
}

// Several processes take a partition from one another, stand still inside
// Acquire and inside Append, write late, restart and rebuild. Whatever the
// schedule: what is written under an epoch that was superseded before it in the
// log changes nothing, nobody believes to own what it has written to in vain,
// and all replicas end alike.
func TestFencing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		root, err := os.MkdirTemp("", "fencing")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(root)
		w := &world{rt: rt, log: newSimLog(statustest.Partitions, status.TopicEvents, status.TopicSubmissions, status.TopicClaims)}
		for part := int32(0); len(w.ids) < 4; part = 1 - part {
			id := submission.NewID("service-bw", strconv.Itoa(len(w.ids)))
			for i := 0; statustest.Partition(id) != part; i++ {
				id = submission.NewID("service-bw", fmt.Sprint(len(w.ids), i))
			}
			w.ids = append(w.ids, id)
		}
		for i := range 2 {
			p := &process{dir: filepath.Join(root, strconv.Itoa(i)), log: &gatedLog{simLog: w.log}}
			w.open(p)
			w.processes = append(w.processes, p)
			defer func() { _ = p.store.Close() }()
			defer func() { // before its store is closed
				for len(p.under) > 0 {
					u := p.under[0]
					p.under = p.under[1:]
					close(u.release)
				}
			}()
		}
		for range rapid.IntRange(10, 60).Draw(rt, "steps") {
			w.step(rapid.SampledFrom(w.processes).Draw(rt, "process"))
		}
		for _, p := range w.processes {
			for len(p.under) > 0 {
				w.end(p, 0)
			}
		}
		w.checkEnd()
	})
}

func (w *world) checkEnd() {
	accounts, superseded, _ := w.truth()
	var first string
	for i, p := range w.processes {
		w.project(p, 1000)
		for key, epoch := range p.owned {
			w.owns(p, key, epoch)
		}
		for _, when := range []string{"followed", "rebuilt"} {
			got, err := statustest.Picture(context.Background(), p.store, &statustest.Log{IDs: w.ids})
			if err != nil {
				w.rt.Fatal(err)
			}
			if first == "" {
				first = got
			}
			if got != first {
				w.rt.Fatalf("process %d, %s:\n%s\nthe first one:\n%s", i, when, got, first)
			}
			w.rebuild(p)
		}
	}
	s := w.processes[0].store
	for id, want := range accounts {
		if !want.Copied {
			continue
		}
		if got, err := s.Get(context.Background(), id); err != nil || asJSON(got) != asJSON(want) {
			w.rt.Fatalf("projected %s, %v\nthe log says %s", asJSON(got), err, asJSON(want))
		}
		events, err := s.Events(context.Background(), id)
		if err != nil {
			w.rt.Fatal(err)
		}
		for _, e := range events {
			if e.Superseded != superseded[e.Event.ID] || e.Superseded && e.Effective {
				w.rt.Fatalf("the event at %d is %+v, superseded is %v", e.Offset, e, superseded[e.Event.ID])
			}
		}
	}
}
