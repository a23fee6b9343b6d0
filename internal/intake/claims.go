package intake

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// TopicClaims is the topic that decides which body an Idempotency-Key stands
// for.
const TopicClaims = "weiche.claims"

// ClaimLog is what the claims need of the bus.
type ClaimLog interface {
	Append(ctx context.Context, recs ...*bus.Record) error
	Tail(ctx context.Context, topic string, partition int32, from int64, fn func(*bus.Record) error) error
	Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error)
}

// Past knows the submissions of keys whose claim is not kept any more.
type Past interface {
	// Accepted returns the SHA-512 (hex) and the time of a submission that was
	// accepted; ok is false where there is none.
	Accepted(ctx context.Context, id uuid.UUID) (sha512 string, at time.Time, ok bool, err error)
}

// Claim is the first body that was posted under an Idempotency-Key.
type Claim struct {
	hash [32]byte // first half of the body's SHA-512
	at   int64    // acceptedAt, Unix milliseconds
}

// AcceptedAt is the time the first claim was made, UTC, in milliseconds.
func (c Claim) AcceptedAt() time.Time { return time.UnixMilli(c.at).UTC() }

// Same says whether a body with this SHA-512 is the claim's.
func (c Claim) Same(sum [sha512.Size]byte) bool { return c.hash == [32]byte(sum[:32]) }

// Claims is an index of weiche.claims: for each submission id the first claim
// in the log. Every replica reads every partition, so all of them find the same
// claim first, whoever wrote it. It is safe for concurrent use.
//
// A claim is kept as 56 bytes in a map; a test measures what that comes to.
//
// With a retention, a claim counts against another one of its id for that long:
// one whose own time is later by more takes its place, by their times in the
// log, so that all replicas agree whether or not the older one was cut already.
type Claims struct {
	log    ClaimLog
	logger *slog.Logger
	keep   time.Duration // 0: for ever
	shards []*claimShard
	count  atomic.Int64
	gaps   atomic.Bool // claims were forgotten, or cut before the index began
	cancel context.CancelFunc
	done   sync.WaitGroup
}

type claimShard struct {
	mu     sync.Mutex
	first  map[uuid.UUID]Claim
	next   int64         // offset of the next record to be read
	end    int64         // what was the end when the index was opened
	moved  chan struct{} // closed and replaced when next grows; nil while nobody waits
	loaded chan struct{} // closed when next has reached end
}

// OpenClaims starts reading the claims, from the oldest on, which count for keep
// (0: for ever). It returns when the topic's partitions are known; Ready says
// when the index has caught up. Close ends it.
func OpenClaims(ctx context.Context, log ClaimLog, keep time.Duration, logger *slog.Logger) (*Claims, error) {
	oldest, newest, err := log.Offsets(ctx, TopicClaims)
	if err != nil {
		return nil, err
	}
	if len(newest) == 0 {
		return nil, fault.New(fault.Retryable, fault.ReasonUnknownTopic, "topic %s has no partitions; it has to be created first", TopicClaims)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Claims{log: log, logger: logger, keep: keep, cancel: cancel}
	for i := range newest {
		if oldest[i] > 0 {
			c.gaps.Store(true)
		}
		s := &claimShard{first: map[uuid.UUID]Claim{}, next: oldest[i], end: newest[i], loaded: make(chan struct{})}
		if s.next >= s.end {
			close(s.loaded)
		}
		c.shards = append(c.shards, s)
		c.done.Go(func() { c.follow(run, int32(i), s) }) //nolint:gosec // a partition number
	}
	return c, nil
}

// Close stops reading and returns when nothing is read any more.
func (c *Claims) Close() {
	c.cancel()
	c.done.Wait()
}

// Len is the number of claims known.
func (c *Claims) Len() int64 { return c.count.Load() }

// Ready waits until everything is read that was claimed when the index was
// opened, or until ctx ends.
func (c *Claims) Ready(ctx context.Context) error {
	for _, s := range c.shards {
		select {
		case <-s.loaded:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Loaded says whether Ready would return at once.
func (c *Claims) Loaded() bool {
	for _, s := range c.shards {
		select {
		case <-s.loaded:
		default:
			return false
		}
	}
	return true
}

// follow reads one partition until the index is closed. A broker that is gone
// is tried again, with a backoff.
func (c *Claims) follow(ctx context.Context, partition int32, s *claimShard) {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	wait := first
	for {
		s.mu.Lock()
		from := s.next
		s.mu.Unlock()
		err := c.log.Tail(ctx, TopicClaims, partition, from, func(r *bus.Record) error {
			wait = first
			c.read(s, r)
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.logger.Warn("reading claims broke off; it is tried again", "partition", partition, "reason", string(fault.Of(err).Reason))
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		wait = min(2*wait, longest)
	}
}

func (c *Claims) read(s *claimShard, r *bus.Record) {
	id, claim, err := decodeClaim(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Offset < s.next {
		return // the tail began anew
	}
	if err == nil {
		standing, known := s.first[id]
		if !known {
			c.count.Add(1)
		}
		if !known || c.expired(standing, claim.at) {
			s.first[id] = claim
		}
	} else {
		// Nobody was answered on the strength of a claim that cannot be read.
		c.logger.Error("a claim cannot be read and is passed over", "partition", r.Partition, "offset", r.Offset)
	}
	s.next = r.Offset + 1
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
	select {
	case <-s.loaded:
	default:
		if s.next >= s.end {
			close(s.loaded)
		}
	}
}

// expired says whether a claim counts no more against one of that time, in Unix
// milliseconds.
func (c *Claims) expired(claim Claim, at int64) bool {
	return c.keep > 0 && at-claim.at > c.keep.Milliseconds()
}

// Lookup returns the first claim of an id as far as the index has read, and as
// far as it counts at that time. That one is found is certain; that none is
// found only says that it was not read yet, or that it counts no more.
func (c *Claims) Lookup(id uuid.UUID, now time.Time) (Claim, bool) {
	var first Claim
	found := false
	for _, s := range c.shards {
		s.mu.Lock()
		claim, ok := s.first[id]
		s.mu.Unlock()
		switch {
		case !ok:
		case c.expired(claim, now.UnixMilli()):
			c.gaps.Store(true)
		case !found || claim.at < first.at:
			first, found = claim, true
		}
	}
	return first, found
}

// Forget drops the claims made before a time, which must lie further back than
// the retention.
func (c *Claims) Forget(before time.Time) {
	for _, s := range c.shards {
		s.mu.Lock()
		for id, claim := range s.first {
			if claim.at < before.UnixMilli() {
				delete(s.first, id)
				c.count.Add(-1)
				c.gaps.Store(true)
			}
		}
		s.mu.Unlock()
	}
}

// Gaps says whether there were claims that the index does not have (any more):
// then only the account can tell whether a key was used.
func (c *Claims) Gaps() bool { return c.gaps.Load() }

// Claim appends a claim made from m (id, hash, acceptedAt), reads the claims up
// to it, and returns the first one for its id: its own, or whoever's was
// earlier. Errors are faults of the broker; the claim may then stand or not.
func (c *Claims) Claim(ctx context.Context, m submission.Meta) (Claim, error) {
	// An older one may stand in a partition that is still being read.
	if err := c.Ready(ctx); err != nil {
		return Claim{}, fault.Wrap(err, fault.Retryable, fault.ReasonBrokerUnavailable, "the claims could not be read in time")
	}
	rec, err := encodeClaim(m)
	if err != nil {
		return Claim{}, err
	}
	if err := c.log.Append(ctx, rec); err != nil {
		return Claim{}, err
	}
	failpoint.Hit("intake.claim-appended")
	if int(rec.Partition) >= len(c.shards) || rec.Partition < 0 {
		return Claim{}, fault.New(fault.Retryable, fault.ReasonUnknownTopic, "topic %s has grown to partition %d; restart the router", TopicClaims, rec.Partition)
	}
	s := c.shards[rec.Partition]
	for {
		s.mu.Lock()
		if s.next > rec.Offset {
			first, ok := s.first[m.ID]
			s.mu.Unlock()
			if !ok {
				return Claim{}, fault.New(fault.Retryable, fault.ReasonUnknown, "a claim was read back differently than written")
			}
			return c.elsewhere(m, first), nil
		}
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return Claim{}, fault.Wrap(ctx.Err(), fault.Retryable, fault.ReasonBrokerUnavailable, "the claims could not be read back in time")
		}
	}
}

// elsewhere returns the claim of another partition where one was made before the
// number of partitions was changed, else first.
func (c *Claims) elsewhere(m submission.Meta, first Claim) Claim {
	if older, ok := c.Lookup(m.ID, m.AcceptedAt); ok && older.at < first.at {
		return older
	}
	return first
}

// claimValue is a claim's value. Its headers say the same and more, for
// bookkeeping.
type claimValue struct {
	SHA512     string `json:"sha512"`
	AcceptedAt int64  `json:"acceptedAt"` // Unix milliseconds
}

func encodeClaim(m submission.Meta) (*bus.Record, error) {
	v, err := json.Marshal(claimValue{SHA512: m.SHA512, AcceptedAt: m.AcceptedAt.UnixMilli()})
	if err != nil {
		return nil, err
	}
	return &bus.Record{
		Topic: TopicClaims, Partition: bus.AnyPartition, Key: []byte(m.ID.String()), Value: v,
		Headers: m.Headers(submission.TypeClaim),
	}, nil
}

func decodeClaim(r *bus.Record) (uuid.UUID, Claim, error) {
	id, err := uuid.ParseBytes(r.Key)
	if err != nil {
		return uuid.Nil, Claim{}, err
	}
	var v claimValue
	if err := json.Unmarshal(r.Value, &v); err != nil {
		return uuid.Nil, Claim{}, err
	}
	c, err := newClaim(v.SHA512, v.AcceptedAt)
	return id, c, err
}

func newClaim(sha512hex string, at int64) (Claim, error) {
	sum, err := hex.DecodeString(sha512hex)
	if err != nil || len(sum) != sha512.Size {
		return Claim{}, errors.New("the hash is malformed")
	}
	return Claim{hash: [32]byte(sum[:32]), at: at}, nil
}
