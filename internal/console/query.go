package console

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"weiche/internal/status"
	"weiche/internal/submission"
)

// Story is one submission with everything that happened to it.
type Story struct {
	*submission.Account
	Events []status.StoredEvent `json:"events"`
}

// Page is one page of a list; Next is the cursor for the parameter after, empty
// on the last page.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// page answers a list; no items are an empty list, not null.
func page[T any](items []T, next string, err error) (int, any, error) {
	if items == nil {
		items = []T{}
	}
	return http.StatusOK, Page[T]{items, next}, err
}

// find returns a submission's account where the operator may see it. An id that
// is not projected yet is waited for.
func (a *API) find(c *call) (*submission.Account, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	acct, err := a.Store.Get(c.Context(), id)
	if errors.Is(err, status.ErrNotFound) {
		if err := a.Projector.WaitAsked(c.Context()); err != nil {
			return nil, err
		}
		acct, err = a.Store.Get(c.Context(), id)
	}
	if err != nil {
		return nil, err
	}
	if !c.sees(acct.Land) {
		return nil, errNotFound
	}
	return acct, nil
}

func (a *API) submission(c *call) (int, any, error) {
	acct, err := a.find(c)
	if err != nil {
		return 0, nil, err
	}
	return a.story(c, acct.ID, http.StatusOK)
}

func (a *API) story(c *call, id uuid.UUID, code int) (int, any, error) {
	acct, err := a.Store.Get(c.Context(), id)
	if err != nil {
		return 0, nil, err
	}
	events, err := a.Store.Events(c.Context(), id)
	if err != nil {
		return 0, nil, err
	}
	if events == nil {
		events = []status.StoredEvent{}
	}
	return code, Story{acct, events}, nil
}

// filter reads a list's parameters.
func (c *call) filter(now time.Time) (status.Filter, error) {
	q := c.URL.Query()
	f := status.Filter{Lands: c.lands(), Portal: q.Get("portal"), Destination: q.Get("destination"), Reason: q.Get("reason"), After: q.Get("after")}
	var err error
	if v := q.Get("land"); v != "" && v != string(submission.LandNone) {
		if f.Land, err = submission.ParseLand(v); err != nil {
			return f, invalid("land is two digits from 01 to 16.")
		}
	} else {
		f.Land = submission.Land(v)
	}
	if v := q.Get("service"); v != "" {
		if f.Service, err = submission.ParseService(v); err != nil {
			return f, invalid("service is a LeiKa key of 14 digits.")
		}
	}
	if v := q.Get("state"); v != "" {
		f.State = submission.State(v)
		known := false
		for _, s := range submission.States() {
			known = known || s == f.State
		}
		if !known {
			return f, invalid("state is one of in-flight, unassigned, waiting, dead, delivered, rejected.")
		}
	}
	if v := q.Get("case"); v != "" {
		if f.CaseID, err = uuid.Parse(v); err != nil {
			return f, invalid("case is a UUID.")
		}
	}
	if v := q.Get("older"); v != "" {
		age, err := time.ParseDuration(v)
		if err != nil || age < 0 {
			return f, invalid("older is a duration such as 24h.")
		}
		f.Before = now.Add(-age)
	}
	if v := q.Get("limit"); v != "" {
		if f.Limit, err = strconv.Atoi(v); err != nil || f.Limit < 1 || f.Limit > status.MaxLimit {
			return f, invalid("limit is a number from 1 to " + strconv.Itoa(status.MaxLimit) + ".")
		}
	}
	return f, nil
}

func (a *API) submissions(c *call) (int, any, error) {
	f, err := c.filter(a.Now())
	if err != nil {
		return 0, nil, err
	}
	if ref := c.URL.Query().Get("sender_reference"); ref != "" {
		f.SenderHash = []string{}
		if a.SenderHashes != nil {
			f.SenderHash = append(f.SenderHash, a.SenderHashes(f.Portal, ref)...)
		}
	}
	return page(a.Store.Submissions(c.Context(), f))
}

func (a *API) deadLetters(c *call) (int, any, error) {
	f, err := c.filter(a.Now())
	if err != nil {
		return 0, nil, err
	}
	return page(a.Store.DeadLetters(c.Context(), f))
}

func (a *API) unassigned(c *call) (int, any, error) {
	f, err := c.filter(a.Now())
	if err != nil {
		return 0, nil, err
	}
	return page(a.Store.UnassignedList(c.Context(), f))
}

func (a *API) deadGroups(c *call) (int, any, error) { return a.groups(c, submission.Dead) }

func (a *API) unassignedGroups(c *call) (int, any, error) { return a.groups(c, submission.Unassigned) }

func (a *API) groups(c *call, state submission.State) (int, any, error) {
	f, err := c.filter(a.Now())
	if err != nil {
		return 0, nil, err
	}
	by := status.By(c.URL.Query().Get("by"))
	if !by.Known() {
		return 0, nil, invalid("by is one of cause, destination, service, land, age.")
	}
	return page(a.Store.Groups(c.Context(), state, by, f, a.Now()))
}

func (a *API) refusals(c *call) (int, any, error) {
	f, err := c.filter(a.Now())
	if err != nil {
		return 0, nil, err
	}
	return page(a.Store.Refusals(c.Context(), f))
}

// DestinationView is a destination with its deliveries' states.
type DestinationView struct {
	Destination
	States        map[submission.State]int `json:"states"`
	OldestWaiting time.Time                `json:"oldestWaiting,omitzero"`
}

func (a *API) destinations(c *call) (int, any, error) {
	counts, err := a.Store.Destinations(c.Context())
	if err != nil {
		return 0, nil, err
	}
	by := map[string]status.DestinationCount{}
	for _, n := range counts {
		by[n.Destination] = n
	}
	var out []DestinationView
	for _, d := range a.Destinations.Destinations() {
		if c.sees(d.Land) {
			v := DestinationView{Destination: d, States: map[submission.State]int{}, OldestWaiting: by[d.ID].OldestWaiting}
			for _, s := range submission.States() {
				if s != submission.Unassigned { // no delivery is
					v.States[s] = by[d.ID].States[s]
				}
			}
			out = append(out, v)
		}
	}
	return page(out, "", nil)
}

// Account is the account of states: what was accepted, and where it is.
type Account struct {
	Accepted    int                      `json:"accepted"`
	States      map[submission.State]int `json:"states"`
	AddsUp      bool                     `json:"addsUp"` // for every Land and service
	Services    []status.Count           `json:"services"`
	Abandoned   *int                     `json:"abandoned,omitempty"`   // claims without a submission, older than 15 minutes
	Undecodable *int                     `json:"undecodable,omitempty"` // records the projection passed
}

// abandonedAfter is how old a claim must be before it counts as abandoned.
const abandonedAfter = 15 * time.Minute

func (a *API) account(c *call) (int, any, error) {
	if err := a.Projector.WaitAsked(c.Context()); err != nil {
		return 0, nil, err
	}
	counts, err := a.Store.Counts(c.Context())
	if err != nil {
		return 0, nil, err
	}
	out := Account{AddsUp: true, States: map[submission.State]int{}, Services: []status.Count{}}
	for _, s := range submission.States() {
		out.States[s] = 0
	}
	for _, n := range counts {
		if !c.sees(n.Land) {
			continue
		}
		out.Services = append(out.Services, n)
		out.Accepted += n.Accepted
		out.AddsUp = out.AddsUp && n.AddsUp
		for s, v := range n.States {
			out.States[s] += v
		}
	}
	if c.lands() == nil { // neither knows its Land
		claims, err := a.Store.Abandoned(c.Context(), a.Now().Add(-abandonedAfter))
		if err != nil {
			return 0, nil, err
		}
		broken, err := a.Store.Undecodable(c.Context())
		if err != nil {
			return 0, nil, err
		}
		n := len(claims)
		out.Abandoned, out.Undecodable = &n, &broken
	}
	return http.StatusOK, out, nil
}

func (a *API) abandoned(c *call) (int, any, error) {
	age := abandonedAfter
	if v := c.URL.Query().Get("age"); v != "" {
		var err error
		if age, err = time.ParseDuration(v); err != nil || age < 0 {
			return 0, nil, invalid("age is a duration such as 15m.")
		}
	}
	claims, err := a.Store.Abandoned(c.Context(), a.Now().Add(-age))
	return page(claims, "", err)
}

func (a *API) checkpoints(c *call) (int, any, error) {
	found, err := a.Projector.VerifyCheckpoints(c.Context())
	return page(found, "", err)
}
