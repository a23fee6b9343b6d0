package console_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/jobs"
	"weiche/internal/submission"
)

// sight foresees that everything goes to bb.
type sight struct{}

// Try implements jobs.Foresight.
func (sight) Try(context.Context, submission.Meta, []byte) jobs.Trial {
	return jobs.Trial{Destinations: []string{"bb"}}
}

// Door implements jobs.Foresight.
func (sight) Door(string) (configured, open bool) { return true, true }

// A job is about what its maker may see; who may not see all of it sees nothing
// of it; who may, runs, stops and resumes it, whoever made it.
func TestJobs(t *testing.T) {
	w := newWorld(t, 10*time.Second)
	w.owners()
	const all, land, view = "token-all", "token-bw", "token-view"
	w.dead("bw", "08")
	w.dead("sn", "14")
	preview := func(token string) (string, answer) {
		t.Helper()
		got := w.ask(token, "POST", "jobs", `{"kind":"redrive","filter":{"reason":"refused"}}`)
		if got.code != 201 || got.body["state"] != "previewed" {
			t.Fatalf("preview: %d %s", got.code, got.raw)
		}
		return got.body["id"].(string), got
	}
	both, got := preview(all)
	if got.body["items"] != 2.0 || !strings.Contains(got.raw, `"what":"attempt","to":"bb","count":1`) {
		t.Errorf("a preview of all Länder: %s", got.raw)
	}
	own, got := preview(land)
	if got.body["items"] != 1.0 || strings.Contains(got.raw, `"14"`) {
		t.Errorf("a preview of one Land: %s", got.raw)
	}
	for _, c := range []struct {
		token, method, path, body string
		want                      int
	}{
		{view, "POST", "jobs", `{"kind":"redrive"}`, 403}, {view, "POST", "jobs/" + both + "/run", "", 403}, {view, "GET", "jobs/" + both, "", 200},
		{land, "GET", "jobs/" + both, "", 404}, {land, "GET", "jobs/" + both + "/report", "", 404}, {land, "POST", "jobs/" + both + "/run", "", 404},
		{land, "POST", "jobs/" + both + "/stop", "", 404}, {all, "GET", "jobs/" + own, "", 200}, {all, "GET", "jobs/" + uuid.NewString(), "", 404},
		{all, "GET", "jobs/x", "", 400}, {all, "POST", "jobs", `{"kind":"delete"}`, 400}, {all, "POST", "jobs", `{"kind":"close"}`, 400},
		{all, "POST", "jobs", `{"kind":"redrive","filter":{"state":"delivered"}}`, 400}, {all, "POST", "jobs", `{"kind":"redrive","filter":{"land":"99"}}`, 400},
		{all, "POST", "jobs", `{"kind":"redrive","filter":{"older":"x"}}`, 400}, {all, "POST", "jobs", `{"kind":"redrive","filter":{"id":"x"}}`, 400},
		{all, "POST", "jobs", `{"kind":"reroute","authority":"a"}`, 400}, {all, "POST", "jobs", `{"kind":"reroute","filter":{"land":"08"}}`, 400},
		{all, "POST", "jobs", `{"kind":"reroute","authority":"nowhere","filter":{"land":"08"}}`, 422},
		{all, "POST", "jobs/" + both + "/run", `{"rate":-1}`, 400}, {all, "POST", "jobs/" + both + "/run", `{"rate":1e9}`, 400},
		{all, "POST", "jobs/" + both + "/stop", "", 409}, {all, "POST", "jobs/" + both + "/resume", "", 409},
	} {
		if got := w.ask(c.token, c.method, c.path, c.body); got.code != c.want {
			t.Errorf("%s %s %s with %q: %d %s, want %d", c.method, c.path, c.body, c.token, got.code, got.raw, c.want)
		}
	}
	for token, n := range map[string]int{all: 2, land: 1, view: 2} {
		if got := w.ask(token, "GET", "jobs", "").body["items"].([]any); len(got) != n {
			t.Errorf("%s sees %d jobs, want %d", token, len(got), n)
		}
	}

	// Another operator, who may see all of it, runs the Land's job.
	if got := w.ask(all, "POST", "jobs/"+own+"/run", `{"rate":50}`); got.code != 200 {
		t.Fatalf("run: %d %s", got.code, got.raw)
	}
	for {
		got = w.ask(land, "GET", "jobs/"+own, "")
		if got.body["state"] == "done" {
			break
		}
		if w.ctx.Err() != nil {
			t.Fatalf("the job is %s", got.raw)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if p := got.body["progress"].(map[string]any); p["ordered"] != 1.0 || p["left"] != 0.0 {
		t.Errorf("done: %s", got.raw)
	}
	if rep := w.ask(land, "GET", "jobs/"+own+"/report", ""); rep.code != 200 || !strings.Contains(rep.raw, `"dead":1`) {
		t.Errorf("the report: %d %s", rep.code, rep.raw)
	}
	if got := w.ask(land, "POST", "jobs/"+own+"/run", ""); got.code != 409 || !strings.HasSuffix(got.body["type"].(string), "/job-state") {
		t.Errorf("run twice: %d %s", got.code, got.raw)
	}
}
