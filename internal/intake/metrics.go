package intake

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

type metrics struct {
	submissions *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	accept      prometheus.Histogram
	inFlight    prometheus.Gauge
	repeats     prometheus.Counter
	claims      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		submissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weiche_intake_submissions_total", Help: "Submissions accepted, repeats not counted.",
		}, []string{"land", "service"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weiche_intake_refusals_total", Help: "Requests and records refused, by reason.",
		}, []string{"reason"}),
		accept: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weiche_intake_accept_seconds", Help: "Time from the submission's first byte in hand to its durable append.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120},
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weiche_intake_requests_in_flight", Help: "Submissions being received or checked.",
		}),
		repeats: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weiche_intake_repeats_total", Help: "Submissions that were posted again and answered with the first receipt.",
		}),
		claims: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weiche_intake_claims", Help: "Claims held in memory.",
		}),
	}
	for _, r := range Reasons() {
		m.refusals.WithLabelValues(string(r))
	}
	reg.MustRegister(m.submissions, m.refusals, m.accept, m.inFlight, m.repeats, m.claims)
	return m
}

// offered makes the series of a service exist at zero.
func (m *metrics) offered(l submission.Land, s submission.Service) {
	m.submissions.WithLabelValues(string(l), string(s))
}

func (m *metrics) refused(r fault.Reason) { m.refusals.WithLabelValues(string(r)).Inc() }

func (m *metrics) accepted(a Accepted, took time.Duration) {
	m.accept.Observe(took.Seconds())
	if a.Repeat {
		m.repeats.Inc()
		return
	}
	m.submissions.WithLabelValues(string(a.Land), string(a.Service)).Inc()
}
