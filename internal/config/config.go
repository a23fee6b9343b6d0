package config

import (
	"iter"
	"slices"
	"time"

	"weiche/internal/submission"
)

// Config is everything under one config/ directory. It is read-only after Load
// and safe for concurrent use.
type Config struct {
	Dir    string // as given to Load
	Router Router
	// Lands are the Länder whose configuration is sound.
	Lands map[submission.Land]*Land
	// Broken are the Länder that were refused, each with what is wrong. A Land
	// is either in Lands or in Broken.
	Broken map[submission.Land]Problems
	// Portals of all Länder by id. The portals of a broken Land are here too as
	// long as its portals.yaml is sound: they may serve other Länder.
	Portals map[string]*Portal
}

// Pos is a place in a configuration file. Line and Column count from 1; 0 is
// unknown.
type Pos struct {
	File         string
	Line, Column int
}

// Router is router.yaml: what belongs to the machine, not to a Land. Every
// field that is one value or a list of values can be set by the environment
// (see Overrides).
type Router struct {
	// Data is the data directory: embedded broker, status store, blobs, keys the
	// router makes. Relative to the working directory. Default "data".
	Data string `yaml:"data"`
	// Listen is the public listener. Default "127.0.0.1:8080"; port 0 takes any.
	Listen string `yaml:"listen"`
	// Ops is the operators' listener (metrics, health, operators' API). Default
	// "127.0.0.1:8081".
	Ops string `yaml:"ops"`
	// TLS of the public listener; nil is plain HTTP, which is refused on any but
	// a loopback address unless AllowPlainPublic.
	TLS *TLS `yaml:"tls"`
	// AllowPlainPublic allows plain HTTP on a public address, for a router
	// behind a proxy that ends TLS. Default false.
	AllowPlainPublic bool `yaml:"allow_plain_public"`

	Kafka     Kafka      `yaml:"kafka"`
	Intake    Limits     `yaml:"intake"`
	Delivery  Policy     `yaml:"delivery"` // what a destination does not set itself
	Seal      Seal       `yaml:"seal"`
	Blobs     Blobs      `yaml:"blobs"`
	Status    Status     `yaml:"status"`
	Retention Retention  `yaml:"retention"`
	Checks    Checks     `yaml:"checks"`
	Log       Log        `yaml:"log"`
	Drain     Duration   `yaml:"drain"` // longest time a stop waits for work in hand; default 25s
	Operators []Operator `yaml:"operators"`

	Pos Pos `yaml:"-"`
}

// Duration is written "90s", "15m", "168h".
type Duration = time.Duration

// Bytes is a size in bytes, written as a number or "512KB", "20MB", "2GB". The
// units are powers of 1024, as operating systems show sizes; "MiB" means the
// same as "MB".
type Bytes int64

// TLS names a certificate and its key, PEM files, relative to the config
// directory. They are read again when they change.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// Checks say what is refused of a message that its standard's schemas accept.
type Checks struct {
	// CodeLists is what becomes of a message with a code whose list is not
	// installed. "warn": it goes, and is counted. "refuse": it is a dead letter.
	// Default "warn".
	CodeLists string `yaml:"code_lists"`
}

// Values of Checks.CodeLists.
const (
	CodeListsWarn   = "warn"
	CodeListsRefuse = "refuse"
)

// Retention says how many days something is kept that is not needed for
// unfinished work; what is unfinished is kept without a limit of time. 0: for
// ever.
type Retention struct {
	// ClaimsDays is how long the claims of Idempotency-Keys are kept in memory,
	// about 110 bytes each. The account answers for older keys. Default 30.
	ClaimsDays int `yaml:"claims_days"`
	// RefusedDays is how long the bytes are kept of records that were refused on
	// an intake topic. Default 90.
	RefusedDays int `yaml:"refused_days"`
	// EditedDays is how long both forms of an edited submission are kept after the
	// edit, once it is finished. Default 90.
	EditedDays int `yaml:"edited_days"`
	// PayloadDays is when a day's key is destroyed, once nothing of that day is
	// unfinished: from then on nobody can read the payload of its submissions.
	// The account stays. Default 0.
	PayloadDays int `yaml:"payload_days"`
}

// Kafka says where the log is.
type Kafka struct {
	// Brokers as host:port. Empty: a broker inside the process, for trying out.
	Brokers  []string  `yaml:"brokers"`
	ClientID string    `yaml:"client_id"` // default "weiche"
	Version  string    `yaml:"version"`   // protocol version to speak; empty: the client's own choice
	TLS      *KafkaTLS `yaml:"tls"`
	SASL     *SASL     `yaml:"sasl"`
	// Partitions of each of the pipeline's topics. Default 8, embedded 4. It
	// cannot be changed once the topics exist. More than routers will ever run
	// beside each other only cost.
	Partitions int `yaml:"partitions"`
	// ReplicationFactor of the topics. Default 3, embedded 1.
	ReplicationFactor int `yaml:"replication_factor"`
	// MinInSyncReplicas of the topics. Default 2, embedded 1.
	MinInSyncReplicas int `yaml:"min_insync_replicas"`
	// AllowUnsafe names cluster settings that may be unsafe:
	// replication-factor, min-insync-replicas, unclean-election.
	AllowUnsafe []string `yaml:"allow_unsafe"`
	// MaxRecordBytes is the largest record the topics take. Default 17MB: an
	// intake record and what sealing adds.
	MaxRecordBytes Bytes `yaml:"max_record_bytes"`
}

// KafkaTLS names PEM files, relative to the config directory.
type KafkaTLS struct {
	CAFile     string `yaml:"ca_file"`     // empty: the system's
	CertFile   string `yaml:"cert_file"`   // client certificate; empty: none
	KeyFile    string `yaml:"key_file"`    // with CertFile
	ServerName string `yaml:"server_name"` // empty: the broker's host name
}

// SASL authenticates the router to the brokers. Files are relative to the config
// directory and read again when they change.
type SASL struct {
	Mechanism    string `yaml:"mechanism"`     // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER
	Username     string `yaml:"username"`      // not with OAUTHBEARER
	PasswordFile string `yaml:"password_file"` // not with OAUTHBEARER
	// TokenFile holds the OAUTHBEARER token; something else renews it, such as
	// Kubernetes.
	TokenFile string `yaml:"token_file"`
	// TokenURL is the token endpoint (https) that gives OAUTHBEARER tokens for
	// client credentials; instead of a token file.
	TokenURL         string `yaml:"token_url"`
	ClientID         string `yaml:"client_id"`          // with the token endpoint
	ClientSecretFile string `yaml:"client_secret_file"` // with the token endpoint
	Scope            string `yaml:"scope"`              // asked of the token endpoint, separated by spaces; empty: the endpoint's choice
	TokenCAFile      string `yaml:"token_ca_file"`      // who may vouch for the token endpoint; empty: the system's
	// Extensions are sent with the OAUTHBEARER token, such as logicalCluster.
	Extensions map[string]string `yaml:"extensions"`
}

// Limits bound what a portal can send. All must be positive.
type Limits struct {
	BodyBytes        Bytes    `yaml:"body_bytes"`         // a JSON body as a whole; default 20MB
	PartBytes        Bytes    `yaml:"part_bytes"`         // the part "submission" of a multipart body; default 4MB
	AttachmentBytes  Bytes    `yaml:"attachment_bytes"`   // one attachment; default 500MB
	SubmissionBytes  Bytes    `yaml:"submission_bytes"`   // everything of one submission; default 2GB
	Attachments      int      `yaml:"attachments"`        // of one submission; default 100
	Depth            int      `yaml:"depth"`              // nesting of the JSON; default 64
	ReadTimeout      Duration `yaml:"read_timeout"`       // for the header, and for each next piece of the body; default 60s
	RequestTimeout   Duration `yaml:"request_timeout"`    // for a request as a whole, the largest upload included; default 30m
	Concurrent       int      `yaml:"concurrent"`         // requests in hand at once; default 256
	KafkaRecordBytes Bytes    `yaml:"kafka_record_bytes"` // one record of an intake topic; default 16MB
}

// Policy says how a destination is tried.
type Policy struct {
	Initial  Duration `yaml:"initial"`   // before the second attempt; default 5s
	Max      Duration `yaml:"max"`       // longest wait between two attempts; default 10h
	Factor   float64  `yaml:"factor"`    // growth of the wait per attempt, at least 1; default 2
	Jitter   float64  `yaml:"jitter"`    // share of the wait that is drawn, 0 to 1; default 0.2
	GiveUp   Duration `yaml:"give_up"`   // of waiting in all, without pauses, then dead; default 168h
	Probe    Duration `yaml:"probe"`     // between two probes of a paused destination; default 15s
	Timeout  Duration `yaml:"timeout"`   // of one attempt; default 30s
	InFlight int      `yaml:"in_flight"` // attempts at once; default 8
	// DeadRatio is the share of refusals among the newest 20 deliveries that came
	// to an end, from which on the destination pauses, 0 to 1; default 0.5, 0 is
	// never.
	DeadRatio float64 `yaml:"dead_ratio"`
}

// Seal names key files, relative to the config directory. What is not named is
// made at the first start.
type Seal struct {
	// Dir is where the keys lie that the router makes, relative to the data
	// directory; default "keys". Replicas share it: without a Land's master key
	// nothing of that Land can be read, and receipts are signed with one key.
	Dir        string                     `yaml:"dir"`
	MasterKeys map[submission.Land]string `yaml:"master_keys"`
	SigningKey string                     `yaml:"signing_key"` // Ed25519, of the receipts
}

// Blobs says where attachments and large sections lie, encrypted.
type Blobs struct {
	// Dir is relative to the data directory; default "blobs". Replicas share it.
	Dir string `yaml:"dir"`
}

// Status says where the status store is.
type Status struct {
	// File is the SQLite file. Relative to the data directory. Default
	// "status.db".
	File string `yaml:"file"`
}

// Log says what is logged.
type Log struct {
	Level string `yaml:"level"` // debug, info, warn, error; default info
}

// Right is something an operator may do.
type Right string

// The rights. Each is named by itself; none includes another.
const (
	RightView    Right = "view"    // see states, events, dead letters without payload
	RightOperate Right = "operate" // assign, redrive, close
	RightPayload Right = "payload" // see what a submission contains
)

// Operator is a person or a tool with a token of its own. The operator "local"
// is made by the router and cannot be named here.
type Operator struct {
	Name        string            `yaml:"name"`
	TokenSHA256 string            `yaml:"token_sha256"` // hex SHA-256 of the token
	Rights      []Right           `yaml:"rights"`
	Lands       []submission.Land `yaml:"lands"` // empty: all
	Pos         Pos               `yaml:"-"`
}

// Edits says how a Land's dead submissions may be edited.
type Edits struct {
	// SecondOperator asks for a second pair of eyes: an edit takes effect once
	// another named operator has approved it. Default false.
	SecondOperator bool `yaml:"second_operator"`
	// Expire is how long a proposal stands. Default 168h.
	Expire Duration `yaml:"expire"`
}

// DefaultEditExpire is how long a proposal stands where the Land does not say.
const DefaultEditExpire = 168 * time.Hour

// LocalOperator is the operator that the router makes at its first start, with
// every right. Whoever can read its token in the data directory is it, so it is
// nobody by name.
const LocalOperator = "local"

// Land is one tenant's configuration: a folder under config/lands/.
type Land struct {
	Key          submission.Land
	Name         string
	Dir          string // lands/<key>-<name>, relative to Config.Dir
	Hash         string // hex SHA-256 over the names and bytes of its files, sorted by name
	Services     []Offer
	Authorities  []Authority
	Destinations []Destination
	Rules        []Rule
	Portals      []*Portal
	Edits        Edits
	Pos          Pos
}

// Offers says whether the Land offers the service.
func (l *Land) Offers(s submission.Service) bool {
	_, ok := l.Offer(s)
	return ok
}

// Offer returns what the Land says of a service that it offers.
func (l *Land) Offer(s submission.Service) (Offer, bool) {
	for _, o := range l.Services {
		if o.Service == s {
			return o, true
		}
	}
	return Offer{}, false
}

// Authority returns the Land's authority with this id, or nil.
func (l *Land) Authority(id string) *Authority {
	for i := range l.Authorities {
		if l.Authorities[i].ID == id {
			return &l.Authorities[i]
		}
	}
	return nil
}

// Destination returns the Land's destination with this id, or nil.
func (l *Land) Destination(id string) *Destination {
	for i := range l.Destinations {
		if l.Destinations[i].ID == id {
			return &l.Destinations[i]
		}
	}
	return nil
}

// Reach yields every rule with each service it can ever decide about: those it
// names, or for AnyService all that the Land offers but those that an undated
// rule for the same region names.
func (l *Land) Reach() iter.Seq2[*Rule, submission.Service] {
	type area struct {
		service submission.Service
		region  submission.Region
	}
	always := map[area]bool{}
	for i := range l.Rules {
		for _, s := range l.Rules[i].Services {
			if l.Rules[i].From.IsZero() && l.Rules[i].Until.IsZero() {
				always[area{s, l.Rules[i].Region}] = true
			}
		}
	}
	return func(yield func(*Rule, submission.Service) bool) {
		for i := range l.Rules {
			r := &l.Rules[i]
			services := r.Services
			if slices.Contains(services, AnyService) {
				services = slices.DeleteFunc(slices.Clone(services), func(s submission.Service) bool { return s == AnyService })
				for _, o := range l.Services {
					if !slices.Contains(services, o.Service) && !always[area{o.Service, r.Region}] {
						services = append(services, o.Service)
					}
				}
			}
			for _, s := range services {
				if !yield(r, s) {
					return
				}
			}
		}
	}
}

// Offer is a service a Land offers. Process names the entry of the process
// library that serves it; empty is the entry with this service's key.
type Offer struct {
	Service submission.Service `yaml:"service"`
	Process string             `yaml:"process"`
	Pos     Pos                `yaml:"-"`
}

// AnyService stands for every service, in rules and in an authority's
// destinations.
const AnyService submission.Service = "*"

// Authority is a zuständige Stelle and where its submissions go.
type Authority struct {
	submission.Authority
	// Destinations by service; AnyService stands for those not named.
	Destinations map[submission.Service][]string `yaml:"destinations"`
	Pos          Pos                             `yaml:"-"`
}

// Destination is one Fachverfahren's door. Its id is unique in its Land.
type Destination struct {
	ID       string              `yaml:"id"`
	Name     string              `yaml:"name"` // for people; empty: the id
	Adapter  string              `yaml:"adapter"`
	Settings Settings            `yaml:"settings"` // checked by the adapter's own kind
	Formats  []submission.Format `yaml:"formats"`  // in the order it prefers
	Test     bool                `yaml:"test"`     // takes test submissions, and nothing else
	Policy   Policy              `yaml:"policy"`   // complete: the router's, with what is set here
	Pos      Pos                 `yaml:"-"`
}

// Rule says who is responsible. Longest region first; AnyService yields to a
// rule that names the service for the same region.
type Rule struct {
	Services  []submission.Service `yaml:"services"` // AnyService allowed
	Region    submission.Region    `yaml:"region"`
	Authority string               `yaml:"authority"`
	From      Date                 `yaml:"from"`  // first day it holds; zero: since ever
	Until     Date                 `yaml:"until"` // last day it holds; zero: for good
	Pos       Pos                  `yaml:"-"`
}

// Portal is a sender of submissions. Its id is unique over all Länder.
type Portal struct {
	ID       string                  `yaml:"id"`
	Name     string                  `yaml:"name"`
	Key      submission.AuthorityKey `yaml:"key"`      // DVDV, bap: and 12 digits
	Lands    []submission.Land       `yaml:"lands"`    // it may send for
	Services []submission.Service    `yaml:"services"` // it may send; empty: all
	Auth     Auth                    `yaml:"auth"`
	// Topic gives the portal an intake topic of its own, weiche.intake.<id>.
	Topic bool            `yaml:"topic"`
	Home  submission.Land `yaml:"-"` // the Land whose folder it stands in
	Pos   Pos             `yaml:"-"`
}

// Sends says whether the portal may send the service.
func (p *Portal) Sends(s submission.Service) bool {
	return len(p.Services) == 0 || slices.Contains(p.Services, s)
}

// Auth says how a portal proves who it is. Several ways may stand side by side.
type Auth struct {
	APIKeySHA256 []string `yaml:"api_key_sha256"` // hex SHA-256 of each key that counts
	// ExampleKey asks the router to make a key at the first start, in the data
	// directory. For trying out.
	ExampleKey bool `yaml:"example_key"`
	JWT        *JWT `yaml:"jwt"`
}

// JWT accepts bearer tokens of an issuer.
type JWT struct {
	Issuer     string   `yaml:"issuer"`
	Audience   string   `yaml:"audience"`
	JWKSFile   string   `yaml:"jwks_file"` // relative to the config directory; or
	JWKSURL    string   `yaml:"jwks_url"`  // https
	Algorithms []string `yaml:"algorithms"`
}
