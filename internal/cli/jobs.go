package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"weiche/internal/console"
	"weiche/internal/jobs"
	"weiche/internal/submission"
)

// asked is what the flags of redrive and close ask for: one submission, a
// preview of many, or a job to run.
type asked struct {
	letters
	preview      bool
	run          string
	rate         float64
	force        bool
	reason       string
	asNew        bool
	authority    string
	submissionID string
}

func (k *asked) flags(cmd *cobra.Command) {
	k.letters.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&k.state, "state", "dead", "dead or unassigned, of a preview")
	f.BoolVar(&k.preview, "preview", false, "fix which letters the flags name, and say what would become of them")
	f.StringVar(&k.run, "run", "", "run this previewed job")
	f.Float64Var(&k.rate, "rate", 0, fmt.Sprintf("letters a second, of a job (default %d)", jobs.DefaultRate))
}

// check says what is wanted, and refuses what does not go together.
func (k *asked) check(a []string) error {
	ways := 0
	if len(a) == 1 {
		ways++
		k.submissionID = a[0]
	}
	if k.preview {
		ways++
	}
	if k.run != "" {
		ways++
	}
	if ways != 1 || len(a) > 1 {
		return usageError{errors.New("one of these is wanted: a submission's id, --preview with flags that narrow it, or --run with a job's id")}
	}
	if k.state != string(submission.Dead) && k.state != string(submission.Unassigned) {
		return usageError{errors.New("--state is dead or unassigned")}
	}
	if !k.preview && len(k.values()) > 0 {
		return usageError{errors.New("what narrows the letters goes with --preview; a previewed job is fixed")}
	}
	if k.rate < 0 || k.rate > jobs.MaxRate {
		return usageError{fmt.Errorf("--rate is a number up to %d", jobs.MaxRate)}
	}
	return k.letters.check()
}

func (e *env) dlqRedrive() *cobra.Command {
	var k asked
	cmd := &cobra.Command{
		Use: "redrive ID | --preview | --run JOB", Short: "Send one on its way again, or many as a job", Args: cobra.ArbitraryArgs, // see check
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := k.check(a); err != nil {
				return err
			}
			if k.submissionID != "" {
				return e.deed(cmd, k.submissionID, "redrive", map[string]any{"force": k.force, "asNew": k.asNew})
			}
			kind := jobs.Redrive
			if k.asNew {
				kind = jobs.Anew
			}
			return e.job(cmd, kind, &k)
		},
	}
	k.flags(cmd)
	cmd.Flags().BoolVar(&k.asNew, "as-new", false, "decide and map it anew, one revision higher, also where its deliveries are dead")
	cmd.Flags().BoolVar(&k.force, "force", false, "also what was redriven twice already; a job goes on though most of it dies again")
	return cmd
}

func (e *env) dlqClose() *cobra.Command {
	var k asked
	cmd := &cobra.Command{
		Use: "close ID --reason TEXT | --preview --because TEXT | --run JOB", Short: "End one as rejected, or many as a job", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, a []string) error {
			// Of one, --reason says why; of many it narrows them, as everywhere.
			why := k.reason
			if len(a) == 1 && why == "" {
				why, k.letters.reason = k.letters.reason, ""
			}
			if err := k.check(a); err != nil {
				return err
			}
			if k.run == "" && strings.TrimSpace(why) == "" {
				flag := map[bool]string{true: "--because", false: "--reason"}[k.preview]
				return usageError{fmt.Errorf("%s is missing; it stands in the account, so name no person in it", flag)}
			}
			if k.submissionID != "" {
				return e.deed(cmd, k.submissionID, "close", map[string]any{"reason": why})
			}
			return e.job(cmd, jobs.Close, &k)
		},
	}
	k.flags(cmd)
	cmd.Flags().Lookup("reason").Usage = "of one: why (stands in the account; name no person); with --preview: reason"
	cmd.Flags().StringVar(&k.reason, "because", "", "why (stands in the account; name no person)")
	return cmd
}

func (e *env) dlqReroute() *cobra.Command {
	var k asked
	cmd := &cobra.Command{
		Use: "reroute ID --authority A | --preview --land LL --authority A | --run JOB", Short: "Send one to another authority, or many as a job", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := k.check(a); err != nil {
				return err
			}
			if k.run == "" && k.authority == "" {
				return usageError{errors.New("--authority is missing: the id of an authority of the Land")}
			}
			if k.submissionID != "" {
				return e.deed(cmd, k.submissionID, "assign", map[string]any{"authority": k.authority})
			}
			return e.job(cmd, jobs.Reroute, &k)
		},
	}
	k.flags(cmd)
	cmd.Flags().StringVar(&k.authority, "authority", "", "the authority's id")
	cmd.Flags().BoolVar(&k.force, "force", false, "also what was redriven twice already; a job goes on though most of it dies again")
	return cmd
}

// job previews a job or runs one.
func (e *env) job(cmd *cobra.Command, kind jobs.Kind, k *asked) error {
	ops, err := e.operations()
	if err != nil {
		return err
	}
	if k.run != "" {
		return e.say(cmd, ops, k.run, jobs.Run, map[string]any{"rate": k.rate, "force": k.force})
	}
	f := console.JobFilter{State: submission.State(k.state), Land: k.land, Service: k.service, Destination: k.destination, Reason: k.letters.reason}
	req := console.JobRequest{Kind: kind, Reason: k.reason, Authority: k.authority}
	if k.older > 0 {
		f.Older = k.older.String()
	}
	req.Filter = f
	var v jobs.View
	if err := ops.call(cmd.Context(), "POST", "jobs", req, &v); err != nil {
		return err
	}
	if !e.printed(v) {
		e.forecast(v)
		fmt.Fprintf(e.out, "Nothing has happened yet. To run it: router %s --run %s\n", strings.TrimPrefix(cmd.CommandPath(), "router "), v.ID)
	}
	return nil
}

// say says something to a job and prints it as it is then.
func (e *env) say(cmd *cobra.Command, ops *operations, job string, verb jobs.Verb, in any) error {
	id, err := uuid.Parse(job)
	if err != nil {
		return usageError{fmt.Errorf("%q is not a job's id (a UUID)", job)}
	}
	var v jobs.View
	err = ops.call(cmd.Context(), "POST", "jobs/"+id.String()+"/"+string(verb), in, &v)
	if errors.Is(err, errUnknown) {
		return fmt.Errorf("the router knows no job %s, or it touches a Land that is not this operator's", id)
	}
	if err != nil {
		return err
	}
	if !e.printed(v) {
		fmt.Fprintln(e.out, standing(v))
	}
	return nil
}

func (e *env) dlqSay(verb jobs.Verb) *cobra.Command {
	var rate float64
	var force bool
	var reason string
	short := map[jobs.Verb]string{jobs.Stop: "Stop a job; what it has done stays done", jobs.Resume: "Let a stopped job go on, whoever stopped it"}
	cmd := &cobra.Command{
		Use: string(verb) + " JOB", Short: short[verb], Args: args(1, "the job's id"),
		RunE: func(cmd *cobra.Command, a []string) error {
			ops, err := e.operations()
			if err != nil {
				return err
			}
			return e.say(cmd, ops, a[0], verb, map[string]any{"rate": rate, "force": force, "reason": reason})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	if verb == jobs.Resume {
		cmd.Flags().Float64Var(&rate, "rate", 0, "letters a second (default: as before)")
		cmd.Flags().BoolVar(&force, "force", false, "also what was redriven twice already")
	}
	return cmd
}

func standing(v jobs.View) string {
	s := fmt.Sprintf("%s %s is %s: %d of %d done, %d ordered, %d left as they were", v.Kind, v.ID, v.State, v.Progress.Done, v.Items, v.Progress.Ordered, v.Progress.Left)
	if n := len(v.Words); n > 0 {
		w := v.Words[n-1]
		s += fmt.Sprintf(" (%s by %s %s", w.Verb, w.Operator, second(w.At))
		if w.Reason != "" {
			s += ": " + w.Reason
		}
		s += ")"
	}
	return s
}

// forecast prints what a job is about and what would become of it.
func (e *env) forecast(v jobs.View) {
	fmt.Fprintf(e.out, "Job %s, %s: %d letters", v.ID, v.Kind, v.Items)
	if v.Often > 0 {
		fmt.Fprintf(e.out, ", of which %d were redriven twice already and want --force", v.Often)
	}
	fmt.Fprintln(e.out)
	e.table("COUNT\tLAND\tSERVICE\tDESTINATION\tREASON\tNOW", func(w io.Writer) {
		for _, g := range v.Groups {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", g.Count, g.Land, g.Service, dash(g.Destination), g.Reason, expected(g))
		}
	})
	if v.Ungrouped > 0 {
		fmt.Fprintf(e.out, "and %d in smaller groups\n", v.Ungrouped)
	}
}

// expected says what would become of a group, and what that was found out from.
func expected(g jobs.Group) string {
	var parts []string
	for _, f := range g.Forecast {
		s := map[string]string{
			jobs.WillTry: "the same bytes go to " + f.To + " again", jobs.WillWait: "would wait: " + f.To + " is paused or not configured",
			jobs.WillElsewhere: "the same bytes go to " + g.Destination + " again, though today's rules name " + f.To,
			jobs.WillDecide:    "would go to " + f.To, jobs.WillDie: "would die again", jobs.WillHold: "would be unassigned",
			jobs.WillStay: "stays as it is: another delivery of it is not dead", jobs.WillNothing: "cannot be read; can be closed only", jobs.WillClose: "ends as rejected",
		}[f.What]
		switch {
		case f.Reason != "" && f.What == jobs.WillTry:
			s += " (a new message could not be made: " + f.Reason + ")"
		case f.Reason != "":
			s += ": " + f.Reason
		}
		if len(g.Forecast) > 1 {
			s = fmt.Sprintf("%d × %s", f.Count, s)
		}
		parts = append(parts, s)
	}
	how := "tried all"
	if g.Tried < g.Count {
		how = fmt.Sprintf("tried %d of them", g.Tried)
	}
	return strings.Join(parts, "; ") + " [" + how + "]"
}

func (e *env) dlqJobs() *cobra.Command {
	return &cobra.Command{
		Use: "jobs [JOB]", Short: "List jobs, or tell of one what became of its letters", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, a []string) error {
			ops, err := e.operations()
			if err != nil {
				return err
			}
			if len(a) == 1 {
				return e.report(cmd, ops, a[0])
			}
			var page console.Page[jobs.View]
			if err := ops.call(cmd.Context(), "GET", "jobs", nil, &page); err != nil {
				return err
			}
			if e.printed(page.Items) {
				return nil
			}
			if len(page.Items) == 0 {
				fmt.Fprintln(e.out, "no jobs")
				return nil
			}
			e.table("MADE\tJOB\tKIND\tBY\tSTATE\tITEMS\tDONE\tORDERED\tLEFT", func(w io.Writer) {
				for _, v := range page.Items {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\n", second(v.At), v.ID, v.Kind, v.Operator, v.State, v.Items,
						v.Progress.Done, v.Progress.Ordered, v.Progress.Left)
				}
			})
			return nil
		},
	}
}

// told is a job with its report, for --json.
type told struct {
	jobs.View
	Report jobs.Report `json:"report"`
}

func (e *env) report(cmd *cobra.Command, ops *operations, job string) error {
	id, err := uuid.Parse(job)
	if err != nil {
		return usageError{fmt.Errorf("%q is not a job's id (a UUID)", job)}
	}
	var t told
	err = ops.call(cmd.Context(), "GET", "jobs/"+id.String(), nil, &t.View)
	if err == nil {
		err = ops.call(cmd.Context(), "GET", "jobs/"+id.String()+"/report", nil, &t.Report)
	}
	if errors.Is(err, errUnknown) {
		return fmt.Errorf("the router knows no job %s, or it touches a Land that is not this operator's", id)
	}
	if err != nil || e.printed(t) {
		return err
	}
	fmt.Fprintln(e.out, standing(t.View))
	for _, w := range t.Words {
		line := fmt.Sprintf("  %s  %s by %s", clock(w.At), w.Verb, w.Operator)
		if w.Reason != "" {
			line += ": " + w.Reason
		}
		fmt.Fprintln(e.out, line)
	}
	e.forecast(t.View)
	fmt.Fprint(e.out, "By now:")
	for _, s := range submission.States() {
		if n := t.Report.States[s]; n > 0 {
			fmt.Fprintf(e.out, " %d %s", n, s)
		}
	}
	fmt.Fprintln(e.out)
	for _, f := range t.Report.Failures {
		fmt.Fprintf(e.out, "  left as it was: %s, %s\n", f.Submission, f.Reason)
	}
	if t.Report.More > 0 {
		fmt.Fprintf(e.out, "  and %d more\n", t.Report.More)
	}
	return nil
}
