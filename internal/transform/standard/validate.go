package standard

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/jacoelho/xsd"
	"github.com/jacoelho/xsd/xsderrors"

	"weiche/internal/fault"
	"weiche/internal/foreignxml"
)

func (s *Standard) compiled() (*xsd.Engine, error) {
	s.once.Do(func() {
		if s.err = s.checkFiles(); s.err != nil {
			return
		}
		s.engine, s.err = compileXSD(os.DirFS(s.Dir), s.Schemas, s.Locations)
		if s.err != nil {
			s.err = fmt.Errorf("%s: %w", s.Key(), s.err)
		}
	})
	return s.engine, s.err
}

// compileXSD compiles entry schemas; references are resolved inside fsys and
// nowhere else.
func compileXSD(fsys fs.FS, entries []string, locations map[string]string) (*xsd.Engine, error) {
	var missing error
	source := func(file string) (xsd.SchemaSource, error) {
		raw, err := fs.ReadFile(fsys, file)
		if err != nil {
			return xsd.SchemaSource{}, fmt.Errorf("the schema %s is missing", file)
		}
		if err := foreignxml.Check(bytes.NewReader(raw), schemaLimits); err != nil {
			return xsd.SchemaSource{}, fmt.Errorf("the schema %s: %w", file, err)
		}
		return xsd.Bytes(file, raw), nil
	}
	resolver := xsd.ResolverFunc(func(base, location string) (xsd.SchemaSource, error) {
		file, ok := resolveLocation(fsys, base, location, locations)
		if !ok {
			missing = fmt.Errorf("the schema %s refers to %s, which the standard's folder does not have", base, location)
			return xsd.SchemaSource{}, missing
		}
		src, err := source(file)
		if err != nil {
			missing = err
		}
		return src, err
	})
	sources := make([]xsd.SchemaSource, 0, len(entries))
	for _, e := range entries {
		src, err := source(e)
		if err != nil {
			return nil, err
		}
		sources = append(sources, src.WithResolver(resolver))
	}
	engine, err := xsd.CompileWithOptions(xsd.CompileOptions{}, sources...)
	if missing != nil {
		return nil, missing
	}
	if err != nil {
		return nil, fmt.Errorf("the schema does not compile: %w", err)
	}
	return engine, nil
}

const maxReportedFaults = 5

// Validate checks one message against the standard's XSD. An invalid message is
// a *fault.Error, permanent, schema-invalid, whose detail names code, line and
// path of up to five faults and never a value; a schema that does not compile is
// standard-missing. It is safe for concurrent use.
func (s *Standard) Validate(message []byte) error {
	engine, err := s.compiled()
	if err != nil {
		return fault.Wrap(err, fault.Permanent, fault.ReasonStandardMissing, "the schema of %s cannot be used", s.Key())
	}
	session, _ := s.pool.Get().(*xsd.Session)
	if session == nil {
		if session, err = engine.NewSession(xsd.ValidateOptions{MaxErrors: maxReportedFaults}); err != nil {
			return fault.Wrap(err, fault.Permanent, fault.ReasonStandardMissing, "the schema of %s cannot be used", s.Key())
		}
	}
	err = session.Validate(bytes.NewReader(message))
	s.pool.Put(session)
	if err == nil {
		return nil
	}
	var details []string
	for _, f := range schemaErrors(err) {
		details = append(details, f.Text+fmt.Sprintf(" at line %d, %s", f.Line, f.Path))
	}
	return fault.Wrap(err, fault.Permanent, fault.ReasonSchemaInvalid, "%s: %s", s.Key(), strings.Join(details, "; "))
}

// schemaErrors are the validator's errors as findings.
func schemaErrors(err error) Findings {
	var out Findings
	for _, e := range xsderrors.Flatten(err) {
		f := Finding{Reason: fault.ReasonSchemaInvalid, Text: "invalid"}
		var xe *xsderrors.Error
		if errors.As(e, &xe) {
			f.Text, f.Line, f.Path = fmt.Sprint(xe.Code()), xe.Line(), clipPath(xe.Path())
		}
		out = append(out, f)
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
