// Package receiver is a reference Fachverfahren: it takes what the http adapter
// posts, as an integrator's own would have to.
//
// It checks the Standard Webhooks signature before it believes anything, checks
// the XML, stores message and attachments, and answers 2xx only once both and
// the note of the webhook-id are fsynced; a repeat of an id is answered 2xx and
// dropped, over restarts too. For trying out it can be told to answer with
// errors, slowly, or not at all.
//
// It is no product for production: it keeps what it got in plain text for
// whoever may read the directory, forgets no id, and processes nothing. It
// prints ids, formats and sizes, never what a message says.
package receiver

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	webhook "weiche/internal/adapters/http"
	"weiche/internal/fault"
	"weiche/internal/submission"
	"weiche/internal/transform/standard"
)

// Defaults of Options.
const (
	DefaultMaxBody   = 2 << 30 // bytes
	DefaultTolerance = 5 * time.Minute
)

const stopTime = 5 * time.Second

// Options say how to receive.
type Options struct {
	Listen     string // host:port; port 0 chooses a free one
	Dir        string // made where it is missing
	SecretFile string // signing secrets or public keys, one a line; made with one secret where it is missing
	// Standards check messages whose Weiche-Format is installed; nil checks only
	// that the XML is well-formed and harmless.
	Standards *standard.Installed
	// Answers says what is answered, see ParseAnswers. Zero: 204 always.
	Answers Answers
	Delay   time.Duration // between storing and answering
	Hang    bool          // take the request and never answer; nothing is stored
	Once    bool          // end after the first new message was answered
	// MaxBody bounds a request in bytes, Tolerance the age of its timestamp; zero
	// means the defaults.
	MaxBody   int64
	Tolerance time.Duration
	Clock     func() time.Time  // nil: time.Now
	Ready     func(addr string) // called once with the bound address
	Out       io.Writer         // a line for the address and for each message; nil discards
}

// Run receives until ctx ends, which is no error.
func Run(ctx context.Context, o Options) error {
	if o.MaxBody == 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.Tolerance == 0 {
		o.Tolerance = DefaultTolerance
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Dir == "" || o.SecretFile == "" {
		return errors.New("a directory and a secret file are needed")
	}
	if err := makeSecret(o.SecretFile); err != nil {
		return fmt.Errorf("secret file: %w", err)
	}
	box, err := openStore(o.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = box.close() }()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &handler{Options: o, ctx: ctx, stop: cancel, box: box, secrets: webhook.NewSecrets(o.SecretFile)}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	h.say("listening on http://%s", l.Addr())
	if o.Ready != nil {
		o.Ready(l.Addr().String())
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	end, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancelEnd()
	if srv.Shutdown(end) != nil {
		_ = srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// makeSecret makes the file with a fresh secret where it is missing.
func makeSecret(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, webhook.NewSharedSecret())
	return errors.Join(err, f.Sync(), f.Close())
}

type handler struct {
	Options
	ctx     context.Context // ends when the receiver does
	stop    func()
	box     *store
	secrets *webhook.Secrets

	mu sync.Mutex // of Out and Answers
}

func (h *handler) say(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := bufio.NewWriter(h.Out) // one Write for a line
	_, _ = fmt.Fprintf(w, format+"\n", args...)
	_ = w.Flush()
}

// An id becomes a file name.
var safeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// refusal is an answer without storing.
type refusal struct {
	status int
	text   string // for the line that is printed
}

func (r refusal) Error() string { return r.text }

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(webhook.HeaderID)
	if !safeID.MatchString(id) {
		id = "-"
	}
	status, line, isNew := h.answer(r, id)
	if status == 0 { // ended while hanging or waiting
		panic(http.ErrAbortHandler)
	}
	h.say("%s", line)
	w.WriteHeader(status)
	if h.Once && isNew {
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		h.stop()
	}
}

func (h *handler) answer(r *http.Request, id string) (status int, line string, isNew bool) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, "refused " + id + " status=405 reason=method", false
	}
	m, err := h.read(r, id)
	if m != nil {
		defer m.remove()
	}
	if err == nil {
		if h.Hang {
			h.say("hanging %s", id)
			h.wait(r, -1)
			return 0, "", false
		}
		h.mu.Lock()
		status = h.Answers.next()
		h.mu.Unlock()
		if status >= 300 {
			h.wait(r, h.Delay)
			return status, fmt.Sprintf("told-to-refuse %s status=%d", id, status), false
		}
		isNew, err = h.box.keep(m)
	}
	if err != nil {
		ref, ok := errors.AsType[refusal](err)
		if !ok {
			// Ours: disk full and the like. The sender shall come again.
			ref = refusal{http.StatusServiceUnavailable, "storage"}
		}
		return ref.status, fmt.Sprintf("refused %s status=%d reason=%s", id, ref.status, ref.text), false
	}
	if !h.wait(r, h.Delay) {
		return 0, "", isNew
	}
	word := "duplicate"
	if isNew {
		word = "new"
	}
	return status, fmt.Sprintf("%s %s status=%d format=%s attachments=%d bytes=%d checked=%s", word, id, status, cmp.Or(m.format.String(), "-"), m.attachments, m.size, m.checked), isNew
}

// wait waits (d < 0: for ever) until the sender or the receiver goes; false when
// one of them went.
func (h *handler) wait(r *http.Request, d time.Duration) bool {
	if d == 0 {
		return true
	}
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-after:
		return true
	case <-r.Context().Done():
	case <-h.ctx.Done():
	}
	return false
}

// read spools the body beside its signature and takes it apart once the
// signature is proven. The message is not nil where there is something to remove.
func (h *handler) read(r *http.Request, id string) (*message, error) {
	if id == "-" {
		return nil, refusal{http.StatusBadRequest, "webhook-id"}
	}
	if r.ContentLength > h.MaxBody {
		return nil, refusal{http.StatusRequestEntityTooLarge, "too-large"}
	}
	proof, err := h.secrets.Verify(r.Header, h.Clock(), h.Tolerance)
	switch {
	case errors.Is(err, webhook.ErrNoHeaders), errors.Is(err, webhook.ErrTimestamp):
		return nil, refusal{http.StatusUnauthorized, "signature"}
	case err != nil:
		return nil, refusal{http.StatusServiceUnavailable, "secret-file"}
	}
	m, err := h.box.begin(id)
	if err != nil {
		return nil, err
	}
	if err := m.spool(r.Body, proof, h.MaxBody); err != nil {
		return m, err
	}
	if err := proof.Check(); err != nil {
		return m, refusal{http.StatusUnauthorized, "signature"}
	}
	if err := m.unpack(r.Header.Get("Content-Type")); err != nil {
		return m, err
	}
	m.format, _ = submission.ParseFormat(r.Header.Get("Weiche-Format"))
	return m, h.check(m)
}

// check looks at XML: harmless, well-formed, and valid where its standard is
// installed. Rows and pages are for a person to look at.
func (h *handler) check(m *message) error {
	if m.format.BuiltIn() {
		m.checked = "unchecked"
		return nil
	}
	m.checked = "well-formed"
	err := precheck(m.content)
	if h.Standards != nil && err == nil && m.format != (submission.Format{}) {
		std, ok := h.Standards.Get(m.format.Standard, m.format.Version)
		if !ok {
			m.checked = "standard-missing"
		} else if err = check(std, m.content, m.format.Message); err == nil {
			m.checked = "valid"
		}
	}
	if err != nil {
		return refusal{http.StatusUnprocessableEntity, fault.Of(err).Error()} // its detail quotes no value
	}
	return nil
}

// check looks at a message as a Fachverfahren would: with all rules of its
// standard.
func check(std *standard.Standard, xml []byte, message string) error {
	findings, err := std.Check(xml, standard.About{Message: message})
	if err != nil {
		return err
	}
	return findings.Err(std.Key())
}
