package test

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// A plan of 1.5 MB arrives in the message itself, byte for byte. A larger one and
// one of another type are refused at the door, at their place and with what to do
// in two languages; no log has a byte of it.
func TestAFileArrivesInTheMessage(t *testing.T) {
	needShared(t)
	needCommand(t, "xmllint")
	r := newRouter(t)
	r.editConfig("services/bauleitplanung/mappings", func(_, text string) string {
		return strings.ReplaceAll(text, `w:if="len(form.anlagen) &lt;= 24 and datei.size &gt; 0 and datei.size &lt;= 131072" w:inline="datei" w:max="128KB"`,
			`w:inline="datei" w:max="2MB" w:types="application/pdf image/*"`)
	})
	r.MustCLI("standards", "import", filepath.Join(shared, "standards/xbeteiligung/1.2"))
	r.Start()

	c := newCanary()
	plan := []byte(c.word("plan") + "\x00\xff\r\n")
	grown := func(size int) []byte { return bytes.Repeat(plan, size/len(plan)+1)[:size] }
	const file = "0d6f2f8a-7a53-4d8e-9a61-5b7d8c9e0f01"
	post := func(key, language, media string, content []byte) answer {
		sum := sha512.Sum512(content)
		var form map[string]any
		if err := json.Unmarshal(example(t, "bauleitplanung", "minimal", nil), &form); err != nil {
			t.Fatal(err)
		}
		form["data"].(map[string]any)["anlagen"] = []any{map[string]any{"attachmentId": file, "bezeichnung": "Planzeichnung"}}
		form["attachments"] = []any{map[string]any{"attachmentId": file, "filename": "plan.pdf", "mimeType": media, "purpose": "attachment",
			"hash": map[string]any{"type": "sha512", "content": hex.EncodeToString(sum[:])}, "content": base64.StdEncoding.EncodeToString(content)}}
		body, err := json.Marshal(form)
		if err != nil {
			t.Fatal(err)
		}
		a, err := r.do("POST", "/v1/submissions", r.Keys["planungsportal-boeblingen"], map[string]string{
			"Idempotency-Key": key, "Content-Type": "application/json", "Accept-Language": language}, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}

	for _, refused := range []struct {
		language, media string
		size            int
		want            []string
	}{
		{"en", "application/pdf", 2<<20 + 1, []string{"Rule attachment-too-large of xbeteiligung/1.2", "send a smaller one"}},
		{"de", "application/pdf", 2<<20 + 1, []string{"Regel attachment-too-large von xbeteiligung/1.2", "Bitte eine kleinere Datei senden"}},
		{"en", "text/plain", 2000, []string{"Rule attachment-type of xbeteiligung/1.2", "send the file as application/pdf, image/*"}},
		{"de", "text/plain", 2000, []string{"Regel attachment-type von xbeteiligung/1.2", "Bitte die Datei in einem dieser Typen senden: application/pdf, image/*"}},
	} {
		a := post(refused.want[0], refused.language, refused.media, grown(refused.size))
		for _, want := range append(refused.want, `"pointer":"/attachments/0"`) {
			if a.Status != http.StatusUnprocessableEntity || !strings.Contains(string(a.Body), want) {
				t.Errorf("the answer lacks %q: %d %s", want, a.Status, a.Body)
			}
		}
	}

	content := grown(3 << 19)
	if a := post("whole", "en", "application/pdf", content); a.Status != http.StatusAccepted {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	id := submission.NewID("planungsportal-boeblingen", "whole").String()
	eventually(t, time.Minute, func() (bool, string) {
		state := r.State("planungsportal-boeblingen", id)
		return state == "delivered", state
	})
	var messages [][]byte
	readAll(t, connect(t, r.Kafka), "fv.bw.beteiligung", func(rec *bus.Record) { messages = append(messages, xmlOf(t, rec)) })
	if len(messages) != 1 {
		t.Fatalf("%d messages", len(messages))
	}
	arrived := inlined(t, messages[0])
	if len(arrived) != 1 || sha512.Sum512(arrived[0]) != sha512.Sum512(content) {
		t.Fatalf("%d files in the message, or other bytes", len(arrived))
	}
	message := filepath.Join(t.TempDir(), "message.xml")
	if err := os.WriteFile(message, messages[0], 0o600); err != nil {
		t.Fatal(err)
	}
	lint(t, filepath.Join(shared, "standards/xbeteiligung/1.2/xbeteiligung.xsd"), message)

	// The story of a message has size and hash of a file, also with values.
	rich := filepath.Join(repo, "config/services/bauleitplanung/examples/rich.json")
	told := r.MustCLI("mapping", "explain", "bauleitplanung", rich, "--values")
	if !strings.Contains(told, "569 bytes, sha512 eb9839b8d00b3c48") || strings.Contains(told, "JVBERi") || strings.Contains(told, "%PDF") {
		t.Errorf("explained: %s", told)
	}

	log := []byte(r.Log())
	for _, f := range c.finders {
		if bytes.Contains(log, f.bytes) || f.fold && bytes.Contains(lower(log), f.bytes) {
			t.Errorf("the log has the content (%s)", f.encoding)
		}
	}
}

// inlined are the files that a planning message carries.
func inlined(t *testing.T, message []byte) (out [][]byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(message))
	for {
		token, err := d.Token()
		if token == nil {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "dokument" {
			continue
		}
		var text string
		if err := d.DecodeElement(&text, &start); err != nil {
			t.Fatal(err)
		}
		content, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(fmt.Errorf("no base64: %w", err))
		}
		out = append(out, content)
	}
}
