package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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

// noBrokerKnown is what sarama's ClusterAdmin says while every broker it knew has
// gone; the error has no name (findAnyBroker in admin.go, 1.61.1).
const noBrokerKnown = "no available broker"

func judge(err error) (fault.Class, fault.Reason, string) {
	var conf sarama.ConfigurationError
	if errors.As(err, &conf) {
		if strings.Contains(string(conf), "larger than") {
			return fault.Permanent, fault.ReasonTooLarge, "the record is larger than this client may send"
		}
		return fault.Permanent, fault.ReasonMisconfigured, "the client refuses its settings"
	}
	// What the broker adds to this one hides it from errors.As.
	if errors.Is(err, sarama.ErrSASLAuthenticationFailed) {
		return fault.Destination, fault.ReasonNotAuthorised, "the broker does not accept the user: unknown, wrong password, or a token it does not trust or that has expired"
	}
	var k sarama.KError
	if errors.As(err, &k) {
		switch k {
		case sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge, sarama.ErrInvalidMessageSize:
			return fault.Permanent, fault.ReasonTooLarge, "the record is larger than the topic's max.message.bytes"
		case sarama.ErrInvalidRecord:
			return fault.Permanent, fault.ReasonMalformed, "the topic does not take such a record (one without a key, in a compacted topic)"
		case sarama.ErrUnknownTopicOrPartition, sarama.ErrInvalidTopic:
			return fault.Destination, fault.ReasonUnknownTopic, "the cluster has no such topic or partition"
		case sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend:
			return fault.Retryable, fault.ReasonQuorumLost, "too few replicas are in sync"
		case sarama.ErrTopicAuthorizationFailed, sarama.ErrGroupAuthorizationFailed, sarama.ErrClusterAuthorizationFailed,
			sarama.ErrTransactionalIDAuthorizationFailed:
			return fault.Destination, fault.ReasonNotAuthorised, "the brokers' ACLs do not allow it to this user; docs/kafka.md lists what the router needs"
		case sarama.ErrUnsupportedSASLMechanism:
			return fault.Destination, fault.ReasonNotAuthorised, "the broker does not take this SASL mechanism on this port"
		case sarama.ErrIllegalSASLState:
			return fault.Destination, fault.ReasonNotAuthorised, "the broker does not expect SASL, or expects it first"
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
	if class, reason, text := judgeTLS(err); reason != "" {
		return class, reason, text
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
	if errors.As(err, &netErr) || err.Error() == noBrokerKnown {
		return fault.Retryable, fault.ReasonBrokerUnavailable, "no broker answers"
	}
	return fault.Retryable, fault.ReasonUnknown, "an error nobody has classed yet"
}

// judgeTLS knows what goes wrong before the first request; no reason where it is
// something else.
func judgeTLS(err error) (fault.Class, fault.Reason, string) {
	var foreign x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &foreign):
		return fault.Destination, fault.ReasonCertificate, "TLS: the server's certificate is not of an authority that the CA file (or the system) names"
	case errors.As(err, &host):
		return fault.Destination, fault.ReasonCertificate, "TLS: the server's certificate is for another host name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fault.Destination, fault.ReasonCertificate, "TLS: the server's certificate has expired, or a clock is wrong"
	}
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return fault.Destination, fault.ReasonCertificate, "TLS: the server's certificate cannot be trusted"
	}
	// The broker's alert, such as "tls: expired certificate": a word of crypto/tls.
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return fault.Destination, fault.ReasonCertificate, "the broker ends TLS with \"" + op.Err.Error() + "\"; see whether the client certificate has expired, or is of an authority it does not know"
	}
	return 0, "", ""
}

// kafkaName keeps the fixed text of a Kafka error code, which never quotes data.
func kafkaName(k sarama.KError) string {
	text, _, _ := strings.Cut(strings.TrimPrefix(k.Error(), "kafka server: "), ":")
	return text
}

// reasonOf returns an error's reason, none for nil.
func reasonOf(err error) fault.Reason {
	if f := fault.Of(err); f != nil {
		return f.Reason
	}
	return ""
}
