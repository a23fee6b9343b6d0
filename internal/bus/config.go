package bus

import "time"

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
	// Version is the oldest broker version the cluster runs, "3.6.0" by
	// default; newer brokers understand it too.
	Version string
	TLS     *TLSConfig
	SASL    *SASLConfig

	Partitions        int // of the pipeline's topics, default 8
	ReplicationFactor int // default 3
	MinInSyncReplicas int // default 2, or 1 with a replication factor of 1
	// AllowUnsafe names the settings CheckSafety shall put up with:
	// replication-factor, min-insync-replicas, unclean-election.
	AllowUnsafe []string
	// MaxRecordBytes bounds one record, headers included; default 16 MiB plus
	// 64 KiB for keys and headers.
	MaxRecordBytes int
	// AppendTimeout bounds one Append, default 10 s.
	AppendTimeout time.Duration
	// SessionTimeout is how long a group waits for a silent member before its
	// partitions move, default 10 s. A broker may refuse less than 6 s.
	SessionTimeout time.Duration
}

// TLSConfig names PEM files. They are read when a connection is set up, so a
// renewed certificate needs no restart.
type TLSConfig struct {
	CAFile     string // default: the system's roots
	CertFile   string // client certificate, with KeyFile
	KeyFile    string
	ServerName string // default: the broker's host name
}

// SASLConfig names the user and the file with the password, which is read at
// Open and at every new producer, subscriber and reader.
type SASLConfig struct {
	Mechanism    string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Username     string
	PasswordFile string
}
