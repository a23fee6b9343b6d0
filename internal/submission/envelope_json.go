package submission

import "encoding/json"

// Encode writes the envelope as intake seals it: the bytes of json.Marshal.
func (e *Envelope) Encode() ([]byte, error) {
	w := jsonWriter{b: make([]byte, 0, 1024+len(e.Data)+512*len(e.Attachments))}
	w.envelope(e)
	return w.b, w.err
}

// EncodeAttachments writes a list of attachments as json.Marshal does, [] where
// there are none.
func EncodeAttachments(list []Attachment) ([]byte, error) {
	w := jsonWriter{b: make([]byte, 0, 2+512*len(list))}
	w.attachments(list)
	return w.b, w.err
}

func (w *jsonWriter) envelope(e *Envelope) {
	w.open()
	w.key("publicService")
	w.open()
	w.text("identifier", e.PublicService.Identifier)
	w.some("name", e.PublicService.Name)
	w.close()
	w.text("region", e.Region)
	w.some("caseId", e.CaseID)
	if i := e.AdditionalReferenceInfo; i != nil {
		w.key("additionalReferenceInfo")
		w.open()
		w.some("senderReference", i.SenderReference)
		w.some("applicationDate", i.ApplicationDate)
		w.close()
	}
	w.some("trustLevel", e.TrustLevel)
	if s := e.SubmissionSchema; s != nil {
		w.key("submissionSchema")
		w.open()
		w.some("schemaUri", s.SchemaURI)
		w.some("mimeType", s.MIMEType)
		w.close()
	}
	w.raw("data", e.Data)
	if len(e.Attachments) > 0 {
		w.key("attachments")
		w.attachments(e.Attachments)
	}
	if len(e.ReplyChannel) > 0 {
		w.raw("replyChannel", e.ReplyChannel)
	}
	w.someTrue("test", e.Test)
	w.close()
}

func (w *jsonWriter) attachments(list []Attachment) {
	w.b = append(w.b, '[')
	for i := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.attachment(&list[i])
	}
	w.b = append(w.b, ']')
}

func (w *jsonWriter) attachment(a *Attachment) {
	w.open()
	w.text("attachmentId", a.AttachmentID)
	w.some("filename", a.Filename)
	w.text("mimeType", a.MIMEType)
	w.text("purpose", a.Purpose)
	w.some("description", a.Description)
	w.key("hash")
	w.open()
	w.text("type", a.Hash.Type)
	w.text("content", a.Hash.Content)
	w.close()
	w.some("content", a.Content)
	w.some("part", a.Part)
	w.some("blob", a.Blob)
	w.someInt("size", a.Size)
	w.close()
}

// raw writes JSON that was read before, without the white space between its
// values. What json.Marshal would escape in it, it does.
func (w *jsonWriter) raw(name string, v json.RawMessage) {
	start, from, quoted := len(w.b), 0, false
	w.key(name)
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\':
			i++ // whatever is escaped ends no text
		case c == '<' || c == '>' || c == '&' || c == 0xE2:
			w.b = w.b[:start] // 0xE2 begins U+2028 and U+2029
			w.value(name, v)
			return
		case c <= ' ' && !quoted:
			w.b = append(w.b, v[from:i]...)
			from = i + 1
		}
	}
	if len(v) == 0 {
		v = json.RawMessage("null")
	}
	w.b = append(w.b, v[from:]...)
}

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
