package intake

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/submission"
)

func claimMeta(key, body string, at time.Time) submission.Meta {
	sum := sha512.Sum512([]byte(body))
	id := submission.NewID("p", key)
	return submission.Meta{
		ID: id, CaseID: submission.NewCaseID(id), Portal: "p", Land: "08", Service: "99050012104000", Region: "08", AcceptedAt: at,
		SHA512: hex.EncodeToString(sum[:]), Revision: 1, Append: submission.NewID("p", "append "+key+body),
	}
}

// The record of a claim is part of the format: version N+1 has to read it.
func TestGoldenClaim(t *testing.T) {
	m := claimMeta("k", "body", time.Date(2026, 11, 22, 12, 0, 0, 123e6, time.UTC))
	rec, err := encodeClaim(m)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"sha512":"5510ebbda5ed4da007c55a62fd7075c722ec031f07398ef3e90b9b50e0fe950985476c474414d2b386e8f08cd505fb506b528006a30abfe9ca0eb0b67b7e760b","acceptedAt":1795348800123}`
	if string(rec.Value) != want || string(rec.Key) != m.ID.String() {
		t.Errorf("got  %s\nwant %s", rec.Value, want)
	}
	id, claim, err := decodeClaim(&bus.Record{Key: []byte(m.ID.String()), Value: []byte(want)})
	if err != nil || id != m.ID || !claim.AcceptedAt().Equal(m.AcceptedAt) {
		t.Errorf("%v %v %v", id, claim, err)
	}
	if back, err := submission.ParseMeta(rec.Headers); err != nil || back.ID != m.ID || rec.Headers[submission.HeaderType] != submission.TypeClaim {
		t.Errorf("%+v %v", back, err)
	}
}

// What a claim costs in memory decides how long one process can hold them all.
func TestBytesPerClaim(t *testing.T) {
	const n = 60_000
	c := &Claims{logger: slog.New(slog.DiscardHandler)}
	s := &claimShard{first: map[uuid.UUID]Claim{}, loaded: make(chan struct{}), end: n}
	m := claimMeta("k", "body", time.Now())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		m.ID = uuid.New()
		rec, err := encodeClaim(m)
		if err != nil {
			t.Fatal(err)
		}
		rec.Offset = int64(i)
		c.read(s, rec)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f bytes per claim", per)
	if per > 160 {
		t.Errorf("%.0f bytes per claim", per)
	}
	if c.Len() != n {
		t.Errorf("%d claims", c.Len())
	}
	runtime.KeepAlive(s)
}

// A record that is no claim, and one that comes again, change nothing.
func TestClaimsReadOnce(t *testing.T) {
	c := &Claims{logger: slog.New(slog.DiscardHandler)}
	s := &claimShard{first: map[uuid.UUID]Claim{}, loaded: make(chan struct{}), end: 3}
	c.shards = []*claimShard{s}
	first, second := claimMeta("k", "one", time.UnixMilli(1000)), claimMeta("k", "two", time.UnixMilli(2000))
	for i, m := range []submission.Meta{first, second} {
		rec, err := encodeClaim(m)
		if err != nil {
			t.Fatal(err)
		}
		rec.Offset = int64(i)
		c.read(s, rec)
	}
	if c.Loaded() {
		t.Error("it is loaded before its end is reached")
	}
	c.read(s, &bus.Record{Offset: 2, Key: []byte("x"), Value: []byte("x")})
	if !c.Loaded() || c.Ready(t.Context()) != nil {
		t.Error("a record that cannot be read stops the index")
	}
	rec, _ := encodeClaim(claimMeta("k2", "late", time.UnixMilli(3000)))
	rec.Offset = 1 // the tail began anew
	c.read(s, rec)
	got, ok := c.Lookup(first.ID, time.Now())
	if !ok || !got.Same(sha512.Sum512([]byte("one"))) || got.Same(sha512.Sum512([]byte("two"))) || c.Len() != 1 {
		t.Errorf("%v %v, %d claims", got, ok, c.Len())
	}
}

// brokenLog is a log whose reader fails until it is mended.
type brokenLog struct {
	mu     sync.Mutex
	mended chan struct{}
	tails  int
	rec    *bus.Record
}

func (l *brokenLog) Append(_ context.Context, recs ...*bus.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	recs[0].Partition, recs[0].Offset = 0, 0
	l.rec = recs[0]
	return nil
}

func (l *brokenLog) Offsets(context.Context, string) (oldest, newest []int64, err error) {
	return []int64{0}, []int64{0}, nil
}

func (l *brokenLog) Tail(ctx context.Context, _ string, _ int32, _ int64, fn func(*bus.Record) error) error {
	select {
	case <-l.mended:
	default:
		l.mu.Lock()
		l.tails++
		l.mu.Unlock()
		return errors.New("away")
	}
	l.mu.Lock()
	rec := l.rec
	l.mu.Unlock()
	if rec != nil {
		if err := fn(rec); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// A claim that cannot be read back is not answered; once the reader is back, it
// is.
func TestClaimWaitsForTheReader(t *testing.T) {
	log := &brokenLog{mended: make(chan struct{})}
	c, err := OpenClaims(t.Context(), log, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := claimMeta("k", "body", time.UnixMilli(1000))
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Claim(short, m); ProblemOf(err) == nil || ProblemOf(err).Reason != "broker-unavailable" {
		t.Errorf("%v", err)
	}
	close(log.mended)
	if got, err := c.Claim(t.Context(), m); err != nil || !got.AcceptedAt().Equal(m.AcceptedAt) {
		t.Errorf("%v %v", got, err)
	}
}
