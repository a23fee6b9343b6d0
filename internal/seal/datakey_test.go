package seal

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"sync"
	"testing"
	"time"

	aead "github.com/tink-crypto/tink-go/v2/aead/subtle"
	"pgregory.net/rapid"

	"weiche/internal/fault"
)

// memoryLog is a log of day keys.
type memoryLog struct {
	mu   sync.Mutex
	keys []string
	vals [][]byte
}

func (l *memoryLog) Append(_ context.Context, key string, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys, l.vals = append(l.keys, key), append(l.vals, value)
	return nil
}

func (l *memoryLog) Load(_ context.Context, fn func(string, []byte) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, key := range l.keys {
		if err := fn(key, l.vals[i]); err != nil {
			return err
		}
	}
	return nil
}

var midday = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func keeperOver(t *testing.T, dir string, log KeyLog) *Keeper {
	t.Helper()
	k, err := Open(dir, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWrapped(t *testing.T, k *Keeper) Wrapped {
	t.Helper()
	key, err := k.NewDataKey(t.Context(), "08", midday)
	if err != nil {
		t.Fatal(err)
	}
	return key.Wrapped()
}

func unreadable(t *testing.T, k *Keeper, w Wrapped) {
	t.Helper()
	_, err := k.OpenDataKey(t.Context(), w)
	if f := fault.Of(err); f == nil || f.Class != fault.Permanent || f.Reason != fault.ReasonUndecryptable {
		t.Errorf("a key of a destroyed day: %v", err)
	}
}

func TestDeriveIsHKDF(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "secret")
		purpose := rapid.StringN(0, 100, -1).Draw(t, "purpose")
		want, err := hkdf.Key(sha256.New, secret, nil, purpose, keyBytes)
		if err != nil || !bytes.Equal(derive(secret, purpose), want) {
			t.Fatalf("%x, want %x (%v)", derive(secret, purpose), want, err)
		}
	})
}

// Sections are tink's AES-GCM, whoever seals and whoever opens.
func TestSectionsAreTinksAESGCM(t *testing.T) {
	secret := newSecret()
	w := Wrapped{Land: "08", DayKey: "08/2026-11-22/ab"}
	key, err := newDataKey(w, secret)
	if err != nil {
		t.Fatal(err)
	}
	tink, err := aead.NewAESGCM(derive(secret, purposeSection))
	if err != nil {
		t.Fatal(err)
	}
	bound := bind(purposeSection, "08", w.DayKey, "place")
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plain")
		sealed, err := key.AppendSeal([]byte("before"), "place", plain)
		if err != nil || len(sealed) != len("before")+len(plain)+Overhead {
			t.Fatal(len(sealed), err)
		}
		if got, err := tink.Decrypt(sealed[len("before"):], bound); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("tink opens %x, %v", got, err)
		}
		if sealed, err = tink.Encrypt(plain, bound); err != nil {
			t.Fatal(err)
		}
		if got, err := key.Open("place", sealed); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %x, %v", got, err)
		}
	})
}

func TestAnOpenKeyIsRemembered(t *testing.T) {
	log, dir := &memoryLog{}, t.TempDir()
	w := newWrapped(t, keeperOver(t, dir, log))
	k := keeperOver(t, dir, log)
	record := bytes.Clone(w.Bytes)
	first, err := k.OpenDataKey(t.Context(), Wrapped{Land: w.Land, DayKey: w.DayKey, Bytes: record})
	if err != nil {
		t.Fatal(err)
	}
	clear(record) // the record it came in is gone
	again, err := k.OpenDataKey(t.Context(), w)
	if err != nil || again != first || !bytes.Equal(again.Wrapped().Bytes, w.Bytes) {
		t.Errorf("%v, %v", again, err)
	}
	// Remembered or not, a key belongs to its Land and day.
	for _, other := range []Wrapped{{Land: "14", DayKey: w.DayKey, Bytes: w.Bytes}, {Land: w.Land, DayKey: w.DayKey + "0", Bytes: w.Bytes}} {
		if _, err := k.OpenDataKey(t.Context(), other); err == nil {
			t.Errorf("%v opened a remembered key", other)
		}
	}
}

// A day's end is the end of the keys in memory, too.
func TestKeysInMemoryEndWithTheirDay(t *testing.T) {
	log, dir := &memoryLog{}, t.TempDir()
	k, other := keeperOver(t, dir, log), keeperOver(t, dir, log)
	w := newWrapped(t, k)
	stays, err := k.NewDataKey(t.Context(), "08", midday.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*Keeper{k, other} {
		if _, err := k.OpenDataKey(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := k.Destroy(t.Context(), "08", "2026-11-22"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	unreadable(t, k, w)
	if err := other.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	unreadable(t, other, w)
	for _, k := range []*Keeper{k, other} {
		for _, d := range k.data.byKey {
			if p := d.Value.(pair[*DataKey]); p.value.wrapped.DayKey == w.DayKey {
				t.Error("a key of the destroyed day is still in memory")
			}
		}
	}
	if _, err := k.OpenDataKey(t.Context(), stays.Wrapped()); err != nil {
		t.Errorf("another day's key went, too: %v", err)
	}
	// An opening that began before the end must not bring a key back.
	if late, err := newDataKey(w, newSecret()); err != nil || k.remember(late) {
		t.Errorf("remembered after the end: %v", err)
	}
	unreadable(t, k, w)
	// Compacted away is destroyed as well.
	log.mu.Lock()
	log.keys, log.vals = nil, nil
	log.mu.Unlock()
	if err := other.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	unreadable(t, other, stays.Wrapped())
}

func TestKeysInMemoryAreBounded(t *testing.T) {
	k := keeperOver(t, t.TempDir(), &memoryLog{})
	first := newWrapped(t, k)
	for range maxDataKeys + 10 {
		newWrapped(t, k)
	}
	if n := len(k.data.byKey); n != maxDataKeys {
		t.Errorf("%d keys in memory", n)
	}
	if _, err := k.OpenDataKey(t.Context(), first); err != nil {
		t.Errorf("a key that was forgotten does not open: %v", err)
	}
}
