package test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

// A router whose user has the rights that docs/kafka.md lists, and no more, does
// all its work on a Kafka with TLS, SCRAM and an authorizer. Without one of them
// the start says which it is.
func TestDocumentedRightsSuffice(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	ca := kafkatest.NewAuthority(t)
	listener := ca.Server()
	listener["sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
	listener["scram-sha-512.sasl.jaas.config"] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	cluster := kafkatest.Start(t,
		kafkatest.Listener("secure", "SASL_SSL", listener),
		kafkatest.Property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
		kafkatest.Property("super.users", "User:ANONYMOUS"),
		kafkatest.User("SCRAM-SHA-512", "weiche", "of-the-router"), kafkatest.User("SCRAM-SHA-512", "portal", "of-the-portal"))
	password := func(text string) string {
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	brokers := cluster.On("secure")
	r := newRouter(t, append(onKafka(cluster), "WEICHE_KAFKA_BROKERS="+strings.Join(brokers, ","), "WEICHE_KAFKA_TLS_CA_FILE="+ca.File,
		"WEICHE_KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "WEICHE_KAFKA_SASL_USERNAME=weiche", "WEICHE_KAFKA_SASL_PASSWORD_FILE="+password("of-the-router"))...)
	refused := func(says string) {
		t.Helper()
		err := r.start()
		if err == nil || !strings.Contains(err.Error(), "not-authorised") || !strings.Contains(err.Error(), says) {
			t.Fatalf("the start does not say %q: %v", says, err)
		}
	}
	admin, page := cluster.Administrator(t), filepath.Join(repo, "docs/kafka.md")
	commands := func(heading string) (script string) {
		for _, portal := range []string{"service-bw", "amt24"} {
			script += strings.ReplaceAll(kafkatest.Commands(t, page, heading), "PORTAL", portal)
		}
		return script
	}

	refused("Read on group weiche-dispatch")
	kafkatest.Carry(t, admin, commands("What the router needs in any case"), "User:weiche")
	refused("create topic weiche.")
	kafkatest.Carry(t, admin, commands("Where the router creates its topics"), "User:weiche")
	// As the page says of destinations and portals.
	kafkatest.Carry(t, admin, "acls --operation Write --operation Create --operation DescribeConfigs --topic fv.sachsen.gewerbe", "User:weiche")
	kafkatest.Carry(t, admin, "acls --operation Write --topic weiche.intake.service-bw", "User:portal")
	r.Start()

	portal, err := bus.Open(t.Context(), bus.Config{Brokers: brokers, TLS: &bus.TLSConfig{CAFile: ca.File},
		SASL: &bus.SASLConfig{Mechanism: "SCRAM-SHA-512", Username: "portal", PasswordFile: password("of-the-portal")}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { portal.Close() })
	form := func(region string) []byte {
		return example(t, "gewerbeanmeldung", "minimal", map[string]any{"region": region})
	}
	// A directory, a topic, and a portal's own topic.
	ids := map[string]string{
		r.MustPost("service-bw", "directory", form("DE081150003003")).accepted(t).SubmissionID: "service-bw",
		r.MustPost("amt24", "topic", form("145110000000")).accepted(t).SubmissionID:            "amt24",
		submission.NewID("service-bw", "own-topic").String():                                   "service-bw",
	}
	if err := portal.Append(t.Context(), intakeRecord("service-bw", "own-topic", form("DE081150003003"))); err != nil {
		t.Fatal(err)
	}
	if err := portal.Append(t.Context(), intakeRecord("amt24", "foreign", form("145110000000"))); err == nil {
		t.Error("a portal wrote to another's topic")
	}
	for id, by := range ids {
		eventually(t, time.Minute, func() (bool, string) { s := r.State(by, id); return s == "delivered", s })
	}
	// What was taken from the portal's topic is deleted there.
	plain := connect(t, cluster.Addrs())
	eventually(t, time.Minute, func() (bool, string) {
		oldest, _, err := plain.Offsets(t.Context(), "weiche.intake.service-bw")
		var cut int64
		for _, o := range oldest {
			cut += o
		}
		return err == nil && cut > 0, "the portal's record still lies in its topic"
	})
	r.MustCLI("status", "rebuild")
	for id, by := range ids {
		eventually(t, time.Minute, func() (bool, string) { s := r.State(by, id); return s == "delivered", s })
	}
	began := strings.LastIndex(r.Log(), "topic created")
	if log := r.Log()[began:]; strings.Contains(log, "not-authorised") || strings.Contains(log, "of-the-router") {
		t.Errorf("a right is missing, or a secret is told:\n%s", tail(log, 4000))
	}
}
