package submission

import "encoding/json"

// DecodeEnvelope reads the envelope that intake sealed: what json.Marshal wrote,
// in one pass, form data included (Form), and any other JSON of the same content
// by encoding/json. Data and ReplyChannel of the result are pieces of b, which
// must not change afterwards.
func DecodeEnvelope(b []byte) (*Envelope, error) {
	e := &Envelope{}
	r := jsonReader{b: b}
	if r.envelope(e); !r.failed && r.i == len(b) {
		return e, nil
	}
	e = &Envelope{}
	if err := json.Unmarshal(b, e); err != nil {
		return nil, err
	}
	return e, nil
}

// DecodeAttachments reads a list of attachments as json.Marshal wrote it, and
// any other JSON of the same content by encoding/json.
func DecodeAttachments(b []byte) ([]Attachment, error) {
	r := jsonReader{b: b}
	if list := r.attachments(); !r.failed && r.i == len(b) {
		return list, nil
	}
	var list []Attachment
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	return list, nil
}

// envelope reads the members in the order in which json.Marshal writes them.
func (r *jsonReader) envelope(e *Envelope) {
	r.open()
	if r.key("publicService") {
		r.open()
		text(r, "identifier", &e.PublicService.Identifier)
		text(r, "name", &e.PublicService.Name)
		r.close()
	}
	text(r, "region", &e.Region)
	text(r, "caseId", &e.CaseID)
	if r.key("additionalReferenceInfo") {
		e.AdditionalReferenceInfo = &AdditionalReferenceInfo{}
		r.open()
		text(r, "senderReference", &e.AdditionalReferenceInfo.SenderReference)
		text(r, "applicationDate", &e.AdditionalReferenceInfo.ApplicationDate)
		r.close()
	}
	text(r, "trustLevel", &e.TrustLevel)
	if r.key("submissionSchema") {
		e.SubmissionSchema = &SubmissionSchema{}
		r.open()
		text(r, "schemaUri", &e.SubmissionSchema.SchemaURI)
		text(r, "mimeType", &e.SubmissionSchema.MIMEType)
		r.close()
	}
	if r.key("data") {
		e.Data, e.form = r.raw()
	}
	if r.key("attachments") {
		e.Attachments = r.attachments()
	}
	if r.key("replyChannel") {
		e.ReplyChannel, _ = r.raw()
	}
	e.Test = r.flag("test")
	r.close()
}

func (r *jsonReader) attachments() []Attachment {
	list := []Attachment{}
	r.literal("[")
	for !r.failed && !r.next("]") {
		if len(list) > 0 {
			r.literal(",")
		}
		var a Attachment
		r.attachment(&a)
		list = append(list, a)
	}
	return list
}

func (r *jsonReader) attachment(a *Attachment) {
	r.open()
	text(r, "attachmentId", &a.AttachmentID)
	text(r, "filename", &a.Filename)
	text(r, "mimeType", &a.MIMEType)
	text(r, "purpose", &a.Purpose)
	text(r, "description", &a.Description)
	if r.key("hash") {
		r.open()
		text(r, "type", &a.Hash.Type)
		text(r, "content", &a.Hash.Content)
		r.close()
	}
	text(r, "content", &a.Content)
	text(r, "part", &a.Part)
	text(r, "blob", &a.Blob)
	number(r, "size", &a.Size)
	r.close()
}

// flag reads a member that is left out where it is false.
func (r *jsonReader) flag(name string) bool {
	if !r.key(name) {
		return false
	}
	r.literal("true")
	return true
}

// raw reads a value, and returns its bytes and what it says.
func (r *jsonReader) raw() (json.RawMessage, any) {
	if r.failed || r.i == len(r.b) || r.b[r.i] <= ' ' {
		r.failed = true // white space is no part of the value
		return nil, nil
	}
	f := formReader{s: string(r.b[r.i:])}
	v := f.value()
	from := r.i
	r.i += f.i
	r.failed = f.failed
	return json.RawMessage(r.b[from:r.i:r.i]), v
}
