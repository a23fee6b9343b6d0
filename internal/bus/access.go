package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/fault"
)

// Right is one thing that the brokers' authorizer must allow the router. Describe
// is in every other right of Kafka's and is named only where it stands alone.
type Right struct {
	Resource  string // topic or group
	Name      string
	Operation string // as kafka-acls writes it
}

// String returns the right as an error text says it.
func (r Right) String() string { return fmt.Sprintf("%s on %s %s", r.Operation, r.Resource, r.Name) }

// Resources of a Right.
const (
	ResourceTopic = "topic"
	ResourceGroup = "group"
)

// Operations of a Right.
const (
	opRead            = "Read"
	opWrite           = "Write"
	opCreate          = "Create"
	opDelete          = "Delete"
	opDescribe        = "Describe"
	opDescribeConfigs = "DescribeConfigs"
)

const offsetsTopic = "__consumer_offsets"

// Rights returns the least the router needs: for the pipeline's topics, for the
// portals' intake topics and for its consumer groups. create adds what making
// the topics takes.
func Rights(portals, groups []string, create bool) []Right {
	var out []Right
	add := func(resource, name string, operations ...string) {
		for _, o := range operations {
			out = append(out, Right{resource, name, o})
		}
	}
	for _, t := range Topics(Config{}, portals) {
		add(ResourceTopic, t.Name, opRead, opWrite, opDescribeConfigs)
		// What is finished there is deleted, see DeleteBelow.
		if t.Name != TopicEvents && !t.Compacted {
			add(ResourceTopic, t.Name, opDelete)
		}
		if create {
			add(ResourceTopic, t.Name, opCreate)
		}
	}
	add(ResourceTopic, offsetsTopic, opDescribe) // CheckSafety counts its replicas
	for _, g := range groups {
		add(ResourceGroup, g, opRead)
	}
	return out
}

var operations = map[string]sarama.AclOperation{
	opRead: sarama.AclOperationRead, opWrite: sarama.AclOperationWrite, opCreate: sarama.AclOperationCreate, opDelete: sarama.AclOperationDelete,
	opDescribe: sarama.AclOperationDescribe, opDescribeConfigs: sarama.AclOperationDescribeConfigs,
}

// allowed is a broker's answer to what a user may do: a bit for each operation.
type allowed int32

const (
	nothing allowed = 0
	untold  allowed = math.MinInt32 // the broker knows no such answer
)

func (a allowed) has(operation string) bool { return a == untold || a&(1<<operations[operation]) != 0 }

// CheckRights asks the brokers what the user may do and fails with not-authorised,
// naming each right that is missing. Rights on topics that do not exist cannot be
// asked for and count as given. Without an authorizer all is allowed.
func (b *Bus) CheckRights(ctx context.Context, rights []Right) error {
	var topics []string
	for _, r := range rights {
		if r.Resource == ResourceTopic && !slices.Contains(topics, r.Name) {
			topics = append(topics, r.Name)
		}
	}
	have, err := b.allowedTopics(ctx, topics)
	if err != nil {
		return err
	}
	var missing []string
	for _, r := range rights {
		key := Right{Resource: r.Resource, Name: r.Name}
		if _, asked := have[key]; !asked && r.Resource == ResourceGroup {
			if have[key], err = b.allowedGroup(ctx, r.Name); err != nil {
				return err
			}
		}
		if a, told := have[key]; told && !a.has(r.Operation) {
			missing = append(missing, r.String())
		}
	}
	if len(missing) > 0 {
		return fault.New(fault.Destination, fault.ReasonNotAuthorised,
			"the brokers' ACLs do not allow the router's user: %s; docs/kafka.md lists all it needs", strings.Join(missing, ", "))
	}
	return nil
}

func (b *Bus) allowedTopics(ctx context.Context, topics []string) (map[Right]allowed, error) {
	return request(ctx, b, "ask for rights on topics", func() (map[Right]allowed, error) {
		req := sarama.NewMetadataRequest(b.meta.Config().Version, topics)
		req.IncludeTopicAuthorizedOperations = true
		broker := b.meta.LeastLoadedBroker()
		if broker == nil {
			return nil, sarama.ErrOutOfBrokers
		}
		res, err := broker.GetMetadata(req)
		if err != nil {
			_ = broker.Close()
			return nil, err
		}
		out := map[Right]allowed{}
		for _, t := range res.Topics {
			key := Right{Resource: ResourceTopic, Name: t.Name}
			switch {
			case errors.Is(t.Err, sarama.ErrTopicAuthorizationFailed):
				out[key] = nothing
			case errors.Is(t.Err, sarama.ErrUnknownTopicOrPartition):
			case req.Version < 8:
				out[key] = untold
			default:
				out[key] = allowed(t.TopicAuthorizedOperations)
			}
		}
		return out, nil
	})
}

// allowedGroup waits for the group's coordinator: a cluster that has had no group
// yet makes its offsets topic now.
func (b *Bus) allowedGroup(ctx context.Context, group string) (allowed, error) {
	wait, cancel := context.WithTimeout(ctx, b.cfg.AppendTimeout)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause *= 2 {
		a, err := request(wait, b, "ask for rights on group "+group, func() (allowed, error) { return b.askGroup(group) })
		switch {
		case errors.Is(err, sarama.ErrGroupAuthorizationFailed):
			return nothing, nil
		case err == nil || reasonOf(err) != fault.ReasonBrokerUnavailable || !sleep(wait, pause):
			return a, err
		}
	}
}

func (b *Bus) askGroup(group string) (allowed, error) {
	coordinator, err := b.meta.Coordinator(group)
	if err != nil {
		return nothing, err
	}
	req := &sarama.DescribeGroupsRequest{Version: 5, Groups: []string{group}, IncludeAuthorizedOperations: true}
	res, err := coordinator.DescribeGroups(req)
	if err != nil {
		_ = coordinator.Close()
		return nothing, err
	}
	if len(res.Groups) != 1 {
		return nothing, sarama.ErrIncompleteResponse
	}
	switch g := res.Groups[0]; {
	case errors.Is(g.Err, sarama.ErrNotCoordinatorForConsumer):
		_ = b.meta.RefreshCoordinator(group)
		return nothing, g.Err
	case !errors.Is(g.Err, sarama.ErrNoError):
		return nothing, g.Err
	default:
		return allowed(g.AuthorizedOperations), nil
	}
}
