package standard

import (
	"fmt"
	"slices"
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

// Rule is one reason for which a message is refused, or warned of.
type Rule struct {
	Reason fault.Reason
	// XBau is XBau's official word, of its code list
	// urn:xoev-de:xbau:codeliste:xbau-fehlerkennzahlen, version 2.2. It is XBau's and
	// its Kernmodul's alone; other standards may name theirs in the manifest.
	XBau    string
	Text    string
	Warning string // when it is none but a warning; "" never
}

// Rules are all there are, in the order in which they are checked.
func Rules() []Rule { return slices.Clone(rules) }

var rules = []Rule{
	{fault.ReasonNotWellFormed, "X000", "It is well-formed XML in UTF-8, without DOCTYPE, within bounds of depth and size.", ""},
	{fault.ReasonVersionNotServed, "V000", "Its standard is installed in the version that root element and attribute `version` say.", ""},
	{fault.ReasonMessageNotServed, "V001", "The standard has such a message; on the way out: it is the one that the format names.", ""},
	{fault.ReasonCharacters, "X001", "Fields of a DIN 91379 type have no other characters than that type has.", ""},
	{fault.ReasonSchemaInvalid, "X001", "It is valid by the standard's XSD.", ""},
	{fault.ReasonTestMark, "S102", "A productive message has no attribute `test`, since its mere presence forbids productive processing; a test message has it, where the standard does.", ""},
	{fault.ReasonMessageID, "S999", "`nachrichtenUUID` is a UUID; on the way out: the id of this delivery, so that it is never another message's.", ""},
	{fault.ReasonMessageIDReused, "S999", "No two different messages of one `standards check` share a `nachrichtenUUID`.", ""},
	{fault.ReasonMessageType, "S999", "The code in the header's `nachrichtentyp` is the number that the message's name ends in.", ""},
	{fault.ReasonCodeListUnknown, "X010", "A code's list is installed in the version that the message names.", ""},
	{fault.ReasonCodeUnknown, "X011", "A code is in its list.", ""},
	{fault.ReasonCodeListMissing, "", "A code's list is installed.", "unless `checks.code_lists: refuse`"},
	{fault.ReasonAuthorityKey, "S091", "A key of an authority in the DVDV is prefix, colon, key; the prefix is one of the list `urn:xoev-de:bund:bmi:bit:codeliste:dvdv.praefix`, where that is installed.", ""},
	{fault.ReasonEmptyElement, "S999", "No element is without content.", "unless the standard's Schematron rules, imported with it, forbid it (XBau's do)"},
	{fault.ReasonOutOfValidity, "", "The message is of the standard's time.", "always"},
}

var xbauCodes = func() map[fault.Reason]string {
	out := map[fault.Reason]string{}
	for _, r := range rules {
		if r.XBau != "" {
			out[r.Reason] = r.XBau
		}
	}
	return out
}()

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
