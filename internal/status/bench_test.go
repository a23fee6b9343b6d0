package status_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/status"
	"weiche/internal/submission"
)

const benchPartitions = 8

// flow is the records of one submission, in the order in which they are written.
type flow struct {
	id       uuid.UUID
	taken    []*bus.Record // claim and submission
	decided  []*bus.Record // accepted, decided
	finished []*bus.Record // delivered; every fourth waits before
	events   []submission.Event
}

// flowOf makes the records of a submission with everything a real one carries.
func flowOf(i int) *flow {
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Millisecond)
	id := submission.NewID("service-bw", "bench-"+strconv.Itoa(i))
	m := submission.Meta{ID: id, CaseID: submission.NewCaseID(id), Portal: "service-bw", Land: "08", Service: "99012008001000", Region: "081150003003",
		AcceptedAt: at, SHA512: strings.Repeat("0123456789abcdef", 8), Revision: 1, Append: uuid.NewSHA1(id, []byte("append")), SenderHash: strings.Repeat("a1", 32)}
	p := int32(id[15]) % benchPartitions
	f := &flow{id: id, taken: []*bus.Record{
		{Topic: status.TopicClaims, Partition: int32(id[0]) % benchPartitions, Key: []byte(id.String()), Headers: m.Headers(submission.TypeClaim), Time: at},
		{Topic: status.TopicSubmissions, Partition: p, Key: []byte(m.CaseID.String()), Headers: m.Headers(submission.TypeSubmission), Time: at},
	}}
	destination := "08/bauamt-" + strconv.Itoa(i%8)
	delivery := submission.NewDeliveryID(id, destination, 1)
	event := func(t submission.EventType, stage submission.Stage, e submission.Event) *bus.Record {
		e.ID, e.Type, e.At, e.Stage, e.Epoch = submission.NewEventID(t, id, "1"), t, at.Add(time.Duration(len(f.events))*time.Millisecond), stage, 1
		e.Submission, e.CaseID, e.Portal, e.Land, e.Service, e.Revision = id, m.CaseID, m.Portal, m.Land, m.Service, 1
		if stage == submission.StageDelivery {
			e.DeliveryID, e.Destination, e.Adapter, e.Order = delivery, destination, "kafka", int64(i)
		}
		f.events = append(f.events, e)
		value, err := e.Encode()
		if err != nil {
			panic(err)
		}
		return &bus.Record{Topic: status.TopicEvents, Partition: p, Key: []byte(m.CaseID.String()), Value: value, Headers: e.Headers(), Time: e.At}
	}
	f.decided = []*bus.Record{
		event(submission.EventAccepted, submission.StageDispatch, submission.Event{Accepted: &submission.Acceptance{Region: m.Region, AcceptedAt: at,
			SHA512: m.SHA512, Append: m.Append, SenderHash: m.SenderHash, Offset: int64(i)}}),
		event(submission.EventDecided, submission.StageDispatch, submission.Event{Decision: &submission.Decision{
			Authority: submission.Authority{ID: "bauamt-ludwigsburg", Key: "bab:08115003", Name: "Landratsamt Böblingen, Baurechtsamt", Region: "08115"},
			Rule:      "lands/08/routes.yaml:117", ConfigHash: strings.Repeat("fe", 32), At: at,
			Deliveries: []submission.PlannedDelivery{{ID: delivery, Destination: destination, Adapter: "kafka",
				Format: submission.Format{Standard: "xbau", Version: "2.6", Message: "baugenehmigung.antrag.0200"}}}}}),
	}
	if i%4 == 0 {
		due := at.Add(time.Minute)
		f.finished = append(f.finished, event(submission.EventAttempt, submission.StageDelivery, submission.Event{Attempt: 1, Sequence: 1, Reason: "timeout",
			Class: "retryable", Detail: "no answer within 30 s", DueAt: &due, DurationMS: 30_000}))
	}
	f.finished = append(f.finished, event(submission.EventDelivered, submission.StageDelivery, submission.Event{Attempt: 1 + len(f.finished), DurationMS: 3}))
	return f
}

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// pace lets the writer be at most so many records ahead of the projection.
func pace(b *testing.B, s *status.Store, appended *int64, ahead int64) {
	for {
		changed := s.Changed()
		var done int64
		for _, topic := range []string{status.TopicEvents, status.TopicSubmissions, status.TopicClaims} {
			for p := range int32(benchPartitions) {
				done += s.Progress(topic, p)
			}
		}
		if *appended-done <= ahead {
			return
		}
		select {
		case <-changed:
		case <-b.Context().Done():
			b.Fatal("the projection stands still")
		}
	}
}

// BenchmarkProjection is the whole projection of b.N submissions: a claim, a
// submission and 3.25 events each. steady: each stage a few hundred submissions
// behind the other. filled: everything is taken before the first is decided.
// The figure is CPU time of the whole process, the time of the log in memory
// included.
func BenchmarkProjection(b *testing.B) {
	for name, behind := range map[string]int{"steady": 300, "filled": 1 << 30} {
		b.Run(name, func(b *testing.B) {
			flows := make([]*flow, b.N)
			for i := range flows {
				flows[i] = flowOf(i)
			}
			log := newSimLog(benchPartitions, status.TopicEvents, status.TopicSubmissions, status.TopicClaims)
			s, err := status.Open(filepath.Join(b.TempDir(), "status.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			p := status.NewProjector(s, status.Options{Log: log})
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- p.Run(ctx) }()
			var appended int64
			var next []*bus.Record // appended together, as a producer does
			put := func(recs []*bus.Record) { next = append(next, recs...) }
			flush := func() {
				if err := log.Append(b.Context(), next...); err != nil {
					b.Fatal(err)
				}
				appended, next = appended+int64(len(next)), nil
			}
			b.ResetTimer()
			began := cpu()
			lag := min(behind, b.N)
			for i := range b.N + 2*lag {
				if i < b.N {
					put(flows[i].taken)
				}
				if j := i - lag; j >= 0 && j < b.N {
					put(flows[j].decided)
				}
				if j := i - lag - min(300, lag); j >= 0 && j < b.N {
					put(flows[j].finished)
				}
				if i%50 == 0 {
					flush()
					pace(b, s, &appended, 20_000)
				}
			}
			flush()
			pace(b, s, &appended, 0)
			b.ReportMetric(float64((cpu()-began).Nanoseconds())/1000/float64(b.N), "cpu-µs/submission")
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
			if c, err := s.Counts(b.Context()); err != nil || c[0].States[submission.Delivered] != b.N || !c[0].AddsUp {
				b.Fatalf("%+v, %v", c, err)
			}
		})
	}
}

// BenchmarkAccount asks the ledger for what nobody has seen, what is taken and
// not dispatched, what this process has just decided, what was projected a
// moment ago and what was projected long ago.
func BenchmarkAccount(b *testing.B) {
	const n = 100_000
	s, err := status.Open(filepath.Join(b.TempDir(), "status.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	ids := make([]uuid.UUID, n)
	offsets := map[string]int64{}
	var recs []*bus.Record
	project := func() {
		if _, err := s.Project(b.Context(), nil, recs...); err != nil {
			b.Fatal(err)
		}
		recs = nil
	}
	for i := range n {
		f := flowOf(i)
		ids[i] = f.id
		of := f.taken
		if i < n/2 || i >= n-1000 {
			of = slices.Concat(f.taken, f.decided, f.finished)
		}
		for _, r := range of {
			at := fmt.Sprint(r.Topic, r.Partition)
			r.Offset = offsets[at]
			offsets[at]++
			recs = append(recs, r)
		}
		if len(recs) > 2000 {
			project()
		}
	}
	project()
	log := newSimLog(benchPartitions, status.TopicEvents)
	for p, o := range offsets { // the log goes on where the projection stands
		if strings.HasPrefix(p, status.TopicEvents) {
			i, _ := strconv.Atoi(strings.TrimPrefix(p, status.TopicEvents))
			log.topics[status.TopicEvents][i] = make([]*bus.Record, o)
		}
	}
	ledger := status.NewLedger(s, log, nil)
	var decided []uuid.UUID
	for i := range 1000 {
		f := flowOf(n + i)
		decided = append(decided, f.id)
		if err := ledger.Append(b.Context(), f.decided[0].Partition, f.events[:2]...); err != nil {
			b.Fatal(err)
		}
	}
	strangers := make([]uuid.UUID, 1000)
	for i := range strangers {
		strangers[i] = uuid.New()
	}
	for _, c := range []struct {
		name  string
		ids   []uuid.UUID
		known bool
	}{
		{"unknown", strangers, false}, {"taken", ids[n/2 : n/2+1000], false}, {"decided", decided, true},
		{"recent", ids[n-1000:], true}, {"old", ids[:1000], true},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				a, err := ledger.Account(b.Context(), c.ids[i%len(c.ids)])
				if err != nil || a.Known() != c.known {
					b.Fatal(a, err)
				}
			}
		})
	}
}

// BenchmarkAppend is the ledger's own cost of one event, 300 in one call.
func BenchmarkAppend(b *testing.B) {
	s, err := status.Open(filepath.Join(b.TempDir(), "status.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	log := newSimLog(1, status.TopicEvents)
	ledger := status.NewLedger(s, log, nil)
	var evs []submission.Event
	for i := range 100 {
		evs = append(evs, flowOf(i).events...)
	}
	evs = evs[:300]
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%300 == 0 { // below the bound of what waits for the projection
			ledger = status.NewLedger(s, log, nil)
			log.topics[status.TopicEvents][0] = nil
		}
		if err := ledger.Append(b.Context(), 0, evs...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1000/float64(b.N)/300, "µs/event")
}
