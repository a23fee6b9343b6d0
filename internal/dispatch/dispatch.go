// Package dispatch decides, maps and validates: what comes from the submissions
// topic leaves for the deliveries topic as the message its destination takes,
// or is held for an operator, or goes to the dead letters with its cause.
//
// The owner of a partition of the submissions topic is the only writer of
// dispatch's events for that partition. The first decision in the partition
// stands: it is recorded before the delivery is appended, and a crash in
// between repeats the recorded decision, not a new one. The package attempts no
// delivery and refuses nothing that was accepted.
package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/routing"
	"weiche/internal/submission"
)

// Topics and the consumer group of the stage.
const (
	Topic           = "weiche.submissions"
	TopicUnassigned = "weiche.unassigned"
	TopicDead       = "weiche.deadletters"
	TopicDeliveries = "weiche.deliveries"
	Group           = "weiche-dispatch"
)

// Log is what the stage needs of the bus.
type Log interface {
	Append(ctx context.Context, recs ...*bus.Record) error
}

// Ledger is the account the stage reads and writes.
type Ledger interface {
	Acquire(ctx context.Context, stage submission.Stage, partition int32) (epoch int64, err error)
	Account(ctx context.Context, id uuid.UUID) (*submission.Account, error)
	// Append fails with status.ErrSuperseded where another owner has begun.
	Append(ctx context.Context, partition int32, evs ...submission.Event) error
}

// Rules is one Land's configuration, ready to decide.
type Rules struct {
	Table *routing.Table
	Hash  string // of the Land's configuration
}

// Catalogue is what the stage needs of the process library and of the
// configuration; it is replaced as a whole on reload.
type Catalogue interface {
	// Rules returns the rules of a Land; false means that the Land is not
	// served or that its configuration is refused at the moment.
	Rules(land submission.Land) (Rules, bool)
	// Message maps and validates. Errors are *fault.Error without payload.
	Message(job Job) ([]byte, error)
	// Portal returns the portal's DVDV key and name.
	Portal(id string) (submission.Authority, bool)
}

// Job is one message to be made.
type Job struct {
	Meta      submission.Meta
	Envelope  *submission.Envelope
	Authority submission.Authority
	Portal    submission.Authority
	Format    submission.Format
	MessageID uuid.UUID
	CreatedAt time.Time
}

// Payload opens a submission and seals a message beside it.
type Payload interface {
	// Open returns the envelope in a sealed submission record.
	Open(ctx context.Context, m submission.Meta, value []byte) (*submission.Envelope, error)
	// WithXML returns the record value of the delivery: the sealed submission
	// with the sealed message beside it.
	WithXML(ctx context.Context, m submission.Meta, value, xml []byte) ([]byte, error)
}

// Stage is the dispatch stage of one process. Its methods are safe for
// concurrent use.
type Stage struct {
	log     Log
	ledger  Ledger
	payload Payload
	logger  *slog.Logger
	now     func() time.Time
	metrics *metrics

	catalogue atomic.Pointer[Catalogue]
	mu        sync.Mutex
	owned     map[int32]*ownership

	retakeAfter time.Duration
}

// New makes the stage; SetCatalogue comes before the first record.
func New(log Log, ledger Ledger, payload Payload, logger *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Stage {
	return &Stage{log: log, ledger: ledger, payload: payload, logger: logger, now: now,
		metrics: newMetrics(reg), owned: map[int32]*ownership{}, retakeAfter: retakeAfter}
}

// SetCatalogue replaces rules, mappings and portals as a whole. Records under
// way end with what they began with.
func (s *Stage) SetCatalogue(c Catalogue) { s.catalogue.Store(&c) }

// Assigned takes over a partition. It is the bus's hook, called before the
// partition's first record.
func (s *Stage) Assigned(ctx context.Context, topic string, partition int32) error {
	s.Revoked(topic, partition) // nothing, unless the bus forgot to
	epoch, err := s.ledger.Acquire(ctx, submission.StageDispatch, partition)
	if err != nil {
		return err
	}
	o := &ownership{partition: partition}
	o.held, o.giveUp = context.WithCancel(context.Background())
	o.epoch.Store(epoch)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned[partition] = o
	return nil
}

// Revoked gives a partition up.
func (s *Stage) Revoked(_ string, partition int32) {
	s.mu.Lock()
	o := s.owned[partition]
	delete(s.owned, partition)
	s.mu.Unlock()
	if o != nil {
		o.giveUp()
		o.retakes.Wait()
	}
}

// Handle is the watermill handler of the submissions topic. An error means: not
// acknowledged, the bus brings the record again.
func (s *Stage) Handle(msg *message.Message) error {
	rec, ok := bus.RecordOf(msg)
	if !ok {
		return errors.New("a message that does not come from the bus")
	}
	s.mu.Lock()
	own := s.owned[rec.Partition]
	s.mu.Unlock()
	if own == nil || own.lost.Load() {
		return fault.New(fault.Cancelled, fault.ReasonCancelled, "partition %d is no longer ours", rec.Partition)
	}
	began := s.now()
	w := work{Stage: s, rec: rec, own: own, epoch: own.epoch.Load(), cat: *s.catalogue.Load()}
	err := w.run(msg.Context())
	if err != nil {
		if f := fault.Of(err); f.Class != fault.Cancelled {
			s.logger.Warn("submission record not acknowledged, it will come again", "partition", rec.Partition, "offset", rec.Offset, "reason", f.Reason, "error", f.Error())
		}
		return err
	}
	s.metrics.seconds.Observe(s.now().Sub(began).Seconds())
	return nil
}
