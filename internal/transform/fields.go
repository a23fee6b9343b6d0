package transform

import (
	"path/filepath"
	"slices"
	"strings"

	"weiche/internal/config"
)

// field is one input of a form: a single value, or a list of such.
type field struct {
	path  string // form.persons[].name
	line  int    // of its name in the schema's file
	title string
	nodes []*formNode
}

// unlisted is a path without the marks of lists, as mappings write it.
func unlisted(path string) string { return strings.ReplaceAll(path, "[]", "") }

// fields lists the inputs of a form in the order of its schema. What repeats
// itself, as a group that holds groups of its own kind, is listed as one input.
func (f *FormSchema) fields() []field {
	var out []field
	var walk func(path string, line int, nodes, around []*formNode)
	walk = func(path string, line int, nodes, around []*formNode) {
		all := views(nodes)
		for _, v := range all {
			if len(v.props) > 0 && slices.Contains(around, v) {
				out = append(out, field{path, line, titleOf(nodes), nodes})
				return
			}
		}
		around = append(slices.Clone(around), all...)
		var names []string
		for _, v := range all {
			for _, p := range v.props {
				if found := member(nodes, p.name); found != nil && !slices.Contains(names, p.name) {
					names = append(names, p.name)
					walk(path+"."+p.name, p.line, found, around)
				}
			}
		}
		if items := itemsOf(nodes); len(names) == 0 && len(items) > 0 {
			if inner := views(items); slices.ContainsFunc(inner, func(v *formNode) bool { return len(v.props) > 0 || v.items != nil }) {
				walk(path+"[]", line, items, around)
				return
			}
			names = nil
		}
		if len(names) == 0 && path != "form" {
			out = append(out, field{path, line, titleOf(nodes), nodes})
		}
	}
	walk("form", 0, []*formNode{f.root}, nil)
	return out
}

// unused is a field, or everything below a group, that a mapping says it leaves
// out.
type unused struct {
	path string
	line int
}

// checkFields reports every field of the form that the mapping neither looks at
// nor declares unused: what a citizen filled in must not vanish unseen.
func checkFields(file string, form *FormSchema, used map[string]bool, declared []unused) config.Problems {
	var problems config.Problems
	all := form.fields()
	below := func(path, group string) bool {
		return path == group || strings.HasPrefix(path, group+".") || group == "form"
	}
	known := []string{"form"}
	for _, f := range all {
		known = append(known, unlisted(f.path))
	}
	for _, u := range declared {
		at := config.Pos{File: file, Line: u.line}
		i := slices.IndexFunc(all, func(f field) bool { return below(unlisted(f.path), u.path) })
		switch {
		case i < 0:
			problems = append(problems, at.Problem("w:unused names %q, which the form's schema does not have%s", u.path, hint(u.path, known)))
		case unlisted(all[i].path) == u.path && used[all[i].path]:
			problems = append(problems, at.Problem("w:unused names %q, but the mapping uses it", u.path))
		}
	}
	for _, f := range all {
		if used[f.path] || used[f.path+"[]"] || slices.ContainsFunc(declared, func(u unused) bool { return below(unlisted(f.path), u.path) }) {
			continue
		}
		problems = append(problems, config.Pos{File: form.File, Line: f.line}.Problem(
			"the field %s is mapped nowhere in %s; map it, or declare it in the root's w:unused", unlisted(f.path), filepath.Base(file)))
	}
	return problems
}

// useAll marks every field at and below some paths.
func (r *reader) useAll(paths []string) {
	for _, f := range r.form.fields() {
		for _, p := range paths {
			if f.path == p || strings.HasPrefix(f.path, p+".") || strings.HasPrefix(f.path, p+"[]") {
				r.used[f.path] = true
			}
		}
	}
}
