package transform

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"

	"weiche/internal/transform/standard"
)

// Bounds of a table of one's own; a code list has its own.
const (
	maxTableBytes = 8 << 20
	maxTableRows  = 200_000
)

// table is one column of a code list or of a table of one's own, by key. It is
// immutable, and shared by all that look something up in it.
type table struct {
	name   string // as an expression says it
	values map[string]any
	all    []string // the values, each once
	gaps   bool     // some key has none
	areas  bool     // of the register: a key finds the row of the smallest area around it
}

// at is the value in a key's row.
func (t *table) at(key string) (any, bool) {
	if t.areas {
		return t.around(key)
	}
	v, ok := t.values[key]
	return v, ok
}

func newTable(name string, rows map[string]string) *table {
	t := &table{name: name, values: make(map[string]any, len(rows))}
	for key, v := range rows {
		t.values[key] = v
		if v == "" {
			t.gaps = true
		} else {
			t.all = append(t.all, v)
		}
	}
	slices.Sort(t.all)
	t.all = slices.Compact(t.all)
	return t
}

// MarshalJSON names the table: it is what an expression with a table in it is
// told apart by.
func (t *table) MarshalJSON() ([]byte, error) { return json.Marshal(t.name) }

// of are the values that keys lead to.
func (t *table) of(keys []string) []string {
	var out []string
	for _, k := range keys {
		if v, ok := t.at(k); ok && v != "" {
			out = append(out, v.(string))
		}
	}
	return out
}

// tables are what lookups of one file have at hand: the standard's code lists, the
// tables beside the file, and the register.
type tables struct {
	std    *standard.Standard
	dir    string
	shared *Shared
}

// tableKinds are what stands in an expression for a table, with the number of
// texts that name one.
var tableKinds = map[string]int{"codelist": 3, "table": 2, "register": 2}

// tableOf is the table that a call names; nil where it is no call of that kind.
func (r *rewriter) tableOf(n ast.Node) *table {
	x, ok := n.(*ast.CallNode)
	if !ok {
		return nil
	}
	id, _ := x.Callee.(*ast.IdentifierNode)
	if id == nil || tableKinds[id.Value] == 0 {
		return nil
	}
	var words []string
	for _, a := range x.Arguments {
		if s, constant := a.(*ast.StringNode); constant && s.Value != "" {
			words = append(words, s.Value)
		}
	}
	from := r.scope.tables()
	if len(words) != len(x.Arguments) || len(words) != tableKinds[id.Value] || from == nil {
		r.fail("%s takes %d constant texts", id.Value, tableKinds[id.Value])
		return &table{}
	}
	t, err := from.open(id.Value, words)
	if err != nil {
		r.fail("%v", err)
		return &table{}
	}
	return t
}

func (s *scope) tables() *tables {
	for ; s != nil; s = s.after() {
		if s.lookups != nil {
			return s.lookups
		}
	}
	return nil
}

func (f *tables) open(kind string, words []string) (*table, error) {
	name := fmt.Sprintf("%s(%s)", kind, strings.Join(words, ", "))
	if kind == "register" {
		return f.shared.register(name, words[0], words[1])
	}
	var at string // what it is kept under
	var read func() (map[string]string, error)
	if kind == "codelist" {
		at = f.std.Key() + " " + name
		read = func() (map[string]string, error) { return f.std.Column(words[0], words[1], words[2]) }
	} else {
		if !filepath.IsLocal(filepath.FromSlash(words[0])) {
			return nil, fmt.Errorf("the table %q leaves the folder it is named in", words[0])
		}
		file := filepath.Join(f.dir, filepath.FromSlash(words[0]))
		at = file + " " + words[1]
		read = func() (map[string]string, error) { return readTable(file, words[1]) }
	}
	if f.shared == nil {
		rows, err := read()
		return newTable(name, rows), err
	}
	return f.shared.table(at, name, read)
}

// table reads each table once.
func (s *Shared) table(at, name string, read func() (map[string]string, error)) (*table, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[at]; t != nil {
		return t, nil
	}
	rows, err := read()
	if err != nil {
		return nil, err
	}
	t := newTable(name, rows)
	s.tables[at] = t
	return t, nil
}

func readTable(file, column string) (map[string]string, error) {
	base := filepath.Base(file)
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("the table %s cannot be read: %s", base, plainOSError(err))
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxTableBytes+1))
	if err != nil || len(raw) > maxTableBytes {
		return nil, fmt.Errorf("the table %s cannot be read, or is larger than %d bytes", base, maxTableBytes)
	}
	return parseTable(base, raw, column)
}

// parseTable reads a column of a CSV file by its first column: UTF-8, a line of
// names first, separated by semicolons where that line has one, else by commas
// (RFC 4180).
func parseTable(base string, raw []byte, column string) (map[string]string, error) {
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("the table %s is not UTF-8", base)
	}
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	r := csv.NewReader(bytes.NewReader(raw))
	if head, _, _ := bytes.Cut(raw, []byte("\n")); bytes.ContainsRune(head, ';') {
		r.Comma = ';'
	}
	head, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("the table %s has no line of names", base)
	}
	at := slices.Index(head, column)
	if at < 1 {
		return nil, fmt.Errorf("the table %s has no column %q behind its key%s", base, column, hint(column, head))
	}
	out := map[string]string{}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the table %s is no CSV: %s", base, csvText(err))
		}
		line, _ := r.FieldPos(0)
		switch {
		case row[0] == "":
			return nil, fmt.Errorf("the table %s has no key in line %d", base, line)
		case len(out) >= maxTableRows:
			return nil, fmt.Errorf("the table %s has more than %d lines", base, maxTableRows)
		}
		if _, twice := out[row[0]]; twice {
			return nil, fmt.Errorf("the table %s has the key %q twice, in line %d again", base, row[0], line)
		}
		out[row[0]] = strings.TrimSpace(row[at])
	}
}

func csvText(err error) string {
	var pe *csv.ParseError
	if errors.As(err, &pe) {
		return fmt.Sprintf("line %d: %v", pe.Line, pe.Err)
	}
	return err.Error()
}

// tableSetter puts tables where the expression as written names them.
type tableSetter struct{ found map[string]*table }

// Visit implements ast.Visitor.
func (v *tableSetter) Visit(n *ast.Node) {
	x, ok := (*n).(*ast.CallNode)
	if !ok || len(x.Arguments) < 2 {
		return
	}
	if t := v.found[x.Arguments[1].String()]; t != nil {
		x.Arguments[1] = &ast.ConstantNode{Value: t}
	}
}

// tableIn is the table of a lookup; nil where it is written there.
func tableIn(x *ast.CallNode) *table {
	if c, ok := x.Arguments[1].(*ast.ConstantNode); ok {
		t, _ := c.Value.(*table)
		return t
	}
	return nil
}

// looked are the texts a lookup in a table may come to: where its keys are known,
// those they lead to.
func (r *reading) looked(t *table, x *ast.CallNode) []domain {
	values := t.all
	var keys []string
	for _, d := range r.domains(x.Arguments[0]) {
		if d.kind != domainFinite {
			keys = nil
			break
		}
		keys = append(keys, d.values...)
	}
	if keys != nil {
		values = t.of(keys)
	}
	// The register is a Land's to change: what stands there refuses no mapping of all.
	out := []domain{{kind: domainFinite, values: values, text: t.name, loose: keys == nil || t.areas}}
	for _, other := range x.Arguments[2:] {
		out = append(out, r.domains(other)...)
	}
	return out
}
