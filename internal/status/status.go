// Package status knows what became of every submission: a projection of the
// append-only account (events, and the submissions and claims not yet
// dispatched) into a SQLite file, the queries on it, and the ledger by which the
// stages know what was already done.
//
// The file is thrown away and rebuilt at will; offsets are saved in the same
// transaction as what they led to, so a crash repeats and never skips. It
// projects all partitions. It refuses to be a source of truth: nothing is
// written here that the log does not say, and it holds no payload.
package status

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"weiche/internal/bus"
)

// Topics that are projected.
const (
	TopicEvents      = bus.TopicEvents
	TopicSubmissions = bus.TopicSubmissions
	TopicClaims      = bus.TopicClaims
)

// Log is what the projection and the ledger need of the bus.
type Log interface {
	Tail(ctx context.Context, topic string, partition int32, from int64, fn func(*bus.Record) error) error
	ReadTo(ctx context.Context, topic string, partition int32, from, to int64, fn func(*bus.Record) error) error
	Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error)
	Append(ctx context.Context, recs ...*bus.Record) error
}

// ErrNotFound says that the store knows no such submission.
var ErrNotFound = errors.New("not found")

// Store is the projection in one SQLite file. Its methods are safe for
// concurrent use; Project has one writer at a time. Only one process may open a
// file.
type Store struct {
	w, r *sql.DB
	path string

	mu     sync.RWMutex // queries hold it shared, the change of generation alone
	active *generation

	write    sync.Mutex
	progress progress
}

// Open opens or makes the store in the file at path. A file that is not a store
// of this release is projected anew, since nothing is lost by that.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("directory of the status store: %w", err)
	}
	// Submission ids, cases and hashes of references are nobody else's business.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("status store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("status store: %w", err)
	}
	s := &Store{path: path}
	s.progress.init()
	dsn := func(extra string) string {
		return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}).String() +
			"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=temp_store(MEMORY)" + extra
	}
	// A write is not synced: the log says it again after a power failure. What is
	// copied from the WAL into the file is, so the file is never torn: stages
	// trust it with what was done. The WAL is copied every 16 MB: pages that every
	// batch touches are copied once for many batches.
	if s.w, err = sql.Open("sqlite", dsn("&_txlock=immediate&_pragma=cache_size(-24000)&_pragma=wal_autocheckpoint(4000)")); err != nil {
		return nil, fmt.Errorf("status store: %w", err)
	}
	s.w.SetMaxOpenConns(1)
	s.w.SetMaxIdleConns(1)
	if s.r, err = sql.Open("sqlite", dsn("&_pragma=query_only(1)&_pragma=cache_size(-4000)")); err != nil {
		return nil, errors.Join(fmt.Errorf("status store: %w", err), s.w.Close())
	}
	readers := max(4, 2*runtime.NumCPU())
	s.r.SetMaxOpenConns(readers)
	s.r.SetMaxIdleConns(readers)
	if err := s.openActive(); err != nil {
		return nil, errors.Join(fmt.Errorf("status store %s: %w", filepath.Base(path), err), s.Close())
	}
	s.progress.replace(s.active)
	return s, nil
}

func (s *Store) openActive() error {
	if _, err := s.w.Exec(`CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)`); err != nil {
		return err
	}
	meta := map[string]int{}
	rows, err := s.w.Query(`SELECT name, value FROM meta`)
	if err != nil {
		return err
	}
	err = scan(rows, func(rows *sql.Rows) error {
		var name string
		var value int
		err := rows.Scan(&name, &value)
		meta[name] = value
		return err
	})
	if err != nil {
		return err
	}
	n := meta["generation"]
	if meta["schema"] != schemaVersion {
		n++
	}
	if err := s.dropOthers(n); err != nil {
		return err
	}
	g, err := s.openGeneration(n)
	if err != nil {
		return err
	}
	s.active = g
	return s.setActive(n)
}

func (s *Store) setActive(n int) error {
	_, err := s.w.Exec(`INSERT OR REPLACE INTO meta VALUES ('generation', ?), ('schema', ?)`, n, schemaVersion)
	return err
}

// dropOthers removes what other generations left behind.
func (s *Store) dropOthers(n int) error {
	rows, err := s.w.Query(`SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'g%\_%' ESCAPE '\'`)
	if err != nil {
		return err
	}
	var drop []string
	err = scan(rows, func(rows *sql.Rows) error {
		var name string
		err := rows.Scan(&name)
		if !strings.HasPrefix(name, prefix(n)) {
			drop = append(drop, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range drop {
		if _, err := s.w.Exec(`DROP TABLE "` + name + `"`); err != nil {
			return err
		}
	}
	return nil
}

func prefix(n int) string { return "g" + strconv.Itoa(n) + "_" }

// Close closes the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active != nil {
		s.active.close()
	}
	var errs []error
	for _, db := range []*sql.DB{s.r, s.w} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// view runs a query on the active generation.
func (s *Store) view(fn func(*generation) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return fn(s.active)
}

// Progress returns the offset below which a partition of a topic is projected.
func (s *Store) Progress(topic string, partition int32) int64 {
	return s.progress.at(source{topic, partition})
}

// Changed returns a channel that is closed when the projection next advances.
func (s *Store) Changed() <-chan struct{} {
	s.progress.mu.Lock()
	defer s.progress.mu.Unlock()
	return s.progress.changed
}

// source is one partition of a topic.
type source struct {
	topic     string
	partition int32
}

// progress tells waiters how far the projection has come.
type progress struct {
	mu      sync.Mutex
	offsets map[source]int64
	epochs  map[epochKey]epoch
	changed chan struct{}
	watch   []func(map[source]int64)

	awaited atomic.Int32  // how many wait
	hurry   chan struct{} // tells that one more does
}

func (p *progress) init() {
	p.offsets, p.changed, p.hurry = map[source]int64{}, make(chan struct{}), make(chan struct{}, 1)
}

func (p *progress) at(s source) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offsets[s]
}

// advance notes new offsets and epochs (nil: as before) and wakes everybody who
// waits. It keeps epochs, which must not change any more.
func (p *progress) advance(now map[source]int64, epochs map[epochKey]epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell(now, epochs)
}

func (p *progress) tell(now map[source]int64, epochs map[epochKey]epoch) {
	for s, o := range now {
		p.offsets[s] = o
	}
	if epochs != nil {
		p.epochs = epochs
	}
	for _, w := range p.watch {
		w(now)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// replace is advance for another generation: nobody sees offsets of the one
// beside epochs of the other.
func (p *progress) replace(g *generation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.offsets)
	p.tell(g.offsets, g.epochs)
}

// wait returns when every source has come to its offset, or with the context.
func (p *progress) wait(ctx context.Context, want map[source]int64) error {
	p.awaited.Add(1)
	defer p.awaited.Add(-1)
	for {
		p.mu.Lock()
		reached := true
		for s, o := range want {
			if p.offsets[s] < o {
				reached = false
				break
			}
		}
		changed := p.changed
		p.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case p.hurry <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(n int64) time.Time { return time.UnixMilli(n).UTC() }
