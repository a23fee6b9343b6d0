// Package filestamp tells whether files have changed since they were read, without
// reading them: keys, certificates and passwords are exchanged while a process runs.
package filestamp

import (
	"os"
	"slices"
)

// Stamps are what was to be seen of some files. The zero value is that of none.
type Stamps []os.FileInfo // nil of a file that is not there, or cannot be looked at

// Of looks at files.
func Of(files ...string) Stamps {
	out := make(Stamps, len(files))
	for i, f := range files {
		if info, err := os.Stat(f); err == nil {
			out[i] = info
		}
	}
	return out
}

// Same says that nothing shows that a file was changed, exchanged, added or taken
// away. Times alone would not do: Kubernetes exchanges a link, and what it points
// to may be older than what it pointed to before.
func (s Stamps) Same(other Stamps) bool {
	return slices.EqualFunc(s, other, func(a, b os.FileInfo) bool {
		if a == nil || b == nil {
			return a == nil && b == nil
		}
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}
