package submission

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// byLibrary is what encoding/json reads.
func byLibrary(b []byte) (e Envelope, err error) {
	err = json.Unmarshal(b, &e)
	return e, err
}

// sameEnvelope compares but for the form, which is read beside Data.
func sameEnvelope(got *Envelope, want Envelope) bool {
	g := *got
	g.form = nil
	return reflect.DeepEqual(g, want)
}

func TestEnvelopeIsReadAsEncodingJSONReadsIt(t *testing.T) {
	rich, sealed := richEnvelope(t)
	example, err := json.Marshal(exampleEnvelope())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"rich": sealed, "example": example,
		"another order":  []byte(`{"data":{"b":1,"a":[1,2]},"region":"DE08","publicService":{"name":"n","identifier":"i"}}`),
		"white space":    []byte("{ \"region\" : \"DE08\",\n\"data\":{ \"a\" : 1.50 } }"),
		"a space":        []byte(`{"region":"DE08","data": {"a":1},"replyChannel": null}`),
		"unknown member": []byte(`{"region":"DE08","new":true,"data":{}}`),
		"escapes":        []byte(`{"region":"DE08","additionalReferenceInfo":{"senderReference":"a \u0026 \"b\""},"data":{"a":"\u003cb\u003e"}}`),
		"nulls":          []byte(`{"region":null,"data":null,"attachments":null,"replyChannel":null,"test":false}`),
		"no attachments": []byte(`{"publicService":{"identifier":"i"},"region":"DE08","data":{},"attachments":[]}`),
		"a name twice":   []byte(`{"region":"DE08","region":"DE14","data":{"a":1,"a":2}}`),
		"form first":     []byte(`{"data":{"a":1}}`),
	} {
		want, err := byLibrary(b)
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := DecodeEnvelope(b)
		if err != nil || !sameEnvelope(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
	got, err := DecodeEnvelope(sealed)
	if err != nil || string(got.Data) == "" || !reflect.DeepEqual(got.Attachments, rich.Attachments) {
		t.Errorf("%v", err)
	}
}

func TestWhatIsNoEnvelopeIsRefused(t *testing.T) {
	_, sealed := richEnvelope(t)
	for name, b := range map[string][]byte{
		"nothing": nil, "cut": sealed[:len(sealed)-1], "cut in the form": sealed[:len(sealed)/2], "more": append(sealed[:len(sealed):len(sealed)], '}'),
		"list": []byte(`[]`), "number for text": []byte(`{"region":1}`), "broken form": []byte(`{"region":"DE08","data":{"a":01}}`),
		"broken reply": []byte(`{"region":"DE08","data":{},"replyChannel":{"a"}}`), "control": []byte("{\"region\":\"a\nb\",\"data\":{}}"),
	} {
		if e, err := DecodeEnvelope(b); err == nil {
			t.Errorf("%s: read as %+v", name, e)
		}
	}
}

// Every member that an envelope can have is read, also one that is added later:
// this fills them all by reflection.
func TestEveryMemberOfAnEnvelopeIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e Envelope
		fill(t, reflect.ValueOf(&e).Elem())
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if encoded, err := e.Encode(); err != nil || string(encoded) != string(b) {
			t.Fatalf("%s, %v; want %s", encoded, err, b)
		}
		want, err := byLibrary(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeEnvelope(b)
		if err != nil || !sameEnvelope(got, want) {
			t.Fatalf("%s: %+v, %v; want %+v", b, got, err, want)
		}
		form, err := got.Form()
		if wantForm, werr := formByLibrary(string(want.Data)); err != nil || werr != nil || !reflect.DeepEqual(form, wantForm) {
			t.Fatalf("form %v, %v; want %v, %v", form, err, wantForm, werr)
		}
		list, err := json.Marshal(e.Attachments)
		if err != nil {
			t.Fatal(err)
		}
		if encoded, err := EncodeAttachments(e.Attachments); err != nil || string(encoded) != string(list) {
			t.Fatalf("%s, %v; want %s", encoded, err, list)
		}
		if at, err := DecodeAttachments(list); err != nil || !reflect.DeepEqual(at, want.Attachments) && len(want.Attachments) > 0 {
			t.Fatalf("attachments %+v, %v; want %+v", at, err, want.Attachments)
		}
	})
}

func TestAnEnvelopeIsWrittenAsEncodingJSONWritesIt(t *testing.T) {
	for _, data := range []string{"", "null", "{ \"a b\" :\n\t[ 1 , \"x \\\" y\\\\\" , \" \\u0020\" ]\r}", "[ \"<b> &\" , 1 ]", "[ \"\u201ea\u201c\" , \"\u2028\" ]", " [ ] "} {
		e := &Envelope{Region: "08"}
		if data != "" {
			e.Data, e.ReplyChannel = json.RawMessage(data), json.RawMessage(data)
		}
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.Encode(); err != nil || string(got) != string(want) {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
	if got, err := EncodeAttachments(nil); err != nil || string(got) != "[]" {
		t.Errorf("%s, %v", got, err)
	}
}

// fill gives every exported member something to be read.
func fill(t *rapid.T, v reflect.Value) {
	words := rapid.OneOf(rapid.StringMatching(`[a-zäß0-9 ]{1,12}`), rapid.String())
	switch v.Kind() {
	case reflect.String:
		v.SetString(words.Draw(t, "text"))
	case reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "number"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "flag"))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "there") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(t, v.Field(i))
			}
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte(document(2).Draw(t, "json")))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(0, 3).Draw(t, "count"), 3))
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	default:
		t.Fatalf("%s: the test does not know this kind of member", v.Type())
	}
}

// document draws a JSON value.
func document(depth int) *rapid.Generator[string] {
	quoted := rapid.Custom(func(t *rapid.T) string {
		b, _ := json.Marshal(rapid.OneOf(rapid.StringMatching(`[a-zäß0-9 ]{0,9}`), rapid.String()).Draw(t, "text"))
		return string(b)
	})
	leaves := []*rapid.Generator[string]{quoted, rapid.SampledFrom([]string{"null", "true", "false"}),
		rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?`)}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	return rapid.OneOf(append(leaves, rapid.Custom(func(t *rapid.T) string {
		return "[" + strings.Join(rapid.SliceOfN(document(depth-1), 0, 4).Draw(t, "list"), ",") + "]"
	}), rapid.Custom(func(t *rapid.T) string {
		var members []string
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			members = append(members, quoted.Draw(t, "name")+":"+document(depth-1).Draw(t, "value"))
		}
		return "{" + strings.Join(members, ",") + "}"
	}))...)
}
