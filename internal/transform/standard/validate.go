package standard

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"strings"

	"weiche/internal/fault"
	"weiche/internal/transform/xsd"
)

// Schema returns the standard's schema, which is also a model to read: elements,
// types, content models, facets. It is compiled by the first call. The error
// names file and line.
func (s *Standard) Schema() (*xsd.Schema, error) {
	s.once.Do(func() {
		if s.err = s.checkFiles(); s.err != nil {
			return
		}
		fsys := os.DirFS(s.Dir)
		s.schema, s.err = xsd.Compile(fsys, s.Schemas, func(from, location string) (string, bool) {
			return resolveLocation(fsys, from, location, s.Locations)
		})
		if s.err != nil {
			s.err = fmt.Errorf("%s: the schema does not compile: %w", s.Key(), s.err)
		}
	})
	return s.schema, s.err
}

const maxReportedFaults = 5

// Validate checks one message against the standard's XSD. An invalid message is
// a *fault.Error, permanent, schema-invalid, whose detail names code, line, path
// and what was expected of up to five faults and never a value of the message; a
// schema that does not compile is standard-missing. It is safe for concurrent use.
func (s *Standard) Validate(message []byte) error { return s.validate(message, xsd.Name{}) }

// ValidateAs is Validate for a message whose root must be the named one: an XSD
// alone accepts every global element as root.
func (s *Standard) ValidateAs(message []byte, name string) error {
	m, ok := s.Message(name)
	if !ok {
		return fault.New(fault.Permanent, fault.ReasonSchemaInvalid, "%s: the standard has no message %s", s.Key(), name)
	}
	return s.validate(message, xsd.Name{Space: m.Namespace, Local: m.Element})
}

func (s *Standard) validate(message []byte, root xsd.Name) error {
	schema, err := s.Schema()
	if err != nil {
		return fault.Wrap(err, fault.Permanent, fault.ReasonStandardMissing, "the schema of %s cannot be used", s.Key())
	}
	errs := schema.Validate(message, xsd.Options{MaxErrors: maxReportedFaults, Root: root})
	if len(errs) == 0 {
		return nil
	}
	var details []string
	for _, e := range errs {
		details = append(details, fmt.Sprintf("%s at line %d, %s: %s", e.Code, e.Line, clipPath(e.Path), e.Text))
	}
	return fault.Wrap(invalid(errs), fault.Permanent, fault.ReasonSchemaInvalid, "%s: %s", s.Key(), strings.Join(details, "; "))
}

// invalid is what the validator says of a message.
type invalid []xsd.Error

func (i invalid) Error() string { return i[0].Error() }

// schemaErrors are the validator's errors as findings.
func schemaErrors(err error) Findings {
	var all invalid
	var out Findings
	if errors.As(err, &all) {
		for _, e := range all {
			f := Finding{Reason: fault.ReasonSchemaInvalid, Text: string(e.Code) + ": " + e.Text, Line: e.Line, Path: clipPath(e.Path)}
			if e.Code.Unreadable() {
				f.Reason = fault.ReasonNotWellFormed
			}
			out = append(out, f)
		}
	}
	return out
}

func clipPath(p string) string {
	if p == "" {
		return "path unknown"
	}
	if len(p) > 300 {
		return "…" + p[len(p)-300:]
	}
	return p
}

// rootElement returns the root element's start tag.
func rootElement(raw []byte) (xml.StartElement, error) {
	d := xml.NewDecoder(bytes.NewReader(raw))
	for {
		t, err := d.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if s, ok := t.(xml.StartElement); ok {
			return s, nil
		}
	}
}
