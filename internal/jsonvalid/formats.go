package jsonvalid

import (
	"errors"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// NewCompiler returns a compiler of draft 2020-12 that asserts formats. Dates are
// those that XML has too: RFC 3339 counts from the year 0000, which XML Schema 1.0
// does not have (part 2, section 3.2.7). Of date-times the first and the last day
// are refused as well: in another zone they may lie beyond.
func NewCompiler() *jsonschema.Compiler {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.RegisterFormat(narrowed("date", "0000-"))
	c.RegisterFormat(narrowed("date-time", "0000-", "0001-01-01", "9999-12-31"))
	return c
}

var errNoSuchDay = errors.New("XML has no such day")

// narrowed is a format of the library's without what begins so.
func narrowed(name string, without ...string) *jsonschema.Format {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("format.json", map[string]any{"format": name}); err != nil {
		panic(err)
	}
	known := c.MustCompile("format.json").Format
	return &jsonschema.Format{Name: name, Validate: func(v any) error {
		if s, ok := v.(string); ok {
			for _, prefix := range without {
				if strings.HasPrefix(s, prefix) {
					return errNoSuchDay
				}
			}
		}
		return known.Validate(v)
	}}
}
