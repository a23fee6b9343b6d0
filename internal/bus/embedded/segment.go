package embedded

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A segment file is record batches in Kafka's wire format (version 2), one after
// the other. A batch's header begins with its first offset (8 bytes) and its
// length after this field (4); its CRC-32C covers what lies behind the CRC.
const (
	batchHeader = 61
	batchPrefix = 12 // first offset and length, which the length does not count
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stretch is a run of good batches in a segment file.
type stretch struct {
	from, to    int64 // bytes
	first, next int64 // offsets: of the first record, and behind the last
	batches     int
}

// flaw is a run of bytes in a segment file, possibly of no bytes, where
// something is wrong.
type flaw struct {
	at   int64 // byte
	what string
}

// scanned is what a segment file holds.
type scanned struct {
	good  []stretch
	flaws []flaw
	torn  int64 // bytes of an unfinished write at the end
	next  int64 // offset behind the last good batch
	txn   bool  // holds batches of a transaction
}

func (s *scanned) batches() int {
	n := 0
	for _, g := range s.good {
		n += g.batches
	}
	return n
}

type batch struct {
	size        int
	first, next int64
	txn         bool
}

// batchAt reads the batch at the beginning of raw; why is empty when it is whole
// and its CRC holds.
func batchAt(raw []byte) (b batch, why string) {
	if len(raw) < batchHeader {
		return b, fmt.Sprintf("%d bytes are no record batch", len(raw))
	}
	length := int64(int32(binary.BigEndian.Uint32(raw[8:])))
	if raw[16] != 2 || length < batchHeader-batchPrefix {
		return b, "there is no header of a record batch"
	}
	if batchPrefix+length > int64(len(raw)) {
		return b, fmt.Sprintf("the record batch has %d bytes, and %d are there", batchPrefix+length, len(raw))
	}
	b.size = int(batchPrefix + length)
	delta := int64(int32(binary.BigEndian.Uint32(raw[23:])))
	b.first = int64(binary.BigEndian.Uint64(raw))
	b.next = b.first + delta + 1
	b.txn = raw[22]&0x10 != 0
	switch {
	case crc32.Checksum(raw[21:b.size], castagnoli) != binary.BigEndian.Uint32(raw[17:]):
		return b, "the record batch's CRC-32C does not match"
	case b.first < 0 || delta < 0:
		return b, "the record batch's offsets are negative"
	}
	return b, ""
}

// scan reads a segment's bytes. next is the offset its first batch should have.
// A compacted log may leave offsets out (sparse), any other may not.
func scan(raw []byte, next int64, sparse bool) scanned {
	s := scanned{next: next}
	fits := func(b batch) bool { return b.first == s.next || sparse && b.first > s.next }
	for pos := 0; pos < len(raw); {
		b, why := batchAt(raw[pos:])
		if why == "" && !fits(b) {
			why = fmt.Sprintf("the record batch begins at offset %d instead of %d", b.first, s.next)
			// The header's offset is not under the CRC. It is believed when the
			// next batch follows on it: then records are missing before it.
			if after, bad := batchAt(raw[pos+b.size:]); b.first > s.next && bad == "" && after.first == b.next {
				s.flaws = append(s.flaws, flaw{int64(pos), why})
				why = ""
			}
		}
		if why == "" {
			s.add(int64(pos), b)
			pos += b.size
			continue
		}
		resume := search(raw, pos+1, s.next)
		if resume < 0 {
			if unfinished(raw[pos:], s.next, sparse) {
				s.torn = int64(len(raw) - pos)
				return s
			}
			resume = len(raw)
		}
		s.flaws = append(s.flaws, flaw{int64(pos), why})
		if resume < len(raw) {
			b, _ := batchAt(raw[resume:])
			s.add(int64(resume), b)
			pos = resume + b.size
			continue
		}
		return s
	}
	return s
}

func (s *scanned) add(pos int64, b batch) {
	s.txn = s.txn || b.txn
	to := pos + int64(b.size)
	if n := len(s.good); n > 0 && s.good[n-1].to == pos && s.next == b.first {
		g := &s.good[n-1]
		g.to, g.next, g.batches = to, b.next, g.batches+1
	} else {
		s.good = append(s.good, stretch{pos, to, b.first, b.next, 1})
	}
	s.next = b.next
}

// search returns where the next whole batch of a later offset begins, -1 if
// there is none.
func search(raw []byte, from int, next int64) int {
	for i := from; i+batchHeader <= len(raw); i++ {
		if raw[i+16] != 2 {
			continue
		}
		if first := int64(binary.BigEndian.Uint64(raw[i:])); first < next || first-next > 1<<31 {
			continue
		}
		if _, why := batchAt(raw[i:]); why == "" {
			return i
		}
	}
	return -1
}

// unfinished says whether tail, which holds no whole batch, is what a process or
// machine that stopped in the middle of a write leaves behind. Such a batch was
// never acknowledged: a batch is synced before it is.
func unfinished(tail []byte, next int64, sparse bool) bool {
	if zero(tail) {
		return true
	}
	if len(tail) < 8 {
		return true
	}
	if first := int64(binary.BigEndian.Uint64(tail)); first != next && !(sparse && first > next) {
		return false
	}
	if len(tail) < batchHeader {
		return true
	}
	length := int64(int32(binary.BigEndian.Uint32(tail[8:])))
	if tail[16] != 2 || batchPrefix+length <= int64(len(tail)) {
		return false
	}
	// A batch that is whole but for its length is no unfinished one.
	return crc32.Checksum(tail[21:], castagnoli) != binary.BigEndian.Uint32(tail[17:])
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// filler returns batches that take up the offsets from first to before next: a
// marker, as a transaction leaves it, with the last of them. Readers pass over
// it. (A batch without records, as compaction leaves it, sarama drops without a
// word about its offsets, so that a reader of the log's end would wait for ever.)
func filler(first, next int64) []byte {
	const control = 0x20
	var out []byte
	for first < next {
		n := min(next-first, 1<<30)
		record := []byte{0, 0} // attributes, time
		record = binary.AppendVarint(record, n-1)
		record = append(record, 8, 0, 0, 0, 1)           // key: version 0, commit
		record = append(record, 12, 0, 0, 0, 0, 0, 0, 0) // value: version 0, epoch 0; no headers
		record = append(binary.AppendVarint(nil, int64(len(record))), record...)
		out = append(out, marshal(first, n, control, 1, record)...)
		first += n
	}
	return out
}

// marshal returns a batch without a producer. The records take up n offsets.
func marshal(first, n int64, attributes uint16, count uint32, records []byte) []byte {
	b := make([]byte, batchHeader, batchHeader+len(records))
	binary.BigEndian.PutUint64(b[0:], uint64(first))
	binary.BigEndian.PutUint32(b[8:], uint32(batchHeader-batchPrefix+len(records)))
	b[16] = 2
	binary.BigEndian.PutUint16(b[21:], attributes)
	binary.BigEndian.PutUint32(b[23:], uint32(n-1))
	for i := 43; i < 57; i++ {
		b[i] = 0xff
	}
	binary.BigEndian.PutUint32(b[57:], count)
	b = append(b, records...)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}
