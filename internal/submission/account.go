package submission

import (
	"slices"
	"time"

	"github.com/google/uuid"
)

// State is what a person can see. A submission is in exactly one.
type State string

// The states. Only delivered and rejected are final; a Fachverfahren's refusal
// turns delivered into rejected, the one change of a final state.
const (
	InFlight   State = "in-flight"
	Unassigned State = "unassigned"
	Waiting    State = "waiting"
	Dead       State = "dead"
	Delivered  State = "delivered"
	Rejected   State = "rejected"
)

// States returns every state, in the order of the account:
// accepted = in flight + unassigned + waiting + dead + delivered + rejected.
func States() []State { return []State{InFlight, Unassigned, Waiting, Dead, Delivered, Rejected} }

// Final says whether nothing more will happen by itself or by an operator.
func (s State) Final() bool { return s == Delivered || s == Rejected }

// DeliveryAccount is where one delivery stands.
type DeliveryAccount struct {
	ID          uuid.UUID  `json:"id"`
	Revision    int        `json:"revision"`
	Destination string     `json:"destination"`
	Adapter     string     `json:"adapter"`
	Format      Format     `json:"format"`
	State       State      `json:"state"`
	Attempts    int        `json:"attempts"`
	Redrives    int        `json:"redrives"`
	Sequence    int        `json:"sequence"`
	Reason      string     `json:"reason,omitempty"`
	Detail      string     `json:"detail,omitempty"`
	DueAt       *time.Time `json:"dueAt,omitempty"`
	Token       string     `json:"token,omitempty"`
	Held        *Held      `json:"held,omitempty"`
	Order       int64      `json:"order"`
	UpdatedAt   time.Time  `json:"updatedAt"`
	// Replaces says that it took the place of a dead delivery in its case.
	Replaces bool `json:"replaces,omitempty"`
	// WaitingSince is when it began to wait, kept over every attempt; nil while
	// it does not wait.
	WaitingSince *time.Time `json:"waitingSince,omitempty"`
	// DeadEvent is the newest event that declared it dead: the same one again,
	// after a redrive, is a late repeat.
	DeadEvent uuid.UUID `json:"deadEvent,omitzero"`
}

// Account is where one submission stands: the fold of its events. The zero
// Account knows nothing. It is not safe for concurrent use.
type Account struct {
	ID         uuid.UUID `json:"id"`
	CaseID     uuid.UUID `json:"caseId"`
	Portal     string    `json:"portal"`
	Land       Land      `json:"land"`
	Service    Service   `json:"service"`
	Region     Region    `json:"region"`
	AcceptedAt time.Time `json:"acceptedAt"`
	SHA512     string    `json:"sha512"`
	Append     uuid.UUID `json:"append"`
	Test       bool      `json:"test"`
	SenderHash string    `json:"senderHash,omitempty"`

	State     State     `json:"state"`
	Reason    string    `json:"reason,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Held      *Held     `json:"held,omitempty"` // while dispatch holds it
	UpdatedAt time.Time `json:"updatedAt"`

	// Dispatched is the highest revision dispatch has decided on, 0 before.
	Dispatched int `json:"dispatched"`
	Redrives   int `json:"redrives"` // of dispatch
	// Copied says that dispatch's event of the acceptance was seen: from then on
	// the account stands on events alone. The first such event counts.
	Copied bool `json:"copied"`
	// Instructed is the highest revision an operator's order asked for.
	Instructed int                `json:"instructed,omitempty"`
	Decision   *Decision          `json:"decision,omitempty"`
	DecisionID uuid.UUID          `json:"decisionId,omitzero"`
	Deliveries []*DeliveryAccount `json:"deliveries,omitempty"` // of the current revision
	// own is what dispatch itself says, before any delivery speaks.
	Own State `json:"own"`
	// Edits are operators' edits of its form, proposals included, as they came.
	Edits []*Edit `json:"edits,omitempty"`
	Looks int     `json:"looks,omitempty"` // at its payload
	// Looked are the newest of them by the ids of their events.
	Looked []uuid.UUID `json:"-"`
}

// Known says whether the submission was ever accepted.
func (a *Account) Known() bool { return a.State != "" }

// Accept notes a submission record that dispatch has not yet copied. It changes
// nothing where the submission is known already: the first append counts.
func (a *Account) Accept(m Meta) {
	if a.Known() {
		return
	}
	a.accept(m.ID, m.CaseID, m.Portal, m.Land, m.Service,
		Acceptance{Region: m.Region, AcceptedAt: m.AcceptedAt, SHA512: m.SHA512, Append: m.Append, Test: m.Test, SenderHash: m.SenderHash})
}

// Clone returns a deep copy.
func (a *Account) Clone() *Account {
	c := *a
	c.Held, c.Decision = cloneOf(a.Held), cloneOf(a.Decision)
	if c.Decision != nil {
		c.Decision.Deliveries = slices.Clone(c.Decision.Deliveries)
	}
	c.Deliveries = slices.Clone(a.Deliveries)
	for i, d := range c.Deliveries {
		d = cloneOf(d)
		d.DueAt, d.WaitingSince, d.Held = cloneOf(d.DueAt), cloneOf(d.WaitingSince), cloneOf(d.Held)
		c.Deliveries[i] = d
	}
	c.Edits, c.Looked = slices.Clone(a.Edits), slices.Clone(a.Looked)
	for i, e := range c.Edits {
		c.Edits[i] = e.clone()
	}
	return &c
}

func cloneOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// Meta returns the headers' content for a record about the submission, at the
// revision dispatch decided last (1 before it decided).
func (a *Account) Meta() Meta {
	return Meta{
		ID: a.ID, CaseID: a.CaseID, Portal: a.Portal, Land: a.Land, Service: a.Service, Region: a.Region,
		AcceptedAt: a.AcceptedAt, SHA512: a.SHA512, Test: a.Test, Revision: max(1, a.Dispatched), Append: a.Append,
		SenderHash: a.SenderHash,
	}
}

// DeliveryMeta returns the headers' content for a record about one delivery of
// the submission.
func (a *Account) DeliveryMeta(d *DeliveryAccount) DeliveryMeta {
	m := DeliveryMeta{
		Meta: a.Meta(), DeliveryID: d.ID, Destination: d.Destination, Adapter: d.Adapter, Format: d.Format,
		Decision: a.DecisionID, Attempts: d.Attempts, Redrives: d.Redrives, Sequence: d.Sequence, Order: d.Order, Reason: d.Reason, Token: d.Token,
	}
	m.Revision = d.Revision
	if a.Decision != nil {
		m.AuthorityID = a.Decision.Authority.ID
	}
	if d.DueAt != nil {
		m.DueAt = *d.DueAt
	}
	return m
}

func (a *Account) accept(id, caseID uuid.UUID, portal string, land Land, service Service, acc Acceptance) {
	a.ID, a.CaseID, a.Portal, a.Land, a.Service = id, caseID, portal, land, service
	a.Region, a.AcceptedAt, a.SHA512, a.Append = acc.Region, acc.AcceptedAt, acc.SHA512, acc.Append
	a.Test, a.SenderHash = acc.Test, acc.SenderHash
	a.Own, a.State, a.UpdatedAt = InFlight, InFlight, acc.AcceptedAt
}

// Delivery returns the delivery with this id, or nil.
func (a *Account) Delivery(id uuid.UUID) *DeliveryAccount {
	for _, d := range a.Deliveries {
		if d.ID == id {
			return d
		}
	}
	return nil
}

// Apply folds one event in and says whether it changed anything. Events that
// come twice, too late, or for another revision than the current one change
// nothing. Events of a superseded epoch must be kept away by the caller, who
// knows the partition.
func (a *Account) Apply(e Event) bool {
	switch e.Type {
	case EventAccepted:
		if e.Accepted == nil {
			return false
		}
		if a.Copied {
			return false
		}
		// The projection may have seen a submissions record first; the event says
		// which append counts.
		a.accept(e.Submission, e.CaseID, e.Portal, e.Land, e.Service, *e.Accepted)
		a.Copied = true
		return true
	case EventProposed, EventDeclined, EventLooked:
		return a.applyDesk(e)
	case EventDecided, EventUnassigned, EventAssigned, EventEdited, EventRedriven, EventDead, EventClosed:
		if e.DeliveryID == uuid.Nil {
			return a.applyDispatch(e)
		}
	}
	return a.applyDelivery(e)
}

func (a *Account) applyDispatch(e Event) bool {
	// Without the acceptance's event nothing is known that a rebuild would know
	// too; and nothing brings a submission back from its end.
	if !a.Copied || a.State.Final() {
		return false
	}
	switch e.Type {
	case EventAssigned, EventRedriven, EventEdited:
		// The decision that follows carries the raised revision.
		if e.Revision != a.Dispatched+1 || e.Revision <= a.Instructed {
			return false
		}
		a.Instructed = e.Revision
		switch e.Type {
		case EventRedriven:
			a.Redrives++
		case EventEdited:
			a.edited(e)
		}
	case EventDecided:
		if e.Revision <= a.Dispatched || e.Decision == nil {
			return false // the first decision in the partition stands
		}
		a.Dispatched, a.Decision, a.DecisionID = e.Revision, e.Decision, e.ID
		a.Own, a.Reason, a.Detail, a.Held = InFlight, "", "", nil
		a.Deliveries = nil
		for _, p := range e.Decision.Deliveries {
			a.Deliveries = append(a.Deliveries, &DeliveryAccount{
				ID: p.ID, Revision: e.Revision, Destination: p.Destination, Adapter: p.Adapter,
				Format: p.Format, State: InFlight, Order: p.Order, Replaces: p.Replaces, UpdatedAt: e.At,
			})
		}
	case EventUnassigned, EventDead:
		if e.Revision <= a.Dispatched && !(e.Type == EventDead && e.Revision == a.Dispatched && a.Own == InFlight && !a.delivering()) {
			return false
		}
		a.Dispatched, a.Deliveries, a.Decision = e.Revision, nil, nil
		a.Own, a.Reason, a.Detail, a.Held = Unassigned, e.Reason, e.Detail, e.Held
		if e.Type == EventDead {
			a.Own = Dead
		}
	case EventClosed:
		if a.Own != Unassigned && a.Own != Dead {
			return false
		}
		a.Own, a.Reason, a.Detail, a.Held = Rejected, e.Reason, e.Note, nil
	}
	a.settle(e.At)
	return true
}

// delivering says whether any delivery has been spoken of since the decision.
func (a *Account) delivering() bool {
	return slices.ContainsFunc(a.Deliveries, func(d *DeliveryAccount) bool { return d.State != InFlight || d.Attempts > 0 })
}

func (a *Account) applyDelivery(e Event) bool {
	d := a.Delivery(e.DeliveryID)
	if d == nil {
		return false
	}
	if e.Type == EventRejected {
		if d.State == Rejected {
			return false
		}
		d.State, d.Reason, d.Detail, d.DueAt, d.Held = Rejected, e.Reason, e.Detail, nil, nil
		a.settleDelivery(d, e)
		return true
	}
	if d.State.Final() {
		return false
	}
	// What is dead comes to life by an operator's redrive only, or by the
	// receiver's word that it has it after all.
	switch e.Type {
	case EventWaiting:
		if d.State == Dead || e.Sequence <= d.Sequence {
			return false
		}
		d.State = Waiting
	case EventAttempt:
		// Without a number it is not counted: the destination was at fault.
		if d.State == Dead || e.Attempt <= d.Attempts && (e.Attempt > 0 || e.Sequence <= d.Sequence) {
			return false
		}
		d.State = Waiting
	case EventHandedOver:
		if d.State == Dead || e.Sequence <= d.Sequence {
			return false
		}
		d.State, d.Token = Waiting, e.Token
	case EventDelivered:
		d.State, d.Held, e.Reason, e.Detail, e.DueAt = Delivered, nil, "", "", nil
	case EventDead:
		if d.State == Dead || e.ID == d.DeadEvent && e.ID != uuid.Nil {
			return false
		}
		d.State, d.Held, d.DeadEvent, d.Token, e.DueAt = Dead, e.Held, e.ID, e.Token, nil
	case EventRedriven:
		if d.State != Dead || e.Redrive <= d.Redrives {
			return false
		}
		d.State, d.Redrives, d.Held, e.DueAt = InFlight, e.Redrive, nil, nil
	case EventClosed:
		if d.State != Dead && d.State != Waiting {
			return false
		}
		d.State, d.Held, e.Detail, e.DueAt = Rejected, nil, e.Note, nil
	default:
		return false
	}
	if e.Attempt > d.Attempts {
		d.Attempts = e.Attempt
	}
	if e.Sequence > d.Sequence {
		d.Sequence = e.Sequence
	}
	if e.Order > 0 {
		d.Order = e.Order
	}
	d.Reason, d.Detail, d.DueAt = e.Reason, e.Detail, e.DueAt
	a.settleDelivery(d, e)
	return true
}

func (a *Account) settleDelivery(d *DeliveryAccount, e Event) {
	d.UpdatedAt = e.At
	if d.State != Waiting {
		d.WaitingSince = nil
	} else if d.WaitingSince == nil {
		since := e.At
		d.WaitingSince = &since
	}
	a.settle(e.At)
}

// settle derives the submission's state: dispatch's own word, or the least
// finished of its deliveries.
func (a *Account) settle(at time.Time) {
	a.State, a.UpdatedAt = a.Own, at
	defer a.overtake(at)
	if a.Own != InFlight || len(a.Deliveries) == 0 {
		return
	}
	order := []State{Dead, InFlight, Waiting, Rejected, Delivered}
	least := len(order)
	for _, d := range a.Deliveries {
		if i := slices.Index(order, d.State); i < least {
			least = i
			a.State, a.Reason, a.Detail = d.State, d.Reason, d.Detail
		}
	}
}
