// Command bench measures the bus and the pipeline on a real Apache Kafka that it
// starts, beside other ways of doing the same work, and writes what it finds to
// bench/results.json and docs/benchmarks.md. `make bench` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	repo        string
	rounds      int
	records     int
	slowRecords int
	waiting     int
	partitions  int
	limit       time.Duration
	pace        pace
	only        string
	profile     string
	out         string // empty: nowhere
	doc         string
	log         io.Writer
}

func main() {
	if runChild() {
		return
	}
	o := options{log: os.Stdout}
	growth := flag.Bool("growth", false, "measure how cost grows instead")
	isolation := flag.Bool("isolation", false, "measure what a faulty destination costs the others instead")
	flag.StringVar(&o.repo, "repo", ".", "the repository's root")
	flag.IntVar(&o.rounds, "rounds", 5, "measured rounds; one more goes before them and is thrown away")
	flag.IntVar(&o.records, "records", 100_000, "records for those who only copy")
	flag.IntVar(&o.slowRecords, "slow-records", 100_000, "records for the others")
	flag.IntVar(&o.waiting, "waiting", 100_000, "deliveries that wait")
	flag.IntVar(&o.partitions, "partitions", 8, "partitions of the topics")
	flag.DurationVar(&o.limit, "limit", 15*time.Second, "longest time of one run; what has arrived by then counts")
	flag.IntVar(&o.pace.rate, "rate", 500, "single submissions a second, for the times; 0: none")
	flag.DurationVar(&o.pace.length, "pace-for", 6*time.Second, "how long single submissions are sent")
	flag.StringVar(&o.only, "only", "", "contenders, separated by commas, or copies or pipelines of how cost grows; all where empty")
	flag.StringVar(&o.profile, "profile", "", "directory for a CPU profile of each run, and of single submissions")
	flag.StringVar(&o.out, "out", "bench/results.json", "where the results go, relative to the repository; empty: nowhere")
	flag.StringVar(&o.doc, "doc", "docs/benchmarks.md", "the page the tables go into, likewise")
	flag.Parse()
	if given := visited(); o.only != "" && !given["out"] && !given["doc"] {
		o.out, o.doc = "", "" // some rows are no table
	}
	o.pace.warm, o.pace.grace = time.Second, 10*time.Second
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *growth:
		err = measureGrowth(ctx, o)
	case *isolation:
		err = measureIsolation(ctx, o)
	default:
		_, err = measureAll(ctx, o)
	}
	if err != nil {
		stop()
		fatal(err)
	}
}

// chosen returns the contenders that -only names.
func (o options) chosen() ([]contender, error) {
	all := contenders()
	if o.only == "" {
		return all, nil
	}
	var list []contender
	for _, name := range strings.Split(o.only, ",") {
		i := slices.IndexFunc(all, func(k contender) bool { return k.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no contender %q", name)
		}
		list = append(list, all[i])
	}
	return list, nil
}

func (o options) recordsOf(k contender) int {
	switch {
	case k.once:
		return o.waiting
	case k.slow:
		return o.slowRecords
	}
	return o.records
}

// inLab gives fn a Kafka and takes everything away afterwards.
func (o *options) inLab(ctx context.Context, fn func(*lab) error) (err error) {
	if o.repo, err = filepath.Abs(o.repo); err != nil {
		return err
	}
	if o.profile != "" {
		if o.profile, err = filepath.Abs(o.profile); err != nil {
			return err
		}
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "weiche-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := openLab(ctx, o.repo, dir)
	if err != nil {
		return err
	}
	defer l.Close()
	l.log = o.log
	o.pace.profile = o.profile
	l.partitions = max(1, o.partitions)
	if err := installStandards(ctx, l.repo, l.dir); err != nil {
		return err
	}
	return fn(l)
}

func (o options) say(format string, args ...any) { fmt.Fprintf(o.log, format+"\n", args...) }

// measureAll runs the contenders in turn, round after round, and writes the
// medians.
func measureAll(ctx context.Context, o options) (list []result, err error) {
	chosen, err := o.chosen()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	err = o.inLab(ctx, func(l *lab) error {
		accepted := 0
		for _, k := range chosen {
			if k.slow {
				accepted = max(accepted, o.recordsOf(k))
			}
		}
		if err := l.settle(standardPlan()); err != nil {
			return err
		}
		if err := l.writePlain(ctx, o.records, standardShape); err != nil {
			return err
		}
		if accepted > 0 {
			if err := l.accept(ctx, "standard", accepted, standardShape); err != nil {
				return err
			}
		}
		list, err = o.measureRounds(ctx, l, chosen)
		return err
	})
	if err != nil {
		return nil, err
	}
	text := o.heading(began) + tables(list)
	o.say("\n%s", text)
	return list, o.publish(list, text)
}

func (o options) measureRounds(ctx context.Context, l *lab, chosen []contender) (list []result, err error) {
	found := make([]runs, len(chosen))
	for round := range o.rounds + 1 {
		for i, k := range chosen {
			found[i].name = k.name
			if k.once && round != o.rounds {
				continue
			}
			if err := o.turn(ctx, l, k, round, &found[i]); err != nil {
				return nil, err
			}
		}
	}
	for _, f := range found {
		list = append(list, f.result())
	}
	return list, nil
}

// turn is one contender's part of a round. The first round warms the broker up.
func (o options) turn(ctx context.Context, l *lab, k contender, round int, found *runs) error {
	limit := o.limit
	if round == 0 && o.rounds > 0 {
		limit /= 3
	}
	if k.once {
		limit *= 40 // all of it has to wait
	}
	s, err := l.run(ctx, k, o.recordsOf(k), limit, o.profile, fmt.Sprintf("%s-%d", k.name, round))
	if err != nil && ctx.Err() == nil {
		// A topic just made anew may have its leader elsewhere than was heard.
		o.say("round %d  %-22s failed and is run again: %v", round, k.name, err)
		s, err = l.run(ctx, k, o.recordsOf(k), limit, o.profile, fmt.Sprintf("%s-%d", k.name, round))
	}
	if err != nil {
		return err
	}
	one := runs{name: k.name, samples: []sample{s}}
	counts, paced := round > 0 || o.rounds == 0, ""
	if counts {
		found.add(s)
	}
	if counts && o.pace.rate > 0 && !k.once {
		took, err := l.latency(ctx, k, o.pace)
		if err != nil {
			return err
		}
		paced = fmt.Sprintf(" at %.4f CPU s per 1,000", 1000*took.CPU/float64(took.Records))
		one.p50, one.p99 = []float64{took.p50}, []float64{took.p99}
		found.p50, found.p99 = append(found.p50, one.p50...), append(found.p99, one.p99...)
	}
	r := one.result()
	parked := ""
	if s.Parked > 0 {
		parked = fmt.Sprintf(", %d waited", s.Parked)
	}
	o.say("round %d  %-22s %8.0f records/s  CPU %.4f, broker %.4f s per 1,000  peak %4.0f MiB  p50 %s p99 %s ms%s  (%d in %.1f s%s)",
		round, k.name, r.Rate, r.CPU, r.BrokerCPU, r.PeakMiB, ms(r.P50), ms(r.P99), paced, s.Records, s.Seconds, parked)
	return nil
}

// heading says how the figures came about.
func (o options) heading(began time.Time) string {
	return fmt.Sprintf("%s, %d cores, %s; medians of %d rounds, %d to %d records each, at most %s a run; took %s.\n\n",
		began.UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), max(1, o.rounds), min(o.records, o.slowRecords), max(o.records, o.slowRecords),
		o.limit, time.Since(began).Round(time.Second))
}

// visited are the flags that were given.
func visited() map[string]bool {
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	return given
}

// publish writes results and tables where they go.
func (o options) publish(list []result, text string) error {
	if o.out != "" {
		if err := writeResults(filepath.Join(o.repo, o.out), list, isolationRow); err != nil {
			return err
		}
	}
	if o.doc != "" {
		return putBetween(filepath.Join(o.repo, o.doc), "bench", text)
	}
	return nil
}
