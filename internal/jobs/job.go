package jobs

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"weiche/internal/status"
	"weiche/internal/submission"
)

// Kind is what a job does to its items.
type Kind string

// The kinds of jobs.
const (
	Redrive Kind = "redrive"
	Close   Kind = "close"
	Anew    Kind = "renew"   // decided and mapped anew, one revision higher
	Reroute Kind = "reroute" // the same, for an authority that the operator names
)

// Kinds returns every kind.
func Kinds() []Kind { return []Kind{Redrive, Close, Anew, Reroute} }

// anew says whether items are submissions that get a higher revision.
func (k Kind) anew() bool { return k == Anew || k == Reroute }

// ForceFrom is the redrive of one thing that an operator must force: what died
// twice again after being redriven wants mending, not another try.
const ForceFrom = 3

// Limits of a job.
const (
	MaxItems    = 100_000 // more is narrowed by the filter
	MaxRate     = 10_000  // items a second
	DefaultRate = 100
)

// Filter says which letters a job is about. Empty fields match everything.
type Filter struct {
	State       submission.State   `json:"state"` // dead or unassigned
	Lands       []submission.Land  `json:"lands,omitempty"`
	Land        submission.Land    `json:"land,omitempty"`
	Service     submission.Service `json:"service,omitempty"`
	Portal      string             `json:"portal,omitempty"`
	Destination string             `json:"destination,omitempty"`
	Reason      string             `json:"reason,omitempty"`
	Before      time.Time          `json:"before,omitzero"` // in this state since before
}

func (f Filter) query() status.Filter {
	return status.Filter{Lands: f.Lands, Land: f.Land, Service: f.Service, Portal: f.Portal, Destination: f.Destination, Reason: f.Reason, Before: f.Before}
}

// Item is one thing a job is about, as it was when it was previewed: a dead
// delivery, or with a nil Delivery a submission that dispatch holds.
type Item struct {
	Submission uuid.UUID `json:"s"`
	Delivery   uuid.UUID `json:"d,omitzero"`
	Redrives   int       `json:"n,omitempty"`
	Revision   int       `json:"r"`
}

// often says whether redriving it once more must be forced.
func (i Item) often() bool { return i.Redrives+1 >= ForceFrom }

// Job is what a preview fixed.
type Job struct {
	ID     uuid.UUID `json:"id"`
	Kind   Kind      `json:"kind"`
	Filter Filter    `json:"filter"`
	Reason string    `json:"reason,omitempty"` // of a close
	// Authority is whom a reroute goes to.
	Authority string            `json:"authority,omitempty"`
	Operator  string            `json:"operator"`
	At        time.Time         `json:"at"`
	Items     int               `json:"items"`
	Often     int               `json:"often"` // items that were redriven twice already; left out without force
	Lands     []submission.Land `json:"lands"` // of the items
	Groups    []Group           `json:"groups"`
	// Ungrouped is how many items belong to groups beyond the first.
	Ungrouped int `json:"ungrouped,omitempty"`
}

// Group is what several items have in common, and what would become of them now.
type Group struct {
	Origin      submission.Stage   `json:"origin"`
	Land        submission.Land    `json:"land"`
	Service     submission.Service `json:"service"`
	Destination string             `json:"destination,omitempty"`
	Reason      string             `json:"reason"`
	Count       int                `json:"count"`
	// Tried is how many of them the forecast was made from: all, or a sample
	// spread evenly over them.
	Tried    int        `json:"tried"`
	Forecast []Forecast `json:"forecast,omitempty"`
}

// What would become of an item.
const (
	WillTry       = "attempt"    // the same bytes go to the same destination again
	WillWait      = "wait"       // that destination is paused, or no longer configured
	WillElsewhere = "elsewhere"  // the same bytes go where they went; today's rules name another destination
	WillDecide    = "decide"     // decided and mapped anew, without a fault
	WillDie       = "dead"       // dies again
	WillHold      = "unassigned" // held for an operator
	WillNothing   = "unreadable" // the held record cannot be read
	WillStay      = "alive"      // another delivery of the submission is not dead; it is left as it is
	WillClose     = "close"
)

// Forecast is what would become of so many of a group's items. Reason is a
// fault's reason where there is one, To the destinations.
type Forecast struct {
	What   string `json:"what"`
	Reason string `json:"reason,omitempty"`
	To     string `json:"to,omitempty"`
	Count  int    `json:"count"`
}

// Verb is what an operator says to a job.
type Verb string

// What can be said.
const (
	Run    Verb = "run"
	Stop   Verb = "stop"
	Resume Verb = "resume"
)

// Word is one thing that was said to a job. The router itself says stop, too.
type Word struct {
	Verb     Verb      `json:"verb"`
	Operator string    `json:"operator"`
	At       time.Time `json:"at"`
	Reason   string    `json:"reason,omitempty"`
	Rate     float64   `json:"rate,omitempty"` // items a second, of run and resume
	Force    bool      `json:"force,omitempty"`
}

// Router is who stops a job that makes things no better.
const Router = "router"

// State is where a job stands.
type State string

// The states of a job.
const (
	Previewed State = "previewed"
	Queued    State = "queued" // behind another job
	Running   State = "running"
	Stopped   State = "stopped"
	Done      State = "done"
)

// States returns every state.
func States() []State { return []State{Previewed, Queued, Running, Stopped, Done} }

// Progress counts what has been done of a job.
type Progress struct {
	Done     int            `json:"done"`     // items that were come to
	Ordered  int            `json:"ordered"`  // redriven, or closed
	Left     int            `json:"left"`     // items that were left as they are; Failures says why
	Outcomes map[string]int `json:"outcomes"` // of what was ordered: states right after it, or pending
}

func (p *Progress) add(o Progress) {
	p.Done, p.Ordered, p.Left = p.Done+o.Done, p.Ordered+o.Ordered, p.Left+o.Left
	if p.Outcomes == nil {
		p.Outcomes = map[string]int{}
	}
	for k, n := range o.Outcomes {
		p.Outcomes[k] += n
	}
}

// Failure is an item that was left as it is.
type Failure struct {
	Submission uuid.UUID `json:"submission"`
	Delivery   uuid.UUID `json:"delivery,omitzero"`
	Reason     string    `json:"reason"`
}

// Why an item is left as it is.
const (
	LeftChanged    = "changed"    // it is no longer what was previewed
	LeftOften      = "often"      // redriven twice already, and not forced
	LeftGone       = "gone"       // the held record is not there
	LeftUnreadable = "unreadable" // the held record cannot be read
	LeftTooLarge   = "too-large"  // the order does not fit into a record
	LeftAlive      = "alive"      // another delivery of the submission is not dead
	LeftUnknown    = "unknown"    // the account does not know it
)

// View is a job with what has been said and done.
type View struct {
	Job
	State    State    `json:"state"`
	Words    []Word   `json:"words"`
	Progress Progress `json:"progress"`
}

// last returns what was said last; the zero Word before anything was.
func (v *View) last() Word {
	if len(v.Words) == 0 {
		return Word{}
	}
	return v.Words[len(v.Words)-1]
}

// began is when it was first told to run.
func (v *View) began() time.Time {
	if i := slices.IndexFunc(v.Words, func(w Word) bool { return w.Verb == Run }); i >= 0 {
		return v.Words[i].At
	}
	return time.Time{}
}

// force says whether any word forced it.
func (v *View) force() bool {
	return slices.ContainsFunc(v.Words, func(w Word) bool { return w.Force })
}

// rate is how many items a second it may do.
func (v *View) rate() float64 {
	for _, w := range slices.Backward(v.Words) {
		if w.Rate > 0 {
			return min(w.Rate, MaxRate)
		}
	}
	return DefaultRate
}
