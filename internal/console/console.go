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
	// Editor knows forms; nil: nothing is edited.
	Editor Editor
	// MaxForm is how many bytes the form of an edit may have: what intake takes.
	MaxForm int64
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

// route is one operation, for who has all its rights. every says that it is about
// no single Land, so that only an operator of all Länder may ask.
type route struct {
	method, path string
	rights       []config.Right
	every        bool
	do           func(*API, *call) (int, any, error)
}

var (
	view    = []config.Right{config.RightView}
	operate = []config.Right{config.RightOperate}
	reading = []config.Right{config.RightPayload}
	editing = []config.Right{config.RightOperate, config.RightPayload}
)

// editPath is the operation whose body is a form.
const editPath = "submissions/{id}/edit"

var routes = []route{
	{"GET", "submissions", view, false, (*API).submissions},
	{"GET", "submissions/{id}", view, false, (*API).submission},
	{"POST", "submissions/{id}/redrive", operate, false, (*API).redrive},
	{"POST", "submissions/{id}/close", operate, false, (*API).close},
	{"POST", "submissions/{id}/assign", operate, false, (*API).assign},
	{"GET", "submissions/{id}/payload", reading, false, (*API).payload},
	{"POST", editPath, editing, false, (*API).edit},
	{"GET", "submissions/{id}/edits/{edit}", reading, false, (*API).difference},
	{"POST", "submissions/{id}/edits/{edit}/approve", editing, false, (*API).approve},
	{"POST", "submissions/{id}/edits/{edit}/reject", operate, false, (*API).reject},
	{"GET", "proposals", view, false, (*API).proposals},
	{"GET", "dead-letters/groups", view, false, (*API).deadGroups},
	{"GET", "unassigned/groups", view, false, (*API).unassignedGroups},
	{"GET", "dead-letters", view, false, (*API).deadLetters},
	{"GET", "jobs", view, false, (*API).jobList},
	{"POST", "jobs", operate, false, (*API).jobPreview},
	{"GET", "jobs/{id}", view, false, (*API).jobShow},
	{"GET", "jobs/{id}/report", view, false, (*API).jobReport},
	{"POST", "jobs/{id}/run", operate, false, (*API).jobRun},
	{"POST", "jobs/{id}/stop", operate, false, (*API).jobStop},
	{"POST", "jobs/{id}/resume", operate, false, (*API).jobResume},
	{"GET", "unassigned", view, false, (*API).unassigned},
	{"GET", "refusals", view, false, (*API).refusals},
	{"GET", "destinations", view, false, (*API).destinations},
	{"POST", "destinations/{id}/pause", operate, false, (*API).pause},
	{"POST", "destinations/{id}/resume", operate, false, (*API).resume},
	{"GET", "account", view, false, (*API).account},
	{"GET", "reconciliation", view, false, (*API).reconcile},
	{"GET", "reconciliation/topics", view, true, (*API).recount},
	{"GET", "abandoned", view, true, (*API).abandoned},
	{"POST", "config/reload", operate, true, (*API).reload},
	{"GET", "status/checkpoints", view, true, (*API).checkpoints},
	{"POST", "status/rebuild", operate, true, (*API).rebuild},
}

// Route is one operation, for documentation and for tests that hold the two
// together.
type Route struct {
	Method, Path string
	Rights       []config.Right // all of them
	AllLands     bool           // only for operators of all Länder
}

// Routes returns every operation of the API.
func Routes() []Route {
	out := make([]Route, len(routes))
	for i, r := range routes {
		out[i] = Route{r.method, "/api/v1/" + r.path, r.rights, r.every}
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
		a.refuse(w, &Problem{Status: http.StatusUnauthorized, Type: "unauthenticated", Title: "The operator is not known", Detail: "Send the header Authorization: Bearer with an operator's token."})
		return
	}
	if right := to.missing(op); right != "" {
		detail := "The operator " + op.Name + " does not have the right " + string(right) + "."
		if to.every {
			detail = "This needs the right " + string(right) + " for all Länder."
		}
		a.Logger.Warn("operator refused", "operator", op.Name, "method", to.method, "path", to.path, "right", string(right))
		a.refuse(w, &Problem{Status: http.StatusForbidden, Type: "forbidden", Title: "The right is missing", Detail: detail})
		return
	}
	limit := int64(maxBody)
	if to.path == editPath {
		limit += a.MaxForm
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	code, body, err := to.do(a, &call{r, op})
	if err != nil {
		a.refuse(w, a.problem(err, to))
		return
	}
	answer(w, "application/json", code, body)
}

// missing is the first right that an operator lacks for it.
func (r route) missing(op config.Operator) config.Right {
	for _, right := range r.rights {
		if !slices.Contains(op.Rights, right) || r.every && len(op.Lands) > 0 {
			return right
		}
	}
	return ""
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
	// Errors are what is wrong with a form, each with its place. No value of the
	// form is in it.
	Errors []Fault `json:"errors,omitempty"`
}

// Fault is one thing that is wrong with a form.
type Fault struct {
	Pointer string `json:"pointer"` // RFC 6901, into the form
	Detail  string `json:"detail"`
}

// Error returns title and detail.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// problemBase begins the type URI of every problem.
const problemBase = "https://weiche.example/problems/"

var errNotFound = &Problem{Status: http.StatusNotFound, Type: "not-found", Title: "There is no such thing", Detail: "The id is not known, or it belongs to a Land that is not this operator's."}

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
	if errors.As(err, &f) && lasts(f) {
		return a.lasting(f, to)
	}
	if errors.As(err, &f) && f.Reason != fault.ReasonUnknown {
		a.Logger.Error("an operator's request failed", "method", to.method, "path", to.path, "reason", string(f.Reason), "detail", f.Detail)
		return &Problem{Status: http.StatusServiceUnavailable, Type: string(f.Reason), Title: "Not possible at the moment", Detail: "Try again in a moment. " + f.Detail}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &Problem{Status: http.StatusServiceUnavailable, Type: "timeout", Title: "No answer in time", Detail: "Try again in a moment."}
	}
	a.Logger.Error("an operator's request failed", "method", to.method, "path", to.path, "error", fault.Of(err).Error())
	return &Problem{Status: http.StatusInternalServerError, Type: "internal", Title: "The router failed", Detail: "The router's log says more."}
}

func invalid(detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Type: "malformed", Title: "The request is not understood", Detail: detail}
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
		a.refuse(w, &Problem{Status: http.StatusMethodNotAllowed, Type: "method-not-allowed", Title: "This method does nothing here", Detail: "Use " + strings.Join(allow, " or ") + "."})
		return
	}
	a.refuse(w, &Problem{Status: http.StatusNotFound, Type: "not-found", Title: "There is no such thing", Detail: "The operators' API has no such path."})
}

// body reads the request's JSON object; an empty body is an empty object.
func (c *call) body(into any) error {
	d := json.NewDecoder(c.Body)
	d.DisallowUnknownFields()
	switch err := d.Decode(into); {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, new(*http.MaxBytesError)):
		return &Problem{Status: http.StatusRequestEntityTooLarge, Type: "too-large", Title: "The request is too large", Detail: "It has more bytes than this operation takes."}
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
