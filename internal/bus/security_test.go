package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/kafkatest"
)

const (
	password      = "correct-horse-1"
	wrongPassword = "Hunter2-is-wrong"
)

// fortress is a real Kafka with a listener for each way in, and an authorizer.
type fortress struct {
	*kafkatest.Cluster
	ca, stranger *kafkatest.Authority
	issuer       *issuer
}

// newFortress makes the users of PLAIN and SCRAM: weiche, who may do everything,
// and router, who may do what ACLs say.
func newFortress(t *testing.T) *fortress {
	f := &fortress{ca: kafkatest.NewAuthority(t), stranger: kafkatest.NewAuthority(t)}
	f.issuer = newIssuer(t, f.ca)
	with := func(more map[string]string) map[string]string {
		props := f.ca.Server()
		for k, v := range more {
			props[k] = v
		}
		return props
	}
	const login = "org.apache.kafka.common.security."
	sasl := map[string]string{
		"sasl.enabled.mechanisms":                        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		"plain.sasl.jaas.config":                         fmt.Sprintf(login+`plain.PlainLoginModule required user_weiche="%s" user_router="%s";`, password, password),
		"scram-sha-256.sasl.jaas.config":                 login + "scram.ScramLoginModule required;",
		"scram-sha-512.sasl.jaas.config":                 login + "scram.ScramLoginModule required;",
		"oauthbearer.sasl.jaas.config":                   login + "oauthbearer.OAuthBearerLoginModule required;",
		"oauthbearer.sasl.server.callback.handler.class": login + "oauthbearer.OAuthBearerValidatorCallbackHandler",
	}
	brief := map[string]string{}
	for k, v := range sasl {
		brief[k] = v
	}
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512", "oauthbearer"} {
		brief[mechanism+".connections.max.reauth.ms"] = "2000"
	}
	f.Cluster = kafkatest.Start(t,
		kafkatest.Listener("tls", "SSL", with(nil)),
		kafkatest.Listener("mtls", "SSL", with(map[string]string{"ssl.client.auth": "required"})),
		kafkatest.Listener("sasl", "SASL_SSL", with(sasl)),
		kafkatest.Listener("brief", "SASL_SSL", with(brief)),
		kafkatest.System("org.apache.kafka.sasl.oauthbearer.allowed.urls", f.issuer.keys),
		// Kafka 4.1.1's default validator verifies nothing.
		kafkatest.Property("sasl.oauthbearer.jwt.validator.class", login+"oauthbearer.BrokerJwtValidator"),
		kafkatest.Property("sasl.oauthbearer.jwks.endpoint.url", f.issuer.keys),
		kafkatest.Property("sasl.oauthbearer.expected.audience", audience),
		kafkatest.Property("sasl.oauthbearer.expected.issuer", issuerName),
		kafkatest.Property("sasl.oauthbearer.clock.skew.seconds", "0"),
		kafkatest.Property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
		kafkatest.Property("super.users", "User:ANONYMOUS;User:weiche;User:CN=weiche"),
		kafkatest.User("SCRAM-SHA-256", "weiche", password),
		kafkatest.User("SCRAM-SHA-512", "weiche", password),
		kafkatest.User("SCRAM-SHA-512", "router", password),
	)
	return f
}

func (f *fortress) tls() *bus.TLSConfig { return &bus.TLSConfig{CAFile: f.ca.File} }

func (f *fortress) config(listener string, tls *bus.TLSConfig, sasl *bus.SASLConfig) bus.Config {
	c := config(f.On(listener))
	c.TLS, c.SASL = tls, sasl
	return c
}

func secret(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	rewrite(t, file, text)
	return file
}

func rewrite(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func user(t *testing.T, mechanism, name, password string) *bus.SASLConfig {
	return &bus.SASLConfig{Mechanism: mechanism, Username: name, PasswordFile: secret(t, password)}
}

func TestSecurity(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	f := newFortress(t)
	t.Run("let in", func(t *testing.T) { letIn(t, f) })
	t.Run("kept out", func(t *testing.T) { keptOut(t, f) })
	t.Run("refused while running", func(t *testing.T) { refusedWhileRunning(t, f) })
	t.Run("password changed", func(t *testing.T) { passwordChanged(t, f) })
	t.Run("documented rights", func(t *testing.T) { documentedRights(t, f) })
	t.Run("authenticates again", func(t *testing.T) { authenticatesAgain(t, f) })
}

// Each way in carries what the router does: topics, appends, a group, offsets.
func letIn(t *testing.T, f *fortress) {
	client := f.ca.Issue("weiche", time.Now().Add(time.Hour))
	mutual := f.tls()
	mutual.CertFile, mutual.KeyFile = client.CertFile, client.KeyFile
	for name, cfg := range map[string]bus.Config{
		"mutual TLS":                    f.config("mtls", mutual, nil),
		"PLAIN":                         f.config("sasl", f.tls(), user(t, "PLAIN", "weiche", password)),
		"SCRAM-SHA-256":                 f.config("sasl", f.tls(), user(t, "SCRAM-SHA-256", "weiche", password)),
		"SCRAM-SHA-512":                 f.config("sasl", f.tls(), user(t, "SCRAM-SHA-512", "weiche", password)),
		"OAUTHBEARER, token file":       f.config("sasl", f.tls(), f.issuer.file(t, f.issuer.token(t, claims{}))),
		"OAUTHBEARER, token endpoint":   f.config("sasl", f.tls(), f.issuer.endpoint(t)),
		"TLS alone, for a user unnamed": f.config("tls", f.tls(), nil),
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, cfg)
			if err := b.CheckSafety(t.Context()); err != nil {
				t.Fatal(err)
			}
			name := topic(t, b, 1)
			appendAll(t, b, record(name, "k", "v"))
			ch, end := subscribe(t, b, bus.Group{Name: "g." + name}, name)
			if m := next(t, ch); string(m.Payload) != "v" || !m.Ack() {
				t.Fatalf("got %q", m.Payload)
			}
			end()
			if at, err := b.Committed(t.Context(), "g."+name, name); err != nil || at[0] != 1 {
				t.Fatalf("committed %v, %v", at, err)
			}
		})
	}
}

// keptOut: each refusal has its reason, comes before the time is up, after few
// attempts, and tells no secret.
func keptOut(t *testing.T, f *fortress) {
	later := time.Now().Add(time.Hour)
	presenting := func(c kafkatest.Certificate) *bus.TLSConfig {
		return &bus.TLSConfig{CAFile: f.ca.File, CertFile: c.CertFile, KeyFile: c.KeyFile}
	}
	sasl := func(s *bus.SASLConfig) bus.Config { return f.config("sasl", f.tls(), s) }
	endpoint := func(change func(*bus.TokenConfig)) bus.Config {
		s := f.issuer.endpoint(t)
		change(s.Token)
		return sasl(s)
	}
	minute := time.Minute
	for name, c := range map[string]struct {
		cfg    bus.Config
		reason fault.Reason
		says   string
	}{
		"PLAIN, wrong password":          {sasl(user(t, "PLAIN", "weiche", wrongPassword)), fault.ReasonNotAuthorised, "wrong password"},
		"PLAIN, unknown user":            {sasl(user(t, "PLAIN", "nobody", password)), fault.ReasonNotAuthorised, "unknown"},
		"SCRAM-SHA-256, wrong password":  {sasl(user(t, "SCRAM-SHA-256", "weiche", wrongPassword)), fault.ReasonNotAuthorised, "wrong password"},
		"SCRAM-SHA-512, unknown user":    {sasl(user(t, "SCRAM-SHA-512", "nobody", password)), fault.ReasonNotAuthorised, "unknown"},
		"token expired in its file":      {sasl(f.issuer.file(t, f.issuer.token(t, claims{end: -minute}))), fault.ReasonNotAuthorised, "expired at"},
		"token for another audience":     {sasl(f.issuer.file(t, f.issuer.token(t, claims{audience: "others"}))), fault.ReasonNotAuthorised, "token"},
		"token of another issuer's key":  {sasl(f.issuer.file(t, newIssuer(t, f.ca).token(t, claims{}))), fault.ReasonNotAuthorised, "token"},
		"token that is none":             {sasl(f.issuer.file(t, "eyJhbGciOiJub25lIn0")), fault.ReasonNotAuthorised, "token"},
		"expired token of the endpoint":  {endpoint(func(c *bus.TokenConfig) { c.URL += "?expired=1" }), fault.ReasonNotAuthorised, "token"},
		"endpoint: wrong secret":         {endpoint(func(c *bus.TokenConfig) { c.ClientSecretFile = secret(t, wrongPassword) }), fault.ReasonNotAuthorised, "invalid_client"},
		"endpoint: elsewhere":            {endpoint(func(c *bus.TokenConfig) { c.URL += "?redirect=1" }), fault.ReasonNotAuthorised, "302"},
		"endpoint: out of order":         {endpoint(func(c *bus.TokenConfig) { c.URL += "?broken=1" }), fault.ReasonBrokerUnavailable, "503"},
		"endpoint: gone":                 {endpoint(func(c *bus.TokenConfig) { c.URL = "https://127.0.0.1:1/token" }), fault.ReasonBrokerUnavailable, "token_url"},
		"endpoint: unknown authority":    {endpoint(func(c *bus.TokenConfig) { c.CAFile = f.stranger.File }), fault.ReasonCertificate, "token_url"},
		"endpoint: plain http":           {endpoint(func(c *bus.TokenConfig) { c.URL = strings.Replace(c.URL, "https", "http", 1) }), fault.ReasonMisconfigured, "https"},
		"server of an unknown authority": {f.config("tls", &bus.TLSConfig{CAFile: f.stranger.File}, nil), fault.ReasonCertificate, "authority"},
		"server by another name":         {f.config("tls", &bus.TLSConfig{CAFile: f.ca.File, ServerName: "kafka.example"}, nil), fault.ReasonCertificate, "host name"},
		"client without certificate":     {f.config("mtls", f.tls(), nil), fault.ReasonCertificate, "client certificate"},
		"client of another authority":    {f.config("mtls", presenting(f.stranger.Issue("weiche", later)), nil), fault.ReasonCertificate, "client certificate"},
		"client certificate expired":     {f.config("mtls", presenting(f.ca.Issue("weiche", time.Now().Add(-minute))), nil), fault.ReasonCertificate, "expired"},
		"no SASL where it is asked for":  {f.config("sasl", f.tls(), nil), fault.ReasonBrokerUnavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			door := countConnections(t, c.cfg.Brokers[0])
			c.cfg.Brokers = []string{door.addr}
			log := &lines{}
			b, err := bus.Open(t.Context(), c.cfg, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), prometheus.NewRegistry())
			if err == nil {
				_ = b.Close()
				t.Fatalf("let in\n%s", log)
			}
			t.Logf("after %d connections: %v", door.count.Load(), err)
			if fault.Of(err).Reason != c.reason {
				t.Fatalf("got %v (%v), want the reason %s\n%s", err, errors.Unwrap(err), c.reason, log)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("the text does not say %q: %v", c.says, err)
			}
			if n := door.count.Load(); n > 8 {
				t.Errorf("%d connections for one refusal", n)
			}
			for _, s := range []string{password, wrongPassword, clientSecret, "eyJ"} {
				if strings.Contains(err.Error(), s) || strings.Contains(log.String(), s) {
					t.Errorf("a secret is told: %v\n%s", err, log.String())
				}
			}
		})
	}
}

// A credential that turns wrong fails what needs a new connection, with the same
// reason; one that is put right works again, without a restart.
func refusedWhileRunning(t *testing.T, f *fortress) {
	for name, c := range map[string]struct{ good, bad string }{
		"SCRAM-SHA-512": {password, wrongPassword},
		"PLAIN":         {password, wrongPassword},
		"OAUTHBEARER":   {f.issuer.token(t, claims{}), f.issuer.token(t, claims{end: -time.Minute})},
	} {
		t.Run(name, func(t *testing.T) {
			s := user(t, name, "weiche", c.good)
			if name == "OAUTHBEARER" {
				s = f.issuer.file(t, c.good)
			}
			file := s.PasswordFile + s.TokenFile
			log := &lines{}
			b, err := bus.Open(t.Context(), f.config("sasl", f.tls(), s), slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			name := topic(t, b, 1)
			rewrite(t, file, c.bad)
			err = b.Append(t.Context(), record(name, "k", "lost"))
			wantReason(t, err, fault.ReasonNotAuthorised)
			for _, s := range []string{c.good, c.bad} {
				if strings.Contains(err.Error(), s) {
					t.Errorf("a secret is told: %v", err)
				}
			}
			ch, _ := subscribe(t, b, bus.Group{Name: "g." + name}, name)
			eventually(t, "a group session that is refused", func() bool {
				return strings.Contains(log.String(), "group session failed") && strings.Contains(log.String(), "reason=not-authorised")
			})
			rewrite(t, file, c.good)
			eventually(t, "an append", func() bool { return b.Append(t.Context(), record(name, "k", "v")) == nil })
			m := next(t, ch)
			if m.Ack(); string(m.Payload) != "v" {
				t.Errorf("got %q", m.Payload)
			}
		})
	}
}

// Brokers that end a session after connections.max.reauth.ms are authenticated
// to again on the same connection: nothing fails, and no group moves.
func authenticatesAgain(t *testing.T, f *fortress) {
	for name, s := range map[string]*bus.SASLConfig{
		"PLAIN":         user(t, "PLAIN", "weiche", password),
		"SCRAM-SHA-512": user(t, "SCRAM-SHA-512", "weiche", password),
		"OAUTHBEARER":   f.issuer.endpoint(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewRegistry()
			b, err := bus.Open(t.Context(), f.config("brief", f.tls(), s), logger(t), reg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			name := topic(t, b, 1)
			ch, _ := subscribe(t, b, bus.Group{Name: "g." + name}, name)
			for began := time.Now(); time.Since(began) < 7*time.Second; time.Sleep(100 * time.Millisecond) {
				appendAll(t, b, record(name, "k", "v"))
				next(t, ch).Ack()
				if _, _, err := b.Offsets(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
			if n := counter(t, reg, "weiche_bus_rebalances_total"); n != 1 {
				t.Errorf("%v rebalances", n)
			}
		})
	}
}

// A password that is changed at the brokers and in its file is used by every
// connection made after that, of the producer, the group, tails and short requests.
func passwordChanged(t *testing.T, f *fortress) {
	const changed = "changed-0123456789"
	users := map[string]*bus.SASLConfig{"SCRAM-SHA-256": user(t, "SCRAM-SHA-256", "weiche", password), "PLAIN": user(t, "PLAIN", "weiche", password)}
	var checks []func(*testing.T)
	for name, s := range users {
		b := open(t, f.config("sasl", f.tls(), s))
		checks = append(checks, atWork(t, b, name))
	}
	if _, err := f.Administrator(t).UpsertUserScramCredentials([]sarama.AlterUserScramCredentialsUpsert{
		{Name: "weiche", Mechanism: sarama.SCRAM_MECHANISM_SHA_256, Iterations: 4096, Salt: []byte("salt-of-sixteen!"), Password: []byte(changed)}}); err != nil {
		t.Fatal(err)
	}
	f.Nodes[0].Set("listener.name.sasl.plain.sasl.jaas.config",
		fmt.Sprintf(`org.apache.kafka.common.security.plain.PlainLoginModule required user_weiche="%s";`, changed))
	for _, s := range users {
		rewrite(t, s.PasswordFile, changed)
	}
	f.Nodes[0].Restart() // every connection is made anew
	for _, check := range checks {
		check(t)
	}
}

// atWork lets a bus append, consume and tail. What it returns checks that it does
// so still.
func atWork(t *testing.T, b *bus.Bus, of string) func(*testing.T) {
	name := topic(t, b, 1)
	ch, _ := subscribe(t, b, bus.Group{Name: "g." + name}, name)
	var tailed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Tail(ctx, name, 0, 0, func(*bus.Record) error { tailed.Add(1); return nil }) }()
	appendAll(t, b, record(name, "k", "1"))
	next(t, ch).Ack()
	eventually(t, of+": the tail", func() bool { return tailed.Load() >= 1 })
	return func(t *testing.T) {
		eventually(t, of+": an append", func() bool { return b.Append(t.Context(), record(name, "k", "2")) == nil })
		for { // the first may come again
			m := next(t, ch)
			if m.Ack(); string(m.Payload) == "2" {
				break
			}
		}
		eventually(t, of+": the tail", func() bool { return tailed.Load() >= 2 })
		eventually(t, of+": short requests", func() bool { return b.Ping(t.Context()) == nil })
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// counter reads a counter without labels.
func counter(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// lines is a log that may be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// door passes connections on and counts them.
type door struct {
	addr  string
	count atomic.Int64
}

func countConnections(t *testing.T, to string) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	d := &door{addr: l.Addr().String()}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			d.count.Add(1)
			go forward(in.(*net.TCPConn), to)
		}
	}()
	return d
}

// forward ends each direction when its source has ended, so that the last words
// of a peer that hangs up still arrive.
func forward(in *net.TCPConn, to string) {
	defer func() { _ = in.Close() }()
	c, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	out := c.(*net.TCPConn)
	defer func() { _ = out.Close() }()
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{in, out}, {out, in}} {
		both.Go(func() {
			_, _ = way[1].ReadFrom(way[0])
			_ = way[1].CloseWrite()
		})
	}
	both.Wait()
}
