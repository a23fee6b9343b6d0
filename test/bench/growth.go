package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// How cost grows: one run a row, because each shows the others' measure. What is
// not varied is as in the table of contenders.
const (
	growRecords  = 20_000    // of the rows that vary something else
	growBytes    = 256 << 20 // of the rows that vary the size, at most
	growLimit    = 15 * time.Minute
	growManyDest = 1000
)

// sizes from 1 KB to 900 KB of JSON.
var sizes = []shape{
	{Applicants: 1, Extra: 0, Parcels: 1},
	standardShape,
	{Applicants: 2, Extra: 230, Parcels: 110},
	{Applicants: 20, Extra: 230, Parcels: 1000},
	{Applicants: 50, Extra: 230, Parcels: 2500},
}

type growthRow struct {
	what, contender string
	bytes           int // of one submission
	sample
}

// growth collects the rows.
type growth struct {
	o    options
	l    *lab
	rows []growthRow
}

func measureGrowth(ctx context.Context, o options) error {
	began := time.Now()
	g := &growth{o: o}
	err := o.inLab(ctx, func(l *lab) error {
		g.l = l
		for _, part := range []struct {
			name string
			run  func(context.Context) error
		}{{"copies", g.copies}, {"pipelines", g.pipelines}} {
			if o.only != "" && o.only != part.name {
				continue
			}
			if err := part.run(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	text := fmt.Sprintf("%s; one run a row; took %s.\n\n", began.UTC().Format(time.DateOnly), time.Since(began).Round(time.Second)) + g.table()
	o.say("\n%s", text)
	if err != nil || o.doc == "" {
		return err
	}
	return putBetween(filepath.Join(g.o.repo, o.doc), "growth", text)
}

// copies are this bus alone: records, partitions, sizes.
func (g *growth) copies(ctx context.Context) error {
	k := plain("bus-trivial")
	one := func(what string, partitions, records int, s shape) error {
		g.l.partitions = partitions
		if err := g.l.settle(standardPlan()); err != nil {
			return err
		}
		if err := g.l.writePlain(ctx, records, s); err != nil {
			return err
		}
		return g.row(ctx, what, k, records, s)
	}
	for n := g.o.slowRecords / 10; n <= g.o.slowRecords*10; n *= 10 {
		if err := one(fmt.Sprintf("%d records", n), 8, n, standardShape); err != nil {
			return err
		}
	}
	for _, p := range []int{1, 8, 64} {
		if err := one(fmt.Sprintf("%d partitions", p), p, g.o.slowRecords, standardShape); err != nil {
			return err
		}
	}
	for _, s := range sizes {
		n := g.fitting(s, g.o.slowRecords)
		if err := one(g.sizeText(s), 8, n, s); err != nil {
			return err
		}
	}
	return nil
}

// pipelines are the whole router: records, partitions, destinations, sizes.
func (g *growth) pipelines(ctx context.Context) error {
	g.l.partitions = 8
	if err := g.l.settle(standardPlan()); err != nil {
		return err
	}
	// Without the schema check, whose 2.8 ms a record would hide all that grows.
	k := pipeline("pipeline-topic-noxsd", true)
	most := g.o.slowRecords * 10
	few := min(growRecords, most/10)
	for n := most / 100; n <= most; n *= 10 {
		// Each row with its own: a router reads all claims at its start.
		if err := g.l.accept(ctx, fmt.Sprint(n), n, standardShape); err != nil {
			return err
		}
		if err := g.row(ctx, fmt.Sprintf("%d records", n), k, n, standardShape); err != nil {
			return err
		}
	}
	if err := g.l.accept(ctx, "few", few, standardShape); err != nil {
		return err
	}
	for _, p := range []int{1, 8, 64} {
		g.l.partitions = p
		if err := g.row(ctx, fmt.Sprintf("%d partitions", p), k, few, standardShape); err != nil {
			return err
		}
	}
	g.l.partitions = 8
	for _, n := range []int{10, growManyDest} {
		p := plan{rules: 20_000}
		for i := range n { // more destinations, not more topics
			p.destinations = append(p.destinations, topicDestination(i%8))
		}
		if err := g.l.settle(p); err != nil {
			return err
		}
		if err := g.row(ctx, fmt.Sprintf("%d destinations", n), k, few, standardShape); err != nil {
			return err
		}
	}
	if err := g.l.settle(standardPlan()); err != nil {
		return err
	}
	for i, s := range sizes {
		n := g.fitting(s, few)
		if err := g.l.accept(ctx, fmt.Sprintf("size%d", i), n, s); err != nil {
			return err
		}
		if err := g.row(ctx, g.sizeText(s), k, n, s); err != nil {
			return err
		}
	}
	return nil
}

// fitting is how many submissions of a size a row takes.
func (g *growth) fitting(s shape, most int) int {
	return max(20, min(most, growBytes/len(g.l.form(1, s))))
}

func (g *growth) sizeText(s shape) string {
	return fmt.Sprintf("%.1f KB", float64(len(g.l.form(1, s)))/1000)
}

func (g *growth) row(ctx context.Context, what string, k contender, records int, sh shape) error {
	s, err := g.l.run(ctx, k, records, growLimit, g.o.profile, fmt.Sprintf("growth-%s-%s", k.name, strings.ReplaceAll(what, " ", "-")))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r := growthRow{what: what, contender: k.name, bytes: len(g.l.form(1, sh)), sample: s}
	g.rows = append(g.rows, r)
	g.o.say("%s", r.line())
	return nil
}

func (r growthRow) line() string {
	rate := float64(r.Records) / r.Seconds
	per := 1000 / float64(r.Records)
	return fmt.Sprintf("| %s | %s | %d | %.0f | %.1f | %.4f | %.4f | %.0f |", r.contender, r.what, r.Records, rate,
		rate*float64(r.bytes)/1e6, r.CPU*per, r.BrokerCPU*per, r.PeakMiB)
}

func (g *growth) table() string {
	var b strings.Builder
	b.WriteString("| | | records | records/s | MB/s | CPU s per 1,000 | broker CPU s per 1,000 | peak MiB |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range g.rows {
		b.WriteString(r.line() + "\n")
	}
	return b.String()
}
