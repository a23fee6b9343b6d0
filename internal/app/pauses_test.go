package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/delivery"
)

// What an operator says to one replica counts in every one, in one order, and
// a replica that begins later knows it before it delivers.
func TestPausesCountInEveryReplica(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	broker, err := embedded.Start(filepath.Join(t.TempDir(), "kafka"), embedded.Options{Partitions: 1}, quiet)
	must(t, err)
	t.Cleanup(func() { _ = broker.Close() })
	cfg := bus.Config{Brokers: broker.Addrs(), Partitions: 1, ReplicationFactor: 1, MinInSyncReplicas: 1}
	log, err := bus.Open(t.Context(), cfg, quiet, prometheus.NewRegistry())
	must(t, err)
	t.Cleanup(func() { _ = log.Close() })
	must(t, log.EnsureTopics(t.Context(), bus.Topics(cfg, nil)))
	replica := func() *pauses {
		stage := delivery.New(log, nil, nil, quiet, prometheus.NewRegistry(), time.Now)
		stage.SetDestinations([]delivery.Destination{{ID: "d"}, {ID: "e"}})
		p := newPauses(log, stage, time.Now, quiet)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- p.follow(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		must(t, p.topic.CaughtUp(t.Context()))
		return p
	}
	paused := func(p *pauses) (list string) {
		t.Helper()
		must(t, p.topic.CaughtUp(t.Context()))
		for _, id := range []string{"d", "e", "later"} {
			for _, d := range p.stage.Destinations() {
				if d.ID == id && d.Paused {
					list += id + " by " + d.Hand.Operator + ";"
				}
			}
		}
		return list
	}
	expect := func(want string, all ...*pauses) {
		t.Helper()
		for i, p := range all {
			if got := paused(p); got != want {
				t.Errorf("replica %d: paused are %q, want %q", i, got, want)
			}
		}
	}
	hand := func(operator string) word { return word{HandPause: delivery.HandPause{Operator: operator}} }

	one, two := replica(), replica()
	expect("", one, two)
	must(t, one.say(t.Context(), "d", hand("anna")))
	expect("d by anna;", one, two)
	must(t, two.say(t.Context(), "d", hand("ben")))
	must(t, one.say(t.Context(), "e", hand("anna")))
	must(t, log.Append(t.Context(), &bus.Record{Topic: bus.TopicPauses, Key: []byte("e"), Value: []byte("no word")}))
	must(t, one.say(t.Context(), "later", hand("anna")))
	three := replica()
	expect("d by ben;e by anna;", one, two, three)
	resumed := hand("ben")
	resumed.Resumed = true
	must(t, three.say(t.Context(), "d", resumed))
	expect("e by anna;", one, two, three, replica())

	// A destination that is named later is paused from the start.
	two.stage.SetDestinations([]delivery.Destination{{ID: "later"}})
	expect("later by anna;", two)
}

func TestPauseOutlivesARestart(t *testing.T) {
	data := t.TempDir()
	start := func() *App {
		a, err := Start(t.Context(), Options{ConfigDir: "../../config", Data: data, Listen: "127.0.0.1:0", Ops: "127.0.0.1:0",
			Environ: []string{"WEICHE_LOG_LEVEL=error"}, Log: os.Stderr, Out: io.Discard})
		must(t, err)
		t.Cleanup(a.Stop)
		return a
	}
	a := start()
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	doors := gates{a.delivery, a.pauses}
	id := doors.Destinations()[0].ID
	must(t, doors.Pause(t.Context(), id, "anna", "maintenance", until))
	a.Stop()
	a = start()
	must(t, await(t.Context(), a.restored))
	doors = gates{a.delivery, a.pauses}
	if d := doors.Destinations()[0]; d.PausedBy != "anna" || d.Note != "maintenance" || !d.Until.Equal(until) {
		t.Errorf("after a restart: %+v", d)
	}
	must(t, doors.Resume(t.Context(), id, "anna"))
	if d := doors.Destinations()[0]; d.Paused {
		t.Errorf("after it was resumed: %+v", d)
	}
}
