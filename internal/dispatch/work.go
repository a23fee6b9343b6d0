package dispatch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/routing"
	"weiche/internal/submission"
)

// work is one record on its way through the stage. It is planned first: what has
// to be written for it is worked out without writing anything. The batch writes
// for all its works together.
type work struct {
	*batch
	index int // in the batch
	rec   *bus.Record
	meta  submission.Meta
	acct  *submission.Account
	env   *submission.Envelope // as it was opened, or as it is tried

	held       *bus.Record        // a copy to keep: unassigned, or a dead letter
	events     []submission.Event // the last one names where the copy lies
	deliveries []*bus.Record
	done       func() // counts and logs, once all is written
}

// plan works out what the record leads to. An error means that it has to come
// again.
func (w *work) plan(ctx context.Context) (err error) {
	if w.acct, err = w.ledger.Account(ctx, w.meta.ID); err != nil {
		return err
	}
	if w.rec.Headers[submission.HeaderType] == submission.TypeControl {
		w.control()
		return nil
	}
	if w.edits() {
		return nil
	}
	if w.acct.State.Final() {
		// An operator closed it before this order's turn came, or it is a repeat.
		w.metrics.repeats.Inc()
		return nil
	}
	decision, known := w.recorded()
	if !known && w.acct.Dispatched >= w.meta.Revision {
		w.metrics.repeats.Inc()
		w.deliveries = w.releases() // a crash may have come before they were appended
		return nil
	}
	if !known && w.alive() {
		w.logger.Info("an order to replace deliveries came when one of them was no longer dead; it is dropped", "submission", w.meta.ID)
		return nil
	}
	if known {
		return w.deliver(ctx, decision, w.acct.DecisionID, nil)
	}
	return w.decide(ctx)
}

// replaces returns what the record takes the place of, by an operator's order.
func (w *work) replaces() []submission.Replaced {
	if i := w.meta.Instruction; i != nil {
		return i.Replaces
	}
	return nil
}

// alive says whether a delivery that shall be replaced is not dead after all:
// somebody redrove it meanwhile, and it may arrive.
func (w *work) alive() bool {
	return len(w.replaces()) > 0 && slices.ContainsFunc(w.acct.Deliveries, func(d *submission.DeliveryAccount) bool { return d.State != submission.Dead })
}

// releases are dispatch's words to delivery about what was replaced. They stand
// behind the deliveries that take the place, so that those come first in the
// case.
func (w *work) releases() (out []*bus.Record) {
	for _, d := range w.replaces() {
		out = append(out, w.release(d.Destination, d.Order, w.meta.Revision-1))
	}
	return out
}

func (w *work) release(destination string, order int64, revision int) *bus.Record {
	m := submission.DeliveryMeta{Meta: w.meta, DeliveryID: submission.NewDeliveryID(w.meta.ID, destination, revision), Destination: destination, Order: order}
	m.Revision = revision
	m.Instruction = &submission.Instruction{Kind: submission.InstructRelease, Operator: w.meta.Instruction.Operator, At: w.meta.Instruction.At}
	return &bus.Record{Topic: TopicDeliveries, Partition: w.rec.Partition, Key: []byte(w.meta.CaseID.String()),
		Headers: m.Headers(submission.TypeControl), Time: w.now()}
}

// recorded returns the decision of this very record when a crash may have come
// between recording it and appending its deliveries, with those deliveries of
// which nothing is told yet: one may be delivered already and the next not even
// appended. Appending what stands there is harmless: delivery drops what it
// knows.
func (w *work) recorded() (*submission.Decision, bool) {
	a := w.acct
	if a.Dispatched != w.meta.Revision || a.Decision == nil || a.Own != submission.InFlight {
		return nil, false
	}
	if w.meta.Revision == 1 && a.Append != w.meta.Append {
		return nil, false // another append of the same submission: the first counts
	}
	rest := *a.Decision
	rest.Deliveries = slices.DeleteFunc(slices.Clone(rest.Deliveries), func(p submission.PlannedDelivery) bool {
		d := a.Delivery(p.ID)
		return d != nil && (d.State != submission.InFlight || d.Attempts > 0)
	})
	return &rest, len(rest.Deliveries) > 0
}

func (w *work) decide(ctx context.Context) error {
	d, why, detail := w.look()
	if d == nil {
		w.hold(why, detail)
		return nil
	}
	// The id follows from what was decided: delivery tells another decision of
	// the same revision by it, and the same one again is a repeat.
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(raw)
	ev := w.event(submission.EventDecided, strconv.Itoa(w.meta.Revision), hex.EncodeToString(sum[:]))
	ev.Decision = d
	return w.deliver(ctx, d, ev.ID, &ev)
}

// look decides; where nobody can be decided on it says why.
func (w *work) look() (d *submission.Decision, why fault.Reason, detail string) {
	m := w.meta
	rules, ok := w.cat.Rules(m.Land)
	if !ok {
		return nil, fault.ReasonConfigBroken, "the configuration of Land " + string(m.Land) + " is missing or refused at the moment; mend it and redrive"
	}
	facts := routing.Facts{Service: m.Service, Region: m.Region, Land: m.Land, Test: m.Test, At: m.AcceptedAt}
	if i := m.Instruction; i != nil {
		facts.At, facts.AssignedAuthority = i.At, i.Authority
	}
	out := rules.Table.Decide(facts)
	if out.Reason != "" {
		return nil, out.Reason, held(out)
	}
	d = &submission.Decision{Authority: out.Authority, Rule: out.Rule, ConfigHash: rules.Hash, At: facts.At}
	if m.Revision > 1 {
		d.Predecessor = m.Revision - 1
	}
	for _, t := range out.Destinations {
		name := submission.DestinationName(m.Land, t.Destination)
		p := submission.PlannedDelivery{ID: submission.NewDeliveryID(m.ID, name, m.Revision), Destination: name, Adapter: t.Adapter, Format: t.Format}
		for _, old := range w.replaces() {
			if old.Destination == name {
				p.Replaces, p.Order = true, old.Order
			}
		}
		d.Deliveries = append(d.Deliveries, p)
	}
	return d, "", ""
}

// deliver maps and validates; the decision is recorded where it is new, before
// its deliveries are appended.
func (w *work) deliver(ctx context.Context, d *submission.Decision, decisionID uuid.UUID, decided *submission.Event) error {
	m := w.meta
	for _, p := range d.Deliveries {
		value, err := w.message(ctx, d, p)
		if f := fault.Of(err); f != nil {
			if f.Class == fault.Permanent {
				w.bury(f)
				return nil
			}
			return f
		}
		dm := submission.DeliveryMeta{Meta: m, DeliveryID: p.ID, Destination: p.Destination, Adapter: p.Adapter, Format: p.Format,
			AuthorityID: d.Authority.ID, Decision: decisionID, Order: w.rec.Offset}
		dm.Instruction = nil
		if p.Replaces {
			dm.Order = p.Order
		}
		w.deliveries = append(w.deliveries, &bus.Record{Topic: TopicDeliveries, Partition: w.rec.Partition, Key: []byte(m.CaseID.String()),
			Value: value, Headers: dm.Headers(submission.TypeDelivery), Time: w.now()})
	}
	// The largest goes first, alone: where a message is too large for a record,
	// none has been handed over, and the submission can still go to the dead
	// letters as a whole.
	slices.SortStableFunc(w.deliveries, func(a, b *bus.Record) int { return len(b.Value) - len(a.Value) })
	w.deliveries = append(w.deliveries, w.releases()...)
	if decided != nil {
		w.events = append(w.preface(), *decided)
		w.done = func() { w.metrics.decided.WithLabelValues(string(m.Land), string(m.Service)).Inc() }
	}
	return nil
}

// message opens, maps and seals.
func (w *work) message(ctx context.Context, d *submission.Decision, p submission.PlannedDelivery) ([]byte, error) {
	xml, err := w.xml(ctx, d, p)
	if err != nil {
		return nil, err
	}
	return w.payload.WithXML(ctx, w.meta, w.rec.Value, xml)
}

// xml opens, maps and validates.
func (w *work) xml(ctx context.Context, d *submission.Decision, p submission.PlannedDelivery) ([]byte, error) {
	if w.env == nil {
		env, err := w.payload.Open(ctx, w.meta, w.rec.Value)
		if err != nil {
			return nil, err
		}
		w.env = env
	}
	began := time.Now()
	xml, err := w.write(w.job(ctx, d, p, w.env))
	if err != nil {
		return nil, err
	}
	w.metrics.mapping.Observe(time.Since(began).Seconds())
	return xml, nil
}

// job is what one delivery's message is written from. What has no record yet is
// outlined.
func (w *work) job(ctx context.Context, d *submission.Decision, p submission.PlannedDelivery, env *submission.Envelope) Job {
	portal, ok := w.cat.Portal(w.meta.Portal)
	if !ok {
		portal = submission.Authority{Name: w.meta.Portal}
	}
	j := Job{Meta: w.meta, Envelope: env, Authority: d.Authority, Portal: portal, Format: p.Format, MessageID: p.ID, CreatedAt: w.now(), Outline: w.rec == nil}
	if w.rec != nil {
		j.Open = func(a submission.Attachment) (io.ReadCloser, error) {
			return w.payload.OpenFile(ctx, w.meta, w.rec.Value, a)
		}
	}
	return j
}

// write maps and validates. One form must not stop the others: a panic is a
// mapping that failed. Its value may quote payload, so only its type and the
// stack are logged.
func (w *work) write(j Job) (xml []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			w.logger.Error("a mapping failed inside", "submission", w.meta.ID, "land", w.meta.Land, "service", w.meta.Service,
				"format", j.Format.String(), "panic", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			err = fault.New(fault.Permanent, fault.ReasonMappingFailed, "the mapping to %s failed inside; the log has the stack", j.Format)
		}
	}()
	return w.cat.Message(j)
}

// held says to an operator what is missing, and what to do.
func held(o routing.Outcome) string {
	switch o.Reason {
	case fault.ReasonSeveralAuthorities:
		ids := make([]string, len(o.Candidates))
		for i, c := range o.Candidates {
			ids[i] = c.ID
		}
		return "several authorities are responsible: " + strings.Join(ids, ", ") + "; assign one, or mend the rules and redrive"
	case fault.ReasonNoDestination:
		return "authority " + o.Authority.ID + " has no destination for this service; name one and redrive"
	case fault.ReasonNoTestDestination:
		return "authority " + o.Authority.ID + " has no test destination; test submissions go nowhere else"
	case fault.ReasonNoFormat:
		return "the destinations of authority " + o.Authority.ID + " take no format this service can be mapped to at the moment (standard or mapping missing)"
	}
	return "no rule names an authority for region " + string(o.Facts.Region) + "; assign one, or add a rule and redrive"
}

// hold keeps a submission that no authority, or more than one, is responsible
// for. It is never dropped and never refused after acceptance.
func (w *work) hold(why fault.Reason, detail string) {
	ev := w.event(submission.EventUnassigned, strconv.Itoa(w.meta.Revision))
	ev.Reason, ev.Detail = string(why), detail
	w.keep(TopicUnassigned, ev)
	w.done = func() {
		w.metrics.unassigned.WithLabelValues(string(w.meta.Land), string(w.meta.Service), string(why)).Inc()
		w.logger.Warn("submission held for an operator", "submission", w.meta.ID, "land", w.meta.Land, "service", w.meta.Service, "region", w.meta.Region, "reason", why)
	}
}

// bury sends a submission that cannot be mapped or validated to the dead
// letters. Mending the mapping and redriving makes it well.
func (w *work) bury(f *fault.Error) {
	ev := w.event(submission.EventDead, strconv.Itoa(w.meta.Revision))
	ev.Reason, ev.Class, ev.Detail = string(f.Reason), f.Class.String(), f.Detail
	w.keep(TopicDead, ev)
	w.done = func() {
		w.metrics.dead.WithLabelValues(string(w.meta.Land), string(w.meta.Service), string(f.Reason)).Inc()
		w.logger.Error("submission went to the dead letters", "submission", w.meta.ID, "land", w.meta.Land, "service", w.meta.Service, "reason", f.Reason, "detail", f.Detail)
	}
}

// keep plans a copy of the record in the topic that holds it, and then the event.
func (w *work) keep(topic string, ev submission.Event) {
	m := w.meta
	m.Instruction = nil
	headers := m.Headers(submission.TypeSubmission)
	headers["ce_reason"] = ev.Reason
	w.held = &bus.Record{Topic: topic, Partition: w.rec.Partition, Key: []byte(m.CaseID.String()), Value: w.rec.Value, Headers: headers, Time: w.now()}
	w.events, w.deliveries = append(w.preface(), ev), w.releases()
	if w.acct.Dispatched == m.Revision {
		// A decision on it was told before a crash. Delivery may hold the case for
		// what was to take the place.
		for _, d := range w.acct.Deliveries {
			if d.Replaces {
				w.deliveries = append(w.deliveries, w.release(d.Destination, d.Order, d.Revision))
			}
		}
	}
}

// preface is what stands before the decision: the acceptance, copied from the
// submission record, or the operator's deed.
func (w *work) preface() []submission.Event {
	m := w.meta
	if i := m.Instruction; i != nil {
		if i.Edit != nil {
			return []submission.Event{w.edited()}
		}
		t := submission.EventRedriven
		if i.Kind == submission.InstructAssign {
			t = submission.EventAssigned
		}
		ev := w.event(t, strconv.Itoa(m.Revision))
		ev.At, ev.Operator, ev.Note = i.At, i.Operator, i.Note()
		if t == submission.EventAssigned {
			ev.Note = i.Authority
		}
		return []submission.Event{ev}
	}
	ev := w.event(submission.EventAccepted)
	ev.At = m.AcceptedAt
	ev.Accepted = &submission.Acceptance{Region: m.Region, AcceptedAt: m.AcceptedAt, SHA512: m.SHA512, Append: m.Append,
		Test: m.Test, SenderHash: m.SenderHash, Offset: w.rec.Offset}
	return []submission.Event{ev}
}

// control carries out an operator's order about a submission that dispatch
// holds, or tells of what was done on the operator's desk.
func (w *work) control() {
	i := w.meta.Instruction
	if w.desk(i) {
		return
	}
	if i == nil || i.Kind != submission.InstructClose || (w.acct.Own != submission.Unassigned && w.acct.Own != submission.Dead) {
		return
	}
	ev := w.event(submission.EventClosed, strconv.Itoa(w.meta.Revision))
	ev.Reason, ev.Operator, ev.Note = string(fault.ReasonOperator), i.Operator, i.Reason
	w.events = []submission.Event{ev}
}

func (w *work) event(t submission.EventType, parts ...string) submission.Event {
	m := w.meta
	return submission.Event{
		ID: submission.NewEventID(t, m.ID, parts...), Type: t, At: w.now().UTC(), Stage: submission.StageDispatch, Epoch: w.epoch,
		Submission: m.ID, CaseID: m.CaseID, Portal: m.Portal, Land: m.Land, Service: m.Service, Revision: m.Revision,
	}
}

// undecodable passes a record nobody can read: to the dead letters, as it is.
func (w *work) undecodable(cause error) {
	headers := maps.Clone(w.rec.Headers)
	if headers == nil {
		headers = map[string]string{}
	}
	headers["ce_reason"] = string(fault.ReasonUndecodable)
	w.held = &bus.Record{Topic: TopicDead, Partition: w.rec.Partition, Key: w.rec.Key, Value: w.rec.Value, Headers: headers, Time: w.now()}
	w.events = []submission.Event{{
		ID:   submission.NewEventID(submission.EventRefused, uuid.Nil, w.rec.Topic, strconv.Itoa(int(w.rec.Partition)), strconv.FormatInt(w.rec.Offset, 10)),
		Type: submission.EventRefused, At: w.now().UTC(), Stage: submission.StageDispatch, Epoch: w.epoch,
		Reason: string(fault.ReasonUndecodable), Detail: cause.Error(),
	}}
	w.done = func() {
		w.logger.Error("a submission record that cannot be read went to the dead letters", "partition", w.rec.Partition, "offset", w.rec.Offset, "error", cause.Error())
	}
}
