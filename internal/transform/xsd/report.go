package xsd

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// expected names what may stand in a state.
func (st *state) expected(count int) string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if c := st.count; c != nil && (c.max == Unbounded || count < c.max) {
		for _, e := range c.again {
			add(e.elem.Name.Local)
		}
	}
	if st.count == nil || count >= st.count.min {
		for _, e := range st.next {
			add(e.elem.Name.Local)
		}
		if len(st.wild) > 0 {
			add("an element that a wildcard lets in")
		}
		if st.accept {
			add("the end of the element")
		}
	}
	const most = 8
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d others", len(names)-most))
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
	}
	return strings.Join(names, "")
}

// called is the type's name with a space behind it, "" where it has none.
func (t *Type) called() string {
	if t.Name.Local == "" {
		return ""
	}
	return t.Name.Local + " "
}

// wants says in words what a value of the type has to be like.
func (s *Simple) wants(code Code) string {
	if s.Variety == List && !s.restricts(code) {
		return s.Item.wants(code)
	}
	name := s.Name.Local
	if name == "" {
		name = s.Builtin
	}
	switch code {
	case PatternMismatch:
		if last := s.Patterns[len(s.Patterns)-1]; len(s.Patterns) == 1 && len(last) == 1 && len(last[0]) <= 80 {
			return "a value of the form " + last[0] + " is expected (type " + name + ")"
		}
		return "the value does not keep the pattern of the type " + name
	case NotEnumerated:
		if len(s.Enumeration) <= 5 {
			return "one of these values is expected: " + strings.Join(s.Enumeration, ", ")
		}
		return "one of the " + strconv.Itoa(len(s.Enumeration)) + " values of the type " + name + " is expected"
	case TooShort:
		return fmt.Sprintf("the value is shorter than %d", max(s.MinLength, s.Length))
	case TooLong:
		return fmt.Sprintf("the value is longer than %d", max(s.MaxLength, s.Length))
	case OutOfRange:
		return "the value is out of range:" + s.rangeText() + " is expected"
	case TooManyDigits:
		return "the number has more digits than the type " + name + " allows"
	case IDTwice:
		return "an ID stands a second time"
	}
	return "the value is none of the type " + name
}

// restricts says whether the type has a facet that the code can be about. Of a
// list that has none the items are meant.
func (s *Simple) restricts(code Code) bool {
	switch code {
	case PatternMismatch:
		return len(s.Patterns) > 0
	case NotEnumerated:
		return s.Enumeration != nil
	case TooShort:
		return s.MinLength >= 0 || s.Length >= 0
	case TooLong:
		return s.MaxLength >= 0 || s.Length >= 0
	}
	return false
}

func (s *Simple) rangeText() string {
	var out string
	for _, b := range []struct {
		word  string
		value *string
	}{{"at least", s.MinInclusive}, {"more than", s.MinExclusive}, {"at most", s.MaxInclusive}, {"less than", s.MaxExclusive}} {
		if b.value != nil {
			out += " " + b.word + " " + *b.value
		}
	}
	return out
}

// locate finds the problems' places: it reads the document once more, up to the
// last of them.
func (v *validator) locate() []Error {
	problems := v.problems
	paths := v.paths(problems)
	out := make([]Error, len(problems))
	for i, p := range problems {
		e := Error{Code: p.code, Path: paths[p.element], Offset: p.at, Text: p.text}
		if p.attr != "" {
			e.Path += "/@" + p.attr
		}
		before := v.scan.doc[:p.at]
		e.Line = 1 + bytes.Count(before, []byte{'\n'})
		e.Column = 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
		out[i] = e
	}
	return out
}

// paths gives the path of each element that a problem is of, by its offset.
func (v *validator) paths(problems []problem) map[int]string {
	paths := map[int]string{-1: "/"}
	last := -1
	for _, p := range problems {
		if p.element >= 0 {
			paths[p.element] = ""
			last = max(last, p.element)
		}
	}
	type level struct {
		step     string
		children map[string]int
	}
	stack := []level{{}}
	var s scanner
	s.begin(v.scan.doc, v.schema.names, v.scan.limits)
	s.start()
	for {
		switch s.next() {
		case tokenOpen:
			name := "*"
			if symbol := v.schema.names.symbol(s.space, s.local); symbol >= 0 {
				name = v.schema.names.list[symbol].Local
			}
			top := &stack[len(stack)-1]
			if top.children == nil {
				top.children = map[string]int{}
			}
			top.children[name]++
			l := level{step: "/" + name}
			if n := top.children[name]; n > 1 {
				l.step += "[" + strconv.Itoa(n) + "]"
			}
			stack = append(stack, l)
			if _, asked := paths[s.at]; asked {
				var path strings.Builder
				for _, l := range stack {
					path.WriteString(l.step)
				}
				paths[s.at] = path.String()
			}
			if s.at >= last {
				return paths
			}
		case tokenClose:
			stack = stack[:len(stack)-1]
		case tokenEnd, tokenFault:
			return paths
		}
	}
}
