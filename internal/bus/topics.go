package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/fault"
)

// The pipeline's own topics. All but Keys and the intake topics have the same
// partition count, so that a case has one partition number everywhere.
const (
	TopicClaims      = "weiche.claims"
	TopicSubmissions = "weiche.submissions"
	TopicDeliveries  = "weiche.deliveries"
	TopicWaiting     = "weiche.waiting"
	TopicUnassigned  = "weiche.unassigned"
	TopicDeadLetters = "weiche.deadletters"
	TopicEvents      = "weiche.events"
	TopicKeys        = "weiche.keys"
	intakePrefix     = "weiche.intake."
)

// IntakeTopic is the name of a portal's own intake topic.
func IntakeTopic(portal string) string { return intakePrefix + portal }

// Topic is a topic as the router wants it.
type Topic struct {
	Name            string
	Partitions      int
	Compacted       bool
	RetentionMS     int64 // -1: for ever
	MaxMessageBytes int   // 0: the broker's default
	// SegmentBytes is the size at which a partition's file is full; 0 leaves it to
	// the cluster. What was deleted leaves the disk a whole file at a time.
	SegmentBytes int
}

// Topics returns the pipeline's own topics, and an intake topic for each portal.
// None has a time retention: what is finished is deleted by DeleteBelow.
func Topics(cfg Config, portals []string) []Topic {
	cfg = cfg.withDefaults()
	var out []Topic
	for _, name := range []string{TopicClaims, TopicSubmissions, TopicDeliveries, TopicWaiting, TopicUnassigned, TopicDeadLetters, TopicEvents} {
		out = append(out, Topic{Name: name, Partitions: cfg.Partitions})
	}
	out = append(out, Topic{Name: TopicKeys, Partitions: 1, Compacted: true})
	for _, p := range portals {
		out = append(out, Topic{Name: IntakeTopic(p), Partitions: cfg.Partitions})
	}
	for i := range out {
		out[i].RetentionMS = -1
		out[i].MaxMessageBytes = cfg.MaxRecordBytes + batchOverhead
	}
	return out
}

func (t Topic) policy() string {
	if t.Compacted {
		return "compact"
	}
	return "delete"
}

func (t Topic) entries(cfg Config) map[string]*string {
	e := map[string]*string{}
	set := func(k, v string) { e[k] = &v }
	set("cleanup.policy", t.policy())
	set("retention.ms", strconv.FormatInt(t.RetentionMS, 10))
	set("retention.bytes", "-1")
	set("min.insync.replicas", strconv.Itoa(cfg.MinInSyncReplicas))
	set("unclean.leader.election.enable", "false")
	set("message.timestamp.type", "CreateTime")
	if t.MaxMessageBytes > 0 {
		set("max.message.bytes", strconv.Itoa(t.MaxMessageBytes))
	}
	if t.SegmentBytes > 0 {
		set("segment.bytes", strconv.Itoa(t.SegmentBytes))
	}
	return e
}

// EnsureTopics creates the topics that are missing, with explicit settings, and
// waits until each partition has a leader. Topics that exist are compared and
// never changed: the error names every difference and what to do about it.
func (b *Bus) EnsureTopics(ctx context.Context, topics []Topic) error {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	found, err := b.describe(ctx, names)
	if err != nil {
		return err
	}
	var problems []string
	for _, t := range topics {
		if md := found[t.Name]; md != nil {
			p, err := b.compare(ctx, t, md)
			if err != nil {
				return err
			}
			problems = append(problems, p...)
			continue
		}
		if err := b.create(ctx, t); err != nil {
			return err
		}
	}
	if len(problems) > 0 {
		return misconfigured("%s", strings.Join(problems, "; "))
	}
	if err := b.awaitLeaders(ctx, topics); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range topics {
		if !slices.Contains(b.ensured, t) {
			b.ensured = append(b.ensured, t)
		}
		b.known.Delete(t.Name) // its partition count is pinned from now on
	}
	return nil
}

func (b *Bus) create(ctx context.Context, t Topic) error {
	what := "create topic " + t.Name
	_, err := request(ctx, b, what, func() (struct{}, error) {
		return struct{}{}, b.admin.CreateTopic(t.Name, &sarama.TopicDetail{
			NumPartitions: int32(t.Partitions), ReplicationFactor: int16(b.cfg.ReplicationFactor), ConfigEntries: t.entries(b.cfg),
		}, false)
	})
	switch {
	case err == nil:
		b.log.Info("topic created", "topic", t.Name, "partitions", t.Partitions, "replicationFactor", b.cfg.ReplicationFactor)
	case errors.Is(err, sarama.ErrTopicAlreadyExists): // another replica was faster
		return nil
	case errors.Is(err, sarama.ErrInvalidReplicationFactor):
		return misconfigured("%s: the cluster has fewer brokers than kafka.replication_factor (%d); add brokers, or lower it and allow %q by name", what, b.cfg.ReplicationFactor, UnsafeReplicationFactor)
	}
	return err
}

// describe returns the topics that exist.
func (b *Bus) describe(ctx context.Context, names []string) (map[string]*sarama.TopicMetadata, error) {
	mds, err := request(ctx, b, "describe topics", func() ([]*sarama.TopicMetadata, error) { return b.admin.DescribeTopics(names) })
	if err != nil {
		return nil, err
	}
	found := map[string]*sarama.TopicMetadata{}
	for _, md := range mds {
		switch {
		case errors.Is(md.Err, sarama.ErrUnknownTopicOrPartition):
		case errors.Is(md.Err, sarama.ErrNoError), errors.Is(md.Err, sarama.ErrLeaderNotAvailable):
			found[md.Name] = md
		default:
			return nil, classify(md.Err, "describe topic "+md.Name)
		}
	}
	return found, nil
}

func (b *Bus) settings(ctx context.Context, topic string) (map[string]string, error) {
	ask := &sarama.ConfigResource{Type: sarama.TopicResource, Name: topic,
		ConfigNames: []string{"cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes", "min.insync.replicas", "unclean.leader.election.enable"}}
	entries, err := request(ctx, b, "describe settings of topic "+topic, func() ([]sarama.ConfigEntry, error) {
		res, err := b.admin.DescribeConfigs([]*sarama.ConfigResource{ask}, sarama.DescribeConfigsOptions{})
		if err != nil {
			return nil, err
		}
		if len(res) != 1 {
			return nil, sarama.ErrIncompleteResponse
		}
		if !errors.Is(res[0].ErrorCode, sarama.ErrNoError) {
			return nil, res[0].ErrorCode
		}
		return res[0].Configs, nil
	})
	if err != nil {
		return nil, err
	}
	have := map[string]string{}
	for _, e := range entries {
		have[e.Name] = e.Value
	}
	return have, nil
}

func (b *Bus) compare(ctx context.Context, t Topic, md *sarama.TopicMetadata) ([]string, error) {
	have, err := b.settings(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	var out []string
	differs := func(what, has, wants, todo string) {
		out = append(out, fmt.Sprintf("topic %s: %s is %s, the router needs %s; %s", t.Name, what, has, wants, todo))
	}
	if n := len(md.Partitions); n != t.Partitions {
		differs("the number of partitions", strconv.Itoa(n), strconv.Itoa(t.Partitions),
			"set kafka.partitions to what the topics were created with (a changed count would part cases from their order)")
	}
	alter := func(k, v string) string {
		return fmt.Sprintf("alter it with kafka-configs --alter --topic %s --add-config %s=%s", t.Name, k, v)
	}
	if p := have["cleanup.policy"]; p != t.policy() {
		differs("cleanup.policy", p, t.policy(), alter("cleanup.policy", t.policy()))
	}
	if want := strconv.FormatInt(t.RetentionMS, 10); !t.Compacted && have["retention.ms"] != want {
		differs("retention.ms", have["retention.ms"], want, alter("retention.ms", want))
	}
	if v := have["retention.bytes"]; !t.Compacted && v != "-1" && v != "" {
		differs("retention.bytes", v, "-1", alter("retention.bytes", "-1"))
	}
	if n, err := strconv.Atoi(have["max.message.bytes"]); err == nil && n < t.MaxMessageBytes {
		want := strconv.Itoa(t.MaxMessageBytes)
		differs("max.message.bytes", have["max.message.bytes"], "at least "+want, alter("max.message.bytes", want))
	}
	return out, nil
}

// awaitLeaders waits for leaders: a topic just created has none for a moment.
func (b *Bus) awaitLeaders(ctx context.Context, topics []Topic) error {
	wait, cancel := context.WithTimeout(ctx, b.cfg.AppendTimeout)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		missing := ""
		for _, t := range topics {
			ps, err := request(wait, b, "describe topic "+t.Name, func() ([]int32, error) {
				if err := b.meta.RefreshMetadata(t.Name); err != nil {
					return nil, err
				}
				return b.meta.WritablePartitions(t.Name)
			})
			if err != nil || len(ps) < t.Partitions {
				missing = t.Name
				break
			}
		}
		if missing == "" {
			return nil
		}
		if !sleep(wait, pause) {
			if ctx.Err() != nil {
				return fault.Of(ctx.Err())
			}
			return fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "topic %s has a partition without a leader", missing)
		}
	}
}

// CheckSafety refuses settings that can lose acknowledged records: fewer than
// three replicas, fewer than two in sync, unclean leader election; of the
// configuration, of the pipeline's topics and those given to EnsureTopics as far
// as they exist, and of the offsets topic. Config.AllowUnsafe allows each by
// name; what is allowed is logged.
func (b *Bus) CheckSafety(ctx context.Context) error {
	names := []string{}
	for _, t := range Topics(b.cfg, nil) {
		names = append(names, t.Name)
	}
	b.mu.Lock()
	for _, t := range b.ensured {
		if !slices.Contains(names, t.Name) {
			names = append(names, t.Name)
		}
	}
	b.mu.Unlock()
	const offsets = "__consumer_offsets"
	found, err := b.describe(ctx, append(names, offsets))
	if err != nil {
		return err
	}
	var problems []string
	allowed := map[string][]string{}
	object := func(name, where, is, todo string) {
		if slices.Contains(b.cfg.AllowUnsafe, name) {
			allowed[name] = append(allowed[name], where+" "+is)
			return
		}
		problems = append(problems, fmt.Sprintf("%s: %s; %s, or allow %q by name in kafka.allow_unsafe", where, is, todo, name))
	}
	if b.cfg.ReplicationFactor < 3 {
		object(UnsafeReplicationFactor, "kafka.replication_factor", fmt.Sprintf("is %d, so one lost disk can lose accepted submissions", b.cfg.ReplicationFactor), "set it to 3")
	}
	if b.cfg.MinInSyncReplicas < 2 {
		object(UnsafeMinInSyncReplicas, "kafka.min_insync_replicas", fmt.Sprintf("is %d, so a record counts as written when one disk has it", b.cfg.MinInSyncReplicas), "set it to 2")
	}
	for _, name := range append(names, offsets) {
		md := found[name]
		if md == nil {
			continue
		}
		rf := 1 << 20
		for _, p := range md.Partitions {
			rf = min(rf, len(p.Replicas))
		}
		if rf < 3 {
			object(UnsafeReplicationFactor, "topic "+name, fmt.Sprintf("has %d replicas of a partition", rf), "raise it to 3 with kafka-reassign-partitions")
		}
		if name == offsets {
			continue // its other settings are the broker's own business
		}
		have, err := b.settings(ctx, name)
		if err != nil {
			return err
		}
		if n, err := strconv.Atoi(have["min.insync.replicas"]); err == nil && n < 2 {
			object(UnsafeMinInSyncReplicas, "topic "+name, fmt.Sprintf("has min.insync.replicas=%d", n), "set it to 2 with kafka-configs --alter")
		}
		if have["unclean.leader.election.enable"] == "true" {
			object(UnsafeUncleanElection, "topic "+name, "has unclean.leader.election.enable=true, so a replica that lags may become leader and drop records", "set it to false with kafka-configs --alter")
		}
	}
	if len(problems) > 0 {
		return misconfigured("%s", strings.Join(problems, "; "))
	}
	// One line a name: the first place says it, the others are of its kind.
	for _, name := range slices.Sorted(maps.Keys(allowed)) {
		b.log.Warn("unsafe Kafka setting allowed by name", "allowed", name, "found", allowed[name][0], "places", len(allowed[name]))
	}
	return nil
}
