package bus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/fault"
	"weiche/internal/kafkatest"
)

func TestOpenWithoutBrokerIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	_ = l.Close()
	for _, a := range []string{addr, silent.Addr().String()} {
		cfg := config([]string{a})
		cfg.AppendTimeout = time.Second
		began := time.Now()
		_, err = bus.Open(t.Context(), cfg, logger(t), nil)
		wantReason(t, err, fault.ReasonBrokerUnavailable)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("took %s", d)
		}
	}
	_, err = bus.Open(t.Context(), bus.Config{}, logger(t), nil)
	wantReason(t, err, fault.ReasonMisconfigured)
}

func TestCloseWithoutBrokerIsBounded(t *testing.T) {
	broker, err := embedded.Start(t.TempDir(), embedded.Options{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(broker.Addrs())
	cfg.AppendTimeout = 2 * time.Second
	b, err := bus.Open(t.Context(), cfg, logger(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	tp := topic(t, b, 2)
	appendAll(t, b, record(tp, "k", "v"))
	ch, _ := subscribe(t, b, bus.Group{Name: tp}, tp)
	next(t, ch).Ack()
	go func() { _ = b.Tail(context.Background(), tp, 0, 0, func(*bus.Record) error { return nil }) }()
	_ = broker.Close()
	_ = b.Append(t.Context(), record(tp, "k", "v"))
	began := time.Now()
	_ = b.Close()
	if d := time.Since(began); d > 15*time.Second {
		t.Fatalf("Close took %s", d)
	} else {
		t.Logf("Close took %s", d.Round(time.Millisecond))
	}
	if err := b.Append(t.Context(), record(tp, "k", "v")); err == nil {
		t.Fatal("append to a closed bus")
	}
	if _, ok := <-ch; ok {
		t.Fatal("subscription outlives the bus")
	}
}

func TestMetrics(t *testing.T) {
	broker, err := embedded.Start(t.TempDir(), embedded.Options{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	reg := prometheus.NewRegistry()
	b, err := bus.Open(t.Context(), config(broker.Addrs()), logger(t), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	value := func(name, label string) float64 {
		t.Helper()
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			for _, m := range f.Metric {
				if f.GetName() == name && (label == "" || len(m.Label) == 1 && m.Label[0].GetValue() == label) {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
		t.Fatalf("no %s{%s}", name, label)
		return 0
	}
	want := func(name, label string, n float64) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if got := value(name, label); got == n {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("%s{%s} is %v, want %v", name, label, got, n)
			}
		}
	}
	tp := topic(t, b, 1)
	s, err := b.Subscriber(bus.Group{Name: tp, Topics: []string{tp}, MaxInFlight: 2, Grace: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"weiche_bus_in_flight", "weiche_bus_lag_records", "weiche_bus_redeliveries_total"} {
		want(name, tp, 0)
	}
	want("weiche_bus_append_errors_total", "quorum-lost", 0)
	want("weiche_bus_rebalances_total", "", 0)
	for range 5 {
		appendAll(t, b, &bus.Record{Topic: tp, Partition: 0, Value: []byte("v")})
	}
	want("weiche_bus_append_seconds", "", 5)
	_ = b.Append(t.Context(), record("absent", "k", "v"))
	want("weiche_bus_append_errors_total", "unknown-topic", 1)
	ch, err := s.Subscribe(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	first, second := next(t, ch), next(t, ch)
	want("weiche_bus_in_flight", tp, 2)
	want("weiche_bus_lag_records", tp, 5)
	first.Ack()
	want("weiche_bus_lag_records", tp, 4)
	second.Nack()
	for range 4 {
		next(t, ch).Ack()
	}
	want("weiche_bus_redeliveries_total", tp, 1)
	want("weiche_bus_lag_records", tp, 0)
	want("weiche_bus_in_flight", tp, 0)
	want("weiche_bus_rebalances_total", "", 1)
}

// Three brokers, one of them is killed: a topic that wants two in sync goes on
// without losing anything acknowledged; one that wants three says quorum-lost
// until the third is back.
func TestThreeNodesOnApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	c := kafkatest.Start(t, kafkatest.Nodes(3), kafkatest.Property("broker.session.timeout.ms", "3000"), kafkatest.Property("broker.heartbeat.interval.ms", "500"))
	b := open(t, bus.Config{Brokers: c.Addrs(), Partitions: 3, SessionTimeout: 6 * time.Second})
	strictCfg := bus.Config{Brokers: c.Addrs(), MinInSyncReplicas: 3, AppendTimeout: 5 * time.Second}
	strict := open(t, strictCfg)
	if err := strict.EnsureTopics(t.Context(), []bus.Topic{{Name: "strict", Partitions: 1, RetentionMS: -1}}); err != nil {
		t.Fatal(err)
	}
	if err := b.EnsureTopics(t.Context(), bus.Topics(bus.Config{Partitions: 3}, nil)); err != nil {
		t.Fatal(err)
	}
	ch, _ := subscribe(t, b, bus.Group{Name: "three"}, bus.TopicSubmissions)
	var acked atomic.Int64
	write := func(n int) {
		for range n {
			r := record(bus.TopicSubmissions, fmt.Sprint(acked.Load()%50), fmt.Sprint(acked.Load()))
			for began := time.Now(); ; {
				err := b.Append(t.Context(), r)
				if err == nil {
					break
				}
				if time.Since(began) > patience {
					t.Fatal(err)
				}
			}
			acked.Add(1)
		}
	}
	write(200)
	if err := b.CheckSafety(t.Context()); err != nil { // while the offsets topic exists
		t.Fatalf("a safe cluster is refused: %v", err)
	}
	c.Nodes[2].Kill()
	write(200)
	for began := time.Now(); ; {
		err := strict.Append(t.Context(), record("strict", "k", "v"))
		if fault.Of(err).Reason == fault.ReasonQuorumLost {
			break
		}
		if time.Since(began) > patience {
			t.Fatalf("got %v, want the reason quorum-lost", err)
		}
	}
	c.Nodes[2].Restart()
	for began := time.Now(); strict.Append(t.Context(), record("strict", "k", "v")) != nil; {
		if time.Since(began) > patience {
			t.Fatal("the quorum does not come back")
		}
	}
	write(100)
	seen := map[string]bool{}
	for int64(len(seen)) < acked.Load() {
		m := next(t, ch)
		seen[string(m.Payload)] = true
		m.Ack()
	}
}

// The broker ends, and comes back on its port and directory.
func TestEmbeddedBrokerGoneAndBack(t *testing.T) {
	dir := t.TempDir()
	broker, err := embedded.Start(dir, embedded.Options{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	outage(t, broker.Addrs(), func() { _ = broker.Close() }, func() {
		b2, err := embedded.Start(dir, embedded.Options{}, logger(t))
		if err != nil {
			t.Fatal(err)
		}
		if b2.Addrs()[0] != broker.Addrs()[0] {
			t.Fatalf("came back at %v instead of %v", b2.Addrs(), broker.Addrs())
		}
		t.Cleanup(func() { _ = b2.Close() })
	})
}

func brokerGone(t *testing.T, c *kafkatest.Cluster) {
	n := c.Nodes[0]
	t.Run("stopped", func(t *testing.T) { outage(t, c.Addrs(), n.Kill, n.Restart) })
	t.Run("silent", func(t *testing.T) { outage(t, c.Addrs(), n.Suspend, n.Resume) })
}

func outage(t *testing.T, addrs []string, stop, start func()) {
	cfg := config(addrs)
	cfg.AppendTimeout = 3 * time.Second
	b, err := bus.Open(t.Context(), cfg, logger(t), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	tp := topic(t, b, 2)
	appendAll(t, b, record(tp, "k", "before"))
	ch, end := subscribe(t, b, bus.Group{Name: tp}, tp)
	next(t, ch).Ack()
	tailed := make(chan string, 100)
	tailCtx, stopTail := context.WithCancel(t.Context())
	defer stopTail()
	go func() {
		_ = b.Tail(tailCtx, tp, b.PartitionOf([]byte("k"), 2), 0, func(r *bus.Record) error {
			tailed <- string(r.Value)
			return nil
		})
	}()
	if v := <-tailed; v != "before" {
		t.Fatal(v)
	}

	stop()
	for range 3 {
		began := time.Now()
		err := b.Append(t.Context(), record(tp, "k", "during"))
		wantReason(t, err, fault.ReasonBrokerUnavailable)
		if fault.Of(err).Class != fault.Retryable {
			t.Fatalf("class %s", fault.Of(err).Class)
		}
		if d := time.Since(began); d > cfg.AppendTimeout+time.Second {
			t.Fatalf("append took %s", d)
		}
	}
	if err := b.Ping(t.Context()); err == nil {
		t.Fatal("ping of a broker that is gone")
	}

	start()
	after := record(tp, "k", "after")
	began := time.Now()
	for {
		err := b.Append(t.Context(), after)
		if err == nil {
			break
		}
		if !errors.As(err, new(*fault.Error)) || time.Since(began) > patience {
			t.Fatal(err)
		}
	}
	t.Logf("appended again %s after the broker was back", time.Since(began).Round(time.Millisecond))
	// The connection of short requests slept through the outage.
	topic(t, b, 1)
	if _, err := b.Committed(t.Context(), tp, tp); err != nil {
		t.Fatal(err)
	}
	if err := b.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for { // what was appended during the outage may have been written
		m := next(t, ch)
		m.Ack()
		if string(m.Payload) == "after" {
			break
		}
	}
	for v := range tailed {
		if v == "after" {
			break
		}
	}
	end()
	stopTail()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCheckSafety(t *testing.T) {
	broker, err := embedded.Start(t.TempDir(), embedded.Options{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	safety(t, broker.Addrs())
}

func TestCheckSafetyOnApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	c := kafkatest.Start(t)
	safety(t, c.Addrs())
	// Without a word about it, three replicas are wanted, which one node cannot give.
	b := open(t, bus.Config{Brokers: c.Addrs()})
	err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: "three", Partitions: 1, RetentionMS: -1}})
	wantReason(t, err, fault.ReasonMisconfigured)
	if !strings.Contains(err.Error(), "kafka.replication_factor") {
		t.Fatal(err)
	}
}

func safety(t *testing.T, addrs []string) {
	allowed := open(t, config(addrs))
	if err := allowed.EnsureTopics(t.Context(), bus.Topics(config(addrs), []string{"amt24"})); err != nil {
		t.Fatal(err)
	}
	if err := allowed.CheckSafety(t.Context()); err != nil {
		t.Fatalf("allowed by name, and yet: %v", err)
	}
	cfg := config(addrs)
	cfg.AllowUnsafe = []string{bus.UnsafeUncleanElection}
	err := open(t, cfg).CheckSafety(t.Context())
	wantReason(t, err, fault.ReasonMisconfigured)
	for _, part := range []string{"kafka.replication_factor: is 1", "kafka.min_insync_replicas: is 1", "topic weiche.events: has 1 replicas", "min.insync.replicas=1", `"replication-factor"`, `"min-insync-replicas"`, "kafka.allow_unsafe"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	cfg.AllowUnsafe = []string{"everything"}
	_, err = bus.Open(t.Context(), cfg, logger(t), nil)
	wantReason(t, err, fault.ReasonMisconfigured)
}
