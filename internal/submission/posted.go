package submission

import (
	"encoding/json"
	"errors"
)

// Posted is a submission as a portal posted it, read once for all that becomes
// of it.
type Posted struct {
	// Members are the document's, as a json.Decoder with UseNumber reads them; nil
	// where the document is no object. Whoever gets them must not change them.
	Members map[string]any
	data    json.RawMessage
	reply   json.RawMessage
}

var errPosted = errors.New("the submission is not JSON, or nested too deep")

// ReadPosted reads a document. What is in it is not checked. Pieces of body are
// kept.
func ReadPosted(body string) (*Posted, error) {
	p := &Posted{}
	r := formReader{s: body}
	r.member = func(name string, from, to int) {
		switch name {
		case "data":
			p.data = json.RawMessage(body[from:to])
		case "replyChannel":
			p.reply = json.RawMessage(body[from:to])
		}
	}
	v := r.value()
	if r.space(); r.failed || r.i != len(r.s) {
		return nil, errPosted
	}
	p.Members, _ = v.(map[string]any)
	return p, nil
}

// Envelope is what the document says, where it is what intake asks of an
// envelope; a member of another type counts as missing.
func (p *Posted) Envelope() *Envelope {
	top := group(p.Members)
	e := &Envelope{
		Region: top.text("region"), CaseID: top.text("caseId"), TrustLevel: top.text("trustLevel"), Test: top.flag("test"),
		Data: p.data, ReplyChannel: p.reply, form: top["data"],
	}
	if s, ok := top.group("publicService"); ok {
		e.PublicService.Identifier, e.PublicService.Name = s.text("identifier"), s.text("name")
	}
	if i, ok := top.group("additionalReferenceInfo"); ok {
		e.AdditionalReferenceInfo = &AdditionalReferenceInfo{SenderReference: i.text("senderReference"), ApplicationDate: i.text("applicationDate")}
	}
	if s, ok := top.group("submissionSchema"); ok {
		e.SubmissionSchema = &SubmissionSchema{SchemaURI: s.text("schemaUri"), MIMEType: s.text("mimeType")}
	}
	if list, ok := top["attachments"].([]any); ok {
		e.Attachments = make([]Attachment, len(list))
		for i, v := range list {
			m, _ := v.(map[string]any)
			e.Attachments[i] = group(m).attachment()
		}
	}
	return e
}

// group is an object of the document.
type group map[string]any

func (g group) text(name string) string {
	s, _ := g[name].(string)
	return s
}

func (g group) flag(name string) bool {
	b, _ := g[name].(bool)
	return b
}

func (g group) group(name string) (group, bool) {
	m, ok := g[name].(map[string]any)
	return m, ok
}

// attachment leaves out what intake itself sets.
func (g group) attachment() Attachment {
	hash, _ := g.group("hash")
	return Attachment{
		AttachmentID: g.text("attachmentId"), Filename: g.text("filename"), MIMEType: g.text("mimeType"), Purpose: g.text("purpose"),
		Description: g.text("description"), Hash: Hash{Type: hash.text("type"), Content: hash.text("content")},
		Content: g.text("content"), Part: g.text("part"),
	}
}
