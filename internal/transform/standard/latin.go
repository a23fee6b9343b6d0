package standard

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/beevik/etree"
)

// simple is what the check needs of a simple type.
type simple struct{ enumerated bool }

func readSimple(el *etree.Element) *simple {
	for _, r := range el.ChildElements() {
		if r.Tag != "restriction" {
			continue
		}
		for _, f := range r.ChildElements() {
			if f.Tag == "enumeration" {
				return &simple{enumerated: true}
			}
		}
	}
	return &simple{}
}

// latin is one of the data types of DIN 91379 (2022-08), or its forerunner
// String.Latin: a repetition of allowed characters and sequences, as its schema
// writes it. It is safe for concurrent use.
type latin struct {
	name    string
	pattern string
	once    sync.Once
	prefix  *regexp.Regexp
}

func latinOf(el *etree.Element, d *Document) *latin {
	name := el.SelectAttrValue("name", "")
	din := strings.Contains(d.Target, "91379") && strings.HasPrefix(name, "datatype")
	if !din && name != "String.Latin" {
		return nil
	}
	for _, r := range el.ChildElements() {
		for _, f := range r.ChildElements() {
			if f.Tag == "pattern" && r.Tag == "restriction" {
				if din {
					name = "DIN 91379 " + name
				}
				return &latin{name: name, pattern: f.SelectAttrValue("value", "")}
			}
		}
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
