package transform

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"weiche/internal/transform/standard"
	"weiche/internal/transform/xsd"
)

// Draft is the first version of a mapping, for its author to go on from.
type Draft struct {
	XML []byte
	// Filled counts the elements and attributes that have a value, Missing what
	// the standard requires and no field was found for.
	Filled, Missing int
	// Unplaced are the fields of the form that the draft has no place for.
	Unplaced []string
}

// MessageError says that a standard has no message of a name.
type MessageError struct {
	Standard, Name string
	Near           []string // the names that come closest, at most five
}

func (e *MessageError) Error() string {
	if len(e.Near) == 0 {
		return fmt.Sprintf("%s has no message %q", e.Standard, e.Name)
	}
	return fmt.Sprintf("%s has no message %q; the nearest are %s", e.Standard, e.Name, strings.Join(e.Near, ", "))
}

// maxDraft bounds the elements of a draft: a schema may ask for more than anyone
// reads.
const maxDraft = 20_000

// maxDraftDepth bounds its depth, below what a mapping may have.
const maxDraftDepth = 60

// NewDraft writes the skeleton of a message: what the standard requires, in its
// order, with the message's head, fixed values and the fields of the form that
// have a likely name. What is missing stands in comments. The same input gives
// the same bytes. The error is a *MessageError, or says that the standard's
// schema cannot be used.
func NewDraft(std *standard.Standard, message string, form *FormSchema) (*Draft, error) {
	schema, err := std.Schema()
	if err != nil {
		return nil, err
	}
	m, ok := std.Message(message)
	if !ok {
		return nil, &MessageError{std.Key(), message, nearestMessages(std, message)}
	}
	decl := schema.Element(xsd.Name{Space: m.Namespace, Local: m.Element})
	if decl == nil {
		return nil, fmt.Errorf("%s names the message %s, but its schema has no element of that name", std.Key(), message)
	}
	d := &drafter{std: std, form: form, message: message, prefixes: newPrefixes(std.Name, decl.Name.Space)}
	in := here{scope: draftScope{expr: "form", field: "form", nodes: []*formNode{form.root}, depth: 1}}
	root := d.element(decl, in, standing{needed: true})[0]
	out := &Draft{Filled: root.filled(), Missing: root.missing(), Unplaced: d.unplaced(root)}
	d.introduce(root, out.Unplaced)
	out.XML = d.write(root)
	return out, nil
}

// nearestMessages are those that end alike, or have a similar name.
func nearestMessages(std *standard.Standard, name string) []string {
	type near struct {
		name     string
		distance int
	}
	var all []near
	for _, m := range std.MessageNames() {
		d := distance(strings.ToLower(name), strings.ToLower(m.Name))
		if n := messageNumber(name); n != "" && n == messageNumber(m.Name) || strings.Contains(strings.ToLower(m.Name), strings.ToLower(name)) {
			d = 0
		}
		all = append(all, near{m.Name, d})
	}
	slices.SortStableFunc(all, func(a, b near) int { return a.distance - b.distance })
	var out []string
	for _, n := range all[:min(5, len(all))] {
		out = append(out, n.name)
	}
	return out
}

// messageNumber is the number that a message's name ends in: 0200.
func messageNumber(name string) string {
	i := len(name)
	for i > 0 && name[i-1] >= '0' && name[i-1] <= '9' {
		i--
	}
	return name[i:]
}

// drafter writes one draft.
type drafter struct {
	std      *standard.Standard
	form     *FormSchema
	message  string
	prefixes *prefixes
	count    int
}

// here is where a draft stands: in which group of the form, and below which
// elements of the message.
type here struct {
	scope draftScope
	outer []draftScope // those around it, the nearest last
	path  []string     // folded local names, from the root
	types []*xsd.Type  // of the elements around
	loops []string     // names of loops in force
	carry *draftMember // a field that the element holds somewhere below
}

// standing is what a content model says of one element.
type standing struct {
	needed, repeats bool
}

// element drafts an element, or nothing where it is optional and no field of the
// form has its name.
func (d *drafter) element(decl *xsd.Element, in here, p standing) []*sketch {
	local := decl.Name.Local
	if decl.Abstract || decl.Type.Abstract {
		if !p.needed {
			return nil
		}
		return []*sketch{lacking("<%s> is required; its type is abstract: give it an xsi:type and what that holds", local)}
	}
	if d.count++; d.count > maxDraft || len(in.path) > maxDraftDepth {
		return []*sketch{lacking("<%s> is required; the draft ends here, it is large enough", local)}
	}
	if slices.Contains(in.types, decl.Type) && decl.Type.Name.Local != "" && !decl.Type.Kind.HasText() && in.carry == nil {
		if !p.needed {
			return nil
		}
		return []*sketch{lacking("<%s> is required; its type %s stands around it already, the draft does not go on", local, decl.Type.Name.Local)}
	}
	in.path = append(slices.Clip(in.path), fold(local))
	in.types = append(slices.Clip(in.types), decl.Type)
	s := &sketch{tag: d.prefixes.tag(decl.Name)}
	switch {
	case isCodeType(decl.Type):
		return d.code(s, decl, in, p)
	case decl.Type.Kind.HasText():
		return d.text(s, decl, in, p)
	}
	return d.group(s, decl, in, p)
}

// group drafts an element that holds elements.
func (d *drafter) group(s *sketch, decl *xsd.Element, in here, p standing) []*sketch {
	t := decl.Type
	known := wordOf(in.path).opens || stem(fold(decl.Name.Local)) == "anlag" && !p.repeats
	if in.carry == nil && len(in.path) > 1 && !inHead(in.path) {
		switch found, ok := in.forGroup(decl.Name.Local, p); {
		case p.repeats && isFile(t):
			in = everyFile(s, in)
		case ok && found.kind == kindList:
			in = found.enterList(s, in)
		case ok && found.kind == kindGroup:
			in = in.enter(found.scope())
			s.fields = append(s.fields, found.field)
			if !p.needed {
				s.guard = "has(" + found.expr + ")"
			}
		case ok: // a single value: it goes to what is inside
			if !p.needed {
				s.guard = "has(" + found.expr + ")"
			}
			in.carry = &found
		case p.repeats && stem(fold(decl.Name.Local)) == "anlag":
			in = everyFile(s, in)
		case !p.needed && !known:
			return nil
		}
	} else if !p.needed && !known && in.carry == nil {
		return nil
	}
	notes := d.attributes(s, t, in, len(in.path) == 1)
	if len(in.path) == 1 {
		s.add(notes...)
		notes = nil
	}
	switch {
	case isAny(t):
		s.add(lacking("<%s> takes any content", decl.Name.Local))
	case isGeneric(t):
		s.add(&sketch{tag: "w:data", attrs: []sketchAttr{{"of", "form"}}, fields: []string{"form"}})
	case t.Content != nil:
		if in.carry != nil {
			d.carried(s, t, in)
		} else {
			s.add(d.particle(t.Content, in, true, false)...)
		}
	}
	if !p.needed && s.filled() == 0 {
		return nil
	}
	if p.needed && len(s.children) == 0 && t.Content != nil && s.get("w:for") == "" {
		return []*sketch{lacking("<%s> is required, and no field was found for what it holds: %s", s.tag, headsOf(t.Content))}
	}
	if s.guard != "" && (len(s.attrs) > 0 || s.constant() || len(contentOf(t).must) > 0) && s.get("w:for") == "" {
		s.set("w:if", s.guard)
	}
	return append(notes, s)
}

// everyFile makes an element repeat for each file of the submission.
func everyFile(s *sketch, in here) here {
	const name = "datei"
	s.set("w:for", name+" in attachments")
	in = in.enter(draftScope{file: name})
	in.loops = append(slices.Clip(in.loops), name)
	return in
}

// isFile says that a type asks for nothing but what is known of every file.
func isFile(t *xsd.Type) bool {
	must := contentOf(t).must
	for _, q := range must {
		if fileWord("datei", fold(q.local)) == "" {
			return false
		}
	}
	return len(must) > 1
}

// particle drafts one term of a content model.
func (d *drafter) particle(p *xsd.Particle, in here, needed, repeats bool) []*sketch {
	if p.Max == 0 {
		return nil
	}
	optional := !needed || p.Min == 0
	repeats = repeats || p.Max == xsd.Unbounded || p.Max > 1
	switch p.Kind {
	case xsd.ParticleWildcard:
		if optional {
			return nil
		}
		return []*sketch{lacking("an element of another namespace is required here")}
	case xsd.ParticleElement:
		if len(p.Element.Substitutes) == 1 {
			return d.element(p.Element.Substitutes[0], in, standing{!optional, repeats})
		}
		parts := make([]*xsd.Particle, 0, len(p.Element.Substitutes))
		for _, e := range p.Element.Substitutes {
			parts = append(parts, &xsd.Particle{Kind: xsd.ParticleElement, Min: 1, Max: 1, Element: &xsd.Element{Substitutes: []*xsd.Element{e}}})
		}
		return d.choice(parts, in, !optional, repeats)
	case xsd.ParticleChoice:
		return d.choice(p.Parts, in, !optional, repeats)
	}
	sequence := func(needed bool) []*sketch {
		var out []*sketch
		for _, part := range p.Parts {
			out = append(out, d.particle(part, in, needed, repeats)...)
		}
		return out
	}
	out := sequence(!optional)
	if needed && optional && len(p.Parts) > 1 && filledIn(out) > 0 {
		out = sequence(true) // one of several that belong together
	}
	return out
}

// choice drafts the alternatives that the form has fields for, else the first,
// and names the others.
func (d *drafter) choice(parts []*xsd.Particle, in here, needed, repeats bool) []*sketch {
	if len(parts) == 1 {
		return d.particle(parts[0], in, needed, repeats)
	}
	type alternative struct {
		part  *xsd.Particle
		likes liking
	}
	var all []alternative
	best := -1
	for i, part := range parts {
		a := alternative{part, d.likes(part, in)}
		all = append(all, a)
		if a.likes.score > 0 && (best < 0 || a.likes.score > all[best].likes.score) {
			best = i
		}
	}
	if best < 0 {
		if !needed {
			return nil
		}
		best = max(0, slices.IndexFunc(parts, func(p *xsd.Particle) bool { return !d.recurs(p, in) }))
	}
	out := &sketch{tag: "w:choose"}
	var last []*sketch
	for i, a := range all {
		named := a.likes.guard != "" && all[best].likes.guard != "" && a.likes.guard != all[best].likes.guard
		if i != best && !named {
			out.add(note("or %s", headsOf(a.part)))
			continue
		}
		inside := d.particle(a.part, in, true, repeats)
		if i == best {
			last = inside
		}
		out.add(&sketch{tag: "w:when", attrs: []sketchAttr{{"w:if", a.likes.guard}}, children: inside})
	}
	if whens := out.elements(); len(whens) == 1 {
		if len(last) == 0 || filledIn(last) == 0 && !needed {
			return nil
		}
		if !hasElement(last) { // there is nothing to choose from yet
			return append(out.comments(), last...)
		}
		whens[0].tag, whens[0].attrs = "w:otherwise", nil
		out.children = append(out.comments(), whens[0])
	}
	if !needed && out.filled() == 0 {
		return nil
	}
	return []*sketch{out}
}

// liking is how well a form fits an alternative, and under which condition it is
// the one that is meant.
type liking struct {
	score int
	guard string
}

// likes looks at the names of what an alternative begins with, and at what is
// in it.
func (d *drafter) likes(p *xsd.Particle, in here) liking {
	var best liking
	better := func(l liking) {
		if l.score > best.score {
			best = l
		}
	}
	for _, e := range heads(p) {
		path := append(slices.Clip(in.path), fold(e.Name.Local))
		if w := wordOf(path); w.value != "" || w.opens {
			better(liking{score: 1000})
			continue
		}
		if inHead(path) || d.recurs(p, in) {
			continue
		}
		if e.Type.Kind.HasText() || isCodeType(e.Type) {
			at := in
			at.path = path
			if f, _, ok := at.forText(e.Name.Local, e.Type.Simple, standing{needed: true}); ok {
				better(liking{100 + f.score, "has(" + f.expr + ")"})
			}
			continue
		}
		at := in
		at.path = path
		if f, ok := at.forGroup(e.Name.Local, standing{needed: true, repeats: true}); ok {
			better(liking{200 + f.score, "has(" + f.expr + ")"})
			continue
		}
		for _, inner := range contentOf(e.Type).decls {
			at.path = append(slices.Clip(path), fold(inner.Name.Local))
			if _, _, ok := at.forText(inner.Name.Local, inner.Type.Simple, standing{}); ok {
				best.score++
			}
		}
	}
	return best
}

// recurs says that an alternative leads back to a type around it.
func (d *drafter) recurs(p *xsd.Particle, in here) bool {
	return slices.ContainsFunc(heads(p), func(e *xsd.Element) bool {
		return e.Abstract || e.Type.Abstract || !e.Type.Kind.HasText() && slices.Contains(in.types, e.Type)
	})
}

// heads are the elements of a particle, without those in them.
func heads(p *xsd.Particle) []*xsd.Element {
	if p.Kind == xsd.ParticleElement {
		return p.Element.Substitutes
	}
	var out []*xsd.Element
	for _, part := range p.Parts {
		out = append(out, heads(part)...)
	}
	return out
}

func headsOf(p *xsd.Particle) string {
	var out []string
	for _, e := range heads(p) {
		if out = append(out, "<"+e.Name.Local+">"+typeWord(e.Type)); len(out) == 4 {
			out = append(out, "…")
			break
		}
	}
	if len(out) == 0 {
		return "an element of another namespace"
	}
	return strings.Join(out, ", ")
}

func typeWord(t *xsd.Type) string {
	if t.Name.Local == "" {
		return ""
	}
	return " (" + t.Name.Local + ")"
}

// carried puts a single value into the element that holds it: <familienname> has
// a <name>.
func (d *drafter) carried(s *sketch, t *xsd.Type, in here) {
	target := carrier(t, in.path[len(in.path)-1])
	var walk func(p *xsd.Particle, needed bool) []*sketch
	walk = func(p *xsd.Particle, needed bool) []*sketch {
		needed = needed && p.Min > 0
		if p.Kind == xsd.ParticleElement {
			for _, e := range p.Element.Substitutes {
				if e == target {
					return d.element(e, in, standing{needed: true})
				}
			}
			bare := in
			bare.carry, bare.scope, bare.outer = nil, draftScope{}, nil
			if needed {
				return d.particle(p, bare, true, false)
			}
			return nil
		}
		if p.Kind == xsd.ParticleChoice && len(p.Parts) > 1 {
			for _, part := range p.Parts {
				if slices.Contains(heads(part), target) {
					return walk(part, true)
				}
			}
			bare := in
			bare.carry, bare.scope, bare.outer = nil, draftScope{}, nil
			return d.particle(p, bare, needed, false)
		}
		var out []*sketch
		for _, part := range p.Parts {
			out = append(out, walk(part, needed)...)
		}
		return out
	}
	s.add(walk(t.Content, true)...)
}

// carrier is the element of a type that holds its value; nil where none does.
func carrier(t *xsd.Type, local string) *xsd.Element {
	decls := contentOf(t).decls
	for _, name := range []string{"name", "code", "wert", "text", "inhalt", "bezeichnung", "nummer", "kennung", local} {
		for _, e := range decls {
			if fold(e.Name.Local) == name && !e.Abstract {
				return e
			}
		}
	}
	for _, e := range decls {
		if e.Type.Kind.HasText() && !e.Abstract {
			return e
		}
	}
	return nil
}

// isGeneric says that a type holds a form as w:data writes it.
func isGeneric(t *xsd.Type) bool {
	names := map[string]bool{}
	for _, e := range contentOf(t).decls {
		names[e.Name.Local] = true
	}
	return len(names) == 2 && names["gruppe"] && names["feld"]
}

// formName is what the form is called: by its file or, where that says nothing,
// by its folder.
func (d *drafter) formName() string {
	base, _, _ := strings.Cut(filepath.Base(d.form.File), ".")
	if dir := filepath.Base(filepath.Dir(d.form.File)); base == "form" && dir != "." && dir != string(filepath.Separator) {
		return dir
	}
	return base
}

// unplaced are the fields that no expression of the draft looks at.
func (d *drafter) unplaced(root *sketch) []string {
	used := root.used(map[string]bool{})
	var out []string
	for _, f := range d.form.fields() {
		if !used[f.path] && !used["form"] {
			out = append(out, unlisted(f.path))
		}
	}
	return out
}

// introduce says at the top what the file is.
func (d *drafter) introduce(root *sketch, unplaced []string) {
	text := fmt.Sprintf("First draft of %s of %s for the form %s.\n"+
		"  What the standard requires and no field was found for stands in comments that begin with \"missing\".\n"+
		"  `router mapping check` says what is left to do, with file and line; docs/reference/mapping-language.md has the language.", d.message, d.std.Key(), d.formName())
	if len(unplaced) > 0 {
		text += "\n  Fields of the form without a place here; map them, or name in w:unused on the root those that are left out on purpose:"
		for _, f := range unplaced {
			text += "\n    " + f
		}
	}
	root.before = text
}
