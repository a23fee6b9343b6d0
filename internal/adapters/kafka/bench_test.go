package kafka_test

import (
	"bytes"
	"context"
	"testing"

	"weiche/internal/adapters/kafka"
	"weiche/internal/adapters/spec"
	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/submission"
)

// taker is a cluster that takes everything: what is left is the adapter's own
// work.
type taker struct{}

func (taker) Append(context.Context, ...*bus.Record) error    { return nil }
func (taker) EnsureTopics(context.Context, []bus.Topic) error { return nil }

func BenchmarkDeliver(b *testing.B) {
	s, err := config.ParseSettings("destinations.yaml", "topic: fv.bauamt")
	if err != nil {
		b.Fatal(err)
	}
	v, ps := kafka.Kind().Decode(s)
	if ps != nil {
		b.Fatal(ps)
	}
	a, err := kafka.Kind().New("08-bauamt", v, spec.Deps{Bus: taker{}}.WithDefaults())
	if err != nil {
		b.Fatal(err)
	}
	d := &submission.Delivery{
		ID: "d", SubmissionID: "s", CaseID: "c", Portal: "service-bw", Land: "08", Service: "99050012104000", Destination: "08-bauamt",
		Format: submission.Format{Standard: "xbau", Version: "2.6", Message: "m.0200"}, Authority: submission.Authority{Key: "bab:08115003"},
		Attempt: 1, Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Message: bytes.Repeat([]byte("x"), 6<<10),
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Deliver(b.Context(), d); err != nil {
			b.Fatal(err)
		}
	}
}
