package xsd

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// kind is what the lexical form of a value follows.
type kind uint8

const (
	kindString kind = iota
	kindLanguage
	kindNMTOKEN
	kindName
	kindNCName
	kindBoolean
	kindDecimal
	kindInteger
	kindFloat
	kindDouble
	kindDuration
	kindDateTime
	kindTime
	kindDate
	kindYearMonth
	kindYear
	kindMonthDay
	kindDay
	kindMonth
	kindHex
	kindBase64
	kindURI
	kindQName
)

type idKind uint8

const (
	notID idKind = iota
	isID
	isIDREF
)

// checker checks values of simple types. The zero checker knows no namespaces
// and keeps no IDs.
type checker struct {
	scratch []byte // white space dealt with
	key     []byte // canonical values
	// resolve finds the namespace of a prefix of a QName; nil accepts them all.
	resolve func(prefix []byte) (uri []byte, ok bool)
	ids     *idTable
}

// space deals with white space. The result is b itself where nothing changes.
func (c *checker) space(b []byte, w WhiteSpace) []byte {
	switch w {
	case Replace:
		for _, x := range b {
			if x < ' ' {
				return c.replaced(b)
			}
		}
	case Collapse:
		return c.collapsed(b)
	}
	return b
}

func (c *checker) replaced(b []byte) []byte {
	from := len(c.scratch)
	c.scratch = append(c.scratch, b...)
	out := c.scratch[from:]
	for i, x := range out {
		if x == '\t' || x == '\n' || x == '\r' {
			out[i] = ' '
		}
	}
	return out
}

func (c *checker) collapsed(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	for i, x := range b {
		if x <= ' ' && isSpace(x) && (x != ' ' || isSpace(b[i+1])) {
			from := len(c.scratch)
			for _, word := range fields(b) {
				if len(c.scratch) > from {
					c.scratch = append(c.scratch, ' ')
				}
				c.scratch = append(c.scratch, word...)
			}
			return c.scratch[from:]
		}
	}
	return b
}

// fields goes through the words of b.
func fields(b []byte) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		for n := 0; ; n++ {
			for len(b) > 0 && isSpace(b[0]) {
				b = b[1:]
			}
			if len(b) == 0 {
				return
			}
			end := 0
			for end < len(b) && !isSpace(b[end]) {
				end++
			}
			if !yield(n, b[:end]) {
				return
			}
			b = b[end:]
		}
	}
}

// check checks a value as it stands in a document. "" means that it is of the
// type; else it is the code of what is wrong.
func (c *checker) check(s *Simple, b []byte) Code {
	c.scratch = c.scratch[:0]
	return c.checkSpaced(s, c.space(b, s.WhiteSpace))
}

// checkSpaced is check where white space has been dealt with.
func (c *checker) checkSpaced(s *Simple, b []byte) Code {
	if !s.facets && s.Variety == Atomic {
		if !c.lexical(s.kind, b) {
			return ValueInvalid
		}
		if s.id != notID {
			return c.identify(s.id, b)
		}
		return ""
	}
	return c.checkAll(s, b)
}

func (c *checker) checkAll(s *Simple, b []byte) Code {
	length := -1
	switch s.Variety {
	case List:
		length = 0
		for _, word := range fields(b) {
			length++
			if code := c.checkSpaced(s.Item, word); code != "" {
				return code
			}
		}
	case Union:
		if code := c.checkMember(s, b); code != "" {
			return code
		}
	default:
		if !c.lexical(s.kind, b) {
			return ValueInvalid
		}
	}
	if len(s.patterns) > 0 && !s.matches(b) {
		return PatternMismatch
	}
	if code := s.checkLength(b, length); code != "" {
		return code
	}
	if s.values != nil && !c.enumerated(s, b) {
		return NotEnumerated
	}
	for i := range s.bounds {
		if !s.bounds[i].holds(s.kind, b) {
			return OutOfRange
		}
	}
	if s.TotalDigits >= 0 || s.FractionDigits >= 0 {
		if code := s.checkDigits(b); code != "" {
			return code
		}
	}
	if s.id != notID {
		return c.identify(s.id, b)
	}
	return ""
}

func (c *checker) enumerated(s *Simple, b []byte) bool {
	if s.Variety == Atomic && s.kind <= kindNCName {
		_, ok := s.values[string(b)]
		return ok
	}
	from := len(c.key)
	c.key = c.canonical(c.key, s, b)
	_, ok := s.values[string(c.key[from:])]
	c.key = c.key[:from]
	return ok
}

// checkMember finds the member type of a union that a value belongs to.
func (c *checker) checkMember(s *Simple, b []byte) Code {
	if c.member(s, b) == nil {
		return ValueInvalid
	}
	return ""
}

func (c *checker) member(s *Simple, b []byte) *Simple {
	for _, m := range s.Members {
		if c.checkSpaced(m, c.space(b, m.WhiteSpace)) == "" {
			return m
		}
	}
	return nil
}

func (s *Simple) checkLength(b []byte, items int) Code {
	if s.Length < 0 && s.MinLength < 0 && s.MaxLength < 0 || s.kind == kindQName && s.Variety == Atomic {
		return ""
	}
	n := items
	if n < 0 {
		switch s.kind {
		case kindHex:
			n = len(b) / 2
		case kindBase64:
			n = base64Length(b)
		default:
			n = utf8.RuneCount(b)
		}
	}
	if s.Length >= 0 && n != s.Length || s.MinLength >= 0 && n < s.MinLength {
		if s.Length >= 0 && n > s.Length {
			return TooLong
		}
		return TooShort
	}
	if s.MaxLength >= 0 && n > s.MaxLength {
		return TooLong
	}
	return ""
}

func (s *Simple) checkDigits(b []byte) Code {
	d, ok := parseDecimal(b)
	if !ok {
		return ValueInvalid
	}
	if s.FractionDigits >= 0 && len(d.fraction) > s.FractionDigits {
		return TooManyDigits
	}
	if s.TotalDigits >= 0 && len(d.whole)+len(d.fraction) > max(s.TotalDigits, 0) {
		return TooManyDigits
	}
	return ""
}

// lexical says whether b is in the lexical space of a kind.
func (c *checker) lexical(k kind, b []byte) bool {
	switch k {
	case kindString:
		return true
	case kindLanguage:
		return isLanguage(b)
	case kindNMTOKEN:
		return isNMTOKEN(b)
	case kindName:
		return isName(b)
	case kindNCName:
		return isNCName(b)
	case kindBoolean:
		switch string(b) {
		case "true", "false", "1", "0":
			return true
		}
		return false
	case kindDecimal:
		_, ok := parseDecimal(b)
		return ok
	case kindInteger:
		return isInteger(b)
	case kindFloat, kindDouble:
		return isFloat(b)
	case kindDuration:
		_, ok := parseDuration(b)
		return ok
	case kindHex:
		return isHex(b)
	case kindBase64:
		return base64Length(b) >= 0
	case kindURI:
		return isURI(b)
	case kindQName:
		_, _, ok := c.qname(b)
		return ok
	}
	_, ok := parseMoment(k, b)
	return ok
}

// qname splits a QName and finds its namespace, which must be declared.
func (c *checker) qname(b []byte) (uri, local []byte, ok bool) {
	prefix, local, has := bytes.Cut(b, []byte{':'})
	if !has {
		prefix, local = nil, b
	}
	if !isNCName(local) || has && !isNCName(prefix) {
		return nil, nil, false
	}
	if c.resolve == nil {
		return prefix, local, true
	}
	uri, ok = c.resolve(prefix)
	return uri, local, ok
}

func isLanguage(b []byte) bool {
	part, first := 0, true
	for _, x := range b {
		switch {
		case x == '-':
			if part == 0 {
				return false
			}
			part, first = 0, false
			continue
		case x >= 'a' && x <= 'z' || x >= 'A' && x <= 'Z' || !first && x >= '0' && x <= '9':
		default:
			return false
		}
		if part++; part > 8 {
			return false
		}
	}
	return part > 0
}

func isNMTOKEN(b []byte) bool {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r != ':' && !isNameChar(r) {
			return false
		}
		i += n
	}
	return len(b) > 0
}

func isName(b []byte) bool {
	r, _ := utf8.DecodeRune(b)
	return isNMTOKEN(b) && (r == ':' || isNameStart(r))
}

func isNCName(b []byte) bool {
	n, colon := nameLength(b)
	return n == len(b) && n > 0 && colon < 0
}

func isInteger(b []byte) bool {
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		b = b[1:]
	}
	for _, x := range b {
		if x < '0' || x > '9' {
			return false
		}
	}
	return len(b) > 0
}

func isHex(b []byte) bool {
	for _, x := range b {
		if (x < '0' || x > '9') && (x < 'a' || x > 'f') && (x < 'A' || x > 'F') {
			return false
		}
	}
	return len(b)%2 == 0
}

// base64Length returns the octets that b stands for, -1 where it is no base64:
// single spaces may stand between its characters.
func base64Length(b []byte) int {
	// Nearly always there are no spaces, and it may be megabytes.
	chars, pads := 0, 0
	for chars < len(b) && base64Letter[b[chars]] {
		chars++
	}
	last := byte(0)
	if chars > 0 {
		last = b[chars-1]
	}
	for i := chars; i < len(b); i++ {
		x := b[i]
		switch {
		case x == ' ':
			if i == 0 || i == len(b)-1 || b[i-1] == ' ' {
				return -1
			}
			continue
		case x == '=':
			pads++
		case pads > 0:
			return -1
		case base64Letter[x]:
			last = x
		default:
			return -1
		}
		chars++
	}
	if chars%4 != 0 || pads > 2 || chars == 0 && len(b) > 0 {
		return -1
	}
	// What padding leaves over of the last character is zero (part 2, 3.2.16).
	if pads == 2 && bytes.IndexByte([]byte("AQgw"), last) < 0 || pads == 1 && bytes.IndexByte([]byte("AEIMQUYcgkosw048"), last) < 0 {
		return -1
	}
	return chars/4*3 - pads
}

// base64Letter are the characters that stand for six bits.
var base64Letter = func() (t [256]bool) {
	for _, x := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[x] = true
	}
	return t
}()

func isFloat(b []byte) bool {
	switch string(b) {
	case "INF", "-INF", "NaN":
		return true
	}
	if i := bytes.IndexAny(b, "eE"); i >= 0 {
		if !isInteger(b[i+1:]) {
			return false
		}
		b = b[:i]
	}
	_, ok := parseDecimal(b)
	return ok
}

// parseFloat gives a value that isFloat has found good.
func parseFloat(k kind, b []byte) float64 {
	size := 64
	if k == kindFloat {
		size = 32
	}
	s := string(b)
	switch s {
	case "INF":
		s = "+Inf"
	case "-INF":
		s = "-Inf"
	}
	f, _ := strconv.ParseFloat(s, size) // what is too large is infinite, and so meant
	return f
}

// isURI says whether b is a URI reference once what URIs do not have is escaped
// (XML Schema part 2, 3.2.17; XLink 5.4; RFC 2396 and 2732).
func isURI(b []byte) bool {
	rest := b
	if i := bytes.IndexAny(b, ":/?#"); i >= 0 && b[i] == ':' {
		if !isScheme(b[:i]) || i+1 == len(b) || b[i+1] == '#' {
			return false
		}
		rest = b[i+1:]
	}
	fragment := false
	for i, x := range rest {
		switch x {
		case '#':
			if fragment {
				return false
			}
			fragment = true
		case '%':
			if i+2 >= len(rest) || !isHex(rest[i+1:i+3]) {
				return false
			}
		}
	}
	return true
}

func isScheme(b []byte) bool {
	for i, x := range b {
		letter := x >= 'a' && x <= 'z' || x >= 'A' && x <= 'Z'
		if !letter && (i == 0 || (x < '0' || x > '9') && x != '+' && x != '-' && x != '.') {
			return false
		}
	}
	return len(b) > 0
}

// idTable holds the IDs of a document and the references to them.
type idTable struct {
	ids  map[string]struct{}
	refs []idRef
	at   int // the offset of the value that is being checked
}

type idRef struct {
	id string
	at int
}

func (c *checker) identify(k idKind, b []byte) Code {
	if c.ids == nil {
		return ""
	}
	if k == isIDREF {
		c.ids.refs = append(c.ids.refs, idRef{string(b), c.ids.at})
		return ""
	}
	if _, twice := c.ids.ids[string(b)]; twice {
		return IDTwice
	}
	if c.ids.ids == nil {
		c.ids.ids = map[string]struct{}{}
	}
	c.ids.ids[string(b)] = struct{}{}
	return ""
}
