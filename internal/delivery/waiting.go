package delivery

import "github.com/prometheus/client_golang/prometheus"

// waitingCollector counts at scrape time what waits in the process's
// partitions, so that the hot path keeps no second account.
type waitingCollector struct {
	stage *Stage
	desc  *prometheus.Desc
}

func newWaitingCollector(s *Stage) *waitingCollector {
	return &waitingCollector{s, prometheus.NewDesc("weiche_delivery_waiting_submissions",
		"Deliveries that wait in this process's partitions, by destination.", []string{"destination"}, nil)}
}

// Describe implements prometheus.Collector.
func (c *waitingCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *waitingCollector) Collect(ch chan<- prometheus.Metric) {
	for id, n := range c.stage.waiting() {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), id)
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
			if !e.dead {
				counts[e.key.destination]++
			}
		}
		l.mu.Unlock()
	}
	return counts
}
