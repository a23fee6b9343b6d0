package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

// A receiver is down for a while (a minute in `make soak`): others are not
// affected, what is meant for it arrives afterwards, in the order of its case,
// and nothing is dead.
func TestReceiverDown(t *testing.T) {
	down := 8 * time.Second
	if soak() {
		down = time.Minute
	}
	recv := startReceiver(t)
	r := newRouter(t)
	r.useReceiver(recv)
	r.editConfig("lands", func(_, text string) string { return strings.ReplaceAll(text, "probe: 5s", "probe: 1s") })
	r.Start()
	recv.Stop()

	caseID := uuid.NewString()
	var behind []string
	post := func(i int, region, caseID string) string {
		t.Helper()
		with := map[string]any{"region": region}
		if caseID != "" {
			with["caseId"] = caseID
		}
		return r.MustPost("service-bw", fmt.Sprintf("down-%s-%d", region, i), example(t, "gewerbeanmeldung", "minimal", with)).accepted(t).SubmissionID
	}
	began := time.Now()
	for i := range 5 {
		behind = append(behind, post(i, "081150045045", caseID))
	}
	for i := 0; time.Since(began) < down; i++ {
		id := post(i, "DE081150003003", "")
		eventually(t, 5*time.Second, func() (bool, string) { s := r.State("service-bw", id); return s == "delivered", s })
		time.Sleep(200 * time.Millisecond)
	}
	for _, id := range behind {
		if s := r.State("service-bw", id); s == "delivered" || s == "rejected" {
			t.Fatalf("%s is %s while its receiver is down", id, s)
		}
	}
	if out := r.MustCLI("destinations"); !strings.Contains(out, "paused: unreachable") {
		t.Errorf("no destination is shown as paused:\n%s", out)
	}
	recv.Start()
	for _, id := range behind {
		eventually(t, 15*time.Second, func() (bool, string) { s := r.State("service-bw", id); return s == "delivered", s })
	}
	if out := r.MustCLI("dlq", "list"); !strings.Contains(out, "nothing") {
		t.Errorf("dead letters:\n%s", out)
	}
	// The account tells the order: each was delivered after the one before.
	var last string
	for i, id := range behind {
		var s struct {
			Events []struct {
				Event struct {
					Type    string
					At      string
					Attempt int
				}
			}
		}
		if err := json.Unmarshal([]byte(r.MustCLI("trace", id, "--json")), &s); err != nil {
			t.Fatal(err)
		}
		for _, e := range s.Events {
			if e.Event.Type == "delivered" {
				if e.Event.At < last {
					t.Errorf("submission %d of the case was delivered at %s, before the one ahead of it (%s)", i, e.Event.At, last)
				}
				last = e.Event.At
				if e.Event.Attempt != 1 {
					t.Errorf("submission %d was delivered at attempt %d: what waits for a paused destination burns no attempt", i, e.Event.Attempt)
				}
			}
		}
	}
}

// A receiver's credential is changed before the router's: nothing is dead, the
// destination pauses, and everything arrives by itself once the file has the new
// one, in order and at the first attempt.
func TestCredentialChanged(t *testing.T) {
	fv := startFachverfahren(t)
	var want atomic.Pointer[string]
	ask := func(token string) { want.Store(&token) }
	var refusals atomic.Int64
	fv.guard = func(r *http.Request) int {
		if r.Header.Get("Authorization") != "Bearer "+*want.Load() {
			refusals.Add(1)
			return http.StatusUnauthorized
		}
		return http.StatusNoContent
	}
	r := newRouter(t)
	r.useFachverfahren(fv, false)
	r.editConfig("lands", func(_, text string) string {
		return strings.ReplaceAll(text, fv.URL+doorGewerbe+"\n", fv.URL+doorGewerbe+"\n      token_file: secrets/bearer\n")
	})
	file := filepath.Join(r.Data, "secrets", "bearer")
	rotate := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ask("first-token-7f3a")
	rotate("first-token-7f3a")
	r.Start()
	caseID := uuid.NewString()
	post := func(i int) string {
		t.Helper()
		return r.MustPost("service-bw", fmt.Sprintf("credential-%d", i), example(t, "gewerbeanmeldung", "minimal",
			map[string]any{"region": "081150045045", "caseId": caseID})).accepted(t).SubmissionID
	}
	delivered := func(id string) {
		t.Helper()
		eventually(t, 20*time.Second, func() (bool, string) { s := r.State("service-bw", id); return s == "delivered", s })
	}
	delivered(post(0))

	ask("second-token-7f3a")
	var waiting []string
	for i := range 5 {
		waiting = append(waiting, post(i+1))
	}
	eventually(t, 20*time.Second, func() (bool, string) { return refusals.Load() >= 3, fmt.Sprint(refusals.Load()) })
	if out := r.MustCLI("destinations"); !strings.Contains(out, "paused: unauthorized") {
		t.Errorf("the destination is not shown as paused:\n%s", out)
	}
	if out := r.MustCLI("dlq", "list"); !strings.Contains(out, "nothing") {
		t.Errorf("dead letters:\n%s", out)
	}
	rotate("second-token-7f3a")
	for _, id := range waiting {
		delivered(id)
	}
	var order []string
	for _, k := range fv.Knocks() {
		if k.status < 300 {
			order = append(order, k.submission)
		}
	}
	if !slices.Equal(order[1:], waiting) {
		t.Errorf("arrived as %v, accepted as %v", order[1:], waiting)
	}
	for _, id := range waiting {
		if out := r.MustCLI("trace", id); strings.Contains(out, "attempt 2") {
			t.Errorf("the refused credential burnt an attempt:\n%s", out)
		}
	}
	if strings.Contains(r.Log(), "token-7f3a") {
		t.Error("a token stands in the log")
	}
}

// nested is a form three million deep.
func nested() []byte {
	const deep = 3_000_000
	return fmt.Appendf(nil, `{"publicService":{"identifier":"%s"},"region":"%s","data":%s1%s}`, serviceTrade, regionBoeblngen,
		strings.Repeat("[", deep), strings.Repeat("]", deep))
}

// Bad submissions, posted and written straight to the intake topic: a clear
// error or a dead letter with its cause; the process lives; neighbours pass.
func TestBadSubmissions(t *testing.T) {
	r := newRouter(t)
	r.widenForm()
	r.Start()
	b := connect(t, r.Kafka)
	minimal := func(with map[string]any) []byte { return example(t, "gewerbeanmeldung", "minimal", with) }

	var whole map[string]any
	if err := json.Unmarshal(minimal(nil), &whole); err != nil {
		t.Fatal(err)
	}
	missing, cyrillic := clone(t, whole["data"]), clone(t, whole["data"])
	field := dropField(missing)
	replaceNames(cyrillic, "Иванов")

	refused := []struct {
		name    string
		body    []byte
		status  int
		reason  string
		pointer string
	}{
		{"a missing field", minimal(map[string]any{"data": missing}), 422, "form-invalid", "/data"},
		{"a Land not served", minimal(map[string]any{"region": "DE09162"}), 422, "land-not-served", "/region"},
		{"a form three million deep", nested(), 400, "too-deep", ""},
		{"no JSON", []byte("{"), 400, "malformed", ""},
		{"a form whose message its standard refuses", minimal(map[string]any{"data": cyrillic}), 422, "message-refused", "/data"},
	}
	for i, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			a := r.MustPost("service-bw", fmt.Sprintf("bad-%d", i), c.body)
			var p problem
			if err := json.Unmarshal(a.Body, &p); err != nil || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("not a problem document: %d %s %.200s", a.Status, a.Header.Get("Content-Type"), a.Body)
			}
			if !strings.HasSuffix(p.Type, "/"+c.reason) || a.Status < 400 || a.Status >= 500 || p.Detail == "" {
				t.Errorf("%d %+v, want %s", a.Status, p, c.reason)
			}
			if c.pointer != "" && (len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Pointer, c.pointer)) {
				t.Errorf("no pointer to %s in %+v", c.pointer, p.Errors)
			}
			// The same, straight to the intake topic.
			if err := b.Append(t.Context(), intakeRecord("service-bw", fmt.Sprintf("bad-topic-%d", i), c.body)); err != nil {
				t.Fatal(err)
			}
			eventually(t, 20*time.Second, func() (bool, string) {
				out := r.MustCLI("dlq", "list", "--state", "refused")
				return strings.Contains(out, c.reason), out
			})
		})
	}
	_ = field

	// While nobody is responsible there is no standard to try; whoever assigns it
	// learns that the authority's refuses it.
	t.Run("a message that its standard refuses", func(t *testing.T) {
		body := minimal(map[string]any{"data": cyrillic, "region": regionNobody})
		id := r.MustPost("service-bw", "xsd-http", body).accepted(t).SubmissionID
		if err := b.Append(t.Context(), intakeRecord("service-bw", "xsd-topic", body)); err != nil {
			t.Fatal(err)
		}
		other := submission.NewID("service-bw", "xsd-topic").String()
		for _, id := range []string{id, other} {
			eventually(t, 10*time.Second, func() (bool, string) {
				out := r.MustCLI("dlq", "list", "--state", "unassigned")
				return strings.Contains(out, id), out
			})
			r.MustCLI("assign", id, "boeblingen-gewerbe")
			eventually(t, 10*time.Second, func() (bool, string) {
				out := r.MustCLI("dlq", "list")
				return strings.Contains(out, id) && strings.Contains(out, "characters"), out
			})
			if out := r.MustCLI("trace", id); strings.Contains(out, "Иванов") || !strings.Contains(out, "line") {
				t.Errorf("the story should say where, and not what:\n%s", out)
			}
			if s := r.State("service-bw", id); s == "dead" || s == "rejected" {
				t.Errorf("to the portal a dead letter is still being processed; it was told %q", s)
			}
		}
		// Closing ends it as rejected.
		r.MustCLI("dlq", "close", id, "--reason", "letters outside the standard; the portal was told")
		eventually(t, 10*time.Second, func() (bool, string) { s := r.State("service-bw", id); return s == "rejected", s })
	})

	t.Run("neighbours pass", func(t *testing.T) {
		id := r.MustPost("service-bw", "neighbour", minimal(nil)).accepted(t).SubmissionID
		if err := b.Append(t.Context(), intakeRecord("service-bw", "neighbour-topic", minimal(nil))); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{id, submission.NewID("service-bw", "neighbour-topic").String()} {
			eventually(t, 20*time.Second, func() (bool, string) { s := r.State("service-bw", id); return s == "delivered", s })
		}
	})
	if a := r.account(); !a.AddsUp || a.Accepted != 4 {
		t.Errorf("four were accepted; the account says %+v", a)
	}
}

// intakeRecord is a CloudEvent in binary mode, as a portal writes it.
func intakeRecord(portal, id string, body []byte) *bus.Record {
	return &bus.Record{Topic: "weiche.intake." + portal, Partition: bus.AnyPartition, Key: []byte(id), Value: body, Headers: map[string]string{
		"ce_id": id, "ce_source": "/" + portal, "ce_type": "de.example.submission", "ce_specversion": "1.0", "content-type": "application/json"}}
}

func clone(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// dropField removes one member of the form; in the shipped minimal form every
// member is required.
func dropField(form map[string]any) string {
	names := make([]string, 0, len(form))
	for k := range form {
		names = append(names, k)
	}
	best := names[0]
	for _, n := range names {
		if n < best {
			best = n
		}
	}
	delete(form, best)
	return best
}

// replaceNames sets every text member whose name ends in "name".
func replaceNames(v any, to string) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if _, ok := x.(string); ok && strings.HasSuffix(strings.ToLower(k), "name") {
				v[k] = to
			} else {
				replaceNames(x, to)
			}
		}
	case []any:
		for _, x := range v {
			replaceNames(x, to)
		}
	}
}

// widenForm lets letters through the form of the Gewerbeanmeldung which the
// standard does not have, such as Cyrillic ones, and leaves them by name to the
// check of each message: that is what the XSD is there for.
func (r *router) widenForm() {
	r.editConfig("services/gewerbeanmeldung", func(path, text string) string {
		switch {
		case strings.HasSuffix(path, "form.schema.json"):
			return dropPatterns(r.t, text)
		case strings.HasSuffix(path, ".xml") && filepath.Base(filepath.Dir(path)) == "mappings":
			return regexp.MustCompile(` w:value=|><w:data`).ReplaceAllString(text, ` w:checked="the form says less than the standard"$0`)
		}
		return text
	})
}

// dropPatterns removes every pattern of a JSON Schema.
func dropPatterns(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if _, ok := v["pattern"].(string); ok {
				delete(v, "pattern")
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(v)
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The same Idempotency-Key twenty times at once to two replicas, with one body
// and with two: exactly one body is accepted, its repeats get the same receipt,
// the other is refused, and one submission arrives.
func TestOneKeyTwoReplicas(t *testing.T) {
	cluster := kafkatest.Start(t)
	keys, blobs := filepath.Join(t.TempDir(), "keys"), filepath.Join(t.TempDir(), "blobs")
	env := append(onKafka(cluster), "WEICHE_SEAL_DIR="+keys, "WEICHE_BLOBS_DIR="+blobs)
	a := newRouter(t, env...).Start()
	b := newRouter(t, env...)
	// Replicas share their portals' keys; the example keys lie in the data
	// directory of the first.
	if err := os.MkdirAll(b.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(a.Data, "example-keys.json"), filepath.Join(b.Data, "example-keys.json"))
	b.Start()

	bodies := [][]byte{example(t, "gewerbeanmeldung", "minimal", nil), example(t, "gewerbeanmeldung", "minimal", map[string]any{"trustLevel": "STORK-QAA-Level-4"})}
	accepted := 0
	for round, n := range []int{1, 2, 1, 2, 2, 2} {
		key := fmt.Sprintf("same-%d", round)
		answers := make([]answer, 20)
		which := make([]int, 20)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range answers {
			r := []*router{a, b}[i%2]
			which[i] = (i / 2) % n
			wg.Add(1)
			go func() {
				defer wg.Done()
				<-start
				ans, err := r.Post("service-bw", key, bodies[which[i]])
				if err != nil {
					t.Error(err)
				}
				answers[i] = ans
			}()
		}
		close(start)
		wg.Wait()
		won, receipt, id := -1, "", ""
		for i, ans := range answers {
			switch ans.Status {
			case http.StatusAccepted:
				acc := ans.accepted(t)
				if won == -1 {
					won, receipt, id = which[i], acc.Receipt, acc.SubmissionID
				}
				if which[i] != won || acc.Receipt != receipt {
					t.Errorf("round %d: body %d accepted beside body %d, same receipt: %v", round, which[i], won, acc.Receipt == receipt)
				}
			case http.StatusUnprocessableEntity:
				if !bytes.Contains(ans.Body, []byte("key-reused")) {
					t.Errorf("round %d: %s", round, ans.Body)
				}
			default:
				t.Errorf("round %d: %d %s", round, ans.Status, ans.Body)
			}
		}
		for i, ans := range answers {
			if want := map[bool]int{true: 202, false: 422}[which[i] == won]; ans.Status != want {
				t.Errorf("round %d: body %d got %d, want %d", round, which[i], ans.Status, want)
			}
		}
		accepted++
		eventually(t, 20*time.Second, func() (bool, string) { s := b.State("service-bw", id); return s == "delivered", s })
	}
	for _, r := range []*router{a, b} {
		eventually(t, 10*time.Second, func() (bool, string) {
			acc := r.account()
			return acc.Accepted == accepted && acc.States["delivered"] == accepted && acc.AddsUp, fmt.Sprintf("%+v", acc)
		})
	}
	files := 0
	for _, r := range []*router{a, b} {
		found, _ := filepath.Glob(filepath.Join(r.Data, "outbox/boeblingen-gewerbe/*.xml"))
		files += len(found)
	}
	if files != accepted {
		t.Errorf("%d submissions arrived, want %d", files, accepted)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
