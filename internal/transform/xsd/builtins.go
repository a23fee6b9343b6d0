package xsd

const schemaNamespace = "http://www.w3.org/2001/XMLSchema"

// builtins are the types of XML Schema itself, by name (part 2, section 3).
// ENTITY, ENTITIES and NOTATION are missing: their values need a DOCTYPE.
var builtins = makeBuiltins()

var anyType = builtins["anyType"]

func makeBuiltins() map[string]*Type {
	all := map[string]*Type{}
	lax := &Wildcard{Process: Lax, Any: true}
	root := &Type{
		Name: Name{schemaNamespace, "anyType"}, Kind: MixedContent, AnyAttribute: lax,
		Content: &Particle{Kind: ParticleWildcard, Max: Unbounded, Wildcard: lax},
		states:  []state{{accept: true, wild: []wildEdge{{wildcard: lax}}}},
	}
	all["anyType"] = root
	add := func(name, base string, k kind, w WhiteSpace) *Simple {
		s := &Simple{Name: Name{schemaNamespace, name}, Builtin: name, kind: k, WhiteSpace: w, Length: -1, MinLength: -1, MaxLength: -1, TotalDigits: -1, FractionDigits: -1}
		t := &Type{Name: s.Name, Kind: SimpleType, Base: root, Simple: s}
		if b := all[base]; b != nil {
			t.Base, s.Base = b, b.Simple
			s.bounds, s.FractionDigits, s.facets = b.Simple.bounds, b.Simple.FractionDigits, b.Simple.facets
			s.MinInclusive, s.MaxInclusive = b.Simple.MinInclusive, b.Simple.MaxInclusive
		}
		all[name] = t
		return s
	}
	add("anySimpleType", "", kindString, Preserve)
	add("string", "anySimpleType", kindString, Preserve)
	add("normalizedString", "string", kindString, Replace)
	add("token", "normalizedString", kindString, Collapse)
	add("language", "token", kindLanguage, Collapse)
	add("NMTOKEN", "token", kindNMTOKEN, Collapse)
	add("Name", "token", kindName, Collapse)
	add("NCName", "Name", kindNCName, Collapse)
	add("ID", "NCName", kindNCName, Collapse).id = isID
	add("IDREF", "NCName", kindNCName, Collapse).id = isIDREF
	for name, k := range map[string]kind{
		"boolean": kindBoolean, "decimal": kindDecimal, "float": kindFloat, "double": kindDouble, "duration": kindDuration,
		"dateTime": kindDateTime, "time": kindTime, "date": kindDate, "gYearMonth": kindYearMonth, "gYear": kindYear,
		"gMonthDay": kindMonthDay, "gDay": kindDay, "gMonth": kindMonth, "hexBinary": kindHex, "base64Binary": kindBase64,
		"anyURI": kindURI, "QName": kindQName,
	} {
		add(name, "anySimpleType", k, Collapse)
	}
	add("integer", "decimal", kindInteger, Collapse).FractionDigits = 0
	// An integer has no fraction by its form; the facet is there to be read.
	for _, r := range []struct{ name, base, min, max string }{
		{"nonPositiveInteger", "integer", "", "0"}, {"negativeInteger", "nonPositiveInteger", "", "-1"},
		{"long", "integer", "-9223372036854775808", "9223372036854775807"}, {"int", "long", "-2147483648", "2147483647"},
		{"short", "int", "-32768", "32767"}, {"byte", "short", "-128", "127"},
		{"nonNegativeInteger", "integer", "0", ""}, {"positiveInteger", "nonNegativeInteger", "1", ""},
		{"unsignedLong", "nonNegativeInteger", "0", "18446744073709551615"}, {"unsignedInt", "unsignedLong", "0", "4294967295"},
		{"unsignedShort", "unsignedInt", "0", "65535"}, {"unsignedByte", "unsignedShort", "0", "255"},
	} {
		s := add(r.name, r.base, kindInteger, Collapse)
		s.facets, s.bounds = true, nil
		if r.min != "" {
			s.MinInclusive = &r.min
		}
		if r.max != "" {
			s.MaxInclusive = &r.max
		}
		if s.MinInclusive != nil {
			s.bounds = append(s.bounds, bound{value: []byte(*s.MinInclusive), lower: true})
		}
		if s.MaxInclusive != nil {
			s.bounds = append(s.bounds, bound{value: []byte(*s.MaxInclusive)})
		}
	}
	for _, l := range []struct{ name, item string }{{"NMTOKENS", "NMTOKEN"}, {"IDREFS", "IDREF"}} {
		s := add(l.name, "anySimpleType", kindString, Collapse)
		s.Variety, s.Item, s.MinLength, s.facets = List, all[l.item].Simple, 1, true
	}
	return all
}
