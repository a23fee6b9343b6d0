package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

func TestMain(m *testing.M) {
	if runChild() { // the contenders' processes are this program too
		return
	}
	os.Exit(m.Run())
}

// The quick form of `make bench`: each kind of contender does a few records, and
// the results have the shape that is promised. Every contender runs with
// WEICHE_SOAK=1.
func TestHarness(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka and routers")
	}
	if _, err := exec.LookPath("java"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("needs java to run a real Apache Kafka")
	}
	repo := needShared(t)
	names := []string{"raw-sarama", "bus-trivial", "pipeline-topic", "intake"}
	if os.Getenv("WEICHE_SOAK") == "1" {
		names = nil
		for _, k := range contenders() {
			names = append(names, k.name)
		}
	}
	out := filepath.Join(t.TempDir(), "results.json")
	rel, err := filepath.Rel(repo, out)
	if err != nil {
		t.Fatal(err)
	}
	o := options{repo: repo, records: 2000, slowRecords: 120, waiting: 120, limit: time.Minute, only: strings.Join(names, ","), out: rel,
		pace: pace{rate: 20, warm: 200 * time.Millisecond, length: time.Second, grace: time.Minute}, log: testLog{t}}
	if _, err := measureAll(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != len(names) {
		t.Fatalf("%d rows for %d contenders", len(list), len(names))
	}
	for i, row := range list {
		if row["name"] != names[i] || len(row) != 7 {
			t.Errorf("row %d: %v", i, row)
		}
		fields := []string{"records_per_second", "peak_rss_mib"}
		if names[i] != "waiting" {
			fields = append(fields, "p50_ms", "p99_ms")
		}
		for _, f := range fields {
			if v, ok := row[f].(float64); !ok || v <= 0 {
				t.Errorf("%s: %s is %v", names[i], f, row[f])
			}
		}
		for _, f := range []string{"cpu_seconds_per_1000", "broker_cpu_seconds_per_1000"} { // ticks of 10 ms: a short run may have none
			if v, ok := row[f].(float64); !ok || v < 0 {
				t.Errorf("%s: %s is %v", names[i], f, row[f])
			}
		}
	}
}

// Only what goes to the faulty destination is left out of what is timed.
func TestIsolationLeavesOutTheFaultyOnly(t *testing.T) {
	repo := needShared(t)
	for _, c := range []struct{ destinations, least, most int }{{8, 500, 524}, {500, 4, 16}} {
		p := plan{rules: 20_000}
		for range c.destinations {
			p.destinations = append(p.destinations, httpDestination("http://127.0.0.1:1/", "secret"))
		}
		s, err := newStrained(t.TempDir(), repo, p)
		if err != nil {
			t.Fatal(err)
		}
		faulty := 0
		for _, r := range s.regions {
			if s.atFault(&sarama.ProducerMessage{Headers: []sarama.RecordHeader{{Key: []byte(regionHeader), Value: []byte(r)}}}) {
				faulty++
			}
		}
		if faulty < c.least || faulty > c.most {
			t.Errorf("of %d destinations: %d of %d submissions go to the faulty one, want %d to %d", c.destinations, faulty, len(s.regions), c.least, c.most)
		}
	}
}

type testLog struct{ t *testing.T }

// Write implements io.Writer.
func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}, {[]float64{7}, 7}} {
		before := slices.Clone(c.of)
		if got := median(c.of); got != c.want || !slices.Equal(before, c.of) {
			t.Errorf("median of %v: %v", before, got)
		}
	}
}

// What comes late counts from when it was due, and what never comes counts as
// long as it was waited for.
func TestTimesOmitNothing(t *testing.T) {
	tm, c := newTimes(), &child{ended: make(chan struct{})}
	due := time.Now().Add(-time.Second)
	for _, id := range []string{"warm", "late", "lost"} {
		tm.sent(id, due, id != "warm")
	}
	tm.arrived("warm")
	tm.arrived("late")
	tm.arrived("late")
	tm.arrived("stranger")
	tm.await(t.Context(), c, 20*time.Millisecond)
	p50, p99, err := tm.quantiles()
	if err != nil || len(tm.took) != 2 {
		t.Fatalf("%v, %v", tm.took, err)
	}
	if p50 < 1000 || p99 < 1000 {
		t.Errorf("p50 %v, p99 %v ms of what was due a second ago", p50, p99)
	}
}

// The two measurements that write to one list replace their own rows only.
func TestResultsOfTheOtherMeasurementAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	names := func(list ...string) (out []result) {
		for _, n := range list {
			out = append(out, result{Name: n, Rate: 1.5})
		}
		return out
	}
	none := func(string) bool { return false }
	others := func(name string) bool { return !isolationRow(name) }
	for _, step := range []struct {
		list []result
		keep func(string) bool
		want []string
	}{
		{names("isolation-x-with"), others, []string{"isolation-x-with"}},
		{names("raw", "intake"), isolationRow, []string{"raw", "intake", "isolation-x-with"}},
		{names("isolation-y-with"), others, []string{"raw", "intake", "isolation-y-with"}},
		{names("new"), none, []string{"new"}},
	} {
		if err := writeResults(file, step.list, step.keep); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got []result
		if err := json.Unmarshal(b, &got); err != nil || !slices.EqualFunc(got, step.want, func(r result, name string) bool { return r.Name == name && r.Rate == 1.5 }) {
			t.Errorf("%+v, %v, want %v", got, err, step.want)
		}
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeResults(file, nil, others); err == nil {
		t.Error("a list that cannot be read was replaced")
	}
}

func TestIsolationTableSaysWhetherItIsMet(t *testing.T) {
	row := func(says string, ratio50, ratio99 []float64) *isolated {
		ms := []float64{10, 11, 12}
		used := func(cpu float64) []sample { return []sample{{Records: 2000, Seconds: 10, CPU: cpu}} }
		return &isolated{trouble: trouble{says: says}, well: runs{samples: used(1), p50: ms, p99: ms}, ill: runs{samples: used(1.5), p50: ms, p99: ms}, ratio50: ratio50, ratio99: ratio99}
	}
	text := isolationTable([]*isolated{row("good", []float64{1, 0.9, 1.3}, []float64{1.1, 1.05, 4}), row("bad", []float64{1, 1, 1}, []float64{1.2, 0.8, 1.3})})
	for _, line := range []string{"| good | 11.0 | 11.0 | 1.00 (0.90 to 1.30) | 11.0 | 11.0 | 1.10 (1.05 to 4.00) | yes | 0.500 | 0.750 |", "| 1.20 (0.80 to 1.30) | no |"} {
		if !strings.Contains(text, line) {
			t.Errorf("%q is missing:\n%s", line, text)
		}
	}
}

func TestGoalsSayWhetherTheyAreMet(t *testing.T) {
	five, nine := 5.0, 9.0
	text := tables([]result{{Name: "raw-sarama", Rate: 1000, CPU: 0.02, P50: &five, P99: &five}, {Name: "bus-trivial", Rate: 900},
		{Name: "pipeline-topic", Rate: 10, P50: &five, P99: &nine}})
	for _, line := range []string{"| bus-trivial at least 0.8 of raw-sarama | 0.900 | yes |", "| 0.02 | no |", "| +4.0 ms | no |"} {
		if !strings.Contains(text, line) {
			t.Errorf("%q is missing:\n%s", line, text)
		}
	}
	if strings.Contains(text, "watermill-stock") {
		t.Errorf("a goal of a contender that did not run:\n%s", text)
	}
}

func TestTableGoesBetweenItsMarks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := putBetween(file, "bench", "new\n"); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(file)
	if string(b) != "before\n<!-- bench -->\nnew\n<!-- /bench -->\nafter\n" {
		t.Errorf("%s", b)
	}
	if err := putBetween(file, "growth", "new\n"); err == nil {
		t.Error("a mark that is missing is no error")
	}
}
