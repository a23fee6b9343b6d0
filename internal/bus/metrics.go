package bus

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	gometrics "github.com/rcrowley/go-metrics"
	"weiche/internal/fault"
)

func init() {
	// sarama meters every request into go-metrics, whose meters tick for ever
	// and whose histograms grow with topics and brokers. Ours are enough.
	gometrics.UseNilMetrics = true
}

type metrics struct {
	appendSeconds prometheus.Histogram
	appendErrors  *prometheus.CounterVec
	inFlight      *prometheus.GaugeVec
	redeliveries  *prometheus.CounterVec
	rebalances    prometheus.Counter
	lag           *lagCollector
}

// appendReasons are those Append can return.
var appendReasons = []fault.Reason{
	fault.ReasonBrokerUnavailable, fault.ReasonQuorumLost, fault.ReasonTooLarge, fault.ReasonUnknownTopic,
	fault.ReasonNotAuthorised, fault.ReasonMisconfigured, fault.ReasonTimeout, fault.ReasonCancelled, fault.ReasonUnknown,
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		appendSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weiche_bus_append_seconds", Help: "Time until the broker has acknowledged an append.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		appendErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weiche_bus_append_errors_total", Help: "Appends that failed, by reason.",
		}, []string{"reason"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "weiche_bus_in_flight", Help: "Records handed to a handler and not yet acknowledged.",
		}, []string{"topic"}),
		redeliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weiche_bus_redeliveries_total", Help: "Records handed out again after a refusal to acknowledge.",
		}, []string{"topic"}),
		rebalances: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weiche_bus_rebalances_total", Help: "Assignments of partitions to this process's group members.",
		}),
		lag: &lagCollector{
			desc: prometheus.NewDesc("weiche_bus_lag_records",
				"Records of this process's partitions that no committed offset has passed yet.", []string{"topic"}, nil),
			topics: map[string]int{}, claims: map[*partition]bool{},
		},
	}
	var err error
	use := func(c prometheus.Collector) prometheus.Collector {
		if reg == nil {
			return c
		}
		e := reg.Register(c)
		var dup prometheus.AlreadyRegisteredError
		if errors.As(e, &dup) {
			return dup.ExistingCollector
		}
		err = errors.Join(err, e)
		return c
	}
	m.appendSeconds = use(m.appendSeconds).(prometheus.Histogram)
	m.appendErrors = use(m.appendErrors).(*prometheus.CounterVec)
	m.inFlight = use(m.inFlight).(*prometheus.GaugeVec)
	m.redeliveries = use(m.redeliveries).(*prometheus.CounterVec)
	m.rebalances = use(m.rebalances).(prometheus.Counter)
	m.lag = use(m.lag).(*lagCollector)
	for _, r := range appendReasons {
		m.appendErrors.WithLabelValues(string(r))
	}
	return m, err
}

// topic makes a subscribed topic's metrics exist at zero.
func (m *metrics) topic(name string) {
	m.inFlight.WithLabelValues(name)
	m.redeliveries.WithLabelValues(name)
	m.lag.mu.Lock()
	defer m.lag.mu.Unlock()
	m.lag.topics[name]++
}

// lagCollector sums, when it is asked, the lag of the partitions held.
type lagCollector struct {
	desc   *prometheus.Desc
	mu     sync.Mutex
	topics map[string]int
	claims map[*partition]bool
}

func (l *lagCollector) hold(p *partition, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held {
		l.claims[p] = true
	} else {
		delete(l.claims, p)
	}
}

// Describe implements prometheus.Collector.
func (l *lagCollector) Describe(ch chan<- *prometheus.Desc) { ch <- l.desc }

// Collect implements prometheus.Collector.
func (l *lagCollector) Collect(ch chan<- prometheus.Metric) {
	l.mu.Lock()
	sums := make(map[string]int64, len(l.topics))
	for t := range l.topics {
		sums[t] = 0
	}
	for p := range l.claims {
		sums[p.topic] += p.lag()
	}
	l.mu.Unlock()
	for t, n := range sums {
		ch <- prometheus.MustNewConstMetric(l.desc, prometheus.GaugeValue, float64(n), t)
	}
}
