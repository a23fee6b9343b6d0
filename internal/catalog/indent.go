package catalog

import "github.com/beevik/etree"

// indent lays a message out for reading; the comparison ignores it.
func indent(raw []byte) []byte {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(raw); err != nil {
		return raw
	}
	doc.Indent(2)
	out, err := doc.WriteToBytes()
	if err != nil {
		return raw
	}
	return out
}
