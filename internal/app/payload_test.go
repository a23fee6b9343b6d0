package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/blob"
	"weiche/internal/fault"
	"weiche/internal/seal"
	"weiche/internal/submission"
)

// dayKeys is a log of day keys in memory; these tests use it from one goroutine.
type dayKeys struct {
	keys []string
	vals [][]byte
}

func (l *dayKeys) Append(_ context.Context, key string, value []byte) error {
	l.keys, l.vals = append(l.keys, key), append(l.vals, value)
	return nil
}

func (l *dayKeys) Load(_ context.Context, fn func(string, []byte) error) error {
	for i, key := range l.keys {
		if err := fn(key, l.vals[i]); err != nil {
			return err
		}
	}
	return nil
}

// sealer makes records as intake does, and opens them as the stages do.
type sealer struct {
	payload
	deliveries deliveryPayload
	meta       submission.Meta
}

func newSealer(tb testing.TB) *sealer {
	tb.Helper()
	keeper, err := seal.Open(tb.TempDir(), nil, &dayKeys{})
	if err != nil {
		tb.Fatal(err)
	}
	store, err := blob.OpenFS(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	p := payload{keeper: keeper, vault: blob.NewVault(store, 0)}
	id := submission.NewID("amt24", "key-1")
	return &sealer{
		payload: p,
		deliveries: deliveryPayload{payload: p, authority: func(_ submission.Land, id string) submission.Authority {
			return submission.Authority{ID: id}
		}},
		meta: submission.Meta{ID: id, CaseID: submission.NewCaseID(id), Portal: "amt24", Land: "14", Service: "99050012104000", Region: "147130000000",
			AcceptedAt: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), SHA512: strings.Repeat("ab", 64), Revision: 1, Append: uuid.New()},
	}
}

// prefix is where the submission's blobs lie.
func (s *sealer) prefix() string {
	return blob.Prefix(s.meta.Land, s.meta.AcceptedAt, s.meta.ID.String(), s.meta.Append.String())
}

// record seals sections as they come.
func (s *sealer) record(tb testing.TB, sections map[string][]byte) []byte {
	tb.Helper()
	key, err := s.keeper.NewDataKey(tb.Context(), s.meta.Land, s.meta.AcceptedAt)
	if err != nil {
		tb.Fatal(err)
	}
	box := &seal.Box{Subject: s.meta.ID.String(), Key: key.Wrapped()}
	for name, plain := range sections {
		if err := s.vault.PutSection(tb.Context(), key, box, s.prefix(), name, plain); err != nil {
			tb.Fatal(err)
		}
	}
	value, err := box.MarshalBinary()
	if err != nil {
		tb.Fatal(err)
	}
	return value
}

// rich is a whole application, 5 KB of compact JSON, with its attachments.
func rich(tb testing.TB) (env submission.Envelope, plain, attachments []byte) {
	tb.Helper()
	raw, err := os.ReadFile("../../config/services/gewerbeanmeldung/examples/rich.json")
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(raw, &env); err != nil {
		tb.Fatal(err)
	}
	if plain, err = json.Marshal(env); err != nil {
		tb.Fatal(err)
	}
	if attachments, err = json.Marshal(env.Attachments); err != nil {
		tb.Fatal(err)
	}
	return env, plain, attachments
}

func delivered(m submission.Meta) submission.DeliveryMeta {
	return submission.DeliveryMeta{Meta: m, DeliveryID: submission.NewDeliveryID(m.ID, "14-amt", 1), Destination: "14-amt", Adapter: "kafka",
		Format: submission.Format{Standard: "s", Version: "1", Message: "m"}, AuthorityID: "leipzig"}
}

// A record of this release and one of the release before it, which had the
// attachments in the envelope alone, are delivered alike.
func TestADeliveryHasItsAttachments(t *testing.T) {
	s := newSealer(t)
	content := []byte("a plan")
	_, plain, _ := rich(t)
	env, err := submission.DecodeEnvelope(plain)
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.keeper.NewDataKey(t.Context(), s.meta.Land, s.meta.AcceptedAt)
	if err != nil {
		t.Fatal(err)
	}
	name := blob.FileName(s.prefix(), 0)
	size, sum, err := s.vault.PutFile(t.Context(), key, name, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	env.Attachments = []submission.Attachment{{AttachmentID: "a1", Filename: "lageplan.pdf", MIMEType: "application/pdf", Purpose: "attachment",
		Hash: submission.Hash{Type: "sha512", Content: sum}, Blob: name, Size: size}}
	if plain, err = json.Marshal(env); err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(env.Attachments)
	if err != nil {
		t.Fatal(err)
	}
	for release, sections := range map[string]map[string][]byte{
		"this": {sectionSubmission: plain, sectionAttachments: list}, "before": {sectionSubmission: plain},
	} {
		box := &seal.Box{Subject: s.meta.ID.String(), Key: key.Wrapped()}
		for name, content := range sections {
			if err := s.vault.PutSection(t.Context(), key, box, s.prefix(), name, content); err != nil {
				t.Fatal(err)
			}
		}
		value, err := box.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if value, err = s.WithXML(t.Context(), s.meta, value, []byte("<a/>")); err != nil {
			t.Fatal(err)
		}
		d, err := s.deliveries.Open(t.Context(), delivered(s.meta), value)
		if err != nil || string(d.Message) != "<a/>" || len(d.Attachments) != 1 {
			t.Fatalf("%s release: %v, %+v", release, err, d)
		}
		if !d.AcceptedAt.Equal(s.meta.AcceptedAt) {
			t.Errorf("%s release: accepted at %s", release, d.AcceptedAt)
		}
		a := d.Attachments[0]
		if a.ID != "a1" || a.Filename != "lageplan.pdf" || a.MIMEType != "application/pdf" || a.Purpose != "attachment" || a.Size != size || a.SHA512 != sum {
			t.Errorf("%s release: %+v", release, a)
		}
		r, err := a.Open()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		_ = r.Close()
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s release: %q, %v", release, got, err)
		}
	}
}

// A delivery opens the message and the list of attachments, not the form: with
// a form that cannot be opened it goes out all the same.
func TestADeliveryDoesNotOpenTheForm(t *testing.T) {
	s := newSealer(t)
	_, plain, _ := rich(t)
	value := s.record(t, map[string][]byte{sectionSubmission: plain, sectionAttachments: []byte("[]"), sectionXML: []byte("<a/>")})
	box, err := seal.ParseBox(value, s.meta.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	form, _ := box.Section(sectionSubmission)
	clear(form[1:])
	if value, err = box.MarshalBinary(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), s.meta, value); fault.Of(err).Reason != fault.ReasonUndecryptable {
		t.Fatalf("the form was to be unreadable: %v", err)
	}
	if d, err := s.deliveries.Open(t.Context(), delivered(s.meta), value); err != nil || len(d.Attachments) != 0 || string(d.Message) != "<a/>" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestAListOfAttachmentsThatIsNoneIsRefused(t *testing.T) {
	s := newSealer(t)
	_, plain, _ := rich(t)
	value := s.record(t, map[string][]byte{sectionSubmission: plain, sectionAttachments: []byte(`{"a":`), sectionXML: []byte("<a/>")})
	_, err := s.deliveries.Open(t.Context(), delivered(s.meta), value)
	if f := fault.Of(err); f == nil || f.Class != fault.Permanent || f.Reason != fault.ReasonUndecodable {
		t.Errorf("%v", err)
	}
}

func TestDispatchOpensWhatIntakeSealed(t *testing.T) {
	s := newSealer(t)
	want, plain, list := rich(t)
	value := s.record(t, map[string][]byte{sectionSubmission: plain, sectionAttachments: list})
	before := bytes.Clone(value)
	got, err := s.Open(t.Context(), s.meta, value)
	if err != nil || string(got.Data) == "" || !reflect.DeepEqual(got.Attachments, want.Attachments) || got.Region != want.Region {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := s.WithXML(t.Context(), s.meta, value, []byte("<a/>")); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(value, before) {
		t.Error("the record was changed; it may still go to the dead letters")
	}
	if _, err := s.Open(t.Context(), s.meta, s.record(t, map[string][]byte{sectionSubmission: []byte(`{"region":`)})); fault.Of(err).Reason != fault.ReasonUndecodable {
		t.Errorf("half an envelope: %v", err)
	}
}

// What a submission costs on its way for being sealed: 5 KB of form, 6 KB of
// message. Its key is open from the first step on.
func BenchmarkPayload(b *testing.B) {
	s := newSealer(b)
	_, plain, list := rich(b)
	xml := bytes.Repeat([]byte("<name>Müller-Łukasz</name>"), 220)
	value := s.record(b, map[string][]byte{sectionSubmission: plain, sectionAttachments: list})
	full, err := s.WithXML(b.Context(), s.meta, value, xml)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("submission %d bytes, message %d bytes, delivery record %d bytes", len(plain), len(xml), len(full))
	b.Run("Open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Open(b.Context(), s.meta, value); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("WithXML", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.WithXML(b.Context(), s.meta, value, xml); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("DeliveryOpen", func(b *testing.B) {
		m := delivered(s.meta)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.deliveries.Open(b.Context(), m, full); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// An edited form replaces the form and nothing else, be it small or large; the
// message of the form before is not carried along, and the record before stays.
func TestEditedFormIsSealed(t *testing.T) {
	s := newSealer(t)
	want, plain, list := rich(t)
	value := s.record(t, map[string][]byte{sectionSubmission: plain, sectionAttachments: list, sectionXML: []byte("<old/>")})
	before := bytes.Clone(value)
	for name, data := range map[string]string{"small": `{"a":1}`, "large": `{"a":"` + strings.Repeat("x", 1<<20) + `"}`} {
		env, err := s.Open(t.Context(), s.meta, value)
		if err != nil {
			t.Fatal(err)
		}
		edited, err := s.Edited(t.Context(), s.meta, value, env.WithData(json.RawMessage(data)))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(edited, []byte(data[:7])) || len(edited) > 100<<10 {
			t.Errorf("%s: %d bytes, in plain text: %t", name, len(edited), bytes.Contains(edited, []byte(data[:7])))
		}
		got, xml, err := s.Held(t.Context(), s.meta, edited)
		if err != nil || string(got.Data) != data || xml != nil || got.Region != want.Region || !reflect.DeepEqual(got.Attachments, want.Attachments) {
			t.Errorf("%s: %v, %d bytes of XML", name, err, len(xml))
		}
		form, err := got.Form()
		if err != nil || form.(map[string]any)["a"] == nil {
			t.Errorf("%s: %v %v", name, form, err)
		}
	}
	if !bytes.Equal(value, before) {
		t.Error("the record before was changed")
	}
}
