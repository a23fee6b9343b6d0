package status

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// tables is the schema of one generation; {} stands for its prefix. Times are
// Unix milliseconds, ids are their sixteen bytes. An index by something random
// costs a page for each submission, so there are few of them: by id, by case
// and by sender. The other indexes grow at their end, or hold only what is
// unfinished.
const tables = `
CREATE TABLE IF NOT EXISTS {}submissions (
  n INTEGER PRIMARY KEY, id BLOB NOT NULL, case_id BLOB NOT NULL, portal TEXT NOT NULL, land TEXT NOT NULL, service TEXT NOT NULL,
  state TEXT NOT NULL, own TEXT NOT NULL, reason TEXT NOT NULL, accepted_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  sender_hash BLOB, destinations TEXT NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS {}submissions_id ON {}submissions (id);
CREATE INDEX IF NOT EXISTS {}submissions_case ON {}submissions (case_id);
CREATE INDEX IF NOT EXISTS {}submissions_sender ON {}submissions (sender_hash) WHERE sender_hash IS NOT NULL;
CREATE INDEX IF NOT EXISTS {}submissions_accepted ON {}submissions (accepted_at, id);
CREATE INDEX IF NOT EXISTS {}submissions_open ON {}submissions (state, accepted_at, id) WHERE state <> 'delivered';
CREATE INDEX IF NOT EXISTS {}submissions_held ON {}submissions (own, updated_at) WHERE own IN ('dead', 'unassigned');
CREATE TABLE IF NOT EXISTS {}deliveries (
  submission INTEGER NOT NULL, id BLOB NOT NULL, partition INTEGER NOT NULL, destination TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
  ord INTEGER NOT NULL, waiting_since INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY (submission, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {}deliveries_partition ON {}deliveries (partition);
CREATE INDEX IF NOT EXISTS {}deliveries_waiting ON {}deliveries (destination, waiting_since) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS {}deliveries_dead ON {}deliveries (updated_at) WHERE state = 'dead';
CREATE TABLE IF NOT EXISTS {}edits (
  id BLOB PRIMARY KEY, submission INTEGER NOT NULL, state TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {}edits_proposed ON {}edits (at, id) WHERE state = 'proposed';
CREATE TABLE IF NOT EXISTS {}segments (n INTEGER PRIMARY KEY, links BLOB NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS {}strays (submission BLOB NOT NULL, place BLOB NOT NULL, PRIMARY KEY (submission, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS {}claims (id BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {}claims_at ON {}claims (at);
CREATE TABLE IF NOT EXISTS {}refusals (
  partition INTEGER NOT NULL, offset INTEGER NOT NULL, id BLOB NOT NULL UNIQUE, at INTEGER NOT NULL, stage TEXT NOT NULL,
  portal TEXT NOT NULL, land TEXT NOT NULL, service TEXT NOT NULL, reason TEXT NOT NULL, json BLOB NOT NULL, PRIMARY KEY (partition, offset));
CREATE TABLE IF NOT EXISTS {}epochs (
  stage TEXT NOT NULL, partition INTEGER NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (stage, partition));
CREATE TABLE IF NOT EXISTS {}offsets (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, link BLOB, quiet INTEGER NOT NULL, PRIMARY KEY (topic, partition));
CREATE TABLE IF NOT EXISTS {}undecodable (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (topic, partition, offset));
CREATE TABLE IF NOT EXISTS {}tampering (
  partition INTEGER NOT NULL, offset INTEGER NOT NULL, covered INTEGER NOT NULL, what TEXT NOT NULL, PRIMARY KEY (partition, offset));
CREATE TABLE IF NOT EXISTS {}accepted (land TEXT NOT NULL, service TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (land, service));
CREATE TABLE IF NOT EXISTS {}counts (
  land TEXT NOT NULL, service TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (land, service, state));
CREATE TABLE IF NOT EXISTS {}delivery_counts (
  destination TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (destination, state));
CREATE TABLE IF NOT EXISTS {}hours (
  hour INTEGER NOT NULL, land TEXT NOT NULL, service TEXT NOT NULL, counted INTEGER NOT NULL, matched INTEGER NOT NULL, told INTEGER NOT NULL,
  PRIMARY KEY (hour, land, service)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {}hours_differ ON {}hours (land, service, counted, matched) WHERE counted <> matched;
CREATE TABLE IF NOT EXISTS {}hourly (
  hour INTEGER NOT NULL, land TEXT NOT NULL, service TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (hour, land, service, state)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS {}tallied (partition INTEGER PRIMARY KEY, offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS {}copies (n INTEGER PRIMARY KEY, partition INTEGER NOT NULL, last INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS {}untold (
  id BLOB PRIMARY KEY, partition INTEGER NOT NULL, offset INTEGER NOT NULL, hour INTEGER NOT NULL, land TEXT NOT NULL, service TEXT NOT NULL) WITHOUT ROWID;
`

// schemaVersion rises with every change of the tables or of an account's form
// in them; an older file is projected anew.
const schemaVersion = 4

type epochKey struct {
	stage     submission.Stage
	partition int32
}

type epoch struct {
	n     int64
	owner string // id of the event that set it
}

// tip is where the running hash over a partition of events stands.
type tip struct {
	link  []byte
	quiet bool // the last event is a checkpoint
}

// generation is one whole projection. The active one answers queries; a second
// exists while a rebuild runs.
type generation struct {
	n int
	p string // prefix of its tables

	// What the writer keeps in memory, as committed.
	offsets map[source]int64
	tips    map[int32]tip
	epochs  map[epochKey]epoch
	rows    int64 // the last row of submissions
	claims  claimed
	tally   tallying
	recent  map[int32]*recent

	// What readers share with it.
	cache *cache
	known *filter

	// Writer's statements. Those of a pair take one row and many.
	putSubmission, putDelivery, putClaim, dropClaims, findEntries pair
	setSubmission, setState, dropDelivery, putEdit, putSegment, putStray, putRefusal, putEpoch, putOffset, putUndecodable, putTampering,
	addAccepted, addCount, addDeliveryCount, linksAt, addHour, addHourly, putTallied, putCopies, dropCopies, putUntold, dropUntold *sql.Stmt
	// Readers' statements.
	readEntry, readSegment, readStrays *sql.Stmt

	stmts []*sql.Stmt
	stop  context.CancelFunc
	scan  sync.WaitGroup
}

// many is how many rows the second statement of a pair takes: by then the cost
// of a statement is small beside that of its rows.
const many = 32

// pair is a statement for one row and for many, with the values of a row.
type pair struct {
	one, many *sql.Stmt
	width     int
}

func (g *generation) sql(q string) string { return strings.ReplaceAll(q, "{}", g.p) }

func (s *Store) openGeneration(n int) (*generation, error) {
	g := &generation{n: n, p: prefix(n), cache: newCache(cacheBytes), known: newFilter()}
	if _, err := s.w.Exec(g.sql(tables)); err != nil {
		return nil, err
	}
	err := errors.Join(g.preparePairs(s.w), g.prepare(s.w, s.r), g.load(s.w))
	if err != nil {
		g.close()
		return nil, err
	}
	g.fillKnown(s.r)
	return g, nil
}

// preparePairs makes the statements whose text ends in a list: [] stands for
// one element of it.
func (g *generation) preparePairs(w *sql.DB) error {
	for _, p := range []struct {
		to    *pair
		width int
		sql   string
	}{
		{&g.putSubmission, 14, `INSERT INTO {}submissions VALUES []`},
		{&g.putDelivery, 9, `INSERT OR REPLACE INTO {}deliveries VALUES []`},
		{&g.putClaim, 2, `INSERT OR IGNORE INTO {}claims VALUES []`},
		{&g.dropClaims, 1, `DELETE FROM {}claims WHERE id IN (VALUES [])`},
		{&g.findEntries, 1, `SELECT id, n, body FROM {}submissions WHERE id IN (VALUES [])`},
	} {
		row := "(?" + strings.Repeat(",?", p.width-1) + ")"
		p.to.width = p.width
		for to, list := range map[**sql.Stmt]string{&p.to.one: row, &p.to.many: row + strings.Repeat(","+row, many-1)} {
			stmt, err := w.Prepare(strings.Replace(g.sql(p.sql), "[]", list, 1))
			if err != nil {
				return err
			}
			*to, g.stmts = stmt, append(g.stmts, stmt)
		}
	}
	return nil
}

func (g *generation) prepare(w, r *sql.DB) error {
	for _, st := range []struct {
		db  *sql.DB
		to  **sql.Stmt
		sql string
	}{
		{w, &g.setSubmission, `UPDATE {}submissions SET case_id=?, portal=?, land=?, service=?, state=?, own=?, reason=?, accepted_at=?, updated_at=?,
			sender_hash=?, destinations=?, body=? WHERE n=?`},
		{w, &g.setState, `UPDATE {}submissions SET state=?, own=?, reason=?, updated_at=?, destinations=?, body=? WHERE n=?`},
		{w, &g.dropDelivery, `DELETE FROM {}deliveries WHERE submission = ? AND id = ?`},
		{w, &g.putEdit, `INSERT OR REPLACE INTO {}edits VALUES (?,?,?,?)`},
		{w, &g.putSegment, `INSERT INTO {}segments VALUES (?,?,?)`},
		{w, &g.putStray, `INSERT OR IGNORE INTO {}strays VALUES (?,?)`},
		{w, &g.putRefusal, `INSERT INTO {}refusals VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`},
		{w, &g.putEpoch, `INSERT OR REPLACE INTO {}epochs VALUES (?,?,?,?)`},
		{w, &g.putOffset, `INSERT OR REPLACE INTO {}offsets VALUES (?,?,?,?,?)`},
		{w, &g.putUndecodable, `INSERT OR IGNORE INTO {}undecodable VALUES (?,?,?)`},
		{w, &g.putTampering, `INSERT OR IGNORE INTO {}tampering VALUES (?,?,?,?)`},
		{w, &g.addAccepted, `INSERT INTO {}accepted VALUES (?,?,?) ON CONFLICT DO UPDATE SET n = n + excluded.n`},
		{w, &g.addCount, `INSERT INTO {}counts VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET n = n + excluded.n`},
		{w, &g.addDeliveryCount, `INSERT INTO {}delivery_counts VALUES (?,?,?) ON CONFLICT DO UPDATE SET n = n + excluded.n`},
		{w, &g.addHour, `INSERT INTO {}hours VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET
			counted = counted + excluded.counted, matched = matched + excluded.matched, told = told + excluded.told`},
		{w, &g.addHourly, `INSERT INTO {}hourly VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET n = n + excluded.n`},
		{w, &g.putTallied, `INSERT OR REPLACE INTO {}tallied VALUES (?,?)`},
		{w, &g.putCopies, `INSERT INTO {}copies (partition, last, data) VALUES (?,?,?)`},
		{w, &g.dropCopies, `DELETE FROM {}copies WHERE partition = ? AND last < ?`},
		{w, &g.putUntold, `INSERT OR REPLACE INTO {}untold VALUES (?,?,?,?,?,?)`},
		{w, &g.dropUntold, `DELETE FROM {}untold WHERE id = ?`},
		{w, &g.linksAt, `SELECT n, links FROM {}segments WHERE n >= ? AND n < ? ORDER BY n DESC LIMIT 1`},
		{r, &g.readEntry, `SELECT n, body FROM {}submissions WHERE id = ?`},
		{r, &g.readSegment, `SELECT data FROM {}segments WHERE n = ?`},
		{r, &g.readStrays, `SELECT place FROM {}strays WHERE submission = ?`},
	} {
		stmt, err := st.db.Prepare(g.sql(st.sql))
		if err != nil {
			return err
		}
		*st.to, g.stmts = stmt, append(g.stmts, stmt)
	}
	return nil
}

// load reads what the writer keeps in memory.
func (g *generation) load(db *sql.DB) error {
	g.offsets, g.tips, g.epochs = map[source]int64{}, map[int32]tip{}, map[epochKey]epoch{}
	if err := db.QueryRow(g.sql(`SELECT COALESCE(MAX(n), 0) FROM {}submissions`)).Scan(&g.rows); err != nil {
		return err
	}
	rows, err := db.Query(g.sql(`SELECT topic, partition, offset, link, quiet FROM {}offsets`))
	if err != nil {
		return err
	}
	err = scan(rows, func(rows *sql.Rows) error {
		var s source
		var o int64
		var t tip
		if err := rows.Scan(&s.topic, &s.partition, &o, &t.link, &t.quiet); err != nil {
			return err
		}
		g.offsets[s] = o
		if s.topic == TopicEvents {
			g.tips[s.partition] = t
		}
		return nil
	})
	if err != nil {
		return err
	}
	if rows, err = db.Query(g.sql(`SELECT stage, partition, epoch, owner FROM {}epochs`)); err != nil {
		return err
	}
	err = scan(rows, func(rows *sql.Rows) error {
		var k epochKey
		var e epoch
		if err := rows.Scan(&k.stage, &k.partition, &e.n, &e.owner); err != nil {
			return err
		}
		g.epochs[k] = e
		return nil
	})
	if err != nil {
		return err
	}
	g.recent = map[int32]*recent{}
	if err := g.loadTally(db); err != nil {
		return err
	}
	g.claims = claimed{}
	if rows, err = db.Query(g.sql(`SELECT id FROM {}claims LIMIT ?`), claimedLimit+1); err != nil {
		return err
	}
	return scan(rows, func(rows *sql.Rows) error {
		var id uuid.UUID
		err := rows.Scan((*rawID)(&id))
		g.claims.add(id)
		return err
	})
}

// fillKnown puts the ids of a former run into the filter, beside the work: till
// then every id may be known, and is asked for. What is written meanwhile goes
// into it too. Where the file cannot be read it stays so; whoever reads next
// will say it.
func (g *generation) fillKnown(r *sql.DB) {
	if g.rows == 0 {
		g.known.ready.Store(true)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.scan.Go(func() {
		rows, err := r.QueryContext(ctx, g.sql(`SELECT id FROM {}submissions`))
		if err != nil {
			return
		}
		err = scan(rows, func(rows *sql.Rows) error {
			var raw sql.RawBytes
			if err := rows.Scan(&raw); err != nil {
				return err
			}
			id, err := uuid.FromBytes(raw)
			// Who is not copied yet is taken for it: a query more, no wrong answer.
			g.known.add(id, hasRow)
			g.known.add(id, hasCopied)
			return err
		})
		g.known.ready.Store(err == nil)
	})
}

func (g *generation) close() {
	if g.stop != nil {
		g.stop()
		g.scan.Wait()
	}
	for _, s := range g.stmts {
		_ = s.Close()
	}
}

// entry returns a submission as committed, nil where its kind is not known. It
// must not be changed.
func (g *generation) entry(id uuid.UUID, k kind) (*entry, error) {
	if e := g.cache.get(id); e != nil {
		return e, nil
	}
	if !g.known.maybe(id, k) {
		return nil, nil
	}
	var row int64
	var raw []byte
	err := g.readEntry.QueryRow(id[:]).Scan(&row, &raw)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeEntry(row, raw)
}
