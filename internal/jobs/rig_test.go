package jobs_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/jobs"
	"weiche/internal/status"
	"weiche/internal/submission"
)

const partitions = 2

// clock is a virtual clock: waiting takes no time, and is counted. hold stops
// who sleeps until it is let go.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	slept time.Duration
	after func(slept time.Duration)
}

func newClock() *clock { return &clock{now: time.Now().UTC()} }

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) Sleep(ctx context.Context, d time.Duration) bool {
	c.mu.Lock()
	c.now, c.slept = c.now.Add(d), c.slept+d
	slept, after := c.slept, c.after
	c.mu.Unlock()
	if after != nil {
		after(slept)
	}
	return ctx.Err() == nil
}

// then has fn called at each sleep.
func (c *clock) then(fn func(slept time.Duration)) { c.mu.Lock(); defer c.mu.Unlock(); c.after = fn }

// rig is a log, a projection, and owners that carry orders out as the stages do.
type rig struct {
	t         *testing.T
	ctx       context.Context
	log       *bus.Bus
	store     *status.Store
	projector *status.Projector
	ledger    *status.Ledger
	clock     *clock

	mu      sync.Mutex
	ordered []string // what took effect, in the order of the log, by key of the submission
	orders  int      // records that came, repeats included
	again   bool     // what is redriven dies again
	keys    map[uuid.UUID]string
	doors   map[string]bool
}

func newRig(t *testing.T) *rig {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	broker, err := embedded.Start(t.TempDir(), embedded.Options{Partitions: partitions}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	cfg := bus.Config{Brokers: broker.Addrs(), Partitions: partitions, ReplicationFactor: 1, MinInSyncReplicas: 1}
	log, err := bus.Open(t.Context(), cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	if err := log.EnsureTopics(t.Context(), bus.Topics(cfg, nil)); err != nil {
		t.Fatal(err)
	}
	store, err := status.Open(filepath.Join(t.TempDir(), "status.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	r := &rig{t: t, ctx: ctx, log: log, store: store, clock: newClock(), keys: map[uuid.UUID]string{}, doors: map[string]bool{"bb": true}}
	r.projector = status.NewProjector(store, status.Options{Log: log})
	r.ledger = status.NewLedger(store, log, nil)
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.projector.Run(ctx) })
	for p := range int32(partitions) {
		wg.Go(func() { _ = log.Tail(ctx, bus.TopicSubmissions, p, 0, r.dispatch) })
		wg.Go(func() { _ = log.Tail(ctx, bus.TopicDeliveries, p, 0, r.deliver) })
	}
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	return r
}

// replica is a router's jobs; stop ends it as a crash would.
func (r *rig) replica() (j *jobs.Jobs, stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	j = r.jobs(r.store, r.projector)
	var wg sync.WaitGroup
	wg.Go(func() { _ = j.Follow(ctx) })
	wg.Go(func() { _ = j.Run(ctx) })
	end := sync.OnceFunc(func() { cancel(); wg.Wait() })
	r.t.Cleanup(end)
	return j, end
}

func (r *rig) jobs(s *status.Store, p *status.Projector) *jobs.Jobs {
	return jobs.New(jobs.Options{Log: r.log, Store: s, Projector: p, Foresight: r, Owns: func() bool { return true },
		Logger: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Now: r.clock.Now, Sleep: r.clock.Sleep})
}

// Try implements jobs.Foresight: what the region says happens.
func (r *rig) Try(_ context.Context, m submission.Meta, _ []byte) jobs.Trial {
	switch m.Service {
	case "99000000000001":
		return jobs.Trial{Destinations: []string{"bb"}, Reason: "mapping-failed"}
	case "99000000000002":
		return jobs.Trial{Destinations: []string{"elsewhere"}}
	case "99000000000003":
		return jobs.Trial{Unassigned: true, Reason: "no-authority"}
	}
	return jobs.Trial{Destinations: []string{"bb"}}
}

// Door implements jobs.Foresight.
func (r *rig) Door(id string) (configured, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	open, configured = r.doors[id]
	return configured, open
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) meta(key, caseKey string, n int) submission.Meta {
	id := submission.NewID("service-bw", key)
	r.mu.Lock()
	r.keys[id] = key
	r.mu.Unlock()
	return submission.Meta{ID: id, CaseID: uuid.NewSHA1(uuid.NameSpaceOID, []byte(caseKey)), Portal: "service-bw", Land: "08", Service: "99050012104000", Region: "08",
		AcceptedAt: time.Date(2026, 11, 22, 12, 0, 0, n*int(time.Millisecond), time.UTC), SHA512: "ab", Revision: 1, Append: uuid.New()}
}

func (r *rig) partition(m submission.Meta) int32 {
	return r.log.PartitionOf([]byte(m.CaseID.String()), partitions)
}

func event(stage submission.Stage, t submission.EventType, m submission.Meta, parts ...string) submission.Event {
	return submission.Event{ID: submission.NewEventID(t, m.ID, parts...), Type: t, At: time.Now().UTC(), Stage: stage, Submission: m.ID,
		CaseID: m.CaseID, Portal: m.Portal, Land: m.Land, Service: m.Service, Revision: m.Revision}
}

func accepted(m submission.Meta) submission.Event {
	e := event(submission.StageDispatch, submission.EventAccepted, m)
	e.Accepted = &submission.Acceptance{Region: m.Region, AcceptedAt: m.AcceptedAt, SHA512: m.SHA512, Append: m.Append}
	return e
}

func decided(m submission.Meta) submission.Event {
	e := event(submission.StageDispatch, submission.EventDecided, m, strconv.Itoa(m.Revision))
	e.Decision = &submission.Decision{Authority: submission.Authority{ID: "a"}, Deliveries: []submission.PlannedDelivery{{
		ID: submission.NewDeliveryID(m.ID, "bb", m.Revision), Destination: "bb", Adapter: "file", Format: submission.Format{Standard: "antrag", Version: "1.0", Message: "a"}}}}
	return e
}

// held brings a submission to where dispatch has given it up.
func (r *rig) held(m submission.Meta) {
	r.t.Helper()
	rec := &bus.Record{Topic: bus.TopicDeadLetters, Partition: r.partition(m), Key: []byte(m.CaseID.String()), Value: []byte("sealed"), Headers: m.Headers(submission.TypeSubmission)}
	r.must(r.log.Append(r.ctx, rec))
	e := event(submission.StageDispatch, submission.EventDead, m, "1")
	e.Reason, e.Held = "mapping-failed", &submission.Held{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}
	r.must(r.ledger.Append(r.ctx, r.partition(m), accepted(m), e))
}

// dead brings a submission to where its delivery is dead, redriven so often.
func (r *rig) dead(m submission.Meta, redrives int) submission.DeliveryMeta {
	r.t.Helper()
	r.must(r.ledger.Append(r.ctx, r.partition(m), accepted(m), decided(m)))
	a, err := r.ledger.Account(r.ctx, m.ID)
	r.must(err)
	d := a.DeliveryMeta(a.Deliveries[0])
	r.bury(d)
	for n := 1; n <= redrives; n++ {
		d.Redrives, d.Attempts = n, n
		r.bury(d, r.redriven(d, &submission.Instruction{Operator: "earlier"}))
	}
	return d
}

func (r *rig) redriven(d submission.DeliveryMeta, ins *submission.Instruction) submission.Event {
	e := event(submission.StageDelivery, submission.EventRedriven, d.Meta, strconv.Itoa(d.Redrives))
	e.DeliveryID, e.Destination, e.Redrive, e.Operator, e.Note = d.DeliveryID, d.Destination, d.Redrives, ins.Operator, ins.Note()
	return e
}

func (r *rig) bury(d submission.DeliveryMeta, before ...submission.Event) {
	rec := &bus.Record{Topic: bus.TopicDeadLetters, Partition: r.partition(d.Meta), Key: []byte(d.CaseID.String()), Value: []byte("sealed"), Headers: d.Headers(submission.TypeDelivery)}
	if err := r.log.Append(r.ctx, rec); err != nil {
		return // the test is over
	}
	e := event(submission.StageDelivery, submission.EventDead, d.Meta, strconv.Itoa(d.Redrives))
	e.DeliveryID, e.Destination, e.Reason, e.Attempt, e.Redrive = d.DeliveryID, d.Destination, "refused", d.Attempts+1, d.Redrives
	e.Held = &submission.Held{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}
	_ = r.ledger.Append(r.ctx, r.partition(d.Meta), append(before, e)...)
}

func (r *rig) note(m submission.Meta, effective bool) (again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.orders++
	if effective {
		r.ordered = append(r.ordered, r.keys[m.ID])
	}
	return r.again
}

// dispatch carries an order out, and drops it when it comes again.
func (r *rig) dispatch(rec *bus.Record) error {
	m, err := submission.ParseMeta(rec.Headers)
	if err != nil || m.Instruction == nil {
		r.t.Errorf("an order %v: %v", rec.Headers, err)
		return nil
	}
	a, err := r.ledger.Account(r.ctx, m.ID)
	if err != nil {
		return err
	}
	if rec.Headers[submission.HeaderType] == submission.TypeControl {
		if r.note(m, a.Own == submission.Dead); a.Own != submission.Dead {
			return nil
		}
		e := event(submission.StageDispatch, submission.EventClosed, m, "1")
		e.Operator, e.Note = m.Instruction.Operator, m.Instruction.Reason
		return r.ledger.Append(r.ctx, rec.Partition, e)
	}
	if r.note(m, m.Revision > a.Dispatched); m.Revision <= a.Dispatched {
		return nil
	}
	e := event(submission.StageDispatch, submission.EventRedriven, m, strconv.Itoa(m.Revision))
	e.Operator, e.Note = m.Instruction.Operator, m.Instruction.Note()
	return r.ledger.Append(r.ctx, rec.Partition, e, decided(m))
}

// deliver does the same for a delivery: it arrives, or dies again.
func (r *rig) deliver(rec *bus.Record) error {
	d, err := submission.ParseDeliveryMeta(rec.Headers)
	if err != nil || d.Instruction == nil {
		r.t.Errorf("an order %v: %v", rec.Headers, err)
		return nil
	}
	acct, err := r.ledger.Account(r.ctx, d.ID)
	if err != nil {
		return err
	}
	a := acct.Delivery(d.DeliveryID)
	if rec.Headers[submission.HeaderType] == submission.TypeControl {
		if r.note(d.Meta, a.State == submission.Dead); a.State != submission.Dead {
			return nil
		}
		e := event(submission.StageDelivery, submission.EventClosed, d.Meta, "closed")
		e.DeliveryID, e.Destination, e.Operator, e.Note = d.DeliveryID, d.Destination, d.Instruction.Operator, d.Instruction.Reason
		return r.ledger.Append(r.ctx, rec.Partition, e)
	}
	effective := a.State == submission.Dead && d.Redrives == a.Redrives+1
	again := r.note(d.Meta, effective)
	if !effective {
		return nil
	}
	told := r.redriven(d, d.Instruction)
	d.Attempts, d.Instruction = a.Attempts, nil
	if again {
		r.bury(d, told)
		return nil
	}
	e := event(submission.StageDelivery, submission.EventDelivered, d.Meta, strconv.Itoa(d.Redrives))
	e.DeliveryID, e.Destination, e.Attempt, e.Redrive = d.DeliveryID, d.Destination, d.Attempts+1, d.Redrives
	return r.ledger.Append(r.ctx, rec.Partition, told, e)
}

// until waits for a job to come to a state.
func (r *rig) until(j *jobs.Jobs, id uuid.UUID, want jobs.State) *jobs.View {
	r.t.Helper()
	for {
		v, err := j.Get(r.ctx, id)
		r.must(err)
		if v.State == want {
			return v
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *rig) effects() (list []string, orders int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.ordered...), r.orders
}
