package telemetry

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// W3C Trace Context, traceparent: version "-" trace-id "-" parent-id "-" flags.
const (
	traceIDAt  = 3
	parentIDAt = 36
	flagsAt    = 53
	traceLen   = 55
)

// NewTraceparent begins a trace: version 00, random ids, not sampled.
func NewTraceparent() string { return "00-" + randomID(16) + "-" + randomID(8) + "-00" }

// ValidTraceparent says whether tp is a traceparent of W3C Trace Context: small
// hex digits, no id all zero; a version above 00 may carry more behind it.
func ValidTraceparent(tp string) bool {
	if len(tp) < traceLen || len(tp) > 512 || tp[2] != '-' || tp[35] != '-' || tp[52] != '-' {
		return false
	}
	version := tp[:2]
	if version == "ff" || len(tp) > traceLen && (version == "00" || tp[traceLen] != '-') {
		return false
	}
	trace, parent := tp[traceIDAt:35], tp[parentIDAt:52]
	return smallHex(version) && smallHex(trace) && smallHex(parent) && smallHex(tp[flagsAt:traceLen]) &&
		strings.Trim(trace, "0") != "" && strings.Trim(parent, "0") != ""
}

// Child returns a traceparent of the same trace with a new parent id. Where tp
// is not valid a new trace begins.
func Child(tp string) string {
	if !ValidTraceparent(tp) {
		return NewTraceparent()
	}
	return "00-" + tp[traceIDAt:35] + "-" + randomID(8) + "-" + tp[flagsAt:traceLen]
}

// TraceID returns the 32 hex digits of the trace, or "".
func TraceID(tp string) string {
	if !ValidTraceparent(tp) {
		return ""
	}
	return tp[traceIDAt:35]
}

func randomID(n int) string {
	b := make([]byte, n)
	for {
		_, _ = rand.Read(b) // never fails (crypto/rand)
		if id := hex.EncodeToString(b); strings.Trim(id, "0") != "" {
			return id
		}
	}
}

func smallHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
