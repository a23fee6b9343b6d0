package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"weiche/internal/bus"
	"weiche/internal/delivery"
)

// pauses carries operators' pauses to every replica and over restarts. The
// newest word on each destination stands in a small compacted topic, and each
// replica follows it. It is safe for concurrent use.
type pauses struct {
	log    pauseLog
	stage  *delivery.Stage
	now    func() time.Time
	logger *slog.Logger

	mu    sync.Mutex
	next  int64 // offset behind the newest word that has taken effect here
	moved chan struct{}
}

type pauseLog interface {
	Append(ctx context.Context, recs ...*bus.Record) error
	Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error)
	Tail(ctx context.Context, topic string, partition int32, from int64, fn func(*bus.Record) error) error
}

// word is what an operator said about a destination.
type word struct {
	delivery.HandPause
	Resumed bool `json:"resumed,omitempty"`
}

func newPauses(log pauseLog, stage *delivery.Stage, now func() time.Time, logger *slog.Logger) *pauses {
	return &pauses{log: log, stage: stage, now: now, logger: logger, moved: make(chan struct{})}
}

// follow carries out what operators say, until ctx ends.
func (p *pauses) follow(ctx context.Context) error {
	return p.log.Tail(ctx, bus.TopicPauses, 0, 0, func(r *bus.Record) error {
		p.apply(r)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.next = r.Offset + 1
		close(p.moved)
		p.moved = make(chan struct{})
		return nil
	})
}

func (p *pauses) apply(r *bus.Record) {
	var w word
	if err := json.Unmarshal(r.Value, &w); err != nil {
		p.logger.Error("an operator's pause that cannot be read was passed over", "offset", r.Offset)
		return
	}
	if id := string(r.Key); w.Resumed {
		p.stage.Resume(id, w.Operator)
	} else {
		p.stage.Pause(id, w.HandPause)
	}
}

// caughtUp returns when everything said before has taken effect here.
func (p *pauses) caughtUp(ctx context.Context) error {
	oldest, newest, err := p.log.Offsets(ctx, bus.TopicPauses)
	if err != nil || oldest[0] == newest[0] {
		return err
	}
	return p.wait(ctx, newest[0])
}

func (p *pauses) wait(ctx context.Context, next int64) error {
	for {
		p.mu.Lock()
		done, moved := p.next >= next, p.moved
		p.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// say tells every replica, and returns when it has taken effect in this one.
func (p *pauses) say(ctx context.Context, destination string, w word) error {
	w.Since = p.now().UTC()
	value, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("pause of %s: %w", destination, err)
	}
	r := &bus.Record{Topic: bus.TopicPauses, Key: []byte(destination), Value: value}
	if err := p.log.Append(ctx, r); err != nil {
		return err
	}
	return p.wait(ctx, r.Offset+1)
}
