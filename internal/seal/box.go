package seal

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Bounds of a Box. They are far above what the router writes.
const (
	boxVersion      = 1
	maxSubjectBytes = 64
	maxDayKeyBytes  = 64
	maxWrappedBytes = 256
	maxSections     = 32
	maxNameBytes    = 64
	maxBoxBytes     = 64 << 20
)

// Box is the value of a record: the wrapped data key and the sealed sections.
// It is not safe for concurrent use.
type Box struct {
	// Subject is the submission id. It is part of every section's associated
	// data ("<subject>/<name>"); compare it with the record's header (ParseBox).
	Subject  string
	Key      Wrapped
	Sections []Section
}

// Section is one sealed part of a record. Data is ciphertext.
type Section struct {
	Name string
	Data []byte
}

// Sensitive marks the type for the log's redaction.
func (*Box) Sensitive() {}

// Format prints a placeholder, whatever the verb.
func (b *Box) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "[seal.Box]") }

// Sensitive marks the type for the log's redaction.
func (Section) Sensitive() {}

// Format prints the section's name only.
func (s Section) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "[seal.Section %q]", s.Name) }

// Section returns the sealed bytes of a section.
func (b *Box) Section(name string) ([]byte, bool) {
	for _, s := range b.Sections {
		if s.Name == name {
			return s.Data, true
		}
	}
	return nil, false
}

// Put adds a section, or replaces the one of that name.
func (b *Box) Put(name string, data []byte) {
	for i := range b.Sections {
		if b.Sections[i].Name == name {
			b.Sections[i].Data = data
			return
		}
	}
	b.Sections = append(b.Sections, Section{Name: name, Data: data})
}

// ParseBox reads a record's value and checks that it belongs to the submission
// that the record's header names. Key and sections of the box are pieces of
// value, which must not change while the box is in use. Faults are Permanent:
// undecodable, or undecryptable where it belongs to another submission.
func ParseBox(value []byte, subject string) (*Box, error) {
	b := new(Box)
	if err := b.read(value); err != nil {
		return nil, err
	}
	if b.Subject != subject {
		return nil, fault.New(fault.Permanent, fault.ReasonUndecryptable, "the record's content belongs to another submission than its header says")
	}
	return b, nil
}

// MarshalBinary writes the box: a version byte; subject, Land and day key with a
// length byte each; the wrapped key with two; the number of sections in one;
// and for each its name with one length byte and its data with four. A box has
// one encoding only.
func (b *Box) MarshalBinary() ([]byte, error) {
	n := 16 + len(b.Subject) + len(b.Key.Land) + len(b.Key.DayKey) + len(b.Key.Bytes)
	for i, s := range b.Sections {
		if s.Name == "" || len(s.Name) > maxNameBytes {
			return nil, tooLarge("a section's name has %d bytes; 1 to %d are allowed", len(s.Name), maxNameBytes)
		}
		for _, other := range b.Sections[:i] {
			if other.Name == s.Name {
				return nil, fault.New(fault.Permanent, fault.ReasonMalformed, "section %s stands twice in a record", s.Name)
			}
		}
		n += 5 + len(s.Name) + len(s.Data)
	}
	switch {
	case len(b.Subject) > maxSubjectBytes:
		return nil, tooLarge("the record's subject has %d bytes; %d are allowed", len(b.Subject), maxSubjectBytes)
	case len(b.Key.Land) != 2:
		return nil, fault.New(fault.Permanent, fault.ReasonMalformed, "the record's key names no Land")
	case len(b.Key.DayKey) > maxDayKeyBytes || len(b.Key.Bytes) > maxWrappedBytes:
		return nil, tooLarge("the record's key is longer than a key can be")
	case len(b.Sections) > maxSections:
		return nil, tooLarge("the record has %d sections; %d are allowed", len(b.Sections), maxSections)
	case n > maxBoxBytes:
		return nil, tooLarge("the record has %d bytes; %d are allowed", n, maxBoxBytes)
	}
	out := append(make([]byte, 0, n), boxVersion)
	for _, s := range []string{b.Subject, string(b.Key.Land), b.Key.DayKey} {
		out = append(append(out, byte(len(s))), s...)
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(b.Key.Bytes)))
	out = append(out, b.Key.Bytes...)
	out = append(out, byte(len(b.Sections)))
	for _, s := range b.Sections {
		out = append(append(out, byte(len(s.Name))), s.Name...)
		out = binary.BigEndian.AppendUint32(out, uint32(len(s.Data)))
		out = append(out, s.Data...)
	}
	return out, nil
}

// UnmarshalBinary reads what MarshalBinary wrote and refuses everything else
// with a fault, Permanent and undecodable. It keeps no reference to data, and
// allocates no more than data holds.
func (b *Box) UnmarshalBinary(data []byte) error { return b.read(bytes.Clone(data)) }

// read is UnmarshalBinary on data that the box may keep.
func (b *Box) read(data []byte) error {
	if len(data) > maxBoxBytes {
		return undecodable("it has %d bytes; %d are allowed", len(data), maxBoxBytes)
	}
	r := boxReader{rest: data}
	if v := r.uint(1); !r.bad && v != boxVersion {
		return undecodable("its version is %d; this release reads %d", v, boxVersion)
	}
	var out Box
	out.Subject = string(r.take(r.uint(1), maxSubjectBytes))
	land := string(r.take(r.uint(1), 2))
	out.Key.Land = submission.Land(land)
	out.Key.DayKey = string(r.take(r.uint(1), maxDayKeyBytes))
	out.Key.Bytes = r.take(r.uint(2), maxWrappedBytes)
	count := r.uint(1)
	if r.bad || len(land) != 2 || count > maxSections {
		return undecodable("its head is malformed")
	}
	out.Sections = make([]Section, 0, count+1) // most boxes get one more
	for range count {
		s := Section{Name: string(r.take(r.uint(1), maxNameBytes))}
		s.Data = r.take(r.uint(4), maxBoxBytes)
		if r.bad {
			return undecodable("a section is cut off")
		}
		if _, twice := out.Section(s.Name); twice || s.Name == "" {
			return undecodable("a section has no name, or the name of another")
		}
		out.Sections = append(out.Sections, s)
	}
	if len(r.rest) > 0 {
		return undecodable("%d bytes are left over", len(r.rest))
	}
	*b = out
	return nil
}

// boxReader takes pieces off the front; once one is missing, bad stays.
type boxReader struct {
	rest []byte
	bad  bool
}

func (r *boxReader) uint(size int) int {
	n := 0
	for _, c := range r.take(size, size) {
		n = n<<8 | int(c)
	}
	return n
}

func (r *boxReader) take(n, limit int) []byte {
	if r.bad || n > limit || n > len(r.rest) {
		r.bad = true
		return nil
	}
	p := r.rest[:n:n]
	r.rest = r.rest[n:]
	return p
}

func undecodable(detail string, args ...any) error {
	return fault.New(fault.Permanent, fault.ReasonUndecodable, "a record cannot be read: "+detail, args...)
}

func tooLarge(detail string, args ...any) error {
	return fault.New(fault.Permanent, fault.ReasonTooLarge, detail, args...)
}
