package xsd

import (
	"bytes"
	"math"
	"unicode/utf8"
)

// token is what the scanner has read.
type token uint8

const (
	tokenEnd   token = iota // the document is at its end
	tokenOpen               // a start tag; of an empty element's tag too, its tokenClose follows
	tokenClose              // an end tag
	tokenText               // a run of text, already unescaped; one text may come in several
	tokenFault              // not well-formed; fault says why
)

// attr is one attribute that declares no namespace.
type attr struct {
	local []byte
	uri   []byte // nil for no namespace
	value []byte // normalised as of type CDATA
	space int32
	at    int
}

type binding struct {
	prefix []byte
	uri    []byte
	space  int32
}

type openTag struct {
	from, to int32 // the raw name
	bindings int32 // how many were in force outside
}

// scanner reads one document from memory. Beside the stacks of open elements and
// namespaces it keeps nothing; slices it gives out hold until the next tag.
type scanner struct {
	doc    []byte
	pos    int
	names  *names
	limits Limits

	// The tag or text read last.
	at    int // its offset
	local []byte
	uri   []byte
	space int32
	attrs []attr
	text  []byte
	fault scanFault

	open     []openTag
	bindings []binding
	arena    []byte
	char     [utf8.UTFMax]byte
	empty    bool  // the tag read last was that of an empty element
	outer    int32 // bindings to keep when the next token is read
	volatile bool  // text is overwritten by the next token
	copied   bool  // the attribute's value read last lies in the arena
	rooted   bool
}

// scanFault is why a document is not well-formed.
type scanFault struct {
	code Code
	text string
	at   int
}

const xmlNamespace = "http://www.w3.org/XML/1998/namespace"
const xmlnsNamespace = "http://www.w3.org/2000/xmlns/"

func (s *scanner) begin(doc []byte, n *names, l Limits) {
	s.doc, s.pos, s.names, s.limits = doc, 0, n, l
	s.open, s.bindings, s.attrs = s.open[:0], s.bindings[:0], s.attrs[:0]
	s.empty, s.rooted, s.fault, s.outer = false, false, scanFault{}, math.MaxInt32
	if bytes.HasPrefix(doc, []byte("\xef\xbb\xbf")) {
		s.pos = 3
	}
}

func (s *scanner) fail(at int, code Code, text string) token {
	s.fault = scanFault{code, text, at}
	s.pos = len(s.doc)
	return tokenFault
}

func (s *scanner) malformed(at int, text string) token { return s.fail(at, NotWellFormed, text) }

// start reads the XML declaration, if there is one.
func (s *scanner) start() token {
	if len(s.doc) > s.limits.Bytes {
		return s.fail(0, TooLarge, "the document is larger than allowed")
	}
	b := s.doc[s.pos:]
	if !bytes.HasPrefix(b, []byte("<?xml")) || len(b) < 6 || !isSpace(b[5]) {
		return tokenText
	}
	end := bytes.Index(b, []byte("?>"))
	if end < 0 {
		return s.malformed(s.pos, "the XML declaration does not end")
	}
	if code, why := checkDeclaration(b[5:end]); why != "" {
		return s.fail(s.pos, code, why)
	}
	s.pos += end + 2
	return tokenText
}

// checkDeclaration checks what stands between <?xml and ?>.
func checkDeclaration(b []byte) (Code, string) {
	const wrong = "the XML declaration is malformed"
	step := 0
	for {
		rest := bytes.TrimLeft(b, " \t\r\n")
		if len(rest) == 0 {
			break
		}
		if len(rest) == len(b) {
			return NotWellFormed, wrong
		}
		name, value, after, ok := pseudoAttribute(rest)
		if !ok {
			return NotWellFormed, wrong
		}
		switch string(name) {
		case "version":
			if step > 0 || string(value) != "1.0" {
				return NotWellFormed, "the XML declaration names another version than 1.0"
			}
			step = 1
		case "encoding":
			if step != 1 {
				return NotWellFormed, wrong
			}
			if !bytes.EqualFold(value, []byte("UTF-8")) {
				return NotUTF8, "the XML declaration names another encoding than UTF-8"
			}
			step = 2
		case "standalone":
			if step != 1 && step != 2 || string(value) != "yes" && string(value) != "no" {
				return NotWellFormed, wrong
			}
			step = 3
		default:
			return NotWellFormed, wrong
		}
		b = after
	}
	if step == 0 {
		return NotWellFormed, wrong
	}
	return "", ""
}

func pseudoAttribute(b []byte) (name, value, rest []byte, ok bool) {
	eq := bytes.IndexByte(b, '=')
	if eq < 0 {
		return nil, nil, nil, false
	}
	name = bytes.TrimRight(b[:eq], " \t\r\n")
	b = bytes.TrimLeft(b[eq+1:], " \t\r\n")
	if len(b) == 0 || b[0] != '"' && b[0] != '\'' {
		return nil, nil, nil, false
	}
	end := bytes.IndexByte(b[1:], b[0])
	if end < 0 {
		return nil, nil, nil, false
	}
	return name, b[1 : 1+end], b[end+2:], true
}

// next reads the next token.
func (s *scanner) next() token {
	if int(s.outer) < len(s.bindings) {
		s.bindings = s.bindings[:s.outer]
	}
	s.outer = math.MaxInt32
	if s.empty {
		s.empty = false
		s.at = s.pos
		s.close()
		return tokenClose
	}
	for {
		if s.pos >= len(s.doc) {
			return s.finish()
		}
		if s.doc[s.pos] != '<' {
			if t := s.readText(); t != tokenEnd {
				return t
			}
			continue
		}
		if s.pos+1 >= len(s.doc) {
			return s.malformed(s.pos, "the document ends within a tag")
		}
		switch s.doc[s.pos+1] {
		case '/':
			return s.endTag()
		case '!':
			if t := s.declaration(); t != tokenEnd {
				return t
			}
		case '?':
			if t := s.instruction(); t != tokenEnd {
				return t
			}
		default:
			return s.startTag()
		}
	}
}

func (s *scanner) finish() token {
	switch {
	case s.fault.text != "":
		return tokenFault
	case len(s.open) > 0:
		return s.malformed(len(s.doc), "the document ends before its elements do")
	case !s.rooted:
		return s.malformed(len(s.doc), "the document has no root element")
	}
	return tokenEnd
}

// Classes of bytes in text.
const (
	plain uint8 = iota
	textStop
	textReturn
	textBracket
	textHigh
	textBad
)

var textClass = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c == '<' || c == '&':
			t[c] = textStop
		case c == '\r':
			t[c] = textReturn
		case c == ']':
			t[c] = textBracket
		case c < 0x20 && c != '\t' && c != '\n':
			t[c] = textBad
		case c >= 0x80:
			t[c] = textHigh
		}
	}
	return t
}()

// readText reads text up to the next tag, reference or line break that must be
// normalised. tokenEnd: it was blank and outside the root.
func (s *scanner) readText() token {
	doc, from := s.doc, s.pos
	i := from
	s.at = from
	if doc[i] == '&' {
		return s.reference()
	}
loop:
	for i < len(doc) {
		for i < len(doc) && textClass[doc[i]] == plain {
			i++
		}
		if i == len(doc) {
			break
		}
		switch textClass[doc[i]] {
		case textHigh:
			n := charLength(doc[i:])
			if n == 0 {
				return s.fail(i, NotUTF8, "a byte sequence is no UTF-8 or no XML character")
			}
			i += n
		case textBracket:
			if i+2 < len(doc) && doc[i+1] == ']' && doc[i+2] == '>' {
				return s.malformed(i, "]]> stands in text")
			}
			i++
		case textReturn:
			if i > from {
				break loop
			}
			s.pos = i + 1
			if s.pos < len(doc) && doc[s.pos] == '\n' {
				s.pos++
			}
			s.char[0] = '\n'
			s.text, s.volatile = s.char[:1], true
			if len(s.open) == 0 {
				return tokenEnd
			}
			return tokenText
		case textBad:
			return s.malformed(i, "a character stands there that XML does not have")
		default:
			break loop
		}
	}
	s.pos, s.text, s.volatile = i, doc[from:i], false
	if len(s.open) > 0 {
		return tokenText
	}
	if !isBlank(s.text) {
		return s.malformed(from, "text stands outside the root element")
	}
	return tokenEnd
}

// charLength returns the length of the character beyond ASCII that b begins
// with; 0 where it is none that XML has.
func charLength(b []byte) int {
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n < 2 || r == 0xFFFE || r == 0xFFFF {
		return 0
	}
	return n
}

func (s *scanner) reference() token {
	if len(s.open) == 0 {
		return s.malformed(s.pos, "a reference stands outside the root element")
	}
	r, n := parseReference(s.doc[s.pos:])
	if n == 0 {
		return s.malformed(s.pos, "a reference is malformed, or to an entity that is not declared")
	}
	s.pos += n
	s.text, s.volatile = s.char[:utf8.EncodeRune(s.char[:], r)], true
	return tokenText
}

// parseReference reads the reference that b begins with; n is its length, 0
// where it is none.
func parseReference(b []byte) (r rune, n int) {
	end := bytes.IndexByte(b[:min(len(b), 40)], ';')
	if end < 2 {
		return 0, 0
	}
	name := b[1:end]
	switch string(name) {
	case "lt":
		return '<', end + 1
	case "gt":
		return '>', end + 1
	case "amp":
		return '&', end + 1
	case "quot":
		return '"', end + 1
	case "apos":
		return '\'', end + 1
	}
	if name[0] != '#' || len(name) < 2 {
		return 0, 0
	}
	digits, base := name[1:], rune(10)
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	if len(digits) == 0 {
		return 0, 0
	}
	for _, c := range digits {
		d := rune(0)
		switch {
		case c >= '0' && c <= '9':
			d = rune(c - '0')
		case base == 16 && c >= 'a' && c <= 'f':
			d = rune(c-'a') + 10
		case base == 16 && c >= 'A' && c <= 'F':
			d = rune(c-'A') + 10
		default:
			return 0, 0
		}
		if r = r*base + d; r > utf8.MaxRune {
			return 0, 0
		}
	}
	if !isXMLChar(r) {
		return 0, 0
	}
	return r, end + 1
}

func isXMLChar(r rune) bool {
	return r >= 0x20 && r <= 0xD7FF || r == '\t' || r == '\n' || r == '\r' || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= utf8.MaxRune
}

// badChar returns the offset of the first byte of b that begins no XML
// character, -1 where all do.
func badChar(b []byte) int {
	for i := 0; i < len(b); {
		switch textClass[b[i]] {
		case textBad:
			return i
		case textHigh:
			n := charLength(b[i:])
			if n == 0 {
				return i
			}
			i += n
		default:
			i++
		}
	}
	return -1
}

// declaration reads a comment or a CDATA section; nothing else may begin so.
func (s *scanner) declaration() token {
	b := s.doc[s.pos:]
	switch {
	case bytes.HasPrefix(b, []byte("<!--")):
		end := bytes.Index(b[4:], []byte("--"))
		if end < 0 {
			return s.malformed(s.pos, "a comment does not end")
		}
		if i := badChar(b[4 : 4+end]); i >= 0 {
			return s.malformed(s.pos+4+i, "a comment has a character that XML does not have")
		}
		if end+6 >= len(b) || b[end+6] != '>' {
			return s.malformed(s.pos+4+end, "-- stands in a comment")
		}
		s.pos += end + 7
		return tokenEnd
	case bytes.HasPrefix(b, []byte("<![CDATA[")):
		if len(s.open) == 0 {
			return s.malformed(s.pos, "a CDATA section stands outside the root element")
		}
		end := bytes.Index(b, []byte("]]>"))
		if end < 0 {
			return s.malformed(s.pos, "a CDATA section does not end")
		}
		section := b[9:end]
		if i := badChar(section); i >= 0 {
			return s.malformed(s.pos+9+i, "a CDATA section has a character that XML does not have")
		}
		s.at, s.pos = s.pos, s.pos+end+3
		s.text, s.volatile = section, false
		if bytes.IndexByte(section, '\r') >= 0 {
			s.text = bytes.ReplaceAll(bytes.ReplaceAll(section, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
		}
		return tokenText
	case bytes.HasPrefix(b, []byte("<!DOCTYPE")):
		return s.fail(s.pos, Doctype, "the document carries a DOCTYPE, which is refused")
	}
	return s.malformed(s.pos, "a declaration stands there that a document cannot have")
}

func (s *scanner) instruction() token {
	b := s.doc[s.pos:]
	end := bytes.Index(b[2:], []byte("?>")) + 2
	if end < 2 {
		return s.malformed(s.pos, "a processing instruction does not end")
	}
	n, colon := nameLength(b[2:end])
	if n == 0 || colon >= 0 || n < end-2 && !isSpace(b[2+n]) || bytes.EqualFold(b[2:2+n], []byte("xml")) {
		return s.malformed(s.pos, "a processing instruction is malformed")
	}
	if i := badChar(b[2:end]); i >= 0 {
		return s.malformed(s.pos+2+i, "a processing instruction has a character that XML does not have")
	}
	s.pos += end + 2
	return tokenEnd
}

func (s *scanner) endTag() token {
	if len(s.open) == 0 {
		return s.malformed(s.pos, "an end tag has no start tag")
	}
	top := s.open[len(s.open)-1]
	name := s.doc[top.from:top.to]
	b := s.doc[s.pos+2:]
	if len(b) <= len(name) || string(b[:len(name)]) != string(name) {
		return s.malformed(s.pos, "an end tag does not fit its start tag")
	}
	i := len(name)
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	if i >= len(b) || b[i] != '>' {
		return s.malformed(s.pos, "an end tag does not fit its start tag")
	}
	s.at = s.pos
	s.pos += 2 + i + 1
	s.close()
	return tokenClose
}

func (s *scanner) close() {
	// The element's namespaces stay in force until the next token: a QName in
	// its text is looked at now.
	s.outer = s.open[len(s.open)-1].bindings
	s.open = s.open[:len(s.open)-1]
}

func (s *scanner) startTag() token {
	doc, at := s.doc, s.pos
	if len(s.open) == 0 && s.rooted {
		return s.malformed(at, "the document has a second root element")
	}
	if len(s.open) >= s.limits.Depth {
		return s.fail(at, TooDeep, "elements nest deeper than allowed")
	}
	n, colon := nameLength(doc[at+1:])
	if n == 0 {
		return s.malformed(at, "a tag has no name")
	}
	s.at, s.rooted = at, true
	from := at + 1
	i := from + n
	s.open = append(s.open, openTag{int32(from), int32(i), int32(len(s.bindings))})
	s.attrs, s.arena = s.attrs[:0], s.arena[:0]
	for {
		if i >= len(doc) {
			return s.malformed(at, "the document ends within a tag")
		}
		if doc[i] == '>' {
			i++
			break
		}
		spaced := isSpace(doc[i])
		for i < len(doc) && isSpace(doc[i]) {
			i++
		}
		if i >= len(doc) {
			return s.malformed(at, "the document ends within a tag")
		}
		if doc[i] == '>' {
			i++
			break
		}
		if doc[i] == '/' {
			if i+1 >= len(doc) || doc[i+1] != '>' {
				return s.malformed(i, "a tag is malformed")
			}
			s.empty = true
			i += 2
			break
		}
		if !spaced {
			return s.malformed(i, "space is missing before an attribute")
		}
		if i = s.attribute(i); i < 0 {
			return tokenFault
		}
	}
	s.pos = i
	if !s.resolve(doc[from:from+n], colon) {
		return tokenFault
	}
	return tokenOpen
}

// attribute reads the attribute at i and returns the offset behind it, or -1.
func (s *scanner) attribute(i int) int {
	doc, at := s.doc, i
	n, colon := nameLength(doc[i:])
	if n == 0 {
		s.malformed(i, "an attribute is malformed")
		return -1
	}
	name := doc[i : i+n]
	i += n
	for i < len(doc) && isSpace(doc[i]) {
		i++
	}
	if i >= len(doc) || doc[i] != '=' {
		s.malformed(at, "an attribute has no value")
		return -1
	}
	i++
	for i < len(doc) && isSpace(doc[i]) {
		i++
	}
	if i >= len(doc) || doc[i] != '"' && doc[i] != '\'' {
		s.malformed(at, "an attribute's value is not quoted")
		return -1
	}
	value, i := s.attributeValue(i)
	if i < 0 {
		return -1
	}
	if len(s.attrs) >= s.limits.Attributes {
		s.fail(at, TooManyAttributes, "an element has more attributes than allowed")
		return -1
	}
	a := attr{local: name, value: value, at: at}
	switch {
	case colon == 5 && string(name[:5]) == "xmlns", colon < 0 && string(name) == "xmlns":
		if !s.bind(name, colon, value, at) {
			return -1
		}
		return i
	case colon >= 0:
		// The prefix may be declared later in this tag.
		a.uri, a.local = name[:colon], name[colon+1:]
		a.space = -2
	}
	s.attrs = append(s.attrs, a)
	return i
}

// attributePlain are the bytes of an attribute's value that stand for themselves.
var attributePlain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c < 0x80 && c != '"' && c != '\'' && c != '<' && c != '&'
	}
	return t
}()

// attributeValue reads the quoted value at i, normalised (XML 1.0, 3.3.3).
func (s *scanner) attributeValue(i int) ([]byte, int) {
	doc, quote := s.doc, s.doc[i]
	i++
	from, copied := i, -1
	for i < len(doc) {
		if copied < 0 {
			for i < len(doc) && attributePlain[doc[i]] {
				i++
			}
			if i == len(doc) {
				break
			}
		}
		c := doc[i]
		if c == quote {
			if s.copied = copied >= 0; s.copied {
				return s.arena[copied:], i + 1
			}
			return doc[from:i], i + 1
		}
		n := 1
		switch {
		case c == '<':
			s.malformed(i, "< stands in an attribute's value")
			return nil, -1
		case c == '&' || c == '\t' || c == '\n' || c == '\r':
			if copied < 0 {
				copied = len(s.arena)
				s.arena = append(s.arena, doc[from:i]...)
			}
			if c != '&' {
				s.arena = append(s.arena, ' ')
				if c == '\r' && i+1 < len(doc) && doc[i+1] == '\n' {
					n = 2
				}
				i += n
				continue
			}
			r, length := parseReference(doc[i:])
			if length == 0 {
				s.malformed(i, "a reference is malformed, or to an entity that is not declared")
				return nil, -1
			}
			s.arena = utf8.AppendRune(s.arena, r)
			i += length
			continue
		case c < 0x20:
			s.malformed(i, "a character stands there that XML does not have")
			return nil, -1
		case c >= 0x80:
			if n = charLength(doc[i:]); n == 0 {
				s.fail(i, NotUTF8, "a byte sequence is no UTF-8 or no XML character")
				return nil, -1
			}
		}
		if copied >= 0 {
			s.arena = append(s.arena, doc[i:i+n]...)
		}
		i += n
	}
	s.malformed(from, "an attribute's value does not end")
	return nil, -1
}

// bind puts a namespace declaration into force.
func (s *scanner) bind(name []byte, colon int, uri []byte, at int) bool {
	var prefix []byte
	if colon >= 0 {
		prefix = name[colon+1:]
	}
	outer := s.open[len(s.open)-1].bindings
	for _, b := range s.bindings[outer:] {
		if string(b.prefix) == string(prefix) {
			s.malformed(at, "a namespace prefix is declared twice in one tag")
			return false
		}
	}
	// All in force are counted: every name looks among them for its prefix.
	if len(s.bindings) >= s.limits.Attributes {
		s.fail(at, TooManyAttributes, "more namespaces are declared than allowed")
		return false
	}
	xml := string(prefix) == "xml"
	if string(prefix) == "xmlns" || xml != (string(uri) == xmlNamespace) || string(uri) == xmlnsNamespace || colon >= 0 && len(uri) == 0 {
		s.malformed(at, "a namespace declaration is not allowed")
		return false
	}
	b := binding{prefix: prefix, uri: uri, space: s.names.space(uri)}
	if s.copied {
		b.uri = bytes.Clone(uri) // the arena is used again by the next tag
	}
	s.bindings = append(s.bindings, b)
	return true
}

// lookup finds the namespace of a prefix; nil for no prefix is the default one.
func (s *scanner) lookup(prefix []byte) (uri []byte, space int32, ok bool) {
	for i := len(s.bindings) - 1; i >= 0; i-- {
		if b := &s.bindings[i]; string(b.prefix) == string(prefix) {
			return b.uri, b.space, true
		}
	}
	if string(prefix) == "xml" {
		return []byte(xmlNamespace), s.names.xml, true
	}
	return nil, 0, len(prefix) == 0
}

// resolve finds the namespaces of the tag's names.
func (s *scanner) resolve(name []byte, colon int) bool {
	var prefix []byte
	s.local = name
	if colon >= 0 {
		prefix, s.local = name[:colon], name[colon+1:]
	}
	var ok bool
	if s.uri, s.space, ok = s.lookup(prefix); !ok || string(prefix) == "xmlns" {
		s.malformed(s.at, "a namespace prefix is not declared")
		return false
	}
	for i := range s.attrs {
		a := &s.attrs[i]
		if a.space == -2 {
			if a.uri, a.space, ok = s.lookup(a.uri); !ok {
				s.malformed(a.at, "a namespace prefix is not declared")
				return false
			}
		}
		for j := range s.attrs[:i] {
			if b := &s.attrs[j]; len(a.local) == len(b.local) && string(a.local) == string(b.local) && string(a.uri) == string(b.uri) {
				s.malformed(a.at, "an attribute stands twice in one tag")
				return false
			}
		}
	}
	return true
}

// Classes of bytes in names.
const (
	nameStart uint8 = iota
	nameInner
	nameColon
	nameHigh
	nameNo
)

var nameClass = func() (t [256]uint8) {
	for c := range t {
		t[c] = nameNo
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_':
			t[c] = nameStart
		case c >= '0' && c <= '9' || c == '-' || c == '.':
			t[c] = nameInner
		case c == ':':
			t[c] = nameColon
		case c >= 0x80:
			t[c] = nameHigh
		}
	}
	return t
}()

// nameLength returns the length of the QName that b begins with, 0 where it
// begins with none, and the place of its colon, -1 without one.
func nameLength(b []byte) (n, colon int) {
	colon = -1
	first := true
	i := 0
	for i < len(b) {
		if !first {
			// Most names are letters, and dots between them.
			for i < len(b) && nameClass[b[i]] <= nameInner {
				i++
			}
			if i == len(b) {
				break
			}
		}
		switch nameClass[b[i]] {
		case nameStart:
			i++
		case nameInner:
			if first {
				return 0, -1
			}
			i++
		case nameColon:
			if first || colon >= 0 {
				return 0, -1
			}
			colon, first = i, true
			i++
			continue
		case nameHigh:
			r, size := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && size < 2 || !isNameChar(r) || first && !isNameStart(r) {
				if first {
					return 0, -1
				}
				return i, colon
			}
			i += size
		default:
			if first {
				return 0, -1
			}
			return i, colon
		}
		first = false
	}
	if first {
		return 0, -1
	}
	return i, colon
}

// isNameStart says whether a name may begin with r (XML 1.0, fifth edition, 2.3);
// the colon is none here.
func isNameStart(r rune) bool {
	switch {
	case r < 0x80:
		return r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	case r < 0x300:
		return r >= 0xC0 && r != 0xD7 && r != 0xF7
	}
	return r >= 0x370 && r <= 0x1FFF && r != 0x37E || r == 0x200C || r == 0x200D || r >= 0x2070 && r <= 0x218F ||
		r >= 0x2C00 && r <= 0x2FEF || r >= 0x3001 && r <= 0xD7FF || r >= 0xF900 && r <= 0xFDCF || r >= 0xFDF0 && r <= 0xFFFD ||
		r >= 0x10000 && r <= 0xEFFFF
}

// isNameChar says whether r may stand in a name; the colon is none here.
func isNameChar(r rune) bool {
	return isNameStart(r) || r == '-' || r == '.' || r >= '0' && r <= '9' || r == 0xB7 || r >= 0x300 && r <= 0x36F || r == 0x203F || r == 0x2040
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func isBlank(b []byte) bool {
	for _, c := range b {
		if !isSpace(c) {
			return false
		}
	}
	return true
}
