package intake

import (
	"encoding/json"
	"strings"
	"testing"

	"weiche/internal/fault"
)

const sha = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"

// edit changes one member of the sound submission by JSON text.
func edit(path, value string) string {
	base := map[string]json.RawMessage{
		"publicService": json.RawMessage(`{"identifier":"urn:de:fim:leika:leistung:99050012104000"}`),
		"region":        json.RawMessage(`"DE081150003003"`),
		"data":          json.RawMessage(`{"name":"Müller"}`),
		"attachments":   json.RawMessage(`[{"attachmentId":"a1","mimeType":"text/plain","purpose":"attachment","filename":"x.txt","hash":{"type":"sha512","content":"` + sha + `"},"content":"YWJj"}]`),
		"replyChannel":  json.RawMessage(`{"eMail":{"address":"a@example.org"}}`),
	}
	if value == "" {
		delete(base, path)
	} else {
		base[path] = json.RawMessage(value)
	}
	b, _ := json.Marshal(base)
	return string(b)
}

func TestEnvelope(t *testing.T) {
	attachment := func(s string) string {
		return `[{"attachmentId":"a1","mimeType":"text/plain","purpose":"attachment","hash":{"type":"sha512","content":"` + sha + `"}` + s + `}]`
	}
	cases := []struct {
		name, in string
		reason   fault.Reason
		pointers []string
	}{
		{"sound", edit("test", "false"), "", nil},
		{"bare digits", edit("publicService", `{"identifier":"99050012104000"}`), "", nil},
		{"caseId", edit("caseId", `"0190a0b0-1111-7111-8111-111111111111"`), "", nil},
		{"no caseId in braces", edit("caseId", `"{0190a0b0-1111-7111-8111-111111111111}"`), fault.ReasonEnvelopeInvalid, []string{"/caseId"}},
		{"not an object", `[]`, fault.ReasonMalformed, nil},
		{"blank", "  \n", fault.ReasonMalformed, nil},
		{"everything missing", `{}`, fault.ReasonEnvelopeInvalid, []string{"/data", "/publicService", "/region"}},
		{"several faults at once", edit("caseId", `"x"`)[:len(edit("caseId", `"x"`))-1] + `,"tset":true,"trustLevel":"high"}`, fault.ReasonEnvelopeInvalid,
			[]string{"/caseId", "/trustLevel", "/tset"}},
		{"name of another case", edit("Region", `"DE08"`), fault.ReasonEnvelopeInvalid, []string{"/Region"}},
		{"data not an object", edit("data", `"x"`), fault.ReasonEnvelopeInvalid, []string{"/data"}},
		{"service with a typing error", edit("publicService", `{"identifier":"9905001210400"}`), fault.ReasonEnvelopeInvalid, []string{"/publicService/identifier"}},
		{"application date", edit("additionalReferenceInfo", `{"applicationDate":"2026-02-30"}`), fault.ReasonEnvelopeInvalid, []string{"/additionalReferenceInfo/applicationDate"}},
		{"two reply channels", edit("replyChannel", `{"eMail":{"address":"a@b.de"},"fink":{}}`), fault.ReasonEnvelopeInvalid, []string{"/replyChannel"}},
		{"no reply channel in it", edit("replyChannel", `{}`), fault.ReasonEnvelopeInvalid, []string{"/replyChannel"}},
		{"attachment with both", edit("attachments", attachment(`,"content":"YWJj","part":"p"`)), fault.ReasonEnvelopeInvalid, []string{"/attachments/0"}},
		{"attachment with neither", edit("attachments", attachment(``)), fault.ReasonEnvelopeInvalid, []string{"/attachments/0"}},
		{"empty file", edit("attachments", attachment(`,"content":""`)), "", nil},
		{"path as filename", edit("attachments", attachment(`,"content":"","filename":"../x"`)), fault.ReasonEnvelopeInvalid, []string{"/attachments/0/filename"}},
		{"storage named by the portal", edit("attachments", attachment(`,"content":"","blob":"08/x"`)), fault.ReasonEnvelopeInvalid, []string{"/attachments/0/blob"}},
		{"same id twice", edit("attachments", strings.Replace(attachment(`,"content":""`)+attachment(`,"part":"p"`), "][", ",", 1)), fault.ReasonEnvelopeInvalid, []string{"/attachments/1/attachmentId"}},
		{"too many attachments", edit("attachments", "["+strings.Repeat("1,", 100)+"1]"), fault.ReasonTooMany, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, p := parse([]byte(c.in), 64, 100)
			if p == nil {
				if c.reason != "" {
					t.Fatalf("was let through; want %s", c.reason)
				}
				return
			}
			var got []string
			for _, f := range p.Faults {
				got = append(got, f.Pointer)
				if f.Text.EN == "" || f.Text.DE == "" {
					t.Errorf("%s: a sentence is missing", f.Pointer)
				}
			}
			if p.Reason != c.reason || strings.Join(got, " ") != strings.Join(c.pointers, " ") {
				t.Errorf("got %s at %v, want %s at %v", p.Reason, got, c.reason, c.pointers)
			}
		})
	}
}

// Names and numbers of the schema may be told, values of the portal never.
func TestEnvelopeFaultsQuoteNothing(t *testing.T) {
	const canary = "Kanarienvogel"
	bad := edit("region", `{"`+"x"+`":"`+canary+`"}`)
	for _, in := range []string{
		bad, edit("caseId", `"`+canary+`"`), edit("trustLevel", `"`+canary+`"`), edit("data", `"`+canary+`"`),
		edit("publicService", `{"identifier":"`+canary+`"}`), edit("additionalReferenceInfo", `{"applicationDate":"`+canary+`"}`),
		edit("attachments", `[{"attachmentId":"`+canary+` ","filename":"a/`+canary+`","hash":{"type":"`+canary+`","content":"`+canary+`"},"mimeType":"`+canary+`","purpose":"`+canary+`","content":"x"}]`),
		edit("submissionSchema", `{"mimeType":"`+canary+`"}`), edit("replyChannel", `"`+canary+`"`),
	} {
		_, p := parse([]byte(in), 64, 100)
		if p == nil {
			t.Errorf("was let through: %s", in)
			continue
		}
		for _, l := range []Language{English, German} {
			b, err := json.Marshal(p.Document(l))
			if err != nil || strings.Contains(string(b), canary) {
				t.Errorf("the problem quotes: %s %v", b, err)
			}
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(edit("test", "true")))
	f.Add([]byte(edit("data", `{"a":{"b":[1.5,null]}}`)))
	f.Add([]byte(edit("replyChannel", `{"elster":{"accountId":"1"}}`)))
	f.Add([]byte(edit("attachments", `[{"part":"p"}]`)))
	f.Add([]byte(`{"publicService":{"identifier":1},"region":[],"data":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, p := parse(b, 64, 100)
		if p != nil {
			if _, err := json.Marshal(p.Document(German)); err != nil || p.Status() >= 500 {
				t.Fatalf("%v %v", p, err)
			}
			return
		}
		if in.form == nil || in.envelope.PublicService.Identifier == "" {
			t.Fatalf("let through without form or service: %q", b)
		}
	})
}

func TestProblemTypes(t *testing.T) {
	known := map[fault.Reason]bool{}
	for _, r := range fault.Reasons() {
		known[r] = true
	}
	types := map[string]bool{}
	for _, r := range Reasons() {
		p := NewProblem(r)
		if !known[r] {
			t.Errorf("%s is no reason of package fault", r)
		}
		if types[p.Type()] {
			t.Errorf("%s stands twice", p.Type())
		}
		types[p.Type()] = true
		for _, l := range []Language{English, German} {
			if p.Title(l) == "" || !strings.HasSuffix(p.Detail(l), ".") && !strings.HasSuffix(p.Detail(l), "“.") {
				t.Errorf("%s has no title or no sentence in %s", r, l.Tag())
			}
		}
		if p.Title(English) == p.Title(German) {
			t.Errorf("%s: the title is not translated", r)
		}
		if p.Temporary() != (p.RetryAfter > 0) {
			t.Errorf("%s: a fault of ours, and only that, says when to try again", r)
		}
	}
}
