//go:build !failpoints

package failpoint

// Hit marks a boundary. It does nothing in this build.
func Hit(string) {}
