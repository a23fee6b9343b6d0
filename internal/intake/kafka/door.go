// Package kafkadoor is the portals' door over Kafka: a portal that may write to
// a topic of its own, weiche.intake.<portal>, hands in the same JSON as over
// HTTP, as a CloudEvent in binary mode whose id (ce_id) is the Idempotency-Key.
//
// Who it is follows from the topic, and so from the broker's ACL; no header is
// believed in that. What is refused becomes a dead letter, sealed, and an event
// with the reason; what cannot be stored at the moment is put back. The topics
// hold plain text, so their records are deleted once they are consumed.
package kafkadoor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/intake"
	"weiche/internal/seal"
	"weiche/internal/submission"
)

// Names of the topics and of the consumer group.
const (
	Group            = "weiche-intake"
	TopicPrefix      = "weiche.intake."
	TopicDeadLetters = "weiche.deadletters"
	TopicEvents      = "weiche.events"
)

// Sections of a refused record's dead letter.
const (
	SectionRecord = "record" // the record's value as it came
	SectionKey    = "key"    // its ce_id
)

// Headers that a refused record's dead letter has beside those of its Meta.
const (
	HeaderReason = "ce_reason" // a fault.Reason
	HeaderOrigin = "ce_origin" // "intake"
)

const (
	maxInFlight = 64 // records of one partition at once
	cutEvery    = 5 * time.Second
)

// Topic is the intake topic of a portal.
func Topic(portal string) string { return TopicPrefix + portal }

// Bus is what the door needs of the bus.
type Bus interface {
	Subscriber(g bus.Group) (message.Subscriber, error)
	Append(ctx context.Context, recs ...*bus.Record) error
	Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error)
	Fetch(ctx context.Context, topic string, partition int32, offset int64) (*bus.Record, error)
	Committed(ctx context.Context, group, topic string) ([]int64, error)
	DeleteBelow(ctx context.Context, topic string, partition int32, offset int64) error
}

// Keys makes and opens data keys.
type Keys interface {
	NewDataKey(ctx context.Context, land submission.Land, at time.Time) (*seal.DataKey, error)
	OpenDataKey(ctx context.Context, w seal.Wrapped) (*seal.DataKey, error)
}

// Vault stores and opens sections.
type Vault interface {
	PutSection(ctx context.Context, key *seal.DataKey, box *seal.Box, prefix, name string, plain []byte) error
	Section(ctx context.Context, key *seal.DataKey, box *seal.Box, name string) ([]byte, error)
}

// Options of a Door. All but Now are required.
type Options struct {
	Door    *intake.Door
	Bus     Bus
	Portals []string // those that have a topic
	Keys    Keys
	Vault   Vault
	Logger  *slog.Logger
	Reg     prometheus.Registerer
	Now     func() time.Time
}

// Door reads the intake topics. It is safe for concurrent use.
type Door struct {
	o       Options
	sub     message.Subscriber
	retries prometheus.Counter
}

// New makes a door and its subscriber.
func New(o Options) (*Door, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Portals = slices.Clone(o.Portals)
	slices.Sort(o.Portals)
	topics := make([]string, len(o.Portals))
	for i, p := range o.Portals {
		topics[i] = Topic(p)
	}
	sub, err := o.Bus.Subscriber(bus.Group{Name: Group, Topics: topics, MaxInFlight: maxInFlight})
	if err != nil {
		return nil, err
	}
	d := &Door{o: o, sub: sub, retries: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "weiche_intake_record_retries_total", Help: "Records of intake topics that were put back because they could not be stored.",
	})}
	o.Reg.MustRegister(d.retries)
	return d, nil
}

// AddTo adds a handler for each topic to a watermill router.
func (d *Door) AddTo(r *message.Router) {
	for _, p := range d.o.Portals {
		r.AddConsumerHandler("intake-"+p, Topic(p), d.sub, d.handler(p))
	}
}

func (d *Door) handler(portal string) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		rec, ok := bus.RecordOf(msg)
		if !ok {
			return fmt.Errorf("a message without its record") // of another subscriber; it cannot happen here
		}
		return d.Handle(msg.Context(), portal, rec)
	}
}

// Handle takes one record of a portal's topic. A nil error means that the
// record is done: accepted, or refused and kept as a dead letter. Any other
// means that it has to come again.
func (d *Door) Handle(ctx context.Context, portal string, rec *bus.Record) error {
	if isBlank(rec) {
		return nil
	}
	p := d.accept(ctx, portal, rec)
	if p == nil {
		failpoint.Hit("intake.record-accepted")
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err // the partition is another's now, or we stop
	}
	if again(p) {
		d.retries.Inc()
		return p
	}
	if err := d.refuse(ctx, portal, rec, p); err != nil {
		d.retries.Inc()
		return err
	}
	return nil
}

// again says whether a record waits in its topic. A Land whose configuration is
// broken, and a standard that is not installed, must not hold back the records
// of other Länder and services behind it, so their records become dead letters
// (Resubmit brings them in again).
func again(p *intake.Problem) bool {
	switch p.Reason {
	case fault.ReasonConfigBroken, fault.ReasonStandardMissing:
		return false
	case fault.ReasonUnknown:
		return p.Err != nil // a panic has none: it would come again with the record
	}
	return p.Temporary()
}

func (d *Door) accept(ctx context.Context, portal string, rec *bus.Record) (p *intake.Problem) {
	defer func() {
		if v := recover(); v != nil {
			// Its text may quote the record.
			p = intake.NewProblem(fault.ReasonUnknown)
			d.o.Door.Refused(p.Reason)
			d.o.Logger.Error("a record failed inside the router", "portal", portal, "partition", rec.Partition, "offset", rec.Offset)
		}
	}()
	defer d.o.Door.Began()()
	limit := int64(d.o.Door.Limits().KafkaRecordBytes)
	if int64(len(rec.Value)) > limit {
		d.o.Door.Refused(fault.ReasonTooLarge)
		return intake.TooLargeRecord(limit)
	}
	_, err := d.o.Door.Accept(ctx, intake.Post{
		Portal: portal, IdempotencyKey: rec.Headers[submission.HeaderID], Traceparent: rec.Headers[submission.HeaderTraceparent], Body: rec.Value,
	})
	return intake.ProblemOf(err)
}

// refuse keeps a record that is not accepted: a dead letter with the payload
// sealed under its Land, or under none where that is not known, and an event.
// Both derive their ids from the record, so that a repeat after a crash shows
// as one refusal.
func (d *Door) refuse(ctx context.Context, portal string, rec *bus.Record, p *intake.Problem) error {
	m := p.Meta
	if m.ID == uuid.Nil {
		m.ID = nobody(portal, rec)
		m.CaseID = submission.NewCaseID(m.ID)
	}
	if m.Land == "" {
		m.Land = submission.LandNone
	}
	now := d.o.Now().UTC()
	m.Portal, m.AcceptedAt, m.Revision, m.Append = portal, now, 1, refusalID(m.ID, rec)

	key, err := d.o.Keys.NewDataKey(ctx, m.Land, now)
	if err != nil {
		return err
	}
	box := &seal.Box{Subject: m.ID.String(), Key: key.Wrapped()}
	prefix := fmt.Sprintf("%s/%s/%s/%s", m.Land, now.Format(time.DateOnly), m.ID, m.Append)
	if err := d.o.Vault.PutSection(ctx, key, box, prefix, SectionRecord, rec.Value); err != nil {
		return err
	}
	if err := d.o.Vault.PutSection(ctx, key, box, prefix, SectionKey, []byte(rec.Headers[submission.HeaderID])); err != nil {
		return err
	}
	value, err := box.MarshalBinary()
	if err != nil {
		return err
	}
	headers := m.Headers(submission.TypeRefused)
	headers[HeaderReason], headers[HeaderOrigin] = string(p.Reason), string(submission.StageIntake)
	letter := &bus.Record{Topic: TopicDeadLetters, Partition: bus.AnyPartition, Key: []byte(m.CaseID.String()), Value: value, Headers: headers}
	if err := d.o.Bus.Append(ctx, letter); err != nil {
		return err
	}
	failpoint.Hit("intake.refusal-kept")
	ev := submission.Event{
		ID: m.Append, Type: submission.EventRefused, At: now, Stage: submission.StageIntake,
		Submission: m.ID, CaseID: m.CaseID, Portal: portal, Land: m.Land, Service: m.Service,
		Reason: string(p.Reason), Class: fault.Permanent.String(), Detail: p.Detail(intake.English),
		Held: &submission.Held{Topic: letter.Topic, Partition: letter.Partition, Offset: letter.Offset},
	}
	b, err := ev.Encode()
	if err != nil {
		return err
	}
	// The same partition number as the dead letter, as every event has.
	err = d.o.Bus.Append(ctx, &bus.Record{
		Topic: TopicEvents, Partition: letter.Partition, Key: []byte(m.CaseID.String()), Value: b, Headers: ev.Headers(),
	})
	if err != nil {
		return err
	}
	failpoint.Hit("intake.refused")
	d.o.Logger.Info("a record was refused", "portal", portal, "land", string(m.Land), "reason", string(p.Reason),
		"submission", m.ID.String(), "partition", rec.Partition, "offset", rec.Offset)
	return nil
}

// Resubmit hands a refused record's dead letter in again, for its portal, as it
// came: after a Land's configuration was mended or a standard installed. The
// error is a *intake.Problem where it is refused again, or a fault where the
// letter cannot be opened.
func (d *Door) Resubmit(ctx context.Context, letter *bus.Record) (intake.Accepted, error) {
	if letter.Headers[submission.HeaderType] != submission.TypeRefused {
		return intake.Accepted{}, fault.New(fault.Permanent, fault.ReasonUndecodable, "the dead letter is not of a refused record")
	}
	box, err := seal.ParseBox(letter.Value, letter.Headers[submission.HeaderSubject])
	if err != nil {
		return intake.Accepted{}, err
	}
	key, err := d.o.Keys.OpenDataKey(ctx, box.Key)
	if err != nil {
		return intake.Accepted{}, err
	}
	body, err := d.o.Vault.Section(ctx, key, box, SectionRecord)
	if err != nil {
		return intake.Accepted{}, err
	}
	id, err := d.o.Vault.Section(ctx, key, box, SectionKey)
	if err != nil {
		return intake.Accepted{}, err
	}
	return d.o.Door.Accept(ctx, intake.Post{
		Portal: letter.Headers["ce_portal"], IdempotencyKey: string(id), Traceparent: letter.Headers[submission.HeaderTraceparent], Body: body,
	})
}

// Run deletes consumed records from the intake topics until ctx ends: they hold
// payload in plain text. What the broker keeps on disk of a deleted record is
// its own matter (Kafka deletes whole segments).
func (d *Door) Run(ctx context.Context) error {
	t := time.NewTicker(cutEvery)
	defer t.Stop()
	for {
		if err := d.Cut(ctx); err != nil && ctx.Err() == nil {
			d.o.Logger.Warn("consumed records of an intake topic could not be deleted; it is tried again", "reason", string(fault.Of(err).Reason))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// Cut deletes what the group has committed. The bus never deletes a partition's
// last record, so a partition that is read to its end gets a blank one, which
// says nothing, behind the last of the portal's.
func (d *Door) Cut(ctx context.Context) error {
	for _, p := range d.o.Portals {
		topic := Topic(p)
		committed, err := d.o.Bus.Committed(ctx, Group, topic)
		if err != nil {
			return err
		}
		oldest, newest, err := d.o.Bus.Offsets(ctx, topic)
		if err != nil {
			return err
		}
		for i := range min(len(committed), len(oldest)) {
			if err := d.cut(ctx, topic, int32(i), oldest[i], committed[i], newest[i]); err != nil { //nolint:gosec // a partition number
				return err
			}
		}
	}
	return nil
}

func (d *Door) cut(ctx context.Context, topic string, partition int32, oldest, committed, newest int64) error {
	if committed <= oldest {
		return nil
	}
	if committed == newest {
		last, err := d.o.Bus.Fetch(ctx, topic, partition, newest-1)
		if err != nil {
			return err
		}
		if isBlank(last) {
			committed-- // it may stay; below it nothing does
		} else if err := d.o.Bus.Append(ctx, blank(topic, partition)); err != nil {
			return err
		}
	}
	if committed <= oldest {
		return nil
	}
	return d.o.Bus.DeleteBelow(ctx, topic, partition, committed)
}

// blank is the record that may remain in a topic.
func blank(topic string, partition int32) *bus.Record {
	return &bus.Record{Topic: topic, Partition: partition, Headers: map[string]string{
		submission.HeaderVersion: strconv.Itoa(submission.RecordVersion), submission.HeaderType: submission.TypeControl,
	}}
}

// isBlank holds for no submission: those have a value.
func isBlank(rec *bus.Record) bool {
	return len(rec.Value) == 0 && rec.Headers[submission.HeaderType] == submission.TypeControl
}
