package app

import (
	"errors"
	"fmt"

	"weiche/internal/dispatch"
	"weiche/internal/fault"
	"weiche/internal/intake"
	"weiche/internal/submission"
	"weiche/internal/transform"
	"weiche/internal/transform/standard"
)

// rehearsal finds out for the portals' doors what dispatch would make of a
// submission: decide, map, check, nothing stored and nothing counted.
type rehearsal struct{ app *App }

// Rehearse implements intake.Rehearsal. What the mapping's proof has settled is
// not tried.
func (r rehearsal) Rehearse(m submission.Meta, env *submission.Envelope) []intake.Fault {
	r.app.mu.Lock()
	lib := r.app.lib
	r.app.mu.Unlock()
	for _, j := range r.app.dispatch.Plan(m, env) {
		if faults := lib.rehearse(j); len(faults) > 0 {
			return faults
		}
	}
	return nil
}

// rehearse returns what one message breaks by the submission's fault.
func (l *Library) rehearse(j dispatch.Job) []intake.Fault {
	proc, in, err := l.input(j)
	if err != nil || j.Format.BuiltIn() {
		return nil
	}
	m, err := mapping(proc, j.Format)
	if err != nil {
		return nil
	}
	return l.dryRun(m, in, j)
}

// dryRun maps and checks one message.
func (l *Library) dryRun(m *transform.Mapping, in transform.Input, j dispatch.Job) []intake.Fault {
	if m.Settled() && in.Portal.Key != "" && in.Portal.Name != "" {
		return nil
	}
	in.Outline = true // a file's content changes nothing of the verdict
	xml, err := m.Apply(in)
	if err != nil {
		return unmapped(m, in, err)
	}
	if l.unchecked {
		return nil
	}
	findings, err := l.check(m, j, xml)
	if err != nil || !findings.Refused() {
		return nil
	}
	var out []intake.Fault
	var trace transform.Trace
	for _, f := range findings {
		if f.Warning || !formsFault(f.Reason) {
			continue
		}
		if trace.Origins == nil {
			_, trace, _ = m.Trace(in)
		}
		out = append(out, broken(m.Standard, f, trace)...)
	}
	return out
}

// unmapped says where a mapping gave up.
func unmapped(m *transform.Mapping, in transform.Input, err error) []intake.Fault {
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != fault.ReasonMappingFailed {
		return nil
	}
	if all := transform.Refusals(err); len(all) > 0 {
		out := make([]intake.Fault, len(all))
		for i, r := range all {
			out[i] = intake.Fault{Pointer: r.Pointer(), Text: intake.Text{
				EN: fmt.Sprintf("Rule %s of %s: %s.", r.Rule, m.Standard.Key(), r.EN),
				DE: fmt.Sprintf("Regel %s von %s: %s", r.Rule, m.Standard.Key(), r.DE),
			}}
		}
		return out
	}
	_, trace, _ := m.Trace(in)
	text := intake.Text{
		EN: fmt.Sprintf("Rule mapping-failed of %s: %s.", m.Standard.Key(), m.Rule(f)),
		DE: fmt.Sprintf("Regel mapping-failed von %s: Der Wert fehlt oder lässt sich nicht in die Nachricht übertragen.", m.Standard.Key()),
	}
	return at(trace.Failed, text)
}

// broken says which rule of the standard a message breaks; nothing where nothing
// in the submission has to do with it.
func broken(std *standard.Standard, f standard.Finding, trace transform.Trace) []intake.Fault {
	rule := string(f.Reason)
	if f.Code != "" {
		rule += " (" + f.Code + ")"
	}
	return at(trace.Fields(f.Path), intake.Text{
		EN: fmt.Sprintf("Rule %s of %s at %s: %s.", rule, std.Key(), f.Path, f.Text),
		DE: fmt.Sprintf("Regel %s von %s bei %s ist verletzt.", rule, std.Key(), f.Path),
	})
}

// at tells a fault at each of some fields of the submission; nothing where there are
// none: then the mapping's own words or the configuration are to blame, and the
// submission is accepted for an operator to redrive.
func at(fields []string, text intake.Text) []intake.Fault {
	out := make([]intake.Fault, len(fields))
	for i, f := range fields {
		out[i] = intake.Fault{Pointer: f, Text: text}
	}
	return out
}

// formsFault tells what another submission would mend from what only the router's
// operator can.
func formsFault(r fault.Reason) bool {
	switch r {
	case fault.ReasonSchemaInvalid, fault.ReasonCharacters, fault.ReasonNotWellFormed, fault.ReasonCodeListUnknown, fault.ReasonCodeUnknown, fault.ReasonEmptyElement:
		return true
	}
	return false
}
