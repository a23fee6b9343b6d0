package bus_test

import (
	"context"
	"errors"
	"net"
	"strings"
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
	if !strings.Contains(err.Error(), "kafka.replicationFactor") {
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
	for _, part := range []string{"kafka.replicationFactor: is 1", "kafka.minInSyncReplicas: is 1", "topic weiche.events: has 1 replicas", "min.insync.replicas=1", `"replication-factor"`, `"min-insync-replicas"`, "kafka.allowUnsafe"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	cfg.AllowUnsafe = []string{"everything"}
	_, err = bus.Open(t.Context(), cfg, logger(t), nil)
	wantReason(t, err, fault.ReasonMisconfigured)
}
