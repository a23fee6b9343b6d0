package submission

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// headerWriter fills a record's headers. Every record has twenty to thirty of
// them, so their values are pieces of one string instead of an allocation each.
type headerWriter struct {
	h      map[string]string
	values strings.Builder
	piece  [128]byte
}

// newHeaderWriter makes room for count headers and for bytes of written values.
// Both are what is usual, and may be exceeded: a map for 28 takes half the
// memory of one for 29.
func newHeaderWriter(count, bytes int) *headerWriter {
	w := &headerWriter{h: make(map[string]string, count)}
	w.values.Grow(bytes)
	return w
}

// free returns empty scratch to append a value to, for cut.
func (w *headerWriter) free() []byte { return w.piece[:0] }

// cut keeps value and returns it as a string. What was cut before stays valid
// where the builder has to grow.
func (w *headerWriter) cut(value []byte) string {
	from := w.values.Len()
	_, _ = w.values.Write(value) // never fails
	return w.values.String()[from:]
}

func (w *headerWriter) uuid(name string, id uuid.UUID) { w.h[name] = w.cut(appendUUID(w.free(), id)) }

func (w *headerWriter) time(name string, t time.Time) { w.h[name] = w.cut(appendStamp(w.free(), t)) }

func (w *headerWriter) int(name string, n int64) {
	w.h[name] = strconv.FormatInt(n, 10) // below 100 it allocates nothing
}

type headerReader struct {
	h   map[string]string
	err error
}

func (r *headerReader) fail(name, what string) {
	if r.err == nil {
		r.err = fmt.Errorf("record header %s %s", name, what)
	}
}

func (r *headerReader) version() {
	if v := r.int(HeaderVersion); r.err == nil && (v > RecordVersion || v < RecordVersion-1) {
		r.fail(HeaderVersion, fmt.Sprintf("is %d; this release reads %d and %d", v, RecordVersion-1, RecordVersion))
	}
}

func (r *headerReader) uuid(name string) uuid.UUID {
	id, err := uuid.Parse(r.h[name])
	if err != nil {
		r.fail(name, "is not a UUID")
	}
	return id
}

func (r *headerReader) int(name string) int {
	n, err := strconv.Atoi(r.h[name])
	if err != nil {
		r.fail(name, "is not a number")
	}
	return n
}

func (r *headerReader) time(name string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, r.h[name])
	if err != nil {
		r.fail(name, "is not a time (RFC 3339)")
	}
	return t.UTC()
}

// stamp writes a time in UTC with milliseconds: 2006-01-02T15:04:05.000Z.
func stamp(t time.Time) string { return string(appendStamp(nil, t)) }

// appendStamp appends what stamp returns. time.RFC3339 is a layout that package
// time writes by a way of its own, several times faster than one with fractions.
func appendStamp(b []byte, t time.Time) []byte {
	t = t.UTC()
	b = t.AppendFormat(b, time.RFC3339)
	ms := t.Nanosecond() / int(time.Millisecond)
	return append(b[:len(b)-1], '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}
