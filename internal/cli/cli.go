// Package cli is the operator's command line. It runs on the server's own code:
// what `routes explain` says is what dispatch does. Commands on live state call
// the operators' API of the router whose data directory they are given; the
// others read files. It decides nothing of its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weiche/internal/config"
	"weiche/internal/telemetry"
)

// env is what every command gets.
type env struct {
	in       io.Reader
	out, err io.Writer
	config   string // --config
	data     string // --data
	json     bool   // --json
}

// exit is an error whose text was already printed.
type exit struct{ code int }

func (e exit) Error() string { return fmt.Sprintf("exit %d", e.code) }

// Main runs the command line and returns the process's exit code: 0 done, 1
// something is wrong and was said, 2 the command was not understood.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	e := &env{in: stdin, out: stdout, err: stderr}
	root := e.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var code exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return code.code
	}
	fmt.Fprintln(stderr, "router: "+err.Error())
	var usage usageError
	if errors.As(err, &usage) || cmd == root {
		fmt.Fprintf(stderr, "router: see '%s --help'\n", cmd.CommandPath())
		return 2
	}
	return 1
}

// usageError says that the command was not understood.
type usageError struct{ error }

func (e *env) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "router",
		Short:         "Weiche, the submission router between portals and Fachverfahren",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       telemetry.ReadBuild().Version,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&e.config, "config", envOr("WEICHE_CONFIG", "config"), "configuration directory")
	f.StringVar(&e.data, "data", "", "data directory (default: WEICHE_DATA, or what router.yaml says)")
	f.BoolVar(&e.json, "json", false, "print JSON where a command prints a table")
	root.AddCommand(
		e.serve(), e.submit(), e.receive(),
		e.trace(), e.assign(), e.dlq(), e.destinations(), e.status(), e.reconcile(), e.webhookKeys(),
		e.configCmd(), e.standards(), e.routes(), e.mapping(), e.version(),
	)
	for _, cmd := range root.Commands() {
		if cmd.HasSubCommands() && !cmd.Runnable() {
			group(cmd)
		}
	}
	return root
}

// group makes a command of commands refuse what it does not know; cobra alone
// prints the help and calls it done.
func group(cmd *cobra.Command) {
	cmd.Args = noArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

func (e *env) version() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: noArgs, RunE: func(*cobra.Command, []string) error {
		b := telemetry.ReadBuild()
		fmt.Fprintf(e.out, "router %s (%s, %s)\n", b.Version, b.Revision, b.Go)
		return nil
	}}
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}

func args(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, got []string) error {
		if len(got) != n {
			return usageError{fmt.Errorf("expected: %s", what)}
		}
		return nil
	}
}

// load reads the configuration. Problems are printed; it fails when router.yaml
// does, or when need says that every Land has to be sound.
func (e *env) load(strict bool) (*config.Config, error) {
	cfg, problems := config.Load(e.config, e.environ())
	if cfg == nil || (strict && problems.Failed()) {
		for _, p := range problems {
			fmt.Fprintln(e.err, p)
		}
		return nil, exit{1}
	}
	return cfg, nil
}

// operatorToken is the variable with an operator's own token. It is the command
// line's, not a setting of the router.
const operatorToken = "WEICHE_OPERATOR_TOKEN"

// environ is the environment with what the flags say; a flag comes before its
// variable. More flags are given as name and value in turn.
func (e *env) environ(more ...string) []string {
	environ := os.Environ()
	set := func(name, value string) {
		environ = slices.DeleteFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		if value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	set(operatorToken, "")
	for i, flags := 0, append(more, "WEICHE_DATA", e.data); i < len(flags); i += 2 {
		if flags[i+1] != "" {
			set(flags[i], flags[i+1])
		}
	}
	return environ
}

// dataDir returns the data directory the commands work on.
func (e *env) dataDir() (string, error) {
	if e.data != "" {
		return e.data, nil
	}
	if v := os.Getenv("WEICHE_DATA"); v != "" {
		return v, nil
	}
	cfg, err := e.load(false)
	if err != nil {
		return "", err
	}
	return cfg.Router.Data, nil
}
