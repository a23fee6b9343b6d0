package transform

import "testing"

// Only names that the schema itself has are told; what it allows without naming
// it was chosen by whoever wrote the form.
func TestKnownPlaces(t *testing.T) {
	form, problems := ParseFormSchema("f.json", []byte(`{"type":"object","properties":{
		"owner":{"type":"array","items":{"$ref":"#/$defs/person"}},
		"free":{"type":"object","additionalProperties":{"type":"string"}},
		"pair":{"type":"array","prefixItems":[{"type":"string"},{"$ref":"#/$defs/person"}]}},
		"$defs":{"person":{"type":"object","properties":{"name":{"type":"string"}}}}}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct {
		at   []string
		want int
	}{
		{nil, 0}, {[]string{"owner"}, 1}, {[]string{"owner", "0", "name"}, 3}, {[]string{"owner", "12"}, 2}, {[]string{"owner", "Mustermann"}, 1},
		{[]string{"owner", "0", "Mustermann"}, 2}, {[]string{"free", "Mustermann"}, 1}, {[]string{"Mustermann", "name"}, 0}, {[]string{"pair", "1", "name"}, 3},
		{[]string{"owner", "0", "name", "x"}, 3}, {[]string{"owner", "-1"}, 1},
	} {
		if got := form.Known(c.at); got != c.want {
			t.Errorf("%q: %d, want %d", c.at, got, c.want)
		}
	}
}
