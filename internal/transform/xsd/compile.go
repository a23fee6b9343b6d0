package xsd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// Resolve finds the file that a schema names in schemaLocation; false where
// there is none. It must not reach beyond the file system given to Compile.
type Resolve func(from, location string) (file string, ok bool)

// Compile compiles the schema that entries and what they include and import make
// up. An error is a *CompileError, except where a file cannot be read.
func Compile(fsys fs.FS, entries []string, resolve Resolve) (*Schema, error) {
	c := newCompiler(fsys, resolve)
	for _, e := range entries {
		if err := c.load(e, false, "", Position{File: e}); err != nil {
			return nil, err
		}
	}
	s, err := c.compile()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		target := ""
		if t := c.targets[e]; t != nil {
			target = *t
		}
		if !slices.Contains(s.targets, target) {
			s.targets = append(s.targets, target)
		}
	}
	return s, nil
}

func newCompiler(fsys fs.FS, resolve Resolve) *compiler {
	return &compiler{
		fsys: fsys, resolve: resolve, names: newNames(),
		globals: map[globalKey]*node{}, originals: map[*node]*node{}, targets: map[string]*string{}, loaded: map[loadKey]bool{}, contents: map[string][]byte{},
		elements: map[*node]*Element{}, types: map[*node]*Type{}, declaredAttributes: map[*node]*Attribute{}, nodes: map[*Type]*node{},
		progress: map[*node]progress{}, patterns: map[string]*pattern{}, budget: newPatternBudget(), keys: map[Name]*constraint{},
	}
}

type compiler struct {
	fsys      fs.FS
	resolve   Resolve
	names     *names
	targets   map[string]*string // target namespaces by file, nil for none
	loaded    map[loadKey]bool
	contents  map[string][]byte // by namespace and name of the file, to know copies
	order     []*node           // global components as they come
	originals map[*node]*node   // what components of an xs:redefine replace
	globals   map[globalKey]*node

	elements           map[*node]*Element
	types              map[*node]*Type
	declaredAttributes map[*node]*Attribute
	nodes              map[*Type]*node // of complex types
	progress           map[*node]progress
	pending            []*node // complex types to complete
	declared           []*Element
	patterns           map[string]*pattern
	keys               map[Name]*constraint
	budget             *patternBudget
	effort             int // steps taken
	read               int // elements of schema documents
	nesting            int
}

type loadKey struct{ file, target string }

type globalKey struct {
	kind string
	name Name
}

type progress uint8

const (
	untouched progress = iota
	underway
	done
)

// load reads a schema document and what it refers to. An included one without a
// namespace takes that of the including one.
func (c *compiler) load(file string, include bool, target string, from Position) error {
	own, known := c.targets[file]
	var root *node
	var raw []byte
	if !known {
		var err error
		if raw, err = fs.ReadFile(c.fsys, file); err != nil {
			return &CompileError{from.File, from.Line, fmt.Sprintf("the schema %s is missing", file)}
		}
		if root, err = parseNodes(file, raw); err != nil {
			return err
		}
		if root.tag() != "schema" {
			return &CompileError{file, root.line, "it is no XML schema"}
		}
		if v, has := root.lookup("targetNamespace"); has {
			own = &v
		}
		c.targets[file] = own
	}
	d := &document{file: file}
	switch {
	case own == nil && include:
		d.target, d.chameleon = target, target != ""
	case own == nil && target != "" || own != nil && *own != target && (include || from.Line > 0):
		return &CompileError{from.File, from.Line, fmt.Sprintf("the schema %s has another target namespace", file)}
	case own != nil:
		d.target = *own
	}
	key := loadKey{file, d.target}
	if c.loaded[key] {
		return nil
	}
	c.loaded[key] = true
	if root == nil { // the same file for a second namespace
		var err error
		if raw, err = fs.ReadFile(c.fsys, file); err != nil {
			return err
		}
		if root, err = parseNodes(file, raw); err != nil {
			return err
		}
	}
	d.root = root
	root.adopt(d)
	if c.read += root.size(); c.read > maxNodes {
		return root.fail("the schema is too large: it has too many elements")
	}
	if c.copied(d, raw) {
		return nil
	}
	if err := root.structure(""); err != nil {
		return err
	}
	if err := c.readHeader(d); err != nil {
		return err
	}
	for _, k := range root.kids {
		if err := c.top(k, d); err != nil {
			return err
		}
	}
	return nil
}

// copied says whether the same schema was loaded from another file: packages
// carry copies of xml.xsd.
func (c *compiler) copied(d *document, raw []byte) bool {
	key := d.target + " " + strconv.Itoa(len(raw))
	if before, ok := c.contents[key]; ok && bytes.Equal(before, raw) {
		return true
	}
	c.contents[key] = raw
	return false
}

func (c *compiler) readHeader(d *document) error {
	var err error
	root := d.root
	if err = root.allow("targetNamespace", "version", "elementFormDefault", "attributeFormDefault", "blockDefault", "finalDefault"); err != nil {
		return err
	}
	if d.qualified, err = qualified(root, "elementFormDefault", false); err != nil {
		return err
	}
	if d.qualifiedAttributes, err = qualified(root, "attributeFormDefault", false); err != nil {
		return err
	}
	if d.block, err = derivations(root, "blockDefault", 0); err != nil {
		return err
	}
	d.final, err = derivations(root, "finalDefault", 0)
	return err
}

func (c *compiler) top(k *node, d *document) error {
	tag := k.tag()
	switch tag {
	case "annotation":
		return nil
	case "include", "import":
		return c.reference(k, d, tag == "include")
	case "redefine":
		return c.redefine(k, d)
	case "notation":
		return nil // it says something of the type NOTATION only, which is not supported
	case "element", "attribute", "group", "attributeGroup", "simpleType", "complexType":
	default:
		return k.fail("<%s> is not supported here", k.name.Local)
	}
	key, err := k.key()
	if err != nil {
		return err
	}
	if other := c.globals[key]; other != nil {
		return k.fail("%s %s is declared a second time, first at %s:%d", key.kind, key.name.Local, other.doc.file, other.line)
	}
	k.global = true
	c.globals[key] = k
	c.order = append(c.order, k)
	return nil
}

// key is what a global component is known by.
func (n *node) key() (globalKey, error) {
	name, kind := n.attr("name"), n.tag()
	if !isNCName([]byte(name)) {
		return globalKey{}, n.fail("a %s has no name, or none that can be one", kind)
	}
	if kind == "simpleType" || kind == "complexType" {
		kind = "type"
	}
	return globalKey{kind, Name{n.doc.target, name}}, nil
}

// redefine includes a schema and puts components in the place of its own (part 1,
// 4.2.2). What they say of themselves means the component they replace.
func (c *compiler) redefine(r *node, d *document) error {
	if err := c.reference(r, d, true); err != nil {
		return err
	}
	for _, k := range r.kids {
		if k.tag() == "annotation" {
			continue
		}
		key, err := k.key()
		if err != nil {
			return err
		}
		file, _ := c.resolve(d.file, r.attr("schemaLocation"))
		original := c.globals[key]
		switch {
		case original == nil || original.tag() != k.tag():
			return k.fail("%s %s is not declared by the schema that is redefined", key.kind, key.name.Local)
		case original.within != nil && original.doc.file != file:
			return k.fail("%s %s is redefined in two places, which is not supported", key.kind, key.name.Local)
		case key.kind == "type" && k.derivedFrom() != key.name:
			return k.fail("a type that redefines another is derived from it")
		}
		k.global = true
		k.mark(k)
		c.globals[key], c.originals[k] = k, original
		c.order[slices.Index(c.order, original)] = k
	}
	return nil
}

// derivedFrom is the base that a type names, or no name.
func (n *node) derivedFrom() Name {
	for _, tag := range []string{"simpleContent", "complexContent", "restriction", "extension"} {
		if inner := n.child(tag); inner != nil {
			n = inner
		}
	}
	base, _ := n.qname(n.attr("base"))
	return base
}

func (c *compiler) reference(k *node, d *document, include bool) error {
	if err := k.allow("schemaLocation", "namespace"); err != nil {
		return err
	}
	location := k.attr("schemaLocation")
	if location == "" {
		if include {
			return k.fail("an include names no file")
		}
		return nil // what it declares must come from elsewhere; else a reference to it fails
	}
	file, ok := c.resolve(d.file, location)
	if !ok {
		return k.fail("the schema refers to %s, which the standard's folder does not have", location)
	}
	target := d.target
	if !include {
		target = k.attr("namespace")
	}
	return c.load(file, include, target, k.position())
}

func (c *compiler) compile() (*Schema, error) {
	s := &Schema{names: c.names, elements: map[Name]*Element{}, types: map[Name]*Type{}, attrs: map[Name]*Attribute{}}
	for _, n := range c.order {
		name := Name{n.doc.target, n.attr("name")}
		var err error
		switch n.tag() {
		case "element":
			s.elements[name], err = c.element(n, true)
		case "attribute":
			s.attrs[name], err = c.attribute(n, true)
		case "simpleType", "complexType":
			s.types[name], err = c.typeOf(n)
		case "group":
			_, err = c.group(n, 0)
		case "attributeGroup":
			err = c.attributeGroup(n, &attributeSet{c: c}, 0)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	if err := c.substitute(); err != nil {
		return nil, err
	}
	if err := c.finish(); err != nil {
		return nil, err
	}
	c.names.seal()
	s.roots = make([]*Element, len(c.names.list))
	s.globals = make([]*Attribute, len(c.names.list))
	for _, e := range s.elements {
		s.roots[e.symbol] = e
	}
	for _, a := range s.attrs {
		s.globals[a.symbol] = a
	}
	return s, nil
}

// complete completes the complex types that were met.
func (c *compiler) complete() error {
	for len(c.pending) > 0 {
		n := c.pending[len(c.pending)-1]
		c.pending = c.pending[:len(c.pending)-1]
		if err := c.completeType(n); err != nil {
			return err
		}
	}
	return nil
}

// substitute finds what may stand for each head of a substitution group.
func (c *compiler) substitute() error {
	for _, e := range c.declared {
		if !e.Abstract {
			e.Substitutes = append(e.Substitutes, e)
		}
		seen := 0
		for head := e.head; head != nil; head = head.head {
			if seen++; seen > len(c.declared) {
				return &CompileError{e.Position.File, e.Position.Line, "the substitution group is circular"}
			}
			if !e.Abstract && head.block&bySubstitution == 0 && derivedWithout(e.Type, head.Type, head.block) {
				head.Substitutes = append(head.Substitutes, e)
			}
		}
	}
	return nil
}

// derivedWithout says whether t is base or derived from it by no method that is
// blocked, by the set or by a type on the way.
func derivedWithout(t, base *Type, blocked derivationSet) bool {
	blocked |= base.block
	for ; t != nil; t = t.Base {
		if t == base || base.hasMember(t) {
			return true
		}
		method := byRestriction
		if t.Extends {
			method = byExtension
		}
		if blocked&method != 0 {
			return false
		}
	}
	return false
}

// finish does what needs all types complete.
func (c *compiler) finish() error {
	for n, t := range c.types {
		if t.Kind.HasText() || t.states != nil || t.all != nil {
			continue
		}
		if err := c.automaton(n, t); err != nil {
			return err
		}
	}
	for n, e := range c.elements {
		if err := c.finishElement(n, e); err != nil {
			return err
		}
	}
	return c.finishConstraints()
}

func (c *compiler) finishElement(n *node, e *Element) error {
	if e.head != nil && !e.Type.DerivedFrom(e.head.Type) {
		return n.fail("its type is not derived from that of the head of its substitution group")
	}
	value := e.Fixed
	if value == nil {
		value = e.Default
	}
	if value == nil {
		return nil
	}
	canonical := []byte(*value)
	switch {
	case e.Type.Kind.HasText():
		var err error
		if canonical, err = c.canonical(n, e.Type.Simple, *value); err != nil {
			return err
		}
	case e.Type.Kind != MixedContent:
		return n.fail("a fixed or default value needs a type with text")
	}
	if e.Fixed != nil {
		e.fixed = canonical
	}
	return nil
}

// canonical checks a value that the schema writes and returns its canonical form.
func (c *compiler) canonical(n *node, s *Simple, value string) ([]byte, error) {
	ch := checker{resolve: n.prefix}
	b := ch.space([]byte(value), s.WhiteSpace)
	if code := ch.checkSpaced(s, b); code != "" {
		return nil, n.fail("the value %q is not of its type", value)
	}
	return ch.canonical([]byte{}, s, b), nil
}

// prefix resolves a prefix where n stands.
func (n *node) prefix(prefix []byte) ([]byte, bool) {
	for s := n.scopes; s != nil; s = s.outer {
		if s.prefix == string(prefix) {
			return []byte(s.uri), true
		}
	}
	return nil, len(prefix) == 0
}

// allow refuses attributes without namespace that are not named.
func (n *node) allow(names ...string) error {
	for _, a := range n.attrs {
		if a.name.Space == "" && a.name.Local != "id" && !slices.Contains(names, a.name.Local) {
			return n.fail("<%s> has the attribute %s, which is not supported", n.name.Local, a.name.Local)
		}
		if a.name.Space == schemaNamespace {
			return n.fail("<%s> has the attribute %s, which is not supported", n.name.Local, a.name.Local)
		}
	}
	return nil
}

func qualified(n *node, name string, def bool) (bool, error) {
	switch v := n.attr(name); v {
	case "":
		return def, nil
	case "qualified":
		return true, nil
	case "unqualified":
		return false, nil
	}
	return false, n.fail("%s is neither qualified nor unqualified", name)
}

func (n *node) boolean(name string) (bool, error) {
	switch n.attr(name) {
	case "":
		return false, nil
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, n.fail("%s is neither true nor false", name)
}

// derivationSet holds ways of derivation.
type derivationSet uint8

const (
	byExtension derivationSet = 1 << iota
	byRestriction
	bySubstitution
	byList
	byUnion
)

func derivations(n *node, name string, def derivationSet) (derivationSet, error) {
	v, ok := n.lookup(name)
	if !ok {
		return def, nil
	}
	var out derivationSet
	for _, word := range strings.Fields(v) {
		switch word {
		case "#all":
			out = 0xFF
		case "extension":
			out |= byExtension
		case "restriction":
			out |= byRestriction
		case "substitution":
			out |= bySubstitution
		case "list":
			out |= byList
		case "union":
			out |= byUnion
		default:
			return 0, n.fail("%s has the unknown word %q", name, word)
		}
	}
	return out, nil
}

// find returns a global component.
func (c *compiler) find(n *node, kind, value string) (*node, Name, error) {
	name, err := n.qname(strings.TrimSpace(value))
	if err != nil {
		return nil, name, err
	}
	g := c.globals[globalKey{kind, name}]
	if g == nil {
		return nil, name, n.fail("%s %q names nothing that is declared", kind, value)
	}
	if n.within != nil && (kind != "type" || n.tag() == "restriction" || n.tag() == "extension") {
		if own, err := n.within.key(); err == nil && own == (globalKey{kind, name}) {
			return c.originals[n.within], name, nil
		}
	}
	return g, name, nil
}

// typeNamed returns the type of a name.
func (c *compiler) typeNamed(n *node, value string) (*Type, error) {
	name, err := n.qname(strings.TrimSpace(value))
	if err != nil {
		return nil, err
	}
	if name.Space == schemaNamespace {
		if t := builtins[name.Local]; t != nil {
			return t, nil
		}
		return nil, n.fail("the built-in type %s is not supported", value)
	}
	g, _, err := c.find(n, "type", value)
	if err != nil {
		return nil, err
	}
	return c.typeOf(g)
}

// typeOf returns the type that a node declares. A complex one may not be
// complete yet.
func (c *compiler) typeOf(n *node) (*Type, error) {
	if t := c.types[n]; t != nil {
		return t, nil
	}
	if n.tag() == "simpleType" {
		return c.simpleType(n)
	}
	t := &Type{Position: n.position(), Documentation: n.documentation(), Appinfo: n.appinfo()}
	if name := n.attr("name"); name != "" {
		t.Name = Name{n.doc.target, name}
	}
	c.types[n], c.nodes[t] = t, n
	c.pending = append(c.pending, n)
	return t, nil
}

// element returns the declaration at a node.
func (c *compiler) element(n *node, global bool) (*Element, error) {
	if e := c.elements[n]; e != nil {
		return e, nil
	}
	allowed := []string{"name", "type", "default", "fixed", "nillable", "block", "minOccurs", "maxOccurs", "form"}
	if global {
		allowed = []string{"name", "type", "default", "fixed", "nillable", "block", "abstract", "final", "substitutionGroup"}
	}
	if err := n.allow(allowed...); err != nil {
		return nil, err
	}
	name := n.attr("name")
	if !isNCName([]byte(name)) {
		return nil, n.fail("an element has no name, or none that can be one")
	}
	if err := c.enter(n); err != nil {
		return nil, err
	}
	defer c.leave()
	e := &Element{Name: Name{"", name}, Global: global, Position: n.position(), Documentation: n.documentation()}
	c.elements[n] = e
	c.declared = append(c.declared, e)
	form, err := qualified(n, "form", n.doc.qualified)
	if err != nil {
		return nil, err
	}
	if global || form {
		e.Name.Space = n.doc.target
	}
	e.symbol = c.names.add(e.Name)
	if e.Abstract, err = n.boolean("abstract"); err != nil {
		return nil, err
	}
	if e.Nillable, err = n.boolean("nillable"); err != nil {
		return nil, err
	}
	if e.block, err = derivations(n, "block", n.doc.block); err != nil {
		return nil, err
	}
	if e.Fixed, e.Default, err = n.values(); err != nil {
		return nil, err
	}
	if head := n.attr("substitutionGroup"); head != "" {
		h, _, err := c.find(n, "element", head)
		if err != nil {
			return nil, err
		}
		if e.head, err = c.element(h, true); err != nil {
			return nil, err
		}
	}
	if e.Type, err = c.elementType(n, e); err != nil {
		return nil, err
	}
	for _, k := range n.kids {
		switch k.tag() {
		case "annotation", "simpleType", "complexType":
		case "key", "unique", "keyref":
			if err := c.constraint(k, e); err != nil {
				return nil, err
			}
		default:
			return nil, k.fail("<%s> is not supported in an element", k.name.Local)
		}
	}
	return e, nil
}

func (c *compiler) elementType(n *node, e *Element) (*Type, error) {
	inner := n.child("complexType")
	if inner == nil {
		inner = n.child("simpleType")
	}
	named := n.attr("type")
	switch {
	case inner != nil && named != "":
		return nil, n.fail("an element has a type by name and one of its own")
	case inner != nil:
		return c.typeOf(inner)
	case named != "":
		return c.typeNamed(n, named)
	case e.head != nil:
		if e.head.Type == nil {
			return nil, n.fail("the substitution group is circular")
		}
		return e.head.Type, nil
	}
	return anyType, nil
}

// values are the fixed and the default value.
func (n *node) values() (fixed, def *string, err error) {
	if v, ok := n.lookup("fixed"); ok {
		fixed = &v
	}
	if v, ok := n.lookup("default"); ok {
		def = &v
	}
	if fixed != nil && def != nil {
		return nil, nil, n.fail("fixed and default exclude each other")
	}
	return fixed, def, nil
}

var errOccurs = errors.New("no number")

// occurs reads minOccurs and maxOccurs.
func (n *node) occurs() (lo, hi int, err error) {
	lo, hi = 1, 1
	number := func(v string) (int, error) {
		if v == "" || strings.Trim(v, "0123456789") != "" {
			return 0, errOccurs
		}
		return strconv.Atoi(v)
	}
	if v := n.attr("minOccurs"); v != "" {
		if lo, err = number(v); err != nil {
			return 0, 0, n.fail("minOccurs is no number that can be counted to")
		}
	}
	if v := n.attr("maxOccurs"); v == "unbounded" {
		return lo, Unbounded, nil
	} else if v != "" {
		if hi, err = number(v); err != nil {
			return 0, 0, n.fail("maxOccurs is no number that can be counted to")
		}
	}
	if hi < lo {
		return 0, 0, n.fail("maxOccurs is less than minOccurs")
	}
	return lo, hi, nil
}
