package submission

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden records of this release anew")

// golden is one record as it stands in the log: what a later release must read.
type golden struct {
	Headers map[string]string `json:"headers"`
	Value   json.RawMessage   `json:"value,omitempty"`
}

func exampleMeta() Meta {
	return Meta{ID: anID, CaseID: NewCaseID(anID), Portal: "service-bw", Land: "08", Service: "99050012104000", Region: "081150003003",
		AcceptedAt: t0.Add(123 * time.Millisecond), SHA512: strings.Repeat("ab", 64), Test: true, Revision: 1, Append: anApp,
		SenderHash: strings.Repeat("cd", 32), Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
}

func instructed(m Meta, i Instruction) Meta {
	i.Operator, i.At = "frau-berg", t0.Add(time.Hour)
	m.Instruction = &i
	return m
}

func exampleDelivery() DeliveryMeta {
	return DeliveryMeta{Meta: exampleMeta(), DeliveryID: delivery("bb-gewerbe", 1), Destination: "bb-gewerbe", Adapter: "http", Format: format,
		AuthorityID: "boeblingen", Decision: NewEventID(EventDecided, anID, "1"), Attempts: 2, Redrives: 1, Sequence: 3,
		DueAt: t0.Add(time.Minute), Waited: 59 * time.Second, Order: 41, Reason: "unavailable"}
}

// TestGoldenRecords holds one record of each type and release: this release
// writes the newest ones byte for byte, and reads them all.
func TestGoldenRecords(t *testing.T) {
	assign := instructed(exampleMeta(), Instruction{Kind: InstructAssign, Authority: "boeblingen"})
	assign.Revision = 2
	redrive := exampleDelivery()
	redrive.Meta = instructed(redrive.Meta, Instruction{Kind: InstructRedrive, Force: true})
	metas := map[string]struct {
		meta Meta
		typ  string
	}{
		"claim":      {exampleMeta(), TypeClaim},
		"submission": {exampleMeta(), TypeSubmission},
		"assign":     {assign, TypeSubmission},
		"close":      {instructed(exampleMeta(), Instruction{Kind: InstructClose, Reason: "posted twice"}), TypeControl},
	}
	for name, c := range metas {
		t.Run(name, func(t *testing.T) {
			for _, g := range goldenOf(t, name, golden{Headers: c.meta.Headers(c.typ)}) {
				got, err := ParseMeta(g.Headers)
				if err != nil || !reflect.DeepEqual(got, c.meta) {
					t.Errorf("read %+v, %v; want %+v", got, err, c.meta)
				}
			}
		})
	}
	deliveries := map[string]DeliveryMeta{"delivery": exampleDelivery(), "delivery-redrive": redrive}
	for name, d := range deliveries {
		t.Run(name, func(t *testing.T) {
			for _, g := range goldenOf(t, name, golden{Headers: d.Headers(TypeDelivery)}) {
				got, err := ParseDeliveryMeta(g.Headers)
				if err != nil || !reflect.DeepEqual(got, d) {
					t.Errorf("read %+v, %v; want %+v", got, err, d)
				}
			}
		})
	}
	for _, e := range exampleEvents() {
		t.Run("event-"+string(e.Type), func(t *testing.T) {
			value, err := e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range goldenOf(t, "event-"+string(e.Type), golden{Headers: e.Headers(), Value: value}) {
				got, err := DecodeEvent(g.Value)
				if err != nil || !reflect.DeepEqual(got, e) {
					t.Errorf("read %+v, %v; want %+v", got, err, e)
				}
			}
		})
	}
	// An envelope is sealed inside the submission's record.
	t.Run("envelope", func(t *testing.T) {
		env := exampleEnvelope()
		value, err := json.Marshal(env)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range goldenOf(t, "envelope", golden{Value: value}) {
			var got Envelope
			if err := json.Unmarshal(g.Value, &got); err != nil {
				t.Fatal(err)
			}
			// The file is indented; the form's bytes inside it are equal but for that.
			var form bytes.Buffer
			if err := json.Compact(&form, got.Data); err != nil {
				t.Fatal(err)
			}
			got.Data = form.Bytes()
			form = bytes.Buffer{}
			if err := json.Compact(&form, got.ReplyChannel); err != nil {
				t.Fatal(err)
			}
			got.ReplyChannel = form.Bytes()
			if !reflect.DeepEqual(got, env) {
				t.Errorf("read %+v, want %+v", got, env)
			}
		}
	})
}

// goldenOf compares the newest golden record with what this release writes and
// returns those of every release still read.
func goldenOf(t *testing.T, name string, written golden) []golden {
	t.Helper()
	newest := filepath.Join("testdata", "v1", name+".json")
	b, err := json.MarshalIndent(written, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	if *update {
		if err := os.MkdirAll(filepath.Dir(newest), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(newest, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("%s: this release writes\n%s\nthe golden record is\n%s", newest, b, want)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "v*", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var out []golden
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var g golden
		if err := json.Unmarshal(raw, &g); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out = append(out, g)
	}
	return out
}

func exampleEvents() []Event {
	s := &story{}
	due := t0.Add(time.Minute)
	held := &Held{Topic: "weiche.deadletters", Partition: 3, Offset: 17}
	accepted := s.accepted()
	accepted.Accepted.SHA512, accepted.Accepted.Test, accepted.Accepted.SenderHash, accepted.Accepted.Offset = strings.Repeat("ab", 64), true, strings.Repeat("cd", 32), 41
	decided := s.decided(2, "bb-gewerbe")
	decided.Decision.ConfigHash, decided.Decision.Predecessor = strings.Repeat("ef", 32), 1
	decided.Decision.Authority = Authority{ID: "boeblingen", Key: "xga:08115003", Name: "Stadt Böblingen", Region: "081150003003"}
	out := []Event{
		accepted, decided,
		s.event(EventUnassigned, Event{Revision: 1, Reason: "several-authorities", Detail: "two rules name an authority", Held: held}),
		s.event(EventAssigned, Event{Revision: 2, Operator: "frau-berg", Note: "boeblingen"}),
		s.about(EventWaiting, "a", Event{Revision: 1, Sequence: 1, Reason: "behind-case", Order: 41}),
		s.about(EventAttempt, "a", Event{Revision: 1, Attempt: 1, Sequence: 2, Reason: "unavailable", Class: "retryable", Detail: "the destination answered 503", DueAt: &due, DurationMS: 12}),
		s.about(EventHandedOver, "a", Event{Revision: 1, Attempt: 2, Token: "urn:de:xta:messageid:1"}),
		s.about(EventDelivered, "a", Event{Revision: 1, Attempt: 2}),
		s.about(EventDead, "a", Event{Revision: 1, Attempt: 3, Redrive: 1, Reason: "refused", Class: "permanent", Held: held}),
		s.about(EventRedriven, "a", Event{Revision: 1, Redrive: 1, Operator: "frau-berg"}),
		s.about(EventClosed, "a", Event{Revision: 1, Reason: "operator", Operator: "frau-berg", Note: "posted twice"}),
		s.about(EventRejected, "a", Event{Revision: 1, Reason: "refused"}),
		s.event(EventRefused, Event{Reason: "undecodable", Held: held}),
		s.event(EventOwner, Event{}),
		s.event(EventCheckpoint, Event{Checkpoint: &Checkpoint{Offset: 99, Hash: strings.Repeat("01", 32), JWS: "a.b.c"}}),
		s.event(EventCounted, Event{Counted: &Tally{From: 3, To: 9, Opens: true, Counts: []Tallied{{Hour: HourOf(t0), Land: "08", Service: "99050012104000", N: 5}},
			Untold: []Untold{{Submission: anID, Offset: 7, Hour: HourOf(t0), Land: "08", Service: "99050012104000"}}}}),
	}
	for i := range out {
		out[i].Epoch = 4
	}
	return out
}

func exampleEnvelope() Envelope {
	var e Envelope
	e.PublicService.Identifier = "urn:de:fim:leika:leistung:99050012104000"
	e.Region, e.CaseID, e.TrustLevel, e.Test = "DE081150003003", NewCaseID(anID).String(), "STORK-QAA-Level-3", true
	e.AdditionalReferenceInfo = &AdditionalReferenceInfo{SenderReference: "AZ 1", ApplicationDate: "2026-11-22"}
	e.SubmissionSchema = &SubmissionSchema{SchemaURI: "https://example.org/schema", MIMEType: "application/json"}
	e.Data = json.RawMessage(`{"name":"Müller-Łukasz","betrag":10.50}`)
	e.ReplyChannel = json.RawMessage(`{"eMail":{"address":"a@example.org"}}`)
	e.Attachments = []Attachment{{AttachmentID: "a1", Filename: "lageplan.pdf", MIMEType: "application/pdf", Purpose: "attachment",
		Hash: Hash{Type: "sha512", Content: strings.Repeat("ab", 64)}, Blob: "08/2026-11-22/x/1", Size: 3}}
	return e
}

func TestMetaRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		word := rapid.StringMatching(`[a-z0-9-]{1,12}`)
		id := func(name string) uuid.UUID { return NewID("p", word.Draw(rt, name)) }
		at := func(name string) time.Time {
			return t0.Add(time.Duration(rapid.Int64Range(0, 1e9).Draw(rt, name)) * time.Millisecond)
		}
		m := Meta{ID: id("id"), CaseID: id("case"), Portal: word.Draw(rt, "portal"), Land: "14", Service: "99012008001000", Region: "14",
			AcceptedAt: at("accepted"), SHA512: word.Draw(rt, "sha"), Test: rapid.Bool().Draw(rt, "test"), Revision: rapid.IntRange(1, 99).Draw(rt, "revision"),
			Append: id("append"), SenderHash: rapid.SampledFrom([]string{"", "ab"}).Draw(rt, "hash")}
		if rapid.Bool().Draw(rt, "instructed") {
			m.Instruction = &Instruction{Kind: rapid.SampledFrom([]InstructionKind{InstructAssign, InstructRedrive, InstructClose}).Draw(rt, "kind"),
				Operator: word.Draw(rt, "operator"), Authority: word.Draw(rt, "authority"), Reason: word.Draw(rt, "why"), Force: rapid.Bool().Draw(rt, "force"), At: at("instructed"),
				Job: rapid.SampledFrom([]string{"", "a job"}).Draw(rt, "job"), Replaces: rapid.SampledFrom([][]Replaced{nil, {{"08-a", 0}}, {{"08-a", 1 << 60}, {"08-b", 7}}}).Draw(rt, "replaces")}
		}
		got, err := ParseMeta(m.Headers(TypeSubmission))
		if err != nil || !reflect.DeepEqual(got, m) {
			rt.Fatalf("wrote %+v, read %+v, %v", m, got, err)
		}
		d := DeliveryMeta{Meta: m, DeliveryID: id("delivery"), Destination: word.Draw(rt, "destination"), Adapter: word.Draw(rt, "adapter"), Format: format,
			AuthorityID: word.Draw(rt, "authority id"), Decision: id("decision"), Attempts: rapid.IntRange(0, 1000).Draw(rt, "attempts"),
			Redrives: rapid.IntRange(0, 9).Draw(rt, "redrives"), Sequence: rapid.IntRange(0, 1000).Draw(rt, "sequence"), Order: rapid.Int64Range(0, 1<<60).Draw(rt, "order")}
		if rapid.Bool().Draw(rt, "due") {
			d.DueAt, d.Waited, d.Reason = at("due at"), time.Duration(rapid.Int64Range(0, 1<<40).Draw(rt, "waited"))*time.Millisecond, "timeout"
		}
		gotD, err := ParseDeliveryMeta(d.Headers(TypeDelivery))
		if err != nil || !reflect.DeepEqual(gotD, d) {
			rt.Fatalf("wrote %+v, read %+v, %v", d, gotD, err)
		}
	})
}

func TestParseMetaNamesTheHeaderAtFault(t *testing.T) {
	for header, value := range map[string]string{
		HeaderVersion: "2", HeaderSubject: "x", "ce_caseid": "", HeaderTime: "yesterday", "ce_revision": "one", "ce_portal": "", "ce_land": "",
		"ce_deliveryid": "x", "ce_format": "xbau", "ce_order": "", "ce_dueat": "soon", "ce_waited": "long", "ce_decision": "-",
	} {
		h := exampleDelivery().Headers(TypeDelivery)
		h[header] = value
		_, err := ParseDeliveryMeta(h)
		if err == nil || !strings.Contains(err.Error(), header) {
			t.Errorf("%s = %q: %v", header, value, err)
		}
	}
	if _, err := ParseMeta(nil); err == nil {
		t.Error("no headers at all were read")
	}
}

func TestDecodeEventRefuses(t *testing.T) {
	for _, s := range []string{"", "null", "{}", `{"type":"dead"}`, `{"type":"dead","id":"x"}`, "[]"} {
		if e, err := DecodeEvent([]byte(s)); err == nil {
			t.Errorf("%q was read as %+v", s, e)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		kind, in, want string
		parse          func(string) (string, error)
	}{
		{"land", "08", "08", of(ParseLand)}, {"land", "16", "16", of(ParseLand)}, {"land", "00", "", of(ParseLand)}, {"land", "17", "", of(ParseLand)},
		{"land", "1:", "", of(ParseLand)}, {"land", "8", "", of(ParseLand)}, {"land", "", "", of(ParseLand)},
		{"service", "99050012104000", "99050012104000", of(ParseService)},
		{"service", "urn:de:fim:leika:leistung:99050012104000", "99050012104000", of(ParseService)},
		{"service", "9905001210400", "", of(ParseService)}, {"service", "11050012104000", "", of(ParseService)}, {"service", "9905001210400a", "", of(ParseService)},
		{"region", "DE081150003003", "081150003003", of(ParseRegion)}, {"region", "08115", "08115", of(ParseRegion)}, {"region", "08", "08", of(ParseRegion)},
		{"region", "0811", "", of(ParseRegion)}, {"region", "99115", "", of(ParseRegion)}, {"region", "DE", "", of(ParseRegion)}, {"region", "", "", of(ParseRegion)},
		{"authority", "bab:08115003", "bab:08115003", of(ParseAuthorityKey)}, {"authority", "ag:U1104", "ag:U1104", of(ParseAuthorityKey)}, {"authority", "MELDID:08115003", "MELDID:08115003", of(ParseAuthorityKey)}, {"authority", "a:1", "", of(ParseAuthorityKey)}, {"authority", "BAB:1", "", of(ParseAuthorityKey)}, {"authority", "bab:", "", of(ParseAuthorityKey)},
		{"format", "xbau/2.6/a.0200", "xbau/2.6/a.0200", func(s string) (string, error) { f, err := ParseFormat(s); return f.String(), err }},
		{"format", "xbau/2.6", "", func(s string) (string, error) { f, err := ParseFormat(s); return f.String(), err }},
		{"format", "../2.6/a", "", func(s string) (string, error) { f, err := ParseFormat(s); return f.String(), err }},
	} {
		got, err := c.parse(c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s %q: %q, %v; want %q", c.kind, c.in, got, err, c.want)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%s: the error repeats too much of its input", c.kind)
		}
	}
	if got := Region("081150003003").Areas(); !reflect.DeepEqual(got, []Region{"081150003003", "081150003", "08115", "081", "08"}) {
		t.Errorf("areas are %v", got)
	}
	if Region("").Land() != LandNone || Region("14").Land() != "14" || !Region("08115").Within("081") || Region("081").Within("08115") {
		t.Error("a region's Land or area is wrong")
	}
	if _, err := ParseLand(strings.Repeat("9", 1000)); err == nil || len(err.Error()) > 200 {
		t.Errorf("a long input: %v", err)
	}
}

func of[T ~string](parse func(string) (T, error)) func(string) (string, error) {
	return func(s string) (string, error) { v, err := parse(s); return string(v), err }
}

// Receivers drop duplicates by these ids: they never change between releases.
func TestIDsNeverChange(t *testing.T) {
	for want, got := range map[string]uuid.UUID{
		"cb0f3825-8f91-5d28-8c68-42701806cc77": NewID("service-bw", "key-1"),
		"3cc1d0d9-07e8-5c41-b88c-c22e23bbd133": NewCaseID(NewID("service-bw", "key-1")),
		"beb7c618-561f-523a-a068-72ff624d0f93": NewDeliveryID(NewID("service-bw", "key-1"), "bb-gewerbe", 1),
		"6a872bcd-26db-5b24-b9aa-96fdec58fd70": NewEventID(EventDecided, NewID("service-bw", "key-1"), "1"),
	} {
		if got.String() != want || got.Version() != 5 {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if NewID("a", "bc") == NewID("ab", "c") || NewDeliveryID(anID, "a", 1) == NewDeliveryID(anID, "a", 2) ||
		NewEventID(EventDead, anID, "1", "2") == NewEventID(EventDead, anID, "12") {
		t.Error("two different things have one id")
	}
}

// A list of replaced deliveries that nobody wrote is refused.
func TestReplacesMalformed(t *testing.T) {
	m := instructed(exampleMeta(), Instruction{Kind: InstructRedrive})
	for _, text := range []string{",", "a", "a=", "=1", "a=1,", "a=x", "a=1,,b=2", "a=99999999999999999999"} {
		h := m.Headers(TypeSubmission)
		h["ce_replaces"] = text
		if _, err := ParseMeta(h); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
