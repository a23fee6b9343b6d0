package transform

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"

	"weiche/internal/transform/xsd"
)

// maxWords bounds the states looked at when texts are compared with a type.
const maxWords = 60_000

// words are the texts that a form's schema allows: all of its patterns match,
// and the length fits. Characters are those that XML can carry; the doors refuse
// others.
type words struct {
	patterns []*pattern
	excluded []*pattern // none of them matches
	min, max int        // in characters; max -1: unbounded
}

// pattern is a regular expression of a form's schema, which is searched for
// anywhere in the text.
type pattern struct {
	prog   *syntax.Prog
	source string
}

// newPattern is nil, false for what is not understood: word boundaries, lines.
func newPattern(s string) (*pattern, bool) {
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return nil, false
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, false
	}
	for _, in := range prog.Inst {
		if in.Op == syntax.InstEmptyWidth && syntax.EmptyOp(in.Arg)&^(syntax.EmptyBeginText|syntax.EmptyEndText) != 0 {
			return nil, false
		}
	}
	return &pattern{prog, s}, true
}

// position1 is how far a pattern has read: the states of all searches under way, or done.
type position1 struct {
	states []uint32
	done   bool
}

func (p *pattern) start() position1 { return p.closure(position1{}, uint32(p.prog.Start), true) }

func (p *pattern) closure(at position1, from uint32, begin bool) position1 {
	seen := map[uint32]bool{}
	stack := []uint32{from}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[s] {
			continue
		}
		seen[s] = true
		switch in := &p.prog.Inst[s]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, in.Out)
		case syntax.InstEmptyWidth:
			switch e := syntax.EmptyOp(in.Arg); {
			case e&syntax.EmptyBeginText != 0 && !begin:
			case e&syntax.EmptyEndText != 0:
				at.states = append(at.states, s) // held only where the text ends
			default:
				stack = append(stack, in.Out)
			}
		case syntax.InstMatch:
			at.done = true
		case syntax.InstFail:
		default:
			at.states = append(at.states, s)
		}
	}
	return at
}

func (p *pattern) step(at position1, c rune) position1 {
	if at.done {
		return position1{done: true}
	}
	var out position1
	for _, s := range at.states {
		if in := &p.prog.Inst[s]; in.Op != syntax.InstEmptyWidth && in.MatchRune(c) {
			out = p.closure(out, in.Out, false)
		}
	}
	out = p.closure(out, uint32(p.prog.Start), false)
	if out.done {
		return position1{done: true}
	}
	slices.Sort(out.states)
	out.states = slices.Compact(out.states)
	return out
}

// accepts says whether the text may end here.
func (p *pattern) accepts(at position1) bool {
	if at.done {
		return true
	}
	for _, s := range at.states {
		if p.prog.Inst[s].Op == syntax.InstEmptyWidth && p.ends(s) {
			return true
		}
	}
	return false
}

// ends says whether a match follows with nothing more to read.
func (p *pattern) ends(from uint32) bool {
	seen := map[uint32]bool{}
	stack := []uint32{from}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[s] {
			continue
		}
		seen[s] = true
		switch in := &p.prog.Inst[s]; in.Op {
		case syntax.InstMatch:
			return true
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&syntax.EmptyBeginText == 0 {
				stack = append(stack, in.Out)
			}
		}
	}
	return false
}

func (p *pattern) cuts(each func(rune)) {
	for _, in := range p.prog.Inst {
		switch in.Op {
		case syntax.InstRune:
			for i := 0; i+1 < len(in.Rune); i += 2 {
				each(in.Rune[i])
				each(in.Rune[i+1] + 1)
			}
			if len(in.Rune) == 1 { // in either case
				for c := unicode.SimpleFold(in.Rune[0]); ; c = unicode.SimpleFold(c) {
					each(c)
					each(c + 1)
					if c == in.Rune[0] {
						break
					}
				}
			}
		case syntax.InstRune1:
			each(in.Rune[0])
			each(in.Rune[0] + 1)
		case syntax.InstRuneAnyNotNL:
			each('\n')
			each('\n' + 1)
		}
	}
}

// target is a text type as words are compared with it.
type target struct {
	space    xsd.WhiteSpace
	groups   [][]*xsd.Automaton // one of each group
	min, max int                // characters, once white space is dealt with; -1
}

func newTarget(s *xsd.Simple) (*target, bool) {
	t := &target{space: s.WhiteSpace, min: max(0, s.MinLength, s.Length), max: s.MaxLength}
	if s.Length >= 0 {
		t.max = s.Length
	}
	for _, group := range s.Patterns {
		var all []*xsd.Automaton
		for _, text := range group {
			a, err := xsd.NewAutomaton(text)
			if err != nil {
				return nil, false
			}
			all = append(all, a)
		}
		t.groups = append(t.groups, all)
	}
	if s.Enumeration != nil {
		listed := make([]string, len(s.Enumeration))
		for i, v := range s.Enumeration {
			listed[i] = patternEscape.Replace(v)
		}
		a, err := xsd.NewAutomaton(strings.Join(listed, "|"))
		if err != nil {
			return nil, false
		}
		t.groups = append(t.groups, []*xsd.Automaton{a})
	}
	return t, true
}

// patternEscape makes a text a pattern of XML Schema that matches it alone.
var patternEscape = strings.NewReplacer(`\`, `\\`, "|", `\|`, ".", `\.`, "?", `\?`, "*", `\*`, "+", `\+`, "(", `\(`, ")", `\)`,
	"{", `\{`, "}", `\}`, "-", `\-`, "[", `\[`, "]", `\]`, "^", `\^`)

// track is a pattern's automaton with the state it is in.
type track struct {
	states []any
	ids    map[string]int
	next   [][]int
	accept []bool
	start  int
	move   func(state any, c rune) any
	ends   func(state any) bool
	dead   func(state any) bool
}

func newTrack(start any, kinds int, move func(any, rune) any, ends, dead func(any) bool) *track {
	t := &track{ids: map[string]int{}, move: move, ends: ends, dead: dead}
	t.start = t.id(start, kinds)
	return t
}

func (t *track) id(state any, kinds int) int {
	if t.dead(state) {
		return -1
	}
	key := fmt.Sprint(state)
	if id, ok := t.ids[key]; ok {
		return id
	}
	id := len(t.states)
	t.ids[key] = id
	t.states, t.accept = append(t.states, state), append(t.accept, t.ends(state))
	row := make([]int, kinds)
	for i := range row {
		row[i] = -2
	}
	t.next = append(t.next, row)
	return id
}

func (t *track) to(state, kind int, c rune) int {
	if state < 0 {
		return -1
	}
	if to := t.next[state][kind]; to != -2 {
		return to
	}
	to := t.id(t.move(t.states[state], c), len(t.next[state]))
	t.next[state][kind] = to
	return to
}

func (p *pattern) track(kinds int) *track {
	return newTrack(p.start(), kinds,
		func(s any, c rune) any { return p.step(s.(position1), c) },
		func(s any) bool { return p.accepts(s.(position1)) },
		func(s any) bool { at := s.(position1); return !at.done && len(at.states) == 0 })
}

func automatonTrack(a *xsd.Automaton, kinds int) *track {
	return newTrack(a.Start(), kinds,
		func(s any, c rune) any { return a.Step(s.([]int32), c) },
		func(s any) bool { return a.Accepts(s.([]int32)) },
		func(s any) bool { return len(s.([]int32)) == 0 })
}

// race runs the words' patterns beside the target's.
type race struct {
	words  words
	target *target
	kinds  []rune // one character of each
	left   []*track
	not    []*track
	right  [][]*track
	most   int // up to which characters are counted
}

// lap is how far all have read.
type lap struct {
	states []int // of left, not, right in order; -1: no text goes on so
	phase  uint8
	count  int // characters passed on to the target
	raw    int // characters read
}

const (
	phaseStart uint8 = iota
	phaseIn
	phaseSpace
)

func newRace(l words, t *target) *race {
	r := &race{words: l, target: t, kinds: l.alphabet(t), most: max(l.min, t.min)}
	for _, p := range l.patterns {
		r.left = append(r.left, p.track(len(r.kinds)))
	}
	for _, p := range l.excluded {
		r.not = append(r.not, p.track(len(r.kinds)))
	}
	for _, g := range t.groups {
		var all []*track
		for _, a := range g {
			all = append(all, automatonTrack(a, len(r.kinds)))
		}
		r.right = append(r.right, all)
	}
	return r
}

func (r *race) start() lap {
	var out lap
	for _, t := range slices.Concat(r.left, r.not) {
		out.states = append(out.states, t.start)
	}
	for _, g := range r.right {
		for _, t := range g {
			out.states = append(out.states, t.start)
		}
	}
	return out
}

func (l lap) key() string {
	b := make([]byte, 0, 4*len(l.states)+12)
	for _, s := range l.states {
		b = append(b, byte(s), byte(s>>8), byte(s>>16))
	}
	return string(append(b, l.phase, byte(l.count), byte(l.raw), byte(l.count>>8), byte(l.raw>>8)))
}

// next reads one character. alive is false where the words have none so.
func (r *race) next(at lap, kind int) (lap, bool) {
	c := r.kinds[kind]
	out := lap{states: slices.Clone(at.states), phase: at.phase, count: at.count, raw: min(at.raw+1, r.most)}
	n := 0
	for _, t := range r.left {
		if out.states[n] = t.to(at.states[n], kind, c); out.states[n] < 0 {
			return out, false
		}
		n++
	}
	for _, t := range r.not {
		out.states[n] = t.to(at.states[n], kind, c)
		n++
	}
	blank := c == ' ' || c == '\t' || c == '\n' || c == '\r'
	switch {
	case blank && r.target.space == xsd.Collapse:
		if at.phase == phaseIn {
			out.phase = phaseSpace
		}
		return out, true
	case blank && r.target.space == xsd.Replace:
		kind = slices.Index(r.kinds, ' ')
	case r.target.space == xsd.Collapse:
		if at.phase == phaseSpace {
			r.pass(&out, slices.Index(r.kinds, ' '))
		}
		out.phase = phaseIn
	}
	r.pass(&out, kind)
	return out, true
}

func (r *race) pass(at *lap, kind int) {
	at.count = min(at.count+1, r.most)
	n := len(r.left) + len(r.not)
	for _, g := range r.right {
		for _, t := range g {
			at.states[n] = t.to(at.states[n], kind, r.kinds[kind])
			n++
		}
	}
}

// allowed says whether a text of the words may end here.
func (r *race) allowed(at lap) bool {
	if at.raw < r.words.min {
		return false
	}
	for i, t := range r.left {
		if !t.accept[at.states[i]] {
			return false
		}
	}
	for i, t := range r.not {
		if s := at.states[len(r.left)+i]; s >= 0 && t.accept[s] {
			return false
		}
	}
	return true
}

// taken says whether the target takes the text so far.
func (r *race) taken(at lap) bool {
	if at.count < r.target.min {
		return false
	}
	n := len(r.left) + len(r.not)
	for _, g := range r.right {
		ok := false
		for _, t := range g {
			ok = ok || at.states[n] >= 0 && t.accept[at.states[n]]
			n++
		}
		if !ok {
			return false
		}
	}
	return true
}

// escape looks for a text of the words that the target refuses. decided is false
// where there was too much to look at.
func (l words) escape(t *target) (word string, found, decided bool) {
	if t.max >= 0 && (l.max < 0 || l.max > t.max) {
		if word, ok := l.longer(t.max); ok {
			return word, true, true
		}
	}
	if l.min > 200 || t.min > 200 {
		return "", false, false
	}
	r := newRace(l, t)
	found = r.each(func(text string, at lap) bool { word = text; return r.allowed(at) && !r.taken(at) }, &decided)
	return word, found, decided
}

// each walks through all texts, the shortest first, until want says yes. whole
// tells whether it came to an end.
func (r *race) each(want func(text string, at lap) bool, whole *bool) bool {
	type step struct {
		at   lap
		from int
		char rune
	}
	queue := []step{{r.start(), -1, 0}}
	seen := map[string]bool{queue[0].at.key(): true}
	text := func(i int) string {
		var out []rune
		for ; queue[i].from >= 0; i = queue[i].from {
			out = append(out, queue[i].char)
		}
		slices.Reverse(out)
		return string(out)
	}
	for i := 0; i < len(queue); i++ {
		if i > maxWords {
			*whole = false
			return false
		}
		at := queue[i].at
		if want(text(i), at) {
			*whole = true
			return true
		}
		for kind, c := range r.kinds {
			next, alive := r.next(at, kind)
			if !alive {
				continue
			}
			if key := next.key(); !seen[key] {
				seen[key] = true
				queue = append(queue, step{next, i, c})
			}
		}
	}
	*whole = true
	return false
}

// alphabet lists one character of each kind that somebody tells apart.
func (l words) alphabet(t *target) []rune {
	cuts := []rune{'\t', '\t' + 1, '\n', '\n' + 1, '\r', '\r' + 1, ' ', ' ' + 1, 'a', 0x7F, 0xD800, 0xE000, 0xFFFE, 0x10000}
	add := func(c rune) { cuts = append(cuts, c) }
	for _, p := range slices.Concat(l.patterns, l.excluded) {
		p.cuts(add)
	}
	for _, g := range t.groups {
		for _, a := range g {
			a.Cuts(add)
		}
	}
	slices.Sort(cuts)
	cuts = slices.DeleteFunc(slices.Compact(cuts), func(c rune) bool {
		return c < ' ' && c != '\t' && c != '\n' && c != '\r' || c >= 0xD800 && c < 0xE000 || c == 0xFFFE || c == 0xFFFF || c > 0x10FFFF
	})
	slices.SortStableFunc(cuts, func(a, b rune) int { return letterFirst(a) - letterFirst(b) })
	seen := map[string]bool{}
	return slices.DeleteFunc(cuts, func(c rune) bool {
		sign := []byte{0}
		switch c {
		case ' ', '\t', '\n', '\r':
			sign[0] = byte(c)
		}
		for _, p := range slices.Concat(l.patterns, l.excluded) {
			sign = p.sign(sign, c)
		}
		for _, g := range t.groups {
			for _, a := range g {
				sign = a.Sign(sign, c)
			}
		}
		known := seen[string(sign)]
		seen[string(sign)] = true
		return known
	})
}

// sign appends which of the pattern's sets have a character.
func (p *pattern) sign(out []byte, c rune) []byte {
	for i := range p.prog.Inst {
		switch in := &p.prog.Inst[i]; in.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if in.MatchRune(c) {
				out = append(out, 1)
			} else {
				out = append(out, 0)
			}
		}
	}
	return out
}

// longer looks for a text of more than so many characters.
func (l words) longer(than int) (string, bool) {
	if len(l.patterns)+len(l.excluded) == 0 {
		return strings.Repeat("x", than+1), true
	}
	r := newRace(words{patterns: l.patterns, excluded: l.excluded, max: -1}, &target{max: -1})
	type reached struct {
		at   lap
		text string
	}
	now := []reached{{at: r.start()}}
	for n := 1; (l.max < 0 || n <= l.max) && n <= than+60 && len(now) > 0; n++ {
		var next []reached
		seen := map[string]bool{}
		for _, s := range now {
			for kind, c := range r.kinds {
				to, alive := r.next(s.at, kind)
				if key := to.key(); alive && !seen[key] {
					seen[key] = true
					next = append(next, reached{to, s.text + string(c)})
				}
			}
		}
		now = next
		if n > than {
			for _, s := range now {
				if r.allowed(s.at) {
					return s.text, true
				}
			}
		}
	}
	return "", false
}

// short lists some of the shortest texts of the words.
func (l words) short(n int) []string {
	var out []string
	r := newRace(l, &target{max: -1})
	var whole bool
	r.each(func(text string, at lap) bool {
		if r.allowed(at) {
			out = append(out, text)
		}
		return len(out) >= n
	}, &whole)
	return out
}

func letterFirst(c rune) int {
	if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
		return 0
	}
	return 1
}
