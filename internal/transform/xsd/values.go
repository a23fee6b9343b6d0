package xsd

import (
	"bytes"
	"math"
	"strconv"
)

// decimal is a decimal number: its digits without zeros that say nothing.
type decimal struct {
	negative        bool
	whole, fraction []byte
}

func parseDecimal(b []byte) (d decimal, ok bool) {
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		d.negative = b[0] == '-'
		b = b[1:]
	}
	point := -1
	for i, x := range b {
		if x == '.' && point < 0 {
			point = i
		} else if x < '0' || x > '9' {
			return d, false
		}
	}
	d.whole = b
	if point >= 0 {
		d.whole, d.fraction = b[:point], b[point+1:]
	}
	if len(d.whole)+len(d.fraction) == 0 {
		return d, false
	}
	for len(d.whole) > 0 && d.whole[0] == '0' {
		d.whole = d.whole[1:]
	}
	for n := len(d.fraction); n > 0 && d.fraction[n-1] == '0'; n-- {
		d.fraction = d.fraction[:n-1]
	}
	if len(d.whole)+len(d.fraction) == 0 {
		d.negative = false
	}
	return d, true
}

func (d decimal) compare(e decimal) int {
	if d.negative != e.negative {
		if d.negative {
			return -1
		}
		return 1
	}
	c := len(d.whole) - len(e.whole)
	if c == 0 {
		if c = bytes.Compare(d.whole, e.whole); c == 0 {
			c = bytes.Compare(d.fraction, e.fraction)
		}
	}
	if d.negative {
		return -c
	}
	return c
}

// moment is a value of the types of dates and times. What a type leaves out has a
// value of its own, the same for all.
type moment struct {
	year, month, day, hour, minute, second int
	fraction                               []byte // of the second, without zeros at its end
	zone                                   int    // minutes east
	zoned                                  bool
}

// parseMoment reads a value of a date or time type.
func parseMoment(k kind, b []byte) (m moment, ok bool) {
	m = moment{year: 2000, month: 1, day: 1}
	p := momentParser{b: b}
	switch k {
	case kindDateTime:
		p.year(&m)
		p.char('-')
		m.month = p.two(1, 12)
		p.char('-')
		m.day = p.two(1, 31)
		p.char('T')
		p.clock(&m)
	case kindDate:
		p.year(&m)
		p.char('-')
		m.month = p.two(1, 12)
		p.char('-')
		m.day = p.two(1, 31)
	case kindTime:
		p.clock(&m)
	case kindYearMonth:
		p.year(&m)
		p.char('-')
		m.month = p.two(1, 12)
	case kindYear:
		p.year(&m)
	case kindMonthDay:
		p.char('-')
		p.char('-')
		m.month = p.two(1, 12)
		p.char('-')
		m.day = p.two(1, 31)
	case kindDay:
		p.char('-')
		p.char('-')
		p.char('-')
		m.day = p.two(1, 31)
	case kindMonth:
		p.char('-')
		p.char('-')
		m.month = p.two(1, 12)
	default:
		return m, false
	}
	p.timezone(&m)
	if p.bad || len(p.b) > 0 {
		return m, false
	}
	if m.day > daysIn(m.year, m.month) && k != kindDay {
		return m, false
	}
	if m.hour == 24 {
		if m.minute != 0 || m.second != 0 || len(m.fraction) > 0 {
			return m, false
		}
	}
	return m, true
}

type momentParser struct {
	b   []byte
	bad bool
}

func (p *momentParser) char(c byte) {
	if p.bad || len(p.b) == 0 || p.b[0] != c {
		p.bad = true
		return
	}
	p.b = p.b[1:]
}

func (p *momentParser) two(lo, hi int) int {
	if p.bad || len(p.b) < 2 || p.b[0] < '0' || p.b[0] > '9' || p.b[1] < '0' || p.b[1] > '9' {
		p.bad = true
		return 0
	}
	n := int(p.b[0]-'0')*10 + int(p.b[1]-'0')
	p.b = p.b[2:]
	if n < lo || n > hi {
		p.bad = true
	}
	return n
}

// year reads four digits or more; there is no year 0 (part 2, 3.2.7), and none
// beyond nine digits is taken.
func (p *momentParser) year(m *moment) {
	negative := len(p.b) > 0 && p.b[0] == '-'
	if negative {
		p.b = p.b[1:]
	}
	n, i := 0, 0
	for i < len(p.b) && p.b[i] >= '0' && p.b[i] <= '9' && i <= 9 {
		n = n*10 + int(p.b[i]-'0')
		i++
	}
	if i < 4 || i > 9 || i > 4 && p.b[0] == '0' || n == 0 {
		p.bad = true
		return
	}
	p.b = p.b[i:]
	if m.year = n; negative {
		m.year = -n
	}
}

func (p *momentParser) clock(m *moment) {
	m.hour = p.two(0, 24)
	p.char(':')
	m.minute = p.two(0, 59)
	p.char(':')
	m.second = p.two(0, 59)
	if p.bad || len(p.b) == 0 || p.b[0] != '.' {
		return
	}
	i := 1
	for i < len(p.b) && p.b[i] >= '0' && p.b[i] <= '9' {
		i++
	}
	if i == 1 {
		p.bad = true
		return
	}
	m.fraction = bytes.TrimRight(p.b[1:i], "0")
	p.b = p.b[i:]
}

func (p *momentParser) timezone(m *moment) {
	if p.bad || len(p.b) == 0 {
		return
	}
	m.zoned = true
	if p.b[0] == 'Z' {
		p.b = p.b[1:]
		return
	}
	sign := 1
	if p.b[0] == '-' {
		sign = -1
	} else if p.b[0] != '+' {
		p.bad = true
		return
	}
	p.b = p.b[1:]
	h := p.two(0, 14)
	p.char(':')
	min := p.two(0, 59)
	if h == 14 && min != 0 {
		p.bad = true
	}
	m.zone = sign * (h*60 + min)
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year < 0 {
			year++ // the year before 1 is -1 here, and 0 in the calendar's rule
		}
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// seconds is the moment on the line of time, as if it were UTC, less its zone.
func (m moment) seconds() int64 {
	y, mo := int64(m.year), int64(m.month)
	if y < 0 {
		y++
	}
	// Days from civil (March based), proleptic Gregorian.
	if mo <= 2 {
		y--
		mo += 12
	}
	era := y / 400
	if y < 0 {
		era = (y - 399) / 400
	}
	yoe := y - era*400
	days := era*146097 + yoe*365 + yoe/4 - yoe/100 + (153*(mo-3)+2)/5 + int64(m.day) - 1
	return days*86400 + int64(m.hour)*3600 + int64(m.minute)*60 + int64(m.second) - int64(m.zone)*60
}

// compare orders two moments; ok is false where that is not determined because
// one has a zone and the other none (part 2, 3.2.7.4).
func (m moment) compare(n moment) (c int, ok bool) {
	a, b := m.seconds(), n.seconds()
	const day14 = 14 * 3600
	if m.zoned != n.zoned {
		switch {
		case a < b-day14:
			return -1, true
		case a > b+day14:
			return 1, true
		}
		return 0, false
	}
	switch {
	case a < b:
		return -1, true
	case a > b:
		return 1, true
	}
	return bytes.Compare(m.fraction, n.fraction), true
}

// duration is a span of months and of seconds.
type duration struct {
	negative bool
	months   int64
	seconds  int64
	fraction []byte
}

func parseDuration(b []byte) (d duration, ok bool) {
	if len(b) > 0 && b[0] == '-' {
		d.negative = true
		b = b[1:]
	}
	if len(b) < 2 || b[0] != 'P' {
		return d, false
	}
	b = b[1:]
	units, clock := "YMD", false
	for len(b) > 0 {
		if b[0] == 'T' {
			if clock || len(b) == 1 {
				return d, false
			}
			units, clock, b = "HMS", true, b[1:]
		}
		i := 0
		n := int64(0)
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			if n = n*10 + int64(b[i]-'0'); n > math.MaxInt32 {
				return d, false
			}
			i++
		}
		if i == 0 || i == len(b) {
			return d, false
		}
		if b[i] == '.' {
			j := i + 1
			for j < len(b) && b[j] >= '0' && b[j] <= '9' {
				j++
			}
			if j == i+1 || j >= len(b) || b[j] != 'S' {
				return d, false
			}
			d.fraction, i = bytes.TrimRight(b[i+1:j], "0"), j
		}
		at := bytes.IndexByte([]byte(units), b[i])
		if at < 0 {
			return d, false
		}
		d.add(b[i], clock, n)
		units, b = units[at+1:], b[i+1:]
	}
	return d, true
}

func (d *duration) add(unit byte, clock bool, n int64) {
	switch {
	case unit == 'Y':
		d.months += n * 12
	case unit == 'M' && !clock:
		d.months += n
	case unit == 'D':
		d.seconds += n * 86400
	case unit == 'H':
		d.seconds += n * 3600
	case unit == 'M':
		d.seconds += n * 60
	default:
		d.seconds += n
	}
}

// compare orders durations by adding them to four moments (part 2, 3.2.6.2).
func (d duration) compare(e duration) (c int, ok bool) {
	for i, start := range []moment{{year: 1696, month: 9, day: 1}, {year: 1697, month: 2, day: 1}, {year: 1903, month: 3, day: 1}, {year: 1903, month: 7, day: 1}} {
		a, b := d.after(start), e.after(start)
		got := 0
		switch {
		case a < b:
			got = -1
		case a > b:
			got = 1
		default:
			if got = bytes.Compare(d.fraction, e.fraction); d.negative {
				got = -got
			}
		}
		if i > 0 && got != c {
			return 0, false
		}
		c = got
	}
	return c, true
}

func (d duration) after(m moment) int64 {
	months, seconds := d.months, d.seconds
	if d.negative {
		months, seconds = -months, -seconds
	}
	total := int64(m.year)*12 + int64(m.month-1) + months
	year, month := total/12, total%12
	if month < 0 {
		year, month = year-1, month+12
	}
	if m.year = int(year); year <= 0 {
		m.year-- // there is no year 0
	}
	m.month = int(month) + 1
	return m.seconds() + seconds
}

// bound is one of the facets minInclusive, maxInclusive, minExclusive and
// maxExclusive.
type bound struct {
	value  []byte
	lower  bool // else upper
	strict bool
}

// holds says whether a value that is in the type's lexical space keeps the bound.
func (f *bound) holds(k kind, b []byte) bool {
	c, ok := compareValues(k, b, f.value)
	if !ok {
		return false
	}
	if f.lower {
		c = -c
	}
	return c < 0 || c == 0 && !f.strict
}

// same says whether a value is the bound's own.
func (f *bound) same(k kind, b []byte) bool {
	c, ok := compareValues(k, b, f.value)
	return ok && c == 0
}

// satisfiable says whether a value can lie between the type's bounds; only where
// the bounds are in order of each other is that known to be wrong.
func (s *Simple) satisfiable() bool {
	for i := range s.bounds {
		for j := range s.bounds {
			lo, hi := &s.bounds[i], &s.bounds[j]
			if !lo.lower || hi.lower {
				continue
			}
			if c, ok := compareValues(s.kind, lo.value, hi.value); ok && (c > 0 || c == 0 && lo.strict != hi.strict) {
				return false
			}
		}
	}
	return true
}

// compareValues orders two values of a kind; ok is false where they have no
// order.
func compareValues(k kind, a, b []byte) (c int, ok bool) {
	switch k {
	case kindDecimal, kindInteger:
		x, okX := parseDecimal(a)
		y, okY := parseDecimal(b)
		return x.compare(y), okX && okY
	case kindFloat, kindDouble:
		x, y := parseFloat(k, a), parseFloat(k, b)
		switch {
		case math.IsNaN(x) && math.IsNaN(y):
			return 0, true
		case math.IsNaN(x) || math.IsNaN(y):
			return 0, false
		case x < y:
			return -1, true
		case x > y:
			return 1, true
		}
		return 0, true
	case kindDuration:
		x, okX := parseDuration(a)
		y, okY := parseDuration(b)
		c, ok = x.compare(y)
		return c, ok && okX && okY
	}
	x, okX := parseMoment(k, a)
	y, okY := parseMoment(k, b)
	c, ok = x.compare(y)
	return c, ok && okX && okY
}

// primitives group the kinds whose values can be equal.
func (k kind) primitive() byte {
	switch k {
	case kindLanguage, kindNMTOKEN, kindName, kindNCName:
		return byte(kindString)
	case kindInteger:
		return byte(kindDecimal)
	}
	return byte(k)
}

// canonical appends a form of a value that is the same for equal values of a
// type, and only for them. The value is valid, its white space dealt with.
func (c *checker) canonical(to []byte, s *Simple, b []byte) []byte {
	switch s.Variety {
	case List:
		to = append(to, '[')
		for _, word := range fields(b) {
			to = append(c.canonical(to, s.Item, word), ' ')
		}
		return append(to, ']')
	case Union:
		ids := c.ids
		c.ids = nil // they were counted when the value was checked
		m := c.member(s, b)
		if c.ids = ids; m != nil {
			return c.canonical(to, m, c.space(b, m.WhiteSpace))
		}
		return append(to, b...)
	}
	if s.kind > kindNCName {
		to = append(to, s.kind.primitive(), 0)
	}
	switch s.kind {
	case kindBoolean:
		if b[0] == '1' || b[0] == 't' {
			return append(to, '1')
		}
		return append(to, '0')
	case kindDecimal, kindInteger:
		d, _ := parseDecimal(b)
		if d.negative {
			to = append(to, '-')
		}
		return append(append(append(to, d.whole...), '.'), d.fraction...)
	case kindFloat, kindDouble:
		return strconv.AppendFloat(to, parseFloat(s.kind, b)+0, 'g', -1, 64)
	case kindDuration:
		d, _ := parseDuration(b)
		if d.negative && d.months+d.seconds+int64(len(d.fraction)) > 0 {
			to = append(to, '-')
		}
		to = append(strconv.AppendInt(to, d.months, 10), ' ')
		return append(append(strconv.AppendInt(to, d.seconds, 10), '.'), d.fraction...)
	case kindHex:
		return append(to, bytes.ToUpper(b)...)
	case kindBase64:
		return append(to, bytes.ReplaceAll(b, []byte{' '}, nil)...)
	case kindQName:
		uri, local, _ := c.qname(b)
		return append(append(append(to, uri...), '}'), local...)
	case kindDateTime, kindTime, kindDate, kindYearMonth, kindYear, kindMonthDay, kindDay, kindMonth:
		m, _ := parseMoment(s.kind, b)
		seconds := m.seconds()
		if s.kind == kindTime {
			seconds = ((seconds % 86400) + 86400) % 86400
		}
		if m.zoned {
			to = append(to, 'Z')
		}
		return append(append(strconv.AppendInt(to, seconds, 10), '.'), m.fraction...)
	}
	return append(to, b...)
}
