package intake

import (
	"strings"
	"testing"

	"weiche/internal/fault"
)

// A form that an operator edited meets what a portal's form meets.
func TestCheckForm(t *testing.T) {
	for in, want := range map[string]fault.Reason{
		`{"a":[1,"x"]}`:    "",
		`"text"`:           "",
		`{"a":1`:           fault.ReasonMalformed,
		`1},"x":{"y":1}`:   fault.ReasonMalformed,
		`{"a":1} {}`:       fault.ReasonMalformed,
		``:                 fault.ReasonMalformed,
		`{"a":1,"a":2}`:    fault.ReasonMalformed,
		"{\"a\":\"\xff\"}": fault.ReasonMalformed,
		strings.Repeat("[", 20) + strings.Repeat("]", 20): fault.ReasonTooDeep,
	} {
		var got fault.Reason
		if p := CheckForm([]byte(in), 16); p != nil {
			got = p.Reason
		}
		if got != want {
			t.Errorf("%.40q: %q, want %q", in, got, want)
		}
	}
}
