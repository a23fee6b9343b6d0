package xsd

import (
	"encoding/binary"
	"math/bits"
)

// Name is a name with its namespace, "" for none.
type Name struct{ Space, Local string }

// String writes the name as {namespace}local.
func (n Name) String() string {
	if n.Space == "" {
		return n.Local
	}
	return "{" + n.Space + "}" + n.Local
}

const (
	noSpace    int32 = 0  // no namespace
	otherSpace int32 = -1 // one that the schema does not know
	noSymbol   int32 = -1 // a name that the schema does not know
)

// names numbers the namespaces and names of a schema, so that a document's are
// looked up once and compared as numbers. It is immutable once the schema is
// compiled.
type names struct {
	spaces map[string]int32
	list   []Name // by symbol
	keys   []nameKey
	byName map[Name]int32
	slots  []int32 // symbol+1, 0 where free
	mask   uint64
	xml    int32
	xsi    int32
}

type nameKey struct {
	local string
	space int32
}

const xsiNamespace = "http://www.w3.org/2001/XMLSchema-instance"

func newNames() *names {
	n := &names{spaces: map[string]int32{"": noSpace}, byName: map[Name]int32{}}
	n.xml = n.addSpace(xmlNamespace)
	n.xsi = n.addSpace(xsiNamespace)
	return n
}

func (n *names) addSpace(uri string) int32 {
	if id, ok := n.spaces[uri]; ok {
		return id
	}
	id := int32(len(n.spaces))
	n.spaces[uri] = id
	return id
}

// add numbers a name.
func (n *names) add(name Name) int32 {
	if id, ok := n.byName[name]; ok {
		return id
	}
	id := int32(len(n.list))
	n.list = append(n.list, name)
	n.keys = append(n.keys, nameKey{name.Local, n.addSpace(name.Space)})
	n.byName[name] = id
	return id
}

// seal builds the table that symbol looks names up in.
func (n *names) seal() {
	size := 1 << bits.Len(uint(len(n.list)*3))
	n.slots, n.mask = make([]int32, size), uint64(size-1)
	for id, k := range n.keys {
		i := nameHash(k.space, []byte(k.local)) & n.mask
		for n.slots[i] != 0 {
			i = (i + 1) & n.mask
		}
		n.slots[i] = int32(id) + 1
	}
}

// space returns a namespace's number.
func (n *names) space(uri []byte) int32 {
	if id, ok := n.spaces[string(uri)]; ok {
		return id
	}
	return otherSpace
}

// symbol returns a name's number.
func (n *names) symbol(space int32, local []byte) int32 {
	if space < 0 {
		return noSymbol
	}
	i := nameHash(space, local) & n.mask
	for {
		id := n.slots[i]
		if id == 0 {
			return noSymbol
		}
		if k := &n.keys[id-1]; k.space == space && k.local == string(local) {
			return id - 1
		}
		i = (i + 1) & n.mask
	}
}

// nameHash looks at a name's length and at its first and last eight bytes.
func nameHash(space int32, b []byte) uint64 {
	var x, y uint64
	if len(b) >= 8 {
		x, y = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[len(b)-8:])
	} else {
		for _, c := range b {
			x = x<<8 | uint64(c)
		}
	}
	h := (x ^ bits.RotateLeft64(y, 23) ^ uint64(len(b))<<56 ^ uint64(space)) * 0x9E3779B97F4A7C15
	return h ^ h>>29
}
