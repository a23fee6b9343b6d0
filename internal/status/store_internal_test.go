package status

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

// fill draws every field of a struct, whatever fields there are: one that is
// added and forgotten in the row's form shows.
func fill(rt *rapid.T, v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(rt, "time")).UTC().Add(time.Duration(rapid.IntRange(0, 999).Draw(rt, "ns")))
		return
	case *uuid.UUID:
		copy(p[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "uuid"))
		return
	}
	if rapid.IntRange(0, 3).Draw(rt, "zero") == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(rt, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(rt, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(1, 3).Draw(rt, "n"), 3))
		for i := range v.Len() {
			if e := v.Index(i); e.Kind() == reflect.Pointer { // an account has no empty delivery
				e.Set(reflect.New(e.Type().Elem()))
				fill(rt, e.Elem())
			} else {
				fill(rt, e)
			}
		}
	case reflect.String:
		v.SetString(rapid.OneOf(rapid.SampledFrom([]string{"08", "Böblingen", "\x00\xff", "0123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF",
			"0123456789abcdef0123456789abcdef0"}), rapid.String()).Draw(rt, "text"))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64Range(-1<<31, 1<<31-1).Draw(rt, "number"))
	default:
		rt.Fatalf("no %s can be drawn", v.Type())
	}
}

func TestRowKeepsTheWholeAccount(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := &entry{row: 7, acct: &submission.Account{}, partition: rapid.Int32Range(0, 99).Draw(rt, "partition"), next: rapid.Int64Range(0, 1<<40).Draw(rt, "next"),
			story: place{partition: 3, offset: 1 << 35, effect: effectSuperseded, segment: 1<<35 - 9, at: 70_000, size: 800}.append(nil)}
		for i := range reflect.TypeFor[submission.Account]().NumField() {
			fill(rt, reflect.ValueOf(e.acct).Elem().Field(i))
		}
		raw := e.body()
		got, err := decodeEntry(7, raw)
		if err != nil || !reflect.DeepEqual(got, e) {
			rt.Fatalf("read %+v, %v\nwant %+v", got.acct, err, e.acct)
		}
		// A row that is torn is told, and harms nobody.
		if torn, err := decodeEntry(7, raw[:rapid.IntRange(0, len(raw)-1).Draw(rt, "torn")]); err == nil {
			rt.Fatalf("half a row is read as %+v", torn.acct)
		}
		list, err := places(got.story)
		if err != nil || len(list) != 1 || list[0] != (place{3, 1 << 35, effectSuperseded, 1<<35 - 9, 70_000, 800}) {
			rt.Fatalf("%+v, %v", list, err)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	e := &entry{acct: &submission.Account{Deliveries: []*submission.DeliveryAccount{{}}, Decision: &submission.Decision{}}}
	f.Add(e.body())
	f.Add(binary.AppendVarint(nil, 1<<40))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = decodeEntry(1, raw) })
}

func anID(r *rand.Rand) (id uuid.UUID) {
	binary.LittleEndian.PutUint64(id[:8], r.Uint64())
	binary.LittleEndian.PutUint64(id[8:], r.Uint64())
	return id
}

// What was added is known for ever; of strangers few are taken for known, over
// every layer that it grows by.
func TestFilter(t *testing.T) {
	f, r := newFilter(), rand.New(rand.NewPCG(1, 2)) //nolint:gosec // no secret
	id := anID(r)
	if !f.maybe(id, hasRow) {
		t.Error("before everything is in, nothing is certain")
	}
	f.ready.Store(true)
	const n = 600_000
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = anID(r)
		f.add(ids[i], hasRow)
	}
	copied := 0
	for _, id := range ids {
		if !f.maybe(id, hasRow) {
			t.Fatal("an id that was added is not known")
		}
		if f.maybe(id, hasCopied) {
			copied++
		}
	}
	strangers := 0
	for range n {
		if f.maybe(anID(r), hasRow) {
			strangers++
		}
	}
	if layers := len(*f.layers.Load()); layers < 2 {
		t.Errorf("it has %d layers", layers)
	}
	if strangers > n/20 || copied > n/20 {
		t.Errorf("of %d strangers %d are taken for known; %d for copied", n, strangers, copied)
	}
}

// The cache is bounded in bytes, and holds nothing that is out of date.
func TestCache(t *testing.T) {
	c, r := newCache(1<<20), rand.New(rand.NewPCG(1, 2)) //nolint:gosec // no secret
	var ids []uuid.UUID
	for range 5000 {
		id := anID(r)
		ids = append(ids, id)
		c.put(id, &entry{acct: &submission.Account{ID: id}})
	}
	held := 0
	for _, half := range []map[uuid.UUID]*entry{c.young, c.elder} {
		for _, e := range half {
			held += e.size()
		}
	}
	if held > 1<<20 || c.get(ids[0]) != nil {
		t.Errorf("%d bytes are held", held)
	}
	last := ids[len(ids)-1]
	if e := c.get(last); e == nil || e.acct.ID != last {
		t.Errorf("the newest entry is %+v", e)
	}
	c.put(last, &entry{acct: &submission.Account{ID: last}, story: make([]byte, 1<<20)})
	if c.get(last) != nil {
		t.Error("an entry too large for the cache left the one before it")
	}
}

// All who ask at once share a request, and nobody is answered by one that began
// before the call.
func TestEndsAreAskedOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked int64
		answer := make(chan error)
		e := &ends{ask: func(context.Context) ([]int64, []int64, error) {
			asked++
			n := asked
			return nil, []int64{n}, <-answer
		}}
		got := make(chan int64, 100)
		ask := func(ctx context.Context) {
			go func() {
				if _, newest, err := e.now(ctx); err != nil {
					got <- -1
				} else {
					got <- newest[0]
				}
			}()
		}
		ask(t.Context())
		synctest.Wait() // its request is under way
		for range 50 {
			ask(t.Context())
		}
		gone, cancel := context.WithCancel(t.Context())
		ask(gone)
		synctest.Wait()
		cancel()
		if n := <-got; n != -1 {
			t.Errorf("who gave up got %d", n)
		}
		answer <- nil
		if n := <-got; n != 1 {
			t.Errorf("the first one got the answer %d", n)
		}
		answer <- nil
		for range 50 {
			if n := <-got; n != 2 {
				t.Errorf("who came meanwhile got the answer %d", n)
			}
		}
		ask(t.Context())
		answer <- errors.New("the brokers are away")
		if n := <-got; n != -1 || asked != 3 {
			t.Errorf("a failed request: %d, after %d", n, asked)
		}
	})
}

// lockedLog ends every append with the progress held, as it is while the
// projection tells how far it has come.
type lockedLog struct {
	Log
	progress *progress
}

func (l lockedLog) Append(context.Context, ...*bus.Record) error { l.progress.mu.Lock(); return nil }

// The projection tells the ledger of its progress under the progress's lock. An
// append that asked for that lock under the ledger's own would wait for it for
// ever, and so would everybody behind the two.
func TestAppendWhileProgressIsTold(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "status.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	l := NewLedger(s, lockedLog{progress: &s.progress}, nil)
	appended := make(chan error, 1)
	go func() {
		appended <- l.Append(context.Background(), 0, submission.Event{ID: uuid.New(), Type: submission.EventAccepted, Stage: submission.StageDispatch, Submission: uuid.New()})
	}()
	select {
	case err := <-appended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the append waits for the projection, which waits for it")
	}
	s.progress.mu.Unlock()
}
