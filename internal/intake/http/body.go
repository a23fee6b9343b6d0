package httpdoor

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"time"

	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/intake"
)

const (
	submissionPart = "submission"
	// piece is how much of a body has to arrive within one read timeout, so that
	// a client that trickles single bytes is cut off.
	piece = 64 << 10
	// multipartFrame is what boundaries and part headers may add to a submission.
	multipartFrame = 1 << 20
)

// pacedBody gives every next piece of a body a deadline of its own, and ends
// with the deadlines out of the way of the answer.
type pacedBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	pause time.Duration
	end   time.Time
	got   int
}

func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.got += n; b.got >= piece {
		b.got = 0
		_ = b.rc.SetReadDeadline(sooner(time.Now().Add(b.pause), b.end)) // a test's recorder has no deadlines
	}
	if errors.Is(err, io.EOF) {
		// net/http goes on reading to notice a client that hangs up; a deadline
		// that runs out meanwhile would cancel the request.
		_ = b.rc.SetReadDeadline(time.Time{}) // see above
	}
	return n, err
}

// readProblem classes an error of reading the body.
func readProblem(err error, otherwise *intake.Problem) *intake.Problem {
	var p *intake.Problem
	var timeout net.Error
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &timeout) && timeout.Timeout():
		p = intake.NewProblem(fault.ReasonTooSlow)
	default:
		p = otherwise
	}
	p.Err = err
	return p
}

// post receives a submission.
func (h *Door) post(x *exchange) {
	if !x.authenticate() {
		return
	}
	release, ok := x.slot(h.posts)
	if !ok {
		return
	}
	defer release()
	defer h.door.Began()()

	post, p := x.receive()
	if p != nil {
		x.problem(p, true)
		return
	}
	acc, err := h.door.Accept(x.r.Context(), post)
	if err != nil {
		p := intake.ProblemOf(err)
		x.meta = p.Meta
		x.problem(p, false)
		return
	}
	x.meta.ID, x.meta.Land, x.meta.Service = acc.ID, acc.Land, acc.Service
	x.w.Header().Set("Location", "/v1/submissions/"+acc.ID.String())
	failpoint.Hit("intake.answering")
	x.json(http.StatusAccepted, "application/json", acceptedView(acc))
	failpoint.Hit("intake.answered")
}

// receive reads the submission: all of a JSON body, or the first part of a
// multipart body, whose files are left to be streamed.
func (x *exchange) receive() (intake.Post, *intake.Problem) {
	post := intake.Post{Portal: x.portal, Traceparent: x.r.Header.Get("traceparent")}
	switch keys := x.r.Header.Values("Idempotency-Key"); len(keys) {
	case 0:
		return post, intake.NewProblem(fault.ReasonKeyMissing)
	case 1:
		post.IdempotencyKey = keys[0]
	default:
		return post, intake.NewProblem(fault.ReasonKeyMalformed)
	}
	if p := intake.CheckKey(post.IdempotencyKey); p != nil {
		return post, p
	}
	if enc := x.r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return post, intake.NewProblem(fault.ReasonMediaType)
	}
	mediaType, params, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil {
		return post, intake.NewProblem(fault.ReasonMediaType)
	}
	switch {
	case mediaType == "application/json" && utf8Charset(params):
		limit := int64(x.h.limits.BodyBytes)
		if x.r.ContentLength > limit {
			return post, intake.TooLargeBody(limit)
		}
		post.Body, err = readAll(x.r.Body, x.r.ContentLength, limit)
		if errors.Is(err, errOver) {
			return post, intake.TooLargeBody(limit)
		}
		if err != nil {
			return post, readProblem(err, intake.NewProblem(fault.ReasonMalformed))
		}
		return post, nil
	case mediaType == "multipart/form-data" && params["boundary"] != "":
		limit := int64(x.h.limits.SubmissionBytes)
		if x.r.ContentLength > limit+multipartFrame {
			return post, intake.TooLargeSum(limit)
		}
		source := &tailReader{r: http.MaxBytesReader(x.w, x.r.Body, limit+multipartFrame), end: []byte("--" + params["boundary"] + "--")}
		parts := &fileParts{mr: multipart.NewReader(source, params["boundary"]), body: source, limit: limit}
		body, p := parts.submission(int64(x.h.limits.PartBytes))
		post.Body, post.Parts = body, parts
		return post, p
	}
	return post, intake.NewProblem(fault.ReasonMediaType)
}

func utf8Charset(params map[string]string) bool {
	cs, ok := params["charset"]
	return !ok || strings.EqualFold(cs, "utf-8")
}

var errOver = errors.New("over the limit")

// readAll reads up to limit bytes. A declared length within the limit is
// believed only as far as it has arrived.
func readAll(r io.Reader, declared, limit int64) ([]byte, error) {
	buf := make([]byte, 0, min(max(declared+1, 512), 64<<10))
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return nil, errOver
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// fileParts are the parts of a multipart body.
type fileParts struct {
	mr    *multipart.Reader
	body  *tailReader
	limit int64
}

// tailReader notes whether the closing delimiter of a multipart body (RFC 2046,
// section 5.1.1) has been read.
type tailReader struct {
	r    io.Reader
	end  []byte // "--boundary--"
	tail []byte // the last bytes read, shorter than end
	seen bool
}

// Read implements io.Reader.
func (t *tailReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if !t.seen && n > 0 {
		window := append(t.tail, p[:n]...)
		t.seen = bytes.Contains(window, t.end)
		t.tail = append(t.tail[:0], window[max(0, len(window)-len(t.end)+1):]...)
	}
	return n, err
}

func (f *fileParts) next() (*multipart.Part, error) {
	part, err := f.mr.NextRawPart()
	if err == io.EOF { // a wrapped EOF is a body that ends too early
		if !f.body.seen {
			// So is a plain one within the headers of a part.
			return nil, intake.MalformedMultipart()
		}
		return nil, io.EOF
	}
	if err != nil {
		return nil, f.problem(err)
	}
	return part, nil
}

func (f *fileParts) problem(err error) *intake.Problem {
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return intake.TooLargeSum(f.limit)
	}
	return readProblem(err, intake.MalformedMultipart())
}

// submission reads the first part.
func (f *fileParts) submission(limit int64) ([]byte, *intake.Problem) {
	part, err := f.next()
	if errors.Is(err, io.EOF) {
		return nil, intake.FirstPart()
	}
	if err != nil {
		return nil, intake.ProblemOf(err)
	}
	if part.FormName() != submissionPart {
		return nil, intake.FirstPart()
	}
	if ct := part.Header.Get("Content-Type"); ct != "" {
		mediaType, params, err := mime.ParseMediaType(ct)
		if err != nil || mediaType != "application/json" || !utf8Charset(params) {
			return nil, intake.NewProblem(fault.ReasonMediaType)
		}
	}
	b, err := readAll(part, 0, limit)
	if errors.Is(err, errOver) {
		return nil, intake.TooLargePart(limit)
	}
	if err != nil {
		return nil, f.problem(err)
	}
	return b, nil
}

// Next returns the next file part.
func (f *fileParts) Next() (string, io.Reader, error) {
	part, err := f.next()
	if err != nil {
		return "", nil, err
	}
	return part.FormName(), partReader{f, part}, nil
}

// partReader gives a part's faults as problems.
type partReader struct {
	f    *fileParts
	part *multipart.Part
}

func (r partReader) Read(p []byte) (int, error) {
	n, err := r.part.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // only the plain EOF is the part's end
		return n, r.f.problem(err)
	}
	return n, err
}
