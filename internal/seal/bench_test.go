package seal_test

import (
	"bytes"
	"fmt"
	"testing"

	"weiche/internal/seal"
)

// What intake pays for a submission: a data key, its sections, the box.
func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{4 << 10, 6 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			k := open(b, b.TempDir(), &keyLog{})
			plain := bytes.Repeat([]byte("x"), size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				sealOne(b, k, plain)
			}
		})
	}
}

// What a stage pays to read one: cold, where this process sees its key for the
// first time, and warm, where it has opened it before.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{4 << 10, 6 << 10} {
		dir, log := b.TempDir(), &keyLog{}
		k := open(b, dir, log)
		b.Run(fmt.Sprintf("%dKB/warm", size>>10), func(b *testing.B) {
			value := sealOne(b, k, bytes.Repeat([]byte("x"), size))
			b.ReportAllocs()
			for b.Loop() {
				openOne(b, k, value)
			}
		})
		b.Run(fmt.Sprintf("%dKB/cold", size>>10), func(b *testing.B) {
			// In turns, more than are kept in memory.
			values := make([][]byte, 5000)
			for i := range values {
				values[i] = sealOne(b, k, bytes.Repeat([]byte("x"), size))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				openOne(b, k, values[i%len(values)])
			}
		})
	}
}

func openOne(b *testing.B, k *seal.Keeper, value []byte) {
	box, err := seal.ParseBox(value, subject)
	if err != nil {
		b.Fatal(err)
	}
	key, err := k.OpenDataKey(b.Context(), box.Key)
	if err != nil {
		b.Fatal(err)
	}
	sealed, _ := box.Section("submission")
	if _, err := key.Open(subject+"/submission", sealed); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkSign(b *testing.B) {
	s := openSigner(b, b.TempDir(), "")
	payload := bytes.Repeat([]byte("x"), 256)
	for b.Loop() {
		if _, err := s.Sign(payload); err != nil {
			b.Fatal(err)
		}
	}
}

func sealOne(b *testing.B, k *seal.Keeper, plain []byte) []byte {
	key, err := k.NewDataKey(b.Context(), "08", noon)
	if err != nil {
		b.Fatal(err)
	}
	sealed, err := key.Seal(subject+"/submission", plain)
	if err != nil {
		b.Fatal(err)
	}
	box := &seal.Box{Subject: subject, Key: key.Wrapped(), Sections: []seal.Section{{Name: "submission", Data: sealed}}}
	value, err := box.MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	return value
}
