package jobs

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/submission"
)

// Bounds of a preview: it has to answer while somebody waits.
const (
	maxGroups = 200
	maxTried  = 400 // items the forecast is made from, over all groups
	perGroup  = 20
)

// found is an item while a preview collects.
type found struct {
	Item
	at    time.Time // accepted
	order int64
	held  int64
	group groupKey
}

type groupKey struct {
	origin              submission.Stage
	land                submission.Land
	service             submission.Service
	destination, reason string
}

// Wish is what an operator says when asking for a preview.
type Wish struct {
	Operator  string
	Reason    string // of a close
	Authority string // of a reroute
}

// Preview fixes the items that the filter names now, says what they have in
// common and what would become of them, and keeps both until the job is told to
// run. ErrTooMany asks for a narrower filter.
func (j *Jobs) Preview(ctx context.Context, kind Kind, f Filter, w Wish) (*View, error) {
	if err := j.Projector.WaitAsked(ctx); err != nil {
		return nil, err
	}
	all, err := j.collect(ctx, kind, f)
	if err != nil {
		return nil, err
	}
	job := Job{ID: uuid.New(), Kind: kind, Filter: f, Reason: w.Reason, Authority: w.Authority, Operator: w.Operator, At: j.Now().UTC(), Items: len(all), Groups: []Group{}, Lands: lands(all)}
	for _, i := range all {
		if i.often() {
			job.Often++
		}
	}
	if err := j.group(ctx, &job, all); err != nil {
		return nil, err
	}
	if err := j.keep(ctx, job, all); err != nil {
		return nil, err
	}
	j.Logger.Info("a job was previewed", "job", job.ID, "kind", string(kind), "operator", w.Operator, "items", job.Items)
	return j.Get(ctx, job.ID)
}

// collect finds the items, in the order of acceptance: within a case the oldest
// is redriven first.
func (j *Jobs) collect(ctx context.Context, kind Kind, f Filter) ([]found, error) {
	var all []found
	known := map[uuid.UUID]bool{} // submissions, where they are the items
	err := j.Store.EachLetter(ctx, f.State, f.query(), func(a *submission.Account, d *submission.DeliveryAccount) error {
		if kind.anew() {
			if known[a.ID] {
				return nil
			}
			known[a.ID] = true
		}
		if len(all) == MaxItems {
			return ErrTooMany
		}
		i := found{Item: Item{Submission: a.ID, Redrives: a.Redrives, Revision: a.Dispatched}, at: a.AcceptedAt,
			group: groupKey{submission.StageDispatch, a.Land, a.Service, "", a.Reason}}
		held := a.Held
		if d != nil {
			i.Delivery, i.Redrives, i.Revision, i.order, held = d.ID, d.Redrives, d.Revision, d.Order, d.Held
			if kind.anew() {
				i.Delivery, i.Redrives, i.Revision = uuid.Nil, a.Redrives, a.Dispatched
			}
			i.group.origin, i.group.destination, i.group.reason = submission.StageDelivery, d.Destination, d.Reason
		}
		if held != nil {
			i.held = held.Offset
		}
		all = append(all, i)
		return nil
	})
	slices.SortFunc(all, func(x, y found) int {
		return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.order, y.order), cmp.Compare(x.held, y.held), strings.Compare(x.Delivery.String(), y.Delivery.String()))
	})
	return all, err
}

func lands(all []found) []submission.Land {
	set := map[submission.Land]struct{}{}
	for _, i := range all {
		set[i.group.land] = struct{}{}
	}
	return slices.Sorted(maps.Keys(set))
}

// keep writes the job behind its items.
func (j *Jobs) keep(ctx context.Context, job Job, all []found) error {
	n := 0
	for c := range slices.Chunk(all, chunkItems) {
		items := make([]Item, len(c))
		for i := range c {
			items[i] = c[i].Item
		}
		r, err := j.book.record(part(job.ID, partItems, n), items)
		if err != nil {
			return err
		}
		if err := j.Log.Append(ctx, r); err != nil {
			return err
		}
		n++
	}
	failpoint.Hit("jobs.items-kept")
	r, err := j.book.record(job.ID.String(), job)
	if err != nil {
		return err
	}
	return j.book.Write(ctx, r)
}

// group counts the items by what they have in common, the largest group first,
// and tries some of each.
func (j *Jobs) group(ctx context.Context, job *Job, all []found) error {
	by := map[groupKey][]int{}
	for i := range all {
		by[all[i].group] = append(by[all[i].group], i)
	}
	for k, list := range by {
		job.Groups = append(job.Groups, Group{Origin: k.origin, Land: k.land, Service: k.service, Destination: k.destination, Reason: k.reason, Count: len(list)})
	}
	slices.SortFunc(job.Groups, func(x, y Group) int {
		return cmp.Or(y.Count-x.Count, strings.Compare(string(x.Land)+string(x.Service)+x.Destination+x.Reason, string(y.Land)+string(y.Service)+y.Destination+y.Reason))
	})
	if len(job.Groups) > maxGroups {
		for _, g := range job.Groups[maxGroups:] {
			job.Ungrouped += g.Count
		}
		job.Groups = job.Groups[:maxGroups]
	}
	for n := range job.Groups {
		g := &job.Groups[n]
		list := by[groupKey{g.Origin, g.Land, g.Service, g.Destination, g.Reason}]
		g.Tried = min(len(list), perGroup, max(1, maxTried/len(job.Groups)))
		counts := map[Forecast]int{}
		for t := range g.Tried {
			fc, err := j.forecast(ctx, job, all[list[t*len(list)/g.Tried]])
			if err != nil {
				return err
			}
			counts[fc]++
		}
		for fc, count := range counts {
			fc.Count = count
			g.Forecast = append(g.Forecast, fc)
		}
		slices.SortFunc(g.Forecast, func(x, y Forecast) int {
			return cmp.Or(y.Count-x.Count, strings.Compare(x.What+x.To+x.Reason, y.What+y.To+y.Reason))
		})
	}
	return nil
}

// forecast says what would become of one item now.
func (j *Jobs) forecast(ctx context.Context, job *Job, i found) (Forecast, error) {
	if job.Kind == Close {
		return Forecast{What: WillClose}, nil
	}
	acct, err := j.Store.Get(ctx, i.Submission)
	if err != nil {
		return Forecast{}, err
	}
	held := acct.Held
	d := acct.Delivery(i.Delivery)
	switch {
	case d != nil:
		held = d.Held
	case job.Kind.anew() && !Renewable(acct):
		return Forecast{What: WillStay}, nil
	case held == nil && len(acct.Deliveries) > 0:
		held = acct.Deliveries[0].Held
	}
	if held == nil {
		return Forecast{What: WillNothing}, nil
	}
	rec, err := j.Log.Fetch(ctx, held.Topic, held.Partition, held.Offset)
	if errors.Is(err, bus.ErrNotThere) {
		return Forecast{What: WillNothing}, nil
	}
	if err != nil {
		return Forecast{}, err
	}
	m, err := submission.ParseMeta(rec.Headers)
	if err != nil || m.ID != acct.ID {
		return Forecast{What: WillNothing}, nil //nolint:nilerr // that is what is said
	}
	m.Instruction = nil
	if job.Kind == Reroute {
		m.Instruction = &submission.Instruction{Kind: submission.InstructAssign, Authority: job.Authority, At: job.At}
	}
	now := j.Foresight.Try(ctx, m, rec.Value)
	if d == nil {
		switch {
		case now.Unassigned:
			return Forecast{What: WillHold, Reason: now.Reason}, nil
		case now.Reason != "":
			return Forecast{What: WillDie, Reason: now.Reason}, nil
		}
		return Forecast{What: WillDecide, To: strings.Join(now.Destinations, ", ")}, nil
	}
	switch configured, open := j.Foresight.Door(d.Destination); {
	case !configured, !open:
		return Forecast{What: WillWait, To: d.Destination}, nil
	case now.Reason == "" && !slices.Contains(now.Destinations, d.Destination):
		return Forecast{What: WillElsewhere, To: strings.Join(now.Destinations, ", ")}, nil
	}
	return Forecast{What: WillTry, To: d.Destination, Reason: now.Reason}, nil
}
