package submission

import (
	"encoding/json"
	"os"
	"testing"
	"time"
)

// richEnvelope is an application as intake seals it: 4.3 KB of compact JSON.
func richEnvelope(tb testing.TB) (Envelope, []byte) {
	tb.Helper()
	raw, err := os.ReadFile("../../config/services/gewerbeanmeldung/examples/rich.json")
	if err != nil {
		tb.Fatal(err)
	}
	var e Envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		tb.Fatal(err)
	}
	sealed, err := json.Marshal(e)
	if err != nil {
		tb.Fatal(err)
	}
	return e, sealed
}

// What every record costs for its headers, whichever stage reads or writes it.
func BenchmarkHeaders(b *testing.B) {
	m, d := exampleMeta(), exampleDelivery()
	d.Attempts, d.Redrives, d.Sequence, d.Reason = 0, 0, 0, "" // as dispatch writes it
	d.DueAt, d.Waited = time.Time{}, 0
	mh, dh := m.Headers(TypeSubmission), d.Headers(TypeDelivery)
	b.Run("Meta.Headers", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Headers(TypeSubmission)
		}
	})
	b.Run("DeliveryMeta.Headers", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d.Headers(TypeDelivery)
		}
	})
	b.Run("ParseMeta", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseMeta(mh); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ParseDeliveryMeta", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseDeliveryMeta(dh); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkIDs(b *testing.B) {
	b.Run("NewID", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			NewID("service-bw", "f2f6a5f0-6f2e-4a44-9a55-0c8a5c1c1f0e")
		}
	})
	b.Run("NewDeliveryID", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			NewDeliveryID(anID, "08-bb-gewerbe", 1)
		}
	})
	b.Run("NewEventID", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			NewEventID(EventAttempt, anID, "08-bb-gewerbe", "1", "0")
		}
	})
}

// What dispatch reads of a submission: the envelope, and the form as the mapping
// takes it.
func BenchmarkEnvelope(b *testing.B) {
	_, sealed := richEnvelope(b)
	b.Logf("%d bytes", len(sealed))
	b.Run("DecodeEnvelope", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e, err := DecodeEnvelope(sealed)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := e.Form(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e, err := byLibrary(sealed)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := formByLibrary(string(e.Data)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
