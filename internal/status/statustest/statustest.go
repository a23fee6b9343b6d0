// Package statustest is the conformance suite of status stores: whatever store
// projects the account, it answers as this suite says. It draws whole histories
// of the log, sensible and not, and knows no particular database.
package statustest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"weiche/internal/bus"
	"weiche/internal/status"
	"weiche/internal/submission"
)

// Store is what the suite asks of a store.
type Store interface {
	Project(ctx context.Context, verify status.Verify, recs ...*bus.Record) (status.Outcome, error)
	Get(ctx context.Context, id uuid.UUID) (*submission.Account, error)
	Events(ctx context.Context, id uuid.UUID) ([]status.StoredEvent, error)
	Submissions(ctx context.Context, f status.Filter) ([]*submission.Account, string, error)
	DeadLetters(ctx context.Context, f status.Filter) ([]status.Letter, string, error)
	UnassignedList(ctx context.Context, f status.Filter) ([]status.Letter, string, error)
	Refusals(ctx context.Context, f status.Filter) ([]status.Letter, string, error)
	Proposals(ctx context.Context, f status.Filter) ([]status.Proposal, string, error)
	Held(ctx context.Context, refusedFrom, editedFrom time.Time, fn func(submission.Held)) error
	Unfinished(ctx context.Context, partition int32) ([]status.Unfinished, error)
	Counts(ctx context.Context) ([]status.Count, error)
	Destinations(ctx context.Context) ([]status.DestinationCount, error)
	Abandoned(ctx context.Context, before time.Time) ([]status.Claim, error)
	Undecodable(ctx context.Context) (int, error)
	Progress(topic string, partition int32) int64
	EpochOf(stage submission.Stage, partition int32) int64
	Close() error
}

// Open opens the store that lives in a directory, making it where there is none.
// Opening it again is what a restart does.
type Open func(dir string) (Store, error)

// Partitions of the drawn logs.
const Partitions = 2

// Epoch of every clock in the suite.
var t0 = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// Log is a history: records by topic and partition.
type Log struct {
	Records map[string][Partitions][]*bus.Record
	IDs     []uuid.UUID
	n       int
}

// NewLog returns an empty log.
func NewLog() *Log { return &Log{Records: map[string][Partitions][]*bus.Record{}} }

func (l *Log) add(r *bus.Record) {
	parts := l.Records[r.Topic]
	r.Offset = int64(len(parts[r.Partition]))
	parts[r.Partition] = append(parts[r.Partition], r)
	l.Records[r.Topic] = parts
}

// Meta makes a submission of the log.
func (l *Log) Meta(key string, land submission.Land) submission.Meta {
	id := submission.NewID("service-bw", key)
	if !slices.Contains(l.IDs, id) {
		l.IDs = append(l.IDs, id)
	}
	return submission.Meta{ID: id, CaseID: submission.NewCaseID(id), Portal: "service-bw", Land: land, Service: "99050012104000",
		Region: submission.Region(land), AcceptedAt: t0.Add(time.Duration(len(l.IDs)) * time.Second), SHA512: "ab", Revision: 1,
		Append: uuid.NewSHA1(id, []byte("append")), SenderHash: "hash-" + key}
}

// Partition is where a submission's case lives in this log.
func Partition(id uuid.UUID) int32 { return int32(id[15]) % Partitions }

// Claim appends a claim.
func (l *Log) Claim(m submission.Meta) {
	l.add(&bus.Record{Topic: status.TopicClaims, Partition: int32(m.ID[0]) % Partitions, Key: []byte(m.ID.String()),
		Headers: m.Headers(submission.TypeClaim), Time: m.AcceptedAt})
}

// Submission appends a submission's record.
func (l *Log) Submission(m submission.Meta, recordType string) {
	l.add(&bus.Record{Topic: status.TopicSubmissions, Partition: Partition(m.ID), Key: []byte(m.CaseID.String()),
		Value: []byte("sealed"), Headers: m.Headers(recordType), Time: m.AcceptedAt})
}

// Event appends an event about a submission; e's own fields are kept.
func (l *Log) Event(m submission.Meta, t submission.EventType, e submission.Event) submission.Event {
	l.n++
	e.Type, e.Submission, e.CaseID, e.Portal, e.Land, e.Service = t, m.ID, m.CaseID, m.Portal, m.Land, m.Service
	e.At, e.ID = t0.Add(time.Duration(l.n)*time.Minute), submission.NewEventID(t, m.ID, strconv.Itoa(l.n))
	if e.Stage == "" {
		e.Stage = submission.StageDispatch
		if e.DeliveryID != uuid.Nil {
			e.Stage = submission.StageDelivery
		}
	}
	l.Raw(Partition(m.ID), e)
	return e
}

// Raw appends an event as it is.
func (l *Log) Raw(partition int32, e submission.Event) {
	value, err := e.Encode()
	if err != nil {
		panic(err)
	}
	l.add(&bus.Record{Topic: status.TopicEvents, Partition: partition, Key: []byte(e.CaseID.String()), Value: value, Headers: e.Headers(), Time: e.At})
}

// Owner appends a new owner of a stage in a partition.
func (l *Log) Owner(partition int32, stage submission.Stage, epoch int64) {
	l.n++
	l.Raw(partition, submission.Event{ID: submission.NewEventID(submission.EventOwner, uuid.Nil, strconv.Itoa(l.n)), Type: submission.EventOwner,
		At: t0.Add(time.Duration(l.n) * time.Minute), Stage: stage, Epoch: epoch})
}

// Accepted appends dispatch's copy of the acceptance.
func (l *Log) Accepted(m submission.Meta, epoch int64) submission.Event {
	return l.Event(m, submission.EventAccepted, submission.Event{Epoch: epoch, Revision: 1, Accepted: &submission.Acceptance{Region: m.Region,
		AcceptedAt: m.AcceptedAt, SHA512: m.SHA512, Append: m.Append, SenderHash: m.SenderHash}})
}

// Decided appends a decision.
func (l *Log) Decided(m submission.Meta, epoch int64, revision int, destinations ...string) submission.Event {
	d := &submission.Decision{Authority: submission.Authority{ID: "bb"}, Rule: "rules.yaml:3", At: m.AcceptedAt}
	for _, to := range destinations {
		d.Deliveries = append(d.Deliveries, submission.PlannedDelivery{ID: submission.NewDeliveryID(m.ID, to, revision), Destination: to, Adapter: "file",
			Format: submission.Format{Standard: "antrag", Version: "1.0", Message: "antrag.0100"}})
	}
	return l.Event(m, submission.EventDecided, submission.Event{Epoch: epoch, Revision: revision, Decision: d})
}

// About appends an event about one delivery.
func (l *Log) About(m submission.Meta, t submission.EventType, destination string, e submission.Event) submission.Event {
	e.Revision = max(1, e.Revision)
	e.DeliveryID, e.Destination = submission.NewDeliveryID(m.ID, destination, e.Revision), destination
	return l.Event(m, t, e)
}

// All returns every record, topic by topic.
func (l *Log) All() []*bus.Record {
	var out []*bus.Record
	for _, topic := range topics {
		for _, part := range l.Records[topic] {
			out = append(out, part...)
		}
	}
	return out
}

var topics = []string{status.TopicEvents, status.TopicSubmissions, status.TopicClaims}

// draw makes a history: a few submissions with what stages, superseded owners,
// crashes and broken writers could have written about them.
func draw(rt *rapid.T) *Log {
	l := NewLog()
	var metas []submission.Meta
	var epochs [Partitions]int64
	var written []submission.Event
	for i := range rapid.IntRange(1, 6).Draw(rt, "submissions") {
		metas = append(metas, l.Meta("key-"+strconv.Itoa(i), rapid.SampledFrom([]submission.Land{"08", "14"}).Draw(rt, "land")))
	}
	dests := []string{"a", "b"}
	for range rapid.IntRange(1, 60).Draw(rt, "steps") {
		m := rapid.SampledFrom(metas).Draw(rt, "which")
		p := Partition(m.ID)
		epoch := max(0, epochs[p]-int64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(rt, "behind")))
		to := rapid.SampledFrom(dests).Draw(rt, "to")
		n := rapid.IntRange(1, 3).Draw(rt, "n")
		held := &submission.Held{Topic: "weiche.deadletters", Partition: p, Offset: int64(l.n)}
		e := submission.Event{Epoch: epoch, Attempt: n, Sequence: n, Redrive: n, Reason: rapid.SampledFrom([]string{"timeout", "refused"}).Draw(rt, "reason"), Held: held, Order: int64(n)}
		switch rapid.IntRange(0, 17).Draw(rt, "step") {
		case 16, 17:
			ed := &submission.Edit{ID: submission.NewEventID(submission.EventEdited, m.ID, strconv.Itoa(n)), Revision: n, Operator: "anna", Fields: []string{"/a"}, Held: held, Original: held}
			written = append(written, l.Event(m, rapid.SampledFrom([]submission.EventType{submission.EventProposed, submission.EventEdited, submission.EventDeclined,
				submission.EventLooked}).Draw(rt, "desk"), submission.Event{Epoch: epoch, Revision: n, Reason: e.Reason, Edit: ed}))
		case 0:
			l.Claim(m)
		case 1, 2:
			l.Submission(m, submission.TypeSubmission)
		case 3, 4:
			written = append(written, l.Accepted(m, epoch))
		case 5, 6:
			written = append(written, l.Decided(m, epoch, rapid.IntRange(1, 2).Draw(rt, "revision"), dests[:rapid.IntRange(1, 2).Draw(rt, "destinations")]...))
		case 7:
			written = append(written, l.Event(m, rapid.SampledFrom([]submission.EventType{submission.EventUnassigned, submission.EventDead, submission.EventAssigned,
				submission.EventRedriven, submission.EventClosed}).Draw(rt, "own"), submission.Event{Epoch: epoch, Revision: n, Reason: e.Reason, Held: held}))
		case 8, 9, 10, 11:
			e.Revision = rapid.IntRange(1, 2).Draw(rt, "revision")
			written = append(written, l.About(m, rapid.SampledFrom([]submission.EventType{submission.EventWaiting, submission.EventAttempt, submission.EventDelivered,
				submission.EventDead, submission.EventRedriven, submission.EventClosed, submission.EventRejected}).Draw(rt, "what"), to, e))
		case 12:
			epochs[p] += int64(rapid.IntRange(0, 1).Draw(rt, "epoch"))
			l.Owner(p, rapid.SampledFrom([]submission.Stage{submission.StageDispatch, submission.StageDelivery}).Draw(rt, "stage"), epochs[p])
		case 13:
			if len(written) > 0 { // a crash repeats
				again := rapid.SampledFrom(written).Draw(rt, "again")
				l.Raw(Partition(again.Submission), again)
			}
		case 14:
			l.add(&bus.Record{Topic: rapid.SampledFrom(topics).Draw(rt, "topic"), Partition: p, Key: []byte("?"), Value: []byte("{"), Time: t0,
				Headers: map[string]string{"weiche_version": "1"}})
		case 15:
			l.Event(m, submission.EventRefused, submission.Event{Stage: submission.StageIntake, Reason: e.Reason, Held: held})
		}
	}
	return l
}

// shuffled interleaves the partitions' records, each in its own order.
func shuffled(rt *rapid.T, l *Log) []*bus.Record {
	var lanes [][]*bus.Record
	for _, topic := range topics {
		for _, part := range l.Records[topic] {
			if len(part) > 0 {
				lanes = append(lanes, part)
			}
		}
	}
	var out []*bus.Record
	for len(lanes) > 0 {
		i := rapid.IntRange(0, len(lanes)-1).Draw(rt, "lane")
		out = append(out, lanes[i][0])
		if lanes[i] = lanes[i][1:]; len(lanes[i]) == 0 {
			lanes = slices.Delete(lanes, i, i+1)
		}
	}
	return out
}

// Picture is everything a store says of a log, as JSON.
func Picture(ctx context.Context, s Store, l *Log) (string, error) {
	p := map[string]any{}
	var errs []error
	note := func(name string, v any, err error) {
		p[name] = v
		errs = append(errs, err)
	}
	all := status.Filter{Limit: status.MaxLimit}
	subs, _, err := s.Submissions(ctx, all)
	note("submissions", subs, err)
	dead, _, err := s.DeadLetters(ctx, all)
	note("dead", dead, err)
	un, _, err := s.UnassignedList(ctx, all)
	note("unassigned", un, err)
	ref, _, err := s.Refusals(ctx, all)
	note("refusals", ref, err)
	proposals, _, err := s.Proposals(ctx, all)
	note("proposals", proposals, err)
	for _, a := range subs {
		if e := a.Proposed(); e != nil && !slices.ContainsFunc(proposals, func(p status.Proposal) bool { return p.Edit.ID == e.ID }) {
			errs = append(errs, fmt.Errorf("the proposal %s is not listed", e.ID))
		}
	}
	counts, err := s.Counts(ctx)
	for _, c := range counts {
		if !c.AddsUp {
			errs = append(errs, fmt.Errorf("the account of %s %s does not add up: %d accepted, %v", c.Land, c.Service, c.Accepted, c.States))
		}
		listed := 0
		for _, a := range subs {
			if a.Land == c.Land && a.Service == c.Service {
				listed++
			}
		}
		if listed != c.Accepted && len(subs) < status.MaxLimit {
			errs = append(errs, fmt.Errorf("of %s %s %d are accepted, and %d are listed", c.Land, c.Service, c.Accepted, listed))
		}
	}
	note("counts", counts, err)
	dests, err := s.Destinations(ctx)
	for _, d := range dests { // a state nothing is in may be told as zero or not at all
		for st, n := range d.States {
			if n == 0 {
				delete(d.States, st)
			}
		}
	}
	dests = slices.DeleteFunc(dests, func(d status.DestinationCount) bool { return len(d.States) == 0 })
	note("destinations", dests, err)
	claims, err := s.Abandoned(ctx, t0.Add(1000*time.Hour))
	note("claims", claims, err)
	broken, err := s.Undecodable(ctx)
	note("undecodable", broken, err)
	for i := range int32(Partitions) {
		u, err := s.Unfinished(ctx, i)
		note(fmt.Sprint("unfinished ", i), u, err)
		for _, stage := range []submission.Stage{submission.StageDispatch, submission.StageDelivery} {
			note(fmt.Sprint("epoch ", stage, i), s.EpochOf(stage, i), nil)
		}
		for _, topic := range topics {
			note(fmt.Sprint("progress ", topic, i), s.Progress(topic, i), nil)
		}
	}
	for _, id := range l.IDs {
		evs, err := s.Events(ctx, id)
		note("events "+id.String(), evs, err)
	}
	b, err := json.MarshalIndent(p, "", " ")
	return string(b), errors.Join(append(errs, err)...)
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Run("IncrementalEqualsRebuilt", func(t *testing.T) { rapid.Check(t, func(rt *rapid.T) { incrementalEqualsRebuilt(rt, open) }) })
	t.Run("Stories", func(t *testing.T) { stories(t, open) })
	t.Run("Lists", func(t *testing.T) { lists(t, open) })
	t.Run("Edits", func(t *testing.T) { edits(t, open) })
	t.Run("BrokenRecordsPass", func(t *testing.T) { brokenRecordsPass(t, open) })
	t.Run("SupersededOwners", func(t *testing.T) { supersededOwners(t, open) })
}

// incrementalEqualsRebuilt projects one history twice: in small batches, in any
// order of the topics, with restarts and repeats; and at once.
func incrementalEqualsRebuilt(rt *rapid.T, open Open) {
	ctx := context.Background()
	l := draw(rt)
	picture := func(s Store) string {
		p, err := Picture(ctx, s, l)
		if err != nil {
			rt.Fatal(err)
		}
		return p
	}
	dirs := [2]string{}
	for i := range dirs {
		dir, err := os.MkdirTemp("", "statustest")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		dirs[i] = dir
	}
	s, err := open(dirs[0])
	if err != nil {
		rt.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	recs := shuffled(rt, l)
	for from := 0; from < len(recs); {
		to := min(len(recs), from+rapid.IntRange(1, 12).Draw(rt, "batch"))
		back := max(0, from-rapid.SampledFrom([]int{0, 0, 0, 5}).Draw(rt, "back")) // a reader that begins too early
		if _, err := s.Project(ctx, nil, recs[back:to]...); err != nil {
			rt.Fatal(err)
		}
		from = to
		if rapid.IntRange(0, 7).Draw(rt, "crash") == 0 {
			if err := s.Close(); err != nil {
				rt.Fatal(err)
			}
			if s, err = open(dirs[0]); err != nil {
				rt.Fatal(err)
			}
		}
	}
	fresh, err := open(dirs[1])
	if err != nil {
		rt.Fatal(err)
	}
	defer func() { _ = fresh.Close() }()
	if _, err := fresh.Project(ctx, nil, l.All()...); err != nil {
		rt.Fatal(err)
	}
	if got, want := picture(s), picture(fresh); got != want {
		rt.Fatalf("incremental:\n%s\nrebuilt:\n%s", got, want)
	}
	// And every account is the fold of its effective events.
	for _, id := range l.IDs {
		acct, err := fresh.Get(ctx, id)
		if errors.Is(err, status.ErrNotFound) {
			continue
		}
		if err != nil {
			rt.Fatal(err)
		}
		events, err := fresh.Events(ctx, id)
		if err != nil {
			rt.Fatal(err)
		}
		var fold submission.Account
		for _, e := range events {
			if e.Effective && e.Event.Type != submission.EventRefused {
				fold.Apply(e.Event)
			}
		}
		a, b := encode(acct), encode(&fold)
		if acct.Copied && !bytes.Equal(a, b) {
			rt.Fatalf("the account is %s, the fold of its events %s", a, b)
		}
	}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func opened(t *testing.T, open Open) Store {
	t.Helper()
	s, err := open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func project(t *testing.T, s Store, l *Log) status.Outcome {
	t.Helper()
	out, err := s.Project(context.Background(), nil, l.All()...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func stories(t *testing.T, open Open) {
	ctx := context.Background()
	s, l := opened(t, open), NewLog()
	waits, dead, unassigned, claimed := l.Meta("waits", "08"), l.Meta("dead", "14"), l.Meta("unassigned", "08"), l.Meta("claimed", "08")
	fresh := l.Meta("fresh", "08")
	for _, m := range []submission.Meta{waits, dead, unassigned} {
		l.Claim(m)
		l.Submission(m, submission.TypeSubmission)
		l.Accepted(m, 0)
	}
	l.Claim(claimed)
	l.Claim(fresh)
	l.Submission(fresh, submission.TypeSubmission)
	l.Decided(waits, 0, 1, "a", "b")
	first := l.About(waits, submission.EventWaiting, "a", submission.Event{Sequence: 1, Reason: "paused", Order: 5})
	l.About(waits, submission.EventAttempt, "a", submission.Event{Attempt: 1, Sequence: 2, Reason: "timeout", Order: 5})
	l.About(waits, submission.EventDelivered, "b", submission.Event{Attempt: 1})
	l.Decided(dead, 0, 1, "a")
	held := &submission.Held{Topic: "weiche.deadletters", Partition: 1, Offset: 3}
	l.About(dead, submission.EventDead, "a", submission.Event{Attempt: 1, Reason: "refused", Detail: "the receiver said 422", Held: held})
	l.Event(unassigned, submission.EventUnassigned, submission.Event{Revision: 1, Reason: "no-authority", Held: held})
	project(t, s, l)

	if a, err := s.Get(ctx, waits.ID); err != nil || a.State != submission.Waiting || a.Reason != "timeout" || a.SenderHash != "hash-waits" {
		t.Errorf("the waiting one is %+v, %v", a, err)
	}
	if a, err := s.Get(ctx, fresh.ID); err != nil || a.State != submission.InFlight || a.Copied {
		t.Errorf("what dispatch has not seen is %+v, %v", a, err)
	}
	if _, err := s.Get(ctx, claimed.ID); !errors.Is(err, status.ErrNotFound) {
		t.Errorf("a claim alone: %v", err)
	}
	claims, err := s.Abandoned(ctx, t0.Add(time.Hour))
	if err != nil || len(claims) != 1 || claims[0].ID != claimed.ID || !claims[0].At.Equal(claimed.AcceptedAt) {
		t.Errorf("abandoned are %+v, %v", claims, err)
	}
	if claims, err := s.Abandoned(ctx, claimed.AcceptedAt); err != nil || len(claims) != 0 {
		t.Errorf("abandoned before their time: %+v, %v", claims, err)
	}
	letters, next, err := s.DeadLetters(ctx, status.Filter{})
	if err != nil || next != "" || len(letters) != 1 || letters[0].Submission != dead.ID || letters[0].Origin != submission.StageDelivery ||
		letters[0].Reason != "refused" || letters[0].Held == nil || *letters[0].Held != *held {
		t.Errorf("dead letters are %+v, %q, %v", letters, next, err)
	}
	for to, n := range map[string]int{"a": 1, "b": 0} { // by destination alone
		if letters, _, err := s.DeadLetters(ctx, status.Filter{Destination: to}); err != nil || len(letters) != n {
			t.Errorf("dead letters of %s are %+v, %v", to, letters, err)
		}
	}
	letters, _, err = s.UnassignedList(ctx, status.Filter{})
	if err != nil || len(letters) != 1 || letters[0].Submission != unassigned.ID || letters[0].Origin != submission.StageDispatch {
		t.Errorf("unassigned are %+v, %v", letters, err)
	}
	un, err := s.Unfinished(ctx, Partition(waits.ID))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(un, func(u status.Unfinished) bool { return u.ID == waits.ID })
	if i < 0 || un[i].Destination != "a" || un[i].Order != 5 || un[i].Reason != "timeout" || un[i].Sequence != 2 || un[i].CaseID != waits.CaseID ||
		un[i].Portal != "service-bw" || un[i].Format.Standard != "antrag" || un[i].State != submission.Waiting {
		t.Errorf("unfinished are %+v", un)
	}
	dests, err := s.Destinations(ctx)
	if err != nil || len(dests) != 2 || dests[0].States[submission.Waiting] != 1 || dests[0].States[submission.Dead] != 1 || !dests[0].OldestWaiting.Equal(first.At) ||
		dests[1].States[submission.Delivered] != 1 || !dests[1].OldestWaiting.IsZero() {
		t.Errorf("destinations are %+v, %v", dests, err)
	}
	counts, err := s.Counts(ctx)
	if err != nil || len(counts) != 2 || counts[0].Accepted != 3 || !counts[0].AddsUp || counts[0].States[submission.InFlight] != 1 ||
		counts[0].States[submission.Unassigned] != 1 || counts[0].States[submission.Waiting] != 1 || counts[1].States[submission.Dead] != 1 {
		t.Errorf("counts are %+v, %v", counts, err)
	}
	events, err := s.Events(ctx, waits.ID)
	if err != nil || len(events) != 5 || events[0].Event.Type != submission.EventAccepted || !events[4].Effective {
		t.Errorf("events are %+v, %v", events, err)
	}
}

// edits are found while they wait for a second operator, and the records that
// hold both forms are named while the submission is unfinished and for a time
// after the edit.
func edits(t *testing.T, open Open) {
	ctx := context.Background()
	s, l := opened(t, open), NewLog()
	at := func(offset int64) *submission.Held {
		return &submission.Held{Topic: "weiche.deadletters", Partition: 1, Offset: offset}
	}
	made := map[string]submission.Meta{}
	for i, name := range []string{"open", "elsewhere", "done", "finished", "declined"} {
		m, n := l.Meta(name, []submission.Land{"08", "14"}[min(1, i%4)]), int64(10*i)
		made[name] = m
		l.Accepted(m, 0)
		l.Event(m, submission.EventDead, submission.Event{Revision: 1, Reason: "mapping-failed", Held: at(n)})
		ed := &submission.Edit{ID: uuid.New(), Revision: 2, Operator: "anna", At: t0, Held: at(n + 1), Original: at(n)}
		switch name {
		case "open", "elsewhere", "declined":
			l.Event(m, submission.EventProposed, submission.Event{Revision: 2, Edit: ed})
		default:
			l.Event(m, submission.EventEdited, submission.Event{Revision: 2, Edit: ed})
			l.Decided(m, 0, 2, "a")
		}
		if name == "declined" {
			l.Event(m, submission.EventDeclined, submission.Event{Revision: 1, Edit: ed, Reason: submission.CauseRejected})
		}
	}
	l.About(made["finished"], submission.EventDelivered, "a", submission.Event{Revision: 2, Attempt: 1})
	project(t, s, l)

	list := func(f status.Filter) (ids []uuid.UUID, next string) {
		found, next, err := s.Proposals(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range found {
			ids = append(ids, p.Submission)
			if p.Edit == nil || p.Edit.State != submission.EditProposed {
				t.Errorf("listed is %+v", p.Edit)
			}
		}
		return ids, next
	}
	if got, next := list(status.Filter{}); len(got) != 2 || next != "" {
		t.Errorf("proposals are %v, %q", got, next)
	}
	if got, _ := list(status.Filter{Lands: []submission.Land{"08"}}); len(got) != 1 || got[0] != made["open"].ID {
		t.Errorf("of one Land: %v", got)
	}
	one, next := list(status.Filter{Limit: 1})
	rest, end := list(status.Filter{Limit: 1, After: next})
	if len(one) != 1 || len(rest) != 1 || one[0] == rest[0] || end != "" {
		t.Errorf("page by page: %v, %v, %q", one, rest, end)
	}
	held := func(from time.Time) map[int64]bool {
		out := map[int64]bool{}
		if err := s.Held(ctx, t0, from, func(h submission.Held) { out[h.Offset] = true }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for offset, want := range map[int64][2]bool{0: {true, true}, 1: {true, true}, 20: {true, true}, 21: {true, true}, 30: {true, false}, 31: {true, false}, 40: {true, true}, 41: {true, true}} {
		for i, from := range []time.Time{t0, t0.Add(time.Millisecond)} {
			if got := held(from)[offset]; got != want[i] {
				t.Errorf("record %d is held: %t with edits of %s or later", offset, got, from)
			}
		}
	}
}

func lists(t *testing.T, open Open) {
	ctx := context.Background()
	s, l := opened(t, open), NewLog()
	var want []uuid.UUID
	for i := range 7 {
		m := l.Meta("key-"+strconv.Itoa(i), []submission.Land{"08", "14"}[i%2])
		l.Accepted(m, 0)
		l.Event(m, submission.EventDead, submission.Event{Revision: 1, Reason: []string{"mapping-failed", "schema-invalid"}[i%2]})
		want = append(want, m.ID)
	}
	project(t, s, l)

	// Page by page: each once, in order.
	var dead []uuid.UUID
	for f := (status.Filter{Limit: 3}); ; {
		page, next, err := s.DeadLetters(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page {
			dead = append(dead, d.Submission)
		}
		if f.After = next; next == "" {
			break
		}
	}
	if !slices.Equal(dead, want) {
		t.Errorf("dead letters, oldest first, are %v, want %v", dead, want)
	}
	var subs []uuid.UUID
	for f := (status.Filter{Limit: 2}); ; {
		page, next, err := s.Submissions(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			subs = append(subs, a.ID)
		}
		if f.After = next; next == "" {
			break
		}
	}
	slices.Reverse(subs)
	if !slices.Equal(subs, want) {
		t.Errorf("submissions, newest first, are reversed %v, want %v", subs, want)
	}
	for name, c := range map[string]struct {
		filter status.Filter
		n      int
	}{
		"land":             {status.Filter{Land: "08"}, 4},
		"allowed":          {status.Filter{Lands: []submission.Land{"14"}}, 3},
		"allowed none":     {status.Filter{Lands: []submission.Land{}}, 0},
		"land not allowed": {status.Filter{Land: "08", Lands: []submission.Land{"14"}}, 0},
		"reason":           {status.Filter{Reason: "mapping-failed"}, 4},
		"state":            {status.Filter{State: submission.Delivered}, 0},
		"service":          {status.Filter{Service: "99050012104000"}, 7},
		"portal":           {status.Filter{Portal: "amt24"}, 0},
		"sender":           {status.Filter{SenderHash: []string{"hash-key-3", "x"}}, 1},
		"no sender":        {status.Filter{SenderHash: []string{}}, 0},
		"case":             {status.Filter{CaseID: submission.NewCaseID(want[2])}, 1},
		"destination":      {status.Filter{Destination: "a"}, 0},
	} {
		if got, _, err := s.Submissions(ctx, c.filter); err != nil || len(got) != c.n {
			t.Errorf("%s: %d submissions, %v; want %d", name, len(got), err, c.n)
		}
	}
	for _, f := range []status.Filter{{After: "x"}, {After: "!.y"}} {
		if _, _, err := s.Submissions(ctx, f); !errors.Is(err, status.ErrCursor) {
			t.Errorf("cursor %q: %v", f.After, err)
		}
		if _, _, err := s.DeadLetters(ctx, f); !errors.Is(err, status.ErrCursor) {
			t.Errorf("cursor %q: %v", f.After, err)
		}
	}
}

func brokenRecordsPass(t *testing.T, open Open) {
	ctx := context.Background()
	s, l := opened(t, open), NewLog()
	m := l.Meta("key", "08")
	p := Partition(m.ID)
	l.Accepted(m, 0)
	for _, value := range []string{"", "{", "null", `{"type":"dead"}`, `{"type":"dead","id":"canary"}`} {
		l.add(&bus.Record{Topic: status.TopicEvents, Partition: p, Value: []byte(value), Headers: map[string]string{"weiche_version": "1"}, Time: t0})
	}
	ok := submission.Event{ID: uuid.New(), Type: submission.EventDead, Submission: m.ID, Revision: 1}
	value, err := ok.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.add(&bus.Record{Topic: status.TopicEvents, Partition: p, Value: value, Time: t0}) // no version
	l.add(&bus.Record{Topic: status.TopicSubmissions, Partition: p, Key: []byte("x"), Headers: map[string]string{"ce_subject": "canary"}, Time: t0})
	l.add(&bus.Record{Topic: status.TopicClaims, Partition: p, Key: []byte("canary"), Time: t0})
	l.Decided(m, 0, 1, "a")
	out := project(t, s, l)
	if len(out.Undecodable) != 8 {
		t.Errorf("%d records were passed: %+v", len(out.Undecodable), out.Undecodable)
	}
	for _, u := range out.Undecodable {
		if bytes.Contains([]byte(u.What), []byte("canary")) {
			t.Errorf("the text quotes the record: %s", u.What)
		}
	}
	if n, err := s.Undecodable(ctx); err != nil || n != 8 {
		t.Errorf("%d undecodable, %v", n, err)
	}
	if a, err := s.Get(ctx, m.ID); err != nil || a.Dispatched != 1 || a.State != submission.InFlight {
		t.Errorf("what stands behind the broken records: %+v, %v", a, err)
	}
}

func supersededOwners(t *testing.T, open Open) {
	ctx := context.Background()
	s, l := opened(t, open), NewLog()
	m := l.Meta("key", "08")
	p := Partition(m.ID)
	l.Owner(p, submission.StageDispatch, 1)
	l.Owner(p, submission.StageDelivery, 7)
	l.Accepted(m, 1)
	l.Owner(p, submission.StageDispatch, 2)
	l.Decided(m, 1, 1, "stale") // written by the one that was replaced
	l.Decided(m, 2, 1, "a")
	l.About(m, submission.EventDelivered, "a", submission.Event{Epoch: 7, Attempt: 1}) // another stage, another epoch
	l.Owner(p, submission.StageDispatch, 2)                                            // came second
	project(t, s, l)
	a, err := s.Get(ctx, m.ID)
	if err != nil || a.State != submission.Delivered || a.Deliveries[0].Destination != "a" {
		t.Errorf("account %+v, %v", a, err)
	}
	events, err := s.Events(ctx, m.ID)
	if err != nil || len(events) != 4 || !events[1].Superseded || events[1].Effective || events[2].Superseded {
		t.Errorf("events %+v, %v", events, err)
	}
	if n := s.EpochOf(submission.StageDispatch, p); n != 2 {
		t.Errorf("dispatch's epoch is %d", n)
	}
}
