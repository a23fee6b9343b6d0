package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// outcome is what came of an attempt. The zero outcome: the destination has
// taken the delivery.
type outcome struct {
	fault   *fault.Error
	pending *submission.Pending
}

// attempt opens the payload, hands it over and gives the gate its slot back. It
// writes one wide log line and records nothing.
func (l *lane) attempt(ctx context.Context, m submission.DeliveryMeta, value []byte, dest Destination, g *gate) outcome {
	s := l.stage
	began := s.now()
	var pending *submission.Pending
	d, f := l.open(ctx, m, value)
	if f != nil {
		g.back() // the destination was not asked; it proved nothing
	} else {
		failpoint.Hit("delivery.attempting")
		pending, f = l.hand(ctx, d, dest)
		failpoint.Hit("delivery.handed")
	}
	took := s.now().Sub(began)
	if f != nil && ctx.Err() != nil {
		// We stopped; the destination is not to blame and nothing is counted.
		f = fault.Wrap(ctx.Err(), fault.Cancelled, fault.ReasonCancelled, "")
	}
	if d != nil {
		if g.leave(s.now(), f) {
			s.tellGate(dest, g)
		}
	}
	if f != nil && f.Class == fault.Cancelled {
		return outcome{fault: f}
	}
	level, reason, class, detail := slog.LevelInfo, fault.ReasonDelivered, "", ""
	if pending != nil {
		reason = fault.ReasonHandedOver
	}
	if f != nil {
		level, reason, class, detail = slog.LevelWarn, f.Reason, f.Class.String(), f.Detail
	}
	s.metrics.attempts.WithLabelValues(dest.ID, dest.Kind, string(reason)).Inc()
	s.metrics.seconds.WithLabelValues(dest.Kind).Observe(took.Seconds())
	s.logger.Log(ctx, level, "attempt",
		"submission", m.ID, "delivery", m.DeliveryID, "case", m.CaseID, "land", m.Land, "service", m.Service,
		"destination", dest.ID, "adapter", dest.Kind, "format", m.Format.String(), "attempt", m.Attempts+1, "redrive", m.Redrives,
		"reason", reason, "class", class, "detail", detail, "duration_ms", took.Milliseconds(), "traceparent", m.Traceparent)
	return outcome{f, pending}
}

// tellGate writes to the log that a destination's gate has closed or opened.
func (s *Stage) tellGate(dest Destination, g *gate) {
	st := g.state(s.now())
	log := s.logger.With("destination", dest.ID, "adapter", dest.Kind)
	switch {
	case !st.Paused:
		log.Info("destination answers again")
	case st.NextProbe.IsZero():
		log.Error("destination disabled: it said that it is gone for good; its deliveries wait until an operator resumes it", "reason", st.Reason)
	case st.Reason == fault.ReasonTooManyDead:
		log.Error("destination paused: it refuses most messages; the others wait", "reason", st.Reason, "last_fault", st.LastFault, "next_probe", st.NextProbe)
	default:
		log.Warn("destination paused: it is at fault, its deliveries wait", "reason", st.Reason, "next_probe", st.NextProbe)
	}
}

// open returns the plain delivery, or why there is none. A fault of our own is
// never the destination's.
func (l *lane) open(ctx context.Context, m submission.DeliveryMeta, value []byte) (d *submission.Delivery, f *fault.Error) {
	defer func() {
		if v := recover(); v != nil {
			d, f = nil, l.panicked(m, "", v)
		}
	}()
	d, err := l.stage.payload.Open(ctx, m, value)
	if f = fault.Of(err); f != nil {
		if f.Class == fault.Destination {
			f = fault.Wrap(f, fault.Retryable, f.Reason, "%s", f.Detail)
		}
		return nil, f
	}
	d.Attempt, d.Token = m.Attempts+1, m.Token
	return d, nil
}

// hand hands a delivery over, within the destination's time.
func (l *lane) hand(ctx context.Context, d *submission.Delivery, dest Destination) (pending *submission.Pending, f *fault.Error) {
	defer func() {
		if v := recover(); v != nil {
			f = l.panicked(submission.DeliveryMeta{Destination: dest.ID}, dest.Kind, v)
		}
	}()
	actx, cancel := context.WithTimeout(ctx, dest.Policy.Timeout)
	defer cancel()
	err := dest.Adapter.Deliver(actx, d)
	if errors.As(err, &pending) {
		return pending, nil
	}
	f = fault.Of(err)
	if f != nil && f.Class == fault.Cancelled && ctx.Err() == nil {
		// The attempt's own time ran out.
		return nil, fault.Wrap(err, fault.Retryable, fault.ReasonTimeout, "no answer within %s", dest.Policy.Timeout)
	}
	return nil, f
}

// panicked makes a fault of a panic: one message must not stop the others. The
// panic's value may quote payload, so only its type and the stack are logged.
func (l *lane) panicked(m submission.DeliveryMeta, kind string, v any) *fault.Error {
	l.stage.logger.Error("an attempt failed inside", "destination", m.Destination, "adapter", kind, "panic", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
	return fault.New(fault.Retryable, fault.ReasonUnknown, "the attempt failed inside; the log has the stack")
}
