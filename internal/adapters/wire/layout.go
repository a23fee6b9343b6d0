package wire

import (
	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// WorkDir is the folder, within a destination's directory, of what is not
// complete yet.
const WorkDir = ".weiche"

// Layout names the files of a message that is put into a directory. The names of
// a delivery are the same at every attempt.
type Layout struct {
	ID      string   // the delivery's, as it stands in the names
	Message string   // appears last: whoever sees it finds the folder complete
	Folder  string   // of the attachments; there is none where there are none
	Files   []string // of the attachments, within the folder
}

// NewLayout names the files of d. An id that is no UUID becomes no file name; the
// error is a *fault.Error.
func NewLayout(d *submission.Delivery) (Layout, error) {
	u, err := uuid.Parse(d.ID)
	if err != nil {
		return Layout{}, fault.New(fault.Permanent, fault.ReasonMalformed, "the delivery id is not a UUID")
	}
	l := Layout{ID: u.String(), Message: u.String() + d.Format.Extension(), Folder: u.String()}
	for i, f := range d.Attachments {
		l.Files = append(l.Files, SafeName(f.Filename, i))
	}
	return l, nil
}
