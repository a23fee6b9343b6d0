package bus_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/fault"
	"weiche/internal/kafkatest"
)

func TestTopicsOfAnAdministrator(t *testing.T) {
	t.Run("embedded broker", func(t *testing.T) {
		b, err := embedded.Start(t.TempDir(), embedded.Options{}, logger(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		administered(t, b.Addrs())
	})
	t.Run("Apache Kafka", func(t *testing.T) {
		if testing.Short() {
			t.Skip("starts Apache Kafka")
		}
		administered(t, kafkatest.Start(t).Addrs())
	})
}

func administered(t *testing.T, addrs []string) {
	b := open(t, config(addrs))
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	admin, err := sarama.NewClusterAdmin(addrs, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	create := func(settings map[string]string) string {
		t.Helper()
		name := fmt.Sprintf("admin.%d", rand.Uint32())
		d := &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: map[string]*string{}}
		for k, v := range settings {
			d.ConfigEntries[k] = &v
		}
		if err := admin.CreateTopic(name, d, false); err != nil {
			t.Fatal(err)
		}
		return name
	}
	wanted := func(name string) bus.Topic {
		return bus.Topic{Name: name, Partitions: 2, RetentionMS: -1, MaxMessageBytes: 17 << 20, SegmentMS: 300_000}
	}
	right := map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": fmt.Sprint(20 << 20), "segment.ms": "60000"}

	t.Run("made with the right settings it is taken as it is", func(t *testing.T) {
		if err := b.EnsureTopics(t.Context(), []bus.Topic{wanted(create(right))}); err != nil {
			t.Error(err)
		}
	})
	// Each difference is named, with the command that mends it.
	for setting, value := range map[string]string{
		"cleanup.policy": "compact,delete", "retention.ms": "604800000", "retention.bytes": "1000000", "max.message.bytes": "1048576",
		"message.timestamp.type": "LogAppendTime", "segment.ms": "604800000", "message.timestamp.before.max.ms": "86400000", "segment.bytes": "2097152",
	} {
		t.Run(setting, func(t *testing.T) {
			with := map[string]string{setting: value}
			for k, v := range right {
				if k != setting {
					with[k] = v
				}
			}
			name := create(with)
			err := b.EnsureTopics(t.Context(), []bus.Topic{wanted(name)})
			wantReason(t, err, fault.ReasonMisconfigured)
			command := "kafka-configs.sh --bootstrap-server " + addrs[0] + " --alter --topic " + name + " --add-config " + setting + "="
			if !strings.Contains(err.Error(), setting+" is "+value) || !strings.Contains(err.Error(), command) {
				t.Errorf("got: %v", err)
			}
			// The command's setting does mend it.
			_, mended, _ := strings.Cut(err.Error(), command)
			mended, _, _ = strings.Cut(mended, ";")
			if err := admin.IncrementalAlterConfig(sarama.TopicResource, name,
				map[string]sarama.IncrementalAlterConfigsEntry{setting: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &mended}}, false); err != nil {
				t.Fatal(err)
			}
			soon(t, func() error { return b.EnsureTopics(t.Context(), []bus.Topic{wanted(name)}) })
		})
	}

	t.Run("partitions added while it runs", func(t *testing.T) {
		name := create(right)
		if err := b.EnsureTopics(t.Context(), []bus.Topic{wanted(name)}); err != nil {
			t.Fatal(err)
		}
		if found, err := b.Recounted(t.Context()); err != nil || len(found) > 0 {
			t.Fatalf("%v, %v", found, err)
		}
		if err := admin.CreatePartitions(name, 5, nil, false); err != nil {
			t.Fatal(err)
		}
		soon(t, func() error {
			if found, err := b.Recounted(t.Context()); err != nil || len(found) != 1 || found[name] != 5 {
				return fmt.Errorf("%v, %w", found, err)
			}
			return nil
		})
		err := b.EnsureTopics(t.Context(), []bus.Topic{wanted(name)})
		wantReason(t, err, fault.ReasonMisconfigured)
		if !strings.Contains(err.Error(), "number of partitions is 5, kafka.partitions is 2") || !strings.Contains(err.Error(), "docs/runbooks/WeichePartitionsChanged.md") {
			t.Errorf("got: %v", err)
		}
	})

	t.Run("offsets at a time, members of a group", func(t *testing.T) {
		name := create(right)
		at := time.Now().Truncate(time.Millisecond)
		for i := range 4 {
			r := &bus.Record{Topic: name, Partition: 1, Key: []byte("k"), Value: []byte("v"), Time: at.Add(time.Duration(i-2) * time.Hour)}
			appendAll(t, b, r)
		}
		for back, want := range map[time.Duration]int64{-3 * time.Hour: 0, -2 * time.Hour: 0, -90 * time.Minute: 1, 0: 2, 30 * time.Minute: 3, 2 * time.Hour: 4} {
			got, err := b.OffsetsAt(t.Context(), name, at.Add(back))
			if err != nil || len(got) != 2 || got[0] != 0 || got[1] != want {
				t.Errorf("%s: %v, %v, want %d", back, got, err, want)
			}
		}
		if n, err := b.Members(t.Context(), name); err != nil || n != 0 {
			t.Errorf("%d members, %v", n, err)
		}
		ch, _ := subscribe(t, b, bus.Group{Name: name}, name)
		next(t, ch).Ack()
		if n, err := b.Members(t.Context(), name); err != nil || n != 1 {
			t.Errorf("%d members, %v", n, err)
		}
	})
}

// soon is for what a cluster makes known to its brokers by and by.
func soon(t *testing.T, fn func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = fn(); err == nil {
			return
		}
	}
	t.Error(err)
}
