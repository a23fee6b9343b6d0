// Package httpdoor is the portals' door over HTTP: routes, media types, time and
// size limits, problem documents, and the portals' view of a submission's
// state. What a submission has to be is intake's to say.
//
// It refuses to show what is the operators' alone: a portal sees its own
// submissions only, and no dead letter, destination, attempt or reason. It logs
// routes, never paths, and no text of a foreign error.
package httpdoor

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/text/language"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/intake"
	"weiche/internal/submission"
)

const (
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	answerTimeout  = 30 * time.Second // to write an answer
	statusTimeout  = 15 * time.Second // for a state that is still being projected
)

// Status answers what became of submissions. Get and Events return ok false
// where the id is not known.
type Status interface {
	Get(ctx context.Context, id uuid.UUID) (account *submission.Account, ok bool, err error)
	Events(ctx context.Context, id uuid.UUID) ([]submission.Event, error)
	// WaitAsked waits until everything is projected that was in the log when it
	// was asked.
	WaitAsked(ctx context.Context) error
}

// Door serves the public paths. It is safe for concurrent use.
type Door struct {
	door   *intake.Door
	status Status
	log    *slog.Logger
	now    func() time.Time
	limits config.Limits
	auth   atomic.Pointer[intake.Authenticator]
	posts  chan struct{} // slots
	reads  chan struct{}
	mux    *http.ServeMux
	routes map[string]map[string]func(*exchange)
}

// New makes a handler. Use exchanges the authenticator.
func New(door *intake.Door, auth *intake.Authenticator, status Status, log *slog.Logger, now func() time.Time) *Door {
	if now == nil {
		now = time.Now
	}
	h := &Door{
		door: door, status: status, log: log, now: now, limits: door.Limits(), mux: http.NewServeMux(),
		posts: make(chan struct{}, max(1, door.Limits().Concurrent)),
		reads: make(chan struct{}, max(1, door.Limits().Concurrent)),
	}
	h.Use(auth)
	h.routes = map[string]map[string]func(*exchange){
		"/v1/submissions":                       {http.MethodPost: h.post},
		"/v1/submissions/{submissionId}":        {http.MethodGet: h.get},
		"/v1/submissions/{submissionId}/events": {http.MethodGet: h.events},
		"/openapi.json":                         {http.MethodGet: h.openapi},
		"/.well-known/jwks.json":                {http.MethodGet: h.jwks},
	}
	for path, methods := range h.routes {
		h.mux.HandleFunc(path, h.serve(path, methods))
	}
	h.mux.HandleFunc("/", h.serve("other", nil))
	return h
}

// Use makes an authenticator the one in force.
func (h *Door) Use(auth *intake.Authenticator) { h.auth.Store(auth) }

// Routes returns the paths and methods that are served, as "GET /path".
func (h *Door) Routes() []string {
	var out []string
	for path, methods := range h.routes {
		for m := range methods {
			out = append(out, m+" "+path)
		}
	}
	sort.Strings(out)
	return out
}

// ServeHTTP serves one request.
func (h *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Server returns a server for h with time limits that slow clients cannot wait
// out. The caller sets TLS and listens.
func Server(h *Door) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: h.limits.ReadTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		// No ReadTimeout and no WriteTimeout: they would bound the largest upload
		// like the smallest request. The handler sets a deadline for each piece.
	}
}

// exchange is one request and its answer.
type exchange struct {
	h        *Door
	w        http.ResponseWriter
	r        *http.Request
	rc       *http.ResponseController
	lang     intake.Language
	end      time.Time // of the request as a whole
	portal   string
	status   int
	reason   fault.Reason
	cause    string
	answered bool

	// for the log
	meta submission.Meta
}

func (h *Door) serve(route string, methods map[string]func(*exchange)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := h.now()
		x := &exchange{h: h, w: w, rc: http.NewResponseController(w), lang: languageOf(r), end: time.Now().Add(h.limits.RequestTimeout)}
		ctx, cancel := context.WithDeadline(r.Context(), x.end)
		defer cancel()
		x.r = r.WithContext(ctx)
		x.r.Body = &pacedBody{ReadCloser: r.Body, rc: x.rc, pause: h.limits.ReadTimeout, end: x.end}
		_ = x.rc.SetReadDeadline(sooner(time.Now().Add(h.limits.ReadTimeout), x.end)) // a test's recorder has no deadlines
		defer func() {
			if v := recover(); v != nil {
				// Its text may quote what was posted, so it is not logged.
				h.log.Error("a request failed inside the router", "route", route, "reason", string(fault.ReasonUnknown))
				if x.answered {
					panic(http.ErrAbortHandler)
				}
				x.problem(intake.NewProblem(fault.ReasonUnknown), true)
			}
			h.logged(x, route, h.now().Sub(start))
		}()
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		switch serve, ok := methods[method]; {
		case ok:
			serve(x)
		case methods == nil:
			x.problem(intake.NewProblem(fault.ReasonNotFound), true)
		default:
			p := intake.NewProblem(fault.ReasonMethodNotAllowed)
			var allow []string
			for m := range methods {
				allow = append(allow, m)
			}
			sort.Strings(allow)
			p.Allow = strings.Join(allow, ", ")
			x.problem(p, true)
		}
	}
}

func (h *Door) logged(x *exchange, route string, took time.Duration) {
	attrs := []any{"route", route, "status", x.status, "duration_ms", took.Milliseconds()}
	if x.portal != "" {
		attrs = append(attrs, "portal", x.portal)
	}
	if x.reason != "" {
		attrs = append(attrs, "reason", string(x.reason))
	}
	if x.cause != "" {
		attrs = append(attrs, "cause", x.cause)
	}
	if x.meta.ID != uuid.Nil {
		attrs = append(attrs, "submission", x.meta.ID.String())
	}
	if x.meta.Land != "" {
		attrs = append(attrs, "land", string(x.meta.Land), "service", string(x.meta.Service))
	}
	h.log.Info("request", attrs...)
}

// authenticate answers the request where nobody is behind it.
func (x *exchange) authenticate() bool {
	portal, err := x.h.auth.Load().Authenticate(x.r.Context(), x.r.Header.Get("Authorization"))
	if err != nil {
		x.problem(intake.ProblemOf(err), true)
		return false
	}
	if _, ok := x.h.door.Portal(portal); !ok {
		x.problem(intake.NewProblem(fault.ReasonUnauthenticated), true)
		return false
	}
	x.portal = portal
	return true
}

// slot takes one of the slots, or answers that there is none.
func (x *exchange) slot(slots chan struct{}) (release func(), ok bool) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, true
	default:
		x.problem(intake.NewProblem(fault.ReasonOverloaded), true)
		return nil, false
	}
}

// problem answers with a problem document. count says that nobody has counted
// the refusal yet.
func (x *exchange) problem(p *intake.Problem, count bool) {
	if count {
		x.h.door.Refused(p.Reason)
	}
	x.reason, x.cause = p.Reason, p.Cause()
	hd := x.w.Header()
	hd.Set("Content-Language", x.lang.Tag())
	hd.Add("Vary", "Accept-Language")
	if p.RetryAfter > 0 {
		hd.Set("Retry-After", strconv.Itoa(max(1, int(p.RetryAfter.Round(time.Second).Seconds()))))
	}
	if p.Allow != "" {
		hd.Set("Allow", p.Allow)
	}
	switch p.Reason {
	case fault.ReasonTokenMissing:
		hd.Set("WWW-Authenticate", `Bearer realm="weiche"`)
	case fault.ReasonTokenExpired, fault.ReasonUnauthenticated:
		hd.Set("WWW-Authenticate", `Bearer realm="weiche", error="invalid_token"`)
	case fault.ReasonTooSlow:
		hd.Set("Connection", "close")
	}
	x.json(p.Status(), "application/problem+json", p.Document(x.lang))
}

func (x *exchange) json(status int, mediaType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own types come here
	}
	x.bytes(status, mediaType, append(b, '\n'))
}

func (x *exchange) bytes(status int, mediaType string, b []byte) {
	x.status, x.answered = status, true
	hd := x.w.Header()
	hd.Set("Content-Type", mediaType)
	hd.Set("X-Content-Type-Options", "nosniff")
	if hd.Get("Cache-Control") == "" {
		hd.Set("Cache-Control", "no-store")
	}
	hd.Set("Content-Length", strconv.Itoa(len(b)))
	_ = x.rc.SetWriteDeadline(time.Now().Add(answerTimeout)) // a test's recorder has no deadlines
	x.w.WriteHeader(status)
	_, _ = x.w.Write(b) // the client is gone; it will repeat
}

func (h *Door) openapi(x *exchange) {
	x.w.Header().Set("Cache-Control", "public, max-age=300")
	x.bytes(http.StatusOK, "application/json", intake.OpenAPI())
}

func (h *Door) jwks(x *exchange) {
	x.w.Header().Set("Cache-Control", "public, max-age=300")
	x.bytes(http.StatusOK, "application/jwk-set+json", h.door.JWKS())
}

var languages = language.NewMatcher([]language.Tag{language.English, language.German})

func languageOf(r *http.Request) intake.Language {
	header := r.Header.Get("Accept-Language")
	if header == "" || len(header) > 500 {
		return intake.English
	}
	tags, _, err := language.ParseAcceptLanguage(header)
	if err != nil {
		return intake.English
	}
	if _, i, _ := languages.Match(tags...); i == 1 {
		return intake.German
	}
	return intake.English
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
