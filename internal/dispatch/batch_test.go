package dispatch

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// fetched brings appended records as the bus would.
func (r *rig) fetched(recs ...*bus.Record) []*bus.Record {
	r.t.Helper()
	out := make([]*bus.Record, len(recs))
	for i, rec := range recs {
		got, err := r.bus.Fetch(r.ctx(), rec.Topic, rec.Partition, rec.Offset)
		must(r.t, err)
		out[i] = got
	}
	return out
}

// idle stops the rig's own consuming, and takes partition 0 over.
func (r *rig) idle() {
	r.t.Helper()
	r.end()
	must(r.t, r.stage.Assigned(r.ctx(), Topic, 0))
}

// One batch of everything: each record ends as if it had come alone, a
// submission that stands in it twice is dispatched once, and what fails holds
// only its own case.
func TestBatchOfEverything(t *testing.T) {
	r := newRig(t)
	r.idle()
	r.book.maps(func(j Job) ([]byte, error) {
		switch data := string(j.Envelope.Data); {
		case strings.Contains(data, "bad"):
			return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "field y")
		case strings.Contains(data, "later"):
			return nil, fault.New(fault.Retryable, fault.ReasonStorage, "disk")
		}
		return []byte("<ok/>"), nil
	})
	good, a := r.accepted("good", r.in(0, "A"), region)
	bad, b := r.accepted("bad", r.in(0, "B"), region)
	held, c := r.accepted("held", r.in(0, "C"), nobodys)
	later, d := r.accepted("later", r.in(0, "D"), region)
	behind, e := r.accepted("behind", r.in(0, "D"), region)
	after, f := r.accepted("after", r.in(0, "B"), region)
	garbage := r.record(good, a.Value)
	garbage.Headers["ce_revision"] = "first"
	other := good
	other.Append = uuid.New() // posted again
	twin := r.record(other, a.Value)
	r.append(a, b, c, d, e, twin, garbage, f)
	errs := r.stage.Handle(t.Context(), r.fetched(a, b, c, d, e, twin, garbage, f))
	failed := []int{}
	for i, err := range errs {
		if err != nil {
			failed = append(failed, i)
		}
	}
	if !slices.Equal(failed, []int{3, 4}) {
		t.Fatalf("failed: %v", errs)
	}
	r.decided(good, 1)
	r.held(bad, submission.Dead, fault.ReasonMappingFailed)
	r.held(held, submission.Unassigned, fault.ReasonNoAuthority)
	r.decided(after, 1)
	same(t, "events", r.types(good), accepted, decided)
	for m, n := range map[*submission.Meta]int{&good: 1, &after: 1, &bad: 0, &later: 0, &behind: 0} {
		if got := len(r.read(TopicDeliveries, *m)); got != n {
			t.Fatalf("%d deliveries of %s, want %d", got, m.ID, n)
		}
	}
	if n := len(r.read(TopicDead, good)); n != 1 {
		t.Fatalf("%d dead letters of what cannot be read", n)
	}

	// The two that failed come again, in order.
	r.book.maps(nil)
	for _, err := range r.stage.Handle(t.Context(), r.fetched(d, e)) {
		must(t, err)
	}
	first, second := r.read(TopicDeliveries, later), r.read(TopicDeliveries, behind)
	if len(first) != 1 || len(second) != 1 || first[0].Offset > second[0].Offset {
		t.Fatal("out of order")
	}
}

// One message that is too large for a record goes to the dead letters, and only
// that one.
func TestBatchWithOneTooLarge(t *testing.T) {
	r := newRig(t)
	r.idle()
	one, a := r.accepted("one", r.in(0, "A"), region)
	huge, b := r.accepted("huge", r.in(0, "B"), region)
	two, c := r.accepted("two", r.in(0, "C"), region)
	r.hurt.set(func(h *hurt) {
		h.record = func(rec *bus.Record) error {
			if rec.Topic == TopicDeliveries && rec.Headers[submission.HeaderSubject] == huge.ID.String() {
				return fault.New(fault.Permanent, fault.ReasonTooLarge, "")
			}
			return nil
		}
	})
	r.append(a, b, c)
	for _, err := range r.stage.Handle(t.Context(), r.fetched(a, b, c)) {
		must(t, err)
	}
	r.held(huge, submission.Dead, fault.ReasonTooLarge)
	for _, m := range []submission.Meta{one, two} {
		r.decided(m, 1)
		if len(r.read(TopicDeliveries, m)) == 0 {
			t.Fatal("a neighbour was not sent on")
		}
	}
}

// Dispatch computes for long, and everything else of the router needs a turn
// between two of its records: on one core a neighbour comes forward with each.
func TestBatchLetsOthersThrough(t *testing.T) {
	r := newRig(t)
	r.idle()
	var recs []*bus.Record
	for i := range 16 {
		_, rec := r.accepted(strconv.Itoa(i), r.in(0, strconv.Itoa(i)), region)
		recs = append(recs, rec)
	}
	r.append(recs...)
	fetched := r.fetched(recs...)

	var hops atomic.Int64
	seen := []int64{}
	r.book.maps(func(Job) ([]byte, error) {
		seen = append(seen, hops.Load())
		return []byte("<ok/>"), nil
	})
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				hops.Add(1)
				runtime.Gosched()
			}
		}
	}()
	for _, err := range r.stage.Handle(t.Context(), fetched) {
		must(t, err)
	}
	close(stop)
	<-stopped
	stood := 0
	for i := 1; i < len(seen); i++ {
		if seen[i] == seen[i-1] {
			stood++
		}
	}
	if len(seen) != len(recs) || stood > len(seen)/4 { // now and then somebody else has the turn
		t.Errorf("of %d records, %d were worked on without a turn for others: %v", len(seen), stood, seen)
	}
}

// A form may be as large as a body at the door, and its record tells nothing of it:
// of a batch, one at a time is in memory.
func TestBatchKeepsNoForms(t *testing.T) {
	r := newRig(t)
	r.idle()
	var recs []*bus.Record
	for i := range 8 {
		_, rec := r.accepted(strconv.Itoa(i), r.in(0, strconv.Itoa(i)), region)
		recs = append(recs, rec)
	}
	r.append(recs...)
	fetched := r.fetched(recs...)
	var forms []weak.Pointer[submission.Envelope]
	most := 0
	r.book.maps(func(j Job) ([]byte, error) {
		r.book.mu.Lock()
		r.book.jobs = nil
		r.book.mu.Unlock()
		forms = append(forms, weak.Make(j.Envelope))
		runtime.GC()
		alive := 0
		for _, f := range forms {
			if f.Value() != nil {
				alive++
			}
		}
		most = max(most, alive)
		return []byte("<ok/>"), nil
	})
	for _, err := range r.stage.Handle(t.Context(), fetched) {
		must(t, err)
	}
	if len(forms) != len(recs) || most > 2 {
		t.Errorf("%d forms of %d are in memory at once", most, len(forms))
	}
}
