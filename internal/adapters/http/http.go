// Package http posts each message to the Fachverfahren's address, signed by
// Standard Webhooks.
//
// A message without attachments is posted as application/xml, one with
// attachments as multipart/form-data. The body is written twice, first into the
// signature and then to the receiver, so that the signature covers all of it and
// nothing of an attachment is kept in memory. The webhook-id is the delivery id:
// the same at every repeat.
//
// What the answer's status means (the rule: who would have to change something
// for the next attempt to succeed?):
//
//	2xx                      delivered; the answer's body is not read
//	3xx                      destination: redirects are never followed (redirected)
//	401 403 407              destination: our credential is refused (unauthorized)
//	404 405 421 426          destination: the address is wrong for every message (misconfigured)
//	410                      destination: switched off for good (gone)
//	408                      retryable (timeout)
//	409 423 425 429          retryable: a state that passes; a 409 may be the
//	                         receiver still at work on the first try (unavailable)
//	417                      retryable, and from then on without Expect (unavailable)
//	other 4xx                permanent: this message is refused (refused)
//	5xx                      retryable (unavailable)
//	anything else            retryable (unknown)
//
// Retry-After is honoured on retryable answers, up to a day; a date counts from
// the answer's own Date. gone means that the receiver wants nothing more: the
// delivery stage disables the destination until an operator resumes it.
//
// A bearer token comes from a file, or by OAuth2 client credentials: kept until
// it expires, and fetched anew once when the receiver answers 401, before that
// counts as the destination's fault. A token endpoint that is down or refuses is
// the destination's fault too.
//
// Files are read again for every message. When a certificate file has changed, no
// message goes over a connection that was made with the old one.
//
// The package follows no redirects, keeps no cookies, uses no proxy, speaks to
// no address that is not public unless the destination allows it by name (package
// dial), and repeats nothing of an
// answer but its status code.
package http

import (
	"slices"
	"strings"
	"time"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/spec"
)

// Kind describes the adapter.
func Kind() spec.Kind {
	return spec.Kind{
		Name:    "http",
		Summary: "Posts each message to an address of the Fachverfahren, signed by Standard Webhooks.",
		Doc: `Without attachments the body is the message (` + "`application/xml`" + `, or ` + "`text/csv`, `application/pdf`" + ` after its format). With attachments it is ` + "`multipart/form-data`" + `: the part
` + "`message`" + ` is the message, each part ` + "`attachment`" + ` a file, with ` + "`Content-ID`" + ` (the attachment's id), ` + "`Content-Digest`" + `
(sha-512, RFC 9530) and ` + "`Weiche-Purpose`" + `. ` + "`Content-Length`" + ` is always given. A body above 1 MB comes with ` + "`Expect: 100-continue`" + `:
a refusal before it is sent spares both ends the transfer.

Signing secrets are of two kinds. ` + "`whsec_`" + ` is known to both ends. ` + "`whsk_`" + ` is an ed25519 key that the router alone keeps;
receivers get its public key, ` + "`whpk_`" + `, which ` + "`router webhook-keys`" + ` shows. To rotate, or to go from one kind to the other: put
the new secret beside the old one, give it to the receiver, take the old one out.

| header | value |
| --- | --- |
| ` + "`webhook-id`" + ` | the delivery id: the same at every repeat; drop repeats by it |
| ` + "`webhook-timestamp`, `webhook-signature`" + ` | [Standard Webhooks](https://www.standardwebhooks.com) over the whole body, ` + "`v1`" + ` (HMAC-SHA256) or ` + "`v1a`" + ` (ed25519); while secrets are rotated, one signature for each |
| ` + "`Authorization`" + ` | ` + "`Bearer`" + ` and a token, where one is set up |
| ` + "`Weiche-Submission-Id`, `Weiche-Case-Id`, `Weiche-Service`, `Weiche-Land`, `Weiche-Portal`, `Weiche-Format`, `Weiche-Authority-Key`" + ` | what they say; not signed, the message itself is what counts |
| ` + "`Weiche-Test`" + ` | ` + "`true`" + ` on test submissions, missing otherwise |
| ` + "`Weiche-Attempt`" + ` | number of the attempt, from 1; no part of the message's identity |
| ` + "`traceparent`" + ` | W3C Trace Context |

Answer 2xx once the message is stored for good, and answer 2xx to repeats. The answer's body is not read.

| answer | counts as |
| --- | --- |
| 2xx | delivered |
| 3xx | destination at fault (` + "`redirected`" + `): redirects are not followed |
| 401, 403, 407 | destination at fault (` + "`unauthorized`" + `); after a 401 a new OAuth2 token is tried first |
| 404, 405, 421, 426 | destination at fault (` + "`misconfigured`" + `): the address is wrong for every message |
| 410 | destination at fault (` + "`gone`" + `): disabled until an operator resumes it |
| 408 | retry (` + "`timeout`" + `) |
| 409, 417, 423, 425, 429 | retry (` + "`unavailable`" + `) |
| other 4xx | refused for good (` + "`refused`" + `) |
| 5xx | retry (` + "`unavailable`" + `) |
| no connection, no such host | destination at fault (` + "`unreachable`" + `) |
| certificate or TLS at fault | destination at fault (` + "`certificate`" + `) |
| the token endpoint is down, refuses, or gives no token | destination at fault (` + "`unreachable`, `unavailable`, `unauthorized`, `misconfigured` and so on" + `) |
| no answer in time | retry (` + "`timeout`" + `) |
| the transfer broke off | retry (` + "`interrupted`" + `) |

` + "`Retry-After`" + ` is honoured on retries, up to a day.`,
		Fields: []spec.Field{
			{Name: "url", Type: spec.URL, Required: true, Example: "https://fachverfahren.example/xoev", Doc: "Where messages are posted."},
			{Name: "secret_file", Type: spec.Path, Required: true, Example: "bauamt.secret", Doc: "File with the signing secrets, one a line: `whsec_` (HMAC) or `whsk_` (ed25519), and base64. Two lines while a secret is rotated. Read again for every message. A relative path lies in the secrets directory."},
			{Name: "token_file", Type: spec.Path, Doc: "File with a bearer token to send, read again for every message."},
			{Name: "token_url", Type: spec.URL, Example: "https://idp.example/oauth2/token", Doc: "Token endpoint of OAuth2 client credentials (RFC 6749 section 4.4), instead of `token_file`."},
			{Name: "client_id", Type: spec.Text, Doc: "The router's name at the token endpoint."},
			{Name: "client_secret_file", Type: spec.Path, Doc: "File with the client's secret, read again for every token."},
			{Name: "client_auth", Type: spec.Text, Default: authBasic, Doc: "How the token endpoint is told who asks: `basic`, `post` (the secret in the form), or `tls` (RFC 8705: the client certificate, no secret)."},
			{Name: "scope", Type: spec.Text, Doc: "Scopes to ask for, with blanks between them."},
			{Name: "token_ca_file", Type: spec.Path, Doc: "PEM file with the authorities that may vouch for the token endpoint; the system's where empty."},
			{Name: "ca_file", Type: spec.Path, Doc: "PEM file with the authorities that may vouch for the receiver; the system's where empty."},
			{Name: "cert_file", Type: spec.Path, Doc: "Client certificate (PEM), with `key_file`, for receiver and token endpoint. Both may be one file, so that one rename rotates both; when they change, connections are made anew."},
			{Name: "key_file", Type: spec.Path, Doc: "Private key of the client certificate (PEM)."},
			dial.Field(),
			{Name: "connect_timeout", Type: spec.Duration, Default: 10 * time.Second, Doc: "For connecting, and again for the TLS handshake. The whole attempt is bounded by the destination's policy."},
			{Name: "idle_connections", Type: spec.Number, Default: 8, Doc: "Connections kept open between messages."},
			{Name: "idle_timeout", Type: spec.Duration, Default: time.Minute, Doc: "A connection that was not used for this long is closed; best a little less than the receiver, or a firewall on the way, takes."},
		},
		Check: check,
		New:   newAdapter,
	}
}

func check(v spec.Values) []spec.Complaint {
	out := dial.Check(v)
	add := func(field, text string) { out = append(out, spec.Complaint{Field: field, Text: text}) }
	if (v.Text("cert_file") == "") != (v.Text("key_file") == "") {
		add("cert_file", "cert_file and key_file need each other")
	}
	for _, field := range []string{"url", "token_url"} {
		if !plain(v.Text(field)) {
			continue
		}
		for _, f := range map[string][]string{"url": {"ca_file", "cert_file"}, "token_url": {"token_ca_file"}}[field] {
			if v.Text(f) != "" {
				add(f, "needs an address with https://")
			}
		}
		if dial.Allowed(v).None() {
			add(field, "plain http:// is taken only together with allow_networks, for addresses of one's own networks; what is sent would be read on its way")
		}
	}
	for _, f := range []string{"connect_timeout", "idle_timeout"} {
		if v.Duration(f) == 0 {
			add(f, "more than nothing is expected")
		}
	}
	return append(out, checkToken(v)...)
}

func checkToken(v spec.Values) []spec.Complaint {
	var out []spec.Complaint
	add := func(field, text string) { out = append(out, spec.Complaint{Field: field, Text: text}) }
	if v.Text("token_url") == "" {
		for _, f := range []string{"client_id", "client_secret_file", "scope", "token_ca_file"} {
			if v.Text(f) != "" {
				add(f, "needs token_url")
			}
		}
		return out
	}
	if v.Text("token_file") != "" {
		add("token_file", "the token comes from token_url or from token_file, not from both")
	}
	if v.Text("client_id") == "" {
		add("token_url", "needs client_id")
	}
	switch auth := v.Text("client_auth"); {
	case !slices.Contains([]string{authBasic, authPost, authTLS}, auth):
		add("client_auth", "one of "+strings.Join([]string{authBasic, authPost, authTLS}, ", ")+" is expected")
	case auth != authTLS && v.Text("client_secret_file") == "":
		add("token_url", "needs client_secret_file, or client_auth: tls")
	case auth == authTLS && (v.Text("client_secret_file") != "" || v.Text("cert_file") == "" || plain(v.Text("token_url"))):
		add("client_auth", "tls needs https://, cert_file and key_file, and no client_secret_file")
	}
	return out
}
