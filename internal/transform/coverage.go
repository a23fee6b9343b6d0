package transform

import (
	"slices"
	"strings"

	"weiche/internal/transform/xsd"
)

// Gap is an optional element of the standard that a mapping leaves out although
// the form has fields of such a name, or that a file of the submission could
// stand in (w:inline).
type Gap struct {
	Line     int      `json:"line"`               // of the element in the mapping that it would stand in
	Fragment string   `json:"fragment,omitempty"` // and line of that element, where it stands in one
	Path     string   `json:"path"`               // of that element
	Element  string   `json:"element"`
	Fields   []string `json:"fields"`
}

// Coverage lists the gaps of a mapping.
func (m *Mapping) Coverage(form *FormSchema) []Gap {
	schema, err := m.Standard.Schema()
	if err != nil {
		return nil
	}
	root := m.prog.ops[0].node
	decl := schema.Element(xsd.Name{Space: root.name.space, Local: root.name.local})
	if decl == nil {
		return nil
	}
	c := &coverage{prover: &prover{model: schema}, fields: form.fields()}
	c.element(root, decl, "/"+root.name.local)
	return c.gaps
}

type coverage struct {
	*prover
	fields []field
	gaps   []Gap
}

func (c *coverage) element(n *node, decl *xsd.Element, path string) {
	t := c.typeFor(n, decl)
	if isAny(t) || t.Kind.HasText() {
		return
	}
	known := map[qname]*xsd.Element{}
	for _, d := range contentOf(t).decls {
		known[nameOf(d)] = d
	}
	written := map[qname]bool{}
	for _, k := range flatten(n.children, nil) {
		if k.generic {
			return // everything is in it
		}
		written[k.n.name] = true
		if d := known[k.n.name]; d != nil {
			c.element(k.n, d, path+"/"+k.n.name.local)
		}
	}
	names := make([]qname, 0, len(known))
	for q := range known {
		names = append(names, q)
	}
	slices.SortFunc(names, func(a, b qname) int { return strings.Compare(a.local, b.local) })
	for _, q := range names {
		if written[q] {
			continue
		}
		fields := c.like(q.local)
		if takesFiles(known[q].Type) {
			fields = append(fields, "attachments")
		}
		if len(fields) > 0 {
			c.gaps = append(c.gaps, Gap{Line: n.line.use(), Fragment: n.line.fragment(), Path: path, Element: q.local, Fields: fields})
		}
	}
}

// takesFiles says that elements of the type can carry a file.
func takesFiles(t *xsd.Type) bool {
	return t.Kind.HasText() && t.Simple != nil && t.Simple.Variety == xsd.Atomic && t.Simple.Builtin == "base64Binary"
}

// like are the fields whose name says the same as an element's.
func (c *coverage) like(local string) []string {
	var out []string
	for _, f := range c.fields {
		path := unlisted(f.path)
		name := path[strings.LastIndexByte(path, '.')+1:]
		if sameWord(name, local) || f.title != "" && sameWord(f.title, local) {
			out = append(out, path)
		}
	}
	return out
}

var plainLetters = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss", " ", "", "-", "", "_", "", ".", "")

func sameWord(a, b string) bool {
	a, b = plainLetters.Replace(strings.ToLower(a)), plainLetters.Replace(strings.ToLower(b))
	return len(a) > 2 && a == b
}
