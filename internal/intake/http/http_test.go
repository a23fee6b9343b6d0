package httpdoor_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"weiche/internal/intake"
	httpdoor "weiche/internal/intake/http"
	"weiche/internal/intake/intaketest"
	"weiche/internal/submission"
)

// server is a replica's door on a listener. Every exchange of these tests is
// checked against the OpenAPI document.
type server struct {
	*intaketest.Replica
	*httptest.Server
	t       testing.TB
	door    *httpdoor.Door
	openapi validator.Validator
}

var document = sync.OnceValues(func() (validator.Validator, error) {
	doc, err := libopenapi.NewDocument(intake.OpenAPI())
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		return nil, fmt.Errorf("%v", errs)
	}
	return v, nil
})

func start(t testing.TB, r *intaketest.Replica) *server {
	t.Helper()
	v, err := document()
	if err != nil {
		t.Fatal(err)
	}
	d := httpdoor.New(r.Door, r.Auth, httpdoor.Projection{Store: r.Store, Projector: r.Projector}, r.Logger, nil)
	srv := httptest.NewUnstartedServer(d)
	srv.Config = httpdoor.Server(d)
	srv.Start()
	t.Cleanup(srv.Close)
	return &server{r, srv, t, d, v}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem(t testing.TB) intake.Document {
	t.Helper()
	var d intake.Document
	if err := json.Unmarshal(a.body, &d); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("no problem document: %d %s %s", a.status, a.header.Get("Content-Type"), a.body)
	}
	return d
}

type receipt struct {
	SubmissionID, CaseID uuid.UUID
	Status, AcceptedAt   string
	Receipt              string
}

func (a answer) accepted(t testing.TB) receipt {
	t.Helper()
	var r receipt
	if a.status != http.StatusAccepted {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// request makes a POST with sound headers.
func (s *server) request(key string, body []byte) *http.Request {
	r, err := http.NewRequest(http.MethodPost, s.URL+"/v1/submissions", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+intaketest.KeyBW)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	return r
}

func (s *server) get(path, apiKey string) answer {
	r, err := http.NewRequest(http.MethodGet, s.URL+path, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	if apiKey != "" {
		r.Header.Set("Authorization", "Bearer "+apiKey)
	}
	return s.do(r)
}

func (s *server) post(key string, body intaketest.Body) answer {
	return s.do(s.request(key, body.JSON()))
}

// do sends a request and checks the answer, and where it was taken the request
// too, against the OpenAPI document.
func (s *server) do(r *http.Request) answer {
	s.t.Helper()
	var sent []byte
	if r.GetBody != nil {
		b, _ := r.GetBody()
		sent, _ = io.ReadAll(b)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		s.t.Fatal(err)
	}
	check := r.Clone(s.t.Context())
	check.Body = io.NopCloser(bytes.NewReader(sent))
	if a.status < 300 && !strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
		if ok, errs := s.openapi.ValidateHttpRequestSync(check); !ok {
			s.t.Errorf("%s %s was taken, but the document refuses it: %v", r.Method, r.URL.Path, errs[0])
		}
	}
	if a.status == http.StatusMethodNotAllowed || strings.HasPrefix(r.URL.Path, "/other") {
		return a // not documented: there is no operation
	}
	copied := *resp
	copied.Body = io.NopCloser(bytes.NewReader(a.body))
	if ok, errs := s.openapi.ValidateHttpResponse(check, &copied); !ok {
		s.t.Errorf("%s %s answered %d otherwise than documented: %v %s", r.Method, r.URL.Path, a.status, errs[0], a.body)
	}
	return a
}

// multipartBody writes a body with the given first part and files.
func multipartBody(t testing.TB, first string, sub []byte, files ...any) (contentType string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part := func(name, contentType string, content []byte) {
		p, err := w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {fmt.Sprintf(`form-data; name=%q; filename=%q`, name, name+".bin")}, "Content-Type": {contentType},
		})
		if err == nil {
			_, err = p.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if first != "" {
		part(first, "application/json", sub)
	}
	for i := 0; i+1 < len(files); i += 2 {
		part(files[i].(string), "application/pdf", files[i+1].([]byte))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.Bytes()
}

func (s *server) postMultipart(key, first string, sub []byte, files ...any) answer {
	ct, body := multipartBody(s.t, first, sub, files...)
	r := s.request(key, body)
	r.Header.Set("Content-Type", ct)
	return s.do(r)
}

func TestAccept(t *testing.T) {
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{}))
	file := bytes.Repeat([]byte("plan "), 1000)
	body := intaketest.Sound().
		With("additionalReferenceInfo", map[string]any{"senderReference": "AZ-4711", "applicationDate": "2026-11-22"}).
		With("attachments", []any{intaketest.File("plan", "", file)}).
		With("test", true)
	before := time.Now().Add(-time.Second)
	a := s.post("first", body)
	got := a.accepted(t)

	if want := submission.NewID(intaketest.PortalBW, "first"); got.SubmissionID != want {
		t.Errorf("id %s, want %s", got.SubmissionID, want)
	}
	if got.CaseID != submission.NewCaseID(got.SubmissionID) || got.Status != "in-flight" {
		t.Errorf("%+v", got)
	}
	if at, err := time.Parse(time.RFC3339Nano, got.AcceptedAt); err != nil || at.Before(before) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("acceptedAt %s", got.AcceptedAt)
	}
	// The receipt is a proof: it verifies and covers what was sent.
	payload, err := s.Signer.Verify(got.Receipt)
	if err != nil {
		t.Fatal(err)
	}
	var r intake.Receipt
	sum := sha512.Sum512(body.JSON())
	if err := json.Unmarshal(payload, &r); err != nil || r.SHA512 != hex.EncodeToString(sum[:]) || r.SubmissionID != got.SubmissionID || r.AcceptedAt != got.AcceptedAt {
		t.Errorf("receipt %s %v", payload, err)
	}

	// What was stored can be opened, and only that way.
	recs := s.Records(t, intake.TopicSubmissions)
	if len(recs) != 1 || string(recs[0].Key) != got.CaseID.String() {
		t.Fatalf("%d records", len(recs))
	}
	m, err := submission.ParseMeta(recs[0].Headers)
	if err != nil {
		t.Fatal(err)
	}
	if m.Service != intaketest.Trade || m.Land != "08" || m.Region != "081150003003" || !m.Test || m.Portal != intaketest.PortalBW || m.Revision != 1 ||
		m.SenderHash != s.Keeper.HashReference(intaketest.PortalBW, "AZ-4711") || m.Traceparent == "" {
		t.Errorf("meta %+v", m)
	}
	var env submission.Envelope
	if err := json.Unmarshal(s.Open(t, recs[0], intake.SectionSubmission), &env); err != nil {
		t.Fatal(err)
	}
	at := env.Attachments[0]
	if at.Content != "" || at.Size != int64(len(file)) || !strings.HasPrefix(at.Blob, "08/") || env.AdditionalReferenceInfo.SenderReference != "AZ-4711" {
		t.Errorf("envelope %+v", env)
	}
	if bytes.Contains(recs[0].Value, []byte("AZ-4711")) || s.BlobCount(t) != 1 {
		t.Error("payload is not sealed, or the blob is not stored")
	}

	// The state is known as soon as the answer is there.
	st := s.get(a.header.Get("Location"), intaketest.KeyBW)
	var view struct {
		SubmissionID, Status, SHA512 string
		Test                         bool
	}
	if err := json.Unmarshal(st.body, &view); err != nil || st.status != 200 || view.Status != "in-flight" || view.SubmissionID != got.SubmissionID.String() || !view.Test {
		t.Errorf("status %d %s", st.status, st.body)
	}
	ev := s.get(a.header.Get("Location")+"/events", intaketest.KeyBW)
	if ev.status != 200 || !bytes.Contains(ev.body, []byte(`"accepted"`)) {
		t.Errorf("events %d %s", ev.status, ev.body)
	}
	// Nobody else's.
	for _, path := range []string{a.header.Get("Location"), a.header.Get("Location") + "/events"} {
		other, none := s.get(path, intaketest.KeySN), s.get(strings.Replace(path, got.SubmissionID.String(), uuid.NewString(), 1), intaketest.KeySN)
		if other.status != 404 || !bytes.Equal(other.body, none.body) {
			t.Errorf("another portal sees %d %s", other.status, other.body)
		}
	}
}

func TestRepeatGetsTheSameReceipt(t *testing.T) {
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{}))
	body := intaketest.Sound().With("attachments", []any{intaketest.File("a", "", []byte("x"))})
	first := s.post("k", body)
	second := s.post("k", body)
	if !bytes.Equal(first.body, second.body) || first.accepted(t).Receipt == "" {
		t.Errorf("first %s\nsecond %s", first.body, second.body)
	}
	// It is appended again, under another data key and append id.
	recs := s.Records(t, intake.TopicSubmissions)
	if len(recs) != 2 || recs[0].Headers[submission.HeaderID] == recs[1].Headers[submission.HeaderID] || recs[0].Headers[submission.HeaderTime] != recs[1].Headers[submission.HeaderTime] {
		t.Errorf("%d records", len(recs))
	}
	blobs := s.BlobCount(t)
	other := s.post("k", intaketest.Sound().With("region", "DE08"))
	if p := other.problem(t); other.status != 422 || p.Type != intake.ProblemBase+"key-reused" {
		t.Errorf("%d %s", other.status, other.body)
	}
	if s.BlobCount(t) != blobs {
		t.Error("the refused body left blobs")
	}
	// The key is the portal's own.
	r := s.request("k", intaketest.Sound().For(intaketest.Trade, "14").JSON())
	r.Header.Set("Authorization", "Bearer "+intaketest.KeySN)
	s.do(r).accepted(t)
}

// Twenty posts at once with one key to two replicas: with one body all get the
// same receipt; with two bodies exactly one of them is accepted.
func TestOneKeyTwoReplicas(t *testing.T) {
	br, dir := intaketest.StartBroker(t, discard), t.TempDir()
	replicas := []*server{
		start(t, intaketest.Start(t, br, intaketest.Options{Dir: dir})),
		start(t, intaketest.Start(t, br, intaketest.Options{Dir: dir})),
	}
	// Both Länder have their keys before the race: this test is about claims.
	replicas[0].post("keys of 08", intaketest.Sound()).accepted(t)
	replicas[0].post("keys of 14", intaketest.Sound().With("region", "14")).accepted(t)
	for name, bodies := range map[string][]intaketest.Body{
		"one body":   {intaketest.Sound()},
		"two bodies": {intaketest.Sound(), intaketest.Sound().With("region", "DE14").With("attachments", []any{intaketest.File("a", "", []byte("x"))})},
	} {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			answers := make([]answer, 20)
			for i := range answers {
				wg.Go(func() { answers[i] = replicas[i%2].post("key of "+name, bodies[(i/2)%len(bodies)]) })
			}
			wg.Wait()
			receipts, refused, accepted := map[string]int{}, 0, map[int]bool{}
			for i, a := range answers {
				switch a.status {
				case http.StatusAccepted:
					receipts[a.accepted(t).Receipt]++
					accepted[(i/2)%len(bodies)] = true
				case http.StatusUnprocessableEntity:
					refused++
					if p := a.problem(t); p.Type != intake.ProblemBase+"key-reused" {
						t.Errorf("%s", a.body)
					}
				default:
					t.Errorf("%d %s\n%s%s", a.status, a.body, replicas[0].Log, replicas[1].Log)
				}
			}
			if len(receipts) != 1 || len(accepted) != 1 || refused != 20-20/len(bodies) {
				t.Errorf("%d receipts, %d bodies accepted, %d refused", len(receipts), len(accepted), refused)
			}
			// Every record of this id holds the body that won.
			id, sums := submission.NewID(intaketest.PortalBW, "key of "+name).String(), map[string]bool{}
			for _, rec := range replicas[0].Records(t, intake.TopicSubmissions) {
				if rec.Headers[submission.HeaderSubject] == id {
					sums[rec.Headers["ce_sha512"]] = true
				}
			}
			if len(sums) != 1 {
				t.Errorf("%d bodies were appended", len(sums))
			}
		})
	}
}

func TestMultipart(t *testing.T) {
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{}))
	one, two := bytes.Repeat([]byte("1"), 100_000), []byte{}
	sub := intaketest.Sound().With("attachments", []any{intaketest.File("a", "p1", one), intaketest.File("b", "p2", two), intaketest.File("c", "", []byte("in base64"))}).JSON()
	first := s.postMultipart("m", "submission", sub, "p2", two, "p1", one)
	first.accepted(t)
	if s.BlobCount(t) != 3 {
		t.Errorf("%d blobs", s.BlobCount(t))
	}
	var env submission.Envelope
	if err := json.Unmarshal(s.Open(t, s.Records(t, intake.TopicSubmissions)[0], intake.SectionSubmission), &env); err != nil || env.Attachments[0].Size != 100_000 || env.Attachments[0].Part != "" {
		t.Errorf("%+v %v", env.Attachments, err)
	}
	// Boundaries and the order of files are not the submission's bytes.
	again := s.postMultipart("m", "submission", sub, "p1", one, "p2", two)
	if !bytes.Equal(first.body, again.body) {
		t.Errorf("the repeat got %s", again.body)
	}

	blobs := s.BlobCount(t)
	ct, whole := multipartBody(t, "submission", sub, "p1", one, "p2", two)
	cut := s.request("cut", whole[:len(whole)-20])
	cut.Header.Set("Content-Type", ct)
	headless := s.request("headless", whole)
	headless.Header.Set("Content-Type", "multipart/form-data")
	cases := []struct {
		name, reason, pointer string
		status                int
		answer                answer
	}{
		{"part missing", "part-mismatch", "/attachments/1/part", 422, s.postMultipart("m1", "submission", sub, "p1", one)},
		{"part unknown", "part-mismatch", "", 422, s.postMultipart("m2", "submission", sub, "p1", one, "p2", two, "p3", two)},
		{"part twice", "part-mismatch", "", 422, s.postMultipart("m3", "submission", sub, "p1", one, "p1", one)},
		{"submission not first", "malformed", "", 400, s.postMultipart("m4", "", nil, "p1", one, "submission", sub)},
		{"no part", "malformed", "", 400, s.postMultipart("m5", "", nil)},
		{"wrong bytes", "hash-mismatch", "/attachments/0/hash/content", 422, s.postMultipart("m6", "submission", sub, "p1", []byte("other"))},
		{"file too large", "too-large", "/attachments/0", 413, s.postMultipart("m7", "submission", sub, "p1", make([]byte, 201<<10))},
		{"submission part too large", "too-large", "", 413, s.postMultipart("m8", "submission", append(sub, bytes.Repeat([]byte(" "), 65<<10)...))},
		{"all too large", "too-large", "/attachments/2", 413, func() answer {
			f := make([]byte, 190<<10)
			return s.postMultipart("m9", "submission", intaketest.Sound().With("attachments", []any{intaketest.File("a", "p1", f), intaketest.File("b", "p2", f), intaketest.File("c", "p3", f)}).JSON(),
				"p1", f, "p2", f, "p3", f)
		}()},
		{"body ends too early", "malformed", "", 400, s.do(cut)},
		{"no boundary", "media-type", "", 415, s.do(headless)},
		{"part named in JSON", "part-mismatch", "/attachments/0/part", 422, s.do(s.request("m10", sub))},
	}
	for _, c := range cases {
		p := c.answer.problem(t)
		pointer := ""
		if len(p.Errors) > 0 {
			pointer = p.Errors[0].Pointer
		}
		if c.answer.status != c.status || p.Type != intake.ProblemBase+c.reason || pointer != c.pointer {
			t.Errorf("%s: %d %s at %q: %s", c.name, c.answer.status, p.Type, pointer, p.Detail)
		}
	}
	if got := s.BlobCount(t); got != blobs {
		t.Errorf("%d blobs of refused submissions are left", got-blobs)
	}
}

// A body that was cut within the headers of a part was told to lack that part;
// where the envelope named none, it was taken.
func TestRegressionMultipartCutAnywhere(t *testing.T) {
	s := start(t, intaketest.Start(t, intaketest.StartBroker(t, discard), intaketest.Options{}))
	file := []byte("plan")
	sub := intaketest.Sound().With("attachments", []any{intaketest.File("a", "p1", file)}).JSON()
	ct, whole := multipartBody(t, "submission", sub, "p1", file)
	whole = bytes.TrimRight(whole, "\r\n") // what follows the closing delimiter may be missing
	for n := len(whole) - 1; n > len(whole)-300; n-- {
		r := s.request(fmt.Sprintf("cut-%d", n), whole[:n])
		r.Header.Set("Content-Type", ct)
		if a := s.do(r); a.status != 400 || !strings.HasSuffix(a.problem(t).Type, "/malformed") {
			t.Fatalf("cut %d bytes before the end: %d %s", len(whole)-n, a.status, a.body)
		}
	}
	r := s.request("whole", whole)
	r.Header.Set("Content-Type", ct)
	s.do(r).accepted(t)
}
