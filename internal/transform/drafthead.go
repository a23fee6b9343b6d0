package transform

import (
	"fmt"
	"slices"
	"strings"

	"weiche/internal/transform/xsd"
)

// word is what an element is in every message, whatever the form: the head of
// XÖV messages, and what the submission itself says.
type word struct {
	value   string // an expression
	text    string // a constant
	uri     string // the list of a code, where the schema leaves it open
	version string
	free    bool // it may be absent
	opens   bool // it holds what is wanted of a head
}

func inHead(path []string) bool {
	return slices.ContainsFunc(path, func(p string) bool { return strings.HasPrefix(p, "nachrichtenkopf") || p == "kopf" })
}

// wordOf knows the names of the Basisnachricht's head, of XInneres', xdomea's and
// XJustiz's, and those of references to the submission.
func wordOf(path []string) word {
	name := path[len(path)-1]
	around := path[:len(path)-1]
	if w, ok := submissionWords[name]; ok && (!w.free || len(around) > 0) {
		return w
	}
	if len(around) == 0 {
		return word{}
	}
	parent := around[len(around)-1]
	if !inHead(path) {
		switch {
		case parent == "leistung" && name == "schluessel":
			return word{value: "submission.service"}
		case name == "gebiet" && len(around) == 1:
			return word{value: "submission.region"}
		case name == "bundesland":
			return word{value: "submission.land"}
		}
		return word{}
	}
	party := ""
	for _, p := range around {
		switch p {
		case "leser", "empfaenger":
			party = "authority"
		case "autor", "absender":
			party = "portal"
		}
	}
	if parent == "herstellerinformation" && name == "version" {
		return word{text: "1.0"} // of the product
	}
	if party == "" {
		return headWords[name]
	}
	switch name {
	case "verzeichnisdienst":
		return word{text: "DVDV", uri: "urn:xoev-de:kosit:codeliste:verzeichnisdienst", version: "3"}
	case "praefix":
		return word{value: party + ".prefix", uri: "urn:xoev-de:bund:bmi:bit:codeliste:dvdv.praefix", version: "51"}
	case "kennung":
		if parent == "behoerdenkennung" {
			return word{value: party + ".kennung"}
		}
		if parent == "leser" || parent == "autor" {
			return word{value: party + ".key"}
		}
	case "behoerdenschluessel":
		return word{value: party + ".kennung"}
	case "name":
		if parent == "leser" || parent == "autor" || parent == "institution" {
			return word{value: party + ".name"}
		}
	case "institution", "behoerdenkennung":
		return word{opens: true}
	case "gericht":
		if party == "authority" && parent == "auswahlkommunikationspartner" {
			return word{value: "authority.kennung"}
		}
	case "sonstige":
		if party == "portal" && parent == "auswahlkommunikationspartner" {
			return word{value: "portal.name"}
		}
	}
	return headWords[name]
}

// headWords are those of the message itself.
var headWords = map[string]word{
	"nachrichtenuuid": {value: "message.id"}, "prozessid": {value: "message.id"}, "eigenenachrichtenid": {value: "message.id"},
	"erstellungszeitpunkt": {value: "message.createdAt"}, "nachrichtentyp": {text: "message"},
	"produktname": {text: "Weiche"}, "namedesprodukts": {text: "Weiche"}, "herstellerdesprodukts": {text: "Projekt Weiche"}, "herstellername": {text: "Projekt Weiche"},
}

// submissionWords are references that stand outside of the head.
var submissionWords = map[string]word{
	"vorgangsid": {value: "submission.caseId"}, "vorgangid": {value: "submission.caseId"},
	"referenzantragsservice": {value: "submission.id"}, "antragid": {value: "submission.id"}, "fachverfahrenobjektid": {value: "submission.id"},
	"eingangszeitpunkt": {value: "submission.acceptedAt"}, "posteingangsdatum": {value: "date(submission.acceptedAt)"},
	"absenderzeichen":  {value: "submission.senderReference", free: true},
	"antragsdatum":     {value: "date(submission.applicationDate)", free: true},
	"vertrauensniveau": {value: "submission.trustLevel", free: true},
}

// rootWords are attributes of a message's root.
func (d *drafter) rootWord(name string) string {
	switch name {
	case "produkt":
		return "Weiche"
	case "produkthersteller":
		return "Projekt Weiche"
	case "standard":
		return d.std.Name
	case "version":
		return d.std.Version
	case "test":
		return "{submission.test ? 'Testnachricht' : nil}"
	}
	return ""
}

// fileWord is what is known of a file by the names that standards have for it.
func fileWord(file, name string) string {
	if file == "" {
		return ""
	}
	members := map[string]string{
		"dokumentid": "attachmentId", "attachmentid": "attachmentId", "dateiname": "filename", "filename": "filename", "mimetype": "mimeType", "zweck": "purpose",
		"beschreibung": "description", "groesse": "size", "filesize": "size", "hashwert": "sha512", "hashvalue": "sha512",
	}
	if m, ok := members[name]; ok {
		return file + "." + m
	}
	return ""
}

// text drafts an element that has a value.
func (d *drafter) text(s *sketch, decl *xsd.Element, in here, p standing) []*sketch {
	to, name := decl.Type.Simple, in.path[len(in.path)-1]
	w := wordOf(in.path)
	file := fileWord(in.scope.file, name)
	switch {
	case decl.Fixed != nil:
		if !p.needed {
			return nil
		}
		s.text = literal(*decl.Fixed)
	case w.value != "" && (p.needed || w.free || inHead(in.path)):
		s.set("w:value", w.value)
		if !w.free {
			s.set("w:required", "true")
		}
	case w.text != "" && p.needed:
		s.text = literal(w.text)
	case in.carry != nil:
		value, ok := writtenAs(to, *in.carry)
		if !ok {
			break
		}
		s.set("w:value", value)
		s.fields = append(s.fields, in.carry.field)
	case file != "":
		s.set("w:value", file)
	case !inHead(in.path):
		d.fromForm(s, decl, in, p)
	}
	if s.text == "" && s.get("w:value") == "" && p.needed {
		d.ownText(s, to, in)
	}
	if s.text == "" && s.get("w:value") == "" {
		if !p.needed {
			return nil
		}
		return []*sketch{lacking("<%s> is required: %s", s.tag, typeInWords(to, decl.Documentation))}
	}
	return append(d.attributes(s, decl.Type, in, false), s)
}

// fromForm fills an element from a field of the form that has its name.
func (d *drafter) fromForm(s *sketch, decl *xsd.Element, in here, p standing) {
	m, value, ok := in.forText(decl.Name.Local, decl.Type.Simple, p)
	if !ok {
		return
	}
	s.fields = append(s.fields, m.field)
	if m.kind == kindList {
		one := loopName(m.names, in.loops)
		s.set("w:for", one+" in "+m.expr)
		value, _ = writtenAs(decl.Type.Simple, draftMember{expr: one, kind: formShape(itemsOf(m.nodes)).kind})
	}
	s.set("w:value", value)
}

// ownText is what the mapping says by itself: the only value there is, a stable
// identifier, the form's title.
func (d *drafter) ownText(s *sketch, to *xsd.Simple, in here) {
	name, parent := in.path[len(in.path)-1], in.path[max(0, len(in.path)-2)]
	const like = "60f6667b-fa45-4bd7-b717-f4d6c65e5edb"
	switch {
	case to != nil && len(to.Enumeration) == 1:
		s.text = literal(to.Enumeration[0])
	case (name == "id" || name == "uuid") && to != nil && to.Check(like):
		if len(in.loops) > 0 {
			s.set("w:value", fmt.Sprintf("uuid5('%s', %s_index)", parent, in.loops[len(in.loops)-1]))
		} else {
			s.set("w:value", fmt.Sprintf("uuid5('%s')", parent))
		}
	case parent == "leistung" && name == "bezeichnung":
		if title := titleOf([]*formNode{d.form.root}); title != "" && to != nil && to.Check(title) {
			s.text = literal(title)
		}
	}
}

// isCodeType says that a type is a code of a list: <code> below listURI and
// listVersionID.
func isCodeType(t *xsd.Type) bool {
	if t.Kind.HasText() || isAny(t) || t.Attribute(xsd.Name{Local: "listURI"}) == nil && t.Attribute(xsd.Name{Local: "listVersionID"}) == nil {
		return false
	}
	return codeOf(t) != nil
}

func codeOf(t *xsd.Type) *xsd.Element {
	for _, e := range contentOf(t).decls {
		if e.Name.Local == "code" && e.Type.Kind.HasText() {
			return e
		}
	}
	return nil
}

// code drafts a code with the list it is of.
func (d *drafter) code(s *sketch, decl *xsd.Element, in here, p standing) []*sketch {
	inner := codeOf(decl.Type)
	c := &sketch{tag: d.prefixes.tag(inner.Name)}
	w := wordOf(in.path)
	if w.text == "message" {
		w.text = messageNumber(d.message)
	}
	file := fileWord(in.scope.file, in.path[len(in.path)-1])
	switch {
	case w.value != "" && (p.needed || inHead(in.path)):
		c.set("w:value", w.value)
		c.set("w:required", "true")
	case w.text != "" && p.needed && inner.Type.Simple.Check(w.text):
		c.text = literal(w.text)
	case in.carry != nil:
		c.set("w:value", in.carry.expr)
		c.fields = append(c.fields, in.carry.field)
	case file != "":
		c.set("w:value", file)
	case !inHead(in.path):
		if m, value, ok := in.forText(decl.Name.Local, inner.Type.Simple, p); ok {
			c.fields = append(c.fields, m.field)
			if m.kind == kindList {
				value = loopName(m.names, in.loops)
				s.set("w:for", value+" in "+m.expr)
			}
			c.set("w:value", value)
		}
	}
	if e := inner.Type.Simple.Enumeration; c.get("w:value") == "" && c.text == "" && p.needed && len(e) == 1 {
		c.text = literal(e[0])
	}
	notes := d.list(s, decl.Type, w)
	if c.text == "" && c.get("w:value") == "" {
		if !p.needed {
			return nil
		}
		list := ""
		for _, a := range s.attrs {
			list += fmt.Sprintf(" %s %q", a.name, a.value)
		}
		return []*sketch{lacking("<%s> is required: a code,%s; %s", s.tag, list, typeInWords(inner.Type.Simple, decl.Documentation))}
	}
	s.add(c)
	return append(notes, s)
}

// list says which list a code is of: as the schema fixes it, or the newest
// installed one.
func (d *drafter) list(s *sketch, t *xsd.Type, w word) []*sketch {
	var notes []*sketch
	uri := said(t.Attribute(xsd.Name{Local: "listURI"}))
	if uri == "" {
		uri = w.uri
	}
	for _, name := range []string{"listURI", "listVersionID"} {
		use := t.Attribute(xsd.Name{Local: name})
		if use == nil {
			continue
		}
		value := said(use)
		if value == "" && name == "listURI" {
			value = uri
		}
		if value == "" && name == "listVersionID" && uri != "" {
			if value = d.std.NewestList(uri); value == "" && uri == w.uri {
				value = w.version
			}
		}
		switch {
		case value != "":
			s.set(name, literal(value))
		case use.Required:
			notes = append(notes, lacking("<%s> needs the attribute %s: %s", s.tag, name, typeInWords(use.Type.Simple, use.Documentation)))
		}
	}
	return notes
}

// said is what the schema itself says of an attribute's value.
func said(use *xsd.AttributeUse) string {
	switch {
	case use == nil:
		return ""
	case use.Fixed != nil:
		return *use.Fixed
	case use.Default != nil:
		return *use.Default
	case use.Type != nil && use.Type.Simple != nil && len(use.Type.Simple.Enumeration) == 1:
		return use.Type.Simple.Enumeration[0]
	}
	return ""
}

// attributes adds those that an element must have, and returns comments on those
// that nothing is known for.
func (d *drafter) attributes(s *sketch, t *xsd.Type, in here, root bool) []*sketch {
	var notes []*sketch
	name := in.path[len(in.path)-1]
	for _, use := range t.Attributes {
		local := use.Name.Local
		value := literal(said(use))
		if word := d.rootWord(local); root && word != "" && (use.Fixed == nil) && (use.Required || local == "test") {
			value = word
		}
		if file := fileWord(in.scope.file, fold(local)); value == "" && file != "" {
			s.set(d.prefixes.tag(use.Name), "{"+file+"}")
			continue
		}
		if !use.Required && (!root || local != "test") {
			continue
		}
		switch {
		case value != "":
		case name == "formulardaten" && local == "formular":
			value = literal(d.formName())
		case name == "formulardaten" && local == "formularversion":
			value = "1.0.0"
		default:
			at := in
			at.path = append(slices.Clip(in.path), fold(local))
			if m, expr, ok := at.forText(local, use.Type.Simple, standing{}); ok && !root && m.kind != kindList {
				value, s.fields = "{"+expr+"}", append(s.fields, m.field)
			}
		}
		if value == "" {
			notes = append(notes, lacking("<%s> needs the attribute %s: %s", s.tag, local, typeInWords(use.Type.Simple, use.Documentation)))
			continue
		}
		s.set(d.prefixes.tag(use.Name), value)
	}
	return notes
}

// typeInWords says what a value must be like: type, facets, and the beginning of
// what the standard says of it.
func typeInWords(to *xsd.Simple, documentation string) string {
	var out []string
	add := func(text string, args ...any) { out = append(out, fmt.Sprintf(text, args...)) }
	if to == nil {
		return "a text"
	}
	switch {
	case to.Name.Local != "" && to.Name.Local != to.Builtin:
		add("%s (%s)", to.Name.Local, to.Builtin)
	default:
		add("%s", to.Builtin)
	}
	for _, f := range []struct {
		text string
		n    int
	}{{"%d characters", to.Length}, {"at least %d characters", to.MinLength}, {"at most %d characters", to.MaxLength}, {"at most %d digits", to.TotalDigits}, {"%d decimals", to.FractionDigits}} {
		if f.n > 0 || f.n == 0 && strings.Contains(f.text, "decimals") {
			add(f.text, f.n)
		}
	}
	for _, f := range []struct {
		text string
		v    *string
	}{{"from %s", to.MinInclusive}, {"above %s", to.MinExclusive}, {"to %s", to.MaxInclusive}, {"below %s", to.MaxExclusive}} {
		if f.v != nil {
			add(f.text, *f.v)
		}
	}
	if len(to.Enumeration) > 0 {
		add("one of %s", clipped(strings.Join(to.Enumeration, ", "), 100))
	}
	for _, group := range to.Patterns {
		add("pattern %s", clipped(strings.Join(group, " or "), 60))
	}
	if documentation != "" {
		add("\"%s\"", clipped(documentation, 120))
	}
	return strings.Join(out, ", ")
}

func clipped(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}
