package foreignxml

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"weiche/internal/fault"
)

// repeated gives text n times without holding it.
type repeated struct {
	text string
	n    int
	rest string
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.rest == "" {
		if r.n == 0 {
			return 0, io.EOF
		}
		k := min(r.n, 1000)
		r.n -= k
		r.rest = strings.Repeat(r.text, k)
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		doc    string
		limits Limits
		reason fault.Reason // "" where it passes
	}{
		{"a message", `<?xml version="1.0" encoding="UTF-8"?><!-- c --><a x="1"><b>ä</b></a>`, Limits{}, ""},
		{"a byte order mark", "\ufeff<a/>", Limits{}, ""},
		{"doctype", `<!DOCTYPE a><a/>`, Limits{}, fault.ReasonMalformed},
		{"doctype with entities", `<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>`, Limits{}, fault.ReasonMalformed},
		{"unknown entity", `<a>&x;</a>`, Limits{}, fault.ReasonMalformed},
		{"another encoding", `<?xml version="1.0" encoding="ISO-8859-1"?><a>` + "\xe4" + `</a>`, Limits{}, fault.ReasonMalformed},
		{"bytes that are no UTF-8", "<a>\xe4</a>", Limits{}, fault.ReasonMalformed},
		{"too deep", `<a><b><c/></b></a>`, Limits{Depth: 2}, fault.ReasonTooDeep},
		{"too many elements", `<a><b/><b/></a>`, Limits{Elements: 2}, fault.ReasonTooMany},
		{"too many attributes", `<a x="1" y="2"/>`, Limits{Attributes: 1}, fault.ReasonTooMany},
		{"too large", `<a>` + strings.Repeat("x", 100) + `</a>`, Limits{Bytes: 50}, fault.ReasonTooLarge},
		{"just as large as allowed", `<a/>`, Limits{Bytes: 4}, ""},
		{"cut off", `<a><b>`, Limits{}, fault.ReasonMalformed},
		{"two roots", `<a/><b/>`, Limits{}, fault.ReasonMalformed},
		{"empty", ``, Limits{}, fault.ReasonMalformed},
		{"text outside", `<a/>x`, Limits{}, fault.ReasonMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Check(strings.NewReader(c.doc), c.limits)
			var f *fault.Error
			if c.reason == "" && err != nil || c.reason != "" && (!errors.As(err, &f) || f.Reason != c.reason || f.Class != fault.Permanent) {
				t.Errorf("got %v, want %q", err, c.reason)
			}
		})
	}
}

func TestCheckSurvivesThreeMillionDeep(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := Check(&repeated{text: "<a>", n: 3_000_000}, Limits{})
	runtime.ReadMemStats(&after)
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != fault.ReasonTooDeep {
		t.Errorf("got %v", err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("it took %d bytes", grown)
	}
	// Depth allowed or not, the bytes are bounded too.
	if err := Check(&repeated{text: "<a>", n: 3_000_000}, Limits{Bytes: 1 << 20, Depth: 1 << 30}); !errors.As(err, &f) || f.Reason != fault.ReasonTooLarge {
		t.Errorf("got %v", err)
	}
}
