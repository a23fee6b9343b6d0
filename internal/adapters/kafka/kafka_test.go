package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"mime/multipart"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/kafka"
	"weiche/internal/adapters/spec"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

func open(t *testing.T, deps spec.Deps, settings string, args ...any) spec.Adapter {
	t.Helper()
	return adaptertest.Open(t, kafka.Kind(), deps, fmt.Sprintf(settings, args...))
}

// cluster is the router's own: the embedded broker, for the whole test.
func cluster(t *testing.T) (*embedded.Broker, *bus.Bus) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	broker, err := embedded.Start(t.TempDir(), embedded.Options{}, log)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.Open(t.Context(), bus.Config{Brokers: broker.Addrs(), ReplicationFactor: 1, AllowUnsafe: []string{bus.UnsafeReplicationFactor}}, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(); _ = broker.Close() })
	return broker, b
}

func records(t *testing.T, b *bus.Bus, topic string) []*bus.Record {
	t.Helper()
	oldest, newest, err := b.Offsets(context.Background(), topic)
	if f := fault.Of(err); f != nil && f.Reason == fault.ReasonUnknownTopic {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var out []*bus.Record
	for p := range newest {
		err := b.ReadTo(context.Background(), topic, int32(p), oldest[p], newest[p], func(r *bus.Record) error { out = append(out, r); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func received(t *testing.T, b *bus.Bus, topic string) []adaptertest.Received {
	t.Helper()
	var out []adaptertest.Received
	for _, r := range records(t, b, topic) {
		m := adaptertest.Received{ID: r.Headers["ce_id"], Beside: maps.Clone(r.Headers)}
		m.Beside["key"] = string(r.Key)
		mediaType, params, err := mime.ParseMediaType(r.Headers["content-type"])
		switch {
		case err != nil:
			t.Fatal(err)
		case mediaType == "application/xml":
			m.Message = r.Value
		default:
			parts := multipart.NewReader(bytes.NewReader(r.Value), params["boundary"])
			for {
				p, err := parts.NextPart()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(p)
				if m.Message == nil {
					m.Message = body
				} else {
					m.Attachments = append(m.Attachments, body)
				}
			}
		}
		out = append(out, m)
	}
	return out
}

// mute is a broker that takes connections and says nothing.
func mute(t *testing.T, begun chan<- struct{}) string {
	t.Helper()
	return adaptertest.Serve(t, func(c net.Conn) {
		select {
		case begun <- struct{}{}:
		default:
		}
		_, _ = io.Copy(io.Discard, c)
	}).String()
}

// The router's own cluster. Its connection serves all the router's work, so what
// belongs to a connection of the adapter's own is tried in TestOtherCluster.
func TestConformance(t *testing.T) {
	_, own := cluster(t)
	const other = "the router's own connection is not the adapter's: see TestConformanceOfAnotherCluster"
	adaptertest.Suite{
		Repeats: true,
		// The broker runs in this process: its goroutines, its files.
		Shared: func(what string) bool {
			return strings.Contains(what, "/kfake") || strings.Contains(what, "/partitions/")
		},
		Open: func(t *testing.T, c adaptertest.Condition, deps spec.Deps) adaptertest.Door {
			topic := "fv." + uuid.NewString()
			deps.Bus = own
			door := adaptertest.Door{Received: func() []adaptertest.Received { return received(t, own, topic) }}
			settings := "topic: " + topic + "\n"
			if c == adaptertest.RefusesForGood {
				settings += "max_message: 64KB\n"
				door.Delivery = func() *submission.Delivery { return adaptertest.NewDelivery(make([]byte, 100_000)) }
			}
			door.Adapter = open(t, deps, "%s", settings)
			return door
		},
		Without: map[adaptertest.Condition]string{
			adaptertest.RefusesForNow: "a broker judges no message; what it cannot do now (no leader, replicas missing) is tested with the bus",
			adaptertest.AtFault:       other, adaptertest.Slow: other, adaptertest.CutsOff: other, adaptertest.RotatesSecret: other,
			adaptertest.Idle: other, adaptertest.Closed: other,
		},
	}.Run(t)
}

func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// What an integrator finds in the topic.
func TestRecord(t *testing.T) {
	_, own := cluster(t)
	a := open(t, spec.Deps{Bus: own}, "topic: fv.bauamt\npartitions: 2\nretention: 720h")
	d := adaptertest.NewDelivery()
	d.Test = true
	if err := a.Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	got := records(t, own, "fv.bauamt")
	if len(got) != 1 {
		t.Fatalf("%d records", len(got))
	}
	want := map[string]string{
		"ce_specversion": "1.0", "ce_type": "weiche.message", "ce_id": d.ID, "ce_source": "/weiche/destinations/08-bauamt", "ce_subject": d.SubmissionID,
		"ce_submissionid": d.SubmissionID, "ce_caseid": d.CaseID, "ce_service": "99012008001000", "ce_land": "08", "ce_portal": "service-bw",
		"ce_format": "xbau/2.6/baugenehmigung.antrag.0200", "ce_authoritykey": "bab:08115003", "ce_test": "true", "ce_attempt": "1",
		"content-type": "application/xml", "traceparent": d.Traceparent,
	}
	if !maps.Equal(got[0].Headers, want) {
		t.Errorf("the headers are\n%v\nand should be\n%v", got[0].Headers, want)
	}
	if string(got[0].Key) != d.CaseID {
		t.Error("the key is not the case id")
	}
	oldest, _, err := own.Offsets(t.Context(), "fv.bauamt")
	if err != nil || len(oldest) != 2 {
		t.Errorf("the topic was made with %d partitions (%v), 2 were asked for", len(oldest), err)
	}
}

// A topic that exists is taken as it is, whatever partitions are set.
func TestExistingTopic(t *testing.T) {
	_, own := cluster(t)
	if err := own.EnsureTopics(t.Context(), []bus.Topic{{Name: "fv.alt", Partitions: 1, RetentionMS: 3_600_000}}); err != nil {
		t.Fatal(err)
	}
	if err := open(t, spec.Deps{Bus: own}, "topic: fv.alt\npartitions: 7").Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Error(err)
	}
}

func TestTopicNotToBeMade(t *testing.T) {
	_, own := cluster(t)
	err := open(t, spec.Deps{Bus: own}, "topic: fv.fehlt\ncreate_topic: false").Deliver(t.Context(), adaptertest.NewDelivery())
	if f := fault.Of(err); f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonUnknownTopic {
		t.Errorf("a missing topic gave %v", err)
	}
	if _, _, err := own.Offsets(t.Context(), "fv.fehlt"); err == nil {
		t.Error("the topic was made all the same")
	}
}

// A topic that takes less than max_message says: the message is at fault.
func TestTopicTakesLess(t *testing.T) {
	_, own := cluster(t)
	if err := own.EnsureTopics(t.Context(), []bus.Topic{{Name: "fv.klein", Partitions: 1, RetentionMS: -1, MaxMessageBytes: 10_000}}); err != nil {
		t.Fatal(err)
	}
	a := open(t, spec.Deps{Bus: own}, "topic: fv.klein")
	err := a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 50_000)))
	if f := fault.Of(err); f == nil || f.Class != fault.Permanent || f.Reason != fault.ReasonTooLarge {
		t.Errorf("a message too large for the topic gave %v", err)
	}
	if err := a.Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// Another cluster, which comes up only after the first attempt.
func TestOtherCluster(t *testing.T) {
	_, own := cluster(t)
	log := slog.New(slog.DiscardHandler)
	addr := nobody(t)
	a := open(t, spec.Deps{Bus: own}, "topic: fv.fern\nbrokers: ['%s']\nreplication_factor: 1\nallow_networks: [loopback]", addr)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := a.Deliver(ctx, adaptertest.NewDelivery())
	if f := fault.Of(err); f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonUnreachable {
		t.Errorf("a cluster that is away gave %v", err)
	}
	var port int
	if _, err := fmt.Sscanf(addr[strings.LastIndexByte(addr, ':'):], ":%d", &port); err != nil {
		t.Fatal(err)
	}
	broker, err := embedded.Start(t.TempDir(), embedded.Options{Port: port}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	d := adaptertest.NewDelivery([]byte("a"))
	if err := a.Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	far, err := bus.Open(t.Context(), bus.Config{Brokers: []string{addr}}, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	if got := received(t, far, "fv.fern"); len(got) != 1 || got[0].ID != d.ID {
		t.Errorf("%d messages in the other cluster", len(got))
	}
	if got := records(t, own, "fv.fern"); len(got) != 0 {
		t.Error("the message went into the router's own cluster as well")
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct{ settings, want string }{
		{"topic: fv.bauamt", ""},
		{"partitions: 3", "needs topic"},
		{"topic: weiche.events", "destinations.yaml:1:8: topic"},
		{"topic: fv bauamt", "letters"},
		{"topic: a\npartitions: 0", "destinations.yaml:2:13"},
		{"topic: a\nbroker: [x]", `is "brokers" meant?`},
		{"topic: a\nusername: x", "brokers is empty"},
		{"topic: a\nbrokers: [x:1]\nsasl: PLAIN", "username and password_file"},
		{"topic: a\nbrokers: [x:1]\nsasl: GSSAPI\nusername: x\npassword_file: y", "one of PLAIN"},
		{"topic: a\nbrokers: [x:1]\ntls: true\nca_file: ca\ncert_file: c\nkey_file: k\nsasl: SCRAM-SHA-512\nusername: x\npassword_file: y", ""},
		{"topic: a\nallow_networks: [loopback]", "brokers is empty"},
		{"topic: a\nbrokers: [x:1]\nallow_networks: [local]", "destinations.yaml:3:"},
		{"topic: a\nbrokers: [x:1]\nusername: x", "needs sasl"},
		{"topic: a\nbrokers: [x:1]\nsasl: SCRAM-SHA-512\nusername: x\npassword_file: y\ntoken_file: z", "needs sasl: OAUTHBEARER"},
		{"topic: a\nbrokers: [x:1]\ntls: true\nsasl: OAUTHBEARER", "either token_file or token_url"},
		{"topic: a\nbrokers: [x:1]\nsasl: OAUTHBEARER\ntoken_file: z", "needs tls: true"},
		{"topic: a\nbrokers: [x:1]\ntls: true\nsasl: OAUTHBEARER\ntoken_file: z", ""},
		{"topic: a\nbrokers: [x:1]\ntls: true\nsasl: OAUTHBEARER\ntoken_file: z\nclient_id: c", "goes with token_url"},
		{"topic: a\nbrokers: [x:1]\ntls: true\nsasl: OAUTHBEARER\ntoken_url: https://idp.example/t", "client_id and client_secret_file"},
		{"topic: a\nbrokers: [x:1]\ntls: true\nsasl: OAUTHBEARER\ntoken_url: http://idp.example/t\nclient_id: c\nclient_secret_file: s", "https://"},
		{"topic: a\nbrokers: [x:1]\ntls: true\nsasl: OAUTHBEARER\ntoken_url: https://idp.example/t\nclient_id: c\nclient_secret_file: s\nusername: u", "not for OAUTHBEARER"},
		{"topic: a\nbrokers: [x:1]\nserver_name: k", "needs tls"},
		{"topic: a\nbrokers: [x:1]\nconnect_timeout: 0s", "more than 0"},
		{"topic: a\nmax_message: 2GB", "destinations.yaml:2:14"},
	} {
		s, err := config.ParseSettings("destinations.yaml", c.settings)
		if err != nil {
			t.Fatal(err)
		}
		_, ps := kafka.Kind().Decode(s)
		if got := ps.Error(); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%q says %q, %q was expected", c.settings, got, c.want)
		}
	}
}
