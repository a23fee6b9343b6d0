package intake

import (
	"encoding/json"
	"fmt"

	"weiche/internal/fault"
)

// CheckForm checks form data as the form of a submission is checked before it is
// read: whether it is JSON that every reader takes alike, and within the bounds
// of nesting (maxDepth, counted from the envelope) and number. Nil: it is sound.
func CheckForm(data []byte, maxDepth int) *Problem {
	if !json.Valid(data) {
		return refuse(fault.ReasonMalformed, malformedSyntax)
	}
	return scan(fmt.Sprintf(`{"data":%s}`, data), maxDepth)
}
