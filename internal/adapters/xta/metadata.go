package xta

import (
	"bytes"
	"fmt"
	"mime"
	"strings"
	"time"

	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// metadata is what the settings say about every message (OSCI MessageMetaData
// 2.02, which XTA's sendMessage demands as a SOAP header).
type metadata struct {
	author, reader, partyType          string
	service, quality                   string
	scenario, scenarioList, scenarioV  string
	messageType, typeList, typeV, kind string // kind: payloadSchema
}

func newMetadata(v spec.Values) metadata {
	return metadata{
		author: v.Text("author"), reader: v.Text("reader"), partyType: v.Text("party_type"),
		service: v.Text("service"), quality: v.Text("service_profile"),
		scenario: v.Text("business_scenario"), scenarioList: v.Text("business_scenario_list"), scenarioV: v.Text("business_scenario_list_version"),
		messageType: v.Text("message_type"), typeList: v.Text("message_type_list"), typeV: v.Text("message_type_list_version"), kind: v.Text("payload_schema"),
	}
}

// readerOf names who is to read d, "" where nobody does.
func (m metadata) readerOf(d *submission.Delivery) string {
	if m.reader != "" {
		return m.reader
	}
	return string(d.Authority.Key)
}

// check says whether the metadata of d can be written.
func (m metadata) check(d *submission.Delivery) *fault.Error {
	if m.readerOf(d) == "" {
		return fault.New(fault.Permanent, fault.ReasonMisconfigured, "the authority has no Behördenschlüssel, and the destination names no reader")
	}
	return nil
}

// authorHeader is the header AuthorIdentifier of the WSDL.
func (m metadata) authorHeader() []byte {
	var b bytes.Buffer
	m.party(&b, "Author", m.author)
	return b.Bytes()
}

// header is the header MessageMetaData. It is free of payload: ids, codes and
// times.
func (m metadata) header(d *submission.Delivery, id string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<oscimeta:MessageMetaData TestMsg="%t"><oscimeta:DeliveryAttributes>`, d.Test)
	if !d.AcceptedAt.IsZero() {
		fmt.Fprintf(&b, `<oscimeta:Origin>%s</oscimeta:Origin>`, d.AcceptedAt.UTC().Format(time.RFC3339))
	}
	if m.quality != "" {
		fmt.Fprintf(&b, `<oscimeta:ServiceQuality>%s</oscimeta:ServiceQuality>`, text(m.quality))
	}
	b.WriteString(`</oscimeta:DeliveryAttributes><oscimeta:Originators>`)
	m.party(&b, "Author", m.author)
	b.WriteString(`</oscimeta:Originators><oscimeta:Destinations>`)
	m.party(&b, "Reader", m.readerOf(d))
	fmt.Fprintf(&b, `</oscimeta:Destinations><oscimeta:MsgIdentification><wsa:MessageID>%s</wsa:MessageID>`, text(id))
	if d.CaseID != "" {
		fmt.Fprintf(&b, `<oscimeta:ProcessRef><oscimeta:Requester>%s</oscimeta:Requester></oscimeta:ProcessRef>`, text(d.CaseID))
	}
	fmt.Fprintf(&b, `</oscimeta:MsgIdentification><oscimeta:Qualifier><oscimeta:Service>%s</oscimeta:Service><oscimeta:BusinessScenario>`, text(m.fill(d, m.service)))
	if m.scenarioList == "" {
		fmt.Fprintf(&b, `<oscimeta:Undefined>%s</oscimeta:Undefined>`, text(m.scenario))
	} else {
		fmt.Fprintf(&b, `<oscimeta:Defined listURI="%s" listVersionID="%s"><code>%s</code></oscimeta:Defined>`, text(m.scenarioList), text(m.scenarioV), text(m.scenario))
	}
	fmt.Fprintf(&b, `</oscimeta:BusinessScenario><oscimeta:MessageType listURI="%s" listVersionID="%s" payloadSchema="%s"><code>%s</code></oscimeta:MessageType></oscimeta:Qualifier>`,
		text(m.fill(d, m.typeList)), text(m.fill(d, m.typeV)), text(m.fill(d, m.kind)), text(m.fill(d, m.messageType)))
	if n := size(d); n > 0 {
		fmt.Fprintf(&b, `<oscimeta:MsgSize>%d</oscimeta:MsgSize>`, n)
	}
	b.WriteString(`</oscimeta:MessageMetaData>`)
	return b.Bytes()
}

func (m metadata) party(b *bytes.Buffer, element, key string) {
	fmt.Fprintf(b, `<oscimeta:%s><oscimeta:Identifier type="%s">%s</oscimeta:Identifier></oscimeta:%s>`, element, text(m.partyType), text(key), element)
}

// placeholders stand in settings for what differs from message to message.
var placeholders = []string{"{standard}", "{version}", "{message}"}

func (m metadata) fill(d *submission.Delivery, s string) string {
	return strings.NewReplacer(placeholders[0], d.Format.Standard, placeholders[1], d.Format.Version, placeholders[2], d.Format.Message).Replace(s)
}

// container is the body of sendMessage. The bytes themselves are parts beside it.
func container(d *submission.Delivery) []byte {
	var b bytes.Buffer
	b.WriteString(`<xta:GenericContentContainer><xta:ContentContainer>`)
	mediaType, params, _ := mime.ParseMediaType(d.Format.MediaType())
	encoding := strings.ToUpper(params["charset"])
	if mediaType == "application/xml" {
		encoding = "UTF-8"
	}
	content(&b, "Message", mediaType, encoding, d.ID+d.Format.Extension(), d.ID, int64(len(d.Message)), cidMessage)
	for i, a := range d.Attachments {
		content(&b, "Attachment", wire.MediaType(a.MIMEType), "", wire.SafeName(a.Filename, i), wire.Token(a.ID), a.Size, fmt.Sprintf(cidAttachment, i+1))
	}
	b.WriteString(`</xta:ContentContainer></xta:GenericContentContainer>`)
	return b.Bytes()
}

// content writes a ContentType; encoding, id and size are left out where there is
// nothing to say, which the schema demands.
func content(b *bytes.Buffer, element, mediaType, encoding, filename, id string, size int64, cid string) {
	fmt.Fprintf(b, `<xta:%s contentType="%s"`, element, text(mediaType))
	if encoding != "" {
		fmt.Fprintf(b, ` encoding="%s"`, encoding)
	}
	fmt.Fprintf(b, ` filename="%s"`, text(filename))
	if id != "" {
		fmt.Fprintf(b, ` id="%s"`, text(id))
	}
	if size > 0 {
		fmt.Fprintf(b, ` size="%d"`, size)
	}
	fmt.Fprintf(b, `><xop:Include xmlns:xop="%s" href="cid:%s"/></xta:%s>`, nsXOP, cid, element)
}

// size is that of all contents, in bytes.
func size(d *submission.Delivery) int64 {
	n := int64(len(d.Message))
	for _, a := range d.Attachments {
		n += a.Size
	}
	return n
}
