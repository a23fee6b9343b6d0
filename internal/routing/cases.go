package routing

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Case is one line of a Land's routing table test: what is asked, and what must
// come of it.
type Case struct {
	Name    string             `yaml:"name"` // for people
	Service submission.Service `yaml:"service"`
	Region  submission.Region  `yaml:"region"`
	At      config.Date        `yaml:"at"` // the day at noon; zero: the time given to Check
	Test    bool               `yaml:"test"`
	Assign  string             `yaml:"assign"` // an authority named by an operator
	Want    Want               `yaml:"want"`
	Pos     config.Pos         `yaml:"-"`
}

// Want is what a case expects. What is left out is not looked at, but a case
// without reason expects a decision.
type Want struct {
	Authority   string            `yaml:"authority"`
	Destination Names             `yaml:"destination"` // one, or a list: all of them, in order
	Format      submission.Format `yaml:"format"`      // of every destination
	Reason      fault.Reason      `yaml:"reason"`
	Candidates  Names             `yaml:"candidates"` // with several-authorities
}

// Names are written as one name or as a list.
type Names []string

// UnmarshalYAML reads one name or a list of names.
func (n *Names) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*n = Names{node.Value}
		return nil
	}
	return node.Decode((*[]string)(n))
}

// LoadCases reads a file of cases. Each fault has its file and line.
func LoadCases(file string) ([]Case, config.Problems) {
	var f struct {
		Cases []Case `yaml:"cases"`
	}
	problems := config.DecodeFile(file, &f)
	if problems.Failed() {
		return nil, problems
	}
	for _, c := range f.Cases {
		if c.Service == "" || c.Region == "" {
			problems = append(problems, c.Pos.Problem("the case lacks service or region"))
		}
		if c.Want.Reason == "" && c.Want.Authority == "" {
			problems = append(problems, c.Pos.Problem("the case expects nothing: want names an authority or a reason"))
		}
		if c.Want.Reason != "" && !slices.Contains(fault.Reasons(), c.Want.Reason) {
			problems = append(problems, c.Pos.Problem("%q is not a reason", c.Want.Reason))
		}
	}
	return f.Cases, problems
}

// Mismatch is a case that did not come out as expected.
type Mismatch struct {
	Case    Case
	Outcome Outcome // explained
	Text    string  // what was expected and what came
}

// String returns "file:line: text".
func (m Mismatch) String() string { return m.Case.Pos.FileLine() + ": " + m.Text }

// Check decides every case and returns those that come out otherwise than
// expected. now stands for the time of cases that name no day.
func (t *Table) Check(cases []Case, now time.Time) []Mismatch {
	var out []Mismatch
	for _, c := range cases {
		at := now
		if !c.At.IsZero() {
			at = c.At.Start().Add(12 * time.Hour)
		}
		f := Facts{Service: c.Service, Region: c.Region, Land: t.land.Key, Test: c.Test, At: at, AssignedAuthority: c.Assign}
		if diffs := c.Want.differs(t.Decide(f)); len(diffs) > 0 {
			name := c.Name
			if name == "" {
				name = fmt.Sprintf("service %s in region %s", c.Service, c.Region)
			}
			out = append(out, Mismatch{c, t.Explain(f), name + ": " + strings.Join(diffs, "; ")})
		}
	}
	return out
}

func (w Want) differs(o Outcome) (diffs []string) {
	differ := func(what, want, got string) {
		if want != got {
			none := func(s string) string {
				if s == "" {
					return "none"
				}
				return s
			}
			diffs = append(diffs, fmt.Sprintf("%s: %s expected, not %s", what, none(want), none(got)))
		}
	}
	differ("reason", string(w.Reason), string(o.Reason))
	if w.Authority != "" {
		differ("authority", w.Authority, o.Authority.ID)
	}
	var got []string
	for _, d := range o.Destinations {
		got = append(got, d.Destination)
		if w.Format.String() != "" {
			differ("format at "+d.Destination, w.Format.String(), d.Format.String())
		}
	}
	if w.Destination != nil {
		differ("destination", strings.Join(w.Destination, ", "), strings.Join(got, ", "))
	}
	if w.Candidates != nil {
		var got []string
		for _, c := range o.Candidates {
			got = append(got, c.ID)
		}
		differ("candidates", strings.Join(w.Candidates, ", "), strings.Join(got, ", "))
	}
	return diffs
}
