// Package document writes a submission as what needs no mapping: rows for a
// spreadsheet or a small Fachverfahren (CSV), and pages for a person (PDF). Both
// are made from the form's fields with the titles of its schema, in its order,
// and have the same bytes whenever they are written.
package document

import (
	"time"

	"weiche/internal/fault"
	"weiche/internal/submission"
	"weiche/internal/transform"
)

// Document is what both formats are written from. It is payload.
type Document struct {
	Service     submission.Service
	Title       string // of the service, in German
	ID          string // the submission's
	Case        string
	Region      submission.Region
	AcceptedAt  time.Time
	Test        bool
	Portal      string // its name
	Authority   submission.Authority
	Entries     []transform.Entry
	Attachments []submission.Attachment
}

// New reads the form of in by its schema; title is the service's. The error is a
// *fault.Error, permanent, and names no value.
func New(title string, schema *transform.FormSchema, in transform.Input) (*Document, error) {
	entries, err := schema.Entries(in.Form)
	if err != nil {
		return nil, err
	}
	attachments := in.Attachments
	if attachments == nil && in.Envelope != nil {
		attachments = in.Envelope.Attachments
	}
	return &Document{
		Service: in.Submission.Service, Title: title, ID: in.Submission.ID.String(), Case: in.Submission.CaseID.String(),
		Region: in.Submission.Region, AcceptedAt: in.Submission.AcceptedAt.In(transform.Zone()), Test: in.Submission.Test,
		Portal: in.Portal.Name, Authority: in.Authority, Entries: entries, Attachments: attachments,
	}, nil
}

// Write writes the document in a format that submission.Format.BuiltIn names.
// The error is a *fault.Error, permanent.
func (d *Document) Write(f submission.Format) ([]byte, error) {
	switch f {
	case submission.FormatCSV:
		return d.csv()
	case submission.FormatPDF:
		return d.pdf()
	}
	return nil, fault.New(fault.Permanent, fault.ReasonNoFormat, "%s is none of the built-in formats, %s and %s", f, submission.FormatCSV, submission.FormatPDF)
}

// fields visits every field with the titles of the groups around it.
func fields(entries []transform.Entry, visit func(e *transform.Entry, around []string)) {
	var walk func([]transform.Entry, []string)
	walk = func(entries []transform.Entry, around []string) {
		for i := range entries {
			e := &entries[i]
			if e.Type != "" {
				visit(e, around)
				continue
			}
			walk(e.Entries, append(around[:len(around):len(around)], heading(e)))
		}
	}
	walk(entries, nil)
}
