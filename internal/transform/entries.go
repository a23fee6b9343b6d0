package transform

import "weiche/internal/fault"

// Entry is a field, or a group of them, of a form as a person reads it: in the
// order of its schema, with the schema's titles. It is payload.
type Entry struct {
	Pointer string // JSON Pointer (RFC 6901) into the form
	Title   string // the schema's; the member's name where it has none
	Number  int    // in its list, from 1; 0 outside of lists
	Type    string // of a field, as in the project's own format: text, zahl, datum, …; "" of a group
	Text    string // of a field, as it stands in a message
	Label   string // what a chosen value means, where the schema says it
	Entries []Entry
}

// Entries returns the fields of a form; what is empty is left out. A form that
// nests deeper than 64 or is larger than a message may be is a *fault.Error,
// permanent, mapping-failed, which names no value.
func (f *FormSchema) Entries(form any) ([]Entry, error) {
	c := &collector{open: []Entry{{}}}
	if _, err := (&dataWalk{to: c}).members([]*formNode{f.root}, form, 0); err != nil {
		return nil, fault.Wrap(err, fault.Permanent, fault.ReasonMappingFailed, "the form cannot be written as a document: %v", err)
	}
	return c.open[0].Entries, nil
}

// collector keeps what it visits; the last of open is under way.
type collector struct {
	open  []Entry
	bytes int
}

func (c *collector) begin(d dataItem) error {
	title := d.title
	if title == "" {
		title = d.name
	}
	c.bytes += len(title) + len(d.text) + len(d.label)
	c.open = append(c.open, Entry{
		Pointer: c.open[len(c.open)-1].Pointer + d.pointer(),
		Title:   title, Number: d.number, Type: d.typ, Text: d.text, Label: d.label,
	})
	return nil
}

func (c *collector) end() {
	n := len(c.open) - 1
	c.open[n-1].Entries = append(c.open[n-1].Entries, c.open[n])
	c.open = c.open[:n]
}

func (c *collector) size() int { return c.bytes }
