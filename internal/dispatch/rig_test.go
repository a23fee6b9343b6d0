package dispatch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/blob"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/routing"
	"weiche/internal/seal"
	"weiche/internal/status"
	"weiche/internal/submission"
)

const (
	partitions = 2
	trade      = submission.Service("99050012104000")
)

var format = submission.Format{Standard: "antrag", Version: "1.0", Message: "antrag"}

// book is a configuration: real rules, and mappings that do what the test says.
type book struct {
	mu     sync.Mutex
	tables map[submission.Land]Rules
	make   func(Job) ([]byte, error)
	jobs   []Job
}

// Rules implements Catalogue.
func (b *book) Rules(l submission.Land) (Rules, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.tables[l]
	return r, ok
}

// Message implements Catalogue.
func (b *book) Message(j Job) ([]byte, error) {
	b.mu.Lock()
	b.jobs = append(b.jobs, j)
	f := b.make
	b.mu.Unlock()
	if f != nil {
		return f(j)
	}
	return fmt.Appendf(nil, "<antrag authority=%q>%s</antrag>", j.Authority.ID, j.Envelope.Data), nil
}

// Portal implements Catalogue.
func (b *book) Portal(id string) (submission.Authority, bool) {
	return submission.Authority{ID: id, Key: "bap:1", Name: id}, true
}

func (b *book) maps(f func(Job) ([]byte, error)) { b.mu.Lock(); defer b.mu.Unlock(); b.make = f }

func (b *book) asked() int { b.mu.Lock(); defer b.mu.Unlock(); return len(b.jobs) }

// rules says who is responsible: region → authorities; each authority has a
// destination of its own name, "a+b" the two destinations a and b.
func (b *book) rules(t *testing.T, land submission.Land, hash string, regions map[submission.Region][]string) {
	t.Helper()
	l := &config.Land{Key: land, Hash: hash, Services: []config.Offer{{Service: trade}}}
	seen := map[string]bool{}
	add := func(a string) {
		if seen[a] {
			return
		}
		seen[a] = true
		doors := strings.Split(a, "+")
		for _, d := range doors {
			l.Destinations = append(l.Destinations, config.Destination{ID: d, Adapter: "file", Formats: []submission.Format{format}})
		}
		l.Authorities = append(l.Authorities, config.Authority{Authority: submission.Authority{ID: a, Key: "bab:1", Name: a},
			Destinations: map[submission.Service][]string{config.AnyService: doors}})
	}
	add("spare")
	for region, authorities := range regions {
		for i, a := range authorities {
			add(a)
			l.Rules = append(l.Rules, config.Rule{Services: []submission.Service{trade}, Region: region, Authority: a, Pos: config.Pos{File: "rules.yaml", Line: i + 1}})
		}
	}
	table, problems := routing.New(l, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tables == nil {
		b.tables = map[submission.Land]Rules{}
	}
	b.tables[land] = Rules{Table: table, Hash: hash}
}

// hurt is the real log and the real ledger, with faults put in between.
type hurt struct {
	mu     sync.Mutex
	append func(topic string) error
	record func(rec *bus.Record) error
	told   func(ev submission.Event) error
}

func (h *hurt) set(f func(h *hurt)) { h.mu.Lock(); defer h.mu.Unlock(); f(h) }

type hurtLog struct {
	*bus.Bus
	*hurt
}

func (l hurtLog) Append(ctx context.Context, recs ...*bus.Record) error {
	l.mu.Lock()
	f, g := l.append, l.record
	l.mu.Unlock()
	for _, r := range recs {
		if f != nil {
			if err := f(r.Topic); err != nil {
				return err
			}
		}
		if g != nil {
			if err := g(r); err != nil {
				return err
			}
		}
	}
	return l.Bus.Append(ctx, recs...)
}

type hurtLedger struct {
	*status.Ledger
	*hurt
}

func (l hurtLedger) Append(ctx context.Context, partition int32, evs ...submission.Event) error {
	l.mu.Lock()
	f := l.told
	l.mu.Unlock()
	if f != nil {
		for _, ev := range evs {
			if err := f(ev); err != nil {
				return err
			}
		}
	}
	return l.Ledger.Append(ctx, partition, evs...)
}

// keyLog and sealed are what the app wires: keys in Kafka, real seal and blobs.
type keyLog struct{ *bus.Bus }

func (l keyLog) Append(ctx context.Context, key string, value []byte) error {
	return l.Bus.Append(ctx, &bus.Record{Topic: bus.TopicKeys, Key: []byte(key), Value: value})
}

func (l keyLog) Load(ctx context.Context, fn func(key string, value []byte) error) error {
	oldest, newest, err := l.Offsets(ctx, bus.TopicKeys)
	if err != nil {
		return err
	}
	return l.ReadTo(ctx, bus.TopicKeys, 0, oldest[0], newest[0], func(r *bus.Record) error { return fn(string(r.Key), r.Value) })
}

type sealed struct {
	keeper *seal.Keeper
	vault  *blob.Vault
}

func (p sealed) open(ctx context.Context, m submission.Meta, value []byte) (*seal.Box, *seal.DataKey, error) {
	box, err := seal.ParseBox(value, m.ID.String())
	if err != nil {
		return nil, nil, err
	}
	key, err := p.keeper.OpenDataKey(ctx, box.Key)
	return box, key, err
}

func (p sealed) Open(ctx context.Context, m submission.Meta, value []byte) (*submission.Envelope, error) {
	box, key, err := p.open(ctx, m, value)
	if err != nil {
		return nil, err
	}
	plain, err := p.vault.Section(ctx, key, box, "submission")
	if err != nil {
		return nil, err
	}
	e := &submission.Envelope{}
	return e, json.Unmarshal(plain, e)
}

func (p sealed) OpenFile(ctx context.Context, m submission.Meta, value []byte, a submission.Attachment) (io.ReadCloser, error) {
	_, key, err := p.open(ctx, m, value)
	if err != nil {
		return nil, err
	}
	return p.vault.OpenFile(ctx, key, a.Blob, a.Hash.Content)
}

func (p sealed) WithXML(ctx context.Context, m submission.Meta, value, xml []byte) ([]byte, error) {
	box, key, err := p.open(ctx, m, value)
	if err != nil {
		return nil, err
	}
	if err := p.put(ctx, m, box, key, "xml", xml); err != nil {
		return nil, err
	}
	return box.MarshalBinary()
}

func (p sealed) put(ctx context.Context, m submission.Meta, box *seal.Box, key *seal.DataKey, name string, plain []byte) error {
	return p.vault.PutSection(ctx, key, box, blob.Prefix(m.Land, m.AcceptedAt, m.ID.String(), m.Append.String()), name, plain)
}

// xml opens the message in a delivery record.
func (r *rig) xml(rec *bus.Record) string {
	r.t.Helper()
	m, err := submission.ParseMeta(rec.Headers)
	must(r.t, err)
	box, key, err := r.sealed.open(r.ctx(), m, rec.Value)
	must(r.t, err)
	xml, err := r.sealed.vault.Section(r.ctx(), key, box, "xml")
	must(r.t, err)
	return string(xml)
}

// rig is a dispatch stage over a real log in a directory, with all that belongs
// to it.
type rig struct {
	t      *testing.T
	dir    string
	book   *book
	bus    *bus.Bus
	store  *status.Store
	ledger *status.Ledger
	stage  *Stage
	sealed sealed
	hurt   *hurt
	log    *locked
	end    func() // of consuming
	stop   func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), book: &book{}, hurt: &hurt{}}
	r.book.rules(t, "08", "one", map[submission.Region][]string{"08115": {"bb"}, "08111": {"s", "t"}})
	r.open()
	t.Cleanup(func() { r.stop() })
	return r
}

type locked struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) open() {
	t := r.t
	t.Helper()
	r.log = &locked{w: &bytes.Buffer{}}
	logger := slog.New(slog.NewTextHandler(r.log, nil))
	quiet := slog.New(slog.DiscardHandler)
	broker, err := embedded.Start(filepath.Join(r.dir, "kafka"), embedded.Options{Partitions: partitions}, quiet)
	must(t, err)
	cfg := bus.Config{Brokers: broker.Addrs(), Partitions: partitions, ReplicationFactor: 1, MinInSyncReplicas: 1}
	r.bus, err = bus.Open(t.Context(), cfg, quiet, prometheus.NewRegistry())
	must(t, err)
	must(t, r.bus.EnsureTopics(t.Context(), bus.Topics(cfg, nil)))
	r.store, err = status.Open(filepath.Join(r.dir, "status.db"))
	must(t, err)
	projector := status.NewProjector(r.store, status.Options{Log: r.bus, Logger: quiet})
	r.ledger = status.NewLedger(r.store, r.bus, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg, projecting sync.WaitGroup
	projecting.Go(func() { _ = projector.Run(ctx) })
	keeper, err := seal.Open(filepath.Join(r.dir, "keys"), nil, keyLog{r.bus})
	must(t, err)
	fs, err := blob.OpenFS(filepath.Join(r.dir, "blobs"))
	must(t, err)
	r.sealed = sealed{keeper, blob.NewVault(fs, 0)}

	r.stage = New(hurtLog{r.bus, r.hurt}, hurtLedger{r.ledger, r.hurt}, r.sealed, logger, prometheus.NewRegistry(), time.Now)
	r.stage.SetCatalogue(r.book)
	consuming, end := context.WithCancel(context.Background())
	r.end = func() { end(); wg.Wait() }
	wg.Go(func() {
		err := r.bus.Consume(consuming, bus.Group{Name: Group, Topics: []string{Topic}, Assigned: r.stage.Assigned, Revoked: r.stage.Revoked, Owns: r.stage.Owns}, Topic, r.stage.Handle)
		if err != nil {
			t.Error(err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		r.end()
		cancel()
		projecting.Wait()
		_ = r.store.Close()
		_ = r.bus.Close()
		_ = fs.Close()
		_ = broker.Close()
	})
}

func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	r.t.Cleanup(cancel)
	return ctx
}

// in returns a case that lives in a partition.
func (r *rig) in(partition int32, name string) uuid.UUID {
	for i := 0; ; i++ {
		id := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s/%d", name, i))
		if r.bus.PartitionOf([]byte(id.String()), partitions) == partition {
			return id
		}
	}
}

func (r *rig) partition(m submission.Meta) int32 {
	return r.bus.PartitionOf([]byte(m.CaseID.String()), partitions)
}

func (r *rig) append(recs ...*bus.Record) {
	r.t.Helper()
	must(r.t, r.bus.Append(r.t.Context(), recs...))
}

// accepted makes a submission and its record, without appending it.
func (r *rig) accepted(name string, caseID uuid.UUID, region submission.Region) (submission.Meta, *bus.Record) {
	r.t.Helper()
	m := submission.Meta{ID: submission.NewID("p", name), CaseID: caseID, Portal: "p", Land: region.Land(), Service: trade, Region: region,
		AcceptedAt: time.Now().UTC().Truncate(time.Millisecond), SHA512: "ab", Revision: 1, Append: uuid.New()}
	key, err := r.sealed.keeper.NewDataKey(r.t.Context(), m.Land, m.AcceptedAt)
	must(r.t, err)
	box := &seal.Box{Subject: m.ID.String(), Key: key.Wrapped()}
	must(r.t, r.sealed.put(r.t.Context(), m, box, key, "submission", fmt.Appendf(nil, `{"data":%q}`, name)))
	value, err := box.MarshalBinary()
	must(r.t, err)
	return m, r.record(m, value)
}

func (r *rig) record(m submission.Meta, value []byte) *bus.Record {
	kind := submission.TypeSubmission
	if value == nil {
		kind = submission.TypeControl
	}
	return &bus.Record{Topic: Topic, Partition: r.partition(m), Key: []byte(m.CaseID.String()), Value: value, Headers: m.Headers(kind)}
}

func (r *rig) submit(name string, caseID uuid.UUID, region submission.Region) submission.Meta {
	r.t.Helper()
	m, rec := r.accepted(name, caseID, region)
	r.append(rec)
	return m
}

// again is what an operator's assign or redrive appends: the held record, one
// revision higher.
func (r *rig) again(m submission.Meta, i submission.Instruction) *bus.Record {
	r.t.Helper()
	a := r.await(m, "held", func(a *submission.Account) bool { return a.Held != nil })
	rec, err := r.bus.Fetch(r.ctx(), a.Held.Topic, a.Held.Partition, a.Held.Offset)
	must(r.t, err)
	held, err := submission.ParseMeta(rec.Headers)
	must(r.t, err)
	i.Operator, i.At = "anna", time.Now().UTC()
	held.Revision, held.Instruction = a.Dispatched+1, &i
	return r.record(held, rec.Value)
}

func (r *rig) await(m submission.Meta, what string, cond func(a *submission.Account) bool) *submission.Account {
	r.t.Helper()
	ctx := r.ctx()
	for {
		changed := r.store.Changed()
		a, err := r.store.Get(ctx, m.ID)
		if err == nil && cond(a) {
			return a
		}
		select {
		case <-changed:
		case <-ctx.Done():
			raw, _ := json.Marshal(a)
			r.t.Fatalf("%s is not %s: %s\n%s", m.ID, what, raw, r.text())
		}
	}
}

func (r *rig) held(m submission.Meta, s submission.State, why fault.Reason) *submission.Account {
	r.t.Helper()
	return r.await(m, string(s)+" for "+string(why), func(a *submission.Account) bool {
		return a.State == s && a.Reason == string(why) && a.Held != nil
	})
}

func (r *rig) decided(m submission.Meta, revision int) *submission.Account {
	r.t.Helper()
	return r.await(m, "decided", func(a *submission.Account) bool { return a.Dispatched == revision && a.Decision != nil })
}

// types returns the types of dispatch's events that took effect.
func (r *rig) types(m submission.Meta) (out []submission.EventType) {
	r.t.Helper()
	list, err := r.store.Events(r.t.Context(), m.ID)
	must(r.t, err)
	for _, e := range list {
		if e.Effective {
			out = append(out, e.Event.Type)
		}
	}
	return out
}

// read returns what a topic's partition holds about a submission.
func (r *rig) read(topic string, m submission.Meta) (out []*bus.Record) {
	r.t.Helper()
	oldest, newest, err := r.bus.Offsets(r.t.Context(), topic)
	must(r.t, err)
	p := r.partition(m)
	must(r.t, r.bus.ReadTo(r.ctx(), topic, p, oldest[p], newest[p], func(rec *bus.Record) error {
		if rec.Headers[submission.HeaderSubject] == m.ID.String() {
			out = append(out, rec)
		}
		return nil
	}))
	return out
}

func (r *rig) committed(p int32) int64 {
	r.t.Helper()
	at, err := r.bus.Committed(r.t.Context(), Group, Topic)
	must(r.t, err)
	return at[p]
}

// acked waits until the group has committed everything in the partition.
func (r *rig) acked(p int32) {
	r.t.Helper()
	r.eventually("acknowledged", func() bool {
		_, newest, err := r.bus.Offsets(r.t.Context(), Topic)
		must(r.t, err)
		return r.committed(p) == newest[p]
	})
}

// eventually is for what sends no signal, such as a committed offset.
func (r *rig) eventually(what string, cond func() bool) {
	r.t.Helper()
	ctx := r.ctx()
	for !cond() {
		select {
		case <-ctx.Done():
			r.t.Fatalf("never %s\n%s", what, r.text())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// text is what was logged so far.
func (r *rig) text() string {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	return r.log.w.String()
}
