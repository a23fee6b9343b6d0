package status_test

import (
	"errors"
	"path/filepath"
	"strconv"
	"testing"

	"weiche/internal/bus"
	"weiche/internal/status"
	"weiche/internal/status/statustest"
	"weiche/internal/submission"
)

func memory() *simLog {
	return newSimLog(statustest.Partitions, status.TopicEvents, status.TopicSubmissions, status.TopicClaims,
		bus.TopicDeliveries, bus.TopicWaiting, bus.TopicUnassigned, bus.TopicDeadLetters)
}

// Who stands still inside Acquire until another owner has begun does not take
// the partition from it by asking for one more number.
func TestAcquireGivesWay(t *testing.T) {
	log, ctx := memory(), within(t)
	slow := &gatedLog{simLog: log}
	a, b := run(t, slow, filepath.Join(t.TempDir(), "a.db")), run(t, log, filepath.Join(t.TempDir(), "b.db"))
	g := &gate{make(chan struct{}), make(chan struct{})}
	slow.next.Store(g)
	late := make(chan error, 1)
	go func() {
		_, err := a.ledger.Acquire(ctx, submission.StageDelivery, 0)
		late <- err
	}()
	<-g.arrived
	n, err := b.ledger.Acquire(ctx, submission.StageDelivery, 0)
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	close(g.release)
	if err := <-late; !errors.Is(err, status.ErrSuperseded) {
		t.Errorf("the late one got %v", err)
	}
	if owns, err := b.ledger.Owns(ctx, submission.StageDelivery, 0, n); err != nil || !owns {
		t.Errorf("the owner owns: %v, %v", owns, err)
	}
	if n, err := a.ledger.Acquire(ctx, submission.StageDelivery, 0); err != nil || n != 2 {
		t.Errorf("asked again, it got %d, %v", n, err)
	}
	if owns, err := b.ledger.Owns(ctx, submission.StageDelivery, 0, n); err != nil || owns {
		t.Errorf("the former owner owns: %v, %v", owns, err)
	}
}

// A rebuild that ends before it has begun to read is a rebuild all the same.
func TestRebuildOfAnEmptyLog(t *testing.T) {
	r := run(t, memory(), filepath.Join(t.TempDir(), "status.db"))
	for range 10 {
		if err := r.projector.Rebuild(within(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// Under load a batch gathers long; somebody who waits for the projection need
// not wait so long, and sees what he has just appended.
func TestWaitingUnderLoad(t *testing.T) {
	log, ctx := memory(), within(t)
	r := run(t, log, filepath.Join(t.TempDir(), "status.db"))
	l := history(2000)
	if err := log.Append(ctx, l.All()...); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		m := l.Meta("asked "+strconv.Itoa(i), "08")
		if err := r.ledger.Append(ctx, statustest.Partition(m.ID), l.Accepted(m, 0)); err != nil {
			t.Fatal(err)
		}
		if err := r.projector.WaitAsked(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Get(ctx, m.ID); err != nil {
			t.Fatal(err)
		}
	}
}
