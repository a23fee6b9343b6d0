// Package app wires the router: it starts every part in order, reloads the
// configuration, drains and stops. Everything that can fail happens before live
// state is touched. It contains no rule of its own about submissions.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/blob"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/config"
	"weiche/internal/delivery"
	"weiche/internal/dispatch"
	"weiche/internal/intake"
	httpdoor "weiche/internal/intake/http"
	kafkadoor "weiche/internal/intake/kafka"
	"weiche/internal/jobs"
	"weiche/internal/seal"
	"weiche/internal/status"
	"weiche/internal/submission"
	"weiche/internal/telemetry"
)

// Options say what to start. Empty fields are the configuration's.
type Options struct {
	ConfigDir string
	Data      string
	Listen    string
	Ops       string
	Environ   []string
	Log       io.Writer // JSON lines
	Out       io.Writer // what a person reads: the first steps
	// Unchecked leaves the check against the standards' schemas out. It is for
	// measuring what the check costs; no flag and no setting leads here.
	Unchecked bool
}

// App is a running router. Its methods are safe for concurrent use.
type App struct {
	opts    Options
	logger  *slog.Logger
	closers closers
	now     func() time.Time
	router  config.Router // as of the start

	registry  *prometheus.Registry
	checks    *checks
	bus       *bus.Bus
	keeper    *seal.Keeper
	vault     *blob.Vault
	store     *status.Store
	projector *status.Projector
	ledger    *status.Ledger
	dispatch  *dispatch.Stage
	delivery  *delivery.Stage
	pauses    *pauses
	jobs      *jobs.Jobs
	claims    *intake.Claims
	door      *intake.Door
	web       *httpdoor.Door

	intakeDeps intake.Deps

	// What is in force; exchanged as a whole by a reload.
	reloading sync.Mutex
	mu        sync.Mutex
	lib       *Library
	doors     *doors
	scope     atomic.Pointer[status.Scope]
	holders   atomic.Pointer[holders]

	portals []string // with an intake topic, as of the start

	// Closed once the groups' offsets agree with the account; before that nothing
	// may consume or cut.
	restored, restoredIntake chan struct{}

	failed chan error
	stop   sync.Once

	brokers     []string
	public, ops net.Listener
}

// Failed tells of a part that ended although nobody asked it to.
func (a *App) Failed() <-chan error { return a.failed }

// Addresses returns the public and the operations address, as bound.
func (a *App) Addresses() (public, ops string) {
	return a.public.Addr().String(), a.ops.Addr().String()
}

// Start brings the router up. It returns when both listeners answer. When it
// fails, everything it had started is stopped again.
func Start(ctx context.Context, opts Options) (a *App, err error) {
	if opts.Data != "" {
		opts.Environ = append(opts.Environ, "WEICHE_DATA="+opts.Data)
	}
	if opts.Listen != "" {
		opts.Environ = append(opts.Environ, "WEICHE_LISTEN="+opts.Listen)
	}
	if opts.Ops != "" {
		opts.Environ = append(opts.Environ, "WEICHE_OPS="+opts.Ops)
	}
	cfg, problems := config.Load(opts.ConfigDir, opts.Environ)
	if cfg == nil {
		return nil, fmt.Errorf("the configuration is refused:\n%w", problems)
	}
	logger := telemetry.NewLogger(opts.Log, level(cfg.Router.Log.Level))
	a = &App{opts: opts, logger: logger, now: time.Now, failed: make(chan error, 8), closers: closers{logger: logger},
		registry: telemetry.NewRegistry(), restored: make(chan struct{}), restoredIntake: make(chan struct{})}
	started := &a.closers // a is nil once an error is returned
	defer func() {
		if err != nil {
			started.run(context.WithoutCancel(ctx))
		}
	}()
	a.report(problems)
	a.checks = newChecks(a.registry)
	a.router = cfg.Router
	r := cfg.Router
	if err := os.MkdirAll(r.Data, 0o700); err != nil {
		return nil, fmt.Errorf("the data directory cannot be made: %w", err)
	}
	unlock, err := lockData(r.Data)
	if err != nil {
		return nil, err
	}
	a.closers.add("lock of the data directory", unlock)
	// What a killed router left behind is stale.
	_ = os.Remove(filepath.Join(r.Data, addressesFile))

	if err := a.openBus(ctx, cfg); err != nil {
		return nil, err
	}
	if err := a.openStores(ctx, cfg); err != nil {
		return nil, err
	}
	if err := agree(ctx, keyLog{a.bus}, cfg.Router.Kafka.Partitions, a.drained); err != nil {
		return nil, err
	}
	lib, problems := LoadLibrary(cfg)
	lib.unchecked = opts.Unchecked
	a.report(problems)
	if err := a.startStages(ctx, lib); err != nil {
		return nil, err
	}
	if err := a.startDoors(ctx); err != nil {
		return nil, err
	}
	a.background("janitor", a.janitor)
	a.background("watching of partitions", a.watchPartitions())
	return a, a.announce()
}

func level(s string) slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(s)) != nil {
		return slog.LevelInfo
	}
	return l
}

// report logs what is wrong with the configuration, a line each.
func (a *App) report(problems config.Problems) {
	for _, p := range problems {
		if p.Severity == config.Error {
			a.logger.Error("configuration refused", "file", p.File, "line", p.Line, "problem", p.Text)
		} else {
			a.logger.Warn("configuration", "file", p.File, "line", p.Line, "problem", p.Text)
		}
	}
}

// openBus connects to Kafka, or starts the embedded broker and connects to
// that; the code behind it is the same.
func (a *App) openBus(ctx context.Context, cfg *config.Config) error {
	k := cfg.Router.Kafka
	bc := bus.Config{
		Brokers: k.Brokers, ClientID: k.ClientID, Version: k.Version, Partitions: k.Partitions,
		ReplicationFactor: k.ReplicationFactor, MinInSyncReplicas: k.MinInSyncReplicas, AllowUnsafe: k.AllowUnsafe,
		MaxRecordBytes: int(k.MaxRecordBytes),
	}
	if t := k.TLS; t != nil {
		bc.TLS = &bus.TLSConfig{CAFile: a.beside(t.CAFile), CertFile: a.beside(t.CertFile), KeyFile: a.beside(t.KeyFile), ServerName: t.ServerName}
	}
	if s := k.SASL; s != nil {
		bc.SASL = a.sasl(s)
	}
	if len(bc.Brokers) == 0 {
		broker, err := embedded.Start(filepath.Join(cfg.Router.Data, "kafka"), embedded.Options{Partitions: k.Partitions}, a.logger)
		if err != nil {
			return err
		}
		a.closers.add("embedded broker", func(context.Context) error { return broker.Close() })
		bc.Brokers = broker.Addrs()
		bc.AllowUnsafe = []string{bus.UnsafeReplicationFactor, bus.UnsafeMinInSyncReplicas, bus.UnsafeUncleanElection}
		a.logger.Warn("this router uses its embedded broker: for trying out, developing and small tests only; set kafka.brokers for real submissions", "brokers", bc.Brokers)
	}
	b, err := bus.Open(ctx, bc, a.logger, a.registry)
	if err != nil {
		return fmt.Errorf("connecting to Kafka at %v: %w", bc.Brokers, err)
	}
	a.closers.add("bus", func(context.Context) error { return b.Close() })
	a.bus = b
	if err := checkRights(ctx, b, cfg); err != nil {
		return err
	}
	if err := b.CheckSafety(ctx); err != nil {
		return err
	}
	topics := bus.Topics(bc, topicPortals(cfg))
	if len(k.Brokers) == 0 {
		// Intake topics hold plain text. The embedded broker takes deleted records
		// off the disk a whole file at a time, so each batch gets its own there. (A
		// cluster wants files that hold its largest record.)
		for i := range topics {
			if strings.HasPrefix(topics[i].Name, kafkadoor.TopicPrefix) {
				topics[i].SegmentBytes = 1
			}
		}
	}
	if err := b.EnsureTopics(ctx, topics); err != nil {
		return err
	}
	if err := checkRights(ctx, b, cfg); err != nil { // on topics that are new, too
		return err
	}
	a.brokers, a.portals = bc.Brokers, topicPortals(cfg)
	return nil
}

// beside resolves a file that the configuration names.
func (a *App) beside(file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(a.opts.ConfigDir, file)
}

// within resolves a path that is relative to the data directory.
func within(data, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(data, path)
}

// topicPortals are the portals that have an intake topic, sorted.
func topicPortals(cfg *config.Config) []string {
	var out []string
	for id, p := range cfg.Portals {
		if p.Topic {
			out = append(out, id)
		}
	}
	sort.Strings(out)
	return out
}

func (a *App) openStores(ctx context.Context, cfg *config.Config) error {
	r := cfg.Router
	masters := map[submission.Land]string{}
	for land, file := range r.Seal.MasterKeys {
		masters[land] = a.beside(file)
	}
	keys := within(r.Data, r.Seal.Dir)
	var err error
	if a.keeper, err = seal.Open(keys, masters, keyLog{a.bus}); err != nil {
		return err
	}
	fs, err := blob.OpenFS(within(r.Data, r.Blobs.Dir))
	if err != nil {
		return err
	}
	a.vault = blob.NewVault(fs, blob.DefaultThreshold)
	if a.store, err = status.Open(within(r.Data, r.Status.File)); err != nil {
		return err
	}
	a.closers.add("status store", func(context.Context) error { return a.store.Close() })
	signer, err := seal.OpenSigner(keys, a.beside(r.Seal.SigningKey))
	if err != nil {
		return err
	}
	a.projector = status.NewProjector(a.store, status.Options{Log: a.bus, Logger: a.logger, Sign: signer.Sign, Verify: signer.Verify, Now: a.now})
	a.background("projection", a.projector.Run)
	a.ledger = status.NewLedger(a.store, a.bus, a.now)
	a.registry.MustRegister(status.NewCollector(a.projector, func() status.Scope {
		if s := a.scope.Load(); s != nil {
			return *s
		}
		return status.Scope{}
	}))

	claims, err := intake.OpenClaims(ctx, a.bus, time.Duration(r.Retention.ClaimsDays)*24*time.Hour, a.logger)
	if err != nil {
		return err
	}
	a.closers.add("claims", func(context.Context) error { claims.Close(); return nil })
	a.claims = claims
	a.intakeDeps = intake.Deps{
		Rehearsal: rehearsal{a},
		Log:       a.bus, Claims: claims, Past: past{a}, Keys: a.keeper, Vault: a.vault, Blobs: fs, Signer: signer,
		Limits: r.Intake, Now: a.now, Logger: a.logger, Reg: a.registry,
	}
	return nil
}

// background runs a part until the router stops; when it ends before, the
// router fails.
func (a *App) background(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("it ended by itself")
			}
			a.fail(fmt.Errorf("%s: %w", name, err))
		}
		done <- err
	}()
	a.closers.add(name, func(stop context.Context) error {
		cancel()
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-stop.Done():
			return errors.New("did not stop within the drain time")
		}
	})
}

func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default:
	}
}

// stageBytes is what a stage has of a partition in hand at most. More does not
// make it faster, and a backlog would fill it.
const stageBytes = 4 << 20

// startStages runs dispatch and delivery under watermill's router.
func (a *App) startStages(ctx context.Context, lib *Library) error {
	payload := payload{keeper: a.keeper, vault: a.vault}
	a.dispatch = dispatch.New(a.bus, a.ledger, payload, a.logger, a.registry, a.now)
	a.delivery = delivery.New(a.bus, a.ledger, deliveryPayload{payload, a.authority}, a.logger, a.registry, a.now)
	if err := a.use(lib); err != nil {
		return err
	}

	a.pauses = newPauses(a.bus, a.delivery, a.now, a.logger)
	a.background("operators' pauses", a.pauses.follow)
	a.startJobs()

	// Dispatch consumes, works out and appends: it gains from many records at
	// once. Delivery waits for destinations, each delivery for itself.
	a.background("restoring of group offsets", a.once(a.restoreStages, a.restored))
	a.background("dispatch", func(ctx context.Context) error {
		if err := await(ctx, a.restored); err != nil {
			return err
		}
		return a.bus.Consume(ctx, bus.Group{Name: dispatch.Group, Topics: []string{dispatch.Topic}, BatchRecords: dispatch.BatchRecords,
			MaxInFlight: 4 * dispatch.BatchRecords, MaxInFlightBytes: stageBytes, Assigned: a.dispatch.Assigned, Revoked: a.dispatch.Revoked, Owns: a.dispatch.Owns}, dispatch.Topic, a.dispatch.Handle)
	})
	sub, err := a.bus.Subscriber(bus.Group{Name: delivery.Group, Topics: []string{delivery.Topic}, MaxInFlight: delivery.InFlight, MaxInFlightBytes: stageBytes,
		Key: delivery.Key, Spill: a.delivery.Spill, Assigned: a.delivery.Assigned, Revoked: a.delivery.Revoked, Owns: a.delivery.Owns})
	if err != nil {
		return err
	}
	a.runRouter("stages", a.restored, func(r *message.Router) {
		r.AddConsumerHandler("delivery", delivery.Topic, sub, a.delivery.Handle)
	})
	return nil
}

// quieter keeps watermill's comings and goings out of the operator's log.
var quieter = map[slog.Level]slog.Level{slog.LevelInfo: slog.LevelDebug}

// runRouter runs watermill handlers from the time on that ready is closed, until
// the app stops.
func (a *App) runRouter(name string, ready <-chan struct{}, add func(*message.Router)) {
	a.background(name, func(ctx context.Context) error {
		if err := await(ctx, ready); err != nil {
			return err
		}
		r, err := message.NewRouter(message.RouterConfig{CloseTimeout: a.drain()}, watermill.NewSlogLoggerWithLevelMapping(a.logger.With("part", name), quieter))
		if err != nil {
			return err
		}
		add(r)
		ended := make(chan error, 1)
		go func() { ended <- r.Run(context.WithoutCancel(ctx)) }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			if err := r.Close(); err != nil {
				return err
			}
			return ctx.Err()
		}
	})
}

func await(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *App) drain() time.Duration { return a.router.Drain }

// Stop drains and stops everything, last started first stopped: the doors close
// before the stages do.
func (a *App) Stop() {
	a.stop.Do(func() {
		began := a.now()
		a.logger.Info("stopping: no new submissions, draining what is in hand", "within", a.drain().String())
		ctx, cancel := context.WithTimeout(context.Background(), a.drain()+5*time.Second)
		defer cancel()
		a.closers.run(ctx)
		a.logger.Info("stopped", "duration_ms", time.Since(began).Milliseconds())
	})
}
