// Package catalog is the process library: services with their form schema,
// their mappings to target formats and their examples, one folder each.
//
// A broken service is refused alone; one whose standard is not installed stays,
// and refuses only that format. The package reads files and nothing else: it
// knows no Land, no portal and no destination. A form's faults are told without
// the form's values.
package catalog
