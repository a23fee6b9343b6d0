package standard

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"

	"weiche/internal/transform/xsd"
)

// latin is one of the data types of DIN 91379 (2022-08), or its forerunner
// String.Latin: a repetition of allowed characters and sequences, as its schema
// writes it. It is safe for concurrent use.
type latin struct {
	name    string
	pattern string
	once    sync.Once
	prefix  *regexp.Regexp
}

// latinOf returns the type of DIN 91379 that a type is, or is derived from.
func (b *graphBuilder) latinOf(s *xsd.Simple) *latin {
	for ; s != nil; s = s.Base {
		din := strings.Contains(s.Name.Space, "91379") && strings.HasPrefix(s.Name.Local, "datatype")
		if !din && s.Name.Local != "String.Latin" || len(s.Patterns) == 0 {
			continue
		}
		if b.latins[s] == nil {
			name := s.Name.Local
			if din {
				name = "DIN 91379 " + name
			}
			b.latins[s] = &latin{name: name, pattern: s.Patterns[len(s.Patterns)-1][0]}
		}
		return b.latins[s]
	}
	return nil
}

// first returns the first character of a value that the type does not allow
// where it stands, and its place, counted from 1. ok is false where all are
// allowed, or the type's pattern is none that can be followed.
func (l *latin) first(value string) (r rune, place int, ok bool) {
	l.once.Do(func() {
		// Go's syntax agrees with XML Schema's on what such a type consists of:
		// characters, ranges, groups, alternatives, a repetition.
		if re, err := regexp.Compile("^(?:" + l.pattern + ")"); err == nil {
			re.Longest()
			l.prefix = re
		}
	})
	if l.prefix == nil {
		return 0, 0, false
	}
	end := 0
	if at := l.prefix.FindStringIndex(value); at != nil {
		end = at[1]
	}
	if end == len(value) {
		return 0, 0, false
	}
	r, _ = utf8.DecodeRuneInString(value[end:])
	return r, utf8.RuneCountInString(value[:end]) + 1, true
}

func (l *latin) describe(r rune, place int) string {
	return fmt.Sprintf("the character at place %d, U+%04X, is none that %s allows there", place, r, l.name)
}
