package delivery

import "github.com/prometheus/client_golang/prometheus"

// collector tells at scrape time what waits in the process's partitions and
// which destinations are paused, so that nobody keeps a second account.
type collector struct {
	stage           *Stage
	waiting, paused *prometheus.Desc
}

func newCollector(s *Stage) *collector {
	return &collector{s,
		prometheus.NewDesc("weiche_delivery_waiting_submissions",
			"Deliveries that wait in this process's partitions, by destination.", []string{"destination"}, nil),
		prometheus.NewDesc("weiche_delivery_destination_paused",
			"1 while the destination is paused, by its fault or by an operator.", []string{"destination"}, nil)}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.waiting; ch <- c.paused }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for id, n := range c.stage.waiting() {
		ch <- prometheus.MustNewConstMetric(c.waiting, prometheus.GaugeValue, float64(n), id)
	}
	for _, d := range c.stage.Destinations() {
		paused := 0.0
		if d.Paused {
			paused = 1
		}
		ch <- prometheus.MustNewConstMetric(c.paused, prometheus.GaugeValue, paused, d.ID)
	}
}

// waiting counts what waits by destination.
func (s *Stage) waiting() map[string]int {
	s.mu.Lock()
	counts := map[string]int{}
	for id := range s.destinations {
		counts[id] = 0
	}
	lanes := make([]*lane, 0, len(s.lanes))
	for _, l := range s.lanes {
		lanes = append(lanes, l)
	}
	s.mu.Unlock()
	for _, l := range lanes {
		l.mu.Lock()
		for _, e := range l.q.byID {
			if !e.dead && !e.fresh {
				counts[e.key.destination]++
			}
		}
		l.mu.Unlock()
	}
	return counts
}
