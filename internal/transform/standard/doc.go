// Package standard holds the official standards that are installed: their
// manifests, schemas and code lists, how a package is imported, and the check of
// a message against them.
//
// Standards are data, laid out as <name>/<version>/standard.yaml; one that nobody
// has seen yet needs no code. The package fetches nothing from a network, follows
// no reference out of a standard's folder, reads no XML that carries a DOCTYPE,
// and repeats no value of a message in an error text.
package standard
