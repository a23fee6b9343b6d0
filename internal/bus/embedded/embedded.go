// Package embedded runs a Kafka-protocol broker inside the router's process, for
// trying out, developing and small tests. It keeps its records in a directory,
// fsyncs each batch before it is acknowledged, and keeps other processes off the
// directory with a lock.
//
// It refuses to be more than that: one node, loopback only, no replication. The
// broker underneath (franz-go's kfake) does not report a failed fsync to the
// producer, and after a kill the start of a log may be further back than a
// deletion had moved it.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sys/unix"
)

// ErrLocked is wrapped by Start's error when another process, or another Broker
// of this one, has the directory.
var ErrLocked = errors.New("directory is in use")

const (
	clusterID    = "weiche-embedded"
	segmentBytes = 4 << 20
)

// Options of a Broker. The zero value is usable.
type Options struct {
	Port       int // 0: the one it had before where that is free, otherwise a free one
	Partitions int // of topics created without a count; default 4
	// MaxBytes of log, default 10 GiB. At nine tenths no more submissions are
	// accepted, at the whole nothing is written any more.
	MaxBytes int64
}

// Broker is a running embedded broker. Its methods are safe for concurrent use.
type Broker struct {
	cluster *kfake.Cluster
	guard   *guard
	lock    *os.File
	addrs   []string
	once    sync.Once
}

// Start opens the directory (made if missing, mode 0700) and starts the broker.
// Records and committed offsets of an earlier run are there again. The error
// wraps ErrLocked when the directory is in use.
func Start(dir string, opts Options, log *slog.Logger) (*Broker, error) {
	if opts.Partitions <= 0 {
		opts.Partitions = 4
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = 10 << 30
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	lock, err := takeLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("embedded broker: %s: %w", dir, err)
	}
	// kfake reads a log at its start segment by segment, of all partitions at the
	// same time, and leaves them to the collector.
	defer debug.FreeOSMemory()
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	note := func(what string, args ...any) { log.Warn("embedded broker: "+what, args...) }
	if err = putBack(dir, note); err == nil {
		err = check(dir, note)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("embedded broker: %s: %w", dir, err)
	}
	b, err := start(dir, opts, log)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	b.lock = lock
	log.Info("embedded broker is serving", "addrs", b.addrs, "dir", dir)
	return b, nil
}

func start(dir string, opts Options, log *slog.Logger) (*Broker, error) {
	portFile := filepath.Join(dir, "port")
	ports := []int{opts.Port}
	if opts.Port == 0 {
		if p := rememberedPort(portFile); p != 0 {
			ports = []int{p, 0}
		}
	}
	var err error
	g := newGuard(filepath.Join(dir, "log"), opts.MaxBytes, log)
	for _, port := range ports {
		var c *kfake.Cluster
		c, err = kfake.NewCluster(
			kfake.Ports(port),
			kfake.ClusterID(clusterID),
			kfake.DataDir(filepath.Join(dir, "log")),
			kfake.SyncWrites(),
			kfake.DefaultNumPartitions(opts.Partitions),
			kfake.WithLogger(logger{log, g}),
			// A router that was off for longer than a week must not begin
			// every topic anew.
			kfake.BrokerConfigs(map[string]string{
				"offsets.retention.minutes": "2147483647",
				"log.cleaner.backoff.ms":    "9000000000000", // 285 years: the guard compacts
				// kfake reads whole segments at its start, one of each partition
				// at the same time.
				"log.segment.bytes": strconv.Itoa(segmentBytes),
			}),
		)
		if err != nil {
			continue
		}
		g.watch(c)
		b := &Broker{cluster: c, guard: g, addrs: c.ListenAddrs()}
		if _, p, ok := strings.Cut(b.addrs[0], ":"); ok {
			_ = os.WriteFile(portFile, []byte(p+"\n"), 0o600) // only a convenience: clients find the same port again
		}
		return b, nil
	}
	return nil, fmt.Errorf("embedded broker: %s: %w", dir, err)
}

// takeLock uses flock, so that the lock goes with the process however it ends.
func takeLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(name)
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w by the process %s; stop that one, or give this one a data directory of its own",
				ErrLocked, strings.TrimSpace(string(holder)))
		}
		return nil, err
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

func rememberedPort(name string) int {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	p, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || p < 1 || p > 65535 {
		return 0
	}
	return p
}

// Addrs returns the broker's addresses, host:port.
func (b *Broker) Addrs() []string { return append([]string(nil), b.addrs...) }

// Close stops the broker, saves its state and releases the directory. A second
// call does nothing.
func (b *Broker) Close() error {
	var err error
	b.once.Do(func() {
		b.guard.close()
		b.cluster.Close()
		err = b.lock.Close()
	})
	return err
}

type logger struct {
	log   *slog.Logger
	guard *guard
}

// Logf passes on what an operator can act on; the rest is for debugging.
func (l logger) Logf(level kfake.LogLevel, msg string, args ...any) {
	at := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		at = slog.LevelError
	case kfake.LogLevelWarn:
		at = slog.LevelWarn
	}
	if at >= slog.LevelWarn {
		l.guard.hear(msg, fmt.Sprintf(msg, args...))
	}
	if !l.log.Enabled(context.Background(), at) {
		return
	}
	l.log.Log(context.Background(), at, "embedded broker", "text", fmt.Sprintf(msg, args...))
}
