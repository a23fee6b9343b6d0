package test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

// Group offsets are lost, or set to what was never reached, while no router
// runs: nothing is delivered twice, nothing is skipped, and what was finished
// is not gone through again.
func TestGroupOffsetsLostOrForged(t *testing.T) {
	t.Run("embedded broker", func(t *testing.T) { lostOffsets(t) })
	t.Run("Apache Kafka", func(t *testing.T) {
		if testing.Short() {
			t.Skip("starts Apache Kafka")
		}
		lostOffsets(t, onKafka(kafkatest.Start(t))...)
	})
}

func lostOffsets(t *testing.T, env ...string) {
	recv := startReceiver(t)
	r := newRouter(t, env...)
	r.useReceiver(recv)
	r.editConfig("lands", func(_, text string) string { return strings.ReplaceAll(text, "probe: 5s", "probe: 1s") })
	r.Start()
	posted := 0
	post := func(region string) string {
		posted++
		return r.MustPost("service-bw", fmt.Sprint("offsets-", posted), example(t, "gewerbeanmeldung", "minimal",
			map[string]any{"region": region, "caseId": uuid.NewString()})).accepted(t).SubmissionID
	}
	state := func(id, want string) {
		t.Helper()
		eventually(t, 30*time.Second, func() (bool, string) { s := r.State("service-bw", id); return s == want, id + " is " + s })
	}
	var done []string
	for range 30 {
		done = append(done, post("DE081150003003"))
	}
	for _, id := range done {
		state(id, "delivered")
	}
	recv.Stop()
	var waiting []string
	for range 5 {
		waiting = append(waiting, post("081150045045"))
	}
	for _, id := range waiting {
		id := id
		eventually(t, 30*time.Second, func() (bool, string) {
			out := r.MustCLI("trace", id)
			return strings.Contains(out, "waiting") || strings.Contains(out, "attempt"), out
		})
	}
	outbox := func() int {
		found, err := filepath.Glob(filepath.Join(r.Data, "outbox/boeblingen-gewerbe/*.xml"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}

	groups := []struct{ name, topic string }{
		{"weiche-dispatch", "weiche.submissions"}, {"weiche-delivery", "weiche.deliveries"}, {"weiche-waiting", "weiche.waiting"},
		{"weiche-intake", "weiche.intake.service-bw"},
	}
	for name, change := range map[string]func(b *bus.Bus, admin sarama.ClusterAdmin){
		"deleted": func(_ *bus.Bus, admin sarama.ClusterAdmin) {
			for _, g := range groups {
				if err := admin.DeleteConsumerGroup(g.name); err != nil && !strings.Contains(err.Error(), "does not exist") {
					t.Fatalf("delete group %s: %v", g.name, err)
				}
			}
		},
		"beyond the end": func(b *bus.Bus, _ sarama.ClusterAdmin) {
			for _, g := range groups {
				setOffsets(t, b, g.name, g.topic, func(_, newest int64) int64 { return newest + 1000 })
			}
		},
		"too high": func(b *bus.Bus, _ sarama.ClusterAdmin) {
			// A portal has written meanwhile, and all offsets are set to the end.
			posted++
			key := fmt.Sprint("offsets-", posted)
			if err := b.Append(t.Context(), intakeRecord("service-bw", key, example(t, "gewerbeanmeldung", "minimal", nil))); err != nil {
				t.Fatal(err)
			}
			done = append(done, submission.NewID("service-bw", key).String())
			for _, g := range groups {
				setOffsets(t, b, g.name, g.topic, func(_, newest int64) int64 { return newest })
			}
		},
	} {
		if name == "beyond the end" && len(env) == 0 {
			continue // the embedded broker itself refuses that, as a log that has lost its end
		}
		before := outbox()
		r.Kill()
		tamper(t, r, len(env) == 0, change)
		r.Start()
		want := before
		if name == "too high" {
			want++
		}
		for _, id := range done {
			state(id, "delivered")
		}
		for _, id := range waiting {
			if s := r.State("service-bw", id); s == "delivered" || s == "rejected" {
				t.Fatalf("%s: %s is %s, nothing has taken it", name, id, s)
			}
		}
		post("DE081150003003") // the stages are under way again, behind everything that came again
		want++
		eventually(t, 30*time.Second, func() (bool, string) { n := outbox(); return n >= want, fmt.Sprintf("%d of %d files", n, want) })
		if n := outbox(); n != want {
			t.Errorf("%s: %d files in the outbox, want %d", name, n, want)
		}
		if name == "too high" && !strings.Contains(r.Log(), "restored from the account") {
			t.Errorf("%s: nothing was restored", name)
		}
	}
	recv.Start()
	for _, id := range waiting {
		state(id, "delivered")
	}
	for _, id := range slices.Concat(done, waiting) {
		if n := strings.Count(r.MustCLI("trace", id), "delivered at attempt"); n > 1 {
			t.Errorf("%s was delivered %d times", id, n)
		}
	}
	if a := r.account(); !a.AddsUp || a.States["delivered"] != posted {
		t.Errorf("the account says %+v, want %d delivered", a, posted)
	}
}

func setOffsets(t *testing.T, b *bus.Bus, group, topic string, at func(oldest, newest int64) int64) {
	t.Helper()
	oldest, newest, err := b.Offsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for p := range newest {
		// A killed router's members are in the group until their session ends.
		eventually(t, 60*time.Second, func() (bool, string) {
			err := b.Commit(t.Context(), group, topic, int32(p), at(oldest[p], newest[p]))
			return err == nil, fmt.Sprint(err)
		})
	}
}

// tamper changes a cluster's groups while the router is down. The embedded
// broker went with it, so it is started for the while.
func tamper(t *testing.T, r *router, embeddedBroker bool, change func(b *bus.Bus, admin sarama.ClusterAdmin)) {
	t.Helper()
	addrs := r.Kafka
	if embeddedBroker {
		broker, err := embedded.Start(filepath.Join(r.Data, "kafka"), embedded.Options{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = broker.Close() }()
		addrs = broker.Addrs()
	}
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	admin, err := sarama.NewClusterAdmin(addrs, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	b := connect(t, addrs)
	// A killed router's members are in their groups until their session ends.
	for _, group := range []string{"weiche-dispatch", "weiche-delivery", "weiche-intake"} {
		eventually(t, 60*time.Second, func() (bool, string) {
			d, err := admin.DescribeConsumerGroups([]string{group})
			return err == nil && len(d) == 1 && len(d[0].Members) == 0, group + " still has members"
		})
	}
	change(b, admin)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
