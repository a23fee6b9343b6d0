package submission

import (
	"encoding/json"
	"strconv"
	"strings"
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

// Replaced is a dead delivery of the revision before, with its place in its case.
type Replaced struct {
	Destination string `json:"destination"`
	Order       int64  `json:"order"`
}

// Note is what the event of a redrive says beside the operator's name.
func (i *Instruction) Note() string {
	if i.Job == "" {
		return ""
	}
	return "job " + i.Job
}

// InstructionKind says what an operator wants.
type InstructionKind string

// What operators can want of a held submission.
const (
	InstructAssign  InstructionKind = "assign"
	InstructRedrive InstructionKind = "redrive"
	InstructClose   InstructionKind = "close"
	InstructEdit    InstructionKind = "edit"    // decide on an edited form
	InstructPropose InstructionKind = "propose" // the same, once a second operator agrees
	InstructDecline InstructionKind = "decline" // a proposal shall come to nothing
	InstructLook    InstructionKind = "look"    // tell that somebody reads payload
	// Dispatch's own word to delivery: a higher revision has taken the place of a
	// dead delivery, which holds its case no longer.
	InstructRelease InstructionKind = "release"
)

// Instruction is an operator's order. It travels in the stage's own topic, so
// that the owner of the partition remains the only writer of its states.
type Instruction struct {
	Kind      InstructionKind `json:"kind"`
	Operator  string          `json:"operator"`
	Authority string          `json:"authority,omitempty"` // assign
	Reason    string          `json:"reason,omitempty"`    // close, decline, look
	Force     bool            `json:"force,omitempty"`
	Job       string          `json:"job,omitempty"` // of many orders, the job's id
	// ID tells one look at payload from another.
	ID uuid.UUID `json:"id,omitzero"`
	// Edit says what is edited, proposed or declined.
	Edit *Edit `json:"edit,omitempty"`
	// Replaces names the dead deliveries that a higher revision takes the place of.
	Replaces []Replaced `json:"replaces,omitempty"`
	At       time.Time  `json:"at"`
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
	// Waited is how long it was told to wait after its attempts, in all, since the
	// last redrive: the time after which it is given up. Time during which its
	// destination was paused, its case blocked or the router down is no part of it.
	Waited time.Duration
	// Accepted position: order of the case is the order of these.
	Order  int64
	Reason string // why it waits or died: a fault.Reason
	// Token is what the adapter asked to be kept (Pending). It stands in the
	// account only, in no header.
	Token string
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
	HeaderDestination = "ce_destination" // of deliveries
	HeaderContentType = "content-type"
	HeaderTraceparent = "traceparent"
)

// Headers writes the record headers of a submission record. recordType is one
// of the Type constants. The map is the caller's.
func (m Meta) Headers(recordType string) map[string]string {
	w := newHeaderWriter(22, 240)
	w.meta(&m, recordType)
	return w.h
}

func (w *headerWriter) meta(m *Meta, recordType string) {
	h := w.h
	w.int(HeaderVersion, RecordVersion)
	w.uuid(HeaderID, m.Append)
	h[HeaderType] = recordType
	h[HeaderSource] = w.cut(append(append(w.free(), "/weiche/portals/"...), m.Portal...))
	h[HeaderSpecVersion] = "1.0"
	w.time(HeaderTime, m.AcceptedAt)
	w.uuid(HeaderSubject, m.ID)
	h[HeaderContentType] = "application/octet-stream"
	w.uuid("ce_caseid", m.CaseID)
	h["ce_portal"] = m.Portal
	h["ce_land"] = string(m.Land)
	h["ce_service"] = string(m.Service)
	h["ce_region"] = string(m.Region)
	h["ce_sha512"] = m.SHA512
	w.int("ce_revision", int64(m.Revision))
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
		w.time("ce_instructedat", i.At)
		if i.Authority != "" {
			h["ce_assign"] = i.Authority
		}
		if i.Reason != "" {
			h["ce_closereason"] = i.Reason
		}
		if i.Job != "" {
			h["ce_job"] = i.Job
		}
		if len(i.Replaces) > 0 {
			h["ce_replaces"] = replacesText(i.Replaces)
		}
		if i.ID != uuid.Nil {
			w.uuid("ce_orderid", i.ID)
		}
		if i.Edit != nil {
			h["ce_edit"] = editText(i.Edit)
		}
		if i.Force {
			h["ce_force"] = "true"
		}
	}
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
			Reason: h["ce_closereason"], Force: h["ce_force"] == "true", Job: h["ce_job"], At: r.time("ce_instructedat"),
		}
		var ok bool
		if m.Instruction.Replaces, ok = parseReplaces(h["ce_replaces"]); !ok {
			r.fail("ce_replaces", "is malformed")
		}
		if h["ce_orderid"] != "" {
			m.Instruction.ID = r.uuid("ce_orderid")
		}
		if text := h["ce_edit"]; text != "" {
			if m.Instruction.Edit, ok = parseEdit(text); !ok {
				r.fail("ce_edit", "is malformed")
			}
		}
	}
	if m.Portal == "" || m.Land == "" || m.Service == "" {
		r.fail("ce_portal, ce_land or ce_service", "is missing")
	}
	return m, r.err
}

// editText writes an edit as the JSON object it is.
func editText(e *Edit) string {
	b, err := json.Marshal(e)
	if err != nil {
		return "{}" // only a time beyond the year 9999 cannot be written; nobody's order has one
	}
	return string(b)
}

func parseEdit(s string) (*Edit, bool) {
	e := &Edit{}
	return e, json.Unmarshal([]byte(s), e) == nil && e.ID != uuid.Nil
}

// replacesText writes "destination=order,…"; a destination's name has neither sign.
func replacesText(list []Replaced) string {
	var b []byte
	for i, d := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(append(b, d.Destination...), '='), d.Order, 10)
	}
	return string(b)
}

func parseReplaces(s string) (list []Replaced, ok bool) {
	if s == "" {
		return nil, true
	}
	for part := range strings.SplitSeq(s, ",") {
		name, order, _ := strings.Cut(part, "=")
		n, err := strconv.ParseInt(order, 10, 64)
		if name == "" || err != nil {
			return nil, false
		}
		list = append(list, Replaced{name, n})
	}
	return list, true
}

// Headers writes the record headers of a delivery, a waiting record or a dead
// letter. The map is the caller's.
func (d DeliveryMeta) Headers(recordType string) map[string]string {
	count := 28 // as dispatch writes it
	if d.Waited > 0 || !d.DueAt.IsZero() || d.Instruction != nil {
		count = 36
	}
	w := newHeaderWriter(count, 440)
	w.meta(&d.Meta, recordType)
	h := w.h
	w.uuid("ce_deliveryid", d.DeliveryID)
	h["ce_destination"] = d.Destination
	h["ce_adapter"] = d.Adapter
	h["ce_format"] = w.cut(d.Format.append(w.free()))
	h["ce_authority"] = d.AuthorityID
	w.uuid("ce_decision", d.Decision)
	w.int("ce_attempts", int64(d.Attempts))
	w.int("ce_redrives", int64(d.Redrives))
	w.int("ce_sequence", int64(d.Sequence))
	w.int("ce_order", d.Order)
	if !d.DueAt.IsZero() {
		w.time("ce_dueat", d.DueAt)
	}
	if d.Waited > 0 {
		w.int("ce_waited", d.Waited.Milliseconds())
	}
	if d.Before > 0 {
		w.int("ce_before", int64(d.Before))
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
		Meta: m, DeliveryID: r.uuid("ce_deliveryid"), Destination: h[HeaderDestination], Adapter: h["ce_adapter"],
		AuthorityID: h["ce_authority"], Decision: r.uuid("ce_decision"), Attempts: r.int("ce_attempts"),
		Redrives: r.int("ce_redrives"), Sequence: r.int("ce_sequence"), Order: int64(r.int("ce_order")), Reason: h["ce_reason"],
	}
	if h["ce_dueat"] != "" {
		d.DueAt = r.time("ce_dueat")
	}
	if h["ce_before"] != "" {
		d.Before = r.int("ce_before")
	}
	switch {
	case h["ce_waited"] != "":
		d.Waited = time.Duration(r.int("ce_waited")) * time.Millisecond
	case h["ce_since"] != "": // the first attempt's time, as it was written before
		d.Waited = max(0, d.DueAt.Sub(r.time("ce_since")))
	}
	if err := d.Format.UnmarshalText([]byte(h["ce_format"])); err != nil {
		r.fail("ce_format", "is malformed")
	}
	return d, r.err
}
