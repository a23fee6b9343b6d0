package xsd

import (
	"bytes"
	"fmt"
	"strings"
)

// CompileError is why a schema cannot be used.
type CompileError struct {
	File string
	Line int
	Text string
}

func (e *CompileError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text) }

// node is one element of a schema document.
type node struct {
	doc    *document
	name   Name
	attrs  []nodeAttr
	kids   []*node
	text   []byte // of documentation
	line   int
	global bool
	within *node // the component of an xs:redefine that it is, or stands in
	scopes *scope
}

type nodeAttr struct {
	name  Name
	value string
}

// scope is one namespace declaration in force, and those outside it.
type scope struct {
	prefix, uri string
	outer       *scope
}

// document is one schema document.
type document struct {
	file                           string
	target                         string
	chameleon                      bool // it has no target namespace of its own and took that of another
	root                           *node
	qualified, qualifiedAttributes bool
	block, final                   derivationSet
}

// schemaLimits bound one schema file.
var schemaLimits = Limits{Bytes: 32 << 20, Depth: 100, Attributes: 100}

const maxSchemaElements = 500_000

// parseNodes reads a schema file.
func parseNodes(file string, raw []byte) (*node, error) {
	names := newNames()
	names.seal()
	var s scanner
	s.begin(raw, names, schemaLimits)
	at, line := 0, 1
	lineOf := func(offset int) int {
		line += bytes.Count(raw[at:offset], []byte{'\n'})
		at = offset
		return line
	}
	fail := func() error {
		return &CompileError{file, 1 + bytes.Count(raw[:s.fault.at], []byte{'\n'}), "the schema cannot be read: " + s.fault.text}
	}
	if s.start() == tokenFault {
		return nil, fail()
	}
	var root *node
	var stack []*node
	scopes := []*scope{{prefix: "xml", uri: xmlNamespace}}
	count := 0
	for {
		switch s.next() {
		case tokenEnd:
			return root, nil
		case tokenFault:
			return nil, fail()
		case tokenOpen:
			if count++; count > maxSchemaElements {
				return nil, &CompileError{file, lineOf(s.at), "the schema has too many elements"}
			}
			n := &node{name: Name{string(s.uri), string(s.local)}, line: lineOf(s.at), scopes: scopes[len(scopes)-1]}
			for _, b := range s.bindings[s.open[len(s.open)-1].bindings:] {
				n.scopes = &scope{string(b.prefix), string(b.uri), n.scopes}
			}
			for _, a := range s.attrs {
				n.attrs = append(n.attrs, nodeAttr{Name{string(a.uri), string(a.local)}, string(a.value)})
			}
			if len(stack) > 0 {
				top := stack[len(stack)-1]
				top.kids = append(top.kids, n)
			} else {
				root = n
			}
			stack, scopes = append(stack, n), append(scopes, n.scopes)
		case tokenClose:
			stack, scopes = stack[:len(stack)-1], scopes[:len(scopes)-1]
		case tokenText:
			if top := stack[len(stack)-1]; top.name.Local == "documentation" || top.name.Space != schemaNamespace {
				top.text = append(top.text, s.text...)
			} else if top.name.Local != "appinfo" && !isBlank(s.text) {
				return nil, &CompileError{file, lineOf(s.at), "text stands where a schema has none"}
			}
		}
	}
}

func (n *node) adopt(d *document) {
	n.doc = d
	for _, k := range n.kids {
		k.adopt(d)
	}
}

// mark says of an element and all in it that they redefine a component.
func (n *node) mark(redefining *node) {
	n.within = redefining
	for _, k := range n.kids {
		k.mark(redefining)
	}
}

func (n *node) fail(text string, args ...any) error {
	const most = 500
	said := fmt.Sprintf(text, args...)
	if len(said) > most { // a schema's names are as long as it likes
		said = strings.ToValidUTF8(said[:most], "") + "…"
	}
	return &CompileError{n.doc.file, n.line, said}
}

func (n *node) position() Position { return Position{n.doc.file, n.line} }

// tag is the schema element's local name; "" for an element of another namespace.
func (n *node) tag() string {
	if n.name.Space == schemaNamespace {
		return n.name.Local
	}
	return ""
}

func (n *node) lookup(name string) (string, bool) {
	for _, a := range n.attrs {
		if a.name.Space == "" && a.name.Local == name {
			return a.value, true
		}
	}
	return "", false
}

// attr returns an attribute's value, its ends trimmed, or "".
func (n *node) attr(name string) string {
	v, _ := n.lookup(name)
	return strings.Trim(v, " ")
}

// child returns the first child of that tag.
func (n *node) child(tag string) *node {
	for _, k := range n.kids {
		if k.tag() == tag {
			return k
		}
	}
	return nil
}

// documentation is the text of the element's annotation.
func (n *node) documentation() string {
	a := n.child("annotation")
	if a == nil {
		return ""
	}
	var parts []string
	for _, d := range a.kids {
		if d.tag() == "documentation" {
			parts = append(parts, strings.Fields(string(d.text))...)
		}
	}
	return strings.Join(parts, " ")
}

// appinfo are the texts of elements in the annotation's appinfo, by local name.
func (n *node) appinfo() map[string]string {
	var out map[string]string
	a := n.child("annotation")
	if a == nil {
		return nil
	}
	for _, info := range a.kids {
		for _, k := range info.kids {
			if text := strings.TrimSpace(string(k.text)); info.tag() == "appinfo" && text != "" {
				if out == nil {
					out = map[string]string{}
				}
				out[k.name.Local] = text
			}
		}
	}
	return out
}

// qname resolves a qualified name that the schema writes in a value.
func (n *node) qname(value string) (Name, error) {
	prefix, local, ok := strings.Cut(value, ":")
	if !ok {
		prefix, local = "", value
	}
	if !isNCName([]byte(local)) {
		return Name{}, n.fail("%q is no name", value)
	}
	for s := n.scopes; s != nil; s = s.outer {
		if s.prefix == prefix {
			if s.uri == "" {
				break
			}
			return Name{s.uri, local}, nil
		}
	}
	if prefix != "" {
		return Name{}, n.fail("the prefix of %q is not declared", value)
	}
	if n.doc.chameleon {
		return Name{n.doc.target, local}, nil
	}
	return Name{"", local}, nil
}
