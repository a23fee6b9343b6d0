// Package kafka appends each message to the Fachverfahren's own topic, as a
// CloudEvent in binary mode, keyed by case.
//
// The cluster is the router's own, or another where brokers are named. Another
// one is connected to when a message comes, so that it cannot hinder the start,
// and left when none has come for a while; every address it leads to is looked at,
// those included that its brokers advertise. The adapter makes a missing topic where it may and changes
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
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/wire"
	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// TypeMessage is the ce_type of every record.
const TypeMessage = "weiche.message"

const oauthBearer = "OAUTHBEARER"

const headroom = 64 << 10 // for key and headers

var (
	topicName  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
	mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", oauthBearer}
)

// Kind describes the adapter.
func Kind() spec.Kind {
	return spec.Kind{
		Name:    "kafka",
		Summary: "Appends each message to a topic of the Fachverfahren.",
		Doc: `Each message is one CloudEvent in binary mode, appended with acks=all. The record's key is the case id, so the
messages of a case keep their order. The value is the message (` + "`content-type: application/xml`, or `text/csv`, `application/pdf`" + ` after its format), or, where there are
attachments, a ` + "`multipart/related`" + ` body (RFC 2387): first part the message, then one part for each attachment with
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
| the connection breaks within a message, again and again | retry |
| an address of another cluster, advertised ones included, that ` + "`allow_networks`" + ` does not name | destination at fault (` + "`misconfigured`" + `) |
| the brokers' certificate, or ours, is not taken | destination at fault (` + "`certificate`" + `) |
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
			{Name: "tls", Type: spec.Bool, Default: false, Doc: "Speak TLS with `brokers`. Without it only networks that `allow_networks` names are spoken to."},
			{Name: "ca_file", Type: spec.Path, Doc: "PEM file with the authorities that may vouch for the brokers; the system's where empty. When one of the three files changes, connections are made anew."},
			{Name: "cert_file", Type: spec.Path, Doc: "Client certificate (PEM), with `key_file`."},
			{Name: "key_file", Type: spec.Path, Doc: "Private key of the client certificate (PEM)."},
			{Name: "server_name", Type: spec.Text, Doc: "The name in the brokers' certificates, where it is another than that of `brokers`."},
			{Name: "sasl", Type: spec.Text, Doc: "`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`; empty: no user. `OAUTHBEARER` needs `tls: true`."},
			{Name: "username", Type: spec.Text, Doc: "The user; not with `OAUTHBEARER`."},
			{Name: "password_file", Type: spec.Path, Doc: "File with the user's password, read again when it changes."},
			{Name: "token_file", Type: spec.Path, Doc: "With `OAUTHBEARER`: file with a token that something else keeps fresh, read at every connection."},
			{Name: "token_url", Type: spec.URL, Doc: "With `OAUTHBEARER`: the token endpoint (OAuth 2.0 client credentials, https), under the same `allow_networks`."},
			{Name: "client_id", Type: spec.Text, Doc: "Who the router is to `token_url`."},
			{Name: "client_secret_file", Type: spec.Path, Doc: "File with the secret for `token_url`, read for every token."},
			{Name: "scope", Type: spec.Text, Doc: "Scopes to ask for, separated by spaces."},
			{Name: "token_ca_file", Type: spec.Path, Doc: "PEM file with the authorities that may vouch for `token_url`; the system's where empty."},
			dial.Field(),
			{Name: "connect_timeout", Type: spec.Duration, Default: 3 * time.Second, Doc: "For resolving a broker's name and connecting to it."},
			{Name: "idle_timeout", Type: spec.Duration, Default: time.Minute, Doc: "Another cluster is left when it got no message for this long. 0: at once."},
			{Name: "replication_factor", Type: spec.Number, Default: 3, Doc: "Of a topic the router makes in another cluster. In its own cluster the router's own setting holds."},
		},
		Check: check,
		New: func(destination string, v spec.Values, deps spec.Deps) (spec.Adapter, error) {
			a := &Adapter{
				source: "/weiche/destinations/" + destination, create: v.Bool("create_topic"), max: v.Size("max_message"), own: deps.Bus,
				topic: bus.Topic{Name: v.Text("topic"), Partitions: v.Number("partitions"), RetentionMS: -1, MaxMessageBytes: int(v.Size("max_message")) + headroom},
			}
			if r := v.Duration("retention"); r > 0 {
				a.topic.RetentionMS = r.Milliseconds()
			}
			if len(v.List("brokers")) > 0 {
				cfg := foreign(v, deps)
				a.other = newCluster(func(ctx context.Context) (spec.ClosableBus, error) { return deps.OpenBus(ctx, cfg) }, v.Duration("idle_timeout"))
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
		return append(out, checkOwn(v)...)
	}
	return append(out, checkOther(v)...)
}

// checkOwn: nothing says how to reach another cluster where none is named.
func checkOwn(v spec.Values) []spec.Complaint {
	const text = "says how to reach another cluster, but brokers is empty; the router's own is set up in router.yaml"
	var out []spec.Complaint
	for _, f := range []string{"ca_file", "cert_file", "key_file", "server_name", "sasl", "username", "password_file",
		"token_file", "token_url", "client_id", "client_secret_file", "scope", "token_ca_file"} {
		if v.Text(f) != "" {
			out = append(out, spec.Complaint{Field: f, Text: text})
		}
	}
	if v.Bool("tls") {
		out = append(out, spec.Complaint{Field: "tls", Text: text})
	}
	if len(v.List(dial.FieldName)) > 0 {
		out = append(out, spec.Complaint{Field: dial.FieldName, Text: text})
	}
	return out
}

func checkOther(v spec.Values) []spec.Complaint {
	out := append(dial.Check(v), checkUser(v)...)
	add := func(field, text string) { out = append(out, spec.Complaint{Field: field, Text: text}) }
	for _, f := range []string{"ca_file", "cert_file", "key_file", "server_name"} {
		if v.Text(f) != "" && !v.Bool("tls") {
			add(f, "needs tls: true")
		}
	}
	if (v.Text("cert_file") == "") != (v.Text("key_file") == "") {
		add("cert_file", "cert_file and key_file need each other")
	}
	if v.Duration("connect_timeout") <= 0 {
		add("connect_timeout", "more than 0 is expected")
	}
	return out
}

// checkUser judges who the router is to another cluster's brokers.
func checkUser(v spec.Values) []spec.Complaint {
	var out []spec.Complaint
	add := func(field, text string) { out = append(out, spec.Complaint{Field: field, Text: text}) }
	mechanism := v.Text("sasl")
	named := func(fields ...string) (set, missing []string) {
		for _, f := range fields {
			if v.Text(f) != "" {
				set = append(set, f)
			} else {
				missing = append(missing, f)
			}
		}
		return set, missing
	}
	user, noUser := named("username", "password_file")
	token, _ := named("token_file", "token_url", "client_id", "client_secret_file", "scope", "token_ca_file")
	switch {
	case mechanism == "":
		for _, f := range append(user, token...) {
			add(f, "needs sasl")
		}
		return out
	case !slices.Contains(mechanisms, mechanism):
		add("sasl", "one of "+strings.Join(mechanisms, ", ")+" is expected")
		return out
	case mechanism != oauthBearer:
		if len(noUser) > 0 {
			add("sasl", "needs username and password_file")
		}
		for _, f := range token {
			add(f, "needs sasl: "+oauthBearer)
		}
	default:
		out = append(out, checkToken(v)...)
		for _, f := range user {
			add(f, "is not for "+oauthBearer)
		}
	}
	return out
}

func checkToken(v spec.Values) []spec.Complaint {
	file, url := v.Text("token_file") != "", v.Text("token_url")
	if file == (url != "") {
		return []spec.Complaint{{Field: "sasl", Text: "needs either token_file or token_url"}}
	}
	var out []spec.Complaint
	for _, f := range []string{"client_id", "client_secret_file"} {
		switch set := v.Text(f) != ""; {
		case file && set:
			out = append(out, spec.Complaint{Field: f, Text: "goes with token_url, not with token_file"})
		case !file && !set:
			out = append(out, spec.Complaint{Field: "token_url", Text: "needs client_id and client_secret_file"})
		}
	}
	if !v.Bool("tls") {
		out = append(out, spec.Complaint{Field: "sasl", Text: oauthBearer + " needs tls: true (RFC 6750, section 5.3)"})
	}
	if url != "" && !strings.HasPrefix(strings.ToLower(url), "https://") {
		out = append(out, spec.Complaint{Field: "token_url", Text: "an https:// address is expected"})
	}
	return out
}

func foreign(v spec.Values, deps spec.Deps) bus.Config {
	path := func(field string) string { return deps.SecretPath(v.Text(field)) }
	cfg := bus.Config{
		Brokers: v.List("brokers"), ReplicationFactor: v.Number("replication_factor"),
		MaxRecordBytes: int(v.Size("max_message")) + headroom,
		Dial:           guarded(dial.Dialer{Allowed: dial.Allowed(v), OnlyAllowed: !v.Bool("tls"), Timeout: v.Duration("connect_timeout")}),
	}
	if v.Bool("tls") {
		cfg.TLS = &bus.TLSConfig{CAFile: path("ca_file"), CertFile: path("cert_file"), KeyFile: path("key_file"), ServerName: v.Text("server_name")}
	}
	if m := v.Text("sasl"); m != "" {
		cfg.SASL = &bus.SASLConfig{Mechanism: m, Username: v.Text("username"), PasswordFile: path("password_file"), TokenFile: path("token_file")}
	}
	if u := v.Text("token_url"); u != "" {
		cfg.SASL.Token = &bus.TokenConfig{URL: u, ClientID: v.Text("client_id"), ClientSecretFile: path("client_secret_file"),
			Scope: v.Text("scope"), CAFile: path("token_ca_file")}
	}
	return cfg
}

// Adapter appends to one topic. It is safe for concurrent use.
type Adapter struct {
	source string // ce_source
	topic  bus.Topic
	create bool
	max    int64
	own    spec.Bus // the router's own cluster
	other  *cluster // nil: own
}

// Deliver implements spec.Adapter.
func (a *Adapter) Deliver(ctx context.Context, d *submission.Delivery) error {
	if err := ctx.Err(); err != nil {
		return fault.Of(err)
	}
	body := wire.NewBody(d, "related")
	size := int64(len(d.Message))
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
	to, err := a.enter(ctx)
	if err != nil {
		return a.classify(ctx, err)
	}
	defer a.leave()
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

func (a *Adapter) enter(ctx context.Context) (spec.Bus, error) {
	switch {
	case a.other != nil:
		return a.other.enter(ctx)
	case a.own == nil:
		return nil, fault.New(fault.Destination, fault.ReasonMisconfigured, "no cluster of the router's own is at hand")
	}
	return a.own, nil
}

func (a *Adapter) leave() {
	if a.other != nil {
		a.other.leave()
	}
}

// Close closes the connection to another cluster; the router's own stays.
func (a *Adapter) Close() error {
	if a.other == nil {
		return nil
	}
	return a.other.close()
}

// here turns names of the router's own settings into the destination's.
var here = strings.NewReplacer("kafka.tls: ", "", "kafka.tls.", "", "kafka.sasl.mechanism", "sasl", "kafka.sasl.", "", "kafka.", "")

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
		switch {
		case a.other != nil && broken(err):
			class, reason, detail = fault.Retryable, fault.ReasonInterrupted, "the connection to the destination's broker breaks before it answers"
		case a.other != nil:
			class, reason, detail = fault.Destination, fault.ReasonUnreachable, "no broker of the destination's cluster, or no token_url of its, answers"
		default:
			class, detail = fault.Retryable, "no broker leads the topic at the moment"
		}
	case fault.ReasonUnknownTopic:
		class, detail = fault.Destination, "the topic is missing, and create_topic is off or did not help"
	case fault.ReasonNotAuthorised, fault.ReasonUnauthorized:
		class, detail = fault.Destination, "the broker does not allow the router's user to write to the topic"
		if !strings.Contains(f.Detail, "ACLs") { // it came to no such question: the login failed
			detail = here.Replace(f.Detail)
		}
	case fault.ReasonMisconfigured, fault.ReasonCertificate:
		class, detail = fault.Destination, here.Replace(f.Detail) // the bus's own words: settings and topics, never content
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

// broken says that a broker was connected to, and that the connection ended: what
// became of the message is not known, and it may be this message that ends it.
func broken(err error) bool {
	if dial.Fault(err) != nil {
		return false
	}
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed},
		func(e error) bool { return errors.Is(err, e) })
}
