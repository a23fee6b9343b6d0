package xsd

import "fmt"

// Code says what is wrong with a document; the set is closed.
type Code string

// The codes. Those up to TooManyAttributes mean that a document was not read to
// its end.
const (
	NotWellFormed     Code = "not-well-formed"
	NotUTF8           Code = "not-utf8"
	Doctype           Code = "doctype"
	TooLarge          Code = "too-large"
	TooDeep           Code = "too-deep"
	TooManyAttributes Code = "too-many-attributes"

	RootUnknown         Code = "root-unknown"
	ElementUnexpected   Code = "element-unexpected"
	ElementMissing      Code = "element-missing"
	ElementUndeclared   Code = "element-undeclared"
	ElementAbstract     Code = "element-abstract"
	ContentNotEmpty     Code = "content-not-empty"
	TextUnexpected      Code = "text-unexpected"
	AttributeUnexpected Code = "attribute-unexpected"
	AttributeMissing    Code = "attribute-missing"
	TypeUnknown         Code = "type-unknown"
	TypeNotAllowed      Code = "type-not-allowed"
	NilNotAllowed       Code = "nil-not-allowed"
	FixedValue          Code = "fixed-value"

	ValueInvalid    Code = "value-invalid"
	PatternMismatch Code = "pattern-mismatch"
	NotEnumerated   Code = "not-enumerated"
	TooShort        Code = "too-short"
	TooLong         Code = "too-long"
	OutOfRange      Code = "out-of-range"
	TooManyDigits   Code = "too-many-digits"

	IDTwice        Code = "id-twice"
	IDREFUnknown   Code = "idref-unknown"
	KeyIncomplete  Code = "key-incomplete"
	KeyTwice       Code = "key-twice"
	KeyrefUnknown  Code = "keyref-unknown"
	FieldAmbiguous Code = "field-ambiguous"
)

// Unreadable says whether the code means that the document was not read to its
// end because of its form, whatever the schema says.
func (c Code) Unreadable() bool {
	switch c {
	case NotWellFormed, NotUTF8, Doctype, TooLarge, TooDeep, TooManyAttributes:
		return true
	}
	return false
}

// Error is one thing that is wrong with a document. It names what the schema
// wants and nothing of what the document says; an element that the schema does
// not know is * in the path.
type Error struct {
	Code   Code
	Path   string // /a/b[2]/@c: the second b within a, its attribute c
	Line   int    // from 1
	Column int    // from 1, in characters
	Offset int    // in bytes
	Text   string // what was expected, in words
}

func (e Error) Error() string {
	return fmt.Sprintf("%s at line %d, column %d, %s: %s", e.Code, e.Line, e.Column, e.Path, e.Text)
}

// Limits bound a document. A field that is zero takes its default.
type Limits struct {
	Bytes      int // of the whole document; default 64 MiB
	Depth      int // of nested elements; default 256
	Attributes int // on one element, and namespaces declared around one; default 256
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 64 << 20
	}
	if l.Depth == 0 {
		l.Depth = 256
	}
	if l.Attributes == 0 {
		l.Attributes = 256
	}
	return l
}
