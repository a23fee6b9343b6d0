package cli

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"weiche/internal/status"
	"weiche/internal/submission"
)

func (e *env) reconcile() *cobra.Command {
	var since, until, land, service, format string
	var topics bool
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compare what was accepted with what became of it, by hour, Land and service",
		Long: `Compare what was accepted with what became of it, by hour of acceptance, Land and service; and what was planned for each
destination with what became of that. The exit code is 1 where something differs; what differs is named where that can
be known. Times are RFC 3339, a date, or a duration ago (36h), and are cut to whole hours UTC. Without --since, hours of
more than a day ago that add up are one line. With --from-topics nothing is taken from the store: the account is made anew, the
store is compared with it, what is not at its end must have a record to go on from, and each record that waits or is held
must be of a submission that the account knows.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return usageError{errors.New("--format is table or json")}
			}
			q, err := reconcileQuery(since, until, land, service)
			if err != nil {
				return err
			}
			ops, err := e.operations()
			if err != nil {
				return err
			}
			path := "reconciliation"
			if topics {
				path += "/topics"
				ops.http.Timeout = 0 // reads every topic from its beginning
			}
			var r status.Reconciliation
			if err := ops.call(cmd.Context(), "GET", path+"?"+q.Encode(), nil, &r); err != nil {
				return err
			}
			if e.json = e.json || format == "json"; !e.printed(r) {
				e.reconciled(r)
			}
			if r.Balanced() {
				return nil
			}
			hint := "docs/runbooks/WeicheAccountDiffers.md says what to do"
			if !topics {
				hint = "`router reconcile --from-topics` says whether it is the store or the topics; " + hint
			}
			fmt.Fprintf(e.err, "router: the account does not add up: a difference of %d, %s named; %s\n", r.Difference, plural(len(r.Differing), "submission"), hint)
			return exit{1}
		},
	}
	f := cmd.Flags()
	f.StringVar(&since, "since", "", "accepted in this hour or later")
	f.StringVar(&until, "until", "", "accepted before this hour")
	f.StringVar(&land, "land", "", "two digits")
	f.StringVar(&service, "service", "", "LeiKa key")
	f.StringVar(&format, "format", "table", "table or json")
	f.BoolVar(&topics, "from-topics", false, "make the account anew from the topics alone, and compare the store and the unfinished records with it")
	return cmd
}

func reconcileQuery(since, until, land, service string) (url.Values, error) {
	q := url.Values{}
	for name, v := range map[string]string{"since": since, "until": until} {
		if v == "" {
			continue
		}
		at, err := moment(v)
		if err != nil {
			return nil, usageError{fmt.Errorf("--%s: %w", name, err)}
		}
		q.Set(name, at.UTC().Format(time.RFC3339))
	}
	if land != "" {
		if _, err := submission.ParseLand(land); err != nil && land != string(submission.LandNone) {
			return nil, usageError{fmt.Errorf("--land: %w", err)}
		}
		q.Set("land", land)
	}
	if service != "" {
		if _, err := submission.ParseService(service); err != nil {
			return nil, usageError{fmt.Errorf("--service: %w", err)}
		}
		q.Set("service", service)
	}
	return q, nil
}

// moment reads a time, a date or a duration ago.
func moment(v string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, v); err == nil {
			return at, nil
		}
	}
	if ago, err := time.ParseDuration(v); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time such as 2026-11-22T08:00:00Z, a date or a duration such as 36h", v)
}

func (e *env) reconciled(r status.Reconciliation) {
	e.table("HOUR (UTC)\tLAND\tSERVICE\tACCEPTED\tIN FLIGHT\tUNASSIGNED\tWAITING\tDEAD\tDELIVERED\tREJECTED\tDIFFERENCE", func(w io.Writer) {
		row := func(hour, land, service string, accepted int, s map[submission.State]int, difference int) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d", hour, land, service, accepted)
			for _, st := range submission.States() {
				fmt.Fprintf(w, "\t%d", s[st])
			}
			fmt.Fprintf(w, "\t%d\n", difference)
		}
		accepted, difference, sum := 0, 0, map[submission.State]int{}
		for _, l := range r.Lines {
			hour := l.Hour.Format("2006-01-02 15:04")
			if l.Hours > 1 {
				hour = fmt.Sprintf("since %s, %d hours", hour, l.Hours)
			}
			row(hour, string(l.Land), string(l.Service), l.Accepted, l.States, l.Difference)
			accepted, difference = accepted+l.Accepted, difference+l.Difference
			for st, n := range l.States {
				sum[st] += n
			}
		}
		row("all", "", "", accepted, sum, difference)
	})
	if len(r.Destinations) > 0 {
		fmt.Fprintln(e.out)
		e.table("DESTINATION\tPLANNED\tIN FLIGHT\tWAITING\tDEAD\tDELIVERED\tREJECTED\tSUPERSEDED\tDIFFERENCE", func(w io.Writer) {
			for _, d := range r.Destinations {
				fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", d.Destination, d.Planned, d.States[submission.InFlight], d.States[submission.Waiting],
					d.States[submission.Dead], d.States[submission.Delivered], d.States[submission.Rejected], d.Superseded, d.Difference)
			}
		})
	}
	if len(r.Differing) > 0 {
		fmt.Fprintln(e.out)
		e.table("DIFFERS\tHOUR (UTC)\tLAND\tSERVICE\tWHAT", func(w io.Writer) {
			for _, d := range r.Differing {
				hour := "-"
				if !d.Hour.IsZero() {
					hour = d.Hour.UTC().Format("2006-01-02 15:04")
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.Submission, hour, dash(string(d.Land)), dash(string(d.Service)), d.What)
			}
		})
	}
}
