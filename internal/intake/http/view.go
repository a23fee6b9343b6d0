package httpdoor

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/intake"
	"weiche/internal/submission"
)

type accepted struct {
	SubmissionID uuid.UUID        `json:"submissionId"`
	CaseID       uuid.UUID        `json:"caseId"`
	Status       submission.State `json:"status"`
	AcceptedAt   string           `json:"acceptedAt"`
	Receipt      string           `json:"receipt"`
}

func acceptedView(a intake.Accepted) accepted {
	return accepted{a.ID, a.CaseID, submission.InFlight, stamp(a.AcceptedAt), a.Receipt}
}

type authority struct {
	Key  submission.AuthorityKey `json:"key,omitempty"`
	Name string                  `json:"name"`
}

type statusView struct {
	SubmissionID uuid.UUID          `json:"submissionId"`
	CaseID       uuid.UUID          `json:"caseId"`
	Status       submission.State   `json:"status"`
	AcceptedAt   string             `json:"acceptedAt"`
	UpdatedAt    string             `json:"updatedAt"`
	Service      submission.Service `json:"service"`
	Region       submission.Region  `json:"region"`
	SHA512       string             `json:"sha512"`
	Test         bool               `json:"test"`
	Authority    *authority         `json:"authority,omitempty"`
}

type eventView struct {
	Type      string           `json:"type"`
	At        string           `json:"at"`
	Status    submission.State `json:"status"`
	Authority *authority       `json:"authority,omitempty"`
}

type eventsView struct {
	SubmissionID uuid.UUID   `json:"submissionId"`
	Events       []eventView `json:"events"`
}

func stamp(t time.Time) string { return t.UTC().Format(intake.TimeLayout) }

// stateForPortal: a dead letter is no refusal; to the portal it is still being
// processed.
func stateForPortal(s submission.State) submission.State {
	if s == submission.Dead {
		return submission.InFlight
	}
	return s
}

func authorityOf(d *submission.Decision) *authority {
	if d == nil {
		return nil
	}
	return &authority{d.Authority.Key, d.Authority.Name}
}

func (h *Door) get(x *exchange) {
	release, a := x.account()
	if a == nil {
		return
	}
	defer release()
	x.json(http.StatusOK, "application/json", statusView{
		SubmissionID: a.ID, CaseID: a.CaseID, Status: stateForPortal(a.State), AcceptedAt: stamp(a.AcceptedAt), UpdatedAt: stamp(a.UpdatedAt),
		Service: a.Service, Region: a.Region, SHA512: a.SHA512, Test: a.Test, Authority: authorityOf(a.Decision),
	})
}

func (h *Door) events(x *exchange) {
	release, a := x.account()
	if a == nil {
		return
	}
	defer release()
	evs, err := h.status.Events(x.r.Context(), a.ID)
	if err != nil {
		x.problem(unavailable(err), true)
		return
	}
	x.json(http.StatusOK, "application/json", eventsView{a.ID, portalEvents(a, evs)})
}

// account authenticates, finds the submission of the path and sees that it is
// the portal's own. Where it returns nil it has answered.
func (x *exchange) account() (release func(), a *submission.Account) {
	if !x.authenticate() {
		return nil, nil
	}
	release, ok := x.slot(x.h.reads)
	if !ok {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), statusTimeout)
	defer cancel()
	a, p := x.h.find(ctx, x.portal, x.r.PathValue("submissionId"))
	if p != nil {
		release()
		x.problem(p, true)
		return nil, nil
	}
	x.meta.ID, x.meta.Land, x.meta.Service = a.ID, a.Land, a.Service
	return release, a
}

// find answers another portal's submission exactly as one that does not exist,
// the wait for the projection included.
func (h *Door) find(ctx context.Context, portal, path string) (*submission.Account, *intake.Problem) {
	id, err := uuid.Parse(path)
	if err != nil || len(path) != 36 {
		return nil, intake.NewProblem(fault.ReasonNotFound)
	}
	for waited := false; ; waited = true {
		a, ok, err := h.status.Get(ctx, id)
		if err != nil {
			return nil, unavailable(err)
		}
		if ok && a.Known() && a.Portal == portal {
			return a, nil
		}
		if waited {
			return nil, intake.NewProblem(fault.ReasonNotFound)
		}
		// It may have been accepted on another replica a moment ago.
		if err := h.status.WaitAsked(ctx); err != nil {
			return nil, unavailable(err)
		}
	}
}

// unavailable is a state that cannot be told at the moment.
func unavailable(err error) *intake.Problem {
	p := intake.StateUnavailable()
	p.Err = err
	return p
}

// portalEvents folds the account once more and tells of it what concerns a
// portal: no attempts, no dead letters, no destinations.
func portalEvents(a *submission.Account, evs []submission.Event) []eventView {
	var fold submission.Account
	fold.Accept(submission.Meta{
		ID: a.ID, CaseID: a.CaseID, Portal: a.Portal, Land: a.Land, Service: a.Service, Region: a.Region,
		AcceptedAt: a.AcceptedAt, SHA512: a.SHA512, Append: a.Append, Test: a.Test,
	})
	out := []eventView{{Type: "accepted", At: stamp(a.AcceptedAt), Status: submission.InFlight}}
	for _, e := range evs {
		if !fold.Apply(e) {
			continue
		}
		v := eventView{At: stamp(e.At), Status: stateForPortal(fold.State)}
		switch e.Type {
		case submission.EventDecided:
			v.Type, v.Authority = "decided", authorityOf(e.Decision)
		case submission.EventUnassigned:
			v.Type = "unassigned"
		case submission.EventWaiting, submission.EventAttempt:
			v.Type = "waiting"
		case submission.EventHandedOver:
			v.Type = "handed-over"
		case submission.EventDelivered:
			v.Type = "delivered"
		case submission.EventRejected, submission.EventClosed:
			v.Type = "rejected"
		default:
			continue
		}
		if last := out[len(out)-1]; v.Type == "waiting" && last.Type == v.Type && last.Status == v.Status {
			continue
		}
		out = append(out, v)
	}
	return out
}
