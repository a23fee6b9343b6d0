package submission

import (
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// RecordVersion is the version of every record this release writes. Version N
// reads N−1.
const RecordVersion = 1

// Content types and CloudEvents types of the records.
const (
	TypeClaim      = "weiche.claim"
	TypeSubmission = "weiche.submission"
	TypeDelivery   = "weiche.delivery"
	TypeControl    = "weiche.control"
	TypeIntake     = "weiche.intake"
	TypeRefused    = "weiche.refused"
)

// Meta is what routing and bookkeeping need of a submission, free of payload.
// It travels in the record's headers as CloudEvents attributes (binary mode).
type Meta struct {
	ID         uuid.UUID
	CaseID     uuid.UUID
	Portal     string
	Land       Land
	Service    Service
	Region     Region
	AcceptedAt time.Time // UTC, milliseconds
	SHA512     string    // hex, of the submission's bytes
	Test       bool
	Revision   int // from 1
	// Append tells the appends of one submission apart: blobs are named by it,
	// and the first append in the partition is the one that counts.
	Append uuid.UUID
	// SenderHash is the keyed hash of the sender's reference, empty without one.
	SenderHash  string
	Traceparent string
	// Instruction is set on records that an operator caused.
	Instruction *Instruction
}

// InstructionKind says what an operator wants.
type InstructionKind string

// What operators can want of a held submission.
const (
	InstructAssign  InstructionKind = "assign"
	InstructRedrive InstructionKind = "redrive"
	InstructClose   InstructionKind = "close"
)

// Instruction is an operator's order. It travels in the stage's own topic, so
// that the owner of the partition remains the only writer of its states.
type Instruction struct {
	Kind      InstructionKind `json:"kind"`
	Operator  string          `json:"operator"`
	Authority string          `json:"authority,omitempty"` // assign
	Reason    string          `json:"reason,omitempty"`    // close
	Force     bool            `json:"force,omitempty"`
	At        time.Time       `json:"at"`
}

// DeliveryMeta is the payload-free part of a delivery record, of a waiting
// record and of a dead letter.
type DeliveryMeta struct {
	Meta
	DeliveryID  uuid.UUID
	Destination string
	Adapter     string
	Format      Format
	AuthorityID string
	Decision    uuid.UUID // id of the event that decided it
	Attempts    int       // made so far
	Redrives    int       // redriven so far
	Before      int       // attempts before the last redrive: waits begin anew with it
	// Sequence counts the waiting records of one delivery; only the newest
	// counts.
	Sequence int
	DueAt    time.Time // zero: as soon as its turn comes
	Since    time.Time // of the first attempt that counted; zero before
	// Accepted position: order of the case is the order of these.
	Order  int64
	Reason string // why it waits or died: a fault.Reason
}

// Header names. CloudEvents attributes carry the prefix ce_ (CloudEvents Kafka
// Protocol Binding 1.0.2, section 3.2.3).
const (
	HeaderVersion     = "weiche_version"
	HeaderID          = "ce_id"
	HeaderType        = "ce_type"
	HeaderSource      = "ce_source"
	HeaderSpecVersion = "ce_specversion"
	HeaderTime        = "ce_time"
	HeaderSubject     = "ce_subject"
	HeaderContentType = "content-type"
	HeaderTraceparent = "traceparent"
)

// Headers writes the record headers of a submission record. recordType is one
// of the Type constants.
func (m Meta) Headers(recordType string) map[string]string {
	h := map[string]string{
		HeaderVersion:     strconv.Itoa(RecordVersion),
		HeaderID:          m.Append.String(),
		HeaderType:        recordType,
		HeaderSource:      "/weiche/portals/" + m.Portal,
		HeaderSpecVersion: "1.0",
		HeaderTime:        stamp(m.AcceptedAt),
		HeaderSubject:     m.ID.String(),
		HeaderContentType: "application/octet-stream",
		"ce_caseid":       m.CaseID.String(),
		"ce_portal":       m.Portal,
		"ce_land":         string(m.Land),
		"ce_service":      string(m.Service),
		"ce_region":       string(m.Region),
		"ce_sha512":       m.SHA512,
		"ce_revision":     strconv.Itoa(m.Revision),
	}
	if m.Test {
		h["ce_test"] = "true"
	}
	if m.SenderHash != "" {
		h["ce_senderhash"] = m.SenderHash
	}
	if m.Traceparent != "" {
		h[HeaderTraceparent] = m.Traceparent
	}
	if i := m.Instruction; i != nil {
		h["ce_instruction"] = string(i.Kind)
		h["ce_operator"] = i.Operator
		h["ce_instructedat"] = stamp(i.At)
		if i.Authority != "" {
			h["ce_assign"] = i.Authority
		}
		if i.Reason != "" {
			h["ce_closereason"] = i.Reason
		}
		if i.Force {
			h["ce_force"] = "true"
		}
	}
	return h
}

// ParseMeta reads what Headers wrote. The error names the header at fault.
func ParseMeta(h map[string]string) (Meta, error) {
	r := headerReader{h: h}
	r.version()
	m := Meta{
		ID: r.uuid(HeaderSubject), CaseID: r.uuid("ce_caseid"), Append: r.uuid(HeaderID),
		Portal: h["ce_portal"], Land: Land(h["ce_land"]), Service: Service(h["ce_service"]), Region: Region(h["ce_region"]),
		AcceptedAt: r.time(HeaderTime), SHA512: h["ce_sha512"], Test: h["ce_test"] == "true",
		Revision: r.int("ce_revision"), SenderHash: h["ce_senderhash"], Traceparent: h[HeaderTraceparent],
	}
	if k := h["ce_instruction"]; k != "" {
		m.Instruction = &Instruction{
			Kind: InstructionKind(k), Operator: h["ce_operator"], Authority: h["ce_assign"],
			Reason: h["ce_closereason"], Force: h["ce_force"] == "true", At: r.time("ce_instructedat"),
		}
	}
	if m.Portal == "" || m.Land == "" || m.Service == "" {
		r.fail("ce_portal, ce_land or ce_service", "is missing")
	}
	return m, r.err
}

// Headers writes the record headers of a delivery, a waiting record or a dead
// letter.
func (d DeliveryMeta) Headers(recordType string) map[string]string {
	h := d.Meta.Headers(recordType)
	h["ce_deliveryid"] = d.DeliveryID.String()
	h["ce_destination"] = d.Destination
	h["ce_adapter"] = d.Adapter
	h["ce_format"] = d.Format.String()
	h["ce_authority"] = d.AuthorityID
	h["ce_decision"] = d.Decision.String()
	h["ce_attempts"] = strconv.Itoa(d.Attempts)
	h["ce_redrives"] = strconv.Itoa(d.Redrives)
	h["ce_sequence"] = strconv.Itoa(d.Sequence)
	h["ce_order"] = strconv.FormatInt(d.Order, 10)
	if !d.DueAt.IsZero() {
		h["ce_dueat"] = stamp(d.DueAt)
	}
	if !d.Since.IsZero() {
		h["ce_since"] = stamp(d.Since)
	}
	if d.Before > 0 {
		h["ce_before"] = strconv.Itoa(d.Before)
	}
	if d.Reason != "" {
		h["ce_reason"] = d.Reason
	}
	return h
}

// ParseDeliveryMeta reads what DeliveryMeta.Headers wrote.
func ParseDeliveryMeta(h map[string]string) (DeliveryMeta, error) {
	m, err := ParseMeta(h)
	if err != nil {
		return DeliveryMeta{}, err
	}
	r := headerReader{h: h}
	d := DeliveryMeta{
		Meta: m, DeliveryID: r.uuid("ce_deliveryid"), Destination: h["ce_destination"], Adapter: h["ce_adapter"],
		AuthorityID: h["ce_authority"], Decision: r.uuid("ce_decision"), Attempts: r.int("ce_attempts"),
		Redrives: r.int("ce_redrives"), Sequence: r.int("ce_sequence"), Order: int64(r.int("ce_order")), Reason: h["ce_reason"],
	}
	if h["ce_dueat"] != "" {
		d.DueAt = r.time("ce_dueat")
	}
	if h["ce_before"] != "" {
		d.Before = r.int("ce_before")
	}
	if h["ce_since"] != "" {
		d.Since = r.time("ce_since")
	}
	if err := d.Format.UnmarshalText([]byte(h["ce_format"])); err != nil {
		r.fail("ce_format", "is malformed")
	}
	return d, r.err
}

type headerReader struct {
	h   map[string]string
	err error
}

func (r *headerReader) fail(name, what string) {
	if r.err == nil {
		r.err = fmt.Errorf("record header %s %s", name, what)
	}
}

func (r *headerReader) version() {
	if v := r.int(HeaderVersion); r.err == nil && (v > RecordVersion || v < RecordVersion-1) {
		r.fail(HeaderVersion, fmt.Sprintf("is %d; this release reads %d and %d", v, RecordVersion-1, RecordVersion))
	}
}

func (r *headerReader) uuid(name string) uuid.UUID {
	id, err := uuid.Parse(r.h[name])
	if err != nil {
		r.fail(name, "is not a UUID")
	}
	return id
}

func (r *headerReader) int(name string) int {
	n, err := strconv.Atoi(r.h[name])
	if err != nil {
		r.fail(name, "is not a number")
	}
	return n
}

func (r *headerReader) time(name string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, r.h[name])
	if err != nil {
		r.fail(name, "is not a time (RFC 3339)")
	}
	return t.UTC()
}

const stampLayout = "2006-01-02T15:04:05.000Z07:00"

// stamp writes a time in UTC with milliseconds.
func stamp(t time.Time) string { return t.UTC().Format(stampLayout) }
