package xsd

import (
	"encoding/binary"
	"slices"
)

// state is a state of a content model's automaton.
type state struct {
	accept bool
	next   []edge // by symbol
	wild   []wildEdge
	// count is set where the elements that lead here are counted.
	count *counter
}

type edge struct {
	symbol int32
	to     int32
	elem   *Element
}

type wildEdge struct {
	wildcard *Wildcard
	to       int32
}

// counter bounds how often elements stand in a row. again are the edges over
// which the state is kept and counted up.
type counter struct {
	min, max int
	again    []edge
	wild     *Wildcard
}

// allGroup is an xs:all: each element once at most, in any order.
type allGroup struct {
	edges    []edge // by symbol; to is the number of the member
	required uint64 // by number
	optional bool   // the whole group may be missing
	members  []*Element
}

// Bounds of content models.
const (
	maxPositions  = 20_000
	maxSpelledOut = 16 // occurrences of one element beyond which they are counted
)

// position is one occurrence of an element or wildcard in a content model
// (Glushkov's construction).
type position struct {
	elem *Element
	wild *Wildcard
	// min and max are set where occurrences are counted.
	min, max int
}

type modelBuilder struct {
	c         *compiler
	node      *node
	positions []position
	follow    [][]int32
}

// automaton builds the automaton of a type's content.
func (c *compiler) automaton(n *node, t *Type) error {
	if t.Content == nil {
		t.states = nil
		return nil
	}
	if t.Content.Kind == ParticleAll {
		return c.allOf(n, t)
	}
	b := &modelBuilder{c: c, node: n}
	first, last, nullable, err := b.walk(t.Content)
	if err != nil {
		return err
	}
	return b.determine(n, t, first, last, nullable)
}

func (c *compiler) allOf(n *node, t *Type) error {
	g := &allGroup{optional: t.Content.Min == 0}
	if len(t.Content.Parts) > 64 {
		return n.fail("an xs:all of more than 64 elements is not supported")
	}
	for i, p := range t.Content.Parts {
		g.members = append(g.members, p.Element)
		if p.Min > 0 {
			g.required |= 1 << i
		}
		if err := c.spend(n, len(p.Element.Substitutes)); err != nil {
			return err
		}
		for _, e := range p.Element.Substitutes {
			g.edges = append(g.edges, edge{e.symbol, int32(i), e})
		}
	}
	sortEdges(g.edges)
	for i := 1; i < len(g.edges); i++ {
		if g.edges[i].symbol == g.edges[i-1].symbol {
			return n.fail("an element stands twice in an xs:all")
		}
	}
	t.all = g
	return nil
}

func sortEdges(e []edge) {
	slices.SortStableFunc(e, func(a, b edge) int { return int(a.symbol) - int(b.symbol) })
}

func tooLarge(p *Particle) error {
	return &CompileError{p.Position.File, p.Position.Line, "the content model is too large"}
}

// walk adds a particle's positions; first and last are those it may begin and
// end with.
func (b *modelBuilder) walk(p *Particle) (first, last []int32, nullable bool, err error) {
	if p.Max == 0 {
		return nil, nil, true, nil
	}
	if leaf := p.Kind <= ParticleWildcard; leaf && (p.Max > maxSpelledOut || p.Min > maxSpelledOut) {
		at, err := b.add(p, position{elem: p.Element, wild: p.Wildcard, min: max(p.Min, 1), max: p.Max})
		if p.Max == Unbounded && err == nil {
			err = b.link(at, at)
		}
		return at, at, p.Min == 0, err
	}
	// An optional copy follows its predecessor only, so that a deterministic
	// model stays so: e{1,3} is e(e(e)?)?.
	lo, copies := p.Min, p.Max
	if p.Max == Unbounded {
		copies = max(lo, 1)
	}
	var before []int32
	for k := range copies {
		if err := b.c.spend(b.node, 1); err != nil {
			return nil, nil, false, err
		}
		f, l, n, err := b.term(p)
		if err != nil {
			return nil, nil, false, err
		}
		if n {
			lo = 0
		}
		if k == 0 {
			first = f
		} else if err := b.link(before, f); err != nil {
			return nil, nil, false, err
		}
		if err := b.c.spend(b.node, len(last)); err != nil {
			return nil, nil, false, err
		}
		if k >= lo-1 {
			last = append(slices.Clone(last), l...)
		}
		if p.Max == Unbounded && k == copies-1 {
			if err := b.link(l, f); err != nil {
				return nil, nil, false, err
			}
		}
		before = l
		nullable = lo == 0
	}
	return first, last, nullable, nil
}

// term adds one occurrence of a particle.
func (b *modelBuilder) term(p *Particle) (first, last []int32, nullable bool, err error) {
	switch p.Kind {
	case ParticleElement, ParticleWildcard:
		at, err := b.add(p, position{elem: p.Element, wild: p.Wildcard})
		return at, at, false, err
	case ParticleChoice:
		for _, part := range p.Parts {
			f, l, n, err := b.walk(part)
			if err == nil {
				err = b.c.spend(b.node, len(first)+len(last))
			}
			if err != nil {
				return nil, nil, false, err
			}
			first, last, nullable = append(slices.Clone(first), f...), append(slices.Clone(last), l...), nullable || n
		}
		return first, last, nullable, nil
	case ParticleAll:
		return nil, nil, false, &CompileError{p.Position.File, p.Position.Line, "an xs:all within another content model is not supported"}
	}
	nullable = true
	for _, part := range p.Parts {
		f, l, n, err := b.walk(part)
		if err == nil {
			err = b.c.spend(b.node, len(first)+len(last))
		}
		if err != nil {
			return nil, nil, false, err
		}
		if err := b.link(last, f); err != nil {
			return nil, nil, false, err
		}
		if nullable {
			first = append(slices.Clone(first), f...)
		}
		if n {
			last = append(slices.Clone(last), l...)
		} else {
			last = l
		}
		nullable = nullable && n
	}
	return first, last, nullable, nil
}

func (b *modelBuilder) add(p *Particle, at position) ([]int32, error) {
	if len(b.positions) >= maxPositions {
		return nil, tooLarge(p)
	}
	b.positions, b.follow = append(b.positions, at), append(b.follow, nil)
	return []int32{int32(len(b.positions) - 1)}, nil
}

func (b *modelBuilder) link(from, to []int32) error {
	if err := b.c.spend(b.node, len(from)*len(to)); err != nil {
		return err
	}
	for _, a := range from {
		b.follow[a] = append(b.follow[a], to...)
	}
	return nil
}

// determine builds the states: sets of positions, of one each where the schema
// keeps the rule of unique particle attribution.
func (b *modelBuilder) determine(n *node, t *Type, first, last []int32, nullable bool) error {
	ends := make([]bool, len(b.positions))
	for _, p := range last {
		ends[p] = true
	}
	type open struct {
		positions []int32
		follow    []int32
	}
	index := map[string]int32{}
	queue := []open{{follow: first}}
	t.states = []state{{accept: nullable}}
	enter := func(set []int32) int32 {
		slices.Sort(set)
		set = slices.Compact(set)
		var key []byte
		for _, p := range set {
			key = binary.LittleEndian.AppendUint32(key, uint32(p))
		}
		if at, ok := index[string(key)]; ok {
			return at
		}
		at := int32(len(queue))
		index[string(key)] = at
		o := open{positions: set}
		for _, p := range set {
			o.follow = append(o.follow, b.follow[p]...)
		}
		slices.Sort(o.follow)
		o.follow = slices.Compact(o.follow)
		queue = append(queue, o)
		t.states = append(t.states, state{})
		return at
	}
	for s := 0; s < len(queue); s++ {
		o := queue[s]
		if err := b.c.spend(n, len(o.positions)+len(o.follow)+1); err != nil {
			return err
		}
		st := state{accept: s == 0 && nullable}
		for _, p := range o.positions {
			st.accept = st.accept || ends[p]
			if b.positions[p].min == 0 {
				continue
			}
			if len(o.positions) > 1 {
				return n.fail("the content model is ambiguous where occurrences are counted, which is not supported")
			}
			st.count = b.counter(p)
			if err := b.c.spend(n, len(st.count.again)); err != nil {
				return err
			}
		}
		if err := b.edges(n, &st, o.follow, enter); err != nil {
			return err
		}
		t.states[s] = st
		if len(t.states) > maxPositions {
			return n.fail("the content model is too large")
		}
	}
	return nil
}

func (b *modelBuilder) counter(p int32) *counter {
	at := b.positions[p]
	c := &counter{min: at.min, max: at.max, wild: at.wild}
	if at.elem != nil {
		for _, e := range at.elem.Substitutes {
			c.again = append(c.again, edge{symbol: e.symbol, elem: e})
		}
		sortEdges(c.again)
	}
	return c
}

// edges finds where a state leads to over the positions that may follow.
func (b *modelBuilder) edges(n *node, st *state, follow []int32, enter func([]int32) int32) error {
	var flat []edge // to is a position here
	for _, p := range follow {
		if at := b.positions[p]; at.elem != nil {
			if err := b.c.spend(n, len(at.elem.Substitutes)); err != nil {
				return err
			}
			for _, e := range at.elem.Substitutes {
				flat = append(flat, edge{e.symbol, p, e})
			}
		}
	}
	sortEdges(flat)
	for i := 0; i < len(flat); {
		e, set := flat[i], []int32{}
		for ; i < len(flat) && flat[i].symbol == e.symbol; i++ {
			if flat[i].elem.Type != e.elem.Type {
				return n.fail("the element %s may follow with two types", e.elem.Name.Local)
			}
			set = append(set, flat[i].to)
		}
		st.next = append(st.next, edge{e.symbol, enter(set), e.elem})
	}
	if st.count != nil && st.count.max != Unbounded {
		for _, again := range st.count.again {
			if findEdge(st.next, again.symbol) != nil {
				return n.fail("the content model is ambiguous where occurrences are counted, which is not supported")
			}
		}
	}
	for _, p := range follow {
		if w := b.positions[p].wild; w != nil {
			st.wild = append(st.wild, wildEdge{w, enter([]int32{p})})
		}
	}
	return nil
}

// findEdge returns the edge over a symbol.
func findEdge(edges []edge, symbol int32) *edge {
	if len(edges) <= 8 {
		for i := range edges {
			if edges[i].symbol == symbol {
				return &edges[i]
			}
		}
		return nil
	}
	lo, hi := 0, len(edges)
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); edges[mid].symbol < symbol {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(edges) && edges[lo].symbol == symbol {
		return &edges[lo]
	}
	return nil
}
