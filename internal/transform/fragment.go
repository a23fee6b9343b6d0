package transform

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/beevik/etree"

	"weiche/internal/submission"
)

// Shared is what mappings have in common. It is safe for concurrent use.
type Shared struct {
	fragments   string // the folder
	authorities []submission.Authority

	mu     sync.Mutex
	tables map[string]*table // of lookups
}

// OpenShared gives mappings the fragments in a folder, which need not exist, and
// the register: the authorities of one configuration. What is read once is kept: a
// new configuration has a Shared of its own.
func OpenShared(fragments string, authorities []submission.Authority) *Shared {
	return &Shared{fragments: fragments, authorities: authorities, tables: map[string]*table{}}
}

const maxFragments = 8 // inside of each other

var fragmentName = regexp.MustCompile(`^[a-z0-9][A-Za-z0-9._-]*(/[a-z0-9][A-Za-z0-9._-]*)*$`)

// include reads the fragment that w:include names as if it were written there,
// with nothing in sight but its parameters and the mapping's own variables.
func (r *reader) include(el *etree.Element, n *node, plain []etree.Attr, lineOf func(string) int, in *scope) {
	n.kind = nodeGroup
	line := n.line.line
	if len(el.ChildElements()) > 0 || strings.TrimSpace(el.Text()) != "" {
		r.problem(line, "w:include holds nothing")
		r.next += len(el.FindElements(".//*"))
	}
	given := map[string]etree.Attr{}
	for _, a := range plain {
		given[a.FullKey()] = a
	}
	name := given["fragment"].Value
	if name == "" {
		r.problem(line, `w:include needs fragment="name"`)
		return
	}
	delete(given, "fragment")
	outer := r.page
	defer func() { r.page = outer }()
	root := r.turnTo(name, n.line, lineOf("fragment"))
	if root == nil {
		return
	}
	body := &node{kind: nodeGroup, inside: n.inside, tag: root.FullTag(), name: qname{root.NamespaceURI(), root.Tag}}
	p := r.position()
	body.line = r.mark(p.line)
	if body.name != (qname{mappingNamespace, "fragment"}) {
		r.problem(p.line, "a fragment's root element is w:fragment")
		return
	}
	names, ok := r.parameters(root, p)
	if !ok {
		return
	}
	in = r.arguments(body, names, given, outer, lineOf, in)
	n.children = []*node{body}
	for _, child := range root.Child {
		switch c := child.(type) {
		case *etree.Element:
			body.children = append(body.children, r.element(c, in, body))
		case *etree.CharData:
			if strings.TrimSpace(c.Data) != "" {
				r.problem(p.line, "w:fragment cannot hold text")
			}
		case *etree.ProcInst, *etree.Directive:
			r.problem(p.line, "processing instructions and a DOCTYPE have no place in a fragment")
		}
	}
}

// parsed is a fragment's file, read once for all its places of use.
type parsed struct {
	root *etree.Element
	pos  []position
}

// turnTo makes a fragment the file being read; nil where it may not stand here or
// cannot be read.
func (r *reader) turnTo(name string, at mark, line int) *etree.Element {
	if !r.mayInclude(name, line) {
		return nil
	}
	in := &inclusion{r.shared.path(name), name + ".xml", at}
	known, ok := r.parsed[name]
	if !ok {
		raw, err := os.ReadFile(in.file)
		if err != nil {
			r.problem(line, "the fragment %q cannot be read: %s%s", name, plainOSError(err), hint(name, r.shared.names()))
			return nil
		}
		r.page = page{in: in}
		doc := r.parse(raw)
		if doc == nil {
			return nil
		}
		known = parsed{doc.Root(), r.pos}
		r.parsed[name] = known
	}
	r.page = page{in: in, pos: known.pos}
	return known.root
}

// mayInclude says whether a fragment may stand at a place.
func (r *reader) mayInclude(name string, line int) bool {
	at := r.mark(line)
	switch {
	case r.shared == nil || !fragmentName.MatchString(name):
		r.problem(line, "%q names no fragment: it is a file's name below the folder fragments, without .xml", name)
		return false
	case at.inside(name + ".xml"):
		r.problem(line, "the fragment %q includes itself", name)
		return false
	case at.depth() >= maxFragments:
		r.problem(line, "fragments include each other more than %d deep", maxFragments)
		return false
	case r.size > mappingLimits.Elements:
		r.problem(line, "with its fragments the mapping has more than %d elements", mappingLimits.Elements)
		return false
	}
	return true
}

func (s *Shared) path(name string) string {
	return filepath.Join(s.fragments, filepath.FromSlash(name)+".xml")
}

// names lists the fragments there are.
func (s *Shared) names() []string {
	var out []string
	for _, pattern := range []string{"*.xml", "*/*.xml"} {
		files, _ := filepath.Glob(filepath.Join(s.fragments, filepath.FromSlash(pattern)))
		for _, f := range files {
			if name, err := filepath.Rel(s.fragments, f); err == nil {
				out = append(out, strings.TrimSuffix(filepath.ToSlash(name), ".xml"))
			}
		}
	}
	return out
}

// parameters reads the fragment's root: its parameters, and prefixes that mean
// what they mean in the mapping, which is what the message declares.
func (r *reader) parameters(root *etree.Element, p position) ([]string, bool) {
	before := len(r.problems)
	var names []string
	for _, a := range root.Attr {
		key := a.FullKey()
		line := p.line
		if l, ok := p.attrs[key]; ok {
			line = l
		}
		switch {
		case a.Space == "xmlns" || key == "xmlns":
		case key == "parameters":
			names = strings.Fields(a.Value)
			for i, name := range names {
				switch {
				case !identifier.MatchString(name) || reserved(name) || name == "fragment":
					r.problem(line, "%q cannot be a parameter's name", name)
				case slices.Contains(names[:i], name):
					r.problem(line, "the parameter %q stands twice", name)
				}
			}
		default:
			r.problem(line, `w:fragment has nothing but parameters="name name" and namespaces; not %q`, key)
		}
	}
	own := namespaces(root)
	own[""] += "" // an element without a prefix must mean the same, too
	for _, prefix := range slices.Sorted(maps.Keys(own)) {
		if own[prefix] != r.spaces[prefix] && own[prefix] != mappingNamespace {
			r.problem(p.line, "the prefix %q stands for %q in the fragment and for %q in the mapping", prefix, own[prefix], r.spaces[prefix])
		}
	}
	return names, len(r.problems) == before
}

// namespaces are the prefixes that an element declares, "" being none.
func namespaces(el *etree.Element) map[string]string {
	out := map[string]string{}
	for _, a := range el.Attr {
		switch {
		case a.Space == "xmlns":
			out[a.Key] = a.Value
		case a.Space == "" && a.Key == "xmlns":
			out[""] = a.Value
		}
	}
	return out
}

// arguments binds the parameters to what the place of use says they are. The
// expressions are the outer file's, and see its names.
func (r *reader) arguments(body *node, names []string, given map[string]etree.Attr, outer page, lineOf func(string) int, in *scope) *scope {
	inner := r.page
	r.page = outer
	defer func() { r.page = inner }()
	include := body.line.in.at.line
	inside := &scope{parent: in, fence: r.globals, lookups: r.tablesBeside(inner.in.file)}
	for _, name := range names {
		a, ok := given[name]
		if !ok {
			r.problem(include, "the fragment needs %s=%q", name, "…")
			continue
		}
		delete(given, name)
		e := r.expression(a.Value, lineOf(name), in)
		s := shape{}
		if e != nil {
			s = e.shape
		}
		inside = inside.bind(name, s)
		inside.def = e
		body.lets = append(body.lets, letting{inside.key, e})
	}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		r.problem(lineOf(key), "the fragment has no parameter %q%s", key, hint(key, names))
	}
	return inside
}
