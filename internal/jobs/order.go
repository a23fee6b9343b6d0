package jobs

import (
	"context"
	"errors"
	"slices"
	"time"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// ErrUnreadable says that a held record cannot be read, or is not what the
// account says: it can only be closed.
var ErrUnreadable = errors.New("the held record cannot be read")

// ErrAlive says that a submission cannot take the place of its deliveries, since
// one of them is not dead: what arrived must not arrive as something else too.
var ErrAlive = errors.New("a delivery of it is not dead")

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

// Renewable says whether a submission can be decided and mapped anew: dispatch
// holds it, or every delivery of it is dead.
func Renewable(a *submission.Account) bool {
	return Held(a) || a.Own == submission.InFlight && len(a.Deliveries) > 0 &&
		!slices.ContainsFunc(a.Deliveries, func(d *submission.DeliveryAccount) bool { return d.State != submission.Dead || d.Held == nil })
}

// Renew is the order to decide and map a submission anew, one revision higher:
// one that dispatch holds, or one whose deliveries are dead. The new ones take
// their place in the case, under ids of their own. A repeat of the same order has
// no effect.
func Renew(ctx context.Context, log Fetcher, acct *submission.Account, ins *submission.Instruction) (Order, error) {
	src, err := SourceOf(ctx, log, acct)
	if err != nil {
		return Order{}, err
	}
	return src.renew(src.Value, ins, func(now *submission.Account) bool { return now.Dispatched >= src.revision }), nil
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
