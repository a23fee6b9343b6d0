package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/fault"
)

// The pipeline's own topics. All but Keys, Pauses, Jobs and the intake topics have the same
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
	TopicPauses      = "weiche.pauses"
	TopicJobs        = "weiche.jobs"
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
	// SegmentMS is the age in milliseconds at which it is full, for a topic whose
	// deleted records must leave the disk soon; 0 leaves it to the cluster (seven
	// days).
	SegmentMS int64
}

// intakeSegment is the age at which an intake topic's file is full. Those topics
// hold plain text, and a broker deletes whole files only, in a round that it
// makes every five minutes (log.retention.check.interval.ms); to fill them
// faster than that would gain little.
const intakeSegment = 5 * time.Minute

// Topics returns the pipeline's own topics, and an intake topic for each portal.
// None has a time retention: what is finished is deleted by DeleteBelow.
func Topics(cfg Config, portals []string) []Topic {
	cfg = cfg.withDefaults()
	var out []Topic
	for _, name := range []string{TopicClaims, TopicSubmissions, TopicDeliveries, TopicWaiting, TopicUnassigned, TopicDeadLetters, TopicEvents} {
		out = append(out, Topic{Name: name, Partitions: cfg.Partitions})
	}
	for _, name := range []string{TopicKeys, TopicPauses, TopicJobs} {
		out = append(out, Topic{Name: name, Partitions: 1, Compacted: true})
	}
	for _, p := range portals {
		out = append(out, Topic{Name: IntakeTopic(p), Partitions: cfg.Partitions, SegmentMS: intakeSegment.Milliseconds()})
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
	if t.SegmentMS > 0 {
		set("segment.ms", strconv.FormatInt(t.SegmentMS, 10))
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
		md := found[t.Name]
		if md == nil {
			made, err := b.create(ctx, t)
			if err != nil {
				return err
			}
			if made {
				continue
			}
			// Somebody was faster: another replica, or an administrator.
			if md, err = b.appear(ctx, t.Name); err != nil {
				return err
			}
		}
		p, err := b.compare(ctx, t, md)
		if err != nil {
			return err
		}
		problems = append(problems, p...)
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

// appear waits until a topic that exists is known to the brokers.
func (b *Bus) appear(ctx context.Context, name string) (*sarama.TopicMetadata, error) {
	wait, cancel := context.WithTimeout(ctx, b.cfg.AppendTimeout)
	defer cancel()
	for {
		found, err := b.describe(wait, []string{name})
		if err != nil {
			return nil, err
		}
		if md := found[name]; md != nil {
			return md, nil
		}
		if !sleep(wait, 50*time.Millisecond) {
			return nil, fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "topic %s exists and is not known to the brokers yet", name)
		}
	}
}

// create makes a topic; made is false where it exists by now.
func (b *Bus) create(ctx context.Context, t Topic) (made bool, err error) {
	what := "create topic " + t.Name
	_, err = request(ctx, b, what, func() (struct{}, error) {
		return struct{}{}, b.admin.CreateTopic(t.Name, &sarama.TopicDetail{
			NumPartitions: int32(t.Partitions), ReplicationFactor: int16(b.cfg.ReplicationFactor), ConfigEntries: t.entries(b.cfg),
		}, false)
	})
	switch {
	case err == nil:
		b.log.Info("topic created", "topic", t.Name, "partitions", t.Partitions, "replicationFactor", b.cfg.ReplicationFactor)
		return true, nil
	case errors.Is(err, sarama.ErrTopicAlreadyExists):
		return false, nil
	case errors.Is(err, sarama.ErrInvalidReplicationFactor):
		return false, misconfigured("%s: the cluster has fewer brokers than kafka.replication_factor (%d); add brokers, or lower it and allow %q by name", what, b.cfg.ReplicationFactor, UnsafeReplicationFactor)
	}
	return false, err
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
		ConfigNames: []string{"cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes", "min.insync.replicas", "unclean.leader.election.enable",
			"message.timestamp.type", "message.timestamp.before.max.ms", "segment.ms", "segment.bytes"}}
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

// compare returns what has to be done for a topic that exists, a sentence for
// each difference. What a cluster does not tell of is not compared.
func (b *Bus) compare(ctx context.Context, t Topic, md *sarama.TopicMetadata) ([]string, error) {
	have, err := b.settings(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	var out []string
	if n := len(md.Partitions); n != t.Partitions {
		out = append(out, fmt.Sprintf("topic %s: the number of partitions is %d, kafka.partitions is %d; %s", t.Name, n, t.Partitions, b.recount(t, n)))
	}
	for _, w := range t.wants(b.cfg) {
		if v, told := have[w.name]; told && v != "" && !w.suits(v) {
			out = append(out, fmt.Sprintf("topic %s: %s is %s, the router needs %s; alter it with %s", t.Name, w.name, v, w.needs, b.alter(t.Name, w.name, w.value)))
		}
	}
	return out, nil
}

// recount says what to do about a number of partitions.
func (b *Bus) recount(t Topic, have int) string {
	if have < t.Partitions {
		return fmt.Sprintf("set kafka.partitions to %d, what the topics were made with; or, to have more of them, follow docs/runbooks/WeichePartitionsChanged.md", have)
	}
	return "partitions were added to it, which would part cases from their order; follow docs/runbooks/WeichePartitionsChanged.md"
}

func (b *Bus) alter(topic, name, value string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --topic %s --add-config %s=%s", b.cfg.Brokers[0], topic, name, value)
}

// want is a setting that the pipeline relies on.
type want struct {
	name, value, needs string
	suits              func(have string) bool
}

func (t Topic) wants(cfg Config) []want {
	is := func(name, value string) want {
		return want{name, value, value, func(have string) bool { return have == value }}
	}
	bound := func(name string, n int64, needs string, suits func(have int64) bool) want {
		value := strconv.FormatInt(n, 10)
		return want{name, value, needs + value, func(have string) bool {
			v, err := strconv.ParseInt(have, 10, 64)
			return err != nil || suits(v)
		}}
	}
	atLeast := func(name string, n int64) want {
		return bound(name, n, "at least ", func(have int64) bool { return have >= n })
	}
	atMost := func(name string, n int64) want {
		return bound(name, n, "at most ", func(have int64) bool { return have <= n })
	}
	ws := []want{
		is("cleanup.policy", t.policy()),
		// Times in records say when they were written; a broker must not put its
		// own in their place, nor refuse what happened long ago.
		is("message.timestamp.type", "CreateTime"),
		atLeast("message.timestamp.before.max.ms", math.MaxInt64),
	}
	if !slices.Contains(cfg.AllowUnsafe, UnsafeMinInSyncReplicas) {
		ws = append(ws, atLeast("min.insync.replicas", int64(cfg.MinInSyncReplicas)))
	}
	if !t.Compacted {
		ws = append(ws, is("retention.ms", strconv.FormatInt(t.RetentionMS, 10)), is("retention.bytes", "-1"))
	}
	if t.MaxMessageBytes > 0 {
		// A record that fits into a message has to fit into a file too.
		ws = append(ws, atLeast("max.message.bytes", int64(t.MaxMessageBytes)))
		if t.SegmentBytes == 0 {
			ws = append(ws, atLeast("segment.bytes", int64(t.MaxMessageBytes)))
		}
	}
	if t.SegmentMS > 0 {
		ws = append(ws, atMost("segment.ms", t.SegmentMS))
	}
	return ws
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

// Recounted returns the topics given to EnsureTopics that have another number of
// partitions by now, with that number.
func (b *Bus) Recounted(ctx context.Context) (map[string]int, error) {
	b.mu.Lock()
	ensured := slices.Clone(b.ensured)
	b.mu.Unlock()
	names := make([]string, len(ensured))
	for i, t := range ensured {
		names[i] = t.Name
	}
	found, err := b.describe(ctx, names)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, t := range ensured {
		if md := found[t.Name]; md != nil && len(md.Partitions) != t.Partitions {
			out[t.Name] = len(md.Partitions)
		}
	}
	return out, nil
}
