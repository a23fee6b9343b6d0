package jobs

import (
	"context"
	"errors"
	"time"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// ErrUnreadable says that a held record cannot be read, or is not what the
// account says: it can only be closed.
var ErrUnreadable = errors.New("the held record cannot be read")

// Fetcher reads held records.
type Fetcher interface {
	Fetch(ctx context.Context, topic string, partition int32, offset int64) (*bus.Record, error)
}

// Order is a record to append, and how to see that it took effect.
type Order struct {
	Record *bus.Record
	Done   func(now *submission.Account) bool
}

// Held says whether dispatch holds the submission's bytes for an operator.
func Held(a *submission.Account) bool {
	return (a.Own == submission.Dead || a.Own == submission.Unassigned) && a.Held != nil
}

// Decide is the order to send a submission that dispatch holds through dispatch
// once more, one revision higher. A repeat of the same order has no effect.
func Decide(ctx context.Context, log Fetcher, acct *submission.Account, ins *submission.Instruction) (Order, error) {
	rec, err := log.Fetch(ctx, acct.Held.Topic, acct.Held.Partition, acct.Held.Offset)
	if err != nil {
		return Order{}, err
	}
	m, err := submission.ParseMeta(rec.Headers)
	if err != nil || m.ID != acct.ID {
		return Order{}, ErrUnreadable
	}
	m.Revision, m.Instruction = acct.Dispatched+1, ins
	return Order{
		&bus.Record{Topic: bus.TopicSubmissions, Partition: rec.Partition, Key: []byte(m.CaseID.String()), Value: rec.Value,
			Headers: m.Headers(submission.TypeSubmission), Time: ins.At},
		func(now *submission.Account) bool { return now.Dispatched >= m.Revision },
	}, nil
}

// Again is the order to send a dead delivery through delivery once more, under
// the same id. A repeat of the same order has no effect.
func Again(ctx context.Context, log Fetcher, d *submission.DeliveryAccount, ins *submission.Instruction) (Order, error) {
	rec, err := log.Fetch(ctx, d.Held.Topic, d.Held.Partition, d.Held.Offset)
	if err != nil {
		return Order{}, err
	}
	m, err := submission.ParseDeliveryMeta(rec.Headers)
	if err != nil || m.DeliveryID != d.ID {
		return Order{}, ErrUnreadable
	}
	m.Redrives, m.Instruction, m.Reason, m.DueAt = d.Redrives+1, ins, "", time.Time{}
	return Order{
		&bus.Record{Topic: bus.TopicDeliveries, Partition: rec.Partition, Key: []byte(m.CaseID.String()), Value: rec.Value,
			Headers: m.Headers(submission.TypeDelivery), Time: ins.At},
		func(now *submission.Account) bool {
			d := now.Delivery(m.DeliveryID)
			// Delivery tells of a redrive together with what came of it, but the
			// projection may be seen between the two.
			return d == nil || d.Redrives >= m.Redrives && d.State != submission.InFlight
		},
	}, nil
}

// CloseSubmission is the order to end what dispatch holds.
func CloseSubmission(acct *submission.Account, partition int32, ins *submission.Instruction) Order {
	m := acct.Meta()
	m.Instruction = ins
	return Order{
		&bus.Record{Topic: bus.TopicSubmissions, Partition: partition, Key: []byte(m.CaseID.String()), Headers: m.Headers(submission.TypeControl), Time: ins.At},
		func(now *submission.Account) bool { return now.State.Final() || now.Dispatched > m.Revision },
	}
}

// CloseDelivery is the order to end a dead or waiting delivery.
func CloseDelivery(acct *submission.Account, d *submission.DeliveryAccount, partition int32, ins *submission.Instruction) Order {
	m := acct.DeliveryMeta(d)
	m.Instruction = ins
	return Order{
		&bus.Record{Topic: bus.TopicDeliveries, Partition: partition, Key: []byte(m.CaseID.String()), Headers: m.Headers(submission.TypeControl), Time: ins.At},
		func(now *submission.Account) bool {
			d := now.Delivery(m.DeliveryID)
			return d == nil || d.State.Final()
		},
	}
}
