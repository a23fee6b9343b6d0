package transform

import (
	"fmt"
	"slices"

	"weiche/internal/transform/xsd"
)

// maxCopies bounds how often a particle is copied for its occurrence; what may
// stand more often than that counts as unbounded, and is not proven.
const maxCopies = 200

// machine decides which sequences of children a content model allows, one name
// after the other: a deterministic automaton, made as far as it is asked. It is
// not safe for concurrent use.
type machine struct {
	at      []spot
	follow  [][]int
	first   []int
	empty   bool
	last    map[int]bool
	blurred bool // some bound is not counted

	states []state
	index  map[string]int
}

// spot is one occurrence of an element in the model; decl nil is a wildcard.
type spot struct{ decl *xsd.Element }

type state struct {
	spots []int // what was read last: any of these; nil at the start
	final bool
	next  map[qname]int
}

func newMachine(p *xsd.Particle) *machine {
	m := &machine{last: map[int]bool{}, index: map[string]int{}}
	var f fragment
	if p == nil {
		f.empty = true
	} else {
		f = m.particle(p)
	}
	m.first, m.empty = f.first, f.empty
	for _, l := range f.last {
		m.last[l] = true
	}
	m.states = []state{{final: m.empty, next: map[qname]int{}}}
	return m
}

// fragment is what is known of a part of the model.
type fragment struct {
	first, last []int
	empty       bool
}

func (m *machine) link(from, to []int) {
	for _, a := range from {
		m.follow[a] = append(m.follow[a], to...)
	}
}

func (m *machine) then(a, b fragment) fragment {
	m.link(a.last, b.first)
	out := fragment{first: slices.Clone(a.first), last: slices.Clone(b.last), empty: a.empty && b.empty}
	if a.empty {
		out.first = append(out.first, b.first...)
	}
	if b.empty {
		out.last = append(out.last, a.last...)
	}
	return out
}

// particle builds one particle as often as it may stand.
func (m *machine) particle(p *xsd.Particle) fragment {
	if p.Max == 0 {
		return fragment{empty: true}
	}
	out := fragment{empty: true}
	lo, hi := p.Min, p.Max
	if lo > maxCopies {
		lo, m.blurred = maxCopies, true
	}
	if hi > maxCopies {
		hi, m.blurred = -1, true
	}
	for range lo {
		out = m.then(out, m.once(p))
	}
	if hi < 0 {
		f := m.once(p)
		m.link(f.last, f.first)
		f.empty = true
		return m.then(out, f)
	}
	// a? a? a? as (a (a a?)?)?: each copy only behind the one before.
	optional := fragment{empty: true}
	for range hi - lo {
		f := m.once(p)
		optional = m.then(f, optional)
		optional.empty = true
	}
	return m.then(out, optional)
}

func (m *machine) add(e *xsd.Element) int {
	m.at, m.follow = append(m.at, spot{e}), append(m.follow, nil)
	return len(m.at) - 1
}

func (m *machine) once(p *xsd.Particle) fragment {
	switch p.Kind {
	case xsd.ParticleElement:
		var out fragment
		for _, e := range p.Element.Substitutes {
			i := m.add(e)
			out.first, out.last = append(out.first, i), append(out.last, i)
		}
		return out
	case xsd.ParticleWildcard:
		i := []int{m.add(nil)}
		return fragment{first: i, last: i}
	case xsd.ParticleChoice:
		out := fragment{empty: len(p.Parts) == 0}
		for _, part := range p.Parts {
			f := m.particle(part)
			out.first, out.last, out.empty = append(out.first, f.first...), append(out.last, f.last...), out.empty || f.empty
		}
		return out
	case xsd.ParticleAll:
		// Any order: what stands twice or lacks is left to the validator.
		m.blurred = true
		out := fragment{empty: true}
		for _, part := range p.Parts {
			f := m.particle(part)
			m.link(out.last, f.first)
			m.link(f.last, out.first)
			out.first, out.last = append(out.first, f.first...), append(out.last, f.last...)
		}
		return out
	}
	out := fragment{empty: true}
	for _, part := range p.Parts {
		out = m.then(out, m.particle(part))
	}
	return out
}

// step reads one child; -1 where it may not stand there.
func (m *machine) step(from int, name qname) int {
	if to, ok := m.states[from].next[name]; ok {
		return to
	}
	var hit []int
	for _, i := range m.reach(from) {
		if d := m.at[i].decl; (d == nil || nameOf(d) == name) && !slices.Contains(hit, i) {
			hit = append(hit, i)
		}
	}
	to := -1
	if len(hit) > 0 {
		slices.Sort(hit)
		key := fmt.Sprint(hit)
		known, ok := m.index[key]
		if !ok {
			known = len(m.states)
			m.index[key] = known
			m.states = append(m.states, state{
				spots: hit, next: map[qname]int{},
				final: slices.ContainsFunc(hit, func(i int) bool { return m.last[i] }),
			})
		}
		to = known
	}
	m.states[from].next[name] = to
	return to
}

// reach lists the spots that may come next.
func (m *machine) reach(from int) []int {
	if from == 0 {
		return m.first
	}
	var out []int
	for _, s := range m.states[from].spots {
		out = append(out, m.follow[s]...)
	}
	return out
}

// expected lists the names that may come next.
func (m *machine) expected(from int) []qname {
	var out []qname
	for _, i := range m.reach(from) {
		if d := m.at[i].decl; d != nil && !slices.Contains(out, nameOf(d)) {
			out = append(out, nameOf(d))
		}
	}
	return out
}

// ahead says whether a name may stand anywhere behind what was read.
func (m *machine) ahead(from int, name qname) bool {
	seen := map[int]bool{}
	next := m.reach(from)
	for len(next) > 0 {
		i := next[0]
		next = next[1:]
		if seen[i] {
			continue
		}
		seen[i] = true
		if d := m.at[i].decl; d == nil || nameOf(d) == name {
			return true
		}
		next = append(next, m.follow[i]...)
	}
	return false
}
