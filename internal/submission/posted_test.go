package submission

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// What was read once is what encoding/json reads from the same body.
func TestPostedIsWhatEncodingJSONReads(t *testing.T) {
	bodies := []string{
		`{"publicService": {"identifier": "99"}, "region": "08", "data": {}}`,
		"\n{ \"r\\u0065gion\" : \"D\\u00fc\\n\\uD83D\\uDE00\" , \"data\" :\t{ \"a\" : [ 1.50 , {\"data\": 1} , null ] } , \"replyChannel\": {\"fink\": {\"x\" : true}} }\n",
		`{"caseId": "c", "trustLevel": "t", "test": true, "submissionSchema": {"schemaUri": "u", "mimeType": "m"}, "attachments": [],
		  "additionalReferenceInfo": {"senderReference": "Müller", "applicationDate": "2026-11-22"}, "data": {"data": {"replyChannel": 1}}}`,
		`{"additionalReferenceInfo": {}, "submissionSchema": {}, "attachments": [
		  {"attachmentId": "1", "filename": "ä.pdf", "mimeType": "a/b", "purpose": "form", "description": "d", "hash": {"type": "sha512", "content": "00"}, "content": "AA=="},
		  {"attachmentId": "2", "mimeType": "a/b", "purpose": "data", "hash": {"type": "sha512", "content": "01"}, "part": "p"}]}`,
	}
	files, err := filepath.Glob("../../config/services/*/examples/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, string(raw))
	}
	for _, body := range bodies {
		p, err := ReadPosted(body)
		if err != nil {
			t.Fatal(err, body)
		}
		got := p.Envelope()
		form := got.form
		got.form = nil
		want := &Envelope{}
		if err := json.Unmarshal([]byte(body), want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\n%+v", body, got, want)
		}
		if read, err := want.Form(); want.Data != nil && (err != nil || !reflect.DeepEqual(form, read)) {
			t.Errorf("%s: %v, %v, %v", body, form, read, err)
		}
	}
	for _, body := range []string{`[]`, `"a"`, `null`, ` 1 `} {
		if p, err := ReadPosted(body); err != nil || p.Members != nil {
			t.Errorf("%s: %v, %v", body, p, err)
		}
	}
	for _, body := range []string{``, `{`, `{"a":1}}`, `{"a":1,}`, `{"a" 1}`, "{\"a\":\"\x01\"}"} {
		if _, err := ReadPosted(body); err == nil {
			t.Errorf("%s: read", body)
		}
	}
}
