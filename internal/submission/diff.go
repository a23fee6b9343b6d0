package submission

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Change is one place where two forms differ. Old and New are payload; where the
// place is only in one of the forms, the other is nil.
type Change struct {
	Path []string        `json:"-"`
	At   string          `json:"path"` // Path as a JSON Pointer, RFC 6901
	Old  json.RawMessage `json:"old,omitempty"`
	New  json.RawMessage `json:"new,omitempty"`
}

// Changes returns where two forms (as Envelope.Form returns them) differ, by
// group in the order of the names, lists item by item. Numbers differ where
// their digits do. Nil: they are the same.
func Changes(before, after any) []Change {
	var d differ
	d.compare(nil, before, after)
	return d.out
}

type differ struct{ out []Change }

func (d *differ) add(at []string, before, after json.RawMessage) {
	d.out = append(d.out, Change{slices.Clone(at), Pointer(at), before, after})
}

func (d *differ) compare(at []string, before, after any) {
	switch x := before.(type) {
	case map[string]any:
		if y, ok := after.(map[string]any); ok {
			d.groups(at, x, y)
			return
		}
	case []any:
		if y, ok := after.([]any); ok {
			d.lists(at, x, y)
			return
		}
	default:
		switch after.(type) {
		case map[string]any, []any: // which cannot be compared by ==
		default:
			if before == after {
				return
			}
		}
	}
	d.add(at, raw(before), raw(after))
}

func (d *differ) groups(at []string, before, after map[string]any) {
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		x, had := before[name]
		y, has := after[name]
		d.member(append(at, name), x, y, had, has)
	}
}

func (d *differ) lists(at []string, before, after []any) {
	for i := range max(len(before), len(after)) {
		var x, y any
		if i < len(before) {
			x = before[i]
		}
		if i < len(after) {
			y = after[i]
		}
		d.member(append(at, strconv.Itoa(i)), x, y, i < len(before), i < len(after))
	}
}

func (d *differ) member(at []string, before, after any, had, has bool) {
	switch {
	case had && has:
		d.compare(at, before, after)
	case had:
		d.add(at, raw(before), nil)
	default:
		d.add(at, nil, raw(after))
	}
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null") // what was read from JSON can be written
	}
	return b
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

// Pointer writes a place of a form as a JSON Pointer (RFC 6901).
func Pointer(at []string) string {
	var b strings.Builder
	for _, p := range at {
		b.WriteByte('/')
		b.WriteString(pointerEscape.Replace(p))
	}
	return b.String()
}
