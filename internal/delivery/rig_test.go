package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/blob"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/fault"
	"weiche/internal/seal"
	"weiche/internal/status"
	"weiche/internal/submission"
)

const partitions = 2

var format = submission.Format{Standard: "antrag", Version: "1.0", Message: "antrag"}

// quick tries fast: what a test waits for is a condition, never a time.
var quick = Policy{Initial: 20 * time.Millisecond, Max: 200 * time.Millisecond, Factor: 2, GiveUp: time.Hour,
	Probe: 50 * time.Millisecond, Timeout: 5 * time.Second, InFlight: 4}

// door is a destination that does what it is told.
type door struct {
	mu    sync.Mutex
	calls []call
	do    func(ctx context.Context, d *submission.Delivery, nth int) error // nil: takes everything
	rung  chan struct{}
	now   int // under way
	most  int
}

type call struct {
	id, submission, xml string
	attempt             int
	taken               bool
}

func newDoor() *door { return &door{rung: make(chan struct{}, 1000)} }

// Deliver implements Adapter. nth counts the calls for this delivery from 1.
func (d *door) Deliver(ctx context.Context, del *submission.Delivery) error {
	d.mu.Lock()
	d.calls = append(d.calls, call{id: del.ID, submission: del.SubmissionID, xml: string(del.Message), attempt: del.Attempt})
	at, nth, do := len(d.calls)-1, 0, d.do
	for _, c := range d.calls {
		if c.id == del.ID {
			nth++
		}
	}
	d.now++
	d.most = max(d.most, d.now)
	d.mu.Unlock()
	d.rung <- struct{}{}
	var err error
	defer func() {
		d.mu.Lock()
		d.now--
		d.calls[at].taken = err == nil
		d.mu.Unlock()
	}()
	if do != nil {
		err = do(ctx, del, nth)
	}
	return err
}

func (d *door) tell(do func(ctx context.Context, d *submission.Delivery, nth int) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.do = do
}

func (d *door) all() []call {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// order returns the submissions in the order in which they were first taken.
func (d *door) order() (out []string) {
	for _, c := range d.all() {
		if c.taken && !slices.Contains(out, c.submission) {
			out = append(out, c.submission)
		}
	}
	return out
}

// hurt is the real log and the real ledger, with faults put in between.
type hurt struct {
	mu     sync.Mutex
	append func(topic string) error                        // before an append to the log
	told   func(ev submission.Event) (before, after error) // around an append to the ledger
}

func (h *hurt) set(f func(h *hurt)) { h.mu.Lock(); defer h.mu.Unlock(); f(h) }

type hurtLog struct {
	*bus.Bus
	*hurt
}

func (l hurtLog) Append(ctx context.Context, recs ...*bus.Record) error {
	l.mu.Lock()
	f := l.append
	l.mu.Unlock()
	if f != nil {
		for _, r := range recs {
			if err := f(r.Topic); err != nil {
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
	var after error
	if f != nil {
		for _, ev := range evs {
			before, a := f(ev)
			if before != nil {
				return before
			}
			if a != nil {
				after = a
			}
		}
	}
	if err := l.Ledger.Append(ctx, partition, evs...); err != nil {
		return err
	}
	return after
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

func (p sealed) Open(ctx context.Context, m submission.DeliveryMeta, value []byte) (*submission.Delivery, error) {
	box, err := seal.ParseBox(value, m.ID.String())
	if err != nil {
		return nil, err
	}
	key, err := p.keeper.OpenDataKey(ctx, box.Key)
	if err != nil {
		return nil, err
	}
	xml, err := p.vault.Section(ctx, key, box, "xml")
	if err != nil {
		return nil, err
	}
	return &submission.Delivery{ID: m.DeliveryID.String(), SubmissionID: m.ID.String(), CaseID: m.CaseID.String(), Portal: m.Portal,
		Land: m.Land, Service: m.Service, Destination: m.Destination, Format: m.Format, Message: xml}, nil
}

func (p sealed) seal(ctx context.Context, m submission.Meta, xml string) ([]byte, error) {
	key, err := p.keeper.NewDataKey(ctx, m.Land, m.AcceptedAt)
	if err != nil {
		return nil, err
	}
	box := &seal.Box{Subject: m.ID.String(), Key: key.Wrapped()}
	if err := p.vault.PutSection(ctx, key, box, blob.Prefix(m.Land, m.AcceptedAt, m.ID.String(), m.Append.String()), "xml", []byte(xml)); err != nil {
		return nil, err
	}
	return box.MarshalBinary()
}

// rig is a delivery stage over a real log in a directory, with all that
// belongs to it.
type rig struct {
	t      *testing.T
	dir    string
	bus    *bus.Bus
	store  *status.Store
	ledger *status.Ledger
	stage  *Stage
	sealed sealed
	hurt   *hurt
	dests  []Destination
	log    *locked
	orders map[int32]int64
	epochs map[int32]int64
	stop   func()
}

func newRig(t *testing.T, dests ...Destination) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), dests: dests, hurt: &hurt{}, orders: map[int32]int64{}}
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

// open starts everything on the rig's directory.
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
	var wg sync.WaitGroup
	wg.Go(func() { _ = projector.Run(ctx) })

	keeper, err := seal.Open(filepath.Join(r.dir, "keys"), nil, keyLog{r.bus})
	must(t, err)
	fs, err := blob.OpenFS(filepath.Join(r.dir, "blobs"))
	must(t, err)
	r.sealed = sealed{keeper, blob.NewVault(fs, 0)}
	r.epochs = map[int32]int64{}
	for p := range int32(partitions) {
		r.epochs[p], err = r.ledger.Acquire(t.Context(), submission.StageDispatch, p)
		must(t, err)
	}

	r.stage = New(hurtLog{r.bus, r.hurt}, hurtLedger{r.ledger, r.hurt}, r.sealed, logger, prometheus.NewRegistry(), time.Now)
	r.stage.cutEvery = 50 * time.Millisecond
	r.stage.SetDestinations(r.dests)
	sub, err := r.bus.Subscriber(bus.Group{Name: Group, Topics: []string{Topic}, MaxInFlight: InFlight, Key: Key, Spill: r.stage.Spill,
		Assigned: r.stage.Assigned, Revoked: r.stage.Revoked, Owns: r.stage.Owns})
	must(t, err)
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 20 * time.Second}, watermill.NopLogger{})
	must(t, err)
	router.AddConsumerHandler("delivery", Topic, sub, r.stage.Handle)
	wg.Go(func() { _ = router.Run(context.Background()) })
	<-router.Running()
	r.stop = sync.OnceFunc(func() {
		_ = router.Close()
		cancel()
		wg.Wait()
		_ = r.store.Close()
		_ = r.bus.Close()
		_ = fs.Close()
		_ = broker.Close()
	})
}

// restart stops everything and starts it again on the same directory.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.open()
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

// decided records a submission as decided, and returns its delivery's record
// without appending it.
func (r *rig) decided(name string, caseID uuid.UUID, dest string) (submission.DeliveryMeta, *bus.Record) {
	r.t.Helper()
	m := submission.Meta{ID: submission.NewID("p", name), CaseID: caseID, Portal: "p", Land: "08", Service: "99050012104000", Region: "08115003",
		AcceptedAt: time.Now().UTC().Truncate(time.Millisecond), SHA512: "ab", Revision: 1, Append: uuid.New()}
	p := r.partition(m)
	r.orders[p]++
	dm := submission.DeliveryMeta{Meta: m, DeliveryID: submission.NewDeliveryID(m.ID, dest, 1), Destination: dest, Adapter: "test", Format: format,
		AuthorityID: "bb", Decision: submission.NewEventID(submission.EventDecided, m.ID, "1"), Order: r.orders[p]}
	ev := func(t submission.EventType, id uuid.UUID) submission.Event {
		return submission.Event{ID: id, Type: t, At: time.Now().UTC(), Stage: submission.StageDispatch, Epoch: r.epochs[p], Submission: m.ID,
			CaseID: m.CaseID, Portal: m.Portal, Land: m.Land, Service: m.Service, Revision: 1}
	}
	accepted := ev(submission.EventAccepted, uuid.New())
	accepted.Accepted = &submission.Acceptance{Region: m.Region, AcceptedAt: m.AcceptedAt, SHA512: m.SHA512, Append: m.Append}
	decided := ev(submission.EventDecided, dm.Decision)
	decided.Decision = &submission.Decision{Authority: submission.Authority{ID: "bb"},
		Deliveries: []submission.PlannedDelivery{{ID: dm.DeliveryID, Destination: dest, Adapter: "test", Format: format}}}
	must(r.t, r.ledger.Append(r.t.Context(), p, accepted, decided))
	value, err := r.sealed.seal(r.t.Context(), m, "<"+name+"/>")
	must(r.t, err)
	return dm, r.record(dm, value)
}

func (r *rig) record(m submission.DeliveryMeta, value []byte) *bus.Record {
	kind := submission.TypeDelivery
	if value == nil {
		kind = submission.TypeControl
	}
	return &bus.Record{Topic: Topic, Partition: r.partition(m.Meta), Key: []byte(m.CaseID.String()), Value: value, Headers: m.Headers(kind)}
}

func (r *rig) submit(name string, caseID uuid.UUID, dest string) submission.DeliveryMeta {
	r.t.Helper()
	m, rec := r.decided(name, caseID, dest)
	must(r.t, r.bus.Append(r.t.Context(), rec))
	return m
}

// await waits until the projection shows the delivery as wanted.
func (r *rig) await(m submission.DeliveryMeta, what string, cond func(d *submission.DeliveryAccount) bool) *submission.DeliveryAccount {
	r.t.Helper()
	ctx := r.ctx()
	for {
		changed := r.store.Changed()
		a, err := r.store.Get(ctx, m.ID)
		if err == nil {
			if d := a.Delivery(m.DeliveryID); d != nil && cond(d) {
				return d
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			raw, _ := json.Marshal(a)
			r.t.Fatalf("%s is not %s: %s\n%s", m.ID, what, raw, r.text())
		}
	}
}

func (r *rig) state(m submission.DeliveryMeta, s submission.State) *submission.DeliveryAccount {
	r.t.Helper()
	return r.await(m, string(s), func(d *submission.DeliveryAccount) bool { return d.State == s })
}

// waits is state waiting for a reason.
func (r *rig) waits(m submission.DeliveryMeta, why fault.Reason) *submission.DeliveryAccount {
	r.t.Helper()
	return r.await(m, "waiting for "+string(why), func(d *submission.DeliveryAccount) bool {
		return d.State == submission.Waiting && d.Reason == string(why)
	})
}

// events returns delivery's events about a submission that took effect.
func (r *rig) events(m submission.DeliveryMeta) (out []submission.Event) {
	r.t.Helper()
	list, err := r.store.Events(r.t.Context(), m.ID)
	must(r.t, err)
	for _, e := range list {
		if e.Event.Stage == submission.StageDelivery && e.Effective {
			out = append(out, e.Event)
		}
	}
	return out
}

func (r *rig) types(m submission.DeliveryMeta) (out []submission.EventType) {
	for _, e := range r.events(m) {
		out = append(out, e.Type)
	}
	return out
}

// read returns what a topic's partition holds about a delivery.
func (r *rig) read(topic string, m submission.DeliveryMeta) (out []*bus.Record) {
	r.t.Helper()
	oldest, newest, err := r.bus.Offsets(r.t.Context(), topic)
	must(r.t, err)
	p := r.partition(m.Meta)
	must(r.t, r.bus.ReadTo(r.ctx(), topic, p, oldest[p], newest[p], func(rec *bus.Record) error {
		if rec.Headers["ce_deliveryid"] == m.DeliveryID.String() {
			out = append(out, rec)
		}
		return nil
	}))
	return out
}

// acked waits until the group has committed everything in the partition.
func (r *rig) acked(p int32) {
	r.t.Helper()
	r.eventually("acknowledged", func() bool {
		at, err := r.bus.Committed(r.t.Context(), Group, Topic)
		must(r.t, err)
		_, newest, err := r.bus.Offsets(r.t.Context(), Topic)
		must(r.t, err)
		return at[p] == newest[p]
	})
}

// eventually is for what sends no signal: a committed offset, a cut topic.
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

// redrive is what an operator's redrive appends: the dead letter as it is.
func (r *rig) redrive(m submission.DeliveryMeta) {
	r.t.Helper()
	d := r.state(m, submission.Dead)
	rec, err := r.bus.Fetch(r.ctx(), d.Held.Topic, d.Held.Partition, d.Held.Offset)
	must(r.t, err)
	dm, err := submission.ParseDeliveryMeta(rec.Headers)
	must(r.t, err)
	dm.Redrives, dm.Reason, dm.DueAt = d.Redrives+1, "", time.Time{}
	dm.Instruction = &submission.Instruction{Kind: submission.InstructRedrive, Operator: "anna", At: time.Now()}
	must(r.t, r.bus.Append(r.t.Context(), r.record(dm, rec.Value)))
}

// close is what an operator's close appends.
func (r *rig) close(m submission.DeliveryMeta) {
	r.t.Helper()
	m.Instruction = &submission.Instruction{Kind: submission.InstructClose, Operator: "anna", Reason: "withdrawn", At: time.Now()}
	must(r.t, r.bus.Append(r.t.Context(), r.record(m, nil)))
}

func retryable() error   { return fault.New(fault.Retryable, fault.ReasonUnavailable, "503") }
func permanent() error   { return fault.New(fault.Permanent, fault.ReasonRefused, "422") }
func unreachable() error { return fault.New(fault.Destination, fault.ReasonUnreachable, "refused") }

// text is what was logged so far.
func (r *rig) text() string {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	return r.log.w.String()
}
