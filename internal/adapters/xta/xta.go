// Package xta hands messages to an XTA server by XTA 2.1.1: SOAP 1.2,
// WS-Addressing, MTOM, mutual TLS, as the standard's XTA.wsdl defines them.
//
// A delivery goes in steps, and what a step needs to know is on record (a
// submission.Pending with a token) before the step is taken:
//
//	no token          createMessageId; its answer becomes the token
//	token "made"      getTransportReport; where the id is unknown, sendMessage
//	token "sent"      getTransportReport, until the report is final or has been
//	                  open for too long
//
// What a lost answer leaves behind: of createMessageId an id that nobody uses; of
// getTransportReport nothing; of sendMessage a token that says "made", so that the
// report is asked before anything is sent again, and then under the same id. A
// server that took a message and no longer knows it is not sent it again: that is
// retried until the policy gives up, and is then a person's decision.
//
// That no report means not sent is the standard's: InvalidMessageIDException is
// thrown where the id names no message known, and a TransportReport cannot be
// without the MessageMetaData of its transport order. There is no operation that
// takes a message and answers whether it was taken before.
//
// The package repeats nothing of an answer but a message id, and reads it only
// after the check for foreign XML.
package xta

import (
	"strings"
	"time"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/spec"
	"weiche/internal/config"
)

// Kind describes the adapter.
func Kind() spec.Kind {
	return spec.Kind{
		Name:    "xta",
		Summary: "Hands each message to an XTA 2.1.1 server (SOAP 1.2, MTOM, mutual TLS) and follows its transport report to the end.",
		Doc: `First the server is asked for a message id (` + "`createMessageId`" + `), which is put on record; then the message is sent under
it (` + "`sendMessage`" + `), and ` + "`getTransportReport`" + ` is asked every ` + "`report_interval`" + ` until the report is closed. Until then the
delivery is *handed over*: it waits and holds its case, and no attempt is counted. After an unknown answer the report is
asked before anything is sent again, and then under the same message id.

The container holds the message as ` + "`Message`" + ` (` + "`id`" + ` is the delivery id, ` + "`filename`" + ` is ` + "`<delivery id>.xml`" + `, or ` + "`.csv`, `.pdf`" + ` after its format) and each file as
` + "`Attachment`" + ` (` + "`filename`" + ` is ` + "`01-<name>`, `02-<name>`" + ` with the names the portal gave, freed of everything a file system or a
person could stumble over). A redrive of what was refused comes under another
message id: drop repeats by the ` + "`id`" + ` of ` + "`Message`" + `. The bytes travel as MTOM
parts and are never kept in memory; there is no encryption from end to end.

| OSCI MessageMetaData | value |
| --- | --- |
| ` + "`TestMsg`" + ` | ` + "`true`" + ` on test submissions |
| ` + "`Origin`" + ` | when the submission was accepted |
| ` + "`Author`, `Reader`" + ` | ` + "`author`" + `; ` + "`reader`" + `, or else the authority's Behördenschlüssel |
| ` + "`MessageID`" + ` | the server's own |
| ` + "`ProcessRef/Requester`" + ` | the case id |
| ` + "`Service`, `BusinessScenario`, `MessageType`, `ServiceQuality`" + ` | as set |
| ` + "`MsgSize`" + ` | bytes of message and attachments |

In ` + "`service`, `message_type`, `message_type_list`, `message_type_list_version`, `payload_schema`" + ` stand, where wanted, ` + "`{standard}`, `{version}`, `{message}`" + ` of the
message's format.

| transport report | counts as |
| --- | --- |
| 0, open | handed over, asked again |
| 0, still open after ` + "`report_limit`" + ` | dead (` + "`no-report`" + `), never sent again by itself; a redrive asks the report first |
| 1, green; 2, yellow (warnings) | delivered |
| 3, red | refused for good (` + "`refused`" + `) |
| unknown to the server, after it took the message | retry (` + "`unknown`" + `), never sent again by itself |

| answer | counts as |
| --- | --- |
` + exceptionTable() + `| SOAP fault Sender | to ` + "`sendMessage`" + ` refused for good (` + "`refused`" + `), otherwise destination at fault (` + "`misconfigured`" + `) |
| SOAP fault Receiver, ` + "`EndpointUnavailable`" + ` | retry (` + "`unavailable`" + `) |
| SOAP fault of WS-Security | destination at fault (` + "`unauthorized`" + `) |
| SOAP fault VersionMismatch, MustUnderstand, DataEncodingUnknown, other ones of WS-Addressing | destination at fault (` + "`misconfigured`" + `) |
| HTTP status without a SOAP fault, no connection, certificate, no answer | as with ` + "`http`" + `; what refuses a request without a message is the destination's fault |
| anything else | retry (` + "`unknown`" + `) |`,
		Fields: []spec.Field{
			{Name: "management_url", Type: spec.URL, Required: true, Example: "https://xta.example/ManagementPort", Doc: "The port `ManagementPort` of the WSDL."},
			{Name: "send_url", Type: spec.URL, Required: true, Example: "https://xta.example/SendXtaPort", Doc: "The port `SendXtaPort` of the WSDL."},
			{Name: "cert_file", Type: spec.Path, Required: true, Example: "xta.pem", Doc: "Client certificate (PEM) that the XTA account is bound to, with `key_file`. Both may be one file, so that one rename rotates both; when they change, connections are made anew. A relative path lies in the secrets directory, here and below."},
			{Name: "key_file", Type: spec.Path, Required: true, Example: "xta.pem", Doc: "Private key of the client certificate (PEM)."},
			{Name: "ca_file", Type: spec.Path, Doc: "PEM file with the authorities that may vouch for the server; the system's where empty."},
			{Name: "author", Type: spec.Text, Required: true, Example: "weiche:08000000", Doc: "The router's own identifier, as the XTA account knows it (`Präfix:Kennung`)."},
			{Name: "reader", Type: spec.Text, Doc: "The identifier of who is to read the message; where empty, the authority's Behördenschlüssel (DVDV)."},
			{Name: "party_type", Type: spec.Text, Default: "xoev", Doc: "How both identifiers are to be read (`Identifier/@type`)."},
			{Name: "service", Type: spec.Text, Required: true, Example: "urn:xoev-de:bmk:xbau:service", Doc: "The service's URI (`Dienste-URI`, as in the DVDV)."},
			{Name: "business_scenario", Type: spec.Text, Required: true, Example: "XBAU_DATA", Doc: "Code of the business scenario."},
			{Name: "business_scenario_list", Type: spec.Text, Default: "urn:de:xta:codeliste:business.scenario", Doc: "URI of the code list it stands in. Empty: it is sent as `Undefined`."},
			{Name: "business_scenario_list_version", Type: spec.Text, Default: "2", Doc: "The list's version."},
			{Name: "message_type", Type: spec.Text, Default: "{message}", Doc: "Code of the message's type."},
			{Name: "message_type_list", Type: spec.Text, Required: true, Example: "urn:de:{standard}:codeliste:nachrichtentyp", Doc: "URI of the code list it stands in."},
			{Name: "message_type_list_version", Type: spec.Text, Required: true, Example: "{version}", Doc: "The list's version."},
			{Name: "payload_schema", Type: spec.Text, Required: true, Example: "urn:xoev-de:bmk:standard:{standard}:{version}", Doc: "URI of the message's schema (`MessageType/@payloadSchema`)."},
			{Name: "service_profile", Type: spec.Text, Doc: "The XTA service profile (`ServiceQuality`); left out where empty."},
			{Name: "report_interval", Type: spec.Duration, Default: time.Minute, Doc: "How long after sending, and after each open report, the report is asked."},
			{Name: "report_limit", Type: spec.Duration, Default: 7 * 24 * time.Hour, Doc: "How long a report may stay open after the server took the message. Then the delivery goes to the dead letters (`no-report`), without being sent again, and holds its case until somebody redrives it, which asks the report first, or closes it. 0: for ever."},
			{Name: "max_message", Type: spec.Size, Default: config.Bytes(40_000_000), Doc: "Most bytes of message and attachments together. The standard allows 40 MB."},
			dial.Field(),
			{Name: "connect_timeout", Type: spec.Duration, Default: 10 * time.Second, Doc: "For connecting, and again for the TLS handshake. The whole step is bounded by the destination's policy."},
			{Name: "idle_connections", Type: spec.Number, Default: 8, Doc: "Connections kept open between messages."},
			{Name: "idle_timeout", Type: spec.Duration, Default: time.Minute, Doc: "A connection that was not used for this long is closed; best a little less than the server, or a firewall on the way, takes."},
		},
		Check: check,
		New:   newAdapter,
	}
}

// filled are the settings in which placeholders may stand.
var filled = []string{"service", "message_type", "message_type_list", "message_type_list_version", "payload_schema"}

func check(v spec.Values) []spec.Complaint {
	out := dial.Check(v)
	add := func(field, text string) { out = append(out, spec.Complaint{Field: field, Text: text}) }
	for _, f := range []string{"management_url", "send_url"} {
		if !strings.HasPrefix(strings.ToLower(v.Text(f)), "https:") {
			add(f, "XTA is spoken over TLS with a client certificate: https:// is expected")
		}
	}
	if l := v.Duration("report_limit"); l > 0 && l < v.Duration("report_interval") {
		add("report_limit", "no less than report_interval is expected, or 0")
	}
	for _, f := range []string{"report_interval", "connect_timeout", "idle_timeout"} {
		if v.Duration(f) == 0 {
			add(f, "more than nothing is expected")
		}
	}
	if v.Size("max_message") == 0 {
		add("max_message", "more than nothing is expected")
	}
	if v.Text("party_type") == "" {
		add("party_type", "must not be empty")
	}
	if v.Text("message_type") == "" {
		add("message_type", "must not be empty")
	}
	if v.Text("business_scenario_list") != "" && v.Text("business_scenario_list_version") == "" {
		add("business_scenario_list_version", "a list needs its version")
	}
	for _, f := range filled {
		rest := v.Text(f)
		for _, p := range placeholders {
			rest = strings.ReplaceAll(rest, p, "")
		}
		if strings.ContainsAny(rest, "{}") {
			add(f, "only "+strings.Join(placeholders, ", ")+" may stand in braces")
		}
	}
	return out
}
