package xsd

import (
	"slices"
	"strings"
)

// completeType completes the complex type at a node, its base first.
func (c *compiler) completeType(n *node) error {
	t := c.types[n]
	switch c.progress[n] {
	case done:
		return nil
	case underway:
		return n.fail("the complex type is derived from itself")
	}
	if err := c.enter(n); err != nil {
		return err
	}
	defer c.leave()
	c.progress[n] = underway
	allowed := []string{"mixed"}
	if n.global {
		allowed = []string{"name", "mixed", "abstract", "block", "final"}
	}
	if err := n.allow(allowed...); err != nil {
		return err
	}
	var err error
	if t.Abstract, err = n.boolean("abstract"); err != nil {
		return err
	}
	if t.block, err = derivations(n, "block", n.doc.block); err != nil {
		return err
	}
	if t.final, err = derivations(n, "final", n.doc.final); err != nil {
		return err
	}
	mixed, err := n.boolean("mixed")
	if err != nil {
		return err
	}
	switch {
	case n.child("simpleContent") != nil:
		err = c.simpleContent(n, n.child("simpleContent"), t)
	case n.child("complexContent") != nil:
		err = c.complexContent(n, n.child("complexContent"), t, mixed)
	default:
		t.Base = anyType
		err = c.body(n, t, &attributeSet{c: c})
		t.settle(mixed)
	}
	c.progress[n] = done
	return err
}

// settle finds the kind of content that follows from the particle.
func (t *Type) settle(mixed bool) {
	switch {
	case mixed:
		t.Kind = MixedContent
	case t.Content == nil:
		t.Kind = EmptyContent
	default:
		t.Kind = ElementContent
	}
}

// derivation returns the extension or restriction below a simpleContent or
// complexContent, and its base, complete.
func (c *compiler) derivation(n, content *node, t *Type) (*node, *Type, error) {
	for _, k := range n.kids {
		if k != content && k.tag() != "annotation" {
			return nil, nil, k.fail("<%s> is not expected beside <%s>", k.name.Local, content.name.Local)
		}
	}
	var d *node
	for _, k := range content.kids {
		switch k.tag() {
		case "annotation":
		case "extension", "restriction":
			if d != nil {
				return nil, nil, k.fail("a type is derived twice")
			}
			d = k
		default:
			return nil, nil, k.fail("<%s> is not supported here", k.name.Local)
		}
	}
	if d == nil {
		return nil, nil, content.fail("neither extension nor restriction stands in it")
	}
	if err := d.allow("base"); err != nil {
		return nil, nil, err
	}
	base, err := c.typeNamed(d, d.attr("base"))
	if err != nil {
		return nil, nil, err
	}
	if node := c.nodes[base]; node != nil {
		if err := c.completeType(node); err != nil {
			return nil, nil, err
		}
	}
	t.Base, t.Extends = base, d.tag() == "extension"
	method := byRestriction
	if t.Extends {
		method = byExtension
	}
	if base.final&method != 0 {
		return nil, nil, d.fail("the base type is final")
	}
	return d, base, nil
}

// simpleContent builds a type whose content is text.
func (c *compiler) simpleContent(n, content *node, t *Type) error {
	if err := content.allow(); err != nil {
		return err
	}
	d, base, err := c.derivation(n, content, t)
	if err != nil {
		return err
	}
	if base.Simple == nil {
		return d.fail("the base has no simple content")
	}
	t.Kind, t.Simple = SimpleContent, base.Simple
	set := &attributeSet{c: c, base: base}
	if t.Extends {
		return c.attributes(d, t, set)
	}
	from := base.Simple
	if inner := d.child("simpleType"); inner != nil {
		it, err := c.typeOf(inner)
		if err != nil {
			return err
		}
		from = it.Simple
	}
	if t.Simple, err = c.restrict(d, from); err != nil {
		return err
	}
	return c.attributes(d, t, set)
}

// complexContent builds a type derived from another complex one.
func (c *compiler) complexContent(n, content *node, t *Type, mixed bool) error {
	if err := content.allow("mixed"); err != nil {
		return err
	}
	if content.attr("mixed") != "" {
		var err error
		if mixed, err = content.boolean("mixed"); err != nil {
			return err
		}
	}
	d, base, err := c.derivation(n, content, t)
	if err != nil {
		return err
	}
	if base.Kind == SimpleType || base.Simple != nil && !t.Extends {
		return d.fail("the base has simple content")
	}
	if err := c.body(d, t, &attributeSet{c: c, base: base}); err != nil {
		return err
	}
	if base.Simple != nil {
		if t.Content != nil || mixed {
			return d.fail("the base has simple content")
		}
		t.Kind, t.Simple = SimpleContent, base.Simple
		return nil
	}
	if t.Extends && base.Content != nil {
		if t.Content == nil {
			t.Content = base.Content
			mixed = mixed || base.Kind == MixedContent
		} else {
			if base.Content.Kind == ParticleAll || t.Content.Kind == ParticleAll {
				return d.fail("an xs:all cannot be extended")
			}
			t.Content = &Particle{Kind: ParticleSequence, Min: 1, Max: 1, Parts: []*Particle{base.Content, t.Content}, Position: d.position()}
		}
	}
	if t.Extends && base != anyType && base.Kind != EmptyContent && mixed != (base.Kind == MixedContent) {
		return d.fail("type and base are not both mixed")
	}
	t.settle(mixed)
	return nil
}

// body reads the particle and the attributes among k's children.
func (c *compiler) body(k *node, t *Type, set *attributeSet) error {
	for _, p := range k.kids {
		switch p.tag() {
		case "sequence", "choice", "all", "group":
			if t.Content != nil {
				return p.fail("a type has two content models")
			}
			var err error
			if t.Content, err = c.particle(p, 0); err != nil {
				return err
			}
			// A choice of nothing that has to stand is content that none can have.
			if t.Content.Max == 0 || len(t.Content.Parts) == 0 && (t.Content.Kind != ParticleChoice || t.Content.Min == 0) {
				t.Content = nil
			}
		case "annotation", "attribute", "attributeGroup", "anyAttribute":
		default:
			return p.fail("<%s> is not supported in a complex type", p.name.Local)
		}
	}
	return c.attributes(k, t, set)
}

const maxGroupNesting = 100

// particle builds one term of a content model; nil for one that may not occur.
func (c *compiler) particle(n *node, depth int) (*Particle, error) {
	if depth > maxGroupNesting {
		return nil, n.fail("groups nest too deeply, or a group holds itself")
	}
	if err := c.spend(n, 10); err != nil {
		return nil, err
	}
	lo, hi, err := n.occurs()
	if err != nil {
		return nil, err
	}
	p := &Particle{Min: lo, Max: hi, Position: n.position()}
	switch n.tag() {
	case "element":
		return p, c.elementParticle(n, p)
	case "any":
		if err := n.allow("namespace", "processContents", "minOccurs", "maxOccurs"); err != nil {
			return nil, err
		}
		p.Kind = ParticleWildcard
		p.Wildcard, err = c.wildcard(n)
		return p, err
	case "group":
		if err := n.allow("ref", "minOccurs", "maxOccurs"); err != nil {
			return nil, err
		}
		g, _, err := c.find(n, "group", n.attr("ref"))
		if err != nil {
			return nil, err
		}
		inner, err := c.group(g, depth+1)
		if err != nil {
			return nil, err
		}
		p.Kind, p.Parts = inner.Kind, inner.Parts
		return p, nil
	case "sequence":
		p.Kind = ParticleSequence
	case "choice":
		p.Kind = ParticleChoice
	case "all":
		p.Kind = ParticleAll
	}
	if err := n.allow("minOccurs", "maxOccurs"); err != nil {
		return nil, err
	}
	for _, k := range n.kids {
		switch k.tag() {
		case "annotation":
			continue
		case "element", "any", "group", "sequence", "choice", "all":
		default:
			return nil, k.fail("<%s> is not supported in a content model", k.name.Local)
		}
		part, err := c.particle(k, depth+1)
		if err != nil {
			return nil, err
		}
		if part.Kind == ParticleAll || p.Kind == ParticleAll && (part.Kind != ParticleElement || part.Max > 1 || part.Max < 0) {
			return nil, k.fail("an xs:all holds elements that stand once at most, and stands alone")
		}
		if part.Max != 0 {
			p.Parts = append(p.Parts, part)
		}
	}
	if p.Kind == ParticleAll && (p.Max != 1 || p.Min > 1) {
		return nil, n.fail("an xs:all stands once at most")
	}
	return p, nil
}

func (c *compiler) elementParticle(n *node, p *Particle) error {
	p.Kind = ParticleElement
	ref := n.attr("ref")
	if ref == "" {
		var err error
		p.Element, err = c.element(n, false)
		return err
	}
	if err := n.allow("ref", "minOccurs", "maxOccurs"); err != nil {
		return err
	}
	g, _, err := c.find(n, "element", ref)
	if err != nil {
		return err
	}
	p.Element, err = c.element(g, true)
	return err
}

// group builds the content of a named group.
func (c *compiler) group(n *node, depth int) (*Particle, error) {
	if err := n.allow("name"); err != nil {
		return nil, err
	}
	var p *Particle
	for _, k := range n.kids {
		switch k.tag() {
		case "annotation":
		case "sequence", "choice", "all":
			if p != nil {
				return nil, k.fail("a group has two contents")
			}
			var err error
			if p, err = c.particle(k, depth); err != nil {
				return nil, err
			}
		default:
			return nil, k.fail("<%s> is not supported in a group", k.name.Local)
		}
	}
	if p == nil {
		return nil, n.fail("a group has no content")
	}
	return p, nil
}

func (c *compiler) wildcard(n *node) (*Wildcard, error) {
	w := &Wildcard{}
	switch v := n.attr("processContents"); v {
	case "", "strict":
	case "lax":
		w.Process = Lax
	case "skip":
		w.Process = Skip
	default:
		return nil, n.fail("processContents is unknown")
	}
	namespace, given := n.lookup("namespace")
	words := strings.Fields(namespace)
	switch {
	case !given || len(words) == 1 && words[0] == "##any":
		w.Any = true
	case len(words) == 1 && words[0] == "##other":
		w.Any = true
		w.Except = []string{""}
		if n.doc.target != "" {
			w.Except = append(w.Except, n.doc.target)
		}
	default:
		for _, word := range words {
			switch {
			case word == "##local":
				word = ""
			case word == "##targetNamespace":
				word = n.doc.target
			case strings.HasPrefix(word, "##"):
				return nil, n.fail("namespace has the unknown word %q", word)
			}
			w.Only = append(w.Only, word)
		}
	}
	c.number(w)
	return w, nil
}

func (c *compiler) number(w *Wildcard) {
	w.except, w.only = nil, nil
	for _, s := range w.Except {
		w.except = append(w.except, c.names.addSpace(s))
	}
	for _, s := range w.Only {
		w.only = append(w.only, c.names.addSpace(s))
	}
}

// attributeSet gathers the attributes of a type.
type attributeSet struct {
	c        *compiler
	base     *Type
	own      []*AttributeUse
	banned   []Name
	wildcard *Wildcard
}

// attributes reads the attributes among k's children into t.
func (c *compiler) attributes(k *node, t *Type, set *attributeSet) error {
	for _, a := range k.kids {
		if err := set.read(a, 0); err != nil {
			return err
		}
	}
	t.Attributes = set.own
	t.AnyAttribute = set.wildcard
	if set.base != nil {
		if err := c.spend(k, len(set.base.Attributes)); err != nil {
			return err
		}
		for _, u := range set.base.Attributes {
			if !slices.ContainsFunc(set.own, func(o *AttributeUse) bool { return o.Name == u.Name }) && (t.Extends || !slices.Contains(set.banned, u.Name)) {
				t.Attributes = append(t.Attributes, u)
			}
		}
		if t.Extends && set.base.AnyAttribute != nil {
			if set.wildcard == nil {
				t.AnyAttribute = set.base.AnyAttribute
			} else {
				t.AnyAttribute = c.unite(set.wildcard, set.base.AnyAttribute)
			}
		}
	}
	slices.SortFunc(t.Attributes, func(a, b *AttributeUse) int { return compareNames(a.Name, b.Name) })
	for i, u := range t.Attributes {
		if i > 0 && u.Name == t.Attributes[i-1].Name {
			return k.fail("the attribute %s is declared twice", u.Name.Local)
		}
		if u.Required {
			t.required++
		}
		if u.value() != nil && u.Type.Simple.identifies() {
			t.implied = append(t.implied, u)
		}
	}
	return nil
}

func (set *attributeSet) read(a *node, depth int) error {
	if err := set.c.spend(a, 10); err != nil {
		return err
	}
	switch a.tag() {
	case "attribute":
		return set.use(a, depth > 0)
	case "attributeGroup":
		if err := a.allow("ref"); err != nil {
			return err
		}
		g, _, err := set.c.find(a, "attributeGroup", a.attr("ref"))
		if err != nil {
			return err
		}
		return set.c.attributeGroup(g, set, depth+1)
	case "anyAttribute":
		if err := a.allow("namespace", "processContents"); err != nil {
			return err
		}
		w, err := set.c.wildcard(a)
		if err != nil {
			return err
		}
		if set.wildcard == nil {
			set.wildcard = w
		} else {
			set.wildcard = set.c.intersect(set.wildcard, w)
		}
	}
	return nil
}

func (c *compiler) attributeGroup(n *node, set *attributeSet, depth int) error {
	if depth > maxGroupNesting {
		return n.fail("attribute groups nest too deeply, or a group holds itself")
	}
	if err := n.allow("name"); err != nil {
		return err
	}
	for _, a := range n.kids {
		switch a.tag() {
		case "annotation":
		case "attribute", "attributeGroup", "anyAttribute":
			if err := set.read(a, depth); err != nil {
				return err
			}
		default:
			return a.fail("<%s> is not supported in an attribute group", a.name.Local)
		}
	}
	return nil
}

// use reads one attribute of a type. One that a group prohibits is no attribute of
// the group, nothing more (part 1, 3.4.2).
func (set *attributeSet) use(n *node, inGroup bool) error {
	u := &AttributeUse{}
	var err error
	if ref := n.attr("ref"); ref != "" {
		if err := n.allow("ref", "use", "fixed", "default"); err != nil {
			return err
		}
		if u.Attribute, err = set.c.attributeNamed(n, ref); err != nil {
			return err
		}
		if u.Fixed, u.Default, err = n.values(); err != nil {
			return err
		}
	} else if u.Attribute, err = set.c.attribute(n, false); err != nil {
		return err
	}
	if u.Fixed == nil && u.Default == nil {
		u.Fixed, u.Default, u.fixed = u.Attribute.Fixed, u.Attribute.Default, u.Attribute.fixed
	}
	if u.Fixed != nil {
		if u.fixed, err = set.c.canonical(n, u.Type.Simple, *u.Fixed); err != nil {
			return err
		}
	}
	if u.Default != nil {
		if _, err = set.c.canonical(n, u.Type.Simple, *u.Default); err != nil {
			return err
		}
	}
	switch n.attr("use") {
	case "", "optional":
	case "required":
		u.Required = true
	case "prohibited":
		if !inGroup {
			set.banned = append(set.banned, u.Name)
		}
		return nil
	default:
		return n.fail("use is unknown")
	}
	set.own = append(set.own, u)
	return nil
}

func (c *compiler) attributeNamed(n *node, ref string) (*Attribute, error) {
	g, _, err := c.find(n, "attribute", ref)
	if err != nil {
		return nil, err
	}
	return c.attribute(g, true)
}

// attribute returns the declaration at a node.
func (c *compiler) attribute(n *node, global bool) (*Attribute, error) {
	if a := c.declaredAttributes[n]; a != nil {
		return a, nil
	}
	allowed := []string{"name", "type", "fixed", "default", "use", "form"}
	if global {
		allowed = allowed[:4]
	}
	if err := n.allow(allowed...); err != nil {
		return nil, err
	}
	name := n.attr("name")
	if !isNCName([]byte(name)) || name == "xmlns" {
		return nil, n.fail("an attribute has no name, or none that can be one")
	}
	a := &Attribute{Name: Name{"", name}, Position: n.position(), Documentation: n.documentation()}
	form, err := qualified(n, "form", n.doc.qualifiedAttributes)
	if err != nil {
		return nil, err
	}
	if global || form {
		a.Name.Space = n.doc.target
	}
	a.symbol = c.names.add(a.Name)
	a.Type = builtins["anySimpleType"]
	if n.attr("type") != "" || n.child("simpleType") != nil {
		if a.Type, err = c.simpleRef(n, "type"); err != nil {
			return nil, err
		}
	}
	if a.Fixed, a.Default, err = n.values(); err != nil {
		return nil, err
	}
	for _, v := range []*string{a.Fixed, a.Default} {
		if v == nil {
			continue
		}
		canonical, err := c.canonical(n, a.Type.Simple, *v)
		if err != nil {
			return nil, err
		}
		if v == a.Fixed {
			a.fixed = canonical
		}
	}
	c.declaredAttributes[n] = a
	return a, nil
}

// unite and intersect combine wildcards (part 1, 3.10.6). How contents are
// processed is taken from the first.
func (c *compiler) unite(a, b *Wildcard) *Wildcard {
	w := &Wildcard{Process: a.Process}
	switch {
	case a.Any && b.Any:
		w.Any = true
		for _, s := range a.Except {
			if slices.Contains(b.Except, s) {
				w.Except = append(w.Except, s)
			}
		}
	case a.Any || b.Any:
		if b.Any {
			a, b = b, a
		}
		w.Any = true
		for _, s := range a.Except {
			if !slices.Contains(b.Only, s) {
				w.Except = append(w.Except, s)
			}
		}
	default:
		w.Only = append(slices.Clone(a.Only), b.Only...)
	}
	c.number(w)
	return w
}

func (c *compiler) intersect(a, b *Wildcard) *Wildcard {
	w := &Wildcard{Process: a.Process}
	switch {
	case a.Any && b.Any:
		w.Any = true
		w.Except = append(slices.Clone(a.Except), b.Except...)
	default:
		if a.Any {
			a, b = b, a
		}
		for _, s := range a.Only {
			if b.Allows(s) {
				w.Only = append(w.Only, s)
			}
		}
	}
	c.number(w)
	return w
}
