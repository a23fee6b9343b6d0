package app

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// closers are named clean-ups, run last in first out; each failure is logged
// and stops none of the others.
type closers struct {
	logger *slog.Logger
	mu     sync.Mutex
	list   []closer
}

type closer struct {
	name string
	fn   func(context.Context) error
}

func (c *closers) add(name string, fn func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, closer{name, fn})
}

func (c *closers) run(ctx context.Context) {
	c.mu.Lock()
	list := c.list
	c.list = nil
	c.mu.Unlock()
	for i := len(list) - 1; i >= 0; i-- {
		began := time.Now()
		err := list[i].fn(ctx)
		log := c.logger.With("part", list[i].name, "duration_ms", time.Since(began).Milliseconds())
		if err != nil {
			log.Error("stopping failed", "error", err.Error())
		} else {
			log.Debug("stopped")
		}
	}
}
