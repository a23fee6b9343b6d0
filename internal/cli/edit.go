package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"weiche/internal/console"
	"weiche/internal/status"
	"weiche/internal/submission"
)

// editing is one `dlq edit`.
type editing struct {
	*env
	ops    *operations
	id     uuid.UUID
	reason string
	file   string // instead of an editor
	dry    bool
	yes    bool
	answer *bufio.Reader
}

func (e *env) dlqEdit() *cobra.Command {
	k := &editing{env: e}
	cmd := &cobra.Command{
		Use: "edit ID --reason TEXT", Short: "Change the form of a dead one, and send it on its way again", Args: args(1, "the submission's id"),
		Long: `Opens the form of a dead submission in $VISUAL or $EDITOR, or takes another one from a file. It is checked as intake checks a form,
then decided, mapped and checked by the XSD without sending anything; what differs is shown, and sent after a question. Where the
Land asks for a second pair of eyes, it becomes a proposal (dlq proposals). The form lies in a file of the machine that the command runs
on while the editor is open, below $XDG_RUNTIME_DIR where that is set.`,
		RunE: func(cmd *cobra.Command, a []string) error {
			var err error
			if k.id, err = parseID(a[0]); err != nil {
				return err
			}
			if strings.TrimSpace(k.reason) == "" {
				return usageError{errors.New("--reason is missing; it stands in the account, so name no person in it")}
			}
			if k.ops, err = e.operations(); err != nil {
				return err
			}
			k.answer = bufio.NewReader(e.in)
			return k.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&k.reason, "reason", "", "why (stands in the account; name no person)")
	f.StringVar(&k.file, "file", "", "take the whole form from this file instead of an editor")
	f.BoolVar(&k.dry, "dry-run", false, "check it and show what differs, and send nothing")
	f.BoolVar(&k.yes, "yes", false, "send it without asking")
	return cmd
}

func (k *editing) run(ctx context.Context) error {
	var p console.Payload
	if err := k.ops.about(ctx, k.id, "GET", "/payload?"+url.Values{"reason": {k.reason}}.Encode(), nil, &p); err != nil {
		return err
	}
	if p.Envelope == nil {
		return errors.New("the router shows no form of it")
	}
	text := p.Envelope.Data
	for {
		edited, err := k.form(ctx, text)
		if err != nil {
			return err
		}
		preview, err := k.check(ctx, p, edited)
		var refused refusal
		if errors.As(err, &refused) && k.file == "" && refused.mendable() {
			fmt.Fprintln(k.err, "router: "+err.Error())
			if k.ask("Edit it again?") {
				text = edited
				continue
			}
		}
		if err != nil {
			return err
		}
		return k.send(ctx, p, edited, preview)
	}
}

// form returns the whole form as it shall be.
func (k *editing) form(ctx context.Context, text json.RawMessage) (json.RawMessage, error) {
	if k.file != "" {
		b, err := os.ReadFile(k.file)
		if err == nil && !json.Valid(b) {
			err = fmt.Errorf("%s is not JSON", k.file)
		}
		return b, err
	}
	name := os.Getenv("VISUAL")
	if name == "" {
		name = os.Getenv("EDITOR")
	}
	words := strings.Fields(name)
	if len(words) == 0 {
		return nil, usageError{errors.New("neither VISUAL nor EDITOR is set; name an editor, or the edited form with --file")}
	}
	dir, err := os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "weiche-edit-*") // 0700; without the variable the system's own
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "form.json")
	var pretty bytes.Buffer
	if json.Indent(&pretty, text, "", "  ") != nil {
		pretty.Write(text) // as it was left in the editor before
	}
	if err := os.WriteFile(file, pretty.Bytes(), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], file)...) //nolint:gosec // the operator's own editor
	cmd.Stdin, cmd.Stdout, cmd.Stderr = k.in, k.out, k.err
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the editor %s: %w", words[0], err)
	}
	return os.ReadFile(file)
}

// check shows what differs and lets the router check it.
func (k *editing) check(ctx context.Context, p console.Payload, edited json.RawMessage) (v console.EditPreview, err error) {
	if !json.Valid(edited) {
		return v, refusal{console.Problem{Type: "malformed", Title: "The form is not JSON", Detail: "A bracket, comma or quotation mark is wrong."}}
	}
	before, err := p.Envelope.Form()
	if err != nil {
		return v, err
	}
	after, err := p.Envelope.WithData(edited).Form()
	if err != nil {
		return v, err
	}
	changes := submission.Changes(before, after)
	if !k.json {
		differ(k.out, changes)
	}
	err = k.ops.about(ctx, k.id, "POST", "/edit", console.EditRequest{Revision: p.Revision, Data: edited, Reason: k.reason, Preview: true}, &v)
	return v, err
}

func (k *editing) send(ctx context.Context, p console.Payload, edited json.RawMessage, v console.EditPreview) error {
	if k.dry {
		if !k.printed(v) {
			fmt.Fprintf(k.out, "It is sound and would go to %s%s. Nothing has happened.\n", strings.Join(v.Destinations, ", "),
				map[bool]string{true: " after a second operator has approved it"}[v.SecondOperator])
		}
		return nil
	}
	question := fmt.Sprintf("It is sound. Send it to %s?", strings.Join(v.Destinations, ", "))
	if v.SecondOperator {
		question = "It is sound. Propose it to a second operator?"
	}
	if !k.yes && !k.ask(question) {
		fmt.Fprintln(k.out, "Nothing has happened.")
		return nil
	}
	return k.verdict(ctx, k.ops, k.id, "/edit", console.EditRequest{Revision: p.Revision, Data: edited, Reason: k.reason})
}

func (k *editing) ask(question string) bool {
	fmt.Fprintf(k.err, "%s [y/N] ", question)
	line, _ := k.answer.ReadString('\n')
	return strings.EqualFold(strings.TrimSpace(line), "y")
}

// verdict gives an order about an edit and says what became of it.
func (e *env) verdict(ctx context.Context, ops *operations, id uuid.UUID, path string, in any) error {
	var s console.Edited
	if err := ops.about(ctx, id, "POST", path, in, &s); err != nil {
		return err
	}
	if ops.late {
		fmt.Fprintf(e.err, "router: the order stands, and is not carried out yet; look again with: router trace %s\n", s.ID)
	}
	if e.printed(s) {
		return nil
	}
	if s.Edit != nil {
		fmt.Fprintln(e.out, edit(s.Edit))
	}
	fmt.Fprintf(e.out, "%s is %s %s%s\n", s.ID, map[bool]string{true: "still", false: "now"}[ops.late || s.State == submission.Dead], s.State, because(s.Reason, s.Detail))
	return nil
}

// edit says of an edit what the account says of it.
func edit(ed *submission.Edit) string {
	s := fmt.Sprintf("edit %s by %s: %s, %s", ed.ID, ed.Operator, ed.Reason, fields(ed))
	switch ed.State {
	case submission.EditProposed:
		s += "; waits for a second operator until " + second(ed.Expires)
	case submission.EditDone:
		s += fmt.Sprintf("; revision %d", ed.Revision)
		if ed.By != "" {
			s += fmt.Sprintf(", approved by %s: %s", ed.By, ed.Word)
		}
	case submission.EditDeclined:
		s += "; " + ed.Cause
		if ed.By != "" && ed.Cause != submission.CauseExpired {
			s += fmt.Sprintf(" by %s: %s", ed.By, ed.Word)
		}
	}
	return s
}

func fields(ed *submission.Edit) string {
	s := strings.Join(ed.Fields, " ")
	if ed.More > 0 {
		s += fmt.Sprintf(" and %d more", ed.More)
	}
	return s
}

// differ prints the places where two forms differ.
func differ(w io.Writer, changes []submission.Change) {
	for _, c := range changes {
		at := c.At
		if at == "" {
			at = "/"
		}
		fmt.Fprintln(w, at)
		if c.Old != nil {
			fmt.Fprintf(w, "  - %s\n", c.Old)
		}
		if c.New != nil {
			fmt.Fprintf(w, "  + %s\n", c.New)
		}
	}
}

func (e *env) dlqProposals() *cobra.Command {
	return &cobra.Command{
		Use: "proposals", Short: "List the edits that wait for a second operator, the oldest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ops, err := e.operations()
			if err != nil {
				return err
			}
			var page console.Page[status.Proposal]
			if err := ops.call(cmd.Context(), "GET", fmt.Sprintf("proposals?limit=%d", status.MaxLimit), nil, &page); err != nil {
				return err
			}
			if e.printed(page.Items) {
				return nil
			}
			if len(page.Items) == 0 {
				fmt.Fprintln(e.out, "nothing")
				return nil
			}
			e.table("PROPOSED\tSUBMISSION\tEDIT\tLAND\tSERVICE\tBY\tEXPIRES\tREASON\tFIELDS", func(w io.Writer) {
				for _, p := range page.Items {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", second(p.Edit.At), p.Submission, p.Edit.ID, p.Land, p.Service, p.Edit.Operator,
						second(p.Edit.Expires), p.Edit.Reason, fields(p.Edit))
				}
			})
			return nil
		},
	}
}

// aboutEdit makes a command about one edit of a submission.
func (e *env) aboutEdit(use, short, why string, do func(ctx context.Context, ops *operations, id uuid.UUID, path, reason string) error) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: use + " ID EDIT --reason TEXT", Short: short, Args: args(2, "the submission's id and the edit's id"),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := parseID(a[0])
			if err != nil {
				return err
			}
			edit, err := uuid.Parse(a[1])
			if err != nil {
				return usageError{fmt.Errorf("%q is not an edit's id (a UUID); `router trace` and `router dlq proposals` name it", a[1])}
			}
			if strings.TrimSpace(reason) == "" {
				return usageError{errors.New("--reason is missing; it stands in the account, so name no person in it")}
			}
			ops, err := e.operations()
			if err != nil {
				return err
			}
			err = do(cmd.Context(), ops, id, "/edits/"+edit.String(), reason)
			if errors.Is(err, errUnknown) {
				return fmt.Errorf("the router knows no edit %s of submission %s, or its Land is not this operator's", edit, id)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", why)
	return cmd
}

const standsInTheAccount = "why (stands in the account; name no person)"

func (e *env) dlqDiff() *cobra.Command {
	return e.aboutEdit("diff", "Show what an edit or a proposal changes (needs the right payload; the account tells who looked)", standsInTheAccount,
		func(ctx context.Context, ops *operations, id uuid.UUID, path, reason string) error {
			var d console.Difference
			if err := ops.call(ctx, "GET", "submissions/"+id.String()+path+"?"+url.Values{"reason": {reason}}.Encode(), nil, &d); err != nil {
				return err
			}
			if e.printed(d) {
				return nil
			}
			fmt.Fprintln(e.out, edit(d.Edit))
			differ(e.out, d.Changes)
			return nil
		})
}

func (e *env) dlqVerdict(verb, short string) *cobra.Command {
	return e.aboutEdit(verb, short, standsInTheAccount, func(ctx context.Context, ops *operations, id uuid.UUID, path, reason string) error {
		return e.verdict(ctx, ops, id, path+"/"+verb, map[string]any{"reason": reason})
	})
}
