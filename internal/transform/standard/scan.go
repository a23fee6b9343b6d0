package standard

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"
)

// scanner reads the tags of a document that a validator has found well-formed.
// It keeps nothing but offsets into the document. What it cannot follow is an
// error, never a panic: it is also fuzzed with documents nobody has looked at.
type scanner struct {
	raw  []byte
	pos  int
	open int // length of the innermost open element's name, where it is known
	tag  tag
}

type tagKind uint8

const (
	tagEnd tagKind = iota
	tagStart
	tagEmpty // <a/>
	tagDone  // the document is at its end
)

type tag struct {
	kind  tagKind
	name  []byte // as written; of start tags
	attrs []byte // what stands between name and >
	from  int    // offset of <
	to    int    // offset behind >
}

var errNotFollowed = errors.New("the document is not well-formed")

// next finds the next tag, past text, comments, CDATA sections and processing
// instructions.
func (s *scanner) next() error {
	for {
		i := bytes.IndexByte(s.raw[s.pos:], '<')
		if i < 0 {
			s.tag = tag{kind: tagDone, from: len(s.raw), to: len(s.raw)}
			return nil
		}
		at := s.pos + i
		if at+1 >= len(s.raw) {
			return errNotFollowed
		}
		switch s.raw[at+1] {
		case '/':
			// Whose end it is, is known: the document is well-formed.
			end := at + 2 + s.open
			if end >= len(s.raw) {
				return errNotFollowed
			}
			if s.raw[end] != '>' {
				i := bytes.IndexByte(s.raw[at:], '>')
				if i < 0 {
					return errNotFollowed
				}
				end = at + i
			}
			s.pos = end + 1
			s.tag.kind, s.tag.from, s.tag.to = tagEnd, at, s.pos
			return nil
		case '?':
			if !s.past(at, "?>") {
				return errNotFollowed
			}
		case '!':
			switch {
			case bytes.HasPrefix(s.raw[at:], []byte("<!--")):
				if !s.past(at+4, "-->") {
					return errNotFollowed
				}
			case bytes.HasPrefix(s.raw[at:], []byte("<![CDATA[")):
				if !s.past(at, "]]>") {
					return errNotFollowed
				}
			default:
				return errNotFollowed // a DOCTYPE is refused long before
			}
		default:
			return s.start(at)
		}
	}
}

func (s *scanner) past(at int, what string) bool {
	i := bytes.Index(s.raw[at:], []byte(what))
	if i < 0 {
		return false
	}
	s.pos = at + i + len(what)
	return true
}

// start reads a start tag. A > may stand in an attribute's value.
func (s *scanner) start(at int) error {
	i := at + 1
	for i < len(s.raw) && !delimiter[s.raw[i]] {
		i++
	}
	t := &s.tag
	*t = tag{kind: tagStart, name: s.raw[at+1 : i], from: at}
	if i < len(s.raw) && s.raw[i] == '>' {
		t.to, s.pos = i+1, i+1
		return nil
	}
	begin, quote := i, byte(0)
	for ; i < len(s.raw); i++ {
		switch c := s.raw[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			t.attrs, t.to = s.raw[begin:i], i+1
			if n := len(t.attrs); n > 0 && t.attrs[n-1] == '/' {
				t.attrs, t.kind = t.attrs[:n-1], tagEmpty
			}
			s.pos = i + 1
			return nil
		}
	}
	return errNotFollowed
}

var delimiter = [256]bool{' ': true, '\t': true, '\r': true, '\n': true, '/': true, '>': true}

// nextAttr splits the first attribute off. ok is false where there is none.
func nextAttr(attrs []byte) (name, value, rest []byte, ok bool) {
	attrs = trimLeft(attrs)
	eq := bytes.IndexByte(attrs, '=')
	if eq < 0 {
		return nil, nil, nil, false
	}
	name = trimRight(attrs[:eq])
	attrs = trimLeft(attrs[eq+1:])
	if len(attrs) == 0 || attrs[0] != '"' && attrs[0] != '\'' {
		return nil, nil, nil, false
	}
	end := bytes.IndexByte(attrs[1:], attrs[0])
	if end < 0 {
		return nil, nil, nil, false
	}
	return name, attrs[1 : 1+end], attrs[end+2:], true
}

// content returns the text of an element without child elements: what it says,
// not how. Where nothing is escaped, it is the slice itself.
func content(b []byte) []byte {
	if bytes.IndexByte(b, '&') < 0 && bytes.IndexByte(b, '<') < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		switch {
		case b[0] == '&':
			end := bytes.IndexByte(b, ';')
			if end < 0 {
				return append(out, b...)
			}
			out = appendEntity(out, b[1:end])
			b = b[end+1:]
		case bytes.HasPrefix(b, []byte("<![CDATA[")):
			section, rest, _ := bytes.Cut(b[9:], []byte("]]>"))
			out, b = append(out, section...), rest
		case bytes.HasPrefix(b, []byte("<!--")):
			_, b, _ = bytes.Cut(b[4:], []byte("-->"))
		case bytes.HasPrefix(b, []byte("<?")):
			_, b, _ = bytes.Cut(b[2:], []byte("?>"))
		default:
			n := bytes.IndexAny(b[1:], "&<")
			if n < 0 {
				return append(out, b...)
			}
			out, b = append(out, b[:n+1]...), b[n+1:]
		}
	}
	return out
}

func appendEntity(out, name []byte) []byte {
	switch string(name) {
	case "lt":
		return append(out, '<')
	case "gt":
		return append(out, '>')
	case "amp":
		return append(out, '&')
	case "quot":
		return append(out, '"')
	case "apos":
		return append(out, '\'')
	}
	if len(name) > 1 && name[0] == '#' {
		digits, base := string(name[1:]), 10
		if digits[0] == 'x' {
			digits, base = digits[1:], 16
		}
		if n, err := strconv.ParseUint(digits, base, 32); err == nil {
			return utf8.AppendRune(out, rune(n))
		}
	}
	return out
}

// White space as XML has it; the bytes package's own trimming costs more than
// the rest of the scan.

func space(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func blank(b []byte) bool { return len(trimLeft(b)) == 0 }

func trimLeft(b []byte) []byte {
	for len(b) > 0 && space(b[0]) {
		b = b[1:]
	}
	return b
}

func trimRight(b []byte) []byte {
	for len(b) > 0 && space(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// local returns a name without its prefix.
func local(name []byte) []byte {
	if i := bytes.IndexByte(name, ':'); i >= 0 {
		return name[i+1:]
	}
	return name
}
