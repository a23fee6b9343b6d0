package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/fault"
)

// Names that Config.AllowUnsafe takes.
const (
	UnsafeReplicationFactor = "replication-factor"
	UnsafeMinInSyncReplicas = "min-insync-replicas"
	UnsafeUncleanElection   = "unclean-election"
)

// Config says where the brokers are and what the topics look like. The zero
// value of every field but Brokers has a sound default.
type Config struct {
	Brokers  []string // host:port
	ClientID string   // default "weiche"
	// Version is the newest protocol to speak, "3.6.0" by default. An older
	// broker is spoken to in its own; a newer one understands this one.
	Version string
	TLS     *TLSConfig
	SASL    *SASLConfig
	// Dial makes every connection: to the brokers named here, to those that
	// metadata advertises, and to a token endpoint. Nil is the system's.
	Dial Dial

	Partitions        int // of the pipeline's topics, default 8
	ReplicationFactor int // default 3
	MinInSyncReplicas int // default 2, or 1 with a replication factor of 1
	// AllowUnsafe names the settings CheckSafety shall put up with:
	// replication-factor, min-insync-replicas, unclean-election.
	AllowUnsafe []string
	// MaxRecordBytes bounds one record, headers included; default 16 MiB plus
	// 64 KiB for keys and headers.
	MaxRecordBytes int
	// AppendTimeout bounds one Append, and every other request that makes no
	// progress; default 10 s.
	AppendTimeout time.Duration
	// SessionTimeout is how long a group waits for a silent member before its
	// partitions move, default 10 s. A broker may refuse less than 6 s.
	SessionTimeout time.Duration
}

// Dial connects to "host:port" over TCP. An error that is a *fault.Error is what
// the bus's own errors say; any other is a broker that does not answer.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// TLSConfig names PEM files. A changed one makes the clients anew, so that none
// needs a restart and no connection lives on under a certificate that was replaced.
type TLSConfig struct {
	CAFile     string // default: the system's roots
	CertFile   string // client certificate, with KeyFile
	KeyFile    string
	ServerName string // default: the broker's host name
}

// SASLConfig says who the router is to the brokers. Files are read again at every
// new connection; a changed PLAIN password makes the clients anew. So a changed
// secret needs no restart.
type SASLConfig struct {
	Mechanism    string // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER
	Username     string // not with OAUTHBEARER
	PasswordFile string

	// OAUTHBEARER takes its token from a file that something else keeps fresh (a
	// projected Kubernetes token), or from a token endpoint.
	TokenFile string
	Token     *TokenConfig
	// Extensions are sent with the token (KIP-342), such as Confluent's
	// logicalCluster.
	Extensions map[string]string

	tokens sarama.AccessTokenProvider // one for all clients of a bus
}

// TokenConfig is a token endpoint and who the router is to it (OAuth 2.0 client
// credentials, RFC 6749 section 4.4).
type TokenConfig struct {
	URL              string // https
	ClientID         string
	ClientSecretFile string
	Scope            string // separated by spaces; may be empty
	CAFile           string // default: the system's roots
}

func (c Config) withDefaults() Config {
	if c.ClientID == "" {
		c.ClientID = "weiche"
	}
	if c.Version == "" {
		c.Version = "3.6.0"
	}
	if c.Partitions <= 0 {
		c.Partitions = 8
	}
	if c.ReplicationFactor <= 0 {
		c.ReplicationFactor = 3
	}
	if c.MinInSyncReplicas <= 0 {
		c.MinInSyncReplicas = min(2, c.ReplicationFactor)
	}
	if c.MaxRecordBytes <= 0 {
		c.MaxRecordBytes = 16<<20 + 64<<10
	}
	if c.AppendTimeout <= 0 {
		c.AppendTimeout = 10 * time.Second
	}
	if c.SessionTimeout <= 0 {
		c.SessionTimeout = 10 * time.Second
	}
	if c.SASL != nil && c.SASL.Mechanism == sarama.SASLTypeOAuth && c.SASL.tokens == nil {
		c.SASL = c.SASL.withTokens(c.Dial)
	}
	return c
}

func (c Config) check() error {
	if len(c.Brokers) == 0 {
		return misconfigured("kafka.brokers is empty; name at least one host:port")
	}
	for _, n := range c.AllowUnsafe {
		if !slices.Contains([]string{UnsafeReplicationFactor, UnsafeMinInSyncReplicas, UnsafeUncleanElection}, n) {
			return misconfigured("kafka.allow_unsafe names %q; it takes %s, %s, %s", n, UnsafeReplicationFactor, UnsafeMinInSyncReplicas, UnsafeUncleanElection)
		}
	}
	if c.MinInSyncReplicas > c.ReplicationFactor {
		return misconfigured("kafka.min_insync_replicas is %d, more than the replication factor %d: nothing could ever be written", c.MinInSyncReplicas, c.ReplicationFactor)
	}
	return nil
}

func misconfigured(text string, args ...any) error {
	return fault.New(fault.Permanent, fault.ReasonMisconfigured, text, args...)
}

// batchOverhead is what sarama and the broker add to one record at most: batch
// header, record header, varints. Topics are created with room for it.
const batchOverhead = 4 << 10

// maxWait is how long a broker may hold back an empty answer. A subscription
// made meanwhile, a heartbeat or a commit on that connection waits as long.
const maxWait = 250 * time.Millisecond

// client builds the settings all clients share. It reads secrets from their
// files each time.
func (c Config) client() (*sarama.Config, error) {
	s := sarama.NewConfig()
	v, err := sarama.ParseKafkaVersion(c.Version)
	if err != nil {
		return nil, misconfigured("kafka.version %q is not a version such as 3.6.0", c.Version)
	}
	s.Version = v
	s.ClientID = c.ClientID
	s.Net.DialTimeout = min(3*time.Second, c.AppendTimeout)
	s.Net.ReadTimeout = c.AppendTimeout + 5*time.Second
	s.Net.WriteTimeout = c.AppendTimeout
	// A client that asks for its own topics only would not connect, nor find
	// the controller, before it has one.
	s.Metadata.Full = true
	s.Metadata.AllowAutoTopicCreation = false
	s.Metadata.RefreshFrequency = time.Minute
	s.Metadata.Retry.Max = 3
	s.Metadata.Retry.Backoff = 150 * time.Millisecond
	s.Admin.Timeout = c.AppendTimeout
	s.Admin.Retry.Max = 5
	if c.Dial != nil {
		s.Net.Proxy.Enable, s.Net.Proxy.Dialer = true, dialer{c.Dial, s.Net.DialTimeout}
	}
	if c.TLS != nil {
		if s.Net.TLS.Config, err = c.TLS.load(); err != nil {
			return nil, err
		}
		s.Net.TLS.Enable = true
	}
	if c.SASL != nil {
		if err := c.SASL.apply(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// dialer gives a Dial to sarama, which knows no context.
type dialer struct {
	dial    Dial
	timeout time.Duration
}

// Dial implements proxy.Dialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	return d.dial(ctx, network, address)
}

func (t *TLSConfig) load() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	var err error
	if conf.RootCAs, err = readRoots("kafka.tls.ca_file", t.CAFile); err != nil {
		return nil, err
	}
	if t.CertFile != "" || t.KeyFile != "" {
		read := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			if err != nil {
				return nil, misconfigured("kafka.tls: %s and %s are not a certificate and its key", t.CertFile, t.KeyFile)
			}
			return &pair, nil
		}
		if _, err := read(); err != nil {
			return nil, err
		}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return read() }
	}
	return conf, nil
}

// readRoots returns nil, the system's roots, where no file is named.
func readRoots(setting, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, misconfigured("%s: %s cannot be read", setting, file)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, misconfigured("%s: %s holds no PEM certificate", setting, file)
	}
	return roots, nil
}

// apply also reads each secret once, so that a missing one is told at the start.
func (a *SASLConfig) apply(s *sarama.Config) error {
	s.Net.SASL.Enable = true
	s.Net.SASL.Mechanism = sarama.SASLMechanism(a.Mechanism)
	if a.Mechanism == sarama.SASLTypeOAuth {
		s.Net.SASL.TokenProvider = a.tokens
		return a.check()
	}
	secret, err := readSecret("kafka.sasl.password_file", a.PasswordFile)
	if err != nil {
		return err
	}
	s.Net.SASL.User = a.Username
	s.Net.SASL.Password = secret
	switch mech := a.Mechanism; mech {
	case sarama.SASLTypePlaintext:
	case sarama.SASLTypeSCRAMSHA256, sarama.SASLTypeSCRAMSHA512:
		s.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return newSCRAM(mech, a.PasswordFile) }
	default:
		return misconfigured("kafka.sasl.mechanism %q; it is one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER", a.Mechanism)
	}
	if a.Username == "" {
		return misconfigured("kafka.sasl.username is empty")
	}
	return nil
}

// readSecret reads a file that holds one line.
func readSecret(setting, file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", misconfigured("%s: %s cannot be read", setting, file)
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if secret == "" {
		return "", misconfigured("%s: %s is empty", setting, file)
	}
	return secret, nil
}

// producer adds what an idempotent producer needs. sarama allows it one request
// in flight for each connection and insists on at least one retry.
func (c Config) producer() (*sarama.Config, error) {
	s, err := c.client()
	if err != nil {
		return nil, err
	}
	s.Net.MaxOpenRequests = 1
	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Idempotent = true
	s.Producer.Timeout = (c.AppendTimeout * 8 / 10).Truncate(time.Millisecond)
	s.Producer.MaxMessageBytes = c.MaxRecordBytes + batchOverhead
	s.Producer.Return.Successes = true
	s.Producer.Return.Errors = true
	s.Producer.Partitioner = newPartitioner
	// Retries end by themselves before AppendTimeout does, so that the error
	// that comes back still says what is wrong.
	backoff := func(retries int) time.Duration { return min(50*time.Millisecond<<min(retries, 5), time.Second) }
	var sum time.Duration
	for n := 1; ; n++ {
		if sum += backoff(n); sum > c.AppendTimeout*7/10 || n > 60 {
			break
		}
		s.Producer.Retry.Max = n
	}
	s.Producer.Retry.Max = max(s.Producer.Retry.Max, 1)
	s.Producer.Retry.BackoffFunc = func(retries, _ int) time.Duration { return backoff(retries) }
	s.Net.ReadTimeout = c.AppendTimeout
	return s, nil
}

// consumer adds what reading needs.
func (c Config) consumer(buffer int) (*sarama.Config, error) {
	s, err := c.client()
	if err != nil {
		return nil, err
	}
	// A broker sends at least one whole batch whatever these say, so a 16 MB
	// record passes; they bound what many small ones may take in memory.
	s.Consumer.Fetch.Default = 1 << 20
	s.Consumer.Fetch.MaxBytes = int32(max(16<<20, c.MaxRecordBytes+batchOverhead))
	s.Consumer.MaxWaitTime = maxWait
	s.Consumer.Retry.Backoff = 250 * time.Millisecond
	s.Consumer.Offsets.Initial = sarama.OffsetOldest
	s.ChannelBufferSize = buffer
	return s, nil
}

// tail adds what tails need, which have no other way to hold back the broker
// than not to take what it has sent.
func (c Config) tail() (*sarama.Config, error) {
	s, err := c.consumer(16)
	if err != nil {
		return nil, err
	}
	// How long one partition may keep the next poll of all waiting. After that
	// sarama lets go of it and takes it in again, and each taking in is a pause of
	// 100 ms for all of a broker's partitions: dearer than waiting.
	s.Consumer.MaxProcessingTime = 10 * time.Second
	return s, nil
}

// member adds what a group's member needs. The strategy is cooperative and
// sticky: a rebalance interrupts only the partitions that move.
func (c Config) member() (*sarama.Config, error) {
	s, err := c.consumer(256)
	if err != nil {
		return nil, err
	}
	s.Consumer.Offsets.AutoCommit.Enable = true
	s.Consumer.Offsets.AutoCommit.Interval = time.Second
	s.Consumer.Group.ResetInvalidOffsets = false // see member.place
	s.Consumer.Group.Session.Timeout = c.SessionTimeout
	s.Consumer.Group.Heartbeat.Interval = min(c.SessionTimeout/4, 3*time.Second)
	s.Consumer.Group.Rebalance.Timeout = rebalanceTimeout
	s.Consumer.Group.Rebalance.Retry.Max = 8
	s.Consumer.Group.Rebalance.Retry.Backoff = 250 * time.Millisecond
	s.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyCooperativeSticky()}
	// A JoinGroup is answered only when the whole group has joined.
	s.Net.ReadTimeout = rebalanceTimeout + 10*time.Second
	if err := s.Validate(); err != nil {
		return nil, misconfigured("kafka: %v", err)
	}
	return s, nil
}

const rebalanceTimeout = 30 * time.Second
