// Package config reads the config/ directory: router.yaml and the Länder under
// lands/, each a folder of its own.
//
// It finds everything that is wrong at once, each with file, line and column. A
// broken Land is refused alone; a broken router.yaml refuses the whole. It reads
// no secret: secrets are files, and the configuration only names them. It does
// not know what adapters want of their settings, which services the process
// library has, or which standards are installed; those who know check it.
package config
