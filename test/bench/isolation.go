package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

// What a faulty destination costs the others: how long their submissions take
// while it is at fault, against the same router with all destinations well, in
// turn. What goes to the faulty one itself does not count.

// trouble is what is wrong with a destination: the first of the first Land.
type trouble struct {
	name         string
	destinations int
	says         string
	refuses      bool // its port is closed
	answer       http.HandlerFunc
}

// slowAnswer is how long a slow destination takes, well below the time-out.
const slowAnswer = 5 * time.Second

func troubles() []trouble {
	began := time.Now()
	return []trouble{
		{name: "refuses", destinations: 8, says: "one of 8 refuses connections", refuses: true},
		{name: "hangs", destinations: 8, says: "one of 8 takes requests and never answers", answer: hang},
		{name: "flaps", destinations: 8, says: "one of 8 answers 503 for two seconds of four", answer: func(w http.ResponseWriter, _ *http.Request) {
			if int(time.Since(began)/time.Second)%4 < 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}},
		{name: "slow-of-500", destinations: 500, says: fmt.Sprintf("one of 500 answers after %s", slowAnswer), answer: func(_ http.ResponseWriter, r *http.Request) {
			linger(r.Context(), slowAnswer)
		}},
	}
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func linger(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// isolationPace is slow enough that the machine is not what is measured.
func isolationPace(o options) pace {
	return pace{rate: min(o.pace.rate, 200), warm: 3 * time.Second, length: max(o.pace.length, 10*time.Second), grace: 10 * time.Second}
}

// isolated is one trouble's row.
type isolated struct {
	trouble
	well, ill runs      // p50 and p99 of each run, in milliseconds
	ratios    []float64 // p99 with the fault by p99 without, of each pair
	medians   []float64 // p50 likewise
}

// measureIsolation measures pairs of runs and writes the table.
func measureIsolation(ctx context.Context, o options) error {
	began := time.Now()
	var rows []*isolated
	err := o.inLab(ctx, func(l *lab) error {
		p := isolationPace(o)
		if err := l.settle(standardPlan()); err != nil {
			return err
		}
		if err := l.accept(ctx, "isolation", p.rate*int((p.warm+p.length)/time.Second), standardShape); err != nil {
			return err
		}
		for _, t := range troubles() {
			row := &isolated{trouble: t}
			rows = append(rows, row)
			for round := range max(1, o.rounds) {
				if err := o.pair(ctx, l, p, row, round); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	p := isolationPace(o)
	text := fmt.Sprintf("%s; %d pairs each, %d a second for %s, without the schema check; took %s.\n\n%s", began.UTC().Format(time.DateOnly), max(1, o.rounds), p.rate, p.length,
		time.Since(began).Round(time.Second), isolationTable(rows))
	o.say("\n%s", text)
	if o.doc == "" {
		return nil
	}
	return putBetween(filepath.Join(o.repo, o.doc), "isolation", text)
}

// pair is one run without the fault and one with it, which of them first by turns.
func (o options) pair(ctx context.Context, l *lab, p pace, row *isolated, round int) error {
	var took [2][2]float64 // well, ill: p50, p99
	order := []int{0, 1}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, ill := range order {
		p50, p99, err := l.latency(ctx, row.contender(ill == 1), p)
		if err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		took[ill] = [2]float64{p50.Seconds() * 1000, p99.Seconds() * 1000}
	}
	row.well.p50, row.well.p99 = append(row.well.p50, took[0][0]), append(row.well.p99, took[0][1])
	row.ill.p50, row.ill.p99 = append(row.ill.p50, took[1][0]), append(row.ill.p99, took[1][1])
	row.medians = append(row.medians, took[1][0]/took[0][0])
	row.ratios = append(row.ratios, took[1][1]/took[0][1])
	o.say("round %d  %-12s well p50 %.1f p99 %.1f ms, with the fault p50 %.1f p99 %.1f ms", round, row.name, took[0][0], took[0][1], took[1][0], took[1][1])
	return nil
}

func isolationTable(rows []*isolated) string {
	var b strings.Builder
	b.WriteString("| fault | p50 ms without | with | ratio | p99 ms without | with | ratio | smallest to largest |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %.2f | %.1f | %.1f | %.2f | %.2f to %.2f |\n", r.says, median(r.well.p50), median(r.ill.p50), median(r.medians),
			median(r.well.p99), median(r.ill.p99), median(r.ratios), slices.Min(r.ratios), slices.Max(r.ratios))
	}
	return b.String()
}

// contender is the router with this trouble, or with all well.
func (t trouble) contender(ill bool) contender {
	return contender{name: "isolation-" + t.name, slow: true, prepare: func(ctx context.Context, l *lab, _ int) (*setup, error) {
		s, err := l.prepareRouter(ctx, 0)
		if err != nil {
			return nil, err
		}
		s.Unchecked = true
		url, ends, err := t.serve(ill)
		if err != nil {
			return nil, err
		}
		s.ends = ends
		land, err := t.landscape(l, url)
		if err != nil {
			return nil, err
		}
		s.Config = land.dir
		s.probe = probe{receiver: l.receiver, record: l.acceptedAgain, counts: func(m *sarama.ProducerMessage) bool { return !land.atFault(m) }}
		return s, nil
	}}
}

// serve opens the destination that is at fault.
func (t trouble) serve(ill bool) (url string, ends func(), err error) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	url = "http://" + port.Addr().String() + "/"
	if ill && t.refuses {
		return url, func() {}, port.Close()
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ill {
			t.answer(w, r)
		}
	})}
	go func() { _ = srv.Serve(port) }()
	return url, func() { _ = srv.Close() }, nil
}

// strained is a landscape with a destination that may be at fault.
type strained struct {
	*landscape
	faulty map[string]bool // regions it is responsible for
}

func (t trouble) landscape(l *lab, url string) (*strained, error) {
	dir, err := os.MkdirTemp(l.dir, "config-")
	if err != nil {
		return nil, err
	}
	secret, err := l.secret()
	if err != nil {
		return nil, err
	}
	p := plan{rules: l.plan.rules}
	for i := range t.destinations {
		to := l.receiver.url
		if i == 0 {
			to = url
		}
		p.destinations = append(p.destinations, httpDestination(to, secret))
	}
	return newStrained(dir, l.repo, p)
}

func newStrained(dir, repo string, p plan) (*strained, error) {
	land, err := newLandscape(dir, repo, p)
	if err != nil {
		return nil, err
	}
	s := &strained{landscape: land, faulty: map[string]bool{}}
	for n, region := range land.towns[lands[0].key] {
		if n%len(every(p.destinations, 0, len(lands))) == 0 {
			s.faulty[region] = true
		}
	}
	return s, nil
}

func (s *strained) atFault(m *sarama.ProducerMessage) bool {
	for _, h := range m.Headers {
		if string(h.Key) == regionHeader {
			return s.faulty[string(h.Value)]
		}
	}
	return false
}

const regionHeader = "ce_region"
