// Package kafka appends each message to the Fachverfahren's own topic, as a
// CloudEvent in binary mode, keyed by case.
//
// The cluster is the router's own, or another where brokers are named; another
// one is connected to at the first delivery and not before, so that it cannot
// hinder the start. The adapter makes a missing topic where it may and changes
// no topic that exists. It writes to no topic of the router's pipeline.
//
// A message without attachments is the record's value as it stands. With
// attachments the value is a multipart/related body. Both are bounded by
// max_message; what is larger is refused for good, because no retry would make
// it smaller.
package kafka

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/wire"
	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// TypeMessage is the ce_type of every record.
const TypeMessage = "weiche.message"

const headroom = 64 << 10 // for key and headers

var (
	topicName  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
	mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
)

// Kind describes the adapter.
func Kind() spec.Kind {
	return spec.Kind{
		Name:    "kafka",
		Summary: "Appends each message to a topic of the Fachverfahren.",
		Doc: `Each message is one CloudEvent in binary mode, appended with acks=all. The record's key is the case id, so the
messages of a case keep their order. The value is the XML (` + "`content-type: application/xml`" + `), or, where there are
attachments, a ` + "`multipart/related`" + ` body (RFC 2387): first part the XML, then one part for each attachment with
` + "`Content-Disposition`, `Content-Type`, `Content-ID`, `Content-Digest` (sha-512, RFC 9530) and `Weiche-Purpose`" + `.

| header | value |
| --- | --- |
| ` + "`ce_specversion`, `ce_type`" + ` | ` + "`1.0`, `weiche.message`" + ` |
| ` + "`ce_id`" + ` | the delivery id: the same at every repeat; drop repeats by it |
| ` + "`ce_source`" + ` | ` + "`/weiche/destinations/<name>`" + ` |
| ` + "`ce_subject`, `ce_submissionid`" + ` | the submission id |
| ` + "`ce_caseid`, `ce_service`, `ce_land`, `ce_portal`, `ce_format`, `ce_authoritykey`" + ` | what they say; ` + "`ce_format`" + ` as ` + "`standard/version/message`" + ` |
| ` + "`ce_test`" + ` | ` + "`true`" + ` on test submissions, missing otherwise |
| ` + "`ce_attempt`" + ` | number of the attempt, from 1; no part of the message's identity |
| ` + "`traceparent`" + ` | W3C Trace Context |

| what happens | counts as |
| --- | --- |
| the broker has acknowledged | delivered |
| message larger than ` + "`max_message`" + ` or than the topic takes | refused for good (` + "`too-large`" + `) |
| too few replicas in sync, no leader, no answer in time | retry |
| no broker of another cluster answers | destination at fault (` + "`unreachable`" + `) |
| topic missing and not to be made | destination at fault (` + "`unknown-topic`" + `) |
| user or ACL refused | destination at fault (` + "`not-authorised`" + `) |
| settings or files that do not work | destination at fault (` + "`misconfigured`" + `) |`,
		Fields: []spec.Field{
			{Name: "topic", Type: spec.Text, Required: true, Example: "fachverfahren.bauamt-boeblingen", Doc: "The Fachverfahren's topic. Names that begin with `weiche.` are the router's own."},
			{Name: "create_topic", Type: spec.Bool, Default: true, Doc: "Make the topic where it is missing, with `partitions` and `retention`. A topic that exists is taken as it is."},
			{Name: "partitions", Type: spec.Number, Default: 4, Doc: "Partitions of a topic the router makes."},
			{Name: "retention", Type: spec.Duration, Default: time.Duration(0), Doc: "How long a topic the router makes keeps messages; 0 keeps them until somebody deletes them. The messages lie there in plain text: choose what the Fachverfahren's deletion rules ask for, and no less than it may be away."},
			{Name: "max_message", Type: spec.Size, Default: config.Bytes(15 << 20), Doc: "Largest message with its attachments. Another cluster's topic must take it (`max.message.bytes`)."},
			{Name: "brokers", Type: spec.List, Example: "[kafka1.example:9093, kafka2.example:9093]", Doc: "Another cluster's brokers, `host:port`. Empty: the router's own cluster."},
			{Name: "tls", Type: spec.Bool, Default: false, Doc: "Speak TLS with `brokers`."},
			{Name: "ca_file", Type: spec.Path, Doc: "PEM file with the authorities that may vouch for the brokers; the system's where empty."},
			{Name: "cert_file", Type: spec.Path, Doc: "Client certificate (PEM), with `key_file`."},
			{Name: "key_file", Type: spec.Path, Doc: "Private key of the client certificate (PEM)."},
			{Name: "sasl", Type: spec.Text, Doc: "`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; empty: no user."},
			{Name: "username", Type: spec.Text, Doc: "The user."},
			{Name: "password_file", Type: spec.Path, Doc: "File with the user's password, read whenever a connection's client is made."},
			{Name: "replication_factor", Type: spec.Number, Default: 3, Doc: "Of a topic the router makes in another cluster. In its own cluster the router's own setting holds."},
		},
		Check: check,
		New: func(destination string, v spec.Values, deps spec.Deps) (spec.Adapter, error) {
			a := &Adapter{
				source: "/weiche/destinations/" + destination, create: v.Bool("create_topic"), max: v.Size("max_message"), own: deps.Bus, open: deps.OpenBus,
				topic: bus.Topic{Name: v.Text("topic"), Partitions: v.Number("partitions"), RetentionMS: -1, MaxMessageBytes: int(v.Size("max_message")) + headroom},
			}
			if r := v.Duration("retention"); r > 0 {
				a.topic.RetentionMS = r.Milliseconds()
			}
			if len(v.List("brokers")) > 0 {
				a.own = nil
				a.other = foreign(v, deps)
			}
			return a, nil
		},
	}
}

func check(v spec.Values) []spec.Complaint {
	var out []spec.Complaint
	add := func(field, text string) { out = append(out, spec.Complaint{Field: field, Text: text}) }
	switch t := v.Text("topic"); {
	case !topicName.MatchString(t) || t == "." || t == "..":
		add("topic", "up to 249 letters, digits, dots, underscores and hyphens are expected")
	case strings.HasPrefix(t, "weiche."):
		add("topic", "names that begin with weiche. are the router's own")
	}
	if v.Number("partitions") < 1 {
		add("partitions", "at least 1 is expected")
	}
	if v.Number("replication_factor") < 1 {
		add("replication_factor", "at least 1 is expected")
	}
	if m := v.Size("max_message"); m < 64<<10 || m > 1<<30 {
		add("max_message", "between 64KB and 1GB is expected")
	}
	if len(v.List("brokers")) == 0 {
		for _, f := range []string{"ca_file", "cert_file", "key_file", "sasl", "username", "password_file"} {
			if v.Text(f) != "" {
				add(f, "says how to reach another cluster, but brokers is empty; the router's own is set up in router.yaml")
			}
		}
		if v.Bool("tls") {
			add("tls", "says how to reach another cluster, but brokers is empty; the router's own is set up in router.yaml")
		}
		return out
	}
	for _, f := range []string{"ca_file", "cert_file", "key_file"} {
		if v.Text(f) != "" && !v.Bool("tls") {
			add(f, "needs tls: true")
		}
	}
	if (v.Text("cert_file") == "") != (v.Text("key_file") == "") {
		add("cert_file", "cert_file and key_file need each other")
	}
	if m := v.Text("sasl"); m != "" {
		known := false
		for _, k := range mechanisms {
			known = known || k == m
		}
		if !known {
			add("sasl", "one of "+strings.Join(mechanisms, ", ")+" is expected")
		}
		if v.Text("username") == "" || v.Text("password_file") == "" {
			add("sasl", "needs username and password_file")
		}
	} else if v.Text("username") != "" || v.Text("password_file") != "" {
		add("username", "needs sasl")
	}
	return out
}

func foreign(v spec.Values, deps spec.Deps) *bus.Config {
	cfg := &bus.Config{
		Brokers: v.List("brokers"), ReplicationFactor: v.Number("replication_factor"),
		MaxRecordBytes: int(v.Size("max_message")) + headroom,
	}
	if v.Bool("tls") {
		cfg.TLS = &bus.TLSConfig{CAFile: deps.SecretPath(v.Text("ca_file")), CertFile: deps.SecretPath(v.Text("cert_file")), KeyFile: deps.SecretPath(v.Text("key_file"))}
	}
	if v.Text("sasl") != "" {
		cfg.SASL = &bus.SASLConfig{Mechanism: v.Text("sasl"), Username: v.Text("username"), PasswordFile: deps.SecretPath(v.Text("password_file"))}
	}
	return cfg
}

// Adapter appends to one topic. It is safe for concurrent use.
type Adapter struct {
	source string // ce_source
	topic  bus.Topic
	create bool
	max    int64
	open   func(context.Context, bus.Config) (spec.ClosableBus, error)
	other  *bus.Config // nil: the router's own cluster

	mu     sync.Mutex // held while connecting: one connection, others wait
	own    spec.Bus
	opened spec.ClosableBus
}

// Deliver implements spec.Adapter.
func (a *Adapter) Deliver(ctx context.Context, d *submission.Delivery) error {
	if err := ctx.Err(); err != nil {
		return fault.Of(err)
	}
	body := wire.NewBody(d, "related")
	size := int64(len(d.XML))
	for _, f := range d.Attachments {
		size += f.Size // before anything is read into memory
	}
	if size > a.max {
		return a.tooLarge(size)
	}
	value, err := body.Bytes(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return fault.Of(ctx.Err())
		}
		if src, ok := errors.AsType[*wire.SourceError](err); ok {
			return src.Fault()
		}
		return fault.Of(err)
	}
	if int64(len(value)) > a.max {
		return a.tooLarge(int64(len(value)))
	}
	to, err := a.bus(ctx)
	if err != nil {
		return a.classify(ctx, err)
	}
	rec := &bus.Record{Topic: a.topic.Name, Partition: bus.AnyPartition, Key: []byte(d.CaseID), Value: value, Headers: a.headers(d, body.ContentType())}
	err = to.Append(ctx, rec)
	if f := fault.Of(err); f != nil && f.Reason == fault.ReasonUnknownTopic && a.create {
		if err = to.EnsureTopics(ctx, []bus.Topic{a.topic}); err == nil {
			err = to.Append(ctx, rec)
		}
	}
	if err != nil {
		return a.classify(ctx, err)
	}
	return nil
}

func (a *Adapter) tooLarge(size int64) error {
	return fault.New(fault.Permanent, fault.ReasonTooLarge, "the message with its attachments has %d bytes, max_message is %d", size, a.max)
}

func (a *Adapter) headers(d *submission.Delivery, contentType string) map[string]string {
	h := make(map[string]string, 16)
	h[submission.HeaderSpecVersion] = "1.0"
	h[submission.HeaderType] = TypeMessage
	h[submission.HeaderID] = d.ID
	h[submission.HeaderSource] = a.source
	h[submission.HeaderSubject] = d.SubmissionID
	h[submission.HeaderContentType] = contentType
	h["ce_attempt"] = strconv.Itoa(d.Attempt)
	for k, v := range wire.Facts(d) {
		h["ce_"+k] = v
	}
	if d.Traceparent != "" {
		h[submission.HeaderTraceparent] = d.Traceparent
	}
	return h
}

func (a *Adapter) bus(ctx context.Context) (spec.Bus, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own != nil {
		return a.own, nil
	}
	if a.other == nil {
		return nil, fault.New(fault.Destination, fault.ReasonMisconfigured, "no cluster of the router's own is at hand")
	}
	if err := ctx.Err(); err != nil {
		return nil, err // it ran out while another attempt was connecting
	}
	b, err := a.open(ctx, *a.other)
	if err != nil {
		return nil, err
	}
	a.own, a.opened = b, b
	return b, nil
}

// Close closes the connection to another cluster; the router's own stays.
func (a *Adapter) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.opened == nil {
		return nil
	}
	b := a.opened
	a.own, a.opened = nil, nil
	return b.Close()
}

// classify turns the bus's view (who runs the pipeline) into the adapter's (who
// runs the destination).
func (a *Adapter) classify(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Of(ctx.Err())
	}
	f := fault.Of(err)
	class, reason, detail := f.Class, f.Reason, ""
	switch f.Reason {
	case fault.ReasonBrokerUnavailable:
		if a.other != nil {
			class, reason, detail = fault.Destination, fault.ReasonUnreachable, "no broker of the destination's cluster answers"
		} else {
			class, detail = fault.Retryable, "no broker leads the topic at the moment"
		}
	case fault.ReasonUnknownTopic:
		class, detail = fault.Destination, "the topic is missing, and create_topic is off or did not help"
	case fault.ReasonNotAuthorised, fault.ReasonUnauthorized:
		class, detail = fault.Destination, "the broker does not allow the router's user to write to the topic"
	case fault.ReasonMisconfigured, fault.ReasonCertificate:
		class, detail = fault.Destination, f.Detail // the bus's own words: settings and topics, never content
	case fault.ReasonTooLarge:
		class, detail = fault.Permanent, "the message is larger than the topic takes"
	case fault.ReasonQuorumLost:
		class, detail = fault.Retryable, "too few replicas of the topic are in sync"
	default:
		if class == fault.Permanent {
			// Nothing else that a broker says is about this one message.
			class = fault.Retryable
		}
	}
	return fault.Wrap(err, class, reason, "%s", detail)
}
