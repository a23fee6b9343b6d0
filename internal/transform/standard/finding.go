package standard

import (
	"fmt"
	"strings"

	"weiche/internal/fault"
)

// Finding is one thing a check has to say about a message. It never carries a
// value of the message.
type Finding struct {
	Reason fault.Reason `json:"reason"`
	// Code is the standard's own word for the reason, "" where it has none: XBau's
	// are those of its list xbau-fehlerkennzahlen.
	Code string `json:"code,omitempty"`
	// Warning: the message may go.
	Warning bool   `json:"warning,omitempty"`
	Path    string `json:"path,omitempty"`
	Line    int    `json:"line,omitempty"`
	Text    string `json:"text"`
}

// String is the finding as a line for people.
func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(string(f.Reason))
	if f.Code != "" {
		fmt.Fprintf(&b, " (%s)", f.Code)
	}
	if f.Line > 0 {
		fmt.Fprintf(&b, " at line %d, %s", f.Line, f.Path)
	}
	return b.String() + ": " + f.Text
}

// Findings are those of one message.
type Findings []Finding

// Refused says whether one of them is no warning.
func (fs Findings) Refused() bool {
	for _, f := range fs {
		if !f.Warning {
			return true
		}
	}
	return false
}

// Err returns what is refused as a *fault.Error: permanent, with the reason of
// the first and the words of the first five. It is nil where there are warnings
// at most.
func (fs Findings) Err(standard string) error {
	var reason fault.Reason
	var texts []string
	for _, f := range fs {
		if f.Warning {
			continue
		}
		if reason == "" {
			reason = f.Reason
		}
		if len(texts) < maxReportedFaults {
			texts = append(texts, f.String())
		}
	}
	if reason == "" {
		return nil
	}
	return fault.New(fault.Permanent, reason, "%s: %s", standard, strings.Join(texts, "; "))
}

// xbauCodes are XBau's official words for reasons, of its code list
// urn:xoev-de:xbau:codeliste:xbau-fehlerkennzahlen, version 2.2. They are XBau's
// and its Kernmodul's alone; other standards may name theirs in the manifest.
var xbauCodes = map[fault.Reason]string{
	fault.ReasonNotWellFormed:    "X000",
	fault.ReasonSchemaInvalid:    "X001",
	fault.ReasonCharacters:       "X001",
	fault.ReasonCodeListUnknown:  "X010",
	fault.ReasonCodeUnknown:      "X011",
	fault.ReasonVersionNotServed: "V000",
	fault.ReasonMessageNotServed: "V001",
	fault.ReasonMessageIDReused:  "S050",
	fault.ReasonAuthorityKey:     "S091",
	fault.ReasonTestMark:         "S102",
	fault.ReasonMessageID:        "S999",
	fault.ReasonMessageType:      "S999",
	fault.ReasonEmptyElement:     "S999",
}

// OfficialCode returns the standard's own word for a reason, "" where it has none.
func (s *Standard) OfficialCode(r fault.Reason) string {
	if c, ok := s.Reasons[r]; ok {
		return c
	}
	if s.Name == "xbau" || s.Name == "xbau-kernmodul" {
		return xbauCodes[r]
	}
	return ""
}
