// Package routing decides which authority is responsible for a submission, and
// to which destinations and in which format it goes.
//
// It is pure: facts in, a decision out, with the same answer for the same facts
// for ever. It knows no clock, no Kafka, no file and no payload, and it never
// guesses: where no rule or more than one authority is left, it says so and a
// person decides.
package routing

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Facts are what a decision is made from.
type Facts struct {
	Service submission.Service
	Region  submission.Region
	Land    submission.Land
	Test    bool
	// At is the time the rules are asked for; a rule holds from the first to the
	// last of its days in Europe/Berlin.
	At time.Time
	// AssignedAuthority is the id of an authority that an operator named. It
	// stands above every rule. Empty: the rules decide.
	AssignedAuthority string
}

// Target is one destination of a decision and the format it gets.
type Target struct {
	Destination string // id within its Land
	Adapter     string
	Format      submission.Format
}

// Outcome is a decision, or the reason why there is none.
type Outcome struct {
	Facts        Facts
	Authority    submission.Authority // set as soon as it is known, decided or not
	Destinations []Target             // all or none: empty where Reason is set
	Rule         string               // the rule that decided, as file:line; empty where an operator assigned
	// Reason is empty where everything is decided, else no-authority,
	// several-authorities, no-destination, no-test-destination or no-format.
	Reason     fault.Reason
	Candidates []submission.Authority // where there are several
	Steps      []Step                 // filled by Table.Explain only
}

// Decided says whether everything is known that a delivery needs.
func (o Outcome) Decided() bool { return o.Reason == "" }

// Step is one thing that was looked at, and what came of it.
type Step struct {
	Rule    string // file:line of the rule or destination; may be empty
	Text    string
	Matched bool // it is part of the decision
}

// Table is one Land's rules, made for looking up. Safe for concurrent use.
type Table struct {
	land        *config.Land
	mappable    func(submission.Service, submission.Format) bool
	rules       map[area][]entry
	authorities map[string]*config.Authority
	// destinations by id
	destinations map[string]*config.Destination
}

type area struct {
	service submission.Service
	region  submission.Region
}

// entry is a rule in the index. The times are nanoseconds since 1970, from
// inclusive, until exclusive.
type entry struct {
	rule        *config.Rule
	place       string // file:line
	from, until int64
}

func (e entry) holds(at int64) bool { return e.from <= at && at < e.until }

// New makes the table of a Land. mappable says whether a service can be turned
// into a format now (its mapping is there, its standard installed); nil means
// every format can. The problems are warnings: services that destinations take
// in no format they can be turned into.
func New(land *config.Land, mappable func(submission.Service, submission.Format) bool) (*Table, config.Problems) {
	if mappable == nil {
		mappable = func(submission.Service, submission.Format) bool { return true }
	}
	t := &Table{
		land: land, mappable: mappable,
		rules:        make(map[area][]entry, len(land.Rules)),
		authorities:  make(map[string]*config.Authority, len(land.Authorities)),
		destinations: make(map[string]*config.Destination, len(land.Destinations)),
	}
	for i := range land.Authorities {
		t.authorities[land.Authorities[i].ID] = &land.Authorities[i]
	}
	for i := range land.Destinations {
		t.destinations[land.Destinations[i].ID] = &land.Destinations[i]
	}
	for i := range land.Rules {
		r := &land.Rules[i]
		e := entry{rule: r, place: r.Pos.FileLine(), from: math.MinInt64, until: math.MaxInt64}
		if !r.From.IsZero() {
			e.from = r.From.Start().UnixNano()
		}
		if !r.Until.IsZero() {
			e.until = r.Until.End().UnixNano()
		}
		for _, s := range r.Services {
			k := area{s, r.Region}
			t.rules[k] = append(t.rules[k], e)
		}
	}
	return t, t.unmappable()
}

// Land returns the Land the table was made of.
func (t *Table) Land() *config.Land { return t.land }

// Decide says who is responsible and where the submission goes. It looks up at
// most ten areas, however many rules there are.
func (t *Table) Decide(f Facts) Outcome {
	o := Outcome{Facts: f}
	var authority *config.Authority
	if f.AssignedAuthority != "" {
		if authority = t.authorities[f.AssignedAuthority]; authority == nil {
			o.Reason = fault.ReasonNoAuthority
			return o
		}
	} else {
		holding := t.responsible(f)
		if len(holding) == 0 {
			o.Reason = fault.ReasonNoAuthority
			return o
		}
		o.Rule = holding[0].place
		if len(holding) > 1 {
			o.Reason = fault.ReasonSeveralAuthorities
			o.Rule = ""
			for _, e := range holding {
				if a := t.authorities[e.rule.Authority]; a != nil {
					o.Candidates = append(o.Candidates, a.Authority)
				}
			}
			return o
		}
		if authority = t.authorities[holding[0].rule.Authority]; authority == nil {
			o.Reason = fault.ReasonNoAuthority
			return o
		}
	}
	o.Authority = authority.Authority
	for _, id := range authority.For(f.Service) {
		d := t.destinations[id]
		if d == nil || d.Test != f.Test {
			continue
		}
		format, ok := t.format(f.Service, d)
		if !ok {
			// Some of the destinations would be a loss nobody sees.
			o.Destinations, o.Reason = nil, fault.ReasonNoFormat
			return o
		}
		o.Destinations = append(o.Destinations, Target{d.ID, d.Adapter, format})
	}
	if len(o.Destinations) == 0 {
		o.Reason = fault.ReasonNoDestination
		if f.Test {
			o.Reason = fault.ReasonNoTestDestination
		}
	}
	return o
}

// responsible returns the rules that decide, one for each authority that is
// left: of the most precise area that has a rule holding at the time.
func (t *Table) responsible(f Facts) []entry {
	// The nanoseconds of years that int64 cannot hold do not occur: times are
	// when something was accepted.
	at := f.At.UnixNano()
	for _, n := range [...]int{12, 9, 5, 3, 2} {
		if n > len(f.Region) {
			continue
		}
		for _, service := range [...]submission.Service{f.Service, config.AnyService} {
			rules := t.rules[area{service, f.Region[:n]}]
			if len(rules) == 1 && rules[0].holds(at) {
				return rules // nearly always; nothing to copy
			}
			var holding []entry
			for _, e := range rules {
				if e.holds(at) && !slices.ContainsFunc(holding, func(h entry) bool { return h.rule.Authority == e.rule.Authority }) {
					holding = append(holding, e)
				}
			}
			if len(holding) > 0 {
				return holding
			}
		}
	}
	return nil
}

// format returns the first format that the destination takes and the service
// can be turned into.
func (t *Table) format(s submission.Service, d *config.Destination) (submission.Format, bool) {
	for _, f := range d.Formats {
		if t.mappable(s, f) {
			return f, true
		}
	}
	return submission.Format{}, false
}

// unmappable warns, once a service, of destinations that it cannot reach.
func (t *Table) unmappable() (out config.Problems) {
	type found struct {
		at    config.Pos
		names []string
	}
	type pair struct {
		authority string
		service   submission.Service
	}
	lost, seen := map[submission.Service]*found{}, map[pair]bool{}
	for r, s := range t.land.Reach() {
		a := t.authorities[r.Authority]
		if a == nil || seen[pair{a.ID, s}] {
			continue
		}
		seen[pair{a.ID, s}] = true
		for _, id := range a.For(s) {
			d := t.destinations[id]
			if d == nil {
				continue
			}
			if _, ok := t.format(s, d); ok {
				continue
			}
			if lost[s] == nil {
				lost[s] = &found{at: d.Pos}
			}
			if !slices.Contains(lost[s].names, id) {
				lost[s].names = append(lost[s].names, id)
			}
		}
	}
	for _, o := range t.land.Services {
		f := lost[o.Service]
		if f == nil {
			continue
		}
		more := ""
		if n := len(f.names) - 5; n > 0 {
			f.names, more = f.names[:5], fmt.Sprintf(" and %d more", n)
		}
		out = append(out, f.at.Warning("service %s cannot be turned into any format taken by %s%s; its submissions there cannot be delivered", o.Service, strings.Join(f.names, ", "), more))
	}
	return out
}
