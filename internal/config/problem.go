package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity tells what refuses a configuration from what is only worth saying.
type Severity uint8

// The severities.
const (
	Error Severity = iota
	Warning
)

// String returns "error" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Problem is one thing that is wrong, and where. Line and Column count from 1;
// 0 is unknown.
type Problem struct {
	File         string
	Line, Column int
	Text         string
	Severity     Severity
}

// String returns "file:line:column: text", a warning marked as such.
func (p Problem) String() string {
	at := Pos{p.File, p.Line, p.Column}.String()
	if at != "" {
		at += ": "
	}
	if p.Severity == Warning {
		at += "warning: "
	}
	return at + p.Text
}

// Problems are everything that is wrong, in the order of files and lines. As an
// error value use Err: a nil Problems in an error is not nil.
type Problems []Problem

// Error lists the problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err returns the problems as an error where one of them is an error, else nil.
func (ps Problems) Err() error {
	if ps.Failed() {
		return ps
	}
	return nil
}

// Failed says whether one of the problems is an error.
func (ps Problems) Failed() bool {
	for _, p := range ps {
		if p.Severity == Error {
			return true
		}
	}
	return false
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Text, b.Text))
	})
}

// String returns "file", "file:line" or "file:line:column", whatever is known.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// FileLine returns "file:line", the form in which decisions name a rule.
func (p Pos) FileLine() string { return Pos{File: p.File, Line: p.Line}.String() }

// Problem returns an error at this place.
func (p Pos) Problem(format string, args ...any) Problem {
	return Problem{File: p.File, Line: p.Line, Column: p.Column, Text: fmt.Sprintf(format, args...)}
}

// Warning returns a warning at this place.
func (p Pos) Warning(format string, args ...any) Problem {
	w := p.Problem(format, args...)
	w.Severity = Warning
	return w
}
