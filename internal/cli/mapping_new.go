package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weiche/internal/transform"
	"weiche/internal/transform/standard"
)

func (e *env) mappingNew() *cobra.Command {
	var std, message, form, out string
	var force bool
	cmd := &cobra.Command{
		Use:   "new --standard NAME/VERSION --message NAME --form FILE",
		Short: "Write a first draft of a mapping from a form to a message",
		Long: `Write a first draft of a mapping: the elements that the standard requires, in its
order, with the message's head, fixed values and lists of codes filled in, and
the fields of the form where their names fit. Of a choice the alternatives stand
that the form has fields for, else the first, the others as comments. What is
required and has no field is a comment with its type; fields without a place are
listed at the top.

Name the file in the process's formats, and "router mapping check" says what is
left to do, with file and line.`,
		Example: "  router mapping new --standard antrag/1.0 --message antrag --form config/services/sondernutzung/form.schema.json --out draft.xml",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if std == "" || message == "" || form == "" {
				return usageError{errors.New("--standard, --message and --form are needed")}
			}
			draft, err := e.draft(std, message, form)
			if err != nil {
				return err
			}
			if err := e.writeDraft(draft.XML, out, force); err != nil {
				return err
			}
			fmt.Fprintf(e.err, "%s filled in, %d missing, %s of the form without a place\n", plural(draft.Filled, "value"), draft.Missing, plural(len(draft.Unplaced), "field"))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&std, "standard", "", "name/version, as `standards list` shows it")
	f.StringVar(&message, "message", "", "the message's name in the standard")
	f.StringVar(&form, "form", "", "the form's JSON Schema")
	f.StringVar(&out, "out", "", "file to write (default: standard output)")
	f.BoolVar(&force, "force", false, "overwrite the file of --out")
	return cmd
}

func (e *env) draft(std, message, form string) (*transform.Draft, error) {
	s, err := e.installedStandard(std)
	if err != nil {
		return nil, err
	}
	schema, problems := transform.LoadFormSchema(form)
	if schema == nil {
		for _, p := range problems {
			fmt.Fprintln(e.err, p)
		}
		return nil, fmt.Errorf("the form's schema %s cannot be used; it is a JSON Schema 2020-12 in one file", form)
	}
	draft, err := transform.NewDraft(s, message, schema)
	var unknown *transform.MessageError
	if errors.As(err, &unknown) {
		return nil, usageError{err}
	}
	return draft, err
}

// installedStandard finds a standard by name/version.
func (e *env) installedStandard(key string) (*standard.Standard, error) {
	installed, err := e.installedStandards()
	if err != nil {
		return nil, err
	}
	name, version, _ := strings.Cut(key, "/")
	if s, ok := installed.Get(name, version); ok && len(s.Schemas) > 0 {
		return s, nil
	}
	var all []string
	for _, s := range installed.List() {
		if len(s.Schemas) > 0 {
			all = append(all, s.Key())
		}
	}
	return nil, usageError{fmt.Errorf("the standard %q is not installed; there are %s (router standards import DIR|ZIP brings others)", key, strings.Join(all, ", "))}
}

// writeDraft writes a new file; one that is there stays unless it is told to go.
func (e *env) writeDraft(xml []byte, out string, force bool) error {
	if out == "" {
		_, err := e.out.Write(xml)
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(out, flags, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; --force overwrites it", out)
	}
	if err != nil {
		return fmt.Errorf("the draft cannot be written: %w", err)
	}
	if _, err := f.Write(xml); err != nil {
		_ = f.Close()
		return fmt.Errorf("the draft cannot be written: %w", err)
	}
	return f.Close()
}
