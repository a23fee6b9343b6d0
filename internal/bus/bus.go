package bus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"weiche/internal/fault"
)

// Bus is a connection to one cluster. All methods are safe for concurrent use.
// Errors are *fault.Error throughout; their texts name topics, groups and
// settings, never a record's content.
type Bus struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	// Appends, short requests, and long polls have connections of their own: a
	// broker answers one request of a connection after the other.
	small  *lane // appends up to smallBytes
	bulk   *lane // larger ones
	books  *lane // claims and events, compressed
	single *lane // one record at a time, see resendOversized
	meta   sarama.Client
	admin  sarama.ClusterAdmin
	known  sync.Map // topic → place: seen in the cluster's metadata
	shelf  *shelf   // of Fetch

	life   context.Context // ends with Close
	cancel context.CancelFunc
	users  sync.WaitGroup // subscriptions and tails

	readMu  sync.Mutex
	readers []*reader // of Tail

	mu      sync.Mutex
	ensured []Topic
	closed  bool
}

// Open connects to the cluster. It fails with broker-unavailable when no broker
// answers within Config.AppendTimeout, with misconfigured when the settings are
// no good, and with not-authorised when the broker refuses the user. Metrics
// are registered with reg, which may be nil.
func Open(ctx context.Context, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Bus, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	routeLogs(log)
	m, err := newMetrics(reg)
	if err != nil {
		return nil, misconfigured("the bus's metrics clash with others of the same name")
	}
	conf, err := cfg.client()
	if err != nil {
		return nil, err
	}
	if err := conf.Validate(); err != nil {
		return nil, classify(err, "kafka settings")
	}
	wait, cancel := context.WithTimeout(ctx, cfg.AppendTimeout)
	defer cancel()
	client, err := tryOr(wait, func() (sarama.Client, error) { return cfg.connect(cfg.client) }, func(late sarama.Client) { _ = late.Close() })
	if err != nil {
		if ctx.Err() != nil {
			return nil, fault.Of(ctx.Err())
		}
		if wait.Err() != nil {
			return nil, fault.Wrap(err, fault.Retryable, fault.ReasonBrokerUnavailable, "no broker of kafka.brokers answered within %s", cfg.AppendTimeout)
		}
		return nil, classify(err, "connect to kafka.brokers")
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		_ = client.Close()
		return nil, classify(err, "connect to kafka.brokers")
	}
	b := &Bus{cfg: cfg, log: log, metrics: m, meta: client, admin: admin, shelf: newShelf()}
	b.life, b.cancel = context.WithCancel(context.Background())
	b.small, b.bulk = newLane(cfg, nil), newLane(cfg, nil)
	b.books = newLane(cfg, func(s *sarama.Config) { s.Producer.Compression = sarama.CompressionSnappy })
	b.single = newLane(cfg, func(s *sarama.Config) { s.Producer.Flush.MaxMessages = 1 })
	return b, nil
}

// Close ends subscriptions and tails, commits what they have finished, flushes
// what is being appended, and closes the connections. It is bounded: by
// Group.Grace for handlers that do not return, by Config.AppendTimeout for a
// broker that does not answer.
func (b *Bus) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.users.Wait()
	var lanes sync.WaitGroup
	for _, l := range []*lane{b.small, b.bulk, b.books, b.single} {
		lanes.Go(l.close)
	}
	lanes.Wait()
	b.readMu.Lock()
	defer b.readMu.Unlock()
	for _, r := range b.readers {
		r.close()
	}
	if err := b.admin.Close(); err != nil {
		return classify(err, "close")
	}
	return nil
}

// enter counts a user of the bus in; false when it is closed.
func (b *Bus) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.users.Add(1)
	return true
}

// Ping asks the cluster who it is; nil means it answers.
func (b *Bus) Ping(ctx context.Context) error {
	_, err := request(ctx, b, "ping", func() (int32, error) {
		_, id, err := b.admin.DescribeCluster()
		return id, err
	})
	return err
}

// try runs fn, which cannot be cancelled, and stops waiting for it when ctx
// ends. fn is bounded by the client's own timeouts.
func try[T any](ctx context.Context, fn func() (T, error)) (T, error) {
	return tryOr(ctx, fn, func(T) {})
}

// tryOr is try for what has to be given back: drop gets a result that came too
// late for anybody to take it.
func tryOr[T any](ctx context.Context, fn func() (T, error), drop func(T)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	ch := make(chan answer) // without room: what is sent has been taken
	go func() {
		v, err := fn()
		select {
		case ch <- answer{v, err}:
		case <-ctx.Done():
			if err == nil {
				drop(v)
			}
		}
	}()
	select {
	case a := <-ch:
		return a.v, a.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

// request is try bounded by Config.AppendTimeout, with a classed error. A
// request that finds its connection broken, or its leader moved, is made again
// twice: after an outage every idle connection is broken once. All requests made
// this way may be repeated.
func request[T any](ctx context.Context, b *Bus, what string, fn func() (T, error)) (T, error) {
	wait, cancel := context.WithTimeout(ctx, b.cfg.AppendTimeout)
	defer cancel()
	for again := 0; ; again++ {
		v, err := try(wait, fn)
		if err != nil && wait.Err() != nil && ctx.Err() == nil {
			return v, fault.Wrap(err, fault.Retryable, fault.ReasonBrokerUnavailable, "%s: no answer within %s", what, b.cfg.AppendTimeout)
		}
		if err = classify(err, what); err == nil || again == 2 || reasonOf(err) != fault.ReasonBrokerUnavailable {
			return v, err
		}
		sleep(wait, 50*time.Millisecond<<again)
		_, _ = try(wait, b.meta.RefreshController)
	}
}

// sleep waits, and says whether it was allowed to finish.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// double is the next pause after d, from 100 ms up to 10 s.
func double(d time.Duration) time.Duration {
	return min(max(2*d, 100*time.Millisecond), 10*time.Second)
}

// sarama has one logger for the whole process, and may use it at any time; so
// it is set once and looks up where to write.
var logs atomic.Pointer[slog.Logger]

func init() { sarama.Logger = saramaLog{} }

func routeLogs(log *slog.Logger) { logs.Store(log) }

type saramaLog struct{}

func (saramaLog) write(text func() string) {
	if l := logs.Load(); l != nil && l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug("sarama", "text", text())
	}
}

// Print implements sarama.StdLogger.
func (s saramaLog) Print(v ...any) { s.write(func() string { return fmt.Sprint(v...) }) }

// Printf implements sarama.StdLogger.
func (s saramaLog) Printf(format string, v ...any) {
	s.write(func() string { return fmt.Sprintf(format, v...) })
}

// Println implements sarama.StdLogger.
func (s saramaLog) Println(v ...any) { s.write(func() string { return fmt.Sprint(v...) }) }
