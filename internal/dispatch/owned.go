package dispatch

import "maps"

// Owned returns the partitions this process dispatches for, with the epoch it
// owns each under.
func (s *Stage) Owned() map[int32]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.epochs)
}
