package kafkadoor_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/intake"
	"weiche/internal/intake/intaketest"
	kafkadoor "weiche/internal/intake/kafka"
	"weiche/internal/submission"
)

const canary = "Kanarienvogel"

func newDoor(t *testing.T, r *intaketest.Replica) *kafkadoor.Door {
	t.Helper()
	d, err := kafkadoor.New(kafkadoor.Options{
		Door: r.Door, Bus: r.Bus, Portals: []string{intaketest.PortalBW, intaketest.PortalSN}, Keys: r.Keeper, Vault: r.Vault,
		Logger: r.Logger, Reg: r.Registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// eventually waits for what another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come about", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestTopic(t *testing.T) {
	r := intaketest.Start(t, intaketest.StartBroker(t, slog.New(slog.DiscardHandler)), intaketest.Options{})
	d := newDoor(t, r)
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	d.AddTo(router)
	go func() { _ = router.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() { _ = router.Close() })

	cases := []struct {
		portal, id, reason string
		land               submission.Land
		value              []byte
	}{
		{intaketest.PortalBW, "good", "", "08", intaketest.Sound().With("attachments", []any{intaketest.File("a", "", []byte("x"))}).JSON()},
		{intaketest.PortalBW, "good", "", "08", intaketest.Sound().With("attachments", []any{intaketest.File("a", "", []byte("x"))}).JSON()}, // again
		{intaketest.PortalBW, "", "key-missing", "00", intaketest.Sound().JSON()},
		{intaketest.PortalBW, "form", "form-invalid", "08", intaketest.Sound().With("data", map[string]any{"name": canary}).JSON()},
		{intaketest.PortalBW, "land", "land-not-served", "00", intaketest.Sound().For(intaketest.Trade, "05").JSON()},
		{intaketest.PortalBW, "deep", "too-deep", "00", []byte(strings.Repeat(`{"a":`, 30_000))},
		{intaketest.PortalBW, "large", "too-large", "00", append(intaketest.Sound().JSON(), make([]byte, 301<<10)...)},
		{intaketest.PortalBW, "nothing", "malformed", "00", nil},
		{intaketest.PortalBW, "text", "malformed", "00", []byte(canary)},
		{intaketest.PortalBW, "broken", "config-broken", "09", intaketest.Sound().For(intaketest.Trade, "09").JSON()},
		{intaketest.PortalBW, "building", "standard-missing", "08", intaketest.Sound().For(intaketest.Building, "08").JSON()},
		// Who it is follows from the topic: the header is not believed.
		{intaketest.PortalSN, "other", "land-forbidden", "00", intaketest.Sound().JSON()},
		{intaketest.PortalSN, "last", "", "14", intaketest.Sound().For(intaketest.Trade, "14").JSON()},
	}
	want := map[string]int{}
	refused, accepted := 0, 0
	for _, c := range cases {
		rec := &bus.Record{Topic: kafkadoor.Topic(c.portal), Partition: bus.AnyPartition, Key: []byte(c.id), Value: c.value, Headers: map[string]string{
			submission.HeaderID: c.id, "ce_portal": intaketest.PortalBW, submission.HeaderSource: "/" + intaketest.PortalBW,
		}}
		if c.id == "" {
			delete(rec.Headers, submission.HeaderID)
		}
		if err := r.Bus.Append(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		if c.reason == "" {
			accepted++
		} else {
			want[c.reason+" "+string(c.land)]++
			refused++
		}
	}
	eventually(t, "the end of the topics", func() bool {
		return len(r.Records(t, kafkadoor.TopicEvents)) >= refused && len(r.Records(t, intake.TopicSubmissions)) >= accepted
	})

	values := map[string][]byte{}
	for _, c := range cases {
		values[string(c.value)] = c.value
	}
	letters := r.Records(t, kafkadoor.TopicDeadLetters)
	for _, l := range letters {
		if l.Headers[submission.HeaderType] != submission.TypeRefused || l.Headers[kafkadoor.HeaderOrigin] != "intake" {
			t.Errorf("headers %v", l.Headers)
		}
		want[l.Headers[kafkadoor.HeaderReason]+" "+l.Headers["ce_land"]]--
		if _, ok := values[string(r.Open(t, l, kafkadoor.SectionRecord))]; !ok {
			t.Errorf("the dead letter of %s does not hold the record", l.Headers[kafkadoor.HeaderReason])
		}
		if strings.Contains(string(l.Value), canary) || strings.Contains(strings.Join(mapValues(l.Headers), " "), canary) {
			t.Error("a dead letter shows payload")
		}
	}
	for k, n := range want {
		if n != 0 {
			t.Errorf("%s: %d dead letters too few", k, n)
		}
	}
	for _, e := range r.Records(t, kafkadoor.TopicEvents) {
		ev, err := submission.DecodeEvent(e.Value)
		if err != nil || ev.Type != submission.EventRefused || ev.Held == nil || ev.Held.Partition != e.Partition || strings.Contains(string(e.Value), canary) {
			t.Errorf("event %s %v", e.Value, err)
			continue
		}
		if held, err := r.Bus.Fetch(t.Context(), ev.Held.Topic, ev.Held.Partition, ev.Held.Offset); err != nil || held.Headers[kafkadoor.HeaderReason] != ev.Reason {
			t.Errorf("the event of %s does not name its dead letter: %v", ev.Reason, err)
		}
	}
	if strings.Contains(r.Log.String(), canary) {
		t.Error("the log shows payload")
	}

	// Consumed records are plain text, and are deleted.
	eventually(t, "the cut", func() bool {
		if err := d.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, portal := range []string{intaketest.PortalBW, intaketest.PortalSN} {
			for _, rec := range r.Records(t, kafkadoor.Topic(portal)) {
				if len(rec.Value) > 0 || rec.Headers[submission.HeaderSource] != "" {
					return false
				}
			}
		}
		return true
	})

	// What remains says nothing, is not refused, and does not grow.
	sum := func(offsets []int64, err error) (n int64) {
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range offsets {
			n += max(0, o)
		}
		return n
	}
	both := func(f func(topic string) int64) int64 {
		return f(kafkadoor.Topic(intaketest.PortalBW)) + f(kafkadoor.Topic(intaketest.PortalSN))
	}
	newest := func(topic string) int64 {
		_, ends, err := r.Bus.Offsets(t.Context(), topic)
		return sum(ends, err)
	}
	committed := func(topic string) int64 { return sum(r.Bus.Committed(t.Context(), kafkadoor.Group, topic)) }
	eventually(t, "the commit of what remains", func() bool { return both(committed) == both(newest) })
	ends := both(newest)
	if err := d.Cut(t.Context()); err != nil || both(newest) != ends || len(r.Records(t, kafkadoor.TopicDeadLetters)) != len(letters) {
		t.Errorf("the topics grow by themselves: %v", err)
	}

	// Once the Land is mended, its dead letter goes in as it came.
	mended := intaketest.Config()
	mended.Lands["09"] = &config.Land{Key: "09", Services: mended.Lands["08"].Services}
	delete(mended.Broken, "09")
	r.Door.Use(intaketest.Book(mended))
	for _, l := range letters {
		if l.Headers[kafkadoor.HeaderReason] != "config-broken" {
			continue
		}
		acc, err := d.Resubmit(t.Context(), l)
		if err != nil || acc.ID != submission.NewID(intaketest.PortalBW, "broken") || acc.Land != "09" {
			t.Errorf("%+v %v", acc, err)
		}
	}
}

func mapValues(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// Without a broker nothing is done: neither accepted nor refused.
func TestBrokerGone(t *testing.T) {
	br := intaketest.StartBroker(t, slog.New(slog.DiscardHandler))
	r := intaketest.Start(t, br, intaketest.Options{})
	d := newDoor(t, r)
	if _, err := r.Keeper.NewDataKey(t.Context(), "08", time.Now()); err != nil {
		t.Fatal(err)
	}
	br.Stop()
	rec := &bus.Record{Topic: kafkadoor.Topic(intaketest.PortalBW), Value: intaketest.Sound().JSON(), Headers: map[string]string{submission.HeaderID: "k"}}
	var p *intake.Problem
	if err := d.Handle(t.Context(), intaketest.PortalBW, rec); !errors.As(err, &p) || p.Reason != "broker-unavailable" {
		t.Errorf("an accepted one: %v", err)
	}
	rec.Value = []byte("{}")
	if err := d.Handle(t.Context(), intaketest.PortalBW, rec); err == nil {
		t.Error("a refusal that could not be recorded was acknowledged")
	}
	if b, _ := json.Marshal(r.Log.String()); strings.Contains(string(b), "Müller") {
		t.Error("the log shows payload")
	}
}

type refusing struct{}

func (refusing) Rehearse(submission.Meta, *submission.Envelope) []intake.Fault {
	return []intake.Fault{{Pointer: "/data/name", Text: intake.Text{EN: "Rule code-unknown."}}}
}

// A record whose message would die is refused as any other: a dead letter of
// intake's with the reason, and an event.
func TestWhatWouldDieIsRefused(t *testing.T) {
	r := intaketest.Start(t, intaketest.StartBroker(t, slog.New(slog.DiscardHandler)), intaketest.Options{Rehearsal: refusing{}})
	d := newDoor(t, r)
	rec := &bus.Record{Topic: kafkadoor.Topic(intaketest.PortalBW), Value: intaketest.Sound().JSON(), Headers: map[string]string{submission.HeaderID: "k"}}
	if err := d.Handle(t.Context(), intaketest.PortalBW, rec); err != nil {
		t.Fatal(err)
	}
	letters := r.Records(t, kafkadoor.TopicDeadLetters)
	if len(letters) != 1 || letters[0].Headers[kafkadoor.HeaderReason] != "message-refused" || len(r.Records(t, kafkadoor.TopicEvents)) != 1 {
		t.Errorf("%d dead letters", len(letters))
	}
	if n := len(r.Records(t, intake.TopicSubmissions)); n != 0 {
		t.Errorf("%d submissions", n)
	}
}
