// Package intaketest builds the door with its real parts for tests: embedded
// broker, key store, blob store, claims and projection, over a configuration
// with one portal for each right. It is imported by tests and by nothing else.
package intaketest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"weiche/internal/blob"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/config"
	"weiche/internal/intake"
	"weiche/internal/jsonvalid"
	"weiche/internal/seal"
	"weiche/internal/status"
	"weiche/internal/submission"
	"weiche/internal/telemetry"
)

// Portals of the configuration, and the API keys they have.
const (
	PortalBW     = "service-bw" // 08 and 14, and the broken 09 and the unserved 05
	PortalSN     = "amt24"      // 14, Trade only
	KeyBW, KeySN = "key-of-service-bw", "key-of-amt24"
)

// Services of the configuration.
const (
	Trade    submission.Service = "99050012104000" // offered by 08 and 14
	Parents  submission.Service = "99041006017000" // offered by 08
	Building submission.Service = "99012008001000" // offered by 08, its standard is missing
)

// Limits are small, so that tests can pass them.
func Limits() config.Limits {
	return config.Limits{
		BodyBytes: 1 << 20, PartBytes: 64 << 10, AttachmentBytes: 200 << 10, SubmissionBytes: 500 << 10, Attachments: 4, Depth: 32,
		ReadTimeout: 10 * time.Second, RequestTimeout: 30 * time.Second, Concurrent: 64, KafkaRecordBytes: 300 << 10,
	}
}

// Broker is an embedded broker with the pipeline's topics.
type Broker struct {
	Addrs []string
	Stop  func() // may be called before the test ends
}

// StartBroker starts a broker in the test's directory.
func StartBroker(t testing.TB, logger *slog.Logger) *Broker {
	t.Helper()
	b, err := embedded.Start(filepath.Join(t.TempDir(), "broker"), embedded.Options{Partitions: 4}, logger)
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() { _ = b.Close() })
	t.Cleanup(stop)
	return &Broker{b.Addrs(), stop}
}

// Replica is one router's intake. Replicas of a test share broker, keys and
// blobs.
type Replica struct {
	Bus       *bus.Bus
	Door      *intake.Door
	Claims    *intake.Claims
	Auth      *intake.Authenticator
	Keeper    *seal.Keeper
	Signer    *seal.Signer
	Vault     *blob.Vault
	Blobs     *blob.FS
	BlobDir   string
	Store     *status.Store
	Projector *status.Projector
	Registry  *prometheus.Registry
	Config    *config.Config
	Logger    *slog.Logger
	Log       *Log
}

// Options change a replica.
type Options struct {
	Dir    string // shared by replicas; empty: the test's own
	Limits *config.Limits
	Config *config.Config
	// Rehearsal is the door's.
	Rehearsal intake.Rehearsal
}

// Start starts a replica on a broker.
func Start(t testing.TB, br *Broker, o Options) *Replica {
	t.Helper()
	ctx := t.Context()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Limits == nil {
		l := Limits()
		o.Limits = &l
	}
	r := &Replica{Config: o.Config, Registry: telemetry.NewRegistry(), Log: &Log{}, BlobDir: filepath.Join(o.Dir, "blobs")}
	if r.Config == nil {
		r.Config = Config()
	}
	r.Logger = telemetry.NewLogger(r.Log, slog.LevelDebug)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	bc := bus.Config{Brokers: br.Addrs, Partitions: 4, ReplicationFactor: 1, MinInSyncReplicas: 1, AppendTimeout: 3 * time.Second, MaxRecordBytes: 17 << 20}
	r.Bus, err = bus.Open(ctx, bc, r.Logger, r.Registry)
	must(err)
	t.Cleanup(func() { _ = r.Bus.Close() })
	must(r.Bus.EnsureTopics(ctx, bus.Topics(bc, []string{PortalBW, PortalSN})))
	r.Keeper, err = seal.Open(filepath.Join(o.Dir, "keys"), nil, keyLog{r.Bus})
	must(err)
	r.Signer, err = seal.OpenSigner(filepath.Join(o.Dir, "keys"), "")
	must(err)
	r.Blobs, err = blob.OpenFS(r.BlobDir)
	must(err)
	r.Vault = blob.NewVault(r.Blobs, 0)
	r.Store, err = status.Open(filepath.Join(t.TempDir(), "status.db"))
	must(err)
	t.Cleanup(func() { _ = r.Store.Close() })
	r.Projector = status.NewProjector(r.Store, status.Options{Log: r.Bus, Logger: r.Logger})
	run, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Projector.Run(run) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the projection: %v", err)
		}
	})
	r.Claims, err = intake.OpenClaims(ctx, r.Bus, 0, r.Logger)
	must(err)
	t.Cleanup(r.Claims.Close)
	r.Auth, err = intake.NewAuthenticator(r.Config, nil, nil, nil)
	must(err)
	r.Door = intake.NewDoor(intake.Deps{
		Log: r.Bus, Claims: r.Claims, Keys: r.Keeper, Vault: r.Vault, Blobs: r.Blobs, Signer: r.Signer,
		Rehearsal: o.Rehearsal,
		Limits:    *o.Limits, Logger: r.Logger, Reg: r.Registry,
	}, Book(r.Config))
	return r
}

// BlobCount counts the blobs that are stored.
func (r *Replica) BlobCount(t testing.TB) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(r.BlobDir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return n
}

// Records reads every record of a topic.
func (r *Replica) Records(t testing.TB, topic string) []*bus.Record {
	t.Helper()
	oldest, newest, err := r.Bus.Offsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var out []*bus.Record
	for i := range newest {
		err := r.Bus.ReadTo(t.Context(), topic, int32(i), oldest[i], newest[i], func(rec *bus.Record) error {
			out = append(out, rec)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// Open opens a section of a record.
func (r *Replica) Open(t testing.TB, rec *bus.Record, section string) []byte {
	t.Helper()
	box, err := seal.ParseBox(rec.Value, rec.Headers[submission.HeaderSubject])
	if err != nil {
		t.Fatal(err)
	}
	key, err := r.Keeper.OpenDataKey(t.Context(), box.Key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Vault.Section(t.Context(), key, box, section)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Config is a configuration with two Länder served and one broken.
func Config() *config.Config {
	hash := func(key string) []string {
		h := sha256.Sum256([]byte(key))
		return []string{hex.EncodeToString(h[:])}
	}
	return &config.Config{
		Lands: map[submission.Land]*config.Land{
			"08": {Key: "08", Services: []config.Offer{{Service: Trade}, {Service: Parents}, {Service: Building}}},
			"14": {Key: "14", Services: []config.Offer{{Service: Trade}}},
		},
		Broken: map[submission.Land]config.Problems{"09": {{Text: "broken"}}},
		Portals: map[string]*config.Portal{
			PortalBW: {ID: PortalBW, Lands: []submission.Land{"08", "14", "09", "05"}, Auth: config.Auth{APIKeySHA256: hash(KeyBW)}, Topic: true},
			PortalSN: {ID: PortalSN, Lands: []submission.Land{"14"}, Services: []submission.Service{Trade}, Auth: config.Auth{APIKeySHA256: hash(KeySN)}, Topic: true},
		},
	}
}

// Book is the configuration with its forms.
func Book(cfg *config.Config) intake.Book { return intake.Book{Config: cfg, Forms: forms{}} }

// forms serves the three services with one small form schema.
type forms struct{}

func (forms) Known(s submission.Service) bool { return s == Trade || s == Parents || s == Building }

func (forms) Form(o config.Offer) (intake.Form, bool) {
	return form{missing: o.Service == Building}, forms{}.Known(o.Service)
}

type form struct{ missing bool }

func (f form) Missing() bool { return f.missing }

func (f form) Check(data any) []intake.Fault {
	if err := formSchema().Validate(data); err != nil {
		return intake.SchemaFaults(err)
	}
	return nil
}

var formSchema = sync.OnceValue(func() *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(`{
		"type": "object", "required": ["name", "born"], "additionalProperties": false,
		"properties": {
			"name": {"type": "string", "maxLength": 40},
			"born": {"type": "string", "format": "date"},
			"employees": {"type": "integer", "minimum": 0},
			"notes": {"type": "array", "items": {"type": "string"}}
		}}`)))
	if err != nil {
		panic(err)
	}
	c := jsonvalid.NewCompiler()
	if err := c.AddResource("https://weiche.example/form.json", doc); err != nil {
		panic(err)
	}
	return c.MustCompile("https://weiche.example/form.json")
})

// Body is a submission to change; JSON writes it.
type Body map[string]any

// Sound returns a submission that is accepted.
func Sound() Body {
	return Body{
		"publicService": map[string]any{"identifier": "urn:de:fim:leika:leistung:" + string(Trade)},
		"region":        "DE081150003003",
		"data":          map[string]any{"name": "Müller-Łukasz", "born": "1980-02-29", "employees": 3},
	}
}

// With sets a member.
func (b Body) With(name string, v any) Body { b[name] = v; return b }

// For sets service and region.
func (b Body) For(s submission.Service, region string) Body {
	b["publicService"] = map[string]any{"identifier": string(s)}
	b["region"] = region
	return b
}

// JSON writes the body.
func (b Body) JSON() []byte {
	out, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	return out
}

// File is an attachment with its content in base64, or in a part.
func File(id, part string, content []byte) map[string]any {
	sum := sha512.Sum512(content)
	a := map[string]any{
		"attachmentId": id, "mimeType": "application/pdf", "purpose": "attachment", "filename": id + ".pdf",
		"hash": map[string]any{"type": "sha512", "content": hex.EncodeToString(sum[:])},
	}
	if part != "" {
		a["part"] = part
	} else {
		a["content"] = base64.StdEncoding.EncodeToString(content)
	}
	return a
}

// Log collects log lines. It is safe for concurrent use.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends a line.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns everything logged so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type keyLog struct{ bus *bus.Bus }

func (l keyLog) Append(ctx context.Context, key string, value []byte) error {
	return l.bus.Append(ctx, &bus.Record{Topic: "weiche.keys", Key: []byte(key), Value: value})
}

func (l keyLog) Load(ctx context.Context, fn func(key string, value []byte) error) error {
	oldest, newest, err := l.bus.Offsets(ctx, "weiche.keys")
	if err != nil {
		return err
	}
	return l.bus.ReadTo(ctx, "weiche.keys", 0, oldest[0], newest[0], func(r *bus.Record) error { return fn(string(r.Key), r.Value) })
}
