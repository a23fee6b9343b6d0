package xta_test

import (
	"context"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/spec"
	"weiche/internal/fault"
)

// The whole way, and everything that the peer, which validates by the schema, makes
// of it.
func TestMessage(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "service_profile: profil\n")
	d := adaptertest.NewDelivery([]byte("%PDF eins"), nil)
	d.Test = true
	d.Attachments[0].Filename, d.Attachments[1].Filename = `<&">ä.pdf`, "zwei.pdf"
	token := begin(t, a, d)
	if got := p.messages(t); len(got) != 0 {
		t.Fatal("a message went out before its id was on record")
	}
	p.set(t, "status", "0")
	first, f := step(t, a, d, token)
	if f != nil || first == nil || first.After != 10*time.Millisecond || first.Token == token {
		t.Fatalf("after sending: %v, %v", first, f)
	}
	// An open report changes nothing that would have to be recorded.
	again, f := step(t, a, d, first.Token)
	if f != nil || again == nil || *again != *first {
		t.Fatalf("an open report: %v, %v", again, f)
	}
	p.set(t, "status", "2")
	if last, f := step(t, a, d, first.Token); last != nil || f != nil {
		t.Fatalf("a report with warnings: %v, %v", last, f)
	}
	got := p.messages(t)
	if len(got) != 1 {
		t.Fatalf("%d messages came out", len(got))
	}
	id := strings.Fields(token)[2]
	for name, want := range map[string]string{
		"messageId": id, "case": d.CaseID, "test": "true", "author": "weiche:08000000", "authorType": "xoev", "reader": "bab:08115003",
		"origin": "2026-11-22T20:15:30Z", "profile": "profil", "service": "urn:de:dienst:xbau", "scenario": "XBAU_DATA", "type": d.Format.Message,
		"typeList": "urn:de:xbau:nachrichten", "schema": "urn:de:xbau:2.6:" + d.Format.Message, "id": d.ID,
	} {
		if got[0].properties[name] != want {
			t.Errorf("%s is %q, %q was expected", name, got[0].properties[name], want)
		}
	}
	if !strings.Contains(got[0].properties["contentType"], "application/xop+xml") {
		t.Errorf("it did not come by MTOM: %s", got[0].properties["contentType"])
	}
	want := []string{
		"application/pdf 01-_&__ä.pdf " + d.Attachments[0].ID + " 9",
		"application/pdf 02-zwei.pdf " + d.Attachments[1].ID + " null",
	}
	if !slices.Equal(got[0].attachments, want) {
		t.Errorf("the attachments are described as %q", got[0].attachments)
	}
	if calls := p.calls(t); calls["createMessageId"] != 1 || calls["sendMessage"] != 1 || calls["getTransportReport"] != 3 {
		t.Errorf("the calls were %v", calls)
	}
}

func TestReportInRed(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "")
	d := adaptertest.NewDelivery()
	token := begin(t, a, d)
	p.set(t, "status", "3")
	sent, f := step(t, a, d, token)
	if f != nil {
		t.Fatal(f)
	}
	if _, f := step(t, a, d, sent.Token); f == nil || f.Class != fault.Permanent || f.Reason != fault.ReasonRefused {
		t.Errorf("a report in red: %v", f)
	}
	p.set(t, "status", "7")
	if _, f := step(t, a, d, sent.Token); f == nil || f.Class != fault.Retryable || f.Reason != fault.ReasonUnknown {
		t.Errorf("a report with a status that is none: %v", f)
	}
}

// A report that stays open for ever holds its case for report_limit. Then it is a
// person's: nothing is sent again, and who asks again is told what has become of it.
func TestReportStaysOpen(t *testing.T) {
	p := openPeer(t)
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	a := p.at(t, spec.Deps{Clock: func() time.Time { return now }}, "report_limit: 48h\n")
	d := adaptertest.NewDelivery([]byte("a"))
	p.set(t, "status", "0")
	sent, f := step(t, a, d, begin(t, a, d))
	if f != nil {
		t.Fatal(f)
	}
	now = now.Add(48*time.Hour - time.Second)
	again, f := step(t, a, d, sent.Token)
	if f != nil || again == nil || *again != *sent {
		t.Fatalf("before the limit: %v, %v", again, f)
	}
	now = now.Add(time.Second)
	for range 2 { // the second is a redrive's
		if _, f := step(t, a, d, sent.Token); f == nil || f.Class != fault.Permanent || f.Reason != fault.ReasonNoReport {
			t.Errorf("at the limit: %v", f)
		}
		now = now.Add(24 * time.Hour)
	}
	// What a router of before recorded has no time: it is counted from now on.
	old := tokenWithoutTime(sent.Token)
	counted, f := step(t, a, d, old)
	if f != nil || counted == nil || counted.Token == old {
		t.Fatalf("an older record: %v, %v", counted, f)
	}
	now = now.Add(49 * time.Hour)
	if _, f := step(t, a, d, counted.Token); f == nil || f.Reason != fault.ReasonNoReport {
		t.Errorf("an older record at the limit: %v", f)
	}
	p.set(t, "status", "1")
	if next, f := step(t, a, d, sent.Token); next != nil || f != nil {
		t.Errorf("a redrive whose report is closed meanwhile: %v, %v", next, f)
	}
	if calls := p.calls(t); calls["sendMessage"] != 1 || calls["createMessageId"] != 1 {
		t.Errorf("the calls were %v", calls)
	}
}

func tokenWithoutTime(token string) string {
	f := strings.Fields(token)
	return strings.Join([]string{f[0], f[1], f[3]}, " ")
}

// After an unknown answer the report is asked; nothing is sent twice.
func TestLostAnswer(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "")
	d := adaptertest.NewDelivery([]byte("a"))
	token := begin(t, a, d)
	p.set(t, "sendMessage", "cut")
	_, f := step(t, a, d, token)
	if f == nil || f.Class != fault.Retryable || f.Reason != fault.ReasonInterrupted {
		t.Fatalf("an answer that was cut off: %v", f)
	}
	p.set(t, "sendMessage", "")
	if next, f := step(t, a, d, token); next != nil || f != nil {
		t.Fatalf("after it: %v, %v", next, f)
	}
	if calls := p.calls(t); calls["sendMessage"] != 1 || calls["getTransportReport"] != 2 {
		t.Errorf("the calls were %v", calls)
	}
	if got := p.messages(t); len(got) != 1 {
		t.Errorf("%d messages came out", len(got))
	}
}

// A server that is too slow may still take the message later. Sent again, it meets
// the id in use; then the report knows it.
func TestLateAnswer(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "")
	d := adaptertest.NewDelivery([]byte("a"))
	token := begin(t, a, d)
	p.set(t, "sendMessage", "slow")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for end := time.Now().Add(time.Minute); p.calls(t)["sendMessage"] == 0 && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
	}()
	late := *d
	late.Token = token
	if f := fault.Of(a.Deliver(ctx, &late)); f == nil || f.Class != fault.Cancelled {
		t.Fatalf("given up: %v", f)
	}
	p.set(t, "sendMessage", "")
	var last *fault.Error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		next, f := step(t, a, d, token)
		if f == nil && next == nil {
			break
		}
		if f != nil && (f.Class != fault.Retryable || f.Reason != fault.ReasonUnknown) {
			t.Fatalf("after it: %v", f)
		}
		if last = f; next != nil {
			token = next.Token
		}
	}
	if got := p.messages(t); len(got) != 1 {
		t.Errorf("%d messages came out (last fault %v)", len(got), last)
	}
}

// An id that the server says is in use while its report does not know it is an
// attempt that counts: no loop goes on for ever.
func TestIDInUse(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "")
	d := adaptertest.NewDelivery()
	token := begin(t, a, d)
	p.set(t, "sendMessage", "fault:ParameterIsNotValidException:9024")
	if _, f := step(t, a, d, token); f == nil || f.Class != fault.Retryable || f.Reason != fault.ReasonUnknown {
		t.Errorf("an id in use: %v", f)
	}
}

// What the server has taken and forgotten is not sent to it again.
func TestForgotten(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "")
	d := adaptertest.NewDelivery()
	token := begin(t, a, d)
	p.set(t, "forgets", "1")
	sent, f := step(t, a, d, token)
	if f != nil {
		t.Fatal(f)
	}
	for range 3 {
		if _, f := step(t, a, d, sent.Token); f == nil || f.Class != fault.Retryable || f.Reason != fault.ReasonUnknown {
			t.Errorf("a message that is no longer known: %v", f)
		}
	}
	if n := p.calls(t)["sendMessage"]; n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}

// A lost answer of createMessageId leaves an id that nobody uses.
func TestLostID(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "")
	d := adaptertest.NewDelivery()
	p.set(t, "createMessageId", "cut")
	if next, f := step(t, a, d, ""); next != nil || f == nil || f.Class != fault.Retryable {
		t.Fatalf("an id whose answer was cut off: %v, %v", next, f)
	}
	p.set(t, "createMessageId", "")
	if _, f := step(t, a, d, begin(t, a, d)); f != nil {
		t.Error(f)
	}
	if got := p.messages(t); len(got) != 1 {
		t.Errorf("%d messages came out", len(got))
	}
}

// Every fault that the WSDL declares for sendMessage, as the peer answers it; the
// others are in TestExceptions.
func TestFaults(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "")
	d := adaptertest.NewDelivery()
	type want struct {
		class  fault.Class
		reason fault.Reason
	}
	all := map[string]want{
		"PermissionDeniedException:9010":       {fault.Destination, fault.ReasonUnauthorized},
		"XTAWSTechnicalProblemException:9031":  {fault.Retryable, fault.ReasonUnavailable},
		"ParameterIsNotValidException:9022":    {fault.Permanent, fault.ReasonRefused},
		"ParameterIsNotValidException:9023":    {fault.Permanent, fault.ReasonTooLarge},
		"ParameterIsNotValidException:9024":    {fault.Retryable, fault.ReasonUnknown},
		"MessageSchemaViolationException:9051": {fault.Permanent, fault.ReasonSchemaInvalid},
		"MessageVirusDetectionException:9060":  {fault.Permanent, fault.ReasonRefused},
		"SyncAsyncException:9081":              {fault.Destination, fault.ReasonMisconfigured},
		"PermissionDeniedException:9000":       {fault.Destination, fault.ReasonUnauthorized},
	}
	for _, name := range faultsOf(t, "sendMessage") {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(all)), func(k string) bool { return strings.HasPrefix(k, name+":") }) {
			t.Errorf("the WSDL's %s is not tried", name)
		}
	}
	token := begin(t, a, d)
	for kind, w := range all {
		p.set(t, "sendMessage", "fault:"+kind)
		next, f := step(t, a, d, token)
		if next != nil || f == nil || f.Class != w.class || f.Reason != w.reason {
			t.Errorf("%s: %v, %v", kind, next, f)
		} else if strings.Contains(f.Error(), adaptertest.Canary) {
			t.Errorf("%s: what the server wrote stands in %v", kind, f)
		}
	}
	p.set(t, "getTransportReport", "fault:XTAWSTechnicalProblemException:9030")
	if _, f := step(t, a, d, token); f == nil || f.Class != fault.Retryable || f.Reason != fault.ReasonUnavailable {
		t.Errorf("a report that cannot be had: %v", f)
	}
	if got := p.messages(t); len(got) != 0 {
		t.Errorf("%d messages came out", len(got))
	}
}

// Without a certificate that the server trusts nobody gets in.
func TestMutualTLS(t *testing.T) {
	p := openPeer(t)
	deps := spec.Deps{DataDir: t.TempDir()}
	identify(t, deps.DataDir, p.ca.Issue("weiche", time.Now().Add(-time.Hour)))
	a := open(t, deps, p.url, p.ca.File, "")
	if _, f := step(t, a, adaptertest.NewDelivery(), ""); f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonCertificate {
		t.Errorf("an expired certificate: %v", f)
	}
}

// The peer's validation is on: a time that XML Schema does not know is refused
// before the service sees it.
func TestPeerValidates(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "")
	d := adaptertest.NewDelivery()
	token := begin(t, a, d)
	d.AcceptedAt = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC) // there is no year 0 in XML Schema 1.0
	if next, f := step(t, a, d, token); next != nil || f == nil || f.Class == fault.Destination {
		t.Errorf("metadata that break the schema: %v, %v", next, f)
	}
	if n := p.calls(t)["sendMessage"]; n != 0 {
		t.Errorf("the service saw it %d times", n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// An attachment passes through and is never kept.
func TestLargeAttachment(t *testing.T) {
	p := openPeer(t)
	a := p.at(t, spec.Deps{}, "")
	const size = 32 << 20
	d := adaptertest.NewDelivery(nil)
	d.Attachments[0].Size = size
	d.Attachments[0].Open = func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, size)), nil }
	token := begin(t, a, d)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, f := step(t, a, d, token); f != nil {
		t.Fatal(f)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > size/4 {
		t.Errorf("%d bytes were taken for an attachment of %d", grown, size)
	}
	if got := p.messages(t); len(got) != 1 || len(got[0].received.Attachments[0]) != size {
		t.Error("it did not come out whole")
	}
}
