package transform

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"weiche/internal/config"
)

var tableNamed = regexp.MustCompile(`\btable\(\s*['"]([^'"]+)['"]`)

// Unused warns of fragments and of tables, beside them or beside mappings, that
// none of the mappings uses. It reads what the files say, so that a mapping which
// is refused, or whose standard is not installed, counts like any other.
func (s *Shared) Unused(mappings []string) config.Problems {
	used, folders := map[string]bool{}, map[string]bool{}
	for _, file := range mappings {
		folders[filepath.Dir(file)] = true
		s.follow(file, used)
	}
	var out config.Problems
	warn := func(file, what string) {
		if !used[file] {
			out = append(out, config.Problem{File: file, Line: 1, Severity: config.Warning, Text: fmt.Sprintf("no mapping uses the %s %s", what, filepath.Base(file))})
		}
	}
	for _, name := range s.names() {
		warn(s.path(name), "fragment")
		folders[filepath.Dir(s.path(name))] = true
	}
	for folder := range folders {
		tables, _ := filepath.Glob(filepath.Join(folder, "*.csv"))
		for _, file := range tables {
			warn(file, "table")
		}
	}
	slices.SortFunc(out, func(a, b config.Problem) int { return strings.Compare(a.File, b.File) })
	return out
}

// follow notes the files that a mapping or a fragment names, and those that they
// name.
func (s *Shared) follow(file string, used map[string]bool) {
	if used[file] {
		return
	}
	used[file] = true
	for _, words := range wordsOfFile(file) {
		if words.fragment {
			s.follow(s.path(words.text), used)
			continue
		}
		for _, m := range tableNamed.FindAllStringSubmatch(words.text, -1) {
			used[filepath.Join(filepath.Dir(file), filepath.FromSlash(m[1]))] = true
		}
	}
}

type fileWords struct {
	text     string
	fragment bool // the name of one
}

// wordsOfFile are the attributes and texts of a file, up to where it is no XML.
func wordsOfFile(file string) []fileWords {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	var out []fileWords
	for d := xml.NewDecoder(io.LimitReader(f, mappingLimits.Bytes)); ; {
		token, err := d.Token()
		if err != nil {
			return out
		}
		switch x := token.(type) {
		case xml.CharData:
			out = append(out, fileWords{string(x), false})
		case xml.StartElement:
			include := x.Name == xml.Name{Space: mappingNamespace, Local: "include"}
			for _, a := range x.Attr {
				out = append(out, fileWords{a.Value, include && a.Name == xml.Name{Local: "fragment"}})
			}
		}
	}
}
