package cli

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weiche/internal/console"
	"weiche/internal/jobs"
	"weiche/internal/status"
	"weiche/internal/submission"
)

func (e *env) dlq() *cobra.Command {
	cmd := &cobra.Command{Use: "dlq", Short: "Dead letters and unassigned submissions: list, show, redrive, edit, close"}
	cmd.AddCommand(e.dlqList(), e.dlqShow(), e.dlqRedrive(), e.dlqClose(), e.dlqReroute(), e.dlqJobs(), e.dlqSay(jobs.Stop), e.dlqSay(jobs.Resume),
		e.dlqEdit(), e.dlqProposals(), e.dlqDiff(), e.dlqVerdict("approve", "Let a proposed edit take effect, as a second operator"),
		e.dlqVerdict("reject", "End a proposed edit without effect; by who proposed it, take it back"))
	return cmd
}

// letters are the flags that say which letters are meant.
type letters struct {
	state, land, service, destination, reason string
	older                                     time.Duration
}

func (l *letters) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.land, "land", "", "two digits")
	f.StringVar(&l.service, "service", "", "LeiKa key")
	f.StringVar(&l.destination, "destination", "", "destination, as it stands in router destinations")
	f.StringVar(&l.reason, "reason", "", "reason")
	f.DurationVar(&l.older, "older", 0, "dead for longer than this, such as 24h")
}

func (l *letters) check() error {
	if l.land != "" && l.land != string(submission.LandNone) {
		if _, err := submission.ParseLand(l.land); err != nil {
			return usageError{fmt.Errorf("--land: %w", err)}
		}
	}
	if l.service != "" {
		if _, err := submission.ParseService(l.service); err != nil {
			return usageError{fmt.Errorf("--service: %w", err)}
		}
	}
	if l.older < 0 {
		return usageError{errors.New("--older is a duration such as 24h")}
	}
	return nil
}

func (l *letters) values() url.Values {
	q := url.Values{}
	for k, v := range map[string]string{"land": l.land, "service": l.service, "destination": l.destination, "reason": l.reason} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if l.older > 0 {
		q.Set("older", l.older.String())
	}
	return q
}

func (e *env) dlqList() *cobra.Command {
	var which letters
	var by string
	var limit int
	list := &cobra.Command{
		Use:   "list",
		Short: "List what is dead (or unassigned, or was refused on an intake topic), the oldest first, or count it",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, ok := map[string]string{"dead": "dead-letters", "unassigned": "unassigned", "refused": "refusals"}[which.state]
			if !ok {
				return usageError{fmt.Errorf("--state is dead, unassigned or refused")}
			}
			if err := which.check(); err != nil {
				return err
			}
			if limit < 1 || limit > status.MaxLimit {
				return usageError{fmt.Errorf("--limit is a number from 1 to %d", status.MaxLimit)}
			}
			if by != "" && (!status.By(by).Known() || which.state == "refused") {
				return usageError{errors.New("--by is cause, destination, service, land or age, of what is dead or unassigned")}
			}
			q := which.values()
			ops, err := e.operations()
			if err != nil {
				return err
			}
			if by != "" {
				q.Set("by", by)
				return e.groups(cmd, ops, path+"/groups", q)
			}
			q.Set("limit", fmt.Sprint(limit))
			return e.letters(cmd, ops, path, q)
		},
	}
	which.flags(list)
	f := list.Flags()
	f.StringVar(&which.state, "state", "dead", "dead, unassigned or refused")
	f.StringVar(&by, "by", "", "count them by cause, destination, service, land or age")
	f.IntVar(&limit, "limit", 100, "at most so many, up to 500")
	return list
}

func (e *env) letters(cmd *cobra.Command, ops *operations, path string, q url.Values) error {
	var page console.Page[status.Letter]
	if err := ops.call(cmd.Context(), "GET", path+"?"+q.Encode(), nil, &page); err != nil {
		return err
	}
	if e.printed(page) {
		return nil
	}
	if len(page.Items) == 0 {
		fmt.Fprintln(e.out, "nothing")
		return nil
	}
	e.table("SINCE\tSUBMISSION\tLAND\tSERVICE\tDESTINATION\tREASON\tATTEMPTS\tREDRIVES\tDETAIL", func(w io.Writer) {
		for _, l := range page.Items {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", second(l.At), l.Submission, l.Land, l.Service,
				dash(l.Destination), l.Reason, l.Attempts, l.Redrives, l.Detail)
		}
	})
	if page.Next != "" {
		fmt.Fprintln(e.out, "… and more; count them with --by cause, narrow it by --land, --service, --destination, --reason or --older, or raise --limit")
	}
	return nil
}

// groups prints all groups, the largest first; ages from the youngest.
func (e *env) groups(cmd *cobra.Command, ops *operations, path string, q url.Values) error {
	all := []status.Group{}
	q.Set("limit", fmt.Sprint(status.MaxLimit))
	for {
		var page console.Page[status.Group]
		if err := ops.call(cmd.Context(), "GET", path+"?"+q.Encode(), nil, &page); err != nil {
			return err
		}
		all = append(all, page.Items...)
		if page.Next == "" {
			break
		}
		q.Set("after", page.Next)
	}
	by := status.By(q.Get("by"))
	slices.SortStableFunc(all, func(x, y status.Group) int {
		if by == status.ByAge {
			return slices.Index(status.Ages(), x.Key) - slices.Index(status.Ages(), y.Key)
		}
		return y.Count - x.Count
	})
	if e.printed(all) {
		return nil
	}
	if len(all) == 0 {
		fmt.Fprintln(e.out, "nothing")
		return nil
	}
	e.table(strings.ToUpper(string(by))+"\tCOUNT\tOLDEST\tNEWEST", func(w io.Writer) {
		for _, g := range all {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", dash(g.Key), g.Count, second(g.Oldest), second(g.Newest))
		}
	})
	return nil
}

func (e *env) dlqShow() *cobra.Command {
	show := e.trace()
	tell := show.RunE
	var payload bool
	var reason string
	show.Use, show.Short = "show ID", "The story of one, as `router trace` tells it"
	show.RunE = func(cmd *cobra.Command, a []string) error {
		if !payload {
			return tell(cmd, a)
		}
		id, err := parseID(a[0])
		if err != nil {
			return err
		}
		if strings.TrimSpace(reason) == "" {
			return usageError{errors.New("--reason is missing: why the payload is read; it stands in the account, so name no person in it")}
		}
		ops, err := e.operations()
		if err != nil {
			return err
		}
		var p console.Payload
		if err := ops.about(cmd.Context(), id, "GET", "/payload?"+url.Values{"reason": {reason}}.Encode(), nil, &p); err != nil {
			return err
		}
		e.json = true // it is JSON either way
		e.printed(p)
		return nil
	}
	show.Flags().BoolVar(&payload, "payload", false, "what it carries, as JSON (needs the right payload; the account tells who looked)")
	show.Flags().StringVar(&reason, "reason", "", "with --payload: why (stands in the account; name no person)")
	return show
}
