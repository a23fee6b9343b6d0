package status

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// body is how an entry stands in its row: the store's own form, since JSON costs
// more than the row it goes into. A change of it raises schemaVersion.
func (e *entry) body() []byte {
	w := rowWriter(make([]byte, 0, 1024+len(e.story)))
	w.int(int64(e.partition))
	w.int(e.next)
	w.bytes(e.story)
	w.account(e.acct)
	return w
}

var errBody = errors.New("an account in the store cannot be read")

// decodeEntry reads what body wrote.
func decodeEntry(row int64, raw []byte) (*entry, error) {
	r := rowReader{b: raw}
	e := &entry{row: row, partition: int32(r.int()), next: r.int(), acct: &submission.Account{}} //nolint:gosec // as it was written
	e.story = append(e.story, r.bytes()...)
	r.account(e.acct)
	if r.failed || len(r.b) > 0 {
		return nil, errBody
	}
	return e, nil
}

func (w *rowWriter) account(a *submission.Account) {
	w.uuid(a.ID)
	w.uuid(a.CaseID)
	w.text(a.Portal)
	w.text(string(a.Land))
	w.text(string(a.Service))
	w.text(string(a.Region))
	w.time(a.AcceptedAt)
	w.text(a.SHA512)
	w.uuid(a.Append)
	w.bool(a.Test)
	w.text(a.SenderHash)
	w.text(string(a.State))
	w.text(a.Reason)
	w.text(a.Detail)
	w.held(a.Held)
	w.time(a.UpdatedAt)
	w.int(int64(a.Dispatched))
	w.int(int64(a.Redrives))
	w.bool(a.Copied)
	w.int(int64(a.Instructed))
	w.bool(a.Decision != nil)
	if a.Decision != nil {
		w.decision(a.Decision)
	}
	w.uuid(a.DecisionID)
	w.int(int64(len(a.Deliveries)))
	for _, d := range a.Deliveries {
		w.delivery(d)
	}
	w.text(string(a.Own))
	w.desk(a)
}

func (r *rowReader) account(a *submission.Account) {
	a.ID, a.CaseID = r.uuid(), r.uuid()
	a.Portal, a.Land, a.Service, a.Region = r.text(), submission.Land(r.text()), submission.Service(r.text()), submission.Region(r.text())
	a.AcceptedAt, a.SHA512, a.Append, a.Test, a.SenderHash = r.time(), r.text(), r.uuid(), r.bool(), r.text()
	a.State, a.Reason, a.Detail, a.Held, a.UpdatedAt = submission.State(r.text()), r.text(), r.text(), r.held(), r.time()
	a.Dispatched, a.Redrives, a.Copied, a.Instructed = int(r.int()), int(r.int()), r.bool(), int(r.int())
	if r.bool() {
		a.Decision = r.decision()
	}
	a.DecisionID = r.uuid()
	for n := r.int(); n > 0 && !r.failed; n-- {
		a.Deliveries = append(a.Deliveries, r.delivery())
	}
	a.Own = submission.State(r.text())
	r.desk(a)
}

// desk writes what operators did; most accounts have nothing of it.
func (w *rowWriter) desk(a *submission.Account) {
	w.int(int64(len(a.Edits)))
	for _, e := range a.Edits {
		w.edit(e)
	}
	w.int(int64(a.Looks))
	w.int(int64(len(a.Looked)))
	for _, id := range a.Looked {
		w.uuid(id)
	}
}

func (r *rowReader) desk(a *submission.Account) {
	for n := r.int(); n > 0 && !r.failed; n-- {
		a.Edits = append(a.Edits, r.edit())
	}
	a.Looks = int(r.int())
	for n := r.int(); n > 0 && !r.failed; n-- {
		a.Looked = append(a.Looked, r.uuid())
	}
}

func (w *rowWriter) edit(e *submission.Edit) {
	w.uuid(e.ID)
	w.int(int64(e.Revision))
	for _, text := range []string{string(e.State), e.Operator, e.Reason, e.Authority, e.By, e.Word, e.Cause} {
		w.text(text)
	}
	w.time(e.At)
	w.time(e.Expires)
	w.time(e.Closed)
	w.int(int64(len(e.Fields)))
	for _, f := range e.Fields {
		w.text(f)
	}
	w.int(int64(e.More))
	w.held(e.Held)
	w.held(e.Original)
}

func (r *rowReader) edit() *submission.Edit {
	e := &submission.Edit{ID: r.uuid(), Revision: int(r.int()), State: submission.EditState(r.text()), Operator: r.text(), Reason: r.text(), Authority: r.text(),
		By: r.text(), Word: r.text(), Cause: r.text(), At: r.time(), Expires: r.time(), Closed: r.time()}
	for n := r.int(); n > 0 && !r.failed; n-- {
		e.Fields = append(e.Fields, r.text())
	}
	e.More, e.Held, e.Original = int(r.int()), r.held(), r.held()
	return e
}

func (w *rowWriter) decision(d *submission.Decision) {
	w.text(d.Authority.ID)
	w.text(string(d.Authority.Key))
	w.text(d.Authority.Name)
	w.text(string(d.Authority.Region))
	if d.Deliveries == nil {
		w.int(-1)
	} else {
		w.int(int64(len(d.Deliveries)))
	}
	for i := range d.Deliveries {
		p := &d.Deliveries[i]
		w.uuid(p.ID)
		w.text(p.Destination)
		w.text(p.Adapter)
		w.format(p.Format)
		w.bool(p.Replaces)
		w.int(p.Order)
	}
	w.text(d.Rule)
	w.text(d.ConfigHash)
	w.int(int64(d.Predecessor))
	w.time(d.At)
}

func (r *rowReader) decision() *submission.Decision {
	d := &submission.Decision{Authority: submission.Authority{ID: r.text(), Key: submission.AuthorityKey(r.text()), Name: r.text(), Region: submission.Region(r.text())}}
	n := r.int()
	if n >= 0 {
		d.Deliveries = []submission.PlannedDelivery{}
	}
	for ; n > 0 && !r.failed; n-- {
		d.Deliveries = append(d.Deliveries, submission.PlannedDelivery{ID: r.uuid(), Destination: r.text(), Adapter: r.text(), Format: r.format(), Replaces: r.bool(), Order: r.int()})
	}
	d.Rule, d.ConfigHash, d.Predecessor, d.At = r.text(), r.text(), int(r.int()), r.time()
	return d
}

func (w *rowWriter) delivery(d *submission.DeliveryAccount) {
	w.uuid(d.ID)
	w.int(int64(d.Revision))
	w.text(d.Destination)
	w.text(d.Adapter)
	w.format(d.Format)
	w.text(string(d.State))
	w.int(int64(d.Attempts))
	w.int(int64(d.Redrives))
	w.int(int64(d.Sequence))
	w.text(d.Reason)
	w.text(d.Detail)
	w.someTime(d.DueAt)
	w.text(d.Token)
	w.held(d.Held)
	w.int(d.Order)
	w.time(d.UpdatedAt)
	w.someTime(d.WaitingSince)
	w.uuid(d.DeadEvent)
	w.bool(d.Replaces)
}

func (r *rowReader) delivery() *submission.DeliveryAccount {
	return &submission.DeliveryAccount{ID: r.uuid(), Revision: int(r.int()), Destination: r.text(), Adapter: r.text(), Format: r.format(),
		State: submission.State(r.text()), Attempts: int(r.int()), Redrives: int(r.int()), Sequence: int(r.int()), Reason: r.text(), Detail: r.text(),
		DueAt: r.someTime(), Token: r.text(), Held: r.held(), Order: r.int(), UpdatedAt: r.time(), WaitingSince: r.someTime(), DeadEvent: r.uuid(), Replaces: r.bool()}
}

// rowWriter appends values.
type rowWriter []byte

func (w *rowWriter) int(v int64)      { *w = binary.AppendVarint(*w, v) }
func (w *rowWriter) uuid(v uuid.UUID) { *w = append(*w, v[:]...) }
func (w *rowWriter) bytes(v []byte)   { *w = append(binary.AppendUvarint(*w, uint64(len(v))), v...) }
func (w *rowWriter) format(f submission.Format) {
	w.text(f.Standard)
	w.text(f.Version)
	w.text(f.Message)
}

func (w *rowWriter) bool(v bool) {
	if v {
		*w = append(*w, 1)
	} else {
		*w = append(*w, 0)
	}
}

// text writes a string; hex digits, which the hashes are, take half their room.
func (w *rowWriter) text(v string) {
	if len(v) >= 32 {
		if raw, ok := unhex(v); ok {
			*w = append(binary.AppendUvarint(*w, uint64(len(raw))<<1|1), raw...)
			return
		}
	}
	*w = append(binary.AppendUvarint(*w, uint64(len(v))<<1), v...)
}

// unhex reads lower-case hex digits.
func unhex(v string) ([]byte, bool) {
	for i := range len(v) {
		if c := v[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return nil, false
		}
	}
	raw, err := hex.DecodeString(v)
	return raw, err == nil
}

// time keeps nanoseconds and the zone's offset, as RFC 3339 does.
func (w *rowWriter) time(v time.Time) {
	_, zone := v.Zone()
	w.int(v.Unix())
	w.int(int64(v.Nanosecond()))
	w.int(int64(zone))
}

func (w *rowWriter) someTime(v *time.Time) {
	w.bool(v != nil)
	if v != nil {
		w.time(*v)
	}
}

func (w *rowWriter) held(h *submission.Held) {
	w.bool(h != nil)
	if h != nil {
		w.text(h.Topic)
		w.int(int64(h.Partition))
		w.int(h.Offset)
	}
}

// rowReader takes values off; after a failure all are zero.
type rowReader struct {
	b      []byte
	failed bool
}

func (r *rowReader) fail() { r.b, r.failed = nil, true }

func (r *rowReader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *rowReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *rowReader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *rowReader) bytes() []byte { return r.take(r.uint()) }
func (r *rowReader) format() submission.Format {
	return submission.Format{Standard: r.text(), Version: r.text(), Message: r.text()}
}

func (r *rowReader) uuid() (id uuid.UUID) {
	copy(id[:], r.take(16))
	return id
}

func (r *rowReader) bool() bool {
	v := r.take(1)
	return len(v) == 1 && v[0] == 1
}

func (r *rowReader) text() string {
	n := r.uint()
	if v := r.take(n >> 1); n&1 == 0 {
		return string(v)
	} else {
		return hex.EncodeToString(v)
	}
}

func (r *rowReader) time() time.Time {
	sec, nano, zone := r.int(), r.int(), r.int()
	t := time.Unix(sec, nano).UTC()
	if zone != 0 {
		t = t.In(time.FixedZone("", int(zone)))
	}
	return t
}

func (r *rowReader) someTime() *time.Time {
	if !r.bool() {
		return nil
	}
	t := r.time()
	return &t
}

func (r *rowReader) held() *submission.Held {
	if !r.bool() {
		return nil
	}
	return &submission.Held{Topic: r.text(), Partition: int32(r.int()), Offset: r.int()} //nolint:gosec // as it was written
}
