package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

// A redrive as a job on Apache Kafka with three routers: the one that runs it is
// killed with a third done, the one that takes it over is rolled with two thirds
// done. Exactly the previewed ones arrive, each under its one delivery id and
// before what stands behind it in its case; the job ends, and its report and the
// account add up on every router. Then a dead letter is deleted from the topic,
// and the account by the topics says which.
func TestRedriveJobOverReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	n, rate, hands := 150, 25, 16
	if soak() {
		n, rate = 10_000, 500
	}
	fv := startFachverfahren(t)
	routers := startReplicas(t, fv, binary, "WEICHE_DELIVERY_DEAD_RATIO=0", fmt.Sprint("WEICHE_DELIVERY_IN_FLIGHT=", hands))
	a := routers[0]

	// Of every third case two more submissions wait behind the dead first one.
	var mu sync.Mutex
	var dead, behind, late []string
	post := func(key string, caseID uuid.UUID, before string, m mood) string {
		id := submission.NewID("service-bw", key).String()
		fv.Expect(id, before, m)
		ans, err := a.Post("service-bw", key, example(t, "gewerbeanmeldung", "minimal",
			map[string]any{"caseId": caseID.String(), "region": "081150045045", "test": nil}))
		if err != nil || ans.Status != 202 {
			t.Errorf("posting %s: %v %s", key, err, ans.Body)
		}
		return id
	}
	never := func(string, int) int { return 422 }
	oneCase := func(i int) {
		caseID := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "case %d", i))
		list := []string{post(fmt.Sprint("dead-", i), caseID, "", never)}
		for k := range 2 {
			if i%3 == 0 {
				list = append(list, post(fmt.Sprintf("behind-%d-%d", i, k), caseID, list[k], nil))
			}
		}
		mu.Lock()
		defer mu.Unlock()
		dead, behind = append(dead, list[0]), append(behind, list[1:]...)
	}
	var portals sync.WaitGroup
	for from := range 16 {
		portals.Go(func() {
			for i := from; i < n; i += 16 {
				oneCase(i)
			}
		})
	}
	portals.Wait()
	patience := time.Duration(n)*50*time.Millisecond + 2*time.Minute
	a.dead(t, n, patience)
	preview := a.job(t, "redrive", "--preview", "--destination", doors[doorGewerbe], "--reason", "refused")
	if preview.Items != n {
		t.Fatalf("the preview is %+v", preview)
	}
	for i := range 3 {
		late = append(late, post(fmt.Sprint("late-", i), uuid.New(), "", never))
	}
	a.dead(t, n+len(late), time.Minute)
	for _, id := range dead {
		fv.Mend(id)
	}
	knocked := fv.knocksOf(late)

	reaches := func(count int) {
		t.Helper()
		eventually(t, patience, func() (bool, string) { k := fv.takenOf(dead); return k >= count, fmt.Sprint(k, " of ", count) })
	}
	// Who runs the job counts what it orders.
	runner := func(not *router) (found *router) {
		t.Helper()
		eventually(t, patience, func() (bool, string) {
			for _, r := range routers {
				if r != not && r.sum("weiche_jobs_items_total") > 0 {
					found = r
				}
			}
			return found != nil, "no router orders anything"
		})
		return found
	}
	fv.Life(1)
	a.job(t, "redrive", "--run", preview.ID, "--rate", fmt.Sprint(rate))
	reaches(n / 3)
	first := runner(nil)
	first.Kill()
	if k := fv.takenOf(dead); k >= n {
		t.Fatalf("all %d had arrived when the router was killed", k)
	}
	fv.Life(2)
	reaches(n * 2 / 3)
	second := runner(first)
	second.Stop()
	atStop := fv.takenOf(dead)
	fv.Life(3)
	second.Start()
	first.Start()
	for i, r := range routers {
		eventually(t, patience, func() (bool, string) {
			v := r.job(t, "jobs", preview.ID)
			return v.State == "done" && v.Report.States["delivered"] == n && v.Progress.Ordered == n && v.Progress.Left == 0, fmt.Sprintf("router %d: %+v", i, v)
		})
		eventually(t, time.Minute, func() (bool, string) {
			acct := r.account()
			return acct.AddsUp && acct.States["delivered"] == n+len(behind) && acct.States["dead"] == len(late), fmt.Sprintf("router %d: %+v", i, acct)
		})
	}
	a.MustCLI("reconcile", "--from-topics")

	for _, id := range append(dead, behind...) {
		if !fv.Taken(doorGewerbe, id) {
			t.Errorf("%s never arrived", id)
		}
	}
	if fv.takenOf(late) != 0 || fv.knocksOf(late) != knocked {
		t.Error("what died after the preview was attempted again")
	}
	for _, k := range fv.Knocks() {
		if want := submission.NewDeliveryID(uuid.MustParse(k.submission), doors[k.door], 1).String(); k.delivery != want {
			t.Errorf("%s came as %s, not as %s", k.submission, k.delivery, want)
		}
	}
	// Twice comes only what was in a router's hands when it died or its partitions went over.
	twice := fv.takenTwice(t)
	if len(twice) > 2*hands {
		t.Errorf("%d came twice", len(twice))
	}
	lost := loseDeadLetter(t, a, late)
	if out, err := a.CLI("reconcile", "--from-topics"); err == nil || !strings.Contains(out, lost) || !strings.Contains(out, "a difference of 1,") {
		t.Errorf("a dead letter is gone, and the account says %v\n%s", err, out)
	}
	t.Logf("%d redriven over a death and a roll (at %d), %d of them twice under one id", n, atStop, len(twice))
}

// loseDeadLetter deletes the record of one of these submissions from the topic,
// with everything before it in its partition, and returns which.
func loseDeadLetter(t *testing.T, r *router, of []string) (lost string) {
	t.Helper()
	oldest := map[int32]int64{} // of one of them, by partition
	ids := map[int32]string{}
	readAll(t, connect(t, r.Kafka), bus.TopicDeadLetters, func(rec *bus.Record) {
		id := rec.Headers[submission.HeaderSubject]
		if _, known := oldest[rec.Partition]; !known && slices.Contains(of, id) {
			oldest[rec.Partition], ids[rec.Partition] = rec.Offset, id
		}
	})
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	admin, err := sarama.NewClusterAdmin(r.Kafka, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	for p, offset := range oldest {
		if err := admin.DeleteRecords(bus.TopicDeadLetters, map[int32]int64{p: offset + 1}); err != nil {
			t.Fatal(err)
		}
		return ids[p]
	}
	t.Fatal("no dead letter is there")
	return ""
}

// startReplicas starts three routers of a build on one Apache Kafka, with the
// same keys, blobs and portals.
func startReplicas(t *testing.T, fv *fachverfahren, bin string, env ...string) (routers [3]*router) {
	t.Helper()
	env = append(append(onKafka(kafkatest.Start(t)), "WEICHE_SEAL_DIR="+filepath.Join(t.TempDir(), "keys"), "WEICHE_BLOBS_DIR="+filepath.Join(t.TempDir(), "blobs")), env...)
	for i := range routers {
		r := newRouter(t, env...)
		r.Binary = bin
		r.useFachverfahren(fv, false)
		if i > 0 {
			if err := os.MkdirAll(r.Data, 0o700); err != nil {
				t.Fatal(err)
			}
			copyFile(t, filepath.Join(routers[0].Data, "example-keys.json"), filepath.Join(r.Data, "example-keys.json"))
		}
		routers[i] = r.Start()
	}
	return routers
}
