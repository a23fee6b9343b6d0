package trip

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
)

const (
	maxDrain      = 16 << 10 // bytes of an answer read so that the connection can be used again
	drainTime     = time.Second
	maxRetryAfter = 24 * time.Hour
)

// Drain reads a little of the answer, so that the connection can be used again,
// and not for long: the status has been seen, the rest is nobody's business.
func Drain(body io.ReadCloser) {
	t := time.AfterFunc(drainTime, func() { _ = body.Close() })
	defer t.Stop()
	_, _ = io.CopyN(io.Discard, body, maxDrain)
}

// Answer is all that is taken of a receiver's answer.
type Answer struct {
	Status     int
	RetryAfter time.Duration
}

// Answered takes an answer's head.
func Answered(resp *http.Response, now time.Time) Answer {
	// The receiver's clock counts from the receiver's own now.
	if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		now = t
	}
	return Answer{resp.StatusCode, retryAfter(resp.Header.Get("Retry-After"), now)}
}

// Judge says what an answer's status means, by the rule: who would have to change
// something for the next attempt to succeed? Nil is a 2xx.
func (a Answer) Judge() *fault.Error {
	code := a.Status
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
	case code == 417:
		reason, what = fault.ReasonUnavailable, "takes no Expect; the next attempt comes without"
	case code >= 400 && code < 500:
		class, reason, what = fault.Permanent, fault.ReasonRefused, "refuses the message"
	}
	f := fault.New(class, reason, "the receiver %s: status %d", what, code)
	if class == fault.Retryable {
		f.RetryAfter = a.RetryAfter
	}
	return f
}

// retryAfter reads seconds or an HTTP date; 0 where there is nothing to honour.
func retryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(max(n, 0), int64(maxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// Classify says who is at fault for an exchange without an answer.
func Classify(ctx context.Context, err error) *fault.Error {
	if ctx.Err() != nil {
		return fault.Of(ctx.Err())
	}
	if src, ok := errors.AsType[*wire.SourceError](err); ok {
		return src.Fault()
	}
	if f := dial.Fault(err); f != nil {
		return f
	}
	if dial.TLSFault(err) {
		return fault.Wrap(err, fault.Destination, fault.ReasonCertificate, "the TLS handshake failed: certificate, trust or version")
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return fault.Wrap(err, fault.Retryable, fault.ReasonTimeout, "no answer in time")
	}
	return fault.Wrap(err, fault.Retryable, fault.ReasonInterrupted, "the transfer broke off before an answer came")
}
