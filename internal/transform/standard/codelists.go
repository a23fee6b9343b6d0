package standard

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

// codeList is one installed list. Its values are read when they are first asked
// for. It is safe for concurrent use.
type codeList struct {
	CodeList
	path, sum string

	values atomic.Pointer[map[string]values] // by wanted column
	mu     sync.Mutex                        // for what is not read yet
	err    error
}

type values map[string]struct{}

// load returns the values of a column, of the list's own key column where it
// has none of that name.
func (l *codeList) load(column string) (values, error) {
	if m := l.values.Load(); m != nil {
		if v, ok := (*m)[column]; ok {
			return v, nil
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	raw, err := l.read()
	if err != nil {
		return nil, l.failed(err)
	}
	v, err := readListValues(raw, column)
	if err != nil {
		return nil, l.failed(err)
	}
	grown := map[string]values{column: v}
	if m := l.values.Load(); m != nil {
		for c, other := range *m {
			grown[c] = other
		}
	}
	l.values.Store(&grown)
	return v, nil
}

func (l *codeList) read() ([]byte, error) {
	raw, err := os.ReadFile(l.path)
	if err != nil {
		return nil, errors.New("the file is missing")
	}
	if sum := sha256.Sum256(raw); l.sum != "" && hex.EncodeToString(sum[:]) != l.sum {
		return nil, errors.New("it is not the file that was installed (its SHA-256 differs)")
	}
	return raw, nil
}

func (l *codeList) failed(err error) error {
	l.err = err
	return err
}

// listIndex finds code lists by URI and version. It is immutable.
type listIndex struct {
	lists map[string]map[string]*codeList
	// named are the URIs whose installed versions are taken for all there are:
	// those of the standard's own package and those installed by themselves.
	named map[string]bool
}

// get returns the list of a URI and version, and whether the URI's versions are
// known, so that a version that is not there is wrong and not only missing.
func (x *listIndex) get(uri, version []byte) (l *codeList, known bool) {
	if x == nil {
		return nil, false
	}
	return x.lists[string(uri)][string(version)], x.named[string(uri)]
}

// newest returns the list of a URI with the greatest version.
func (x *listIndex) newest(uri string) *codeList {
	if x == nil {
		return nil
	}
	var out *codeList
	for _, l := range x.lists[uri] {
		if out == nil || len(l.Version) > len(out.Version) || len(l.Version) == len(out.Version) && l.Version > out.Version {
			out = l
		}
	}
	return out
}

// versions lists a URI's installed versions.
func (x *listIndex) versions(uri string) []string {
	var out []string
	for v := range x.lists[uri] {
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}

func (x *listIndex) add(l *codeList, named bool) {
	if x.lists[l.URI] == nil {
		x.lists[l.URI] = map[string]*codeList{}
	}
	if x.lists[l.URI][l.Version] == nil {
		x.lists[l.URI][l.Version] = l
	}
	if named {
		x.named[l.URI] = true
	}
}

// linkLists gives every standard the lists it is checked by: its own first, then
// those that were installed by themselves, then the other standards'.
func (s *Installed) linkLists() {
	all := s.List()
	lists := map[*Standard][]*codeList{}
	for _, std := range all {
		for _, c := range std.CodeLists {
			lists[std] = append(lists[std], &codeList{CodeList: c, path: filepath.Join(std.Dir, filepath.FromSlash(c.File)), sum: std.Files[c.File]})
		}
	}
	for _, std := range all {
		x := &listIndex{lists: map[string]map[string]*codeList{}, named: map[string]bool{}}
		for _, l := range lists[std] {
			x.add(l, true)
		}
		for _, own := range []bool{true, false} {
			for _, other := range all {
				if alone := len(other.Schemas) == 0; alone == own {
					for _, l := range lists[other] {
						x.add(l, alone)
					}
				}
			}
		}
		std.lists = x
	}
}

// NewestList returns the greatest installed version of a code list, "" where none
// is installed.
func (s *Standard) NewestList(uri string) string {
	if l := s.lists.newest(uri); l != nil {
		return l.Version
	}
	return ""
}

// Codes returns what says whether a list has a code in its key column; ok is false
// where the list is not installed, or cannot be read.
func (s *Standard) Codes(uri, version string) (has func(code string) bool, ok bool) {
	l, _ := s.lists.get([]byte(uri), []byte(version))
	if l == nil {
		return nil, false
	}
	codes, err := l.load("")
	if err != nil {
		return nil, false
	}
	return func(code string) bool { _, in := codes[code]; return in }, true
}

// Column returns a column of an installed code list by its key column. It reads
// the file anew each time. The error says what is missing.
func (s *Standard) Column(uri, version, column string) (map[string]string, error) {
	l, _ := s.lists.get([]byte(uri), []byte(version))
	if l == nil {
		return nil, fmt.Errorf("the code list %s, version %s, is not installed", uri, version)
	}
	raw, err := l.read()
	if err != nil {
		return nil, fmt.Errorf("the code list %s, version %s: %w", uri, version, err)
	}
	out, err := readListColumn(raw, column)
	if err != nil {
		return nil, fmt.Errorf("the code list %s, version %s: %w", uri, version, err)
	}
	return out, nil
}
