package standard

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
)

// genericodeID reads a genericode list's CanonicalUri and Version. ok is false
// for what is no genericode list.
func genericodeID(raw []byte) (uri, version string, ok bool) {
	d := xml.NewDecoder(bytes.NewReader(raw))
	var path []string
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) || err != nil {
			break
		}
		switch e := t.(type) {
		case xml.StartElement:
			if len(path) == 0 && (e.Name.Local != "CodeList" || !strings.Contains(e.Name.Space, "genericode")) {
				return "", "", false
			}
			path = append(path, e.Name.Local)
		case xml.EndElement:
			if len(path) == 2 && path[1] == "Identification" {
				return uri, version, uri != ""
			}
			path = path[:len(path)-1]
		case xml.CharData:
			if len(path) == 3 && path[1] == "Identification" {
				switch path[2] {
				case "CanonicalUri":
					uri += strings.TrimSpace(string(e))
				case "Version":
					version += strings.TrimSpace(string(e))
				}
			}
		}
	}
	return uri, version, uri != ""
}
