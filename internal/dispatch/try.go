package dispatch

import (
	"context"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Trial is what dispatch would make of a submission now.
type Trial struct {
	Decision *submission.Decision // nil: it would be held for an operator
	Reason   fault.Reason         // why it would be held, or die; "" where it would go on its way
	Detail   string
}

// Try decides, maps and checks a submission as a record of its topic would be,
// and writes nothing. Nothing is counted as dispatched.
func (s *Stage) Try(ctx context.Context, m submission.Meta, value []byte) Trial {
	return s.try(ctx, &work{meta: m, rec: &bus.Record{Value: value}})
}

// TryForm is Try for a submission that is not sealed yet.
func (s *Stage) TryForm(ctx context.Context, m submission.Meta, env *submission.Envelope) Trial {
	return s.try(ctx, &work{meta: m, env: env})
}

func (s *Stage) try(ctx context.Context, w *work) Trial {
	w.batch = &batch{Stage: s, cat: *s.catalogue.Load()}
	d, why, detail := w.look()
	if d == nil {
		return Trial{Reason: why, Detail: detail}
	}
	for _, p := range d.Deliveries {
		if _, err := w.xml(ctx, d, p); err != nil {
			f := fault.Of(err)
			return Trial{Decision: d, Reason: f.Reason, Detail: f.Detail}
		}
	}
	return Trial{Decision: d}
}

// Plan decides about a submission that is not accepted yet and returns what its
// messages would be written from; none where it would be held for an operator.
func (s *Stage) Plan(m submission.Meta, env *submission.Envelope) []Job {
	w := &work{batch: &batch{Stage: s, cat: *s.catalogue.Load()}, meta: m}
	d, _, _ := w.look()
	if d == nil {
		return nil
	}
	jobs := make([]Job, len(d.Deliveries))
	for i, p := range d.Deliveries {
		jobs[i] = w.job(context.Background(), d, p, env) // of no record: nothing is opened
	}
	return jobs
}
