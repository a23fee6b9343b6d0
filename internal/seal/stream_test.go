package seal

import (
	"bytes"
	"io"
	"runtime"
	"testing"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"
	"pgregory.net/rapid"
)

// A stream is tink's with segments of 1 MB, whatever segments a short one is
// made and read with, whichever pieces it comes in.
func TestStreamsAreTinksInSegmentsOfOneMegabyte(t *testing.T) {
	key, err := newDataKey(Wrapped{Land: "08", DayKey: "08/2026-11-22/ab"}, newSecret())
	if err != nil {
		t.Fatal(err)
	}
	tink, err := subtle.NewAESGCMHKDF(derive(key.secret, purposeStream), "SHA256", keyBytes, 1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	aad := bind(purposeStream, "08", key.wrapped.DayKey, "place")
	size := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(smallStream-2, smallStream+streamOverhead+2), rapid.IntRange(segmentBytes-streamOverhead-2, segmentBytes+2))
	rapid.Check(t, func(t *rapid.T) {
		plain := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, size.Draw(t, "size"))
		piece := rapid.IntRange(500, 1<<20).Draw(t, "piece")

		var ours bytes.Buffer
		w, err := key.EncryptTo(&ours, "place")
		if err != nil {
			t.Fatal(err)
		}
		write(t, w, plain, piece)
		r, err := tink.NewDecryptingReader(&ours, aad)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("tink reads %d bytes of %d: %v", len(got), len(plain), err)
		}

		var theirs bytes.Buffer
		if w, err = tink.NewEncryptingWriter(&theirs, aad); err != nil {
			t.Fatal(err)
		}
		write(t, w, plain, piece)
		if r, err = key.DecryptFrom(&theirs, "place"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes of %d are read: %v", len(got), len(plain), err)
		}
	})
}

func write(t *rapid.T, w io.WriteCloser, plain []byte, piece int) {
	for len(plain) > 0 {
		n := min(piece, len(plain))
		if _, err := w.Write(plain[:n]); err != nil {
			t.Fatal(err)
		}
		plain = plain[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is small takes little memory, whatever the size of a segment.
func TestASmallStreamTakesLittleMemory(t *testing.T) {
	key, err := newDataKey(Wrapped{Land: "08", DayKey: "08/2026-11-22/ab"}, newSecret())
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte("plan"), 256)
	once := func() {
		var sealed bytes.Buffer
		w, err := key.EncryptTo(&sealed, "place")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(plain)
		_ = w.Close()
		r, err := key.DecryptFrom(&sealed, "place")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(plain)) {
			t.Fatal(n, err)
		}
	}
	const times = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		once()
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / times; n > smallStream {
		t.Errorf("%d bytes for %d", n, len(plain))
	}
}
