package app

import (
	"context"
	"encoding/json"
	"io"
	"slices"

	"weiche/internal/blob"
	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/intake"
	"weiche/internal/seal"
	"weiche/internal/submission"
)

// Section names of a record's box.
const (
	sectionSubmission  = intake.SectionSubmission
	sectionAttachments = intake.SectionAttachments
	sectionXML         = "xml"
)

// topicKeys holds the day keys; it is compacted and has one partition.
const topicKeys = "weiche.keys"

// keyLog keeps day keys in Kafka.
type keyLog struct{ bus *bus.Bus }

// Append implements seal.KeyLog.
func (l keyLog) Append(ctx context.Context, key string, value []byte) error {
	return l.bus.Append(ctx, &bus.Record{Topic: topicKeys, Key: []byte(key), Value: value})
}

// Load implements seal.KeyLog.
func (l keyLog) Load(ctx context.Context, fn func(key string, value []byte) error) error {
	oldest, newest, err := l.bus.Offsets(ctx, topicKeys)
	if err != nil || len(newest) == 0 {
		return err
	}
	return l.bus.ReadTo(ctx, topicKeys, 0, oldest[0], newest[0], func(r *bus.Record) error { return fn(string(r.Key), r.Value) })
}

// payload opens and seals what records carry.
type payload struct {
	keeper *seal.Keeper
	vault  *blob.Vault
}

func (p payload) box(ctx context.Context, m submission.Meta, value []byte) (*seal.Box, *seal.DataKey, error) {
	box, err := seal.ParseBox(value, m.ID.String())
	if err != nil {
		return nil, nil, err
	}
	key, err := p.keeper.OpenDataKey(ctx, box.Key)
	return box, key, err
}

// Open implements dispatch.Payload.
func (p payload) Open(ctx context.Context, m submission.Meta, value []byte) (*submission.Envelope, error) {
	box, key, err := p.box(ctx, m, value)
	if err != nil {
		return nil, err
	}
	return p.envelope(ctx, box, key)
}

// OpenFile implements dispatch.Payload. The bytes are verified as they are read,
// as an adapter's are.
func (p payload) OpenFile(ctx context.Context, m submission.Meta, value []byte, a submission.Attachment) (io.ReadCloser, error) {
	_, key, err := p.box(ctx, m, value)
	if err != nil {
		return nil, err
	}
	return p.vault.OpenFile(ctx, key, a.Blob, a.Hash.Content)
}

func (p payload) envelope(ctx context.Context, box *seal.Box, key *seal.DataKey) (*submission.Envelope, error) {
	plain, err := p.vault.Section(ctx, key, box, sectionSubmission)
	if err != nil {
		return nil, err
	}
	e, err := submission.DecodeEnvelope(plain)
	if err != nil {
		return nil, fault.New(fault.Permanent, fault.ReasonUndecodable, "the sealed submission is not what intake writes")
	}
	return e, nil
}

// attachments are all that an adapter needs of the envelope. They have a section
// of their own, so that a form is not opened only to pass its attachments on;
// records accepted before that have them in the envelope alone.
func (p payload) attachments(ctx context.Context, box *seal.Box, key *seal.DataKey) ([]submission.Attachment, error) {
	if _, ok := box.Section(sectionAttachments); !ok {
		e, err := p.envelope(ctx, box, key)
		if err != nil {
			return nil, err
		}
		return e.Attachments, nil
	}
	plain, err := p.vault.Section(ctx, key, box, sectionAttachments)
	if err != nil {
		return nil, err
	}
	list, err := submission.DecodeAttachments(plain)
	if err != nil {
		return nil, fault.New(fault.Permanent, fault.ReasonUndecodable, "the sealed list of attachments is not what intake writes")
	}
	return list, nil
}

// Held opens what is held for an operator: the submission, and the message where
// one was made of it.
func (p payload) Held(ctx context.Context, m submission.Meta, value []byte) (*submission.Envelope, []byte, error) {
	box, key, err := p.box(ctx, m, value)
	if err != nil {
		return nil, nil, err
	}
	env, err := p.envelope(ctx, box, key)
	if err != nil {
		return nil, nil, err
	}
	if _, ok := box.Section(sectionXML); !ok {
		return env, nil, nil
	}
	xml, err := p.vault.Section(ctx, key, box, sectionXML)
	return env, xml, err
}

// Edited returns the value of a held record with another envelope. The message
// that was made of the one before is not carried along.
func (p payload) Edited(ctx context.Context, m submission.Meta, value []byte, env *submission.Envelope) ([]byte, error) {
	box, key, err := p.box(ctx, m, value)
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(env)
	if err != nil {
		return nil, fault.New(fault.Permanent, fault.ReasonUndecodable, "the edited submission cannot be written")
	}
	box.Sections = slices.DeleteFunc(box.Sections, func(s seal.Section) bool { return s.Name == sectionXML })
	prefix := blob.Prefix(m.Land, m.AcceptedAt, m.ID.String(), m.Append.String())
	if err := p.vault.PutSection(ctx, key, box, prefix, sectionSubmission, plain); err != nil {
		return nil, err
	}
	return box.MarshalBinary()
}

// WithXML implements dispatch.Payload.
func (p payload) WithXML(ctx context.Context, m submission.Meta, value, xml []byte) ([]byte, error) {
	box, key, err := p.box(ctx, m, value)
	if err != nil {
		return nil, err
	}
	prefix := blob.Prefix(m.Land, m.AcceptedAt, m.ID.String(), m.Append.String())
	if err := p.vault.PutSection(ctx, key, box, prefix, sectionXML, xml); err != nil {
		return nil, err
	}
	return box.MarshalBinary()
}

// deliveryPayload opens what an adapter hands over.
type deliveryPayload struct {
	payload
	authority func(submission.Land, string) submission.Authority
}

// Open implements delivery.Payload.
func (p deliveryPayload) Open(ctx context.Context, m submission.DeliveryMeta, value []byte) (*submission.Delivery, error) {
	box, key, err := p.box(ctx, m.Meta, value)
	if err != nil {
		return nil, err
	}
	xml, err := p.vault.Section(ctx, key, box, sectionXML)
	if err != nil {
		return nil, err
	}
	attachments, err := p.attachments(ctx, box, key)
	if err != nil {
		return nil, err
	}
	d := &submission.Delivery{
		ID: m.DeliveryID.String(), SubmissionID: m.ID.String(), CaseID: m.CaseID.String(), Portal: m.Portal, Land: m.Land,
		Service: m.Service, Destination: m.Destination, Format: m.Format, Test: m.Test, Traceparent: m.Traceparent, Message: xml,
		AcceptedAt: m.AcceptedAt,
		Authority:  p.authority(m.Land, m.AuthorityID),
	}
	for _, at := range attachments {
		d.Attachments = append(d.Attachments, submission.File{
			ID: at.AttachmentID, Filename: at.Filename, MIMEType: at.MIMEType, Purpose: at.Purpose, SHA512: at.Hash.Content, Size: at.Size,
			Open: func() (io.ReadCloser, error) { return p.vault.OpenFile(ctx, key, at.Blob, at.Hash.Content) },
		})
	}
	return d, nil
}
