package submission

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// drawInto fills every field of a struct, whatever fields there are: one that is
// added and forgotten in the codec shows.
func drawInto(rt *rapid.T, v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = time.UnixMilli(rapid.Int64Range(-1e12, 4e12).Draw(rt, "time")).UTC().Add(time.Duration(rapid.SampledFrom([]int{0, 1, 123_456}).Draw(rt, "ns")))
		if rapid.IntRange(0, 9).Draw(rt, "zone") == 0 {
			*p = p.In(time.FixedZone("", 3600))
		}
		return
	case *uuid.UUID:
		copy(p[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "uuid"))
		return
	case *Format:
		*p = rapid.SampledFrom([]Format{{}, {"xbau", "2.6", "baugenehmigung.antrag.0200"}}).Draw(rt, "format")
		return
	}
	if rapid.IntRange(0, 3).Draw(rt, "zero") == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			drawInto(rt, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		drawInto(rt, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(0, 3).Draw(rt, "n"), 3))
		for i := range v.Len() {
			drawInto(rt, v.Index(i))
		}
	case reflect.String:
		v.SetString(rapid.OneOf(rapid.SampledFrom([]string{"a", "08", "Böblingen", "a<b>&\"\\", "\x00\n", "\u2028", "\xff", "\x7f"}), rapid.String()).Draw(rt, "text"))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64Range(-1<<31, 1<<31-1).Draw(rt, "number"))
	default:
		rt.Fatalf("no %s can be drawn", v.Type())
	}
}

func TestEventJSONIsThatOfEncodingJSON(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var e Event
		for i := range reflect.TypeFor[Event]().NumField() {
			drawInto(rt, reflect.ValueOf(&e).Elem().Field(i))
		}
		want, err := json.Marshal(e)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := e.Encode()
		if err != nil || string(got) != string(want) {
			rt.Fatalf("written\n%s, %v\nwant\n%s", got, err, want)
		}
		sameDecoded(rt, got)
	})
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// sameDecoded compares both readers on the same bytes.
func sameDecoded(t failer, raw []byte) {
	t.Helper()
	var want Event
	refused := json.Unmarshal(raw, &want) != nil || want.Type == "" || want.ID == uuid.Nil
	got, err := DecodeEvent(raw)
	if refused != (err != nil) || !refused && !reflect.DeepEqual(got, want) {
		t.Fatalf("%q\nread %+v, %v\nwant %+v", raw, got, err, want)
	}
}

// The quick reader takes what we write; were it to refuse everything, only the
// bill would tell.
func TestEventsAreReadQuickly(t *testing.T) {
	s := &story{}
	due := t0
	for _, e := range []Event{s.accepted(), s.decided(1, "a", "b"), s.about(EventAttempt, "a", Event{Attempt: 1, DueAt: &due, Reason: "timeout", Detail: "no answer"}),
		s.about(EventDead, "a", Event{Held: &Held{Topic: "weiche.deadletters"}}), {ID: anID, Type: EventCheckpoint, Checkpoint: &Checkpoint{Offset: 3, Hash: "ab", JWS: "x.y.z"}}} {
		raw, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var got Event
		r := jsonReader{b: raw}
		if r.event(&got); r.failed || r.i != len(raw) {
			t.Errorf("%s is left to encoding/json from %q on", raw, raw[r.i:])
		}
	}
}

func TestEventOfAnImpossibleTime(t *testing.T) {
	if raw, err := (Event{ID: anID, Type: EventOwner, At: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)}).Encode(); err == nil {
		t.Errorf("written as %s", raw)
	}
}

func FuzzDecodeEvent(f *testing.F) {
	s := &story{}
	for _, e := range []Event{s.accepted(), s.decided(1, "a", "b"), s.about(EventDead, "a", Event{Held: &Held{Topic: "x", Partition: -1}, Order: 5})} {
		raw, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add([]byte(strings.Replace(string(raw), `":`, `": `, 1)))
		f.Add([]byte(strings.Replace(string(raw), `"epoch":0`, `"epoch":00`, 1)))
		f.Add([]byte(strings.Replace(string(raw), `"epoch":0`, `"epoch":9223372036854775808`, 1)))
		f.Add(append(raw[:len(raw)-1:len(raw)-1], `,"type":"dead"}`...))
		f.Add(raw[:len(raw)/2])
		f.Add(append(raw[:len(raw):len(raw)], '}'))
	}
	for _, raw := range []string{`{}`, `null`, `{,"id":"x"}`, `{"id":"` + anID.String() + `","type":"dead","epoch":-}`, `{"id":"` + anID.String() + `","type":"dead","epoch":-0}`,
		`{"id":"` + anID.String() + `","type":"\u0064ead"}`, `{"ID":"` + anID.String() + `","type":"dead"}`, `{"id":"` + anID.String() + `","type":"dead","decision":{"deliveries":[,]}}`} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { sameDecoded(t, raw) })
}

func BenchmarkEventJSON(b *testing.B) {
	s := &story{}
	s.accepted()
	e := s.decided(1, "a")
	raw, err := e.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := e.Encode(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeEvent(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("headers", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.Headers()
		}
	})
}
