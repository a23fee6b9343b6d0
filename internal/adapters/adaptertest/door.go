package adaptertest

import (
	"io"
	"net"
	"sync"
	"testing"

	"weiche/internal/adapters/spec"
	"weiche/internal/config"
)

// Destination is the name that Open gives.
const Destination = "08-bauamt"

// Open makes an adapter from settings as they stand in destinations.yaml. Where it
// holds connections it is closed when the test ends.
func Open(t *testing.T, k spec.Kind, deps spec.Deps, settings string) spec.Adapter {
	t.Helper()
	s, err := config.ParseSettings("destinations.yaml", settings)
	if err != nil {
		t.Fatal(err)
	}
	v, ps := k.Decode(s)
	if ps != nil {
		t.Fatal(ps)
	}
	a, err := k.New(Destination, v, deps.WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := a.(io.Closer); ok {
		t.Cleanup(func() { _ = c.Close() })
	}
	return a
}

// Serve is a server on loopback that does as it likes with each connection, which
// is closed when serve returns or the test ends.
func Serve(t *testing.T, serve func(net.Conn)) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			running.Go(func() { defer func() { _ = c.Close() }(); serve(c) })
		}
	})
	return l.Addr().(*net.TCPAddr)
}
