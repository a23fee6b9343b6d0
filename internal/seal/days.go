package seal

import (
	"slices"

	"weiche/internal/submission"
)

// Days returns the days (yyyy-mm-dd, UTC) of which a Land has a key, oldest
// first, as the key log was when it was last read.
func (k *Keeper) Days() map[submission.Land][]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[submission.Land][]string{}
	for id, e := range k.index {
		if land, day, ok := splitID(id); ok && e.value != nil && !slices.Contains(out[land], day) {
			out[land] = append(out[land], day)
		}
	}
	for _, days := range out {
		slices.Sort(days)
	}
	return out
}
