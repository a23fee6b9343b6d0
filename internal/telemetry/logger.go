// Package telemetry gives the process its logger, its metrics registry and its
// trace contexts.
//
// The logger is a guard: a value prints only where its type is known to be free
// of payload. Payload types, byte slices, decoded forms, unknown structs and
// errors that quote their input print a placeholder, whatever the attribute is
// called and however deep it lies. The package refuses to be the only guard: a
// string that already holds payload cannot be told from one that does not.
package telemetry

import (
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

const redacted = "[redacted]"

// Bounds of what one value prints.
const (
	maxText     = 2048 // bytes of a string
	maxElements = 64   // of a slice or map
	maxDepth    = 6
)

// Sensitive is implemented by types that must never be logged, keys and sealed
// records among them. The method does nothing.
type Sensitive interface{ Sensitive() }

// Secret is a string that never prints: not in the log, not by fmt, not as
// JSON. Convert it to string to use it.
type Secret string

// Sensitive marks the type for the log's redaction.
func (Secret) Sensitive() {}

// Format prints a placeholder, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText writes a placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// NewLogger returns a logger that writes JSON lines to w, redacted as the
// package says. It is safe for concurrent use.
func NewLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: guard}))
}

// secretKeys are attribute names under which nothing prints, in lower case
// without separators. They are the second line; types are the first.
var secretKeys = map[string]bool{
	"authorization": true, "apikey": true, "bearer": true, "cookie": true, "password": true, "passwd": true,
	"secret": true, "token": true, "privatekey": true, "senderreference": true, "filename": true, "replychannel": true,
	"payload": true,
}

var separators = strings.NewReplacer("_", "", "-", "", ".", "")

// guard is called for every attribute that is no group, time, level and message
// included. None is exempt by its name: a caller may call anything "level".
func guard(_ []string, a slog.Attr) slog.Attr {
	if secretKeys[separators.Replace(strings.ToLower(a.Key))] {
		return slog.String(a.Key, redacted)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		return slog.String(a.Key, text(a.Value.String()))
	case slog.KindAny:
		return slog.Any(a.Key, clean(a.Value.Any(), 0))
	default:
		return a
	}
}

var (
	userinfo = regexp.MustCompile(`(://)[^/@\s"']*@`)
	query    = regexp.MustCompile(`(://[^?\s"']*\?)[^\s"']+`)
)

// text prints a string: without the user information and query of any URL in
// it, and not longer than a line of a log should be.
func text(s string) string {
	if strings.Contains(s, "://") {
		s = userinfo.ReplaceAllString(s, "${1}"+redacted+"@")
		s = query.ReplaceAllString(s, "${1}"+redacted)
	}
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "… [" + strconv.Itoa(len(s)) + " bytes]"
	}
	return s
}

// clean turns a value into what may print: scalars, slices and maps of them,
// errors, and the few types known to be free of payload. The rest becomes a
// placeholder that names the type.
func clean(v any, depth int) any {
	if depth > maxDepth {
		return redacted
	}
	switch x := v.(type) {
	case nil:
		return nil
	case Sensitive:
		return hidden(v)
	case slog.LogValuer:
		return cleanValue(slog.AnyValue(x).Resolve(), depth+1)
	case slog.Value:
		return cleanValue(x.Resolve(), depth+1)
	case slog.Attr:
		return cleanGroup([]slog.Attr{x}, depth+1)
	case []slog.Attr:
		return cleanGroup(x, depth+1)
	case error:
		return text(errorText(x))
	case time.Time:
		return x
	case *time.Time:
		if x == nil {
			return nil
		}
		return *x
	case time.Duration:
		return x.String()
	case uuid.UUID:
		return x.String()
	case *url.URL:
		if x == nil {
			return nil
		}
		// A query may carry what a portal sent.
		return (&url.URL{Scheme: x.Scheme, Host: x.Host, Path: x.Path}).String()
	case submission.Format, netip.Addr, netip.AddrPort, slog.Level:
		b, err := x.(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return hidden(v)
		}
		return string(b)
	case json.Number:
		return hidden(v) // stands in decoded forms only
	case fault.Class:
		return x.String()
	}
	return cleanReflected(reflect.ValueOf(v), depth)
}

// cleanReflected prints by kind. Structs, interfaces' contents in maps and
// slices (decoded JSON), bytes, functions and channels do not.
func cleanReflected(v reflect.Value, depth int) any {
	switch v.Kind() {
	case reflect.Bool:
		return v.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return v.Uint()
	case reflect.Float32, reflect.Float64:
		return v.Float()
	case reflect.String:
		return text(v.String())
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		if v.Elem().CanInterface() {
			return clean(v.Elem().Interface(), depth+1)
		}
	case reflect.Slice, reflect.Array:
		elem := v.Type().Elem()
		if elem.Kind() == reflect.Uint8 {
			return hidden(v.Interface())
		}
		if v.Kind() == reflect.Slice && v.IsNil() {
			return nil
		}
		out := make([]any, 0, min(v.Len(), maxElements))
		for i := range min(v.Len(), maxElements) {
			out = append(out, cleanElement(v.Index(i), elem, depth))
		}
		return out
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			return hidden(v.Interface())
		}
		elem := v.Type().Elem()
		if elem.Kind() == reflect.Interface || v.IsNil() {
			return hidden(v.Interface()) // a decoded form: its keys are payload too
		}
		out := make(map[string]any, min(v.Len(), maxElements))
		for it := v.MapRange(); it.Next() && len(out) < maxElements; {
			key := it.Key().String()
			a := guard(nil, slog.Any(key, it.Value().Interface()))
			out[text(key)] = a.Value.Any()
		}
		return out
	}
	return hidden(v.Interface())
}

// cleanElement hides bare values held as interfaces: a []any of strings is a
// decoded form, a []error is not.
func cleanElement(v reflect.Value, elem reflect.Type, depth int) any {
	x := v.Interface()
	if elem.Kind() == reflect.Interface && elem.NumMethod() == 0 {
		switch x.(type) {
		case slog.Value, slog.Attr, error, uuid.UUID, time.Time, time.Duration, nil:
		default:
			return hidden(x)
		}
	}
	return clean(x, depth+1)
}

func cleanValue(v slog.Value, depth int) any {
	switch v.Kind() {
	case slog.KindGroup:
		return cleanGroup(v.Group(), depth)
	case slog.KindAny:
		return clean(v.Any(), depth)
	case slog.KindString:
		return text(v.String())
	default:
		return v.Any()
	}
}

func cleanGroup(attrs []slog.Attr, depth int) any {
	out := make(map[string]any, len(attrs))
	for _, a := range attrs {
		a.Value = a.Value.Resolve()
		if a.Value.Kind() == slog.KindGroup {
			if depth > maxDepth {
				out[a.Key] = redacted
				continue
			}
			out[a.Key] = cleanGroup(a.Value.Group(), depth+1)
			continue
		}
		a = guard(nil, a)
		out[a.Key] = a.Value.Any()
	}
	return out
}

func hidden(v any) string { return fmt.Sprintf("[redacted %s]", reflect.TypeOf(v)) }

// errorText returns an error's text, or the placeholder where something in its
// chain is known to quote its input. A fault's text is free of payload by
// contract, and stands for its whole chain.
func errorText(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		if quotes(err, f) {
			return f.Error()
		}
		return err.Error()
	}
	if quotes(err, nil) {
		return hidden(err)
	}
	return err.Error()
}

// quotes walks the chain down to stop and says whether a link quotes input. It
// looks at each link by itself, so errors.Is and errors.As would be wrong.
//
//nolint:errorlint // see above
func quotes(err error, stop error) bool {
	if err == nil || err == stop {
		return false
	}
	switch err.(type) {
	case Sensitive,
		*strconv.NumError, *time.ParseError, *url.EscapeError,
		*json.SyntaxError, *json.UnmarshalTypeError, *json.InvalidUnmarshalError, *json.MarshalerError, *json.UnsupportedValueError,
		*xml.SyntaxError, *xml.UnsupportedTypeError, *xml.TagPathError, xml.UnmarshalError,
		base64.CorruptInputError, hex.InvalidByteError:
		return true
	}
	switch x := err.(type) {
	case interface{ Unwrap() error }:
		return quotes(x.Unwrap(), stop)
	case interface{ Unwrap() []error }:
		for _, e := range x.Unwrap() {
			if quotes(e, stop) {
				return true
			}
		}
	}
	return false
}
