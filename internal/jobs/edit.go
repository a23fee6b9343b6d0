package jobs

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// Source is the record that holds a dead submission's bytes, which a higher
// revision is made from.
type Source struct {
	Meta  submission.Meta // without an instruction
	At    submission.Held
	Value []byte

	revision int
	replaces []submission.Replaced
}

// SourceOf reads what a new revision of a submission is made from. ErrAlive says
// that one of its deliveries is not dead.
func SourceOf(ctx context.Context, log Fetcher, acct *submission.Account) (Source, error) {
	if !Renewable(acct) {
		return Source{}, ErrAlive
	}
	s := Source{revision: acct.Dispatched + 1}
	if Held(acct) {
		s.At = *acct.Held
	} else {
		s.At = *acct.Deliveries[0].Held
		for _, d := range acct.Deliveries {
			s.replaces = append(s.replaces, submission.Replaced{Destination: d.Destination, Order: d.Order})
		}
	}
	var err error
	s.Meta, s.Value, err = Read(ctx, log, acct.ID, &s.At)
	return s, err
}

// Read reads a held record of a submission. It must be that submission's: the
// place comes from the account, the bytes from a topic.
func Read(ctx context.Context, log Fetcher, id uuid.UUID, at *submission.Held) (submission.Meta, []byte, error) {
	rec, err := log.Fetch(ctx, at.Topic, at.Partition, at.Offset)
	if err != nil {
		return submission.Meta{}, nil, err
	}
	m, err := submission.ParseMeta(rec.Headers)
	if err != nil || m.ID != id {
		return m, nil, ErrUnreadable
	}
	m.Instruction = nil
	return m, rec.Value, nil
}

// renew is the order to decide on value, one revision higher.
func (s Source) renew(value []byte, ins *submission.Instruction, done func(now *submission.Account) bool) Order {
	order := *ins
	order.Replaces = s.replaces
	m := s.Meta
	m.Revision, m.Instruction = s.revision, &order
	return Order{&bus.Record{Topic: bus.TopicSubmissions, Partition: s.At.Partition, Key: []byte(m.CaseID.String()), Value: value,
		Headers: m.Headers(submission.TypeSubmission), Time: ins.At}, done}
}

// Edit is the order to decide on an edited form, sealed in value, one revision
// higher; ins.Edit says who edited what. A repeat of the same order has no effect.
func (s Source) Edit(value []byte, ins *submission.Instruction) Order {
	return s.renew(value, ins, func(now *submission.Account) bool {
		e := now.Edit(ins.Edit.ID)
		return e != nil && (e.State == submission.EditDeclined || e.State == submission.EditDone && now.Dispatched >= s.revision)
	})
}

// Copy is the record that keeps an edited form, sealed in value, beside the
// original. It has no effect of its own.
func (s Source) Copy(value []byte, at time.Time) *bus.Record {
	return &bus.Record{Topic: bus.TopicDeadLetters, Partition: s.At.Partition, Key: []byte(s.Meta.CaseID.String()), Value: value,
		Headers: s.Meta.Headers(submission.TypeSubmission), Time: at}
}

// Propose is the order to keep an edit for a second operator.
func (s Source) Propose(ins *submission.Instruction) Order {
	m := s.Meta
	m.Revision, m.Instruction = s.revision, ins
	return desk(m, s.At.Partition, func(now *submission.Account) bool { return now.Edit(ins.Edit.ID) != nil })
}

// Decline is the order to end a proposal without effect.
func Decline(acct *submission.Account, partition int32, ins *submission.Instruction) Order {
	m := acct.Meta()
	m.Instruction = ins
	return desk(m, partition, func(now *submission.Account) bool {
		e := now.Edit(ins.Edit.ID)
		return e == nil || e.State != submission.EditProposed
	})
}

// Look is the order to tell that an operator reads payload; ins.ID tells it from
// other looks.
func Look(acct *submission.Account, partition int32, ins *submission.Instruction) Order {
	m := acct.Meta()
	m.Instruction = ins
	told := submission.NewEventID(submission.EventLooked, acct.ID, ins.ID.String())
	return desk(m, partition, func(now *submission.Account) bool { return slices.Contains(now.Looked, told) })
}

// desk is an order that dispatch only tells of.
func desk(m submission.Meta, partition int32, done func(now *submission.Account) bool) Order {
	return Order{&bus.Record{Topic: bus.TopicSubmissions, Partition: partition, Key: []byte(m.CaseID.String()),
		Headers: m.Headers(submission.TypeControl), Time: m.Instruction.At}, done}
}
