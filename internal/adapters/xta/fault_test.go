package xta

import (
	"encoding/xml"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"weiche/internal/adapters/adaptertest"
)

// Every fault message of the WSDL, and nothing else, is in the table.
func TestEveryFaultIsMapped(t *testing.T) {
	b, err := os.ReadFile("../../../../shared/standards/xta/2.1.1/XTA.wsdl")
	if errors.Is(err, fs.ErrNotExist) {
		adaptertest.Missing(t, "the standard's WSDL in ../shared is missing")
	} else if err != nil {
		t.Fatal(err)
	}
	var wsdl struct {
		Messages []struct {
			Parts []struct {
				Element string `xml:"element,attr"`
			} `xml:"part"`
		} `xml:"message"`
	}
	if err := xml.Unmarshal(b, &wsdl); err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for name := range exceptions {
		left[name] = true
	}
	for _, m := range wsdl.Messages {
		for _, p := range m.Parts {
			name := strings.TrimPrefix(p.Element, "xta:")
			if !strings.HasSuffix(name, "Exception") {
				continue
			}
			if _, ok := exceptions[name]; !ok {
				t.Errorf("%s is not mapped", name)
			}
			delete(left, name)
		}
	}
	for name := range left {
		t.Errorf("%s is mapped and in no WSDL", name)
	}
	for _, o := range []operation{createMessageID, getTransportReport, sendMessage} {
		if !strings.Contains(string(b), `<operation name="`+o.name+`">`) || !strings.Contains(string(b), `soapAction="`+o.action+`"`) {
			t.Errorf("the WSDL has no %s with this action", o.name)
		}
	}
}
