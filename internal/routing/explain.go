package routing

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Explain decides as Decide does and tells, rule by rule, why. It reads every
// rule of the Land.
func (t *Table) Explain(f Facts) Outcome {
	o := t.Decide(f)
	if f.AssignedAuthority != "" {
		if o.Authority.ID == "" {
			o.step("", false, "An operator assigned %q, but the Land has no authority of this id.", f.AssignedAuthority)
			return o
		}
		o.step("", true, "An operator assigned %s; the rules were not asked.", o.Authority.Name)
	} else {
		t.explainRules(&o)
	}
	if o.Authority.ID != "" {
		t.explainDestinations(&o)
	}
	return o
}

func (o *Outcome) step(rule string, matched bool, text string, args ...any) {
	o.Steps = append(o.Steps, Step{rule, fmt.Sprintf(text, args...), matched})
}

func (t *Table) explainRules(o *Outcome) {
	f := o.Facts
	winners := t.responsible(f)
	covering := make([]*config.Rule, 0, 8)
	elsewhere := 0
	for i := range t.land.Rules {
		if r := &t.land.Rules[i]; f.Region.Within(r.Region) {
			covering = append(covering, r)
		} else {
			elsewhere++
		}
	}
	// In the order in which they count.
	general := func(r *config.Rule) int {
		if slices.Contains(r.Services, f.Service) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(covering, func(a, b *config.Rule) int {
		return cmp.Or(cmp.Compare(len(b.Region), len(a.Region)), cmp.Compare(general(a), general(b)))
	})
	for _, r := range covering {
		won, why := t.verdict(r, winners, f)
		o.step(r.Pos.FileLine(), won, "Region %s: %s. %s", r.Region, t.name(r.Authority), why)
	}
	switch {
	case elsewhere == 1:
		o.step("", false, "1 other rule is for another area.")
	case elsewhere > 1:
		o.step("", false, "%d other rules are for other areas.", elsewhere)
	}
}

func (t *Table) name(authority string) string {
	if a := t.authorities[authority]; a != nil {
		return a.Name
	}
	return authority
}

// verdict says whether a rule is part of the decision, and why or why not.
func (t *Table) verdict(r *config.Rule, winners []entry, f Facts) (bool, string) {
	day := config.DateOf(f.At)
	names, any := slices.Contains(r.Services, f.Service), slices.Contains(r.Services, config.AnyService)
	switch {
	case !names && !any:
		return false, "Not this one: it is for other services (" + services(r.Services) + ")."
	case !r.From.IsZero() && f.At.Before(r.From.Start()):
		return false, fmt.Sprintf("Not this one: it does not hold before %s; asked for %s.", r.From, day)
	case !r.Until.IsZero() && !f.At.Before(r.Until.End()):
		return false, fmt.Sprintf("Not this one: it held until %s; asked for %s.", r.Until, day)
	}
	for _, w := range winners {
		if w.rule != r {
			continue
		}
		if len(winners) > 1 {
			return true, "Responsible, but not alone."
		}
		if names {
			return true, "This rule decides: no rule for a smaller area holds for this service."
		}
		return true, "This rule decides for every service: no rule for a smaller area holds, and none that names this service."
	}
	first := winners[0].rule
	switch {
	case len(first.Region) > len(r.Region):
		return false, fmt.Sprintf("Not this one: a rule for the smaller area %s comes first.", first.Region)
	case !names && slices.Contains(first.Services, f.Service):
		return false, "Not this one: a rule for the same area names this service; this one is for every service."
	}
	return true, "Says the same as the rule that decides."
}

func services(list []submission.Service) string {
	s := make([]string, 0, len(list))
	for i, v := range list {
		if i == 4 {
			s = append(s, fmt.Sprintf("%d more", len(list)-i))
			break
		}
		s = append(s, string(v))
	}
	return strings.Join(s, ", ")
}

func (t *Table) explainDestinations(o *Outcome) {
	f := o.Facts
	ids := t.authorities[o.Authority.ID].For(f.Service)
	if len(ids) == 0 {
		o.step("", false, "%s has no destination for service %s.", o.Authority.Name, f.Service)
	}
	for _, id := range ids {
		d := t.destinations[id]
		if d == nil {
			continue
		}
		at := d.Pos.FileLine()
		switch {
		case d.Test && !f.Test:
			o.step(at, false, "Destination %s: not this one, it takes test submissions only.", id)
			continue
		case !d.Test && f.Test:
			o.step(at, false, "Destination %s: not this one, this is a test submission.", id)
			continue
		}
		format, ok := t.format(f.Service, d)
		if !ok {
			var takes []string
			for _, f := range d.Formats {
				takes = append(takes, f.String())
			}
			o.step(at, false, "Destination %s takes %s; this service cannot be turned into that.", id, strings.Join(takes, ", "))
			continue
		}
		passed := ""
		if format != d.Formats[0] {
			passed = fmt.Sprintf(" (it would rather have %s, which this service cannot be turned into)", d.Formats[0])
		}
		o.step(at, true, "Destination %s gets %s%s.", id, format, passed)
	}
}

// sentences say what a missing decision means.
var sentences = map[fault.Reason]string{
	fault.ReasonNoAuthority:        "No authority is responsible. The submission is held until an operator assigns one.",
	fault.ReasonSeveralAuthorities: "Several authorities are responsible. The submission is held until an operator assigns one of them.",
	fault.ReasonNoDestination:      "The authority has no destination for this service.",
	fault.ReasonNoTestDestination:  "The authority has no test destination for this service, and a test submission goes nowhere else.",
	fault.ReasonNoFormat:           "A destination takes no format that this service can be turned into.",
}

// Explain writes the decision as a page: what was asked, each step, the result.
func (o Outcome) Explain(w io.Writer) {
	f := o.Facts
	test := ""
	if f.Test {
		test = ", a test"
	}
	fmt.Fprintf(w, "Service %s in region %s on %s%s\n\n", f.Service, f.Region, config.DateOf(f.At), test)
	for _, s := range o.Steps {
		mark := "-"
		if s.Matched {
			mark = "+"
		}
		if s.Rule == "" {
			fmt.Fprintf(w, "  %s %s\n", mark, s.Text)
			continue
		}
		fmt.Fprintf(w, "  %s %s\n      %s\n", mark, s.Text, s.Rule)
	}
	if len(o.Steps) > 0 {
		fmt.Fprintln(w)
	}
	if o.Authority.ID != "" {
		fmt.Fprintf(w, "Authority    %s (%s), %s\n", o.Authority.ID, o.Authority.Key, o.Authority.Name)
	}
	for _, c := range o.Candidates {
		fmt.Fprintf(w, "Candidate    %s (%s), %s\n", c.ID, c.Key, c.Name)
	}
	for _, d := range o.Destinations {
		fmt.Fprintf(w, "Destination  %s (%s), as %s\n", d.Destination, d.Adapter, d.Format)
	}
	if o.Reason != "" {
		fmt.Fprintf(w, "Held         %s: %s\n", o.Reason, sentences[o.Reason])
	}
}
