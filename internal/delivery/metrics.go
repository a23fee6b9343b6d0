package delivery

import (
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/fault"
)

type metrics struct {
	attempts  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	delivered *prometheus.CounterVec
	dead      *prometheus.CounterVec
	unwritten prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weiche_delivery_attempts_total",
			Help: "Attempts by destination and reason; reason ok is a delivery."}, []string{"destination", "adapter", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "weiche_delivery_attempt_seconds",
			Help: "Duration of attempts.", Buckets: prometheus.ExponentialBuckets(0.001, 3, 10)}, []string{"adapter"}),
		delivered: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weiche_delivery_delivered_total",
			Help: "Deliveries a destination has taken."}, []string{"destination", "adapter"}),
		dead: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weiche_delivery_dead_total",
			Help: "Deliveries that went to the dead letters."}, []string{"destination", "reason"}),
		unwritten: prometheus.NewCounter(prometheus.CounterOpts{Name: "weiche_delivery_unrecorded_total",
			Help: "Outcomes that could not be recorded and were not acknowledged."}),
	}
	reg.MustRegister(m.attempts, m.seconds, m.delivered, m.dead, m.unwritten)
	return m
}

// zero makes the series of a destination exist from the start.
func (m *metrics) zero(id, kind string) {
	m.attempts.WithLabelValues(id, kind, string(fault.ReasonDelivered))
	m.seconds.WithLabelValues(kind)
	m.delivered.WithLabelValues(id, kind)
	m.dead.WithLabelValues(id, string(fault.ReasonRefused))
}
