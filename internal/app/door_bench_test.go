package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"weiche/internal/blob"
	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/dispatch"
	"weiche/internal/intake"
	httpdoor "weiche/internal/intake/http"
	"weiche/internal/seal"
	"weiche/internal/submission"
	"weiche/internal/telemetry"
)

// quickLog is a log that has appended at once: what is left is the door's own
// work.
type quickLog struct {
	mu     sync.Mutex
	next   int64
	claims chan *bus.Record
}

func (l *quickLog) Append(_ context.Context, recs ...*bus.Record) error {
	for _, r := range recs {
		if r.Topic != intake.TopicClaims {
			continue
		}
		l.mu.Lock()
		r.Partition, r.Offset = 0, l.next
		l.next++
		l.claims <- r
		l.mu.Unlock()
	}
	return nil
}

func (l *quickLog) Tail(ctx context.Context, _ string, _ int32, _ int64, fn func(*bus.Record) error) error {
	for {
		select {
		case r := <-l.claims:
			if err := fn(r); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *quickLog) Offsets(context.Context, string) (oldest, newest []int64, err error) {
	return []int64{0}, []int64{0}, nil
}

// quickBlobs stores nothing, at once.
type quickBlobs struct{ blob.Store }

func (quickBlobs) Put(_ context.Context, _ string, r io.Reader) (int64, error) {
	return io.Copy(io.Discard, r)
}

// portal posts one body.
type portal struct {
	name, key string
	body      []byte
}

var posted atomic.Int64

func (p portal) post(to http.Handler) error {
	req := httptest.NewRequest(http.MethodPost, "/v1/submissions", bytes.NewReader(p.body))
	req.Header.Set("Authorization", "Bearer "+p.key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", fmt.Sprint(posted.Add(1)))
	res := httptest.NewRecorder()
	if to.ServeHTTP(res, req); res.Code != http.StatusAccepted {
		return fmt.Errorf("%s: %d %s", p.name, res.Code, res.Body)
	}
	return nil
}

// shippedDoor is the portals' door over the configuration that ships, with all
// of its parts but for the log and the disk, and a portal for the richest
// example of each service.
func shippedDoor(b *testing.B) (http.Handler, []portal) {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	shippedLibrary(b) // imports the standards
	cfg, problems := config.Load("../../config", nil)
	if cfg == nil {
		b.Fatal(problems)
	}
	cfg.Router.Data = b.TempDir()
	must(os.Symlink(standardsDir, StandardsDir(cfg.Router.Data)))
	lib, problems := LoadLibrary(cfg)
	if problems.Failed() {
		b.Fatal(problems)
	}
	keys, hashes := map[string]string{}, map[string]string{}
	for id := range cfg.Portals {
		keys[id] = "key-of-" + id
		hashes[id] = hashSecret(keys[id])
	}

	logger := telemetry.NewLogger(io.Discard, slog.LevelInfo)
	log := &quickLog{claims: make(chan *bus.Record, 1024)}
	a := &App{lib: lib, dispatch: dispatch.New(nil, nil, nil, logger, prometheus.NewRegistry(), time.Now)}
	a.dispatch.SetCatalogue(lib)
	keeper, err := seal.Open(filepath.Join(cfg.Router.Data, "keys"), nil, &dayKeys{})
	must(err)
	signer, err := seal.OpenSigner(filepath.Join(cfg.Router.Data, "keys"), "")
	must(err)
	claims, err := intake.OpenClaims(b.Context(), log, 0, logger)
	must(err)
	b.Cleanup(claims.Close)
	door := intake.NewDoor(intake.Deps{
		Log: log, Claims: claims, Keys: keeper, Vault: blob.NewVault(quickBlobs{}, 0), Signer: signer, Rehearsal: rehearsal{a},
		Limits: cfg.Router.Intake, Logger: logger, Reg: prometheus.NewRegistry(),
	}, intake.Book{Config: cfg, Forms: lib})
	auth, err := intake.NewAuthenticator(cfg, hashes, nil, nil)
	must(err)

	var portals []portal
	for _, p := range lib.Catalog.Processes() {
		raw, err := os.ReadFile(p.Examples[len(p.Examples)-1].File)
		must(err)
		var e submission.Envelope
		must(json.Unmarshal(raw, &e))
		region, err := submission.ParseRegion(e.Region)
		must(err)
		var body bytes.Buffer
		must(json.Compact(&body, raw))
		sender := map[submission.Land]string{"08": "service-bw", "14": "amt24"}[region.Land()]
		portals = append(portals, portal{p.ID, keys[sender], body.Bytes()})
	}
	return httpdoor.New(door, auth, nil, logger, nil), portals
}

// inTurn lets as many goroutines as there are cores do each job n times.
func inTurn(jobs, n int, do func(job int) error) error {
	var next atomic.Int64
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < jobs*n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i % jobs); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// BenchmarkDoor is the CPU time of one submission at the door, from the request
// to the receipt, in µs and as a multiple of the time in which encoding/json
// reads the same body into an any, in turns within the same run. Log and blobs
// answer at once; connection and TLS are left out.
func BenchmarkDoor(b *testing.B) {
	to, portals := shippedDoor(b)
	bench := func(b *testing.B, list []portal) {
		const round = 100
		bytes := 0
		for _, p := range list {
			bytes += len(p.body)
		}
		post := func(i int) error { return list[i].post(to) }
		read := func(i int) error { var v any; return json.Unmarshal(list[i].body, &v) }
		for i := range list { // one after another: the keys of the day are made
			if err := post(i); err != nil {
				b.Fatal(err)
			}
		}
		var door, unit time.Duration
		for b.Loop() {
			for _, part := range []struct {
				do  func(int) error
				sum *time.Duration
			}{{post, &door}, {read, &unit}} {
				runtime.GC()
				start := processTime()
				if err := inTurn(len(list), round, part.do); err != nil {
					b.Fatal(err)
				}
				*part.sum += processTime() - start
			}
		}
		n := float64(b.N * round * len(list))
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(bytes)/float64(len(list)), "B")
		b.ReportMetric(float64(door.Microseconds())/n, "door-µs")
		b.ReportMetric(float64(unit.Microseconds())/n, "json-µs")
		b.ReportMetric(float64(door)/float64(unit), "of-json")
	}
	b.Run("all", func(b *testing.B) { bench(b, portals) })
	b.Run("without files", func(b *testing.B) {
		var list []portal
		for _, p := range portals {
			if p.body = withoutFiles(b, p.body); p.post(to) == nil { // some forms want a file
				list = append(list, p)
			}
		}
		b.Logf("%d of %d services", len(list), len(portals))
		bench(b, list)
	})
	for _, p := range portals {
		b.Run(p.name, func(b *testing.B) { bench(b, []portal{p}) })
	}
}

// withoutFiles takes the files out of a submission, and what its form says of
// them.
func withoutFiles(b *testing.B, body []byte) []byte {
	b.Helper()
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		b.Fatal(err)
	}
	delete(m, "attachments")
	delete(m["data"].(map[string]any), "anlagen")
	body, err := json.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	return body
}

func processTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // it has no error on Linux
	return time.Duration(t.Nano())
}
