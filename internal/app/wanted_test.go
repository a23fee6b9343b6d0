package app

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/seal"
	"weiche/internal/status"
	"weiche/internal/status/statustest"
	"weiche/internal/submission"
)

// The sweep leaves the blobs of what is accepted and not dispatched, of the
// append that counts, and of a refused record; the rest are orphans.
func TestWantedBlobs(t *testing.T) {
	store, err := status.Open(filepath.Join(t.TempDir(), "status.db"))
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	keeper, err := seal.Open(t.TempDir(), nil, &memoryLog{})
	must(t, err)
	l := statustest.NewLog()
	waiting, done, refused := l.Meta("waiting", "08"), l.Meta("done", "08"), l.Meta("refused", "08")
	l.Submission(waiting, submission.TypeSubmission)
	l.Submission(done, submission.TypeSubmission)
	l.Accepted(done, 0)
	refusal := l.Event(refused, submission.EventRefused, submission.Event{Stage: submission.StageIntake, Reason: "config-broken"})
	for _, r := range l.All() {
		_, err := store.Project(t.Context(), nil, r)
		must(t, err)
	}
	wanted := tidying{&App{store: store, keeper: keeper}, time.Now()}.wanted(t.Context())
	for name, c := range map[string]struct {
		id, append string
		want       bool
	}{
		"accepted, not dispatched":             {waiting.ID.String(), waiting.Append.String(), true},
		"another append of it":                 {waiting.ID.String(), uuid.NewString(), true},
		"dispatched":                           {done.ID.String(), done.Append.String(), true},
		"another append of what is dispatched": {done.ID.String(), uuid.NewString(), false},
		"refused":                              {refused.ID.String(), refusal.ID.String(), true},
		"never appended":                       {uuid.NewString(), uuid.NewString(), false},
		"not a submission":                     {"x", "y", true},
	} {
		if got, err := wanted(c.id, c.append); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
