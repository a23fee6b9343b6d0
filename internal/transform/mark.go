package transform

import (
	"fmt"
	"path/filepath"

	"weiche/internal/config"
)

// mark is a line of a mapping, or of a fragment that it includes.
type mark struct {
	line int
	in   *inclusion // nil: the mapping's own file
}

// inclusion is one place at which a fragment is used.
type inclusion struct {
	file string // the fragment's
	name string // as w:include says it
	at   mark   // of the w:include
}

// use is the line of the mapping's own file that leads here.
func (m mark) use() int {
	for m.in != nil {
		m = m.in.at
	}
	return m.line
}

// fragment says which line of which fragment this is; "" in the mapping itself.
func (m mark) fragment() string {
	if m.in == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d", m.in.name, m.line)
}

// problem is a fault at this line, with every place that leads to it.
func (m mark) problem(mapping, text string) config.Problem {
	p := config.Problem{File: mapping, Line: m.line, Text: text}
	if m.in == nil {
		return p
	}
	p.File, p.Text = m.in.file, text+"; used"
	for at := m.in.at; ; at = at.in.at {
		if at.in == nil {
			p.Text += fmt.Sprintf(" in %s:%d", filepath.Base(mapping), at.line)
			return p
		}
		p.Text += fmt.Sprintf(" in %s,", at.fragment())
	}
}

// depth is how many fragments are around the line.
func (m mark) depth() int {
	n := 0
	for ; m.in != nil; m = m.in.at {
		n++
	}
	return n
}

// inside says whether the line stands in a fragment of that name, however deep.
func (m mark) inside(name string) bool {
	for ; m.in != nil; m = m.in.at {
		if m.in.name == name {
			return true
		}
	}
	return false
}

// words names the line to an author who reads the mapping.
func (m mark) words() string {
	if m.in == nil {
		return fmt.Sprintf("line %d", m.line)
	}
	return "line " + m.fragment()
}
