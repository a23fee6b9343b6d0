package delivery

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// The design's ack table, each row on a real broker, a real status store and
// real keys. The destinations do what the tests tell them.

func place(id string, d *door, p Policy) Destination {
	return Destination{ID: id, Kind: "test", Adapter: d, Policy: p}
}

func same[T comparable](t *testing.T, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func ids(ms ...submission.DeliveryMeta) (out []string) {
	for _, m := range ms {
		out = append(out, m.ID.String())
	}
	return out
}

func TestAckDelivered(t *testing.T) {
	x := newDoor()
	r := newRig(t, place("x", x, quick))
	m := r.submit("a1", r.in(0, "A"), "x")
	if d := r.state(m, submission.Delivered); d.Attempts != 1 || d.Reason != "" {
		t.Fatalf("%+v", d)
	}
	same(t, "events", r.types(m), submission.EventDelivered)
	if c := x.all(); len(c) != 1 || c[0].id != m.DeliveryID.String() || c[0].xml != "<a1/>" || c[0].attempt != 1 {
		t.Fatalf("%+v", c)
	}
	r.acked(0)
	// The record again, as dispatch may append it: dropped.
	value := r.read(Topic, m)[0].Value
	must(t, r.bus.Append(t.Context(), r.record(m, value)))
	r.acked(0)
	if len(x.all()) != 1 || len(r.events(m)) != 1 {
		t.Fatal("a duplicate was attempted")
	}
}

func TestAckRetryable(t *testing.T) {
	x := newDoor()
	x.tell(func(_ context.Context, _ *submission.Delivery, nth int) error {
		if nth < 3 {
			return retryable()
		}
		return nil
	})
	slow := quick
	slow.Initial = 150 * time.Millisecond // long enough to see it wait
	r := newRig(t, place("x", x, slow))
	began := time.Now()
	m := r.submit("a1", r.in(0, "A"), "x")
	d := r.waits(m, fault.ReasonUnavailable)
	if d.Attempts < 1 || d.DueAt == nil {
		t.Fatalf("%+v", d)
	}
	r.acked(0)
	r.state(m, submission.Delivered)
	same(t, "events", r.types(m), submission.EventAttempt, submission.EventAttempt, submission.EventDelivered)
	for i, e := range r.events(m) {
		if e.Attempt != i+1 {
			t.Fatalf("attempt %d has number %d", i+1, e.Attempt)
		}
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Fatalf("delivered after %s, before its due times", took)
	}
	for _, c := range x.all() {
		if c.id != m.DeliveryID.String() {
			t.Fatal("a retry under another id")
		}
	}
	// What has ended is cut from the waiting topic (but for its last record).
	r.eventually("cut", func() bool { return len(r.read(TopicWait, m)) <= 1 })
}

func TestAckDestinationAtFault(t *testing.T) {
	x, y := newDoor(), newDoor()
	x.tell(func(context.Context, *submission.Delivery, int) error { return unreachable() })
	r := newRig(t, place("x", x, quick), place("y", y, quick))
	first := r.submit("a1", r.in(0, "A"), "x")
	if d := r.waits(first, fault.ReasonUnreachable); d.Attempts != 0 || d.DueAt != nil {
		t.Fatalf("%+v: an attempt was counted", d)
	}
	if e := r.events(first); len(e) != 1 || e[0].Type != submission.EventAttempt || e[0].Attempt != 0 || e[0].Class != "destination" {
		t.Fatalf("%+v", e)
	}
	var all []submission.DeliveryMeta
	for i, c := range []string{"B", "C", "D", "E"} {
		all = append(all, r.submit("x-"+c, r.in(int32(i%2), c), "x"))
	}
	for _, m := range all {
		r.await(m, "waiting", func(d *submission.DeliveryAccount) bool { return d.State == submission.Waiting && d.Attempts == 0 })
	}
	r.acked(0)
	r.acked(1)
	// Others flow.
	r.state(r.submit("y1", r.in(0, "A"), "y"), submission.Delivered)
	// Probes go on, one at a time.
	for range 4 {
		<-x.rung
	}
	x.mu.Lock()
	most := x.most
	x.mu.Unlock()
	if most != 1 {
		t.Fatalf("%d probes at once", most)
	}
	if st := r.stage.Destinations(); !slices.ContainsFunc(st, func(d DestinationState) bool { return d.ID == "x" && d.Paused }) {
		t.Fatalf("%+v", st)
	}
	x.tell(nil)
	for _, m := range append(all, first) {
		if d := r.state(m, submission.Delivered); d.Attempts != 1 {
			t.Fatalf("%d attempts counted", d.Attempts)
		}
	}
}

// What is handed over waits for the destination's word: the token is on record
// before the next step, asking again records nothing, and its case waits.
func TestAckHandedOver(t *testing.T) {
	d := newDoor()
	var mu sync.Mutex
	var tokens []string
	word := make(chan struct{})
	d.tell(func(_ context.Context, del *submission.Delivery, nth int) error {
		mu.Lock()
		defer mu.Unlock()
		if del.Message[1] == 'b' {
			return nil
		}
		tokens = append(tokens, del.Token)
		switch {
		case del.Token == "":
			return &submission.Pending{Token: "urn:message:1"}
		case nth < 5:
			return &submission.Pending{Token: "urn:message:1", After: 10 * time.Millisecond}
		}
		select {
		case <-word:
			return nil
		default:
			return &submission.Pending{Token: "urn:message:1", After: 20 * time.Millisecond}
		}
	})
	r := newRig(t, Destination{ID: "d", Kind: "test", Adapter: d, Policy: quick})
	c := r.in(0, "a case")
	first := r.submit("a", c, "d")
	acct := r.waits(first, fault.ReasonHandedOver)
	if acct.Token != "urn:message:1" || acct.Attempts != 0 {
		t.Errorf("recorded: token %q, %d attempts", acct.Token, acct.Attempts)
	}
	second := r.submit("b", c, "d")
	r.waits(second, fault.ReasonBehindCase)
	r.acked(0)
	r.eventually("asked four times", func() bool { mu.Lock(); defer mu.Unlock(); return len(tokens) > 4 })
	r.restart()
	close(word)
	if acct := r.state(first, submission.Delivered); acct.Attempts != 1 {
		t.Errorf("delivered at attempt %d", acct.Attempts)
	}
	r.state(second, submission.Delivered)
	if got := r.types(first); !slices.Equal(got, []submission.EventType{submission.EventHandedOver, submission.EventDelivered}) {
		t.Errorf("told: %v", got)
	}
	for i, token := range tokens {
		if i > 0 && token == "" {
			t.Errorf("attempt %d came without the token: it was handed over twice", i+1)
		}
	}
	if got := d.order(); !slices.Equal(got, []string{first.ID.String(), second.ID.String()}) {
		t.Errorf("taken in the order %v", got)
	}
}

// A refusal after it was handed over is the last word: a redrive begins anew.
// Where nobody knows, a redrive asks first.
func TestRedriveOfWhatWasHandedOver(t *testing.T) {
	for _, c := range []struct {
		name  string
		word  func() error // after it was handed over
		token string
	}{
		{"refused", permanent, ""},
		{"given up", retryable, "urn:message:1"},
		{"no report", func() error { return fault.New(fault.Permanent, fault.ReasonNoReport, "still open") }, "urn:message:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDoor()
			d.tell(func(_ context.Context, del *submission.Delivery, _ int) error {
				if del.Token == "" {
					return &submission.Pending{Token: "urn:message:1"}
				}
				return c.word()
			})
			p := quick
			p.GiveUp = time.Millisecond
			r := newRig(t, Destination{ID: "d", Kind: "test", Adapter: d, Policy: p})
			m := r.submit("a", r.in(0, "a case"), "d")
			r.state(m, submission.Dead)
			seen := make(chan string, 1)
			d.tell(func(_ context.Context, del *submission.Delivery, _ int) error {
				seen <- del.Token
				return nil
			})
			r.redrive(m)
			r.state(m, submission.Delivered)
			if got := <-seen; got != c.token {
				t.Errorf("redriven with the token %q, want %q", got, c.token)
			}
		})
	}
}

// One case in order under every kind of trouble, others beside it.
func TestAckOrderOfACase(t *testing.T) {
	for name, trouble := range map[string]func() error{"retryable": retryable, "destination": unreachable,
		"panic": func() error { panic("a form value") }} {
		t.Run(name, func(t *testing.T) {
			x := newDoor()
			r := newRig(t, place("x", x, quick))
			a, b := r.in(0, "A"), r.in(0, "B")
			badly := true
			x.tell(func(_ context.Context, d *submission.Delivery, nth int) error {
				if string(d.Message) == "<a1/>" && badly && nth < 4 {
					return trouble()
				}
				return nil
			})
			a1, a2, a3 := r.submit("a1", a, "x"), r.submit("a2", a, "x"), r.submit("a3", a, "x")
			b1 := r.submit("b1", b, "x")
			for _, m := range []submission.DeliveryMeta{a1, a2, a3, b1} {
				r.state(m, submission.Delivered)
			}
			order := slices.DeleteFunc(x.order(), func(id string) bool { return id == b1.ID.String() })
			same(t, "order of the case", order, ids(a1, a2, a3)...)
			for _, m := range []submission.DeliveryMeta{a2, a3} {
				if d := r.state(m, submission.Delivered); d.Attempts != 1 {
					t.Fatalf("%d attempts of one that was held back", d.Attempts)
				}
			}
			if strings.Contains(r.text(), "a form value") {
				t.Fatal("a panic's value stands in the log")
			}
		})
	}
}

func TestAckPermanentRedriveAndClose(t *testing.T) {
	x := newDoor()
	r := newRig(t, place("x", x, quick))
	x.tell(func(_ context.Context, d *submission.Delivery, _ int) error {
		if strings.Contains(string(d.Message), "1") {
			return permanent()
		}
		return nil
	})
	a, b, c := r.in(0, "A"), r.in(0, "B"), r.in(1, "C")
	a1, a2, a3 := r.submit("a1", a, "x"), r.submit("a2", a, "x"), r.submit("a3", a, "x")
	c1, c2 := r.submit("c1", c, "x"), r.submit("c2", c, "x")
	b2 := r.submit("b2", b, "x")
	r.state(b2, submission.Delivered)
	d := r.state(a1, submission.Dead)
	if d.Attempts != 1 || d.Reason != string(fault.ReasonRefused) || d.Held == nil || d.Held.Topic != TopicDead {
		t.Fatalf("%+v", d)
	}
	if dead := r.read(TopicDead, a1); len(dead) != 1 || dead[0].Headers["ce_reason"] != "refused" {
		t.Fatalf("%+v", dead)
	}
	same(t, "events", r.types(a1), submission.EventDead)
	for _, m := range []submission.DeliveryMeta{a2, a3, c2} {
		r.waits(m, fault.ReasonBehindCase)
	}
	r.acked(0)
	r.acked(1)

	// Over a restart too, dead holds its case.
	r.restart()
	same(t, "delivered so far", x.order(), b2.ID.String())

	// A redrive that dies again stays one dead letter; the case stays held.
	r.redrive(a1)
	r.await(a1, "dead again", func(d *submission.DeliveryAccount) bool { return d.State == submission.Dead && d.Redrives == 1 })
	r.waits(a2, fault.ReasonBehindCase)

	x.tell(nil)
	r.redrive(a1)
	for _, m := range []submission.DeliveryMeta{a1, a2, a3} {
		r.state(m, submission.Delivered)
	}
	same(t, "events", r.types(a1), submission.EventDead, submission.EventRedriven, submission.EventDead, submission.EventRedriven, submission.EventDelivered)
	same(t, "order", x.order(), ids(b2, a1, a2, a3)...)
	for _, call := range x.all() {
		if call.submission == a1.ID.String() && call.id != a1.DeliveryID.String() {
			t.Fatal("a redrive under another id")
		}
	}

	// Closing releases the case, and what is closed is not delivered.
	r.close(c1)
	r.state(c1, submission.Rejected)
	r.state(c2, submission.Delivered)
	if slices.Contains(x.order(), c1.ID.String()) {
		t.Fatal("delivered what was closed")
	}
	// An order about what has ended changes nothing.
	r.close(a1)
	r.acked(0)
	r.state(a1, submission.Delivered)
}

// A transient fault after a redrive waits as a first one does.
// A crash between a redrive's event and its outcome's: what is parked behind
// stays parked until the order comes again.
func TestCrashInsideARedrive(t *testing.T) {
	d := newDoor()
	d.tell(func(context.Context, *submission.Delivery, int) error { return permanent() })
	r := newRig(t, Destination{ID: "bb/a", Kind: "test", Adapter: d, Policy: quick})
	c := r.in(0, "case")
	first := r.submit("1", c, "bb/a")
	dead := r.state(first, submission.Dead)
	second := r.submit("2", c, "bb/a")
	r.waits(second, fault.ReasonBehindCase)
	r.acked(0)
	must(t, r.ledger.Append(t.Context(), 0, submission.Event{
		ID: submission.NewEventID(submission.EventRedriven, first.DeliveryID, "redriven", "1", "1"), Type: submission.EventRedriven, At: time.Now().UTC(),
		Stage: submission.StageDelivery, Epoch: r.store.EpochOf(submission.StageDelivery, 0), Submission: first.ID, CaseID: first.CaseID, Portal: first.Portal,
		Land: first.Land, Service: first.Service, Revision: 1, DeliveryID: first.DeliveryID, Destination: first.Destination, Adapter: first.Adapter,
		Redrive: 1, Operator: "anna"}))
	r.state(first, submission.InFlight)
	d.tell(nil)
	r.restart()
	// The scheduler has looked at the partition once another case has passed it.
	other := r.submit("3", r.in(0, "other"), "bb/a")
	r.state(other, submission.Delivered)
	r.state(second, submission.Waiting)

	rec, err := r.bus.Fetch(r.ctx(), dead.Held.Topic, dead.Held.Partition, dead.Held.Offset)
	must(t, err)
	m, err := submission.ParseDeliveryMeta(rec.Headers)
	must(t, err)
	m.Redrives, m.Reason = 1, ""
	m.Instruction = &submission.Instruction{Kind: submission.InstructRedrive, Operator: "anna", At: time.Now()}
	must(t, r.bus.Append(t.Context(), r.record(m, rec.Value)))
	r.state(first, submission.Delivered)
	r.state(second, submission.Delivered)
	if got, want := d.order(), []string{other.ID.String(), first.ID.String(), second.ID.String()}; !slices.Equal(got, want) {
		t.Errorf("taken in the order %v, want %v", got, want)
	}
}

func TestRedriveBeginsAnew(t *testing.T) {
	x := newDoor()
	p := quick
	p.Initial, p.Factor, p.Max = 10*time.Millisecond, 1000, time.Hour
	r := newRig(t, place("x", x, p))
	x.tell(func(_ context.Context, _ *submission.Delivery, nth int) error {
		switch nth {
		case 1, 3:
			return retryable()
		case 2:
			return permanent()
		}
		return nil
	})
	m := r.submit("a1", r.in(0, "A"), "x")
	r.redrive(m)
	r.state(m, submission.Delivered) // the third attempt would wait for hours
}

// Nothing is acknowledged that could not be recorded, and all goes on when it
// can be.
func TestAckRecordingFails(t *testing.T) {
	down := fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "")
	type thing struct {
		do   func() error
		fail func(h *hurt)
		want submission.State
	}
	ledger := func(kind submission.EventType) func(h *hurt) {
		return func(h *hurt) {
			h.told = func(ev submission.Event) (error, error) {
				if ev.Type == kind {
					return down, nil
				}
				return nil, nil
			}
		}
	}
	log := func(topic string) func(h *hurt) {
		return func(h *hurt) {
			h.append = func(to string) error {
				if to == topic {
					return down
				}
				return nil
			}
		}
	}
	none := func() error { return nil }
	for name, c := range map[string]thing{
		"delivered":         {none, ledger(submission.EventDelivered), submission.Delivered},
		"attempt":           {retryable, ledger(submission.EventAttempt), submission.Waiting},
		"waiting record":    {retryable, log(TopicWait), submission.Waiting},
		"dead":              {permanent, ledger(submission.EventDead), submission.Dead},
		"dead letter":       {permanent, log(TopicDead), submission.Dead},
		"destination fault": {unreachable, ledger(submission.EventAttempt), submission.Waiting},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newDoor()
			p := quick
			p.Initial, p.Max = time.Hour, time.Hour
			r := newRig(t, place("x", x, p))
			x.tell(func(context.Context, *submission.Delivery, int) error { return c.do() })
			r.hurt.set(c.fail)
			m := r.submit("a1", r.in(0, "A"), "x")
			after := r.submit("a2", r.in(0, "A"), "x")
			<-x.rung
			r.eventually("tried again", func() bool { return len(x.all()) >= 2 || name == "destination fault" })
			at, err := r.bus.Committed(t.Context(), Group, Topic)
			must(t, err)
			if at[0] > 0 || len(r.events(m)) > 0 {
				t.Fatalf("acknowledged up to %d, events %v", at[0], r.types(m))
			}
			r.hurt.set(func(h *hurt) { h.append, h.told = nil, nil })
			if c.want == submission.Waiting {
				r.await(m, "waiting", func(d *submission.DeliveryAccount) bool { return d.State == submission.Waiting })
				r.waits(after, fault.ReasonBehindCase)
			} else {
				r.state(m, c.want)
			}
			r.acked(0)
			for _, call := range x.all() {
				if call.submission == m.ID.String() && call.id != m.DeliveryID.String() {
					t.Fatal("another id")
				}
			}
		})
	}
}

// A recording that failed for us and was written all the same: nothing waits
// with nobody to attempt it, nothing is held by what has ended.
func TestRecordingInDoubt(t *testing.T) {
	for _, kind := range []submission.EventType{submission.EventDelivered, submission.EventAttempt, submission.EventDead, submission.EventWaiting, submission.EventRedriven, submission.EventClosed} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			x := newDoor()
			r := newRig(t, place("x", x, quick))
			r.hurt.set(func(h *hurt) {
				left := 1
				h.told = func(ev submission.Event) (error, error) {
					if ev.Type == kind && left > 0 {
						left--
						return nil, fault.New(fault.Retryable, fault.ReasonTimeout, "")
					}
					return nil, nil
				}
			})
			x.tell(func(_ context.Context, d *submission.Delivery, nth int) error {
				if string(d.Message) == "<a1/>" && nth == 1 {
					if kind == submission.EventAttempt || kind == submission.EventDelivered {
						return retryable()
					}
					return permanent()
				}
				return nil
			})
			a1, a2 := r.submit("a1", r.in(0, "A"), "x"), r.submit("a2", r.in(0, "A"), "x")
			want := submission.Delivered
			switch kind {
			case submission.EventDead, submission.EventWaiting, submission.EventRedriven:
				r.waits(a2, fault.ReasonBehindCase)
				r.redrive(a1)
			case submission.EventClosed:
				r.waits(a2, fault.ReasonBehindCase)
				r.close(a1)
				want = submission.Rejected
			}
			r.state(a1, want)
			r.state(a2, submission.Delivered)
			r.acked(0)
			if order := x.order(); want == submission.Delivered {
				same(t, "order", order, ids(a1, a2)...)
			}
		})
	}
}

// A restart in the middle keeps due times, order and causes; what a stop cuts
// off is not counted.
func TestAckRestart(t *testing.T) {
	x, y := newDoor(), newDoor()
	p := quick
	p.Initial, p.Max = 1500*time.Millisecond, 1500*time.Millisecond
	r := newRig(t, place("x", x, p), place("y", y, quick))
	x.tell(func(_ context.Context, d *submission.Delivery, nth int) error {
		if string(d.Message) == "<a1/>" && nth == 1 {
			return retryable()
		}
		return nil
	})
	y.tell(func(ctx context.Context, _ *submission.Delivery, _ int) error { <-ctx.Done(); return ctx.Err() })
	a := r.in(0, "A")
	a1, a2, a3 := r.submit("a1", a, "x"), r.submit("a2", a, "x"), r.submit("a3", a, "x")
	cut := r.submit("cut", r.in(1, "Y"), "y")
	due := *r.waits(a1, fault.ReasonUnavailable).DueAt
	r.waits(a3, fault.ReasonBehindCase)
	<-y.rung
	r.restart()
	y.tell(nil)
	if len(r.events(cut)) > 1 {
		t.Fatalf("what the stop cut off was recorded: %v", r.types(cut))
	}
	for _, m := range []submission.DeliveryMeta{a1, a2, a3} {
		r.state(m, submission.Delivered)
	}
	if at := r.events(a1)[1].At; at.Before(due.Add(-time.Millisecond)) {
		t.Fatalf("attempted at %s, due at %s", at, due)
	}
	same(t, "order", x.order(), ids(a1, a2, a3)...)
	if d := r.state(cut, submission.Delivered); d.Attempts != 1 || d.Reason != "" {
		t.Fatalf("%+v", d)
	}
	same(t, "events", r.types(cut), submission.EventDelivered)
}

// An adapter that has succeeded although it was cancelled has succeeded.
func TestAckSuccessAlthoughCancelled(t *testing.T) {
	x := newDoor()
	r := newRig(t, place("x", x, quick))
	x.tell(func(ctx context.Context, _ *submission.Delivery, _ int) error { <-ctx.Done(); return nil })
	m := r.submit("a1", r.in(0, "A"), "x")
	<-x.rung
	r.restart()
	r.state(m, submission.Delivered)
	if n := len(x.all()); n != 1 {
		t.Fatalf("%d attempts", n)
	}
}

func TestAckOtherDecisionAndUndecodable(t *testing.T) {
	x := newDoor()
	r := newRig(t, place("x", x, quick))
	m, rec := r.decided("a1", r.in(0, "A"), "x")
	other := m
	other.Decision = uuid.New()
	elsewhere := m
	elsewhere.DeliveryID = submission.NewDeliveryID(m.ID, "y", 1)
	later := m
	later.Revision = 2
	broken := r.record(m, rec.Value)
	broken.Headers["ce_attempts"] = "many"
	must(t, r.bus.Append(t.Context(), r.record(other, rec.Value), r.record(elsewhere, rec.Value), r.record(later, rec.Value), broken, rec))
	r.state(m, submission.Delivered)
	r.acked(0)
	if n := len(x.all()); n != 1 {
		t.Fatalf("%d attempts", n)
	}
	dead := r.read(TopicDead, m)
	if len(dead) != 1 || dead[0].Headers["ce_reason"] != string(fault.ReasonUndecodable) || string(dead[0].Value) != string(rec.Value) {
		t.Fatalf("%+v", dead)
	}
	same(t, "events", r.types(m), submission.EventDelivered)
}

// Another owner begins: nothing of ours takes effect any more, nothing is cut
// from the waiting topic, and when the partition is ours after all we take it
// back and go on.
func TestAckSuperseded(t *testing.T) {
	x := newDoor()
	r := newRig(t, place("x", x, quick))
	hold := make(chan struct{})
	x.tell(func(_ context.Context, _ *submission.Delivery, nth int) error {
		if nth == 1 {
			<-hold
			return permanent()
		}
		return nil
	})
	r.stage.mu.Lock()
	mine := r.stage.lanes[0]
	r.stage.mu.Unlock()
	m := r.submit("a1", r.in(0, "A"), "x")
	<-x.rung
	epoch, err := r.ledger.Acquire(r.ctx(), submission.StageDelivery, 0)
	must(t, err)
	if mine != nil && epoch <= mine.epoch {
		t.Fatalf("epoch %d", epoch)
	}
	close(hold)
	if d := r.state(m, submission.Delivered); d.Attempts != 1 {
		t.Fatalf("%+v", d)
	}
	same(t, "events that took effect", r.types(m), submission.EventDelivered)
	if now := r.store.EpochOf(submission.StageDelivery, 0); now <= epoch {
		t.Fatalf("epoch %d: not taken back", now)
	}
	r.acked(0)
}

func TestSupersededOwnerCutsNothing(t *testing.T) {
	x := newDoor()
	x.tell(func(context.Context, *submission.Delivery, int) error { return unreachable() })
	p := quick
	p.Probe = time.Hour
	r := newRig(t, place("x", x, p))
	m := r.submit("a1", r.in(0, "A"), "x")
	r.waits(m, fault.ReasonUnreachable)
	r.acked(0)
	r.stage.mu.Lock()
	l := r.stage.lanes[0]
	r.stage.mu.Unlock()
	_, err := r.ledger.Acquire(r.ctx(), submission.StageDelivery, 0)
	must(t, err)
	before, err := r.bus.Committed(t.Context(), WaitGroup, TopicWait)
	must(t, err)
	l.mu.Lock()
	l.q = newQueue() // as if all had ended
	l.q.next = 1000
	l.mu.Unlock()
	l.commit(t.Context())
	after, err := r.bus.Committed(t.Context(), WaitGroup, TopicWait)
	must(t, err)
	if after[0] > max(before[0], 0) || !l.lost.Load() {
		t.Fatalf("committed %d, then %d", before[0], after[0])
	}
	// Whoever owns it now finds it.
	x.tell(nil)
	r.eventually("taken back", func() bool {
		r.stage.mu.Lock()
		defer r.stage.mu.Unlock()
		return r.stage.lanes[0] != l
	})
	r.stage.Resume("x", "anna")
	r.state(m, submission.Delivered)
}

func TestTooLargeToWait(t *testing.T) {
	x := newDoor()
	x.tell(func(context.Context, *submission.Delivery, int) error { return retryable() })
	r := newRig(t, place("x", x, quick))
	r.hurt.set(func(h *hurt) {
		h.append = func(topic string) error {
			if topic == TopicWait {
				return fault.New(fault.Permanent, fault.ReasonTooLarge, "")
			}
			return nil
		}
	})
	m := r.submit("a1", r.in(0, "A"), "x")
	if d := r.state(m, submission.Dead); d.Reason != string(fault.ReasonTooLarge) || d.Attempts != 1 {
		t.Fatalf("%+v", d)
	}
	r.acked(0)
}

func TestGivesUp(t *testing.T) {
	x := newDoor()
	x.tell(func(context.Context, *submission.Delivery, int) error { return retryable() })
	p := quick
	p.GiveUp = 100 * time.Millisecond
	r := newRig(t, place("x", x, p))
	m := r.submit("a1", r.in(0, "A"), "x")
	if d := r.state(m, submission.Dead); d.Reason != string(fault.ReasonGaveUp) || d.Attempts < 2 {
		t.Fatalf("%+v", d)
	}
}

// What the configuration names no longer waits until it is named again, over a
// restart too.
func TestDestinationThatVanishes(t *testing.T) {
	x := newDoor()
	x.tell(func(context.Context, *submission.Delivery, int) error { return retryable() })
	all := place("x", x, quick)
	r := newRig(t, all)
	a1 := r.submit("a1", r.in(0, "A"), "x")
	r.waits(a1, fault.ReasonUnavailable)
	r.dests = nil
	r.stage.SetDestinations(nil)
	a2 := r.submit("a2", r.in(0, "A"), "x")
	b1 := r.submit("b1", r.in(1, "B"), "x")
	r.waits(a2, fault.ReasonBehindCase)
	r.waits(b1, fault.ReasonMisconfigured)
	r.restart()
	x.tell(nil)
	r.stage.SetDestinations([]Destination{all})
	for _, m := range []submission.DeliveryMeta{a1, a2, b1} {
		r.state(m, submission.Delivered)
	}
}

// A slow destination takes its share and no more.
func TestSlowDestinationHoldsNobody(t *testing.T) {
	x, y := newDoor(), newDoor()
	open := make(chan struct{})
	x.tell(func(ctx context.Context, _ *submission.Delivery, _ int) error {
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	p := quick
	p.InFlight, p.Timeout = 2, time.Minute
	r := newRig(t, place("x", x, p), place("y", y, quick))
	var slow []submission.DeliveryMeta
	for i := range 30 {
		slow = append(slow, r.submit("x"+string(rune('a'+i)), uuid.New(), "x"))
	}
	<-x.rung
	r.state(r.submit("y1", r.in(0, "Y"), "y"), submission.Delivered)
	r.state(r.submit("y2", r.in(1, "Z"), "y"), submission.Delivered)
	close(open)
	for _, m := range slow {
		if d := r.state(m, submission.Delivered); d.Attempts != 1 {
			t.Fatalf("%+v", d)
		}
	}
	if x.most > 2 {
		t.Fatalf("%d at once, 2 are allowed", x.most)
	}
}

// After Revoked nothing of the partition is under way, even where an adapter
// does not end in time, and Handle refuses.
func TestRevoked(t *testing.T) {
	x := newDoor()
	r := newRig(t, place("x", x, quick))
	r.state(r.submit("a1", r.in(0, "A"), "x"), submission.Delivered)
	r.stage.mu.Lock()
	l := r.stage.lanes[0]
	r.stage.mu.Unlock()
	r.stage.Revoked(Topic, 0)
	if l.ctx.Err() == nil {
		t.Fatal("the lane lives")
	}
	m := r.submit("a2", r.in(0, "A"), "x")
	must(t, r.stage.Assigned(r.ctx(), Topic, 0))
	r.state(m, submission.Delivered)
}
