package app

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"weiche/internal/adapters"
	"weiche/internal/catalog"
	"weiche/internal/config"
	"weiche/internal/delivery"
	"weiche/internal/dispatch"
	"weiche/internal/fault"
	"weiche/internal/intake"
	"weiche/internal/routing"
	"weiche/internal/status"
	"weiche/internal/submission"
	"weiche/internal/transform"
	"weiche/internal/transform/standard"
)

// StandardsDir is where `router standards import` installs, in the data
// directory.
func StandardsDir(data string) string { return filepath.Join(data, "standards") }

// Library is everything that a configuration directory says, read and proven:
// what can be exchanged while the router runs. It is read-only and safe for
// concurrent use.
type Library struct {
	Config    *config.Config
	Standards *standard.Installed
	Catalog   *catalog.Catalog
	Tables    map[submission.Land]*routing.Table

	unchecked bool // see Options.Unchecked
	// warned counts what a check lets go with a warning; nil in commands.
	warned func(submission.Meta, fault.Reason)
}

// LoadLibrary reads standards, process library and routing tables of a
// configuration. The commands use it as the server does.
func LoadLibrary(cfg *config.Config) (*Library, config.Problems) {
	std, problems := standard.Open(filepath.Join(cfg.Dir, "standards"), StandardsDir(cfg.Router.Data))
	cat, ps := catalog.Load(filepath.Join(cfg.Dir, "services"), std, register(cfg))
	problems = append(problems, ps...)
	lib := &Library{Config: cfg, Standards: std, Catalog: cat, Tables: map[submission.Land]*routing.Table{}}
	problems = append(problems, lib.missingLists()...)
	for key, land := range cfg.Lands {
		table, ps := routing.New(land, lib.mappable(land))
		problems = append(problems, ps...)
		for _, o := range land.Services {
			if _, ok := lib.process(o); !ok {
				problems = append(problems, o.Pos.Warning("service %s is offered, but the process library has no such entry; its submissions are refused", o.Service))
			}
		}
		lib.Tables[key] = table
	}
	return lib, problems
}

// register is every Land's authorities: what mappings look up is what routing
// decides by, of the same configuration.
func register(cfg *config.Config) []submission.Authority {
	var out []submission.Authority
	for _, land := range cfg.Lands {
		for _, a := range land.Authorities {
			out = append(out, a.Authority)
		}
	}
	return out
}

// process returns the entry of the process library behind an offer.
func (l *Library) process(o config.Offer) (*catalog.Process, bool) {
	if o.Process != "" {
		return l.Catalog.Process(o.Process)
	}
	return l.Catalog.Service(o.Service)
}

func (l *Library) mappable(land *config.Land) func(submission.Service, submission.Format) bool {
	return func(s submission.Service, f submission.Format) bool {
		o, ok := land.Offer(s)
		if !ok {
			return false
		}
		p, ok := l.process(o)
		return ok && p.Mappable(f)
	}
}

// Rules implements dispatch.Catalogue.
func (l *Library) Rules(land submission.Land) (dispatch.Rules, bool) {
	t, ok := l.Tables[land]
	if !ok {
		return dispatch.Rules{}, false
	}
	return dispatch.Rules{Table: t, Hash: t.Land().Hash}, true
}

// Portal implements dispatch.Catalogue.
func (l *Library) Portal(id string) (submission.Authority, bool) {
	p, ok := l.Config.Portals[id]
	if !ok {
		return submission.Authority{}, false
	}
	return submission.Authority{ID: p.ID, Key: p.Key, Name: p.Name}, true
}

// Message implements dispatch.Catalogue: it maps the form and checks the
// message, always. A built-in format has no rules to check.
func (l *Library) Message(j dispatch.Job) ([]byte, error) {
	proc, in, err := l.input(j)
	if err != nil {
		return nil, err
	}
	if j.Format.BuiltIn() {
		return proc.Document(j.Format, in)
	}
	m, err := mapping(proc, j.Format)
	if err != nil {
		return nil, err
	}
	return l.checked(m, in, j)
}

// checked maps a form and checks the message.
func (l *Library) checked(m *transform.Mapping, in transform.Input, j dispatch.Job) ([]byte, error) {
	xml, err := m.Apply(in)
	if err != nil || l.unchecked {
		return xml, err
	}
	findings, err := l.check(m, j, xml)
	if err == nil {
		err = findings.Err(m.Standard.Key())
	}
	if err != nil {
		return nil, err
	}
	l.warn(j.Meta, findings)
	return xml, nil
}

// mapping finds a process's mapping to a format.
func mapping(proc *catalog.Process, f submission.Format) (*transform.Mapping, error) {
	if m := proc.Mappings[f]; m != nil {
		return m, nil
	}
	if std := proc.Missing[f]; std != "" {
		return nil, fault.New(fault.Permanent, fault.ReasonStandardMissing, "standard %s is not installed; `router standards import` it and redrive", std)
	}
	return nil, fault.New(fault.Permanent, fault.ReasonNoFormat, "process %s has no mapping to %s", proc.ID, f)
}

// input finds the process of a job and what its mappings are given.
func (l *Library) input(j dispatch.Job) (*catalog.Process, transform.Input, error) {
	fail := func(r fault.Reason, text string, args ...any) (*catalog.Process, transform.Input, error) {
		return nil, transform.Input{}, fault.New(fault.Permanent, r, text, args...)
	}
	land, ok := l.Config.Lands[j.Meta.Land]
	if !ok {
		return fail(fault.ReasonConfigBroken, "Land %s is not configured", j.Meta.Land)
	}
	offer, ok := land.Offer(j.Meta.Service)
	if !ok {
		return fail(fault.ReasonServiceNotOffered, "Land %s no longer offers service %s", j.Meta.Land, j.Meta.Service)
	}
	proc, ok := l.process(offer)
	if !ok {
		return fail(fault.ReasonUnknownService, "the process library has no entry for service %s", j.Meta.Service)
	}
	form, err := j.Envelope.Form()
	if err != nil {
		return fail(fault.ReasonUndecodable, "the form is not JSON")
	}
	return proc, transform.Input{
		Form: form, Envelope: j.Envelope,
		Message: transform.MessageInput{ID: j.MessageID, CreatedAt: j.CreatedAt},
		Submission: transform.SubmissionInput{ID: j.Meta.ID, CaseID: j.Meta.CaseID, Service: j.Meta.Service, Region: j.Meta.Region,
			AcceptedAt: j.Meta.AcceptedAt, Test: j.Meta.Test},
		Portal: transform.PortalInput{Key: j.Portal.Key, Name: j.Portal.Name}, Authority: j.Authority,
		Open: j.Open, Outline: j.Outline,
	}, nil
}

// check checks a message with all rules of its standard.
func (l *Library) check(m *transform.Mapping, j dispatch.Job, xml []byte) (standard.Findings, error) {
	traffic := standard.Productive
	if j.Meta.Test {
		traffic = standard.Test
	}
	return m.Standard.Check(xml, standard.About{
		Message: j.Format.Message, ID: j.MessageID, Traffic: traffic, At: j.CreatedAt,
		RefuseMissingLists: l.Config.Router.Checks.CodeLists == config.CodeListsRefuse,
	})
}

// warn counts each reason once a message.
func (l *Library) warn(m submission.Meta, findings standard.Findings) {
	if l.warned == nil {
		return
	}
	var seen []fault.Reason
	for _, f := range findings {
		if !slices.Contains(seen, f.Reason) {
			seen = append(seen, f.Reason)
			l.warned(m, f.Reason)
		}
	}
}

// mapped are the standards that a mapping writes messages of.
func (l *Library) mapped() []*standard.Standard {
	var out []*standard.Standard
	for _, p := range l.Catalog.Processes() {
		for _, m := range p.Mappings {
			if !slices.Contains(out, m.Standard) {
				out = append(out, m.Standard)
			}
		}
	}
	slices.SortFunc(out, func(a, b *standard.Standard) int { return strings.Compare(a.Key(), b.Key()) })
	return out
}

// missingLists warns of the code lists that the schemas of mapped standards
// name and that are not installed.
func (l *Library) missingLists() config.Problems {
	const named = 3
	var out config.Problems
	for _, std := range l.mapped() {
		missing := std.MissingLists()
		if len(missing) == 0 {
			continue
		}
		more := ""
		if n := len(missing) - named; n > 0 {
			missing, more = missing[:named], fmt.Sprintf(" and %d more", n)
		}
		out = append(out, config.Problem{File: std.Dir, Severity: config.Warning,
			Text: fmt.Sprintf("%s names code lists that are not installed, their codes are not checked: %s%s (router standards import FILE, or --with DIR)", std.Key(), strings.Join(missing, ", "), more)})
	}
	return out
}

// Form implements intake.Forms.
func (l *Library) Form(o config.Offer) (intake.Form, bool) {
	p, ok := l.process(o)
	return form{p}, ok
}

// Known implements intake.Forms.
func (l *Library) Known(s submission.Service) bool {
	_, ok := l.Catalog.Service(s)
	return ok
}

// form is a process as intake sees it.
type form struct{ *catalog.Process }

// Check implements intake.Form.
func (f form) Check(data any) []intake.Fault {
	vs := f.ValidateForm(data)
	out := make([]intake.Fault, len(vs))
	for i, v := range vs {
		out[i] = intake.Fault{Pointer: v.Pointer, Text: intake.Text{EN: v.Text, DE: v.German}}
	}
	return out
}

// Missing implements intake.Form: the service's own format, the first it
// names, is what it was built for.
func (f form) Missing() bool {
	return len(f.Formats) == 0 || !f.Mappable(f.Formats[0])
}

// doors are the adapters of a Library's destinations.
type doors struct {
	list    []delivery.Destination
	closers []func() error
}

// openDoors makes the adapters. A Land with a destination that cannot be made
// is refused alone: it goes to Broken, its table with it.
func (a *App) openDoors(lib *Library) (*doors, config.Problems) {
	d := &doors{}
	var problems config.Problems
	for _, key := range sortedLands(lib.Config) {
		land := lib.Config.Lands[key]
		var made []delivery.Destination
		var bad config.Problems
		for _, dest := range land.Destinations {
			name := submission.DestinationName(key, dest.ID)
			ad, err := adapters.New(name, dest, a.adapterDeps())
			var ps config.Problems
			switch {
			case errors.As(err, &ps):
				bad = append(bad, ps...)
				continue
			case err != nil:
				bad = append(bad, dest.Pos.Problem("destination %s: %s", dest.ID, err))
				continue
			}
			if c, ok := ad.(interface{ Close() error }); ok {
				d.closers = append(d.closers, c.Close)
			}
			made = append(made, delivery.Destination{ID: name, Kind: dest.Adapter, Adapter: ad, Policy: policy(dest.Policy)})
		}
		if len(bad) > 0 {
			problems = append(problems, bad...)
			lib.Config.Broken[key] = append(lib.Config.Broken[key], bad...)
			delete(lib.Config.Lands, key)
			delete(lib.Tables, key)
			continue
		}
		d.list = append(d.list, made...)
	}
	return d, problems
}

func policy(p config.Policy) delivery.Policy {
	return delivery.Policy{Initial: p.Initial, Max: p.Max, Factor: p.Factor, Jitter: p.Jitter, GiveUp: p.GiveUp, Probe: p.Probe, Timeout: p.Timeout, InFlight: p.InFlight, DeadRatio: p.DeadRatio}
}

func sortedLands(cfg *config.Config) []submission.Land {
	keys := make([]submission.Land, 0, len(cfg.Lands))
	for k := range cfg.Lands {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// scope is what the metrics of the status store show from the start.
func (l *Library) scope(d *doors) status.Scope {
	s := status.Scope{Offers: map[submission.Land][]submission.Service{}}
	for key, land := range l.Config.Lands {
		for _, o := range land.Services {
			s.Offers[key] = append(s.Offers[key], o.Service)
		}
	}
	for _, dest := range d.list {
		s.Destinations = append(s.Destinations, dest.ID)
	}
	sort.Strings(s.Destinations)
	return s
}

// authority returns an authority by its id; the zero one where the
// configuration no longer names it.
func (l *Library) authority(land submission.Land, id string) submission.Authority {
	if ld := l.Config.Lands[land]; ld != nil {
		if au := ld.Authority(id); au != nil {
			return au.Authority
		}
	}
	return submission.Authority{ID: id}
}

// landOf splits a destination's name.
func landOf(destination string) submission.Land {
	land, _, _ := strings.Cut(destination, "-")
	return submission.Land(land)
}

func (d *doors) close() error {
	var errs []error
	for _, c := range d.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}
