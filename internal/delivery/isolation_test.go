package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// burden is what some destinations' deliveries have cost.
type burden struct {
	Attempts, Appends, Events int
	Slowest                   time.Duration // from acceptance to delivery
}

// What goes to the other destinations of a partition costs the same appends,
// events and attempts, and not a moment more, whatever one of them does: it
// refuses, it is silent until the time-out, it comes and goes, it is slow. All of
// them share a partition's window, as on the bus.
func TestNeighboursPayNothing(t *testing.T) {
	flaps := func() act {
		began := time.Now()
		return func(context.Context, *submission.Delivery) error {
			if time.Since(began)/time.Second%4 < 2 {
				return retryable()
			}
			return nil
		}
	}
	slow := func() act {
		return func(ctx context.Context, _ *submission.Delivery) error { return lingers(ctx, 5*time.Second) }
	}
	for _, c := range []struct {
		name         string
		destinations int
		ill          func() act // made when time begins
	}{
		{"refuses", 4, func() act { return func(context.Context, *submission.Delivery) error { return unreachable() } }},
		{"silent", 4, func() act {
			return func(ctx context.Context, _ *submission.Delivery) error { return lingers(ctx, time.Hour) }
		}},
		{"flaps", 4, flaps},
		{"slow", 4, slow},
		{"slow, of 500", 500, slow},
	} {
		t.Run(c.name, func(t *testing.T) {
			without, _ := strain(t, c.destinations, nil)
			with, own := strain(t, c.destinations, c.ill)
			if with != without {
				t.Errorf("the others cost %+v, and %+v where all are well", with, without)
			}
			if sent := strainSeconds * strainRate / c.destinations; own.Appends == 0 && c.destinations < 500 || own.Attempts == 0 {
				t.Errorf("of %d for it, nothing waited: %+v", sent, own)
			}
		})
	}
}

const strainSeconds, strainRate = 20, 50

func lingers(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// strain sends to all destinations in turn, each submission a case of its own,
// and returns what the others and the first one cost. ill nil: all are well.
func strain(t *testing.T, destinations int, ill func() act) (others, first burden) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		of := func(destination string) *burden {
			if destination == "d0" {
				return &first
			}
			return &others
		}
		handed := map[string]time.Time{}
		well := act(func(context.Context, *submission.Delivery) error { time.Sleep(10 * time.Millisecond); return nil })
		door := func(do act) act {
			return func(ctx context.Context, d *submission.Delivery) error {
				err := do(ctx, d)
				mu.Lock()
				defer mu.Unlock()
				b := of(d.Destination)
				b.Attempts++
				if err == nil {
					b.Slowest = max(b.Slowest, time.Since(handed[string(d.Message)]))
				}
				return err
			}
		}
		mem := &memory{topics: map[string][]*bus.Record{}, oldest: map[string]int64{}, commits: map[string]int64{},
			trouble: func() error { return nil }, doubt: func() bool { return false }}
		p := Policy{Initial: 5 * time.Second, Max: 10 * time.Hour, Factor: 2, Jitter: 0.2, GiveUp: 168 * time.Hour, Probe: 15 * time.Second,
			Timeout: 30 * time.Second, InFlight: 8, DeadRatio: 0.5}
		stage := New(memLog{mem}, memLedger{mem}, plain{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), time.Now)
		var list []Destination
		for i := range destinations {
			do := well
			if i == 0 && ill != nil {
				do = ill()
			}
			list = append(list, Destination{ID: fmt.Sprint("d", i), Kind: "test", Adapter: door(do), Policy: p})
		}
		stage.SetDestinations(list)
		must(t, stage.Assigned(t.Context(), Topic, 0))

		window := make(chan struct{}, InFlight)
		var under sync.WaitGroup
		due := time.Now()
		for n := range strainSeconds * strainRate {
			time.Sleep(time.Until(due))
			name := fmt.Sprint(n)
			m := decidedIn(mem, name, name, fmt.Sprint("d", n%destinations), int64(n+1))
			mu.Lock()
			handed[name] = due
			mu.Unlock()
			due = due.Add(time.Second / strainRate)
			rec := &bus.Record{Topic: Topic, Offset: int64(n), Key: []byte(m.CaseID.String()), Value: []byte(name), Headers: m.Headers(submission.TypeDelivery)}
			window <- struct{}{}
			under.Go(func() {
				defer func() { <-window }()
				if err := stage.lane(0).handle(t.Context(), rec); err != nil {
					t.Error(err)
				}
			})
		}
		under.Wait()
		stage.Revoked(Topic, 0)
		for _, list := range mem.topics {
			for _, r := range list {
				of(r.Headers[submission.HeaderDestination]).Appends++
			}
		}
		for i := range mem.events {
			if e := &mem.events[i]; e.Stage == submission.StageDelivery {
				of(e.Destination).Events++
			}
		}
	})
	return others, first
}
