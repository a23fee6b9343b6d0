package transform

import (
	"slices"
)

// tri is what is known of a statement.
type tri int8

const (
	unknown tri = iota
	yes
	no
)

func triOf(b bool) tri {
	if b {
		return yes
	}
	return no
}

func (t tri) not() tri {
	switch t {
	case yes:
		return no
	case no:
		return yes
	}
	return unknown
}

// place is where a value stands, by name: a variable, or a member of another
// place. Two expressions that name the same place name the same value.
type place struct {
	key    string // form.applicant.name, b#3.person
	name   string // of a member
	text   string // as an author writes it
	up     *place // nil: a variable
	nodes  []*formNode
	loose  bool // the schemas are alternatives: any one of them may hold
	always bool // the router's own, never empty
	sure   bool // a member that is there wherever its group is
	// attachment: it is a file of the submission.
	attachment bool
}

// atom is a statement about a form that nothing smaller makes up.
type atom struct {
	key   string
	at    *place // nil: of no single place
	value string // with eq and in: the constant
	kind  atomKind
	text  string // for an author
}

type atomKind uint8

const (
	atomHas    atomKind = iota // the place is not empty
	atomEquals                 // it is this constant; a boolean is "true"
	atomIn                     // its list has this constant
	atomOpaque                 // whatever an expression says
)

// formula is a statement made of atoms.
type formula struct {
	op   formulaOp
	atom *atom
	args []*formula
}

type formulaOp uint8

const (
	opConst formulaOp = iota // no args: false; else true
	opAtom
	opNot
	opAnd
	opOr
)

var (
	never  = &formula{op: opConst}
	always = &formula{op: opConst, args: []*formula{nil}}
)

func (f *formula) isAlways() bool { return f.op == opConst && len(f.args) > 0 }
func (f *formula) isNever() bool  { return f.op == opConst && len(f.args) == 0 }

func has(p *place) *formula {
	if p.always {
		return always
	}
	if p.sure {
		return has(p.up)
	}
	return &formula{op: opAtom, atom: &atom{key: "has " + p.key, at: p, kind: atomHas, text: p.text}}
}

func equals(p *place, value string) *formula {
	return &formula{op: opAtom, atom: &atom{key: "eq " + p.key + "=" + value, at: p, value: value, kind: atomEquals, text: p.text + " == '" + value + "'"}}
}

func contains(p *place, value string) *formula {
	return &formula{op: opAtom, atom: &atom{key: "in " + p.key + "=" + value, at: p, value: value, kind: atomIn, text: "'" + value + "' in " + p.text}}
}

func opaque(key, text string) *formula {
	return &formula{op: opAtom, atom: &atom{key: "? " + key, kind: atomOpaque, text: text}}
}

func negate(f *formula) *formula {
	switch {
	case f.isAlways():
		return never
	case f.isNever():
		return always
	case f.op == opNot:
		return f.args[0]
	}
	return &formula{op: opNot, args: []*formula{f}}
}

func both(fs ...*formula) *formula { return combine(opAnd, never, always, fs) }
func any1(fs ...*formula) *formula { return combine(opOr, always, never, fs) }

// combine flattens; absorbing ends it, neutral is left out.
func combine(op formulaOp, absorbing, neutral *formula, fs []*formula) *formula {
	var args []*formula
	for _, f := range fs {
		switch {
		case f.op == opConst && f.isAlways() == absorbing.isAlways():
			return absorbing
		case f.op == opConst:
		case f.op == op:
			args = append(args, f.args...)
		default:
			args = append(args, f)
		}
	}
	switch len(args) {
	case 0:
		return neutral
	case 1:
		return args[0]
	}
	return &formula{op: op, args: args}
}

// atoms calls each for every atom.
func (f *formula) atoms(each func(*atom)) {
	if f == nil {
		return
	}
	if f.op == opAtom {
		each(f.atom)
	}
	if f.op != opConst {
		for _, a := range f.args {
			a.atoms(each)
		}
	}
}

// facts is what is assumed of a form at a place in a mapping. It is immutable:
// with returns another.
type facts struct {
	known map[string]fact
	also  []*formula // true, whatever they follow from
}

type fact struct {
	atom  *atom
	value bool
}

// holds evaluates a formula as far as the facts and the form's schema say.
func (x *facts) holds(f *formula) tri {
	switch f.op {
	case opConst:
		return triOf(f.isAlways())
	case opAtom:
		return x.atom(f.atom)
	case opNot:
		return x.holds(f.args[0]).not()
	}
	out, decisive := yes, no
	if f.op == opOr {
		out, decisive = no, yes
	}
	for _, a := range f.args {
		switch x.holds(a) {
		case decisive:
			return decisive
		case unknown:
			out = unknown
		}
	}
	return out
}

func (x *facts) atom(a *atom) tri {
	if f, ok := x.known[a.key]; ok {
		return triOf(f.value)
	}
	switch a.kind {
	case atomHas:
		return x.present(a.at)
	case atomEquals, atomIn:
		if x.present(a.at) == no {
			return no
		}
		if a.kind == atomEquals {
			return x.equal(a)
		}
	}
	return unknown
}

// equal decides a comparison by what else is known of its place.
func (x *facts) equal(a *atom) tri {
	for _, f := range x.known {
		if f.value && f.atom.kind == atomEquals && f.atom.at.key == a.at.key && f.atom.value != a.value {
			return no
		}
	}
	if values, ok := constants(a.at); ok {
		if !slices.Contains(values, a.value) {
			return no
		}
		if len(values) == 1 && x.present(a.at) == yes {
			return yes
		}
	}
	return unknown
}

// constants are the texts a place can have where its schema lists them.
func constants(p *place) ([]string, bool) {
	if p.loose {
		return nil, false
	}
	for _, n := range conjuncts(p.nodes) {
		if len(n.choices) > 0 {
			return choiceTexts(n.choices), true
		}
		alternatives := n.oneOf
		if len(alternatives) == 0 {
			alternatives = n.anyOf
		}
		var out []string
		for _, alt := range alternatives {
			if len(alt.choices) == 0 {
				out = nil
				break
			}
			out = append(out, choiceTexts(alt.choices)...)
		}
		if len(out) > 0 {
			return out, true
		}
	}
	return nil, false
}

func choiceTexts(choices []choice) []string {
	var out []string
	for _, c := range choices {
		s, err := toText(c.value)
		if err != nil {
			s = "" // a list or group: never equal to a text
		}
		out = append(out, s)
	}
	return out
}

// present says whether a place is not empty.
func (x *facts) present(p *place) tri {
	if p.always || p.up == nil && p.key == "form" {
		return yes
	}
	if f, ok := x.known["has "+p.key]; ok {
		return triOf(f.value)
	}
	if p.sure {
		return x.present(p.up)
	}
	if p.up == nil {
		if nonEmpty(p) || p.attachment && !p.loose {
			return yes // an item of a list
		}
		return unknown
	}
	switch x.present(p.up) {
	case no:
		return no
	case yes:
		if !p.up.loose && nonEmpty(p) && slices.ContainsFunc(conjuncts(p.up.nodes), func(n *formNode) bool { return slices.Contains(n.required, p.name) }) {
			return yes
		}
	}
	return unknown
}

// conjuncts are the schemas that all hold of a value: themselves, what they refer
// to, and allOf.
func conjuncts(nodes []*formNode) []*formNode {
	var out []*formNode
	var add func(n *formNode)
	add = func(n *formNode) {
		if n == nil || slices.Contains(out, n) {
			return
		}
		out = append(out, n)
		add(n.ref)
		for _, p := range n.allOf {
			add(p)
		}
	}
	for _, n := range nodes {
		add(n)
	}
	return out
}

// nonEmpty says that whatever stands at the place is not empty in the language's
// sense.
func nonEmpty(p *place) bool {
	if p.loose || len(p.nodes) == 0 {
		return false
	}
	if values, ok := constants(p); ok && !slices.Contains(values, "") {
		return true
	}
	for _, n := range conjuncts(p.nodes) {
		filled := true
		for _, t := range n.types {
			switch t {
			case "null":
				filled = false
			case "string":
				filled = filled && textNonEmpty(p.nodes)
			case "array":
				filled = filled && slices.ContainsFunc(conjuncts(p.nodes), func(n *formNode) bool { return n.minItems > 0 || n.contains != nil && n.minContains != 0 })
			case "object":
				filled = filled && slices.ContainsFunc(conjuncts(p.nodes), func(n *formNode) bool {
					return len(n.required) > 0 || n.minProperties > 0 || slices.ContainsFunc([][]*formNode{n.oneOf, n.anyOf}, allRequire)
				})
			}
		}
		if filled && len(n.types) > 0 {
			return true
		}
	}
	return false
}

// allRequire says that each of some alternatives requires a member.
func allRequire(alternatives []*formNode) bool {
	for _, a := range alternatives {
		if len(a.required) == 0 {
			return false
		}
	}
	return len(alternatives) > 0
}

func textNonEmpty(nodes []*formNode) bool {
	for _, n := range conjuncts(nodes) {
		if n.minLength > 0 {
			return true
		}
		for _, p := range n.patterns {
			if re, err := compilePattern(p); err == nil && !re.MatchString("") {
				return true
			}
		}
		switch n.format {
		case "date", "date-time", "time", "email", "uuid", "uri", "ipv4", "ipv6":
			return true
		}
	}
	return false
}

// with returns the facts with one more; ok is false where they contradict.
func (x *facts) with(a *atom, value bool) (*facts, bool) {
	switch x.atom(a) {
	case triOf(value):
		if _, told := x.known[a.key]; told {
			return x, true
		}
	case unknown:
	default:
		return nil, false
	}
	out := &facts{known: make(map[string]fact, len(x.known)+2), also: x.also}
	for k, f := range x.known {
		out.known[k] = f
	}
	out.known[a.key] = fact{a, value}
	if value && a.at != nil {
		// What is somewhere makes everything around it be there.
		for p := a.at; p != nil && p.up != nil && !p.always; p = p.up {
			h := has(p).atom
			if h == nil {
				break
			}
			if f, ok := out.known[h.key]; ok && !f.value {
				return nil, false
			}
			out.known[h.key] = fact{h, true}
		}
		if a.at.up == nil && a.kind != atomHas {
			out.known["has "+a.at.key] = fact{has(a.at).atom, true}
		}
	}
	return out, out.consistent()
}

// assume returns the facts with a formula known to be true.
func (x *facts) assume(f *formula) (*facts, bool) {
	switch x.holds(f) {
	case no:
		return nil, false
	case yes:
		return x, true
	}
	switch f.op {
	case opAtom:
		return x.with(f.atom, true)
	case opNot:
		if f.args[0].op == opAtom {
			return x.with(f.args[0].atom, false)
		}
		if f.args[0].op == opOr {
			return x.assumeAll(f.args[0].args, negate)
		}
	case opAnd:
		return x.assumeAll(f.args, func(a *formula) *formula { return a })
	}
	out := &facts{known: x.known, also: append(slices.Clone(x.also), f)}
	return out, true
}

func (x *facts) assumeAll(fs []*formula, as func(*formula) *formula) (*facts, bool) {
	for _, f := range fs {
		next, ok := x.assume(as(f))
		if !ok {
			return nil, false
		}
		x = next
	}
	return x, true
}

// consistent says whether some form that its schema accepts may be so.
func (x *facts) consistent() bool {
	for _, f := range x.also {
		if x.holds(f) == no {
			return false
		}
	}
	seen := map[string]bool{}
	for _, f := range x.known {
		for p := f.atom.at; p != nil; p = p.up {
			if seen[p.key] {
				break
			}
			seen[p.key] = true
			if p.nodes != nil && !p.loose && x.present(p) == yes && x.satisfied(p.nodes, p, true) == no {
				return false
			}
		}
	}
	return true
}

// split picks an atom of f that is not decided; nil where there is none.
func (x *facts) split(f *formula) *atom {
	var out *atom
	f.atoms(func(a *atom) {
		if out == nil && x.atom(a) == unknown {
			out = a
		}
	})
	return out
}

// satisfied says whether what is known of the members of p satisfies schemas of
// which all hold. sure says that p's value is of that type at all.
func (x *facts) satisfied(nodes []*formNode, p *place, sure bool) tri {
	out := yes
	and := func(t tri) {
		if t == no || out == yes {
			out = t
		}
	}
	for _, n := range conjuncts(nodes) {
		if out == no {
			return no
		}
		and(x.satisfiedOne(n, p, sure))
	}
	return out
}

func (x *facts) satisfiedOne(n *formNode, p *place, sure bool) tri {
	if n.isNothing {
		return no
	}
	out := yes
	and := func(t tri) {
		if t == no || t == unknown && out == yes {
			out = t
		}
	}
	for _, name := range n.required {
		and(x.hasMember(p, name))
	}
	for name, others := range n.needs {
		for _, other := range others {
			if x.hasMember(p, name) == yes {
				and(x.hasMember(p, other))
			} else if x.hasMember(p, name) == unknown && x.hasMember(p, other) != yes {
				and(unknown)
			}
		}
	}
	if len(n.choices) > 0 && !sure {
		and(x.isOneOf(n, p))
	}
	for _, m := range n.props {
		if !sure && (len(m.node.choices) > 0 || m.node.contains != nil) {
			inner := p.member(m.name)
			switch x.hasMember(p, m.name) {
			case yes:
				and(x.satisfied([]*formNode{m.node}, inner, false))
			case unknown:
				and(unknown)
			}
		}
	}
	if n.contains != nil && !sure {
		and(x.containsOne(n.contains, p))
	}
	if n.minProperties > 0 {
		some := no
		for _, name := range memberNames(p.nodes) {
			switch x.hasMember(p, name) {
			case yes:
				some = yes
			case unknown:
				if some == no {
					some = unknown
				}
			}
		}
		and(some)
	}
	if len(n.anyOf) > 0 {
		and(x.countTrue(n.anyOf, p, len(n.anyOf)))
	}
	if len(n.oneOf) > 0 {
		and(x.countTrue(n.oneOf, p, 1))
	}
	if n.not != nil {
		and(x.satisfied([]*formNode{n.not}, p, false).not())
	}
	if n.on != nil {
		switch x.satisfied([]*formNode{n.on}, p, false) {
		case yes:
			if n.then != nil {
				and(x.satisfied([]*formNode{n.then}, p, false))
			}
		case no:
			if n.els != nil {
				and(x.satisfied([]*formNode{n.els}, p, false))
			}
		default:
			and(unknown)
		}
	}
	if !sure && (len(n.patterns) > 0 || n.minLength >= 0 || n.maxLength >= 0 || n.minItems >= 0 || n.maxItems >= 0 || n.minimum != nil || n.maximum != nil || n.items != nil || len(n.types) > 0) {
		and(unknown)
	}
	return out
}

// countTrue says whether at least one and at most so many of some schemas hold.
func (x *facts) countTrue(alternatives []*formNode, p *place, most int) tri {
	certain, possible := 0, 0
	for _, alt := range alternatives {
		switch x.satisfied([]*formNode{alt}, p, false) {
		case yes:
			certain++
			possible++
		case unknown:
			possible++
		}
	}
	switch {
	case possible == 0 || certain > most:
		return no
	case certain >= 1 && possible <= most || certain >= 1 && most == len(alternatives):
		return yes
	}
	return unknown
}

// hasMember says whether a group has the member at all, empty or not.
func (x *facts) hasMember(p *place, name string) tri {
	m := p.member(name)
	switch t := x.present(m); {
	case t == yes:
		return yes
	case t == no && nonEmpty(m):
		return no
	}
	return unknown
}

// isOneOf says whether the place's value is one of a schema's constants.
func (x *facts) isOneOf(n *formNode, p *place) tri {
	out := no
	for _, v := range choiceTexts(n.choices) {
		switch x.atom(equals(p, v).atom) {
		case yes:
			return yes
		case unknown:
			out = unknown
		}
	}
	return out
}

func (x *facts) containsOne(n *formNode, p *place) tri {
	if len(n.choices) != 1 {
		return unknown
	}
	return x.atom(contains(p, choiceTexts(n.choices)[0]).atom)
}

// member is a member of the place.
func (p *place) member(name string) *place {
	m := &place{key: p.key + "." + name, name: name, text: p.text + "." + name, up: p, loose: p.loose}
	for _, n := range conjuncts(p.nodes) {
		for _, prop := range n.props {
			if prop.name == name {
				m.nodes = append(m.nodes, prop.node)
			}
		}
	}
	if m.nodes == nil {
		m.nodes, m.loose = member(p.nodes, name), true
	}
	return m
}
