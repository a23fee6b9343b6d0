package submission

import (
	"encoding/json"
	"io"
	"time"
)

// Envelope is what a portal posts, in FIT-Connect's words. Everything in it but
// service, region, case and the test flag is payload: it is encrypted from
// intake to adapter and stands in no log, header or event.
type Envelope struct {
	PublicService struct {
		Identifier string `json:"identifier"`
		Name       string `json:"name,omitempty"`
	} `json:"publicService"`
	Region                  string                   `json:"region"`
	CaseID                  string                   `json:"caseId,omitempty"`
	AdditionalReferenceInfo *AdditionalReferenceInfo `json:"additionalReferenceInfo,omitempty"`
	TrustLevel              string                   `json:"trustLevel,omitempty"`
	SubmissionSchema        *SubmissionSchema        `json:"submissionSchema,omitempty"`
	Data                    json.RawMessage          `json:"data"`
	Attachments             []Attachment             `json:"attachments,omitempty"`
	ReplyChannel            json.RawMessage          `json:"replyChannel,omitempty"`
	Test                    bool                     `json:"test,omitempty"`

	form any // what Data says, once it was read
}

// AdditionalReferenceInfo carries the sender's own words for the submission.
type AdditionalReferenceInfo struct {
	SenderReference string `json:"senderReference,omitempty"`
	ApplicationDate string `json:"applicationDate,omitempty"` // ISO 8601 date
}

// SubmissionSchema names the schema the portal built the form with.
type SubmissionSchema struct {
	SchemaURI string `json:"schemaUri,omitempty"`
	MIMEType  string `json:"mimeType,omitempty"`
}

// Attachment is one file of a submission. Content (base64) or Part (the name of
// a multipart part) say where its bytes are when it is posted; both are empty
// once it is stored.
type Attachment struct {
	AttachmentID string `json:"attachmentId"`
	Filename     string `json:"filename,omitempty"`
	MIMEType     string `json:"mimeType"`
	Purpose      string `json:"purpose"` // form | attachment | report | data
	Description  string `json:"description,omitempty"`
	Hash         Hash   `json:"hash"`
	Content      string `json:"content,omitempty"`
	Part         string `json:"part,omitempty"`
	Blob         string `json:"blob,omitempty"` // name in the blob store, set by intake
	Size         int64  `json:"size,omitempty"` // plain bytes, set by intake
}

// Hash is FIT-Connect's hash object: type sha512, content 128 hex digits over
// the plain bytes.
type Hash struct {
	Type    string `json:"type"`
	Content string `json:"content"`
}

// Delivery is what an adapter hands over: plain bytes, in memory only. ID is
// the same over every retry, restart and redrive of the same bytes.
type Delivery struct {
	ID           string // delivery id, UUID
	SubmissionID string
	CaseID       string
	Portal       string
	Land         Land
	Service      Service
	Destination  string
	Format       Format
	Authority    Authority
	AcceptedAt   time.Time // of the submission
	Attempt      int       // 1-based
	Test         bool
	Traceparent  string // W3C Trace Context
	Message      []byte
	Attachments  []File
	// Token is what the destination's adapter asked to be kept with Pending, "" at
	// the first attempt.
	Token string
}

// Pending is what an adapter returns instead of nil where the destination's word
// comes later, or where something must be on record before the next step. Token
// is recorded; after After the adapter is called again, with it. Until then the
// delivery waits and holds its case, and no attempt is counted. Token must be
// free of payload.
type Pending struct {
	Token string
	After time.Duration // 0: at once
}

// Error implements error.
func (p *Pending) Error() string { return "handed over; the destination's word comes later" }

// File is an attachment ready to be read. Open may be called several times;
// each reader is the caller's to close and verifies the SHA-512 as it reads:
// the last Read returns an error instead of io.EOF where the bytes are wrong.
type File struct {
	ID, Filename, MIMEType, Purpose string
	SHA512                          string // 128 hex digits over the plain bytes
	Size                            int64  // bytes
	Open                            func() (io.ReadCloser, error)
}

// Authority is a zuständige Stelle.
type Authority struct {
	ID     string       `json:"id"`
	Key    AuthorityKey `json:"key"`
	Name   string       `json:"name"`
	Region Region       `json:"region,omitempty"`
}
