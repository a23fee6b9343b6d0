package transform

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

const maxDataDepth = 64 // of groups in groups

// dataItem is a field or a group of a form as whoever reads it without a mapping
// needs it.
type dataItem struct {
	name, title string
	typ         string // of a field; "" of a group
	label       string // what the value means, of a choice
	text        string // of a field
	number      int    // in its list, from 1; 0 outside of lists
	inner       bool   // of a list that is itself in a list: it has no name of its own
}

// attrs are the item's attributes in the project's own format.
func (d dataItem) attrs() []dataAttr {
	out := make([]dataAttr, 0, 5)
	for _, a := range [...]dataAttr{{"name", d.name}, {"titel", d.title}, {"typ", d.typ}, {"bezeichnung", d.label}} {
		if a.value != "" || a.name == "name" {
			out = append(out, a)
		}
	}
	if d.number > 0 {
		out = append(out, dataAttr{"nummer", strconv.Itoa(d.number)})
	}
	return out
}

type dataAttr struct{ name, value string }

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

// pointer is the item's part of the JSON Pointer (RFC 6901) to it.
func (d dataItem) pointer() string {
	out := ""
	if !d.inner {
		out = "/" + pointerEscape.Replace(d.name)
	}
	if d.number > 0 {
		out += "/" + strconv.Itoa(d.number-1)
	}
	return out
}

// dataVisitor takes a form's fields in the order of its schema. Every item is
// ended; text comes in between for a field.
type dataVisitor interface {
	begin(d dataItem) error
	end()
	size() int
}

// dataXML writes items as elements of the project's own format.
type dataXML struct {
	sink
	inside *node
}

func (x dataXML) begin(d dataItem) error {
	if d.typ == "" {
		return x.dataStart(x.inside, "gruppe", d)
	}
	if err := x.dataStart(x.inside, "feld", d); err != nil {
		return err
	}
	return x.text(nil, d.text)
}

func (x dataXML) end() { x.dataEnd() }

// dataWalk goes through a form. What is empty is left out.
type dataWalk struct{ to dataVisitor }

// members visits a group's members in the order of its schema, and those it does
// not name after them; it reports whether there was anything.
func (w *dataWalk) members(schemas []*formNode, v any, depth int) (bool, error) {
	if depth > maxDataDepth {
		return false, errDataDepth
	}
	group, ok := v.(map[string]any)
	if !ok {
		if isEmpty(v) {
			return false, nil
		}
		return false, valueError("w:data needs a group of fields")
	}
	names := memberNames(schemas)
	known := len(names)
	for name := range group {
		if !slices.Contains(names[:known], name) {
			names = append(names, name)
		}
	}
	slices.Sort(names[known:])
	written := false
	for _, name := range names {
		some, err := w.item(dataItem{name: name}, member(schemas, name), group[name], depth)
		written = written || some
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

const (
	errDataDepth = valueError("the form nests deeper than allowed")
	errDataSize  = valueError("the message is larger than allowed")
)

// item visits one value. Items of a list come one by one under the list's name;
// a list in a list is a group.
func (w *dataWalk) item(d dataItem, schemas []*formNode, v any, depth int) (bool, error) {
	switch {
	case isEmpty(v):
		return false, nil
	case depth > maxDataDepth:
		return false, errDataDepth
	case w.to.size() > maxMessageBytes:
		return false, errDataSize
	}
	d.title = titleOf(schemas)
	switch x := v.(type) {
	case map[string]any:
		return w.group(d, x, depth, func() error {
			_, err := w.members(schemas, x, depth+1)
			return err
		})
	case []any:
		if d.number == 0 {
			return w.items(d, schemas, x, depth)
		}
		return w.group(d, x, depth, func() error {
			_, err := w.items(d, schemas, x, depth)
			return err
		})
	}
	return w.field(d, schemas, v)
}

// group visits what has something in it as one item around that.
func (w *dataWalk) group(d dataItem, v any, depth int, inside func() error) (bool, error) {
	if !hasContent(v, depth) {
		return false, nil
	}
	if err := w.to.begin(d); err != nil {
		return false, err
	}
	err := inside()
	w.to.end()
	return true, err
}

func (w *dataWalk) items(of dataItem, schemas []*formNode, list []any, depth int) (bool, error) {
	own := itemsOf(schemas)
	if titleOf(own) == "" {
		own = append([]*formNode{{title: titleOf(schemas)}}, own...)
	}
	written := false
	for i, v := range list {
		some, err := w.item(dataItem{name: of.name, number: i + 1, inner: of.number > 0}, own, v, depth+1)
		written = written || some
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (w *dataWalk) field(d dataItem, schemas []*formNode, v any) (bool, error) {
	var err error
	d.typ, d.label = fieldType(schemas, v)
	if d.text, err = toText(v); err != nil {
		return false, err
	}
	if err := w.to.begin(d); err != nil {
		return false, err
	}
	w.to.end()
	return true, nil
}

// hasContent says whether anything of v would be written.
func hasContent(v any, depth int) bool {
	if depth > maxDataDepth {
		return true // let the writer refuse it
	}
	switch x := v.(type) {
	case map[string]any:
		for _, m := range x {
			if hasContent(m, depth+1) {
				return true
			}
		}
		return false
	case []any:
		for _, m := range x {
			if hasContent(m, depth+1) {
				return true
			}
		}
		return false
	}
	return !isEmpty(v)
}

// fieldType names a field's type and the label of a chosen value.
func fieldType(schemas []*formNode, v any) (typ, label string) {
	types := typesOf(schemas)
	all := views(schemas)
	choosing := false
	for _, s := range all {
		if s.isEnum {
			choosing = true
		}
		for _, c := range s.choices {
			if !s.isEnum && s.title != "" && !slices.Contains(schemas, s) && sameScalar(c.value, v) {
				choosing, label = true, s.title
			}
		}
	}
	if choosing {
		return "auswahl", label
	}
	switch v.(type) {
	case bool:
		return "wahrheitswert", ""
	case json.Number, float64, int:
		if slices.Contains(types, "integer") {
			return "ganzzahl", ""
		}
		return "zahl", ""
	}
	for _, s := range all {
		switch s.format {
		case "date":
			return "datum", ""
		case "date-time":
			return "zeitpunkt", ""
		}
	}
	return "text", ""
}

func sameScalar(a, b any) bool {
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return ok && x == y
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case json.Number:
		s, err := toText(b)
		return err == nil && s == string(x)
	}
	return false
}
