package console_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/config"
	"weiche/internal/console"
	"weiche/internal/jobs"
	"weiche/internal/status"
	"weiche/internal/submission"
)

const partitions = 2

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// world is a log, a projection, the owners of the stages and the API before
// them.
type world struct {
	t         *testing.T
	ctx       context.Context
	log       *bus.Bus
	store     *status.Store
	projector *status.Projector
	ledger    *status.Ledger
	api       http.Handler
	logged    *buffer
	paused    *destinations
	forms     *forms
	epochs    map[submission.Stage][partitions]int64
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }
func (b *buffer) String() string              { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// destinations are two doors, one for each Land.
type destinations struct {
	mu   sync.Mutex
	list []console.Destination
}

func (d *destinations) Destinations() []console.Destination {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]console.Destination(nil), d.list...)
}

func (d *destinations) set(id string, fn func(*console.Destination)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.list {
		if d.list[i].ID == id {
			fn(&d.list[i])
			return true
		}
	}
	return false
}

func (d *destinations) Pause(_ context.Context, id, operator, note string, until time.Time) error {
	d.set(id, func(s *console.Destination) { s.Paused, s.PausedBy, s.Note, s.Until = true, operator, note, until })
	return nil
}

func (d *destinations) Resume(_ context.Context, id, _ string) error {
	d.set(id, func(s *console.Destination) { s.Paused, s.PausedBy = false, "" })
	return nil
}

func newWorld(t *testing.T, wait time.Duration) *world {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	broker, err := embedded.Start(t.TempDir(), embedded.Options{Partitions: partitions}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	cfg := bus.Config{Brokers: broker.Addrs(), Partitions: partitions, ReplicationFactor: 1, MinInSyncReplicas: 1}
	log, err := bus.Open(t.Context(), cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	if err := log.EnsureTopics(t.Context(), bus.Topics(cfg, nil)); err != nil {
		t.Fatal(err)
	}
	store, err := status.Open(filepath.Join(t.TempDir(), "status.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	w := &world{t: t, ctx: ctx, log: log, store: store, logged: &buffer{}, epochs: map[submission.Stage][partitions]int64{}}
	w.forms = &forms{}
	w.projector = status.NewProjector(store, status.Options{Log: log})
	w.ledger = status.NewLedger(store, log, nil)
	w.paused = &destinations{list: []console.Destination{{ID: "bb", Land: "08", Adapter: "file"}, {ID: "dd", Land: "14", Adapter: "http"}}}
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.projector.Run(ctx) })
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	all := []config.Right{config.RightView, config.RightOperate, config.RightPayload}
	operators := []config.Operator{
		{Name: "local", TokenSHA256: hash("token-all"), Rights: all},
		{Name: "frau-berg", TokenSHA256: hash("token-bw"), Rights: all, Lands: []submission.Land{"08"}},
		{Name: "anna", TokenSHA256: hash("token-anna"), Rights: all},
		{Name: "clerk", TokenSHA256: hash("token-clerk"), Rights: []config.Right{config.RightView, config.RightOperate}},
		{Name: "watcher", TokenSHA256: hash("token-view"), Rights: []config.Right{config.RightView}},
		{Name: "broken", TokenSHA256: "zz", Rights: all},
	}
	many := jobs.New(jobs.Options{Log: log, Store: store, Projector: w.projector, Foresight: sight{}, Owns: func() bool { return true }, Logger: quiet})
	wg.Go(func() { _ = many.Follow(ctx) })
	wg.Go(func() { _ = many.Run(ctx) })
	w.api = console.New(console.Options{
		Store: store, Projector: w.projector, Log: log, Destinations: w.paused, Wait: wait, Jobs: many,
		Operators: func() []config.Operator { return operators },
		SenderHashes: func(portal, ref string) []string {
			if portal != "" {
				return []string{hash(portal + ref)}
			}
			return []string{hash("service-bw" + ref), hash("amt24" + ref)}
		},
		Open: w.forms.open, Editor: w.forms, MaxForm: 2 << 20,
		Authority: func(_ submission.Land, id string) bool { return id != "nowhere" },
		Logger:    slog.New(slog.NewTextHandler(w.logged, nil)),
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) meta(key string, land submission.Land) submission.Meta {
	id := submission.NewID("service-bw", key)
	return submission.Meta{ID: id, CaseID: submission.NewCaseID(id), Portal: "service-bw", Land: land, Service: "99050012104000", Region: submission.Region(land),
		AcceptedAt: time.Now().UTC().Truncate(time.Millisecond), SHA512: "ab", Revision: 1, Append: uuid.New(), SenderHash: hash("service-bw" + key)}
}

func (w *world) partition(m submission.Meta) int32 {
	return w.log.PartitionOf([]byte(m.CaseID.String()), partitions)
}

func event(stage submission.Stage, t submission.EventType, m submission.Meta, parts ...string) submission.Event {
	return submission.Event{ID: submission.NewEventID(t, m.ID, parts...), Type: t, At: time.Now().UTC(), Stage: stage, Submission: m.ID,
		CaseID: m.CaseID, Portal: m.Portal, Land: m.Land, Service: m.Service, Revision: m.Revision}
}

func accepted(m submission.Meta) submission.Event {
	e := event(submission.StageDispatch, submission.EventAccepted, m)
	e.Accepted = &submission.Acceptance{Region: m.Region, AcceptedAt: m.AcceptedAt, SHA512: m.SHA512, Append: m.Append, SenderHash: m.SenderHash}
	return e
}

func decided(m submission.Meta, to string) submission.Event {
	e := event(submission.StageDispatch, submission.EventDecided, m, strconv.Itoa(m.Revision))
	e.Decision = &submission.Decision{Authority: submission.Authority{ID: "a"}, Rule: "rules.yaml:1", Deliveries: []submission.PlannedDelivery{{
		ID: submission.NewDeliveryID(m.ID, to, m.Revision), Destination: to, Adapter: "file", Format: submission.Format{Standard: "antrag", Version: "1.0", Message: "a"}}}}
	return e
}

// unassigned brings a submission to where dispatch holds it.
func (w *world) unassigned(key string, land submission.Land) submission.Meta {
	w.t.Helper()
	m := w.meta(key, land)
	held := &bus.Record{Topic: bus.TopicUnassigned, Partition: w.partition(m), Key: []byte(m.CaseID.String()), Value: []byte("sealed"), Headers: m.Headers(submission.TypeSubmission)}
	w.must(w.log.Append(w.ctx, held))
	e := event(submission.StageDispatch, submission.EventUnassigned, m, "1")
	e.Reason, e.Held = "no-authority", &submission.Held{Topic: held.Topic, Partition: held.Partition, Offset: held.Offset}
	w.must(w.ledger.Append(w.ctx, w.partition(m), accepted(m), e))
	w.must(w.projector.WaitAsked(w.ctx))
	return m
}

// dead brings a submission to where its delivery is dead.
func (w *world) dead(key string, land submission.Land) submission.Meta {
	w.t.Helper()
	m := w.meta(key, land)
	w.must(w.ledger.Append(w.ctx, w.partition(m), accepted(m), decided(m, "bb")))
	a, err := w.ledger.Account(w.ctx, m.ID)
	w.must(err)
	w.bury(a.DeliveryMeta(a.Deliveries[0]))
	w.must(w.projector.WaitAsked(w.ctx))
	return m
}

func (w *world) bury(d submission.DeliveryMeta, before ...submission.Event) {
	held := &bus.Record{Topic: bus.TopicDeadLetters, Partition: w.partition(d.Meta), Key: []byte(d.CaseID.String()), Value: []byte("sealed"), Headers: d.Headers(submission.TypeDelivery)}
	if err := w.log.Append(w.ctx, held); err != nil {
		w.t.Error(err)
		return
	}
	e := event(submission.StageDelivery, submission.EventDead, d.Meta, strconv.Itoa(d.Redrives))
	e.DeliveryID, e.Destination, e.Reason, e.Attempt, e.Redrive = d.DeliveryID, d.Destination, "refused", d.Attempts+1, d.Redrives
	e.Held = &submission.Held{Topic: held.Topic, Partition: held.Partition, Offset: held.Offset}
	if err := w.ledger.Append(w.ctx, w.partition(d.Meta), append(before, e)...); err != nil {
		w.t.Error(err)
	}
}

// owners carry out orders, as dispatch and delivery do: in line, from their own
// topics. A redriven delivery dies again.
func (w *world) owners() {
	for p := range int32(partitions) {
		go func() {
			_ = w.log.Tail(w.ctx, bus.TopicSubmissions, p, 0, func(r *bus.Record) error { return w.dispatch(r) })
		}()
		go func() {
			_ = w.log.Tail(w.ctx, bus.TopicDeliveries, p, 0, func(r *bus.Record) error { return w.deliver(r) })
		}()
	}
}

func (w *world) dispatch(r *bus.Record) error {
	m, err := submission.ParseMeta(r.Headers)
	if err != nil || m.Instruction == nil {
		w.t.Errorf("an order %v: %v", r.Headers, err)
		return nil
	}
	if r.Partition != w.partition(m) {
		w.t.Errorf("an order in partition %d of a case in %d", r.Partition, w.partition(m))
	}
	ins := m.Instruction
	if ins.Edit != nil || ins.Kind == submission.InstructLook {
		return w.desk(r, m)
	}
	if r.Headers[submission.HeaderType] == submission.TypeControl {
		e := event(submission.StageDispatch, submission.EventClosed, m, "1")
		e.Reason, e.Operator, e.Note = "operator", ins.Operator, ins.Reason
		if len(r.Value) != 0 {
			w.t.Error("a control record with a value")
		}
		return w.ledger.Append(w.ctx, r.Partition, e)
	}
	if string(r.Value) != "sealed" {
		w.t.Errorf("the held bytes became %q", r.Value)
	}
	e := event(submission.StageDispatch, submission.EventAssigned, m, strconv.Itoa(m.Revision))
	e.Operator, e.Note = ins.Operator, ins.Authority
	return w.ledger.Append(w.ctx, r.Partition, e, decided(m, "bb"))
}

func (w *world) deliver(r *bus.Record) error {
	d, err := submission.ParseDeliveryMeta(r.Headers)
	if err != nil || d.Instruction == nil {
		w.t.Errorf("an order %v: %v", r.Headers, err)
		return nil
	}
	ins := d.Instruction
	e := event(submission.StageDelivery, submission.EventRedriven, d.Meta, strconv.Itoa(d.Redrives))
	e.DeliveryID, e.Destination, e.Redrive, e.Operator = d.DeliveryID, d.Destination, d.Redrives, ins.Operator
	if r.Headers[submission.HeaderType] == submission.TypeControl {
		e.ID, e.Type, e.Reason, e.Note = submission.NewEventID(submission.EventClosed, d.DeliveryID), submission.EventClosed, "operator", ins.Reason
		return w.ledger.Append(w.ctx, r.Partition, e)
	}
	a, err := w.ledger.Account(w.ctx, d.ID)
	if err != nil {
		return err
	}
	d.Attempts = a.Delivery(d.DeliveryID).Attempts
	d.Instruction = nil
	w.bury(d, e)
	return nil
}

type answer struct {
	code   int
	header http.Header
	body   map[string]any
	raw    string
}

func (w *world) ask(token, method, path, body string) answer {
	w.t.Helper()
	req := httptest.NewRequest(method, "/api/v1/"+path, strings.NewReader(body)).WithContext(w.ctx)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, req)
	raw, err := io.ReadAll(rec.Body)
	w.must(err)
	out := answer{code: rec.Code, header: rec.Header(), raw: string(raw)}
	if err := json.Unmarshal(raw, &out.body); err != nil {
		w.t.Errorf("%s %s answers %s", method, path, raw)
	}
	if out.code >= 400 && (out.header.Get("Content-Type") != "application/problem+json" || !strings.HasPrefix(out.body["type"].(string), "https://weiche.example/problems/")) {
		w.t.Errorf("%s %s: no problem document: %s", method, path, raw)
	}
	return out
}

func TestRights(t *testing.T) {
	w := newWorld(t, 50*time.Millisecond)
	bw, sn := w.unassigned("bw", "08"), w.unassigned("sn", "14")
	const all, land, view = "token-all", "token-bw", "token-view"
	for _, c := range []struct {
		token, method, path, body string
		want                      int
	}{
		{"", "GET", "submissions", "", 401}, {"wrong", "GET", "submissions", "", 401}, {hash("token-all"), "GET", "submissions", "", 401},
		{all, "GET", "submissions", "", 200}, {land, "GET", "submissions", "", 200}, {view, "GET", "submissions", "", 200},
		{all, "GET", "submissions/" + sn.ID.String(), "", 200}, {land, "GET", "submissions/" + bw.ID.String(), "", 200},
		{land, "GET", "submissions/" + sn.ID.String(), "", 404}, {all, "GET", "submissions/" + uuid.NewString(), "", 404}, {all, "GET", "submissions/x", "", 400},
		{view, "POST", "submissions/" + bw.ID.String() + "/redrive", "{}", 403}, {view, "POST", "submissions/" + bw.ID.String() + "/close", `{"reason":"x"}`, 403},
		{view, "POST", "submissions/" + bw.ID.String() + "/assign", `{"authority":"a"}`, 403}, {view, "POST", "destinations/bb/pause", "", 403},
		{land, "POST", "submissions/" + sn.ID.String() + "/redrive", "{}", 404}, {land, "POST", "submissions/" + sn.ID.String() + "/close", `{"reason":"x"}`, 404},
		{land, "POST", "submissions/" + sn.ID.String() + "/assign", `{"authority":"a"}`, 404},
		{land, "POST", "destinations/dd/pause", "", 404}, {land, "POST", "destinations/bb/pause", `{"for":"30m"}`, 200}, {land, "POST", "destinations/bb/resume", "", 200},
		{land, "POST", "destinations/bb/pause", `{"for":"soon"}`, 400}, {all, "POST", "destinations/none/resume", "", 404},
		{land, "GET", "abandoned", "", 403}, {view, "GET", "abandoned?age=1h", "", 200}, {all, "GET", "abandoned?age=x", "", 400},
		{land, "POST", "status/rebuild", "", 403}, {view, "POST", "status/rebuild", "", 403}, {all, "POST", "status/rebuild", "", 200},
		{land, "GET", "status/checkpoints", "", 403}, {all, "GET", "status/checkpoints", "", 200},
		{land, "GET", "account", "", 200}, {land, "GET", "destinations", "", 200}, {land, "GET", "dead-letters", "", 200}, {land, "GET", "unassigned", "", 200}, {land, "GET", "refusals", "", 200},
		{all, "GET", "submissions?state=lost", "", 400}, {all, "GET", "submissions?land=99", "", 400}, {all, "GET", "submissions?service=1", "", 400},
		{all, "GET", "submissions?limit=0", "", 400}, {all, "GET", "submissions?after=x", "", 400}, {all, "GET", "submissions?case=x", "", 400},
		{all, "POST", "submissions/" + bw.ID.String() + "/close", "", 400}, {all, "POST", "submissions/" + bw.ID.String() + "/close", `{"reason":"a\nb"}`, 400},
		{all, "POST", "submissions/" + bw.ID.String() + "/close", `{"other":1}`, 400}, {all, "POST", "submissions/" + bw.ID.String() + "/close", `{"reason":"x"} {}`, 400},
		{all, "POST", "submissions/" + bw.ID.String() + "/assign", `{"authority":"nowhere"}`, 422},
		{all, "GET", "nothing", "", 404}, {all, "DELETE", "submissions", "", 405}, {all, "GET", "status/rebuild", "", 405},
	} {
		if got := w.ask(c.token, c.method, c.path, c.body); got.code != c.want {
			t.Errorf("%s %s %s with %q: %d %s, want %d", c.method, c.path, c.body, c.token, got.code, got.raw, c.want)
		}
	}
	// Lists show an operator the own Land only.
	for path, n := range map[string]int{"submissions": 1, "unassigned": 1, "destinations": 1} {
		if got := w.ask(land, "GET", path, "").body["items"].([]any); len(got) != n {
			t.Errorf("%s shows %d to an operator of one Land", path, len(got))
		}
		if got := w.ask(all, "GET", path, "").body["items"].([]any); len(got) != 2*n {
			t.Errorf("%s shows %d to an operator of all", path, len(got))
		}
	}
	if a := w.ask(land, "GET", "account", "").body; a["accepted"] != 1.0 || a["addsUp"] != true || a["abandoned"] != nil {
		t.Errorf("the account of one Land is %v", a)
	}
	if a := w.ask(all, "GET", "account", "").body; a["accepted"] != 2.0 || a["addsUp"] != true || a["abandoned"] != 0.0 {
		t.Errorf("the account is %v", a)
	}
	if got := w.ask(all, "GET", "submissions?sender_reference=bw", "").body["items"].([]any); len(got) != 1 {
		t.Errorf("by sender reference: %v", got)
	}
	if got := w.ask(all, "GET", "submissions?portal=amt24&sender_reference=bw", "").body["items"].([]any); len(got) != 0 {
		t.Errorf("by sender reference of another portal: %v", got)
	}
	if strings.Contains(w.logged.String(), "token-") {
		t.Error("a token stands in the log")
	}
	// Nobody has come to the orders: what was asked was told, not done.
	got := w.ask(all, "POST", "submissions/"+bw.ID.String()+"/assign", `{"authority":"a"}`)
	if got.code != 202 || got.body["state"] != "unassigned" {
		t.Errorf("an order that nobody carries out yet: %d %s", got.code, got.raw)
	}
}

func TestOrders(t *testing.T) {
	w := newWorld(t, 10*time.Second)
	w.owners()
	const all, land = "token-all", "token-bw"

	m := w.unassigned("to assign", "08")
	got := w.ask(land, "POST", "submissions/"+m.ID.String()+"/assign", `{"authority":"boeblingen"}`)
	if got.code != 200 || got.body["state"] != "in-flight" || got.body["dispatched"] != 2.0 || !strings.Contains(got.raw, `"operator":"frau-berg","note":"boeblingen"`) {
		t.Errorf("assign: %d %s", got.code, got.raw)
	}
	if got := w.ask(all, "POST", "submissions/"+m.ID.String()+"/assign", `{"authority":"boeblingen"}`); got.code != 409 {
		t.Errorf("assigned twice: %d", got.code)
	}
	if got := w.ask(all, "POST", "submissions/"+m.ID.String()+"/close", `{"reason":"x"}`); got.code != 409 {
		t.Errorf("closed in flight: %d", got.code)
	}

	m = w.unassigned("to close", "08")
	got = w.ask(all, "POST", "submissions/"+m.ID.String()+"/close", `{"reason":"posted twice"}`)
	if got.code != 200 || got.body["state"] != "rejected" || !strings.Contains(got.raw, "posted twice") {
		t.Errorf("close: %d %s", got.code, got.raw)
	}

	// Dead, redriven, dead again; the third time needs force.
	m = w.dead("to redrive", "08")
	path := "submissions/" + m.ID.String()
	if got := w.ask(all, "GET", "dead-letters?destination=bb&reason=refused&land=08", ""); got.code != 200 || len(got.body["items"].([]any)) != 1 {
		t.Errorf("dead letters are %v", got)
	}
	for i := 1; i <= 2; i++ {
		got = w.ask(land, "POST", path+"/redrive", "")
		if got.body["deliveries"] == nil {
			t.Fatalf("redrive %d: %d %s", i, got.code, got.raw)
		}
		d := got.body["deliveries"].([]any)[0].(map[string]any)
		if got.code != 200 || d["redrives"] != float64(i) || d["state"] != "dead" {
			t.Fatalf("redrive %d: %d %s", i, got.code, got.raw)
		}
	}
	if got = w.ask(land, "POST", path+"/redrive", "{}"); got.code != 409 || !strings.HasSuffix(got.body["type"].(string), "/redriven-often") {
		t.Errorf("the third redrive: %d %s", got.code, got.raw)
	}
	if got = w.ask(land, "POST", path+"/redrive", `{"force":true}`); got.code != 200 {
		t.Errorf("the third redrive, forced: %d %s", got.code, got.raw)
	}
	if got = w.ask(land, "POST", path+"/redrive", `{"deliveryId":"`+uuid.NewString()+`","force":true}`); got.code != 409 {
		t.Errorf("a redrive of no delivery: %d", got.code)
	}
	if got = w.ask(land, "POST", path+"/close", `{"reason":"withdrawn"}`); got.code != 200 || got.body["state"] != "rejected" {
		t.Errorf("close of a dead delivery: %d %s", got.code, got.raw)
	}
	if got = w.ask(land, "POST", path+"/redrive", `{"force":true}`); got.code != 409 {
		t.Errorf("a redrive after the end: %d", got.code)
	}
	// A dead delivery goes to another authority, or as a new message, one revision
	// higher; what has a living delivery does not.
	for deed, body := range map[string]string{"assign": `{"authority":"boeblingen"}`, "redrive": `{"asNew":true}`} {
		m = w.dead("to renew by "+deed, "08")
		if got := w.ask(land, "POST", "submissions/"+m.ID.String()+"/"+deed, body); got.code != 200 || got.body["dispatched"] != 2.0 || got.body["state"] != "in-flight" {
			t.Errorf("%s of a dead delivery: %d %s", deed, got.code, got.raw)
		}
		if got := w.ask(land, "POST", "submissions/"+m.ID.String()+"/"+deed, body); got.code != 409 {
			t.Errorf("%s of what is under way: %d", deed, got.code)
		}
	}
	// Deeds are in the audit log with the operator's name.
	for _, want := range []string{"operator=frau-berg deed=assign", "operator=local deed=close", "operator=frau-berg deed=redrive"} {
		if !strings.Contains(w.logged.String(), want) {
			t.Errorf("the audit log lacks %q", want)
		}
	}
	if a := w.ask(all, "GET", "account", "").body; a["accepted"] != 5.0 || a["addsUp"] != true {
		t.Errorf("the account is %v", a)
	}
}

// Dead letters are counted by what they have in common, within the asker's
// Länder, and every page of the counts comes.
func TestGroups(t *testing.T) {
	w := newWorld(t, time.Second)
	for _, key := range []string{"a", "b", "c"} {
		w.dead(key, "08")
	}
	w.dead("d", "14")
	w.unassigned("e", "14")
	counts := func(token, path string) map[string]float64 {
		t.Helper()
		out := map[string]float64{}
		for after := ""; ; {
			got := w.ask(token, "GET", path+"&limit=1&after="+after, "")
			if got.code != 200 {
				t.Fatalf("%s: %d %s", path, got.code, got.raw)
			}
			for _, i := range got.body["items"].([]any) {
				g := i.(map[string]any)
				out[g["key"].(string)] += g["count"].(float64)
			}
			next, _ := got.body["next"].(string)
			if next == "" {
				return out
			}
			after = url.QueryEscape(next)
		}
	}
	for path, want := range map[string]map[string]float64{
		"dead-letters/groups?by=cause":                   {"refused": 4},
		"dead-letters/groups?by=destination":             {"bb": 4},
		"dead-letters/groups?by=service&land=08":         {"99050012104000": 3},
		"dead-letters/groups?by=land":                    {"08": 3, "14": 1},
		"dead-letters/groups?by=age":                     {"under 1h": 4},
		"dead-letters/groups?by=land&older=1h":           {},
		"dead-letters/groups?by=cause&reason=gave-up":    {},
		"unassigned/groups?by=cause":                     {"no-authority": 1},
		"unassigned/groups?by=destination":               {"": 1},
		"unassigned/groups?by=destination&destination=x": {},
	} {
		if got := counts("token-all", path); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	if got := counts("token-bw", "dead-letters/groups?by=land"); !maps.Equal(got, map[string]float64{"08": 3}) {
		t.Errorf("an operator of one Land counts %v", got)
	}
	for _, path := range []string{"dead-letters/groups", "dead-letters/groups?by=id", "dead-letters?older=x"} {
		if got := w.ask("token-all", "GET", path, ""); got.code != 400 {
			t.Errorf("%s: %d", path, got.code)
		}
	}
}

// Payload is shown to who has the right, of what is held, for a reason; the account
// says who looked and why, the log who looked, and neither at what.
func TestPayload(t *testing.T) {
	w := newWorld(t, 10*time.Second)
	w.owners()
	held, dead, other := w.unassigned("held", "08"), w.dead("dead", "08"), w.dead("other", "14")
	path := func(m submission.Meta) string { return "submissions/" + m.ID.String() + "/payload?reason=a+call" }
	if got := w.ask("token-bw", "GET", "submissions/"+dead.ID.String()+"/payload", ""); got.code != 400 {
		t.Errorf("without a reason: %d", got.code)
	}
	if got := w.ask("token-view", "GET", path(dead), ""); got.code != 403 {
		t.Errorf("without the right: %d", got.code)
	}
	if got := w.ask("token-bw", "GET", path(other), ""); got.code != 404 {
		t.Errorf("of another Land: %d", got.code)
	}
	if strings.Contains(w.logged.String(), "audit=payload") {
		t.Error("a look that was refused is logged as one")
	}
	got := w.ask("token-bw", "GET", path(held), "")
	if got.code != 200 || !strings.Contains(got.raw, `"canary":1`) || len(got.body["messages"].([]any)) != 0 {
		t.Errorf("unassigned: %d %s", got.code, got.raw)
	}
	got = w.ask("token-bw", "GET", path(dead), "")
	if got.code != 200 || !strings.Contains(got.raw, `"xml":"sealed"`) || !strings.Contains(got.raw, `"destination":"bb"`) {
		t.Errorf("dead: %d %s", got.code, got.raw)
	}
	log := w.logged.String()
	if !strings.Contains(log, "audit=payload operator=frau-berg submission="+dead.ID.String()) || !strings.Contains(log, " at=") {
		t.Errorf("the log does not say who looked and when:\n%s", log)
	}
	if strings.Contains(log, "canary") || strings.Contains(log, "sealed") {
		t.Error("payload stands in the log")
	}
	told := w.ask("token-view", "GET", "submissions/"+dead.ID.String(), "")
	if told.body["looks"] != 1.0 || !strings.Contains(told.raw, `"type":"looked"`) || !strings.Contains(told.raw, `"operator":"frau-berg","note":"a call"`) {
		t.Errorf("the story does not say who looked and why: %s", told.raw)
	}
	m := w.meta("in flight", "08")
	w.must(w.ledger.Append(w.ctx, w.partition(m), accepted(m), decided(m, "bb")))
	if got := w.ask("token-all", "GET", path(m), ""); got.code != 409 {
		t.Errorf("in flight: %d", got.code)
	}
}

// Nothing is shown before the account says who looked.
func TestNoPayloadUntilTheLookIsTold(t *testing.T) {
	w := newWorld(t, 50*time.Millisecond) // and nobody carries orders out
	m := w.dead("dead", "08")
	got := w.ask("token-bw", "GET", "submissions/"+m.ID.String()+"/payload?reason=a+call", "")
	if got.code != 503 || got.header.Get("Retry-After") == "" || strings.Contains(got.raw, "canary") {
		t.Errorf("%d %s", got.code, got.raw)
	}
}

func rights(list []config.Right) (out []string) {
	for _, r := range list {
		out = append(out, string(r))
	}
	return out
}

func TestEveryRouteIsDescribed(t *testing.T) {
	doc, err := os.ReadFile("../../docs/reference/operators-api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range console.Routes() {
		who := strings.Join(rights(r.Rights), ", ")
		if r.AllLands {
			who += ", all Länder"
		}
		if row := "| `" + r.Method + " " + r.Path + "` | " + who + " |"; !strings.Contains(string(doc), row) {
			t.Errorf("the reference lacks %s", row)
		}
	}
}
