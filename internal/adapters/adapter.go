// Package adapters knows the ways in which a message reaches a Fachverfahren.
//
// Each kind is one folder; adding one is a new folder and one line in the
// registry. The package checks destinations' settings and makes adapters of
// them. It retries nothing, remembers nothing and decides nothing about states:
// it says what came of one attempt, classed by who is at fault.
package adapters

import "weiche/internal/adapters/spec"

// The types that kinds are written against.
type (
	Adapter     = spec.Adapter
	Bus         = spec.Bus
	ClosableBus = spec.ClosableBus
	Deps        = spec.Deps
	Kind        = spec.Kind
	Field       = spec.Field
	Setting     = spec.Setting
)
