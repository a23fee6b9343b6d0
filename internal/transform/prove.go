package transform

import (
	"fmt"
	"slices"
	"strings"

	"weiche/internal/transform/xsd"
)

// Proof is what is known of a mapping before its first message.
type Proof struct {
	// Proven counts the rules that hold for every form its schema accepts.
	Proven int `json:"proven"`
	// Open are the rules that each message is checked for.
	Open []Open `json:"open,omitempty"`

	values bool // values were proven too, against the facets of their types
}

// Open is a rule that is not proven, and why.
type Open struct {
	Line     int    `json:"line"`               // of the mapping
	Fragment string `json:"fragment,omitempty"` // and line, where a fragment included there says it
	Rule     string `json:"rule"`
	Reason   string `json:"reason"`
}

// Settled says that nothing is left to the check of each message.
func (p Proof) Settled() bool { return p.values && len(p.Open) == 0 }

const (
	maxCases      = 3000  // assumptions held side by side in one element
	maxIterations = 10000 // of one loop
)

// course is one way a form may take through an element's children: what it
// assumes of the form, and how far the content model has read.
type course struct {
	state int
	facts *facts
	trail *trail // every assumption, also those that no longer matter
	wrote bool
}

// trail is a list of assumptions, the newest first.
type trail struct {
	fact
	before *trail
}

func (t *trail) facts() *facts {
	out := &facts{known: map[string]fact{}}
	for ; t != nil; t = t.before {
		if _, told := out.known[t.atom.key]; !told {
			out.known[t.atom.key] = t.fact
		}
	}
	return out
}

// assume is one assumption more; ok is false where no form is so.
func (c course) assume(a *atom, value bool) (course, bool) {
	x, ok := c.facts.with(a, value)
	c.facts, c.trail = x, &trail{fact{a, value}, c.trail}
	return c, ok
}

// miss is a course that breaks the content model: at a step, or, where n is nil,
// at the end.
type miss struct {
	course
	n    *node
	name qname
}

// walker follows all courses of one element's children.
type walker struct {
	m      *machine
	misses []miss
	over   bool // there were too many courses
}

// decide splits a course until it says whether f holds.
func (w *walker) decide(c course, f *formula, each func(c course, holds bool)) {
	switch c.facts.holds(f) {
	case yes:
		each(c, true)
		return
	case no:
		each(c, false)
		return
	}
	a := c.facts.split(f)
	if a == nil {
		each(c, true)
		each(c, false)
		return
	}
	for _, value := range []bool{true, false} {
		if next, ok := c.assume(a, value); ok {
			w.decide(next, f, each)
		}
	}
}

// run follows the courses through steps.
func (w *walker) run(all []step, in []course) []course {
	for i, s := range all {
		var out []course
		for _, c := range in {
			w.decide(c, s.guard, func(c course, holds bool) {
				switch {
				case !holds:
					out = append(out, c)
				case s.loop != nil:
					out = append(out, w.loop(s, c)...)
				default:
					to := w.m.step(c.state, s.name)
					if to < 0 {
						w.misses = append(w.misses, miss{c, s.n, s.name})
						return
					}
					c.state, c.wrote = to, true
					out = append(out, c)
				}
			})
			if len(out) > maxCases || w.over {
				w.over = true
				return nil
			}
		}
		in = distinct(forget(out, all[i+1:]))
	}
	return in
}

// loop follows a course through all numbers of iterations a list allows.
func (w *walker) loop(s step, c course) []course {
	l := s.loop
	var out []course
	enter := func(c course) {
		out = append(out, w.iterate(l, c)...)
	}
	if l.list == nil || s.n.kind == nodeData {
		if l.min == 0 {
			out = append(out, c)
		}
		enter(c)
		return out
	}
	w.decide(c, has(l.list), func(c course, holds bool) {
		if !holds {
			out = append(out, c)
			return
		}
		if l.min == 0 {
			out = append(out, c)
		}
		enter(c)
	})
	return out
}

func (w *walker) iterate(l *stepLoop, c course) []course {
	var out []course
	seen := map[string]bool{}
	now := []course{c}
	for i := 1; len(now) > 0 && !w.over && (l.max < 0 || i <= l.max); i++ {
		if i > maxIterations {
			w.over = true
			return nil
		}
		var next []course
		for _, c := range now {
			for _, after := range w.iteration(l, c) {
				after.facts = after.facts.without(l.item, c.facts)
				next = append(next, after)
			}
		}
		next = distinct(next)
		if i < l.min {
			now = next
			continue
		}
		now = nil
		for _, c := range next {
			if key := c.key(); !seen[key] {
				seen[key] = true
				now, out = append(now, c), append(out, c)
			}
		}
	}
	return out
}

func (w *walker) iteration(l *stepLoop, c course) []course {
	if l.counted {
		x, ok := c.facts.assume(l.test)
		if !ok {
			return nil
		}
		c.facts = x
		return w.run(l.body, []course{c})
	}
	var out []course
	w.decide(c, l.test, func(c course, holds bool) {
		if holds {
			out = append(out, w.run(l.body, []course{c})...)
		} else {
			out = append(out, c)
		}
	})
	return out
}

// without returns the facts apart from those of one item, and apart from what an
// iteration has found out about expressions.
func (x *facts) without(item *place, base *facts) *facts {
	out := &facts{known: map[string]fact{}, also: base.also}
	for key, f := range x.known {
		if _, told := base.known[key]; !told {
			if f.atom.at == nil || item != nil && f.atom.at.within(item) {
				continue
			}
		}
		out.known[key] = f
	}
	return out
}

// of says that the place is a variable or in it: files are no part of the form.
func (p *place) of(name string) bool {
	for ; p != nil; p = p.up {
		if p.key == name || p.attachment {
			return true
		}
	}
	return false
}

func (p *place) within(q *place) bool {
	for ; p != nil; p = p.up {
		if p.key == q.key {
			return true
		}
	}
	return false
}

func (c course) key() string {
	keys := make([]string, 0, len(c.facts.known)+1)
	for key, f := range c.facts.known {
		keys = append(keys, fmt.Sprint(key, f.value))
	}
	slices.Sort(keys)
	return fmt.Sprint(c.state, c.wrote, len(c.facts.also), keys)
}

func distinct(in []course) []course {
	seen := map[string]bool{}
	var out []course
	for _, c := range in {
		if key := c.key(); !seen[key] {
			seen[key] = true
			out = append(out, c)
		}
	}
	return out
}

// forget drops assumptions that nothing ahead depends on, so that courses meet
// again.
func forget(in []course, ahead []step) []course {
	if len(in) < 2 {
		return in
	}
	groups, keys := map[string]bool{}, map[string]bool{}
	var look func(all []step)
	note := func(a *atom) {
		keys[a.key] = true
		for p := a.at; p != nil; p = p.up {
			groups[p.key] = true
			keys["has "+p.key] = true
		}
	}
	look = func(all []step) {
		for _, s := range all {
			s.guard.atoms(note)
			if s.loop != nil {
				s.loop.test.atoms(note)
				if s.loop.list != nil {
					has(s.loop.list).atoms(note)
				}
				look(s.loop.body)
			}
		}
	}
	look(ahead)
	out := make([]course, len(in))
	for i, c := range in {
		kept := &facts{known: map[string]fact{}, also: c.facts.also}
		for key, f := range c.facts.known {
			if keys[key] || f.atom.at != nil && (groups[f.atom.at.key] || f.atom.at.up != nil && groups[f.atom.at.up.key] && tied(f.atom.at.up)) {
				kept.known[key] = f
			}
		}
		c.facts = kept
		out[i] = c
	}
	return out
}

// tied says that a group's schema makes its members depend on each other.
func tied(p *place) bool {
	for _, n := range conjuncts(p.nodes) {
		if n.not != nil || n.on != nil || len(n.oneOf) > 0 || len(n.anyOf) > 0 || len(n.needs) > 0 || n.minProperties > 0 {
			return true
		}
	}
	return false
}

// without a final state a course has ended too early.
func (w *walker) end(in []course, mayVanish bool) {
	for _, c := range in {
		if !w.m.states[c.state].final && (c.wrote || !mayVanish) {
			w.misses = append(w.misses, miss{course: c})
		}
	}
}

// counter finds facts under which a formula does not hold; nil where it always
// does.
func counter(x *facts, f *formula) *course {
	var found *course
	w := &walker{}
	w.decide(course{facts: x}, f, func(c course, holds bool) {
		if !holds && found == nil {
			found = &c
		}
	})
	return found
}

// definite says that a form of this kind can be built: nothing was assumed that
// only the form's validator understands.
func (c course) definite() bool {
	x := &facts{known: map[string]fact{}}
	for t := c.trail; t != nil; t = t.before {
		if t.atom.kind == atomOpaque || t.atom.at != nil && (t.atom.at.loose || t.atom.at.of("attachments")) {
			return false
		}
		x.known[t.atom.key] = t.fact
	}
	for key, f := range c.facts.known {
		x.known[key] = f
	}
	for _, f := range c.facts.also {
		if x = x.settle(f); x == nil {
			return false
		}
	}
	seen := map[string]bool{}
	for _, f := range x.known {
		if f.atom.at == nil {
			continue
		}
		for p := f.atom.at; p != nil && !seen[p.key]; p = p.up {
			seen[p.key] = true
			if tied(p) && x.present(p) != no && !x.witnessed(p) {
				return false
			}
		}
	}
	return true
}

// settle returns the facts with some of the formula's atoms decided so that it
// holds; nil where only opaque ones could make it.
func (x *facts) settle(f *formula) *facts {
	var out *facts
	w := &walker{}
	w.decide(course{facts: x}, f, func(c course, holds bool) {
		if !holds || out != nil {
			return
		}
		for t := c.trail; t != nil; t = t.before {
			if t.atom.kind == atomOpaque {
				return
			}
		}
		out = c.facts
	})
	return out
}

// witnessed looks for members that a group may have besides those known, so that
// its schema holds.
func (x *facts) witnessed(p *place) bool {
	var atoms []*atom
	var collect func(n *formNode, depth int)
	collect = func(n *formNode, depth int) {
		if n == nil || depth > 6 {
			return
		}
		for _, name := range n.required {
			atoms = append(atoms, has(p.member(name)).atom)
		}
		for _, m := range n.props {
			if depth > 0 && len(m.node.choices) > 0 {
				atoms = append(atoms, equals(p.member(m.name), choiceTexts(m.node.choices)[0]).atom)
			}
		}
		for _, part := range slices.Concat(n.allOf, n.anyOf, n.oneOf, []*formNode{n.ref, n.not, n.on, n.then, n.els}) {
			collect(part, depth+1)
		}
	}
	for _, n := range p.nodes {
		collect(n, 0)
	}
	tries := 0
	var search func(x *facts, rest []*atom) bool
	search = func(x *facts, rest []*atom) bool {
		if tries++; tries > 2000 {
			return false
		}
		switch x.satisfied(p.nodes, p, true) {
		case yes:
			return true
		case no:
			return false
		}
		for i, a := range rest {
			if a == nil || x.atom(a) != unknown {
				continue
			}
			for _, value := range []bool{false, true} {
				if next, ok := x.with(a, value); ok && search(next, rest[i+1:]) {
					return true
				}
			}
			return false
		}
		return false
	}
	return search(x, atoms)
}

// when says what a course assumes, as far as the atoms matter; all of it where
// none does.
func (c course) when(matter map[string]bool) string {
	x := c.trail.facts()
	only := &facts{known: map[string]fact{}}
	for key, f := range x.known {
		if matter[key] {
			only.known[key] = f
		}
	}
	if len(only.known) > 0 {
		x = only
	}
	if words := x.words(&facts{}); words != "" {
		return "when " + words
	}
	return "whatever the form"
}

// matter are the atoms that decide whether some names are written.
func matter(all []step, names []qname) map[string]bool {
	out := map[string]bool{}
	note := func(a *atom) { out[a.key] = true }
	var walk func(all []step)
	walk = func(all []step) {
		for _, s := range all {
			if s.loop == nil {
				if slices.Contains(names, s.name) {
					s.guard.atoms(note)
				}
				continue
			}
			before := len(out)
			walk(s.loop.body)
			if len(out) > before || slices.ContainsFunc(s.loop.body, func(b step) bool { return slices.Contains(names, b.name) }) {
				s.guard.atoms(note)
				s.loop.test.atoms(note)
				if s.loop.list != nil {
					has(s.loop.list).atoms(note)
				}
			}
		}
	}
	walk(all)
	return out
}

// prove proves what an element holds and what is in it, for forms of which the
// facts are known: x where no w:required element is empty, bare without that.
func (c *prover) prove(n *node, decl *xsd.Element, x, bare *facts) {
	t := c.typeFor(n, decl)
	c.proveAttributes(n, t, x)
	c.proveList(n, t)
	c.proveText(n, decl, t)
	if n.required {
		c.rule(n, fmt.Sprintf("<%s> is never empty", n.tag), c.emptiness(n, bare))
	}
	if isAny(t) || t.Kind.HasText() {
		return
	}
	if inner, ok := x.assume(asserted(n)); ok {
		x = inner
	}
	m := c.machine(t)
	all := n.inner()
	w := &walker{m: m}
	w.end(w.run(all, []course{{facts: x}}), n.inside != nil && !n.keep && len(n.children) > 0)
	c.content1(n, w)
	c.descend(all, m, x, bare)
}

// machine returns a type's content model as an automaton.
func (c *prover) machine(t *xsd.Type) *machine {
	if c.machines == nil {
		c.machines = map[*xsd.Type]*machine{}
	}
	if c.machines[t] == nil {
		c.machines[t] = newMachine(t.Content)
	}
	return c.machines[t]
}

// rule notes a rule as proven, or as open for a reason.
func (c *prover) rule(n *node, rule, reason string) {
	if reason == "" {
		c.proof.Proven++
		return
	}
	o := Open{n.line.use(), n.line.fragment(), rule, reason}
	if !slices.Contains(c.proof.Open, o) {
		c.proof.Open = append(c.proof.Open, o)
	}
}

func (c *prover) emptiness(n *node, x *facts) string {
	if found := counter(x, n.content()); found != nil {
		return found.when(nil)
	}
	return ""
}

func (c *prover) proveAttributes(n *node, t *xsd.Type, x *facts) {
	for _, a := range n.attrs {
		decl := t.Attribute(xsd.Name{Space: a.name.space, Local: a.name.local})
		if decl == nil || a.decl {
			continue
		}
		c.proveValue(n, a.line, fmt.Sprintf("the attribute %q of <%s>", a.tag, n.tag), decl.Type.Simple, decl.Fixed, a.value)
		if !decl.Required {
			continue
		}
		rule := fmt.Sprintf("the attribute %q of <%s> is always there", a.tag, n.tag)
		found := counter(x, written(a.value))
		if _, constant := a.value.constant(); constant {
			found = nil
		}
		switch {
		case found == nil:
			c.rule(n, rule, "")
		case found.definite() && n.checked == "":
			c.problem(a.line, "<%s> needs the attribute %q, which is left out %s", n.tag, a.tag, found.when(nil))
		default:
			c.rule(n, rule, reasonOf(n, found.when(nil)))
		}
	}
}

func reasonOf(n *node, when string) string {
	if n.checked != "" {
		return n.checked
	}
	return when
}

// content1 reports what the courses through an element's children came to.
func (c *prover) content1(n *node, w *walker) {
	rule := fmt.Sprintf("<%s> holds what the standard wants, in its order and number", n.tag)
	switch {
	case w.over:
		c.rule(n, rule, "there are too many combinations to look at")
		return
	case len(w.misses) == 0 && w.m.blurred:
		c.rule(n, rule, "the standard's content model counts further than is followed")
		return
	case len(w.misses) == 0:
		c.rule(n, rule, "")
		return
	}
	told := map[string]bool{}
	slices.SortStableFunc(w.misses, func(a, b miss) int { return boolOrder(a.definite(), b.definite()) })
	for _, m := range w.misses {
		line, text := n.line, ""
		missing := missingNames(w.m, m.state)
		key := names(missing)
		matters := matter(n.inner(), missing)
		switch {
		case m.n == nil:
			text = fmt.Sprintf("<%s> needs %s", n.tag, key)
		case len(missing) > 0 && w.m.ahead(m.state, m.name):
			line = m.n.line
			text = fmt.Sprintf("<%s> needs %s before <%s>", n.tag, key, localTag(m))
		default:
			line = m.n.line
			text = fmt.Sprintf("<%s> may not stand once more in <%s>, nor behind what is before it", localTag(m), n.tag)
			key = text
			matters = matter(n.inner(), []qname{m.name})
		}
		if told[key] || len(told) > 4 {
			continue
		}
		told[key] = true
		checked := n.checked
		if m.n != nil && checked == "" {
			checked = m.n.checked
		}
		if m.definite() && checked == "" {
			c.problem(line, "%s, which is not so %s", text, m.when(matters))
			continue
		}
		reason := m.when(matters)
		if checked != "" {
			reason = checked
		}
		at := *n
		at.line = line
		c.rule(&at, text, reason)
	}
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func localTag(m miss) string {
	if m.n.kind == nodeElement {
		return m.n.tag
	}
	return m.name.local
}

// missingNames lists what must come next, none where the content may end: the
// names with which it may end, where there are such.
func missingNames(m *machine, state int) []qname {
	if m.states[state].final {
		return nil
	}
	all := m.expected(state)
	var last []qname
	for _, q := range all {
		if to := m.step(state, q); to >= 0 && m.states[to].final {
			last = append(last, q)
		}
	}
	if len(last) > 0 {
		return last
	}
	return all
}

func names(list []qname) string {
	var out []string
	for _, q := range list {
		out = append(out, "<"+q.local+">")
	}
	if len(out) > 4 {
		out = append(out[:4], "…")
	}
	return strings.Join(out, " or ")
}

// descend proves what is in the children.
func (c *prover) descend(all []step, m *machine, x, bare *facts) {
	for _, s := range all {
		conditions := []*formula{s.guard}
		if s.loop != nil {
			if s.loop.list != nil {
				conditions = append(conditions, has(s.loop.list))
			}
			conditions = append(conditions, s.loop.test)
		}
		inner, ok := x.assume(both(conditions...))
		if !ok {
			continue // never written
		}
		innerBare, ok := bare.assume(both(conditions...))
		switch {
		case !ok:
		case s.n.kind == nodeData:
			c.proveData(s.n, m)
		case s.loop != nil:
			c.descend(s.loop.body, m, inner, innerBare)
		case s.n.kind == nodeElement:
			if decl := c.declared(m, s.name); decl != nil {
				c.prove(s.n, decl, inner, innerBare)
			}
		}
	}
}

func (c *prover) declared(m *machine, name qname) *xsd.Element {
	for _, s := range m.at {
		if s.decl != nil && nameOf(s.decl) == name {
			return s.decl
		}
	}
	return c.model.Element(xsd.Name{Space: name.space, Local: name.local})
}
