package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"weiche/internal/submission"
)

// decoder fills Go values from YAML nodes. Unlike yaml.Unmarshal it goes on
// after a fault, knows the column of each, refuses what it does not know
// (fields, aliases, repeated keys, a second document), and takes scalars as they
// are written: an ARS such as 081150003003 needs no quotes.
type decoder struct {
	file     string
	problems Problems
	// at says where a decoded value stands, by its address. Values must not be
	// copied before they are checked.
	at map[any]Pos
}

func newDecoder(file string) *decoder { return &decoder{file: file, at: map[any]Pos{}} }

func (d *decoder) pos(n *yaml.Node) Pos { return Pos{File: d.file, Line: n.Line, Column: n.Column} }

func (d *decoder) fail(n *yaml.Node, format string, args ...any) {
	d.problems = append(d.problems, d.pos(n).Problem(format, args...))
}

// of returns where the value that p points to was written, or around where it
// was left out.
func (d *decoder) of(p any, around Pos) Pos {
	if at, ok := d.at[p]; ok {
		return at
	}
	return around
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// parse returns the one document in data, or nil where it is empty or broken.
func (d *decoder) parse(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		switch err = dec.Decode(&second); {
		case errors.Is(err, io.EOF):
			err = nil
		case err == nil:
			d.fail(&second, "a second document begins here; one file holds one document")
			return nil
		}
	}
	if err != nil {
		p := Problem{File: d.file, Text: "is not YAML: " + err.Error()}
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			p.Line, _ = strconv.Atoi(m[1])
			p.Text = "is not YAML: " + m[2]
		}
		d.problems = append(d.problems, p)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil
	}
	return doc.Content[0]
}

var (
	typePos = reflect.TypeFor[Pos]()
)

func (d *decoder) decode(n *yaml.Node, v reflect.Value, name string) {
	if n.Kind == yaml.AliasNode {
		d.fail(n, "%s: an alias (*%s) stands here; write the value out", name, n.Value)
		return
	}
	if v.CanAddr() && v.Addr().CanInterface() {
		d.at[v.Addr().Interface()] = d.pos(n)
		switch t := v.Addr().Interface().(type) {
		case *Settings:
			if n.Kind != yaml.MappingNode && !null(n) {
				d.fail(n, "%s: a mapping (name: value) is expected, not %s", name, kind(n))
				return
			}
			*t = Settings{node: n, pos: d.pos(n)}
			return
		case yaml.Unmarshaler:
			if err := t.UnmarshalYAML(n); err != nil {
				d.fail(n, "%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
			}
			return
		}
	}
	if v.Kind() == reflect.Pointer {
		if null(n) {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), name)
		return
	}
	if parse := scalarOf(v); parse != nil {
		switch {
		case n.Kind != yaml.ScalarNode:
			d.fail(n, "%s: one value is expected, not %s", name, kind(n))
		case null(n):
			d.fail(n, "%s has no value", name)
		default:
			if err := parse(n.Value); err != nil {
				d.fail(n, "%s: %s", name, err)
			}
		}
		return
	}
	if null(n) {
		return // "kafka:" with everything below it commented out
	}
	switch v.Kind() {
	case reflect.Struct:
		d.object(n, v, name)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fail(n, "%s: a list is expected, not %s", name, kind(n))
			return
		}
		s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		v.Set(s)
		for i, c := range n.Content {
			d.decode(c, v.Index(i), fmt.Sprintf("%s[%d]", name, i))
		}
	case reflect.Map:
		d.mapping(n, v, name)
	default:
		if err := n.Decode(v.Addr().Interface()); err != nil {
			d.fail(n, "%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
		}
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, name string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, "%s: a mapping (name: value) is expected, not %s", name, kind(n))
		return
	}
	t := v.Type()
	v.Set(reflect.MakeMapWithSize(t, len(n.Content)/2))
	d.pairs(n, name, func(k, c *yaml.Node) {
		key, val := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		before := len(d.problems)
		d.decode(k, key, name)
		d.decode(c, val, name+"."+k.Value)
		if len(d.problems) == before {
			v.SetMapIndex(key, val)
		}
	})
}

// field is a field of a struct by its name in YAML.
type field struct {
	name  string
	index []int
}

func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("yaml")
		tag, _, _ = strings.Cut(tag, ",")
		if tag == "-" || f.Type == typePos || !f.IsExported() {
			continue
		}
		if f.Anonymous && !tagged && f.Type.Kind() == reflect.Struct {
			for _, in := range fieldsOf(f.Type) {
				out = append(out, field{in.name, append([]int{i}, in.index...)})
			}
			continue
		}
		if tag == "" {
			tag, _, _ = strings.Cut(f.Tag.Get("json"), ",")
		}
		if tag == "" {
			tag = strings.ToLower(f.Name)
		}
		out = append(out, field{tag, []int{i}})
	}
	return out
}

func (d *decoder) object(n *yaml.Node, v reflect.Value, name string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, "%s: a mapping (name: value) is expected, not %s", name, kind(n))
		return
	}
	if p := v.FieldByName("Pos"); p.IsValid() && p.Type() == typePos {
		p.Set(reflect.ValueOf(d.pos(n)))
	}
	fields := fieldsOf(v.Type())
	d.pairs(n, name, func(k, c *yaml.Node) {
		for _, f := range fields {
			if f.name == k.Value {
				d.decode(c, v.FieldByIndex(f.index), k.Value)
				return
			}
		}
		known := make([]string, len(fields))
		for i, f := range fields {
			known[i] = f.name
		}
		d.fail(k, "unknown field %q%s", clip(k.Value), suggest(k.Value, known))
	})
}

// pairs calls fn for each key and value, and refuses repeated keys.
func (d *decoder) pairs(n *yaml.Node, name string, fn func(k, v *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch line, again := seen[k.Value]; {
		case k.Kind != yaml.ScalarNode:
			d.fail(k, "%s: a name is expected, not %s", name, kind(k))
		case k.Tag == "!!merge":
			d.fail(k, "a merge key (<<) stands here; write the fields out")
		case again:
			d.fail(k, "%q stands here for the second time, first in line %d", clip(k.Value), line)
		default:
			seen[k.Value] = k.Line
			fn(k, n.Content[i+1])
		}
	}
}

// scalarOf returns how v is read from one written value, or nil where v is not
// such a value.
func scalarOf(v reflect.Value) func(string) error {
	if !v.CanAddr() {
		return nil
	}
	switch p := v.Addr().Interface().(type) {
	case *submission.Land:
		return into(p, submission.ParseLand)
	case *submission.Service:
		return into(p, func(s string) (submission.Service, error) {
			if s == string(AnyService) {
				return AnyService, nil
			}
			return submission.ParseService(s)
		})
	case *submission.Region:
		return into(p, submission.ParseRegion)
	case *submission.AuthorityKey:
		return into(p, submission.ParseAuthorityKey)
	case *Bytes:
		return into(p, ParseBytes)
	case *time.Duration:
		return into(p, parseDuration)
	case encoding.TextUnmarshaler:
		return func(s string) error { return p.UnmarshalText([]byte(s)) }
	}
	switch v.Kind() {
	case reflect.String:
		return func(s string) error { v.SetString(s); return nil }
	case reflect.Bool:
		return func(s string) error {
			if s != "true" && s != "false" {
				return fmt.Errorf("true or false is expected, not %q", clip(s))
			}
			v.SetBool(s == "true")
			return nil
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return func(s string) error {
			i, err := strconv.ParseInt(s, 10, v.Type().Bits())
			if err != nil {
				return fmt.Errorf("a whole number is expected, not %q", clip(s))
			}
			v.SetInt(i)
			return nil
		}
	case reflect.Float64:
		return func(s string) error {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
				return fmt.Errorf("a number is expected, not %q", clip(s))
			}
			v.SetFloat(f)
			return nil
		}
	}
	return nil
}

func into[T any](p *T, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		t, err := parse(s)
		if err == nil {
			*p = t
		}
		return err
	}
}

func parseDuration(s string) (time.Duration, error) {
	t, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: a number with its unit is expected, as in 90s, 15m or 168h", clip(s))
	}
	return t, nil
}

var size = regexp.MustCompile(`^([0-9]{1,15}) ?(?:([KMGT])i?)?B?$`)

// ParseBytes reads "1000", "512KB", "20MB", "2GB" in powers of 1024.
func ParseBytes(s string) (Bytes, error) {
	if m := size.FindStringSubmatch(s); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 64)
		shift := 10 * (1 + strings.Index("KMGT", m[2]))
		if m[2] == "" {
			shift = 0
		}
		if err == nil && n <= math.MaxInt64>>shift {
			return Bytes(n << shift), nil
		}
	}
	return 0, fmt.Errorf("%q is not a size: a number of bytes is expected, alone or with KB, MB or GB", clip(s))
}

// String returns the size in the largest unit that divides it.
func (b Bytes) String() string {
	for i := 4; i > 0; i-- {
		if b != 0 && b%(1<<(10*i)) == 0 {
			return fmt.Sprintf("%d%cB", b>>(10*i), " KMGT"[i])
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if null(n) {
		return "nothing"
	}
	return "the value " + strconv.Quote(clip(n.Value))
}

// suggest ends a sentence about an unknown word with the known one it may be
// meant to be.
func suggest(word string, known []string) string {
	best, least := "", 1+len(word)/3
	for _, k := range known {
		if n := distance(word, k); n <= least && (best == "" || n < least) {
			best, least = k, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; is %q meant?", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
