package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/prometheus/client_golang/prometheus"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/kafkatest"
)

// The suite every watermill Pub/Sub has to pass. It knows no topics that have to
// be made before, and no keys: both are added here.
func universal(t *testing.T, addrs []string) {
	pair := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		b, err := bus.Open(t.Context(), config(addrs), logger(t), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		s, err := b.Subscriber(bus.Group{Name: group, Grace: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return keyed{b.Publisher(), b}, making{s, b}
	}
	tests.TestPubSub(t,
		// Declared deviations: exactly once (at least once is the contract), and
		// subscribers without a group, who would each see everything.
		tests.Features{ConsumerGroups: true, GuaranteedOrder: true, Persistent: true, ForceShort: true},
		func(t *testing.T) (message.Publisher, message.Subscriber) { return pair(t, "universal") },
		pair,
	)
}

// keyed puts all messages of a topic under one key, which is what the suite
// means by order.
type keyed struct {
	message.Publisher
	b *bus.Bus
}

func (k keyed) Publish(topic string, msgs ...*message.Message) error {
	if err := ensure(k.b, topic); err != nil {
		return err
	}
	for i, m := range msgs {
		c := m.Copy()
		c.SetContext(m.Context())
		c.Metadata.Set(bus.KeyMetadata, topic)
		msgs[i] = c
	}
	return k.Publisher.Publish(topic, msgs...)
}

// making makes a topic before the first subscription.
type making struct {
	message.Subscriber
	b *bus.Bus
}

func (m making) SubscribeInitialize(topic string) error { return ensure(m.b, topic) }

func ensure(b *bus.Bus, topic string) error {
	return b.EnsureTopics(context.Background(), []bus.Topic{{Name: topic, Partitions: 4, RetentionMS: -1}})
}

func TestUniversalSuite(t *testing.T) {
	broker, err := embedded.Start(t.TempDir(), embedded.Options{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	universal(t, broker.Addrs())
}

func TestUniversalSuiteOnApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	universal(t, kafkatest.Start(t).Addrs())
}
