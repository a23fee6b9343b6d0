package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/kafkatest"
)

// composeProject loads docker-compose.yml as `docker compose config` does: with
// Compose's own loader, schema and consistency checks on.
func composeProject(t *testing.T) *types.Project {
	t.Helper()
	p, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  repo,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(repo, "docker-compose.yml")}},
		Environment: types.Mapping{},
	}, func(o *loader.Options) {
		o.SkipValidation, o.SkipConsistencyCheck, o.SkipInterpolation = false, false, false
	})
	if err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return p
}

func environment(s types.ServiceConfig) map[string]string {
	out := map[string]string{}
	for k, v := range s.Environment {
		if v != nil {
			out[k] = *v
		}
	}
	return out
}

// mounted returns the file on this machine that a path in a service's container
// is, "" where no bind mount brings it.
func mounted(s types.ServiceConfig, path string) string {
	for _, v := range s.Volumes {
		if rest, ok := strings.CutPrefix(path, v.Target); ok && v.Type == types.VolumeTypeBind && (rest == "" || rest[0] == '/') {
			return v.Source + rest
		}
	}
	return ""
}

// flagOf returns the value behind a flag of a command.
func flagOf(command []string, flag string) string {
	for i, a := range command {
		if v, ok := strings.CutPrefix(a, flag+"="); ok {
			return v
		}
		if a == flag && i+1 < len(command) {
			return command[i+1]
		}
	}
	return ""
}

// What the compose file says holds together: with Compose's rules, with the
// command line, with the configuration, and within itself.
func TestComposeFile(t *testing.T) {
	p := composeProject(t)
	for _, name := range []string{"kafka", "router", "receiver", "prometheus", "grafana"} {
		if _, ok := p.Services[name]; !ok {
			t.Fatalf("there is no service %s", name)
		}
	}
	router, recv, prom, grafana := p.Services["router"], p.Services["receiver"], p.Services["prometheus"], p.Services["grafana"]

	t.Run("everything stays on loopback", func(t *testing.T) {
		for name, s := range p.Services {
			for _, port := range s.Ports {
				if port.HostIP != "127.0.0.1" {
					t.Errorf("%s publishes %s on %q", name, port.Published, port.HostIP)
				}
			}
			if s.NetworkMode == "host" || s.Privileged || len(s.CapAdd) > 0 {
				t.Errorf("%s wants more of the machine than it needs", name)
			}
		}
		for _, port := range router.Ports {
			listens := []string{portOf(t, environment(router)["WEICHE_LISTEN"]), portOf(t, environment(router)["WEICHE_OPS"])}
			if !slices.Contains(listens, fmt.Sprint(port.Target)) {
				t.Errorf("the router publishes %d, where nothing listens that other containers reach (%v)", port.Target, listens)
			}
		}
	})

	t.Run("mounts", func(t *testing.T) {
		for name, s := range p.Services {
			for _, v := range s.Volumes {
				if v.Type != types.VolumeTypeBind {
					continue
				}
				if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly || !strings.HasPrefix(v.Source, repo) {
					t.Errorf("%s mounts %s, read-only %v: %v", name, v.Source, v.ReadOnly, err)
				}
			}
		}
	})

	t.Run("images", func(t *testing.T) {
		for name, s := range p.Services {
			_, tag, ok := strings.Cut(s.Image, ":")
			if s.Image == p.Services["router"].Image {
				continue
			}
			if !ok || tag == "latest" {
				t.Errorf("%s: the image %q is not pinned", name, s.Image)
			}
		}
		if want := "apache/kafka:" + kafkatest.Version; p.Services["kafka"].Image != want {
			t.Errorf("the tests run %s, the compose file %s", want, p.Services["kafka"].Image)
		}
		if router.Build == nil || router.Image == "" || recv.Image != router.Image {
			t.Errorf("router and receiver are not the same image, built here: %q, %q", router.Image, recv.Image)
		}
	})

	t.Run("Dockerfile", func(t *testing.T) { checkDockerfile(t, router) })

	t.Run("commands", func(t *testing.T) {
		knownCommand(t, "receiver", recv.Command)
		b, err := os.ReadFile(filepath.Join(repo, "docker-compose.yml"))
		if err != nil {
			t.Fatal(err)
		}
		said := 0
		for _, m := range regexp.MustCompile(`(?m)^# .*exec router /router (.*)$`).FindAllStringSubmatch(string(b), -1) {
			said++
			args := strings.Fields(m[1])
			knownCommand(t, "the compose file's head", args)
			if last := args[len(args)-1]; strings.HasPrefix(last, "/config/") {
				if _, err := os.Stat(filepath.Join(repo, last)); err != nil {
					t.Errorf("the head names %s: %v", last, err)
				}
			}
		}
		if said == 0 {
			t.Error("the head does not say how to post a submission")
		}
	})

	t.Run("environment", func(t *testing.T) {
		known := map[string]bool{config.EnvPrefix + "CONFIG": true}
		for _, o := range config.Overrides() {
			known[o.Env] = true
		}
		var environ []string
		for name, s := range p.Services {
			for k, v := range environment(s) {
				if !strings.HasPrefix(k, config.EnvPrefix) {
					continue
				}
				if !known[k] {
					t.Errorf("%s sets %s, which is no setting", name, k)
				}
				if name == "router" {
					environ = append(environ, k+"="+v)
				}
			}
		}
		if cfg, problems := config.Load(filepath.Join(repo, "config"), environ); cfg == nil || problems.Failed() {
			t.Errorf("the router refuses its environment: %v", problems)
		}
		kafka := environment(p.Services["kafka"])
		if _, addr, _ := strings.Cut(kafka["KAFKA_ADVERTISED_LISTENERS"], "PLAINTEXT://"); addr != environment(router)["WEICHE_KAFKA_BROKERS"] {
			t.Errorf("Kafka is advertised as %q, the router looks for it at %q", addr, environment(router)["WEICHE_KAFKA_BROKERS"])
		}
	})

	t.Run("receiver", func(t *testing.T) {
		if recv.NetworkMode != "service:router" {
			t.Errorf("the receiver's network is %q; 127.0.0.1 would not be the router's", recv.NetworkMode)
		}
		cfg, problems := config.Load(filepath.Join(repo, "config"), nil)
		if cfg == nil {
			t.Fatal(problems)
		}
		n := 0
		for _, land := range cfg.Lands {
			for _, d := range land.Destinations {
				if d.Adapter != "http" {
					continue
				}
				n++
				s := map[string]any{}
				if err := d.Settings.Decode(&s); err != nil {
					t.Fatal(err)
				}
				u, err := url.Parse(fmt.Sprint(s["url"]))
				if err != nil || u.Host != flagOf(recv.Command, "--listen") {
					t.Errorf("%s posts to %v, the receiver listens on %s", d.ID, s["url"], flagOf(recv.Command, "--listen"))
				}
				if secret := filepath.Join(environment(router)["WEICHE_DATA"], fmt.Sprint(s["secret_file"])); secret != flagOf(recv.Command, "--secret-file") {
					t.Errorf("%s signs with %s, the receiver checks with %s", d.ID, secret, flagOf(recv.Command, "--secret-file"))
				}
			}
		}
		if n == 0 {
			t.Error("no destination posts to the receiver")
		}
		if !sharesVolume(router, recv, environment(router)["WEICHE_DATA"]) {
			t.Error("router and receiver do not share the volume with the secret")
		}
	})

	t.Run("Prometheus", func(t *testing.T) {
		needCommand(t, "promtool")
		dir := copyMounts(t, prom)
		file := flagOf(prom.Command, "--config.file")
		if b, err := exec.Command("promtool", "check", "config", filepath.Join(dir, file)).CombinedOutput(); err != nil || !strings.Contains(string(b), "rules found") {
			t.Errorf("promtool check config: %v\n%s", err, b)
		}
		help, _ := exec.Command("prometheus", "--help").CombinedOutput()
		for _, a := range prom.Command {
			if name, _, _ := strings.Cut(a, "="); !bytes.Contains(help, []byte(name)) {
				t.Errorf("Prometheus knows no %s", name)
			}
		}
		for _, target := range targets(t, filepath.Join(dir, file)) {
			host, port, err := net.SplitHostPort(target)
			if _, ok := p.Services[host]; err != nil || !ok {
				t.Errorf("Prometheus scrapes %s, which is no service", target)
			}
			if host == "router" && port != portOf(t, environment(router)["WEICHE_OPS"]) {
				t.Errorf("Prometheus scrapes %s, the router's metrics are on %s", target, environment(router)["WEICHE_OPS"])
			}
		}
	})

	t.Run("Grafana", func(t *testing.T) {
		var sources struct{ Datasources []struct{ URL string } }
		readYAML(t, mounted(grafana, "/etc/grafana/provisioning/datasources/prometheus.yml"), &sources)
		for _, s := range sources.Datasources {
			u, err := url.Parse(s.URL)
			if err != nil || u.Hostname() != "prometheus" || u.Port() != "9090" {
				t.Errorf("the data source is at %s: %v", s.URL, err)
			}
		}
		var providers struct {
			Providers []struct{ Options struct{ Path string } }
		}
		readYAML(t, mounted(grafana, "/etc/grafana/provisioning/dashboards/weiche.yml"), &providers)
		for _, pr := range providers.Providers {
			if found, _ := filepath.Glob(filepath.Join(mounted(grafana, pr.Options.Path), "*.json")); len(found) == 0 {
				t.Errorf("there are no dashboards in %s", pr.Options.Path)
			}
		}
		home := environment(grafana)["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
		if _, err := os.Stat(mounted(grafana, home)); home == "" || err != nil {
			t.Errorf("the home dashboard %s: %v", home, err)
		}
		if len(sources.Datasources) == 0 || len(providers.Providers) == 0 {
			t.Error("nothing is provisioned")
		}
	})
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatalf("%q is no address: %v", addr, err)
	}
	return port
}

func sharesVolume(a, b types.ServiceConfig, target string) bool {
	volume := func(s types.ServiceConfig) string {
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeVolume && v.Target == target {
				return v.Source
			}
		}
		return ""
	}
	return volume(a) != "" && volume(a) == volume(b)
}

// checkDockerfile holds the Dockerfile against the repository and the command
// line.
func checkDockerfile(t *testing.T, router types.ServiceConfig) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(router.Build.Context, router.Build.Dockerfile))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	ignored, _ := os.ReadFile(filepath.Join(repo, ".dockerignore"))
	for _, m := range regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(text, -1) {
		for _, src := range strings.Fields(m[1]) {
			if _, err := os.Stat(filepath.Join(repo, src)); err != nil || slices.Contains(strings.Fields(string(ignored)), src) {
				t.Errorf("COPY %s: %v", src, err)
			}
		}
	}
	gomod, _ := os.ReadFile(filepath.Join(repo, "go.mod"))
	wants := regexp.MustCompile(`(?m)^go ([0-9]+\.[0-9]+)`).FindStringSubmatch(string(gomod))
	has := regexp.MustCompile(`(?m)^FROM golang:([0-9]+\.[0-9]+)`).FindStringSubmatch(text)
	if wants == nil || has == nil || wants[1] != has[1] {
		t.Errorf("go.mod wants Go %v, the image is built with %v", wants, has)
	}
	list := func(word string) (out []string) {
		m := regexp.MustCompile(`(?m)^` + word + ` (\[.*\])$`).FindStringSubmatch(text)
		if m == nil || json.Unmarshal([]byte(m[1]), &out) != nil {
			t.Fatalf("no %s", word)
		}
		return out
	}
	if entry := list("ENTRYPOINT"); len(entry) != 1 || !strings.Contains(text, " "+entry[0]+"\n") {
		t.Errorf("the entry point %v is not what is copied", entry)
	}
	cmd := list("CMD")
	knownCommand(t, "Dockerfile", cmd)
	if data := environment(router)["WEICHE_DATA"]; flagOf(cmd, "--data") != data || !strings.Contains(text, "VOLUME "+data) {
		t.Errorf("the image's data directory is %s, the compose file's %s", flagOf(cmd, "--data"), data)
	}
	for _, m := range regexp.MustCompile(`-X (\S+)\.version=`).FindAllStringSubmatch(text, -1) {
		if src, _ := os.ReadFile(filepath.Join(repo, strings.TrimPrefix(m[1], "weiche/"), "metrics.go")); !bytes.Contains(src, []byte("\nvar version = ")) {
			t.Errorf("the linker sets %s.version, which is not there", m[1])
		}
	}
	if !regexp.MustCompile(`(?m)^USER [1-9]`).MatchString(text) {
		t.Error("the image runs as root")
	}
	for _, env := range []string{"WEICHE_LISTEN", "WEICHE_OPS"} {
		port := portOf(t, environment(router)[env])
		if m := regexp.MustCompile(`(?m)^EXPOSE (.*)$`).FindStringSubmatch(text); m == nil || !slices.Contains(strings.Fields(m[1]), port) {
			t.Errorf("%s (%s) is not exposed", port, env)
		}
	}
}

// copyMounts lays a service's bind mounts out as its container has them.
func copyMounts(t *testing.T, s types.ServiceConfig) string {
	t.Helper()
	dir := t.TempDir()
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		to := filepath.Join(dir, v.Target)
		info, err := os.Stat(v.Source)
		if err == nil && info.IsDir() {
			err = os.CopyFS(to, os.DirFS(v.Source))
		} else if err == nil {
			if err = os.MkdirAll(filepath.Dir(to), 0o700); err == nil {
				copyFile(t, v.Source, to)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// targets returns what a Prometheus configuration scrapes.
func targets(t *testing.T, file string) (out []string) {
	t.Helper()
	var v struct {
		Scrape []struct {
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, file, &v)
	for _, s := range v.Scrape {
		for _, st := range s.Static {
			out = append(out, st.Targets...)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s scrapes nothing", file)
	}
	return out
}

// The compose file's topology by hand: the same settings and commands, with
// addresses on loopback's free ports and directories of the test in the place of
// the containers'. Submissions for a file, a topic and an HTTP address arrive,
// and Prometheus scrapes.
func TestComposeByHand(t *testing.T) {
	needCommand(t, "prometheus")
	p := composeProject(t)

	var properties []kafkatest.Option
	own := []string{"KAFKA_NODE_ID", "KAFKA_PROCESS_ROLES", "KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS", "KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_LOG_DIRS"}
	for k, v := range environment(p.Services["kafka"]) {
		if name, ok := strings.CutPrefix(k, "KAFKA_"); ok && !slices.Contains(own, k) {
			properties = append(properties, kafkatest.Property(strings.ReplaceAll(strings.ToLower(name), "_", "."), v))
		}
	}
	cluster := kafkatest.Start(t, properties...)

	r := newRouter(t)
	recvAddr := freeAddr(t)
	r.editConfig("lands", func(_, text string) string {
		return strings.ReplaceAll(text, flagOf(p.Services["receiver"].Command, "--listen"), recvAddr)
	})
	for k, v := range environment(p.Services["router"]) {
		switch k {
		case "WEICHE_DATA":
			v = r.Data
		case "WEICHE_LISTEN", "WEICHE_OPS":
			v = "127.0.0.1:0"
		case "WEICHE_KAFKA_BROKERS":
			v = strings.Join(cluster.Addrs(), ",")
		}
		r.Env = append(r.Env, k+"="+v)
	}
	r.Start()

	// The receiver comes after the router, as the compose file says, and makes
	// the secret that both share.
	var args []string
	for _, a := range p.Services["receiver"].Command {
		for from, to := range map[string]string{"/data": r.Data, "/config": r.Config, flagOf(p.Services["receiver"].Command, "--listen"): recvAddr} {
			if rest, ok := strings.CutPrefix(a, from); ok {
				a = to + rest
				break
			}
		}
		args = append(args, a)
	}
	startCommand(t, "receiver", binary, args...)
	eventually(t, 10*time.Second, func() (bool, string) {
		c, err := net.Dial("tcp", recvAddr)
		if err != nil {
			return false, err.Error()
		}
		return c.Close() == nil, ""
	})

	type sent struct{ region, destination, id string }
	all := []sent{{region: regionBoeblngen, destination: "08-boeblingen-gewerbe"}, {region: "081110000000", destination: "08-stuttgart-gewerbe"},
		{region: "081150045045", destination: "08-sindelfingen-gewerbe"}}
	for i := range all {
		all[i].id = r.MustPost("service-bw", fmt.Sprintf("compose-%d", i), example(t, "gewerbeanmeldung", "minimal", map[string]any{"region": all[i].region})).accepted(t).SubmissionID
	}
	for _, s := range all {
		eventually(t, 30*time.Second, func() (bool, string) {
			st := r.State("service-bw", s.id)
			return st == "delivered", s.destination + " " + st
		})
		if out := r.MustCLI("trace", s.id); !strings.Contains(out, s.destination) {
			t.Errorf("the story of %s does not name %s:\n%s", s.id, s.destination, out)
		}
	}
	xsd := filepath.Join(r.Config, "standards/antrag/1.0/antrag.xsd")
	for _, dir := range []string{filepath.Join(r.Data, "outbox/boeblingen-gewerbe"), filepath.Join(r.Data, "receiver")} {
		found := xmlBelow(t, dir)
		if len(found) != 1 {
			t.Fatalf("%d messages in %s, want 1", len(found), dir)
		}
		needCommand(t, "xmllint")
		lint(t, xsd, found...)
	}
	records := 0
	readAll(t, connect(t, cluster.Addrs()), "fv.stuttgart.gewerbe", func(rec *bus.Record) {
		records++
		if !bytes.Contains(xmlOf(t, rec), []byte("<?xml")) {
			t.Errorf("the record is no message: %.80q", rec.Value)
		}
	})
	if records != 1 {
		t.Errorf("%d records for Stuttgart, want 1", records)
	}

	// Prometheus as mounted, with the router's address in the place of its name.
	prom := p.Services["prometheus"]
	file := filepath.Join(copyMounts(t, prom), flagOf(prom.Command, "--config.file"))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets(t, file) {
		b = bytes.ReplaceAll(b, []byte(target), []byte(strings.TrimPrefix(r.Ops, "http://")))
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	m := startPrometheus(t, file)
	m.up("weiche")
	eventually(t, 20*time.Second, func() (bool, string) {
		got, err := m.query("sum(weiche_delivery_delivered_total)")
		return err == nil && len(got) == 1 && got[0].Value == float64(len(all)), fmt.Sprintf("%v %v", got, err)
	})
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func xmlBelow(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".xml") {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// startCommand runs a process until the test ends.
func startCommand(t *testing.T, name, program string, args ...string) {
	t.Helper()
	var mu sync.Mutex
	var said bytes.Buffer
	w := lockedWriter{&mu, nil}
	w.w = append(w.w, &said)
	cmd := exec.Command(program, args...)
	cmd.Dir = repo
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the %s said:\n%s", name, tail(said.String(), 4000))
		}
	})
}
