package bus

import (
	"errors"
	"sync"
	"time"

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
	spilled       *prometheus.CounterVec
	skipped       *prometheus.CounterVec
	superseded    *prometheus.CounterVec
	batch         *prometheus.HistogramVec
	rebalances    prometheus.Counter
	held          *heldCollector
}

// appendReasons are those Append can return.
var appendReasons = []fault.Reason{
	fault.ReasonBrokerUnavailable, fault.ReasonQuorumLost, fault.ReasonTooLarge, fault.ReasonUnknownTopic,
	fault.ReasonNotAuthorised, fault.ReasonMisconfigured, fault.ReasonMalformed, fault.ReasonTimeout, fault.ReasonCancelled, fault.ReasonUnknown,
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	byTopic := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weiche_bus_" + name, Help: help}, []string{"topic"})
	}
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
		redeliveries: byTopic("redeliveries_total", "Records handed out again after a refusal to acknowledge."),
		spilled:      byTopic("spilled_total", "Records put aside because their key had used up its share of a partition's window."),
		skipped:      byTopic("skipped_total", "Records passed over because an earlier owner had finished them beyond its committed offset."),
		superseded:   byTopic("superseded_total", "Partitions given up because another owner had begun."),
		batch: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weiche_bus_batch_records", Help: "Records handed to a batch handler at once.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
		}, []string{"topic"}),
		rebalances: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weiche_bus_rebalances_total", Help: "Rebalances that brought partitions to this process's group members.",
		}),
		held: newHeldCollector(),
	}
	var err error
	m.appendSeconds = register(reg, m.appendSeconds, &err)
	m.appendErrors = register(reg, m.appendErrors, &err)
	m.inFlight = register(reg, m.inFlight, &err)
	m.redeliveries = register(reg, m.redeliveries, &err)
	m.spilled = register(reg, m.spilled, &err)
	m.skipped = register(reg, m.skipped, &err)
	m.superseded = register(reg, m.superseded, &err)
	m.batch = register(reg, m.batch, &err)
	m.rebalances = register(reg, m.rebalances, &err)
	m.held = register(reg, m.held, &err)
	for _, r := range appendReasons {
		m.appendErrors.WithLabelValues(string(r))
	}
	return m, err
}

// register returns the collector to use: another bus of this process may have
// registered it before.
func register[C prometheus.Collector](reg prometheus.Registerer, c C, failed *error) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	var dup prometheus.AlreadyRegisteredError
	if errors.As(err, &dup) {
		return dup.ExistingCollector.(C)
	}
	*failed = errors.Join(*failed, err)
	return c
}

// topic makes a subscribed topic's metrics exist at zero.
func (m *metrics) topic(name string) {
	m.inFlight.WithLabelValues(name)
	m.redeliveries.WithLabelValues(name)
	m.spilled.WithLabelValues(name)
	m.skipped.WithLabelValues(name)
	m.superseded.WithLabelValues(name)
	m.batch.WithLabelValues(name)
	m.held.mu.Lock()
	defer m.held.mu.Unlock()
	m.held.topics[name] = true
}

// heldCollector looks, when it is asked, at the partitions held.
type heldCollector struct {
	records, seconds, age, partitions *prometheus.Desc

	mu     sync.Mutex
	topics map[string]bool
	held   map[*partition]bool
}

func newHeldCollector() *heldCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("weiche_bus_"+name, help, []string{"topic"}, nil)
	}
	return &heldCollector{
		records:    desc("lag_records", "Records of this process's partitions that no committed offset has passed yet."),
		seconds:    desc("lag_seconds", "Age of the oldest record of this process's partitions that is fetched and not finished."),
		age:        desc("commit_age_seconds", "How long finished records of this process's partitions have been waiting for their commit."),
		partitions: desc("partitions", "Partitions this process holds."),
		topics:     map[string]bool{}, held: map[*partition]bool{},
	}
}

func (l *heldCollector) hold(p *partition, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held {
		l.held[p] = true
	} else {
		delete(l.held, p)
	}
}

// Describe implements prometheus.Collector.
func (l *heldCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.records, l.seconds, l.age, l.partitions} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (l *heldCollector) Collect(ch chan<- prometheus.Metric) {
	type sums struct{ records, seconds, age, partitions float64 }
	l.mu.Lock()
	by := make(map[string]*sums, len(l.topics))
	for t := range l.topics {
		by[t] = &sums{}
	}
	now := time.Now()
	since := func(ms int64) float64 {
		if ms == 0 {
			return 0
		}
		return max(0, now.Sub(time.UnixMilli(ms)).Seconds())
	}
	for p := range l.held {
		s := by[p.topic]
		s.partitions++
		s.records += float64(p.lag())
		s.seconds = max(s.seconds, since(p.seen.oldest.Load()))
		s.age = max(s.age, since(p.seen.behind.Load()))
	}
	l.mu.Unlock()
	for t, s := range by {
		ch <- prometheus.MustNewConstMetric(l.records, prometheus.GaugeValue, s.records, t)
		ch <- prometheus.MustNewConstMetric(l.seconds, prometheus.GaugeValue, s.seconds, t)
		ch <- prometheus.MustNewConstMetric(l.age, prometheus.GaugeValue, s.age, t)
		ch <- prometheus.MustNewConstMetric(l.partitions, prometheus.GaugeValue, s.partitions, t)
	}
}
