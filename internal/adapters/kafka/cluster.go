package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/spec"
	"weiche/internal/bus"
	"weiche/internal/fault"
)

// cluster is another cluster than the router's own. It is connected to when a
// message comes and left when none has come for idle, so that a destination that
// gets nothing holds no connection. It is safe for concurrent use.
type cluster struct {
	open func(context.Context) (spec.ClosableBus, error)
	idle time.Duration
	turn chan struct{} // of capacity 1: held while connecting

	mu      sync.Mutex
	bus     spec.ClosableBus // nil while there is no connection
	users   int
	timer   *time.Timer // runs while there are no users
	closed  bool
	closing sync.WaitGroup
}

func newCluster(open func(context.Context) (spec.ClosableBus, error), idle time.Duration) *cluster {
	return &cluster{open: open, idle: idle, turn: make(chan struct{}, 1)}
}

// enter returns the connection, which stays until leave. One attempt connects,
// the others wait for it, no longer than their contexts.
func (c *cluster) enter(ctx context.Context) (spec.Bus, error) {
	if b := c.take(nil); b != nil {
		return b, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if b := c.take(nil); b != nil {
		return b, nil
	}
	b, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	if c.take(b) == nil {
		_ = b.Close()
		return nil, fault.New(fault.Cancelled, fault.ReasonCancelled, "the destination is closed")
	}
	return b, nil
}

// take counts a user in, on the connection there is or on a fresh one; nil when
// there is none.
func (c *cluster) take(fresh spec.ClosableBus) spec.Bus {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bus == nil {
		c.bus = fresh
	}
	if c.bus == nil || c.closed {
		return nil
	}
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.users++
	return c.bus
}

func (c *cluster) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users == 0 && !c.closed {
		c.timer = time.AfterFunc(c.idle, c.expire)
	}
}

func (c *cluster) expire() {
	c.mu.Lock()
	b := c.bus
	if c.users > 0 || c.closed || b == nil {
		c.mu.Unlock()
		return
	}
	c.bus = nil
	c.closing.Add(1)
	c.mu.Unlock()
	defer c.closing.Done()
	_ = b.Close()
}

// close comes after the last leave.
func (c *cluster) close() error {
	c.mu.Lock()
	b := c.bus
	c.bus, c.closed = nil, true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	defer c.closing.Wait()
	if b == nil {
		return nil
	}
	return b.Close()
}

// guarded dials as package dial does. What it refuses is classed here, because
// the bus would take it for a broker that is away.
func guarded(d dial.Dialer) bus.Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, address)
		if _, refused := errors.AsType[*dial.AddressError](err); refused {
			return nil, dial.Fault(err)
		}
		return conn, err
	}
}
