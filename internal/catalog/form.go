package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"weiche/internal/jsonvalid"
	"weiche/internal/transform"
)

// Violation is one thing that is wrong with a form.
type Violation struct {
	Pointer string // RFC 6901, "" is the form itself
	Text    string // a sentence; it never repeats a value of the form
	German  string // the same in German
}

const cannotCheck = "The form cannot be checked."

type formValidator struct {
	schema jsonvalid.Schema
}

// offline refuses every reference that leaves the form's own file.
type offline struct{}

func (offline) Load(string) (any, error) {
	return nil, errors.New("references that leave the file are not followed")
}

func compileForm(s *transform.FormSchema) (*formValidator, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(s.Raw))
	if err != nil {
		return nil, errors.New("it is not JSON")
	}
	c := jsonvalid.NewCompiler()
	c.UseLoader(offline{})
	const at = "weiche:///form.schema.json"
	if err := c.AddResource(at, doc); err != nil {
		return nil, plain(err)
	}
	schema, err := c.Compile(at)
	if err != nil {
		return nil, plain(err)
	}
	return &formValidator{jsonvalid.New(schema)}, nil
}

// plain keeps a schema error's text on one line.
func plain(err error) error {
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}

// ValidateForm checks a form (decoded JSON; numbers as json.Number or float64)
// against the service's schema and returns everything that is wrong with it, in
// the order of the pointers; nil where nothing is. It is safe for concurrent
// use.
func (p *Process) ValidateForm(form any) []Violation {
	err := p.form.schema.Validate(form)
	if err == nil {
		return nil
	}
	var ve *jsonschema.ValidationError
	if !errors.As(err, &ve) {
		return []Violation{{Text: cannotCheck, German: german[cannotCheck]}}
	}
	c := &collector{form: form, schema: p.Schema}
	c.collect(ve)
	slices.SortStableFunc(c.out, func(a, b Violation) int { return strings.Compare(a.Pointer, b.Pointer) })
	return slices.Compact(c.out)
}

type collector struct {
	form   any
	schema *transform.FormSchema
	out    []Violation
}

func (c *collector) add(at []string, text string, args ...any) {
	c.out = append(c.out, Violation{pointer(at), fmt.Sprintf(text, args...), fmt.Sprintf(german[text], args...)})
}

func (c *collector) collect(e *jsonschema.ValidationError) {
	at := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf:
		if one, ok := k.(*kind.OneOf); ok && len(one.Subschemas) > 0 {
			c.add(at, "The value fits more than one of the alternatives, exactly one is allowed.")
			return
		}
		if constants(e) {
			c.add(at, "The value is none of the allowed ones.")
			return
		}
		c.add(at, "The value fits none of the allowed alternatives.")
		// The alternative that fails least is the one that was meant.
		var best []Violation
		for i, cause := range e.Causes {
			branch := &collector{form: c.form, schema: c.schema}
			branch.collect(cause)
			if i == 0 || len(branch.out) < len(best) {
				best = branch.out
			}
		}
		c.out = append(c.out, best...)
		return
	case *kind.Required:
		for _, name := range k.Missing {
			c.add(append(slices.Clone(at), name), "The field is required and is missing.")
		}
	case *kind.DependentRequired:
		for _, name := range k.Missing {
			c.add(append(slices.Clone(at), name), "The field is required because another one is given (%s).", k.Prop)
		}
	case *kind.Dependency:
		for _, name := range k.Missing {
			c.add(append(slices.Clone(at), name), "The field is required because another one is given (%s).", k.Prop)
		}
	case *kind.AdditionalProperties:
		c.unknown(at, k.Properties)
	case *kind.FalseSchema:
		c.add(at, "The field is not allowed here.")
	case *kind.Type:
		c.add(at, "The value is of type %s, %s is expected.", k.Got, strings.Join(k.Want, " or "))
	case *kind.Enum:
		c.add(at, "The value is none of the %d allowed ones.", len(k.Want))
	case *kind.Const:
		c.add(at, "The value is not the one allowed.")
	case *kind.Format:
		c.format(at, k.Want)
	case *kind.Pattern:
		c.add(at, "The value does not match the pattern %s.", k.Want)
	case *kind.MinLength:
		c.add(at, "The text has %d characters, at least %d are needed.", k.Got, k.Want)
	case *kind.MaxLength:
		c.add(at, "The text has %d characters, at most %d are allowed.", k.Got, k.Want)
	case *kind.MinItems:
		c.add(at, "The list has %d items, at least %d are needed.", k.Got, k.Want)
	case *kind.MaxItems:
		c.add(at, "The list has %d items, at most %d are allowed.", k.Got, k.Want)
	case *kind.UniqueItems:
		c.add(at, "The items %d and %d of the list are equal, they must differ.", k.Duplicates[0], k.Duplicates[1])
	case *kind.Contains, *kind.MinContains:
		c.add(at, "The list lacks an item that it must have.")
	case *kind.MaxContains:
		c.add(at, "The list has an item more often than allowed.")
	case *kind.MinProperties:
		c.add(at, "The group has %d fields, at least %d are needed.", k.Got, k.Want)
	case *kind.MaxProperties:
		c.add(at, "The group has %d fields, at most %d are allowed.", k.Got, k.Want)
	case *kind.Minimum:
		w, _ := k.Want.Float64()
		c.add(at, "The number is below the least allowed, %v.", w)
	case *kind.Maximum:
		w, _ := k.Want.Float64()
		c.add(at, "The number is above the greatest allowed, %v.", w)
	case *kind.ExclusiveMinimum:
		w, _ := k.Want.Float64()
		c.add(at, "The number must be above %v.", w)
	case *kind.ExclusiveMaximum:
		w, _ := k.Want.Float64()
		c.add(at, "The number must be below %v.", w)
	case *kind.MultipleOf:
		w, _ := k.Want.Float64()
		c.add(at, "The number is not a multiple of %v.", w)
	case *kind.PropertyNames:
		c.add(at, "A field has a name that is not allowed.")
	case *kind.Not:
		c.add(at, "The value is what the schema excludes.")
	default:
		if len(e.Causes) == 0 {
			c.add(at, "The value is not allowed by the form's schema.")
		}
	}
	for _, cause := range e.Causes {
		c.collect(cause)
	}
}

// unknown fields are not named: their names come from whoever wrote the form.
func (c *collector) unknown(at, names []string) {
	for _, name := range names {
		if near := c.schema.NearestField(at, name); near != "" {
			c.add(at, "There is a field here that the form's schema does not know; did you mean %q?", near)
		} else {
			c.add(at, "There is a field here that the form's schema does not know.")
		}
	}
}

// constants says that the alternatives are single values.
func constants(e *jsonschema.ValidationError) bool {
	for _, cause := range e.Causes {
		if _, ok := cause.ErrorKind.(*kind.Const); !ok {
			return false
		}
	}
	return len(e.Causes) > 0
}

// format says with an example what was expected. Of dates see jsonvalid.NewCompiler.
func (c *collector) format(at []string, name string) {
	switch like := formatExamples[name]; {
	case like == "":
		c.add(at, "The value does not have the format %q.", name)
	case strings.HasPrefix(name, "date"):
		c.add(at, "The value does not have the format %q (for example %s; from the year 0001 on).", name, like)
	default:
		c.add(at, "The value does not have the format %q (for example %s).", name, like)
	}
}

var formatExamples = map[string]string{
	"date": "2026-11-22", "date-time": "2026-11-22T10:15:30+01:00", "email": "name@example.org",
	"uuid": "60f6667b-fa45-4bd7-b717-f4d6c65e5edb", "uri": "https://example.org",
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

func pointer(at []string) string {
	var b strings.Builder
	for _, p := range at {
		b.WriteByte('/')
		b.WriteString(pointerEscape.Replace(p))
	}
	return b.String()
}
