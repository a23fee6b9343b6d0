package transform

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"

	"weiche/internal/transform/xsd"
)

// verdict is what came of comparing texts with a simple type.
type verdict struct {
	open    string // why it is not decided; "" with no refused: proven
	refused string // a text that the form allows and the type refuses
	from    string // where that text comes from
	is      bool   // refused is one
}

// judge compares what may be written with a type.
func (j judged) judge(s *xsd.Simple, in []domain) verdict {
	if free(s) {
		return verdict{}
	}
	var open verdict
	for _, d := range in {
		v := j.one(s, d)
		if v.is && d.loose {
			v = verdict{open: fmt.Sprintf("%s would not fit, but it is not certain that the form allows it", quote(v.refused))}
		}
		if v.is {
			v.from = d.text
			return v
		}
		if v.open != "" && open.open == "" {
			open = v
		}
	}
	return open
}

// free says that the type takes every text.
func free(s *xsd.Simple) bool {
	switch s.Builtin {
	case "string", "normalizedString", "token", "anySimpleType":
		return s.Variety == xsd.Atomic && s.Enumeration == nil && len(s.Patterns) == 0 && s.Length < 0 && s.MinLength <= 0 && s.MaxLength < 0
	}
	return false
}

func isText(s *xsd.Simple) bool {
	switch s.Builtin {
	case "string", "normalizedString", "token":
		return s.Variety == xsd.Atomic
	}
	return false
}

func (j judged) one(s *xsd.Simple, d domain) verdict {
	if d.kind != domainWords {
		return judgeOne(s, d)
	}
	key := wordsKey{s, d.words.key()}
	v, known := j[key]
	if !known {
		v = judgeWords(s, d.words)
		j[key] = v
	}
	return v
}

func judgeOne(s *xsd.Simple, d domain) verdict {
	switch d.kind {
	case domainTrusted:
		return verdict{}
	case domainFinite:
		for _, v := range d.values {
			if !s.Check(v) {
				return verdict{refused: v, is: true}
			}
		}
		return verdict{}
	case domainWords:
		return judgeWords(s, d.words)
	case domainDate:
		return judgeDate(s, d.words)
	case domainDateTime:
		return judgeDateTime(s)
	case domainNumber:
		return judgeNumber(s, d.number)
	}
	return verdict{open: d.why}
}

// wordsKey tells comparisons apart; the same ones come again and again.
type wordsKey struct {
	s     *xsd.Simple
	words string
}

// judged are comparisons that were made, of the proof under way.
type judged map[wordsKey]verdict

func (l words) key() string {
	out := fmt.Sprint(l.min, " ", l.max)
	for _, p := range l.patterns {
		out += "\x00" + p.source
	}
	for _, p := range l.excluded {
		out += "\x00!" + p.source
	}
	return out
}

func judgeWords(s *xsd.Simple, l words) verdict {
	if s.Builtin == "anyURI" && !faceted(s) && s.Variety == xsd.Atomic && s.MaxLength < 0 && s.Length < 0 {
		plain, err := xsd.NewAutomaton(`[A-Za-z0-9:._/#-]+`)
		if err == nil {
			if _, found, decided := l.escape(&target{groups: [][]*xsd.Automaton{{plain}}, max: -1}); decided && !found {
				return verdict{} // nothing in it that a URI would have to escape
			}
		}
	}
	if !isText(s) || len(s.Enumeration) > 300 {
		return sampled(s, l.short(6), "the values of its type are not those of a text")
	}
	t, ok := newTarget(s)
	if !ok {
		return verdict{open: "its patterns are too large to compare"}
	}
	word, found, decided := l.escape(t)
	switch {
	case !decided:
		return verdict{open: "its patterns are too large to compare"}
	case !found:
		return verdict{}
	case s.Check(word) || l.max >= 0 && len([]rune(word)) > l.max:
		return verdict{open: "its patterns could not be compared"}
	}
	return verdict{refused: word, is: true}
}

// sampled refuses what one of some texts shows, and leaves the rest open.
func sampled(s *xsd.Simple, texts []string, open string) verdict {
	for _, v := range texts {
		if !s.Check(v) {
			return verdict{refused: v, is: true}
		}
	}
	return verdict{open: open}
}

const datePattern = `^[0-9]{4}-[0-9]{2}-[0-9]{2}$`

func judgeDate(s *xsd.Simple, l words) verdict {
	if isText(s) {
		l.patterns = append(slices.Clone(l.patterns), mustPattern(datePattern))
		l.max = -1
		return judgeWords(s, l)
	}
	// The door takes no date that XML does not have (jsonvalid.NewCompiler).
	var days []string
	for _, day := range []string{"2026-11-22", "1800-01-01", "1899-12-31", "2199-12-31", "9999-12-31", "0001-01-01"} {
		if l.has(day) {
			days = append(days, day)
		}
	}
	if s.Builtin != "date" {
		return sampled(s, days, "a date is not what its type is made for")
	}
	for _, day := range days {
		if s.Check(day) {
			continue
		}
		return verdict{refused: day, is: true}
	}
	if faceted(s) {
		return verdict{open: "its bounds are compared with some days only"}
	}
	return verdict{}
}

func faceted(s *xsd.Simple) bool {
	return len(s.Patterns) > 0 || s.Enumeration != nil || s.MinInclusive != nil || s.MaxInclusive != nil || s.MinExclusive != nil || s.MaxExclusive != nil
}

func mustPattern(s string) *pattern {
	p, ok := newPattern(s)
	if !ok {
		panic("a pattern of ours is not understood: " + s)
	}
	return p
}

// has says whether a text is one of the words.
func (l words) has(text string) bool {
	for _, p := range l.patterns {
		at := p.start()
		for _, c := range text {
			at = p.step(at, c)
		}
		if !p.accepts(at) {
			return false
		}
	}
	return true
}

func judgeDateTime(s *xsd.Simple) verdict {
	const like = "2026-11-22T10:15:30.123+01:00"
	if !s.Check(like) {
		return verdict{refused: like, is: true}
	}
	if isText(s) {
		return judgeWords(s, words{max: -1, patterns: []*pattern{mustPattern(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}(Z|[+-][0-9]{2}:[0-9]{2})$`)}})
	}
	if s.Builtin != "dateTime" || faceted(s) {
		return verdict{open: "its bounds are not compared with times"}
	}
	return verdict{}
}

// judgeNumber compares a range with a type: at its ends, beyond them where there
// are none, and at its finest.
func judgeNumber(s *xsd.Simple, n number) verdict {
	if isText(s) && s.Enumeration == nil {
		l := words{min: 1, max: -1, patterns: []*pattern{mustPattern(`^-?[0-9]{1,200}(\.[0-9]{1,200})?$`)}}
		if n.integer && !n.written && n.lo != nil && n.lo.Sign() >= 0 && n.hi != nil && n.hi.IsInt() {
			l = words{min: 1, max: len(n.hi.Num().String()), patterns: []*pattern{mustPattern(`^[0-9]+$`)}}
			return judgeWords(s, l)
		}
		if v := judgeWords(s, l); v.open == "" && !v.is {
			return v
		}
		return verdict{open: "a number is written into a text type with bounds"}
	}
	for _, text := range n.samples() {
		if !s.Check(text) {
			return verdict{refused: text, is: true}
		}
	}
	if len(s.Patterns) > 0 || s.Enumeration != nil || s.Variety != xsd.Atomic {
		return verdict{open: "its patterns are not compared with numbers"}
	}
	return verdict{}
}

// samples are the numbers of a range that a type would refuse first.
func (n number) samples() []string {
	step := n.step
	if step == nil || n.digits >= 0 && n.finest().Cmp(step) < 0 {
		step = n.finest()
	}
	lo, hi := n.lo, n.hi
	far := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(40), nil))
	if lo == nil {
		lo = new(big.Rat).Neg(far)
	} else if n.above {
		lo = new(big.Rat).Add(lo, step)
	}
	if hi == nil {
		hi = far
	} else if n.below {
		hi = new(big.Rat).Sub(hi, step)
	}
	all := []*big.Rat{lo, hi, new(big.Rat).Add(lo, step), new(big.Rat).Sub(hi, step)}
	if n.integer && !n.written {
		all = []*big.Rat{lo, hi}
	}
	var out []string
	for _, v := range all {
		if v.Cmp(lo) < 0 || v.Cmp(hi) > 0 {
			continue
		}
		out = append(out, n.text(v))
	}
	if n.written {
		out = append(out, writtenLong(n.text(lo)))
	}
	return out
}

func (n number) finest() *big.Rat {
	digits := n.digits
	if n.integer {
		digits = 0
	}
	if digits < 0 {
		digits = 20
	}
	return new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil))
}

func (n number) text(v *big.Rat) string {
	if v.IsInt() && n.digits <= 0 {
		return v.Num().String()
	}
	if n.digits >= 0 {
		return v.FloatString(n.digits)
	}
	s, err := decimalText(v.FloatString(40), -1)
	if err != nil {
		return v.FloatString(20)
	}
	for len(s) > 1 && s[len(s)-1] == '0' {
		s = s[:len(s)-1]
	}
	return s
}

// writtenLong is the number as a form may write it as well: 1.0 for 1.
func writtenLong(s string) string {
	for _, c := range s {
		if c == '.' {
			return s + "0"
		}
	}
	return s + ".0"
}

func quote(s string) string {
	r := []rune(s)
	if len(r) > 40 {
		return strconv.Quote(string(r[:40])) + fmt.Sprintf("… (%d characters)", len(r))
	}
	return strconv.Quote(s)
}
