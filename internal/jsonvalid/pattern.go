package jsonvalid

import (
	"regexp"
	"regexp/syntax"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// matcher is a pattern's MatchString. Most patterns of forms are sets of letters
// in a row, each some times over; most texts are found to match by taking as
// many letters as each set has. What is not goes to the regular expression.
func matcher(p jsonschema.Regexp) func(string) bool {
	if re, ok := p.(*regexp.Regexp); ok {
		if row, ok := rowOf(re.String()); ok {
			return func(s string) bool { return row.match(s) || re.MatchString(s) }
		}
	}
	return p.MatchString
}

// row is a pattern as sets of letters one after another, or some texts of it:
// what it matches the pattern matches.
type row struct {
	sets    []repeated
	anyhere bool // the first letter of a set may stand anywhere; there is one set
	open    bool // something may follow
}

// repeated is a set's letters, least to most of them.
type repeated struct {
	set         runes
	least, most int // most: -1 for any number
}

// longest is how many sets a row has at most.
const longest = 64

func rowOf(pattern string) (row, bool) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return row{}, false
	}
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	var r row
	if parts[0].Op == syntax.OpBeginText {
		parts = parts[1:]
	} else {
		r.anyhere = true
	}
	if n := len(parts); n > 0 && parts[n-1].Op == syntax.OpEndText {
		parts = parts[:n-1]
	} else {
		r.open = true
	}
	for _, p := range parts {
		if !r.add(p) {
			return row{}, false
		}
	}
	if r.anyhere {
		one := len(r.sets) == 1 && r.open && r.sets[0].least == 1
		return r, one
	}
	return r, true
}

// add appends what a part of a pattern matches, or some of it.
func (r *row) add(p *syntax.Regexp) bool {
	for p.Op == syntax.OpCapture {
		p = p.Sub[0]
	}
	least, most, inner := 1, 1, p
	switch p.Op {
	case syntax.OpStar:
		least, most, inner = 0, -1, p.Sub[0]
	case syntax.OpPlus:
		least, most, inner = 1, -1, p.Sub[0]
	case syntax.OpQuest:
		least, most, inner = 0, 1, p.Sub[0]
	case syntax.OpRepeat:
		least, most, inner = p.Min, p.Max, p.Sub[0]
	case syntax.OpConcat:
		for _, sub := range p.Sub {
			if !r.add(sub) {
				return false
			}
		}
		return true
	case syntax.OpLiteral:
		if len(p.Rune) > 1 && p.Flags&syntax.FoldCase == 0 {
			for _, c := range p.Rune {
				r.sets = append(r.sets, repeated{setOf([]rune{c, c}), 1, 1})
			}
			return len(r.sets) <= longest
		}
	}
	if pairs := single(inner); len(pairs) > 0 {
		r.sets = append(r.sets, repeated{setOf(pairs), least, most})
		return len(r.sets) <= longest
	}
	if least != most || p.Op != syntax.OpRepeat {
		return false
	}
	for range least {
		if !r.add(inner) {
			return false
		}
	}
	return true
}

// single returns letters that each match a part alone, as pairs of first and
// last.
func single(p *syntax.Regexp) []rune {
	switch p.Op {
	case syntax.OpCapture:
		return single(p.Sub[0])
	case syntax.OpCharClass:
		return p.Rune
	case syntax.OpLiteral:
		if len(p.Rune) == 1 && p.Flags&syntax.FoldCase == 0 {
			return []rune{p.Rune[0], p.Rune[0]}
		}
	case syntax.OpAlternate:
		var out []rune
		for _, sub := range p.Sub {
			out = append(out, single(sub)...)
		}
		return out
	}
	return nil
}

func (r *row) match(s string) bool {
	if r.anyhere {
		for _, c := range s {
			if r.sets[0].set.has(c) {
				return true
			}
		}
		return false
	}
	for i := range r.sets {
		p := &r.sets[i]
		count := 0
		for len(s) > 0 && count != p.most {
			c, size := rune(s[0]), 1
			if c >= utf8.RuneSelf {
				c, size = utf8.DecodeRuneInString(s)
			}
			if !p.set.has(c) {
				break
			}
			s = s[size:]
			count++
		}
		if count < p.least {
			return false
		}
	}
	return r.open || s == ""
}

// runes is a set of letters: those of Latin and its neighbours as bits.
type runes struct {
	bits  [0x600 / 64]uint64
	pairs []rune
}

func setOf(pairs []rune) runes {
	s := runes{pairs: pairs}
	for i := 0; i < len(pairs); i += 2 {
		for c := pairs[i]; c <= pairs[i+1] && int(c) < len(s.bits)*64; c++ {
			s.bits[c/64] |= 1 << (c % 64)
		}
	}
	return s
}

func (s *runes) has(c rune) bool {
	if int(c) < len(s.bits)*64 {
		return s.bits[c/64]&(1<<(c%64)) != 0
	}
	for i := 0; i < len(s.pairs); i += 2 {
		if s.pairs[i] <= c && c <= s.pairs[i+1] {
			return true
		}
	}
	return false
}
