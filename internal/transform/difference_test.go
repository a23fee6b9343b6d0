package transform

import "testing"

func TestDifferenceIsCanonical(t *testing.T) {
	a := `<?xml version="1.0"?><p:a xmlns:p="urn:x" y="2" x="1"><!-- c --><b>t</b></p:a>`
	if d, err := Difference([]byte(a), []byte("<a xmlns=\"urn:x\" x=\"1\" y=\"2\">\n  <b xmlns=\"\">t</b>\n</a>")); d != "" || err != nil {
		t.Errorf("got %q, %v", d, err)
	}
	for _, other := range []string{
		`<p:a xmlns:p="urn:x" y="2" x="1"><b>u</b></p:a>`, `<p:a xmlns:p="urn:y" y="2" x="1"><b>t</b></p:a>`,
		`<p:a xmlns:p="urn:x" y="2" x="3"><b>t</b></p:a>`, `<p:a xmlns:p="urn:x" y="2" x="1"><b>t</b><b/></p:a>`,
		`<p:a xmlns:p="urn:x" y="2" x="1"><p:b>t</p:b></p:a>`,
	} {
		if d, err := Difference([]byte(a), []byte(other)); d == "" || err != nil {
			t.Errorf("%s passes (%v)", other, err)
		}
	}
}
