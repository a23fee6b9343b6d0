package seal_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"weiche/internal/fault"
	"weiche/internal/seal"
	"weiche/internal/submission"
)

// keyLog is a KeyLog in memory, with a record of what was asked of it.
type keyLog struct {
	mu      sync.Mutex
	entries []entry
	loads   int
	fail    error // of every call while set
}

type entry struct {
	key   string
	value []byte
}

func (l *keyLog) Append(_ context.Context, key string, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	l.entries = append(l.entries, entry{key, bytes.Clone(value)})
	return nil
}

func (l *keyLog) Load(_ context.Context, fn func(string, []byte) error) error {
	l.mu.Lock()
	l.loads++
	entries, fail := l.entries[:len(l.entries):len(l.entries)], l.fail
	l.mu.Unlock()
	if fail != nil {
		return fail
	}
	for _, e := range entries {
		if err := fn(e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}

func (l *keyLog) compact() {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := map[string]int{}
	for i, e := range l.entries {
		last[e.key] = i
	}
	var kept []entry
	for i, e := range l.entries {
		if last[e.key] == i && len(e.value) > 0 {
			kept = append(kept, e)
		}
	}
	l.entries = kept
}

func (l *keyLog) setFail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *keyLog) loaded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loads
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, dir string, log seal.KeyLog) *seal.Keeper {
	t.Helper()
	k, err := seal.Open(dir, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newKey(t testing.TB, k *seal.Keeper, land submission.Land, at time.Time) *seal.DataKey {
	t.Helper()
	key, err := k.NewDataKey(t.Context(), land, at)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func wantFault(t testing.TB, err error, class fault.Class, reason fault.Reason) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("error %v (%T) is no fault; want %s/%s", err, err, class, reason)
	}
	if f.Class != class || f.Reason != reason {
		t.Fatalf("fault %s/%s (%s); want %s/%s", f.Class, f.Reason, f, class, reason)
	}
}

func TestAnotherProcessOpensWhatOneSealed(t *testing.T) {
	dir, log := t.TempDir(), &keyLog{}
	key := newKey(t, open(t, dir, log), "08", noon)
	sealed, err := key.Seal("id/submission", []byte("Müller-Łukasz"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("ller")) {
		t.Fatal("the plain text shows")
	}
	again, err := open(t, dir, log).OpenDataKey(t.Context(), key.Wrapped())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := again.Open("id/submission", sealed)
	if err != nil || string(plain) != "Müller-Łukasz" {
		t.Fatalf("opened %q, %v", plain, err)
	}
}

func TestSealedBytesOpenInTheirPlaceOnly(t *testing.T) {
	k := open(t, t.TempDir(), &keyLog{})
	key, other := newKey(t, k, "08", noon), newKey(t, k, "08", noon)
	sealed, err := key.Seal("id/xml", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = key.Open("id/submission", sealed)
	wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
	_, err = other.Open("id/xml", sealed)
	wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		_, err := key.Open("id/xml", bad)
		wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
		_, err = key.Open("id/xml", sealed[:i])
		wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
	}
}

func TestAWrappedKeyOpensUnderItsOwnDayAndLandOnly(t *testing.T) {
	k := open(t, t.TempDir(), &keyLog{})
	w := newKey(t, k, "08", noon).Wrapped()
	saxony := newKey(t, k, "14", noon).Wrapped()
	tomorrow := newKey(t, k, "08", noon.AddDate(0, 0, 1)).Wrapped()
	flipped := bytes.Clone(w.Bytes)
	flipped[20] ^= 1
	for name, bad := range map[string]seal.Wrapped{
		"another Land's name":       {Land: "14", DayKey: w.DayKey, Bytes: w.Bytes},
		"another Land's day key":    {Land: "14", DayKey: saxony.DayKey, Bytes: w.Bytes},
		"another day's key":         {Land: "08", DayKey: tomorrow.DayKey, Bytes: w.Bytes},
		"a flipped bit":             {Land: "08", DayKey: w.DayKey, Bytes: flipped},
		"no bytes":                  {Land: "08", DayKey: w.DayKey},
		"an id that is none":        {Land: "08", DayKey: "08", Bytes: w.Bytes},
		"a path":                    {Land: "08", DayKey: "08/2026-11-22/../../x", Bytes: w.Bytes},
		"a day that is none":        {Land: "08", DayKey: "08/2026-13-22/" + strings.Repeat("0", 32), Bytes: w.Bytes},
		"a day key nobody ever had": {Land: "08", DayKey: "08/2026-11-22/" + strings.Repeat("0", 32), Bytes: w.Bytes},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := k.OpenDataKey(t.Context(), bad)
			wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
		})
	}
}

func TestADayKeyServesOneLandAndOneUTCDay(t *testing.T) {
	log := &keyLog{}
	k := open(t, t.TempDir(), log)
	berlin := time.FixedZone("CET", 3600)
	a := newKey(t, k, "08", time.Date(2026, 11, 23, 0, 30, 0, 0, berlin)).Wrapped() // 23:30 UTC the day before
	b := newKey(t, k, "08", noon).Wrapped()
	c := newKey(t, k, "14", noon).Wrapped()
	if a.DayKey != b.DayKey || !strings.HasPrefix(a.DayKey, "08/2026-11-22/") {
		t.Errorf("day keys %q and %q; want one, of 08/2026-11-22", a.DayKey, b.DayKey)
	}
	if !strings.HasPrefix(c.DayKey, "14/2026-11-22/") || len(log.entries) != 2 {
		t.Errorf("day key %q, %d in the log; want 14/2026-11-22/… and 2", c.DayKey, len(log.entries))
	}
}

func TestADestroyedDayIsUnreadable(t *testing.T) {
	dir, log := t.TempDir(), &keyLog{}
	k := open(t, dir, log)
	running := open(t, dir, log)
	w := newKey(t, k, "08", noon).Wrapped()
	other := newKey(t, k, "08", noon.AddDate(0, 0, 1)).Wrapped()
	if _, err := running.OpenDataKey(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if n, err := k.Destroy(t.Context(), "08", "2026-11-22"); n != 1 || err != nil {
		t.Fatalf("destroyed %d, %v; want 1", n, err)
	}
	if err := running.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, keeper := range []*seal.Keeper{k, running, open(t, dir, log)} {
		_, err := keeper.OpenDataKey(t.Context(), w)
		wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
		if _, err := keeper.OpenDataKey(t.Context(), other); err != nil {
			t.Errorf("another day's record: %v", err)
		}
	}
	log.compact()
	_, err := open(t, dir, log).OpenDataKey(t.Context(), w)
	wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
	if again := newKey(t, k, "08", noon).Wrapped(); again.DayKey == w.DayKey {
		t.Error("a destroyed key was used again")
	}
}

func TestNothingIsSealedUnderAKeyThatIsNotDurable(t *testing.T) {
	log := &keyLog{}
	k := open(t, t.TempDir(), log)
	down := fault.New(fault.Retryable, fault.ReasonBrokerUnavailable, "down")
	log.setFail(down)
	_, err := k.NewDataKey(t.Context(), "08", noon)
	wantFault(t, err, fault.Retryable, fault.ReasonBrokerUnavailable)
	log.setFail(errors.New("something else"))
	_, err = k.NewDataKey(t.Context(), "08", noon)
	wantFault(t, err, fault.Retryable, fault.ReasonBrokerUnavailable)
	log.setFail(nil)
	w := newKey(t, k, "08", noon).Wrapped()
	if len(log.entries) != 1 || log.entries[0].key != w.DayKey {
		t.Fatal("the key in use is not the one in the log")
	}
}

func TestALogThatIsDownIsNotAnUnreadableRecord(t *testing.T) {
	dir, log := t.TempDir(), &keyLog{}
	w := newKey(t, open(t, dir, log), "08", noon).Wrapped()
	k := open(t, dir, log)
	log.setFail(errors.New("down"))
	_, err := k.OpenDataKey(t.Context(), w)
	wantFault(t, err, fault.Retryable, fault.ReasonBrokerUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	log.setFail(context.Canceled)
	_, err = k.OpenDataKey(ctx, w)
	wantFault(t, err, fault.Cancelled, fault.ReasonCancelled)
	log.setFail(nil)
	if _, err := k.OpenDataKey(t.Context(), w); err != nil {
		t.Fatal(err)
	}
}

func TestAnUnknownDayKeyIsLookedForOnce(t *testing.T) {
	log := &keyLog{}
	k := open(t, t.TempDir(), log)
	newKey(t, k, "08", noon)
	before := log.loaded()
	for range 100 {
		_, err := k.OpenDataKey(t.Context(), seal.Wrapped{Land: "08", DayKey: "08/2026-11-22/" + strings.Repeat("f", 32)})
		wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
	}
	if n := log.loaded() - before; n != 1 {
		t.Errorf("the log was read %d times; want once", n)
	}
}

func TestManyAtOnce(t *testing.T) {
	dir, log := t.TempDir(), &keyLog{}
	writer, reader := open(t, dir, log), open(t, dir, log)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				land := submission.Land(fmt.Sprintf("%02d", 1+i%16))
				key, err := writer.NewDataKey(t.Context(), land, noon.AddDate(0, 0, j%3))
				if err != nil {
					t.Error(err)
					return
				}
				sealed, err := key.Seal("a", []byte("plain"))
				if err != nil {
					t.Error(err)
					return
				}
				opened, err := reader.OpenDataKey(t.Context(), key.Wrapped())
				if err != nil {
					t.Error(err)
					return
				}
				if plain, err := opened.Open("a", sealed); err != nil || string(plain) != "plain" {
					t.Errorf("opened %q, %v", plain, err)
				}
			}
		})
	}
	wg.Wait()
	if len(log.entries) != 16*3 {
		t.Errorf("%d day keys in the log; want one per Land and day, %d", len(log.entries), 16*3)
	}
}

func TestTwoReplicasThatStartAtOnceShareTheirKeys(t *testing.T) {
	dir, log := t.TempDir(), &keyLog{}
	var wg sync.WaitGroup
	hashes, receipts := make([]string, 8), make([]string, 8)
	wrapped := make([]seal.Wrapped, 8)
	keepers := make([]*seal.Keeper, 8)
	for i := range 8 {
		wg.Go(func() {
			k, err := seal.Open(dir, nil, log)
			if err != nil {
				t.Error(err)
				return
			}
			key, err := k.NewDataKey(t.Context(), "08", noon)
			if err != nil {
				t.Error(err)
				return
			}
			s, err := seal.OpenSigner(dir, "")
			if err != nil {
				t.Error(err)
				return
			}
			keepers[i], wrapped[i], hashes[i] = k, key.Wrapped(), k.HashReference("p", "r")
			receipts[i], _ = s.Sign([]byte("{}"))
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i, k := range keepers {
		for _, w := range wrapped {
			if _, err := k.OpenDataKey(t.Context(), w); err != nil {
				t.Errorf("replica %d: %v", i, err)
			}
		}
		if hashes[i] != hashes[0] || receipts[i] != receipts[0] {
			t.Errorf("replica %d hashes or signs with a key of its own", i)
		}
	}
}

func TestALostMasterKeyIsNotReplaced(t *testing.T) {
	dir, log := t.TempDir(), &keyLog{}
	w := newKey(t, open(t, dir, log), "08", noon).Wrapped()
	file := filepath.Join(dir, "master-08.key")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	k := open(t, dir, log)
	_, err = k.NewDataKey(t.Context(), "08", noon)
	wantFault(t, err, fault.Retryable, fault.ReasonMisconfigured)
	_, err = k.OpenDataKey(t.Context(), w)
	wantFault(t, err, fault.Retryable, fault.ReasonMisconfigured)
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("a new master key was made in the place of the lost one")
	}
	newKey(t, k, "14", noon) // another Land goes on

	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.OpenDataKey(t.Context(), w); err != nil {
		t.Errorf("after the file is back: %v", err)
	}
}

func TestAnotherMasterKeyMakesNothingUnreadableForGood(t *testing.T) {
	dir, log := t.TempDir(), &keyLog{}
	w := newKey(t, open(t, dir, log), "08", noon).Wrapped()
	file := filepath.Join(t.TempDir(), "master")
	fresh := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)) + "\n"
	if err := os.WriteFile(file, []byte(fresh), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := seal.Open(t.TempDir(), map[submission.Land]string{"08": file}, log)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.OpenDataKey(t.Context(), w)
	wantFault(t, err, fault.Retryable, fault.ReasonMisconfigured)

	// Rotation: the new key first, the old one on a line of its own.
	old, err := os.ReadFile(filepath.Join(dir, "master-08.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte(fresh), old...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.OpenDataKey(t.Context(), w); err != nil {
		t.Errorf("with the older key in the file: %v", err)
	}
	if _, err := k.OpenDataKey(t.Context(), newKey(t, k, "08", noon).Wrapped()); err != nil {
		t.Error(err)
	}
}

func TestKeyFilesAreMadeForTheirOwnerOnlyAndRefusedOtherwise(t *testing.T) {
	dir, log := filepath.Join(t.TempDir(), "deep", "keys"), &keyLog{}
	newKey(t, open(t, dir, log), "08", noon)
	if _, err := seal.OpenSigner(dir, ""); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("key files %v, %v; want three", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v; want 0600", filepath.Base(f), info.Mode(), err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) > 0 {
		t.Errorf("temporary key files are left: %v", left)
	}
	reopen := func() error {
		if _, err := seal.Open(dir, nil, log); err != nil {
			return err
		}
		_, err := seal.OpenSigner(dir, "")
		return err
	}
	for _, f := range files {
		for _, mode := range []fs.FileMode{0o644, 0o604, 0o620, 0o666} {
			if err := os.Chmod(f, mode); err != nil {
				t.Fatal(err)
			}
			if err := reopen(); err == nil || !strings.Contains(err.Error(), f) || !strings.Contains(err.Error(), "chmod 600") {
				t.Errorf("%s with mode %v: error %v; want one that names the file and what to do", filepath.Base(f), mode, err)
			}
		}
		for _, mode := range []fs.FileMode{0o600, 0o400, 0o440} {
			if err := os.Chmod(f, mode); err != nil {
				t.Fatal(err)
			}
			if err := reopen(); err != nil {
				t.Errorf("%s with mode %v: %v", filepath.Base(f), mode, err)
			}
		}
	}
}

func TestMalformedMasterKeysAreRefusedAtStart(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "short": "c2hvcnQ=\n", "no base64": strings.Repeat("!", 44) + "\n",
		"one good and one bad": base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\nx\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "m")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := seal.Open(t.TempDir(), map[submission.Land]string{"08": file}, &keyLog{})
			if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "openssl rand -base64 32") {
				t.Errorf("error %v; want one that names the file and what to do", err)
			}
		})
	}
	if _, err := seal.Open(t.TempDir(), map[submission.Land]string{"08": filepath.Join(t.TempDir(), "none")}, &keyLog{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a configured file that is missing: %v", err)
	}
}

func TestADataKeyIsForALand(t *testing.T) {
	k := open(t, t.TempDir(), &keyLog{})
	newKey(t, k, submission.LandNone, noon)
	for _, land := range []submission.Land{"", "17", "8", "../x"} {
		_, err := k.NewDataKey(t.Context(), land, noon)
		wantFault(t, err, fault.Permanent, fault.ReasonMalformed)
	}
}

func TestHashReferenceHidesAndTellsApart(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir, &keyLog{})
	a := k.HashReference("amt24", "AZ-1")
	if b, err := hex.DecodeString(a); err != nil || len(b) != 32 {
		t.Fatalf("%q is not HMAC-SHA256 in hex", a)
	}
	if a != open(t, dir, &keyLog{}).HashReference("amt24", "AZ-1") {
		t.Error("the hash changes over a restart")
	}
	for _, other := range []string{
		k.HashReference("amt2", "4AZ-1"), k.HashReference("service-bw", "AZ-1"),
		open(t, t.TempDir(), &keyLog{}).HashReference("amt24", "AZ-1"),
	} {
		if a == other {
			t.Error("two references, or two keys, give one hash")
		}
	}
}

func TestStreams(t *testing.T) {
	key := newKey(t, open(t, t.TempDir(), &keyLog{}), "08", noon)
	for _, size := range []int{0, 1, 1<<20 - 57, 1<<20 - 56, 1 << 20, 2<<20 + 5} {
		plain := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
		sealed := encrypt(t, key, "blob", plain)
		got, err := decrypt(key, "blob", sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: %d came back, %v", size, len(got), err)
		}
		_, err = decrypt(key, "other", sealed)
		wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
		cuts := []int{0, 1, 20, len(sealed) - 1, len(sealed) / 2, 1 << 20, 2 << 20}
		for _, cut := range cuts {
			if cut < len(sealed) {
				_, err := decrypt(key, "blob", sealed[:cut])
				wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
			}
		}
		for _, at := range []int{0, 5, 50, len(sealed) / 2, len(sealed) - 1} {
			bad := bytes.Clone(sealed)
			bad[at] ^= 0x80
			_, err := decrypt(key, "blob", bad)
			wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
		}
		_, err = decrypt(key, "blob", append(bytes.Clone(sealed), 0))
		wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
	}
}

func TestAStreamsErrorStays(t *testing.T) {
	key := newKey(t, open(t, t.TempDir(), &keyLog{}), "08", noon)
	sealed := encrypt(t, key, "blob", []byte("content"))
	sealed[len(sealed)-1] ^= 1
	r, err := key.DecryptFrom(bytes.NewReader(sealed), "blob")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n, err := r.Read(make([]byte, 10))
		if n != 0 {
			t.Fatal("bytes that do not verify were given out")
		}
		wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
	}
}

func TestADiskErrorUnderAStreamIsNoForgery(t *testing.T) {
	key := newKey(t, open(t, t.TempDir(), &keyLog{}), "08", noon)
	sealed := encrypt(t, key, "blob", make([]byte, 3<<20))
	disk := errors.New("disk")
	for _, at := range []int{0, 10, 100, 2 << 20} {
		r, err := key.DecryptFrom(io.MultiReader(bytes.NewReader(sealed[:at]), failing{disk}), "blob")
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if !errors.Is(err, disk) {
			t.Errorf("failing at byte %d: %v", at, err)
		}
	}
	w, err := key.EncryptTo(failingWriter{disk}, "blob")
	if err == nil {
		err = w.Close()
	}
	if !errors.Is(err, disk) {
		t.Errorf("writing: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func encrypt(t testing.TB, key *seal.DataKey, aad string, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := key.EncryptTo(&b, aad)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decrypt(key *seal.DataKey, aad string, sealed []byte) ([]byte, error) {
	r, err := key.DecryptFrom(bytes.NewReader(sealed), aad)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestNothingPrintsAKey(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir, &keyLog{})
	key := newKey(t, k, "08", noon)
	s, err := seal.OpenSigner(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	w := key.Wrapped()
	box := &seal.Box{Key: w, Sections: []seal.Section{{Name: "xml", Data: []byte("CANARY")}}}
	for _, v := range []any{k, key, s, w, &w, box, box.Sections, box.Sections[0]} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			out := fmt.Sprintf(verb, v)
			if len(out) > 60 || strings.Contains(out, "CANARY") || strings.Contains(out, "43414e415259") {
				t.Errorf("%s of %T prints %.200s", verb, v, out)
			}
		}
	}
}

// What the log's guard knows by this method must not print (internal/telemetry).
var _ = []interface{ Sensitive() }{(*seal.Keeper)(nil), (*seal.DataKey)(nil), (*seal.Signer)(nil), (*seal.Box)(nil), seal.Section{}, seal.Wrapped{}}

// overtaken is a key log in which another replica uses a Land for the first time
// between our look for the master key and our reading of the log.
type overtaken struct {
	*keyLog
	once sync.Once
	by   func()
}

func (l *overtaken) Load(ctx context.Context, fn func(string, []byte) error) error {
	l.once.Do(l.by)
	return l.keyLog.Load(ctx, fn)
}

// Two replicas that share a keys directory got a 500 on the very first
// submission of a Land: the file was missing at the first look, and the other's
// day key was in the log at the second.
func TestRegressionAnotherReplicaMakesTheMasterKeyMeanwhile(t *testing.T) {
	dir, log := t.TempDir(), &keyLog{}
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	other := open(t, dir, log)
	late := &overtaken{keyLog: log}
	late.by = func() {}
	ours := open(t, dir, late)
	late.by = func() {
		if _, err := other.NewDataKey(t.Context(), "08", at); err != nil {
			t.Error(err)
		}
	}
	late.once = sync.Once{} // opening read the log too
	key, err := ours.NewDataKey(t.Context(), "08", at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.OpenDataKey(t.Context(), key.Wrapped()); err != nil {
		t.Errorf("the other replica cannot open it: %v", err)
	}
}
