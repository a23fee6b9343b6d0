package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/app"
	"weiche/internal/blob"
	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/intake"
	"weiche/internal/seal"
)

const (
	fillers   = 1024     // posts under way at once
	fillBytes = 64 << 20 // and what their bodies may take: who posts more waits too long, posts again and is in the log twice
)

// fill accepts submissions through the intake's own door, with the keys of a
// data directory, so that the topics hold what a router has accepted.
func fill(ctx context.Context, j job, ready func(addresses)) error {
	door, regions, done, err := openDoor(ctx, j)
	if err != nil {
		return err
	}
	defer done()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	size := len(formOf(0, regions[0], j.Shape))
	for range min(fillers, j.Records, max(1, fillBytes/size)) {
		all.Go(func() {
			for failed.Load() == nil && ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= j.Records {
					return
				}
				p := intake.Post{Portal: portal, IdempotencyKey: fmt.Sprintf("bench-%d", n), Body: formOf(n, regions[n%len(regions)], j.Shape)}
				_, err := door.Accept(ctx, p)
				for tries := 0; err != nil && fault.Of(err).Class == fault.Retryable && tries < 60 && ctx.Err() == nil; tries++ {
					time.Sleep(time.Second) // as a portal does
					_, err = door.Accept(ctx, p)
				}
				if err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if e := failed.Load(); e != nil {
		return *e
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ready(addresses{})
	<-ctx.Done()
	return nil
}

func openDoor(ctx context.Context, j job) (door *intake.Door, regions []string, done func(), err error) {
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	cfg, problems := config.Load(j.Config, []string{"WEICHE_DATA=" + j.Data, "WEICHE_KAFKA_BROKERS=" + strings.Join(j.Brokers, ",")})
	if cfg == nil {
		return nil, nil, nil, problems
	}
	lib, _ := app.LoadLibrary(cfg)
	b, err := openBus(ctx, j)
	if err != nil {
		return nil, nil, nil, err
	}
	fail := func(err error) (*intake.Door, []string, func(), error) {
		_ = b.Close()
		return nil, nil, nil, err
	}
	keys := filepath.Join(j.Data, cfg.Router.Seal.Dir)
	keeper, err := seal.Open(keys, nil, keyLog{b})
	if err != nil {
		return fail(err)
	}
	signer, err := seal.OpenSigner(keys, "")
	if err != nil {
		return fail(err)
	}
	blobs, err := blob.OpenFS(filepath.Join(j.Data, cfg.Router.Blobs.Dir))
	if err != nil {
		return fail(err)
	}
	claims, err := intake.OpenClaims(ctx, b, 0, log)
	if err != nil {
		return fail(err)
	}
	door = intake.NewDoor(intake.Deps{Log: b, Claims: claims, Keys: keeper, Vault: blob.NewVault(blobs, blob.DefaultThreshold), Blobs: blobs,
		Signer: signer, Limits: cfg.Router.Intake, Logger: log, Reg: prometheus.NewRegistry()}, intake.Book{Config: cfg, Forms: sound{lib}})
	regions, err = readRegions(j.Config)
	if err != nil {
		claims.Close()
		return fail(err)
	}
	return door, regions, func() { claims.Close(); _ = b.Close() }, nil
}

// sound takes the harness's own forms unchecked: a test has checked them, and a
// hundred thousand of them would be waited for.
type sound struct{ *app.Library }

// Form implements intake.Forms.
func (s sound) Form(o config.Offer) (intake.Form, bool) {
	f, ok := s.Library.Form(o)
	return unchecked{f}, ok
}

type unchecked struct{ intake.Form }

// Check implements intake.Form.
func (unchecked) Check(any) []intake.Fault { return nil }

// keyLog keeps day keys where the router keeps them.
type keyLog struct{ bus *bus.Bus }

// Append implements seal.KeyLog.
func (l keyLog) Append(ctx context.Context, key string, value []byte) error {
	return l.bus.Append(ctx, &bus.Record{Topic: bus.TopicKeys, Key: []byte(key), Value: value})
}

// Load implements seal.KeyLog.
func (l keyLog) Load(ctx context.Context, fn func(key string, value []byte) error) error {
	oldest, newest, err := l.bus.Offsets(ctx, bus.TopicKeys)
	if err != nil || len(newest) == 0 {
		return err
	}
	return l.bus.ReadTo(ctx, bus.TopicKeys, 0, oldest[0], newest[0], func(r *bus.Record) error { return fn(string(r.Key), r.Value) })
}
