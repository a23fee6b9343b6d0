package submission

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// The account's events are written and read for every submission several times,
// so their JSON is made and read by hand. The bytes are those of encoding/json,
// which reads whatever is written in another way.

// Encode writes the event's record value.
func (e Event) Encode() ([]byte, error) {
	w := jsonWriter{b: make([]byte, 0, 768)}
	w.event(&e)
	return w.b, w.err
}

// DecodeEvent reads what Encode wrote, and any other JSON of the same content.
func DecodeEvent(b []byte) (Event, error) {
	var e Event
	r := jsonReader{b: b}
	if r.event(&e); r.failed || r.i != len(b) {
		e = Event{}
		if err := json.Unmarshal(b, &e); err != nil {
			return Event{}, err
		}
	}
	if e.Type == "" || e.ID == uuid.Nil {
		return Event{}, errors.New("event has no type or no id")
	}
	return e, nil
}

func (w *jsonWriter) event(e *Event) {
	w.open()
	w.uuid("id", e.ID)
	w.text("type", string(e.Type))
	w.time("at", e.At)
	w.text("stage", string(e.Stage))
	w.int("epoch", e.Epoch)
	w.someUUID("submission", e.Submission)
	w.someUUID("caseId", e.CaseID)
	w.some("portal", e.Portal)
	w.some("land", string(e.Land))
	w.some("service", string(e.Service))
	w.someInt("revision", int64(e.Revision))
	if a := e.Accepted; a != nil {
		w.key("accepted")
		w.acceptance(a)
	}
	if d := e.Decision; d != nil {
		w.key("decision")
		w.decision(d)
	}
	w.someUUID("deliveryId", e.DeliveryID)
	w.some("destination", e.Destination)
	w.some("adapter", e.Adapter)
	w.someInt("attempt", int64(e.Attempt))
	w.someInt("redrive", int64(e.Redrive))
	w.someInt("sequence", int64(e.Sequence))
	w.some("reason", e.Reason)
	w.some("class", e.Class)
	w.some("detail", e.Detail)
	if e.DueAt != nil {
		w.time("dueAt", *e.DueAt)
	}
	w.someInt("durationMs", e.DurationMS)
	w.some("token", e.Token)
	if h := e.Held; h != nil {
		w.key("held")
		w.open()
		w.text("topic", h.Topic)
		w.int("partition", int64(h.Partition))
		w.int("offset", h.Offset)
		w.close()
	}
	w.someInt("order", e.Order)
	w.some("operator", e.Operator)
	w.some("note", e.Note)
	if e.Edit != nil { // seldom: encoding/json writes it, and reads it
		w.value("edit", e.Edit)
	}
	if c := e.Checkpoint; c != nil {
		w.key("checkpoint")
		w.open()
		w.int("offset", c.Offset)
		w.text("hash", c.Hash)
		w.text("jws", c.JWS)
		w.close()
	}
	if e.Counted != nil { // likewise
		w.value("counted", e.Counted)
	}
	w.close()
}

func (w *jsonWriter) acceptance(a *Acceptance) {
	w.open()
	w.text("region", string(a.Region))
	w.time("acceptedAt", a.AcceptedAt)
	w.text("sha512", a.SHA512)
	w.uuid("append", a.Append)
	w.someTrue("test", a.Test)
	w.some("senderHash", a.SenderHash)
	w.int("offset", a.Offset)
	w.close()
}

func (w *jsonWriter) decision(d *Decision) {
	w.open()
	w.key("authority")
	w.open()
	w.text("id", d.Authority.ID)
	w.text("key", string(d.Authority.Key))
	w.text("name", d.Authority.Name)
	w.some("region", string(d.Authority.Region))
	w.close()
	w.key("deliveries")
	if d.Deliveries == nil {
		w.b = append(w.b, "null"...)
	} else {
		w.b = append(w.b, '[')
		for i := range d.Deliveries {
			if i > 0 {
				w.b = append(w.b, ',')
			}
			w.planned(&d.Deliveries[i])
		}
		w.b = append(w.b, ']')
	}
	w.text("rule", d.Rule)
	w.text("configHash", d.ConfigHash)
	w.someInt("predecessor", int64(d.Predecessor))
	w.time("at", d.At)
	w.close()
}

func (w *jsonWriter) planned(p *PlannedDelivery) {
	w.open()
	w.uuid("id", p.ID)
	w.text("destination", p.Destination)
	w.text("adapter", p.Adapter)
	w.text("format", p.Format.String())
	w.someTrue("replaces", p.Replaces)
	w.someInt("order", p.Order)
	w.close()
}

// jsonWriter writes an object's members; the first error stays.
type jsonWriter struct {
	b   []byte
	err error
}

func (w *jsonWriter) open()  { w.b = append(w.b, '{') }
func (w *jsonWriter) close() { w.b = append(w.b, '}') }

func (w *jsonWriter) key(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(append(append(w.b, '"'), name...), `":`...)
}

func (w *jsonWriter) text(name, v string) {
	w.key(name)
	if plain(v) {
		w.b = append(append(append(w.b, '"'), v...), '"')
		return
	}
	quoted, err := json.Marshal(v)
	w.fail(err)
	w.b = append(w.b, quoted...)
}

func (w *jsonWriter) value(name string, v any) {
	w.key(name)
	b, err := json.Marshal(v)
	w.fail(err)
	w.b = append(w.b, b...)
}

func (w *jsonWriter) some(name, v string) {
	if v != "" {
		w.text(name, v)
	}
}

func (w *jsonWriter) int(name string, v int64) {
	w.key(name)
	w.b = strconv.AppendInt(w.b, v, 10)
}

func (w *jsonWriter) someInt(name string, v int64) {
	if v != 0 {
		w.int(name, v)
	}
}

func (w *jsonWriter) someTrue(name string, v bool) {
	if v {
		w.key(name)
		w.b = append(w.b, "true"...)
	}
}

func (w *jsonWriter) uuid(name string, v uuid.UUID) {
	w.key(name)
	w.b = append(appendUUID(append(w.b, '"'), v), '"')
}

func (w *jsonWriter) someUUID(name string, v uuid.UUID) {
	if v != uuid.Nil {
		w.uuid(name, v)
	}
}

func (w *jsonWriter) time(name string, v time.Time) {
	w.key(name)
	b, err := v.AppendText(append(w.b, '"'))
	w.fail(err)
	w.b = append(b, '"')
}

func (w *jsonWriter) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// plain says whether encoding/json writes a string as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c == 0x7f {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789abcdef"

func appendUUID(b []byte, id uuid.UUID) []byte {
	for i, v := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, hexDigits[v>>4], hexDigits[v&15])
	}
	return b
}

// event reads the members in the order in which they are written. Whatever is
// otherwise (order, white space, escapes, unknown members) fails, and is left
// to encoding/json.
func (r *jsonReader) event(e *Event) {
	r.open()
	r.uuid("id", &e.ID)
	text(r, "type", &e.Type)
	r.time("at", &e.At)
	text(r, "stage", &e.Stage)
	number(r, "epoch", &e.Epoch)
	r.uuid("submission", &e.Submission)
	r.uuid("caseId", &e.CaseID)
	text(r, "portal", &e.Portal)
	text(r, "land", &e.Land)
	text(r, "service", &e.Service)
	number(r, "revision", &e.Revision)
	if r.key("accepted") {
		e.Accepted = &Acceptance{}
		r.acceptance(e.Accepted)
	}
	if r.key("decision") {
		e.Decision = &Decision{}
		r.decision(e.Decision)
	}
	r.uuid("deliveryId", &e.DeliveryID)
	text(r, "destination", &e.Destination)
	text(r, "adapter", &e.Adapter)
	number(r, "attempt", &e.Attempt)
	number(r, "redrive", &e.Redrive)
	number(r, "sequence", &e.Sequence)
	text(r, "reason", &e.Reason)
	text(r, "class", &e.Class)
	text(r, "detail", &e.Detail)
	var due time.Time
	if r.time("dueAt", &due) {
		e.DueAt = &due
	}
	number(r, "durationMs", &e.DurationMS)
	text(r, "token", &e.Token)
	if r.key("held") {
		e.Held = &Held{}
		r.open()
		text(r, "topic", &e.Held.Topic)
		number(r, "partition", &e.Held.Partition)
		number(r, "offset", &e.Held.Offset)
		r.close()
	}
	number(r, "order", &e.Order)
	text(r, "operator", &e.Operator)
	text(r, "note", &e.Note)
	if r.key("checkpoint") {
		e.Checkpoint = &Checkpoint{}
		r.open()
		number(r, "offset", &e.Checkpoint.Offset)
		text(r, "hash", &e.Checkpoint.Hash)
		text(r, "jws", &e.Checkpoint.JWS)
		r.close()
	}
	r.close()
}

func (r *jsonReader) acceptance(a *Acceptance) {
	r.open()
	text(r, "region", &a.Region)
	r.time("acceptedAt", &a.AcceptedAt)
	text(r, "sha512", &a.SHA512)
	r.uuid("append", &a.Append)
	r.someTrue("test", &a.Test)
	text(r, "senderHash", &a.SenderHash)
	number(r, "offset", &a.Offset)
	r.close()
}

func (r *jsonReader) decision(d *Decision) {
	r.open()
	if r.key("authority") {
		r.open()
		text(r, "id", &d.Authority.ID)
		text(r, "key", &d.Authority.Key)
		text(r, "name", &d.Authority.Name)
		text(r, "region", &d.Authority.Region)
		r.close()
	}
	if r.key("deliveries") {
		r.deliveries(d)
	}
	text(r, "rule", &d.Rule)
	text(r, "configHash", &d.ConfigHash)
	number(r, "predecessor", &d.Predecessor)
	r.time("at", &d.At)
	r.close()
}

func (r *jsonReader) someTrue(name string, to *bool) {
	if r.key(name) {
		r.literal("true")
		*to = true
	}
}

func (r *jsonReader) deliveries(d *Decision) {
	r.literal("[")
	d.Deliveries = []PlannedDelivery{}
	for !r.failed && !r.next("]") {
		if len(d.Deliveries) > 0 {
			r.literal(",")
		}
		var p PlannedDelivery
		r.open()
		r.uuid("id", &p.ID)
		text(r, "destination", &p.Destination)
		text(r, "adapter", &p.Adapter)
		if r.key("format") && p.Format.UnmarshalText(r.quoted()) != nil {
			r.failed = true
		}
		r.someTrue("replaces", &p.Replaces)
		number(r, "order", &p.Order)
		r.close()
		d.Deliveries = append(d.Deliveries, p)
	}
}

// jsonReader reads what a jsonWriter wrote. Members that are not there are
// passed; after a failure nothing is read.
type jsonReader struct {
	b      []byte
	i      int
	first  bool // no member of the present object has been read
	failed bool
}

// next consumes a token if it stands here.
func (r *jsonReader) next(token string) bool {
	if end := r.i + len(token); !r.failed && end <= len(r.b) && string(r.b[r.i:end]) == token {
		r.i = end
		return true
	}
	return false
}

func (r *jsonReader) literal(token string) {
	if !r.next(token) {
		r.failed = true
	}
}

func (r *jsonReader) open()  { r.literal("{"); r.first = true }
func (r *jsonReader) close() { r.literal("}"); r.first = false }

func (r *jsonReader) key(name string) bool {
	i := r.i
	if r.first || r.next(",") {
		if r.next(`"`) && r.next(name) && r.next(`":`) {
			r.first = false
			return true
		}
	}
	r.i = i
	return false
}

// quoted returns the content of a string without escapes.
func (r *jsonReader) quoted() []byte {
	r.literal(`"`)
	wide := false
	for j := r.i; j < len(r.b) && !r.failed; j++ {
		switch c := r.b[j]; {
		case c == '"':
			s := r.b[r.i:j]
			r.i = j + 1
			r.failed = wide && !utf8.Valid(s)
			return s
		case c == '\\' || c < 0x20:
			r.failed = true
		case c >= utf8.RuneSelf:
			wide = true
		}
	}
	r.failed = true
	return nil
}

func text[T ~string](r *jsonReader, name string, to *T) {
	if r.key(name) {
		*to = T(r.quoted())
	}
}

func number[T int | int32 | int64](r *jsonReader, name string, to *T) {
	if !r.key(name) {
		return
	}
	from := r.i
	r.next("-")
	digits := r.i
	for r.i < len(r.b) && '0' <= r.b[r.i] && r.b[r.i] <= '9' {
		r.i++
	}
	n, err := strconv.ParseInt(string(r.b[from:r.i]), 10, 64)
	*to = T(n)
	if err != nil || int64(*to) != n || r.b[digits] == '0' && r.i > digits+1 {
		r.failed = true
	}
}

func (r *jsonReader) uuid(name string, to *uuid.UUID) {
	if !r.key(name) {
		return
	}
	id, err := uuid.ParseBytes(r.quoted())
	*to = id
	r.failed = r.failed || err != nil
}

func (r *jsonReader) time(name string, to *time.Time) bool {
	if !r.key(name) {
		return false
	}
	if err := to.UnmarshalText(r.quoted()); err != nil {
		r.failed = true
	}
	return true
}
