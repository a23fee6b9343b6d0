package xsd

import "slices"

// Automaton is a pattern as a nondeterministic automaton over characters, for
// those who reason about patterns instead of matching texts. It is immutable.
type Automaton struct {
	code  []instruction
	sets  []charset
	start int32
}

// NewAutomaton reads a pattern of XML Schema.
func NewAutomaton(pattern string) (*Automaton, error) {
	n, err := parsePattern(pattern)
	if err != nil {
		return nil, err
	}
	a := &assembler{}
	match, err := a.add(instruction{op: opMatch})
	if err != nil {
		return nil, err
	}
	start, err := a.emit(n, match)
	if err != nil {
		return nil, err
	}
	return &Automaton{a.code, a.sets, start}, nil
}

// Start returns the states before the first character.
func (a *Automaton) Start() []int32 { return a.closure(nil, a.start) }

// Step returns the states behind one character more, in order.
func (a *Automaton) Step(states []int32, c rune) []int32 {
	var out []int32
	for _, s := range states {
		if in := a.code[s]; in.op == opSet && a.sets[in.set].has(c) {
			out = a.closure(out, in.x)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Accepts says whether the text may end in these states.
func (a *Automaton) Accepts(states []int32) bool {
	return slices.ContainsFunc(states, func(s int32) bool { return a.code[s].op == opMatch })
}

// Cuts calls each for the characters at which a set of characters begins or has
// just ended: between two of them all characters are alike.
func (a *Automaton) Cuts(each func(rune)) {
	for _, set := range a.sets {
		for _, r := range set {
			each(r.lo)
			each(r.hi + 1)
		}
	}
}

// Sign appends, for each set of characters, whether it has c: characters of the
// same signs are alike.
func (a *Automaton) Sign(out []byte, c rune) []byte {
	for _, set := range a.sets {
		if set.has(c) {
			out = append(out, 1)
		} else {
			out = append(out, 0)
		}
	}
	return out
}

func (a *Automaton) closure(out []int32, from int32) []int32 {
	seen := map[int32]bool{}
	stack := []int32{from}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[s] {
			continue
		}
		seen[s] = true
		if in := a.code[s]; in.op == opSplit {
			stack = append(stack, in.x, in.y)
		} else {
			out = append(out, s)
		}
	}
	return out
}

func (c charset) has(r rune) bool {
	_, found := slices.BinarySearchFunc(c, r, func(x charRange, r rune) int {
		switch {
		case r < x.lo:
			return 1
		case r > x.hi:
			return -1
		}
		return 0
	})
	return found
}
