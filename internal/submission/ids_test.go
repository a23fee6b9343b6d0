package submission

import (
	"strconv"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// derived is the definition of a derived id, by the library: a seed of kind and
// parts, hashed in the namespace (UUIDv5).
func derived(kind string, parts ...string) uuid.UUID {
	b := []byte(kind)
	for _, p := range parts {
		b = append(b, 0)
		b = strconv.AppendInt(b, int64(len(p)), 10)
		b = append(b, ':')
		b = append(b, p...)
	}
	return uuid.NewSHA1(namespace, b)
}

func TestDerivedIDsAreUUIDv5(t *testing.T) {
	word := rapid.OneOf(rapid.String(), rapid.StringN(0, 2000, -1))
	rapid.Check(t, func(t *rapid.T) {
		id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		a, b, n := word.Draw(t, "a"), word.Draw(t, "b"), rapid.Int().Draw(t, "n")
		for name, pair := range map[string][2]uuid.UUID{
			"submission": {NewID(a, b), derived("submission", a, b)},
			"case":       {NewCaseID(id), derived("case", id.String())},
			"delivery":   {NewDeliveryID(id, a, n), derived("delivery", id.String(), a, strconv.Itoa(n))},
			"event":      {NewEventID(EventType(a), id, b, a), derived("event", a, id.String(), b, a)},
			"bare event": {NewEventID(EventDecided, id), derived("event", "decided", id.String())},
		} {
			if pair[0] != pair[1] {
				t.Fatalf("%s: %s, want %s", name, pair[0], pair[1])
			}
		}
	})
}
