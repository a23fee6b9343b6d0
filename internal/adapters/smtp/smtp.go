// Package smtp sends each message as a mail to the Fachverfahren's mailboxes,
// through a submission server or relay.
//
// The mail's bytes depend on the delivery and the settings alone: Message-ID,
// Date and headers are the same at every attempt (with S/MIME signature and
// ciphertext differ). Without S/MIME it is streamed and no attachment is kept in
// memory; with S/MIME the library wants it whole.
//
// A connection serves one message and is closed. Nothing is kept between
// messages, and files of the settings are read for each, so that what was
// changed holds from the next message on.
//
// What an answer means is in answer.go, and in the reference for users.
package smtp

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/spec"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// How the connection is made secure.
const (
	tlsStart    = "starttls"
	tlsImplicit = "implicit"
	tlsNone     = "none"
)

var ports = map[string]int{tlsStart: 587, tlsImplicit: 465, tlsNone: 25}

const maxRecipients = 100 // a server has to take as many, RFC 5321 section 4.5.3.1.8

// Kind describes the adapter.
func Kind() spec.Kind {
	return spec.Kind{
		Name:    "smtp",
		Summary: "Sends each message as a mail to mailboxes of the Fachverfahren, through a submission server.",
		Doc: `The mail is ` + "`multipart/mixed`" + `: a few words for a person, then the message (` + "`<delivery id>.xml`" + `, or ` + "`.csv`, `.pdf`" + ` after its format), then the
attachments, named ` + "`01-<name>`, `02-<name>`" + ` with the names the portal gave, freed of everything a file system or a
person could stumble over (beyond ASCII by RFC 2231). Each part has ` + "`Content-ID`" + ` and, over its decoded bytes, ` + "`Content-Digest`" + `
(sha-512). With S/MIME all that is inside.

| header | value |
| --- | --- |
| ` + "`Message-ID`" + ` | ` + "`<delivery id@domain of from>`" + `: the same at every repeat; drop repeats by it, or by ` + "`Weiche-Delivery-Id`" + ` |
| ` + "`Date`" + ` | when the submission was accepted: the same at every repeat |
| ` + "`Subject`" + ` | ` + "`Antrag <service> <format> <submission id>`" + `, with ` + "`Test:`" + ` before it on test submissions; no personal word |
| ` + "`References`" + ` | one id for each case: mail programs show a case as one conversation |
| ` + "`Weiche-Submission-Id`, `Weiche-Case-Id`, `Weiche-Service`, `Weiche-Land`, `Weiche-Portal`, `Weiche-Format`, `Weiche-Authority-Key`, `Weiche-Test`" + ` | as with ` + "`http`" + `; not signed, the message itself is what counts |
| ` + "`Auto-Submitted`, `X-Auto-Response-Suppress`" + ` | no absence notes, please |

**Delivered means that the server answered 250: it has taken over the mail and answers for it. It does not mean that the
mail lies in the mailbox, or that somebody has read it.** What goes wrong later comes as a bounce to ` + "`bounces_to`" + `, which
a person has to watch; the router does not read mail. The server is asked for bounces that carry the head alone
(` + "`RET=HDRS`" + `, RFC 3461) and name the delivery id (` + "`ENVID`" + `); not every server obeys. Where more certainty is needed, take
another adapter, or let the Fachverfahren answer.

All recipients have to be taken: where the server refuses one, nothing is sent to the others either, and the message
waits. Without ` + "`encrypt_to_file`" + ` every server on the mail's way can read it. After an unknown answer (connection lost after the last byte) the mail is sent again under the same Message-ID, so
a mailbox may see it twice.

| answer | counts as |
| --- | --- |
| 250 to the message | delivered |
| 4xx (greylisting, busy, no space for now) | retry (` + "`unavailable`" + `) |
| 530, 534, 535, 538, any 5xx at login, 432 | destination at fault (` + "`unauthorized`" + `) |
| 550 or 554 at the greeting; 5.7.x to sender or recipient; 5.7.20 to 5.7.27 (SPF, DKIM, DMARC, reverse DNS), 5.7.8, 5.7.9, 5.7.14 | destination at fault (` + "`unauthorized`" + `) |
| other 5xx to sender, recipient or ` + "`DATA`" + ` (550, 551, 553, 554, 555), 5.1.x to the message | destination at fault (` + "`misconfigured`" + `): the addresses are the same for every message |
| 5.2.2, 5.3.1, 552 to a recipient | destination at fault (` + "`storage`" + `): the mailbox is full |
| 521, 556, 5.2.1 | destination at fault (` + "`gone`" + `) |
| 552 to the message or to its size, 5.2.3, 5.3.4, larger than the server's ` + "`SIZE`" + ` or ` + "`max_message`" + ` | refused for good (` + "`too-large`" + `) |
| other 5xx to the message (550, 554) | refused for good (` + "`refused`" + `) |
| other 5xx before it | destination at fault (` + "`misconfigured`" + `) |
| no connection, no such host | destination at fault (` + "`unreachable`" + `) |
| certificate or TLS at fault, no STARTTLS offered; a certificate for S/MIME that has expired | destination at fault (` + "`certificate`" + `) |
| no answer in time | retry (` + "`timeout`" + `) |
| the connection broke off | retry (` + "`interrupted`" + `) |`,
		Fields: []spec.Field{
			{Name: "host", Type: spec.Text, Required: true, Example: "mail.example", Doc: "Submission server or relay. Its certificate has to name it."},
			{Name: "port", Type: spec.Number, Doc: "Where empty, 587 with `starttls`, 465 with `implicit`, 25 with `none`."},
			{Name: "tls", Type: spec.Text, Default: tlsStart, Doc: "`starttls` (never without it), `implicit` (TLS from the first byte) or `none` (plain text, only together with `allow_networks` and to addresses in it)."},
			{Name: "ca_file", Type: spec.Path, Doc: "PEM file with the authorities that may vouch for the server; the system's where empty. A relative path lies in the secrets directory, here and below."},
			{Name: "allow_unverified_certificate", Type: spec.Bool, Default: false, Doc: "Takes any certificate of the server; only together with `allow_networks` and to addresses in it."},
			dial.Field(),
			{Name: "hello", Type: spec.Text, Example: "weiche.land.example", Doc: "Name in `EHLO`; the domain of `from` where empty."},
			{Name: "username", Type: spec.Text, Doc: "Name to log in with; without it the router does not log in."},
			{Name: "password_file", Type: spec.Path, Doc: "File with the password, or with the access token for `xoauth2`; read again for every message."},
			{Name: "login", Type: spec.Text, Default: loginAuto, Doc: "`auto` takes the first that the server offers of `scram-sha-256`, `scram-sha-1`, `plain` and `login`; each, and `xoauth2`, can be named."},
			{Name: "from", Type: spec.Text, Required: true, Example: "weiche@land.example", Doc: "The sender, an address without a name. Its domain is part of the Message-ID: a change makes repeats look new but for `Weiche-Delivery-Id`."},
			{Name: "to", Type: spec.List, Required: true, Example: "[bauamt@stadt.example]", Doc: "The recipients, addresses without names, at most 100. They see each other."},
			{Name: "bounces_to", Type: spec.Text, Doc: "Where bounces go (the envelope's sender); `from` where empty."},
			{Name: "max_message", Type: spec.Size, Default: config.Bytes(25 << 20), Doc: "Largest mail as it is sent, that is, a good third larger than message and attachments. With S/MIME at most 100 MB, because the mail is held in memory: up to five times its size while it is signed and encrypted (512 MB for all destinations together, others wait), twice its size until it is sent (as much as one largest mail for each destination)."},
			{Name: "encrypt_to_file", Type: spec.Path, Doc: "PEM file with the recipients' certificates (RSA). Where given, the mail is encrypted to all of them by S/MIME (AES-256-CBC). Each must be valid; who vouches for it is not asked, because it is named here."},
			{Name: "sign_cert_file", Type: spec.Path, Doc: "Certificate (PEM, then those between it and the authority) to sign with by S/MIME (SHA-256), with `sign_key_file`. It should name `from`."},
			{Name: "sign_key_file", Type: spec.Path, Doc: "Private key of the certificate (PEM, RSA or ECDSA)."},
			{Name: "connect_timeout", Type: spec.Duration, Default: 10 * time.Second, Doc: "For connecting, and again for the TLS handshake. The whole attempt is bounded by the destination's policy."},
		},
		Check: check,
		New:   newAdapter,
	}
}

var (
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)
	// A Dot-string of RFC 5321 section 4.1.2 at a domain; quoted local parts and
	// letters beyond ASCII are left out, domains are written as in DNS (xn--…).
	address = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@(.+)$")
)

func isAddress(s string) bool {
	m := address.FindStringSubmatch(s)
	return m != nil && len(s) <= 254 && hostName.MatchString(m[2])
}

func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || len(s) <= 253 && hostName.MatchString(s)
}

func check(v spec.Values) []spec.Complaint {
	var out []spec.Complaint
	complain := func(field, format string, args ...any) {
		out = append(out, spec.Complaint{Field: field, Text: fmt.Sprintf(format, args...)})
	}
	if !isHost(v.Text("host")) {
		complain("host", "a host's name or address is expected, without a port")
	}
	if v.Number("port") > 65535 {
		complain("port", "there is no such port")
	}
	if h := v.Text("hello"); h != "" && !hostName.MatchString(h) {
		complain("hello", "a host's name is expected")
	}
	if _, ok := ports[v.Text("tls")]; !ok {
		complain("tls", "one of starttls, implicit, none is expected")
	}
	if !slices.Contains(logins(), v.Text("login")) {
		complain("login", "one of %s is expected", strings.Join(logins(), ", "))
	}
	for _, f := range []string{"from", "bounces_to"} {
		if a := v.Text(f); !isAddress(a) && (f == "from" || a != "") {
			complain(f, "an address such as weiche@land.example is expected, without a name")
		}
	}
	to := v.List("to")
	if len(to) == 0 || len(to) > maxRecipients {
		complain("to", "between 1 and %d recipients are expected", maxRecipients)
	}
	for i, a := range to {
		if !isAddress(a) || slices.Contains(to[:i], a) {
			complain("to", "number %d is not an address such as bauamt@stadt.example, or stands there twice", i+1)
		}
	}
	for _, pair := range [][2]string{{"username", "password_file"}, {"sign_cert_file", "sign_key_file"}} {
		if (v.Text(pair[0]) == "") != (v.Text(pair[1]) == "") {
			complain(pair[0], "%s and %s need each other", pair[0], pair[1])
		}
	}
	if v.Text("username") != "" && strings.ContainsFunc(v.Text("username"), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		complain("username", "holds a control character")
	}
	if v.Size("max_message") == 0 {
		complain("max_message", "more than nothing is expected")
	}
	if (v.Text("encrypt_to_file") != "" || v.Text("sign_cert_file") != "") && v.Size("max_message") > maxSMIME {
		complain("max_message", "with S/MIME at most 100MB: such a mail is held in memory, several times over")
	}
	if v.Duration("connect_timeout") == 0 {
		complain("connect_timeout", "more than nothing is expected")
	}
	return append(append(out, checkTrust(v)...), dial.Check(v)...)
}

// checkTrust looks for ways on which others could read the mail.
func checkTrust(v spec.Values) []spec.Complaint {
	var out []spec.Complaint
	complain := func(field, text string) { out = append(out, spec.Complaint{Field: field, Text: text}) }
	plain, unverified, own := v.Text("tls") == tlsNone, v.Bool("allow_unverified_certificate"), !dial.Allowed(v).None()
	if plain && !own {
		complain("tls", "plain text is taken only together with allow_networks, for addresses of one's own networks; the message would be read on its way")
	}
	if unverified && !own {
		complain("allow_unverified_certificate", "is taken only together with allow_networks, for addresses of one's own networks; anybody could pose as the server")
	}
	if plain && unverified {
		complain("allow_unverified_certificate", "needs TLS")
	}
	if v.Text("ca_file") != "" && (plain || unverified) {
		complain("ca_file", "nothing is verified with it")
	}
	return out
}

// Adapter sends mails to one set of recipients. It is safe for concurrent use
// and keeps nothing between messages.
type Adapter struct {
	host         string
	port         int
	tls          string
	unverified   bool
	caFile       string
	dialer       dial.Dialer
	timeout      time.Duration
	hello        string
	username     string
	passwordFile string
	login        string
	from         string
	bounces      string
	to           []string
	maxMessage   int64
	smime        smime
	held         *semaphore.Weighted // bytes of mails that S/MIME made and that are not sent yet
}

func newAdapter(_ string, v spec.Values, deps spec.Deps) (spec.Adapter, error) {
	a := &Adapter{
		host: v.Text("host"), port: v.Number("port"), tls: v.Text("tls"), unverified: v.Bool("allow_unverified_certificate"),
		caFile: deps.SecretPath(v.Text("ca_file")), timeout: v.Duration("connect_timeout"), hello: v.Text("hello"),
		username: v.Text("username"), passwordFile: deps.SecretPath(v.Text("password_file")), login: v.Text("login"),
		from: v.Text("from"), bounces: v.Text("bounces_to"), to: v.List("to"), maxMessage: v.Size("max_message"),
		smime: smime{
			encryptTo: deps.SecretPath(v.Text("encrypt_to_file")), signCert: deps.SecretPath(v.Text("sign_cert_file")),
			signKey: deps.SecretPath(v.Text("sign_key_file")), clock: deps.Clock,
		},
	}
	a.held = semaphore.NewWeighted(heldFactor * a.maxMessage)
	a.dialer = dial.Dialer{Allowed: dial.Allowed(v), OnlyAllowed: a.tls == tlsNone || a.unverified, Timeout: a.timeout}
	if a.port == 0 {
		a.port = ports[a.tls]
	}
	if a.hello == "" {
		a.hello = a.domain()
	}
	if a.bounces == "" {
		a.bounces = a.from
	}
	return a, nil
}

// Deliver implements spec.Adapter.
func (a *Adapter) Deliver(ctx context.Context, d *submission.Delivery) error {
	if err := ctx.Err(); err != nil {
		return fault.Of(err)
	}
	// The id becomes a Message-ID and a file name.
	if _, err := uuid.Parse(d.ID); err != nil {
		return fault.New(fault.Permanent, fault.ReasonMalformed, "the delivery id is not a UUID")
	}
	e, sent, err := a.compose(ctx, d)
	if err != nil {
		return classify(ctx, stepGreeting, err)
	}
	defer sent()
	return a.send(ctx, d.ID, e)
}

// compose makes the mail. sent gives back the memory it holds.
func (a *Adapter) compose(ctx context.Context, d *submission.Delivery) (e entity, sent func(), err error) {
	head, e := a.envelopeHead(d), content(d)
	sent = func() {}
	if a.smime.on() {
		// Before it is held in memory.
		if err := a.fits(e); err != nil {
			return e, nil, err
		}
		if e, sent, err = a.seal(ctx, d, e); err != nil {
			return e, nil, err
		}
	}
	e.head = head + e.head
	if err := a.fits(e); err != nil {
		sent()
		return e, nil, err
	}
	return e, sent, nil
}

// seal signs and encrypts within the memory that there is for it. A destination
// whose server is slow waits for its own mails only; what all of them share is held
// for as long as the work takes, never for a server.
func (a *Adapter) seal(ctx context.Context, d *submission.Delivery, e entity) (entity, func(), error) {
	held, made := heldFactor*e.total(), min(makingFactor*e.total(), makingBytes)
	if err := a.held.Acquire(ctx, held); err != nil {
		return e, nil, err
	}
	sent := func() { a.held.Release(held) }
	if err := making.Acquire(ctx, made); err != nil {
		sent()
		return e, nil, err
	}
	defer making.Release(made)
	e, err := a.smime.wrap(ctx, d, e)
	if err != nil {
		sent()
		return e, nil, err
	}
	return e, sent, nil
}

func (a *Adapter) fits(e entity) error {
	if n := e.total(); n > a.maxMessage {
		return fault.New(fault.Permanent, fault.ReasonTooLarge, "the mail would have %d bytes, max_message is %d", n, a.maxMessage)
	}
	return nil
}
