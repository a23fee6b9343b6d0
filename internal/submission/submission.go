// Package submission holds the domain's types: keys of the field (LeiKa, ARS,
// DVDV), the portal's envelope, record headers, events, and the state machine
// that folds events into the one state a person can see.
//
// It knows no Kafka, no HTTP, no file and no clock; it imports nothing of the
// project. Ids are derived, never drawn, wherever a repeat has to collapse.
package submission
