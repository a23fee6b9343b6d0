package xta_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/xta"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/kafkatest"
)

// hostile answers every request with what it is told to, behind mutual TLS.
type hostile struct {
	status      int
	contentType string
	body        string
	stream      func(io.Writer)
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", h.contentType)
	w.WriteHeader(h.status)
	if h.stream != nil {
		h.stream(w)
		return
	}
	_, _ = io.WriteString(w, h.body)
}

func openHostile(t *testing.T) (*hostile, spec.Adapter) {
	t.Helper()
	ca := kafkatest.NewAuthority(t)
	h := &hostile{status: 200, contentType: "application/soap+xml"}
	s := httptest.NewUnstartedServer(h)
	pool := x509.NewCertPool()
	b, err := os.ReadFile(ca.File)
	if err != nil || !pool.AppendCertsFromPEM(b) {
		t.Fatal("the authority's certificate cannot be read")
	}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue("xta", time.Now().Add(time.Hour)).Pair(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	deps := spec.Deps{DataDir: t.TempDir()}
	identify(t, deps.DataDir, ca.Issue("weiche", time.Now().Add(time.Hour)))
	return h, open(t, deps, s.URL+"/", ca.File, "")
}

const (
	soapHead = `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:w="http://www.w3.org/2005/08/addressing"><s:Header>`
	soapBody = `</s:Header><s:Body>`
	soapEnd  = `</s:Body></s:Envelope>`
)

func soap(body string) string { return soapHead + soapBody + body + soapEnd }

func reportOf(id, status string) string {
	return soap(`<x:TransportReport xmlns:x="http://xoev.de/transport/xta/211"><o:MessageMetaData xmlns:o="http://www.osci.eu/ws/2014/10/transport"><o:MsgIdentification><w:MessageID>` +
		id + `</w:MessageID></o:MsgIdentification></o:MessageMetaData><x:MessageStatus><x:Status>` + status + `</x:Status></x:MessageStatus></x:TransportReport>`)
}

func faultOf(code, subcode string) string {
	return soap(`<s:Fault><s:Code><s:Value>s:` + code + `</s:Value><s:Subcode><s:Value xmlns:q="urn:q">q:` + subcode + `</s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang="de">` +
		adaptertest.Canary + `</s:Text></s:Reason></s:Fault>`)
}

const heldID = "urn:uuid:0"

// What a server may answer to the question for a message id and for a report.
func TestHostileAnswers(t *testing.T) {
	h, a := openHostile(t)
	d := adaptertest.NewDelivery()
	for _, c := range []struct {
		name, token, contentType, body string
		status                         int
		class                          fault.Class
		reason                         fault.Reason
	}{
		{"nothing", "", "", "", 200, fault.Retryable, fault.ReasonUnknown},
		{"accepted, and nothing", "", "", "", 202, fault.Retryable, fault.ReasonUnknown},
		{"a page", "", "text/html", "<html><body>" + adaptertest.Canary + "</body></html>", 200, fault.Retryable, fault.ReasonUnknown},
		{"SOAP 1.1", "", "text/xml", strings.ReplaceAll(soap("<w:MessageID>"+heldID+"</w:MessageID>"), "2003/05/soap-envelope", "other"), 200, fault.Retryable, fault.ReasonUnknown},
		{"an empty body", "", "application/soap+xml", soap(""), 200, fault.Retryable, fault.ReasonUnknown},
		{"no body", "", "application/soap+xml", soapHead + "</s:Header></s:Envelope>", 200, fault.Retryable, fault.ReasonUnknown},
		{"an id with a line", "", "application/soap+xml", soap("<w:MessageID>urn:a\nb</w:MessageID>"), 200, fault.Retryable, fault.ReasonUnknown},
		{"an id without end", "", "application/soap+xml", soap("<w:MessageID>urn:" + strings.Repeat("a", 1000) + "</w:MessageID>"), 200, fault.Retryable, fault.ReasonUnknown},
		{"a DOCTYPE", "", "application/soap+xml", `<!DOCTYPE s [<!ENTITY e "urn:a">]>` + soap("<w:MessageID>&e;</w:MessageID>"), 200, fault.Retryable, fault.ReasonUnknown},
		{"a deep answer", "", "application/soap+xml", soap(strings.Repeat("<a>", 5000) + strings.Repeat("</a>", 5000)), 200, fault.Retryable, fault.ReasonUnknown},
		{"a wide answer", "", "application/soap+xml", soap(strings.Repeat("<a/>", 60_000)), 200, fault.Retryable, fault.ReasonUnknown},
		{"an answer to somebody else", "", "application/soap+xml", soapHead + "<w:RelatesTo>urn:uuid:other</w:RelatesTo>" + soapBody + "<w:MessageID>" + heldID + "</w:MessageID>" + soapEnd, 200, fault.Retryable, fault.ReasonUnknown},
		{"multipart without a border", "", "multipart/related", soap(""), 200, fault.Retryable, fault.ReasonUnknown},
		{"multipart without its root", "", `multipart/related; boundary=x; start="<a>"`, "--x\r\nContent-ID: <b>\r\n\r\n" + soap("<w:MessageID>urn:b</w:MessageID>") + "\r\n--x--", 200, fault.Retryable, fault.ReasonUnknown},
		{"a report of another message", "xta sent " + heldID, "application/soap+xml", reportOf("urn:uuid:1", "1"), 200, fault.Retryable, fault.ReasonUnknown},
		{"no report", "xta sent " + heldID, "application/soap+xml", soap(""), 200, fault.Retryable, fault.ReasonUnknown},
		{"a report without status", "xta sent " + heldID, "application/soap+xml", reportOf(heldID, ""), 200, fault.Retryable, fault.ReasonUnknown},
		{"an exception of another namespace", "xta made " + heldID, "application/soap+xml", soap(`<s:Fault><s:Code><s:Value>s:Receiver</s:Value></s:Code><s:Detail><InvalidMessageIDException xmlns="urn:x"/></s:Detail></s:Fault>`), 500, fault.Retryable, fault.ReasonUnavailable},
		{"redirect", "", "", "", 307, fault.Destination, fault.ReasonRedirected},
		{"unauthorized", "", "", "", 403, fault.Destination, fault.ReasonUnauthorized},
		{"no such port", "", "", "", 404, fault.Destination, fault.ReasonMisconfigured},
		{"bad request", "", "", "", 400, fault.Destination, fault.ReasonMisconfigured},
		{"busy", "", "", "", 503, fault.Retryable, fault.ReasonUnavailable},
		{"Sender", "", "application/soap+xml", faultOf("Sender", "x"), 400, fault.Destination, fault.ReasonMisconfigured},
		{"Sender with 200", "", "application/soap+xml", faultOf("Sender", "x"), 200, fault.Destination, fault.ReasonMisconfigured},
		{"Receiver", "", "application/soap+xml", faultOf("Receiver", "x"), 500, fault.Retryable, fault.ReasonUnavailable},
		{"MustUnderstand", "", "application/soap+xml", faultOf("MustUnderstand", ""), 500, fault.Destination, fault.ReasonMisconfigured},
		{"security", "", "application/soap+xml", faultOf("Sender", "FailedAuthentication"), 500, fault.Destination, fault.ReasonUnauthorized},
		{"addressing", "", "application/soap+xml", faultOf("Sender", "ActionNotSupported"), 500, fault.Destination, fault.ReasonMisconfigured},
		{"an endpoint that is away", "", "application/soap+xml", faultOf("Receiver", "EndpointUnavailable"), 500, fault.Retryable, fault.ReasonUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			*h = hostile{status: c.status, contentType: c.contentType, body: c.body}
			next, f := step(t, a, d, c.token)
			if next != nil || f == nil || f.Class != c.class || f.Reason != c.reason {
				t.Errorf("%v, %v; %s, %s was expected", next, f, c.class, c.reason)
			} else if strings.Contains(f.Error(), adaptertest.Canary) {
				t.Errorf("what the server wrote stands in %v", f)
			}
		})
	}
}

// Every fault of the WSDL, whoever may answer it to what. To what carries no
// message nothing counts against the message.
func TestExceptions(t *testing.T) {
	h, a := openHostile(t)
	d := adaptertest.NewDelivery()
	for _, name := range faultsOf(t, "") {
		*h = hostile{status: 500, contentType: "application/soap+xml", body: soap(`<s:Fault><s:Code><s:Value>s:Receiver</s:Value></s:Code><s:Detail><` + name +
			` xmlns="http://xoev.de/transport/xta/211"><errorCode><code xmlns="">9000</code><name xmlns="">` + adaptertest.Canary + `</name></errorCode></` + name + `></s:Detail></s:Fault>`)}
		want := map[string]fault.Reason{
			"PermissionDeniedException": fault.ReasonUnauthorized, "XTAWSTechnicalProblemException": fault.ReasonUnavailable,
			"InvalidMessageIDException": fault.ReasonUnknown, "CancelDeniedException": fault.ReasonUnknown,
		}[name]
		class := fault.Retryable
		if want == "" {
			want = fault.ReasonMisconfigured
		}
		if want == fault.ReasonMisconfigured || want == fault.ReasonUnauthorized {
			class = fault.Destination
		}
		next, f := step(t, a, d, "")
		if next != nil || f == nil || f.Class != class || f.Reason != want {
			t.Errorf("%s: %v, %v; %s, %s was expected", name, next, f, class, want)
		} else if strings.Contains(f.Error(), adaptertest.Canary) {
			t.Errorf("%s: what the server wrote stands in %v", name, f)
		}
	}
}

// An answer may have no end; reading it has one.
func TestEndlessAnswer(t *testing.T) {
	h, a := openHostile(t)
	for _, contentType := range []string{"application/soap+xml", `multipart/related; boundary=x; start="<a>"`} {
		written := make(chan int64, 1)
		*h = hostile{status: 200, contentType: contentType, stream: func(w io.Writer) {
			_, _ = io.WriteString(w, "--x\r\nContent-ID: <b>\r\n\r\n"+soapHead)
			block, n := []byte(strings.Repeat("<a/>", 4096)), int64(0)
			for n < 1<<30 {
				k, err := w.Write(block)
				if n += int64(k); err != nil {
					break
				}
			}
			written <- n
		}}
		if next, f := step(t, a, adaptertest.NewDelivery(), ""); next != nil || f == nil || f.Class != fault.Retryable || f.Reason != fault.ReasonUnknown {
			t.Errorf("%v, %v", next, f)
		}
		if n := <-written; n > 64<<20 {
			t.Errorf("%d bytes of an endless answer were taken", n)
		}
	}
}

// A plain envelope is taken like one in a multipart body.
func TestAnswerShapes(t *testing.T) {
	h, a := openHostile(t)
	id := soap("<w:MessageID> urn:b </w:MessageID>")
	for contentType, body := range map[string]string{
		"application/soap+xml; charset=utf-8":                     id,
		`multipart/related; boundary=x; start="<b>"`:              "--x\r\nContent-ID: <a>\r\n\r\nx\r\n--x\r\nContent-ID: <b>\r\n\r\n" + id + "\r\n--x--",
		`multipart/related; boundary="x"; type="application/xop"`: "--x\r\n\r\n" + id + "\r\n--x--",
	} {
		*h = hostile{status: 200, contentType: contentType, body: body}
		if next, f := step(t, a, adaptertest.NewDelivery(), ""); f != nil || next.Token != "xta made urn:b" {
			t.Errorf("%s: %v, %v", contentType, next, f)
		}
	}
}

// What is no token of this adapter is neither asked for nor sent.
func TestForeignToken(t *testing.T) {
	h, a := openHostile(t)
	*h = hostile{status: 500}
	for _, token := range []string{"x", "xta made ", "xta made a b", "xta sent " + strings.Repeat("a", 300), "xta gone urn:a"} {
		if next, f := step(t, a, adaptertest.NewDelivery(), token); next != nil || f == nil || f.Class != fault.Permanent || f.Reason != fault.ReasonUndecodable {
			t.Errorf("%q: %v, %v", token, next, f)
		}
	}
}

// Nothing is asked of the server for what can never be sent.
func TestTooLarge(t *testing.T) {
	_, a := openHostile(t)
	d := adaptertest.NewDelivery(nil)
	d.Attachments[0].Size = 40_000_000
	if next, f := step(t, a, d, ""); next != nil || f == nil || f.Class != fault.Permanent || f.Reason != fault.ReasonTooLarge {
		t.Errorf("%v, %v", next, f)
	}
	d = adaptertest.NewDelivery()
	d.Authority.Key = ""
	if next, f := step(t, a, d, ""); next != nil || f == nil || f.Class != fault.Permanent || f.Reason != fault.ReasonMisconfigured {
		t.Errorf("without a reader: %v, %v", next, f)
	}
}

func TestSettings(t *testing.T) {
	for more, want := range map[string]string{
		"":                                       "",
		"max_message: 0\n":                       "max_message",
		"party_type: \"\"\n":                     "party_type",
		"message_type: \"{service}\"\n":          "message_type",
		"message_type: \"\"\n":                   "message_type",
		"business_scenario_list: \"\"\n":         "",
		"connect_timeout: 0s\n":                  "connect_timeout",
		"business_scenario_list_version: \"\"\n": "business_scenario_list_version",
	} {
		s, err := config.ParseSettings("destinations.yaml", fmt.Sprintf(settings, "https://a/", "https://a/", "ca.pem")+more)
		if err != nil {
			t.Fatal(err)
		}
		_, ps := xta.Kind().Decode(s)
		if (want == "") != (ps == nil) || ps != nil && !strings.Contains(ps.Err().Error(), want+": ") {
			t.Errorf("%q: %v", more, ps)
		}
	}
	s, err := config.ParseSettings("destinations.yaml", fmt.Sprintf(settings, "http://a/", "http://a/", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ps := xta.Kind().Decode(s); len(ps) != 2 {
		t.Errorf("plain http is taken: %v", ps)
	}
}
