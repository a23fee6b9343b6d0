package test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// A redrive as a job on Apache Kafka with three routers, in the long form once for
// each step of a job that the source names: whoever comes to that step is killed there, be it
// the router that was asked or the one that runs the job, and whoever takes over
// and comes there too. Exactly the previewed ones arrive, before what stands
// behind them in their cases, each ordered once by the account; none comes again
// once the account tells that it arrived.
func TestJobKilledAtEveryStepOverReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	n := 150 // two chunks
	if !soak() {
		n = 6
	}
	fv := startFachverfahren(t)
	c := &crowd{t: t, fv: fv, routers: startReplicas(t, fv, buildWithFailpoints(t), "WEICHE_DELIVERY_DEAD_RATIO=0")}
	c.env = c.routers[0].Env
	steps := slices.DeleteFunc(failpoints(t), func(p string) bool { return !strings.HasPrefix(p, "jobs.") })
	if !soak() {
		// Between an order and the note of it; on the embedded broker all of them are
		// tried each time.
		steps = slices.DeleteFunc(steps, func(p string) bool { return p != "jobs.ordered" && p != "jobs.seen" })
	}
	if len(steps) < 2 {
		t.Fatal("jobs have other failpoints now")
	}
	for _, step := range steps {
		at := 1
		if step == "jobs.ordered" {
			at = 3 // of the seven appends of the short form, the nine of the long one
		}
		c.redrive(step, at, n)
		if t.Failed() {
			t.Fatalf("at %s", step)
		}
	}
	c.check()
}

// crowd are three routers that share everything, of which some die.
type crowd struct {
	t       *testing.T
	fv      *fachverfahren
	routers [3]*router
	env     []string // without a failpoint
	deaths  int

	redriven, behind []string
	late             string // died after the last preview
}

// arm starts every router anew, to die at a step.
func (c *crowd) arm(step string, at int) {
	for _, r := range c.routers {
		r.Stop()
		r.Env = append(slices.Clone(c.env), fmt.Sprintf("WEICHE_FAILPOINT=%s:%d", step, at))
		r.Start()
	}
}

// revive starts those that died where they should, to live.
func (c *crowd) revive() {
	c.t.Helper()
	for _, r := range c.routers {
		select {
		case <-r.ended:
		default:
			continue
		}
		if w, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || w.Signal() != syscall.SIGKILL {
			c.t.Fatalf("a router ended by itself\n%s", tail(r.Log(), 4000))
		}
		c.deaths++
		r.Env = c.env
		r.Start()
	}
}

// ask asks one router after the other until one answers as wanted; the dead come
// back meanwhile.
func (c *crowd) ask(what string, good func(jobView) bool, args ...string) (v jobView) {
	c.t.Helper()
	i := 0
	eventually(c.t, 4*time.Minute, func() (bool, string) {
		c.revive()
		i++
		out, err := c.routers[i%len(c.routers)].CLI(append([]string{"dlq", "--json"}, args...)...)
		v = jobView{}
		return err == nil && json.Unmarshal([]byte(out), &v) == nil && good(v), what + ": " + out
	})
	return v
}

func (c *crowd) post(key string, caseID uuid.UUID, before string, m mood) string {
	c.t.Helper()
	id := submission.NewID("service-bw", key).String()
	c.fv.Expect(id, before, m)
	ans, err := c.routers[0].Post("service-bw", key, example(c.t, "gewerbeanmeldung", "minimal",
		map[string]any{"caseId": caseID.String(), "region": "081150045045", "test": nil}))
	if err != nil || ans.Status != 202 {
		c.t.Fatalf("posting %s: %v %s", key, err, ans.Body)
	}
	return id
}

// redrive redrives n new dead letters, and the late one of the time before, as a
// job that is killed at a step.
func (c *crowd) redrive(step string, at, n int) {
	t := c.t
	t.Helper()
	began, deaths := time.Now(), c.deaths
	never := func(string, int) int { return 422 }
	var dead []string
	if c.late != "" {
		dead = append(dead, c.late)
	}
	for i := range n {
		caseID := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s %d", step, i))
		dead = append(dead, c.post(fmt.Sprint(step, "-", i), caseID, "", never))
		if i%2 == 0 {
			c.behind = append(c.behind, c.post(fmt.Sprint(step, "-behind-", i), caseID, dead[len(dead)-1], nil))
		}
	}
	c.routers[0].dead(t, len(dead), 2*time.Minute)
	c.arm(step, at)

	whole := func(v jobView) bool { return v.Items == len(dead) }
	preview := c.ask("the preview", whole, "redrive", "--preview", "--destination", doors[doorGewerbe], "--reason", "refused")
	c.late = c.post(step+"-late", uuid.New(), "", never)
	c.routers[0].dead(t, len(dead)+1, 2*time.Minute)
	for _, id := range dead {
		c.fv.Mend(id)
	}
	knocked := c.fv.knocksOf([]string{c.late})
	// In the short form each order is an append of its own; in the long one an append
	// has a quarter of a second's.
	rate := fmt.Sprint(max(4, n/2))
	eventually(t, 4*time.Minute, func() (bool, string) {
		c.revive()
		r := c.routers[1]
		said, _ := r.CLI("dlq", "redrive", "--run", preview.ID, "--rate", rate) // refused once it was said
		c.revive()
		out, err := r.CLI("dlq", "--json", "jobs", preview.ID)
		var v jobView
		return err == nil && json.Unmarshal([]byte(out), &v) == nil && v.State != "previewed", said + out
	})
	c.ask("the job", func(v jobView) bool {
		return v.State == "done" && v.Report.States["delivered"] == len(dead) && v.Progress.Ordered == len(dead) && v.Progress.Left == 0
	}, "jobs", preview.ID)
	c.revive()

	if c.deaths == deaths {
		t.Errorf("nobody died at %s, hit %d", step, at)
	}
	if c.fv.knocksOf([]string{c.late}) != knocked {
		t.Error("what died after the preview was attempted again")
	}
	c.redriven = append(c.redriven, dead...)
	for i, r := range c.routers {
		eventually(t, 2*time.Minute, func() (bool, string) {
			acct := r.account()
			return acct.AddsUp && acct.States["delivered"] == len(c.redriven)+len(c.behind) && acct.States["dead"] == 1, fmt.Sprintf("router %d: %+v", i, acct)
		})
	}
	t.Logf("%s, hit %d: %d deaths, %s", step, at, c.deaths-deaths, time.Since(began).Round(time.Second))
}

// check holds what arrived against the account.
func (c *crowd) check() {
	t := c.t
	t.Helper()
	for _, id := range slices.Concat(c.redriven, c.behind) {
		if !c.fv.Taken(doorGewerbe, id) {
			t.Errorf("%s never arrived", id)
		}
	}
	for _, k := range c.fv.Knocks() {
		if want := submission.NewDeliveryID(uuid.MustParse(k.submission), doors[k.door], 1).String(); k.delivery != want {
			t.Errorf("%s came as %s, not as %s", k.submission, k.delivery, want)
		}
	}
	delivered, redrives := c.told()
	for _, id := range c.redriven {
		d := submission.NewDeliveryID(uuid.MustParse(id), doors[doorGewerbe], 1)
		if redrives[d] != 1 {
			t.Errorf("%s was redriven %d times by the account", id, redrives[d])
		}
	}
	twice := c.fv.takenTwice(t)
	for id, list := range twice {
		told, ok := delivered[uuid.MustParse(id)]
		for _, k := range list[1:] {
			if !ok || k.at.After(told) {
				t.Errorf("%s came at %s, and the account told at %s that it had arrived", id, k.at, told)
			}
		}
	}
	c.routers[0].MustCLI("reconcile", "--from-topics")
	t.Logf("%d redriven by jobs over %d deaths, %d of them twice under one id", len(c.redriven), c.deaths, len(twice))
}

// told reads from the log when each delivery was told to have arrived, and how
// often it was told to be redriven. What a superseded owner wrote has no effect
// and does not count.
func (c *crowd) told() (delivered map[uuid.UUID]time.Time, redrives map[uuid.UUID]int) {
	delivered, redrives = map[uuid.UUID]time.Time{}, map[uuid.UUID]int{}
	type owned struct {
		partition int32
		stage     submission.Stage
	}
	epochs := map[owned]int64{}
	readAll(c.t, connect(c.t, c.routers[0].Kafka), bus.TopicEvents, func(rec *bus.Record) {
		ev, err := submission.DecodeEvent(rec.Value)
		if err != nil {
			c.t.Errorf("an event cannot be read: %v", err)
			return
		}
		o := owned{rec.Partition, ev.Stage}
		if ev.Epoch < epochs[o] {
			return
		}
		epochs[o] = ev.Epoch
		switch ev.Type {
		case submission.EventDelivered:
			if _, known := delivered[ev.DeliveryID]; !known {
				delivered[ev.DeliveryID] = ev.At
			}
		case submission.EventRedriven:
			redrives[ev.DeliveryID]++
		}
	})
	return delivered, redrives
}
