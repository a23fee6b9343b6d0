package xsd

import "slices"

// Variety says whether a simple type is atomic, a list or a union.
type Variety uint8

// The varieties of simple types.
const (
	Atomic Variety = iota
	List
	Union
)

// WhiteSpace says what becomes of white space before a value is looked at.
type WhiteSpace uint8

// The values of the facet whiteSpace.
const (
	Preserve WhiteSpace = iota
	Replace
	Collapse
)

// Simple is a simple type with the facets of all its bases.
type Simple struct {
	Name     Name // "" for a type declared where it is used
	Base     *Simple
	Variety  Variety
	Builtin  string // the nearest built-in type: token, date, decimal, …
	Item     *Simple
	Members  []*Simple // of a union, none of which is a union
	Position Position

	WhiteSpace WhiteSpace
	// Length, MinLength and MaxLength count characters, octets (hexBinary,
	// base64Binary) or items (lists); -1 where not given.
	Length, MinLength, MaxLength int
	TotalDigits, FractionDigits  int // -1 where not given
	// Patterns: the value must match one of each group.
	Patterns [][]string
	// Enumeration is the closed list of values, nil where there is none.
	Enumeration []string
	// The bounds as the schema writes them, nil where not given.
	MinInclusive, MaxInclusive, MinExclusive, MaxExclusive *string

	kind     kind
	patterns [][]*pattern
	values   map[string]struct{} // canonical values of Enumeration
	bounds   []bound
	facets   bool // anything beyond kind and white space
	id       idKind
	weight   int // of unions: members, and members of members
}

// identifies says whether values of the type are IDs or refer to them.
func (s *Simple) identifies() bool {
	return s.id != notID || s.Variety == List && s.Item.identifies() || s.Variety == Union && slices.ContainsFunc(s.Members, (*Simple).identifies)
}

// Codes are the values an enumeration allows, written as the schema writes them.
func (s *Simple) Codes() []string { return s.Enumeration }

// Check says whether a value, as it stands in a document, is one of the type. It
// does not look at ID, IDREF and the namespaces of QName. It is safe for
// concurrent use.
func (s *Simple) Check(value string) bool {
	var c checker
	return c.check(s, []byte(value)) == ""
}

// Matches says whether the value, its white space dealt with, matches the type's
// patterns.
func (s *Simple) Matches(value string) bool {
	var c checker
	return s.matches(c.space([]byte(value), s.WhiteSpace))
}

func (s *Simple) matches(b []byte) bool {
	for _, group := range s.patterns {
		if !matchAny(group, b) {
			return false
		}
	}
	return true
}

func matchAny(group []*pattern, b []byte) bool {
	for _, p := range group {
		if p.match(b) {
			return true
		}
	}
	return false
}
