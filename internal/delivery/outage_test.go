package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// A destination is down for six hours, then slow for one, then answers every
// other time: what is meant for it arrives in order of its case, nothing dies,
// no attempt is burnt by the outage, it is probed by one at a time, and another
// destination of the same partition notices nothing.
func TestDownThenSlowThenFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		since := func() time.Duration { return time.Since(began) }
		const down, slow, flapping = 6 * time.Hour, 7 * time.Hour, 8 * time.Hour

		var mu sync.Mutex
		var taken []string                 // of the troubled destination, in order
		took := map[string]time.Duration{} // of the other one, since it was handed in
		handed := map[string]time.Time{}
		calls, probing, most := 0, 0, 0
		troubled := act(func(ctx context.Context, d *submission.Delivery) error {
			mu.Lock()
			calls++
			nth := calls
			now := since()
			probe := time.Minute < now && now < down // before it is known to be down, these are no probes
			if probe {
				probing++
				most = max(most, probing)
				defer func() { mu.Lock(); probing--; mu.Unlock() }()
			}
			mu.Unlock()
			switch {
			case now < down:
				time.Sleep(time.Second)
				return unreachable()
			case now < slow:
				time.Sleep(20 * time.Second)
			case now < flapping && nth%2 == 0:
				return retryable()
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			taken = append(taken, string(d.Message))
			return nil
		})
		well := act(func(_ context.Context, d *submission.Delivery) error {
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			took[string(d.Message)] = time.Since(handed[string(d.Message)])
			return nil
		})
		mem := &memory{topics: map[string][]*bus.Record{}, oldest: map[string]int64{}, commits: map[string]int64{},
			trouble: func() error { return nil }, doubt: func() bool { return false }}
		p := Policy{Initial: 5 * time.Second, Max: 10 * time.Hour, Factor: 2, Jitter: 0.2, GiveUp: 168 * time.Hour, Probe: 15 * time.Second,
			Timeout: 30 * time.Second, InFlight: 8, DeadRatio: 0.5}
		stage := New(memLog{mem}, memLedger{mem}, plain{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), time.Now)
		stage.SetDestinations([]Destination{{ID: "troubled", Kind: "test", Adapter: troubled, Policy: p}, {ID: "well", Kind: "test", Adapter: well, Policy: p}})
		must(t, stage.Assigned(t.Context(), Topic, 0))

		// Two cases send to the troubled one and another two to the other, every ten
		// minutes; of each case a record follows when the one before is acknowledged.
		var arrivals sync.WaitGroup
		lines := map[string]chan submission.DeliveryMeta{}
		var metas []submission.DeliveryMeta
		var order int64
		submit := func(caseName, dest string, n int) {
			name := fmt.Sprintf("%s%02d", caseName, n)
			order++
			m := decidedIn(mem, name, caseName, dest, order)
			mu.Lock()
			handed[name] = time.Now()
			mu.Unlock()
			metas = append(metas, m)
			if lines[caseName] == nil {
				line := make(chan submission.DeliveryMeta, 1000)
				lines[caseName] = line
				arrivals.Go(func() {
					for m := range line {
						rec := &bus.Record{Topic: Topic, Offset: m.Order, Key: []byte(m.CaseID.String()), Value: []byte(m.SHA512), Headers: m.Headers(submission.TypeDelivery)}
						for stage.lane(0).handle(t.Context(), rec) != nil {
							time.Sleep(100 * time.Millisecond)
						}
					}
				})
			}
			lines[caseName] <- m
		}
		for n := range 54 { // nine hours
			submit("A", "troubled", n)
			submit("B", "well", n)
			submit("C", "troubled", n)
			submit("D", "well", n)
			time.Sleep(10 * time.Minute)
		}
		for _, l := range lines {
			close(l)
		}
		arrivals.Wait()
		time.Sleep(24 * time.Hour)
		stage.Revoked(Topic, 0)

		for _, m := range metas {
			a, _ := memLedger{mem}.Account(t.Context(), m.ID)
			d := a.Delivery(m.DeliveryID)
			if d.State != submission.Delivered {
				t.Errorf("%s is %s for %s", m.SHA512, d.State, d.Reason)
			}
			if m.AcceptedAt.Sub(began) < down-time.Hour && d.Attempts != 1 {
				t.Errorf("%s was delivered at attempt %d: the outage burnt the others", m.SHA512, d.Attempts)
			}
		}
		for _, c := range []string{"A", "C"} {
			of := slices.DeleteFunc(slices.Clone(taken), func(name string) bool { return name[:1] != c })
			if len(of) != 54 || !slices.IsSorted(of) {
				t.Errorf("case %s arrived as %v", c, of)
			}
		}
		if len(took) != 108 {
			t.Errorf("the other destination has %d of 108", len(took))
		}
		for name, d := range took {
			if d != 10*time.Millisecond {
				t.Errorf("%s took %s: it waited for another destination", name, d)
			}
		}
		if most != 1 {
			t.Errorf("%d probes at once", most)
		}
	})
}

// decidedIn puts a submission and its decision into the account. Its name
// stands for the hash and for the message.
func decidedIn(mem *memory, name, caseName, dest string, order int64) submission.DeliveryMeta {
	id := submission.NewID("p", name)
	m := submission.DeliveryMeta{Meta: submission.Meta{ID: id, CaseID: submission.NewCaseID(submission.NewID("p", caseName)), Portal: "p", Land: "08",
		Service: "99050012104000", Region: "08", AcceptedAt: time.Now().UTC(), SHA512: name, Revision: 1, Append: uuid.New()},
		DeliveryID: submission.NewDeliveryID(id, dest, 1), Destination: dest, Adapter: "test", Format: format, Decision: uuid.New(), Order: order}
	accepted := submission.Event{ID: uuid.New(), Type: submission.EventAccepted, Stage: submission.StageDispatch, Submission: id, CaseID: m.CaseID, Portal: "p",
		Land: "08", Service: m.Service, Revision: 1, At: m.AcceptedAt, Accepted: &submission.Acceptance{AcceptedAt: m.AcceptedAt, Append: m.Append}}
	decided := accepted
	decided.ID, decided.Type, decided.Accepted = m.Decision, submission.EventDecided, nil
	decided.Decision = &submission.Decision{Deliveries: []submission.PlannedDelivery{{ID: m.DeliveryID, Destination: dest, Adapter: "test", Format: format}}}
	mem.mu.Lock()
	defer mem.mu.Unlock()
	mem.events = append(mem.events, accepted, decided)
	return m
}
