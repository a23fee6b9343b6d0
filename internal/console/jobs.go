package console

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"weiche/internal/jobs"
	"weiche/internal/submission"
)

// job finds a job the operator may see: every Land it touches has to be theirs.
func (a *API) job(c *call) (*jobs.View, error) {
	id, err := uuid.Parse(c.PathValue("id"))
	if err != nil {
		return nil, invalid("A job's id is a UUID.")
	}
	if a.Jobs == nil {
		return nil, errNotFound
	}
	v, err := a.Jobs.Get(c.Context(), id)
	if errors.Is(err, jobs.ErrNotFound) || err == nil && !c.seesJob(v) {
		return nil, errNotFound
	}
	return v, err
}

func (c *call) seesJob(v *jobs.View) bool {
	if len(v.Lands) == 0 {
		return len(c.operator.Lands) == 0 || v.Operator == c.operator.Name
	}
	return !slices.ContainsFunc(v.Lands, func(l submission.Land) bool { return !c.sees(l) })
}

func (a *API) jobList(c *call) (int, any, error) {
	if a.Jobs == nil {
		return page([]*jobs.View{}, "", nil)
	}
	all, err := a.Jobs.List(c.Context())
	all = slices.DeleteFunc(all, func(v *jobs.View) bool { return !c.seesJob(v) })
	return page(all[:min(len(all), maxJobs)], "", err)
}

// maxJobs bounds a list of jobs: the newest.
const maxJobs = 100

func (a *API) jobShow(c *call) (int, any, error) {
	v, err := a.job(c)
	return http.StatusOK, v, err
}

func (a *API) jobReport(c *call) (int, any, error) {
	v, err := a.job(c)
	if err != nil {
		return 0, nil, err
	}
	r, err := a.Jobs.Report(c.Context(), v.ID)
	return http.StatusOK, r, err
}

// JobRequest asks for a preview.
type JobRequest struct {
	Kind   jobs.Kind `json:"kind"`
	Reason string    `json:"reason,omitempty"` // of a close
	// Authority is whom a reroute goes to; its filter names one Land.
	Authority string    `json:"authority,omitempty"`
	Filter    JobFilter `json:"filter"`
}

// JobFilter is a filter as an operator writes it.
type JobFilter struct {
	State       submission.State `json:"state,omitempty"` // dead where it is missing
	Land        string           `json:"land,omitempty"`
	Service     string           `json:"service,omitempty"`
	Portal      string           `json:"portal,omitempty"`
	Destination string           `json:"destination,omitempty"`
	Reason      string           `json:"reason,omitempty"`
	Older       string           `json:"older,omitempty"` // a duration
}

func (f JobFilter) parse(c *call, now time.Time) (out jobs.Filter, err error) {
	out = jobs.Filter{State: f.State, Lands: c.lands(), Portal: f.Portal, Destination: f.Destination, Reason: f.Reason}
	switch out.State {
	case "":
		out.State = submission.Dead
	case submission.Dead, submission.Unassigned:
	default:
		return out, invalid("state is dead or unassigned.")
	}
	if f.Land == string(submission.LandNone) {
		out.Land = submission.LandNone
	} else if f.Land != "" {
		if out.Land, err = submission.ParseLand(f.Land); err != nil {
			return out, invalid("land is two digits from 01 to 16.")
		}
	}
	if f.Service != "" {
		if out.Service, err = submission.ParseService(f.Service); err != nil {
			return out, invalid("service is a LeiKa key of 14 digits.")
		}
	}
	if f.Older != "" {
		age, err := time.ParseDuration(f.Older)
		if err != nil || age < 0 {
			return out, invalid("older is a duration such as 24h.")
		}
		out.Before = now.Add(-age).UTC()
	}
	return out, nil
}

func (a *API) jobPreview(c *call) (int, any, error) {
	var in JobRequest
	if err := c.body(&in); err != nil {
		return 0, nil, err
	}
	if !slices.Contains(jobs.Kinds(), in.Kind) {
		return 0, nil, invalid("kind is redrive, close, renew or reroute.")
	}
	reason, err := words("reason", in.Reason, in.Kind == jobs.Close)
	if err != nil {
		return 0, nil, err
	}
	f, err := in.Filter.parse(c, a.Now())
	if err != nil {
		return 0, nil, err
	}
	if a.Jobs == nil {
		return 0, nil, conflict("no-jobs", "This router has no jobs.")
	}
	authority, err := words("authority", in.Authority, in.Kind == jobs.Reroute)
	if err != nil {
		return 0, nil, err
	}
	if in.Kind == jobs.Reroute && f.Land == "" {
		return 0, nil, invalid("A reroute's filter names the Land of the authority.")
	}
	if in.Kind == jobs.Reroute && a.Authority != nil && !a.Authority(f.Land, authority) {
		return 0, nil, unknownAuthority(f.Land)
	}
	v, err := a.Jobs.Preview(c.Context(), in.Kind, f, jobs.Wish{Operator: c.operator.Name, Reason: reason, Authority: authority})
	if errors.Is(err, jobs.ErrTooMany) {
		return 0, nil, &Problem{Status: http.StatusUnprocessableEntity, Type: "too-many", Title: "The filter names too much", Detail: fmt.Sprintf("A job has at most %d items; narrow the filter.", jobs.MaxItems)}
	}
	return http.StatusCreated, v, err
}

func (a *API) jobRun(c *call) (int, any, error)    { return a.jobSay(c, jobs.Run) }
func (a *API) jobStop(c *call) (int, any, error)   { return a.jobSay(c, jobs.Stop) }
func (a *API) jobResume(c *call) (int, any, error) { return a.jobSay(c, jobs.Resume) }

func (a *API) jobSay(c *call, verb jobs.Verb) (int, any, error) {
	var in struct {
		Rate   float64 `json:"rate"`
		Force  bool    `json:"force"`
		Reason string  `json:"reason"`
	}
	if err := c.body(&in); err != nil {
		return 0, nil, err
	}
	if in.Rate < 0 || in.Rate > jobs.MaxRate {
		return 0, nil, invalid(fmt.Sprintf("rate is items a second, up to %d.", jobs.MaxRate))
	}
	reason, err := words("reason", in.Reason, false)
	if err != nil {
		return 0, nil, err
	}
	v, err := a.job(c)
	if err != nil {
		return 0, nil, err
	}
	now, err := a.Jobs.Say(c.Context(), v.ID, jobs.Word{Verb: verb, Operator: c.operator.Name, Reason: reason, Rate: in.Rate, Force: in.Force})
	if errors.Is(err, jobs.ErrState) {
		return 0, nil, &Problem{Status: http.StatusConflict, Type: "job-state", Title: "The job is not in a state for that", Detail: "It is " + strings.ToLower(string(now.State)) + "."}
	}
	return http.StatusOK, now, err
}
