package standard

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"github.com/google/uuid"
)

// For returns the installed standard that a message is of, by its root
// element's namespace and name and, where several versions share them, by the
// version that it says. ok is false where there is none; nearest is then the one
// that at least knows the namespace, nil where none does.
func (s *Installed) For(message []byte) (std, nearest *Standard, ok bool) {
	root, err := rootElement(message)
	if err != nil {
		return nil, nil, false
	}
	version := saidVersion(message, root)
	for _, c := range s.List() {
		g, err := c.rules()
		if err != nil || len(c.Schemas) == 0 {
			continue
		}
		if g.elements[root.Name] == nil {
			if g.knows(root.Name.Space) {
				nearest = c
			}
			continue
		}
		if std == nil || c.Version == version {
			std = c
		}
	}
	return std, nearest, std != nil
}

func (g *graph) knows(space string) bool {
	for n := range g.elements {
		if n.Space == space {
			return true
		}
	}
	return false
}

// saidVersion is the version of its standard that a message says: the root's
// attribute, or the header's where the standard has its own.
func saidVersion(message []byte, root xml.StartElement) string {
	if v := attribute(root, "version"); v != "" {
		return v
	}
	said := ""
	header(message, func(path []string, e xml.StartElement, _ string) bool {
		for _, a := range e.Attr {
			if len(path) == 2 && strings.HasSuffix(strings.ToLower(a.Name.Local), "version") {
				said = a.Value
			}
		}
		return len(path) < 2
	})
	return said
}

// MessageID returns the nachrichtenUUID in a message's header. ok is false where
// there is none that is a UUID.
func MessageID(message []byte) (id uuid.UUID, ok bool) {
	header(message, func(path []string, _ xml.StartElement, text string) bool {
		if text != "" && path[len(path)-1] == "nachrichtenUUID" {
			var err error
			id, err = uuid.Parse(strings.TrimSpace(text))
			ok = err == nil
			return false
		}
		return true
	})
	return id, ok
}

// header walks the root's first child: each start tag, and each element's text at
// its end. It ends with the child, at the first fault, or when visit says so.
func header(message []byte, visit func(path []string, e xml.StartElement, text string) bool) {
	d := xml.NewDecoder(bytes.NewReader(message))
	var path []string
	var text strings.Builder
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) || err != nil {
			return
		}
		switch e := t.(type) {
		case xml.StartElement:
			path = append(path, e.Name.Local)
			text.Reset()
			if !visit(path, e, "") {
				return
			}
		case xml.CharData:
			if text.Len() < 1024 {
				text.Write(e)
			}
		case xml.EndElement:
			if !visit(path, xml.StartElement{}, text.String()) {
				return
			}
			text.Reset()
			if path = path[:len(path)-1]; len(path) <= 1 {
				return
			}
		}
	}
}
