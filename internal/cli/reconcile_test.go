package cli_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/cli"
	"weiche/internal/config"
	"weiche/internal/console"
	"weiche/internal/status"
	"weiche/internal/submission"
)

// lossy is the log without one event.
type lossy struct {
	*bus.Bus
	lost func(*submission.Event) bool
}

func (l lossy) Tail(ctx context.Context, topic string, partition int32, from int64, fn func(*bus.Record) error) error {
	return l.Bus.Tail(ctx, topic, partition, from, l.without(topic, fn))
}

func (l lossy) ReadTo(ctx context.Context, topic string, partition int32, from, to int64, fn func(*bus.Record) error) error {
	return l.Bus.ReadTo(ctx, topic, partition, from, to, l.without(topic, fn))
}

func (l lossy) without(topic string, fn func(*bus.Record) error) func(*bus.Record) error {
	return func(r *bus.Record) error {
		if topic == status.TopicEvents {
			if e, err := submission.DecodeEvent(r.Value); err == nil && l.lost(&e) {
				return nil
			}
		}
		return fn(r)
	}
}

// books are a log on the embedded broker, what follows it, and the operators'
// API before them, as the commands find it in data.
type books struct {
	t         *testing.T
	log       *bus.Bus
	store     *status.Store
	projector *status.Projector
	ledger    *status.Ledger
	data      string
	file      string
	epoch     int64
}

func newBooks(t *testing.T, lost func(*submission.Event) bool) *books {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	broker, err := embedded.Start(t.TempDir(), embedded.Options{Partitions: 1}, quiet)
	must(err)
	t.Cleanup(func() { _ = broker.Close() })
	cfg := bus.Config{Brokers: broker.Addrs(), Partitions: 1, ReplicationFactor: 1, MinInSyncReplicas: 1}
	b := &books{t: t, data: t.TempDir()}
	b.file = filepath.Join(b.data, "status.db")
	b.log, err = bus.Open(t.Context(), cfg, quiet, prometheus.NewRegistry())
	must(err)
	t.Cleanup(func() { _ = b.log.Close() })
	must(b.log.EnsureTopics(t.Context(), bus.Topics(cfg, nil)))
	b.store, err = status.Open(b.file)
	must(err)
	t.Cleanup(func() { _ = b.store.Close() })
	log := lossy{b.log, lost}
	b.projector = status.NewProjector(b.store, status.Options{Log: log})
	b.ledger = status.NewLedger(b.store, log, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.projector.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	b.epoch, err = b.ledger.Acquire(t.Context(), submission.StageDispatch, 0)
	must(err)

	sum := sha256.Sum256([]byte("token"))
	api := console.New(console.Options{Store: b.store, Projector: b.projector, Log: b.log, Operators: func() []config.Operator {
		return []config.Operator{{Name: "local", TokenSHA256: hex.EncodeToString(sum[:]), Rights: []config.Right{config.RightView}}}
	}})
	web := httptest.NewServer(api)
	t.Cleanup(web.Close)
	must(os.WriteFile(filepath.Join(b.data, "operator.token"), []byte("token\n"), 0o600))
	must(os.WriteFile(filepath.Join(b.data, "addresses.json"), fmt.Appendf(nil, `{"ops":%q}`, strings.TrimPrefix(web.URL, "http://")), 0o600))
	return b
}

// accept appends submissions, and dispatch's events of those that it takes up.
func (b *books) accept(n int, takes func(i int) bool) (ids []uuid.UUID) {
	b.t.Helper()
	at := time.Date(2026, 11, 22, 8, 30, 0, 0, time.UTC)
	for i := range n {
		id := submission.NewID("service-bw", fmt.Sprint(i))
		m := submission.Meta{ID: id, CaseID: submission.NewCaseID(id), Portal: "service-bw", Land: "08", Service: "99050012104000", Region: "08",
			AcceptedAt: at.Add(time.Duration(i) * time.Minute), SHA512: "ab", Revision: 1, Append: uuid.New()}
		r := &bus.Record{Topic: bus.TopicSubmissions, Key: []byte(m.CaseID.String()), Headers: m.Headers(submission.TypeSubmission), Value: []byte("sealed")}
		if err := b.log.Append(b.t.Context(), r); err != nil {
			b.t.Fatal(err)
		}
		ids = append(ids, id)
		if !takes(i) {
			continue
		}
		ev := func(t submission.EventType, e submission.Event) submission.Event {
			e.ID, e.Type, e.At, e.Stage, e.Epoch, e.Revision = submission.NewEventID(t, id), t, at, submission.StageDispatch, b.epoch, 1
			e.Submission, e.CaseID, e.Portal, e.Land, e.Service = id, m.CaseID, m.Portal, m.Land, m.Service
			return e
		}
		held := &bus.Record{Topic: bus.TopicUnassigned, Key: r.Key, Headers: r.Headers, Value: r.Value}
		if err := b.log.Append(b.t.Context(), held); err != nil {
			b.t.Fatal(err)
		}
		err := b.ledger.Append(b.t.Context(), 0,
			ev(submission.EventAccepted, submission.Event{Accepted: &submission.Acceptance{AcceptedAt: m.AcceptedAt, SHA512: "ab", Append: m.Append, Offset: r.Offset}}),
			ev(submission.EventUnassigned, submission.Event{Reason: "no-authority", Held: &submission.Held{Topic: held.Topic, Partition: held.Partition, Offset: held.Offset}}))
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return ids
}

// count does what the janitor does, with everything committed.
func (b *books) count() {
	b.t.Helper()
	if _, err := b.ledger.Owns(b.t.Context(), submission.StageDispatch, 0, b.epoch); err != nil {
		b.t.Fatal(err)
	}
	_, newest, err := b.log.Offsets(b.t.Context(), bus.TopicSubmissions)
	if err != nil {
		b.t.Fatal(err)
	}
	t, err := b.projector.Tally(b.t.Context(), 0, newest[0])
	if err != nil {
		b.t.Fatal(err)
	}
	ev := submission.Event{ID: uuid.New(), Type: submission.EventCounted, At: time.Now().UTC(), Stage: submission.StageDispatch, Epoch: b.epoch, Counted: t}
	if err := b.ledger.Append(b.t.Context(), 0, ev); err != nil {
		b.t.Fatal(err)
	}
}

func (b *books) router(args ...string) (code int, out, said string) {
	var o, e bytes.Buffer
	code = cli.Main(b.t.Context(), append([]string{"--data", b.data}, args...), nil, &o, &e)
	return code, o.String(), e.String()
}

func every(int) bool { return true }

// On the embedded broker: nothing differs; then one record is gone, and the
// command says so, and which.
func TestReconcileCommand(t *testing.T) {
	for _, name := range []string{"WEICHE_OPERATOR_TOKEN", "WEICHE_DATA"} {
		t.Setenv(name, "")
	}
	t.Run("nothing", func(t *testing.T) {
		b := newBooks(t, func(*submission.Event) bool { return false })
		b.accept(5, every)
		for _, when := range []string{"not counted yet", "counted"} {
			for _, args := range [][]string{{"reconcile"}, {"reconcile", "--from-topics"}, {"reconcile", "--since", "2026-11-22", "--until", "2026-11-23", "--land", "08"}} {
				if code, out, said := b.router(args...); code != 0 || !strings.Contains(out, "2026-11-22 08:00  08    99050012104000  5         0          5") {
					t.Errorf("%s, %v: exit %d\n%s%s", when, args, code, out, said)
				}
			}
			if when == "not counted yet" {
				b.count()
			}
		}
		if code, out, _ := b.router("reconcile", "--land", "14"); code != 0 || strings.Contains(out, "99050012104000") {
			t.Errorf("of another Land: %d\n%s", code, out)
		}
		if code, out, _ := b.router("reconcile", "--until", "2026-11-22T08:00:00Z"); code != 0 || strings.Contains(out, "99050012104000") {
			t.Errorf("of another hour: %d\n%s", code, out)
		}
		for _, args := range [][]string{{"--since", "once"}, {"--land", "99"}, {"--service", "x"}, {"--format", "xml"}} {
			if code, _, _ := b.router(append([]string{"reconcile"}, args...)...); code != 2 {
				t.Errorf("%v: exit %d", args, code)
			}
		}
	})
	differs := func(t *testing.T, b *books, lost uuid.UUID, what string, args ...string) {
		t.Helper()
		code, out, said := b.router(append([]string{"reconcile"}, args...)...)
		if code != 1 || !strings.Contains(out, lost.String()) || !strings.Contains(out, what) || !strings.Contains(said, "a difference of 1,") {
			t.Errorf("exit %d\n%s%s", code, out, said)
		}
		code, out, _ = b.router(append([]string{"reconcile", "--format", "json"}, args...)...)
		var r status.Reconciliation
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != 1 || r.Difference != 1 || len(r.Differing) != 1 || r.Differing[0].Submission != lost {
			t.Errorf("exit %d, %+v, %v", code, r, err)
		}
	}
	t.Run("dispatch passed one", func(t *testing.T) {
		b := newBooks(t, func(*submission.Event) bool { return false })
		ids := b.accept(5, func(i int) bool { return i != 2 })
		if code, out, _ := b.router("reconcile"); code != 0 {
			t.Errorf("it may still be on its way: %d\n%s", code, out)
		}
		b.count()
		differs(t, b, ids[2], "no event tells that dispatch took it up")
		differs(t, b, ids[2], "no event tells that dispatch took it up", "--from-topics")
		if n := b.store.CountedBelow(0); n != 2 {
			t.Errorf("what is below %d may be cut", n)
		}
	})
	t.Run("one event is gone", func(t *testing.T) {
		id := submission.NewID("service-bw", "3")
		b := newBooks(t, func(e *submission.Event) bool { return e.Submission == id && e.Type == submission.EventAccepted })
		b.accept(5, every)
		b.count()
		differs(t, b, id, "no event tells that dispatch took it up")
		differs(t, b, id, "no event tells that dispatch took it up", "--from-topics")
	})
	t.Run("one held record is gone", func(t *testing.T) {
		b := newBooks(t, func(*submission.Event) bool { return false })
		ids := b.accept(5, every)
		b.count()
		if err := b.log.DeleteBelow(t.Context(), bus.TopicUnassigned, 0, 1); err != nil {
			t.Fatal(err)
		}
		if code, out, said := b.router("reconcile"); code != 0 {
			t.Errorf("the account alone: exit %d\n%s%s", code, out, said)
		}
		differs(t, b, ids[0], "it is unassigned, and its record is not in "+bus.TopicUnassigned, "--from-topics")
	})
	t.Run("one row is gone", func(t *testing.T) {
		b := newBooks(t, func(*submission.Event) bool { return false })
		ids := b.accept(5, every)
		b.count()
		if code, out, said := b.router("reconcile"); code != 0 {
			t.Fatalf("exit %d\n%s%s", code, out, said)
		}
		db, err := sql.Open("sqlite", b.file+"?_pragma=busy_timeout(10000)")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(`DELETE FROM g1_submissions WHERE id = ?`, ids[4][:]); err != nil {
			t.Fatal(err)
		}
		code, out, said := b.router("reconcile")
		if code != 1 || !strings.Contains(said, "a difference of 1,") || !strings.Contains(out, "5         0          4") {
			t.Errorf("exit %d\n%s%s", code, out, said)
		}
		differs(t, b, ids[4], "the store lacks it; by the topics it is unassigned", "--from-topics")
	})
}
