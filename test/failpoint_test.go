package test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

// The router is killed at every failpoint that stands in the source, on its
// embedded broker, each time in the middle of the same small life: everything
// acknowledged arrives, each under its one delivery id and in the order of its
// case; what came twice is what was in a Fachverfahren's hands when the router
// died; and the account adds up, rebuilt or not.
func TestKilledAtEveryBoundary(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute or two")
	}
	bin := buildWithFailpoints(t)
	hits := rehearse(t, bin)
	for _, point := range failpoints(t) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			if hits[point] == 0 {
				t.Fatal("the rehearsal never came by here: let the scene do what leads to it")
			}
			for _, nth := range chosen(hits[point]) {
				killedAt(t, point, nth, func(nth int) bool {
					fv := startFachverfahren(t)
					r := newRouter(t, quickRetries...)
					r.Binary = bin
					r.useFachverfahren(fv, true)
					return newScene(t, r, fv, "one").crash(point, nth)
				})
			}
		})
	}
}

// killedAt has a scene played with a death at a point: at its first hit where it
// is not come by so often. What happens once a batch happens less often where
// batches are larger.
func killedAt(t *testing.T, point string, nth int, play func(nth int) (hit bool)) {
	t.Helper()
	if play(nth) || nth > 1 && play(1) {
		return
	}
	t.Fatalf("%s was never hit", point)
}

// The same on Apache Kafka, where the broker outlives the router: one cluster,
// one data directory, one death after the other.
func TestKilledAtEveryBoundaryOnApacheKafka(t *testing.T) {
	if !soak() {
		t.Skip("runs in make soak")
	}
	bin := buildWithFailpoints(t)
	// Batches are larger here than on the embedded broker.
	hits := rehearse(t, bin, onKafka(kafkatest.Start(t))...)
	fv := startFachverfahren(t)
	r := newRouter(t, append(onKafka(kafkatest.Start(t)), quickRetries...)...)
	r.Binary = bin
	r.useFachverfahren(fv, true)
	for i, point := range onceFirst(failpoints(t)) {
		killedAt(t, point, max(1, hits[point]/4), func(nth int) bool {
			hit := newScene(t, r, fv, fmt.Sprint("kafka-", i, "-", nth)).crash(point, nth)
			if hit {
				r.Stop()
			}
			return hit
		})
		if t.Failed() {
			t.Fatalf("at %s", point)
		}
	}
}

var quickRetries = []string{"WEICHE_DELIVERY_INITIAL=100ms", "WEICHE_DELIVERY_MAX=300ms"}

// chosen are the hits at which to die: in the middle of the scene, in the long
// form at its first and last too.
func chosen(hits int) []int {
	if !soak() {
		return []int{max(1, hits/3)}
	}
	list := []int{1, max(1, hits/3), max(1, hits*2/3)}
	return slices.Compact(list)
}

// onceFirst puts in front what happens once in a data directory.
func onceFirst(points []string) []string {
	slices.SortStableFunc(points, func(a, b string) int {
		rank := func(p string) int {
			return map[string]int{"seal.master-made": -2, "seal.key-appended": -1}[p]
		}
		return rank(a) - rank(b)
	})
	return points
}

// failpoints finds every failpoint.Hit in the source, so that a new one cannot
// be forgotten.
func failpoints(t *testing.T) []string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(filepath.Join(repo, "internal"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Hit" || fmt.Sprint(sel.X) != "failpoint" {
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: the name of a failpoint has to be a literal", path)
				return true
			}
			name, _ := strconv.Unquote(lit.Value)
			if other := found[name]; other != "" {
				t.Errorf("%s stands in %s and in %s", name, other, path)
			}
			found[name] = path
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no failpoint in the source")
	}
	return slices.Sorted(maps.Keys(found))
}

var failpointBinary = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(filepath.Dir(binary), "router-failpoints")
	build := exec.Command("go", "build", "-trimpath", "-tags", "failpoints", "-o", bin, "./cmd/router")
	build.Dir = repo
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return bin, err
})

func buildWithFailpoints(t *testing.T) string {
	t.Helper()
	bin, err := failpointBinary()
	if err != nil {
		t.Fatalf("building the router with its failpoints: %v", err)
	}
	return bin
}

// rehearse plays the scene without a death and counts the hits of every point.
func rehearse(t *testing.T, bin string, env ...string) map[string]int {
	t.Helper()
	fv := startFachverfahren(t)
	trace := filepath.Join(t.TempDir(), "trace")
	r := newRouter(t, slices.Concat([]string{"WEICHE_FAILPOINT_TRACE=" + trace}, quickRetries, env)...)
	r.Binary = bin
	r.useFachverfahren(fv, true)
	s := newScene(t, r, fv, "rehearsal")
	s.start()
	s.play()
	time.Sleep(lateWork)
	s.check(time.Time{})
	r.Kill()
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	hits := map[string]int{}
	for name := range strings.FieldsSeq(string(b)) {
		hits[name]++
	}
	if t.Failed() {
		t.FailNow()
	}
	return hits
}

// lateWork is how long the router may take to cut what is finished: the work
// that follows a scene by itself.
const lateWork = 8 * time.Second

// scene is a small life with something of everything: three cases with four
// submissions each, of which one is refused at first, one is refused and then
// taken, one is refused and closed; three that die at one door and are redriven
// there as one job; attachments; one that has to be assigned; records on the
// portal's topic, good and bad. Whoever plays in it goes on until
// he has got what he came for, over the router's death.
type scene struct {
	t      *testing.T
	r      *router
	fv     *fachverfahren
	prefix string
	before account

	mu    sync.RWMutex // held for writing while the router is not there
	roles []*role
}

// role is one submission.
type role struct {
	key, id, caseID string
	body            []byte
	onTopic         bool
	rejected        bool // how it ends; otherwise it is delivered
	revision        int

	receipt string
	posts   int
}

const roleCount = 19

func newScene(t *testing.T, r *router, fv *fachverfahren, prefix string) *scene {
	return &scene{t: t, r: r, fv: fv, prefix: prefix}
}

// start starts the router, or says that it ended while starting.
func (s *scene) start() (died bool) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.r.start()
	if err != nil && !s.killed() {
		s.t.Fatal(err)
	}
	return err != nil
}

// killed says whether the router's process was ended by SIGKILL.
func (s *scene) killed() bool {
	select {
	case <-s.r.ended:
		w, ok := s.r.cmd.ProcessState.Sys().(syscall.WaitStatus)
		return ok && w.Signal() == syscall.SIGKILL
	default:
		return false
	}
}

// crash plays the scene once, with the router killed at a point; hit is false
// where it did not come there so often.
func (s *scene) crash(point string, nth int) (hit bool) {
	s.t.Helper()
	base := s.r.Env
	s.r.Env = append(slices.Clone(base), fmt.Sprintf("WEICHE_FAILPOINT=%s:%d", point, nth))
	defer func() { s.r.Env = base }()
	s.fv.Life(1)
	died := s.start()
	over := make(chan struct{})
	if !died {
		go func() { defer close(over); s.play() }()
		select {
		case <-s.r.ended:
		case <-over:
			select {
			case <-s.r.ended:
			case <-time.After(lateWork):
				s.t.Logf("%s was not hit %d times", point, nth)
				s.r.Kill()
				return false
			}
		}
	}
	if !s.killed() {
		s.t.Fatalf("the router ended by itself\n%s", tail(s.r.Log(), 4000))
	}
	killedAt := time.Now()
	s.r.Env = base
	s.fv.Quiet(s.t)
	s.fv.Life(2)
	if s.start() {
		s.t.Fatal("the router was killed although nothing asked for it")
	}
	if died {
		go func() { defer close(over); s.play() }()
	}
	<-over
	again, twice := s.check(killedAt)
	s.t.Logf("%s, hit %d: %d of %d posted again, %d deliveries came twice", point, nth, again, roleCount, twice)
	return true
}

// eachTry calls fn with a view of the router that runs now until it is done.
func (s *scene) eachTry(what string, fn func(r *router) (done bool, missing string)) {
	deadline := time.Now().Add(90 * time.Second)
	for {
		s.mu.RLock()
		r := &router{t: s.t, Binary: s.r.Binary, Data: s.r.Data, Config: s.r.Config, Env: s.r.Env, Public: s.r.Public, Ops: s.r.Ops, Kafka: s.r.Kafka, Keys: s.r.Keys}
		s.mu.RUnlock()
		done, missing := fn(r)
		if done {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%s: %s", what, missing)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *scene) cast(name, caseID string, with map[string]any) *role {
	key := s.prefix + "-" + name
	w := map[string]any{"region": "081150045045", "test": nil, "caseId": nil}
	if caseID != "" {
		w["caseId"] = caseID
	}
	maps.Copy(w, with)
	form := "minimal"
	if name == "attached" {
		form = "rich"
	}
	id := submission.NewID("service-bw", key)
	a := &role{key: key, id: id.String(), caseID: caseID, body: example(s.t, "gewerbeanmeldung", form, w), revision: 1}
	if caseID == "" {
		a.caseID = submission.NewCaseID(id).String()
	}
	s.roles = append(s.roles, a)
	return a
}

// play returns when everything has come to its end.
func (s *scene) play() {
	s.before = s.account()
	refuse := func(door string, _ int) int {
		if door == doorGewerbe {
			return 422
		}
		return 204
	}
	busy := func(door string, n int) int {
		if door == doorGewerbe && n <= 2 {
			return 503
		}
		return 204
	}
	var wg sync.WaitGroup
	var bulk []*role
	for c, m := range []mood{busy, refuse, refuse} {
		caseID := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s %d", s.prefix, c)).String()
		var list []*role
		for i := range 4 {
			a := s.cast(fmt.Sprintf("%d-%d", c, i), caseID, nil)
			before, special := "", mood(nil)
			if i > 0 {
				before = list[i-1].id
			}
			if i == 1 {
				special = m
			}
			s.fv.Expect(a.id, before, special)
			list = append(list, a)
		}
		list[1].rejected = c == 2
		wg.Go(func() {
			for _, a := range list {
				s.post(a)
			}
		})
		switch c {
		case 1:
			wg.Go(func() { s.redrive(list[1]) })
		case 2:
			wg.Go(func() { s.end(list[1]) })
		}
	}
	for i := range 3 {
		bulk = append(bulk, s.cast(fmt.Sprint("bulk-", i), uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s bulk %d", s.prefix, i)).String(), nil))
		s.fv.Expect(bulk[i].id, "", func(door string, _ int) int { return map[string]int{doorGewerbe: 204, doorArchiv: 422}[door] })
	}
	parked := s.cast("parked", bulk[0].caseID, nil)
	s.fv.Expect(parked.id, bulk[0].id, nil)
	attached := s.cast("attached", "", nil)
	assigned := s.cast("assigned", "", map[string]any{"region": "081150030030"})
	assigned.revision = 2
	onTopic := s.cast("topic", "", nil)
	onTopic.onTopic = true
	wg.Go(func() {
		for _, a := range append(bulk, parked) {
			s.post(a)
		}
		s.redriveAll(bulk)
	})
	wg.Go(func() { s.post(attached) })
	wg.Go(func() { s.post(assigned); s.assign(assigned) })
	wg.Go(func() { s.write(onTopic.key, onTopic.body) })
	wg.Go(func() { s.write(s.prefix+"-bad", []byte("{")); s.refused() })
	wg.Wait()
	s.ends()
	s.eachTry("the rebuild", func(r *router) (bool, string) { out, err := r.CLI("status", "rebuild"); return err == nil, out })
	s.ends()
}

// post posts until there is a receipt, which never changes.
func (s *scene) post(a *role) {
	s.eachTry("posting "+a.key, func(r *router) (bool, string) {
		a.posts++
		ans, err := r.Post("service-bw", a.key, a.body)
		if err != nil {
			return false, err.Error()
		}
		if ans.Status != 202 {
			return false, fmt.Sprintf("%d %s", ans.Status, ans.Body)
		}
		var acc accepted
		if err := json.Unmarshal(ans.Body, &acc); err != nil || acc.SubmissionID != a.id {
			s.t.Errorf("%s was answered %s", a.key, ans.Body)
		}
		if a.receipt != "" && a.receipt != acc.Receipt {
			s.t.Errorf("%s has two receipts", a.key)
		}
		a.receipt = acc.Receipt
		return true, ""
	})
}

// write writes to the portal's own topic until the broker has it.
func (s *scene) write(key string, body []byte) {
	s.eachTry("writing "+key, func(r *router) (bool, string) {
		b, closeBus, err := dial(r.Kafka)
		if err != nil {
			return false, err.Error()
		}
		defer closeBus()
		if err := b.Append(s.t.Context(), intakeRecord("service-bw", key, body)); err != nil {
			return false, err.Error()
		}
		return true, ""
	})
}

func (s *scene) refused() {
	s.eachTry("the refusal of a bad record", func(r *router) (bool, string) {
		out, _ := r.CLI("dlq", "list", "--state", "refused")
		return strings.Contains(out, "malformed"), out
	})
}

func (s *scene) assign(a *role) {
	s.eachTry("assigning", func(r *router) (bool, string) {
		out, err := r.CLI("assign", a.id, "sindelfingen-gewerbe")
		return err == nil || s.fv.Taken(doorGewerbe, a.id), out
	})
}

// dead waits until a submission is dead.
func (s *scene) dead(a *role) {
	s.eachTry("the death of "+a.key, func(r *router) (bool, string) {
		out, _ := r.CLI("dlq", "list")
		return strings.Contains(out, a.id), out
	})
}

func (s *scene) redrive(a *role) {
	s.dead(a)
	s.fv.Mend(a.id)
	s.eachTry("redriving "+a.key, func(r *router) (bool, string) {
		out, _ := r.CLI("dlq", "redrive", a.id, "--force")
		return s.fv.Taken(doorGewerbe, a.id), out
	})
}

// redriveAll redrives what is dead at the archive as one job, so slowly that each
// item is ordered by itself.
func (s *scene) redriveAll(list []*role) {
	for _, a := range list {
		s.dead(a)
		s.fv.Mend(a.id)
	}
	var v jobView
	s.eachTry("the preview of a job", func(r *router) (bool, string) {
		out, err := r.CLI("dlq", "--json", "redrive", "--preview", "--destination", doors[doorArchiv], "--reason", "refused")
		return err == nil && json.Unmarshal([]byte(out), &v) == nil, out
	})
	if v.Items != len(list) {
		s.t.Errorf("the preview is %+v", v)
	}
	s.eachTry("the job", func(r *router) (bool, string) {
		said, _ := r.CLI("dlq", "redrive", "--run", v.ID, "--rate", "4") // is refused once it was said
		out, err := r.CLI("dlq", "--json", "jobs", v.ID)
		return err == nil && json.Unmarshal([]byte(out), &v) == nil && v.State == "done" && v.Report.States["delivered"] == len(list), said + out
	})
	if v.Progress.Ordered != len(list) || v.Progress.Left != 0 {
		s.t.Errorf("the job tells of %+v", v)
	}
}

func (s *scene) end(a *role) {
	s.dead(a)
	s.fv.End(a.id)
	s.eachTry("closing "+a.key, func(r *router) (bool, string) {
		out, _ := r.CLI("dlq", "close", a.id, "--reason", "a test ends it")
		return r.State("service-bw", a.id) == "rejected", out
	})
}

// ends waits until the portal sees the end of every submission.
func (s *scene) ends() {
	for _, a := range s.roles {
		want := "delivered"
		if a.rejected {
			want = "rejected"
		}
		s.eachTry("the end of "+a.key, func(r *router) (bool, string) {
			state := r.State("service-bw", a.id)
			return state == want, state
		})
	}
}

func (s *scene) account() (acct account) {
	s.eachTry("the account", func(r *router) (bool, string) {
		out, err := r.CLI("status", "--json")
		return err == nil && json.Unmarshal([]byte(out), &acct) == nil, out
	})
	return acct
}

// check holds the outcome against what was promised. killedAt is zero where
// nobody was killed. It returns how many submissions were posted again and how
// many deliveries were taken twice.
func (s *scene) check(killedAt time.Time) (again, twice int) {
	t := s.t
	t.Helper()
	knocks := len(s.fv.Knocks())

	// Every key once more: the same receipt, and nothing comes of it.
	for _, a := range s.roles {
		if a.posts > 1 {
			again++
		}
		s.post(a)
	}
	acct := s.account()
	want := map[string]int{"delivered": s.before.States["delivered"] + roleCount - 1, "rejected": s.before.States["rejected"] + 1}
	for state, n := range acct.States {
		if n != want[state] {
			t.Errorf("%d are %s, want %d", n, state, want[state])
		}
	}
	if !acct.AddsUp || acct.Accepted != s.before.Accepted+roleCount {
		t.Errorf("the account: %+v, before the scene: %+v", acct, s.before)
	}
	s.eachTry("the rebuild", func(r *router) (bool, string) { out, err := r.CLI("status", "rebuild"); return err == nil, out })
	if rebuilt := s.account(); fmt.Sprint(rebuilt) != fmt.Sprint(acct) {
		t.Errorf("before the rebuild %+v, after it %+v", acct, rebuilt)
	}

	for _, a := range s.roles {
		for door, destination := range doors {
			if a.rejected && door == doorGewerbe {
				continue
			}
			if !s.fv.Taken(door, a.id) {
				t.Errorf("%s (%s) never arrived at %s", a.key, a.id, destination)
			}
		}
	}
	ours := map[string]*role{}
	for _, a := range s.roles {
		ours[a.id] = a
	}
	all := s.fv.Knocks()
	if len(all) != knocks {
		t.Errorf("%d more knocks after the repeats", len(all)-knocks)
	}
	for _, k := range all {
		a := ours[k.submission]
		if a == nil {
			continue // another scene's
		}
		if id := submission.NewDeliveryID(uuid.MustParse(a.id), doors[k.door], a.revision).String(); k.delivery != id {
			t.Errorf("%s came to %s as %s, not as %s", a.key, k.door, k.delivery, id)
		}
	}
	repeated := s.fv.takenTwice(t)
	maps.DeleteFunc(repeated, func(_ string, list []knock) bool { return ours[list[0].submission] == nil })
	s.explain(repeated, killedAt)
	return again, len(repeated)
}

// explain holds what was taken twice against the account: once in each life, and
// the first life has told no outcome. What was told is never repeated. There may be
// more of them than a destination's attempts at once: its slot is free for the next
// one while the outcome is being written.
func (s *scene) explain(repeated map[string][]knock, killedAt time.Time) {
	t := s.t
	t.Helper()
	told := map[string]bool{} // deliveries with an outcome that the first life told
	for _, ev := range s.events() {
		if ev.Type == submission.EventDelivered && ev.At.Before(killedAt) {
			told[ev.DeliveryID.String()] = true
		}
	}
	for id, list := range repeated {
		if len(list) != 2 || list[0].life != 1 || list[1].life != 2 || told[id] {
			t.Errorf("delivery %s was taken %d times, in lives %d and %d; its outcome was told before the death: %v",
				id, len(list), list[0].life, list[1].life, told[id])
		}
	}
}

// events reads the account from the log.
func (s *scene) events() (out []submission.Event) {
	b, closeBus, err := dial(s.r.Kafka)
	if err != nil {
		s.t.Fatal(err)
	}
	defer closeBus()
	readAll(s.t, b, "weiche.events", func(rec *bus.Record) {
		ev, err := submission.DecodeEvent(rec.Value)
		if err != nil {
			s.t.Errorf("an event cannot be read: %v", err)
		}
		out = append(out, ev)
	})
	return out
}
