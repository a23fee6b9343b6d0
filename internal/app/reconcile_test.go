package app

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/intake"
	"weiche/internal/status"
	"weiche/internal/submission"
)

// The account of a running router adds up while submissions are on their way,
// when they are cut, after a restart and after a rebuild, in the store and by
// the topics.
func TestReconcile(t *testing.T) {
	data := t.TempDir()
	start := func() *App {
		a, err := Start(t.Context(), Options{ConfigDir: "../../config", Data: data, Listen: "127.0.0.1:0", Ops: "127.0.0.1:0",
			Environ: []string{"WEICHE_LOG_LEVEL=error"}, Log: os.Stderr, Out: io.Discard})
		must(t, err)
		t.Cleanup(a.Stop)
		return a
	}
	a := start()
	n := 0
	balanced := func(when string) {
		t.Helper()
		for name, by := range map[string]func() (status.Reconciliation, error){
			"store": func() (status.Reconciliation, error) {
				return a.projector.Reconcile(t.Context(), status.ReconcileFilter{})
			},
			"topics": func() (status.Reconciliation, error) {
				return a.projector.Recount(t.Context(), status.ReconcileFilter{})
			},
		} {
			r, err := by()
			accepted := 0
			for _, l := range r.Lines {
				accepted += l.Accepted
			}
			if err != nil || !r.Balanced() || accepted != n {
				t.Errorf("%s, %s: of %d %+v, %v", when, name, n, r, err)
			}
		}
	}
	form, err := os.ReadFile("../../config/services/gewerbeanmeldung/examples/minimal.json")
	must(t, err)
	post := func(k int) {
		t.Helper()
		var ids []uuid.UUID
		for range k {
			n++
			for range 2 { // the second one is a repeat
				acc, err := a.door.Accept(t.Context(), intake.Post{Portal: "service-bw", IdempotencyKey: fmt.Sprint(n), Body: form})
				must(t, err)
				ids = append(ids, acc.ID)
			}
			balanced("on its way")
		}
		for _, id := range ids {
			for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				if acct, err := a.store.Get(t.Context(), id); err == nil && acct.State == submission.Delivered {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("never delivered")
				}
			}
		}
	}
	cut := func() {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			a.count(t.Context())
			a.cut(t.Context())
			oldest, newest, err := a.bus.Offsets(t.Context(), bus.TopicSubmissions)
			must(t, err)
			left := int64(0)
			for p := range newest {
				left += max(0, newest[p]-oldest[p]-1) // the last one stays
			}
			if left == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d records are never cut", left)
			}
		}
	}
	post(3)
	balanced("delivered")
	cut()
	balanced("cut")
	a.Stop()
	a = start()
	balanced("restarted")
	post(2)
	must(t, a.projector.Rebuild(t.Context()))
	balanced("rebuilt")
	cut()
	balanced("cut again")
}

// The account by the topics is made again and again while portals post and what is
// finished is counted and cut as fast as can be: what is on its way is no
// difference, wherever its record is at that moment.
func TestReconcileUnderLoad(t *testing.T) {
	a, err := Start(t.Context(), Options{ConfigDir: "../../config", Data: t.TempDir(), Listen: "127.0.0.1:0", Ops: "127.0.0.1:0",
		Environ: []string{"WEICHE_LOG_LEVEL=error"}, Log: os.Stderr, Out: io.Discard})
	must(t, err)
	t.Cleanup(a.Stop)
	form, err := os.ReadFile("../../config/services/gewerbeanmeldung/examples/minimal.json")
	must(t, err)
	const portals, each = 4, 30
	var work sync.WaitGroup
	for p := range portals {
		work.Go(func() {
			for i := range each {
				if _, err := a.door.Accept(t.Context(), intake.Post{Portal: "service-bw", IdempotencyKey: fmt.Sprint(p, "-", i), Body: form}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var posted atomic.Bool
	go func() { work.Wait(); posted.Store(true) }()
	tidied := make(chan struct{})
	go func() {
		defer close(tidied)
		for !posted.Load() {
			a.count(t.Context())
			a.cut(t.Context())
		}
	}()
	times := 0
	for more := true; more; times++ {
		more = !posted.Load()
		r, err := a.projector.Recount(t.Context(), status.ReconcileFilter{})
		if err != nil || !r.Balanced() {
			t.Errorf("%+v, %v", r, err)
		}
	}
	<-tidied
	t.Logf("%d submissions, counted %d times by the topics", portals*each, times)
}
