package embedded

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// FuzzScan damages a segment at will. Whatever comes, a good stretch holds whole
// batches only, in order, and every byte is good, flawed or torn; and a segment
// of which one byte was changed is never taken for a whole one, or for one with
// an unfinished write, unless the byte is one that the CRC does not cover and
// nothing reads.
func FuzzScan(f *testing.F) {
	f.Add(uint16(0), byte(1), uint16(400), false)
	f.Add(uint16(9), byte(0x80), uint16(400), false)
	f.Add(uint16(150), byte(4), uint16(130), true)
	var whole []byte
	next := int64(5)
	for i := range 6 {
		whole = append(whole, marshal(next, int64(i+1), 0, uint32(i+1), bytes.Repeat([]byte{byte(i)}, 20*i))...)
		next += int64(i + 1)
	}
	f.Fuzz(func(t *testing.T, at uint16, with byte, size uint16, sparse bool) {
		raw := bytes.Clone(whole)
		raw[int(at)%len(raw)] ^= with
		raw = raw[:min(int(size), len(raw))]
		s := scan(raw, 5, sparse)
		pos, last := int64(0), int64(5)
		for _, g := range s.good {
			if g.from < pos || g.first < last || g.to <= g.from || g.next <= g.first {
				t.Fatalf("stretches %+v", s.good)
			}
			n := 0
			for p := g.from; p < g.to; n++ {
				b, why := batchAt(raw[p:g.to])
				if why != "" {
					t.Fatalf("byte %d is good and %s", p, why)
				}
				p += int64(b.size)
			}
			if n != g.batches {
				t.Fatalf("%d batches, not %d", n, g.batches)
			}
			pos, last = g.to, g.next
		}
		if s.next != last || int64(len(raw)) < pos+s.torn {
			t.Fatalf("%+v", s)
		}
		if pos+s.torn < int64(len(raw)) && len(s.flaws) == 0 {
			t.Fatalf("%d bytes are neither good nor bad", int64(len(raw))-pos-s.torn)
		}
		if len(raw) < len(whole) || with == 0 {
			return
		}
		inHeader := -1
		for p := 0; p < len(whole); {
			b, _ := batchAt(whole[p:])
			if i := int(at)%len(whole) - p; i >= 0 && i < b.size {
				inHeader = i
			}
			p += b.size
		}
		epoch := inHeader >= 12 && inHeader < 16 // set by the broker, read by nobody here
		offset := inHeader < 8 && sparse         // a compacted log has gaps
		if !epoch && !offset && len(s.flaws) == 0 {
			t.Fatalf("byte %d of a batch was changed and not seen: %+v", inHeader, s)
		}
	})
}

// FuzzScanFrames is the same for the state logs.
func FuzzScanFrames(f *testing.F) {
	f.Add(uint16(12), byte(1), uint16(400))
	f.Add(uint16(0), byte(0x40), uint16(50))
	var whole []byte
	for i := range 8 {
		data := append([]byte{1, 0}, bytes.Repeat([]byte{byte('a' + i)}, 5+i)...)
		whole = binary.LittleEndian.AppendUint32(whole, uint32(len(data)))
		whole = binary.LittleEndian.AppendUint32(whole, crc32.Checksum(data, castagnoli))
		whole = append(whole, data...)
	}
	f.Fuzz(func(t *testing.T, at uint16, with byte, size uint16) {
		raw := bytes.Clone(whole)
		raw[int(at)%len(raw)] ^= with
		raw = raw[:min(int(size), len(raw))]
		n := 0
		keep, flaws, torn := scanFrames(raw, func([]byte) { n++ })
		good := int64(0)
		for _, k := range keep {
			good += k.to - k.from
		}
		if len(flaws) == 0 && good+torn != int64(len(raw)) {
			t.Fatalf("%d good, %d torn of %d", good, torn, len(raw))
		}
		if len(raw) == len(whole) && with != 0 && n == 8 {
			t.Fatal("a changed byte was not seen")
		}
	})
}
