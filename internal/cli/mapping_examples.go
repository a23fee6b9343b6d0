package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weiche/internal/app"
	"weiche/internal/catalog"
)

// mutationTime bounds what one service's mutations take. It is not reached unless
// something is wrong.
const mutationTime = 2 * time.Minute

func (e *env) mappingTest() *cobra.Command {
	var update bool
	var mutations int
	cmd := &cobra.Command{
		Use:   "test [SERVICE]",
		Short: "Map the examples and mutations of them, validate the messages and compare them with what is expected",
		Long: `Map the examples of one service (its folder's name or its LeiKa key), or of all,
validate every message against its standard's schema and compare it with the
expected one. Standards that are not installed are skipped by name.

Then the examples are changed at the bounds of the form's schema, one place at a
time: optional fields left out (and all at once), lists empty and at their
longest, texts at their longest and shortest, composed letters of DIN 91379,
every value of an enumeration; then what stands around the form: files, their
names and media types, the optional parts. Each must be refused by the form's schema, refused
at the portals' door by a named rule, or give a valid message. What the door
refuses is listed: the form could have said it. Anything else is a fault of the
mapping. Field and kind are printed, no values.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, a []string) error {
			if mutations < 0 {
				return usageError{errors.New("--mutations is 0 or more")}
			}
			lib, sound, err := e.library()
			if err != nil {
				return err
			}
			all := chosen(lib, a)
			if len(all) == 0 {
				return fmt.Errorf("the process library has no service %q", strings.Join(a, ""))
			}
			t := tally{out: e.out}
			for _, p := range all {
				t.examples(p.Run(update))
				if mutations > 0 && !update {
					t.mutations(cmd.Context(), lib, p, mutations)
				}
			}
			fmt.Fprintf(e.out, "%d ok, %d wrong, %d skipped\n", t.ok, t.wrong, t.skipped)
			if t.wrong > 0 || len(a) == 0 && !sound {
				return exit{1}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&update, "update", false, "write the expected messages anew where they differ; nothing is mutated")
	cmd.Flags().IntVar(&mutations, "mutations", 2000, "how many mutations of each example are tried at most; 0 for none")
	return cmd
}

// tally prints what became of examples and their mutations, and counts it.
type tally struct {
	out                io.Writer
	ok, wrong, skipped int
}

func (t *tally) examples(all []catalog.Result) {
	for _, r := range all {
		what := fmt.Sprintf("%s %s as %s", r.Process, r.Example, r.Format)
		switch {
		case r.Skipped != "":
			t.skipped++
			fmt.Fprintf(t.out, "skip  %s: standard %s is not installed\n", what, r.Skipped)
		case r.OK():
			t.ok++
			fmt.Fprintf(t.out, "ok    %s\n", what)
		default:
			t.wrong++
			fmt.Fprintf(t.out, "FAIL  %s\n", what)
			for _, f := range r.Faults {
				fmt.Fprintf(t.out, "      %s\n", f)
			}
		}
	}
}

func (t *tally) mutations(ctx context.Context, lib *app.Library, p *catalog.Process, most int) {
	ctx, stop := context.WithTimeout(ctx, mutationTime)
	defer stop()
	for _, m := range lib.Mutate(ctx, p, most) {
		word, untried := "ok   ", ""
		if len(m.Faults) > 0 {
			word = "FAIL "
			t.wrong++
		}
		if m.Untried > 0 {
			untried = fmt.Sprintf(" (%d more were not tried)", m.Untried)
		}
		fmt.Fprintf(t.out, "%s %s as %s: %s, %d valid, %d refused by the form, %d at the door, %d wrong%s\n",
			word, m.Process, m.Format, plural(m.Tried, "mutation"), m.Valid, m.ByForm, len(m.Door), len(m.Faults), untried)
		t.list("at the door", m.Door)
		t.list("wrong", m.Faults)
	}
}

// list prints some of what was found, the first of each field and text.
func (t *tally) list(what string, all []app.MutationFound) {
	const shown = 10
	all = slices.CompactFunc(slices.Clone(all), func(a, b app.MutationFound) bool { return a.Pointer == b.Pointer && a.Text == b.Text })
	for i, f := range all {
		if i == shown {
			fmt.Fprintf(t.out, "      %s: %d more\n", what, len(all)-shown)
			return
		}
		at := f.Pointer
		if at == "" {
			at = "the form"
		}
		fmt.Fprintf(t.out, "      %s: %s, %s, %s: %s\n", what, f.Example, at, f.Kind, f.Text)
	}
}
