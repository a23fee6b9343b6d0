package test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// jobView is what the tests read of `router dlq jobs JOB --json`.
type jobView struct {
	ID       string
	State    string
	Items    int
	Words    []struct{ Verb, Operator string }
	Progress struct{ Done, Ordered, Left int }
	Groups   []struct {
		Reason       string
		Count, Tried int
	}
	Report struct{ States map[string]int }
}

func (r *router) job(t *testing.T, args ...string) (v jobView) {
	t.Helper()
	out := r.MustCLI(append([]string{"dlq", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return v
}

// The dead letters of a day are redriven as one job, which an operator stops
// half-way, which outlives two deaths of the process, and which a colleague lets
// go on: exactly the previewed ones arrive, each once and the oldest of its case
// first; what died later stays dead. In the long form they are 50,000.
func TestRedriveJobOverDeaths(t *testing.T) {
	n, rate := 400, 80
	if soak() {
		n, rate = 50_000, 1000
	}
	fv := startFachverfahren(t)
	r := newRouter(t, "WEICHE_DELIVERY_DEAD_RATIO=0", "WEICHE_DELIVERY_IN_FLIGHT=16")
	r.useFachverfahren(fv, false)
	r.addOperator("colleague", "a colleague's token")
	r.Start()

	// Of every tenth case a second submission waits behind the dead first one.
	var mended atomic.Bool
	refused := func(string, int) int {
		if mended.Load() {
			return 204
		}
		return 422
	}
	never := func(string, int) int { return 422 }
	var all, late []string
	follows := map[string]bool{}
	cast := func(key string, caseID uuid.UUID, before string, m mood) (string, []byte) {
		id := submission.NewID("service-bw", key).String()
		fv.Expect(id, before, m)
		return id, example(t, "gewerbeanmeldung", "minimal", map[string]any{"caseId": caseID.String(), "region": "081150045045", "test": nil})
	}
	post := func(count int, one func(i int) [][2]any) {
		var wg sync.WaitGroup
		work := make(chan [][2]any)
		for range 16 {
			wg.Go(func() {
				for list := range work {
					for _, p := range list {
						if ans, err := r.Post("service-bw", p[0].(string), p[1].([]byte)); err != nil || ans.Status != 202 {
							t.Errorf("posting %s: %v %s", p[0], err, ans.Body)
						}
					}
				}
			})
		}
		for i := range count {
			work <- one(i)
		}
		close(work)
		wg.Wait()
	}
	post(n, func(i int) [][2]any {
		caseID := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "case %d", i))
		id, body := cast(fmt.Sprint("dead-", i), caseID, "", refused)
		all = append(all, id)
		list := [][2]any{{fmt.Sprint("dead-", i), body}}
		if i%10 == 0 {
			second, body := cast(fmt.Sprint("next-", i), caseID, id, nil)
			follows[second] = true
			list = append(list, [2]any{fmt.Sprint("next-", i), body})
		}
		return list
	})
	r.dead(t, n, time.Duration(n)*50*time.Millisecond+time.Minute)

	preview := r.job(t, "redrive", "--preview", "--destination", "08-sindelfingen-gewerbe", "--reason", "refused")
	if preview.Items != n || len(preview.Groups) != 1 || preview.Groups[0].Count != n || preview.Groups[0].Tried == 0 {
		t.Fatalf("the preview is %+v", preview)
	}
	post(5, func(i int) [][2]any {
		id, body := cast(fmt.Sprint("late-", i), uuid.New(), "", never)
		late = append(late, id)
		return [][2]any{{fmt.Sprint("late-", i), body}}
	})
	r.dead(t, n+5, time.Minute)
	mended.Store(true)
	lateKnocks := fv.knocksOf(late)

	taken := func() int { return fv.takenOf(all) }
	reaches := func(count int) {
		t.Helper()
		eventually(t, time.Duration(n)*20*time.Millisecond+time.Minute, func() (bool, string) { k := taken(); return k >= count, fmt.Sprint(k, " of ", count) })
	}
	fv.Life(1)
	r.job(t, "redrive", "--run", preview.ID, "--rate", fmt.Sprint(rate))
	reaches(n / 3)
	r.job(t, "stop", preview.ID, "--reason", "half-way")
	// What was ordered by then arrives; nothing more is ordered.
	eventually(t, time.Minute, func() (bool, string) {
		v := r.job(t, "jobs", preview.ID)
		return v.State == "stopped" && v.Progress.Ordered > 0 && v.Progress.Ordered == taken(), fmt.Sprintf("%+v, taken %d", v, taken())
	})
	half := taken()
	if half >= n {
		t.Fatalf("all %d had arrived when it was stopped", half)
	}
	r.Kill()
	fv.Life(2)
	r.Start()
	if v := r.job(t, "jobs", preview.ID); v.State != "stopped" || taken() != half {
		t.Errorf("after a restart the stopped job is %+v; taken %d, before %d", v, taken(), half)
	}
	os.Setenv("WEICHE_OPERATOR_TOKEN", "a colleague's token")
	v := r.job(t, "resume", preview.ID)
	os.Unsetenv("WEICHE_OPERATOR_TOKEN")
	if w := v.Words[len(v.Words)-1]; w.Verb != "resume" || w.Operator != "colleague" {
		t.Errorf("resumed by %+v", w)
	}
	reaches(half + (n-half)/2)
	r.Kill()
	fv.Quiet(t)
	fv.Life(3)
	r.Start()
	eventually(t, time.Duration(n)*20*time.Millisecond+time.Minute, func() (bool, string) {
		v := r.job(t, "jobs", preview.ID)
		return v.State == "done" && v.Report.States["delivered"] == n, fmt.Sprintf("%+v", v)
	})
	eventually(t, time.Minute, func() (bool, string) {
		a := r.account()
		return a.AddsUp && a.States["delivered"] == n+len(follows) && a.States["dead"] == 5, fmt.Sprintf("%+v", a)
	})

	if got := taken(); got != n {
		t.Errorf("%d of %d arrived", got, n)
	}
	for id := range follows {
		if !fv.Taken(doorGewerbe, id) {
			t.Errorf("%s, which waited behind a dead one, never arrived", id)
		}
	}
	if fv.takenOf(late) != 0 || fv.knocksOf(late) != lateKnocks {
		t.Error("what died after the preview was attempted again")
	}
	// Twice comes only what was in hand when the process died.
	if twice := fv.takenTwice(t); len(twice) > 2*16 {
		t.Errorf("%d came twice", len(twice))
	} else {
		t.Logf("%d redriven over two deaths and a stop at %d, %d of them twice under one id", n, half, len(twice))
	}
	if v := r.job(t, "jobs", preview.ID); v.Progress.Ordered != n || v.Progress.Left != 0 {
		t.Errorf("the job tells of %+v", v.Progress)
	}
}

// dead waits until the account shows so many dead submissions.
func (r *router) dead(t *testing.T, n int, within time.Duration) {
	t.Helper()
	eventually(t, within, func() (bool, string) {
		a := r.account()
		return a.States["dead"] == n, fmt.Sprintf("%+v", a)
	})
}

// addOperator adds an operator of every Land with every right.
func (r *router) addOperator(name, token string) {
	r.t.Helper()
	sum := sha256.Sum256([]byte(token))
	r.editConfig("router.yaml", func(_, text string) string {
		first := "\noperators:\n"
		if strings.Count(text, first) != 1 {
			r.t.Fatal("router.yaml names no operators any more")
		}
		return strings.Replace(text, first, fmt.Sprintf("%s  - {name: %s, token_sha256: %s, rights: [view, operate, payload]}\n", first, name, hex.EncodeToString(sum[:])), 1)
	})
}

// takenOf and knocksOf count what came to the trade register of some
// submissions: those that were taken, and every knock.
func (f *fachverfahren) takenOf(ids []string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if f.taken[doorGewerbe+id] {
			n++
		}
	}
	return n
}

func (f *fachverfahren) knocksOf(ids []string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		n += f.times[doorGewerbe+id]
	}
	return n
}
