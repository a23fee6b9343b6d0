package kafka_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/spec"
	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

const (
	user     = "weiche"
	password = "correct-horse-1"
)

// away is another cluster: a real Kafka that wants TLS with a client certificate,
// and a user on top of it.
type away struct {
	*kafkatest.Cluster
	ca  *kafkatest.Authority
	far *bus.Bus // reads what has come out
}

func startAway(t *testing.T) *away {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	a := &away{ca: kafkatest.NewAuthority(t)}
	const login = "org.apache.kafka.common.security."
	props := a.ca.Server()
	for k, v := range map[string]string{
		"ssl.client.auth":                "required",
		"sasl.enabled.mechanisms":        "SCRAM-SHA-512,OAUTHBEARER",
		"scram-sha-512.sasl.jaas.config": login + "scram.ScramLoginModule required;",
		// An unsigned token is enough to see that ours arrives; that brokers verify is
		// tried with the bus.
		"oauthbearer.sasl.jaas.config": login + "oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\" unsecuredValidatorAllowableClockSkewMs=\"3000\";",
	} {
		props[k] = v
	}
	a.Cluster = kafkatest.Start(t,
		kafkatest.Listener("sasl", "SASL_SSL", props),
		kafkatest.Proxied("cut", func(addr string) string { return cutAfter(t, addr, 200_000) }),
		kafkatest.Proxied("evil", func(addr string) string { return "127.0.0.9" + addr[strings.LastIndexByte(addr, ':'):] }),
		kafkatest.User("SCRAM-SHA-512", user, password))
	far, err := bus.Open(t.Context(), bus.Config{Brokers: a.Addrs(), ReplicationFactor: 1}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	a.far = far
	return a
}

// settings writes the files of a destination into deps' directory and returns
// what reaches it.
func (a *away) settings(t *testing.T, deps spec.Deps, topic string) string {
	t.Helper()
	cert := a.ca.Issue("weiche", time.Now().Add(time.Hour))
	copyFile(t, cert.CertFile, filepath.Join(deps.DataDir, "cert.pem"))
	copyFile(t, cert.KeyFile, filepath.Join(deps.DataDir, "key.pem"))
	copyFile(t, a.ca.File, filepath.Join(deps.DataDir, "ca.pem"))
	write(t, filepath.Join(deps.DataDir, "password"), password)
	return fmt.Sprintf("topic: %s\nreplication_factor: 1\nallow_networks: [127.0.0.1]\ntls: true\nca_file: ca.pem\ncert_file: cert.pem\nkey_file: key.pem\nbrokers: ['%s']\n",
		topic, strings.Join(a.On("sasl"), "','"))
}

const scram = "sasl: SCRAM-SHA-512\nusername: " + user + "\npassword_file: password\n"

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(b))
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// Another cluster, as its administrators run it: TLS with client certificates and
// a user with a password.
func TestConformanceOfAnotherCluster(t *testing.T) {
	far := startAway(t)
	adaptertest.Suite{
		Repeats: true,
		// One goroutine of sarama's metrics serves all connections of the process; a
		// descriptor that is no socket is not a connection's.
		Shared: func(what string) bool { return strings.Contains(what, "go-metrics.(*meterArbiter)") },
		Open: func(t *testing.T, c adaptertest.Condition, deps spec.Deps) adaptertest.Door {
			topic := "fv." + uuid.NewString()
			settings := far.settings(t, deps, topic) + scram
			door := adaptertest.Door{
				Secrets:  []string{password},
				Received: func() []adaptertest.Received { return received(t, far.far, topic) },
			}
			brokers := func(at string) string { // in the place of the real ones, in plain text
				return fmt.Sprintf("topic: %s\nreplication_factor: 1\nallow_networks: [127.0.0.1]\nbrokers: ['%s']\n", topic, at)
			}
			switch c {
			case adaptertest.RefusesForGood:
				settings += "max_message: 64KB\n"
				door.Delivery = func() *submission.Delivery { return adaptertest.NewDelivery(make([]byte, 100_000)) }
			case adaptertest.AtFault:
				settings = brokers(nobody(t))
			case adaptertest.CutsOff:
				settings = brokers(strings.Join(far.On("cut"), "','"))
				door.Delivery = func() *submission.Delivery { return adaptertest.NewDelivery(make([]byte, 1<<20)) }
			case adaptertest.Slow:
				begun := make(chan struct{}, 10)
				door.Begun = begun
				settings = brokers(mute(t, begun))
			case adaptertest.RotatesSecret:
				settings += "idle_timeout: 0s\n" // every message connects anew
				turn := 0
				door.Rotate = func() {
					turn++
					next := fmt.Sprintf("%s-after-%d", password, turn)
					far.SetPassword(t, user, next)
					write(t, filepath.Join(deps.DataDir, "password"), next)
				}
				t.Cleanup(func() { far.SetPassword(t, user, password) })
			case adaptertest.Idle:
				settings += "idle_timeout: 300ms\n"
			}
			door.Adapter = open(t, deps, "%s", settings)
			return door
		},
		Without: map[adaptertest.Condition]string{
			adaptertest.RefusesForNow: "a broker judges no message; what it cannot do now (no leader, replicas missing) is tested with the bus",
		},
	}.Run(t)
	t.Run("advertised address", func(t *testing.T) { advertisedAddress(t, far) })
	t.Run("address that is not allowed", func(t *testing.T) { addressNotAllowed(t, far) })
	t.Run("token", func(t *testing.T) { withToken(t, far) })
	t.Run("certificate changed", func(t *testing.T) { certificateChanged(t, far) })
	t.Run("refused", func(t *testing.T) { refusedByAway(t, far) })
}

// Brokers that advertise an address which nobody allowed get no connection there.
func advertisedAddress(t *testing.T, far *away) {
	at := far.On("evil")[0]
	l, err := net.Listen("tcp", "127.0.0.9"+at[strings.LastIndexByte(at, ':'):])
	if err != nil {
		adaptertest.Missing(t, "this machine cannot listen on 127.0.0.9: "+err.Error())
	}
	defer func() { _ = l.Close() }()
	var came atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			_ = c.Close()
		}
	}()
	a := open(t, spec.Deps{DataDir: t.TempDir()}, "topic: fv.fern\nallow_networks: [127.0.0.1]\nbrokers: ['%s']", at)
	err = a.Deliver(t.Context(), adaptertest.NewDelivery())
	mustBe(t, err, fault.Destination, fault.ReasonMisconfigured, "allow_networks")
	if came.Load() != 0 {
		t.Errorf("%d connections came to an address that only the brokers named", came.Load())
	}
}

func addressNotAllowed(t *testing.T, far *away) {
	deps := spec.Deps{DataDir: t.TempDir()}
	settings := strings.Replace(far.settings(t, deps, "fv.fern"), "allow_networks: [127.0.0.1]\n", "", 1)
	err := open(t, deps, "%s", settings+scram).Deliver(t.Context(), adaptertest.NewDelivery())
	mustBe(t, err, fault.Destination, fault.ReasonMisconfigured, "allow_networks")
	plain := open(t, deps, "topic: fv.fern\nbrokers: ['193.99.144.80:9092']")
	mustBe(t, plain.Deliver(t.Context(), adaptertest.NewDelivery()), fault.Destination, fault.ReasonMisconfigured, "plain text")
}

// A token from a file and one of an endpoint open the door; the endpoint stands
// under the same networks as the brokers.
func withToken(t *testing.T, far *away) {
	const claims = `eyJhbGciOiJub25lIn0.%s.`
	token := fmt.Sprintf(claims, base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf(`{"sub":"weiche","iat":%d,"exp":%d}`, time.Now().Add(-time.Minute).Unix(), time.Now().Add(time.Hour).Unix()))))
	var asked atomic.Int64
	idp := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, secret, _ := r.BasicAuth()
		w.Header().Set("Content-Type", "application/json")
		if secret != "client-secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"access_token": %q, "token_type": "Bearer", "expires_in": 3600}`, token)
	}))
	idp.TLS = &tls.Config{Certificates: []tls.Certificate{far.ca.Issue("idp", time.Now().Add(time.Hour)).Pair(t)}, MinVersion: tls.VersionTLS12}
	idp.StartTLS()
	t.Cleanup(idp.Close)
	deps := spec.Deps{DataDir: t.TempDir()}
	settings := far.settings(t, deps, "fv.token") + "sasl: OAUTHBEARER\n"
	write(t, filepath.Join(deps.DataDir, "token"), token)
	write(t, filepath.Join(deps.DataDir, "client"), "client-secret")
	write(t, filepath.Join(deps.DataDir, "wrong"), "wrong-secret")
	endpoint := "token_url: " + idp.URL + "\nclient_id: weiche\ntoken_ca_file: ca.pem\nclient_secret_file: "
	for name, c := range map[string]struct {
		settings string
		reason   fault.Reason // empty: let in
		says     string
	}{
		"file":             {settings + "token_file: token", "", ""},
		"endpoint":         {settings + endpoint + "client", "", ""},
		"wrong secret":     {settings + endpoint + "wrong", fault.ReasonNotAuthorised, "token_url answers 401"},
		"secret missing":   {settings + endpoint + "missing", fault.ReasonMisconfigured, "client_secret_file"},
		"endpoint outside": {strings.Replace(settings, "127.0.0.1", "127.0.0.7", 1) + endpoint + "client", fault.ReasonMisconfigured, "allow_networks"},
	} {
		t.Run(name, func(t *testing.T) {
			before := asked.Load()
			err := open(t, deps, "%s", c.settings).Deliver(t.Context(), adaptertest.NewDelivery())
			if c.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
			} else {
				mustBe(t, err, fault.Destination, c.reason, c.says)
			}
			if n := asked.Load() - before; name == "endpoint outside" && n != 0 || n > 8 {
				t.Errorf("the endpoint was asked %d times", n)
			}
		})
	}
}

// A certificate that is renewed is used without a restart, and the connection made
// with the old one ends.
func certificateChanged(t *testing.T, far *away) {
	deps := spec.Deps{DataDir: t.TempDir()}
	door := newRelay(t, far.On("sasl")[0])
	settings := strings.Replace(far.settings(t, deps, "fv.cert"), far.On("sasl")[0], door.addr, 1)
	a := open(t, deps, "%s", settings+scram)
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Fatal(err)
	}
	before := door.came.Load()
	next := far.ca.Issue("weiche", time.Now().Add(2*time.Hour))
	copyFile(t, next.CertFile, filepath.Join(deps.DataDir, "cert.pem"))
	copyFile(t, next.KeyFile, filepath.Join(deps.DataDir, "key.pem"))
	for end := time.Now().Add(30 * time.Second); door.came.Load() == before; time.Sleep(100 * time.Millisecond) {
		if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
			t.Fatalf("while the certificate changes: %v", err)
		}
		if time.Now().After(end) {
			t.Fatal("the connections made with the old certificate are kept")
		}
	}
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Fatal(err)
	}
}

// What another cluster refuses is the destination's fault, in its settings' words.
func refusedByAway(t *testing.T, far *away) {
	deps := spec.Deps{DataDir: t.TempDir()}
	settings := far.settings(t, deps, "fv.fern")
	write(t, filepath.Join(deps.DataDir, "wrong"), "Hunter2-is-wrong")
	stranger := kafkatest.NewAuthority(t)
	copyFile(t, stranger.File, filepath.Join(deps.DataDir, "stranger.pem"))
	for name, c := range map[string]struct {
		settings string
		reason   fault.Reason
		says     string
	}{
		"wrong password":    {strings.Replace(settings+scram, "password_file: password", "password_file: wrong", 1), fault.ReasonNotAuthorised, "wrong password"},
		"no password":       {strings.Replace(settings+scram, "password_file: password", "password_file: missing", 1), fault.ReasonMisconfigured, "password_file"},
		"another authority": {strings.Replace(settings+scram, "ca_file: ca.pem", "ca_file: stranger.pem", 1), fault.ReasonCertificate, ""},
		"no certificate":    {strings.Replace(settings+scram, "cert_file: cert.pem\nkey_file: key.pem\n", "", 1), fault.ReasonCertificate, "client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			err := open(t, deps, "%s", c.settings).Deliver(t.Context(), adaptertest.NewDelivery())
			mustBe(t, err, fault.Destination, c.reason, c.says)
			if strings.Contains(err.Error(), "Hunter2") || strings.Contains(err.Error(), "kafka.") {
				t.Errorf("the error tells a secret, or names the router's own settings: %v", err)
			}
		})
	}
}

func mustBe(t *testing.T, err error, class fault.Class, reason fault.Reason, says string) {
	t.Helper()
	f := fault.Of(err)
	if f == nil || f.Class != class || f.Reason != reason || !strings.Contains(f.Error(), says) {
		t.Errorf("got %v, a %s fault with reason %s that says %q was expected", err, class, reason, says)
	}
}

// relay passes connections on and counts them.
type relay struct {
	addr string
	came atomic.Int64
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	r := &relay{}
	r.addr = adaptertest.Serve(t, func(in net.Conn) {
		r.came.Add(1)
		pass(in, to, func(out io.Writer) { _, _ = io.Copy(out, in) })
	}).String()
	return r
}

// cutAfter passes so many bytes of each connection on and then ends it.
func cutAfter(t *testing.T, to string, n int64) string {
	return adaptertest.Serve(t, func(in net.Conn) {
		pass(in, to, func(out io.Writer) { _, _ = io.CopyN(out, in, n) })
	}).String()
}

func pass(in net.Conn, to string, forward func(io.Writer)) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(in, out) })
	forward(out)
	_ = in.Close()
	_ = out.Close()
	back.Wait()
}
