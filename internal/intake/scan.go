package intake

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"weiche/internal/fault"
)

// Bounds of JSON that no portal needs to pass. They keep what is built from the
// text (trees, big numbers, sets of names) within a small multiple of the text.
const (
	maxValues     = 200_000 // values in one document
	maxString     = 1 << 20 // bytes of one string outside the attachments
	maxName       = 1024    // bytes of a member's name
	maxNumber     = 64      // characters of a number
	maxExponent   = 400     // beyond it no float64 follows, and 1e999999999 would fill the memory
	maxPointer    = 512     // bytes of a JSON pointer in an answer
	attachmentKey = "attachments"
)

// scan reads one JSON document without building anything and without recursion:
// its memory is bounded by the depth that is allowed, whatever the text. It
// refuses what JSON readers disagree on (duplicate names, invalid UTF-8, lone
// surrogates), what would explode later (depth, exponents, millions of values),
// and characters that no XML 1.0 message can carry. Strings under the top-level
// attachments may be as long as the body; all others are bounded.
func scan(b string, maxDepth int) *Problem {
	s := scanner{b: b, maxDepth: maxDepth}
	return s.document()
}

type frame struct {
	object bool
	index  int                 // of the element
	name   string              // of the member
	names  []string            // of the object, while they are few
	many   map[string]struct{} // of the object; nil while they are few
}

// few is how many names are looked through one by one.
const few = 16

// twice notes a name of the object and says whether it has it already.
func (f *frame) twice(name string) bool {
	_, known := f.many[name]
	if known || f.many == nil && slices.Contains(f.names, name) {
		return true
	}
	if f.many != nil {
		f.many[name] = struct{}{}
		return false
	}
	if f.names = append(f.names, name); len(f.names) == few {
		f.many = make(map[string]struct{}, 4*few)
		for _, n := range f.names {
			f.many[n] = struct{}{}
		}
	}
	return false
}

type scanner struct {
	b        string
	i        int
	maxDepth int
	values   int
	stack    []frame
}

func (s *scanner) document() *Problem {
	if !utf8.ValidString(s.b) {
		return refuse(fault.ReasonMalformed, malformedUTF8)
	}
	for {
		// A value is due.
		s.space()
		if s.values++; s.values > maxValues {
			return refuse(fault.ReasonTooMany, tooManyValues, maxValues)
		}
		c, ok := s.peek()
		if !ok {
			return s.malformed(malformedEnd)
		}
		opened := false
		switch {
		case c == '{' || c == '[':
			if len(s.stack) >= s.maxDepth {
				p := refuse(fault.ReasonTooDeep, tooDeep, s.maxDepth)
				p.add(s.pointer(), textTooDeep)
				return p
			}
			s.i++
			s.push(c == '{')
			opened = true
		case c == '"':
			if _, p := s.str(s.stringLimit(), false); p != nil {
				return p
			}
		case c == '-' || c >= '0' && c <= '9':
			if p := s.number(); p != nil {
				return p
			}
		default:
			if !s.word("true") && !s.word("false") && !s.word("null") {
				return s.malformed(malformedSyntax)
			}
		}
		done, p := s.follow(opened)
		if p != nil {
			return p
		}
		if done {
			return nil
		}
	}
}

// follow reads on from behind a value (or behind an opening bracket) to where
// the next value begins, or to the end of the document.
func (s *scanner) follow(opened bool) (done bool, p *Problem) {
	for {
		s.space()
		if len(s.stack) == 0 {
			if s.i != len(s.b) {
				return false, s.malformed(malformedTail)
			}
			return true, nil
		}
		top := &s.stack[len(s.stack)-1]
		c, ok := s.peek()
		if !ok {
			return false, s.malformed(malformedEnd)
		}
		if c == '}' && top.object || c == ']' && !top.object {
			s.i++
			s.pop()
			opened = false
			continue
		}
		if !opened {
			if c != ',' {
				return false, s.malformed(malformedSyntax)
			}
			s.i++
			s.space()
		}
		if !top.object {
			if !opened {
				top.index++
			}
			return false, nil
		}
		if c, ok := s.peek(); !ok || c != '"' {
			return false, s.malformed(malformedSyntax)
		}
		name, p := s.str(maxName, true)
		if p != nil {
			return false, p
		}
		top.name = name
		if top.twice(name) {
			p := refuse(fault.ReasonMalformed, malformedTwice)
			p.add(s.pointer(), textTwice)
			return false, p
		}
		s.space()
		if c, ok := s.peek(); !ok || c != ':' {
			return false, s.malformed(malformedSyntax)
		}
		s.i++
		return false, nil
	}
}

func (s *scanner) push(object bool) {
	n := len(s.stack)
	if n < cap(s.stack) {
		s.stack = s.stack[:n+1]
	} else {
		s.stack = append(s.stack, frame{})
	}
	f := &s.stack[n]
	f.object, f.index, f.name = object, 0, ""
	f.names, f.many = f.names[:0], nil
}

func (s *scanner) pop() { s.stack = s.stack[:len(s.stack)-1] }

func (s *scanner) peek() (byte, bool) {
	if s.i < len(s.b) {
		return s.b[s.i], true
	}
	return 0, false
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) word(w string) bool {
	if strings.HasPrefix(s.b[s.i:], w) {
		s.i += len(w)
		return true
	}
	return false
}

// stringLimit is the body's own size under the attachments, whose content is a
// string.
func (s *scanner) stringLimit() int {
	if len(s.stack) > 1 && s.stack[0].object && s.stack[0].name == attachmentKey {
		return len(s.b)
	}
	return maxString
}

// str reads a string; the decoded text is returned only where it is wanted.
func (s *scanner) str(limit int, want bool) (string, *Problem) {
	s.i++ // the opening quote
	start := s.i
	var decoded []byte
	plain := start // start of the run not yet copied to decoded
	for s.i < len(s.b) {
		if s.i-start > limit {
			p := refuse(fault.ReasonTooLarge, tooLongString, limit)
			if !want {
				p.add(s.pointer(), textTooLong)
			}
			return "", p
		}
		switch c := s.b[s.i]; {
		case c == '"':
			end := s.i
			s.i++
			if !want {
				return "", nil
			}
			if decoded == nil {
				return s.b[start:end], nil
			}
			return string(append(decoded, s.b[plain:end]...)), nil
		case c < 0x20:
			return "", s.malformed(malformedSyntax)
		case c == 0xEF && s.i+2 < len(s.b) && s.b[s.i+1] == 0xBF && s.b[s.i+2] >= 0xBE:
			return "", s.forbidden(want) // U+FFFE, U+FFFF
		case c == '\\':
			at := s.i
			r, p := s.escape(want)
			if p != nil {
				return "", p
			}
			if want {
				decoded = append(decoded, s.b[plain:at]...)
				decoded = utf8.AppendRune(decoded, r)
				plain = s.i
			}
		default:
			s.i++
		}
	}
	return "", s.malformed(malformedEnd)
}

func (s *scanner) escape(name bool) (rune, *Problem) {
	if s.i+1 >= len(s.b) {
		return 0, s.malformed(malformedEnd)
	}
	c := s.b[s.i+1]
	switch c {
	case '"', '\\', '/':
		s.i += 2
		return rune(c), nil
	case 'n', 'r', 't':
		s.i += 2
		return map[byte]rune{'n': '\n', 'r': '\r', 't': '\t'}[c], nil
	case 'b', 'f':
		return 0, s.forbidden(name)
	case 'u':
	default:
		return 0, s.malformed(malformedSyntax)
	}
	r, ok := s.hex4(s.i + 2)
	if !ok {
		return 0, s.malformed(malformedSyntax)
	}
	s.i += 6
	switch {
	case r >= 0xD800 && r < 0xDC00:
		if s.i+1 < len(s.b) && s.b[s.i] == '\\' && s.b[s.i+1] == 'u' {
			if low, ok := s.hex4(s.i + 2); ok && low >= 0xDC00 && low < 0xE000 {
				s.i += 6
				return (r-0xD800)<<10 | (low - 0xDC00) + 0x10000, nil
			}
		}
		return 0, s.malformed(malformedSurrogate)
	case r >= 0xDC00 && r < 0xE000:
		return 0, s.malformed(malformedSurrogate)
	case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r == 0xFFFE, r == 0xFFFF:
		return 0, s.forbidden(name)
	}
	return r, nil
}

func (s *scanner) hex4(i int) (rune, bool) {
	if i+4 > len(s.b) {
		return 0, false
	}
	var r rune
	for _, c := range s.b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | (c - '0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | (c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | (c - 'A' + 10)
		default:
			return 0, false
		}
	}
	return r, true
}

func (s *scanner) number() *Problem {
	start := s.i
	run := func() int {
		n := s.i
		for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' && s.i-start <= maxNumber {
			s.i++
		}
		return s.i - n
	}
	if s.b[s.i] == '-' {
		s.i++
	}
	zero := s.i < len(s.b) && s.b[s.i] == '0'
	n := run()
	if n == 0 || zero && n > 1 {
		return s.malformed(malformedSyntax)
	}
	if c, ok := s.peek(); ok && c == '.' {
		s.i++
		if run() == 0 {
			return s.malformed(malformedSyntax)
		}
	}
	if c, ok := s.peek(); ok && (c == 'e' || c == 'E') {
		s.i++
		if c, ok := s.peek(); ok && (c == '+' || c == '-') {
			s.i++
		}
		at := s.i
		if run() == 0 {
			return s.malformed(malformedSyntax)
		}
		if e, err := strconv.Atoi(s.b[at:s.i]); err != nil || e > maxExponent {
			return s.bigNumber()
		}
	}
	if s.i-start > maxNumber {
		return s.bigNumber()
	}
	return nil
}

func (s *scanner) bigNumber() *Problem {
	p := refuse(fault.ReasonTooLarge, tooBigNumber, maxNumber, maxExponent)
	p.add(s.pointer(), textBigNumber)
	return p
}

func (s *scanner) malformed(d detail) *Problem {
	p := refuse(fault.ReasonMalformed, d, s.i)
	if ptr := s.pointer(); ptr != "" {
		p.add(ptr, textSyntax)
	}
	return p
}

func (s *scanner) forbidden(name bool) *Problem {
	p := refuse(fault.ReasonMalformed, malformedCharacter, s.i)
	if !name {
		p.add(s.pointer(), textCharacter)
	}
	return p
}

// pointer names the value being read, or the nearest value around it whose
// pointer is short enough to be answered.
func (s *scanner) pointer() string {
	var out []byte
	for _, f := range s.stack {
		before := len(out)
		out = append(out, '/')
		if f.object {
			if f.name == "" && len(f.names) == 0 {
				return string(out[:before]) // no member yet
			}
			out = append(out, escapePointer(f.name)...)
		} else {
			out = strconv.AppendInt(out, int64(f.index), 10)
		}
		if len(out) > maxPointer {
			return string(out[:before])
		}
	}
	return string(out)
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

// escapePointer writes one token of a JSON pointer (RFC 6901, section 3).
func escapePointer(token string) string { return pointerEscaper.Replace(token) }
