package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"weiche/internal/app"
	"weiche/internal/console"
	"weiche/internal/submission"
)

// operations calls the operators' API of the router that runs on the data
// directory.
type operations struct {
	address, token string
	data           string // the data directory that names the address
	from           string // where the token comes from
	late           bool   // the last order was taken, and not carried out in time
	http           *http.Client
}

var (
	// errNoRouter says that no router runs on the data directory.
	errNoRouter = errors.New("no router runs")
	// errUnknown says that the router knows no such thing, or does not show it to
	// this operator.
	errUnknown = errors.New("not known")
)

func (e *env) operations() (*operations, error) {
	dir, err := e.dataDir()
	if err != nil {
		return nil, err
	}
	addresses, err := app.ReadAddresses(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w on the data directory %s (there is no %s); name another with --data", errNoRouter, dir, filepath.Join(dir, "addresses.json"))
	}
	if err != nil {
		return nil, err
	}
	token, from := strings.TrimSpace(os.Getenv(operatorToken)), operatorToken
	if token == "" {
		from = filepath.Join(dir, "operator.token")
		b, err := os.ReadFile(from)
		if err != nil {
			return nil, fmt.Errorf("the operator's token cannot be read (%w); set %s to a token of your own", err, operatorToken)
		}
		token = strings.TrimSpace(string(b))
	}
	return &operations{address: addresses.Ops, token: token, data: dir, from: from, http: &http.Client{Timeout: 2 * time.Minute}}, nil
}

// call sends in (nil: nothing) and reads the answer into out.
func (o *operations) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+o.address+"/api/v1/"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+o.token)
	res, err := o.http.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w on %s, the address in %s; start it, or name another data directory with --data", errNoRouter, o.address, filepath.Join(o.data, "addresses.json"))
	}
	if err != nil {
		return fmt.Errorf("the router does not answer: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("the router's answer broke off: %w", err)
	}
	o.late = res.StatusCode == http.StatusAccepted
	switch {
	case res.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("the router on %s does not know the operator's token in %s", o.address, o.from)
	case res.StatusCode == http.StatusNotFound:
		return errUnknown
	case res.StatusCode >= 300:
		var p console.Problem
		if json.Unmarshal(b, &p) == nil && p.Title != "" {
			return refusal{p}
		}
		return fmt.Errorf("the router answered %s", res.Status)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// refusal is the router's no, in its own words.
type refusal struct{ console.Problem }

// Error returns title and detail, and what is wrong with a form line by line.
func (r refusal) Error() string {
	s := r.Title + ": " + strings.TrimSuffix(r.Detail, ".")
	for _, f := range r.Errors {
		s += "\n  " + dash(f.Pointer) + "  " + f.Detail
	}
	return s
}

// mendable says whether another form may be taken.
func (r refusal) mendable() bool {
	return r.Status == http.StatusUnprocessableEntity || strings.HasSuffix(r.Type, "malformed")
}

// printed prints v as JSON where --json asks for it.
func (e *env) printed(v any) bool {
	if !e.json {
		return false
	}
	enc := json.NewEncoder(e.out)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
	return true
}

func (e *env) table(header string, rows func(w io.Writer)) {
	w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, header)
	rows(w)
	w.Flush()
}

// about calls for one submission, and says which one where it is not known.
func (o *operations) about(ctx context.Context, id uuid.UUID, method, deed string, in, out any) error {
	err := o.call(ctx, method, "submissions/"+id.String()+deed, in, out)
	if errors.Is(err, errUnknown) {
		return fmt.Errorf("the router knows no submission %s, or its Land is not this operator's", id)
	}
	return err
}

func parseID(s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil {
		return id, usageError{fmt.Errorf("%q is not a submission's id (a UUID)", s)}
	}
	return id, nil
}

func (e *env) trace() *cobra.Command {
	return &cobra.Command{
		Use:   "trace ID",
		Short: "The whole story of one submission",
		Args:  args(1, "the submission's id"),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := parseID(a[0])
			if err != nil {
				return err
			}
			ops, err := e.operations()
			if err != nil {
				return err
			}
			var s console.Story
			if err := ops.about(cmd.Context(), id, "GET", "", nil, &s); err != nil {
				return err
			}
			if !e.printed(s) {
				tell(e.out, s)
			}
			return nil
		},
	}
}

// tell writes a submission's story as a person reads it.
func tell(w io.Writer, s console.Story) {
	a := s.Account
	fmt.Fprintf(w, "Submission  %s\n", a.ID)
	fmt.Fprintf(w, "  state     %s%s\n", a.State, because(a.Reason, a.Detail))
	fmt.Fprintf(w, "  case      %s\n", a.CaseID)
	fmt.Fprintf(w, "  from      %s, accepted %s\n", a.Portal, clock(a.AcceptedAt))
	fmt.Fprintf(w, "  for       service %s, region %s, Land %s\n", a.Service, a.Region, a.Land)
	if a.Test {
		fmt.Fprintln(w, "  test      yes: it goes to test destinations only")
	}
	fmt.Fprintf(w, "  SHA-512   %s\n", a.SHA512)
	if d := a.Decision; d != nil {
		fmt.Fprintf(w, "  authority %s (%s, %s)\n", d.Authority.Name, d.Authority.ID, d.Authority.Key)
		rule := d.Rule
		if rule == "" {
			rule = "none: an operator named the authority"
		}
		fmt.Fprintf(w, "  rule      %s, configuration %.12s\n", rule, d.ConfigHash)
	}
	for _, d := range a.Deliveries {
		fmt.Fprintf(w, "  delivery  %s\n            %s as %s: %s after %s%s\n", d.ID, d.Destination, d.Format, d.State, plural(d.Attempts, "attempt"), because(d.Reason, d.Detail))
		if d.DueAt != nil {
			fmt.Fprintf(w, "            next attempt %s\n", clock(*d.DueAt))
		}
		if h := d.Held; h != nil {
			fmt.Fprintf(w, "            held in %s\n", place(h))
		}
	}
	if h := a.Held; h != nil {
		fmt.Fprintf(w, "  held in   %s\n", place(h))
	}
	for _, ed := range a.Edits {
		fmt.Fprintf(w, "  %s\n", edit(ed))
	}
	if a.Looks > 0 {
		fmt.Fprintf(w, "  payload   looked at %s\n", map[bool]string{true: "once", false: fmt.Sprint(a.Looks, " times")}[a.Looks == 1])
	}
	fmt.Fprintln(w, "Story")
	if len(s.Events) == 0 {
		fmt.Fprintf(w, "  %s  accepted, not yet taken up by dispatch\n", clock(a.AcceptedAt))
	}
	for _, e := range s.Events {
		ev := e.Event
		line := fmt.Sprintf("  %s  %-11s %s", clock(ev.At), ev.Type, sentence(ev))
		switch {
		case e.Superseded:
			line += "  (from a superseded owner, without effect)"
		case !e.Effective:
			line += "  (a repeat, without effect)"
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

func sentence(ev submission.Event) string {
	var p []string
	add := func(format string, a ...any) { p = append(p, fmt.Sprintf(format, a...)) }
	switch ev.Type {
	case submission.EventAccepted:
		add("from %s", ev.Portal)
	case submission.EventDecided:
		if d := ev.Decision; d != nil {
			add("%s", d.Authority.Name)
			for _, t := range d.Deliveries {
				add("to %s as %s", t.Destination, t.Format)
			}
		}
		if ev.Revision > 1 {
			add("revision %d in place of %d", ev.Revision, ev.Revision-1)
		}
	case submission.EventAssigned:
		add("to %s", ev.Note)
	case submission.EventProposed, submission.EventEdited, submission.EventDeclined, submission.EventLooked:
		p = append(p, onTheDesk(ev)...)
	case submission.EventRedriven:
		if ev.Destination != "" {
			add("%s", ev.Destination)
		}
		if ev.Note != "" {
			add("%s", ev.Note)
		}
	default:
		if ev.Attempt > 0 {
			add("attempt %d", ev.Attempt)
		}
		if ev.Destination != "" {
			add("%s", ev.Destination)
		}
		if ev.Type == submission.EventClosed {
			add("%s", ev.Note)
		} else if r := because(ev.Reason, ev.Detail); r != "" {
			add("%s", strings.TrimPrefix(r, ": "))
		}
		if ev.DueAt != nil {
			add("next %s", clock(*ev.DueAt))
		}
	}
	if ev.Operator != "" {
		add("by %s", ev.Operator)
	}
	return strings.Join(p, ", ")
}

// onTheDesk tells of what operators did with a form.
func onTheDesk(ev submission.Event) (p []string) {
	if ev.Reason != "" {
		p = append(p, ev.Reason)
	}
	if ev.Edit != nil {
		p = append(p, "edit "+ev.Edit.ID.String())
		if len(ev.Edit.Fields) > 0 {
			p = append(p, fields(ev.Edit))
		}
		if ev.Edit.By != "" {
			p = append(p, fmt.Sprintf("approved by %s (%s)", ev.Edit.By, ev.Edit.Word))
		}
	}
	if ev.Note != "" {
		p = append(p, ev.Note)
	}
	return p
}

func place(h *submission.Held) string {
	return fmt.Sprintf("%s, partition %d, offset %d", h.Topic, h.Partition, h.Offset)
}

func because(reason, detail string) string {
	switch {
	case reason == "":
		return ""
	case detail == "":
		return ": " + reason
	}
	return ": " + reason + " (" + detail + ")"
}

func clock(t time.Time) string  { return t.Local().Format("2006-01-02 15:04:05.000") }
func second(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (e *env) assign() *cobra.Command {
	return &cobra.Command{
		Use:   "assign ID AUTHORITY",
		Short: "Name the authority of an unassigned submission, or send a dead one to another authority",
		Args:  args(2, "the submission's id and the authority's id"),
		RunE: func(cmd *cobra.Command, a []string) error {
			return e.deed(cmd, a[0], "assign", map[string]any{"authority": a[1]})
		},
	}
}

// deed gives an operator's order about one submission and says what became of
// it.
func (e *env) deed(cmd *cobra.Command, id, what string, in any) error {
	sid, err := parseID(id)
	if err != nil {
		return err
	}
	ops, err := e.operations()
	if err != nil {
		return err
	}
	var s console.Story
	if err := ops.about(cmd.Context(), sid, "POST", "/"+what, in, &s); err != nil {
		return err
	}
	if ops.late {
		fmt.Fprintf(e.err, "router: the order stands, and is not carried out yet; look again with: router trace %s\n", s.ID)
	}
	if !e.printed(s) {
		fmt.Fprintf(e.out, "%s is %s %s%s\n", s.ID, map[bool]string{true: "still", false: "now"}[ops.late], s.State, because(s.Reason, s.Detail))
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (e *env) destinations() *cobra.Command {
	cmd := &cobra.Command{
		Use: "destinations", Short: "State of every destination", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ops, err := e.operations()
			if err != nil {
				return err
			}
			var page console.Page[console.DestinationView]
			if err := ops.call(cmd.Context(), "GET", "destinations", nil, &page); err != nil {
				return err
			}
			if e.printed(page.Items) {
				return nil
			}
			e.table("DESTINATION\tADAPTER\tSTATE\tSINCE\tWAITING\tOLDEST\tDEAD\tDELIVERED\tLAST FAULT", func(w io.Writer) {
				for _, d := range page.Items {
					st, since, oldest := "open", "-", "-"
					if d.Paused {
						st, since = paused(d.Destination), second(d.Since)
					}
					if !d.OldestWaiting.IsZero() {
						oldest = time.Since(d.OldestWaiting).Round(time.Second).String()
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%d\t%d\t%s\n", d.ID, d.Adapter, st, since, d.States[submission.Waiting], oldest,
						d.States[submission.Dead], d.States[submission.Delivered], dash(d.LastFault))
				}
			})
			return nil
		},
	}
	var reason, during string
	pause := &cobra.Command{
		Use: "pause NAME", Short: "Stop delivering to a destination; what comes for it waits", Args: args(1, "the destination's name"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if d, err := time.ParseDuration(during); during != "" && (err != nil || d <= 0) {
				return usageError{fmt.Errorf("--for: %q is not a duration such as 30m", during)}
			}
			return e.gate(cmd, a[0], "pause", map[string]any{"reason": reason, "for": during})
		},
	}
	pause.Flags().StringVar(&reason, "reason", "", "why")
	pause.Flags().StringVar(&during, "for", "", "how long, such as 30m (default: until resumed)")
	resume := &cobra.Command{
		Use: "resume NAME", Short: "Deliver to a paused destination again", Args: args(1, "the destination's name"),
		RunE: func(cmd *cobra.Command, a []string) error { return e.gate(cmd, a[0], "resume", nil) },
	}
	cmd.AddCommand(pause, resume)
	return cmd
}

// paused says why a destination is paused and when that ends by itself.
func paused(d console.Destination) string {
	st := "paused: " + d.Reason
	end, what := d.NextProbe, "next try"
	if d.PausedBy != "" {
		st = "paused by " + d.PausedBy
		if d.Note != "" {
			st += " (" + d.Note + ")"
		}
		end, what = d.Until, "until"
	}
	if !end.IsZero() {
		st += ", " + what + " " + second(end)
	}
	return st
}

func (e *env) gate(cmd *cobra.Command, name, what string, in any) error {
	ops, err := e.operations()
	if err != nil {
		return err
	}
	var d console.Destination
	if err := ops.call(cmd.Context(), "POST", "destinations/"+url.PathEscape(name)+"/"+what, in, &d); err != nil {
		if errors.Is(err, errUnknown) {
			return fmt.Errorf("there is no destination %q; `router destinations` lists them", name)
		}
		return err
	}
	if !e.printed(d) {
		st := "open"
		if d.Paused {
			st = paused(d)
		}
		fmt.Fprintf(e.out, "%s is %s\n", d.ID, st)
	}
	return nil
}

func (e *env) status() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "The account of states: what was accepted, and where it is", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ops, err := e.operations()
			if err != nil {
				return err
			}
			var a console.Account
			if err := ops.call(cmd.Context(), "GET", "account", nil, &a); err != nil {
				return err
			}
			if e.printed(a) {
				return nil
			}
			e.table("LAND\tSERVICE\tACCEPTED\tIN FLIGHT\tUNASSIGNED\tWAITING\tDEAD\tDELIVERED\tREJECTED", func(w io.Writer) {
				row := func(land, service string, accepted int, s map[submission.State]int) {
					fmt.Fprintf(w, "%s\t%s\t%d", land, service, accepted)
					for _, st := range submission.States() {
						fmt.Fprintf(w, "\t%d", s[st])
					}
					fmt.Fprintln(w)
				}
				for _, c := range a.Services {
					row(string(c.Land), string(c.Service), c.Accepted, c.States)
				}
				row("all", "", a.Accepted, a.States)
			})
			if !a.AddsUp {
				fmt.Fprintln(e.err, "router: the account does not add up; `router status rebuild` makes it anew from the log")
				return exit{1}
			}
			return nil
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use: "rebuild", Short: "Throw the status store away and make it anew from the log", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ops, err := e.operations()
			if err != nil {
				return err
			}
			began := time.Now()
			if err := ops.call(cmd.Context(), "POST", "status/rebuild", nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(e.out, "rebuilt in %s\n", time.Since(began).Round(time.Millisecond))
			return nil
		},
	})
	return cmd
}
