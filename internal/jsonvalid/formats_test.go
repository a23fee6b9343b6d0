package jsonvalid

import "testing"

func TestDatesAreThoseOfXML(t *testing.T) {
	for format, values := range map[string]map[string]bool{
		"date": {"0000-01-01": false, "0000-12-31": false, "0001-01-01": true, "2026-02-28": true, "2026-02-29": false, "9999-12-31": true, "26-02-28": false},
		"date-time": {"0000-06-01T12:00:00Z": false, "0001-01-01T00:30:00+01:00": false, "0001-01-02T00:30:00+01:00": true,
			"9999-12-31T23:30:00Z": false, "9999-12-30T23:30:00Z": true, "2026-11-23T20:30:00+01:00": true, "2026-11-23": false},
	} {
		c := NewCompiler()
		if err := c.AddResource("weiche:///schema.json", map[string]any{"type": "string", "format": format}); err != nil {
			t.Fatal(err)
		}
		s := New(c.MustCompile("weiche:///schema.json"))
		for v, want := range values {
			if err := s.Validate(v); (err == nil) != want {
				t.Errorf("%s %q: %v", format, v, err)
			}
		}
		if err := s.Validate(true); err == nil {
			t.Errorf("%s: true is taken", format)
		}
	}
}
