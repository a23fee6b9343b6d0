package intake

import (
	"slices"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Form is a service's form as intake needs it.
type Form interface {
	// Check returns every fault of the form data (decoded, numbers as
	// json.Number). Pointers are relative to the form; texts repeat no value.
	Check(form any) []Fault
	// Missing says that no message can be written for this service because its
	// standards are not installed.
	Missing() bool
}

// Forms finds the form of a service as a Land offers it. An offer names the
// entry of the process library, or none for the service's own.
type Forms interface {
	Form(offer config.Offer) (Form, bool)
	// Known says whether any entry of the library serves the service.
	Known(submission.Service) bool
}

// Book is the configuration in force. It is read-only; a reload gives the Door
// another one.
type Book struct {
	Config *config.Config
	Forms  Forms
}

// admit checks the rights of a portal and finds the form. What it has learned
// of the submission is in m, refused or not.
//
// Whether a Land is served at all is asked before whether the portal may send
// for it: both answers are public, and the first tells more.
func (b Book) admit(portal *config.Portal, e *submission.Envelope, m *submission.Meta) (Form, *Problem) {
	service, err := submission.ParseService(e.PublicService.Identifier)
	if err != nil {
		return nil, NewProblem(fault.ReasonEnvelopeInvalid).at("/publicService/identifier", textService)
	}
	region, err := submission.ParseRegion(e.Region)
	if err == nil {
		m.Region = region
	}
	if !b.Forms.Known(service) {
		return nil, NewProblem(fault.ReasonUnknownService).at("/publicService/identifier", textUnknown)
	}
	m.Service = service
	if !portal.Sends(service) {
		return nil, NewProblem(fault.ReasonServiceForbidden).at("/publicService/identifier", textServiceRight)
	}
	if err != nil {
		return nil, NewProblem(fault.ReasonMalformedRegion).at("/region", textRegion)
	}
	land, served := b.Config.Lands[region.Land()]
	_, broken := b.Config.Broken[region.Land()]
	if !served && !broken {
		return nil, NewProblem(fault.ReasonLandNotServed).at("/region", textNotServed)
	}
	if !slices.Contains(portal.Lands, region.Land()) {
		return nil, NewProblem(fault.ReasonLandForbidden).at("/region", textLandRight)
	}
	m.Land = region.Land() // what is kept of a later refusal is this Land's
	if !served {
		return nil, NewProblem(fault.ReasonConfigBroken)
	}
	offer, ok := land.Offer(service)
	if !ok {
		return nil, NewProblem(fault.ReasonServiceNotOffered).at("/publicService/identifier", textNotOffered)
	}
	form, ok := b.Forms.Form(offer)
	if !ok {
		return nil, NewProblem(fault.ReasonUnknownService).at("/publicService/identifier", textUnknown)
	}
	if form.Missing() {
		return nil, NewProblem(fault.ReasonStandardMissing)
	}
	return form, nil
}
