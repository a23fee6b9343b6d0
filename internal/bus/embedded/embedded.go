// Package embedded runs a Kafka-protocol broker inside the router's process, for
// trying out, developing and small tests. It keeps its records in a directory,
// fsyncs each batch before it is acknowledged, and keeps other processes off the
// directory with a lock.
//
// It refuses to be more than that: one node, loopback only, no replication.
package embedded

import (
	"errors"
	"log/slog"
)

// Options of a Broker. The zero value is usable.
type Options struct {
	Port       int // 0: a free one, the same again after a restart where it is still free
	Partitions int // of topics created without a count; default 4
}

// Broker is a running embedded broker.
type Broker struct{}

// Start opens the directory (made if missing) and starts the broker.
func Start(dir string, opts Options, log *slog.Logger) (*Broker, error) {
	return nil, errors.New("embedded: not there yet")
}

// Addrs returns the broker's addresses, host:port.
func (b *Broker) Addrs() []string { return nil }

// Close stops the broker and releases the directory.
func (b *Broker) Close() error { return nil }
