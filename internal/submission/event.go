package submission

import (
	"strconv"
	"time"

	"github.com/google/uuid"
)

// EventType names what happened.
type EventType string

// The events of the append-only account. The owner of a stage's partition is
// the only writer of the events of that stage and partition.
const (
	EventAccepted   EventType = "accepted"    // dispatch copies the acceptance
	EventDecided    EventType = "decided"     // authority, destination and format are known
	EventUnassigned EventType = "unassigned"  // no or several authorities: held
	EventAssigned   EventType = "assigned"    // an operator named the authority
	EventWaiting    EventType = "waiting"     // parked without an attempt: paused, busy, behind its case
	EventAttempt    EventType = "attempt"     // an attempt failed, another will follow
	EventHandedOver EventType = "handed-over" // taken, to be confirmed later
	EventDelivered  EventType = "delivered"
	EventDead       EventType = "dead"
	EventRedriven   EventType = "redriven"
	EventClosed     EventType = "closed"     // an operator ended it: rejected
	EventProposed   EventType = "proposed"   // an operator's edit that waits for a second one
	EventEdited     EventType = "edited"     // an operator changed the form of what was dead
	EventDeclined   EventType = "declined"   // an edit, or the proposal of one, came to nothing
	EventLooked     EventType = "looked"     // an operator read payload
	EventRejected   EventType = "rejected"   // the Fachverfahren refuses it
	EventRefused    EventType = "refused"    // a record on an intake topic that was never accepted
	EventOwner      EventType = "owner"      // a new owner of a stage's partition, with its epoch
	EventCheckpoint EventType = "checkpoint" // signed running hash of the partition
	EventCounted    EventType = "counted"    // how many were accepted, before their records are deleted
)

// Stage is a part of the way that owns states.
type Stage string

// The stages that write events.
const (
	StageIntake   Stage = "intake"
	StageDispatch Stage = "dispatch"
	StageDelivery Stage = "delivery"
	StageReturns  Stage = "returns"
)

// Held names the record that holds a submission's bytes while it is unassigned
// or dead.
type Held struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Event is one entry of the account. It is free of payload. It is stored as
// JSON, keyed by case, in the same partition number as the record it is about.
type Event struct {
	ID         uuid.UUID `json:"id"`
	Type       EventType `json:"type"`
	At         time.Time `json:"at"`
	Stage      Stage     `json:"stage"`
	Epoch      int64     `json:"epoch"`
	Submission uuid.UUID `json:"submission,omitzero"`
	CaseID     uuid.UUID `json:"caseId,omitzero"`
	Portal     string    `json:"portal,omitempty"`
	Land       Land      `json:"land,omitempty"`
	Service    Service   `json:"service,omitempty"`
	Revision   int       `json:"revision,omitempty"`

	// accepted
	Accepted *Acceptance `json:"accepted,omitempty"`
	// decided
	Decision *Decision `json:"decision,omitempty"`

	// about one delivery
	DeliveryID  uuid.UUID  `json:"deliveryId,omitzero"`
	Destination string     `json:"destination,omitempty"`
	Adapter     string     `json:"adapter,omitempty"`
	Attempt     int        `json:"attempt,omitempty"`
	Redrive     int        `json:"redrive,omitempty"`
	Sequence    int        `json:"sequence,omitempty"` // of the newest waiting record
	Reason      string     `json:"reason,omitempty"`   // a fault.Reason
	Class       string     `json:"class,omitempty"`    // a fault.Class
	Detail      string     `json:"detail,omitempty"`   // a sentence without payload
	DueAt       *time.Time `json:"dueAt,omitempty"`
	DurationMS  int64      `json:"durationMs,omitempty"`
	Token       string     `json:"token,omitempty"` // handed-over; dead, where nobody knows whether it arrived
	Held        *Held      `json:"held,omitempty"`  // unassigned, dead, refused
	Order       int64      `json:"order,omitempty"` // position in its case

	// an operator's deed
	Operator string `json:"operator,omitempty"`
	Note     string `json:"note,omitempty"`
	Edit     *Edit  `json:"edit,omitempty"` // proposed, edited, declined

	// checkpoint: hash of the partition up to and without this event, signature
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`
	// counted
	Counted *Tally `json:"counted,omitempty"`
}

// Acceptance is the payload-free part of the submission record.
type Acceptance struct {
	Region     Region    `json:"region"`
	AcceptedAt time.Time `json:"acceptedAt"`
	SHA512     string    `json:"sha512"`
	Append     uuid.UUID `json:"append"` // the append that counts
	Test       bool      `json:"test,omitempty"`
	SenderHash string    `json:"senderHash,omitempty"`
	Offset     int64     `json:"offset"` // in the submissions partition
}

// Decision is what dispatch found, with the facts it was made from, so that
// history can be replayed against another configuration.
type Decision struct {
	Authority   Authority         `json:"authority"`
	Deliveries  []PlannedDelivery `json:"deliveries"`
	Rule        string            `json:"rule"`       // the rule that decided, as file:line
	ConfigHash  string            `json:"configHash"` // SHA-256 of the Land's configuration
	Predecessor int               `json:"predecessor,omitempty"`
	At          time.Time         `json:"at"` // the time the rules were asked for
}

// PlannedDelivery is one delivery of a decision.
type PlannedDelivery struct {
	ID          uuid.UUID `json:"id"`
	Destination string    `json:"destination"`
	Adapter     string    `json:"adapter"`
	Format      Format    `json:"format"`
	// Replaces says that it takes the place of a dead delivery, which stood at Order
	// in its case.
	Replaces bool  `json:"replaces,omitempty"`
	Order    int64 `json:"order,omitempty"`
}

// Checkpoint is the signed running hash over one partition of events.
type Checkpoint struct {
	Offset int64  `json:"offset"` // events below this offset are covered
	Hash   string `json:"hash"`   // hex SHA-256 chain
	JWS    string `json:"jws"`
}

// Headers writes the event's record headers (CloudEvents binary mode).
func (e Event) Headers() map[string]string {
	h := map[string]string{
		HeaderVersion:     strconv.Itoa(RecordVersion),
		HeaderID:          e.ID.String(),
		HeaderType:        "weiche.event." + string(e.Type),
		HeaderSource:      "/weiche/" + string(e.Stage),
		HeaderSpecVersion: "1.0",
		HeaderTime:        stamp(e.At),
		HeaderContentType: "application/json",
	}
	if e.Submission != uuid.Nil {
		h[HeaderSubject] = e.Submission.String()
	}
	return h
}
