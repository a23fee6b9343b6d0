package console

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"weiche/internal/jobs"
	"weiche/internal/submission"
)

// Payload is what an operator with the right may read of something that is held:
// the submission, and the messages that were made of it.
type Payload struct {
	Revision int                  `json:"revision"`
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

// payload shows what is dead or unassigned as it is. Who looked, at what, when and
// why stands in the account before anything is shown: a look at what cannot be
// opened counts too.
func (a *API) payload(c *call) (int, any, error) {
	reason, err := words("reason", c.URL.Query().Get("reason"), true)
	if err != nil {
		return 0, nil, err
	}
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
	out, err := a.held(c.Context(), acct, places)
	if told := a.look(c, acct, reason, out.Envelope); told != nil {
		return 0, nil, told
	}
	return http.StatusOK, out, err
}

// held opens what is held.
func (a *API) held(ctx context.Context, acct *submission.Account, places []heldRecord) (Payload, error) {
	out := Payload{Revision: acct.Dispatched, Messages: []Message{}}
	for _, h := range places {
		env, xml, err := a.open(ctx, acct, h.at)
		if err != nil {
			return out, err
		}
		out.Envelope = env
		if d := h.of; d != nil {
			out.Messages = append(out.Messages, Message{d.ID, d.Destination, d.Format, string(xml)})
		}
	}
	return out, nil
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

// open opens a held record of a submission.
func (a *API) open(ctx context.Context, acct *submission.Account, at *submission.Held) (*submission.Envelope, []byte, error) {
	m, value, err := jobs.Read(ctx, a.Log, acct.ID, at)
	if err != nil {
		return nil, nil, unmakeable(err)
	}
	return a.Open(ctx, m, value)
}
