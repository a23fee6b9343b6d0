package app

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/blob"
	"weiche/internal/bus"
	"weiche/internal/dispatch"
	"weiche/internal/fault"
	"weiche/internal/intake"
	"weiche/internal/status"
	"weiche/internal/submission"
)

// What the janitor takes away in a running router, as its clock goes on.
func TestJanitor(t *testing.T) {
	a, err := Start(t.Context(), Options{ConfigDir: "../../config", Data: t.TempDir(), Listen: "127.0.0.1:0", Ops: "127.0.0.1:0",
		Environ: []string{"WEICHE_RETENTION_PAYLOAD_DAYS=7", "WEICHE_LOG_LEVEL=error"}, Log: os.Stderr, Out: io.Discard})
	must(t, err)
	t.Cleanup(a.Stop)
	form, err := os.ReadFile("../../config/services/gewerbeanmeldung/examples/minimal.json")
	must(t, err)
	post := func(key string, with map[string]any) intake.Accepted {
		t.Helper()
		var v map[string]any
		must(t, json.Unmarshal(form, &v))
		for k, x := range with {
			v[k] = x
		}
		body, err := json.Marshal(v)
		must(t, err)
		acc, err := a.door.Accept(t.Context(), intake.Post{Portal: "service-bw", IdempotencyKey: key, Body: body})
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return acc
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never %s", what)
			}
		}
	}
	state := func(id uuid.UUID, want submission.State) {
		t.Helper()
		until(string(want), func() bool { acct, err := a.store.Get(t.Context(), id); return err == nil && acct.State == want })
	}
	tidy := func(later time.Duration) { t.Helper(); tidying{a, time.Now().Add(later)}.run(t.Context()) }
	const day = 24 * time.Hour
	blobs := func() (n int) {
		fs, err := blob.OpenFS(within(a.router.Data, a.router.Blobs.Dir))
		must(t, err)
		must(t, fs.List(t.Context(), func(string, time.Time) error { n++; return nil }))
		return n
	}

	file := bytes.Repeat([]byte("plan"), 1000)
	sum := sha512.Sum512(file)
	attached := map[string]any{"attachments": []map[string]any{{"attachmentId": uuid.NewString(), "purpose": "attachment", "mimeType": "application/pdf",
		"filename": "plan.pdf", "hash": map[string]any{"type": "sha512", "content": hex.EncodeToString(sum[:])}, "content": base64.StdEncoding.EncodeToString(file)}}}
	done := post("done", attached)
	state(done.ID, submission.Delivered)
	// Nobody is responsible for a region of no municipality.
	caseID := uuid.NewString()
	var held []uuid.UUID
	for i := range 3 {
		acc := post(fmt.Sprint("held-", i), map[string]any{"region": "DE089999999999", "caseId": caseID})
		held = append(held, acc.ID)
		state(acc.ID, submission.Unassigned)
	}
	partition := a.bus.PartitionOf([]byte(caseID), a.router.Kafka.Partitions)
	oldest := func(topic string, p int32) int64 {
		t.Helper()
		at, _, err := a.bus.Offsets(t.Context(), topic)
		must(t, err)
		return at[p]
	}
	closeIt := func(id uuid.UUID) {
		t.Helper()
		acct, err := a.store.Get(t.Context(), id)
		must(t, err)
		m := acct.Meta()
		m.Instruction = &submission.Instruction{Kind: submission.InstructClose, Operator: "local", Reason: "test", At: time.Now().UTC()}
		must(t, a.bus.Append(t.Context(), &bus.Record{Topic: dispatch.Topic, Partition: partition, Key: []byte(caseID), Headers: m.Headers(submission.TypeControl)}))
		state(id, submission.Rejected)
	}

	// What is finished is cut; what waits for an operator is not, however old.
	until("cut", func() bool {
		a.count(t.Context())
		a.cut(t.Context())
		at, newest, err := a.bus.Offsets(t.Context(), dispatch.Topic)
		must(t, err)
		return at[partition] == newest[partition]-1
	})
	tidy(40 * day)
	if at := oldest(bus.TopicUnassigned, partition); at != 0 {
		t.Errorf("unassigned records below %d are gone", at)
	}
	if n := blobs(); n != 1 {
		t.Errorf("%d blobs, want that of the day that is not over", n)
	}
	if len(a.keeper.Days()["08"]) == 0 {
		t.Fatal("the day's key is gone, and three of the day are unassigned")
	}
	closeIt(held[0])
	closeIt(held[2])
	tidy(0)
	if at := oldest(bus.TopicUnassigned, partition); at != 0 {
		t.Errorf("cut to %d within a day", at)
	}
	tidy(2 * day)
	if at := oldest(bus.TopicUnassigned, partition); at != 1 {
		t.Errorf("cut to %d, want 1: the second one is held", at)
	}
	if _, err := a.bus.Fetch(t.Context(), bus.TopicUnassigned, partition, 1); err != nil {
		t.Errorf("the held record: %v", err)
	}
	closeIt(held[1])
	tidy(2 * day)
	if at := oldest(bus.TopicUnassigned, partition); at != 2 {
		t.Errorf("cut to %d, want all but the last", at)
	}

	// Nothing of the day is unfinished: after the retention nobody can read it.
	sealed, err := a.keeper.NewDataKey(t.Context(), "08", time.Now())
	must(t, err)
	tidy(6 * day)
	if _, err := a.keeper.OpenDataKey(t.Context(), sealed.Wrapped()); err != nil {
		t.Errorf("within the retention: %v", err)
	}
	tidy(9 * day)
	if _, err := a.keeper.OpenDataKey(t.Context(), sealed.Wrapped()); fault.Of(err).Reason != fault.ReasonUndecryptable {
		t.Errorf("after the retention: %v", err)
	}
	if n := blobs(); n != 0 {
		t.Errorf("%d blobs of a destroyed day", n)
	}

	// Old claims were forgotten on the way; the account answers for them.
	if n := a.claims.Len(); n != 0 {
		t.Errorf("%d claims", n)
	}
	if again := post("done", attached); again.Receipt != done.Receipt || !again.Repeat {
		t.Error("a repeat of the same body got another receipt")
	}
	_, err = a.door.Accept(t.Context(), intake.Post{Portal: "service-bw", IdempotencyKey: "done", Body: form})
	var p *intake.Problem
	if !errors.As(err, &p) || p.Reason != fault.ReasonKeyReused {
		t.Errorf("another body under an old key: %v", err)
	}

	// Whatever was taken away, the account adds up.
	for name, by := range map[string]func(context.Context, status.ReconcileFilter) (status.Reconciliation, error){"store": a.projector.Reconcile, "topics": a.projector.Recount} {
		r, err := by(t.Context(), status.ReconcileFilter{})
		accepted := 0
		for _, l := range r.Lines {
			accepted += l.Accepted
		}
		if err != nil || !r.Balanced() || accepted != 4 {
			t.Errorf("by the %s: %+v, %v", name, r, err)
		}
	}
}
