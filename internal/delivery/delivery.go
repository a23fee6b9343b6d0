// Package delivery hands decided submissions to their destinations: attempt,
// record, then acknowledge; wait in Kafka where an attempt failed; dead letter
// where trying again cannot help.
//
// The owner of a partition of the deliveries topic is the only writer of
// delivery's events for that partition. It reads the same partition of the
// waiting topic, keeps order per portal, case and destination under retry (P3),
// and holds no payload in memory for what waits. The package knows no kind of
// destination; it knows adapters by one method and learns from their faults.
package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Topics and the consumer group of the stage.
const (
	Topic       = "weiche.deliveries"
	TopicWait   = "weiche.waiting"
	TopicDead   = "weiche.deadletters"
	Group       = "weiche-delivery"
	WaitGroup   = "weiche-waiting" // holds the lowest unfinished offset of the waiting topic; it has no members
	recordGrace = 10 * time.Second // for recording an outcome after the work was cancelled
)

// InFlight is how many records of a partition are in hand at most. Half of them
// may stand before one destination's slots (see gate.go). More of them would only
// make the lines longer: in a flood that the machine and not a destination slows
// down, records would lose patience and go through the waiting topic.
const InFlight = 128

// Adapter hands one delivery over. It returns nil only when the destination has
// taken it, *submission.Pending where that is known only later, and otherwise a
// *fault.Error (anything else counts as retryable).
// It must be safe for concurrent use and stop when ctx ends.
type Adapter interface {
	Deliver(ctx context.Context, d *submission.Delivery) error
}

// Destination is one Fachverfahren's door, ready for use.
type Destination struct {
	ID      string
	Kind    string // of the adapter
	Adapter Adapter
	Policy  Policy
}

// Log is what the stage needs of the bus.
type Log interface {
	Append(ctx context.Context, recs ...*bus.Record) error
	// Writing is how long an append takes at the moment.
	Writing() time.Duration
	Fetch(ctx context.Context, topic string, partition int32, offset int64) (*bus.Record, error)
	ReadTo(ctx context.Context, topic string, partition int32, from, to int64, fn func(*bus.Record) error) error
	Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error)
	Committed(ctx context.Context, group, topic string) ([]int64, error)
	Commit(ctx context.Context, group, topic string, partition int32, offset int64) error
	DeleteBelow(ctx context.Context, topic string, partition int32, offset int64) error
}

// Ledger is the account the stage reads and writes.
type Ledger interface {
	Acquire(ctx context.Context, stage submission.Stage, partition int32) (epoch int64, err error)
	CatchUp(ctx context.Context, partition int32) error
	Account(ctx context.Context, id uuid.UUID) (*submission.Account, error)
	// Append fails with status.ErrSuperseded where another owner has begun.
	Append(ctx context.Context, partition int32, evs ...submission.Event) error
	// Owns says whether the epoch is the newest, by all that stood in the log.
	Owns(ctx context.Context, stage submission.Stage, partition int32, epoch int64) (bool, error)
	Dead(ctx context.Context, partition int32) ([]submission.DeliveryMeta, error)
	// Expected returns what was told as redriven, or decided in the place of a dead
	// delivery, and of which no outcome is told.
	Expected(ctx context.Context, partition int32) ([]submission.DeliveryMeta, error)
}

// Payload opens the sealed value of a delivery record.
type Payload interface {
	Open(ctx context.Context, m submission.DeliveryMeta, value []byte) (*submission.Delivery, error)
}

// Stage is the delivery stage of one process. Its methods are safe for
// concurrent use.
type Stage struct {
	log     Log
	ledger  Ledger
	payload Payload
	logger  *slog.Logger
	now     func() time.Time
	metrics *metrics

	mu           sync.Mutex
	destinations map[string]Destination
	gates        map[string]*gate
	hands        map[string]HandPause // operators' pauses, of destinations that are not named (yet) too
	lanes        map[int32]*lane

	cutEvery time.Duration
}

// New makes the stage. Destinations are set with SetDestinations before the
// first record comes.
func New(log Log, ledger Ledger, payload Payload, logger *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Stage {
	s := &Stage{
		log: log, ledger: ledger, payload: payload, logger: logger, now: now, metrics: newMetrics(reg),
		destinations: map[string]Destination{}, gates: map[string]*gate{}, hands: map[string]HandPause{}, lanes: map[int32]*lane{}, cutEvery: cutEvery,
	}
	reg.MustRegister(newCollector(s))
	return s
}

// SetDestinations replaces the destinations. A destination that stays keeps its
// state, pauses included; attempts under way end with the adapter they began
// with. What waits for a destination that is no longer named waits until it is
// named again.
func (s *Stage) SetDestinations(ds []Destination) {
	defer s.wakeAll()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.destinations = map[string]Destination{}
	for _, d := range ds {
		s.destinations[d.ID] = d
		if g := s.gates[d.ID]; g != nil {
			g.follow(d.Policy)
		} else {
			g = newGate(d.Policy, s.wakeAll, s.log.Writing)
			if h, ok := s.hands[d.ID]; ok {
				g.hand = &h
			}
			s.gates[d.ID] = g
		}
		s.metrics.zero(d.ID, d.Kind)
	}
}

func (s *Stage) destination(id string) (Destination, *gate, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.destinations[id]
	return d, s.gates[id], ok
}

// Destinations returns the state of every destination.
func (s *Stage) Destinations() []DestinationState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]DestinationState, 0, len(s.destinations))
	for id, d := range s.destinations {
		st := s.gates[id].state(s.now())
		st.ID, st.Adapter = id, d.Kind
		out = append(out, st)
	}
	return out
}

// Pause closes a destination until it is resumed or h.Until has passed. It
// lasts as long as the process, and counts for a destination that is named
// later too.
func (s *Stage) Pause(id string, h HandPause) {
	if h.Since.IsZero() {
		h.Since = s.now()
	}
	s.mu.Lock()
	s.hands[id] = h
	g := s.gates[id]
	s.mu.Unlock()
	if g != nil {
		g.pauseByHand(h)
		s.logger.Info("destination paused by an operator", "destination", id, "operator", h.Operator, "until", h.Until)
	}
}

// Resume opens a paused destination, whoever paused it.
func (s *Stage) Resume(id, operator string) {
	s.mu.Lock()
	delete(s.hands, id)
	g := s.gates[id]
	s.mu.Unlock()
	if g != nil {
		g.resume()
		s.logger.Info("destination resumed by an operator", "destination", id, "operator", operator)
	}
}

func (s *Stage) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		l.nudge()
	}
}

// Assigned takes over a partition: epoch, dead and waiting deliveries. It is
// the bus's hook, called before the partition's first record.
func (s *Stage) Assigned(ctx context.Context, _ string, partition int32) error {
	epoch, err := s.ledger.Acquire(ctx, submission.StageDelivery, partition)
	if err != nil {
		return err
	}
	l := newLane(s, partition, epoch)
	if err := l.rebuild(ctx); err != nil {
		l.cancel()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes[partition] = l
	l.start()
	return nil
}

// Owns is the bus's question before a commit: whether all that was recorded for
// the partition took effect.
func (s *Stage) Owns(ctx context.Context, _ string, partition int32) (bool, error) {
	l := s.lane(partition)
	if l == nil || l.lost.Load() {
		return false, nil
	}
	return s.ledger.Owns(ctx, submission.StageDelivery, partition, l.epoch)
}

func (s *Stage) lane(partition int32) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes[partition]
}

// Revoked gives a partition up; it returns when nothing of it is under way.
func (s *Stage) Revoked(_ string, partition int32) {
	s.mu.Lock()
	l := s.lanes[partition]
	delete(s.lanes, partition)
	s.mu.Unlock()
	if l != nil {
		l.stop()
	}
}

// Key is the bus's ordering key for the deliveries topic: order is kept by case
// and destination (P3), so what a case sends elsewhere need not wait.
func Key(r *bus.Record) string {
	return string(r.Key) + "/" + r.Headers[submission.HeaderDestination]
}

// Spill parks records of a case and destination that would fill a partition's
// window behind one of theirs that is in work. It is the bus's hook.
func (s *Stage) Spill(ctx context.Context, inWork *bus.Record, recs []*bus.Record) []error {
	errs := make([]error, len(recs))
	l := s.lane(inWork.Partition)
	if l == nil {
		errs[0] = errLost
	} else {
		errs[0] = l.holdFor(ctx, inWork)
	}
	for i, rec := range recs {
		switch {
		case errs[0] != nil:
			errs[i] = errs[0]
		case i > 0 && errs[i-1] != nil:
			errs[i] = errs[i-1]
		default:
			errs[i] = l.spill(ctx, rec)
		}
	}
	return errs
}

// Handle is the watermill handler of the deliveries topic. An error means: not
// acknowledged, the bus brings the record again.
func (s *Stage) Handle(msg *message.Message) error {
	rec, ok := bus.RecordOf(msg)
	if !ok {
		return errors.New("a message that does not come from the bus")
	}
	l := s.lane(rec.Partition)
	if l == nil {
		return fault.New(fault.Cancelled, fault.ReasonCancelled, "partition %d is no longer ours", rec.Partition)
	}
	err := l.handle(msg.Context(), rec)
	failpoint.Hit("delivery.handled")
	if err != nil && fault.Of(err).Class != fault.Cancelled {
		s.logger.Warn("delivery record not acknowledged, it will come again", "partition", rec.Partition, "offset", rec.Offset, "error", err.Error())
	}
	return err
}
