package bus

import (
	"testing"

	"github.com/IBM/sarama"

	"weiche/internal/fault"
)

// brokerless is a client whose brokers have all gone.
type brokerless struct{ sarama.Client }

func (brokerless) Brokers() []*sarama.Broker           { return nil }
func (brokerless) Config() *sarama.Config              { return sarama.NewConfig() }
func (brokerless) Controller() (*sarama.Broker, error) { return nil, nil }

// sarama has no name for this error, so its text is held here.
func TestAdminWithoutBrokersIsRetried(t *testing.T) {
	admin, err := sarama.NewClusterAdminFromClient(brokerless{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = admin.DescribeConfigs([]*sarama.ConfigResource{{Type: sarama.TopicResource, Name: "t"}}, sarama.DescribeConfigsOptions{})
	if f := fault.Of(classify(err, "describe settings")); f.Class != fault.Retryable || f.Reason != fault.ReasonBrokerUnavailable {
		t.Errorf("%v is classed as %s, %s", err, f.Class, f.Reason)
	}
}
