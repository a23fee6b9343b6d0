// Command bench measures the bus and the pipeline on a real Apache Kafka that it
// starts, beside other ways of doing the same work, and writes what it finds to
// bench/results.json and docs/benchmarks.md. `make bench` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
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
	limit       time.Duration
	only        []string
	profile     string
	out         string
}

func main() {
	if runChild() {
		return
	}
	var o options
	var only string
	flag.StringVar(&o.repo, "repo", ".", "the repository's root")
	flag.IntVar(&o.rounds, "rounds", 5, "measured rounds; one more goes before them and is thrown away")
	flag.IntVar(&o.records, "records", 100_000, "records for those who only copy")
	flag.IntVar(&o.slowRecords, "slow-records", 100_000, "records for the others")
	flag.DurationVar(&o.limit, "limit", 20*time.Second, "longest time of one run; what has arrived by then counts")
	flag.StringVar(&only, "only", "", "contenders, separated by commas; all where empty")
	flag.StringVar(&o.profile, "profile", "", "directory for a CPU profile of each run")
	flag.StringVar(&o.out, "out", "bench/results.json", "where the results go, relative to the repository; empty: nowhere")
	flag.Parse()
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fatal(err)
	}
}

func table() []contender {
	return []contender{
		plain("raw-sarama", false),
		plain("bus-trivial", false),
		plain("bus-trivial-watermill", false),
		pipeline("pipeline-topic", nil),
	}
}

func run(ctx context.Context, o options) error {
	repo, err := filepath.Abs(o.repo)
	if err != nil {
		return err
	}
	var list []contender
	for _, k := range table() {
		if len(o.only) == 0 || slices.Contains(o.only, k.name) {
			list = append(list, k)
		}
	}
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return err
		}
		if o.profile, err = filepath.Abs(o.profile); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "weiche-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := openLab(ctx, repo, dir)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.stock(ctx, o.records, o.slowRecords); err != nil {
		return err
	}
	for round := range o.rounds + 1 {
		for _, k := range list {
			records := o.records
			if k.slow {
				records = o.slowRecords
			}
			s, err := l.run(ctx, k, records, o.limit, o.profile, fmt.Sprintf("%s-%d", k.name, round))
			if err != nil {
				return err
			}
			fmt.Printf("%d %-24s %8.0f records/s  cpu %.4f  broker %.4f s/1000  peak %4.0f MiB (%d in %.1f s)\n", round, k.name,
				float64(s.Records)/s.Seconds, 1000*s.CPU/float64(s.Records), 1000*s.BrokerCPU/float64(s.Records), s.PeakMiB, s.Records, s.Seconds)
		}
	}
	return nil
}
