package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// result is a contender's row in bench/results.json: medians over the rounds.
type result struct {
	Name          string  `json:"name"`
	Rate          float64 `json:"records_per_second"`
	CPU           float64 `json:"cpu_seconds_per_1000"`
	BrokerCPU     float64 `json:"broker_cpu_seconds_per_1000"`
	PeakMiB       float64 `json:"peak_rss_mib"`
	P50           *number `json:"p50_ms"` // null where no single submissions were sent
	P99           *number `json:"p99_ms"`
	records       int64   // that arrived in a run, at most
	slowest, best float64 // records a second
}

type number = float64

// runs collects what the rounds have found for a contender.
type runs struct {
	name     string
	samples  []sample
	p50, p99 []float64 // milliseconds
}

// add takes a sample in.
func (r *runs) add(s sample) { r.samples = append(r.samples, s) }

// result returns the medians.
func (r *runs) result() result {
	of := func(f func(sample) float64) float64 {
		v := make([]float64, len(r.samples))
		for i, s := range r.samples {
			v[i] = f(s)
		}
		return median(v)
	}
	rate := func(s sample) float64 { return float64(s.Records) / s.Seconds }
	out := result{Name: r.name, Rate: round(of(rate), 1),
		CPU:       round(of(func(s sample) float64 { return 1000 * s.CPU / float64(s.Records) }), 5),
		BrokerCPU: round(of(func(s sample) float64 { return 1000 * s.BrokerCPU / float64(s.Records) }), 5),
		PeakMiB:   round(of(func(s sample) float64 { return s.PeakMiB }), 1)}
	out.slowest, out.best = rate(r.samples[0]), rate(r.samples[0])
	for _, s := range r.samples {
		out.records = max(out.records, s.Records)
		out.slowest, out.best = min(out.slowest, rate(s)), max(out.best, rate(s))
	}
	if len(r.p50) > 0 {
		p50, p99 := round(median(r.p50), 3), round(median(r.p99), 3)
		out.P50, out.P99 = &p50, &p99
	}
	return out
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func round(v float64, digits int) float64 {
	var out float64
	_, _ = fmt.Sscan(fmt.Sprintf("%.*f", digits, v), &out) // a number it has just written
	return out
}

// writeResults writes the list. Of what stands there, rows that other marks as
// another measurement's are kept.
func writeResults(path string, list []result, other func(name string) bool) error {
	var old []result
	switch b, err := os.ReadFile(path); {
	case err == nil:
		if err := json.Unmarshal(b, &old); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	old = slices.DeleteFunc(old, func(r result) bool { return !other(r.Name) })
	at := len(old)
	if len(old) > 0 && isolationRow(old[0].Name) {
		at = 0 // these come last
	}
	b, err := json.MarshalIndent(slices.Insert(old, at, list...), "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// tables writes the results as Markdown: the rows, then the goals.
func tables(list []result) string {
	find := func(name string) *result {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
		return nil
	}
	raw := find("raw-sarama")
	var b strings.Builder
	b.WriteString("| | records/s | of raw-sarama | slowest to fastest | CPU s per 1,000 | broker CPU s per 1,000 | peak MiB | p50 ms | p99 ms |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range list {
		share := "–"
		if raw != nil {
			share = fmt.Sprintf("%.3f", r.Rate/raw.Rate)
		}
		fmt.Fprintf(&b, "| %s | %.0f | %s | %.0f to %.0f | %.4f | %.4f | %.0f | %s | %s |\n", r.Name, r.Rate, share, r.slowest, r.best, r.CPU, r.BrokerCPU, r.PeakMiB, ms(r.P50), ms(r.P99))
	}
	b.WriteString("\n| goal | is | met |\n| --- | --- | --- |\n")
	for _, g := range goals {
		if is, met, ok := g.ask(find); ok {
			yes := "no"
			if met {
				yes = "yes"
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", g.text, is, yes)
		}
	}
	return b.String()
}

func ms(v *float64) string {
	if v == nil {
		return "–"
	}
	return fmt.Sprintf("%.1f", *v)
}

// goals are those of the bus. Ratios are of one run on one machine.
var goals = []struct {
	text string
	ask  func(find func(string) *result) (is string, met, ok bool)
}{
	{"raw-sarama is a fair limit: at most 0.016 CPU s per 1,000", atMost("raw-sarama", func(r *result) float64 { return r.CPU }, 0.016)},
	{"bus-trivial at least 0.8 of raw-sarama", ratio("bus-trivial", "raw-sarama", 0.8)},
	{"pipeline-topic-noxsd at least 0.5 of raw-sarama", ratio("pipeline-topic-noxsd", "raw-sarama", 0.5)},
	{"pipeline-topic-noxsd at most 0.05 CPU s per 1,000", atMost("pipeline-topic-noxsd", func(r *result) float64 { return r.CPU }, 0.05)},
	{"pipeline-topic at least 3 times watermill-stock", ratio("pipeline-topic", "watermill-stock", 3)},
	{"p99 at 500 a second within 3 ms of copying alone", func(find func(string) *result) (string, bool, bool) {
		a, b := find("pipeline-topic"), find("raw-sarama")
		if a == nil || b == nil || a.P99 == nil || b.P99 == nil {
			return "", false, false
		}
		return fmt.Sprintf("%+.1f ms", *a.P99-*b.P99), *a.P99-*b.P99 <= 3, true
	}},
	{"memory below 300 MB with 100,000 waiting", func(find func(string) *result) (string, bool, bool) {
		r := find("waiting")
		if r == nil || r.records < 99_000 {
			return "", false, false // fewer prove nothing
		}
		mb := r.PeakMiB * (1 << 20) / 1e6
		return fmt.Sprintf("%.0f MB", mb), mb < 300, true
	}},
}

func atMost(name string, of func(*result) float64, bound float64) func(func(string) *result) (string, bool, bool) {
	return func(find func(string) *result) (string, bool, bool) {
		r := find(name)
		if r == nil {
			return "", false, false
		}
		return fmt.Sprintf("%.4g", of(r)), of(r) <= bound, true
	}
}

func ratio(name, to string, bound float64) func(func(string) *result) (string, bool, bool) {
	return func(find func(string) *result) (string, bool, bool) {
		a, b := find(name), find(to)
		if a == nil || b == nil {
			return "", false, false
		}
		return fmt.Sprintf("%.3f", a.Rate/b.Rate), a.Rate/b.Rate >= bound, true
	}
}

// putBetween replaces what stands between two marks of a Markdown file.
func putBetween(path, mark, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := "<!-- "+mark+" -->\n", "<!-- /"+mark+" -->"
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table: %s…%s", path, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(path, []byte(before+begin+text+end+after), 0o644)
}
