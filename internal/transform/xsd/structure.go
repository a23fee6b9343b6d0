package xsd

import (
	"regexp"
	"strings"
)

// grammars are what stands in each element of a schema, by its name, and by that
// of the element around it where that makes a difference (part 1, appendix A).
// A name is followed by a space.
var grammars = func() map[string]*regexp.Regexp {
	const (
		note       = "(annotation )?"
		attributes = "((attribute |attributeGroup )*(anyAttribute )?)"
		model      = "((group |all |choice |sequence )?)"
		particles  = "(element |group |choice |sequence |any )*"
		derived    = note + "(restriction |extension )"
		facets     = "((minExclusive |minInclusive |maxExclusive |maxInclusive |totalDigits |fractionDigits |length |minLength |maxLength |enumeration |whiteSpace |pattern )*)"
		key        = note + "selector (field )+"
	)
	out := map[string]*regexp.Regexp{}
	for name, g := range map[string]string{
		"schema":  "(include |import |redefine |annotation )*((simpleType |complexType |group |attributeGroup |element |attribute |notation )(annotation )*)*",
		"include": note, "import": note, "redefine": "(annotation |simpleType |complexType |group |attributeGroup )*",
		"annotation": "(appinfo |documentation )*", "notation": note,
		"element":       note + "(simpleType |complexType )?(unique |key |keyref )*",
		"attribute":     note + "(simpleType )?",
		"complexType":   note + "(simpleContent |complexContent |" + model + attributes + ")",
		"simpleContent": derived, "complexContent": derived,
		"simpleContent extension": note + attributes, "complexContent extension": note + model + attributes,
		"simpleContent restriction":  note + "(simpleType )?" + facets + attributes,
		"complexContent restriction": note + model + attributes,
		"group":                      note + "(all |choice |sequence )?",
		"all":                        note + "(element )*", "choice": note + particles, "sequence": note + particles,
		"any": note, "anyAttribute": note, "attributeGroup": note + attributes,
		"simpleType": note + "(restriction |list |union )", "simpleType restriction": note + "(simpleType )?" + facets,
		"list": note + "(simpleType )?", "union": note + "(simpleType )*",
		"unique": key, "key": key, "keyref": key, "selector": note, "field": note,
		"minExclusive": note, "minInclusive": note, "maxExclusive": note, "maxInclusive": note, "totalDigits": note,
		"fractionDigits": note, "length": note, "minLength": note, "maxLength": note, "enumeration": note, "whiteSpace": note, "pattern": note,
	} {
		out[name] = regexp.MustCompile("^(" + g + ")$")
	}
	return out
}()

// mayBeEmpty are the attributes that say something by being empty.
var mayBeEmpty = map[string]bool{
	"value": true, "fixed": true, "default": true, "namespace": true, "schemaLocation": true, "version": true, "block": true,
	"final": true, "blockDefault": true, "finalDefault": true, "memberTypes": true, "source": true, "system": true, "public": true,
}

// structure checks that elements of the schema stand only where a schema has
// them, so that none is passed over unread.
func (n *node) structure(parent string) error {
	tag := n.tag()
	if tag == "appinfo" || tag == "documentation" {
		return nil
	}
	for _, a := range n.attrs {
		if a.name.Space == "" && !mayBeEmpty[a.name.Local] && strings.TrimSpace(a.value) == "" {
			return n.fail("<%s> has an empty %s", tag, a.name.Local)
		}
	}
	g := grammars[parent+" "+tag]
	if g == nil {
		g = grammars[tag]
	}
	if g == nil {
		return n.fail("<%s> is not supported here", n.name.Local)
	}
	var kids strings.Builder
	for _, k := range n.kids {
		if k.tag() == "" {
			return k.fail("an element of another namespace stands outside an appinfo")
		}
		kids.WriteString(k.tag() + " ")
		if err := k.structure(tag); err != nil {
			return err
		}
	}
	if _, ref := n.lookup("ref"); ref && strings.TrimPrefix(kids.String(), "annotation ") != "" {
		return n.fail("<%s> is a reference and holds what it refers to", tag)
	}
	if !g.MatchString(kids.String()) {
		return n.fail("<%s> holds elements of a kind, number or order that it does not have in a schema", tag)
	}
	return nil
}
