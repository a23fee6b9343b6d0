package transform

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"weiche/internal/submission"
)

// registerColumns are what the register says of an authority.
var registerColumns = map[string]func(submission.Authority) string{
	"id":      func(a submission.Authority) string { return a.ID },
	"key":     func(a submission.Authority) string { return string(a.Key) },
	"prefix":  func(a submission.Authority) string { return a.Key.Prefix() },
	"kennung": func(a submission.Authority) string { return a.Key.Key() },
	"name":    func(a submission.Authority) string { return a.Name },
	"region":  func(a submission.Authority) string { return string(a.Region) },
}

// register is a column of the configuration's authorities whose DVDV key has a
// prefix, by region. It is the routing's own data, and changes with it: a Shared
// has one configuration's. Where an area has several such authorities, rules
// decide between them, which no table can: its row is there, with a nil.
func (s *Shared) register(name, prefix, column string) (*table, error) {
	value, ok := registerColumns[column]
	if !ok {
		known := slices.Sorted(maps.Keys(registerColumns))
		return nil, fmt.Errorf("the register has no column %q%s; it has %s", column, hint(column, known), strings.Join(known, ", "))
	}
	if s == nil || len(s.authorities) == 0 {
		return nil, errors.New("there is no register at hand: no Land has an authority")
	}
	rows, several := map[string]string{}, map[string]bool{}
	prefixes := map[string]bool{}
	for _, a := range s.authorities {
		prefixes[a.Key.Prefix()] = true
		if a.Key.Prefix() != prefix || a.Region == "" {
			continue
		}
		area := string(a.Region)
		_, twice := rows[area]
		several[area] = several[area] || twice
		rows[area] = value(a)
	}
	if len(rows) == 0 {
		known := slices.Sorted(maps.Keys(prefixes))
		return nil, fmt.Errorf("the register has no authority with the prefix %q%s; it has %s", prefix, hint(prefix, known), strings.Join(known, ", "))
	}
	t := newTable(name, rows)
	t.areas = true
	for area, twice := range several {
		if twice {
			t.values[area] = nil
		}
	}
	return t, nil
}

// around is the row of the smallest area that a region lies in. A text that is no
// region lies in none.
func (t *table) around(key string) (any, bool) {
	region, err := submission.ParseRegion(key)
	if err != nil {
		return nil, false
	}
	for _, area := range region.Areas() {
		if v, ok := t.values[string(area)]; ok {
			return v, v != nil
		}
	}
	return nil, false
}
