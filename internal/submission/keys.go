package submission

import (
	"fmt"
	"regexp"
	"strings"
)

// Land is a tenant: the two-digit key of one of the sixteen Länder, "01" to
// "16" (Destatis, Amtlicher Regionalschlüssel, first two digits). "00" is the
// router itself, for records whose Land is not known.
type Land string

// LandNone owns records that cannot be attributed to a Land.
const LandNone Land = "00"

// ParseLand accepts "01" to "16".
func ParseLand(s string) (Land, error) {
	if len(s) == 2 && s >= "01" && s <= "16" && s[1] >= '0' && s[1] <= '9' {
		return Land(s), nil
	}
	return "", fmt.Errorf("%q is not a Land: two digits from 01 to 16 are expected", clip(s))
}

// Service is a Leistung, named by its LeiKa key of 14 digits.
type Service string

const leikaURN = "urn:de:fim:leika:leistung:"

// ParseService accepts the bare 14 digits of a LeiKa key or its FIM URN.
func ParseService(s string) (Service, error) {
	d := strings.TrimPrefix(s, leikaURN)
	if len(d) == 14 && digits(d) && strings.HasPrefix(d, "99") {
		return Service(d), nil
	}
	return "", fmt.Errorf("%q is not a LeiKa key: 14 digits beginning with 99 are expected, bare or behind %s", clip(s), leikaURN)
}

// URN returns the FIM URN of the service.
func (s Service) URN() string { return leikaURN + string(s) }

// Region is an Amtlicher Regionalschlüssel (ARS) of 2, 3, 5, 9 or 12 digits:
// Land 2, Regierungsbezirk 1, Kreis 2, Verband 4, Gemeinde 3.
type Region string

// regionLengths are the lengths an ARS may have, longest first: the order in
// which responsibility falls back.
var regionLengths = [...]int{12, 9, 5, 3, 2}

// ParseRegion accepts an ARS of 2, 3, 5, 9 or 12 digits, with or without the
// FIT-Connect prefix DE.
func ParseRegion(s string) (Region, error) {
	d := strings.TrimPrefix(s, "DE")
	if digits(d) {
		for _, n := range regionLengths {
			if len(d) == n {
				if _, err := ParseLand(d[:2]); err == nil {
					return Region(d), nil
				}
			}
		}
	}
	return "", fmt.Errorf("%q is not a region: an ARS of 2, 3, 5, 9 or 12 digits is expected, with DE before it or without", clip(s))
}

// Land returns the Land the region lies in, LandNone for the zero Region.
func (r Region) Land() Land {
	if len(r) < 2 {
		return LandNone
	}
	return Land(r[:2])
}

// Within says whether r lies in the area that prefix names (or is that area).
func (r Region) Within(prefix Region) bool { return strings.HasPrefix(string(r), string(prefix)) }

// Areas returns the region and every larger area it lies in, longest first:
// 12, 9, 5, 3, 2 digits, beginning at the region's own length.
func (r Region) Areas() []Region {
	var out []Region
	for _, n := range regionLengths {
		if n <= len(r) {
			out = append(out, r[:n])
		}
	}
	return out
}

// The DVDV's prefixes have two or three letters (ag is the Amtsgericht), but for
// MELDID and töj; keys go into headers, so the last one is left out.
var authorityKey = regexp.MustCompile(`^([a-z]{2,3}|MELDID):[0-9A-Za-z]{1,16}$`)

// AuthorityKey is a DVDV Behördenschlüssel, "prefix:key", as in bab:08115003.
type AuthorityKey string

// ParseAuthorityKey checks the shape of a DVDV key. Shape is all it proves.
func ParseAuthorityKey(s string) (AuthorityKey, error) {
	if authorityKey.MatchString(s) {
		return AuthorityKey(s), nil
	}
	return "", fmt.Errorf("%q is not a DVDV authority key: two or three small letters, a colon and up to 16 letters or digits are expected, as in bab:08115003", clip(s))
}

// Prefix returns the part before the colon.
func (k AuthorityKey) Prefix() string { p, _, _ := strings.Cut(string(k), ":"); return p }

// Key returns the part behind the colon.
func (k AuthorityKey) Key() string { _, s, _ := strings.Cut(string(k), ":"); return s }

// Format is a target standard, version and message, written
// "xbau/2.6/baugenehmigung.antrag.0200".
type Format struct{ Standard, Version, Message string }

// formatPart says whether s matches ^[A-Za-z0-9][A-Za-z0-9._-]*$. By hand, since
// formats are read with every event and delivery.
func formatPart(s string) bool {
	for i := range len(s) {
		c := s[i]
		word := 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !word && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return s != ""
}

// ParseFormat reads "standard/version/message".
func ParseFormat(s string) (Format, error) {
	standard, rest, _ := strings.Cut(s, "/")
	version, message, _ := strings.Cut(rest, "/")
	if formatPart(standard) && formatPart(version) && formatPart(message) {
		return Format{standard, version, message}, nil
	}
	return Format{}, fmt.Errorf("%q is not a format: standard/version/message is expected, as in xbau/2.6/baugenehmigung.antrag.0200", clip(s))
}

// Formats that need neither mapping nor standard: the fields of any form as rows
// of a table, and as pages for a person.
var (
	FormatCSV = Format{"csv", "1.0", "antrag"}
	FormatPDF = Format{"pdf", "1.0", "antrag"}
)

// BuiltIn says that every service can be turned into the format.
func (f Format) BuiltIn() bool { return f == FormatCSV || f == FormatPDF }

// MediaType is the type of a message of the format, as in Content-Type.
func (f Format) MediaType() string {
	switch f {
	case FormatCSV:
		return "text/csv; charset=utf-8; header=present" // RFC 4180, section 3
	case FormatPDF:
		return "application/pdf"
	}
	return "application/xml"
}

// Extension is the ending of the name of a file with such a message.
func (f Format) Extension() string {
	switch f {
	case FormatCSV:
		return ".csv"
	case FormatPDF:
		return ".pdf"
	}
	return ".xml"
}

// String returns "standard/version/message", or "" for the zero format.
func (f Format) String() string {
	if f == (Format{}) {
		return ""
	}
	return f.Standard + "/" + f.Version + "/" + f.Message
}

// append appends what String returns.
func (f Format) append(b []byte) []byte {
	if f == (Format{}) {
		return b
	}
	b = append(append(b, f.Standard...), '/')
	b = append(append(b, f.Version...), '/')
	return append(b, f.Message...)
}

// MarshalText writes the format as String does.
func (f Format) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (f *Format) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*f = Format{}
		return nil
	}
	*f, err = ParseFormat(string(b))
	return err
}

// DestinationName makes a destination's name unique over all Länder: ids are
// unique within their Land only. It stands in events, labels and headers.
func DestinationName(land Land, id string) string { return string(land) + "-" + id }

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// clip bounds what an error text repeats of its input.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
