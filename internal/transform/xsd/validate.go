package xsd

import "slices"

// Options say how a document is validated. The zero Options take the defaults.
type Options struct {
	Limits
	// MaxErrors is how many errors are reported before the rest of the document is
	// left unread; default 10.
	MaxErrors int
	// Root is what the root element must be; "" takes every global element.
	Root Name
}

// Validate checks a document, which it neither changes nor keeps. No error means
// that it is well-formed and valid. It is safe for concurrent use.
func (s *Schema) Validate(doc []byte, o Options) []Error {
	v, _ := s.pool.Get().(*validator)
	if v == nil {
		v = newValidator(s)
	}
	v.run(doc, o)
	var out []Error
	if len(v.problems) > 0 {
		out = v.locate()
	}
	v.release()
	return out
}

// validator checks one document after another.
type validator struct {
	schema   *Schema
	scan     scanner
	values   checker
	ids      idTable
	frames   []frame
	text     []byte // of the innermost element with text, where it came in pieces
	problems []problem
	limit    int
	root     Name
	scopes   []*keyScope // identity constraints in force
}

// frame is one open element.
type frame struct {
	elem  *Element // nil where none is declared
	typ   *Type    // nil where nothing is checked
	state int32    // of the content model; -1 after an error
	count int32    // elements in a row, where the state counts them
	seen  uint64   // members of an xs:all

	symbol, space int32
	at            int
	value         []byte // the text, of elements that have text
	hasText       bool
	hasChild      bool
	pieces        bool // value lies in validator.text
	nilled        bool
	complained    bool // about text that may not be there
}

// problem is an error without its place in words.
type problem struct {
	code    Code
	element int // offset of the element it belongs to, -1 for none
	at      int
	attr    string
	text    string
}

func newValidator(s *Schema) *validator {
	v := &validator{schema: s}
	v.values.ids = &v.ids
	v.values.resolve = func(prefix []byte) ([]byte, bool) {
		uri, _, ok := v.scan.lookup(prefix)
		return uri, ok
	}
	return v
}

// maxKept bounds what a validator keeps for the next document.
const maxKept = 1 << 20

func (v *validator) release() {
	v.scan.doc, v.scan.text, v.scan.local, v.scan.uri = nil, nil, nil, nil
	clear(v.frames[:cap(v.frames)])
	clear(v.scan.attrs[:cap(v.scan.attrs)])
	clear(v.scan.bindings[:cap(v.scan.bindings)])
	v.problems, v.scopes = nil, nil
	if cap(v.text)+cap(v.values.scratch)+cap(v.values.key)+cap(v.scan.arena) < maxKept {
		v.schema.pool.Put(v)
	}
}

func (v *validator) run(doc []byte, o Options) {
	v.scan.begin(doc, v.schema.names, o.withDefaults())
	v.frames, v.problems, v.scopes = v.frames[:0], v.problems[:0], v.scopes[:0]
	clear(v.ids.ids)
	v.ids.refs = v.ids.refs[:0]
	if v.limit = o.MaxErrors; v.limit <= 0 {
		v.limit = 10
	}
	v.root = o.Root
	if v.scan.start() == tokenFault {
		v.fatal()
		return
	}
	for {
		switch v.scan.next() {
		case tokenOpen:
			v.open()
		case tokenClose:
			v.close()
		case tokenText:
			v.readText()
		case tokenFault:
			v.fatal()
			return
		default:
			v.references()
			return
		}
		if len(v.problems) >= v.limit {
			return
		}
	}
}

func (v *validator) fatal() {
	f := v.scan.fault
	p := problem{code: f.code, element: -1, at: f.at, text: f.text}
	if n := len(v.frames); n > 0 {
		p.element = v.frames[n-1].at
	}
	v.problems = append(v.problems, p)
}

func (v *validator) complain(f *frame, at int, code Code, text string) {
	v.problems = append(v.problems, problem{code: code, element: f.at, at: at, text: text})
}

// open checks a start tag and opens its element.
func (v *validator) open() {
	s := &v.scan
	v.frames = append(v.frames, frame{})
	f := &v.frames[len(v.frames)-1]
	f.at, f.space = s.at, s.space
	f.symbol = v.schema.names.symbol(s.space, s.local)
	wild := Strict
	if len(v.frames) == 1 {
		f.elem = v.rootElement(f)
		if f.elem == nil {
			return
		}
	} else {
		parent := &v.frames[len(v.frames)-2]
		parent.hasChild = true
		if parent.typ == nil {
			return
		}
		var known bool
		if f.elem, wild, known = v.child(parent, f); !known {
			return
		}
	}
	if f.elem != nil {
		f.typ = f.elem.Type
		if f.elem.Abstract {
			v.complain(f, f.at, ElementAbstract, "the element is abstract; one of its substitution group is expected")
			f.typ = nil
			return
		}
	}
	v.instance(f, wild)
	if f.typ == nil {
		return
	}
	if f.typ.Abstract {
		v.complain(f, f.at, TypeNotAllowed, "the element's type is abstract; xsi:type has to name one derived from it")
		f.typ = nil
		return
	}
	v.attributes(f)
	if len(v.scopes) > 0 || f.elem != nil && f.elem.constraints != nil {
		v.openKeys(f)
	}
}

func (v *validator) rootElement(f *frame) *Element {
	if f.symbol >= 0 {
		if e := v.schema.roots[f.symbol]; e != nil && (v.root == Name{} || e.Name == v.root) {
			return e
		}
	}
	text := "the root element is none that the schema declares"
	if v.root != (Name{}) {
		text = "the root element " + v.root.Local + " is expected"
	}
	v.complain(f, f.at, RootUnknown, text)
	return nil
}

// child finds the declaration of an element within its parent. known is false
// where it is not to be checked; a nil declaration is one that a lax wildcard
// lets in.
func (v *validator) child(parent, f *frame) (e *Element, p Process, known bool) {
	t := parent.typ
	switch {
	case parent.nilled:
		v.complain(f, f.at, ContentNotEmpty, "the element around it is nil and may have no content")
		return nil, Skip, false
	case t.states == nil && t.all == nil:
		text := "the element around it may have no elements in it"
		if t.Kind.HasText() {
			text = "the element around it has text only"
		}
		v.complain(f, f.at, ElementUnexpected, text)
		return nil, Skip, false
	case t.all != nil:
		return v.member(parent, f)
	case parent.state < 0:
		return v.recover(t, f)
	}
	st := &t.states[parent.state]
	if c := st.count; c != nil {
		if e, again := c.counts(f); again && (c.max == Unbounded || int(parent.count) < c.max) {
			parent.count++
			return v.let(e, c.wild, f)
		}
		if int(parent.count) < c.min {
			return v.unexpected(parent, st, f)
		}
	}
	if e := findEdge(st.next, f.symbol); e != nil && f.symbol >= 0 {
		parent.state, parent.count = e.to, 1
		return e.elem, Strict, true
	}
	for i := range st.wild {
		if w := &st.wild[i]; w.wildcard.allows(f.space) {
			parent.state, parent.count = w.to, 1
			return v.let(nil, w.wildcard, f)
		}
	}
	return v.unexpected(parent, st, f)
}

// counts says whether the element is one that the state counts.
func (c *counter) counts(f *frame) (*Element, bool) {
	if c.wild != nil {
		return nil, c.wild.allows(f.space)
	}
	if e := findEdge(c.again, f.symbol); e != nil && f.symbol >= 0 {
		return e.elem, true
	}
	return nil, false
}

// let takes an element in that e declares, or else a wildcard lets in.
func (v *validator) let(e *Element, w *Wildcard, f *frame) (*Element, Process, bool) {
	if e != nil {
		return e, Strict, true
	}
	if w.Process == Skip {
		return nil, Skip, false
	}
	if f.symbol >= 0 {
		e = v.schema.roots[f.symbol]
	}
	return e, w.Process, true
}

func (v *validator) member(parent, f *frame) (*Element, Process, bool) {
	e := findEdge(parent.typ.all.edges, f.symbol)
	if e == nil || f.symbol < 0 || parent.seen&(1<<e.to) != 0 {
		v.complain(f, f.at, ElementUnexpected, "the element is not expected here, or stands a second time")
		return v.recover(parent.typ, f)
	}
	parent.seen |= 1 << e.to
	return e.elem, Strict, true
}

func (v *validator) unexpected(parent *frame, st *state, f *frame) (*Element, Process, bool) {
	code := ElementUnexpected
	if !st.accept && len(st.next) > 0 {
		code = ElementMissing
	}
	if st.accept && f.symbol >= 0 && parent.typ.declares(f.symbol) == nil {
		code = ElementUnexpected
	}
	v.complain(f, f.at, code, "expected here: "+st.expected(int(parent.count)))
	parent.state = -1
	return v.recover(parent.typ, f)
}

// recover finds the declaration that an element out of place would have: within
// one type it follows from the name.
func (v *validator) recover(t *Type, f *frame) (*Element, Process, bool) {
	if f.symbol >= 0 {
		if e := t.declares(f.symbol); e != nil {
			return e, Strict, true
		}
	}
	return nil, Skip, false
}

func (t *Type) declares(symbol int32) *Element {
	if t.all != nil {
		if e := findEdge(t.all.edges, symbol); e != nil {
			return e.elem
		}
	}
	for i := range t.states {
		if e := findEdge(t.states[i].next, symbol); e != nil {
			return e.elem
		}
	}
	return nil
}

// instance looks at xsi:type and xsi:nil and settles the element's type.
func (v *validator) instance(f *frame, wild Process) {
	var named *Type
	xsi := v.schema.names.xsi
	for i := range v.scan.attrs {
		a := &v.scan.attrs[i]
		if a.space != xsi {
			continue
		}
		switch string(a.local) {
		case "type":
			if named = v.namedType(f, a); named == nil {
				f.typ = nil
				return
			}
		case "nil":
			v.nilled(f, a)
		}
	}
	switch {
	case named != nil:
		if f.elem != nil && !derivedWithout(named, f.elem.Type, f.elem.block&^bySubstitution) {
			v.complain(f, f.at, TypeNotAllowed, "xsi:type names a type that is not derived from that of the element")
			f.typ = nil
			return
		}
		f.typ = named
	case f.elem == nil && wild == Strict:
		v.complain(f, f.at, ElementUndeclared, "the schema does not declare the element, which it has to here")
	case f.elem == nil:
		f.typ = anyType
	}
}

func (v *validator) namedType(f *frame, a *attr) *Type {
	uri, local, ok := v.values.qname(trimSpace(a.value))
	var t *Type
	if ok {
		t = v.schema.Type(Name{string(uri), string(local)})
	}
	if t == nil {
		v.complain(f, a.at, TypeUnknown, "xsi:type names no type that the schema declares")
	}
	return t
}

func (v *validator) nilled(f *frame, a *attr) {
	value := string(trimSpace(a.value))
	if !v.values.lexical(kindBoolean, []byte(value)) {
		v.complain(f, a.at, ValueInvalid, "xsi:nil is neither true nor false")
		return
	}
	if f.elem == nil {
		return
	}
	if !f.elem.Nillable {
		v.complain(f, a.at, NilNotAllowed, "the element may not be nil")
		return
	}
	f.nilled = value == "true" || value == "1"
	if f.nilled && f.elem.Fixed != nil {
		v.complain(f, a.at, NilNotAllowed, "the element has a fixed value and may not be nil")
	}
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// attributes checks the attributes of the start tag read last.
func (v *validator) attributes(f *frame) {
	t, required := f.typ, 0
	for i := range v.scan.attrs {
		a := &v.scan.attrs[i]
		if a.space == v.schema.names.xsi {
			switch string(a.local) {
			case "type", "nil", "schemaLocation", "noNamespaceSchemaLocation":
				continue
			}
		}
		symbol := v.schema.names.symbol(a.space, a.local)
		var u *AttributeUse
		if symbol >= 0 {
			u = t.use(symbol)
		}
		switch {
		case u != nil:
			if u.Required {
				required++
			}
			v.attribute(f, a, u.Attribute, u.Fixed, u.fixed)
		case t.Kind == SimpleType:
			v.complain(f, a.at, AttributeUnexpected, "the element has a simple type and no attributes")
		case t.AnyAttribute == nil || !t.AnyAttribute.allows(a.space):
			v.complain(f, a.at, AttributeUnexpected, "the attribute is none that the type "+t.called()+"has")
		default:
			v.wildAttribute(f, a, symbol, t.AnyAttribute.Process)
		}
	}
	if required < t.required {
		v.missingAttributes(f)
	}
	for _, u := range t.implied {
		v.impliedID(f, u)
	}
}

// impliedID takes an ID, or a reference to one, that stands in the schema as the
// value of an attribute which the document leaves out.
func (v *validator) impliedID(f *frame, u *AttributeUse) {
	if v.has(u) {
		return
	}
	v.ids.at = f.at
	v.values.scratch = v.values.scratch[:0]
	s := u.Type.Simple
	if code := v.values.checkSpaced(s, v.values.space([]byte(*u.value()), s.WhiteSpace)); code != "" {
		v.complain(f, f.at, code, s.wants(code))
	}
}

func (v *validator) has(u *AttributeUse) bool {
	return slices.ContainsFunc(v.scan.attrs, func(a attr) bool { return v.schema.names.symbol(a.space, a.local) == u.symbol })
}

// value is what the attribute is taken to say where it is missing.
func (u *AttributeUse) value() *string {
	if u.Fixed != nil {
		return u.Fixed
	}
	return u.Default
}

func (v *validator) wildAttribute(f *frame, a *attr, symbol int32, p Process) {
	if p == Skip {
		return
	}
	if symbol >= 0 {
		if g := v.schema.globals[symbol]; g != nil {
			if g.Type.Simple.id == isID && v.secondID(f, a) {
				v.complain(f, a.at, AttributeUnexpected, "the element has an attribute of type ID already")
			}
			v.attribute(f, a, g, g.Fixed, g.fixed)
			return
		}
	}
	if p == Strict {
		v.complain(f, a.at, AttributeUnexpected, "the schema does not declare the attribute, which it has to here")
	}
}

// secondID says whether an element whose attribute a is let in by a wildcard and
// is an ID has, or could have, another one (part 1, 3.4.4, rule 5).
func (v *validator) secondID(f *frame, a *attr) bool {
	if slices.ContainsFunc(f.typ.Attributes, func(u *AttributeUse) bool { return u.Type.Simple.id == isID }) {
		return true
	}
	for i := range v.scan.attrs {
		b := &v.scan.attrs[i]
		if b.at == a.at {
			return false
		}
		if symbol := v.schema.names.symbol(b.space, b.local); symbol >= 0 {
			if g := v.schema.globals[symbol]; g != nil && g.Type.Simple.id == isID {
				return true
			}
		}
	}
	return false
}

func (v *validator) attribute(f *frame, a *attr, d *Attribute, fixed *string, canonical []byte) {
	s := d.Type.Simple
	v.ids.at = a.at
	v.values.scratch = v.values.scratch[:0]
	b := v.values.space(a.value, s.WhiteSpace)
	code := v.values.checkSpaced(s, b)
	text := ""
	switch {
	case code != "":
		text = s.wants(code)
	case fixed != nil && !v.same(s, b, canonical):
		code, text = FixedValue, "the fixed value of the schema is expected"
	default:
		return
	}
	v.problems = append(v.problems, problem{code: code, element: f.at, at: a.at, attr: d.Name.Local, text: text})
}

// same says whether a valid value is the one whose canonical form is given.
func (v *validator) same(s *Simple, b, canonical []byte) bool {
	v.values.key = v.values.canonical(v.values.key[:0], s, b)
	return string(v.values.key) == string(canonical)
}

func (v *validator) missingAttributes(f *frame) {
	for _, u := range f.typ.Attributes {
		if !u.Required {
			continue
		}
		if !v.has(u) {
			v.complain(f, f.at, AttributeMissing, "the attribute "+u.Name.Local+" is missing")
		}
	}
}

// readText takes a run of text to the element it stands in.
func (v *validator) readText() {
	f := &v.frames[len(v.frames)-1]
	if f.typ == nil || len(v.scan.text) == 0 {
		return
	}
	switch {
	case f.nilled:
	case f.typ.Kind.HasText() || f.typ.Kind == MixedContent && f.elem != nil && f.elem.Fixed != nil:
		v.collect(f)
		return
	case f.typ.Kind == MixedContent, f.typ.Kind == ElementContent && isBlank(v.scan.text):
		return
	}
	if f.complained {
		return
	}
	f.complained = true
	text := "the element has elements in it and no text"
	if f.nilled || f.typ.Kind == EmptyContent {
		text = "the element has no content"
	}
	v.complain(f, v.scan.at, TextUnexpected, text)
}

func (v *validator) collect(f *frame) {
	if !f.hasText && !v.scan.volatile {
		f.hasText, f.value = true, v.scan.text
		return
	}
	if !f.pieces {
		f.pieces = true
		v.text = append(v.text[:0], f.value...)
	}
	f.hasText = true
	v.text = append(v.text, v.scan.text...)
}

// close checks what is known of an element at its end only.
func (v *validator) close() {
	f := &v.frames[len(v.frames)-1]
	if t := f.typ; t != nil {
		if f.pieces {
			f.value = v.text
		}
		switch {
		case f.nilled:
		case t.Kind.HasText():
			v.closeText(f)
		case t.states != nil && f.state >= 0:
			st := &t.states[f.state]
			if !st.accept || st.count != nil && int(f.count) < st.count.min {
				v.complain(f, v.scan.at, ElementMissing, "missing at the end: "+st.expected(int(f.count)))
			}
		case t.all != nil:
			v.closeAll(f)
		}
		if t.Kind == MixedContent && f.elem != nil && f.elem.Fixed != nil && !f.nilled && (f.hasText || f.hasChild) && (f.hasChild || string(f.value) != *f.elem.Fixed) {
			v.complain(f, f.at, FixedValue, "the fixed value of the schema is expected")
		}
	}
	if len(v.scopes) > 0 {
		v.closeKeys(f)
	}
	v.frames = v.frames[:len(v.frames)-1]
}

// closeText checks the value of an element that has text.
func (v *validator) closeText(f *frame) {
	s := f.typ.Simple
	if len(f.value) == 0 && !f.hasChild && f.elem != nil {
		if d := f.elem.value(); d != nil {
			f.value = []byte(*d)
			if f.typ == f.elem.Type && !s.identifies() {
				return // the schema would not have compiled
			}
		}
	}
	v.ids.at = f.at
	v.values.scratch = v.values.scratch[:0]
	b := v.values.space(f.value, s.WhiteSpace)
	if code := v.values.checkSpaced(s, b); code != "" {
		if !f.hasChild {
			v.complain(f, f.at, code, s.wants(code))
		}
		return
	}
	if f.elem != nil && f.elem.Fixed != nil && !v.same(s, b, f.elem.fixed) {
		v.complain(f, f.at, FixedValue, "the fixed value of the schema is expected")
	}
}

// value is what an empty element stands for.
func (e *Element) value() *string {
	if e.Fixed != nil {
		return e.Fixed
	}
	return e.Default
}

func (v *validator) closeAll(f *frame) {
	g := f.typ.all
	if g.optional && f.seen == 0 {
		return
	}
	for i, e := range g.members {
		if g.required&^f.seen&(1<<i) != 0 {
			v.complain(f, v.scan.at, ElementMissing, "missing at the end: "+e.Name.Local)
		}
	}
}

// references checks the document's IDREFs.
func (v *validator) references() {
	for _, r := range v.ids.refs {
		if _, ok := v.ids.ids[r.id]; !ok && len(v.problems) < v.limit {
			v.problems = append(v.problems, problem{code: IDREFUnknown, element: -1, at: r.at, text: "the reference names no ID of the document"})
		}
	}
}
