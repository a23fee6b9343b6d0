package xsd

import "encoding/binary"

// keyScope is an open element with identity constraints.
type keyScope struct {
	depth   int // of its frame
	elem    *Element
	tables  []map[string]struct{} // by constraint
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
				for p := range paths {
					if v.leads(&paths[p], t.depth, depth) {
						v.openField(f, &t.fields[i], &paths[p], depth)
					}
				}
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

func (v *validator) openField(f *frame, field *keyField, p *xpath, depth int) {
	if p.attribute == nil {
		if field.found || field.open > 0 {
			v.complain(f, f.at, FieldAmbiguous, "a field of an identity constraint stands a second time")
			return
		}
		// Depth 0 is the root, which can be no field's element but of itself.
		field.open = depth + 1
		return
	}
	for _, u := range f.typ.Attributes {
		if !p.attribute.matches(u.symbol, v.schema.names.spaces[u.Name.Space]) {
			continue
		}
		value := []byte(nil)
		for i := range v.scan.attrs {
			if a := &v.scan.attrs[i]; string(a.local) == u.Name.Local && string(a.uri) == u.Name.Space {
				value = a.value
				if value == nil {
					value = []byte{}
				}
			}
		}
		if value == nil && u.Fixed != nil {
			value = []byte(*u.Fixed)
		} else if value == nil && u.Default != nil {
			value = []byte(*u.Default)
		}
		if value == nil {
			continue
		}
		if field.found {
			v.complain(f, f.at, FieldAmbiguous, "a field of an identity constraint stands a second time")
		}
		v.setField(field, u.Type.Simple, value)
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
					v.closeField(f, field)
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

func (v *validator) closeField(f *frame, field *keyField) {
	field.open = 0
	if f.typ == nil || f.nilled {
		return
	}
	if !f.typ.Kind.HasText() {
		v.complain(f, f.at, FieldAmbiguous, "a field of an identity constraint has no simple type")
		return
	}
	v.setField(field, f.typ.Simple, f.value)
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
		for i, other := range s.elem.constraints {
			if other != k.refer {
				continue
			}
			if _, ok := s.tables[i][r.key]; !ok && len(v.problems) < v.limit {
				v.problems = append(v.problems, problem{code: KeyrefUnknown, element: r.target.at, at: r.target.at, text: "the reference " + k.name.Local + " names no value of " + other.name.Local})
			}
		}
	}
}
