// Package xsd compiles W3C XML Schemas (1.0, second edition) and validates
// messages against them.
//
// A Schema is compiled once, from files that the caller hands over, never from a
// network. What of XSD 1.0 it does not know is a compile error with file and
// line, never passed over. The Schema is also a model to read: which elements
// stand where, how often, with what values; mappings are proven against it.
//
// It is no judge of schemas: that a restriction restricts, that a content model is
// never ambiguous, and rules of that kind, which do not change what a document has
// to be like, are not checked. Every element and attribute of a schema is read, or
// refused. Refused are ENTITY and NOTATION (their values need a
// DOCTYPE), what XSD 1.1 added, and content models beyond the bounds below.
//
// A document is read in one pass by a scanner made for the purpose: UTF-8 only,
// well-formedness and namespaces checked in full, a DOCTYPE refused, depth and
// attributes bounded. Element names are looked up once and are numbers from then
// on; content models are deterministic automata; patterns are automata over
// classes of characters. A valid document costs no allocation. An error names
// code, path, line and column and what the schema wanted, and repeats nothing
// that the document says.
package xsd
