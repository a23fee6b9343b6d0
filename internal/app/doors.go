package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"weiche/internal/adapters"
	"weiche/internal/config"
	"weiche/internal/console"
	"weiche/internal/delivery"
	"weiche/internal/intake"
	httpdoor "weiche/internal/intake/http"
	kafkadoor "weiche/internal/intake/kafka"
	"weiche/internal/submission"
	"weiche/internal/telemetry"
)

// holders are the operators in force and the example keys.
type holders struct {
	operators []config.Operator
	keys      map[string]string // example portals' keys
	hashes    map[string]string // their SHA-256
}

// credentials makes what the first start has to make and returns who may come
// in.
func (a *App) credentials(cfg *config.Config) (*holders, error) {
	var examples []string
	for id, p := range cfg.Portals {
		if p.Auth.ExampleKey {
			examples = append(examples, id)
		}
	}
	sort.Strings(examples)
	h := &holders{keys: map[string]string{}, hashes: map[string]string{}}
	if len(examples) > 0 {
		keys, made, err := exampleKeys(a.router.Data, examples)
		if err != nil {
			return nil, err
		}
		for _, id := range examples {
			h.keys[id], h.hashes[id] = keys[id], hashSecret(keys[id])
		}
		for _, id := range made {
			a.say("Made a key for the example portal %s: %s\n", id, keys[id])
		}
	}
	token, err := operatorToken(a.router.Data)
	if err != nil {
		return nil, err
	}
	h.operators = append([]config.Operator{{Name: config.LocalOperator, TokenSHA256: hashSecret(token),
		Rights: []config.Right{config.RightView, config.RightOperate, config.RightPayload}}}, cfg.Router.Operators...)
	return h, nil
}

// say prints a line for the person at the terminal.
func (a *App) say(format string, args ...any) {
	if a.opts.Out != nil {
		fmt.Fprintf(a.opts.Out, format, args...)
	}
}

// startDoors opens the intake topics and both listeners.
func (a *App) startDoors(ctx context.Context) error {
	err := a.startIntakeTopics()
	if err != nil {
		return err
	}
	var cert *certificate
	if t := a.router.TLS; t != nil {
		if cert, err = openCertificate(a.logger, a.beside(t.CertFile), a.beside(t.KeyFile)); err != nil {
			return fmt.Errorf("the public listener's certificate (tls): %w", err)
		}
	}
	if a.public, err = net.Listen("tcp", a.router.Listen); err != nil {
		return fmt.Errorf("the public listener (listen): %w", err)
	}
	if a.ops, err = net.Listen("tcp", a.router.Ops); err != nil {
		return fmt.Errorf("the operators' listener (ops): %w", err)
	}
	api := console.New(console.Options{
		Store: a.store, Projector: a.projector, Log: a.bus, Destinations: gates{a.delivery, a.pauses}, Jobs: a.jobs,
		Operators:    func() []config.Operator { return a.holders.Load().operators },
		SenderHashes: a.senderHashes,
		Authority:    func(land submission.Land, id string) bool { return a.authority(land, id).Key != "" },
		Open:         payload{a.keeper, a.vault}.Held,
		Editor:       editor{a}, MaxForm: int64(a.router.Intake.BodyBytes),
		Reload: a.Reload,
		Logger: a.logger, Now: a.now,
	})
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", api)
	mux.Handle("GET /metrics", telemetry.MetricsHandler(a.registry))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Nothing here. There are /metrics, /livez, /readyz and /api/v1/ (docs/reference/operators-api.md).", http.StatusNotFound)
	})
	a.serve("operators", &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}, a.ops)
	public := a.public
	if cert != nil {
		public = tls.NewListener(public, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get})
	}
	a.serve("public", httpdoor.Server(a.web), public)
	return nil
}

// startIntakeTopics reads the portals' own topics.
func (a *App) startIntakeTopics() error {
	if len(a.portals) == 0 {
		return nil
	}
	k, err := kafkadoor.New(kafkadoor.Options{Door: a.door, Bus: a.bus, Portals: a.portals, Keys: a.keeper, Vault: a.vault,
		Logger: a.logger, Reg: a.registry, Now: a.now})
	if err != nil {
		return err
	}
	a.background("restoring of the intake topics' offsets", a.once(a.restoreIntake, a.restoredIntake))
	a.background("cutting of the intake topics", func(ctx context.Context) error {
		if err := await(ctx, a.restoredIntake); err != nil {
			return err
		}
		return k.Run(ctx)
	})
	a.runRouter("intake topics", a.restoredIntake, func(r *message.Router) { k.AddTo(r) })
	return nil
}

// serve runs a server until the app stops; a stop lets requests end.
func (a *App) serve(name string, srv *http.Server, l net.Listener) {
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.fail(fmt.Errorf("%s listener: %w", name, err))
		}
	}()
	a.closers.add(name+" listener", func(ctx context.Context) error {
		if err := srv.Shutdown(ctx); err != nil {
			return srv.Close()
		}
		return nil
	})
}

// readyz says whether a submission could be accepted now, part by part.
func (a *App) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	parts := map[string]string{"kafka": "ok", "claims": "ok"}
	ready := true
	if err := a.bus.Ping(ctx); err != nil {
		parts["kafka"], ready = err.Error(), false
	}
	if !a.claims.Loaded() {
		parts["claims"], ready = "still being read", false
	}
	w.Header().Set("Content-Type", "application/json")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": ready, "parts": parts})
}

// senderHashes returns the keyed hashes a sender's reference may have.
func (a *App) senderHashes(portal, reference string) []string {
	if portal != "" {
		return []string{a.keeper.HashReference(portal, reference)}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for id := range a.lib.Config.Portals {
		out = append(out, a.keeper.HashReference(id, reference))
	}
	return out
}

// gates shows delivery's destinations to operators.
type gates struct {
	stage  *delivery.Stage
	pauses *pauses
}

// Destinations implements console.Destinations.
func (g gates) Destinations() []console.Destination {
	states := g.stage.Destinations()
	sort.Slice(states, func(i, j int) bool { return states[i].ID < states[j].ID })
	out := make([]console.Destination, len(states))
	for i, s := range states {
		out[i] = console.Destination{ID: s.ID, Land: landOf(s.ID), Adapter: s.Adapter, Paused: s.Paused, Since: s.Since, Reason: string(s.Reason),
			NextProbe: s.NextProbe, LastFault: string(s.LastFault), InFlight: s.InFlight, Limit: s.InFlightOf}
		if h := s.Hand; h != nil {
			out[i].PausedBy, out[i].Note, out[i].Until = h.Operator, h.Reason, h.Until
		}
	}
	return out
}

// Pause implements console.Destinations.
func (g gates) Pause(ctx context.Context, id, operator, note string, until time.Time) error {
	return g.pauses.say(ctx, id, word{HandPause: delivery.HandPause{Operator: operator, Reason: note, Until: until}})
}

// Resume implements console.Destinations.
func (g gates) Resume(ctx context.Context, id, operator string) error {
	return g.pauses.say(ctx, id, word{HandPause: delivery.HandPause{Operator: operator}, Resumed: true})
}

// Addresses is <data>/addresses.json: where a running router listens.
type Addresses struct {
	Public string   `json:"public"`
	Ops    string   `json:"ops"`
	Kafka  []string `json:"kafka"`
}

// ReadAddresses reads where the router on a data directory listens. The error
// is fs.ErrNotExist where none runs.
func ReadAddresses(data string) (Addresses, error) {
	var a Addresses
	err := mustReadJSON(filepath.Join(data, addressesFile), &a)
	return a, err
}

// ExampleKeys reads the example portals' keys of a data directory.
func ExampleKeys(data string) (map[string]string, error) {
	keys := map[string]string{}
	return keys, mustReadJSON(filepath.Join(data, exampleKeysFile), &keys)
}

// announce logs and writes where the router listens, and prints the first
// steps.
func (a *App) announce() error {
	ad := Addresses{Public: a.public.Addr().String(), Ops: a.ops.Addr().String(), Kafka: a.brokers}
	path := filepath.Join(a.router.Data, addressesFile)
	if err := writeJSON(path, ad, 0o644); err != nil {
		return err
	}
	a.closers.add("addresses", func(context.Context) error { return removeIfSame(path, ad) })
	a.logger.Info("ready", "public", ad.Public, "ops", ad.Ops, "kafka", ad.Kafka, "data", a.router.Data, "version", telemetry.ReadBuild().Version)
	a.firstSteps(ad)
	return nil
}

// first is the submission the printed curl line posts.
const first = "gewerbeanmeldung"

func (a *App) firstSteps(ad Addresses) {
	scheme := "http"
	if a.router.TLS != nil {
		scheme = "https"
	}
	a.say("\nWeiche serves portals on %s://%s and operators on http://%s\n", scheme, ad.Public, ad.Ops)
	proc, ok := a.lib.Catalog.Process(first)
	if !ok || len(proc.Examples) == 0 {
		return
	}
	land := exampleLand(proc.Examples[0].File)
	for _, p := range sortedPortals(a.lib.Config) {
		key := a.holders.Load().keys[p.ID]
		if key == "" || !slices.Contains(p.Lands, land) || !p.Sends(proc.Service) {
			continue
		}
		a.say("Post your first submission, a trade registration for Böblingen:\n\n")
		a.say("curl -sS %s://%s/v1/submissions -H 'Authorization: Bearer %s' -H 'Idempotency-Key: first-%d' -H 'Content-Type: application/json' --data-binary '@%s'\n\n",
			scheme, ad.Public, key, a.now().Unix(), proc.Examples[0].File)
		a.say("It arrives in %s. Its story: bin/router trace ID\n\n", filepath.Join(a.router.Data, "outbox", "boeblingen-gewerbe"))
		return
	}
}

// exampleLand returns the Land an example is for, "" where it cannot be read.
func exampleLand(file string) submission.Land {
	var e submission.Envelope
	if err := mustReadJSON(file, &e); err != nil {
		return ""
	}
	region, err := submission.ParseRegion(e.Region)
	if err != nil {
		return ""
	}
	return region.Land()
}

func sortedPortals(cfg *config.Config) []*config.Portal {
	out := make([]*config.Portal, 0, len(cfg.Portals))
	for _, p := range cfg.Portals {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return strings.Compare(out[i].ID, out[j].ID) < 0 })
	return out
}

// use puts a library into force. Everything that can fail comes first.
func (a *App) use(lib *Library) error {
	d, problems := a.openDoors(lib)
	a.report(problems)
	h, err := a.credentials(lib.Config)
	if err != nil {
		return err
	}
	auth, err := intake.NewAuthenticator(lib.Config, h.hashes, nil, a.now)
	if err != nil {
		return err
	}
	a.mu.Lock()
	old := a.doors
	a.lib, a.doors = lib, d
	a.mu.Unlock()
	a.holders.Store(h)
	scope := lib.scope(d)
	a.scope.Store(&scope)
	lib.warned = a.checks.warned
	a.checks.observe(lib)
	a.dispatch.SetCatalogue(lib)
	a.delivery.SetDestinations(d.list)
	book := intake.Book{Config: lib.Config, Forms: lib}
	if a.door == nil {
		a.door = intake.NewDoor(a.intakeDeps, book)
		a.web = httpdoor.New(a.door, auth, httpdoor.Projection{Store: a.store, Projector: a.projector}, a.logger, a.now)
		a.closers.add("adapters", func(context.Context) error { a.mu.Lock(); defer a.mu.Unlock(); return a.doors.close() })
	} else {
		a.door.Use(book)
		a.web.Use(auth)
	}
	for land, services := range scope.Offers {
		for _, s := range services {
			a.dispatch.Zero(string(land), string(s))
			a.checks.zero(land, s)
		}
	}
	if old != nil {
		// Attempts under way end with the adapter they began with.
		time.AfterFunc(5*time.Minute, func() { _ = old.close() })
	}
	return nil
}

// authority finds an authority in the configuration in force.
func (a *App) authority(land submission.Land, id string) submission.Authority {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lib.authority(land, id)
}

// Reload reads the configuration directory, the process library and the
// standards again. What is refused changes nothing: a broken Land keeps the
// configuration it had. Settings of router.yaml other than operators count
// after a restart only.
func (a *App) Reload() error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	cfg, problems := config.Load(a.opts.ConfigDir, a.opts.Environ)
	if cfg == nil {
		a.report(problems)
		a.logger.Error("reload refused; the configuration in force stays")
		return fmt.Errorf("router.yaml is refused; the configuration in force stays:\n%w", problems)
	}
	cfg.Router.Data = a.router.Data
	a.mu.Lock()
	before := a.lib.Config
	a.mu.Unlock()
	for land := range cfg.Broken {
		if old := before.Lands[land]; old != nil {
			cfg.Lands[land] = old
			for _, p := range old.Portals {
				cfg.Portals[p.ID] = p
			}
		}
	}
	lib, more := LoadLibrary(cfg)
	a.report(append(problems, more...))
	if err := a.use(lib); err != nil {
		a.logger.Error("reload refused; the configuration in force stays", "error", err.Error())
		return err
	}
	for land := range cfg.Broken {
		a.logger.Warn("this Land's configuration is refused; what it had before stays in force, where it had any", "land", land, "in_force", cfg.Lands[land] != nil)
	}
	a.logger.Info("configuration reloaded", "lands", len(cfg.Lands), "broken", len(cfg.Broken), "processes", len(lib.Catalog.Processes()))
	return problems.Err()
}

// adapterDeps is what adapters get.
func (a *App) adapterDeps() adapters.Deps {
	return adapters.Deps{Bus: a.bus, DataDir: a.router.Data, Clock: a.now, Log: a.logger}
}
