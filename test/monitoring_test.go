package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// stubborn is a Fachverfahren that answers everything with one status and says
// back what it was sent, in its answer's body and headers. It stands for the
// worst of the real ones.
type stubborn struct {
	Addr   string
	Status atomic.Int64
	Taken  atomic.Int64 // requests answered
}

func startStubborn(t *testing.T, status int) *stubborn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stubborn{Addr: l.Addr().String()}
	s.Status.Store(int64(status))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		said := regexp.MustCompile(`[^ -~]+`).ReplaceAllString(string(b), " ")
		for _, h := range []string{"Location", "WWW-Authenticate", "Retry-After", "X-Error", "Warning"} {
			w.Header().Set(h, said[:min(len(said), 4000)])
		}
		w.WriteHeader(int(s.Status.Load()))
		w.Write(b)
		s.Taken.Add(1)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return s
}

// useStubborn points the configuration's HTTP destinations to it.
func (r *router) useStubborn(s *stubborn) {
	r.t.Helper()
	r.editConfig("lands", func(_, text string) string { return strings.ReplaceAll(text, "127.0.0.1:8090", s.Addr) })
	secret := filepath.Join(r.Data, "secrets/receiver.key")
	if err := os.MkdirAll(filepath.Dir(secret), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("whsec_c3R1YmJvcm4tYnV0LWxvbmctZW5vdWdoLWZvci1hLWtleQ==\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// monitor is a Prometheus in a process of its own.
type monitor struct {
	t   *testing.T
	URL string
}

var promListens = regexp.MustCompile(`Listening on.*address=(127\.0\.0\.1:[0-9]+)`)

// startPrometheus starts Debian's Prometheus with a configuration file.
func startPrometheus(t *testing.T, config string) *monitor {
	t.Helper()
	needCommand(t, "prometheus")
	cmd := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(t.TempDir(), "tsdb"), "--web.listen-address=127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr := make(chan string, 1)
	var mu sync.Mutex
	var said bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			mu.Lock()
			said.WriteString(s.Text() + "\n")
			mu.Unlock()
			if m := promListens.FindStringSubmatch(s.Text()); m != nil {
				select {
				case addr <- m[1]:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		_ = cmd.Wait()
		if t.Failed() {
			t.Log("Prometheus said:\n" + tail(said.String(), 4000))
		}
	})
	p := &monitor{t: t}
	select {
	case a := <-addr:
		p.URL = "http://" + a
	case <-read:
		t.Fatal("Prometheus ended while starting")
	case <-time.After(30 * time.Second):
		t.Fatal("Prometheus did not say where it listens")
	}
	eventually(t, 20*time.Second, func() (bool, string) {
		res, err := client.Get(p.URL + "/-/ready")
		if err != nil {
			return false, err.Error()
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK, res.Status
	})
	return p
}

// api asks Prometheus's API and decodes what it says under data.
func (p *monitor) api(path string, into any) error {
	res, err := client.Get(p.URL + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var v struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return err
	}
	if v.Status != "success" {
		return fmt.Errorf("%s", v.Error)
	}
	return json.Unmarshal(v.Data, into)
}

type sample struct {
	Metric map[string]string
	Value  float64
	NaN    bool
}

// query runs an instant query.
func (p *monitor) query(expr string) ([]sample, error) {
	var v struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.api("/api/v1/query?query="+url.QueryEscape(expr), &v); err != nil {
		return nil, err
	}
	var out []sample
	for _, r := range v.Result {
		text, _ := r.Value[1].(string)
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, sample{r.Metric, f, f != f})
	}
	return out, nil
}

// up waits until a job's target has been scraped.
func (p *monitor) up(job string) {
	p.t.Helper()
	eventually(p.t, 30*time.Second, func() (bool, string) {
		got, err := p.query(fmt.Sprintf("up{job=%q}", job))
		return err == nil && len(got) == 1 && got[0].Value == 1, fmt.Sprintf("up is %v %v", got, err)
	})
}

// rules is monitoring/rules/weiche.yml.
type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
}

func readRules(t *testing.T) rules {
	t.Helper()
	var v rules
	readYAML(t, filepath.Join(repo, "monitoring/rules/weiche.yml"), &v)
	return v
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// panel is one panel of the dashboard.
type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource struct{ UID, Type string }
	GridPos    struct{ X, Y, W, H int }
	Targets    []struct {
		RefID      string
		Expr       string
		Datasource struct{ UID string }
	}
	Panels []panel
}

type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Panels        []panel
	Templating    struct {
		List []struct {
			Name, Type, Definition, AllValue string
			IncludeAll                       bool
			Datasource                       struct{ UID string }
		}
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	b, err := os.ReadFile(filepath.Join(repo, "monitoring/grafana/dashboards/weiche.json"))
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// withLand is a panel's query as Grafana sends it while every Land is chosen.
func withLand(expr string) string { return strings.ReplaceAll(expr, "$land", ".*") }

// The rules are sound, their tests pass, every alert is tested both ways and
// has its runbook, whose commands exist.
func TestAlertRules(t *testing.T) {
	needCommand(t, "promtool")
	dir := filepath.Join(repo, "monitoring")
	for _, args := range [][]string{{"check", "rules", "rules/weiche.yml"}, {"test", "rules", "rules_test/weiche_test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = dir
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, b)
		}
	}
	var tests struct {
		Tests []struct {
			Cases []struct {
				Alertname string `yaml:"alertname"`
				Expected  []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, filepath.Join(dir, "rules_test/weiche_test.yml"), &tests)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, tt := range tests.Tests {
		for _, c := range tt.Cases {
			if len(c.Expected) > 0 {
				fires[c.Alertname] = true
			} else {
				silent[c.Alertname] = true
			}
		}
	}
	runbooks := map[string]bool{}
	found, _ := filepath.Glob(filepath.Join(repo, "docs/runbooks/*.md"))
	for _, f := range found {
		runbooks[strings.TrimSuffix(filepath.Base(f), ".md")] = true
	}
	seen := map[string]bool{}
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			switch {
			case seen[r.Alert]:
				t.Errorf("%s stands twice", r.Alert)
			case !fires[r.Alert] || !silent[r.Alert]:
				t.Errorf("%s is not tested both ways: fires %v, stays silent %v", r.Alert, fires[r.Alert], silent[r.Alert])
			case !runbooks[r.Alert]:
				t.Errorf("%s has no runbook", r.Alert)
			case r.Annotations["runbook"] != "docs/runbooks/"+r.Alert+".md":
				t.Errorf("%s names the runbook %q", r.Alert, r.Annotations["runbook"])
			case !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]):
				t.Errorf("%s has the severity %q", r.Alert, r.Labels["severity"])
			}
			seen[r.Alert] = true
			b, _ := os.ReadFile(filepath.Join(repo, "docs/runbooks", r.Alert+".md"))
			text := string(b)
			if !strings.Contains(text, r.Labels["severity"]) {
				t.Errorf("the runbook of %s does not say %s", r.Alert, r.Labels["severity"])
			}
			squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
			if !strings.Contains(squeeze(text), squeeze(r.Expr)) {
				t.Errorf("the runbook of %s shows another expression than the rule has", r.Alert)
			}
			for _, m := range regexp.MustCompile("`(router [^`]+)`").FindAllStringSubmatch(text, -1) {
				knownCommand(t, r.Alert, strings.Fields(m[1])[1:])
			}
		}
	}
	for name := range runbooks {
		if !seen[name] {
			t.Errorf("docs/runbooks/%s.md belongs to no alert", name)
		}
	}
}

var word = regexp.MustCompile(`^[a-z][a-z-]*$`)

// knownCommand checks that the command line knows a command and its flags, as
// written in a runbook or the compose file.
func knownCommand(t *testing.T, where string, args []string) {
	t.Helper()
	var path []string
	for _, a := range args {
		if !word.MatchString(a) || len(path) == 2 {
			break
		}
		path = append(path, a)
	}
	help := func() (string, error) {
		b, err := exec.Command(binary, append(slices.Clone(path), "--help")...).CombinedOutput()
		return string(b), err
	}
	out, err := help()
	if len(path) > 1 && !strings.Contains(out, "router "+strings.Join(path, " ")) {
		path = path[:1] // the second word is an argument
		out, err = help()
	}
	if err != nil || len(path) == 0 || !strings.Contains(out, "router "+path[0]) {
		t.Errorf("%s: there is no command %q", where, strings.Join(args, " "))
		return
	}
	for _, a := range args {
		if name, _, _ := strings.Cut(a, "="); strings.HasPrefix(name, "--") && !regexp.MustCompile(regexp.QuoteMeta(name)+`\b`).MatchString(out) {
			t.Errorf("%s: router %s knows no %s", where, strings.Join(path, " "), name)
		}
	}
}

var metricNames = regexp.MustCompile(`\bweiche_[a-z_]+`)

// selectors are the metrics a PromQL expression reads, with the labels it
// matches them by.
var selectors = regexp.MustCompile(`\b(weiche_[a-z_]+)(?:\{([^}]*)\})?`)

// The dashboard and the rules read nothing but what the router exposes from its
// start, and every query of every panel returns data after a real run.
func TestDashboard(t *testing.T) {
	needCommand(t, "prometheus")
	d := readDashboard(t)
	checkDashboard(t, d)

	r := newRouter(t)
	fv := startStubborn(t, 422)
	r.useStubborn(fv)
	r.Start()
	checkExposed(t, r, d)

	dir := t.TempDir()
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s]\nscrape_configs:\n  - job_name: weiche\n    static_configs: [{targets: [%s]}]\n",
		filepath.Join(repo, "monitoring/rules/*.yml"), strings.TrimPrefix(r.Ops, "http://"))
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPrometheus(t, filepath.Join(dir, "prometheus.yml"))
	p.up("weiche")

	// One of each kind.
	const sindelfingen, magstadt = "081150045045", "081150029029"
	post := func(key, region string) string {
		return r.MustPost("service-bw", key, example(t, "gewerbeanmeldung", "minimal", map[string]any{"region": region})).accepted(t).SubmissionID
	}
	post("delivered", regionBoeblngen)
	post("unassigned", magstadt)
	if a := r.MustPost("service-bw", "refused", []byte(`{`)); a.Status != http.StatusBadRequest {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	post("dead", sindelfingen)
	eventually(t, 20*time.Second, func() (bool, string) { a := r.account(); return a.States["dead"] == 1, fmt.Sprintf("%+v", a) })
	fv.Status.Store(503)
	post("waiting", sindelfingen)
	want := map[string]int{"delivered": 1, "unassigned": 1, "dead": 1, "waiting": 1, "in-flight": 0, "rejected": 0}
	eventually(t, 20*time.Second, func() (bool, string) {
		a := r.account()
		for s, n := range want {
			if a.States[s] != n {
				return false, fmt.Sprintf("%+v", a)
			}
		}
		return a.AddsUp && a.Accepted == 4, fmt.Sprintf("%+v", a)
	})

	// The account as Prometheus has it.
	for state, n := range want {
		expr := fmt.Sprintf("sum(weiche_status_submissions{state=%q})", state)
		eventually(t, 15*time.Second, func() (bool, string) {
			got, err := p.query(expr)
			return err == nil && len(got) == 1 && got[0].Value == float64(n), fmt.Sprintf("%s is %v %v, want %d", expr, got, err, n)
		})
	}
	for expr, n := range map[string]float64{
		"sum(weiche_intake_submissions_total)":                                               4,
		`sum(weiche_intake_refusals_total{reason="malformed"})`:                              1,
		`sum(weiche_delivery_delivered_total)`:                                               1,
		`weiche_delivery_dead_total{destination="08-sindelfingen-gewerbe",reason="refused"}`: 1,
		`sum(weiche_dispatch_unassigned_total{reason="no-authority"})`:                       1,
	} {
		eventually(t, 15*time.Second, func() (bool, string) {
			got, err := p.query(expr)
			return err == nil && len(got) == 1 && got[0].Value == n, fmt.Sprintf("%s is %v %v, want %v", expr, got, err, n)
		})
	}
	queries := 0
	each(d.Panels, func(pn panel) {
		for _, target := range pn.Targets {
			queries++
			eventually(t, 20*time.Second, func() (bool, string) {
				got, err := p.query(withLand(target.Expr))
				if err != nil {
					t.Fatalf("panel %q, %s: %v", pn.Title, target.Expr, err)
				}
				for _, s := range got {
					if !s.NaN {
						return true, ""
					}
				}
				return false, fmt.Sprintf("panel %q, %s: %v", pn.Title, target.Expr, got)
			})
		}
	})
	if queries < 20 {
		t.Errorf("only %d queries in the dashboard", queries)
	}
	t.Logf("%d queries, each with data", queries)

	// The rules are evaluated without error, and the dead letter is told at once,
	// the first of its kind too.
	eventually(t, 15*time.Second, func() (bool, string) {
		var v struct {
			Groups []struct {
				Rules []struct{ Name, State, Health, LastError string }
			}
		}
		if err := p.api("/api/v1/rules", &v); err != nil {
			return false, err.Error()
		}
		fired := false
		for _, g := range v.Groups {
			for _, rule := range g.Rules {
				if rule.Health != "ok" {
					return false, rule.Name + " is " + rule.Health + ": " + rule.LastError
				}
				fired = fired || rule.Name == "WeicheDeadLetters" && rule.State == "firing"
			}
		}
		return fired, fmt.Sprintf("WeicheDeadLetters does not fire: %+v", v)
	})
}

func each(panels []panel, fn func(panel)) {
	for _, p := range panels {
		fn(p)
		each(p.Panels, fn)
	}
}

// checkDashboard holds the dashboard's shape.
func checkDashboard(t *testing.T, d dashboard) {
	t.Helper()
	var sources struct {
		Datasources []struct{ UID, Type string }
	}
	readYAML(t, filepath.Join(repo, "monitoring/grafana/provisioning/datasources/prometheus.yml"), &sources)
	known := map[string]bool{}
	for _, s := range sources.Datasources {
		known[s.UID] = true
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 30 {
		t.Errorf("the dashboard is %q %q, schema %d", d.UID, d.Title, d.SchemaVersion)
	}
	ids := map[int]bool{}
	cells := map[[2]int]string{}
	each(d.Panels, func(p panel) {
		if p.ID <= 0 || ids[p.ID] {
			t.Errorf("panel %q: its id %d is missing or another's too", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W <= 0 || g.H <= 0 || g.X < 0 || g.Y < 0 || g.X+g.W > 24 {
			t.Errorf("panel %q does not lie in the grid: %+v", p.Title, g)
			return
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Errorf("panels %q and %q lie on each other", other, p.Title)
					return
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			return
		}
		if len(p.Targets) == 0 || p.Title == "" {
			t.Errorf("panel %d %q asks nothing", p.ID, p.Title)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if target.Expr == "" || target.RefID == "" || refs[target.RefID] {
				t.Errorf("panel %q: the target %q is empty or stands twice", p.Title, target.RefID)
			}
			refs[target.RefID] = true
			if !known[target.Datasource.UID] || !known[p.Datasource.UID] {
				t.Errorf("panel %q asks the data source %q, which is not provisioned", p.Title, target.Datasource.UID)
			}
		}
	})
	variables := map[string]bool{}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if v.Type == "query" && (!known[v.Datasource.UID] || v.AllValue != ".*") {
			t.Errorf("variable %s: %+v", v.Name, v)
		}
	}
	each(d.Panels, func(p panel) {
		for _, target := range p.Targets {
			for _, m := range regexp.MustCompile(`\$([A-Za-z_]+)`).FindAllStringSubmatch(target.Expr, -1) {
				if !variables[m[1]] {
					t.Errorf("panel %q uses $%s, which the dashboard does not have", p.Title, m[1])
				}
			}
		}
	})
}

// checkExposed holds what rules, dashboard and runbooks read against what a
// router exposes that nobody has posted to yet.
func checkExposed(t *testing.T, r *router, d dashboard) {
	t.Helper()
	res, err := client.Get(r.Ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]map[string]bool{} // by series name
	allowed := []string{"land", "service", "destination", "adapter", "reason", "stage", "state", "topic"}
	for name, f := range families {
		set := map[string]bool{}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				set[l.GetName()] = true
				if strings.HasPrefix(name, "weiche_") && name != "weiche_build_info" && !slices.Contains(allowed, l.GetName()) {
					t.Errorf("%s has the label %s", name, l.GetName())
				}
			}
		}
		labels[name] = set
		if f.GetType().String() == "HISTOGRAM" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				labels[name+suffix] = set
			}
		}
	}
	check := func(where, expr string) {
		for _, m := range selectors.FindAllStringSubmatch(expr, -1) {
			have, ok := labels[m[1]]
			if !ok {
				t.Errorf("%s reads %s, which the router does not expose from its start", where, m[1])
				continue
			}
			for _, matcher := range strings.Split(m[2], ",") {
				if name, _, ok := strings.Cut(matcher, "="); ok && !have[strings.TrimRight(strings.TrimSpace(name), "!")] {
					t.Errorf("%s matches %s by %s, a label it does not have", where, m[1], name)
				}
			}
			for _, by := range regexp.MustCompile(`\bby \(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
				for _, name := range strings.Split(by[1], ",") {
					if name = strings.TrimSpace(name); name != "le" && !have[name] {
						t.Errorf("%s groups %s by %s, a label it does not have", where, m[1], name)
					}
				}
			}
		}
	}
	for _, g := range readRules(t).Groups {
		for _, rule := range g.Rules {
			check("alert "+rule.Alert, rule.Expr)
			b, _ := os.ReadFile(filepath.Join(repo, "docs/runbooks", rule.Alert+".md"))
			for _, name := range metricNames.FindAllString(string(b), -1) {
				if labels[name] == nil {
					t.Errorf("the runbook of %s names %s, which the router does not expose", rule.Alert, name)
				}
			}
		}
	}
	each(d.Panels, func(p panel) {
		for _, target := range p.Targets {
			check("panel "+p.Title, target.Expr)
		}
	})
	for _, v := range d.Templating.List {
		if m := regexp.MustCompile(`^label_values\(([a-z_]+), ([a-z]+)\)$`).FindStringSubmatch(v.Definition); m == nil || !labels[m[1]][m[2]] {
			t.Errorf("variable %s asks %q", v.Name, v.Definition)
		}
	}
}
