package telemetry_test

import (
	"strings"
	"testing"

	"weiche/internal/telemetry"
)

func TestTraceparent(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for tp, want := range map[string]bool{
		good: true,
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more": true, // a later version
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":      true,
		"": false, "00": false, good + "-more": false, good + "x": false, "01" + good[2:] + "x": false,
		"ff" + good[2:]: false, strings.ToUpper(good): false, " " + good: false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01":                              false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01":                              false,
		"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01":                              false,
		"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":                              false,
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-" + strings.Repeat("x", 1000): false,
	} {
		if got := telemetry.ValidTraceparent(tp); got != want {
			t.Errorf("ValidTraceparent(%.80q) = %v", tp, got)
		}
		child := telemetry.Child(tp)
		if !telemetry.ValidTraceparent(child) || child == tp {
			t.Errorf("Child(%.80q) = %q", tp, child)
		}
		if same := want && telemetry.TraceID(child) == telemetry.TraceID(tp); same != want {
			t.Errorf("Child(%.80q) = %q is of another trace", tp, child)
		}
	}
	if child := telemetry.Child(good); !strings.HasSuffix(child, "-01") || strings.Contains(child, "00f067aa0ba902b7") {
		t.Errorf("Child(%q) = %q; want its flags and a new parent", good, child)
	}
	if a, b := telemetry.NewTraceparent(), telemetry.NewTraceparent(); a == b || !telemetry.ValidTraceparent(a) {
		t.Errorf("new traces %q and %q", a, b)
	}
	if id := telemetry.TraceID("x"); id != "" {
		t.Errorf("trace id %q of nothing", id)
	}
}
