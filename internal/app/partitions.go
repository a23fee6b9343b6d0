package app

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/delivery"
	"weiche/internal/dispatch"
	"weiche/internal/fault"
	"weiche/internal/status"
)

// A case's partition follows from the number of partitions. Were that changed
// while something of the case is unfinished, what follows would go elsewhere and
// overtake it. So the number that records are written with stands in the log,
// and a new one counts only when nothing is unfinished.

// layoutKey names the record in the compacted topic of keys that holds the
// layout. It is no day key's name.
const layoutKey = "layout"

type layout struct {
	Partitions int `json:"partitions"`
}

// layoutLog is what the layout needs of the bus.
type layoutLog interface {
	Append(ctx context.Context, key string, value []byte) error
	Load(ctx context.Context, fn func(key string, value []byte) error) error
}

// readLayout returns the layout that stands in the log; zero where none does.
func readLayout(ctx context.Context, log layoutLog) (l layout, err error) {
	err = log.Load(ctx, func(key string, value []byte) error {
		if key != layoutKey {
			return nil
		}
		l = layout{}
		if err := json.Unmarshal(value, &l); err != nil {
			return fault.Wrap(err, fault.Permanent, fault.ReasonMisconfigured, "the record %q of topic %s cannot be read", layoutKey, bus.TopicKeys)
		}
		return nil
	})
	return l, err
}

// agree makes kafka.partitions the number that records are written with, or says
// why it cannot be. drained returns what stands against it, nil if nothing does.
func agree(ctx context.Context, log layoutLog, partitions int, drained func(context.Context) error) error {
	was, err := readLayout(ctx, log)
	if err != nil || was.Partitions == partitions {
		return err
	}
	if was.Partitions > 0 {
		if err := drained(ctx); err != nil {
			return fault.Wrap(err, fault.Permanent, fault.ReasonMisconfigured,
				"kafka.partitions is %d, the records were written with %d, and %s; see docs/runbooks/WeichePartitionsChanged.md", partitions, was.Partitions, fault.Of(err).Detail)
		}
	}
	value, err := json.Marshal(layout{partitions})
	if err != nil {
		return err
	}
	return log.Append(ctx, layoutKey, value)
}

// drained says whether nothing is unfinished and no other router runs.
func (a *App) drained(ctx context.Context) error {
	a.logger.Info("the number of partitions was changed: looking whether anything is unfinished")
	for _, group := range []string{dispatch.Group, delivery.Group} {
		members, err := a.bus.Members(ctx, group)
		if err != nil {
			return err
		}
		if members > 0 {
			return fault.New(fault.Permanent, fault.ReasonBusy, "another router runs (group %s has members): stop all of them first", group)
		}
	}
	if err := a.projector.WaitAsked(ctx); err != nil {
		return err
	}
	return nothingUnfinished(ctx, a.store)
}

func nothingUnfinished(ctx context.Context, store *status.Store) error {
	n, err := store.UnfinishedCount(ctx)
	if err != nil {
		return err
	}
	if n > 0 {
		return fault.New(fault.Permanent, fault.ReasonBusy, "%d submissions are not finished (in flight, waiting, unassigned or dead), whose cases would lose their order", n)
	}
	return nil
}

const recountEvery = 30 * time.Second

// watchPartitions returns what tells of partitions that are added while the
// router runs. Order holds meanwhile: records are written with the number the
// router began with, so the new partitions stay empty.
func (a *App) watchPartitions() func(context.Context) error {
	changed := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "weiche_kafka_recounted_topics", Help: "Topics that have another number of partitions than the router began with.",
	})
	a.registry.MustRegister(changed)
	return func(ctx context.Context) error {
		tick := time.NewTicker(recountEvery)
		defer tick.Stop()
		var told map[string]int
		for {
			if found, err := a.bus.Recounted(ctx); err == nil {
				changed.Set(float64(len(found)))
				if len(found) > 0 && !maps.Equal(found, told) {
					a.logger.Error("partitions were added to topics while the router runs; it goes on with those it began with, and the next start is refused",
						"topics", topicsText(found), "kafka_partitions", a.router.Kafka.Partitions, "runbook", "docs/runbooks/WeichePartitionsChanged.md")
				}
				told = found
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	}
}

func topicsText(found map[string]int) []string {
	out := make([]string, 0, len(found))
	for _, topic := range slices.Sorted(maps.Keys(found)) {
		out = append(out, fmt.Sprintf("%s has %d", topic, found[topic]))
	}
	return out
}
