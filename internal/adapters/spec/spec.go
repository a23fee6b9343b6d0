// Package spec is what every adapter kind is written against: the interface an
// adapter fulfils, the things it is given, and the description of its settings.
//
// A kind describes its settings once, as a list of fields. From that one list
// come the strict check with file and line, the defaults, the masked listing
// and the reference page. The package knows no kind; the registry above it does.
package spec

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/submission"
)

// Adapter hands messages to one destination. Deliver returns nil only when the
// destination has the message for good, and *submission.Pending where that is
// known only later or the next step wants something on record. Its other errors are *fault.Error whose texts
// carry no payload, no secret and nothing the destination wrote. A context that
// was cancelled is Cancelled, a deadline that ran out is Retryable. Deliver is
// safe for concurrent use and may be called again with the same delivery id.
//
// An adapter that holds connections also implements io.Closer; Close is called
// once, after the last Deliver has returned.
type Adapter interface {
	Deliver(ctx context.Context, d *submission.Delivery) error
}

// Bus is what adapters need of a Kafka cluster.
type Bus interface {
	Append(ctx context.Context, recs ...*bus.Record) error
	EnsureTopics(ctx context.Context, topics []bus.Topic) error
}

// ClosableBus is a cluster of an adapter's own.
type ClosableBus interface {
	Bus
	Close() error
}

// Deps is what an adapter gets from the process it runs in.
type Deps struct {
	// Bus is the router's own cluster. Nil is allowed where no destination uses it.
	Bus Bus
	// OpenBus connects to another cluster; nil means bus.Open without metrics.
	OpenBus func(ctx context.Context, cfg bus.Config) (ClosableBus, error)
	// DataDir is where relative directories lie.
	DataDir string
	// SecretsDir is where relative secret and certificate files lie; empty means
	// DataDir.
	SecretsDir string
	// Clock is the time signatures carry; nil means time.Now.
	Clock func() time.Time
	// Log gets one line where something is noticed that is nobody's fault; nil
	// discards.
	Log *slog.Logger
}

// WithDefaults fills in what was left out.
func (d Deps) WithDefaults() Deps {
	if d.OpenBus == nil {
		log := d.Log
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		d.OpenBus = func(ctx context.Context, cfg bus.Config) (ClosableBus, error) {
			b, err := bus.Open(ctx, cfg, log, nil)
			if err != nil {
				return nil, err
			}
			return b, nil
		}
	}
	if d.SecretsDir == "" {
		d.SecretsDir = d.DataDir
	}
	if d.Clock == nil {
		d.Clock = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return d
}

// DataPath resolves a directory of the settings.
func (d Deps) DataPath(p string) string { return under(d.DataDir, p) }

// SecretPath resolves a secret or certificate file of the settings; "" stays "".
func (d Deps) SecretPath(p string) string { return under(d.SecretsDir, p) }

func under(dir, p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(dir, p)
}

// Type is how a field is written.
type Type string

// The types.
const (
	Text     Type = "text"
	URL      Type = "URL"  // http or https, masked without its query
	Path     Type = "path" // a file or directory
	List     Type = "list of texts"
	Bool     Type = "true or false"
	Number   Type = "whole number"
	Duration Type = "duration"
	Size     Type = "size" // bytes, "20MB"
)

var goTypes = map[Type]reflect.Type{
	Text: reflect.TypeFor[string](), URL: reflect.TypeFor[string](), Path: reflect.TypeFor[string](),
	List: reflect.TypeFor[[]string](), Bool: reflect.TypeFor[bool](), Number: reflect.TypeFor[int](),
	Duration: reflect.TypeFor[time.Duration](), Size: reflect.TypeFor[config.Bytes](),
}

// Field is one setting of a kind.
type Field struct {
	Name     string
	Type     Type
	Required bool
	Default  any    // of the Go type that Values returns; nil: the zero value
	Secret   bool   // never listed; prefer files, whose paths are no secret
	Doc      string // one or more sentences, Markdown
	Example  string // as it would be written, for the reference page
}

// Kind is one way of delivering.
type Kind struct {
	Name    string // as in destinations' "adapter"
	Summary string // one sentence
	Doc     string // Markdown for the reference page: what the receiver sees, which answers mean what
	Fields  []Field
	// Check looks at what one field alone cannot say; nil where there is nothing.
	Check func(Values) []Complaint
	// New makes an adapter for the destination of this name. It touches neither
	// network nor disk, so that a destination at fault stops nobody's start.
	New func(destination string, v Values, deps Deps) (Adapter, error)
}

// Complaint is what is wrong with a field's value.
type Complaint struct{ Field, Text string }

// Values are decoded settings, with defaults filled in. Asking for a field the
// kind does not have, or by the wrong type, panics: it is a mistake in the code
// of the kind.
type Values struct {
	values map[string]reflect.Value
	fields []Field
}

// Text returns the value of a Text, URL or Path field.
func (v Values) Text(name string) string { return get[string](v, name) }

// List returns the value of a List field.
func (v Values) List(name string) []string { return get[[]string](v, name) }

// Bool returns the value of a Bool field.
func (v Values) Bool(name string) bool { return get[bool](v, name) }

// Number returns the value of a Number field.
func (v Values) Number(name string) int { return get[int](v, name) }

// Duration returns the value of a Duration field.
func (v Values) Duration(name string) time.Duration { return get[time.Duration](v, name) }

// Size returns the value of a Size field, in bytes.
func (v Values) Size(name string) int64 { return int64(get[config.Bytes](v, name)) }

func get[T any](v Values, name string) T {
	f, ok := v.values[name]
	if !ok {
		panic("adapter setting " + name + " is not in the kind's fields")
	}
	return f.Interface().(T)
}

// Decode reads a destination's settings strictly: unknown, repeated, misshapen
// and missing fields are problems with file and line, and so is what the kind's
// own check says.
func (k Kind) Decode(s config.Settings) (Values, config.Problems) {
	members := make([]reflect.StructField, len(k.Fields))
	for i, f := range k.Fields {
		members[i] = reflect.StructField{
			Name: fmt.Sprintf("F%d", i), Type: goTypes[f.Type], Tag: reflect.StructTag(`yaml:"` + f.Name + `"`),
		}
	}
	into := reflect.New(reflect.StructOf(members))
	for i, f := range k.Fields {
		if f.Default != nil {
			into.Elem().Field(i).Set(reflect.ValueOf(f.Default))
		}
	}
	var problems config.Problems
	if err := s.Decode(into.Interface()); err != nil {
		if ps, ok := err.(config.Problems); ok { //nolint:errorlint // Decode returns it unwrapped, as it says
			problems = append(problems, ps...)
		} else {
			problems = append(problems, s.Pos().Problem("the settings cannot be read"))
		}
	}
	v := Values{values: map[string]reflect.Value{}, fields: k.Fields}
	for i, f := range k.Fields {
		v.values[f.Name] = into.Elem().Field(i)
	}
	if problems.Failed() {
		return v, problems
	}
	for _, f := range k.Fields {
		switch {
		case f.Required && v.values[f.Name].IsZero():
			problems = append(problems, s.At(f.Name).Problem("%s needs %s, which is missing%s", k.Name, f.Name, example(f)))
		case f.Type == URL && v.Text(f.Name) != "":
			if text := checkURL(v.Text(f.Name)); text != "" {
				problems = append(problems, s.At(f.Name).Problem("%s: %s", f.Name, text))
			}
		case f.Type == Number && v.Number(f.Name) < 0, f.Type == Duration && v.Duration(f.Name) < 0, f.Type == Size && v.Size(f.Name) < 0:
			problems = append(problems, s.At(f.Name).Problem("%s: less than nothing", f.Name))
		}
	}
	if !problems.Failed() && k.Check != nil {
		for _, c := range k.Check(v) {
			problems = append(problems, s.At(c.Field).Problem("%s: %s", c.Field, c.Text))
		}
	}
	return v, problems
}

func example(f Field) string {
	if f.Example == "" {
		return ""
	}
	return ", as in " + f.Name + ": " + f.Example
}

func checkURL(raw string) string {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "an address with http:// or https:// and a host is expected"
	case u.User != nil:
		return "an address with a user or password in it; put the secret into a file and name the file"
	case u.Fragment != "":
		return "an address with a fragment (#…), which is never sent"
	}
	return ""
}

// Setting is one line of a masked listing.
type Setting struct {
	Name, Value string
	Default     bool // the value is the default
}

// Masked lists the values for people: secrets show as ***, and addresses
// without their query, where keys like to hide.
func (v Values) Masked() []Setting {
	out := make([]Setting, 0, len(v.fields))
	for _, f := range v.fields {
		val := v.values[f.Name]
		s := Setting{Name: f.Name, Value: show(val), Default: isDefault(f, val)}
		switch {
		case f.Secret && s.Value != "":
			s.Value = "***"
		case f.Type == URL:
			if base, query, has := strings.Cut(s.Value, "?"); has && query != "" {
				s.Value = base + "?***"
			}
		}
		out = append(out, s)
	}
	return out
}

func isDefault(f Field, v reflect.Value) bool {
	if f.Default == nil {
		return v.IsZero()
	}
	return reflect.DeepEqual(v.Interface(), f.Default)
}

func show(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case []string:
		return strings.Join(x, ", ")
	case config.Bytes:
		return x.String()
	case time.Duration:
		return short(x)
	}
	return fmt.Sprint(v.Interface())
}

func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// DefaultText is a field's default as it would be written, "" where it has none.
func (f Field) DefaultText() string {
	if f.Default == nil {
		return ""
	}
	return show(reflect.ValueOf(f.Default))
}
