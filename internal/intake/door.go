// Package intake is the portals' door, whatever transport they come by: it
// checks a submission, stores its files encrypted, decides by the claims which
// body an Idempotency-Key stands for, appends the submission and gives a signed
// receipt. The packages http and kafka bring submissions to it.
//
// What it promises: Accept returns without an error only after the broker has
// acknowledged the durable append; one key stands for one body on whatever
// replica; repeats get the same receipt. What it refuses: it repeats no payload
// in problems, logs, metrics or headers; it decides nothing about
// responsibility and writes no message; it builds nothing from a text before
// that text was scanned for size, depth and shape.
package intake

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/seal"
	"weiche/internal/submission"
	"weiche/internal/telemetry"
)

// TopicSubmissions holds what was accepted.
const TopicSubmissions = "weiche.submissions"

// SectionSubmission is the section of a record's box that holds the envelope:
// JSON of submission.Envelope, its attachments without content, with blob and
// size.
const SectionSubmission = "submission"

// SectionAttachments is the section that holds the list of the envelope's
// attachments once more, as JSON, [] where there are none: delivery needs no
// more than that and the message.
const SectionAttachments = "attachments"

// rehearsalTime bounds how long a submission is rehearsed; what takes longer is
// accepted as if nothing had been found.
const rehearsalTime = 2 * time.Second

// Rehearsal finds out what dispatch will make of a submission that is not
// accepted yet.
type Rehearsal interface {
	// Rehearse returns the rules that the submission's message would break by the
	// form's fault, with pointers into the submission; none where it would go on
	// its way, is nobody's yet, or would fail for another reason.
	Rehearse(m submission.Meta, env *submission.Envelope) []Fault
}

// finishTime bounds what follows once everything of a submission has arrived
// and is checked: claim, blobs' deletion, append.
const finishTime = 30 * time.Second

// Appender writes records and returns after the broker's answer for all.
type Appender interface {
	Append(ctx context.Context, recs ...*bus.Record) error
}

// Keys makes data keys and keyed hashes.
type Keys interface {
	NewDataKey(ctx context.Context, land submission.Land, at time.Time) (*seal.DataKey, error)
	HashReference(portal, reference string) string
}

// Vault stores files and large sections encrypted.
type Vault interface {
	PutSection(ctx context.Context, key *seal.DataKey, box *seal.Box, prefix, name string, plain []byte) error
	PutFile(ctx context.Context, key *seal.DataKey, name string, plain io.Reader) (size int64, sha512hex string, err error)
}

// Blobs deletes what a refused submission had stored.
type Blobs interface {
	Delete(ctx context.Context, name string) error
}

// Signer signs receipts. The same bytes have the same signature.
type Signer interface {
	Sign(payload []byte) (string, error)
	JWKS() []byte
}

// Parts are the file parts of a multipart submission, in the order they come.
// Next returns io.EOF behind the last one; the reader is valid until the next
// call.
type Parts interface {
	Next() (name string, file io.Reader, err error)
}

// Post is one submission as it was posted.
type Post struct {
	Portal         string // already authenticated
	IdempotencyKey string
	Traceparent    string // W3C; replaced where it is malformed
	Body           []byte // the JSON; its SHA-512 is the submission's
	Parts          Parts  // nil: there are none
}

// Accepted is what the portal gets to know.
type Accepted struct {
	ID         uuid.UUID
	CaseID     uuid.UUID
	AcceptedAt time.Time
	SHA512     string // hex
	Receipt    string // compact JWS
	Repeat     bool   // it had been posted before
	Land       submission.Land
	Service    submission.Service
}

// Receipt is what the signature covers. The order of its members is fixed.
type Receipt struct {
	SubmissionID uuid.UUID `json:"submissionId"`
	CaseID       uuid.UUID `json:"caseId"`
	Portal       string    `json:"portal"`
	SHA512       string    `json:"sha512"`
	AcceptedAt   string    `json:"acceptedAt"`
}

// TimeLayout is how times are written for portals: UTC, milliseconds.
const TimeLayout = "2006-01-02T15:04:05.000Z07:00"

// Deps are the parts a Door works with.
type Deps struct {
	Log    Appender
	Claims *Claims
	Past   Past // asked where the claims have been forgotten; nil: they are kept for ever
	Keys   Keys
	Vault  Vault
	Blobs  Blobs
	Signer Signer
	// Rehearsal is asked before a submission is accepted; nil: it is not.
	Rehearsal Rehearsal
	Limits    config.Limits
	Now       func() time.Time
	Logger    *slog.Logger
	Reg       prometheus.Registerer
}

// Door accepts submissions. It is safe for concurrent use.
type Door struct {
	d       Deps
	metrics *metrics
	book    atomic.Pointer[Book]
}

// NewDoor makes a door over a configuration. Use exchanges the configuration.
func NewDoor(d Deps, book Book) *Door {
	if d.Now == nil {
		d.Now = time.Now
	}
	door := &Door{d: d, metrics: newMetrics(d.Reg)}
	door.Use(book)
	return door
}

// Use makes a configuration the one in force, for submissions that come from
// now on.
func (d *Door) Use(book Book) {
	for key, land := range book.Config.Lands {
		for _, o := range land.Services {
			d.metrics.offered(key, o.Service)
		}
	}
	d.book.Store(&book)
}

// Portal returns a portal of the configuration in force.
func (d *Door) Portal(id string) (*config.Portal, bool) {
	p, ok := d.book.Load().Config.Portals[id]
	return p, ok
}

// Limits are the bounds the door was made with.
func (d *Door) Limits() config.Limits { return d.d.Limits }

// JWKS is the public key set of the receipts.
func (d *Door) JWKS() []byte { return d.d.Signer.JWKS() }

// Refused counts a refusal that a transport made before Accept.
func (d *Door) Refused(r fault.Reason) { d.metrics.refused(r) }

// Began counts a submission that is being received; the returned function ends
// that.
func (d *Door) Began() (end func()) {
	d.metrics.inFlight.Inc()
	return d.metrics.inFlight.Dec
}

// Accept checks a submission and stores it durably. The error is always a
// *Problem; a nil error means that the broker has acknowledged the append. When
// ctx ends before everything was received and checked, nothing is accepted;
// afterwards the work goes on for at most finishTime, so that a portal that
// hangs up leaves no claim without its submission.
func (d *Door) Accept(ctx context.Context, post Post) (Accepted, error) {
	start := d.d.Now()
	a := attempt{door: d, post: post, sum: sha512.Sum512(post.Body)}
	acc, p := a.run(ctx)
	if p != nil {
		p.Meta = a.meta
		d.metrics.refused(p.Reason)
		return Accepted{}, p
	}
	d.metrics.claims.Set(float64(d.d.Claims.Len()))
	d.metrics.accepted(acc, d.d.Now().Sub(start))
	return acc, nil
}

// attempt is one run of Accept.
type attempt struct {
	door  *Door
	post  Post
	sum   [sha512.Size]byte
	meta  submission.Meta
	blobs []string // stored so far
}

func (a *attempt) run(ctx context.Context) (Accepted, *Problem) {
	deps := &a.door.d
	book := a.door.book.Load()
	portal, ok := book.Config.Portals[a.post.Portal]
	if !ok {
		return Accepted{}, NewProblem(fault.ReasonUnauthenticated)
	}
	if p := CheckKey(a.post.IdempotencyKey); p != nil {
		return Accepted{}, p
	}
	a.meta = submission.Meta{
		ID: submission.NewID(portal.ID, a.post.IdempotencyKey), Portal: portal.ID, Land: submission.LandNone,
		SHA512: hex.EncodeToString(a.sum[:]), Revision: 1, Append: uuid.New(),
		AcceptedAt:  deps.Now().UTC().Truncate(time.Millisecond),
		Traceparent: a.post.Traceparent,
	}
	a.meta.CaseID = submission.NewCaseID(a.meta.ID)
	if !telemetry.ValidTraceparent(a.meta.Traceparent) {
		a.meta.Traceparent = telemetry.NewTraceparent()
	}

	in, p := parse(a.post.Body, deps.Limits.Depth, deps.Limits.Attachments)
	if p != nil {
		return Accepted{}, p
	}
	env := in.envelope
	if env.CaseID != "" {
		a.meta.CaseID = uuid.MustParse(env.CaseID) // its shape was checked
	}
	a.meta.Test = env.Test
	if r := env.AdditionalReferenceInfo; r != nil && r.SenderReference != "" {
		a.meta.SenderHash = deps.Keys.HashReference(portal.ID, r.SenderReference)
	}
	form, p := book.admit(portal, env, &a.meta)
	if p != nil {
		return Accepted{}, p
	}
	if faults := form.Check(in.form); len(faults) > 0 {
		p := NewProblem(fault.ReasonFormInvalid)
		for _, f := range faults {
			p.add("/data"+f.Pointer, f.Text)
		}
		return Accepted{}, p.tidy()
	}
	// A claim that is known already spares the other body its blobs.
	first, known, err := a.claimed(ctx)
	if err != nil {
		return Accepted{}, ProblemOf(err)
	}
	if known {
		if !first.Same(a.sum) {
			return Accepted{}, NewProblem(fault.ReasonKeyReused)
		}
		// The key of the day that everything is accounted under, so that it is not
		// destroyed while this submission is unfinished.
		a.meta.AcceptedAt = first.AcceptedAt()
	}

	key, err := deps.Keys.NewDataKey(ctx, a.meta.Land, a.meta.AcceptedAt)
	if err != nil {
		return Accepted{}, ProblemOf(err)
	}
	prefix := fmt.Sprintf("%s/%s/%s/%s", a.meta.Land, a.meta.AcceptedAt.Format(time.DateOnly), a.meta.ID, a.meta.Append)
	if p := a.store(ctx, key, prefix, env.Attachments); p != nil {
		a.drop(ctx)
		return Accepted{}, p
	}
	if err := ctx.Err(); err != nil {
		a.drop(ctx)
		return Accepted{}, ProblemOf(err)
	}
	if !known { // what was accepted once is not judged again
		if p := a.rehearse(env); p != nil {
			a.drop(ctx)
			return Accepted{}, p
		}
	}
	failpoint.Hit("intake.blobs-stored")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	return a.finish(ctx, key, prefix, env, first, known)
}

// rehearse refuses what would become a dead letter by the form's own fault. A
// rehearsal that fails inside or takes too long refuses nothing.
func (a *attempt) rehearse(env *submission.Envelope) *Problem {
	r := a.door.d.Rehearsal
	if r == nil {
		return nil
	}
	own := *env
	found := make(chan []Fault, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				// Its text may quote the form.
				a.door.d.Logger.Error("a rehearsal failed inside", "submission", a.meta.ID.String(), "panic", fmt.Sprintf("%T", v))
				found <- nil
			}
		}()
		found <- r.Rehearse(a.meta, &own)
	}()
	late := time.NewTimer(rehearsalTime)
	defer late.Stop()
	var faults []Fault
	select {
	case faults = <-found:
	case <-late.C:
		a.door.d.Logger.Warn("a rehearsal took too long; the submission is accepted without it", "submission", a.meta.ID.String(), "land", string(a.meta.Land), "service", string(a.meta.Service))
	}
	if len(faults) == 0 {
		return nil
	}
	p := NewProblem(fault.ReasonMessageRefused)
	for _, f := range faults {
		p.add(f.Pointer, f.Text)
	}
	return p.tidy()
}

// claimed returns the first claim of the submission's id, as far as it is known
// without making one: by the claims, or by the account where the claims have
// been forgotten.
func (a *attempt) claimed(ctx context.Context) (Claim, bool, error) {
	deps := &a.door.d
	first, known := deps.Claims.Lookup(a.meta.ID, a.meta.AcceptedAt)
	if known || deps.Past == nil || !deps.Claims.Gaps() {
		return first, known, nil
	}
	sum, at, ok, err := deps.Past.Accepted(ctx, a.meta.ID)
	if err != nil || !ok {
		return Claim{}, false, err
	}
	first, err = newClaim(sum, at.UnixMilli())
	return first, err == nil, err
}

// finish claims the key and appends the submission. Everything is checked.
func (a *attempt) finish(ctx context.Context, key *seal.DataKey, prefix string, env *submission.Envelope, first Claim, known bool) (Accepted, *Problem) {
	deps := &a.door.d
	if !known {
		var err error
		if first, err = deps.Claims.Claim(ctx, a.meta); err != nil {
			a.drop(ctx) // no submission names these blobs
			return Accepted{}, ProblemOf(err)
		}
		if !first.Same(a.sum) {
			a.drop(ctx)
			return Accepted{}, NewProblem(fault.ReasonKeyReused)
		}
		// Equal times are no proof that the claim was ours, but two posts of one
		// body in one millisecond make no difference worth counting.
		known = !first.AcceptedAt().Equal(a.meta.AcceptedAt)
	}
	a.meta.AcceptedAt = first.AcceptedAt()

	value, err := a.seal(ctx, key, prefix, env)
	if err != nil {
		a.drop(ctx)
		return Accepted{}, ProblemOf(err)
	}
	acc := Accepted{
		ID: a.meta.ID, CaseID: a.meta.CaseID, AcceptedAt: a.meta.AcceptedAt, SHA512: a.meta.SHA512, Repeat: known,
		Land: a.meta.Land, Service: a.meta.Service,
	}
	// The receipt is made before the append: what was stored can be answered.
	if acc.Receipt, err = a.receipt(); err != nil {
		a.drop(ctx)
		return Accepted{}, ProblemOf(err)
	}
	// From here on the blobs stay: a failed append may have reached the log.
	err = deps.Log.Append(ctx, &bus.Record{
		Topic: TopicSubmissions, Partition: bus.AnyPartition, Key: []byte(a.meta.CaseID.String()),
		Value: value, Headers: a.meta.Headers(submission.TypeSubmission),
	})
	if err != nil {
		return Accepted{}, ProblemOf(err)
	}
	failpoint.Hit("intake.submission-appended")
	return acc, nil
}

// seal makes the record's value.
func (a *attempt) seal(ctx context.Context, key *seal.DataKey, prefix string, env *submission.Envelope) ([]byte, error) {
	box := &seal.Box{Subject: a.meta.ID.String(), Key: key.Wrapped()}
	put := func(section string, plain []byte, err error) error {
		if err != nil {
			return err
		}
		return a.door.d.Vault.PutSection(ctx, key, box, prefix, section, plain)
	}
	whole, err := env.Encode()
	if err := put(SectionSubmission, whole, err); err != nil {
		return nil, err
	}
	list, err := submission.EncodeAttachments(env.Attachments)
	if err := put(SectionAttachments, list, err); err != nil {
		return nil, err
	}
	return box.MarshalBinary()
}

func (a *attempt) receipt() (string, error) {
	b, err := json.Marshal(Receipt{
		SubmissionID: a.meta.ID, CaseID: a.meta.CaseID, Portal: a.meta.Portal, SHA512: a.meta.SHA512,
		AcceptedAt: a.meta.AcceptedAt.Format(TimeLayout),
	})
	if err != nil {
		return "", err
	}
	return a.door.d.Signer.Sign(b)
}

// CheckKey checks an Idempotency-Key.
func CheckKey(key string) *Problem {
	if key == "" {
		return NewProblem(fault.ReasonKeyMissing)
	}
	if len(key) > 255 {
		return NewProblem(fault.ReasonKeyMalformed)
	}
	for i := 0; i < len(key); i++ {
		if key[i] < 0x20 || key[i] > 0x7E {
			return NewProblem(fault.ReasonKeyMalformed)
		}
	}
	if strings.TrimSpace(key) != key {
		return NewProblem(fault.ReasonKeyMalformed)
	}
	return nil
}

var (
	errFileTooLarge = errors.New("file too large")
	errSumTooLarge  = errors.New("submission too large")
	errBase64       = errors.New("not base64")
)

// store writes the attachments into encrypted blobs, verifies their hashes, and
// takes content and part out of the envelope. All wrong hashes of a JSON body
// are told at once; a multipart body is refused at its first fault, because the
// rest of it would have to be received for nothing.
func (a *attempt) store(ctx context.Context, key *seal.DataKey, prefix string, list []submission.Attachment) *Problem {
	limits := &a.door.d.Limits
	left := int64(limits.SubmissionBytes) - int64(len(a.post.Body))
	put := func(i int, r io.Reader) *Problem {
		at := &list[i]
		name := fmt.Sprintf("%s/%d", prefix, i)
		b := &boundedReader{r: r, file: int64(limits.AttachmentBytes), sum: left}
		a.blobs = append(a.blobs, name)
		size, sum, err := a.door.d.Vault.PutFile(ctx, key, name, b)
		pointer := fmt.Sprintf("/attachments/%d", i)
		switch {
		case errors.Is(b.err, errFileTooLarge):
			return refuse(fault.ReasonTooLarge, tooLargeFile, int64(limits.AttachmentBytes)).at(pointer, textFileTooLarge)
		case errors.Is(b.err, errSumTooLarge):
			return refuse(fault.ReasonTooLarge, tooLargeSum, int64(limits.SubmissionBytes)).at(pointer, textFileTooLarge)
		case errors.Is(b.err, errBase64):
			return NewProblem(fault.ReasonEnvelopeInvalid).at(pointer+"/content", textBase64)
		case b.err != nil:
			return ProblemOf(b.err)
		case err != nil:
			return storageProblem(err)
		}
		left -= size
		if !strings.EqualFold(sum, at.Hash.Content) {
			return NewProblem(fault.ReasonHashMismatch).at(pointer+"/hash/content", textHash)
		}
		at.Content, at.Part, at.Blob, at.Size = "", "", name, size
		at.Hash.Content = sum
		return nil
	}

	var all *Problem
	named := map[string]int{}
	for i := range list {
		if list[i].Part != "" {
			named[list[i].Part] = i
			continue
		}
		p := put(i, base64Reader(list[i].Content))
		switch {
		case p == nil:
		case p.Reason != fault.ReasonHashMismatch && p.Reason != fault.ReasonEnvelopeInvalid:
			return p
		case all == nil:
			all = p
		case all.Reason == p.Reason:
			all.Faults = append(all.Faults, p.Faults...)
		}
	}
	if all != nil {
		return all
	}
	if a.post.Parts == nil {
		if len(named) == 0 {
			return nil
		}
		return missing(list, named, partWithoutBody)
	}
	for n := 1; ; n++ {
		name, file, err := a.post.Parts.Next()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a body that ends too early
			break
		}
		if err != nil {
			return ProblemOf(err)
		}
		i, ok := named[name]
		if !ok {
			return refuse(fault.ReasonPartMismatch, unknownPart, n)
		}
		delete(named, name)
		if p := put(i, file); p != nil {
			return p
		}
	}
	if len(named) > 0 {
		return missing(list, named, missingPart)
	}
	return nil
}

func missing(list []submission.Attachment, named map[string]int, d detail) *Problem {
	p := refuse(fault.ReasonPartMismatch, d)
	for i := range list {
		if _, ok := named[list[i].Part]; ok && list[i].Part != "" {
			p.add(fmt.Sprintf("/attachments/%d/part", i), textNoPart)
		}
	}
	return p
}

// storageProblem classes what the vault says: it is the disk's fault unless it
// was classed otherwise.
func storageProblem(err error) *Problem {
	p := ProblemOf(err)
	if p.Reason == fault.ReasonUnknown {
		p = NewProblem(fault.ReasonStorage)
		p.Err = err
	}
	return p
}

// drop deletes the blobs of a submission that is refused. What cannot be
// deleted is swept after a day.
func (a *attempt) drop(ctx context.Context) {
	if len(a.blobs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	for _, name := range a.blobs {
		if err := a.door.d.Blobs.Delete(ctx, name); err != nil {
			a.door.d.Logger.Warn("a blob of a refused submission could not be deleted; the sweep will", "submission", a.meta.ID.String(),
				"reason", string(fault.Of(err).Reason))
			return
		}
	}
}

// boundedReader fails at the limits and remembers what went wrong, apart from
// what the vault makes of it.
type boundedReader struct {
	r         io.Reader
	file, sum int64 // bytes left
	err       error
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	b.file -= int64(n)
	b.sum -= int64(n)
	switch {
	case b.file < 0:
		b.err = errFileTooLarge
	case b.sum < 0:
		b.err = errSumTooLarge
	case err != nil && !errors.Is(err, io.EOF):
		b.err = err
		var corrupt base64.CorruptInputError
		if errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) && isBase64(b.r) {
			b.err = errBase64
		}
	default:
		return n, err
	}
	return n, b.err
}

type base64Content struct{ io.Reader }

func base64Reader(s string) io.Reader {
	return base64Content{base64.NewDecoder(base64.StdEncoding, strings.NewReader(s))}
}

func isBase64(r io.Reader) bool { _, ok := r.(base64Content); return ok }
