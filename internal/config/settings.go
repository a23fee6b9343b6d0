package config

import (
	"bytes"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// Settings are an adapter's own settings, not yet understood. The zero Settings
// are empty. Safe for concurrent use.
type Settings struct {
	node *yaml.Node
	pos  Pos
}

// ParseSettings reads settings from YAML text; file is the name that problems
// carry.
func ParseSettings(file, text string) (Settings, error) {
	d := newDecoder(file)
	s := Settings{pos: Pos{File: file, Line: 1}}
	if n := d.parse([]byte(text)); n != nil {
		d.decode(n, reflect.ValueOf(&s).Elem(), "settings")
	}
	return s, d.problems.Err()
}

// Decode fills the struct that into points to. Fields are named by their yaml
// tag. Fields the struct lacks, repeated ones and values of the wrong shape are
// errors; the error is of type Problems, with file and line of each. Fields not
// written keep the value they have.
func (s Settings) Decode(into any) error {
	if s.node == nil {
		return nil
	}
	d := newDecoder(s.pos.File)
	d.decode(s.node, reflect.ValueOf(into).Elem(), "settings")
	return d.problems.Err()
}

// Pos returns where the settings begin.
func (s Settings) Pos() Pos { return s.pos }

// At returns where a field's value stands, or where the settings begin where it
// is not written.
func (s Settings) At(field string) Pos {
	if s.node != nil && s.node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(s.node.Content); i += 2 {
			if v := s.node.Content[i+1]; s.node.Content[i].Value == field {
				return Pos{File: s.pos.File, Line: v.Line, Column: v.Column}
			}
		}
	}
	return s.pos
}

// Equal says whether both are written the same, comments and places apart.
func (s Settings) Equal(o Settings) bool { return bytes.Equal(s.canonical(), o.canonical()) }

func (s Settings) canonical() []byte {
	if s.node == nil || null(s.node) {
		return nil
	}
	var v any
	if s.node.Decode(&v) != nil {
		return nil
	}
	b, _ := yaml.Marshal(v) // sorts the keys
	return b
}

// DecodeFile fills the struct that into points to from a YAML file beside the
// configuration, as strictly as the configuration itself. A field Pos of type
// Pos in any struct gets the place of the struct.
func DecodeFile(file string, into any) Problems {
	l := loader{}
	d, _, ok := l.read(file, into)
	if !ok {
		d.add(Pos{File: file}.Problem("the file is missing"))
	}
	return d.problems
}
