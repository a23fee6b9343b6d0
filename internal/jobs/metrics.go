package jobs

import "github.com/prometheus/client_golang/prometheus"

// metrics are of this replica's own work, and of all jobs as it knows them. No
// label is an id.
type metrics struct {
	items *prometheus.CounterVec
	jobs  *Jobs
}

var (
	openJobs = prometheus.NewDesc("weiche_jobs_open", "Jobs on dead letters that are not done, by state.", []string{"state"}, nil)
	leftJobs = prometheus.NewDesc("weiche_jobs_left_items", "Items of jobs that were told to run and have not come to them yet, stopped ones included.", nil, nil)
)

func newMetrics(reg prometheus.Registerer, j *Jobs) *metrics {
	m := &metrics{jobs: j, items: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weiche_jobs_items_total",
		Help: "Items a job has come to, by what was done: ordered, or left as they are and why."}, []string{"reason"})}
	m.items.WithLabelValues(outcomeOrdered)
	if reg != nil {
		reg.MustRegister(m.items, m)
	}
	return m
}

const outcomeOrdered = "ordered"

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- openJobs
	ch <- leftJobs
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	open, left := map[State]int{}, 0
	for _, v := range m.jobs.book.views() {
		open[v.State]++
		if v.State == Queued || v.State == Running || v.State == Stopped {
			left += v.Items - v.Progress.Done
		}
	}
	for _, s := range States() {
		if s != Done {
			ch <- prometheus.MustNewConstMetric(openJobs, prometheus.GaugeValue, float64(open[s]), string(s))
		}
	}
	ch <- prometheus.MustNewConstMetric(leftJobs, prometheus.GaugeValue, float64(left))
}
