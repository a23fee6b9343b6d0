package app

import (
	"context"

	"weiche/internal/delivery"
	"weiche/internal/dispatch"
	"weiche/internal/jobs"
	"weiche/internal/submission"
)

// startJobs follows operators' jobs on dead letters, and runs them while this
// replica owns partition 0 of dispatch.
func (a *App) startJobs() {
	a.jobs = jobs.New(jobs.Options{Log: a.bus, Store: a.store, Projector: a.projector, Foresight: foresight{a.dispatch, a.delivery},
		Owns: func() bool {
			_, ok := a.dispatch.Owned()[0]
			return ok
		}, Logger: a.logger, Reg: a.registry, Now: a.now})
	a.background("following of jobs", a.jobs.Follow)
	a.background("jobs", a.jobs.Run)
}

// foresight asks the stages what would become of a dead letter.
type foresight struct {
	dispatch *dispatch.Stage
	delivery *delivery.Stage
}

// Try implements jobs.Foresight.
func (f foresight) Try(ctx context.Context, m submission.Meta, value []byte) jobs.Trial {
	return trial(f.dispatch.Try(ctx, m, value))
}

func trial(now dispatch.Trial) jobs.Trial {
	out := jobs.Trial{Reason: string(now.Reason), Detail: now.Detail, Unassigned: now.Decision == nil}
	if now.Decision != nil {
		for _, d := range now.Decision.Deliveries {
			out.Destinations = append(out.Destinations, d.Destination)
		}
	}
	return out
}

// Door implements jobs.Foresight.
func (f foresight) Door(destination string) (configured, open bool) {
	for _, d := range f.delivery.Destinations() {
		if d.ID == destination {
			return true, !d.Paused
		}
	}
	return false, false
}
