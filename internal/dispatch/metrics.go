package dispatch

import (
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/fault"
)

type metrics struct {
	decided    *prometheus.CounterVec
	unassigned *prometheus.CounterVec
	dead       *prometheus.CounterVec
	repeats    prometheus.Counter
	seconds    prometheus.Histogram
	mapping    prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		decided: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weiche_dispatch_decided_total",
			Help: "Submissions sent on their way to a destination."}, []string{"land", "service"}),
		unassigned: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weiche_dispatch_unassigned_total",
			Help: "Submissions held for an operator to assign."}, []string{"land", "service", "reason"}),
		dead: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weiche_dispatch_dead_total",
			Help: "Submissions that could not be mapped or validated."}, []string{"land", "service", "reason"}),
		repeats: prometheus.NewCounter(prometheus.CounterOpts{Name: "weiche_dispatch_repeats_total",
			Help: "Submission records dropped because their submission was dispatched before."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "weiche_dispatch_record_seconds",
			Help: "From taking a record to its last append.", Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 11)}),
		mapping: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "weiche_dispatch_mapping_seconds",
			Help: "Mapping and validation of one message.", Buckets: prometheus.ExponentialBuckets(0.00005, 3, 11)}),
	}
	reg.MustRegister(m.decided, m.unassigned, m.dead, m.repeats, m.seconds, m.mapping)
	return m
}

// Zero makes the series of a Land's service exist from the start.
func (s *Stage) Zero(land, service string) {
	s.metrics.decided.WithLabelValues(land, service)
	s.metrics.unassigned.WithLabelValues(land, service, string(fault.ReasonNoAuthority))
	s.metrics.dead.WithLabelValues(land, service, string(fault.ReasonSchemaInvalid))
}
