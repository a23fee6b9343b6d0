package xsd

import (
	"strings"
)

// constraint is a key, unique or keyref.
type constraint struct {
	name     Name
	kind     constraintKind
	selector []xpath
	fields   [][]xpath
	refer    *constraint
	abroad   bool // a keyref names it, of this element or of one around it
	element  *Element
	node     *node
}

type constraintKind uint8

const (
	constraintUnique constraintKind = iota
	constraintKey
	constraintKeyref
)

// xpath is one path of the XPath subset of selectors and fields (part 1, 3.11.6).
type xpath struct {
	anywhere  bool // begins with .//
	steps     []step
	attribute *step // ends with @name
}

// step is a name test; symbol is noSymbol for a wildcard, of one namespace where
// space is not otherSpace.
type step struct {
	symbol int32
	space  int32
}

func (s *step) matches(symbol, space int32) bool {
	if s.symbol != noSymbol {
		return s.symbol == symbol
	}
	return s.space == otherSpace || s.space == space
}

func (c *compiler) constraint(n *node, e *Element) error {
	if err := n.allow("name", "refer"); err != nil {
		return err
	}
	k := &constraint{name: Name{n.doc.target, n.attr("name")}, element: e, node: n}
	switch n.tag() {
	case "key":
		k.kind = constraintKey
	case "keyref":
		k.kind = constraintKeyref
	}
	for _, child := range n.kids {
		switch child.tag() {
		case "annotation":
			continue
		case "selector", "field":
		default:
			return child.fail("<%s> is not supported in an identity constraint", child.name.Local)
		}
		if err := child.allow("xpath"); err != nil {
			return err
		}
		field := child.tag() == "field"
		paths, err := c.xpaths(child, child.attr("xpath"), field)
		if err != nil {
			return err
		}
		if field {
			k.fields = append(k.fields, paths)
		} else if k.selector = paths; len(k.fields) > 0 {
			return child.fail("the selector stands behind a field")
		}
	}
	if k.selector == nil || k.fields == nil || k.name.Local == "" {
		return n.fail("name, selector or field is missing")
	}
	if c.keys[k.name] != nil {
		return n.fail("the identity constraint %s is declared twice", k.name.Local)
	}
	c.keys[k.name] = k
	e.constraints = append(e.constraints, k)
	return nil
}

// finishConstraints finds what each keyref refers to.
func (c *compiler) finishConstraints() error {
	for _, k := range c.keys {
		if k.kind != constraintKeyref {
			continue
		}
		name, err := k.node.qname(k.node.attr("refer"))
		if err != nil {
			return err
		}
		k.refer = c.keys[name]
		switch {
		case k.refer == nil || k.refer.kind == constraintKeyref || len(k.refer.fields) != len(k.fields):
			return k.node.fail("refer names no key of as many fields")
		}
		k.refer.abroad = true
	}
	return nil
}

func (c *compiler) xpaths(n *node, text string, field bool) ([]xpath, error) {
	var out []xpath
	text, ok := squeeze(text)
	if !ok {
		return nil, n.fail("the path %q is not supported", text)
	}
	for _, part := range strings.Split(text, "|") {
		p, err := c.xpath(n, part, field)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// squeeze takes the white space between tokens out of a path; ok is false where
// it stands within a name or parts two.
func squeeze(text string) (squeezed string, ok bool) {
	words := strings.Fields(text)
	for i := 1; i < len(words); i++ {
		before, after := words[i-1], words[i]
		opens := strings.HasSuffix(before, "::") || strings.ContainsAny(before[len(before)-1:], "|/@.")
		if !opens && !strings.HasPrefix(after, "::") && !strings.ContainsAny(after[:1], "|/@") {
			return text, false
		}
	}
	return strings.Join(words, ""), true
}

func (c *compiler) xpath(n *node, text string, field bool) (xpath, error) {
	var p xpath
	if rest, ok := strings.CutPrefix(text, ".//"); ok {
		p.anywhere, text = true, rest
	}
	if err := c.spend(n, 10+len(text)); err != nil {
		return p, err
	}
	parts := strings.Split(text, "/")
	if len(parts) > 100 {
		return p, n.fail("the path is too long")
	}
	for i, part := range parts {
		if part == "." {
			continue
		}
		name, isAttribute := strings.CutPrefix(part, "@")
		if !isAttribute {
			name, isAttribute = strings.CutPrefix(part, "attribute::")
		}
		name = strings.TrimPrefix(name, "child::")
		s, err := c.step(n, name)
		if err != nil {
			return p, err
		}
		if !isAttribute {
			p.steps = append(p.steps, s)
			continue
		}
		if !field || i < len(parts)-1 {
			return p, n.fail("an attribute stands where none may")
		}
		p.attribute = &s
	}
	return p, nil
}

func (c *compiler) step(n *node, text string) (step, error) {
	if text == "*" {
		return step{noSymbol, otherSpace}, nil
	}
	prefix, local, prefixed := strings.Cut(text, ":")
	if !prefixed {
		prefix, local = "", text
	}
	space := ""
	if prefixed {
		uri, ok := n.prefix([]byte(prefix))
		if !ok || prefix == "" {
			return step{}, n.fail("the path %q is not supported", text)
		}
		space = string(uri)
	}
	if prefixed && local == "*" {
		return step{noSymbol, c.names.addSpace(space)}, nil
	}
	if !isNCName([]byte(local)) {
		return step{}, n.fail("the path %q is not supported", text)
	}
	name := Name{space, local}
	return step{c.names.add(name), c.names.addSpace(space)}, nil
}
