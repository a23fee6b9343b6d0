package status

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/submission"
)

// Scope names the label values that are known before anything has come, so that
// the metrics exist at zero from the start.
type Scope struct {
	Offers       map[submission.Land][]submission.Service
	Destinations []string
}

// Collector is the store as metrics. The states are counted at each scrape,
// from running counts.
type Collector struct {
	p     *Projector
	scope func() Scope

	submissions, deliveries, waitingAge, lag, undecodable, tampered, difference, deliveryDifference *prometheus.Desc
}

// NewCollector returns the collector of a projector's store; scope may be nil.
func NewCollector(p *Projector, scope func() Scope) *Collector {
	if scope == nil {
		scope = func() Scope { return Scope{} }
	}
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("weiche_status_"+name, help, labels, nil)
	}
	return &Collector{p: p, scope: scope,
		submissions: d("submissions", "Accepted submissions by the one state each is in.", "land", "service", "state"),
		deliveries:  d("deliveries", "Deliveries of current decisions by state.", "destination", "state"),
		waitingAge:  d("waiting_age_seconds", "How long the longest waiting delivery of a destination has been waiting; 0 where none waits.", "destination"),
		lag:         d("projection_lag_records", "Records in the log that are not projected yet, measured every five seconds."),
		undecodable: d("undecodable_total", "Records that the projection passed because nobody can read them."),
		difference: prometheus.NewDesc("weiche_reconcile_difference_submissions",
			"Accepted submissions, as counted in the submissions topic, that are in no state, or the reverse; rows lost from the store as of the last reconciliation.",
			[]string{"land", "service"}, nil),
		deliveryDifference: prometheus.NewDesc("weiche_reconcile_difference_deliveries",
			"Deliveries that decisions planned and that are neither in a state nor superseded, or the reverse.", []string{"destination"}, nil),
		tampered: d("tampered_checkpoints", "Checkpoints that do not agree with the events they cover."),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.submissions, c.deliveries, c.waitingAge, c.lag, c.undecodable, c.tampered, c.difference, c.deliveryDifference} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	scope := c.scope()
	states := map[offer]map[submission.State]int{}
	for land, services := range scope.Offers {
		for _, s := range services {
			states[offer{land, s}] = nil
		}
	}
	counts, err := c.p.store.stateCounts(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.submissions, err)
		return
	}
	for _, n := range counts {
		k := offer{n.Land, n.Service}
		if states[k] == nil {
			states[k] = map[submission.State]int{}
		}
		for st, v := range n.States {
			states[k][st] = v
		}
	}
	differ, err := c.p.store.differences(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.difference, err)
		return
	}
	if lost := c.p.lost.Load(); lost != nil {
		for k, n := range *lost {
			differ[k] += n
		}
	}
	for k := range differ { // of what was counted nothing may be known
		if _, ok := states[k]; !ok {
			states[k] = nil
		}
	}
	for k, by := range states {
		gauge(c.difference, float64(differ[k]), string(k.land), string(k.service))
		for _, st := range submission.States() {
			gauge(c.submissions, float64(by[st]), string(k.land), string(k.service), string(st))
		}
	}
	found, err := c.p.store.Destinations(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.deliveries, err)
		return
	}
	destinations := map[string]DestinationCount{}
	for _, id := range scope.Destinations {
		destinations[id] = DestinationCount{}
	}
	for _, d := range found {
		destinations[d.Destination] = d
	}
	lost, err := c.p.store.deliveryDifferences(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.deliveryDifference, err)
		return
	}
	for id := range lost { // what was planned may be in no state
		if _, ok := destinations[id]; !ok {
			destinations[id] = DestinationCount{}
		}
	}
	for id, d := range destinations {
		gauge(c.deliveryDifference, float64(lost[id]), id)
		for _, st := range submission.States() {
			if st != submission.Unassigned { // no delivery is
				gauge(c.deliveries, float64(d.States[st]), id, string(st))
			}
		}
		age := 0.0
		if !d.OldestWaiting.IsZero() {
			age = max(0, c.p.Now().Sub(d.OldestWaiting).Seconds())
		}
		gauge(c.waitingAge, age, id)
	}
	gauge(c.lag, float64(c.p.lag.Load()))
	broken, err := c.p.store.Undecodable(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.undecodable, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(c.undecodable, prometheus.CounterValue, float64(broken))
	tampered, err := c.p.store.Tampering(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.tampered, err)
		return
	}
	gauge(c.tampered, float64(len(tampered)))
}
