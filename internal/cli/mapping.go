package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weiche/internal/app"
	"weiche/internal/catalog"
	"weiche/internal/config"
	"weiche/internal/submission"
	"weiche/internal/transform"
)

// provenMapping is what `mapping check` says of one mapping.
type provenMapping struct {
	Process string            `json:"process"`
	Format  submission.Format `json:"format"`
	File    string            `json:"file"`
	transform.Proof
}

func (e *env) mappingCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check [SERVICE]",
		Short: "Say what is proven of the mappings, what each message is checked for, what is refused",
		Long: `Say of each mapping how many rules are proven for every form its schema accepts,
which are left to the check of each message and why, and what is refused with
file and line. What it warns of, such as a fragment that no mapping uses, refuses
nothing. Exit code 1 when something is refused.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, a []string) error {
			cfg, lib, problems := e.everything()
			if lib == nil {
				fmt.Fprintln(e.err, problems)
				return exit{1}
			}
			var proven []provenMapping
			for _, p := range chosen(lib, a) {
				for _, f := range p.Formats {
					if m := p.Mappings[f]; m != nil {
						proven = append(proven, provenMapping{p.ID, f, m.File, m.Proof()})
					}
				}
			}
			// Of one service's mappings, the others' warnings are noise.
			services := filepath.Join(cfg.Dir, "services") + string(filepath.Separator)
			if list := chosen(lib, a); len(a) > 0 && len(list) > 0 {
				services += list[0].ID + string(filepath.Separator)
			}
			warnings := slices.DeleteFunc(slices.Clone(problems), func(p config.Problem) bool {
				return p.Severity != config.Warning || !strings.HasPrefix(p.File, services)
			})
			refused := slices.DeleteFunc(problems, func(p config.Problem) bool { return p.Severity != config.Error })
			if !e.printed(map[string]any{"mappings": proven, "warnings": warnings, "refused": refused}) {
				e.provenInWords(proven, warnings, refused)
			}
			if len(refused) > 0 {
				return exit{1}
			}
			return nil
		},
	}
}

func (e *env) provenInWords(proven []provenMapping, warnings, refused config.Problems) {
	for _, m := range proven {
		fmt.Fprintf(e.out, "%s as %s: proven %d, checked per message %d\n", m.Process, m.Format, m.Proven, len(m.Open))
		for _, o := range m.Open {
			fmt.Fprintf(e.out, "  %s: %s\n    %s\n", lineOf(o.Line, o.Fragment), o.Rule, o.Reason)
		}
	}
	for _, p := range warnings {
		fmt.Fprintln(e.out, p)
	}
	for _, p := range refused {
		fmt.Fprintf(e.out, "refused: %s\n", p)
	}
	fmt.Fprintf(e.out, "%s, refused %d\n", plural(len(proven), "mapping"), len(refused))
}

// lineOf names a line of a mapping, and that of the fragment it includes there.
func lineOf(line int, fragment string) string {
	if fragment == "" {
		return fmt.Sprintf("line %d", line)
	}
	return fmt.Sprintf("line %d, fragment %s", line, fragment)
}

// chosen are the processes a command is asked for: one by its folder's name or
// its LeiKa key, or all.
func chosen(lib *app.Library, a []string) []*catalog.Process {
	all := lib.Catalog.Processes()
	if len(a) == 0 {
		return all
	}
	key := strings.TrimPrefix(a[0], "urn:de:fim:leika:leistung:")
	return slices.DeleteFunc(slices.Clone(all), func(p *catalog.Process) bool { return p.ID != key && string(p.Service) != key })
}

func (e *env) mappingCoverage() *cobra.Command {
	return &cobra.Command{
		Use:   "coverage [SERVICE]",
		Short: "Say which optional elements of the standard the form could fill and does not",
		Long: `Say which optional elements and attributes of the standard a mapping leaves out
although the form has a field of such a name. Whether it means the same is for
you to judge.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, a []string) error {
			lib, _, err := e.library()
			if err != nil {
				return err
			}
			out := map[string][]transform.Gap{}
			for _, p := range chosen(lib, a) {
				for _, f := range p.Formats {
					if m := p.Mappings[f]; m != nil {
						out[p.ID+" "+f.String()] = m.Coverage(p.Schema)
					}
				}
			}
			if e.printed(out) {
				return nil
			}
			keys := make([]string, 0, len(out))
			for k := range out {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for _, k := range keys {
				fmt.Fprintf(e.out, "%s: %s left out that the form may fill\n", k, plural(len(out[k]), "element"))
				for _, g := range out[k] {
					fmt.Fprintf(e.out, "  %s: <%s> in %s: %s\n", lineOf(g.Line, g.Fragment), g.Element, g.Path, strings.Join(g.Fields, ", "))
				}
			}
			return nil
		},
	}
}

func (e *env) mappingExplain() *cobra.Command {
	var format string
	var values bool
	cmd := &cobra.Command{
		Use:   "explain SERVICE FILE",
		Short: "Say which field of a submission goes where in the message",
		Long: `Map the submission in a file, as a portal posts it, and say of every text of the
message which field of the submission it comes from. Values are not printed unless
--values asks for them.`,
		Example: "  router mapping explain baugenehmigung config/services/baugenehmigung/examples/rich.json",
		Args:    args(2, "a service and a file"),
		RunE: func(_ *cobra.Command, a []string) error {
			lib, _, err := e.library()
			if err != nil {
				return err
			}
			all := chosen(lib, a[:1])
			if len(all) == 0 {
				return fmt.Errorf("the process library has no service %q", a[0])
			}
			p := all[0]
			in, violations, err := p.ExampleInput(catalog.Example{Name: "explain", File: a[1],
				Authority: submission.Authority{ID: "example", Key: "bab:08115003", Name: "Beispielbehörde"},
				Portal:    transform.PortalInput{Key: "bap:080000000001", Name: "Beispielportal"}})
			if err != nil {
				return err
			}
			for _, v := range violations {
				fmt.Fprintf(e.err, "the form is refused at %q: %s\n", v.Pointer, v.Text)
			}
			if len(violations) > 0 {
				return exit{1}
			}
			return e.explain(p, format, in, values)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "one of the service's formats (default: its first)")
	cmd.Flags().BoolVar(&values, "values", false, "print the values too: they are the applicant's")
	return cmd
}

func (e *env) explain(p *catalog.Process, format string, in transform.Input, values bool) error {
	f := p.Formats[0]
	if format != "" {
		var err error
		if f, err = submission.ParseFormat(format); err != nil {
			return usageError{err}
		}
	}
	m := p.Mappings[f]
	if m == nil {
		return fmt.Errorf("%s has no mapping to %s at hand", p.ID, f)
	}
	_, trace, err := m.Trace(in)
	if err != nil {
		fmt.Fprintf(e.err, "the mapping gives up at %s\n", strings.Join(trace.Failed, ", "))
		return err
	}
	if e.printed(trace.Origins) {
		return nil
	}
	posted, err := document(in)
	if err != nil {
		return err
	}
	for _, o := range trace.Origins {
		from := strings.Join(o.Fields, ", ")
		if from == "" {
			from = o.From
		}
		if from == "" {
			continue // the mapping's own words
		}
		fmt.Fprintf(e.out, "%s → %s (%s)\n", from, o.Path, lineOf(o.Line, o.Fragment))
		switch {
		case o.Content != "":
			fmt.Fprintf(e.out, "    %s\n", o.Content)
		case values && len(o.Fields) == 1:
			fmt.Fprintf(e.out, "    %v\n", valueAt(posted, o.Fields[0]))
		}
	}
	return nil
}

// document is the submission as JSON has it.
func document(in transform.Input) (map[string]any, error) {
	b, err := json.Marshal(in.Envelope)
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	doc["data"] = in.Form
	return doc, nil
}

// valueAt follows a JSON pointer.
func valueAt(v any, pointer string) any {
	for _, part := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		switch x := v.(type) {
		case map[string]any:
			v = x[strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")]
		case []any:
			var i int
			if _, err := fmt.Sscan(part, &i); err != nil || i < 0 || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}
