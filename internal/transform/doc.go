// Package transform turns form data into the XML message of a target standard.
//
// A mapping is declarative: the target message as an XML template in a language
// of its own (namespace urn:weiche:mapping:1), proven when it is loaded against
// both the form's JSON Schema and the standard's XSD. etree parses and proves
// it; Apply writes bytes directly, and ApplyTree builds the same message with
// etree so that a test can compare the two.
//
// The package knows no Kafka and no HTTP: a function in, a value out. What a
// message carries of a submission's files it reads by a function of its caller's.
// It refuses to repeat a form's value in an error text. Standards and the check of
// a message are package standard's.
package transform
