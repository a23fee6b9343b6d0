package intake

import (
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"weiche/internal/fault"
)

func TestScan(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	cases := []struct {
		name, in string
		reason   fault.Reason
		pointer  string
	}{
		{"object", `{"a":1,"b":[true,false,null,"x",-1.5e+10,{}],"c":{"a":[]}}`, "", ""},
		{"scalar", ` "x" `, "", ""},
		{"as deep as allowed", deep(64), "", ""},
		{"one deeper", deep(65), fault.ReasonTooDeep, "/" + strings.TrimSuffix(strings.Repeat("0/", 64), "/")},
		{"three million deep", strings.Repeat(`{"a":`, 3_000_000), fault.ReasonTooDeep, "/" + strings.TrimSuffix(strings.Repeat("a/", 64), "/")},
		{"empty", "", fault.ReasonMalformed, ""},
		{"cut", `{"a":[1,`, fault.ReasonMalformed, "/a/1"},
		{"cut in a string", `{"a":"x`, fault.ReasonMalformed, "/a"},
		{"cut in an escape", `{"a":"\u00`, fault.ReasonMalformed, "/a"},
		{"tail", `{} {}`, fault.ReasonMalformed, ""},
		{"comma before", `[,1]`, fault.ReasonMalformed, "/0"},
		{"comma behind", `[1,]`, fault.ReasonMalformed, "/1"},
		{"comma behind a member", `{"a":1,}`, fault.ReasonMalformed, "/a"},
		{"no colon", `{"a" 1}`, fault.ReasonMalformed, "/a"},
		{"no quotes", `{a:1}`, fault.ReasonMalformed, ""},
		{"wrong bracket", `[1}`, fault.ReasonMalformed, "/0"},
		{"comment", `{"a":1 /* x */}`, fault.ReasonMalformed, "/a"},
		{"NaN", `{"a":NaN}`, fault.ReasonMalformed, "/a"},
		{"leading zero", `{"a":01}`, fault.ReasonMalformed, "/a"},
		{"plus", `{"a":+1}`, fault.ReasonMalformed, "/a"},
		{"bare minus", `{"a":-}`, fault.ReasonMalformed, "/a"},
		{"no fraction", `{"a":1.}`, fault.ReasonMalformed, "/a"},
		{"no exponent", `{"a":1e}`, fault.ReasonMalformed, "/a"},
		{"byte order mark", "\uFEFF{}", fault.ReasonMalformed, ""},
		{"same name twice", `{"x":{"a":1,"b":2,"a":3}}`, fault.ReasonMalformed, "/x/a"},
		{"same name, escaped", `{"a":1,"\u0061":2}`, fault.ReasonMalformed, "/a"},
		{"same name in another object", `{"a":{"a":1},"b":{"a":1}}`, "", ""},
		{"same name after an inner object", `{"a":{"b":1},"b":{},"a":2}`, fault.ReasonMalformed, "/a"},
		{"escaped name in a pointer", `{"a/b~c":[0,tru]}`, fault.ReasonMalformed, "/a~1b~0c/1"},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", fault.ReasonMalformed, ""},
		{"lone high surrogate", `{"a":"\ud800"}`, fault.ReasonMalformed, "/a"},
		{"lone low surrogate", `{"a":"\udc00"}`, fault.ReasonMalformed, "/a"},
		{"high surrogate before another letter", `{"a":"\ud800\u0041"}`, fault.ReasonMalformed, "/a"},
		{"surrogate pair", `{"a":"\ud83d\ude00"}`, "", ""},
		{"raw control character", "{\"a\":\"\x01\"}", fault.ReasonMalformed, "/a"},
		{"NUL", `{"a":"x\u0000"}`, fault.ReasonMalformed, "/a"},
		{"backspace", `{"a":"\b"}`, fault.ReasonMalformed, "/a"},
		{"U+FFFE", "{\"a\":\"\uFFFE\"}", fault.ReasonMalformed, "/a"},
		{"U+FFFD", "{\"a\":\"\uFFFD\"}", "", ""},
		{"tab, line feed", `{"a":"\t\n\r\"\\\/"}`, "", ""},
		{"number as long as allowed", `{"a":` + strings.Repeat("1", maxNumber) + `}`, "", ""},
		{"longer number", `{"a":` + strings.Repeat("1", maxNumber+1) + `}`, fault.ReasonTooLarge, "/a"},
		{"huge exponent", `{"a":1e999999999}`, fault.ReasonTooLarge, "/a"},
		{"huge negative exponent", `{"a":[1e-999999999]}`, fault.ReasonTooLarge, "/a/0"},
		{"string as long as allowed", `{"a":"` + strings.Repeat("x", maxString) + `"}`, "", ""},
		{"longer string", `{"a":"` + strings.Repeat("x", maxString+1) + `"}`, fault.ReasonTooLarge, "/a"},
		{"longer string in an attachment", `{"attachments":[{"content":"` + strings.Repeat("x", maxString+1) + `"}]}`, "", ""},
		{"longer string beside the attachments", `{"attachments":[],"a":{"attachments":"` + strings.Repeat("x", maxString+1) + `"}}`, fault.ReasonTooLarge, "/a/attachments"},
		{"longer name", `{"` + strings.Repeat("x", maxName+2) + `":1}`, fault.ReasonTooLarge, ""},
		{"values beyond number", "[" + strings.Repeat("0,", maxValues) + "0]", fault.ReasonTooMany, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := scan(c.in, 64)
			switch {
			case p == nil && c.reason == "":
				return
			case p == nil:
				t.Fatalf("was let through; want %s", c.reason)
			case p.Reason != c.reason:
				t.Fatalf("got %v, want %q", p, c.reason)
			}
			got := ""
			if len(p.Faults) > 0 {
				got = p.Faults[0].Pointer
			}
			if got != c.pointer {
				t.Errorf("pointer %q, want %q", got, c.pointer)
			}
		})
	}
}

// Memory of the scan is bounded by the depth that is allowed, not by the text.
func TestScanAllocatesLittle(t *testing.T) {
	deep := strings.Repeat(`{"a":[`, 3_000_000)
	wide := "[" + strings.Repeat(`{"name":"Müller","list":[1,2,3]},`, 20_000) + "0]"
	for name, in := range map[string]string{"deep": deep, "wide": wide} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		scan(in, 64)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 2<<20 {
			t.Errorf("%s: %d bytes allocated for a text of %d", name, got, len(in))
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":[1,2,{"b":null}],"c":"\u00e4\ud83d\ude00"}`, `[1e5,-0.1,0]`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, "\xff", `[[[[`, `"`, `{"a"`,
		`{"attachments":[{"content":"AAAA"}]}`, `1e401`, ` `, `tru`, `{"a/b":[0,]}`, `01`, `-`, "{\"\u2028\":1}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := scan(string(b), 32)
		if p == nil {
			// What passes is JSON for everybody.
			if !json.Valid(b) || !utf8.Valid(b) {
				t.Fatalf("let through what is no JSON: %q", b)
			}
			return
		}
		if p.Reason == fault.ReasonMalformed && json.Valid(b) && utf8.Valid(b) && !stricter(b) {
			t.Fatalf("refused valid JSON: %q: %v", b, p)
		}
		_ = p.Document(German)
	})
}

// stricter says whether the text has something that JSON allows and the door
// does not: escapes of surrogates or control characters, names twice.
func stricter(b []byte) bool {
	if bytes.Contains(b, []byte(`\u`)) || bytes.Contains(b, []byte(`\b`)) || bytes.Contains(b, []byte(`\f`)) ||
		bytes.ContainsRune(b, 0xFFFE) || bytes.ContainsRune(b, 0xFFFF) {
		return true
	}
	d := json.NewDecoder(bytes.NewReader(b))
	type level struct {
		object, name bool
		seen         map[string]bool
	}
	var stack []level
	for {
		tok, err := d.Token()
		if err != nil {
			return false
		}
		var top *level
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}
		if s, ok := tok.(string); ok && top != nil && top.object && top.name {
			if top.seen[s] {
				return true
			}
			top.seen[s], top.name = true, false
			continue
		}
		if top != nil && top.object {
			top.name = true
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{true, true, map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
			if len(stack) > 0 && stack[len(stack)-1].object {
				stack[len(stack)-1].name = true
			}
		}
	}
}
