package console

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"weiche/internal/submission"
)

// unquoted refuses an operator's reason that repeats what stands in a form: it
// stands in the account for ever, in plain text. Forms may be nil.
func unquoted(reason string, forms ...*submission.Envelope) error {
	said := " " + plainWords(reason) + " "
	for _, env := range forms {
		if env == nil {
			continue
		}
		form, err := env.Form()
		if err == nil && quoted(said, form) {
			return unprocessable("reason-quotes-form", "The reason quotes the form",
				"It stands in the account for ever, in plain text. Name the field, not what stands in it.")
		}
	}
	return nil
}

// Words of a value that prove a quotation, in characters; of longer texts only
// the whole counts, since they hold any word.
const (
	wholeValue = 3
	oneWord    = 5
	shortText  = 6 // words
)

// quoted says whether a value of the form is said: as a whole, and where it is
// short (a name, a street) by one of its words.
func quoted(said string, v any) bool {
	var text string
	switch x := v.(type) {
	case map[string]any:
		for _, m := range x {
			if quoted(said, m) {
				return true
			}
		}
		return false
	case []any:
		return slices.ContainsFunc(x, func(m any) bool { return quoted(said, m) })
	case string:
		text = plainWords(x)
	case json.Number:
		text = plainWords(x.String())
	}
	says := func(word string, least int) bool {
		return utf8.RuneCountInString(word) >= least && strings.Contains(said, " "+word+" ")
	}
	words := strings.Fields(text)
	return says(text, wholeValue) || len(words) <= shortText && slices.ContainsFunc(words, func(w string) bool { return says(w, oneWord) })
}

// plainWords leaves letters and digits of a text, in small letters, with single
// blanks between the words.
func plainWords(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }), " ")
}
