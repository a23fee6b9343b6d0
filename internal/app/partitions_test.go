package app

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"weiche/internal/fault"
	"weiche/internal/status"
	"weiche/internal/status/statustest"
)

// memoryLog is a log of keys.
type memoryLog struct {
	keys   []string
	values [][]byte
}

func (l *memoryLog) Append(_ context.Context, key string, value []byte) error {
	l.keys, l.values = append(l.keys, key), append(l.values, value)
	return nil
}

func (l *memoryLog) Load(_ context.Context, fn func(string, []byte) error) error {
	for i, k := range l.keys {
		if err := fn(k, l.values[i]); err != nil {
			return err
		}
	}
	return nil
}

func TestPartitionsChangeOnlyWhenNothingIsUnfinished(t *testing.T) {
	log := &memoryLog{keys: []string{"08/2026-11-22/ab"}, values: [][]byte{{1}}}
	var against error
	asked := 0
	drained := func(context.Context) error { asked++; return against }
	must(t, agree(t.Context(), log, 8, drained)) // the first start
	must(t, agree(t.Context(), log, 8, drained))
	if asked != 0 || len(log.keys) != 2 {
		t.Fatalf("asked %d times, %d records", asked, len(log.keys))
	}
	against = fault.New(fault.Permanent, fault.ReasonBusy, "3 submissions are not finished")
	for range 2 {
		err := agree(t.Context(), log, 16, drained)
		if !errors.Is(err, against) || !strings.Contains(err.Error(), "is 16, the records were written with 8, and 3 submissions") {
			t.Errorf("got %v", err)
		}
	}
	must(t, agree(t.Context(), log, 8, drained)) // back to what it was
	against = nil
	must(t, agree(t.Context(), log, 16, drained))
	if l, err := readLayout(t.Context(), log); err != nil || l.Partitions != 16 {
		t.Errorf("%+v, %v", l, err)
	}
	must(t, log.Append(t.Context(), layoutKey, []byte("{")))
	if err := agree(t.Context(), log, 16, drained); fault.Of(err).Reason != fault.ReasonMisconfigured {
		t.Errorf("a layout nobody can read: %v", err)
	}
}

// What is accepted and not dispatched counts as unfinished too.
func TestNothingUnfinished(t *testing.T) {
	store, err := status.Open(filepath.Join(t.TempDir(), "status.db"))
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	l := statustest.NewLog()
	m := l.Meta("key", "08")
	must(t, nothingUnfinished(t.Context(), store))
	l.Submission(m, "")
	for _, r := range l.All() {
		_, err := store.Project(t.Context(), nil, r)
		must(t, err)
	}
	if err := nothingUnfinished(t.Context(), store); err == nil || !strings.Contains(err.Error(), "1 submissions are not finished") {
		t.Errorf("got %v", err)
	}
}
