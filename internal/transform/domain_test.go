package transform

import (
	"os"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// What the proof knows of the envelope is what the door holds it to.
func TestEnvelopeDomainsAreTheDoors(t *testing.T) {
	raw, err := os.ReadFile("../intake/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type schema struct {
		Format     string
		Pattern    string
		Enum       []string
		MinLength  int               `yaml:"minLength"`
		MaxLength  *int              `yaml:"maxLength"`
		Properties map[string]schema `yaml:"properties"`
	}
	var doc struct {
		Components struct {
			Schemas struct {
				Submission schema `yaml:"Submission"`
				Attachment schema `yaml:"Attachment"`
			}
		}
	}
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	envelope, file := doc.Components.Schemas.Submission.Properties, doc.Components.Schemas.Attachment.Properties
	info := envelope["additionalReferenceInfo"].Properties
	for name, c := range map[string]struct {
		at place
		of schema
	}{
		"senderReference": {place{key: "submission.senderReference"}, info["senderReference"]},
		"applicationDate": {place{key: "submission.applicationDate"}, info["applicationDate"]},
		"trustLevel":      {place{key: "submission.trustLevel"}, envelope["trustLevel"]},
		"filename":        {place{name: "filename", up: &place{attachment: true}}, file["filename"]},
		"description":     {place{name: "description", up: &place{attachment: true}}, file["description"]},
		"purpose":         {place{name: "purpose", up: &place{attachment: true}}, file["purpose"]},
		"attachmentId":    {place{name: "attachmentId", up: &place{attachment: true}}, file["attachmentId"]},
		"mimeType":        {place{name: "mimeType", up: &place{attachment: true}}, file["mimeType"]},
	} {
		got, ok := contextDomains(&c.at)
		if !ok || len(got) != 1 {
			t.Errorf("%s: %d domains", name, len(got))
			continue
		}
		d := got[0]
		switch {
		case c.of.Enum != nil:
			if d.kind != domainFinite || !slices.Equal(d.values, c.of.Enum) {
				t.Errorf("%s: %v, the door takes %v", name, d.values, c.of.Enum)
			}
		case c.of.Format == "date":
			if d.kind != domainDate || d.words.max >= 0 || len(d.words.patterns) > 0 {
				t.Errorf("%s: %+v, the door takes any date", name, d)
			}
		case c.of.MaxLength == nil && c.of.Pattern == "":
			t.Errorf("%s: the door has no bound", name)
		default:
			if d.kind != domainWords || c.of.MaxLength != nil && d.words.max != *c.of.MaxLength || d.words.min > max(1, c.of.MinLength) { // domains are of what is not empty
				t.Errorf("%s: %d to %d characters, the door takes %d to %v", name, d.words.min, d.words.max, c.of.MinLength, c.of.MaxLength)
			}
			for _, p := range d.words.patterns {
				if p.source != c.of.Pattern {
					t.Errorf("%s: pattern %s, the door's is %s", name, p.source, c.of.Pattern)
				}
			}
		}
	}
}
