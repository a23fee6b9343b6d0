package xsd

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// pattern is a compiled pattern: an automaton over classes of characters, built
// in full while that stays small, else simulated. It is immutable.
type pattern struct {
	text    string
	classes classTable

	// The automaton; state 0 is dead, 1 the start.
	ascii  []uint16 // state*128 + character → state
	next   []uint16 // state*classes.n + class → state
	accept []bool

	// The program, for the simulation; empty where there is an automaton.
	code  []instruction
	holds [][]uint64 // by set of characters: which classes it holds
	start int32
}

// Bounds of a pattern's automaton.
const (
	maxPatternStates = 1000
	maxPatternTable  = 1 << 20
)

// compilePattern compiles a pattern of a schema.
func compilePattern(text string, budget *patternBudget) (*pattern, error) {
	tree, err := parsePattern(text)
	if err != nil {
		return nil, err
	}
	var a assembler
	match, err := a.add(instruction{op: opMatch})
	if err != nil {
		return nil, err
	}
	p := &pattern{text: text}
	if p.start, err = a.emit(tree, match); err != nil {
		return nil, err
	}
	if budget.instructions -= len(a.code) + 100; budget.instructions < 0 || a.work > maxPatternWork {
		return nil, errPatternTooLarge
	}
	p.code = a.code
	if !p.partition(a.sets) {
		return nil, errPatternTooLarge
	}
	p.determine(budget)
	return p, nil
}

// classTable tells the class of a character: those of one class no set of the
// pattern tells apart.
type classTable struct {
	n     int
	ascii [128]uint16
	page  [(utf8.MaxRune + 1) >> 8]uint16
	pages [][256]uint16
}

func (t *classTable) of(r rune) uint16 { return t.pages[t.page[r>>8]][r&0xFF] }

// partition finds the classes and which of them each set holds. It is false where
// they are too many.
func (p *pattern) partition(sets []charset) bool {
	cuts := []rune{0, utf8.MaxRune + 1}
	for _, s := range sets {
		for _, r := range s {
			cuts = append(cuts, r.lo, r.hi+1)
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	class := make([]int, len(cuts)-1)
	fresh := 1
	for _, s := range sets {
		moved := map[int]int{}
		each(s, cuts, func(i int) {
			to, ok := moved[class[i]]
			if !ok {
				to = fresh
				fresh++
				moved[class[i]] = to
			}
			class[i] = to
		})
	}
	dense := map[int]int{}
	for i, c := range class {
		if _, ok := dense[c]; !ok {
			dense[c] = len(dense)
		}
		class[i] = dense[c]
	}
	p.classes.n = len(dense)
	words := (len(dense) + 63) / 64
	if len(dense) >= 1<<16 || words*len(sets) > maxPatternTable {
		return false
	}
	p.holds = make([][]uint64, len(sets))
	for k, s := range sets {
		p.holds[k] = make([]uint64, words)
		each(s, cuts, func(i int) { p.holds[k][class[i]/64] |= 1 << (class[i] % 64) })
	}
	p.classes.fill(cuts, class)
	return true
}

// each calls f for every interval between cuts that a set holds.
func each(s charset, cuts []rune, f func(i int)) {
	for _, r := range s {
		i, _ := slices.BinarySearch(cuts, r.lo)
		for ; cuts[i] <= r.hi; i++ {
			f(i)
		}
	}
}

func (t *classTable) fill(cuts []rune, class []int) {
	known := map[[256]uint16]uint16{}
	i, alike := 0, -1
	for page := range t.page {
		// Most pages are all of one class, as the one before.
		if whole := cuts[i+1] > rune(page<<8|0xFF); whole && alike == i {
			t.page[page] = t.page[page-1]
			continue
		} else if alike = -1; whole {
			alike = i
		}
		var content [256]uint16
		for low := range content {
			r := rune(page<<8 | low)
			for cuts[i+1] <= r {
				i++
			}
			content[low] = uint16(class[i])
		}
		at, ok := known[content]
		if !ok {
			at = uint16(len(t.pages))
			t.pages = append(t.pages, content)
			known[content] = at
		}
		t.page[page] = at
	}
	copy(t.ascii[:], t.pages[t.page[0]][:128])
}

// determine builds the automaton by sets of instructions. Where it grows too
// large, the program stays and is simulated.
func (p *pattern) determine(budget *patternBudget) {
	n := p.classes.n
	if n > 1<<15 {
		return
	}
	states := [][]int32{nil}
	index := map[string]uint16{"": 0}
	next := make([]uint16, n)
	accept := []bool{false}
	sim := newSimulation(p)
	var key []byte
	enter := func(set []int32) (uint16, bool) {
		sorted := slices.Clone(set)
		slices.Sort(sorted)
		key = key[:0]
		for _, pc := range sorted {
			key = binary.LittleEndian.AppendUint32(key, uint32(pc))
		}
		if at, ok := index[string(key)]; ok {
			return at, true
		}
		if budget.table -= n + 128; budget.table < 0 || len(states) >= maxPatternStates || (len(states)+1)*n > maxPatternTable {
			return 0, false
		}
		at := uint16(len(states))
		index[string(key)] = at
		states, next = append(states, sorted), append(next, make([]uint16, n)...)
		accept = append(accept, sim.accepts(sorted))
		return at, true
	}
	sim.begin()
	if _, ok := enter(sim.current); !ok {
		return
	}
	for s := 1; s < len(states); s++ {
		for c := range n {
			if budget.work -= len(states[s]) + 1; budget.work < 0 {
				return
			}
			sim.current = append(sim.current[:0], states[s]...)
			sim.step(uint16(c))
			to, ok := enter(sim.current)
			if !ok {
				return
			}
			next[s*n+c] = to
		}
	}
	p.next, p.accept = next, accept
	p.ascii = make([]uint16, len(states)*128)
	for s := range states {
		for c := range 128 {
			p.ascii[s<<7|c] = next[s*n+int(p.classes.ascii[c])]
		}
	}
	p.code, p.holds = nil, nil
}

// match says whether the whole of b, which is UTF-8, matches.
func (p *pattern) match(b []byte) bool {
	if p.next == nil {
		return p.simulate(b)
	}
	state := uint16(1)
	for i := 0; i < len(b); {
		if c := b[i]; c < utf8.RuneSelf {
			state = p.ascii[int(state)<<7|int(c)]
			i++
		} else {
			r, size := utf8.DecodeRune(b[i:])
			state = p.next[int(state)*p.classes.n+int(p.classes.of(r))]
			i += size
		}
		if state == 0 {
			return false
		}
	}
	return p.accept[state]
}

func (p *pattern) simulate(b []byte) bool {
	sim := newSimulation(p)
	sim.begin()
	for len(b) > 0 && len(sim.current) > 0 {
		r, size := utf8.DecodeRune(b)
		sim.step(p.classes.of(r))
		b = b[size:]
	}
	return sim.accepts(sim.current)
}

// simulation runs a pattern's program on all paths at once.
type simulation struct {
	p       *pattern
	current []int32 // the instructions reached, opSet and opMatch only
	spare   []int32
	stack   []int32
	seen    []uint32 // by instruction: the round it was reached in
	round   uint32
}

func newSimulation(p *pattern) *simulation {
	return &simulation{p: p, seen: make([]uint32, len(p.code))}
}

func (s *simulation) begin() {
	s.round++
	s.current = s.reach(s.current[:0], s.p.start)
}

// reach adds the instructions that are reached from pc without a character.
func (s *simulation) reach(to []int32, pc int32) []int32 {
	s.stack = append(s.stack[:0], pc)
	for len(s.stack) > 0 {
		pc := s.stack[len(s.stack)-1]
		s.stack = s.stack[:len(s.stack)-1]
		if s.seen[pc] == s.round {
			continue
		}
		s.seen[pc] = s.round
		if in := &s.p.code[pc]; in.op == opSplit {
			s.stack = append(s.stack, in.y, in.x)
		} else {
			to = append(to, pc)
		}
	}
	return to
}

func (s *simulation) step(class uint16) {
	s.round++
	out := s.spare[:0]
	for _, pc := range s.current {
		in := &s.p.code[pc]
		if in.op == opSet && s.p.holds[in.set][class/64]&(1<<(class%64)) != 0 {
			out = s.reach(out, in.x)
		}
	}
	s.current, s.spare = out, s.current
}

func (s *simulation) accepts(set []int32) bool {
	for _, pc := range set {
		if s.p.code[pc].op == opMatch {
			return true
		}
	}
	return false
}
