// Package http posts each message to the Fachverfahren's address, signed by
// Standard Webhooks.
//
// A message without attachments is posted as application/xml, one with
// attachments as multipart/form-data. The body is written twice, first into the
// signature and then to the receiver, so that the signature covers all of it and
// nothing of an attachment is kept in memory. The webhook-id is the delivery id:
// the same at every repeat.
//
// What the answer's status means (the rule: who would have to change something
// for the next attempt to succeed?):
//
//	2xx                      delivered; the answer's body is not read
//	3xx                      destination: redirects are never followed (redirected)
//	401 403 407              destination: our credential is refused (unauthorized)
//	404 405 421 426          destination: the address is wrong for every message (misconfigured)
//	410                      destination: switched off (gone)
//	408                      retryable (timeout)
//	409 423 425 429          retryable: a state that passes; a 409 may be the
//	                         receiver still at work on the first try (unavailable)
//	other 4xx                permanent: this message is refused (refused)
//	5xx                      retryable (unavailable)
//	anything else            retryable (unknown)
//
// Retry-After is honoured on retryable answers, up to a day.
//
// The package follows no redirects, keeps no cookies, uses no proxy, speaks to
// no address that is not public unless the destination allows it by name (package
// dial), and repeats nothing of an
// answer but its status code.
package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

const (
	maxDrain      = 16 << 10 // bytes of an answer read so that the connection can be used again
	drainTime     = time.Second
	maxRetryAfter = 24 * time.Hour
)

// Kind describes the adapter.
func Kind() spec.Kind {
	return spec.Kind{
		Name:    "http",
		Summary: "Posts each message to an address of the Fachverfahren, signed by Standard Webhooks.",
		Doc: `Without attachments the body is the XML (` + "`application/xml`" + `). With attachments it is ` + "`multipart/form-data`" + `: the part
` + "`message`" + ` is the XML, each part ` + "`attachment`" + ` a file, with ` + "`Content-ID`" + ` (the attachment's id), ` + "`Content-Digest`" + `
(sha-512, RFC 9530) and ` + "`Weiche-Purpose`" + `. ` + "`Content-Length`" + ` is always given.

| header | value |
| --- | --- |
| ` + "`webhook-id`" + ` | the delivery id: the same at every repeat; drop repeats by it |
| ` + "`webhook-timestamp`, `webhook-signature`" + ` | [Standard Webhooks](https://www.standardwebhooks.com) over the whole body; while secrets are rotated, one signature for each |
| ` + "`Weiche-Submission-Id`, `Weiche-Case-Id`, `Weiche-Service`, `Weiche-Land`, `Weiche-Portal`, `Weiche-Format`, `Weiche-Authority-Key`" + ` | what they say; not signed, the message itself is what counts |
| ` + "`Weiche-Test`" + ` | ` + "`true`" + ` on test submissions, missing otherwise |
| ` + "`Weiche-Attempt`" + ` | number of the attempt, from 1; no part of the message's identity |
| ` + "`traceparent`" + ` | W3C Trace Context |

Answer 2xx once the message is stored for good, and answer 2xx to repeats. The answer's body is not read.

| answer | counts as |
| --- | --- |
| 2xx | delivered |
| 3xx | destination at fault (` + "`redirected`" + `): redirects are not followed |
| 401, 403, 407 | destination at fault (` + "`unauthorized`" + `) |
| 404, 405, 421, 426 | destination at fault (` + "`misconfigured`" + `): the address is wrong for every message |
| 410 | destination at fault (` + "`gone`" + `) |
| 408 | retry (` + "`timeout`" + `) |
| 409, 423, 425, 429 | retry (` + "`unavailable`" + `) |
| other 4xx | refused for good (` + "`refused`" + `) |
| 5xx | retry (` + "`unavailable`" + `) |
| no connection, no such host | destination at fault (` + "`unreachable`" + `) |
| certificate or TLS at fault | destination at fault (` + "`certificate`" + `) |
| no answer in time | retry (` + "`timeout`" + `) |
| the transfer broke off | retry (` + "`interrupted`" + `) |

` + "`Retry-After`" + ` is honoured on retries, up to a day.`,
		Fields: []spec.Field{
			{Name: "url", Type: spec.URL, Required: true, Example: "https://fachverfahren.example/xoev", Doc: "Where messages are posted."},
			{Name: "secret_file", Type: spec.Path, Required: true, Example: "bauamt.secret", Doc: "File with the signing secrets, one a line, `whsec_` and base64. Two lines while a secret is rotated. Read again when it changes. A relative path lies in the secrets directory."},
			{Name: "token_file", Type: spec.Path, Doc: "File with a bearer token to send, read again for every message."},
			{Name: "ca_file", Type: spec.Path, Doc: "PEM file with the authorities that may vouch for the receiver; the system's where empty."},
			{Name: "cert_file", Type: spec.Path, Doc: "Client certificate (PEM), with `key_file`; read again at every handshake."},
			{Name: "key_file", Type: spec.Path, Doc: "Private key of the client certificate (PEM)."},
			dial.Field(),
			{Name: "connect_timeout", Type: spec.Duration, Default: 10 * time.Second, Doc: "For connecting, and again for the TLS handshake. The whole attempt is bounded by the destination's policy."},
			{Name: "idle_connections", Type: spec.Number, Default: 8, Doc: "Connections kept open between messages."},
			{Name: "idle_timeout", Type: spec.Duration, Default: time.Minute, Doc: "A connection that was not used for this long is closed; best a little less than the receiver, or a firewall on the way, takes."},
		},
		Check: check,
		New:   newAdapter,
	}
}

func check(v spec.Values) []spec.Complaint {
	var out []spec.Complaint
	add := func(field, text string) { out = append(out, spec.Complaint{Field: field, Text: text}) }
	if (v.Text("cert_file") == "") != (v.Text("key_file") == "") {
		add("cert_file", "cert_file and key_file need each other")
	}
	u, err := url.Parse(v.Text("url"))
	if err == nil && u.Scheme == "http" {
		for _, f := range []string{"ca_file", "cert_file"} {
			if v.Text(f) != "" {
				add(f, "needs an address with https://")
			}
		}
		if dial.Allowed(v).None() {
			add("url", "plain http:// is taken only together with allow_networks, for addresses of one's own networks; the message would be read on its way")
		}
	}
	for _, f := range []string{"connect_timeout", "idle_timeout"} {
		if v.Duration(f) == 0 {
			add(f, "more than nothing is expected")
		}
	}
	return append(out, dial.Check(v)...)
}

func newAdapter(_ string, v spec.Values, deps spec.Deps) (spec.Adapter, error) {
	a := &Adapter{
		url: v.Text("url"), secrets: NewSecrets(deps.SecretPath(v.Text("secret_file"))), token: deps.SecretPath(v.Text("token_file")),
		caFile: deps.SecretPath(v.Text("ca_file")), clock: deps.Clock,
	}
	certFile, keyFile := deps.SecretPath(v.Text("cert_file")), deps.SecretPath(v.Text("key_file"))
	timeout := v.Duration("connect_timeout")
	dialer := dial.Dialer{Allowed: dial.Allowed(v), OnlyAllowed: strings.HasPrefix(strings.ToLower(a.url), "http:"), Timeout: timeout}
	a.transport = func(pool *x509.CertPool) *http.Transport {
		conf := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		if certFile != "" {
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				c, err := tls.LoadX509KeyPair(certFile, keyFile)
				if err != nil {
					return nil, errClientCertificate
				}
				return &c, nil
			}
		}
		return &http.Transport{
			Proxy:                  nil, // a proxy would resolve names out of our sight
			DialContext:            dialer.DialContext,
			TLSClientConfig:        conf,
			TLSHandshakeTimeout:    timeout,
			MaxIdleConns:           v.Number("idle_connections"),
			MaxIdleConnsPerHost:    max(1, v.Number("idle_connections")),
			DisableKeepAlives:      v.Number("idle_connections") == 0,
			IdleConnTimeout:        v.Duration("idle_timeout"),
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
		}
	}
	return a, nil
}

var (
	errClientCertificate = errors.New("client certificate cannot be loaded")
	errCAFile            = errors.New("ca_file cannot be used")
)

// Adapter posts to one address. It is safe for concurrent use.
type Adapter struct {
	url       string
	secrets   *Secrets
	token     string
	caFile    string
	clock     func() time.Time
	transport func(*x509.CertPool) *http.Transport

	mu     sync.Mutex
	trip   *http.Transport
	caInfo os.FileInfo // of the file trip was made with
}

// tripper returns the transport, made anew when the CA file has changed.
func (a *Adapter) tripper() (*http.Transport, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.caFile == "" {
		if a.trip == nil {
			a.trip = a.transport(nil)
		}
		return a.trip, nil
	}
	info, err := os.Stat(a.caFile)
	if err != nil {
		return nil, errCAFile
	}
	if a.trip != nil && os.SameFile(info, a.caInfo) && info.ModTime().Equal(a.caInfo.ModTime()) && info.Size() == a.caInfo.Size() {
		return a.trip, nil
	}
	pem, err := os.ReadFile(a.caFile)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		return nil, errCAFile
	}
	if a.trip != nil {
		a.trip.CloseIdleConnections()
	}
	a.trip, a.caInfo = a.transport(pool), info
	return a.trip, nil
}

// Close closes idle connections.
func (a *Adapter) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.trip != nil {
		a.trip.CloseIdleConnections()
	}
	return nil
}

// Deliver implements spec.Adapter.
func (a *Adapter) Deliver(ctx context.Context, d *submission.Delivery) error {
	if err := ctx.Err(); err != nil {
		return fault.Of(err)
	}
	keys, err := a.secrets.load()
	if err != nil {
		return fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "%s", err.Error())
	}
	trip, err := a.tripper()
	if err != nil {
		return fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "ca_file is missing or holds no certificate")
	}
	body := wire.NewBody(d, "form-data")
	timestamp := strconv.FormatInt(a.clock().Unix(), 10)
	var (
		length wire.Counter
		signed = newMACs(keys, d.ID, timestamp)
	)
	if err := body.WriteTo(ctx, io.MultiWriter(&length, signed)); err != nil {
		return classify(ctx, err)
	}

	// The request ends with this call: its writer must not outlive the readers
	// it holds.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := newStream(ctx, body)
	defer func() { _ = out.stop() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, out)
	if err != nil {
		return fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "no request can be made for this address")
	}
	req.ContentLength = length.N
	req.Header.Set("Content-Type", body.ContentType())
	req.Header.Set("User-Agent", "weiche")
	req.Header.Set(HeaderID, d.ID)
	req.Header.Set(HeaderTimestamp, timestamp)
	req.Header.Set(HeaderSignature, signed.header())
	req.Header.Set("Weiche-Attempt", strconv.Itoa(d.Attempt))
	for name, value := range wire.Facts(d) {
		req.Header.Set(headerOf[name], value)
	}
	if d.Traceparent != "" {
		req.Header.Set("Traceparent", d.Traceparent)
	}
	if a.token != "" {
		t, err := readToken(a.token)
		if err != nil {
			return fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "token_file is missing or does not hold one token")
		}
		req.Header.Set("Authorization", "Bearer "+t)
	}
	resp, err := trip.RoundTrip(req)
	if err != nil {
		// The source's trouble shows as a broken transfer; it is not one.
		if src := out.stop(); src != nil && ctx.Err() == nil {
			return src.Fault()
		}
		return classify(ctx, err)
	}
	defer func() {
		drain(resp.Body)
		_ = resp.Body.Close()
	}()
	return judge(resp, a.clock())
}

var headerOf = map[string]string{
	"submissionid": "Weiche-Submission-Id", "caseid": "Weiche-Case-Id", "format": "Weiche-Format", "service": "Weiche-Service",
	"land": "Weiche-Land", "portal": "Weiche-Portal", "authoritykey": "Weiche-Authority-Key", "test": "Weiche-Test",
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", errors.New("cannot be read")
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	t := strings.TrimSpace(string(b))
	if err != nil || t == "" || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("holds no token")
	}
	return t, nil
}

// stream is the body as a reader. The writer runs beside the transport and ends
// with stop.
type stream struct {
	r    *io.PipeReader
	done chan struct{}
	src  *wire.SourceError // valid when done is closed
}

func newStream(ctx context.Context, body *wire.Body) *stream {
	r, w := io.Pipe()
	s := &stream{r: r, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		err := body.WriteTo(ctx, w)
		s.src, _ = errors.AsType[*wire.SourceError](err)
		_ = w.CloseWithError(err)
	}()
	return s
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// Close implements io.Closer; the transport calls it.
func (s *stream) Close() error { return s.r.Close() }

// stop ends the writer, waits for it and returns what went wrong at the source.
func (s *stream) stop() *wire.SourceError {
	_ = s.r.Close()
	<-s.done
	return s.src
}

// drain reads a little of the answer, so that the connection can be used again,
// and not for long: the status has been seen, the rest is nobody's business.
func drain(body io.ReadCloser) {
	t := time.AfterFunc(drainTime, func() { _ = body.Close() })
	defer t.Stop()
	_, _ = io.CopyN(io.Discard, body, maxDrain)
}

func judge(resp *http.Response, now time.Time) error {
	code := resp.StatusCode
	class, reason, what := fault.Retryable, fault.ReasonUnknown, "answered"
	switch {
	case code >= 200 && code < 300:
		return nil
	case code >= 300 && code < 400:
		class, reason, what = fault.Destination, fault.ReasonRedirected, "redirects, which is not followed,"
	case code == 401 || code == 403 || code == 407:
		class, reason, what = fault.Destination, fault.ReasonUnauthorized, "refuses the router"
	case code == 404 || code == 405 || code == 421 || code == 426:
		class, reason, what = fault.Destination, fault.ReasonMisconfigured, "does not know this address or method"
	case code == 410:
		class, reason, what = fault.Destination, fault.ReasonGone, "is switched off"
	case code == 408:
		reason, what = fault.ReasonTimeout, "waited too long"
	case code == 409 || code == 423 || code == 425 || code == 429 || code >= 500 && code < 600:
		reason, what = fault.ReasonUnavailable, "cannot take it now"
	case code >= 400 && code < 500:
		class, reason, what = fault.Permanent, fault.ReasonRefused, "refuses the message"
	}
	f := fault.New(class, reason, "the receiver %s: status %d", what, code)
	if class == fault.Retryable {
		f.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	}
	return f
}

// retryAfter reads seconds or an HTTP date; 0 where there is nothing to honour.
func retryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		if n < 0 {
			return 0
		}
		return time.Duration(min(n, int64(maxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// classify says who is at fault for an exchange without an answer.
func classify(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Of(ctx.Err())
	}
	if src, ok := errors.AsType[*wire.SourceError](err); ok {
		return src.Fault()
	}
	destination := func(r fault.Reason, text string) error { return fault.Wrap(err, fault.Destination, r, "%s", text) }
	if errors.Is(err, errClientCertificate) {
		return destination(fault.ReasonMisconfigured, "cert_file and key_file cannot be loaded")
	}
	if f := dial.Fault(err); f != nil {
		return f
	}
	if tlsFault(err) {
		return destination(fault.ReasonCertificate, "the TLS handshake failed: certificate, trust or version")
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return fault.Wrap(err, fault.Retryable, fault.ReasonTimeout, "no answer in time")
	}
	return fault.Wrap(err, fault.Retryable, fault.ReasonInterrupted, "the transfer broke off before an answer came")
}

func tlsFault(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	// What the other side's TLS says to us is an unexported type within OpError.
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "remote error" || op.Op == "local error") {
		return true
	}
	return false
}
