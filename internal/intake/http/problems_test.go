package httpdoor_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"weiche/internal/intake"
	"weiche/internal/intake/intaketest"
)

const canary = "Kanarienvogel"

// Every type of problem a portal can bring about, in both languages, and with
// a canary in whatever is payload.
func TestProblems(t *testing.T) {
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{}))
	sound := func() intaketest.Body {
		return intaketest.Sound().With("additionalReferenceInfo", map[string]any{"senderReference": canary}).
			With("replyChannel", map[string]any{"eMail": map[string]any{"address": canary + "@example.org"}})
	}
	form := func(data any) []byte { return sound().With("data", data).JSON() }
	file := intaketest.File("a", "", []byte("x"))
	file["filename"] = canary + ".pdf"
	wrong := intaketest.File("a", "", []byte("x"))
	wrong["filename"], wrong["content"] = canary+".pdf", "eQ=="
	notBase64 := intaketest.File("b", "", []byte("x"))
	notBase64["content"] = "!" + canary
	big := intaketest.File("a", "", bytes.Repeat([]byte("x"), 201<<10))

	type header map[string]string
	cases := []struct {
		name     string
		body     []byte
		header   header // "-" removes one
		status   int
		reason   string
		pointers []string
	}{
		{"no token", sound().JSON(), header{"Authorization": "-"}, 401, "token-missing", nil},
		{"another scheme", sound().JSON(), header{"Authorization": "Basic eDp5"}, 401, "token-missing", nil},
		{"wrong key", sound().JSON(), header{"Authorization": "Bearer wrong"}, 401, "unauthenticated", nil},
		{"no idempotency key", sound().JSON(), header{"Idempotency-Key": "-"}, 400, "key-missing", nil},
		{"long idempotency key", sound().JSON(), header{"Idempotency-Key": strings.Repeat("k", 256)}, 400, "key-malformed", nil},
		{"idempotency key of other letters", sound().JSON(), header{"Idempotency-Key": "schlüssel"}, 400, "key-malformed", nil},
		{"text", sound().JSON(), header{"Content-Type": "text/plain"}, 415, "media-type", nil},
		{"no media type", sound().JSON(), header{"Content-Type": "-"}, 415, "media-type", nil},
		{"Latin-1", sound().JSON(), header{"Content-Type": "application/json; charset=iso-8859-1"}, 415, "media-type", nil},
		{"compressed", sound().JSON(), header{"Content-Encoding": "gzip"}, 415, "media-type", nil},
		{"no JSON", []byte(`{"data":"` + canary), nil, 400, "malformed", []string{"/data"}},
		{"empty", nil, nil, 400, "malformed", nil},
		{"too deep", []byte(`{"data":` + strings.Repeat("[", 100_000)), nil, 400, "too-deep", []string{"/data" + strings.Repeat("/0", 31)}},
		{"too large", append(sound().JSON(), bytes.Repeat([]byte(" "), 1<<20)...), nil, 413, "too-large", nil},
		{"five attachments", sound().With("attachments", []any{1, 2, 3, 4, 5}).JSON(), nil, 413, "too-many", nil},
		{"large attachment", sound().With("attachments", []any{big}).JSON(), nil, 413, "too-large", []string{"/attachments/0"}},
		{"envelope", []byte(`{"region":8,"dta":{}}`), nil, 422, "envelope-invalid", []string{"/data", "/dta", "/publicService", "/region"}},
		{"base64", sound().With("attachments", []any{notBase64}).JSON(), nil, 422, "envelope-invalid", []string{"/attachments/0/content"}},
		{"hashes", sound().With("attachments", []any{wrong, file2(wrong, "c"), file2(file, "d")}).JSON(), nil, 422, "hash-mismatch", []string{"/attachments/0/hash/content", "/attachments/1/hash/content"}},
		{"unknown service", sound().For("99999999999999", "08").JSON(), nil, 422, "unknown-service", []string{"/publicService/identifier"}},
		{"malformed region", sound().With("region", "DE0811").JSON(), nil, 422, "malformed-region", []string{"/region"}},
		{"a Land that is none", sound().With("region", "17").JSON(), nil, 422, "malformed-region", []string{"/region"}},
		{"Land not served", sound().With("region", "05").JSON(), nil, 422, "land-not-served", []string{"/region"}},
		{"Land not the portal's", sound().JSON(), header{"Authorization": "Bearer " + intaketest.KeySN}, 403, "land-forbidden", []string{"/region"}},
		{"service not the portal's", sound().For(intaketest.Parents, "14").JSON(), header{"Authorization": "Bearer " + intaketest.KeySN}, 403, "service-forbidden", []string{"/publicService/identifier"}},
		{"service not offered", sound().For(intaketest.Parents, "14").JSON(), nil, 422, "service-not-offered", []string{"/publicService/identifier"}},
		{"broken Land", sound().For(intaketest.Trade, "09").JSON(), nil, 503, "config-broken", nil},
		{"standard missing", sound().For(intaketest.Building, "08").JSON(), nil, 503, "standard-missing", nil},
		{"form, all faults at once", form(map[string]any{"name": strings.Repeat(canary, 10), "employees": -1, "notes": []any{"a", 1}, "x": canary}), nil, 422, "form-invalid",
			[]string{"/data/born", "/data/employees", "/data/name", "/data/notes/1", "/data/x"}},
	}
	seen := map[string]bool{}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, lang := range []string{"", "de-DE, en;q=0.5"} {
				r := s.request("key of "+strings.ReplaceAll(c.name, "ü", "u"), c.body)
				for name, v := range c.header {
					if v == "-" {
						r.Header.Del(name)
					} else {
						r.Header.Set(name, v)
					}
				}
				if lang != "" {
					r.Header.Set("Accept-Language", lang)
				}
				a := s.do(r)
				p := a.problem(t)
				var pointers []string
				for _, e := range p.Errors {
					pointers = append(pointers, e.Pointer)
				}
				if a.status != c.status || p.Status != c.status || p.Type != intake.ProblemBase+c.reason || !slices.Equal(pointers, c.pointers) {
					t.Errorf("%d %s at %q", a.status, p.Type, pointers)
				}
				if strings.Contains(string(a.body), canary) {
					t.Errorf("the answer repeats payload: %s", a.body)
				}
				want := "en"
				if lang != "" {
					want = "de"
				}
				if got := a.header.Get("Content-Language"); got != want {
					t.Errorf("told in %q, want %q", got, want)
				}
				if (a.status >= 500) != (a.header.Get("Retry-After") != "") {
					t.Errorf("Retry-After %q with status %d", a.header.Get("Retry-After"), a.status)
				}
				if (a.status == 401) != (a.header.Get("WWW-Authenticate") != "") {
					t.Errorf("WWW-Authenticate %q with status %d", a.header.Get("WWW-Authenticate"), a.status)
				}
				seen[c.reason] = true
			}
		})
	}
	if n := len(s.Records(t, intake.TopicSubmissions)) + s.BlobCount(t); n != 0 {
		t.Errorf("%d records and blobs of refused submissions", n)
	}
	if strings.Contains(s.Log.String(), canary) {
		t.Error("the log repeats payload")
	}
	metrics, err := s.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range metrics {
		if f.GetName() == "weiche_intake_refusals_total" {
			for _, m := range f.GetMetric() {
				counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	for reason := range seen {
		if counted[reason] < 2 {
			t.Errorf("%s was counted %v times", reason, counted[reason])
		}
	}
	if _, ok := counted["broker-unavailable"]; !ok {
		t.Error("the series of a reason that did not occur is missing")
	}
}

func file2(f map[string]any, id string) map[string]any {
	out := map[string]any{}
	for k, v := range f {
		out[k] = v
	}
	out["attachmentId"] = id
	return out
}

func TestBrokerUnavailable(t *testing.T) {
	br := intaketest.StartBroker(t, discard)
	s := start(t, intaketest.Start(t, br, intaketest.Options{}))
	s.post("before", intaketest.Sound()).accepted(t)
	br.Stop()
	for _, key := range []string{"before", "after"} {
		a := s.post(key, intaketest.Sound().With("attachments", []any{}))
		if key == "before" {
			a = s.post(key, intaketest.Sound())
		}
		if p := a.problem(t); a.status != 503 || p.Type != intake.ProblemBase+"broker-unavailable" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", key, a.status, a.body)
		}
	}
}

func TestOtherPathsAndMethods(t *testing.T) {
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{}))
	if a := s.get("/other", ""); a.status != 404 || a.problem(t).Type != intake.ProblemBase+"not-found" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.get("/v1/submissions", ""); a.status != 405 || a.header.Get("Allow") != "POST" || a.problem(t).Type != intake.ProblemBase+"method-not-allowed" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, id := range []string{"x", "{60f6667b-fa45-4bd7-b717-f4d6c65e5edb}", "60f6667b-fa45-4bd7-b717-f4d6c65e5edb"} {
		if a := s.get("/v1/submissions/"+id, intaketest.KeyBW); a.status != 404 {
			t.Errorf("%s: %d %s", id, a.status, a.body)
		}
	}
	if a := s.get("/v1/submissions/60f6667b-fa45-4bd7-b717-f4d6c65e5edb", ""); a.status != 401 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.get("/.well-known/jwks.json", ""); a.status != 200 || !bytes.Contains(a.body, []byte(`"OKP"`)) || bytes.Contains(a.body, []byte(`"d":`)) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.get("/openapi.json", ""); a.status != 200 || !bytes.Equal(bytes.TrimSpace(a.body), intake.OpenAPI()) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// The document has exactly the routes that are served, and is OpenAPI 3.1.
func TestDocument(t *testing.T) {
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{}))
	if ok, errs := s.openapi.ValidateDocument(); !ok {
		t.Errorf("%v", errs)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(intake.OpenAPI(), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Fatal(doc.OpenAPI, err)
	}
	var documented []string
	for path, ops := range doc.Paths {
		for m := range ops {
			if m != "parameters" {
				documented = append(documented, strings.ToUpper(m)+" "+path)
			}
		}
	}
	slices.Sort(documented)
	if !slices.Equal(documented, s.door.Routes()) {
		t.Errorf("documented %q, served %q", documented, s.door.Routes())
	}
}

// trickle sends a request's head and then the body as the test says.
func trickle(t *testing.T, addr, length string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, "POST /v1/submissions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+intaketest.KeyBW+
		"\r\nIdempotency-Key: slow\r\nContent-Type: application/json\r\nContent-Length: "+length+"\r\n\r\n{")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSlowAndManyRequests(t *testing.T) {
	limits := intaketest.Limits()
	limits.ReadTimeout, limits.Concurrent = 700*time.Millisecond, 1
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{Limits: &limits}))
	slow := trickle(t, s.Listener.Addr().String(), "1000")
	inFlight := func() bool {
		fs, err := s.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fs {
			if f.GetName() == "weiche_intake_requests_in_flight" {
				return f.GetMetric()[0].GetGauge().GetValue() == 1
			}
		}
		return false
	}
	for !inFlight() {
		time.Sleep(5 * time.Millisecond)
	}
	// The only slot is taken: the next one is told when to come again.
	if a := s.post("next", intaketest.Sound()); a.status != 503 || a.problem(t).Type != intake.ProblemBase+"overloaded" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	// Single bytes do not keep the slow one alive.
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				if _, err := slow.Write([]byte(" ")); err != nil {
					return
				}
			}
		}
	}()
	_ = slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 12)
	if _, err := io.ReadFull(slow, b); err != nil || string(b) != "HTTP/1.1 408" {
		t.Errorf("the slow request got %q %v", b, err)
	}
	s.post("next", intaketest.Sound()).accepted(t)
}

// A header that never ends is cut off too.
func TestSlowHeader(t *testing.T) {
	limits := intaketest.Limits()
	limits.ReadTimeout = 300 * time.Millisecond
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{Limits: &limits}))
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /openapi.json HTTP/1.1\r\nX: "); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil || strings.Contains(string(b), " 200 ") {
		t.Errorf("the connection is still open, or it was answered as if it were whole: %q %v", b, err)
	}
}
