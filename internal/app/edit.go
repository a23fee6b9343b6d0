package app

import (
	"context"
	"encoding/json"

	"weiche/internal/config"
	"weiche/internal/console"
	"weiche/internal/fault"
	"weiche/internal/intake"
	"weiche/internal/jobs"
	"weiche/internal/submission"
)

// editor is what the operators' API knows of forms.
type editor struct{ *App }

// form returns the form of a service as it is offered now.
func (e editor) form(m submission.Meta) (form, error) {
	e.mu.Lock()
	lib := e.lib
	e.mu.Unlock()
	if land := lib.Config.Lands[m.Land]; land != nil {
		if offer, ok := land.Offer(m.Service); ok {
			if p, ok := lib.process(offer); ok {
				return form{p}, nil
			}
		}
	}
	return form{}, fault.New(fault.Permanent, fault.ReasonServiceNotOffered, "Land %s does not offer service %s at the moment, so its forms cannot be checked.", m.Land, m.Service)
}

// Check implements console.Editor.
func (e editor) Check(m submission.Meta, data json.RawMessage) ([]console.Fault, error) {
	f, err := e.form(m)
	if err != nil {
		return nil, err
	}
	if p := intake.CheckForm(data, e.router.Intake.Depth); p != nil {
		return nil, &console.Problem{Status: p.Status(), Type: string(p.Reason), Title: p.Title(intake.English), Detail: p.Detail(intake.English)}
	}
	parsed, err := (&submission.Envelope{Data: data}).Form()
	if err != nil {
		return nil, fault.New(fault.Permanent, fault.ReasonMalformed, "The form is not JSON.")
	}
	var out []console.Fault
	for _, x := range f.Check(parsed) {
		out = append(out, console.Fault{Pointer: x.Pointer, Detail: x.Text.EN})
	}
	return out, nil
}

// Name implements console.Editor.
func (e editor) Name(m submission.Meta, at []string) string {
	f, err := e.form(m)
	if err != nil {
		return "/*"
	}
	n := f.Schema.Known(at)
	if n < len(at) {
		return submission.Pointer(append(at[:n:n], "*"))
	}
	return submission.Pointer(at)
}

// Try implements console.Editor.
func (e editor) Try(ctx context.Context, m submission.Meta, env *submission.Envelope) jobs.Trial {
	return trial(e.dispatch.TryForm(ctx, m, env))
}

// Seal implements console.Editor.
func (e editor) Seal(ctx context.Context, m submission.Meta, value []byte, env *submission.Envelope) ([]byte, error) {
	return payload{e.keeper, e.vault}.Edited(ctx, m, value, env)
}

// Edits implements console.Editor. Of a Land whose configuration is refused at
// the moment nobody knows what it asks for: both pairs of eyes.
func (e editor) Edits(land submission.Land) config.Edits {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.lib.Config.Lands[land]; l != nil {
		return l.Edits
	}
	return config.Edits{SecondOperator: true, Expire: config.DefaultEditExpire}
}
