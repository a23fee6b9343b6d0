package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Defaults returns the router's settings as they are when router.yaml and the
// environment are silent.
func Defaults() Router {
	return Router{
		Data:   "data",
		Listen: "127.0.0.1:8080",
		Ops:    "127.0.0.1:8081",
		Kafka:  Kafka{ClientID: "weiche", MaxRecordBytes: 17 << 20},
		Intake: Limits{
			BodyBytes: 20 << 20, PartBytes: 4 << 20, AttachmentBytes: 500 << 20, SubmissionBytes: 2 << 30,
			Attachments: 100, Depth: 64, ReadTimeout: time.Minute, RequestTimeout: 30 * time.Minute, Concurrent: 256,
			KafkaRecordBytes: 16 << 20,
		},
		Delivery: Policy{
			Initial: 5 * time.Second, Max: 10 * time.Hour, Factor: 2, Jitter: 0.2, GiveUp: 168 * time.Hour,
			Probe: 15 * time.Second, Timeout: 30 * time.Second, InFlight: 8, DeadRatio: 0.5,
		},
		Seal:   Seal{Dir: "keys"},
		Blobs:  Blobs{Dir: "blobs"},
		Status: Status{File: "status.db"},
		// Portals repeat within days; refusals are looked at within weeks.
		Retention: Retention{ClaimsDays: 30, RefusedDays: 90, EditedDays: 90},
		Checks:    Checks{CodeLists: CodeListsWarn},
		Log:       Log{Level: "info"},
		Drain:     25 * time.Second,
	}
}

// Unsafe names of cluster settings, as they stand in kafka.allow_unsafe.
const (
	UnsafeReplicationFactor = "replication-factor"
	UnsafeMinInSyncReplicas = "min-insync-replicas"
	UnsafeUncleanElection   = "unclean-election"
)

const fileRouter = "router.yaml"

func (l *loader) router(environ []string) Problems {
	r := &l.cfg.Router
	*r = Defaults()
	d, _, ok := l.read(l.path(fileRouter), r)
	if !ok {
		d.add(Pos{File: d.file}.Problem("the file is missing; an empty one is enough, every setting has a default"))
	}
	r.Pos = Pos{File: d.file, Line: max(1, r.Pos.Line), Column: r.Pos.Column}
	d.override(r, environ)
	if len(r.Kafka.Brokers) == 0 {
		fill(&r.Kafka.Partitions, 4)
		fill(&r.Kafka.ReplicationFactor, 1)
		fill(&r.Kafka.MinInSyncReplicas, 1)
	} else {
		fill(&r.Kafka.Partitions, 8)
		fill(&r.Kafka.ReplicationFactor, 3)
		fill(&r.Kafka.MinInSyncReplicas, 2)
	}
	if !d.problems.Failed() {
		d.checkRouter(r)
	}
	d.problems.sort()
	return d.problems
}

// fill sets what was left out. 0 cannot be told from left out, and means the
// same.
func fill(n *int, value int) {
	if *n == 0 {
		*n = value
	}
}

func (d *decoder) checkRouter(r *Router) {
	at := func(v any) Pos { return d.of(v, r.Pos) }
	if r.Data == "" {
		d.add(at(&r.Data).Problem("data is empty: the data directory is named here"))
	}
	host, port, ok := d.address(at(&r.Listen), "listen", r.Listen)
	if ok && r.TLS == nil && !r.AllowPlainPublic && !loopback(host) {
		d.add(at(&r.Listen).Problem("listen is %s, which others can reach, and there is no tls: applications would travel in plain text; set tls, or allow_plain_public: true where a proxy before the router ends TLS", r.Listen))
	}
	if _, _, ok := d.address(at(&r.Ops), "ops", r.Ops); ok && r.Ops == r.Listen && port != 0 {
		d.add(at(&r.Ops).Problem("ops and listen are both %s", r.Ops))
	}
	if t := r.TLS; t != nil && (t.CertFile == "" || t.KeyFile == "") {
		d.add(at(t).Problem("tls needs cert_file and key_file"))
	}
	d.checkKafka(&r.Kafka, at)
	n := &r.Intake
	d.positive(at, map[string]any{
		"body_bytes": &n.BodyBytes, "part_bytes": &n.PartBytes, "attachment_bytes": &n.AttachmentBytes,
		"submission_bytes": &n.SubmissionBytes, "attachments": &n.Attachments, "depth": &n.Depth,
		"read_timeout": &n.ReadTimeout, "request_timeout": &n.RequestTimeout, "concurrent": &n.Concurrent,
		"kafka_record_bytes": &n.KafkaRecordBytes,
		"max_record_bytes":   &r.Kafka.MaxRecordBytes, "drain": &r.Drain,
	})
	const sealing = 512 << 10
	if need := n.KafkaRecordBytes + sealing; n.KafkaRecordBytes > 0 && r.Kafka.MaxRecordBytes > 0 && r.Kafka.MaxRecordBytes < need {
		d.add(at(&r.Kafka.MaxRecordBytes).Problem("max_record_bytes is %s; intake records of %s and what is added to them need %s", r.Kafka.MaxRecordBytes, n.KafkaRecordBytes, need))
	}
	d.checkPolicy(&r.Delivery, at(&r.Delivery))
	for name, dir := range map[string]*string{"seal": &r.Seal.Dir, "blobs": &r.Blobs.Dir} {
		if *dir == "" {
			d.add(at(dir).Problem("%s: dir is empty: a directory below the data directory is named here", name))
		}
	}
	if r.Status.File == "" {
		d.add(at(&r.Status.File).Problem("file is empty: the status store's file is named here"))
	}
	for name, days := range map[string]*int{"claims_days": &r.Retention.ClaimsDays, "refused_days": &r.Retention.RefusedDays, "edited_days": &r.Retention.EditedDays, "payload_days": &r.Retention.PayloadDays} {
		if *days < 0 {
			d.add(at(days).Problem("%s is %d; it is a number of days, 0 for ever", name, *days))
		}
	}
	if c := &r.Checks.CodeLists; *c != CodeListsWarn && *c != CodeListsRefuse {
		d.add(at(c).Problem("code_lists is %q; it is %s or %s", clip(*c), CodeListsWarn, CodeListsRefuse))
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, r.Log.Level) {
		d.add(at(&r.Log.Level).Problem("level %q is not one of debug, info, warn, error", clip(r.Log.Level)))
	}
	d.checkOperators(r.Operators)
}

func (d *decoder) checkKafka(k *Kafka, at func(any) Pos) {
	for i := range k.Brokers {
		d.address(at(&k.Brokers[i]), "brokers", k.Brokers[i])
	}
	for name, n := range map[string]*int{"partitions": &k.Partitions, "replication_factor": &k.ReplicationFactor, "min_insync_replicas": &k.MinInSyncReplicas} {
		if *n < 0 {
			d.add(at(n).Problem("%s is %d; it must be above 0", name, *n))
		}
	}
	if k.MinInSyncReplicas > k.ReplicationFactor {
		d.add(at(&k.MinInSyncReplicas).Problem("min_insync_replicas is %d, more than the %d replicas there are", k.MinInSyncReplicas, k.ReplicationFactor))
	}
	if k.Version != "" && !kafkaVersion.MatchString(k.Version) {
		d.add(at(&k.Version).Problem("version %q is not a Kafka version, such as 4.1.0", clip(k.Version)))
	}
	unsafe := []string{UnsafeReplicationFactor, UnsafeMinInSyncReplicas, UnsafeUncleanElection}
	for i := range k.AllowUnsafe {
		if !slices.Contains(unsafe, k.AllowUnsafe[i]) {
			d.add(at(&k.AllowUnsafe[i]).Problem("%q is not something that can be allowed; these are: %s%s", clip(k.AllowUnsafe[i]), strings.Join(unsafe, ", "), suggest(k.AllowUnsafe[i], unsafe)))
		}
	}
	if t := k.TLS; t != nil && (t.CertFile == "") != (t.KeyFile == "") {
		d.add(at(t).Problem("a client certificate needs both cert_file and key_file"))
	}
	if k.SASL != nil {
		d.checkSASL(k, at(k.SASL))
	}
	if len(k.Brokers) == 0 && (k.TLS != nil || k.SASL != nil) {
		d.add(at(&k.Brokers).Warning("tls and sasl have no effect: brokers is empty, so the broker inside the process is used"))
	}
}

const mechanismOAuth = "OAUTHBEARER"

func (d *decoder) checkSASL(k *Kafka, around Pos) {
	s := k.SASL
	mechanisms := []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", mechanismOAuth}
	if !slices.Contains(mechanisms, s.Mechanism) {
		d.add(d.of(&s.Mechanism, around).Problem("mechanism %q is not one of %s%s", clip(s.Mechanism), strings.Join(mechanisms, ", "), suggest(s.Mechanism, mechanisms)))
	}
	if k.TLS == nil {
		d.add(around.Warning("sasl without tls: the password travels where others can read it"))
	}
	if s.Mechanism == mechanismOAuth {
		d.checkOAuth(s, around)
		return
	}
	if s.Username == "" || s.PasswordFile == "" {
		d.add(around.Problem("sasl needs username and password_file"))
	}
	for name, v := range map[string]*string{
		"token_file": &s.TokenFile, "token_url": &s.TokenURL, "client_id": &s.ClientID, "client_secret_file": &s.ClientSecretFile,
		"scope": &s.Scope, "token_ca_file": &s.TokenCAFile,
	} {
		if *v != "" {
			d.add(d.of(v, around).Problem("%s belongs to mechanism %s", name, mechanismOAuth))
		}
	}
	if len(s.Extensions) > 0 {
		d.add(d.of(&s.Extensions, around).Problem("extensions belong to mechanism %s", mechanismOAuth))
	}
}

// checkOAuth wants one source of tokens, and all that it needs.
func (d *decoder) checkOAuth(s *SASL, around Pos) {
	at := func(v any) Pos { return d.of(v, around) }
	for name, v := range map[string]*string{"username": &s.Username, "password_file": &s.PasswordFile} {
		if *v != "" {
			d.add(at(v).Problem("%s does not go with %s: the token says who the router is", name, mechanismOAuth))
		}
	}
	for name, value := range s.Extensions {
		if !extensionName.MatchString(name) || name == "auth" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			d.add(at(&s.Extensions).Problem("extensions: %q: a name of letters other than auth, and a printable value, are expected", clip(name)))
		}
	}
	switch {
	case s.TokenFile == "" && s.TokenURL == "":
		d.add(around.Problem("%s needs token_file, or token_url with client_id and client_secret_file", mechanismOAuth))
	case s.TokenFile != "" && s.TokenURL != "":
		d.add(at(&s.TokenFile).Problem("token_file and token_url are both set; the token comes from one of them"))
	case s.TokenFile != "":
		for name, v := range map[string]*string{"client_id": &s.ClientID, "client_secret_file": &s.ClientSecretFile, "scope": &s.Scope, "token_ca_file": &s.TokenCAFile} {
			if *v != "" {
				d.add(at(v).Problem("%s belongs to token_url; the token is taken from token_file as it stands", name))
			}
		}
	default:
		if u, err := url.Parse(s.TokenURL); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			d.add(at(&s.TokenURL).Problem("token_url is no https:// address, without user and password: the client's secret travels there"))
		}
		if s.ClientID == "" || s.ClientSecretFile == "" {
			d.add(at(&s.TokenURL).Problem("token_url needs client_id and client_secret_file"))
		}
	}
}

var extensionName = regexp.MustCompile(`^[A-Za-z]+$`)

var kafkaVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+){1,3}$`)

func (d *decoder) checkOperators(operators []Operator) {
	names, tokens := map[string]Pos{}, map[string]string{}
	rights := []Right{RightView, RightOperate, RightPayload}
	for i := range operators {
		o := &operators[i]
		first, again := names[o.Name]
		switch at := d.of(&o.Name, o.Pos); {
		case !idShape.MatchString(o.Name) || len(o.Name) > maxID:
			d.add(at.Problem("operator %q: small letters and digits are expected, joined by -, _ or .", clip(o.Name)))
		case o.Name == LocalOperator:
			d.add(at.Problem("the operator local is made by the router; choose another name"))
		case again:
			d.add(at.Problem("operator %q stands here for the second time, first in line %d", o.Name, first.Line))
		}
		names[o.Name] = d.of(&o.Name, o.Pos)
		at := d.of(&o.TokenSHA256, o.Pos)
		if !isSHA256(o.TokenSHA256) {
			d.add(at.Problem("operator %q: token_sha256 is the token's SHA-256, 64 hex digits; never the token itself", clip(o.Name)))
		} else if other, again := tokens[strings.ToLower(o.TokenSHA256)]; again {
			d.add(at.Problem("operators %q and %q have the same token", other, o.Name))
		}
		tokens[strings.ToLower(o.TokenSHA256)] = o.Name
		if len(o.Rights) == 0 {
			d.add(d.of(&o.Rights, o.Pos).Problem("operator %q has no rights: some of view, operate, payload", clip(o.Name)))
		}
		for j := range o.Rights {
			if !slices.Contains(rights, o.Rights[j]) {
				d.add(d.of(&o.Rights[j], o.Pos).Problem("right %q is not one of view, operate, payload", clip(string(o.Rights[j]))))
			}
		}
	}
}

// positive refuses numbers that are not above 0; fields by the name people know.
func (d *decoder) positive(at func(any) Pos, fields map[string]any) {
	for name, p := range fields {
		v := reflect.ValueOf(p).Elem()
		if v.Int() > 0 {
			continue
		}
		d.add(at(p).Problem("%s is %v; it must be above 0", name, v.Interface()))
	}
}

func (d *decoder) checkPolicy(p *Policy, around Pos) {
	at := func(v any) Pos { return d.of(v, around) }
	d.positive(at, map[string]any{"initial": &p.Initial, "give_up": &p.GiveUp, "probe": &p.Probe, "timeout": &p.Timeout, "in_flight": &p.InFlight})
	if p.Max < p.Initial {
		d.add(at(&p.Max).Problem("max is %s, shorter than initial, %s", p.Max, p.Initial))
	}
	if p.Factor < 1 {
		d.add(at(&p.Factor).Problem("factor is %v; it must be at least 1", p.Factor))
	}
	if p.DeadRatio < 0 || p.DeadRatio > 1 {
		d.add(at(&p.DeadRatio).Problem("dead_ratio is %v; it must lie between 0 and 1", p.DeadRatio))
	}
	if p.Jitter < 0 || p.Jitter > 1 {
		d.add(at(&p.Jitter).Problem("jitter is %v; it must lie between 0 and 1", p.Jitter))
	}
}

// policies completes what destinations leave to the router, and checks it.
func (l *loader) policies(d *decoder, destinations []Destination) {
	general := reflect.ValueOf(l.cfg.Router.Delivery)
	for i := range destinations {
		p := &destinations[i].Policy
		v := reflect.ValueOf(p).Elem()
		for f := range v.NumField() {
			if _, written := d.at[v.Field(f).Addr().Interface()]; !written {
				v.Field(f).Set(general.Field(f))
			}
		}
		if _, written := d.at[p]; written {
			d.checkPolicy(p, d.of(p, destinations[i].Pos))
		}
	}
}

// address checks host:port. An empty host is every address of the machine.
func (d *decoder) address(at Pos, name, s string) (host string, port int, ok bool) {
	host, text, err := net.SplitHostPort(s)
	port, perr := strconv.Atoi(text)
	if err != nil || perr != nil || port < 0 || port > 65535 {
		d.add(at.Problem("%s: %q is not an address: host:port is expected, as in 127.0.0.1:8080", name, clip(s)))
		return "", 0, false
	}
	return host, port, true
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// EnvPrefix begins every environment variable the router reads.
const EnvPrefix = "WEICHE_"

// envOther are variables with the prefix that are not settings: where the
// configuration is.
var envOther = []string{EnvPrefix + "CONFIG"}

// Override is a setting of router.yaml that an environment variable can set.
type Override struct {
	Env   string // WEICHE_KAFKA_BROKERS
	Field string // kafka.brokers
	List  bool   // several values, separated by commas
	index []int
}

// Overrides returns every setting that the environment can set, in the order of
// router.yaml: all but maps and lists of groups. An empty variable sets nothing.
func Overrides() []Override { return overrides(reflect.TypeFor[Router](), nil, nil) }

func overrides(t reflect.Type, path []string, index []int) (out []Override) {
	for _, f := range fieldsOf(t) {
		ft := t.FieldByIndex(f.index).Type
		path := append(slices.Clone(path), f.name)
		index := append(slices.Clone(index), f.index...)
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		list := ft.Kind() == reflect.Slice
		if list {
			ft = ft.Elem()
		}
		switch {
		case ft.Kind() == reflect.Struct && !list:
			out = append(out, overrides(ft, path, index)...)
		case ft.Kind() != reflect.Struct && ft.Kind() != reflect.Map:
			out = append(out, Override{
				Env:   EnvPrefix + strings.ToUpper(strings.Join(path, "_")),
				Field: strings.Join(path, "."), List: list, index: index,
			})
		}
	}
	return out
}

// override takes over what the environment says.
func (d *decoder) override(r *Router, environ []string) {
	known := Overrides()
	names := make([]string, len(known))
	for i, o := range known {
		names[i] = strings.TrimPrefix(o.Env, EnvPrefix)
	}
	sorted := slices.Clone(environ)
	slices.Sort(sorted)
	for _, kv := range sorted {
		env, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(env, EnvPrefix) || value == "" || slices.Contains(envOther, env) {
			continue
		}
		short := strings.TrimPrefix(env, EnvPrefix)
		i := slices.Index(names, short)
		if i < 0 {
			at := Pos{File: env}
			for _, n := range names {
				if distance(short, n) <= 2 {
					d.add(at.Problem("there is no such setting; is %s%s meant?", EnvPrefix, n))
					at = Pos{}
					break
				}
			}
			if at.File != "" {
				d.add(at.Warning("there is no such setting; it has no effect"))
			}
			continue
		}
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
		if known[i].List {
			n = &yaml.Node{Kind: yaml.SequenceNode}
			for part := range strings.SplitSeq(value, ",") {
				n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.TrimSpace(part)})
			}
		}
		v := reflect.ValueOf(r).Elem()
		for _, f := range known[i].index {
			if v.Kind() == reflect.Pointer {
				if v.IsNil() {
					v.Set(reflect.New(v.Type().Elem()))
				}
				v = v.Elem()
			}
			v = v.Field(f)
		}
		file := d.file
		d.file = env
		d.decode(n, v, known[i].Field)
		d.file = file
	}
}

// Path returns a file that the configuration names: as it stands where it is
// absolute, else below the config directory.
func (c *Config) Path(file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(c.Dir, file)
}

// DataPath returns a file of the data directory: as it stands where it is
// absolute, else below Router.Data.
func (c *Config) DataPath(file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(c.Router.Data, file)
}
