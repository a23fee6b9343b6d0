package xsd

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of one pattern.
const (
	maxPatternNesting = 200
	maxInstructions   = 20_000
	maxPatternWork    = 2_000_000 // ranges of all sets of characters together
)

var errPatternTooLarge = errors.New("the pattern is too large")

// instruction is one step of a pattern's program (Thompson's construction).
type instruction struct {
	op   opcode
	set  int32 // of opSet
	x, y int32 // where to go on
}

type opcode uint8

const (
	opSet opcode = iota
	opSplit
	opMatch
)

// patternNode is one part of a parsed pattern.
type patternNode struct {
	kind     nodeKind
	set      charset
	parts    []*patternNode
	min, max int
}

type nodeKind uint8

const (
	nodeSet nodeKind = iota
	nodeConcat
	nodeAlternate
	nodeRepeat
)

// patternParser reads a regular expression of XML Schema 1.0, part 2, appendix F.
type patternParser struct {
	text  []rune
	pos   int
	depth int
}

func parsePattern(text string) (*patternNode, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("the pattern is no UTF-8")
	}
	p := &patternParser{text: []rune(text)}
	n, err := p.expression()
	if err == nil && p.pos < len(p.text) {
		err = p.fail(") stands alone")
	}
	return n, err
}

func (p *patternParser) fail(text string) error {
	return errors.New("the pattern is malformed at character " + strconv.Itoa(p.pos+1) + ": " + text)
}

// peek returns the next character, 0 at the end; no schema can hold a U+0000.
func (p *patternParser) peek() rune {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

func (p *patternParser) expression() (*patternNode, error) {
	if p.depth++; p.depth > maxPatternNesting {
		return nil, errPatternTooLarge
	}
	defer func() { p.depth-- }()
	alt := &patternNode{kind: nodeAlternate}
	for {
		branch := &patternNode{kind: nodeConcat}
		for c := p.peek(); c != 0 && c != '|' && c != ')'; c = p.peek() {
			piece, err := p.piece()
			if err != nil {
				return nil, err
			}
			branch.parts = append(branch.parts, piece)
		}
		alt.parts = append(alt.parts, branch)
		if p.peek() != '|' {
			break
		}
		p.pos++
	}
	if len(alt.parts) == 1 {
		return alt.parts[0], nil
	}
	return alt, nil
}

func (p *patternParser) piece() (*patternNode, error) {
	atom, err := p.atom()
	if err != nil {
		return nil, err
	}
	lo, hi := 1, 1
	switch p.peek() {
	case '?':
		lo = 0
	case '*':
		lo, hi = 0, Unbounded
	case '+':
		hi = Unbounded
	case '{':
		return p.counted(atom)
	default:
		return atom, nil
	}
	p.pos++
	return &patternNode{kind: nodeRepeat, parts: []*patternNode{atom}, min: lo, max: hi}, nil
}

func (p *patternParser) counted(atom *patternNode) (*patternNode, error) {
	end := p.pos
	for end < len(p.text) && p.text[end] != '}' {
		end++
	}
	if end == len(p.text) {
		return nil, p.fail("{ is not closed")
	}
	from, to, ranged := strings.Cut(string(p.text[p.pos+1:end]), ",")
	lo, err := quantity(from)
	hi := lo
	if err == nil && ranged {
		if hi = Unbounded; to != "" {
			hi, err = quantity(to)
		}
	}
	if errors.Is(err, strconv.ErrRange) {
		return nil, errPatternTooLarge
	}
	if err != nil || hi != Unbounded && hi < lo {
		return nil, p.fail("the quantity is malformed")
	}
	p.pos = end + 1
	return &patternNode{kind: nodeRepeat, parts: []*patternNode{atom}, min: lo, max: hi}, nil
}

func quantity(s string) (int, error) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, strconv.ErrSyntax
		}
	}
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

func (p *patternParser) atom() (*patternNode, error) {
	c := p.peek()
	switch c {
	case '(':
		p.pos++
		n, err := p.expression()
		if err != nil {
			return nil, err
		}
		if p.peek() != ')' {
			return nil, p.fail("( is not closed")
		}
		p.pos++
		return n, nil
	case '[':
		p.pos++
		set, err := p.class()
		return &patternNode{kind: nodeSet, set: set}, err
	case '.':
		p.pos++
		return &patternNode{kind: nodeSet, set: dotSet}, nil
	case '\\':
		set, _, err := p.escape()
		return &patternNode{kind: nodeSet, set: set}, err
	case '?', '*', '+', ']', '{', '}':
		return nil, p.fail(string(c) + " stands where a character is expected")
	}
	p.pos++
	return &patternNode{kind: nodeSet, set: charset{{c, c}}}, nil
}

// escape reads an escape; single is its character where it names one, or -1.
func (p *patternParser) escape() (set charset, single rune, err error) {
	p.pos++
	c := p.peek()
	p.pos++
	switch c {
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case '\\', '|', '.', '?', '*', '+', '(', ')', '{', '}', '-', '[', ']', '^':
	case 's':
		return spaceSet, -1, nil
	case 'S':
		return spaceSet.negate(), -1, nil
	case 'i':
		return nameStartSet(), -1, nil
	case 'I':
		return nameStartSet().negate(), -1, nil
	case 'c':
		return nameSet(), -1, nil
	case 'C':
		return nameSet().negate(), -1, nil
	case 'd':
		return digitSet(), -1, nil
	case 'D':
		return digitSet().negate(), -1, nil
	case 'w':
		return wordSet(), -1, nil
	case 'W':
		return wordSet().negate(), -1, nil
	case 'p', 'P':
		set, err := p.property()
		if c == 'P' {
			set = set.negate()
		}
		return set, -1, err
	default:
		p.pos--
		return nil, -1, p.fail("the escape is unknown")
	}
	return charset{{c, c}}, c, nil
}

func (p *patternParser) property() (charset, error) {
	end := p.pos
	for end < len(p.text) && p.text[end] != '}' {
		end++
	}
	if p.peek() != '{' || end == len(p.text) {
		return nil, p.fail("the property is malformed")
	}
	name := string(p.text[p.pos+1 : end])
	var set charset
	var ok bool
	if b, is := strings.CutPrefix(name, "Is"); is {
		set, ok = block(b)
	} else {
		set, ok = category(name)
	}
	if !ok {
		return nil, p.fail("the property is unknown")
	}
	p.pos = end + 1
	return set, nil
}

// class reads what follows [.
func (p *patternParser) class() (charset, error) {
	if p.depth++; p.depth > maxPatternNesting {
		return nil, errPatternTooLarge
	}
	defer func() { p.depth-- }()
	negative := p.peek() == '^'
	if negative {
		p.pos++
	}
	var set charset
	for first := true; ; first = false {
		c := p.peek()
		switch {
		case c == 0:
			return nil, p.fail("[ is not closed")
		case c == ']' && !first:
			p.pos++
			return finish(set, negative), nil
		case c == '-' && p.pos+1 < len(p.text) && p.text[p.pos+1] == '[' && !first:
			p.pos += 2
			without, err := p.class()
			if err != nil {
				return nil, err
			}
			if p.peek() != ']' {
				return nil, p.fail("] is missing behind a subtraction")
			}
			p.pos++
			return finish(set, negative).minus(without), nil
		}
		part, err := p.classPart(first)
		if err != nil {
			return nil, err
		}
		set = append(set, part...)
	}
}

func finish(set charset, negative bool) charset {
	set = normal(set)
	if negative {
		return set.negate()
	}
	return set
}

// classPart reads one character, range or escape of a class.
func (p *patternParser) classPart(first bool) (charset, error) {
	lo, set, err := p.classChar()
	if err != nil || lo < 0 {
		return set, err
	}
	if lo == '-' && set == nil && !first && p.peek() != ']' && p.peek() != '-' {
		return nil, p.fail("- stands where it means neither itself nor a range")
	}
	if p.peek() != '-' || p.pos+1 >= len(p.text) || p.text[p.pos+1] == ']' || p.text[p.pos+1] == '[' {
		return charset{{lo, lo}}, nil
	}
	p.pos++
	hi, _, err := p.classChar()
	if err != nil {
		return nil, err
	}
	if hi < lo {
		return nil, p.fail("the range is malformed")
	}
	return charset{{lo, hi}}, nil
}

// classChar reads a character of a class, or, with -1, an escape that is a set.
// The set is nil for a character that is not escaped.
func (p *patternParser) classChar() (rune, charset, error) {
	c := p.peek()
	switch c {
	case '\\':
		set, single, err := p.escape()
		return single, set, err
	case 0, '[', ']':
		return -1, nil, p.fail("a character is expected in the class")
	}
	p.pos++
	return c, nil, nil
}

// assembler turns a parsed pattern into a program.
type assembler struct {
	code  []instruction
	sets  []charset
	work  int
	steps int // parts emitted, those of no instruction too
}

// emit adds the code of n, which goes on at next, and returns its entry.
func (a *assembler) emit(n *patternNode, next int32) (int32, error) {
	if a.steps++; a.steps > 10*maxInstructions {
		return 0, errPatternTooLarge
	}
	switch n.kind {
	case nodeSet:
		if len(n.set) == 0 {
			return a.add(instruction{op: opSet, set: a.set(charset{}), x: next})
		}
		return a.add(instruction{op: opSet, set: a.set(n.set), x: next})
	case nodeConcat:
		for i := len(n.parts) - 1; i >= 0; i-- {
			var err error
			if next, err = a.emit(n.parts[i], next); err != nil {
				return 0, err
			}
		}
		return next, nil
	case nodeAlternate:
		entry := int32(-1)
		for i := len(n.parts) - 1; i >= 0; i-- {
			at, err := a.emit(n.parts[i], next)
			if err == nil && entry >= 0 {
				at, err = a.add(instruction{op: opSplit, x: at, y: entry})
			}
			if err != nil {
				return 0, err
			}
			entry = at
		}
		return entry, nil
	}
	return a.repeat(n, next)
}

func (a *assembler) repeat(n *patternNode, next int32) (int32, error) {
	part := n.parts[0]
	var err error
	if n.max == Unbounded {
		loop, err := a.add(instruction{op: opSplit, y: next})
		if err != nil {
			return 0, err
		}
		body, err := a.emit(part, loop)
		if err != nil {
			return 0, err
		}
		a.code[loop].x = body
		next = loop
	} else {
		if n.max > maxInstructions {
			return 0, errPatternTooLarge
		}
		out := next
		for range n.max - n.min {
			if next, err = a.emit(part, next); err != nil {
				return 0, err
			}
			if next, err = a.add(instruction{op: opSplit, x: next, y: out}); err != nil {
				return 0, err
			}
		}
	}
	if n.min > maxInstructions {
		return 0, errPatternTooLarge
	}
	for range n.min {
		if next, err = a.emit(part, next); err != nil {
			return 0, err
		}
	}
	return next, nil
}

func (a *assembler) add(in instruction) (int32, error) {
	if len(a.code) >= maxInstructions {
		return 0, errPatternTooLarge
	}
	a.code = append(a.code, in)
	return int32(len(a.code) - 1), nil
}

func (a *assembler) set(c charset) int32 {
	for i := len(a.sets) - 1; i >= 0 && i >= len(a.sets)-400; i-- {
		if equalSets(a.sets[i], c) {
			return int32(i)
		}
	}
	a.sets = append(a.sets, c)
	a.work += len(c)
	return int32(len(a.sets) - 1)
}

func equalSets(a, b charset) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
