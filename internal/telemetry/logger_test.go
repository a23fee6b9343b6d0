package telemetry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
	"weiche/internal/telemetry"
)

const canary = "Kanarienvogel"

// sealed stands for seal's types, which this package may not import.
type sealed struct{ Text string }

func (sealed) Sensitive() {}

type valuer struct{ v slog.Value }

func (v valuer) LogValue() slog.Value { return v.v }

type stringer struct{ s string }

func (s stringer) String() string { return s.s }

func (s stringer) MarshalText() ([]byte, error) { return []byte(s.s), nil }

func (s stringer) MarshalJSON() ([]byte, error) { return json.Marshal(s.s) }

type bytesLike []byte

// payloads returns one of each type that must not print, holding the canary.
func payloads(t *testing.T) map[string]any {
	t.Helper()
	env := submission.Envelope{
		Data:                    json.RawMessage(`{"name":"` + canary + `"}`),
		AdditionalReferenceInfo: &submission.AdditionalReferenceInfo{SenderReference: canary},
		ReplyChannel:            json.RawMessage(`"` + canary + `"`),
		Attachments:             []submission.Attachment{{Filename: canary, Content: canary}},
	}
	var form any
	if err := json.Unmarshal([]byte(`{"`+canary+`":["`+canary+`",{"a":"`+canary+`"}]}`), &form); err != nil {
		t.Fatal(err)
	}
	_, atoi := strconv.Atoi(canary)
	_, parseTime := time.Parse(time.RFC3339, canary)
	var target struct{ A int }
	unmarshal := json.Unmarshal([]byte(`{"a":"`+canary+`"}`), &target)
	_, unescape := url.QueryUnescape("%" + canary)
	withUser, err := url.Parse("https://" + canary + ":" + canary + "@host.example/hook?x=" + canary)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, withUser.String(), strings.NewReader(canary))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", canary)
	d := submission.Delivery{Message: []byte(canary), Attachments: []submission.File{{Filename: canary}}}
	return map[string]any{
		"envelope": env, "*envelope": &env, "attachment": env.Attachments[0], "attachments": env.Attachments,
		"reference": env.AdditionalReferenceInfo, "delivery": d, "*delivery": &d, "file": d.Attachments[0],
		"bytes": []byte(canary), "raw": env.Data, "named bytes": bytesLike(canary), "array": [13]byte([]byte(canary)), "buffer": bytes.NewBufferString(canary),
		"form": form, "form list": []any{canary, form}, "form map": map[string]any{"a": canary}, "form lists": map[string][]any{"a": {canary}},
		"number": json.Number(canary), "sensitive": sealed{canary}, "*sensitive": &sealed{canary}, "secret": telemetry.Secret(canary),
		"struct": struct{ A string }{canary}, "*struct": &struct{ A string }{canary}, "stringer": stringer{canary}, "*stringer": &stringer{canary},
		"url": withUser, "url value": *withUser, "url text": withUser.Redacted() + " https://" + canary + "@x/", "request": req, "header": req.Header,
		"NumError": atoi, "ParseError": parseTime, "UnmarshalTypeError": unmarshal, "EscapeError": unescape,
		"SyntaxError": &xml.SyntaxError{Msg: canary}, "wrapped": fmt.Errorf("form: %w", atoi), "joined": errors.Join(errors.New("x"), parseTime),
		"fault":          fault.Wrap(errors.New(canary), fault.Permanent, fault.ReasonMalformed, "not JSON"),
		"fault wrapping": fmt.Errorf("intake: %w", fault.Wrap(atoi, fault.Permanent, fault.ReasonMalformed, "not JSON")),
		"valuer":         valuer{slog.AnyValue(env)}, "valuer group": valuer{slog.GroupValue(slog.Any("x", form))},
		"deep": []map[string][]*valuer{{"a": {{slog.AnyValue(env)}}}},
		"func": func() string { return canary }, "chan": make(chan string),
		"keyed": map[string]string{"senderReference": canary},
	}
}

// TestNoPayloadInTheLog logs every payload type under every shape a call may
// have, and looks for the canary as it is, in base64 and in hex.
func TestNoPayloadInTheLog(t *testing.T) {
	for name, p := range payloads(t) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := telemetry.NewLogger(&out, slog.LevelDebug)
			log.Info("flat", "x", p)
			log.Info("group", slog.Group("g", slog.Any("x", p), slog.Group("h", slog.Any("y", p))))
			log.Info("list", "x", []any{p, []any{p}}, "y", [1]any{p})
			log.Info("map", "x", map[string]any{"a": p}, "y", map[int]any{1: p})
			log.Info("attrs", "x", []slog.Attr{slog.Any("a", p)}, "y", slog.Any("b", p), "z", []slog.Value{slog.AnyValue(p)})
			log.Info("valuer", "x", valuer{slog.AnyValue(p)}, "y", &valuer{slog.GroupValue(slog.Any("a", p), slog.Group("b", slog.Any("c", p)))})
			log.Info("pointer", "x", &p)
			log.With("x", p).WithGroup("g").With("y", p).ErrorContext(t.Context(), "with", "z", p)
			log.LogAttrs(t.Context(), slog.LevelWarn, "attrs", slog.Any("error", p), slog.Any("msg", p), slog.Any("level", p), slog.Any("time", p))
			if n := bytes.Count(out.Bytes(), []byte("\n")); n != 9 {
				t.Errorf("%d lines; want 9", n)
			}
			look(t, out.String())
		})
	}
}

func look(t *testing.T, out string) {
	t.Helper()
	numbers := fmt.Sprintf("%d", []byte(canary)) // [75 97 …]
	numbers = numbers[1:20]
	forms := []string{canary, hex.EncodeToString([]byte(canary)), numbers, strings.ReplaceAll(numbers, " ", ",")}
	for shift := range 3 { // base64 of the canary anywhere in a longer text
		enc := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", shift) + canary))
		forms = append(forms, enc[4:len(enc)-4])
	}
	for _, f := range forms {
		if i := strings.Index(out, f); i >= 0 {
			t.Fatalf("the log shows the canary: …%s…", out[max(0, i-80):min(len(out), i+80)])
		}
	}
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %.200s", line)
		}
	}
}

func TestNothingSecretUnderATellingName(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, slog.LevelInfo)
	for _, key := range []string{"password", "Authorization", "api_key", "API-Key", "token", "senderReference", "sender_reference", "filename"} {
		log.Info("x", key, canary, slog.Group("g", slog.String(key, canary)), "m", map[string]string{key: canary})
	}
	look(t, out.String())
}

func TestWhatMayPrintDoesPrint(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, slog.LevelInfo)
	id := uuid.MustParse("6f1c2a34-5b6d-5e7f-8a9b-0c1d2e3f4a5b")
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	_, missing := os.Open("/no/such/file")
	hook, err := url.Parse("https://u:p@host.example/hook")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("started",
		"id", id, "land", submission.Land("08"), "format", submission.Format{Standard: "xbau", Version: "2.6", Message: "m"},
		"reason", fault.ReasonPaused, "class", fault.Permanent, "at", at, "wait", 5*time.Second, "n", 3, "ok", true, "list", []string{"a", "b"},
		"ids", []uuid.UUID{id}, "error", fault.New(fault.Retryable, fault.ReasonTimeout, "no answer in %d s", 30), "missing", missing,
		"errors", []error{context.Canceled}, "hook", hook, "kafka", "kafka://user:pass@broker:9092", "none", nil, "empty", (*time.Time)(nil),
		"counts", map[string]int{"08": 1}, "float", 1.5, slog.Group("g", "land", submission.Land("14")), "text", strings.Repeat("x", 5000))
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	want := map[string]any{
		"level": "INFO", "msg": "started", "id": id.String(), "land": "08", "format": "xbau/2.6/m", "reason": "paused", "class": "permanent",
		"at": "2026-11-22T12:00:00Z", "wait": 5e9, "n": 3.0, "ok": true, "list": []any{"a", "b"}, "ids": []any{id.String()},
		"error": "timeout: no answer in 30 s", "missing": "open /no/such/file: no such file or directory", "errors": []any{"context canceled"},
		"hook": "https://host.example/hook", "kafka": "kafka://[redacted]@broker:9092", "none": nil, "empty": nil,
		"counts": map[string]any{"08": 1.0}, "float": 1.5, "g": map[string]any{"land": "14"},
		"text": strings.Repeat("x", 2048) + "… [5000 bytes]",
	}
	delete(got, "time")
	for k, v := range want {
		if fmt.Sprint(got[k]) != fmt.Sprint(v) {
			t.Errorf("%s prints %.200v; want %.200v", k, got[k], v)
		}
		delete(got, k)
	}
	if len(got) > 0 {
		t.Errorf("also printed: %v", got)
	}
}

func TestMessagesAreCleanedToo(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, slog.LevelInfo)
	log.Debug("below the level")
	log.Info("cannot reach https://" + canary + ":x@host/")
	if strings.Contains(out.String(), "below") || !strings.Contains(out.String(), "https://[redacted]@host/") {
		t.Errorf("logged %s", out.String())
	}
	look(t, out.String())
}

func TestDeepAndCyclicValuesEnd(t *testing.T) {
	type node []any
	loop := node{nil}
	loop[0] = &loop
	var deep any = []string{"x"}
	for range 1000 {
		deep = &deep
	}
	var nested []slog.Attr
	for range 100 {
		nested = []slog.Attr{slog.Any("g", nested)}
	}
	var out bytes.Buffer
	telemetry.NewLogger(&out, slog.LevelInfo).Info("x", "loop", loop, "deep", deep, "nested", nested, "long", make([]int, 100_000))
	if !json.Valid(out.Bytes()) || out.Len() > 4096 {
		t.Errorf("%d bytes: %.200s", out.Len(), out.String())
	}
}

func TestASecretDoesNotPrint(t *testing.T) {
	s := telemetry.Secret(canary)
	j, err := json.Marshal(map[string]any{"a": s})
	if err != nil {
		t.Fatal(err)
	}
	look(t, string(j))
	for _, verb := range []string{"%v", "%s", "%q", "%x", "%#v", "%d"} {
		if out := fmt.Sprintf(verb, s); out != "[redacted]" {
			t.Errorf("%s prints %s", verb, out)
		}
	}
	if string(s) != canary {
		t.Error("the secret is lost")
	}
}

func BenchmarkLogger(b *testing.B) {
	log := telemetry.NewLogger(discard{}, slog.LevelInfo)
	id := uuid.New()
	err := fault.New(fault.Retryable, fault.ReasonTimeout, "no answer in time")
	b.ReportAllocs()
	for b.Loop() {
		log.Info("attempt", "submission", id, "destination", "bb-bau", "attempt", 3, "error", err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
