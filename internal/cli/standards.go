package cli

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"weiche/internal/app"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/foreignxml"
	"weiche/internal/transform/standard"
)

func (e *env) standards() *cobra.Command {
	cmd := &cobra.Command{Use: "standards", Short: "Official standards: import, list, check, remove"}
	cmd.AddCommand(e.standardsImport(), e.standardsList(), e.standardsCheck(), e.standardsRemove())
	return cmd
}

func (e *env) standardsImport() *cobra.Command {
	var with []string
	var from, until string
	imp := &cobra.Command{
		Use:   "import DIR|ZIP|LIST",
		Short: "Install a standard's package (schemas, code lists, Schematron) into the data directory",
		Long: `Install an XRepository package, a folder or a ZIP, into the data directory. It is
checked whole and refused whole; nothing is fetched from a network. A package
may hold several standards; versions stand side by side. A genericode list that
is given alone, or in a package without schemas, serves every standard. A running
router takes it up at once.

References that leave the package (xdomea's do) are looked up in the folders that
--with names, by file name and namespace; so are code lists that the schemas name
and Schematron rules for their namespace. Schematron is kept with the standard
and not run.`,
		Example: `  router standards import XBau-2.6.zip --with xbau-codelisten
  router standards import xdomea-3.1.0 --with xoev
  router standards import dvdv.praefix_51.xml`,
		Args: args(1, "a folder, a ZIP file or a code list"),
		RunE: func(cmd *cobra.Command, a []string) error {
			dir, err := e.dataDir()
			if err != nil {
				return err
			}
			done, err := standard.Import(cmd.Context(), a[0], app.StandardsDir(dir), with, standard.Valid(from, until))
			if err != nil {
				return fmt.Errorf("%s is refused: %w", a[0], err)
			}
			if !e.printed(done) {
				for _, s := range done {
					fmt.Fprintf(e.out, "installed %s/%s: %s, %s; licence: %s\n", s.Name, s.Version, plural(s.Messages, "message"), plural(s.CodeLists, "code list"), s.Licence)
				}
			}
			return e.tellRunning(cmd)
		},
	}
	f := imp.Flags()
	f.StringArrayVar(&with, "with", nil, "a further folder in which references are looked up (code lists, shared schemas)")
	f.StringVar(&from, "valid-from", "", "first day of the standard's time (2026-05-01), where the package does not say it")
	f.StringVar(&until, "valid-until", "", "last day of the standard's time")
	return imp
}

// installedStandards opens what is shipped and what was imported.
func (e *env) installedStandards() (*standard.Installed, error) {
	dir, err := e.dataDir()
	if err != nil {
		return nil, err
	}
	std, problems := standard.Open(filepath.Join(e.config, "standards"), app.StandardsDir(dir))
	for _, p := range problems {
		fmt.Fprintln(e.err, p)
	}
	return std, nil
}

func (e *env) standardsList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "What is installed", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			std, err := e.installedStandards()
			if err != nil {
				return err
			}
			if e.printed(std.List()) {
				return nil
			}
			e.table("STANDARD\tMESSAGES\tCODE LISTS\tVALID\tLICENCE\tTITLE", func(w io.Writer) {
				for _, s := range std.List() {
					fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\n", s.Key(), len(s.MessageNames()), len(s.CodeLists), validity(s), s.Licence, s.Title)
				}
			})
			return nil
		},
	}
}

func validity(s *standard.Standard) string {
	if s.ValidFrom == "" && s.ValidUntil == "" {
		return "-"
	}
	return s.ValidFrom + " – " + s.ValidUntil
}

func (e *env) standardsRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME/VERSION", Short: "Remove an imported standard", Args: args(1, "name/version, as `standards list` shows it"),
		RunE: func(cmd *cobra.Command, a []string) error {
			name, version, ok := strings.Cut(a[0], "/")
			if !ok {
				return usageError{errors.New("expected: name/version, as `standards list` shows it")}
			}
			dir, err := e.dataDir()
			if err != nil {
				return err
			}
			if err := standard.Remove(app.StandardsDir(dir), name, version); err != nil {
				return err
			}
			fmt.Fprintf(e.out, "removed %s\n", a[0])
			return e.tellRunning(cmd)
		},
	}
}

// messageReport is what a check says of one file.
type messageReport struct {
	File     string            `json:"file"`
	Standard string            `json:"standard,omitempty"`
	Refused  bool              `json:"refused"`
	Findings standard.Findings `json:"findings"`
}

func (e *env) standardsCheck() *cobra.Command {
	c := messageChecker{env: e, ids: map[uuid.UUID][sha256.Size]byte{}}
	var productive, test bool
	cmd := &cobra.Command{
		Use:   "check FILE …",
		Short: "Check messages with all rules of their standard: reason, path, line",
		Long: `Check messages with all rules of their standard, as the router does before one
leaves: the XSD, codes against their lists, authority keys, characters (DIN
91379), nachrichtenUUID, the mark of test messages, empty elements. The standard
is told by the message's root element and version. Exit code 1 when a message is
refused; warnings alone are no refusal. No value of a message is printed.

A reason is the router's own word; XBau's official one stands before it. Of
several files it is also checked that no nachrichtenUUID is used twice for
different messages.`,
		Example: `  router standards check message.xml
  router standards check --productive --json outbox/*.xml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			if productive && test {
				return usageError{errors.New("--productive and --test exclude each other")}
			}
			switch {
			case productive:
				c.about.Traffic = standard.Productive
			case test:
				c.about.Traffic = standard.Test
			}
			return c.run(files)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.key, "standard", "", "name/version to check against (default: told by the message)")
	f.StringVar(&c.about.Message, "message", "", "the message that it must be")
	f.BoolVar(&productive, "productive", false, "as a productive message: it must not carry the attribute test")
	f.BoolVar(&test, "test", false, "as a test message: it must carry the attribute test, where the standard has it")
	f.BoolVar(&c.about.RefuseMissingLists, "refuse-missing-lists", false, "refuse codes whose list is not installed, instead of a warning")
	return cmd
}

type messageChecker struct {
	*env
	installed *standard.Installed
	key       string
	about     standard.About
	ids       map[uuid.UUID][sha256.Size]byte
}

func (c *messageChecker) run(files []string) error {
	var err error
	if c.installed, err = c.installedStandards(); err != nil {
		return err
	}
	if cfg, _ := config.Load(c.config, c.environ()); cfg != nil && cfg.Router.Checks.CodeLists == config.CodeListsRefuse {
		c.about.RefuseMissingLists = true
	}
	var reports []messageReport
	refused := false
	for _, file := range files {
		r, err := c.check(file)
		if err != nil {
			return err
		}
		refused = refused || r.Refused
		reports = append(reports, r)
	}
	if !c.printed(reports) {
		for _, r := range reports {
			c.print(r)
		}
	}
	if refused {
		return exit{1}
	}
	return nil
}

func (c *messageChecker) check(file string) (messageReport, error) {
	r := messageReport{File: file, Findings: standard.Findings{}}
	raw, err := readMessage(file)
	if err != nil {
		return r, err
	}
	std, found := c.choose(raw)
	if std != nil {
		r.Standard = std.Key()
	}
	// Nobody has looked at it yet: what nests too deep must not reach a parser.
	if err := foreignxml.Check(bytes.NewReader(raw), foreignxml.Limits{}); err != nil {
		found = &standard.Finding{Reason: fault.ReasonNotWellFormed, Text: fault.Of(err).Detail}
	}
	if found != nil {
		if std != nil {
			found.Code = std.OfficialCode(found.Reason)
		}
		r.Findings = standard.Findings{*found}
	} else {
		fs, err := std.Check(raw, c.about)
		if err != nil {
			return r, err
		}
		r.Findings = append(r.Findings, fs...)
		if f := c.reused(std, raw); f != nil {
			r.Findings = append(r.Findings, *f)
		}
	}
	r.Refused = r.Findings.Refused()
	return r, nil
}

const maxMessageFile = 64 << 20

func readMessage(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxMessageFile+1))
	if err == nil && len(raw) > maxMessageFile {
		err = fmt.Errorf("%s: larger than %d MiB", file, maxMessageFile>>20)
	}
	return raw, err
}

// choose finds the message's standard, or says why there is none.
func (c *messageChecker) choose(raw []byte) (*standard.Standard, *standard.Finding) {
	if c.key != "" {
		name, version, _ := strings.Cut(c.key, "/")
		if std, ok := c.installed.Get(name, version); ok {
			return std, nil
		}
		return nil, &standard.Finding{Reason: fault.ReasonVersionNotServed, Text: "the standard " + c.key + " is not installed"}
	}
	std, nearest, ok := c.installed.For(raw)
	switch {
	case ok:
		return std, nil
	case nearest != nil:
		return nearest, &standard.Finding{Reason: fault.ReasonMessageNotServed, Line: 1, Path: "/", Text: nearest.Key() + " has no message of this name"}
	}
	return nil, &standard.Finding{Reason: fault.ReasonVersionNotServed, Line: 1, Path: "/", Text: "no installed standard has the root element's namespace (router standards list)"}
}

// reused says that an earlier file was another message under the same id.
func (c *messageChecker) reused(std *standard.Standard, raw []byte) *standard.Finding {
	id, ok := standard.MessageID(raw)
	if !ok {
		return nil
	}
	sum := sha256.Sum256(raw)
	before, seen := c.ids[id]
	c.ids[id] = sum
	if !seen || before == sum {
		return nil
	}
	return &standard.Finding{Reason: fault.ReasonMessageIDReused, Code: std.OfficialCode(fault.ReasonMessageIDReused),
		Text: "its nachrichtenUUID is that of another message among these files"}
}

func (c *messageChecker) print(r messageReport) {
	verdict := "ok"
	if r.Refused {
		verdict = "refused"
	}
	key := r.Standard
	if key == "" {
		key = "no standard"
	}
	fmt.Fprintf(c.out, "%s: %s (%s)\n", r.File, verdict, key)
	for _, f := range r.Findings {
		word := string(f.Reason)
		if f.Code != "" {
			word = f.Code + " " + word
		}
		if f.Warning {
			word = "warning: " + word
		}
		if f.Line > 0 {
			fmt.Fprintf(c.out, "  %s, line %d, %s\n", word, f.Line, f.Path)
		} else {
			fmt.Fprintf(c.out, "  %s\n", word)
		}
		fmt.Fprintf(c.out, "      %s\n", f.Text)
	}
}
