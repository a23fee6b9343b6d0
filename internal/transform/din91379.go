package transform

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// din91379Pattern is the data type C of DIN 91379: all normative letters with
// their sequences and the normative other characters, as the standards' own
// din-91379-datatypes.xsd lists them.
const din91379Pattern = `^(?:[\t\n\r -~\x{00A0}-\x{00AC}\x{00AE}-žƇƈƏƗƠơƯưƷǍ-ǜǞǟǢ-ǰǴǵǸ-ǿȒȓȘ-țȞȟȧ-ȳəɨʒ\x{02B9}\x{02BA}\x{02BE}\x{02BF}\x{02C8}\x{02CC}ḂḃḆḇḊ-ḑḗḜ-ḫḯ-ḷḺḻṀ-ṉṒ-ṛṞ-ṣṪ-ṯẀ-ẇẌ-ẗẞẠ-ỹ’‡€]|[CFGKMPSTZcfgkmpstz]\x{0300}|[JjÿĪī]\x{0301}|[DK-Ndk-n]\x{0302}|[CFHKNPSTZcfhknpstzÛûḲḳṢṣṬṭỤụ]\x{0304}|[CMNRZcmnrzÇç]\x{0306}|[KUku]\x{0307}|[CTZczẠạỌọỤụ]\x{0308}|[Aa]\x{030B}|J\x{030C}|[ēō]\x{030D}|[Mm]\x{0310}|[CKPTckptČč]\x{0315}|[KTkt]\x{031B}|[Ss]\x{031B}\x{0304}|[CPcpČč]\x{0323}|[LRlr]\x{0325}|[LRlr]\x{0325}\x{0304}|[CHKLNchklnŽž]\x{0326}|[ZzŽž]\x{0327}|[Cc]\x{0328}\x{0306}|[HSs]\x{0331}|K\x{035F}H|[Kk]\x{035F}h)*$`

// din91379Text puts a text into the form that DIN 91379 asks for, NFC, and frees it
// of what cannot be seen and has no place there: spaces of other widths become
// spaces, other line ends newlines, characters without width go. What is then no
// text of the data type C, or nothing, is an error.
func din91379Text(v any) (any, error) {
	s, err := toText(v)
	if err != nil || s == "" {
		return s, err
	}
	out := s
	if !plainASCII(s) {
		out = norm.NFC.String(strings.Map(visible, s))
	}
	switch {
	case out == "":
		return nil, valueError("the text has no character that can be seen")
	case utf8.RuneCountInString(out) > utf8.RuneCountInString(s), !din91379.MatchString(out):
		return nil, valueError("the text has a character that DIN 91379 does not")
	}
	return out, nil
}

var din91379 = regexp.MustCompile(din91379Pattern)

func plainASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// visible is -1 for a character that goes.
func visible(r rune) rune {
	switch {
	case r == '\u0085' || r == '\u2028' || r == '\u2029':
		return '\n'
	case r == '\u00a0':
		return r // DIN 91379 has it
	case unicode.Is(unicode.Zs, r):
		return ' '
	case unicode.Is(unicode.Cf, r):
		return -1
	}
	return r
}
