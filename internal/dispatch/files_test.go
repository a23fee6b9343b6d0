package dispatch

import (
	"encoding/json"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"weiche/internal/blob"
	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/seal"
	"weiche/internal/submission"
)

// withFile makes a submission with a file in the vault, and its record, which
// names the n-th.
func (r *rig) withFile(name, content string, n int) (submission.Meta, *bus.Record) {
	r.t.Helper()
	ctx := r.t.Context()
	m, _ := r.accepted(name, r.in(0, name), region)
	key, err := r.sealed.keeper.NewDataKey(ctx, m.Land, m.AcceptedAt)
	must(r.t, err)
	prefix := blob.Prefix(m.Land, m.AcceptedAt, m.ID.String(), m.Append.String())
	a := submission.Attachment{AttachmentID: "a", MIMEType: "text/plain", Blob: blob.FileName(prefix, n)}
	a.Size, a.Hash.Content, err = r.sealed.vault.PutFile(ctx, key, blob.FileName(prefix, 0), strings.NewReader(content))
	must(r.t, err)
	plain, err := json.Marshal(submission.Envelope{Data: json.RawMessage(`{}`), Attachments: []submission.Attachment{a}})
	must(r.t, err)
	box := &seal.Box{Subject: m.ID.String(), Key: key.Wrapped()}
	must(r.t, r.sealed.put(ctx, m, box, key, "submission", plain))
	value, err := box.MarshalBinary()
	must(r.t, err)
	return m, r.record(m, value)
}

// A mapping reads the bytes of a submission's files. One that is gone makes the
// submission dead by its own reason; one that cannot be read now is asked for
// again; and what is only rehearsed opens none.
func TestAMappingReadsFiles(t *testing.T) {
	r := newRig(t)
	var away atomic.Bool
	r.book.maps(func(j Job) ([]byte, error) {
		if j.Outline || j.Open == nil {
			return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "outlined")
		}
		if away.Swap(false) {
			return nil, fault.New(fault.Retryable, fault.ReasonStorage, "the store is away")
		}
		f, err := j.Open(j.Envelope.Attachments[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		content, err := io.ReadAll(f)
		return append([]byte("<file>"), content...), err
	})
	m, rec := r.withFile("read", "what it holds", 0)
	r.append(rec)
	r.decided(m, 1)
	if got := r.read(TopicDeliveries, m); len(got) != 1 || r.xml(got[0]) != "<file>what it holds" {
		t.Fatalf("%d deliveries", len(got))
	}
	if trial := r.stage.Try(t.Context(), m, rec.Value); trial.Reason != "" {
		t.Errorf("tried: %+v", trial)
	}
	if trial := r.stage.TryForm(t.Context(), m, &submission.Envelope{}); trial.Detail != "outlined" {
		t.Errorf("a form that is not stored: %+v", trial)
	}
	for _, j := range r.stage.Plan(m, &submission.Envelope{}) {
		if !j.Outline || j.Open != nil {
			t.Error("a rehearsal may open files")
		}
	}

	away.Store(true)
	later, rec := r.withFile("later", "later", 0)
	r.append(rec)
	r.decided(later, 1)

	gone, rec := r.withFile("gone", "gone", 1)
	r.append(rec)
	r.held(gone, submission.Dead, fault.ReasonBlobMissing)
}
