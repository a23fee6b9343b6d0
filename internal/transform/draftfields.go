package transform

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"weiche/internal/transform/xsd"
)

// draftScope is the group of the form that an element is filled from: the form
// itself, a group in it, an item of a list, or a file that came with it.
type draftScope struct {
	expr  string // as expressions reach it; "" is nothing of the form
	field string // as FormSchema.fields names it
	nodes []*formNode
	file  string // the name of a file of the submission
	depth int    // of the element that entered it
}

// enter goes into a group of the form.
func (in here) enter(s draftScope) here {
	s.depth = len(in.path)
	in.outer = append(slices.Clip(in.outer), in.scope)
	in.scope = s
	return in
}

// draftMember is a field, a group or a list at or below a scope.
type draftMember struct {
	expr, field string
	names       []string // below the scope
	title       string
	nodes       []*formNode
	kind        kind
	score       int
	role        string // what an item says that it is, where a list is of several kinds
	says        string // the item's member that says it
}

// How alike names must be, out of 100: of what the standard requires and of what
// it leaves free.
const (
	alikeText, alikeGroup, alikeOptional = 70, 55, 84
	alikeRole                            = 85
)

// members lists everything in a scope, lists as one: what is in them has a scope
// of its own.
func (s draftScope) members() []draftMember {
	if s.expr == "" {
		return nil
	}
	var out []draftMember
	var walk func(at draftMember, around []*formNode)
	walk = func(at draftMember, around []*formNode) {
		all := views(at.nodes)
		if slices.ContainsFunc(all, func(n *formNode) bool { return len(n.props) > 0 && slices.Contains(around, n) }) || len(at.names) > 8 {
			return
		}
		around = append(slices.Clone(around), all...)
		for _, name := range memberNames(at.nodes) {
			found := member(at.nodes, name)
			if found == nil {
				continue
			}
			m := draftMember{expr: at.expr + memberPath(name), field: at.field + "." + name, names: append(slices.Clone(at.names), name), title: titleOf(found), nodes: found, kind: formShape(found).kind}
			out = append(out, m)
			if m.kind == kindGroup {
				walk(m, around)
			}
		}
	}
	walk(draftMember{expr: s.expr, field: s.field, nodes: s.nodes}, nil)
	return out
}

var plainMember = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func memberPath(name string) string {
	if plainMember.MatchString(name) {
		return "." + name
	}
	return "['" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(name) + "']"
}

func (m draftMember) scope() draftScope {
	return draftScope{expr: m.expr, field: m.field, nodes: m.nodes}
}

// forGroup finds what an element that holds elements is filled from: a group, a
// list where it repeats, or a single value that stands somewhere in it. Where the
// group around has none, those around that are asked for one of their own.
func (in here) forGroup(local string, p standing) (draftMember, bool) {
	need := alikeOptional
	if p.needed {
		need = alikeGroup
	}
	if m, ok := in.scope.forGroup(local, in.path, p.repeats, need); ok {
		return m, true
	}
	for _, s := range slices.Backward(in.outer) {
		if m, ok := s.forGroup(local, in.path, p.repeats, alikeOptional); ok && len(m.names) == 1 && (m.kind == kindGroup || m.kind == kindList) {
			return m, true
		}
	}
	return draftMember{}, false
}

func (s draftScope) forGroup(local string, path []string, repeats bool, need int) (draftMember, bool) {
	best, found := draftMember{}, false
	for _, m := range s.members() {
		score := s.likeness(local, m, path)
		switch m.kind {
		case kindGroup:
		case kindList:
			if !repeats {
				continue
			}
			if role, says, ok := m.roleLike(local); ok && score < alikeRole {
				score, m.role, m.says = alikeRole, role, says
			}
		default:
			if score < alikeOptional {
				continue
			}
		}
		if m.score = score; score >= need && (!found || score > best.score) {
			best, found = m, true
		}
	}
	return best, found
}

// roleLike looks for a list of several kinds of things, each of which says what
// it is: "applicant" among the parties' roles.
func (m draftMember) roleLike(local string) (role, says string, ok bool) {
	items := itemsOf(m.nodes)
	for _, name := range memberNames(items) {
		nodes := member(items, name)
		list := formShape(nodes).kind == kindList
		if list {
			nodes = itemsOf(nodes)
		}
		for _, v := range views(nodes) {
			for _, c := range v.choices {
				text, isText := c.value.(string)
				if !isText || stem(fold(text)) != stem(fold(local)) || strings.ContainsAny(text, `'"\`) {
					continue
				}
				if list {
					return "'" + text + "' in ITEM" + memberPath(name), m.field + "[]." + name, true
				}
				return "ITEM" + memberPath(name) + " == '" + text + "'", m.field + "[]." + name, true
			}
		}
	}
	return "", "", false
}

// enterList makes an element repeat for each item of a list.
func (m draftMember) enterList(s *sketch, in here) here {
	name := loopName(m.names, in.loops)
	in.loops = append(slices.Clip(in.loops), name)
	s.set("w:for", name+" in "+m.expr)
	s.fields = append(s.fields, m.field, m.field+"[]")
	items := itemsOf(m.nodes)
	if m.role != "" {
		s.set("w:if", strings.Replace(m.role, "ITEM", name, 1))
		s.fields = append(s.fields, m.says)
	}
	in = in.enter(draftScope{expr: name, field: m.field + "[]", nodes: items})
	if formShape(items).kind != kindGroup {
		in.scope = draftScope{}
		in.carry = &draftMember{expr: name, field: m.field, nodes: items, kind: formShape(items).kind}
	}
	if slices.Contains(memberNames(items), "attachmentId") {
		in.scope.file = "datei"
		s.set("w:let", "datei = find(attachments, .attachmentId == "+name+".attachmentId)")
		s.fields = append(s.fields, m.field+"[].attachmentId")
	}
	return in
}

// loopName is the first letter of a list's name, or more of them where it is
// taken.
func loopName(names []string, taken []string) string {
	full := "i"
	for _, r := range fold(names[len(names)-1]) {
		if r >= 'a' && r <= 'z' || len(full) > 1 && unicode.IsDigit(r) {
			full += string(r)
		}
	}
	if len(full) > 1 {
		full = full[1:]
	}
	for n := 1; n <= len(full); n++ {
		if name := full[:n]; !slices.Contains(taken, name) && !reserved(name) && !slices.Contains(exprWords, name) && name != "datei" {
			return name
		}
	}
	name := full + "_"
	for slices.Contains(taken, name) {
		name += "_"
	}
	return name
}

// exprWords are words of the expression language that no name may be.
var exprWords = []string{"in", "not", "and", "or", "let", "if", "else", "true", "false", "nil", "matches", "contains"}

// forText finds the field whose value an element or attribute has, and the
// expression for it: in the group around, or one of the form's own that has the
// very name.
func (in here) forText(local string, to *xsd.Simple, p standing) (draftMember, string, bool) {
	if m, value, ok := in.scope.forText(local, in.path, to, p); ok {
		return m, value, true
	}
	if len(in.outer) > 0 && in.scope.expr != "" && !slices.Contains(commonNames, fold(local)) {
		if m, value, ok := in.outer[0].forText(local, in.path, to, p); ok && len(m.names) == 1 && m.score > alikeOptional+5 {
			return m, value, true
		}
	}
	return draftMember{}, "", false
}

func (s draftScope) forText(local string, path []string, to *xsd.Simple, p standing) (draftMember, string, bool) {
	need := alikeOptional
	if p.needed {
		need = alikeText
	}
	best, value, found := draftMember{}, "", false
	for _, m := range s.members() {
		if m.kind == kindGroup || m.kind == kindList && !p.repeats {
			continue
		}
		if m.score = s.likeness(local, m, path); m.score < need || found && m.score <= best.score {
			continue
		}
		if m.kind == kindList {
			if _, ok := writtenAs(to, draftMember{kind: formShape(itemsOf(m.nodes)).kind, nodes: itemsOf(m.nodes)}); ok {
				best, value, found = m, "", true
			}
		} else if v, ok := writtenAs(to, m); ok {
			best, value, found = m, v, true
		}
	}
	return best, value, found
}

// writtenAs is the expression that writes a field as a value of a type; ok is
// false where the two have nothing to do with each other.
func writtenAs(to *xsd.Simple, m draftMember) (string, bool) {
	if to == nil {
		return m.expr, m.kind == kindText || m.kind == kindNumber
	}
	switch to.Builtin {
	case "date":
		return "date(" + m.expr + ")", m.kind == kindText
	case "dateTime":
		return "datetime(" + m.expr + ")", m.kind == kindText
	case "boolean":
		return m.expr, m.kind == kindBoolean
	case "base64Binary", "hexBinary", "time", "duration", "gYear", "gYearMonth", "gMonth", "gMonthDay", "gDay", "QName", "NOTATION", "ID", "IDREF", "IDREFS":
		return "", false
	case "decimal", "integer", "nonNegativeInteger", "positiveInteger", "nonPositiveInteger", "negativeInteger", "long", "int", "short", "byte",
		"unsignedLong", "unsignedInt", "unsignedShort", "unsignedByte", "float", "double":
		return m.expr, m.kind == kindNumber
	}
	return m.expr, m.kind == kindText || m.kind == kindNumber || m.kind == kindUnknown
}

// likeness says how much a field's name, or its title, says the same as an
// element's, out of 100. Groups around the field that the message does not have
// around the element make it less likely.
func (s draftScope) likeness(local string, m draftMember, path []string) int {
	last := m.names[len(m.names)-1]
	e, f := fold(local), fold(last)
	score := 0
	switch {
	case e == f:
		score = 100
	case m.title != "" && fold(m.title) == e:
		score = 95
	case len(e) > 2 && stem(e) == stem(f):
		score = 92
	case min(len(e), len(f)) >= 10 && distance(e, f) <= 2 || min(len(e), len(f)) >= 6 && distance(e, f) <= 1:
		score = 86
	case len(path) > 1 && e == path[len(path)-2]+f:
		score = 90
	default:
		score = wordsAlike(local, m.names, path)
	}
	if score == 0 {
		return 0
	}
	if between := len(path) - 2 - s.depth; between > 0 && slices.Contains(vagueNames, e) {
		score -= 20 * between
	}
	less := 15
	if slices.Contains(commonNames, e) {
		less = 35
	}
	around := path[max(0, len(path)-4):max(0, len(path)-1)]
	for _, group := range m.names[:len(m.names)-1] {
		g := stem(fold(group))
		if !slices.ContainsFunc(around, func(p string) bool {
			return stem(p) == g || len(g) > 3 && strings.HasSuffix(stem(p), g)
		}) {
			score -= less
		}
	}
	return score
}

// vagueNames say little when other elements stand between.
var vagueNames = strings.Fields("name bezeichnung art typ nummer datum id code kennung text wert beschreibung bemerkung version status anzahl")

// commonNames stand in so many groups that the group has to fit as well.
var commonNames = strings.Fields(`name bezeichnung art typ nummer datum id code kennung ort text wert titel zusatz beschreibung bemerkung
	version anschrift adresse status anzahl kanal beginn ende von bis strasse hausnummer postleitzahl vorname familienname`)

// wordsAlike compares names by their words: bezeichnungDesBauvorhabens is the
// bezeichnung of a group vorhaben.
func wordsAlike(local string, names, path []string) int {
	element, field := nameWords(local), nameWords(names[len(names)-1])
	if len(field) == 0 {
		return 0
	}
	said := make([]bool, len(element))
	say := func(w string) bool {
		for i, have := range element {
			if stem(have) == stem(w) || len(w) > 3 && strings.HasSuffix(have, w) || len(w) > 3 && strings.HasSuffix(stem(have), stem(w)) {
				said[i] = true
				return true
			}
		}
		return false
	}
	for _, w := range field {
		if !say(w) {
			return 0
		}
	}
	for _, group := range names[:len(names)-1] {
		for _, w := range nameWords(group) {
			say(w)
		}
	}
	for _, around := range path[:len(path)-1] {
		say(around)
	}
	if slices.Contains(said, false) {
		return 60
	}
	return 88
}

var germanWords = []string{"der", "die", "das", "des", "dem", "den", "und", "oder", "zur", "zum", "von", "fuer", "auf", "im", "in"}

// nameWords splits a name at its capitals and signs; articles are left out.
func nameWords(name string) []string {
	var spaced strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) || !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			spaced.WriteByte(' ')
		}
		spaced.WriteRune(r)
	}
	var out []string
	for _, w := range strings.Fields(spaced.String()) {
		if w = fold(w); w != "" && !slices.Contains(germanWords, w) {
			out = append(out, w)
		}
	}
	return out
}

// fold makes names comparable: small letters, umlauts spelt out, signs left out.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, plainLetters.Replace(strings.ToLower(s)))
}

// stem leaves out the endings of German plurals and cases: bauvorhabens.
func stem(s string) string {
	for range 2 {
		for _, end := range []string{"en", "er", "es", "n", "e", "s"} {
			if len(s) > len(end)+3 && strings.HasSuffix(s, end) {
				s = s[:len(s)-len(end)]
				break
			}
		}
	}
	return s
}
