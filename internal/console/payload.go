package console

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/jobs"
	"weiche/internal/submission"
)

// Payload is what an operator with the right may read of something that is held:
// the submission, and the messages that were made of it.
type Payload struct {
	Envelope *submission.Envelope `json:"envelope"`
	Messages []Message            `json:"messages"`
}

// Message is the message of one dead delivery.
type Message struct {
	DeliveryID  uuid.UUID         `json:"deliveryId"`
	Destination string            `json:"destination"`
	Format      submission.Format `json:"format"`
	XML         string            `json:"xml"`
}

// payload shows what is dead or unassigned as it is. Who looked, at what and when
// is logged before anything is opened: a look that failed half-way counts too.
func (a *API) payload(c *call) (int, any, error) {
	acct, err := a.fresh(c)
	if err != nil {
		return 0, nil, err
	}
	if a.Open == nil {
		return 0, nil, conflict("no-payload", "This router shows no payload.")
	}
	places := heldRecords(acct)
	if len(places) == 0 {
		return 0, nil, conflict("not-held", "Only of what is unassigned or dead the bytes are held; this is "+string(acct.State)+".")
	}
	a.Logger.Warn("an operator looks at payload", "audit", "payload", "operator", c.operator.Name, "submission", acct.ID, "land", string(acct.Land),
		"service", string(acct.Service), "at", a.Now().UTC())
	out := Payload{Messages: []Message{}}
	for _, h := range places {
		env, xml, err := a.open(c.Context(), acct, h.at)
		if err != nil {
			return 0, nil, err
		}
		out.Envelope = env
		if d := h.of; d != nil {
			out.Messages = append(out.Messages, Message{d.ID, d.Destination, d.Format, string(xml)})
		}
	}
	return http.StatusOK, out, nil
}

// heldRecord is a record that is kept for an operator; of is nil where dispatch
// holds the submission itself.
type heldRecord struct {
	at *submission.Held
	of *submission.DeliveryAccount
}

func heldRecords(a *submission.Account) (out []heldRecord) {
	if jobs.Held(a) {
		out = append(out, heldRecord{a.Held, nil})
	}
	for _, d := range a.Deliveries {
		if d.State == submission.Dead && d.Held != nil {
			out = append(out, heldRecord{d.Held, d})
		}
	}
	return out
}

// open opens a held record of a submission. It must be that submission's: the
// offset comes from the account, the bytes from a topic.
func (a *API) open(ctx context.Context, acct *submission.Account, at *submission.Held) (*submission.Envelope, []byte, error) {
	rec, err := a.fetch(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	m, err := metaOf(rec, acct.ID)
	if err != nil {
		return nil, nil, err
	}
	return a.Open(ctx, m, rec.Value)
}

func metaOf(rec *bus.Record, id uuid.UUID) (submission.Meta, error) {
	m, err := submission.ParseMeta(rec.Headers)
	if err != nil || m.ID != id {
		return m, conflict("undecodable", "The held record cannot be read; it can only be closed.")
	}
	return m, nil
}
