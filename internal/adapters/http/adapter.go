package http

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/trip"
	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
	"weiche/internal/oauth"
	"weiche/internal/submission"
)

// A body larger than expectAbove bytes waits a second for the receiver's word, so
// that a refusal comes before a gigabyte and not instead of an answer.
const expectAbove = 1 << 20

func newAdapter(_ string, v spec.Values, deps spec.Deps) (spec.Adapter, error) {
	cert, key := deps.SecretPath(v.Text("cert_file")), deps.SecretPath(v.Text("key_file"))
	connect := func(address, ca string) *trip.Connector {
		return &trip.Connector{
			CAFile: deps.SecretPath(ca), CertFile: cert, KeyFile: key,
			Dialer: dial.Dialer{Allowed: dial.Allowed(v), OnlyAllowed: plain(address), Timeout: v.Duration("connect_timeout")},
			Idle:   v.Number("idle_connections"), IdleTime: v.Duration("idle_timeout"),
		}
	}
	a := &Adapter{
		url: v.Text("url"), secrets: NewSecrets(deps.SecretPath(v.Text("secret_file"))), clock: deps.Clock,
		connector: connect(v.Text("url"), v.Text("ca_file")), tokens: noToken{},
	}
	switch {
	case v.Text("token_file") != "":
		a.tokens = tokenFile(deps.SecretPath(v.Text("token_file")))
	case v.Text("token_url") != "":
		c := connect(v.Text("token_url"), v.Text("token_ca_file"))
		c.Idle = 0 // a token lasts longer than a connection is kept
		e := oauth.Endpoint{URL: v.Text("token_url"), ClientID: v.Text("client_id"), Scopes: strings.Fields(v.Text("scope")), Now: deps.Clock}
		a.tokens = oauth.NewGrant(endpoint(e, v.Text("client_auth"), deps.SecretPath(v.Text("client_secret_file")), c))
	}
	return a, nil
}

// plain says that an address is spoken to without TLS.
func plain(address string) bool { return strings.HasPrefix(strings.ToLower(address), "http:") }

// Adapter posts to one address. It is safe for concurrent use.
type Adapter struct {
	url       string
	secrets   *Secrets
	tokens    tokens
	connector *trip.Connector
	clock     func() time.Time
	unasked   atomic.Bool // the receiver takes no Expect
}

// Close closes idle connections.
func (a *Adapter) Close() error {
	a.connector.Close()
	return nil
}

// Deliver implements spec.Adapter.
func (a *Adapter) Deliver(ctx context.Context, d *submission.Delivery) error {
	if f := a.deliver(ctx, d); f != nil {
		return f
	}
	return nil
}

func (a *Adapter) deliver(ctx context.Context, d *submission.Delivery) *fault.Error {
	if ctx.Err() != nil {
		return fault.Of(ctx.Err())
	}
	via, f := a.connector.Transport()
	if f != nil {
		return f
	}
	m, f := a.sign(ctx, d)
	if f != nil {
		return f
	}
	token, f := a.tokens.Token(ctx, "")
	if f != nil {
		return f
	}
	resp, f := a.exchange(ctx, via, m, token)
	if f == nil && resp.Status == http.StatusUnauthorized && token != "" {
		// It may have been revoked before its time: another one, once.
		other, tf := a.tokens.Token(ctx, token)
		switch {
		case tf != nil:
			return tf
		case other != token:
			resp, f = a.exchange(ctx, via, m, other)
		}
	}
	if f != nil {
		return f
	}
	if resp.Status == http.StatusExpectationFailed {
		a.unasked.Store(true)
	}
	return resp.Judge()
}

// message is what is posted, as often as it takes: signed once, its body the same
// bytes at every writing.
type message struct {
	d      *submission.Delivery
	body   *wire.Body
	length int64
	header http.Header
}

func (a *Adapter) sign(ctx context.Context, d *submission.Delivery) (*message, *fault.Error) {
	keys, err := a.secrets.signers()
	if err != nil {
		return nil, trip.Misconfigured(err, err.Error())
	}
	timestamp := strconv.FormatInt(a.clock().Unix(), 10)
	body, signed := wire.NewBody(d, "form-data"), newSignatures(keys, d.ID, timestamp)
	var length wire.Counter
	if err := body.WriteTo(ctx, io.MultiWriter(&length, signed)); err != nil {
		return nil, trip.Classify(ctx, err)
	}
	h := http.Header{}
	h.Set("Content-Type", body.ContentType())
	h.Set("User-Agent", "weiche")
	h.Set(HeaderID, d.ID)
	h.Set(HeaderTimestamp, timestamp)
	h.Set(HeaderSignature, signed.header())
	h.Set("Weiche-Attempt", strconv.Itoa(d.Attempt))
	for name, value := range wire.Facts(d) {
		h.Set(headerOf[name], value)
	}
	if d.Traceparent != "" {
		h.Set("Traceparent", d.Traceparent)
	}
	if length.N > expectAbove && !a.unasked.Load() {
		h.Set("Expect", "100-continue")
	}
	return &message{d: d, body: body, length: length.N, header: h}, nil
}

var headerOf = map[string]string{
	"submissionid": "Weiche-Submission-Id", "caseid": "Weiche-Case-Id", "format": "Weiche-Format", "service": "Weiche-Service",
	"land": "Weiche-Land", "portal": "Weiche-Portal", "authoritykey": "Weiche-Authority-Key", "test": "Weiche-Test",
}

// exchange is post, and once again where a kept connection broke: a receiver may
// close one at any time, and that costs no attempt. The repeat has the same id.
func (a *Adapter) exchange(ctx context.Context, via *http.Transport, m *message, token string) (trip.Answer, *fault.Error) {
	resp, kept, f := a.post(ctx, via, m, token)
	if f != nil && kept && f.Reason == fault.ReasonInterrupted {
		via.CloseIdleConnections() // the others are as old
		resp, _, f = a.post(ctx, via, m, token)
	}
	return resp, f
}

// post sends the message once and takes the answer; kept says that the connection
// was not a new one. The request ends with the call: its writer must not outlive
// the readers it holds.
func (a *Adapter) post(ctx context.Context, via *http.Transport, m *message, token string) (resp trip.Answer, kept bool, f *fault.Error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := trip.Whole(m.d.Message)
	if len(m.d.Attachments) > 0 {
		out = trip.NewStream(ctx, m.body.WriteTo)
	}
	defer func() { _ = out.Stop() }()
	var reused atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused.Store(i.Reused) }})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, a.url, out)
	if err != nil {
		return trip.Answer{}, false, trip.Misconfigured(err, "no request can be made for this address")
	}
	req.ContentLength, req.Header = m.length, m.header.Clone()
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	got, err := via.RoundTrip(req)
	if err != nil {
		// The source's trouble shows as a broken transfer; it is not one.
		if src := out.Stop(); src != nil && ctx.Err() == nil {
			return trip.Answer{}, false, src.Fault()
		}
		return trip.Answer{}, reused.Load(), trip.Classify(ctx, err)
	}
	defer func() {
		trip.Drain(got.Body)
		_ = got.Body.Close()
	}()
	return trip.Answered(got, a.clock()), reused.Load(), nil
}
