package transform

import (
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// valueError says what is wrong with a value without quoting it.
type valueError string

func (e valueError) Error() string { return string(e) }

// berlin is the zone in which administration dates its messages.
var berlin = mustLocation("Europe/Berlin")

// Zone is the zone in which administration dates its messages.
func Zone() *time.Location { return berlin }

func mustLocation(name string) *time.Location {
	l, err := time.LoadLocation(name)
	if err != nil {
		panic("the time zone data of " + name + " is missing: " + err.Error())
	}
	return l
}

const (
	dateLayout     = "2006-01-02"
	dateTimeLayout = "2006-01-02T15:04:05.000Z07:00"
)

// isEmpty: absent, null, "", an empty list or group, not a number.
func isEmpty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case string:
		return x == ""
	case json.Number:
		return x == ""
	case []any:
		return len(x) == 0
	case map[string]any:
		return len(x) == 0
	case float64:
		return math.IsNaN(x)
	}
	return false
}

// toText is a value as it stands in the message; "" is empty.
func toText(v any) (string, error) {
	switch x := v.(type) {
	case nil:
		return "", nil
	case string:
		return x, nil
	case json.Number:
		if strings.ContainsAny(string(x), "eE") {
			return decimalText(string(x), -1)
		}
		return string(x), nil
	case bool:
		return strconv.FormatBool(x), nil
	case int:
		return strconv.Itoa(x), nil
	case int64:
		return strconv.FormatInt(x, 10), nil
	case float64:
		switch {
		case math.IsNaN(x):
			return "", nil
		case math.IsInf(x, 0):
			return "", valueError("the result is not a finite number")
		}
		return strconv.FormatFloat(x, 'f', -1, 64), nil
	case time.Time:
		return x.In(berlin).Format(dateTimeLayout), nil
	case uuid.UUID:
		return x.String(), nil
	case []any:
		if len(x) == 0 {
			return "", nil
		}
		return "", valueError("the value is a list where a text is expected")
	case map[string]any:
		if len(x) == 0 {
			return "", nil
		}
		return "", valueError("the value is a group of fields where a text is expected")
	}
	return "", valueError("the value is of a kind that has no text")
}

// toNumber is a value as int or float64; what is empty is NaN, which compares
// false with everything.
func toNumber(v any) (any, error) {
	switch x := v.(type) {
	case int, float64:
		return x, nil
	case int64:
		return int(x), nil
	case json.Number:
		return parseNumber(string(x))
	case string:
		if x == "" {
			return math.NaN(), nil
		}
		return parseNumber(strings.TrimSpace(x))
	}
	if isEmpty(v) {
		return math.NaN(), nil
	}
	return nil, valueError("the value is not a number")
}

func parseNumber(s string) (any, error) {
	if i, err := strconv.Atoi(s); err == nil {
		return i, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, valueError("the value is not a number")
	}
	return f, nil
}

// toBool is a condition: absent is false.
func toBool(v any) (bool, error) {
	switch x := v.(type) {
	case nil:
		return false, nil
	case bool:
		return x, nil
	}
	return false, valueError("the condition is neither true nor false")
}

// toList is a value as a list: absent is none.
// toSized is what has a length, of which nothing is known but that.
func toSized(v any) (any, error) {
	switch v.(type) {
	case nil, []any, []string:
		return toList(v)
	case map[string]any:
		return nil, valueError("the value is a group of fields where a list or a text is expected")
	}
	return toText(v)
}

func toList(v any) (any, error) {
	switch x := v.(type) {
	case nil:
		return []any{}, nil
	case []any:
		return v, nil
	case []string:
		out := make([]any, len(x))
		for i := range x {
			out[i] = x[i]
		}
		return out, nil
	}
	return nil, valueError("the value is not a list")
}

var decimalNumber = regexp.MustCompile(`^[+-]?(\d{1,200}(\.\d{0,200})?|\.\d{1,200})([eE][+-]?\d{1,2})?$`)

// decimalText writes xs:decimal, without an exponent; digits < 0 keeps what is
// written.
func decimalText(s string, digits int) (string, error) {
	s = strings.TrimSpace(s)
	if places, plain := plainDecimal(s); plain && (digits < 0 || places <= digits) {
		return padded(s, places, digits), nil
	}
	if !decimalNumber.MatchString(s) {
		return "", valueError("the value is not a decimal number")
	}
	if digits < 0 && !strings.ContainsAny(s, "eE") {
		return strings.TrimPrefix(s, "+"), nil
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return "", valueError("the value is not a decimal number")
	}
	if digits >= 0 {
		return r.FloatString(digits), nil
	}
	out := r.FloatString(300) // exact: at most 200 places and an exponent of -99
	return strings.TrimSuffix(strings.TrimRight(out, "0"), "."), nil
}

// plainDecimal says whether s is a number as most forms have it, digits without
// a leading zero and at most one point between them, and how many places it has.
func plainDecimal(s string) (places int, plain bool) {
	whole, fraction, point := strings.Cut(s, ".")
	if whole == "" || len(whole) > 1 && whole[0] == '0' || point && fraction == "" || len(s) > 100 {
		return 0, false
	}
	for _, part := range [2]string{whole, fraction} {
		for i := range len(part) {
			if part[i] < '0' || part[i] > '9' {
				return 0, false
			}
		}
	}
	return len(fraction), true
}

// padded has zeros behind it up to so many places.
func padded(s string, places, digits int) string {
	if places >= digits {
		return s
	}
	if places == 0 {
		s += "."
	}
	return s + strings.Repeat("0", digits-places)
}

var germanDate = regexp.MustCompile(`^\d{1,2}\.\d{1,2}\.\d{4}$`)

// parseTime reads an ISO date, an RFC 3339 time or a German date. bare says
// that no time of day was given.
func parseTime(v any) (t time.Time, bare bool, err error) {
	if x, ok := v.(time.Time); ok {
		return x, false, nil
	}
	s, ok := v.(string)
	if !ok {
		return time.Time{}, false, valueError("the value is not a date")
	}
	s = strings.TrimSpace(s)
	switch {
	case len(s) == len(dateLayout):
		if t, err = time.ParseInLocation(dateLayout, s, berlin); err == nil {
			return t, true, nil
		}
	case len(s) > len(dateLayout):
		if t, err = time.Parse(time.RFC3339Nano, s); err == nil {
			return t, false, nil
		}
	}
	if germanDate.MatchString(s) {
		if t, err = time.ParseInLocation("2.1.2006", s, berlin); err == nil {
			return t, true, nil
		}
	}
	return time.Time{}, false, valueError("the value is neither a date (2026-11-22, 22.11.2026) nor a time (RFC 3339)")
}

func dateText(v any) (string, error) {
	if isEmpty(v) {
		return "", nil
	}
	t, _, err := parseTime(v)
	if err != nil {
		return "", err
	}
	return t.In(berlin).Format(dateLayout), nil
}

func dateTimeText(v any) (string, error) {
	if isEmpty(v) {
		return "", nil
	}
	t, _, err := parseTime(v)
	if err != nil {
		return "", err
	}
	return t.In(berlin).Format(dateTimeLayout), nil
}
