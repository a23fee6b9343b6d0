package standard

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"weiche/internal/fault"
)

// Traffic says how a message is meant to be processed.
type Traffic uint8

// The mere presence of the root attribute test forbids productive processing
// (XÖV-Basisnachricht 1.1, attribute test).
const (
	AnyTraffic Traffic = iota // not known; the mark is not checked
	Productive
	Test
)

// About is what is known of a message beside its text. The zero About knows
// nothing.
type About struct {
	// Message is the name it must have.
	Message string
	// ID is what its nachrichtenUUID must be, where the standard has one.
	ID      uuid.UUID
	Traffic Traffic
	// At is when it is sent: standards and code lists have their time.
	At time.Time
	// RefuseMissingLists makes a refusal of the warning that a code's list is not
	// installed.
	RefuseMissingLists bool
}

// Check checks a message with all rules: well-formed, valid by the XSD, and what
// Inspect looks at. No finding means that nothing is wrong. The error is a fault
// of the standard, not of the message. It is safe for concurrent use.
func (s *Standard) Check(message []byte, about About) (Findings, error) {
	err := s.Validate(message)
	var f *fault.Error
	if errors.As(err, &f) && f.Reason == fault.ReasonSchemaInvalid {
		return s.explain(message, f), nil
	}
	if err != nil {
		return nil, err
	}
	return s.Inspect(message, about)
}

// Inspect checks what an XSD cannot see: codes against their lists, authority
// keys, the message's id, kind and test mark, empty elements, validity dates.
// The message must have passed the schema check; of one that has not, findings
// may be missing. The error is a fault of the standard. It is safe for
// concurrent use.
func (s *Standard) Inspect(message []byte, about About) (Findings, error) {
	g, err := s.rules()
	if err != nil {
		return nil, fault.Wrap(err, fault.Permanent, fault.ReasonStandardMissing, "the schema of %s cannot be used", s.Key())
	}
	p, _ := passes.Get().(*pass)
	if p == nil {
		p = new(pass)
	}
	defer passes.Put(p)
	p.begin(s, g, message, about)
	if err := p.run(); err != nil {
		return Findings{s.finding(fault.ReasonNotWellFormed, "the message is not well-formed XML")}, nil
	}
	return p.findings, nil
}

var passes sync.Pool

func (s *Standard) finding(r fault.Reason, text string, args ...any) Finding {
	return Finding{Reason: r, Code: s.OfficialCode(r), Text: fmt.Sprintf(text, args...)}
}

// rules returns what messages are followed by, read once.
func (s *Standard) rules() (*graph, error) {
	schema, err := s.Schema()
	if err != nil {
		return nil, err
	}
	s.rulesOnce.Do(func() { s.graph = newGraph(schema) })
	return s.graph, nil
}

// MissingLists are the code lists that the schemas name by URI and that are not
// installed in the version they fix, or in any; none where the schemas cannot be
// read. Lists that only messages name are not among them.
func (s *Standard) MissingLists() []string {
	g, err := s.rules()
	if err != nil {
		return nil
	}
	var out []string
	for _, r := range g.codes {
		name := r.uri
		if r.closed || r.uri == "" {
			continue
		}
		if r.version != "" {
			if l, _ := s.lists.get([]byte(r.uri), []byte(r.version)); l != nil {
				continue
			}
			name += " " + r.version
		} else if s.lists.newest(r.uri) != nil {
			continue
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// explain says in words why a message is refused by the schema.
func (s *Standard) explain(message []byte, f *fault.Error) Findings {
	said := schemaErrors(f.Err)
	for _, e := range said {
		if e.Reason == fault.ReasonNotWellFormed {
			e.Code = s.OfficialCode(e.Reason)
			return Findings{e}
		}
	}
	if root, err := rootElement(message); err == nil {
		if f, ok := s.unserved(root); ok {
			return Findings{f}
		}
	}
	out := s.foreignCharacters(message)
	for _, e := range said {
		if e.Line > 0 && out.has(e.Line) {
			continue // said better already
		}
		e.Code = s.OfficialCode(e.Reason)
		out = append(out, e)
	}
	return out
}

// unserved says that the standard has no such message: none of its namespace,
// none of its name, or one of another version.
func (s *Standard) unserved(root xml.StartElement) (Finding, bool) {
	g, err := s.rules()
	if err != nil {
		return Finding{}, false
	}
	f := s.finding(fault.ReasonVersionNotServed, "the root element's namespace is not that of %s", s.Key())
	if known := g.elements[root.Name]; known != nil {
		_, has := known.attrs["version"]
		if v := attribute(root, "version"); !has || v == "" || v == s.Version {
			return Finding{}, false
		}
		f.Text = "the message says another version than " + s.Version
	}
	for known := range g.elements {
		if known.Space == root.Name.Space && g.elements[root.Name] == nil {
			f = s.finding(fault.ReasonMessageNotServed, "%s has no message of this name", s.Key())
		}
	}
	f.Path, f.Line = "/"+root.Name.Local, 1
	return f, true
}

func (fs Findings) has(line int) bool {
	for _, f := range fs {
		if f.Line == line {
			return true
		}
	}
	return false
}

// foreignCharacters finds the fields whose text has a character that the field's
// type, one of DIN 91379, does not have.
func (s *Standard) foreignCharacters(message []byte) Findings {
	g, err := s.rules()
	if err != nil {
		return nil
	}
	type level struct {
		shape *shape
		name  string
		line  int
		text  strings.Builder
	}
	var out Findings
	var stack []*level
	d := xml.NewDecoder(bytes.NewReader(message))
	for len(out) < maxReportedFaults {
		t, err := d.Token()
		if err != nil {
			break
		}
		switch e := t.(type) {
		case xml.StartElement:
			l := &level{name: e.Name.Local}
			l.line, _ = d.InputPos()
			switch {
			case len(stack) == 0:
				l.shape = g.elements[e.Name]
			case stack[len(stack)-1].shape != nil:
				l.shape = stack[len(stack)-1].shape.find(g, e.Name.Space, []byte(e.Name.Local)).shape
			}
			stack = append(stack, l)
		case xml.CharData:
			if len(stack) > 0 {
				stack[len(stack)-1].text.Write(e)
			}
		case xml.EndElement:
			l := stack[len(stack)-1]
			if l.shape != nil && l.shape.latin != nil {
				if r, place, ok := l.shape.latin.first(l.text.String()); ok {
					f := s.finding(fault.ReasonCharacters, "%s", l.shape.latin.describe(r, place))
					for _, up := range stack {
						f.Path += "/" + up.name
					}
					f.Line = l.line
					out = append(out, f)
				}
			}
			stack = stack[:len(stack)-1]
		}
	}
	return out
}
