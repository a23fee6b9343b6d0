package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
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
		{name: "none", destinations: 8, says: "none: how far two runs of the same lie apart", answer: func(http.ResponseWriter, *http.Request) {}},
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
	well, ill        runs
	ratio50, ratio99 []float64 // of each pair: with the fault by without
}

// bearable is how much longer than without the fault it may take.
const bearable = 1.1

// isolationRow says whether a row of the results is one of these.
func isolationRow(name string) bool { return strings.HasPrefix(name, "isolation-") }

// chosenTroubles returns those that -only names.
func (o options) chosenTroubles() ([]trouble, error) {
	all := troubles()
	if o.only == "" {
		return all, nil
	}
	var list []trouble
	for name := range strings.SplitSeq(o.only, ",") {
		i := slices.IndexFunc(all, func(t trouble) bool { return t.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q", name)
		}
		list = append(list, all[i])
	}
	return list, nil
}

// measureIsolation measures pairs of runs, round after round, and writes table
// and results. One run before them is thrown away.
func measureIsolation(ctx context.Context, o options) error {
	chosen, err := o.chosenTroubles()
	if err != nil {
		return err
	}
	rows := make([]*isolated, len(chosen))
	for i, t := range chosen {
		rows[i] = &isolated{trouble: t, well: runs{name: "isolation-" + t.name + "-without"}, ill: runs{name: "isolation-" + t.name + "-with"}}
	}
	began, before := time.Now(), loadAverage()
	p := isolationPace(o)
	rounds := max(1, o.rounds)
	err = o.inLab(ctx, func(l *lab) error {
		if err := l.settle(standardPlan()); err != nil {
			return err
		}
		if err := l.accept(ctx, "isolation", p.total(), standardShape); err != nil {
			return err
		}
		if _, err := l.latency(ctx, rows[0].contender(false), p); err != nil {
			return err
		}
		for round := range rounds {
			for _, row := range rows {
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
	text := fmt.Sprintf("%s, %d cores; %d pairs each, %d a second for %s; load of the machine %s before and %s after; took %s.\n\n%s", began.UTC().Format(time.DateOnly),
		runtime.NumCPU(), rounds, p.rate, p.length, before, loadAverage(), time.Since(began).Round(time.Second), isolationTable(rows))
	o.say("\n%s", text)
	return o.publishIsolation(rows, text)
}

// loadAverage is that of the last minute.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

func (o options) publishIsolation(rows []*isolated, text string) error {
	if o.out != "" {
		var list []result
		for _, r := range rows {
			list = append(list, r.well.result(), r.ill.result())
		}
		if err := writeResults(filepath.Join(o.repo, o.out), list, func(name string) bool { return !isolationRow(name) }); err != nil {
			return err
		}
	}
	if o.doc == "" {
		return nil
	}
	return putBetween(filepath.Join(o.repo, o.doc), "isolation", text)
}

// pair is one run without the fault and one with it, which of them first by turns.
func (o options) pair(ctx context.Context, l *lab, p pace, row *isolated, round int) error {
	var took [2]timed // without, with
	order := []int{0, 1}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, ill := range order {
		var err error
		if took[ill], err = l.latency(ctx, row.contender(ill == 1), p); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	for i, r := range []*runs{&row.well, &row.ill} {
		r.add(took[i].sample)
		r.p50, r.p99 = append(r.p50, took[i].p50), append(r.p99, took[i].p99)
	}
	row.ratio50 = append(row.ratio50, took[1].p50/took[0].p50)
	row.ratio99 = append(row.ratio99, took[1].p99/took[0].p99)
	o.say("round %d  %-12s without p50 %.1f p99 %.1f ms, with the fault p50 %.1f p99 %.1f ms", round, row.name, took[0].p50, took[0].p99, took[1].p50, took[1].p99)
	return nil
}

func isolationTable(rows []*isolated) string {
	var b strings.Builder
	b.WriteString("| fault | p50 ms without | with | ratio | p99 ms without | with | ratio | both within a tenth | router CPU s per 1,000 without | with |\n" +
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		met := "no"
		if median(r.ratio50) <= bearable && median(r.ratio99) <= bearable {
			met = "yes"
		}
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %s | %.1f | %.1f | %s | %s | %.3f | %.3f |\n", r.says, median(r.well.p50), median(r.ill.p50), spread(r.ratio50),
			median(r.well.p99), median(r.ill.p99), spread(r.ratio99), met, r.well.result().CPU, r.ill.result().CPU)
	}
	return b.String()
}

// spread writes the median of ratios, and the smallest and the largest.
func spread(ratios []float64) string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
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
