package status

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
)

// filter answers "has this id never been added?" without a query: no is
// certain, yes may be wrong. It is a Bloom filter of blocks of one cache line
// (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters,
// 2007) that grows by further layers, each twice as large. At 12 bits for each
// id about 1 in 100 strangers is taken for known; beyond filterBytes it wrongs
// more of them, which costs a query each and no more. It is safe for concurrent
// use.
type filter struct {
	ready  atomic.Bool // until everything of a former run is in, nothing is certain
	layers atomic.Pointer[[]*layer]
	grow   sync.Mutex
}

// Sizes of a filter's layers, in bytes: of the first one and of all together.
const (
	filterFirst = 256 << 10
	filterBytes = 32 << 20
)

type layer struct {
	words []uint64 // blocks of eight
	room  atomic.Int64
}

func newLayer(bytes int) *layer {
	l := &layer{words: make([]uint64, bytes/8)}
	l.room.Store(int64(bytes) * 8 / 12)
	return l
}

func newFilter() *filter {
	f := &filter{}
	f.layers.Store(&[]*layer{newLayer(filterFirst)})
	return f
}

// kind tells apart what is known of an id.
type kind uint64

const (
	hasRow    kind = 0x9e3779b97f4a7c15 // the tables know it
	hasCopied kind = 0xc2b2ae3d27d4eb4f // the stages know it
)

// hash returns the block's choice and the bits' choice.
func hash(id uuid.UUID, k kind) (block, bit uint64) {
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(id[:8])^uint64(k), 0xa0761d6478bd642f^binary.LittleEndian.Uint64(id[8:]))
	bit = (hi ^ lo) * 0xe7037ed1a0b428db
	return hi ^ lo ^ uint64(k), bit ^ bit>>32
}

const probes = 7

func (l *layer) block(h uint64) []uint64 {
	i, _ := bits.Mul64(h, uint64(len(l.words)/8))
	return l.words[i*8 : i*8+8]
}

func (f *filter) add(id uuid.UUID, k kind) {
	h, bit := hash(id, k)
	all := *f.layers.Load()
	l := all[len(all)-1]
	b := l.block(h)
	for range probes {
		atomic.OrUint64(&b[bit>>6&7], 1<<(bit&63))
		bit >>= 9
	}
	if l.room.Add(-1) == 0 {
		f.extend()
	}
}

func (f *filter) extend() {
	f.grow.Lock()
	defer f.grow.Unlock()
	all := *f.layers.Load()
	total := 0
	for _, l := range all {
		total += len(l.words) * 8
	}
	if next := 2 * len(all[len(all)-1].words) * 8; total+next <= filterBytes {
		more := append(all[:len(all):len(all)], newLayer(next))
		f.layers.Store(&more)
	}
}

// maybe says whether the id may have been added; false is certain.
func (f *filter) maybe(id uuid.UUID, k kind) bool {
	if !f.ready.Load() {
		return true
	}
	h, bit := hash(id, k)
	for _, l := range *f.layers.Load() {
		if l.has(h, bit) {
			return true
		}
	}
	return false
}

func (l *layer) has(h, bit uint64) bool {
	b := l.block(h)
	for range probes {
		if atomic.LoadUint64(&b[bit>>6&7])&(1<<(bit&63)) == 0 {
			return false
		}
		bit >>= 9
	}
	return true
}
