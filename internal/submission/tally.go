package submission

import (
	"time"

	"github.com/google/uuid"
)

// Tally is what the owner of a partition of submissions counted in it before it
// may delete anything there: the distinct submissions whose records lie from
// From up to and without To. So the number that was accepted outlives the
// records, and does not come from dispatch's own word.
type Tally struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// Opens says that what lies below From was gone before anybody counted it:
	// of that the number is dispatch's own.
	Opens  bool      `json:"opens,omitempty"`
	Counts []Tallied `json:"counts,omitempty"`
	// Untold are those of the counted ones that dispatch has passed although no
	// event says so.
	Untold []Untold `json:"untold,omitempty"`
}

// Hour is a time of acceptance in whole hours since 1970, UTC.
type Hour int64

// HourOf returns the hour in which t lies; the zero time is in the first one.
func HourOf(t time.Time) Hour {
	if t.IsZero() {
		return 0
	}
	return Hour(t.UnixMilli() / time.Hour.Milliseconds())
}

// Time returns when the hour begins.
func (h Hour) Time() time.Time { return time.UnixMilli(int64(h) * time.Hour.Milliseconds()).UTC() }

// Tallied is how many were accepted in an hour for a service of a Land.
type Tallied struct {
	Hour    Hour    `json:"hour"`
	Land    Land    `json:"land"`
	Service Service `json:"service"`
	N       int     `json:"n"`
}

// Untold is a submission that was accepted and of which no event is known.
type Untold struct {
	Submission uuid.UUID `json:"submission"`
	Offset     int64     `json:"offset"` // of its record
	Hour       Hour      `json:"hour"`
	Land       Land      `json:"land"`
	Service    Service   `json:"service"`
}
