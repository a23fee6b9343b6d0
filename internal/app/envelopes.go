package app

import (
	"fmt"
	"slices"
	"strings"

	"weiche/internal/submission"
	"weiche/internal/transform"
)

// envelopeChange is a submission that was changed outside of its form, within what
// the portals' doors take (openapi.yaml).
type envelopeChange struct {
	pointer, kind string
	in            transform.Input
}

// envelopes changes what a mapping may read beside the form: files dropped, their
// names and media types at their bounds, optional parts left out.
func envelopes(in transform.Input) []envelopeChange {
	var out []envelopeChange
	files := func(pointer, kind string, list []submission.Attachment) {
		next := in
		env := *in.Envelope
		env.Attachments, next.Envelope, next.Attachments = list, &env, list
		out = append(out, envelopeChange{pointer, kind, next})
	}
	part := func(pointer, kind string, change func(*submission.Envelope)) {
		next := in
		env := *in.Envelope
		next.Envelope = &env
		change(&env)
		out = append(out, envelopeChange{pointer, kind, next})
	}
	if len(in.Attachments) > 0 {
		files("/attachments", "left out", []submission.Attachment{})
	}
	for i := range in.Attachments {
		at := fmt.Sprintf("/attachments/%d", i)
		files(at, "left out", slices.Delete(slices.Clone(in.Attachments), i, i+1))
		with := func(member, kind string, change func(*submission.Attachment)) {
			list := slices.Clone(in.Attachments)
			change(&list[i])
			files(at+"/"+member, kind, list)
		}
		with("filename", "left out", func(a *submission.Attachment) { a.Filename = "" })
		with("filename", "the longest", func(a *submission.Attachment) { a.Filename = strings.Repeat("n", 251) + ".pdf" })
		with("filename", "composed letters", func(a *submission.Attachment) { a.Filename = "A\u030bC\u0308 \u0141.pdf" })
		with("filename", "odd characters", func(a *submission.Attachment) { a.Filename = "<&>\"'\t\u20ac\U0001f600.pdf" })
		with("mimeType", "of no known kind", func(a *submission.Attachment) { a.MIMEType = "x-odd/!#$&^_.+-" })
		with("mimeType", "the longest", func(a *submission.Attachment) { a.MIMEType = "application/" + strings.Repeat("x", 115) })
		with("description", "left out", func(a *submission.Attachment) { a.Description = "" })
		with("description", "the longest", func(a *submission.Attachment) { a.Description = strings.Repeat("d", 1000) })
	}
	part("/additionalReferenceInfo", "left out", func(e *submission.Envelope) { e.AdditionalReferenceInfo = nil })
	part("/additionalReferenceInfo/senderReference", "the longest", func(e *submission.Envelope) {
		e.AdditionalReferenceInfo = &submission.AdditionalReferenceInfo{SenderReference: strings.Repeat("r", 255)}
	})
	part("/trustLevel", "left out", func(e *submission.Envelope) { e.TrustLevel = "" })
	part("/submissionSchema", "left out", func(e *submission.Envelope) { e.SubmissionSchema = nil })
	return out
}
