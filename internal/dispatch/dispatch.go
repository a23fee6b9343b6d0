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
	"io"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
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

// BatchRecords is how many records are carried together at most. Beyond it the
// appends weigh little beside the mapping, and the first of a batch would wait
// for the last.
const BatchRecords = 64

// Log is what the stage needs of the bus.
type Log interface {
	Append(ctx context.Context, recs ...*bus.Record) error
}

// Ledger is the account the stage reads and writes.
type Ledger interface {
	Acquire(ctx context.Context, stage submission.Stage, partition int32) (epoch int64, err error)
	// Owns says whether the epoch is the newest, by all that stood in the log.
	Owns(ctx context.Context, stage submission.Stage, partition int32, epoch int64) (bool, error)
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
	// Open returns the plain bytes of a file of the submission, the caller's to
	// close; nil with Outline.
	Open func(submission.Attachment) (io.ReadCloser, error)
	// Outline is set of what is not stored yet: the message is only to be judged.
	Outline bool
}

// Payload opens a submission and seals a message beside it.
type Payload interface {
	// Open returns the envelope in a sealed submission record.
	Open(ctx context.Context, m submission.Meta, value []byte) (*submission.Envelope, error)
	// OpenFile returns the plain bytes of one of the envelope's attachments, the
	// caller's to close.
	OpenFile(ctx context.Context, m submission.Meta, value []byte, a submission.Attachment) (io.ReadCloser, error)
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
	owned     map[int32]int64 // partition → epoch
}

// New makes the stage; SetCatalogue comes before the first record.
func New(log Log, ledger Ledger, payload Payload, logger *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Stage {
	return &Stage{log: log, ledger: ledger, payload: payload, logger: logger, now: now,
		metrics: newMetrics(reg), owned: map[int32]int64{}}
}

// SetCatalogue replaces rules, mappings and portals as a whole. Records under
// way end with what they began with.
func (s *Stage) SetCatalogue(c Catalogue) { s.catalogue.Store(&c) }

// Assigned takes over a partition. It is the bus's hook, called before the
// partition's first record.
func (s *Stage) Assigned(ctx context.Context, _ string, partition int32) error {
	epoch, err := s.ledger.Acquire(ctx, submission.StageDispatch, partition)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned[partition] = epoch
	return nil
}

// Owns is the bus's question before a commit: whether all that was recorded for
// the partition took effect.
func (s *Stage) Owns(ctx context.Context, _ string, partition int32) (bool, error) {
	epoch, ok := s.epoch(partition)
	if !ok {
		return false, nil
	}
	return s.ledger.Owns(ctx, submission.StageDispatch, partition, epoch)
}

// Revoked gives a partition up.
func (s *Stage) Revoked(_ string, partition int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.owned, partition)
}

// Owned returns the partitions this process dispatches for, with the epoch it
// owns each under.
func (s *Stage) Owned() map[int32]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.owned)
}

func (s *Stage) epoch(partition int32) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.owned[partition]
	return e, ok
}

// Handle is the bus's batch handler for the submissions topic. A record with an
// error is not acknowledged, the bus brings it again.
func (s *Stage) Handle(ctx context.Context, recs []*bus.Record) []error {
	began := s.now()
	b := &batch{Stage: s, partition: recs[0].Partition, cat: *s.catalogue.Load(), errs: make([]error, len(recs)), failed: map[string]error{}}
	var ok bool
	if b.epoch, ok = s.epoch(b.partition); !ok {
		for i := range b.errs {
			b.errs[i] = fault.New(fault.Cancelled, fault.ReasonCancelled, "partition %d is no longer ours", b.partition)
		}
		return b.errs
	}
	b.run(ctx, recs)
	failpoint.Hit("dispatch.done")
	took := s.now().Sub(began).Seconds()
	refused, first := 0, -1
	for i, err := range b.errs {
		switch {
		case err == nil:
			s.metrics.seconds.Observe(took)
		case fault.Of(err).Class != fault.Cancelled:
			if refused++; first < 0 {
				first = i
			}
		}
	}
	if refused > 0 {
		f := fault.Of(b.errs[first])
		s.logger.Warn("submission records not acknowledged, they will come again", "records", refused, "partition", b.partition,
			"first_offset", recs[first].Offset, "reason", f.Reason, "error", f.Error())
	}
	return b.errs
}
