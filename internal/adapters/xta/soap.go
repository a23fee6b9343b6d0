package xta

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"

	"weiche/internal/foreignxml"
)

// Namespaces of the WSDL and of what it is bound to.
const (
	nsSOAP = "http://www.w3.org/2003/05/soap-envelope"
	nsWSA  = "http://www.w3.org/2005/08/addressing"
	nsXTA  = "http://xoev.de/transport/xta/211"
	nsOSCI = "http://www.osci.eu/ws/2014/10/transport"
	nsXOP  = "http://www.w3.org/2004/08/xop/include"

	anonymous = nsWSA + "/anonymous"
)

// operation is one of the WSDL's.
type operation struct {
	name, action string
	message      bool // it carries the message
}

var (
	createMessageID    = operation{name: "createMessageId", action: "http://www.xta.de/XTA/CreateMessageID"}
	getTransportReport = operation{name: "getTransportReport", action: "http://www.xta.de/XTA/GetTransportReport"}
	sendMessage        = operation{name: "sendMessage", action: "http://www.xta.de/XTA/SendMessage", message: true}
)

// envelope writes a SOAP 1.2 envelope with WS-Addressing. header and body are
// XML with the prefixes wsa, oscimeta and xta.
func envelope(o operation, to, id string, header, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="%s" xmlns:wsa="%s" xmlns:oscimeta="%s" xmlns:xta="%s"><s:Header>`, nsSOAP, nsWSA, nsOSCI, nsXTA)
	fmt.Fprintf(&b, `<wsa:Action>%s</wsa:Action><wsa:MessageID>%s</wsa:MessageID><wsa:ReplyTo><wsa:Address>%s</wsa:Address></wsa:ReplyTo><wsa:To>%s</wsa:To>`, o.action, text(id), anonymous, text(to))
	b.Write(header)
	b.WriteString(`</s:Header><s:Body>`)
	b.Write(body)
	b.WriteString(`</s:Body></s:Envelope>`)
	return b.Bytes()
}

// text escapes a value for an element or an attribute.
func text(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}

// reply is what is read of an answer; the rest of it is nobody's business.
type reply struct {
	XMLName xml.Name
	Header  struct {
		RelatesTo string `xml:"http://www.w3.org/2005/08/addressing RelatesTo"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Header"`
	Body *struct {
		Fault     *soapFault `xml:"http://www.w3.org/2003/05/soap-envelope Fault"`
		MessageID string     `xml:"http://www.w3.org/2005/08/addressing MessageID"`
		Report    *report    `xml:"http://xoev.de/transport/xta/211 TransportReport"`
		Others    []struct{} `xml:",any"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Body"`
}

// soapFault is SOAP 1.2's.
type soapFault struct {
	Code struct {
		Value   string `xml:"http://www.w3.org/2003/05/soap-envelope Value"`
		Subcode struct {
			Value string `xml:"http://www.w3.org/2003/05/soap-envelope Value"`
		} `xml:"http://www.w3.org/2003/05/soap-envelope Subcode"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Code"`
	Detail struct {
		Entries []struct {
			XMLName   xml.Name
			ErrorCode struct {
				Code string `xml:"code"`
			} `xml:"http://xoev.de/transport/xta/211 errorCode"`
		} `xml:",any"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Detail"`
}

// exception returns the WSDL's fault within, nil where there is none.
func (f *soapFault) exception() *exception {
	for _, e := range f.Detail.Entries {
		if _, ok := exceptions[e.XMLName.Local]; ok && e.XMLName.Space == nsXTA {
			return &exception{name: e.XMLName.Local, code: strings.TrimSpace(e.ErrorCode.Code)}
		}
	}
	return nil
}

// report is what is read of a TransportReport.
type report struct {
	MetaData struct {
		Identification struct {
			MessageID string `xml:"http://www.w3.org/2005/08/addressing MessageID"`
		} `xml:"http://www.osci.eu/ws/2014/10/transport MsgIdentification"`
	} `xml:"http://www.osci.eu/ws/2014/10/transport MessageMetaData"`
	MessageStatus struct {
		Status string `xml:"http://xoev.de/transport/xta/211 Status"`
	} `xml:"http://xoev.de/transport/xta/211 MessageStatus"`
}

// maxAnswer bounds an answer, in bytes: a transport report may carry further
// reports (AdditionalReports), of which nothing is read.
const maxAnswer = 4 << 20

// parse reads an envelope that somebody else wrote. ok is false where it is none.
func parse(raw []byte) (r reply, ok bool) {
	if foreignxml.Check(bytes.NewReader(raw), foreignxml.Limits{Bytes: maxAnswer, Depth: 64, Elements: 50_000, Attributes: 64}) != nil {
		return reply{}, false
	}
	d := xml.NewDecoder(bytes.NewReader(raw))
	if d.Decode(&r) != nil || r.XMLName != (xml.Name{Space: nsSOAP, Local: "Envelope"}) || r.Body == nil {
		return reply{}, false
	}
	return r, true
}
