package catalog

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
	"weiche/internal/transform"
	"weiche/internal/transform/standard"
)

// Result is what became of one example in one format.
type Result struct {
	Process string
	Example string
	Format  submission.Format
	// Faults is empty where everything is as expected. Examples are no payload:
	// the texts may quote them.
	Faults  []string
	Skipped string // why it could not run: the standard that is not installed
	Updated bool   // the expected file was written
	XML     []byte
}

// OK says whether the example did what it should, or could not run.
func (r Result) OK() bool { return len(r.Faults) == 0 }

// Fixed facts of the examples, so that the same message comes out every time.
var (
	exampleMessage = uuid.MustParse("60f6667b-fa45-4bd7-b717-f4d6c65e5edb")
	exampleTime    = time.Date(2026, 11, 22, 9, 15, 30, 123_000_000, time.UTC)
)

// Run maps every example of the process to every format, checks form and message,
// and compares the message with the expected one. With update, the expected
// files are written where they differ.
func (p *Process) Run(update bool) []Result {
	var out []Result
	for _, e := range p.Examples {
		for _, f := range append(p.Formats[:len(p.Formats):len(p.Formats)], submission.FormatCSV) {
			if e.Expected[f] == "" {
				continue
			}
			r := Result{Process: p.ID, Example: e.Name, Format: f}
			if std := p.Missing[f]; std != "" {
				r.Skipped = std
			} else {
				p.runExample(e, f, update, &r)
			}
			out = append(out, r)
		}
	}
	return out
}

// ExampleInput reads an example and makes of it what the mapping is given. The
// violations are the form's.
func (p *Process) ExampleInput(e Example) (transform.Input, []Violation, error) {
	raw, err := os.ReadFile(e.File)
	if err != nil {
		return transform.Input{}, nil, fmt.Errorf("the example cannot be read: %s", osText(err))
	}
	env := &submission.Envelope{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(env); err != nil {
		return transform.Input{}, nil, fmt.Errorf("the example is no envelope: %w", err)
	}
	service, err := submission.ParseService(env.PublicService.Identifier)
	if err != nil {
		return transform.Input{}, nil, err
	}
	if service != p.Service {
		return transform.Input{}, nil, fmt.Errorf("the example's service is %s, the process's %s", service, p.Service)
	}
	region, err := submission.ParseRegion(env.Region)
	if err != nil {
		return transform.Input{}, nil, err
	}
	id := submission.NewID("example", p.ID+"/"+e.Name)
	caseID := submission.NewCaseID(id)
	if env.CaseID != "" {
		if caseID, err = uuid.Parse(env.CaseID); err != nil {
			return transform.Input{}, nil, errors.New("the example's caseId is not a UUID")
		}
	}
	contents := map[string][]byte{}
	for i := range env.Attachments {
		a := &env.Attachments[i]
		if a.Content == "" {
			continue
		}
		content, err := base64.StdEncoding.DecodeString(a.Content)
		if err != nil {
			return transform.Input{}, nil, fmt.Errorf("attachment %d: the content is not base64", i)
		}
		sum := sha512.Sum512(content)
		if want := hex.EncodeToString(sum[:]); a.Hash.Content == "" {
			a.Hash = submission.Hash{Type: "sha512", Content: want}
		} else if a.Hash.Content != want {
			return transform.Input{}, nil, fmt.Errorf("attachment %d: the hash is not the content's, which is %s", i, want)
		}
		a.Size, a.Content = int64(len(content)), ""
		contents[a.AttachmentID] = content
	}
	var form any
	d = json.NewDecoder(bytes.NewReader(env.Data))
	d.UseNumber()
	if err := d.Decode(&form); err != nil {
		return transform.Input{}, nil, errors.New("the example has no data")
	}
	return transform.Input{
		Form: form, Envelope: env,
		Message: transform.MessageInput{ID: exampleMessage, CreatedAt: exampleTime},
		Submission: transform.SubmissionInput{
			ID: id, CaseID: caseID, Service: service, Region: region, AcceptedAt: exampleTime, Test: env.Test,
		},
		Portal: e.Portal, Authority: e.Authority, Attachments: env.Attachments,
		Open: func(a submission.Attachment) (io.ReadCloser, error) {
			content, ok := contents[a.AttachmentID]
			if !ok {
				return nil, fault.New(fault.Permanent, fault.ReasonMappingFailed, "the message carries a file whose content the example does not have")
			}
			return io.NopCloser(bytes.NewReader(content)), nil
		},
	}, p.ValidateForm(form), nil
}

func traffic(test bool) standard.Traffic {
	if test {
		return standard.Test
	}
	return standard.Productive
}

func (p *Process) runExample(e Example, f submission.Format, update bool, r *Result) {
	fail := func(text string, args ...any) { r.Faults = append(r.Faults, fmt.Sprintf(text, args...)) }
	in, violations, err := p.ExampleInput(e)
	if err != nil {
		fail("%v", err)
		return
	}
	for _, v := range violations {
		fail("the form is refused at %q: %s", v.Pointer, v.Text)
	}
	if f.BuiltIn() {
		p.runDocument(e, f, in, update, r)
		return
	}
	m := p.Mappings[f]
	xml, err := m.Apply(in)
	if err != nil {
		fail("%v", err)
		return
	}
	r.XML = xml
	tree, err := m.ApplyTree(in)
	if err != nil {
		fail("built with etree: %v", err)
	} else if same, err := tree.WriteToBytes(); err != nil || !bytes.Equal(same, xml) {
		fail("the written message is not the one built with etree")
	}
	findings, err := m.Standard.Check(xml, standard.About{Message: f.Message, ID: exampleMessage, Traffic: traffic(in.Submission.Test), At: exampleTime})
	if err != nil {
		fail("%v", err)
	}
	for _, found := range findings {
		if !found.Warning {
			fail("%v", found)
		}
	}
	want, err := os.ReadFile(e.Expected[f])
	var difference string
	if err == nil {
		difference, err = transform.Difference(want, xml)
	}
	if err == nil && difference == "" {
		return
	}
	if update {
		werr := os.MkdirAll(filepath.Dir(e.Expected[f]), 0o755) // a new process has none yet
		if werr == nil {
			werr = os.WriteFile(e.Expected[f], indent(xml), 0o644)
		}
		if werr != nil {
			fail("the expected message cannot be written: %s", osText(werr))
			return
		}
		r.Updated = true
		return
	}
	if err != nil {
		fail("the expected message %s: %v", e.Expected[f], err)
		return
	}
	fail("the message is not the expected one: %s", difference)
}

// runDocument compares what a built-in format makes of an example byte by byte.
func (p *Process) runDocument(e Example, f submission.Format, in transform.Input, update bool, r *Result) {
	fail := func(text string, args ...any) { r.Faults = append(r.Faults, fmt.Sprintf(text, args...)) }
	got, err := p.Document(f, in)
	if err != nil {
		fail("%v", err)
		return
	}
	want, err := os.ReadFile(e.Expected[f])
	switch {
	case err == nil && bytes.Equal(got, want):
	case update:
		if err := os.WriteFile(e.Expected[f], got, 0o644); err != nil {
			fail("the expected document cannot be written: %s", osText(err))
			return
		}
		r.Updated = true
	case err != nil:
		fail("the expected document cannot be read: %s", osText(err))
	default:
		fail("the document is not the expected one, %s", e.Expected[f])
	}
}
