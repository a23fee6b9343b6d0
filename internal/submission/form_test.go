package submission

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// formByLibrary is what encoding/json makes of one value, and of nothing else.
func formByLibrary(s string) (any, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows")
	}
	return v, nil
}

var forms = []string{
	`null`, `{}`, `[]`, `""`, `0`, `-0`, `10.50`, `1e400`, `12345678901234567890.12345678901234567890`, `true`, `false`,
	` { "a" : [ 1 , 2.0 , { } ] , "b" : null } `, `{"a":1,"a":{"b":2}}`, `"\u00e4\n\"\ud83d\ude00"`, `"\ud83d"`, `"Müller-Łukasz"`,
	"\"\xff\"", "\"\x7f\"", "{\"\xff\":1,\"\xfe\":2}", `"\\"`, `"\"`, `"a`, `"a\`, "\"a\nb\"", "\"\\\nb\"", `"\x"`, `"\u12"`,
	``, ` `, `{`, `[`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `[1,]`, `[1 2]`, `{1:2}`, `{a:1}`, `{"a" 1}`, `{,}`, `[,]`,
	`01`, `-`, `+1`, `1.`, `.5`, `1e`, `1e+`, `0x1`, `1_0`, `NaN`, `Infinity`, `tru`, `nul`, `truefalse`, `1 1`, `{} {}`, `]`, `}`, "\u00a01", "\ufeff{}",
}

func TestFormIsReadAsEncodingJSONReadsIt(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, s := range append(forms, deep(formDepth), deep(formDepth+1), deep(9000), deep(11000), strings.Repeat(`{"a":`, 600)) {
		sameForm(t, s)
	}
}

// FuzzForm holds the quick reader to encoding/json: it never reads what that
// refuses, and never reads anything else.
func FuzzForm(f *testing.F) {
	for _, s := range forms {
		f.Add(s)
	}
	f.Fuzz(sameForm)
}

func sameForm(t *testing.T, s string) {
	r := formReader{s: s}
	got := r.value()
	r.space()
	if r.failed || r.i != len(s) {
		return // left to encoding/json
	}
	if want, err := formByLibrary(s); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%.200q: read %#v; encoding/json says %#v, %v", s, got, want, err)
	}
}

// The quick reader has to read what is usual, or it is of no use.
func TestUsualFormsAreReadTheQuickWay(t *testing.T) {
	rich, sealed := richEnvelope(t)
	r := formReader{s: string(rich.Data)}
	if r.value(); r.failed {
		t.Errorf("stopped at byte %d", r.i)
	}
	j := jsonReader{b: sealed}
	if j.envelope(&Envelope{}); j.failed || j.i != len(sealed) {
		t.Errorf("stopped at byte %d: %.60s", j.i, sealed[j.i:])
	}
	for _, s := range []string{`"\u003cb\u003e"`, `"zwei\nZeilen"`, `{"betrag":10.50}`} {
		r := formReader{s: s}
		if r.value(); r.failed || r.i != len(s) {
			t.Errorf("%s: stopped at byte %d", s, r.i)
		}
	}
}

// An amount keeps its digits.
func TestFormKeepsNumbersExact(t *testing.T) {
	e := Envelope{Data: json.RawMessage(`{"betrag":10.50,"id":12345678901234567890123}`)}
	form, err := e.Form()
	want := map[string]any{"betrag": json.Number("10.50"), "id": json.Number("12345678901234567890123")}
	if err != nil || !reflect.DeepEqual(form, want) {
		t.Errorf("%v, %v", form, err)
	}
	if _, err := (&Envelope{Data: json.RawMessage(`{"a":`)}).Form(); err == nil {
		t.Error("a form that is cut was read")
	}
}
