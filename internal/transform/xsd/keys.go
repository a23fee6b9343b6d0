package xsd

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// keyScope is an open element with identity constraints.
type keyScope struct {
	depth   int // of its frame
	elem    *Element
	tables  []map[string]struct{}               // by constraint
	inner   map[*constraint]map[string]struct{} // of elements within, for references from here
	refs    []keyRef
	targets []*keyTarget
}

type keyRef struct {
	constraint int
	key        string
	target     *keyTarget
}

// keyTarget is an element that a selector has found.
type keyTarget struct {
	constraint int
	depth      int
	at         int
	fields     []keyField
}

type keyField struct {
	found bool
	open  int // the depth of the frame whose text it is, 0 for none
	key   []byte
}

// openKeys looks for constraints, selected elements and fields in an element.
func (v *validator) openKeys(f *frame) {
	depth := len(v.frames) - 1
	if f.elem != nil && f.elem.constraints != nil {
		s := &keyScope{depth: depth, elem: f.elem}
		for range f.elem.constraints {
			s.tables = append(s.tables, map[string]struct{}{})
		}
		v.scopes = append(v.scopes, s)
	}
	for _, s := range v.scopes {
		for i, k := range s.elem.constraints {
			for p := range k.selector {
				if v.leads(&k.selector[p], s.depth, depth) {
					s.targets = append(s.targets, &keyTarget{constraint: i, depth: depth, at: f.at, fields: make([]keyField, len(k.fields))})
					break
				}
			}
		}
		for _, t := range s.targets {
			for i, paths := range s.elem.constraints[t.constraint].fields {
				v.openField(f, t, &t.fields[i], paths)
			}
		}
	}
}

// leads says whether a path leads from one open element to another.
func (v *validator) leads(p *xpath, from, to int) bool {
	n := len(p.steps)
	if to-from < n || !p.anywhere && to-from != n || p.anywhere && n == 0 {
		return p.anywhere && n == 0
	}
	for i := range p.steps {
		f := &v.frames[to-n+1+i]
		if !p.steps[i].matches(f.symbol, f.space) {
			return false
		}
	}
	return true
}

// openField looks at whether an element, or an attribute of it, is a target's
// field. A node that several paths lead to is one node.
func (v *validator) openField(f *frame, t *keyTarget, field *keyField, paths []xpath) {
	depth := len(v.frames) - 1
	var tests []*step
	for p := range paths {
		if !v.leads(&paths[p], t.depth, depth) {
			continue
		}
		if at := paths[p].attribute; at != nil {
			tests = append(tests, at)
			continue
		}
		// Depth 0 is the root, which can be no field's element but of itself.
		if field.open != depth+1 {
			v.second(f, field)
			field.open = depth + 1
		}
	}
	if tests == nil {
		return
	}
	wanted := func(symbol, space int32) bool {
		return slices.ContainsFunc(tests, func(s *step) bool { return s.matches(symbol, space) })
	}
	for i := range v.scan.attrs {
		a := &v.scan.attrs[i]
		if symbol := v.schema.names.symbol(a.space, a.local); wanted(symbol, a.space) {
			v.second(f, field)
			v.attributeField(f, field, a, symbol)
		}
	}
	for _, u := range f.typ.Attributes {
		if value := u.value(); value != nil && wanted(u.symbol, v.schema.names.spaces[u.Name.Space]) && !v.has(u) {
			v.second(f, field)
			v.setField(field, u.Type.Simple, []byte(*value))
		}
	}
}

// second complains about a field that has a node already.
func (v *validator) second(f *frame, field *keyField) {
	if field.found || field.open > 0 {
		v.complain(f, f.at, FieldAmbiguous, "a field of an identity constraint stands a second time")
	}
}

func (v *validator) attributeField(f *frame, field *keyField, a *attr, symbol int32) {
	var d *Attribute
	if symbol >= 0 {
		if u := f.typ.use(symbol); u != nil {
			d = u.Attribute
		} else if w := f.typ.AnyAttribute; w != nil && w.Process != Skip {
			d = v.schema.globals[symbol]
		}
	}
	switch {
	case d != nil:
		v.setField(field, d.Type.Simple, a.value)
	case a.space == v.schema.names.xsi:
		field.found, field.key = true, bytes.Clone(a.value)
	default:
		v.complain(f, a.at, FieldAmbiguous, "a field of an identity constraint has no simple type")
	}
}

func (v *validator) setField(field *keyField, s *Simple, value []byte) {
	v.values.scratch = v.values.scratch[:0]
	b := v.values.space(value, s.WhiteSpace)
	if ids := v.values.ids; ids != nil {
		v.values.ids = nil // it was counted before
		defer func() { v.values.ids = ids }()
	}
	if v.values.checkSpaced(s, b) != "" {
		return // said already
	}
	field.found, field.key = true, v.values.canonical(nil, s, b)
}

// closeKeys takes the text of fields and the keys of selected elements.
func (v *validator) closeKeys(f *frame) {
	depth := len(v.frames) - 1
	for _, s := range v.scopes {
		kept := s.targets[:0]
		for _, t := range s.targets {
			for i := range t.fields {
				if field := &t.fields[i]; field.open == depth+1 {
					v.closeField(f, field, s.elem.constraints[t.constraint])
				}
			}
			if t.depth == depth {
				v.closeTarget(f, s, t)
				continue
			}
			kept = append(kept, t)
		}
		s.targets = kept
	}
	if n := len(v.scopes); v.scopes[n-1].depth == depth {
		v.closeScope(v.scopes[n-1])
		v.scopes = v.scopes[:n-1]
	}
}

func (v *validator) closeField(f *frame, field *keyField, k *constraint) {
	field.open = 0
	switch {
	case f.typ == nil:
	case !f.typ.Kind.HasText():
		v.complain(f, f.at, FieldAmbiguous, "a field of an identity constraint has no simple type")
	case k.kind == constraintKey && f.elem != nil && f.elem.Nillable:
		v.complain(f, f.at, KeyIncomplete, "a field of the key "+k.name.Local+" is an element that may be nil")
		field.found = true
	case !f.nilled:
		v.setField(field, f.typ.Simple, f.value)
	}
}

func (v *validator) closeTarget(f *frame, s *keyScope, t *keyTarget) {
	k := s.elem.constraints[t.constraint]
	var key []byte
	for i := range t.fields {
		if !t.fields[i].found {
			if k.kind == constraintKey {
				v.complain(f, f.at, KeyIncomplete, "a field of the key "+k.name.Local+" is missing")
			}
			return
		}
		key = binary.AppendUvarint(key, uint64(len(t.fields[i].key)))
		key = append(key, t.fields[i].key...)
	}
	if k.kind == constraintKeyref {
		s.refs = append(s.refs, keyRef{t.constraint, string(key), t})
		return
	}
	if _, twice := s.tables[t.constraint][string(key)]; twice {
		v.complain(f, f.at, KeyTwice, "the value of "+k.name.Local+" stands a second time")
	}
	s.tables[t.constraint][string(key)] = struct{}{}
}

func (v *validator) closeScope(s *keyScope) {
	for _, r := range s.refs {
		k := s.elem.constraints[r.constraint]
		_, ok := s.inner[k.refer][r.key]
		if i := slices.Index(s.elem.constraints, k.refer); i >= 0 && !ok {
			_, ok = s.tables[i][r.key]
		}
		if !ok && len(v.problems) < v.limit {
			v.problems = append(v.problems, problem{code: KeyrefUnknown, element: r.target.at, at: r.target.at, text: "the reference " + k.name.Local + " names no value of " + k.refer.name.Local})
		}
	}
	if len(v.scopes) < 2 {
		return
	}
	// What elements within know is known in those around them (part 1, 3.11.5).
	outer := v.scopes[len(v.scopes)-2]
	for i, k := range s.elem.constraints {
		if k.abroad {
			outer.learn(k, s.tables[i])
		}
	}
	for k, table := range s.inner {
		outer.learn(k, table)
	}
}

func (s *keyScope) learn(k *constraint, keys map[string]struct{}) {
	if s.inner == nil {
		s.inner = map[*constraint]map[string]struct{}{}
	}
	if s.inner[k] == nil {
		s.inner[k] = map[string]struct{}{}
	}
	for key := range keys {
		s.inner[k][key] = struct{}{}
	}
}
