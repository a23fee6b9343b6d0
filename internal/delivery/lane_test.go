package delivery

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// The lane against random histories on virtual time: outcomes drawn for every
// attempt, recordings that fail or are in doubt, restarts in between. Its log
// and account are kept in memory here (ack_test.go has the real ones); what
// folds the events is the real Account.

// memory is one partition of everything.
type memory struct {
	mu      sync.Mutex
	topics  map[string][]*bus.Record
	oldest  map[string]int64
	commits map[string]int64
	events  []submission.Event
	epoch   int64
	trouble func() error // before an append
	doubt   func() bool  // after one: written, and reported as failed
}

func (m *memory) fails() error {
	if err := m.trouble(); err != nil {
		return err
	}
	return nil
}

func (m *memory) answer() error {
	if m.doubt() {
		return fault.New(fault.Retryable, fault.ReasonTimeout, "")
	}
	return nil
}

type memLog struct{ *memory }

func (m memLog) Append(ctx context.Context, recs ...*bus.Record) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fails(); err != nil {
		return err
	}
	for _, r := range recs {
		r.Offset = int64(len(m.topics[r.Topic]))
		c := *r
		m.topics[r.Topic] = append(m.topics[r.Topic], &c)
	}
	return m.answer()
}

func (m memLog) Writing() time.Duration { return 0 }

func (m memLog) Fetch(_ context.Context, topic string, _ int32, offset int64) (*bus.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if offset < m.oldest[topic] {
		return nil, fault.Wrap(bus.ErrNotThere, fault.Permanent, fault.ReasonUnknown, "cut")
	}
	return m.topics[topic][offset], nil
}

func (m memLog) ReadTo(_ context.Context, topic string, _ int32, from, to int64, fn func(*bus.Record) error) error {
	m.mu.Lock()
	recs := m.topics[topic][max(from, m.oldest[topic]):to]
	m.mu.Unlock()
	for _, r := range recs {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func (m memLog) Offsets(_ context.Context, topic string) ([]int64, []int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return []int64{m.oldest[topic]}, []int64{int64(len(m.topics[topic]))}, nil
}

func (m memLog) Committed(_ context.Context, _, topic string) ([]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return []int64{m.commits[topic]}, nil
}

func (m memLog) Commit(_ context.Context, _, topic string, _ int32, offset int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commits[topic] = offset
	return nil
}

func (m memLog) DeleteBelow(_ context.Context, topic string, _ int32, offset int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.oldest[topic] = max(m.oldest[topic], offset)
	return nil
}

type memLedger struct{ *memory }

func (m memLedger) Acquire(context.Context, submission.Stage, int32) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	return m.epoch, nil
}

func (m memLedger) Owns(_ context.Context, _ submission.Stage, _ int32, epoch int64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch == epoch, nil
}

func (m memLedger) CatchUp(context.Context, int32) error { return nil }

func (m memLedger) Account(_ context.Context, id uuid.UUID) (*submission.Account, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := &submission.Account{}
	for i := range m.events {
		if e := &m.events[i]; e.Submission == id && e.Epoch <= m.epoch {
			a.Apply(*e)
		}
	}
	return a.Clone(), nil
}

func (m memLedger) Append(ctx context.Context, _ int32, evs ...submission.Event) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fails(); err != nil {
		return err
	}
	for _, e := range evs {
		// As encoded: an event keeps what it said when it was written.
		raw, err := e.Encode()
		if err != nil {
			return err
		}
		if e, err = submission.DecodeEvent(raw); err != nil {
			return err
		}
		if e.Stage == submission.StageDispatch || e.Epoch == m.epoch {
			m.events = append(m.events, e)
		}
	}
	return m.answer()
}

func (m memLedger) Dead(ctx context.Context, _ int32) (out []submission.DeliveryMeta, err error) {
	m.mu.Lock()
	var all []uuid.UUID
	for _, e := range m.events {
		if !slices.Contains(all, e.Submission) {
			all = append(all, e.Submission)
		}
	}
	m.mu.Unlock()
	for _, id := range all {
		a, _ := m.Account(ctx, id)
		for _, d := range a.Deliveries {
			if d.State == submission.Dead {
				out = append(out, a.DeliveryMeta(d))
			}
		}
	}
	return out, nil
}

func (m memLedger) Expected(ctx context.Context, _ int32) (out []submission.DeliveryMeta, err error) {
	m.mu.Lock()
	var all []uuid.UUID
	for _, e := range m.events {
		if !slices.Contains(all, e.Submission) {
			all = append(all, e.Submission)
		}
	}
	m.mu.Unlock()
	for _, id := range all {
		a, _ := m.Account(ctx, id)
		for _, d := range a.Deliveries {
			if d.State == submission.InFlight && d.Redrives > 0 {
				out = append(out, a.DeliveryMeta(d))
			}
		}
	}
	return out, nil
}

// plain is a payload that is not sealed: what is tested here is order.
type plain struct{}

func (plain) Open(_ context.Context, m submission.DeliveryMeta, value []byte) (*submission.Delivery, error) {
	return &submission.Delivery{ID: m.DeliveryID.String(), SubmissionID: m.ID.String(), CaseID: m.CaseID.String(), Destination: m.Destination, Message: value}, nil
}

// act is what a destination does with an attempt.
type act func(ctx context.Context, d *submission.Delivery) error

func (a act) Deliver(ctx context.Context, d *submission.Delivery) error { return a(ctx, d) }

// history is one drawn case of the property.
type history struct {
	cases    []int          // of each submission, in order of acceptance
	dests    []int          // of each submission
	outcomes map[int][]byte // of each attempt: r retryable, p permanent, d destination, t takes its time, s silent, h handed over
	troubles []byte         // of each append: f fails, d in doubt
	gaps     []int          // seconds between arrivals
	restarts []int          // after how many arrivals
	// takeovers are like restarts, but the owner before does not know for a minute.
	takeovers []int
	share     int // of one case and destination behind the one in work, before the rest is spilled; 0: never
}

func (h *history) run() error {
	mem := &memory{topics: map[string][]*bus.Record{}, oldest: map[string]int64{}, commits: map[string]int64{}}
	next := byte(0)
	mem.trouble = func() error {
		next = 0
		if len(h.troubles) > 0 {
			next, h.troubles = h.troubles[0], h.troubles[1:]
		}
		if next == 'f' {
			return fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "")
		}
		return nil
	}
	mem.doubt = func() bool { return next == 'd' }

	var mu sync.Mutex
	var taken []int // first deliveries, in order
	number := map[string]int{}
	tries := map[int]int{}
	under, twice := map[int]int{}, -1 // attempts under way; a delivery that had two at once from one owner
	foreign := ""                     // a token that came with another delivery than it was given for
	adapter := act(func(ctx context.Context, d *submission.Delivery) error {
		mu.Lock()
		n := number[d.SubmissionID]
		if !strings.HasPrefix(d.Token, fmt.Sprintf("%d/", n)) && d.Token != "" {
			foreign = d.Token
		}
		plan := h.outcomes[n]
		var do byte
		if tries[n] < len(plan) {
			do = plan[tries[n]]
		}
		tries[n]++
		try := tries[n]
		if under[n]++; under[n] > 1 && len(h.takeovers) == 0 {
			twice = n
		}
		mu.Unlock()
		defer func() { mu.Lock(); under[n]--; mu.Unlock() }()
		switch do {
		case 'r':
			return retryable()
		case 'p':
			return permanent()
		case 'd':
			return unreachable()
		case 'h':
			return &submission.Pending{Token: fmt.Sprintf("%d/%d", n, try), After: time.Minute}
		case 's':
			<-ctx.Done()
			return ctx.Err()
		case 't':
			t := time.NewTimer(3 * time.Second)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		mu.Lock()
		if !slices.Contains(taken, n) {
			taken = append(taken, n)
		}
		mu.Unlock()
		return nil
	})
	p := Policy{Initial: 5 * time.Second, Max: 10 * time.Hour, Factor: 2, Jitter: 0.2, GiveUp: 168 * time.Hour, Probe: 15 * time.Second, Timeout: 30 * time.Second, InFlight: 2}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	// The bus: of one case and destination a record at a time, again until it is
	// acknowledged, what goes beyond its share spilled meanwhile. A new owner
	// gets what was not acknowledged, in order; one that was superseded and does
	// not know it goes on with what it has, and its word counts for nothing.
	type key [2]int
	queues := map[key][]*bus.Record{}
	type owner struct {
		stage          *Stage
		life           context.Context
		end            context.CancelFunc
		workers        sync.WaitGroup
		mine           map[key][]*bus.Record // of the queues: what it has not finished
		busy           map[key]*bus.Record
		spilling, held map[key]bool
	}
	var present *owner
	var pump func(o *owner, k key)
	work := func(o *owner, k key, recs []*bus.Record, inWork *bus.Record, done func()) {
		o.workers.Go(func() {
			var err error
			for _, rec := range recs {
				switch l := o.stage.lane(0); {
				case l == nil:
					err = errors.New("revoked")
				case inWork != nil:
					err = o.stage.Spill(o.life, inWork, []*bus.Record{rec})[0]
				default:
					err = l.handle(o.life, rec)
				}
				mu.Lock()
				if err == nil {
					o.mine[k] = slices.DeleteFunc(o.mine[k], func(r *bus.Record) bool { return r == rec })
					if owned, _ := o.stage.Owns(ctx, Topic, 0); owned { // as the bus asks before it commits
						queues[k] = slices.DeleteFunc(queues[k], func(r *bus.Record) bool { return r == rec })
					}
				}
				mu.Unlock()
				if err != nil {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			done()
			if err != nil && o.life.Err() == nil {
				o.held[k] = true
				mu.Unlock()
				t := time.NewTimer(100 * time.Millisecond)
				select {
				case <-t.C:
				case <-o.life.Done():
					t.Stop()
				}
				mu.Lock()
				o.held[k] = false
			}
			pump(o, k)
		})
	}
	pump = func(o *owner, k key) { // mu is held
		if o.spilling[k] || o.held[k] || o.life.Err() != nil {
			return
		}
		at := o.busy[k]
		rest := slices.DeleteFunc(slices.Clone(o.mine[k]), func(r *bus.Record) bool { return r == at })
		switch {
		case at != nil && h.share > 0 && len(rest) > h.share:
			o.spilling[k] = true
			work(o, k, rest, at, func() { o.spilling[k] = false })
		case at == nil && len(rest) > 0:
			o.busy[k] = rest[0]
			work(o, k, rest[:1], nil, func() { o.busy[k] = nil })
			pump(o, k)
		}
	}
	own := func() error {
		o := &owner{mine: map[key][]*bus.Record{}, busy: map[key]*bus.Record{}, spilling: map[key]bool{}, held: map[key]bool{}}
		o.life, o.end = context.WithCancel(ctx)
		o.stage = New(memLog{mem}, memLedger{mem}, plain{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), time.Now)
		o.stage.SetDestinations([]Destination{{ID: "d0", Kind: "test", Adapter: adapter, Policy: p}, {ID: "d1", Kind: "test", Adapter: adapter, Policy: p}})
		if err := o.stage.Assigned(ctx, Topic, 0); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		present = o
		for k, list := range queues {
			o.mine[k] = slices.Clone(list)
			pump(o, k)
		}
		return nil
	}
	leave := func(o *owner) {
		o.end()
		o.workers.Wait()
		o.stage.Revoked(Topic, 0)
	}
	arrive := func(k key, rec *bus.Record) { // mu is held
		queues[k] = append(queues[k], rec)
		present.mine[k] = append(present.mine[k], rec)
		pump(present, k)
	}
	if err := own(); err != nil {
		return err
	}
	defer func() { leave(present); synctest.Wait() }()

	var late sync.WaitGroup // superseded owners
	defer late.Wait()
	written := int64(0)
	offset := func() int64 { written++; return written - 1 }
	var metas []submission.DeliveryMeta
	for n, c := range h.cases {
		time.Sleep(time.Duration(h.gaps[n]) * time.Second)
		m := decidedIn(mem, fmt.Sprint(n), fmt.Sprint("case ", c), fmt.Sprintf("d%d", h.dests[n]), int64(n+1))
		metas = append(metas, m)
		mu.Lock()
		number[m.ID.String()] = n
		arrive(key{c, h.dests[n]}, &bus.Record{Topic: Topic, Offset: offset(), Key: []byte(m.CaseID.String()), Value: []byte("<x/>"), Headers: m.Headers(submission.TypeDelivery)})
		mu.Unlock()
		before := present
		switch {
		case slices.Contains(h.restarts, n):
			leave(before)
			if err := own(); err != nil {
				return err
			}
		case slices.Contains(h.takeovers, n):
			if err := own(); err != nil {
				return err
			}
			late.Go(func() {
				time.Sleep(time.Minute)
				leave(before)
			})
		}
	}

	// Everything comes to an end in the end; an operator redrives what died.
	redriven := map[uuid.UUID]int{}
	for range 200 {
		time.Sleep(time.Hour)
		open := false
		for n, m := range metas {
			a, _ := memLedger{mem}.Account(ctx, m.ID)
			d := a.Delivery(m.DeliveryID)
			switch {
			case d.State == submission.Dead:
				open = true
				if redriven[m.DeliveryID] == d.Redrives+1 {
					break
				}
				redriven[m.DeliveryID] = d.Redrives + 1
				rec, err := memLog{mem}.Fetch(ctx, d.Held.Topic, 0, d.Held.Offset)
				if err != nil {
					return err
				}
				dm, err := submission.ParseDeliveryMeta(rec.Headers)
				if err != nil {
					return err
				}
				dm.Redrives, dm.Reason, dm.DueAt = d.Redrives+1, "", time.Time{}
				dm.Instruction = &submission.Instruction{Kind: submission.InstructRedrive, Operator: "anna", At: time.Now()}
				mu.Lock()
				arrive(key{h.cases[n], h.dests[n]}, &bus.Record{Topic: Topic, Offset: offset(), Key: rec.Key, Value: rec.Value, Headers: dm.Headers(submission.TypeDelivery)})
				mu.Unlock()
			case d.State != submission.Delivered:
				open = true
			}
		}
		if !open {
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for n, m := range metas {
		a, _ := memLedger{mem}.Account(ctx, m.ID)
		if d := a.Delivery(m.DeliveryID); d.State != submission.Delivered {
			return fmt.Errorf("submission %d ends %s for %s after %d attempts", n, d.State, d.Reason, tries[n])
		}
	}
	if twice >= 0 {
		return fmt.Errorf("submission %d was attempted twice at once", twice)
	}
	if foreign != "" {
		return fmt.Errorf("the token %s came with another delivery", foreign)
	}
	last := map[[2]int]int{}
	for _, n := range taken {
		k := [2]int{h.cases[n], h.dests[n]}
		if before, ok := last[k]; ok && before > n {
			return fmt.Errorf("submission %d was delivered after %d of its case; all: %v", n, before, taken)
		}
		last[k] = n
	}
	return nil
}

func TestLaneKeepsOrderAndLosesNothing(t *testing.T) {
	if os.Getenv("WEICHE_SOAK") != "" {
		must(t, flag.Set("rapid.checks", "10000"))
	}
	if given := flag.Lookup("rapid.seed"); given.Value.String() == given.DefValue {
		must(t, given.Value.Set(strconv.FormatInt(time.Now().UnixNano(), 10)))
	}
	t.Logf("-rapid.checks=%s -rapid.seed=%s", flag.Lookup("rapid.checks").Value, flag.Lookup("rapid.seed").Value)
	rapid.Check(t, func(rt *rapid.T) {
		count := rapid.IntRange(1, 12).Draw(rt, "submissions")
		h := &history{outcomes: map[int][]byte{}, share: rapid.IntRange(0, 2).Draw(rt, "share")}
		for n := range count {
			h.cases = append(h.cases, rapid.IntRange(0, 3).Draw(rt, "case"))
			h.dests = append(h.dests, rapid.IntRange(0, 1).Draw(rt, "destination"))
			h.gaps = append(h.gaps, rapid.SampledFrom([]int{0, 0, 1, 7, 60}).Draw(rt, "gap"))
			h.outcomes[n] = rapid.SliceOfN(rapid.SampledFrom([]byte("rrpdtsh")), 0, 5).Draw(rt, "outcomes")
			switch rapid.IntRange(0, 11).Draw(rt, "restart") {
			case 0, 1:
				h.restarts = append(h.restarts, n)
			case 2:
				h.takeovers = append(h.takeovers, n)
			}
		}
		h.troubles = rapid.SliceOfN(rapid.SampledFrom([]byte("\x00\x00\x00fd")), 0, 30).Draw(rt, "troubles")
		var err error
		synctest.Test(t, func(*testing.T) { err = h.run() })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// The clock of giving up stands still while the destination is paused and while
// nobody runs: a delivery is given up after so much waiting of its own.
func TestGiveUpClockStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		mem := &memory{topics: map[string][]*bus.Record{}, oldest: map[string]int64{}, commits: map[string]int64{},
			trouble: func() error { return nil }, doubt: func() bool { return false }}
		attempts := 0
		refuse := act(func(context.Context, *submission.Delivery) error { attempts++; return retryable() })
		p := Policy{Initial: 5 * time.Second, Max: 10 * time.Hour, Factor: 2, Jitter: 0.2, GiveUp: 168 * time.Hour, Probe: 15 * time.Second, Timeout: 30 * time.Second, InFlight: 2}
		var stage *Stage
		begin := func() {
			stage = New(memLog{mem}, memLedger{mem}, plain{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), time.Now)
			stage.SetDestinations([]Destination{{ID: "d", Kind: "test", Adapter: refuse, Policy: p}})
			must(t, stage.Assigned(t.Context(), Topic, 0))
		}
		begin()
		m := decidedIn(mem, "a", "a case", "d", 1)
		must(t, stage.lane(0).handle(t.Context(), &bus.Record{Topic: Topic, Key: []byte(m.CaseID.String()), Value: []byte("<x/>"), Headers: m.Headers(submission.TypeDelivery)}))

		state := func() *submission.DeliveryAccount {
			a, err := memLedger{mem}.Account(t.Context(), m.ID)
			must(t, err)
			return a.Delivery(m.DeliveryID)
		}
		time.Sleep(24 * time.Hour)
		stage.Pause("d", HandPause{Operator: "anna"})
		before := attempts
		time.Sleep(30 * 24 * time.Hour)
		if attempts != before {
			t.Errorf("%d attempts while it was paused", attempts-before)
		}
		stage.Revoked(Topic, 0)
		time.Sleep(30 * 24 * time.Hour) // nobody runs
		begin()
		time.Sleep(24 * time.Hour)
		if d := state(); d.State != submission.Waiting {
			t.Fatalf("%s for %s after two days of its own", d.State, d.Reason)
		}
		for state().State == submission.Waiting {
			time.Sleep(time.Minute)
		}
		stage.Revoked(Topic, 0)
		d := state()
		if took := time.Since(began); d.State != submission.Dead || d.Reason != string(fault.ReasonGaveUp) || took < (60+6)*24*time.Hour || took > (60+8)*24*time.Hour {
			t.Errorf("%s for %s after %s", d.State, d.Reason, took)
		}
		if !strings.HasPrefix(d.Detail, "retried for 168h0m0s") || d.Attempts != attempts {
			t.Errorf("%q; %d attempts are told, %d were made", d.Detail, d.Attempts, attempts)
		}
	})
}
