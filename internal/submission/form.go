package submission

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Form returns the form data as a tree of map[string]any, []any, string,
// json.Number, bool and nil: what a json.Decoder with UseNumber makes of Data.
// It is read once; whoever gets it must not change it.
func (e *Envelope) Form() (any, error) {
	if e.form != nil {
		return e.form, nil
	}
	form, err := decodeForm(e.Data)
	if err == nil {
		e.form = form
	}
	return form, err
}

// WithData returns the envelope with other form data.
func (e *Envelope) WithData(data json.RawMessage) *Envelope {
	c := *e
	c.Data, c.form = data, nil
	return &c
}

// decodeForm reads one JSON value. What the quick way below does not read, well
// or not, is left to encoding/json.
func decodeForm(data []byte) (any, error) {
	r := formReader{s: string(data)}
	v := r.value()
	if r.space(); !r.failed && r.i == len(r.s) {
		return v, nil
	}
	var form any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&form); err != nil {
		return nil, err
	}
	return form, nil
}

// formReader reads a JSON value into a tree, several times as fast as
// encoding/json: the form of every submission goes through it. The tree's
// strings are pieces of s. It reads nothing that encoding/json would refuse, and
// reads it as encoding/json does (of a name that occurs twice the last value
// counts); after a failure nothing more is read.
type formReader struct {
	s      string
	i      int
	depth  int
	failed bool
	// member is told of each member of the outermost object; nil: nobody asks.
	member func(name string, from, to int)
}

// formDepth bounds the recursion; intake allows less.
const formDepth = 512

func (r *formReader) space() {
	for r.i < len(r.s) {
		switch r.s[r.i] {
		case ' ', '\n', '\r', '\t':
			r.i++
		default:
			return
		}
	}
}

// next consumes c where it stands behind white space.
func (r *formReader) next(c byte) bool {
	if r.space(); !r.failed && r.i < len(r.s) && r.s[r.i] == c {
		r.i++
		return true
	}
	return false
}

func (r *formReader) expect(c byte) {
	if !r.next(c) {
		r.failed = true
	}
}

func (r *formReader) value() any {
	r.space()
	if r.failed || r.i == len(r.s) {
		r.failed = true
		return nil
	}
	switch c := r.s[r.i]; c {
	case '{':
		return r.object()
	case '[':
		return r.array()
	case '"':
		return r.text()
	case 't':
		return r.literal("true", true)
	case 'f':
		return r.literal("false", false)
	case 'n':
		return r.literal("null", nil)
	default:
		return r.number()
	}
}

func (r *formReader) literal(word string, v any) any {
	if !strings.HasPrefix(r.s[r.i:], word) {
		r.failed = true
		return nil
	}
	r.i += len(word)
	return v
}

func (r *formReader) object() any {
	r.enter()
	m := map[string]any{}
	if r.next('}') {
		r.depth--
		return m
	}
	for {
		r.space()
		name := r.text()
		r.expect(':')
		r.space()
		from := r.i
		v := r.value()
		if r.failed {
			return nil
		}
		m[name] = v
		if r.depth == 1 && r.member != nil {
			r.member(name, from, r.i)
		}
		if !r.next(',') {
			break
		}
	}
	r.expect('}')
	r.depth--
	return m
}

func (r *formReader) array() any {
	r.enter()
	list := []any{}
	if r.next(']') {
		r.depth--
		return list
	}
	for {
		v := r.value()
		if r.failed {
			return nil
		}
		list = append(list, v)
		if !r.next(',') {
			break
		}
	}
	r.expect(']')
	r.depth--
	return list
}

// enter passes the opening bracket.
func (r *formReader) enter() {
	r.i++
	if r.depth++; r.depth > formDepth {
		r.failed = true
	}
}

// text reads a string. One with escapes, or that is not valid UTF-8, goes
// through encoding/json.
func (r *formReader) text() string {
	if r.failed || r.i == len(r.s) || r.s[r.i] != '"' {
		r.failed = true
		return ""
	}
	from, odd, wide := r.i, false, false
	for j := from + 1; j < len(r.s); j++ {
		switch c := r.s[j]; {
		case c == '"':
			r.i = j + 1
			if s := r.s[from+1 : j]; !odd && (!wide || utf8.ValidString(s)) {
				return s
			}
			return r.unquote(r.s[from:r.i])
		case c == '\\':
			odd = true
			j++ // an escaped quotation mark does not end the string
		case c < 0x20:
			r.failed = true
			return ""
		case c >= utf8.RuneSelf:
			wide = true
		}
	}
	r.failed = true
	return ""
}

func (r *formReader) unquote(quoted string) (s string) {
	if json.Unmarshal([]byte(quoted), &s) != nil {
		r.failed = true
	}
	return s
}

// number keeps the digits as they stand: an amount must not become another one.
func (r *formReader) number() any {
	from := r.i
	r.sign("-")
	if r.i < len(r.s) && r.s[r.i] == '0' {
		r.i++ // nothing may follow a leading zero
	} else {
		r.digits()
	}
	if r.i < len(r.s) && r.s[r.i] == '.' {
		r.i++
		r.digits()
	}
	if r.i < len(r.s) && r.s[r.i]|0x20 == 'e' {
		r.i++
		r.sign("+-")
		r.digits()
	}
	return json.Number(r.s[from:r.i])
}

func (r *formReader) sign(allowed string) {
	if r.i < len(r.s) && strings.IndexByte(allowed, r.s[r.i]) >= 0 {
		r.i++
	}
}

func (r *formReader) digits() {
	from := r.i
	for r.i < len(r.s) && '0' <= r.s[r.i] && r.s[r.i] <= '9' {
		r.i++
	}
	r.failed = r.failed || r.i == from
}
