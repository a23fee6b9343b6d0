package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weiche/internal/adapters"
	"weiche/internal/app"
	"weiche/internal/config"
	"weiche/internal/routing"
	"weiche/internal/submission"
)

func (e *env) configCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "The configuration directory"}
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Report every fault of the configuration with file and line",
		Long: `Report every fault of the configuration with file and line: router.yaml,
Länder, destinations' settings, process library, mappings, standards. Warnings
alone are no failure. Exit code 1 when something is refused.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, lib, problems := e.everything()
			if !e.json {
				for _, p := range problems {
					fmt.Fprintln(e.out, p)
				}
			}
			if cfg == nil {
				return exit{1}
			}
			if !e.printed(map[string]any{"problems": problems, "failed": problems.Failed()}) {
				fmt.Fprintf(e.out, "%s: Länder %d, portals %d, processes %d, standards %d\n", e.config, len(cfg.Lands), len(cfg.Portals),
					len(lib.Catalog.Processes()), len(lib.Standards.List()))
			}
			if problems.Failed() {
				return exit{1}
			}
			return nil
		},
	})
	return cmd
}

// everything reads all that the server would, without starting anything.
func (e *env) everything() (*config.Config, *app.Library, config.Problems) {
	cfg, problems := config.Load(e.config, e.environ())
	if cfg == nil {
		return nil, nil, problems
	}
	for _, land := range cfg.Lands {
		for _, d := range land.Destinations {
			problems = append(problems, adapters.Check(d)...)
		}
	}
	lib, ps := app.LoadLibrary(cfg)
	return cfg, lib, append(problems, ps...)
}

// library is everything without a word about warnings; faults are printed, and
// end the command only where nothing is left to work with. sound is false where
// something was refused.
func (e *env) library() (lib *app.Library, sound bool, err error) {
	cfg, lib, problems := e.everything()
	for _, p := range problems {
		if p.Severity == config.Error {
			fmt.Fprintln(e.err, p)
		}
	}
	if cfg == nil {
		return nil, false, exit{1}
	}
	return lib, !problems.Failed(), nil
}

func (e *env) routes() *cobra.Command {
	cmd := &cobra.Command{Use: "routes", Short: "Responsibility: explain a decision, run the tables of routes"}
	var service, region, at string
	var test bool
	explain := &cobra.Command{
		Use:     "explain --service KEY --region ARS [--at DATE]",
		Short:   "Print the decision and, rule by rule, why",
		Example: "  router routes explain --service 99050012104000 --region DE081150003003",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if service == "" || region == "" {
				return usageError{errors.New("--service and --region are needed")}
			}
			s, err := submission.ParseService(service)
			if err != nil {
				return usageError{fmt.Errorf("--service: %w", err)}
			}
			r, err := submission.ParseRegion(region)
			if err != nil {
				return usageError{fmt.Errorf("--region: %w", err)}
			}
			when, err := parseTime(at)
			if err != nil {
				return usageError{err}
			}
			lib, _, err := e.library()
			if err != nil {
				return err
			}
			t, ok := lib.Tables[r.Land()]
			if !ok {
				return fmt.Errorf("the configuration does not serve Land %s, or refuses it; see `router config check`", r.Land())
			}
			out := t.Explain(routing.Facts{Service: s, Region: r, Land: r.Land(), Test: test, At: when})
			if !e.printed(out) {
				out.Explain(e.out)
			}
			if !out.Decided() {
				return exit{1}
			}
			return nil
		},
	}
	f := explain.Flags()
	f.StringVar(&service, "service", "", "LeiKa key, 14 digits or URN")
	f.StringVar(&region, "region", "", "ARS of 2, 3, 5, 9 or 12 digits, with DE or without")
	f.StringVar(&at, "at", "", "day (2027-01-01) or time (RFC 3339) the rules are asked for (default: now)")
	f.BoolVar(&test, "test", false, "as a test submission")

	check := &cobra.Command{
		Use:   "test [FILE …]",
		Short: "Run tables of routes (default: routes_test.yaml of every Land)",
		Long: `Run tables of routes: what must come of the rules, case by case (default:
routes_test.yaml of every Land). Standards that are not installed are taken as if
they were, so that rules can be tested anywhere; explain takes them as they are.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, files []string) error {
			lib, sound, err := e.library()
			if err != nil {
				return err
			}
			tables, missing := asIfInstalled(lib)
			if len(missing) > 0 {
				fmt.Fprintf(e.err, "not installed, and taken as if they were: %s\n", strings.Join(missing, ", "))
			}
			own := map[string]*routing.Table{} // a Land's file is the Land's, whatever region a case is in
			if len(files) == 0 {
				for _, t := range tables {
					file := filepath.Join(t.Land().Dir, config.RoutesTestFile)
					files, own[file] = append(files, file), t
				}
				slices.Sort(files)
			}
			cases, bad := 0, 0
			for _, file := range files {
				all, problems := routing.LoadCases(file)
				for _, p := range problems {
					fmt.Fprintln(e.err, p)
					bad++
				}
				cases += len(all)
				for _, c := range all {
					t := own[file]
					if t == nil {
						t = tables[c.Region.Land()]
					}
					if t == nil {
						fmt.Fprintln(e.out, c.Pos.Problem("%s: the configuration does not serve Land %s, or refuses it", c.Name, c.Region.Land()))
						bad++
						continue
					}
					for _, m := range t.Check([]routing.Case{c}, time.Now()) {
						fmt.Fprintln(e.out, m)
						bad++
					}
				}
			}
			fmt.Fprintf(e.out, "%s, %d wrong\n", plural(cases, "case"), bad)
			if bad > 0 || !sound {
				return exit{1}
			}
			return nil
		},
	}
	cmd.AddCommand(explain, check)
	return cmd
}

// asIfInstalled are the tables of routes with every standard that the process
// library names, and the names of those that are missing.
func asIfInstalled(lib *app.Library) (map[submission.Land]*routing.Table, []string) {
	tables := map[submission.Land]*routing.Table{}
	for key, land := range lib.Config.Lands {
		tables[key], _ = routing.New(land, func(s submission.Service, f submission.Format) bool {
			o, ok := land.Offer(s)
			if !ok {
				return false
			}
			p, ok := lib.Catalog.Service(o.Service)
			if o.Process != "" {
				p, ok = lib.Catalog.Process(o.Process)
			}
			return ok && (f.BuiltIn() || slices.Contains(p.Formats, f))
		})
	}
	var missing []string
	for _, p := range lib.Catalog.Processes() {
		for _, std := range p.Missing {
			missing = append(missing, std)
		}
	}
	slices.Sort(missing)
	return tables, slices.Compact(missing)
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Now(), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.ParseInLocation("2006-01-02", s, berlin)
	if err != nil {
		return t, fmt.Errorf("--at: %q is neither a day (2027-01-01) nor a time (RFC 3339)", s)
	}
	return t.Add(12 * time.Hour), nil
}

func (e *env) mapping() *cobra.Command {
	cmd := &cobra.Command{Use: "mapping", Short: "Mappings from forms to messages"}
	cmd.AddCommand(e.mappingNew(), e.mappingTest(), e.mappingCheck(), e.mappingCoverage(), e.mappingExplain())
	return cmd
}

// tellRunning asks the router that runs on the data directory, where one does,
// to read its configuration again.
func (e *env) tellRunning(cmd *cobra.Command) error {
	ops, err := e.operations()
	if err != nil {
		return nil // none runs; the next start reads it
	}
	err = ops.call(cmd.Context(), "POST", "config/reload", nil, nil)
	if errors.Is(err, errNoRouter) {
		return nil
	}
	if err != nil {
		fmt.Fprintf(e.err, "router: done; the running router, told to take it up, says: %s\n", err)
		return nil
	}
	fmt.Fprintln(e.out, "the running router has taken it up")
	return nil
}
