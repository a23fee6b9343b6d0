package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/jobs"
	"weiche/internal/status"
	"weiche/internal/submission"
)

var deadLetters = jobs.Filter{State: submission.Dead}

// What the preview named is redriven once each, the oldest of a case first, no
// matter that it is stopped, that its replica dies with nothing told, and that
// another goes on; what died later stays dead.
func TestRedriveStoppedCrashedResumed(t *testing.T) {
	r := newRig(t)
	want := map[string]bool{}
	const cases, each = 60, 4
	for n := range cases * each {
		// Cases are interleaved, and written in no order of acceptance.
		c, i := n%cases, each-1-n/cases
		key := fmt.Sprintf("case-%d-%d", c, i)
		want[key] = true
		if m := r.meta(key, fmt.Sprint("case-", c), i*cases+c); c%2 == 0 {
			r.held(m)
		} else {
			r.dead(m, 0)
		}
	}
	j, crash := r.replica()
	v, err := j.Preview(r.ctx, jobs.Redrive, deadLetters, jobs.Wish{Operator: "anna"})
	r.must(err)
	if v.State != jobs.Previewed || v.Items != len(want) || len(v.Groups) != 2 {
		t.Fatalf("the preview is %+v", v)
	}
	r.dead(r.meta("late", "case-1", 9999), 0)
	if _, err := j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Resume, Operator: "anna"}); !errors.Is(err, jobs.ErrState) {
		t.Errorf("a preview was resumed: %v", err)
	}

	// Stopped in the middle of a chunk.
	const rate = 40.0
	stopAt := make(chan struct{})
	r.clock.then(func(slept time.Duration) {
		if slept > time.Second {
			select {
			case <-stopAt:
			default:
				if _, err := j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Stop, Operator: "bernd", Reason: "lunch"}); err != nil {
					t.Error(err)
				}
				close(stopAt)
			}
		}
	})
	_, err = j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Run, Operator: "anna", Rate: rate})
	r.must(err)
	<-stopAt
	stopped := r.until(j, v.ID, jobs.Stopped)
	for stopped.Progress.Done == 0 { // the part of the chunk is told a moment later
		time.Sleep(10 * time.Millisecond)
		stopped = r.until(j, v.ID, jobs.Stopped)
	}
	some, _ := r.effects()
	if len(some) == 0 || len(some) >= len(want)/2 || stopped.Progress.Ordered != len(some) {
		t.Fatalf("%d of %d were redriven when it was stopped, %d told", len(some), len(want), stopped.Progress.Ordered)
	}
	crash()

	// Another replica knows, and does nothing; a colleague lets it go on; that one
	// dies with a chunk half done; the next goes on by itself.
	j, crash = r.replica()
	if v := r.until(j, v.ID, jobs.Stopped); v.Words[1].Operator != "bernd" || v.Words[1].Reason != "lunch" {
		t.Errorf("what was said is %+v", v.Words)
	}
	crashed := make(chan struct{})
	r.clock.then(func(slept time.Duration) {
		if slept > 3*time.Second {
			select {
			case <-crashed:
			default:
				close(crashed)
				go crash()
			}
		}
	})
	_, err = j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Resume, Operator: "clara"})
	r.must(err)
	<-crashed
	crash()
	r.clock.then(nil)
	j, _ = r.replica()
	done := r.until(j, v.ID, jobs.Done)

	got, orders := r.effects()
	if len(got) != len(want) || done.Progress.Ordered != len(want) || done.Progress.Left != 0 || done.Progress.Outcomes["delivered"]+done.Progress.Outcomes["in-flight"] != len(want) {
		t.Fatalf("%d redriven of %d; told: %+v", len(got), len(want), done.Progress)
	}
	seen := map[string]int{}
	for _, key := range got {
		c, i := key[:strings.LastIndex(key, "-")], int(key[len(key)-1]-'0')
		if !want[key] || seen[c] != i {
			t.Errorf("%s was redriven when %d of its case had been", key, seen[c])
		}
		seen[c]++
	}
	t.Logf("%d orders for %d items, %s of virtual time", orders, len(want), r.clock.slept)
	if least := time.Duration(float64(len(want)-20) / rate * float64(time.Second)); r.clock.slept < least {
		t.Errorf("it took %s at %v a second, want %s at least", r.clock.slept, rate, least)
	}
	rep, err := j.Report(r.ctx, v.ID)
	r.must(err)
	if len(rep.Failures) != 0 || rep.States[submission.Dead] != 0 {
		t.Errorf("the report is %+v", rep)
	}
	a, err := r.store.Events(r.ctx, submission.NewID("service-bw", "case-1-0"))
	r.must(err)
	if !slices.ContainsFunc(a, func(e status.StoredEvent) bool { return e.Event.Note == "job "+v.ID.String() }) {
		t.Error("the story of a redriven delivery does not name the job")
	}
}

// What cannot be redriven is left as it is and listed with its reason.
func TestWhatIsLeft(t *testing.T) {
	r := newRig(t)
	r.dead(r.meta("good", "a", 1), 0)
	r.dead(r.meta("often", "b", 2), 2)
	r.dead(r.meta("closed", "c", 3), 0)
	gone := r.meta("gone", "d", 4)
	e := event(submission.StageDispatch, submission.EventDead, gone, "1")
	e.Reason, e.Held = "mapping-failed", &submission.Held{Topic: "weiche.deadletters", Partition: r.partition(gone), Offset: 1 << 20}
	r.must(r.ledger.Append(r.ctx, r.partition(gone), accepted(gone), e))
	r.held(r.meta("held", "e", 5))
	j, _ := r.replica()
	v, err := j.Preview(r.ctx, jobs.Redrive, deadLetters, jobs.Wish{Operator: "anna"})
	r.must(err)
	if v.Items != 5 || v.Often != 1 {
		t.Fatalf("the preview is %+v", v)
	}
	m := r.meta("closed", "c", 3)
	acct, err := r.store.Get(r.ctx, m.ID)
	r.must(err)
	o := jobs.CloseDelivery(acct, acct.Deliveries[0], r.partition(m), &submission.Instruction{Kind: submission.InstructClose, Operator: "x", Reason: "y", At: time.Now()})
	r.must(r.log.Append(r.ctx, o.Record))
	_, err = j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Run, Operator: "anna"})
	r.must(err)
	r.until(j, v.ID, jobs.Done)
	rep, err := j.Report(r.ctx, v.ID)
	r.must(err)
	why := map[string]string{}
	for _, f := range rep.Failures {
		why[r.keys[f.Submission]] = f.Reason
	}
	if why["often"] != jobs.LeftOften || why["gone"] != jobs.LeftGone || why["closed"] != jobs.LeftChanged {
		t.Errorf("left are %v", why)
	}

	// Forced, it goes; the same preview cannot be run twice.
	if _, err := j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Run, Operator: "anna"}); !errors.Is(err, jobs.ErrState) {
		t.Errorf("a job that is done was run: %v", err)
	}
	v, err = j.Preview(r.ctx, jobs.Redrive, jobs.Filter{State: submission.Dead, Destination: "bb"}, jobs.Wish{Operator: "anna"})
	r.must(err)
	_, err = j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Run, Operator: "anna", Force: true})
	r.must(err)
	r.until(j, v.ID, jobs.Done)
	if got, _ := r.effects(); !slices.Contains(got, "often") {
		t.Errorf("forced, these were redriven: %v", got)
	}
}

// A replica that is behind tells of a job by what stands in the log, not by what it
// has read; and of what the account does not know it tells as much.
func TestReportOfWhoIsBehind(t *testing.T) {
	r := newRig(t)
	for n := range 3 {
		r.dead(r.meta(fmt.Sprint(n), fmt.Sprint(n), n), 0)
	}
	j, _ := r.replica()
	v, err := j.Preview(r.ctx, jobs.Redrive, deadLetters, jobs.Wish{Operator: "anna"})
	r.must(err)
	_, err = j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Run, Operator: "anna"})
	r.must(err)
	r.until(j, v.ID, jobs.Done)

	lost := submission.NewID("service-bw", "1")
	store, err := status.Open(filepath.Join(t.TempDir(), "late.db"))
	r.must(err)
	defer store.Close()
	projector := status.NewProjector(store, status.Options{Log: without{r.log, lost}})
	late := r.jobs(store, projector)
	ctx, cancel := context.WithCancel(r.ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = late.Follow(ctx) })
	type answer struct {
		report *jobs.Report
		err    error
	}
	told := make(chan answer)
	asked := make(chan struct{})
	go func() {
		_, err := late.Get(r.ctx, v.ID) // it knows the job, and nothing of its items
		close(asked)
		if err != nil {
			told <- answer{nil, err}
			return
		}
		rep, err := late.Report(r.ctx, v.ID)
		told <- answer{rep, err}
	}()
	<-asked
	wg.Go(func() { _ = projector.Run(ctx) })
	got := <-told
	r.must(got.err)
	if want := map[submission.State]int{submission.Delivered: 2, jobs.LeftUnknown: 1}; !maps.Equal(got.report.States, want) {
		t.Errorf("the report is %+v", got.report)
	}
}

// without is a log that has lost all events of a submission.
type without struct {
	*bus.Bus
	lost uuid.UUID
}

func (l without) Tail(ctx context.Context, topic string, partition int32, from int64, fn func(*bus.Record) error) error {
	return l.Bus.Tail(ctx, topic, partition, from, func(r *bus.Record) error {
		if e, err := submission.DecodeEvent(r.Value); topic == bus.TopicEvents && err == nil && e.Submission == l.lost {
			nothing := submission.Event{ID: uuid.New(), Type: "nothing", At: e.At, Stage: e.Stage}
			said := *r
			if said.Value, err = nothing.Encode(); err != nil {
				return err
			}
			said.Headers, r = nothing.Headers(), &said
		}
		return fn(r)
	})
}

// A job that makes nothing better stops itself; an operator may insist.
func TestStopsItself(t *testing.T) {
	r := newRig(t)
	r.again = true
	for n := range 300 {
		r.dead(r.meta(fmt.Sprint(n), fmt.Sprint(n), n), 0)
	}
	j, _ := r.replica()
	v, err := j.Preview(r.ctx, jobs.Redrive, deadLetters, jobs.Wish{Operator: "anna"})
	r.must(err)
	_, err = j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Run, Operator: "anna", Rate: 1000})
	r.must(err)
	stopped := r.until(j, v.ID, jobs.Stopped)
	if w := stopped.Words[len(stopped.Words)-1]; w.Operator != jobs.Router || stopped.Progress.Done >= 300 {
		t.Errorf("stopped by %+v after %+v", w, stopped.Progress)
	}
	_, err = j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Resume, Operator: "anna"})
	r.must(err)
	if done := r.until(j, v.ID, jobs.Done); done.Progress.Outcomes["dead"] != 300 {
		t.Errorf("done: %+v", done.Progress)
	}
}

// A close in bulk ends what was previewed as rejected, with its reason, and
// nothing else.
func TestCloseInBulk(t *testing.T) {
	r := newRig(t)
	for n := range 200 {
		if m := r.meta(fmt.Sprint(n), fmt.Sprint(n), n); n%2 == 0 {
			r.held(m)
		} else {
			r.dead(m, 2) // redriven often is no matter here
		}
	}
	j, _ := r.replica()
	v, err := j.Preview(r.ctx, jobs.Close, deadLetters, jobs.Wish{Operator: "anna", Reason: "sent by post"})
	r.must(err)
	r.dead(r.meta("late", "late", 999), 0)
	_, err = j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Run, Operator: "anna", Rate: 1000})
	r.must(err)
	done := r.until(j, v.ID, jobs.Done)
	if done.Progress.Outcomes["rejected"] != 200 {
		t.Errorf("done: %+v", done.Progress)
	}
	rep, err := j.Report(r.ctx, v.ID)
	r.must(err)
	if !maps.Equal(rep.States, map[submission.State]int{submission.Rejected: 200}) {
		t.Errorf("the report is %+v", rep)
	}
	late, err := r.store.Get(r.ctx, submission.NewID("service-bw", "late"))
	r.must(err)
	if late.State != submission.Dead {
		t.Errorf("what died later is %s", late.State)
	}
	one, err := r.store.Get(r.ctx, submission.NewID("service-bw", "1"))
	r.must(err)
	if one.Detail != "sent by post" {
		t.Errorf("closed with %q", one.Detail)
	}
}

// The preview says what would become of each group, and from how many it knows.
func TestForecast(t *testing.T) {
	r := newRig(t)
	put := func(key string, n int, service submission.Service, held bool) {
		for i := range n {
			m := r.meta(fmt.Sprint(key, i), fmt.Sprint(key, i), i)
			m.Service = service
			if held {
				r.held(m)
			} else {
				r.dead(m, 0)
			}
		}
	}
	put("again", 50, "99050012104000", false)
	put("other", 3, "99000000000002", false)
	put("dies", 3, "99000000000001", true)
	put("nobody", 2, "99000000000003", true)
	put("mended", 4, "99050012104000", true)
	j, _ := r.replica()
	look := func() (out []string) {
		v, err := j.Preview(r.ctx, jobs.Redrive, deadLetters, jobs.Wish{Operator: "anna"})
		r.must(err)
		for _, g := range v.Groups {
			for _, f := range g.Forecast {
				out = append(out, fmt.Sprintf("%d/%d %d %s %s %s", g.Tried, g.Count, f.Count, f.What, f.To, f.Reason))
			}
		}
		slices.Sort(out)
		return out
	}
	want := []string{"2/2 2 unassigned  no-authority", "20/50 20 attempt bb ", "3/3 3 dead  mapping-failed", "3/3 3 elsewhere elsewhere ", "4/4 4 decide bb "}
	if got := look(); !slices.Equal(got, want) {
		t.Errorf("the forecast is %q", got)
	}
	r.mu.Lock()
	r.doors["bb"] = false
	r.mu.Unlock()
	if got := look(); got[1] != "20/50 20 wait bb " {
		t.Errorf("with the destination paused: %q", got)
	}
}

// Two jobs that are told to run run one after the other.
func TestOneAtATime(t *testing.T) {
	r := newRig(t)
	for n := range 40 {
		r.dead(r.meta(fmt.Sprint(n), fmt.Sprint(n), n), 0)
	}
	j, _ := r.replica()
	first, err := j.Preview(r.ctx, jobs.Redrive, deadLetters, jobs.Wish{Operator: "anna"})
	r.must(err)
	second, err := j.Preview(r.ctx, jobs.Redrive, deadLetters, jobs.Wish{Operator: "bernd"})
	r.must(err)
	queued := make(chan struct{})
	r.clock.then(func(time.Duration) {
		select {
		case <-queued:
		default:
			v, err := j.Say(r.ctx, second.ID, jobs.Word{Verb: jobs.Run, Operator: "bernd"})
			if err != nil || v.State != jobs.Queued {
				t.Errorf("the second is %+v: %v", v, err)
			}
			close(queued)
		}
	})
	_, err = j.Say(r.ctx, first.ID, jobs.Word{Verb: jobs.Run, Operator: "anna"})
	r.must(err)
	r.until(j, first.ID, jobs.Done)
	r.until(j, second.ID, jobs.Done)
	if got, orders := r.effects(); len(got) != 40 || orders != 40 {
		t.Errorf("%d orders, of which %d took effect", orders, len(got))
	}
}

// Sent to another authority, or mapped anew, every submission gets one revision
// more, once; and what it takes the place of is named in the order.
func TestRerouteInBulk(t *testing.T) {
	for _, kind := range []jobs.Kind{jobs.Anew, jobs.Reroute} {
		r := newRig(t)
		r.dead(r.meta("a", "a", 1), 2) // the counter is the delivery's own
		r.dead(r.meta("b", "b", 2), 0)
		r.held(r.meta("c", "c", 3))
		j, _ := r.replica()
		v, err := j.Preview(r.ctx, kind, deadLetters, jobs.Wish{Operator: "anna", Authority: "other"})
		r.must(err)
		_, err = j.Say(r.ctx, v.ID, jobs.Word{Verb: jobs.Run, Operator: "anna"})
		r.must(err)
		if done := r.until(j, v.ID, jobs.Done); done.Progress.Ordered != 3 {
			t.Errorf("%s: %+v", kind, done.Progress)
		}
		for _, key := range []string{"a", "b", "c"} {
			a, err := r.store.Get(r.ctx, submission.NewID("service-bw", key))
			r.must(err)
			if a.Dispatched != 2 || a.State != submission.InFlight {
				t.Errorf("%s: %s is %s at revision %d", kind, key, a.State, a.Dispatched)
			}
		}
	}
}
