package delivery

import (
	"context"
	"log/slog"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// attempt opens the payload, hands it over and gives the gate its slot back. It
// returns nil when the destination has taken the delivery. It writes one wide
// log line and records nothing.
func (l *lane) attempt(ctx context.Context, m submission.DeliveryMeta, value []byte, dest Destination, g *gate) *fault.Error {
	s := l.stage
	began := s.now()
	f := l.deliver(ctx, m, value, dest)
	if ctx.Err() != nil && f != nil {
		// We stopped; the destination is not to blame and nothing is counted.
		f = fault.Wrap(ctx.Err(), fault.Cancelled, fault.ReasonCancelled, "")
	}
	took := s.now().Sub(began)
	if changed := g.leave(s.now(), f); changed {
		if f != nil && f.Class == fault.Destination {
			s.metrics.paused.WithLabelValues(dest.ID).Set(1)
			s.logger.Warn("destination paused: it is at fault, its deliveries wait", "destination", dest.ID, "adapter", dest.Kind, "reason", f.Reason, "probe_every", dest.Policy.Probe.String())
		} else {
			s.metrics.paused.WithLabelValues(dest.ID).Set(0)
			s.logger.Info("destination answers again", "destination", dest.ID, "adapter", dest.Kind)
		}
	}
	if f != nil && f.Class == fault.Cancelled {
		return f
	}
	level, reason, class, detail := slog.LevelInfo, fault.ReasonDelivered, "", ""
	if f != nil {
		level, reason, class, detail = slog.LevelWarn, f.Reason, f.Class.String(), f.Detail
	}
	s.metrics.attempts.WithLabelValues(dest.ID, dest.Kind, string(reason)).Inc()
	s.metrics.seconds.WithLabelValues(dest.Kind).Observe(took.Seconds())
	s.logger.Log(ctx, level, "attempt",
		"submission", m.ID, "delivery", m.DeliveryID, "case", m.CaseID, "land", m.Land, "service", m.Service,
		"destination", dest.ID, "adapter", dest.Kind, "format", m.Format.String(), "attempt", m.Attempts+1, "redrive", m.Redrives,
		"reason", reason, "class", class, "detail", detail, "duration_ms", took.Milliseconds(), "traceparent", m.Traceparent)
	return f
}

func (l *lane) deliver(ctx context.Context, m submission.DeliveryMeta, value []byte, dest Destination) *fault.Error {
	d, err := l.stage.payload.Open(ctx, m, value)
	if err != nil {
		return fault.Of(err)
	}
	d.Attempt = m.Attempts + 1
	actx, cancel := context.WithTimeout(ctx, dest.Policy.Timeout)
	defer cancel()
	err = dest.Adapter.Deliver(actx, d)
	f := fault.Of(err)
	if f != nil && f.Class == fault.Cancelled && ctx.Err() == nil {
		// The attempt's own time ran out.
		return fault.Wrap(err, fault.Retryable, fault.ReasonTimeout, "no answer within %s", dest.Policy.Timeout)
	}
	return f
}
