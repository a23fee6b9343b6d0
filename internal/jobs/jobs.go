package jobs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/status"
	"weiche/internal/submission"
)

// Foresight tells what would happen now, without doing it.
type Foresight interface {
	// Try decides, maps and checks a submission as dispatch would.
	Try(ctx context.Context, m submission.Meta, value []byte) Trial
	// Door says whether a destination is configured and takes deliveries.
	Door(destination string) (configured, open bool)
}

// Trial is what dispatch would make of a submission: the destinations it would
// go to, or why it would not.
type Trial struct {
	Destinations []string
	Unassigned   bool   // rather than dead
	Reason       string // a fault's reason, "" where it goes well
	Detail       string // of the reason, without payload
}

// Options of Jobs.
type Options struct {
	Log       Log
	Store     *status.Store
	Projector *status.Projector
	Foresight Foresight
	// Owns says whether this replica runs the jobs.
	Owns   func() bool
	Logger *slog.Logger
	Reg    prometheus.Registerer
	Now    func() time.Time
	// Sleep waits, or returns false when ctx ends before; nil: by the clock.
	Sleep func(ctx context.Context, d time.Duration) bool
}

// Jobs are the jobs of one router. Its methods are safe for concurrent use;
// their errors are those below, faults of the bus, or of the store.
type Jobs struct {
	Options
	book    *book
	metrics *metrics
}

// What may be wrong with what is asked of a job.
var (
	ErrNotFound = errors.New("there is no such job")
	ErrTooMany  = errors.New("the filter names more items than a job may have")
	ErrState    = errors.New("the job is not in a state for that")
)

// New returns the jobs; Follow and Run bring them to life.
func New(opts Options) *Jobs {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Sleep == nil {
		opts.Sleep = sleep
	}
	j := &Jobs{Options: opts, book: newBook(opts.Log, opts.Now)}
	j.metrics = newMetrics(opts.Reg, j)
	return j
}

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

// Follow reads what stands about jobs, until ctx ends. Every replica does.
func (j *Jobs) Follow(ctx context.Context) error {
	return j.book.follow(ctx, func(offset int64) {
		j.Logger.Error("a record about a job that cannot be read was passed over", "topic", bus.TopicJobs, "offset", offset)
	})
}

// List returns every job, the newest first, by all that is known anywhere.
func (j *Jobs) List(ctx context.Context) ([]*View, error) {
	if err := j.book.CaughtUp(ctx); err != nil {
		return nil, err
	}
	return j.book.views(), nil
}

// Get returns one job.
func (j *Jobs) Get(ctx context.Context, id uuid.UUID) (*View, error) {
	if err := j.book.CaughtUp(ctx); err != nil {
		return nil, err
	}
	v := j.book.view(id)
	if v == nil {
		return nil, ErrNotFound
	}
	return v, nil
}

// Say says something to a job, and returns the job as it is then. What makes no
// sense in the job's state is ErrState.
func (j *Jobs) Say(ctx context.Context, id uuid.UUID, w Word) (*View, error) {
	v, err := j.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	ok := false
	switch w.Verb {
	case Run:
		ok = v.State == Previewed
	case Stop:
		ok = v.State == Running || v.State == Queued
	case Resume:
		ok = v.State == Stopped
	}
	if !ok {
		return v, ErrState
	}
	w.At = j.Now().UTC()
	r, err := j.book.record(id.String()+"/"+partWord+"/"+uuid.NewString(), w)
	if err != nil {
		return nil, err
	}
	if err := j.book.Write(ctx, r); err != nil {
		return nil, err
	}
	failpoint.Hit("jobs.said")
	j.Logger.Info("something was said to a job", "job", id, "kind", string(v.Kind), "verb", string(w.Verb), "operator", w.Operator, "reason", w.Reason, "force", w.Force)
	return j.Get(ctx, id)
}

// Report is what became of a job's items by now.
type Report struct {
	// States counts items by the state of what they are about; a delivery that
	// was replaced by a later revision counts as its submission. What the account
	// does not know is `unknown`.
	States   map[submission.State]int `json:"states"`
	Failures []Failure                `json:"failures"` // at most MaxFailures
	More     int                      `json:"more,omitempty"`
}

// MaxFailures bounds the list in a report.
const MaxFailures = 1000

// Report counts where the items are by now, and lists what was left as it was. Any
// replica may be asked; one that is behind answers when it has caught up.
func (j *Jobs) Report(ctx context.Context, id uuid.UUID) (*Report, error) {
	v, err := j.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := j.Projector.WaitAsked(ctx); err != nil {
		return nil, err
	}
	out := &Report{States: map[submission.State]int{}, Failures: []Failure{}}
	for _, at := range j.book.places(id, partItems) {
		var items []Item
		if err := j.book.load(ctx, at, &items); err != nil {
			return nil, err
		}
		for _, i := range items {
			acct, err := j.Store.Get(ctx, i.Submission)
			if errors.Is(err, status.ErrNotFound) {
				out.States[LeftUnknown]++
				continue
			}
			if err != nil {
				return nil, err
			}
			out.States[stateOf(acct, i)]++
		}
	}
	for _, at := range j.book.places(id, partChunk) {
		var c chunk
		if err := j.book.load(ctx, at, &c); err != nil {
			return nil, err
		}
		room := min(len(c.Failures), MaxFailures-len(out.Failures))
		out.Failures = append(out.Failures, c.Failures[:room]...)
	}
	out.More = v.Progress.Left - len(out.Failures)
	return out, nil
}

func stateOf(acct *submission.Account, i Item) submission.State {
	if d := acct.Delivery(i.Delivery); d != nil {
		return d.State
	}
	return acct.State
}

const (
	keepJobs     = 90 * 24 * time.Hour
	keepPreviews = 7 * 24 * time.Hour
)

// tidy forgets jobs that ended long ago, and previews that nobody ran.
func (j *Jobs) tidy(ctx context.Context) error {
	now := j.Now()
	for _, key := range j.book.stale(now.Add(-keepJobs), now.Add(-keepPreviews)) {
		r, err := j.book.record(key, nil)
		if err == nil {
			err = j.book.Write(ctx, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
