package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/IBM/sarama"
	"github.com/eapache/go-resiliency/breaker"
	"weiche/internal/fault"
)

// classify turns what sarama says into a fault. Its texts are fixed sentences:
// foreign texts stay in the wrapped cause. It returns nil for nil.
func classify(err error, what string) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Of(err)
	}
	class, reason, text := judge(err)
	return fault.Wrap(err, class, reason, what+": "+text)
}

func judge(err error) (fault.Class, fault.Reason, string) {
	var conf sarama.ConfigurationError
	if errors.As(err, &conf) {
		if strings.Contains(string(conf), "larger than") {
			return fault.Permanent, fault.ReasonTooLarge, "the record is larger than this client may send"
		}
		return fault.Permanent, fault.ReasonMisconfigured, "the client refuses its settings"
	}
	var k sarama.KError
	if errors.As(err, &k) {
		switch k {
		case sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge, sarama.ErrInvalidMessageSize:
			return fault.Permanent, fault.ReasonTooLarge, "the record is larger than the topic's max.message.bytes"
		case sarama.ErrUnknownTopicOrPartition, sarama.ErrInvalidTopic:
			return fault.Destination, fault.ReasonUnknownTopic, "the cluster has no such topic or partition"
		case sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend:
			return fault.Retryable, fault.ReasonQuorumLost, "too few replicas are in sync"
		case sarama.ErrTopicAuthorizationFailed, sarama.ErrGroupAuthorizationFailed, sarama.ErrClusterAuthorizationFailed,
			sarama.ErrSASLAuthenticationFailed, sarama.ErrUnsupportedSASLMechanism, sarama.ErrIllegalSASLState,
			sarama.ErrTransactionalIDAuthorizationFailed:
			return fault.Destination, fault.ReasonNotAuthorised, "the broker does not allow it to this user"
		case sarama.ErrLeaderNotAvailable, sarama.ErrNotLeaderForPartition, sarama.ErrRequestTimedOut, sarama.ErrBrokerNotAvailable,
			sarama.ErrReplicaNotAvailable, sarama.ErrNetworkException, sarama.ErrKafkaStorageError, sarama.ErrNotController,
			sarama.ErrConsumerCoordinatorNotAvailable, sarama.ErrNotCoordinatorForConsumer, sarama.ErrOffsetsLoadInProgress,
			sarama.ErrFencedLeaderEpoch, sarama.ErrUnknownLeaderEpoch, sarama.ErrOffsetNotAvailable, sarama.ErrPreferredLeaderNotAvailable:
			return fault.Retryable, fault.ReasonBrokerUnavailable, "no broker leads at the moment"
		}
		return fault.Retryable, fault.ReasonUnknown, "the broker answers with error " + kafkaName(k)
	}
	if errors.Is(err, sarama.ErrInvalidPartition) {
		return fault.Destination, fault.ReasonUnknownTopic, "the topic has no such partition"
	}
	if errors.Is(err, errSCRAMSignature) || errors.Is(err, errSCRAMMessage) {
		return fault.Destination, fault.ReasonNotAuthorised, "SCRAM failed"
	}
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	if errors.As(err, &verify) || errors.As(err, &alert) {
		return fault.Destination, fault.ReasonCertificate, "TLS: a certificate is not trusted or has expired"
	}
	var netErr net.Error
	for _, gone := range []error{
		sarama.ErrOutOfBrokers, sarama.ErrNotConnected, sarama.ErrClosedClient, sarama.ErrShuttingDown, sarama.ErrBrokerNotFound,
		sarama.ErrControllerNotAvailable, sarama.ErrClosedConsumerGroup, sarama.ErrProducerRetryBufferOverflow, breaker.ErrBreakerOpen,
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE,
	} {
		if errors.Is(err, gone) {
			return fault.Retryable, fault.ReasonBrokerUnavailable, "no broker answers"
		}
	}
	if errors.As(err, &netErr) {
		return fault.Retryable, fault.ReasonBrokerUnavailable, "no broker answers"
	}
	return fault.Retryable, fault.ReasonUnknown, "an error nobody has classed yet"
}

// kafkaName keeps the fixed text of a Kafka error code, which never quotes data.
func kafkaName(k sarama.KError) string {
	text, _, _ := strings.Cut(strings.TrimPrefix(k.Error(), "kafka server: "), ":")
	return text
}

func reasonOf(err error) fault.Reason { return fault.Of(err).Reason }
