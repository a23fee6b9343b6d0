package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"weiche/internal/catalog"
	"weiche/internal/dispatch"
	"weiche/internal/fault"
	"weiche/internal/submission"
	"weiche/internal/transform"
)

// Mutated is what became of the mutations of a service's examples in one format:
// refused by the form's schema, refused at the door by a rule with a name, or a
// message valid for its standard. There is no fourth number: what is left is in
// Faults.
type Mutated struct {
	Process string
	Format  submission.Format
	Tried   int
	Untried int // beyond the bounds of number and time
	Valid   int
	ByForm  int
	Door    []MutationFound
	Faults  []MutationFound
}

// MutationFound is one mutation and what was said of it. It names field and kind,
// never a value.
type MutationFound struct {
	Example string
	Pointer string
	Kind    string
	Text    string // the rule, or what went wrong
}

// Mutate changes the examples of a process at the bounds of what its form's
// schema allows, up to most times each, and tries every format that has a
// mapping; then what stands around the form. It ends early with the context.
func (l *Library) Mutate(ctx context.Context, p *catalog.Process, most int) []Mutated {
	var out []Mutated
	var formats []submission.Format
	for _, f := range p.Formats {
		if p.Mappings[f] != nil {
			formats, out = append(formats, f), append(out, Mutated{Process: p.ID, Format: f})
		}
	}
	for _, e := range p.Examples {
		in, violations, err := p.ExampleInput(e)
		if err != nil || len(violations) > 0 {
			continue // the example itself is told to be wrong
		}
		around := envelopes(in)
		all, count := p.Schema.Mutations(in.Form, func(form any) bool { return len(p.ValidateForm(form)) == 0 }, most)
		for n, m := range all {
			if ctx.Err() != nil {
				count -= n
				for i := range out {
					out[i].Untried += count
				}
				break
			}
			refused := len(p.ValidateForm(m.Form)) > 0
			for i, f := range formats {
				out[i].Tried++
				if refused {
					out[i].ByForm++
					continue
				}
				in.Form = m.Form
				found := MutationFound{Example: e.Name, Pointer: m.Pointer, Kind: m.Kind}
				l.judge(p.Mappings[f], in, f, found, &out[i])
			}
		}
		if ctx.Err() == nil {
			for i, f := range formats {
				out[i].Untried += count - len(all)
				for _, c := range around {
					out[i].Tried++
					l.judge(p.Mappings[f], c.in, f, MutationFound{Example: e.Name, Pointer: c.pointer, Kind: c.kind}, &out[i])
				}
			}
		}
	}
	return out
}

// judge brings one mutation to the door and, where it is let in, maps and checks
// it.
func (l *Library) judge(m *transform.Mapping, in transform.Input, f submission.Format, found MutationFound, into *Mutated) {
	wrong := func(text string, args ...any) {
		found.Text = fmt.Sprintf(text, args...)
		into.Faults = append(into.Faults, found)
	}
	defer func() {
		if r := recover(); r != nil {
			wrong("the router panics")
		}
	}()
	j := dispatch.Job{
		Meta:   submission.Meta{ID: in.Submission.ID, Service: in.Submission.Service, Region: in.Submission.Region, Test: in.Submission.Test, AcceptedAt: in.Submission.AcceptedAt},
		Format: f, MessageID: in.Message.ID, CreatedAt: in.Message.CreatedAt,
	}
	if faults := l.dryRun(m, in, j); len(faults) > 0 {
		rule, named := strings.CutPrefix(faults[0].Text.EN, "Rule ")
		if !named || faults[0].Pointer == "" {
			wrong("refused at the door without a rule or a field")
			return
		}
		rule, _, _ = strings.Cut(rule, " ")
		found.Text = rule
		into.Door = append(into.Door, found)
		return
	}
	if _, err := l.checked(m, in, j); err != nil {
		var fe *fault.Error
		if errors.As(err, &fe) {
			wrong("let in at the door, and then %s: %s", fe.Reason, fe.Detail)
		} else {
			wrong("let in at the door, and then: %v", err)
		}
		return
	}
	into.Valid++
}
