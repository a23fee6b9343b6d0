package status

import (
	"database/sql"
	"errors"
	"strings"

	"weiche/internal/submission"
)

// tables is the schema of one generation; {} stands for its prefix. Times are
// Unix milliseconds.
const tables = `
CREATE TABLE IF NOT EXISTS {}submissions (
  id TEXT PRIMARY KEY, partition INTEGER NOT NULL, case_id TEXT NOT NULL, portal TEXT NOT NULL, land TEXT NOT NULL,
  service TEXT NOT NULL, state TEXT NOT NULL, own TEXT NOT NULL, reason TEXT NOT NULL, accepted_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL, sender_hash TEXT NOT NULL, json BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS {}submissions_land ON {}submissions (land, service);
CREATE INDEX IF NOT EXISTS {}submissions_state ON {}submissions (state, accepted_at, id);
CREATE INDEX IF NOT EXISTS {}submissions_accepted ON {}submissions (accepted_at, id);
CREATE INDEX IF NOT EXISTS {}submissions_case ON {}submissions (case_id);
CREATE INDEX IF NOT EXISTS {}submissions_sender ON {}submissions (sender_hash) WHERE sender_hash <> '';
CREATE INDEX IF NOT EXISTS {}submissions_held ON {}submissions (own, updated_at) WHERE own IN ('dead', 'unassigned');
CREATE TABLE IF NOT EXISTS {}deliveries (
  id TEXT PRIMARY KEY, submission TEXT NOT NULL, partition INTEGER NOT NULL, destination TEXT NOT NULL, adapter TEXT NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL, ord INTEGER NOT NULL, waiting_since INTEGER NOT NULL, updated_at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS {}deliveries_submission ON {}deliveries (submission);
CREATE INDEX IF NOT EXISTS {}deliveries_unfinished ON {}deliveries (partition) WHERE state IN ('waiting', 'dead');
CREATE INDEX IF NOT EXISTS {}deliveries_waiting ON {}deliveries (destination, waiting_since) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS {}deliveries_dead ON {}deliveries (updated_at) WHERE state = 'dead';
CREATE TABLE IF NOT EXISTS {}events (
  partition INTEGER NOT NULL, offset INTEGER NOT NULL, submission TEXT, type TEXT NOT NULL, at INTEGER NOT NULL,
  effect INTEGER NOT NULL, json BLOB, chain BLOB NOT NULL, PRIMARY KEY (partition, offset)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {}events_submission ON {}events (submission, offset) WHERE submission IS NOT NULL;
CREATE TABLE IF NOT EXISTS {}claims (id TEXT PRIMARY KEY, at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS {}claims_at ON {}claims (at);
CREATE TABLE IF NOT EXISTS {}refusals (
  partition INTEGER NOT NULL, offset INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, at INTEGER NOT NULL, stage TEXT NOT NULL,
  portal TEXT NOT NULL, land TEXT NOT NULL, service TEXT NOT NULL, reason TEXT NOT NULL, json BLOB NOT NULL, PRIMARY KEY (partition, offset));
CREATE TABLE IF NOT EXISTS {}epochs (
  stage TEXT NOT NULL, partition INTEGER NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (stage, partition));
CREATE TABLE IF NOT EXISTS {}offsets (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, chain BLOB, PRIMARY KEY (topic, partition));
CREATE TABLE IF NOT EXISTS {}undecodable (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (topic, partition, offset));
CREATE TABLE IF NOT EXISTS {}tampering (
  partition INTEGER NOT NULL, offset INTEGER NOT NULL, covered INTEGER NOT NULL, what TEXT NOT NULL, PRIMARY KEY (partition, offset));
CREATE TABLE IF NOT EXISTS {}counts (
  land TEXT NOT NULL, service TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (land, service, state));
CREATE TABLE IF NOT EXISTS {}delivery_counts (
  destination TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (destination, state));
`

// Effects of an event, as stored.
const (
	effectNone       = 0 // a repeat, too late, or not about a submission
	effectChanged    = 1
	effectSuperseded = 2 // of an owner that had been replaced
)

type epochKey struct {
	stage     submission.Stage
	partition int32
}

type epoch struct {
	n     int64
	owner string // id of the event that set it
}

// generation is one whole projection. The active one answers queries; a second
// exists while a rebuild runs.
type generation struct {
	n int
	p string // prefix of its tables

	// What the writer keeps in memory, as committed.
	offsets map[source]int64
	chains  map[int32][]byte
	epochs  map[epochKey]epoch

	// Writer's statements.
	putSubmission, putDelivery, dropDelivery, putEvent, getAccount, putClaim, dropClaim, putRefusal, putEpoch, putOffset,
	putUndecodable, putTampering, addCount, addDeliveryCount, chainAt *sql.Stmt
	// Readers' statements.
	readAccount, readEvents *sql.Stmt

	stmts []*sql.Stmt
}

func (g *generation) sql(q string) string { return strings.ReplaceAll(q, "{}", g.p) }

func (s *Store) openGeneration(n int) (*generation, error) {
	g := &generation{n: n, p: prefix(n)}
	if _, err := s.w.Exec(g.sql(tables)); err != nil {
		return nil, err
	}
	for _, st := range []struct {
		db  *sql.DB
		to  **sql.Stmt
		sql string
	}{
		{s.w, &g.putSubmission, `INSERT INTO {}submissions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET
			case_id=excluded.case_id, portal=excluded.portal, land=excluded.land, service=excluded.service, state=excluded.state, own=excluded.own,
			reason=excluded.reason, accepted_at=excluded.accepted_at, updated_at=excluded.updated_at, sender_hash=excluded.sender_hash,
			partition=excluded.partition, json=excluded.json`},
		{s.w, &g.putDelivery, `INSERT INTO {}deliveries VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET
			state=excluded.state, reason=excluded.reason, ord=excluded.ord, waiting_since=excluded.waiting_since, updated_at=excluded.updated_at`},
		{s.w, &g.dropDelivery, `DELETE FROM {}deliveries WHERE id = ?`},
		{s.w, &g.putEvent, `INSERT INTO {}events VALUES (?,?,?,?,?,?,?,?)`},
		{s.w, &g.getAccount, `SELECT partition, json FROM {}submissions WHERE id = ?`},
		{s.w, &g.putClaim, `INSERT INTO {}claims SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM {}submissions WHERE id = ?1) ON CONFLICT DO NOTHING`},
		{s.w, &g.dropClaim, `DELETE FROM {}claims WHERE id = ?`},
		{s.w, &g.putRefusal, `INSERT INTO {}refusals VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`},
		{s.w, &g.putEpoch, `INSERT OR REPLACE INTO {}epochs VALUES (?,?,?,?)`},
		{s.w, &g.putOffset, `INSERT OR REPLACE INTO {}offsets VALUES (?,?,?,?)`},
		{s.w, &g.putUndecodable, `INSERT OR IGNORE INTO {}undecodable VALUES (?,?,?)`},
		{s.w, &g.putTampering, `INSERT OR IGNORE INTO {}tampering VALUES (?,?,?,?)`},
		{s.w, &g.addCount, `INSERT INTO {}counts VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET n = n + excluded.n`},
		{s.w, &g.addDeliveryCount, `INSERT INTO {}delivery_counts VALUES (?,?,?) ON CONFLICT DO UPDATE SET n = n + excluded.n`},
		{s.w, &g.chainAt, `SELECT chain FROM {}events WHERE partition = ? AND offset < ? ORDER BY offset DESC LIMIT 1`},
		// One statement, so that account and offset are of one moment.
		{s.r, &g.readAccount, `SELECT s.json, s.partition, COALESCE(o.offset, 0) FROM {}submissions s
			LEFT JOIN {}offsets o ON o.topic = '` + TopicEvents + `' AND o.partition = s.partition WHERE s.id = ?`},
		{s.r, &g.readEvents, `SELECT partition, offset, effect, json FROM {}events WHERE submission = ? ORDER BY offset`},
	} {
		stmt, err := st.db.Prepare(g.sql(st.sql))
		if err != nil {
			g.close()
			return nil, err
		}
		*st.to, g.stmts = stmt, append(g.stmts, stmt)
	}
	if err := g.load(s.w); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// load reads what the writer keeps in memory.
func (g *generation) load(db *sql.DB) error {
	g.offsets, g.chains, g.epochs = map[source]int64{}, map[int32][]byte{}, map[epochKey]epoch{}
	rows, err := db.Query(g.sql(`SELECT topic, partition, offset, chain FROM {}offsets`))
	if err != nil {
		return err
	}
	for rows.Next() {
		var s source
		var o int64
		var chain []byte
		if err := rows.Scan(&s.topic, &s.partition, &o, &chain); err != nil {
			return errors.Join(err, rows.Close())
		}
		g.offsets[s] = o
		if s.topic == TopicEvents {
			g.chains[s.partition] = chain
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if rows, err = db.Query(g.sql(`SELECT stage, partition, epoch, owner FROM {}epochs`)); err != nil {
		return err
	}
	for rows.Next() {
		var k epochKey
		var e epoch
		if err := rows.Scan(&k.stage, &k.partition, &e.n, &e.owner); err != nil {
			return errors.Join(err, rows.Close())
		}
		g.epochs[k] = e
	}
	return errors.Join(rows.Err(), rows.Close())
}

func (g *generation) close() {
	for _, s := range g.stmts {
		_ = s.Close()
	}
}
