package status

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// What a batch may hold, and how long it may wait for more. A record that comes
// alone waits for lone, less than a person notices. The more records the batch
// before held, the longer the next one gathers: a submission whose records come
// in one batch is written once. When somebody waits for the projection it goes
// on after hurried.
const (
	batchRecords = 4096
	batchBytes   = 8 << 20
	lone         = 2 * time.Millisecond
	perRecord    = time.Millisecond / 4
	loaded       = 100 * time.Millisecond
	hurried      = 5 * time.Millisecond
	lagEvery     = 5 * time.Second
)

// Options of a Projector.
type Options struct {
	Log    Log
	Logger *slog.Logger
	// Sign makes a compact JWS of a payload, Verify reads one; both may be nil,
	// then there are no checkpoints and signatures are not checked.
	Sign   func(payload []byte) (string, error)
	Verify Verify
	Now    func() time.Time // default time.Now
}

// Projector follows the log into a store. Its methods are safe for concurrent
// use.
type Projector struct {
	store *Store
	Options

	lag  atomic.Int64
	lost atomic.Pointer[map[offer]int] // rows, when Reconcile last counted them

	mu      sync.Mutex
	running bool
	paused  chan struct{} // closed when a pause is over; nil when none is asked for
	stopped chan struct{} // closed when the session has stopped for the pause
	cancel  context.CancelFunc

	rebuilding sync.Mutex
}

// NewProjector returns a projector; Run starts it.
func NewProjector(store *Store, opts Options) *Projector {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Projector{store: store, Options: opts}
}

// Run follows every partition of events, submissions and claims until ctx ends.
// A broker that is away or a file that cannot be written is tried again after a
// pause; Run returns nil once ctx has ended.
func (p *Projector) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.running {
		p.mu.Unlock()
		return errors.New("status: the projector runs already")
	}
	p.running = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.running = false
		if p.stopped != nil {
			close(p.stopped)
			p.stopped = nil
		}
		p.mu.Unlock()
	}()
	wait := 100 * time.Millisecond
	for ctx.Err() == nil {
		sctx, cancel := context.WithCancel(ctx)
		p.mu.Lock()
		paused, stopped := p.paused, p.stopped
		p.stopped = nil
		p.cancel = cancel
		p.mu.Unlock()
		if stopped != nil {
			close(stopped)
		}
		if paused != nil {
			select {
			case <-ctx.Done():
			case <-paused:
			}
			cancel()
			continue
		}
		began := time.Now()
		err := p.session(sctx, p.store.activeGeneration, &p.store.progress)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err == nil || errors.Is(err, context.Canceled) {
			continue
		}
		p.Logger.Error("the projection stopped and is taken up again", "error", describe(err))
		if time.Since(began) > time.Minute {
			wait = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 10*time.Second)
	}
	return nil
}

// describe returns an error's text without what a broker may have quoted.
func describe(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Error()
	}
	return err.Error()
}

// session projects into one generation until ctx ends or something fails. What
// the end of ctx made fail is no failure.
func (p *Projector) session(ctx context.Context, target func() *generation, reached *progress) error {
	if err := p.follow(ctx, target, reached); ctx.Err() == nil {
		return err
	}
	return nil
}

func (p *Projector) follow(ctx context.Context, target func() *generation, reached *progress) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	from := target().offsets
	records := make(chan *bus.Record, 1024)
	failed := make(chan error, 1)
	for _, topic := range []string{TopicEvents, TopicSubmissions, TopicClaims} {
		oldest, newest, err := p.Log.Offsets(ctx, topic)
		if err != nil {
			return err
		}
		for i := range newest {
			src := source{topic, int32(i)} //nolint:gosec // a partition number
			if from[src] > newest[i] {
				// Another cluster, or one that lost acknowledged records.
				return fmt.Errorf("partition %d of %s ends at %d, but %d records of it are projected: rebuild the status store", i, topic, newest[i], from[src])
			}
			if from[src] < oldest[i] && oldest[i] == newest[i] {
				reached.advance(map[source]int64{src: oldest[i]}, nil) // nothing is left there to wait for
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				err := p.Log.Tail(ctx, topic, src.partition, from[src], func(r *bus.Record) error {
					if topic != TopicEvents {
						r = &bus.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Headers: r.Headers, Time: r.Time}
					}
					select {
					case records <- r:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				if ctx.Err() == nil {
					if err == nil {
						err = fmt.Errorf("reading partition %d of %s ended", src.partition, topic)
					}
					select {
					case failed <- err:
					default:
					}
				}
			}()
		}
	}
	lag := time.NewTicker(lagEvery)
	defer lag.Stop()
	last := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-lag.C:
			p.measureLag(ctx)
		case r := <-records:
			recs := collect(r, records, reached, min(max(lone, time.Duration(last)*perRecord), loaded))
			if err := p.batch(ctx, target(), recs, reached); err != nil {
				return err
			}
			last = len(recs)
		}
	}
}

// collect gathers a batch for so long, or until it is full.
func collect(first *bus.Record, more <-chan *bus.Record, reached *progress, wait time.Duration) []*bus.Record {
	recs, bytes := []*bus.Record{first}, len(first.Value)
	began := time.Now()
	if reached.awaited.Load() > 0 {
		wait = min(wait, hurried)
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	for len(recs) < batchRecords && bytes < batchBytes {
		select {
		case r := <-more:
			recs, bytes = append(recs, r), bytes+len(r.Value)
		case <-reached.hurry:
			if left := hurried - time.Since(began); wait > hurried {
				wait = hurried
				over.Reset(max(0, left))
			}
		case <-over.C:
			return recs
		}
	}
	return recs
}

func (p *Projector) batch(ctx context.Context, g *generation, recs []*bus.Record, reached *progress) error {
	p.store.write.Lock()
	defer p.store.write.Unlock()
	out, err := p.store.project(ctx, g, p.Verify, recs)
	if err != nil {
		return err
	}
	p.report(out)
	reached.advance(g.offsets, g.epochs)
	return nil
}

func (p *Projector) report(out Outcome) {
	for _, u := range out.Undecodable {
		p.Logger.Error("a record that cannot be read was passed by the projection", "topic", u.Topic, "partition", u.Partition, "offset", u.Offset, "what", u.What)
	}
	for _, t := range out.Tampering {
		p.Logger.Error("the account of events was changed after it was signed", "partition", t.Partition, "offset", t.Offset, "covered", t.Covered, "what", t.What)
	}
}

func (p *Projector) measureLag(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var lag int64
	for _, topic := range []string{TopicEvents, TopicSubmissions, TopicClaims} {
		oldest, newest, err := p.Log.Offsets(ctx, topic)
		if err != nil {
			return
		}
		for i := range newest {
			done := max(oldest[i], p.store.Progress(topic, int32(i))) //nolint:gosec // a partition number
			lag += max(0, newest[i]-done)
		}
	}
	p.lag.Store(lag)
}

// WaitAsked returns when everything is projected that stood in events and
// submissions when it was called, or with ctx.
func (p *Projector) WaitAsked(ctx context.Context) error {
	want, err := asked(ctx, p.Log, TopicEvents, TopicSubmissions)
	if err != nil {
		return err
	}
	return waitLog(ctx, p.Log, &p.store.progress, want)
}

// waitLog waits until the progress has come to want. What is cut from the log
// meanwhile will never come and is not waited for.
func waitLog(ctx context.Context, log Log, p *progress, want map[source]int64) error {
	for {
		wctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		err := p.wait(wctx, want)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		topics := map[string]bool{}
		for src := range want {
			topics[src.topic] = true
		}
		for topic := range topics {
			oldest, newest, err := log.Offsets(ctx, topic)
			if err != nil {
				return err
			}
			for src, o := range want {
				if src.topic == topic && (int(src.partition) >= len(newest) || o <= oldest[src.partition] || o > newest[src.partition]) {
					delete(want, src)
				}
			}
		}
	}
}

// asked returns the present ends of the topics' partitions that hold records.
func asked(ctx context.Context, log Log, topics ...string) (map[source]int64, error) {
	want := map[source]int64{}
	for _, topic := range topics {
		oldest, newest, err := log.Offsets(ctx, topic)
		if err != nil {
			return nil, err
		}
		for i := range newest {
			if oldest[i] < newest[i] {
				want[source{topic, int32(i)}] = newest[i] //nolint:gosec // a partition number
			}
		}
	}
	return want, nil
}

// Rebuild projects the log anew beside the present projection and then takes
// its place in one step: queries and the ledger never see half an account. It
// returns when that is done.
func (p *Projector) Rebuild(ctx context.Context) error {
	if !p.rebuilding.TryLock() {
		return fault.New(fault.Retryable, fault.ReasonBusy, "a rebuild is under way already")
	}
	defer p.rebuilding.Unlock()
	s := p.store
	s.mu.RLock()
	old := s.active
	s.mu.RUnlock()

	s.write.Lock()
	next, err := s.openGeneration(old.n + 1)
	s.write.Unlock()
	if err != nil {
		return fmt.Errorf("status store: %w", err)
	}
	failpoint.Hit("status.rebuilding")
	swapped := false
	defer func() {
		if !swapped {
			next.close()
			s.write.Lock()
			defer s.write.Unlock()
			if err := s.dropOthers(old.n); err != nil {
				p.Logger.Error("what an unfinished rebuild left behind could not be removed; the next start does it", "error", err.Error())
			}
		}
	}()

	// Follow the log with the new one, with a progress of its own.
	var reached progress
	reached.init()
	sctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.session(sctx, func() *generation { return next }, &reached) }()
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	defer func() { _ = stop() }()
	want, err := asked(ctx, p.Log, TopicEvents, TopicSubmissions, TopicClaims)
	if err != nil {
		return err
	}
	if err := p.waitOr(ctx, &reached, want, ended); err != nil {
		return err
	}

	// Stop the present one, let the new one come as far, change places.
	resume, err := p.pause(ctx)
	if err != nil {
		return err
	}
	defer resume()
	s.write.Lock()
	have := maps.Clone(old.offsets)
	s.write.Unlock()
	if err := p.waitOr(ctx, &reached, have, ended); err != nil {
		return err
	}
	if err := stop(); err != nil {
		return err
	}
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	err = s.setActive(next.n)
	if err == nil {
		s.active = next
		swapped = true
		old.close()
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("status store: %w", err)
	}
	failpoint.Hit("status.rebuilt")
	s.progress.replace(next)
	if err := s.dropOthers(next.n); err != nil {
		p.Logger.Error("the former projection could not be removed; the next start does it", "error", err.Error())
	}
	return nil
}

// waitOr waits for the progress, or for the end of what makes it.
func (p *Projector) waitOr(ctx context.Context, reached *progress, want map[source]int64, ended chan error) error {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failure error
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case failure = <-ended:
			ended <- failure
			cancel()
		case <-wctx.Done():
		}
	}()
	err := waitLog(wctx, p.Log, reached, want)
	cancel()
	<-done
	if err != nil && failure != nil {
		return failure
	}
	return err
}

// pause stops Run's session until the returned function is called. Where Run is
// not running there is nothing to stop.
func (p *Projector) pause(ctx context.Context) (resume func(), err error) {
	over, stopped := make(chan struct{}), make(chan struct{})
	p.mu.Lock()
	p.paused = over
	if p.running {
		p.stopped = stopped
		if p.cancel != nil {
			p.cancel()
		}
	} else {
		close(stopped)
	}
	p.mu.Unlock()
	resume = sync.OnceFunc(func() {
		p.mu.Lock()
		p.paused = nil
		p.mu.Unlock()
		close(over)
	})
	select {
	case <-stopped:
		return resume, nil
	case <-ctx.Done():
		resume()
		return nil, ctx.Err()
	}
}

func (s *Store) activeGeneration() *generation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.active
}

// Checkpoint signs the running hash of one partition of events, as far as it is
// projected, and hands the event to write, which the partition's owner gives:
// it sets stage and epoch and appends. Nothing is written when nothing but a
// checkpoint has come since the last one.
func (p *Projector) Checkpoint(ctx context.Context, partition int32, write func(context.Context, submission.Event) error) error {
	if p.Sign == nil {
		return nil
	}
	s := p.store
	s.write.Lock()
	g := s.activeGeneration()
	offset, end := g.offsets[source{TopicEvents, partition}], g.tips[partition]
	s.write.Unlock()
	if end.link == nil || end.quiet {
		return nil
	}
	c := submission.Checkpoint{Offset: offset, Hash: hex.EncodeToString(end.link)}
	payload, err := json.Marshal(statement{TopicEvents, partition, c.Offset, c.Hash})
	if err != nil {
		return err
	}
	if c.JWS, err = p.Sign(payload); err != nil {
		return fmt.Errorf("signing the checkpoint of partition %d: %w", partition, err)
	}
	return write(ctx, submission.Event{
		ID:   submission.NewEventID(submission.EventCheckpoint, uuid.Nil, strconv.Itoa(int(partition)), strconv.FormatInt(offset, 10)),
		Type: submission.EventCheckpoint, At: p.Now().UTC(), Stage: submission.StageDispatch, Checkpoint: &c,
	})
}

// VerifyCheckpoints reads the events from the log, not from the store, and
// returns every place where they are not what was signed.
func (p *Projector) VerifyCheckpoints(ctx context.Context) ([]Tampering, error) {
	oldest, newest, err := p.Log.Offsets(ctx, TopicEvents)
	if err != nil {
		return nil, err
	}
	var found []Tampering
	for i := range newest {
		partition := int32(i) //nolint:gosec // a partition number
		var link []byte
		type point struct {
			below int64
			link  []byte
		}
		var points []point // the chain, by what it covers
		err := p.Log.ReadTo(ctx, TopicEvents, partition, oldest[i], newest[i], func(r *bus.Record) error {
			if ev, err := decode(r); err == nil && ev.Type == submission.EventCheckpoint {
				what, covered := "the checkpoint is empty", int64(0)
				if c := ev.Checkpoint; c != nil {
					covered = c.Offset
					var at []byte
					for j := len(points) - 1; j >= 0; j-- {
						if points[j].below <= covered {
							at, points = points[j].link, points[j:]
							break
						}
					}
					what = checkCheckpoint(partition, *c, at, p.Verify)
				}
				if what != "" {
					found = append(found, Tampering{partition, r.Offset, covered, what})
				}
			}
			link = chain(link, r)
			points = append(points, point{r.Offset + 1, link})
			return nil
		})
		if err != nil {
			return found, err
		}
	}
	return found, nil
}
