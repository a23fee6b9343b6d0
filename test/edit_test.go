package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// editView is what the tests read of `router trace ID --json`.
type editView struct {
	State      string
	Dispatched int
	Looks      int
	Deliveries []struct {
		ID       uuid.UUID
		Revision int
	}
	Edits []struct {
		ID, State, Operator, Reason, By, Word, Cause string
		Fields                                       []string
	}
	Events []struct {
		Effective bool
		Event     struct{ Type, Operator, Note string }
	}
}

func (r *router) story(t *testing.T, id string) (v editView) {
	t.Helper()
	out := r.MustCLI("trace", id, "--json")
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err, out)
	}
	return v
}

// told counts the events of a kind that took effect.
func (v editView) told(kind string) (n int) {
	for _, e := range v.Events {
		if e.Effective && e.Event.Type == kind {
			n++
		}
	}
	return n
}

// as runs the command line as one of the named operators.
func (r *router) as(operator string, args ...string) (string, error) {
	os.Setenv("WEICHE_OPERATOR_TOKEN", operator+"'s token")
	defer os.Unsetenv("WEICHE_OPERATOR_TOKEN")
	return r.CLI(args...)
}

// dying starts the router so that it dies at a boundary.
func (r *router) dying(point string) {
	r.t.Helper()
	r.Stop()
	r.Env = append(slices.DeleteFunc(r.Env, func(kv string) bool { return strings.HasPrefix(kv, "WEICHE_FAILPOINT=") }), "WEICHE_FAILPOINT="+point)
	r.Start()
}

// living waits until it has died, and starts it without that.
func (r *router) living() {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		r.t.Fatal("the router was to die")
	}
	r.Env = slices.DeleteFunc(r.Env, func(kv string) bool { return strings.HasPrefix(kv, "WEICHE_FAILPOINT=") })
	r.Start()
}

// A Fachverfahren refuses a message. An operator edits the form, another one
// approves it, and the router dies between each order and its effect: the edit is
// proposed once, takes effect once, and arrives under an id of its own in its place
// of the case. The story says who did what and why; the words that were edited
// stand nowhere in plain text.
func TestEditOverDeaths(t *testing.T) {
	const before, after = "Qxbefore7Strasse", "Qxafter7Strasse"
	fv := startFachverfahren(t)
	r := newRouter(t, quickRetries...)
	r.Binary = buildWithFailpoints(t)
	r.useFachverfahren(fv, false)
	r.addOperator("anna", "anna's token")
	r.addOperator("bert", "bert's token")
	r.editConfig("lands", func(path, text string) string {
		if filepath.Base(path) != "land.yaml" || !strings.Contains(text, "land: \"08\"") {
			return text
		}
		return text + "\nedits: {second_operator: true, expire: 1h}\n"
	})
	r.Start()

	caseID := uuid.New()
	post := func(key, street string) string {
		body := bytes.ReplaceAll(example(t, "gewerbeanmeldung", "minimal", map[string]any{"caseId": caseID.String(), "region": "081150045045"}), []byte("Poststraße"), []byte(street))
		id := submission.NewID("service-bw", key).String()
		if a := r.MustPost("service-bw", key, body); a.Status != http.StatusAccepted {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		return id
	}
	first := submission.NewID("service-bw", "first").String()
	fv.Expect(first, "", func(_ string, n int) int {
		if n == 1 {
			return http.StatusUnprocessableEntity
		}
		return http.StatusNoContent
	})
	post("first", before)
	r.dead(t, 1, time.Minute)
	second := submission.NewID("service-bw", "second").String()
	fv.Expect(second, first, nil)
	post("second", "Hauptgasse")
	eventually(t, time.Minute, func() (bool, string) { v := r.story(t, second); return v.State == "waiting", v.State })

	form := func() string {
		out, err := r.as("anna", "dlq", "show", first, "--payload", "--reason", "a call of the office")
		var p struct {
			Envelope struct{ Data json.RawMessage }
		}
		if err != nil || json.Unmarshal([]byte(out), &p) != nil {
			t.Fatal(err, out)
		}
		file := filepath.Join(t.TempDir(), "form.json")
		if err := os.WriteFile(file, bytes.ReplaceAll(p.Envelope.Data, []byte(before), []byte(after)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}()
	edit := []string{"dlq", "edit", first, "--file", form, "--reason", "street was misspelt", "--yes"}

	// The look at the form is told first, then comes the proposal: the router dies
	// before that is told.
	r.dying("dispatch.decided:2")
	_, _ = r.as("anna", edit...) // who gets no answer
	r.living()
	proposed := func(n int) (id string) {
		t.Helper()
		eventually(t, time.Minute, func() (bool, string) {
			v := r.story(t, first)
			if len(v.Edits) == n {
				id = v.Edits[n-1].ID
			}
			return len(v.Edits) == n && v.Edits[n-1].State == "proposed" && v.State == "dead" && v.told("proposed") == n, fmt.Sprintf("%+v", v.Edits)
		})
		return id
	}
	id := proposed(1)
	if out, err := r.as("anna", edit...); err == nil || !strings.Contains(out, "waits for a second operator") {
		t.Errorf("a second proposal: %v %s", err, out)
	}
	if out, err := r.as("anna", "dlq", "approve", first, id, "--reason", "mine"); err == nil || !strings.Contains(out, "cannot approve") {
		t.Errorf("approved by who proposed it: %v %s", err, out)
	}
	if out, err := r.CLI("dlq", "approve", first, id, "--reason", "mine"); err == nil || !strings.Contains(out, "neither of the two") {
		t.Errorf("approved by nobody by name: %v %s", err, out)
	}
	if out, err := r.as("bert", "dlq", "reject", first, id, "--reason", "not like that"); err != nil || !strings.Contains(out, "rejected by bert") {
		t.Errorf("rejected: %v %s", err, out)
	}
	// Once more; now it dies when it is told, before that is acknowledged.
	r.dying("dispatch.told:2")
	_, _ = r.as("anna", edit...)
	r.living()
	id = proposed(2)
	if out := r.MustCLI("dlq", "proposals"); !strings.Contains(out, id) || !strings.Contains(out, "/betrieb/anschrift/strasse") {
		t.Errorf("the list of proposals: %s", out)
	}
	out, err := r.as("bert", "dlq", "diff", first, id, "--reason", "to approve it")
	if err != nil || !strings.Contains(out, `- "`+before+`"`) || !strings.Contains(out, `+ "`+after+`"`) {
		t.Errorf("the difference: %v %s", err, out)
	}

	// Approved, it dies before that is told; and again once it is told, before the
	// delivery is appended. The order stands in the log and is carried out once.
	r.dying("dispatch.decided:1")
	_, _ = r.as("bert", "dlq", "approve", first, id, "--reason", "as the office says")
	r.Env = slices.DeleteFunc(r.Env, func(kv string) bool { return strings.HasPrefix(kv, "WEICHE_FAILPOINT=") })
	<-r.ended
	r.Env = append(r.Env, "WEICHE_FAILPOINT=dispatch.told:1")
	_ = r.start() // it may die before it is ready
	r.living()
	for _, id := range []string{first, second} {
		eventually(t, time.Minute, func() (bool, string) { v := r.story(t, id); return v.State == "delivered", v.State })
	}
	v := r.story(t, first)
	e := v.Edits[1]
	if v.Dispatched != 2 || e.State != "done" || e.Operator != "anna" || e.By != "bert" || e.Word != "as the office says" || !slices.Equal(e.Fields, []string{"/betrieb/anschrift/strasse"}) ||
		v.told("edited") != 1 || v.told("decided") != 2 || v.told("declined") != 1 || v.Looks < 4 {
		t.Errorf("%+v", v)
	}
	var ids []string
	for _, k := range fv.Knocks() {
		if k.submission == first {
			ids = append(ids, k.delivery)
		}
	}
	old := submission.NewDeliveryID(uuid.MustParse(first), "08-sindelfingen-gewerbe", 1).String()
	if len(ids) != 2 || ids[0] != old || ids[1] != v.Deliveries[0].ID.String() || ids[1] == old || v.Deliveries[0].Revision != 2 {
		t.Errorf("it came as %v, the account says %+v", ids, v.Deliveries)
	}
	fv.mu.Lock()
	for _, w := range fv.wrong {
		t.Error(w)
	}
	fv.mu.Unlock()

	// A rebuild of the account comes to the same; what was edited is still there,
	// for who may read it.
	r.MustCLI("status", "rebuild")
	if again := r.story(t, first); fmt.Sprint(again.Edits) != fmt.Sprint(v.Edits) || again.Looks != v.Looks {
		t.Errorf("rebuilt: %+v", again.Edits)
	}
	if out, err := r.as("bert", "dlq", "diff", first, id, "--reason", "audit"); err != nil || !strings.Contains(out, before) {
		t.Errorf("the original after the delivery: %v %s", err, out)
	}
	trace := r.MustCLI("trace", first)
	for _, want := range []string{"approved by bert", "street was misspelt", "/betrieb/anschrift/strasse", "looked", "revision 2 in place of 1", "by anna"} {
		if !strings.Contains(trace, want) {
			t.Errorf("the story lacks %q:\n%s", want, trace)
		}
	}
	if a := r.account(); !a.AddsUp || a.States["delivered"] != 2 {
		t.Errorf("%+v", a)
	}
	r.nowhere(t, first, before, after)
}

// nowhere looks for words of a form where none may stand: in what the router keeps
// and logs, in its metrics, and in what it tells about the submission.
func (r *router) nowhere(t *testing.T, id string, words ...string) {
	t.Helper()
	look := func(where string, b []byte) {
		for _, w := range words {
			if bytes.Contains(b, []byte(w)) {
				t.Errorf("%s has a word of the form", where)
			}
		}
	}
	for _, path := range []string{"/metrics", "/api/v1/submissions/" + id, "/api/v1/proposals", "/api/v1/dead-letters"} {
		req, err := http.NewRequest("GET", r.Ops+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := os.ReadFile(filepath.Join(r.Data, "operator.token"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(path, res.Status, err)
		}
		look(path, b)
	}
	r.Stop()
	r.mu.Lock()
	var log []string
	for line := range strings.Lines(r.log.String()) {
		if strings.HasPrefix(line, "{") { // the router's; the others are what commands printed for their operators
			log = append(log, line)
		}
	}
	r.mu.Unlock()
	look("the log", []byte(strings.Join(log, "")))
	err := filepath.WalkDir(r.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		look(path, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
