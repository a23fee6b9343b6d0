// Package console is the operators' door: the HTTP API under /api/v1/ by which
// named people and tools see every submission and mend what got stuck.
//
// It writes no state. An operator's order is a record appended to the topic of
// the stage that owns the submission, so that the owner of the partition carries
// it out in line and remains the only writer; the console waits until the
// projection shows the effect. It logs no payload, and shows it only to who has
// the right, naming them in the log.
package console

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/jobs"
	"weiche/internal/status"
	"weiche/internal/submission"
)

// Log is what the console needs of the bus.
type Log interface {
	Fetch(ctx context.Context, topic string, partition int32, offset int64) (*bus.Record, error)
	Append(ctx context.Context, recs ...*bus.Record) error
}

// Destination is the present state of one destination, as delivery sees it.
type Destination struct {
	ID        string          `json:"id"`
	Land      submission.Land `json:"land"`
	Adapter   string          `json:"adapter"`
	Paused    bool            `json:"paused"`
	Since     time.Time       `json:"since,omitzero"`
	Reason    string          `json:"reason,omitempty"`    // why it is paused
	NextProbe time.Time       `json:"nextProbe,omitzero"`  // when the router tries it again
	PausedBy  string          `json:"pausedBy,omitempty"`  // the operator's name
	Note      string          `json:"note,omitempty"`      // the operator's words
	Until     time.Time       `json:"until,omitzero"`      // end of the operator's pause
	LastFault string          `json:"lastFault,omitempty"` // reason of the last failed attempt
	InFlight  int             `json:"inFlight"`
	Limit     int             `json:"inFlightLimit"`
}

// Destinations is what the console needs of delivery. Pause and Resume count for
// every replica, and return when they count in this one; their errors are faults
// of the bus.
type Destinations interface {
	Destinations() []Destination
	Pause(ctx context.Context, id, operator, note string, until time.Time) error
	Resume(ctx context.Context, id, operator string) error
}

// Options of an API. Functions are asked anew for each request, so that a
// reload takes effect.
type Options struct {
	Store        *status.Store
	Projector    *status.Projector
	Log          Log
	Destinations Destinations
	Operators    func() []config.Operator
	// SenderHashes returns the keyed hashes a sender's reference may have: of one
	// portal, or of all portals where portal is "".
	SenderHashes func(portal, reference string) []string
	// Authority says whether a Land's configuration names an authority; nil: the
	// dispatch stage says it.
	Authority func(land submission.Land, id string) bool
	Jobs      *jobs.Jobs // nil: there are none
	// Open opens what a held record carries: the submission, and the message where
	// one was made. Nil: no payload is shown.
	Open func(ctx context.Context, m submission.Meta, value []byte) (*submission.Envelope, []byte, error)
	// Reload reads the configuration again; its error lists what was refused. Nil:
	// the operation is refused.
	Reload func() error
	Logger *slog.Logger
	Now    func() time.Time
	// Wait bounds how long an answer waits for the effect of an order, default
	// 10 s.
	Wait time.Duration
}

// API answers operators. It is an http.Handler, safe for concurrent use.
type API struct {
	Options
	mux *http.ServeMux
}

// New returns the API.
func New(opts Options) *API {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Wait <= 0 {
		opts.Wait = 10 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	a := &API{Options: opts, mux: http.NewServeMux()}
	for _, r := range routes {
		a.mux.HandleFunc(r.method+" /api/v1/"+r.path, func(w http.ResponseWriter, req *http.Request) { a.serve(w, req, r) })
	}
	a.mux.HandleFunc("/", a.nothing)
	return a
}

// route is one operation. every says that it is about no single Land, so that
// only an operator of all Länder may ask.
type route struct {
	method, path string
	right        config.Right
	every        bool
	do           func(*API, *call) (int, any, error)
}

var routes = []route{
	{"GET", "submissions", config.RightView, false, (*API).submissions},
	{"GET", "submissions/{id}", config.RightView, false, (*API).submission},
	{"POST", "submissions/{id}/redrive", config.RightOperate, false, (*API).redrive},
	{"POST", "submissions/{id}/close", config.RightOperate, false, (*API).close},
	{"POST", "submissions/{id}/assign", config.RightOperate, false, (*API).assign},
	{"GET", "submissions/{id}/payload", config.RightPayload, false, (*API).payload},
	{"GET", "dead-letters/groups", config.RightView, false, (*API).deadGroups},
	{"GET", "unassigned/groups", config.RightView, false, (*API).unassignedGroups},
	{"GET", "dead-letters", config.RightView, false, (*API).deadLetters},
	{"GET", "jobs", config.RightView, false, (*API).jobList},
	{"POST", "jobs", config.RightOperate, false, (*API).jobPreview},
	{"GET", "jobs/{id}", config.RightView, false, (*API).jobShow},
	{"GET", "jobs/{id}/report", config.RightView, false, (*API).jobReport},
	{"POST", "jobs/{id}/run", config.RightOperate, false, (*API).jobRun},
	{"POST", "jobs/{id}/stop", config.RightOperate, false, (*API).jobStop},
	{"POST", "jobs/{id}/resume", config.RightOperate, false, (*API).jobResume},
	{"GET", "unassigned", config.RightView, false, (*API).unassigned},
	{"GET", "refusals", config.RightView, false, (*API).refusals},
	{"GET", "destinations", config.RightView, false, (*API).destinations},
	{"POST", "destinations/{id}/pause", config.RightOperate, false, (*API).pause},
	{"POST", "destinations/{id}/resume", config.RightOperate, false, (*API).resume},
	{"GET", "account", config.RightView, false, (*API).account},
	{"GET", "reconciliation", config.RightView, false, (*API).reconcile},
	{"GET", "reconciliation/topics", config.RightView, true, (*API).recount},
	{"GET", "abandoned", config.RightView, true, (*API).abandoned},
	{"POST", "config/reload", config.RightOperate, true, (*API).reload},
	{"GET", "status/checkpoints", config.RightView, true, (*API).checkpoints},
	{"POST", "status/rebuild", config.RightOperate, true, (*API).rebuild},
}

// Route is one operation, for documentation and for tests that hold the two
// together.
type Route struct {
	Method, Path string
	Right        config.Right
	AllLands     bool // only for operators of all Länder
}

// Routes returns every operation of the API.
func Routes() []Route {
	out := make([]Route, len(routes))
	for i, r := range routes {
		out[i] = Route{r.method, "/api/v1/" + r.path, r.right, r.every}
	}
	return out
}

// call is one request of a known operator.
type call struct {
	*http.Request
	operator config.Operator
}

// lands returns what the operator may see, nil for all.
func (c *call) lands() []submission.Land {
	if len(c.operator.Lands) == 0 {
		return nil
	}
	return c.operator.Lands
}

func (c *call) sees(land submission.Land) bool {
	return len(c.operator.Lands) == 0 || slices.Contains(c.operator.Lands, land)
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

const maxBody = 64 << 10

func (a *API) serve(w http.ResponseWriter, r *http.Request, to route) {
	op, ok := a.operator(r)
	if !ok {
		w.Header().Set("WWW-Authenticate", `Bearer realm="weiche operators"`)
		a.refuse(w, &Problem{http.StatusUnauthorized, "unauthenticated", "The operator is not known", "Send the header Authorization: Bearer with an operator's token."})
		return
	}
	if !slices.Contains(op.Rights, to.right) || to.every && len(op.Lands) > 0 {
		detail := "The operator " + op.Name + " does not have the right " + string(to.right) + "."
		if to.every {
			detail = "This needs the right " + string(to.right) + " for all Länder."
		}
		a.Logger.Warn("operator refused", "operator", op.Name, "method", to.method, "path", to.path, "right", string(to.right))
		a.refuse(w, &Problem{http.StatusForbidden, "forbidden", "The right is missing", detail})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	code, body, err := to.do(a, &call{r, op})
	if err != nil {
		a.refuse(w, a.problem(err, to))
		return
	}
	answer(w, "application/json", code, body)
}

// operator finds whose token it is. Every hash is compared, in the same time.
func (a *API) operator(r *http.Request) (config.Operator, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return config.Operator{}, false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	var found config.Operator
	matched := false
	for _, o := range a.Operators() {
		want, err := hex.DecodeString(o.TokenSHA256)
		if err != nil || len(want) != len(sum) {
			continue
		}
		if subtle.ConstantTimeCompare(want, sum[:]) == 1 {
			found, matched = o, true
		}
	}
	return found, matched
}

// Problem is a refusal, told as RFC 9457 says.
type Problem struct {
	Status int    `json:"status"`
	Type   string `json:"type"` // the last part of the type URI
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
}

// Error returns title and detail.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// problemBase begins the type URI of every problem.
const problemBase = "https://weiche.example/problems/"

var errNotFound = &Problem{http.StatusNotFound, "not-found", "There is no such thing", "The id is not known, or it belongs to a Land that is not this operator's."}

func (a *API) problem(err error, to route) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	if errors.Is(err, status.ErrNotFound) {
		return errNotFound
	}
	if errors.Is(err, status.ErrCursor) {
		return invalid("after: " + err.Error() + ".")
	}
	var f *fault.Error
	if errors.As(err, &f) && f.Reason != fault.ReasonUnknown {
		a.Logger.Error("an operator's request failed", "method", to.method, "path", to.path, "reason", string(f.Reason), "detail", f.Detail)
		return &Problem{http.StatusServiceUnavailable, string(f.Reason), "Not possible at the moment", "Try again in a moment. " + f.Detail}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &Problem{http.StatusServiceUnavailable, "timeout", "No answer in time", "Try again in a moment."}
	}
	a.Logger.Error("an operator's request failed", "method", to.method, "path", to.path, "error", fault.Of(err).Error())
	return &Problem{http.StatusInternalServerError, "internal", "The router failed", "The router's log says more."}
}

func invalid(detail string) *Problem {
	return &Problem{http.StatusBadRequest, "malformed", "The request is not understood", detail}
}

func (a *API) refuse(w http.ResponseWriter, p *Problem) {
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	out := *p
	out.Type = problemBase + p.Type
	answer(w, "application/problem+json", p.Status, out)
}

func answer(w http.ResponseWriter, contentType string, code int, body any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body)
	}
}

// nothing answers what no operation is for: 405 where another method is.
func (a *API) nothing(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := a.mux.Handler(other); pattern != "/" && m != r.Method {
			allow = append(allow, m)
		}
	}
	if len(allow) > 0 {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		a.refuse(w, &Problem{http.StatusMethodNotAllowed, "method-not-allowed", "This method does nothing here", "Use " + strings.Join(allow, " or ") + "."})
		return
	}
	a.refuse(w, &Problem{http.StatusNotFound, "not-found", "There is no such thing", "The operators' API has no such path."})
}

// body reads the request's JSON object; an empty body is an empty object.
func (c *call) body(into any) error {
	d := json.NewDecoder(c.Body)
	d.DisallowUnknownFields()
	switch err := d.Decode(into); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return invalid("The body is not the JSON object that this operation takes; see docs/reference/operators-api.md.")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return invalid("Something stands behind the JSON object.")
	}
	return nil
}

func (c *call) id() (uuid.UUID, error) {
	id, err := uuid.Parse(c.PathValue("id"))
	if err != nil {
		return id, invalid("A submission's id is a UUID.")
	}
	return id, nil
}

// words checks an operator's free text: it stands in events and headers.
func words(name, s string, required bool) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" && required {
		return "", invalid(name + " is missing.")
	}
	if utf8.RuneCountInString(s) > 200 || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return "", invalid(name + " has more than 200 characters or is not plain text in one line.")
	}
	return s, nil
}
