package intake

import (
	"context"
	"crypto/sha512"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

const keep = 24 * time.Hour

// index is an index that has read the claims given.
func index(t *testing.T, metas ...submission.Meta) *Claims {
	t.Helper()
	s := &claimShard{first: map[uuid.UUID]Claim{}, loaded: make(chan struct{}), end: int64(len(metas))}
	c := &Claims{logger: slog.New(slog.DiscardHandler), keep: keep, shards: []*claimShard{s}}
	for i, m := range metas {
		rec, err := encodeClaim(m)
		if err != nil {
			t.Fatal(err)
		}
		rec.Offset = int64(i)
		c.read(s, rec)
	}
	return c
}

// A claim counts for its retention. Then the next one takes its place, for the
// replica that still has the old one just as for one that began after the cut.
func TestClaimsExpire(t *testing.T) {
	began := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	old, early := claimMeta("k", "one", began), claimMeta("k", "two", began.Add(keep))
	late, last := claimMeta("k", "three", began.Add(keep+time.Millisecond)), claimMeta("k", "four", began.Add(keep+time.Second))
	for name, c := range map[string]*Claims{"has read all": index(t, old, early, late, last), "after the cut": index(t, late, last)} {
		got, ok := c.Lookup(old.ID, last.AcceptedAt)
		if !ok || !got.Same(sha512.Sum512([]byte("three"))) || c.Len() != 1 {
			t.Errorf("%s: %v %v, %d claims", name, got, ok, c.Len())
		}
	}
	if got, ok := index(t, old, early).Lookup(old.ID, early.AcceptedAt); !ok || !got.Same(sha512.Sum512([]byte("one"))) {
		t.Error("a claim did not count within its retention")
	}

	c := index(t, old)
	if _, ok := c.Lookup(old.ID, late.AcceptedAt); ok || !c.Gaps() {
		t.Error("a claim counts beyond its retention, or nobody knows that it does not")
	}
	c = index(t, old, claimMeta("k2", "one", began.Add(time.Hour)))
	if c.Forget(began.Add(time.Minute)); c.Len() != 1 || !c.Gaps() {
		t.Errorf("%d claims, gaps %v", c.Len(), c.Gaps())
	}
	if c = index(t, old); c.Gaps() {
		t.Error("a whole index says that it has gaps")
	}
}

type account struct {
	sum   string
	at    time.Time
	err   error
	asked int
}

func (a *account) Accepted(context.Context, uuid.UUID) (string, time.Time, bool, error) {
	a.asked++
	return a.sum, a.at, a.sum != "", a.err
}

// Where claims have been forgotten the account answers: another body under an
// old key would be accepted, and dropped by dispatch as a repeat.
func TestPastAnswersForForgottenClaims(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	old := claimMeta("k", "one", at)
	whole, cut := index(t, old), index(t, old)
	cut.Forget(at.Add(time.Minute))
	away := errors.New("away")
	for name, c := range map[string]struct {
		claims *Claims
		past   account
		known  bool
		asked  int
		err    error
	}{
		"the claim is there":            {whole, account{}, true, 0, nil},
		"forgotten, and accepted":       {cut, account{sum: old.SHA512, at: at}, true, 1, nil},
		"forgotten, and never accepted": {cut, account{}, false, 1, nil},
		"the account cannot be read":    {cut, account{err: away}, false, 1, away},
	} {
		a := attempt{door: &Door{d: Deps{Claims: c.claims, Past: &c.past}}, meta: claimMeta("k", "two", at.Add(time.Hour))}
		first, known, err := a.claimed(t.Context())
		if known != c.known || c.past.asked != c.asked || !errors.Is(err, c.err) {
			t.Errorf("%s: known %v, asked %d times, %v", name, known, c.past.asked, err)
		}
		if known && (!first.Same(sha512.Sum512([]byte("one"))) || !first.AcceptedAt().Equal(at)) {
			t.Errorf("%s: not the first body, or not its time", name)
		}
	}
}
