package status_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/status"
	"weiche/internal/status/statustest"
	"weiche/internal/submission"
)

// broker starts a log of its own for a test.
func broker(t *testing.T) *bus.Bus {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	b, err := embedded.Start(t.TempDir(), embedded.Options{Partitions: statustest.Partitions}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	cfg := bus.Config{Brokers: b.Addrs(), Partitions: statustest.Partitions, ReplicationFactor: 1, MinInSyncReplicas: 1}
	l, err := bus.Open(t.Context(), cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := l.EnsureTopics(t.Context(), bus.Topics(cfg, nil)); err != nil {
		t.Fatal(err)
	}
	return l
}

// running is a store with a projector at work.
type running struct {
	store     *status.Store
	projector *status.Projector
	ledger    *status.Ledger
	stop      func()
	log       *bytes.Buffer
}

func run(t *testing.T, log status.Log, path string) *running {
	t.Helper()
	s, err := status.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{store: s, log: &bytes.Buffer{}}
	r.projector = status.NewProjector(s, status.Options{Log: log, Sign: sign, Verify: verify,
		Logger: slog.New(slog.NewTextHandler(&lockedWriter{w: r.log}, nil))})
	r.ledger = status.NewLedger(s, log, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.projector.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// sign and verify are a signature of the test's own.
func sign(payload []byte) (string, error) {
	m := hmac.New(sha256.New, []byte("test key"))
	m.Write(payload)
	e := base64.RawURLEncoding
	return "x." + e.EncodeToString(payload) + "." + e.EncodeToString(m.Sum(nil)), nil
}

func verify(jws string) ([]byte, error) {
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return nil, errors.New("not a JWS")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	if again, err := sign(payload); err != nil || again != jws {
		return nil, errors.New("wrong signature")
	}
	return payload, nil
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// write appends a history to the real log.
func write(t *testing.T, log *bus.Bus, l *statustest.Log) {
	t.Helper()
	for _, r := range l.All() {
		c := *r
		if err := log.Append(t.Context(), &c); err != nil {
			t.Fatal(err)
		}
	}
}

// history is a log of n submissions, each delivered but every third.
func history(n int) *statustest.Log {
	l := statustest.NewLog()
	for i := range n {
		m := l.Meta("key-"+strconv.Itoa(i), "08")
		l.Claim(m)
		l.Submission(m, submission.TypeSubmission)
		l.Accepted(m, 0)
		l.Decided(m, 0, 1, "a")
		if i%3 > 0 {
			l.About(m, submission.EventDelivered, "a", submission.Event{Attempt: 1})
		}
	}
	return l
}

func picture(t *testing.T, s *status.Store, l *statustest.Log) string {
	t.Helper()
	p, err := statustest.Picture(t.Context(), s, l)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProjectorFollowsRestartsAndRebuilds(t *testing.T) {
	log, path := broker(t), filepath.Join(t.TempDir(), "status.db")
	ctx := within(t)
	l := history(30)
	write(t, log, l)
	r := run(t, log, path)
	if err := r.projector.WaitAsked(ctx); err != nil {
		t.Fatal(err)
	}
	counts, err := r.store.Counts(ctx)
	if err != nil || len(counts) != 1 || counts[0].Accepted != 30 || counts[0].States[submission.Delivered] != 20 || !counts[0].AddsUp {
		t.Fatalf("counts are %+v, %v", counts, err)
	}
	r.stop()

	// What came meanwhile is projected after a restart, in the same file.
	m := l.Meta("later", "14")
	value := l.Accepted(m, 0)
	raw, err := value.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Append(ctx, &bus.Record{Topic: status.TopicEvents, Partition: statustest.Partition(m.ID), Key: []byte(m.CaseID.String()), Value: raw, Headers: value.Headers(), Time: value.At}); err != nil {
		t.Fatal(err)
	}
	r = run(t, log, path)
	if err := r.projector.WaitAsked(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Get(ctx, m.ID); err != nil {
		t.Fatal(err)
	}
	// Claims are not waited for by WaitAsked; a rebuild waits for them too.
	if err := r.projector.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	rebuilt := picture(t, r.store, l)
	r.stop()

	fresh := run(t, log, filepath.Join(t.TempDir(), "status.db"))
	if err := fresh.projector.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	if want := picture(t, fresh.store, l); rebuilt != want {
		t.Errorf("rebuilt:\n%s\nprojected anew:\n%s", rebuilt, want)
	}

	// The rebuilt file is the one that a restart finds, and the projection goes on.
	r = run(t, log, path)
	if got := picture(t, r.store, l); got != rebuilt {
		t.Errorf("after a restart:\n%s\nbefore:\n%s", got, rebuilt)
	}
}

// The ledger must answer rightly at every moment of a rebuild: half an account
// would deliver twice.
func TestRebuildUnderWay(t *testing.T) {
	log := broker(t)
	ctx := within(t)
	l := history(60)
	write(t, log, l)
	r := run(t, log, filepath.Join(t.TempDir(), "status.db"))
	if err := r.projector.WaitAsked(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for range 3 {
			err = errors.Join(err, r.projector.Rebuild(ctx))
		}
		done <- err
	}()
	id := l.IDs[1]
	asked := 0
	for {
		a, err := r.ledger.Account(ctx, id)
		if err != nil || a.State != submission.Delivered {
			t.Fatalf("during a rebuild the account is %+v, %v", a, err)
		}
		asked++
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			// The projection follows the log again.
			m := l.Meta("after", "08")
			if err := r.ledger.Append(ctx, statustest.Partition(m.ID), l.Accepted(m, 0)); err != nil {
				t.Fatal(err)
			}
			if err := r.projector.WaitAsked(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := r.store.Get(ctx, m.ID); err != nil {
				t.Fatal(err)
			}
			t.Logf("asked %d times", asked)
			return
		default:
		}
	}
}

func TestWaitAskedDoesNotWaitForWhatWasCut(t *testing.T) {
	log := broker(t)
	ctx := within(t)
	l := history(6)
	write(t, log, l)
	for p := range int32(statustest.Partitions) {
		if err := log.DeleteBelow(ctx, status.TopicSubmissions, p, int64(len(l.Records[status.TopicSubmissions][p]))); err != nil {
			t.Fatal(err)
		}
	}
	r := run(t, log, filepath.Join(t.TempDir(), "status.db"))
	if err := r.projector.WaitAsked(ctx); err != nil {
		t.Fatal(err)
	}
	// Events alone tell the whole account.
	if counts, err := r.store.Counts(ctx); err != nil || counts[0].Accepted != 6 {
		t.Errorf("counts are %+v, %v", counts, err)
	}
}

func TestLedger(t *testing.T) {
	log, path := broker(t), filepath.Join(t.TempDir(), "status.db")
	ctx := within(t)
	r := run(t, log, path)
	l := statustest.NewLog()
	m := l.Meta("key", "08")
	p := statustest.Partition(m.ID)

	first, err := r.ledger.Acquire(ctx, submission.StageDispatch, p)
	if err != nil || first != 1 {
		t.Fatalf("epoch %d, %v", first, err)
	}
	if other, err := r.ledger.Acquire(ctx, submission.StageDelivery, p); err != nil || other != 1 {
		t.Fatalf("epoch of another stage %d, %v", other, err)
	}
	second, err := r.ledger.Acquire(ctx, submission.StageDispatch, p)
	if err != nil || second != 2 {
		t.Fatalf("epoch %d, %v", second, err)
	}
	// The one that was replaced writes nothing.
	if err := r.ledger.Append(ctx, p, l.Accepted(m, first)); !errors.Is(err, status.ErrSuperseded) {
		t.Fatalf("a superseded owner's append: %v", err)
	}
	if a, err := r.ledger.Account(ctx, m.ID); err != nil || a.Known() {
		t.Fatalf("account %+v, %v", a, err)
	}
	// The stages do not see what only the submissions topic tells.
	if err := log.Append(ctx, &bus.Record{Topic: status.TopicSubmissions, Partition: p, Key: []byte(m.CaseID.String()), Headers: m.Headers(submission.TypeSubmission)}); err != nil {
		t.Fatal(err)
	}
	if err := r.projector.WaitAsked(ctx); err != nil {
		t.Fatal(err)
	}
	if a, err := r.store.Get(ctx, m.ID); err != nil || a.State != submission.InFlight {
		t.Fatalf("the portal sees %+v, %v", a, err)
	}
	if a, err := r.ledger.Account(ctx, m.ID); err != nil || a.Known() {
		t.Fatalf("account %+v, %v", a, err)
	}
	if err := r.ledger.Append(ctx, p, l.Accepted(m, second), l.Decided(m, second, 1, "a")); err != nil {
		t.Fatal(err)
	}
	a, err := r.ledger.Account(ctx, m.ID)
	if err != nil || a.Dispatched != 1 || len(a.Deliveries) != 1 {
		t.Fatalf("account %+v, %v", a, err)
	}
	// A copy of the caller's own.
	a.Deliveries[0].State = submission.Dead
	if b, err := r.ledger.Account(ctx, m.ID); err != nil || b.Deliveries[0].State != submission.InFlight {
		t.Fatalf("account %+v, %v", b, err)
	}
	if err := r.ledger.Append(ctx, p, l.About(m, submission.EventDead, "a", submission.Event{Epoch: 1, Attempt: 1, Reason: "refused", Held: &submission.Held{Topic: "weiche.deadletters"}})); err != nil {
		t.Fatal(err)
	}
	if err := r.ledger.CatchUp(ctx, p); err != nil {
		t.Fatal(err)
	}
	dead, err := r.ledger.Dead(ctx, p)
	if err != nil || len(dead) != 1 || dead[0].ID != m.ID || dead[0].Destination != "a" {
		t.Fatalf("dead are %+v, %v", dead, err)
	}
}

// Own events count before they are projected, and once when they are.
func TestLedgerOverlay(t *testing.T) {
	log := broker(t)
	ctx := within(t)
	s, err := status.Open(filepath.Join(t.TempDir(), "status.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ledger := status.NewLedger(s, log, nil)
	l := statustest.NewLog()
	m := l.Meta("key", "08")
	p := statustest.Partition(m.ID)
	var events []submission.Event
	for _, e := range []submission.Event{l.Accepted(m, 0), l.Decided(m, 0, 1, "a"),
		l.About(m, submission.EventDead, "a", submission.Event{Attempt: 1, Reason: "refused"}),
		l.About(m, submission.EventRedriven, "a", submission.Event{Redrive: 1}),
		l.About(m, submission.EventWaiting, "a", submission.Event{Sequence: 1, Reason: "busy"}),
	} {
		if err := ledger.Append(ctx, p, e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	want := func(when string) {
		t.Helper()
		a, err := ledger.Account(ctx, m.ID)
		if err != nil || a.State != submission.Waiting || a.Reason != "busy" || a.Deliveries[0].Redrives != 1 {
			t.Fatalf("%s the account is %+v, %v", when, a, err)
		}
	}
	want("with nothing projected")
	// Event by event the projection takes over; the answer stays the same.
	for i := range events {
		err := log.ReadTo(ctx, status.TopicEvents, p, int64(i), int64(i+1), func(r *bus.Record) error {
			_, err := s.Project(ctx, nil, r)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		want("after " + strconv.Itoa(i+1) + " of them")
	}
}

// Of processes that take over one partition at once one gets each epoch; who
// lost its number is told so and gets no other one.
func TestAcquireTogether(t *testing.T) {
	log := broker(t)
	ctx := within(t)
	a, b := run(t, log, filepath.Join(t.TempDir(), "a.db")), run(t, log, filepath.Join(t.TempDir(), "b.db"))
	got := make(chan int64, 8)
	var wg sync.WaitGroup
	for i := range cap(got) {
		l := []*running{a, b}[i%2].ledger
		wg.Go(func() {
			n, err := l.Acquire(ctx, submission.StageDelivery, 1)
			if err != nil && !errors.Is(err, status.ErrSuperseded) {
				t.Error(err)
			}
			if err == nil {
				got <- n
			}
		})
	}
	wg.Wait()
	close(got)
	seen := map[int64]bool{}
	for n := range got {
		if seen[n] {
			t.Errorf("epoch %d was given twice", n)
		}
		seen[n] = true
	}
	// Who took the first number may learn at once that the next one is taken too.
	if len(seen) == 0 {
		t.Error("nobody got it")
	}
}

func TestCheckpoints(t *testing.T) {
	log := broker(t)
	ctx := within(t)
	l := history(12)
	write(t, log, l)
	r := run(t, log, filepath.Join(t.TempDir(), "status.db"))
	put := func(ctx context.Context, ev submission.Event) error { return r.ledger.Append(ctx, 0, ev) }
	written := 0
	checkpoint := func() {
		t.Helper()
		if err := r.projector.WaitAsked(ctx); err != nil {
			t.Fatal(err)
		}
		err := r.projector.Checkpoint(ctx, 0, func(ctx context.Context, ev submission.Event) error { written++; return put(ctx, ev) })
		if err != nil {
			t.Fatal(err)
		}
	}
	checkpoint()
	checkpoint() // nothing new
	m := l.Meta("more", "08")
	for statustest.Partition(m.ID) != 0 {
		m = l.Meta("more-"+m.ID.String(), "08")
	}
	if err := r.ledger.Append(ctx, 0, l.Accepted(m, 0)); err != nil {
		t.Fatal(err)
	}
	checkpoint()
	if written != 2 {
		t.Errorf("%d checkpoints were written, want 2", written)
	}
	found, err := r.projector.VerifyCheckpoints(ctx)
	if err != nil || len(found) != 0 {
		t.Fatalf("an honest log: %+v, %v", found, err)
	}
	if err := r.projector.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	if found, err := r.store.Tampering(ctx); err != nil || len(found) != 0 {
		t.Fatalf("an honest log, rebuilt: %+v, %v", found, err)
	}

	// The same log with one word of one event changed, in a cluster of its own.
	forged := broker(t)
	_, newest, err := log.Offsets(ctx, status.TopicEvents)
	if err != nil {
		t.Fatal(err)
	}
	err = log.ReadTo(ctx, status.TopicEvents, 0, 0, newest[0], func(r *bus.Record) error {
		c := *r
		if r.Offset == 1 {
			c.Value = bytes.Replace(r.Value, []byte("rules.yaml:3"), []byte("rules.yaml:4"), 1)
			if bytes.Equal(c.Value, r.Value) {
				t.Errorf("nothing to forge in %s", r.Value)
			}
		}
		return forged.Append(ctx, &c)
	})
	if err != nil {
		t.Fatal(err)
	}
	f := run(t, forged, filepath.Join(t.TempDir(), "status.db"))
	if err := f.projector.WaitAsked(ctx); err != nil {
		t.Fatal(err)
	}
	found, err = f.projector.VerifyCheckpoints(ctx)
	if err != nil || len(found) != 2 {
		t.Errorf("a forged log: %+v, %v", found, err)
	}
	projected, err := f.store.Tampering(ctx)
	if err != nil || len(projected) != 2 || projected[0] != found[0] {
		t.Errorf("a forged log, projected: %+v, %v", projected, err)
	}
	f.stop()
	if !strings.Contains(f.log.String(), "changed after it was signed") {
		t.Errorf("the log says nothing: %s", f.log)
	}

	// A checkpoint signed by somebody else.
	other := submission.Checkpoint{Offset: 1, Hash: "00", JWS: "x.e30.AAAA"}
	if err := r.ledger.Append(ctx, 0, submission.Event{ID: uuid.New(), Type: submission.EventCheckpoint, Stage: submission.StageDispatch, Checkpoint: &other}); err != nil {
		t.Fatal(err)
	}
	found, err = r.projector.VerifyCheckpoints(ctx)
	if err != nil || len(found) != 1 || !strings.Contains(found[0].What, "signature") {
		t.Errorf("a stranger's checkpoint: %+v, %v", found, err)
	}
}

// A store that is ahead of its log belongs to another cluster: it says so and
// projects nothing, until it is rebuilt.
func TestAnotherCluster(t *testing.T) {
	ctx := within(t)
	path := filepath.Join(t.TempDir(), "status.db")
	one := broker(t)
	write(t, one, history(9))
	r := run(t, one, path)
	if err := r.projector.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	r.stop()
	two := broker(t)
	l := history(3)
	write(t, two, l)
	r = run(t, two, path)
	if err := r.projector.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	if counts, err := r.store.Counts(ctx); err != nil || counts[0].Accepted != 3 {
		t.Errorf("counts are %+v, %v", counts, err)
	}
}

func TestMetrics(t *testing.T) {
	log := broker(t)
	ctx := within(t)
	r := run(t, log, filepath.Join(t.TempDir(), "status.db"))
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(status.NewCollector(r.projector, func() status.Scope {
		return status.Scope{Offers: map[submission.Land][]submission.Service{"14": {"99041006017000"}}, Destinations: []string{"idle"}}
	}))
	// At zero from the start.
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 7+6+1+3 {
		t.Errorf("%d series before anything came, %v", n, err)
	}
	l := statustest.NewLog()
	m := l.Meta("key", "08")
	l.Accepted(m, 0)
	l.Decided(m, 0, 1, "a")
	e := l.About(m, submission.EventWaiting, "a", submission.Event{Sequence: 1, Reason: "paused"})
	write(t, log, l)
	if err := log.Append(ctx, &bus.Record{Topic: status.TopicEvents, Partition: 0, Value: []byte("canary")}); err != nil {
		t.Fatal(err)
	}
	if err := r.projector.WaitAsked(ctx); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			key := f.GetName()
			for _, p := range s.GetLabel() {
				key += " " + p.GetValue()
			}
			got[key] = s.GetGauge().GetValue() + s.GetCounter().GetValue()
		}
	}
	for key, want := range map[string]float64{
		"weiche_status_submissions 08 99050012104000 waiting": 1, "weiche_status_submissions 08 99050012104000 in-flight": 0,
		"weiche_status_submissions 14 99041006017000 dead": 0, "weiche_status_deliveries a waiting": 1, "weiche_status_deliveries idle waiting": 0,
		"weiche_reconcile_difference_submissions 14 99041006017000": 0, "weiche_reconcile_difference_deliveries idle": 0,
		"weiche_status_waiting_age_seconds idle": 0, "weiche_status_undecodable_total": 1, "weiche_status_tampered_checkpoints": 0,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v, want %v (%v)", key, v, want, ok)
		}
	}
	if age, want := got["weiche_status_waiting_age_seconds a"], max(0, time.Since(e.At).Seconds()); age < want-5 || age > want+5 {
		t.Errorf("age is %v, want %v", age, want)
	}
	r.stop()
	if s := r.log.String(); strings.Contains(s, "canary") || !strings.Contains(s, "cannot be read") {
		t.Errorf("the log says %s", s)
	}
}
