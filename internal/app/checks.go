package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// checks are the figures of what the check of messages lets go.
type checks struct {
	warnings *prometheus.CounterVec
	missing  prometheus.Gauge
}

func newChecks(reg prometheus.Registerer) *checks {
	c := &checks{
		warnings: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weiche_dispatch_warnings_total",
			Help: "Messages that went with a warning of the check against their standard, by reason."}, []string{"land", "service", "reason"}),
		missing: prometheus.NewGauge(prometheus.GaugeOpts{Name: "weiche_dispatch_missing_code_lists",
			Help: "Code lists that the schemas of mapped standards name and that are not installed: their codes are not checked."}),
	}
	reg.MustRegister(c.warnings, c.missing)
	return c
}

func (c *checks) warned(m submission.Meta, r fault.Reason) {
	c.warnings.WithLabelValues(string(m.Land), string(m.Service), string(r)).Inc()
}

func (c *checks) zero(land submission.Land, s submission.Service) {
	c.warnings.WithLabelValues(string(land), string(s), string(fault.ReasonCodeListMissing))
}

func (c *checks) observe(lib *Library) {
	n := 0
	for _, std := range lib.mapped() {
		n += len(std.MissingLists())
	}
	c.missing.Set(float64(n))
}
