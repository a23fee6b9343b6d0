package xta

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/trip"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

func newAdapter(_ string, v spec.Values, deps spec.Deps) (spec.Adapter, error) {
	return &Adapter{
		management: v.Text("management_url"), send: v.Text("send_url"), meta: newMetadata(v), clock: deps.Clock,
		interval: v.Duration("report_interval"), reportLimit: v.Duration("report_limit"), limit: v.Size("max_message"),
		connector: &trip.Connector{
			CAFile: deps.SecretPath(v.Text("ca_file")), CertFile: deps.SecretPath(v.Text("cert_file")), KeyFile: deps.SecretPath(v.Text("key_file")),
			Dialer: dial.Dialer{Allowed: dial.Allowed(v), Timeout: v.Duration("connect_timeout")},
			Idle:   v.Number("idle_connections"), IdleTime: v.Duration("idle_timeout"),
		},
	}, nil
}

// Adapter hands over to one XTA server. It is safe for concurrent use.
type Adapter struct {
	management, send string
	meta             metadata
	interval         time.Duration
	reportLimit      time.Duration // 0: none
	limit            int64
	connector        *trip.Connector
	clock            func() time.Time
}

// Close closes idle connections.
func (a *Adapter) Close() error {
	a.connector.Close()
	return nil
}

// Deliver implements spec.Adapter: it takes the next step, see the package's
// comment.
func (a *Adapter) Deliver(ctx context.Context, d *submission.Delivery) error {
	p, f := a.step(ctx, d)
	switch {
	case f != nil:
		return f
	case p != nil:
		return p
	}
	return nil
}

func (a *Adapter) step(ctx context.Context, d *submission.Delivery) (*submission.Pending, *fault.Error) {
	if ctx.Err() != nil {
		return nil, fault.Of(ctx.Err())
	}
	via, f := a.connector.Transport()
	if f != nil {
		return nil, f
	}
	if d.Token == "" {
		return a.begin(ctx, via, d)
	}
	t, f := parseToken(d.Token)
	if f != nil {
		return nil, f
	}
	status, f := a.ask(ctx, via, t.id)
	switch {
	case f == nil:
		return a.judge(status, t)
	case !isUnknown(f):
		return nil, f
	case t.has:
		// It is not sent again: the peer has said that it has it.
		return nil, fault.Wrap(f, fault.Retryable, fault.ReasonUnknown, "the XTA server has taken the message, and its report does not know it")
	}
	return a.hand(ctx, via, d, t)
}

// begin gets a message id. Where its answer is lost an id stays unused, which
// harms nobody.
func (a *Adapter) begin(ctx context.Context, via *http.Transport, d *submission.Delivery) (*submission.Pending, *fault.Error) {
	if n := size(d); n > a.limit {
		return nil, fault.New(fault.Permanent, fault.ReasonTooLarge, "the message has %d bytes, %d are allowed by max_message", n, a.limit)
	}
	if f := a.meta.check(d); f != nil {
		return nil, f
	}
	r, f := a.manage(ctx, via, createMessageID, nil)
	if f != nil {
		return nil, f
	}
	t := token{id: strings.TrimSpace(r.Body.MessageID)}
	if !usableID(t.id) {
		return nil, fault.New(fault.Retryable, fault.ReasonUnknown, "the XTA server gives no message id, or none that can be kept")
	}
	return &submission.Pending{Token: t.String()}, nil
}

// ask returns the status of the transport report.
func (a *Adapter) ask(ctx context.Context, via *http.Transport, id string) (string, *fault.Error) {
	r, f := a.manage(ctx, via, getTransportReport, []byte("<wsa:MessageID>"+text(id)+"</wsa:MessageID>"))
	if f != nil {
		return "", f
	}
	if r.Body.Report == nil || strings.TrimSpace(r.Body.Report.MetaData.Identification.MessageID) != id {
		return "", fault.New(fault.Retryable, fault.ReasonUnknown, "the XTA server answers without the report of this message")
	}
	return strings.TrimSpace(r.Body.Report.MessageStatus.Status), nil
}

// judge says what a report's status means (MessageStatusType of the WSDL: 0 open,
// 1 green, 2 yellow, with warnings, 3 red, with errors).
func (a *Adapter) judge(status string, t token) (*submission.Pending, *fault.Error) {
	switch status {
	case "0":
		return a.open(t)
	case "1", "2":
		return nil, nil
	case "3":
		return nil, fault.New(fault.Permanent, fault.ReasonRefused, "the transport report is closed with errors (red); the message did not arrive")
	}
	return nil, fault.New(fault.Retryable, fault.ReasonUnknown, "the transport report has a status that XTA 2.1.1 does not know")
}

// open waits on, but not for ever: a delivery that is handed over holds its case.
// What became of the message is then a person's to find out; it is not sent again.
func (a *Adapter) open(t token) (*submission.Pending, *fault.Error) {
	if t.has && !t.since.IsZero() && a.reportLimit > 0 && a.clock().Sub(t.since) >= a.reportLimit {
		return nil, fault.New(fault.Permanent, fault.ReasonNoReport, "the transport report is still open %s after the server took the message (report_limit); "+
			"whether it arrived is not known. A redrive asks the report again and sends nothing", a.reportLimit)
	}
	return a.wait(t), nil
}

// hand sends the message. Where its answer is lost the record says no more than
// before, so that the report is asked first.
func (a *Adapter) hand(ctx context.Context, via *http.Transport, d *submission.Delivery, t token) (*submission.Pending, *fault.Error) {
	id := newID()
	body := newPack(sendMessage, envelope(sendMessage, a.send, id, a.meta.header(d, t.id), container(d)), d)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := trip.NewStream(ctx, body.WriteTo)
	defer func() { _ = out.Stop() }()
	r, _, f := a.post(ctx, via, sendMessage, a.send, body, out)
	if src := out.Stop(); f != nil && src != nil && ctx.Err() == nil {
		return nil, src.Fault() // it shows as a broken transfer, and is none
	}
	if f == nil {
		f = r.answers(id)
	}
	if f == nil && len(r.Body.Others) > 0 {
		f = noAnswer()
	}
	if f != nil {
		return nil, f
	}
	return a.wait(t), nil
}

func (a *Adapter) wait(t token) *submission.Pending {
	if t.since.IsZero() {
		t.has, t.since = true, a.clock()
	}
	return &submission.Pending{Token: t.String(), After: a.interval}
}

// manage asks the management port, and once again where a kept connection broke,
// which the other side may close at any time: what is asked there changes nothing
// that a repeat would change again.
func (a *Adapter) manage(ctx context.Context, via *http.Transport, o operation, body []byte) (reply, *fault.Error) {
	r, kept, f := a.question(ctx, via, o, body)
	if f != nil && kept && f.Reason == fault.ReasonInterrupted {
		via.CloseIdleConnections() // the others are as old
		r, _, f = a.question(ctx, via, o, body)
	}
	return r, f
}

func (a *Adapter) question(ctx context.Context, via *http.Transport, o operation, body []byte) (reply, bool, *fault.Error) {
	id := newID()
	p := newPack(o, envelope(o, a.management, id, a.meta.authorHeader(), body), nil)
	r, kept, f := a.post(ctx, via, o, a.management, p, trip.NewStream(ctx, p.WriteTo))
	if f == nil {
		f = r.answers(id)
	}
	return r, kept, f
}

// post sends a request and reads its answer; kept says that the connection was not
// a new one. The body's writer ends with the call.
func (a *Adapter) post(ctx context.Context, via *http.Transport, o operation, url string, p *pack, out *trip.Stream) (r reply, kept bool, f *fault.Error) {
	defer func() { _ = out.Stop() }()
	var reused atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused.Store(i.Reused) }})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, url, out)
	if err != nil {
		return r, false, trip.Misconfigured(err, "no request can be made for this address")
	}
	req.ContentLength = p.length
	req.Header.Set("Content-Type", p.contentType)
	req.Header.Set("Accept", "multipart/related, application/soap+xml")
	req.Header.Set("User-Agent", "weiche")
	resp, err := via.RoundTrip(req)
	if err != nil {
		return r, reused.Load(), trip.Classify(ctx, err)
	}
	defer func() {
		trip.Drain(resp.Body)
		_ = resp.Body.Close()
	}()
	r, f = a.read(ctx, resp, o)
	return r, reused.Load(), f
}

// read makes a reply or a fault of an answer. SOAP 1.2 sends its faults with 400
// and 500 (part 2 section 7.5); every other status speaks for itself.
func (a *Adapter) read(ctx context.Context, resp *http.Response, o operation) (reply, *fault.Error) {
	status := trip.Answered(resp, a.clock())
	judged := status.Judge()
	if judged != nil && status.Status != http.StatusBadRequest && status.Status != http.StatusInternalServerError {
		return reply{}, o.blame(judged)
	}
	raw, err := unpack(resp)
	if err != nil && ctx.Err() != nil {
		return reply{}, fault.Of(ctx.Err())
	}
	r, ok := parse(raw)
	switch {
	case err == nil && ok && r.Body.Fault != nil:
		return r, r.Body.Fault.judge(o)
	case judged != nil:
		return reply{}, o.blame(judged)
	case err != nil || !ok:
		return reply{}, noAnswer()
	}
	return r, nil
}

// blame makes a permanent fault the destination's where nothing of a message was
// sent.
func (o operation) blame(f *fault.Error) *fault.Error {
	if f.Class == fault.Permanent && !o.message {
		return fault.Wrap(f, fault.Destination, fault.ReasonMisconfigured, "%s", f.Detail)
	}
	return f
}

// answers says whether the reply is one to the request of this id. A server that
// does not say is believed: the connection is its own.
func (r reply) answers(id string) *fault.Error {
	if to := strings.TrimSpace(r.Header.RelatesTo); to != "" && to != id {
		return noAnswer()
	}
	return nil
}

// noAnswer is an answer that says nothing: what became of the request is unknown.
func noAnswer() *fault.Error {
	return fault.New(fault.Retryable, fault.ReasonUnknown, "the XTA server answers with something that is no answer of XTA 2.1.1")
}

func newID() string { return "urn:uuid:" + uuid.NewString() }
