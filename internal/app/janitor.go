package app

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/console"
	"weiche/internal/delivery"
	"weiche/internal/dispatch"
	"weiche/internal/fault"
	"weiche/internal/status"
	"weiche/internal/submission"
)

const (
	cutEvery = 5 * time.Second
	// countEvery is how often what was accepted is counted, and so how much longer
	// than needed finished submissions lie there: a tally is an event that stays.
	countEvery = 10 * time.Second
	tidyEvery  = time.Hour
	signEvery  = 15 * time.Minute
	// orphanAge is how long bytes stay that nothing refers to: what refers to
	// them may be on its way. The design's figure for blobs.
	orphanAge = 24 * time.Hour
)

// janitor takes away what nobody needs any more, until ctx ends. What it does is
// listed in docs/architecture.md, "What is kept, until when".
func (a *App) janitor(ctx context.Context) error {
	// A wrong group offset must not become a cut.
	if err := await(ctx, a.restored); err != nil {
		return err
	}
	cut := time.NewTicker(cutEvery)
	defer cut.Stop()
	count := time.NewTicker(countEvery)
	defer count.Stop()
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	sign := time.NewTicker(signEvery)
	defer sign.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sign.C:
			a.checkpoint(ctx)
		case <-cut.C:
			a.cut(ctx)
		case <-count.C:
			a.count(ctx)
		case <-tidy.C:
			tidying{a, a.now()}.run(ctx)
		}
	}
}

// cut deletes what the stages have finished.
func (a *App) cut(ctx context.Context) {
	for _, s := range []struct {
		group, topic string
		stage        submission.Stage
		owned        map[int32]int64
	}{
		{dispatch.Group, dispatch.Topic, submission.StageDispatch, a.dispatch.Owned()},
		{delivery.Group, delivery.Topic, submission.StageDelivery, a.delivery.Owned()},
	} {
		if len(s.owned) == 0 {
			continue
		}
		committed, err := a.bus.Committed(ctx, s.group, s.topic)
		if err != nil {
			return // the bus says so by itself
		}
		for p, epoch := range s.owned {
			if int(p) >= len(committed) || committed[p] <= 0 {
				continue
			}
			// Only an owner whose every event took effect may take bytes away. No
			// replica's projection needs them: what is committed stands in events.
			if ok, err := a.ledger.Owns(ctx, s.stage, p, epoch); err != nil || !ok {
				continue
			}
			below := committed[p]
			if s.topic == status.TopicSubmissions {
				below = min(below, a.store.CountedBelow(p))
			}
			a.deleteBelow(ctx, s.topic, p, below)
		}
	}
}

// count tells how many submissions were accepted, as far as dispatch has
// finished them, so that they can be cut.
func (a *App) count(ctx context.Context) {
	owned := a.dispatch.Owned()
	if len(owned) == 0 {
		return
	}
	committed, err := a.bus.Committed(ctx, dispatch.Group, dispatch.Topic)
	if err != nil {
		return // the bus says so by itself
	}
	for p, epoch := range owned {
		if int(p) >= len(committed) || committed[p] <= 0 {
			continue
		}
		if err := a.countPartition(ctx, p, epoch, committed[p]); err != nil && ctx.Err() == nil {
			a.logger.Warn("accepted submissions could not be counted, trying again", "partition", p, "reason", fault.Of(err).Reason)
		}
	}
}

func (a *App) countPartition(ctx context.Context, p int32, epoch, below int64) error {
	for {
		// So everything is projected that was said of what is committed.
		if ok, err := a.ledger.Owns(ctx, submission.StageDispatch, p, epoch); err != nil || !ok {
			return err
		}
		t, err := a.projector.Tally(ctx, p, below)
		if err != nil || t == nil {
			return err
		}
		for _, u := range t.Untold {
			a.logger.Error("a submission was accepted, and dispatch has passed it without a word; its record is kept, and the next start of all routers takes it up",
				"submission", u.Submission, "partition", p, "offset", u.Offset, "land", u.Land, "service", u.Service)
		}
		ev := submission.Event{ID: submission.NewEventID(submission.EventCounted, uuid.Nil, strconv.Itoa(int(p)), strconv.FormatInt(t.From, 10), strconv.FormatInt(t.To, 10)),
			Type: submission.EventCounted, At: a.now().UTC(), Stage: submission.StageDispatch, Epoch: epoch, Counted: t}
		if err := a.ledger.Append(ctx, p, ev); err != nil {
			return err
		}
	}
}

func (a *App) deleteBelow(ctx context.Context, topic string, partition int32, offset int64) {
	if err := a.bus.DeleteBelow(ctx, topic, partition, offset); err != nil && ctx.Err() == nil {
		a.logger.Warn("finished records could not be deleted, trying again", "topic", topic, "partition", partition, "reason", fault.Of(err).Reason)
	}
}

// tidying is what is done every hour. All of it asks the account what is needed,
// so the account has to be complete first.
type tidying struct {
	*App
	at time.Time
}

func (a tidying) run(ctx context.Context) {
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"waiting for the projection", a.projector.WaitAsked},
		{"ending proposals whose time has passed", a.expireProposals},
		{"cutting dead letters and unassigned records", a.cutHeld},
		{"forgetting old claims", a.forgetClaims},
		{"destroying day keys", a.destroyDays},
		{"sweeping blobs", a.sweep},
		{"reconciling", a.reconcile},
	} {
		if err := step.do(ctx); err != nil {
			if ctx.Err() == nil {
				a.logger.Error("tidying up failed, trying again", "step", step.what, "error", fault.Of(err).Error())
			}
			return
		}
	}
}

// reconcile counts what the store has against what was accepted, so that a row
// that is lost shows in the metric.
func (a tidying) reconcile(ctx context.Context) error {
	r, err := a.projector.Reconcile(ctx, status.ReconcileFilter{})
	if err == nil && !r.Balanced() {
		a.logger.Error("the account does not add up; router reconcile says more", "difference", r.Difference, "named", len(r.Differing))
	}
	return err
}

// cutHeld deletes dead letters and unassigned records below the lowest that the
// account refers to. What it does not refer to is kept for a day: a record is
// appended before its event.
func (a tidying) cutHeld(ctx context.Context) error {
	low := map[string][]int64{}
	for _, topic := range []string{bus.TopicDeadLetters, bus.TopicUnassigned} {
		at, err := a.bus.OffsetsAt(ctx, topic, a.at.Add(-orphanAge))
		if err != nil {
			return err
		}
		low[topic] = at
	}
	// References are read after the offsets.
	if err := a.projector.WaitAsked(ctx); err != nil {
		return err
	}
	err := a.store.Held(ctx, a.since(a.router.Retention.RefusedDays), a.since(a.router.Retention.EditedDays), func(h submission.Held) {
		if at := low[h.Topic]; h.Partition >= 0 && int(h.Partition) < len(at) {
			at[h.Partition] = min(at[h.Partition], h.Offset)
		}
	})
	if err != nil {
		return err
	}
	for topic, at := range low {
		for p := range a.dispatch.Owned() {
			if int(p) < len(at) {
				a.deleteBelow(ctx, topic, p, at[p])
			}
		}
	}
	return nil
}

// since is so many days ago; with 0 the beginning of time.
func (a tidying) since(days int) time.Time {
	if days == 0 {
		return time.Time{}
	}
	return a.at.AddDate(0, 0, -days)
}

// expireProposals lets the account say which proposals nobody approved in time.
// One replica does it: the owner of partition 0.
func (a tidying) expireProposals(ctx context.Context) error {
	if _, ok := a.dispatch.Owned()[0]; !ok {
		return nil
	}
	n, err := console.ExpireProposals(ctx, a.store, a.bus, a.at)
	if n > 0 {
		a.logger.Info("proposals of edits have expired", "proposals", n)
	}
	return err
}

// forgetClaims ends claims that are older than their retention. From then on the
// account answers for their keys, see intake.Deps.Accounts.
func (a tidying) forgetClaims(ctx context.Context) error {
	if a.router.Retention.ClaimsDays == 0 {
		return nil
	}
	// Every replica stops counting a claim by its time before the first one cuts.
	before := a.since(a.router.Retention.ClaimsDays).Add(-orphanAge)
	a.claims.Forget(before)
	at, err := a.bus.OffsetsAt(ctx, bus.TopicClaims, before)
	if err != nil {
		return err
	}
	for p := range a.dispatch.Owned() {
		if int(p) < len(at) {
			a.deleteBelow(ctx, bus.TopicClaims, p, at[p])
		}
	}
	return nil
}

// destroyDays destroys the keys of days whose payload's retention is over, and
// learns what others have destroyed. A day with a submission that is not
// finished keeps its key. One replica does it: the owner of partition 0.
func (a tidying) destroyDays(ctx context.Context) error {
	days := a.router.Retention.PayloadDays
	if days == 0 {
		return nil
	}
	if err := a.keeper.Refresh(ctx); err != nil {
		return err
	}
	if _, ok := a.dispatch.Owned()[0]; !ok {
		return nil
	}
	last := a.since(days).UTC().Format(time.DateOnly)
	for land, list := range a.keeper.Days() {
		for _, day := range list {
			if day >= last {
				break // the list is sorted
			}
			if err := a.destroyDay(ctx, land, day); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a tidying) destroyDay(ctx context.Context, land submission.Land, day string) error {
	began, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return nil //nolint:nilerr // not a day: nothing of ours
	}
	// A key is of the day its submission was posted; the time of acceptance is
	// that of the first claim, which at midnight may be the day before.
	busy, err := a.store.UnfinishedOf(ctx, land, began.AddDate(0, 0, -1), began.AddDate(0, 0, 1))
	if err != nil || busy {
		return err
	}
	n, err := a.keeper.Destroy(ctx, land, day)
	if n > 0 {
		a.logger.Info("the keys of a day were destroyed: its payload cannot be read any more", "land", land, "day", day, "keys", n)
	}
	return err
}

// sweep removes blobs that no submission names, and those of destroyed days.
func (a tidying) sweep(ctx context.Context) error {
	n, err := a.vault.Sweep(ctx, a.at.Add(-orphanAge), a.wanted(ctx))
	if n > 0 {
		a.logger.Info("blobs swept that nothing needs", "blobs", n)
	}
	return err
}

// wanted says whether an append's blobs are still needed.
func (a tidying) wanted(ctx context.Context) func(submissionID, appendID string) (bool, error) {
	days := a.keeper.Days()
	return func(submissionID, appendID string) (bool, error) {
		id, err := uuid.Parse(submissionID)
		if err != nil {
			return true, nil // not ours to judge
		}
		acct, err := a.store.Get(ctx, id)
		switch {
		case errors.Is(err, status.ErrNotFound):
		case err != nil:
			return true, err
		case !acct.Copied:
			return true, nil // which append counts is not decided yet
		case acct.Append.String() == appendID:
			day := acct.AcceptedAt.UTC().Format(time.DateOnly)
			gone := a.router.Retention.PayloadDays > 0 && acct.State.Final() && !slices.Contains(days[acct.Land], day) &&
				acct.AcceptedAt.Before(a.since(a.router.Retention.PayloadDays))
			return !gone, nil
		}
		// A refused record keeps what is large of it in blobs too.
		refusal, err := uuid.Parse(appendID)
		if err != nil {
			return true, nil
		}
		return a.store.RefusedFrom(ctx, refusal, a.since(a.router.Retention.RefusedDays))
	}
}

// checkpoint signs the running hash of every partition of events that this
// process dispatches for, so that tampering shows.
func (a *App) checkpoint(ctx context.Context) {
	for partition, epoch := range a.dispatch.Owned() {
		err := a.projector.Checkpoint(ctx, partition, func(ctx context.Context, ev submission.Event) error {
			ev.Stage, ev.Epoch = submission.StageDispatch, epoch
			return a.ledger.Append(ctx, partition, ev)
		})
		if err != nil && ctx.Err() == nil {
			a.logger.Warn("a checkpoint could not be written, trying again", "partition", partition, "reason", fault.Of(err).Reason)
		}
	}
}
