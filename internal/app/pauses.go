package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"weiche/internal/bus"
	"weiche/internal/delivery"
)

// pauses carries operators' pauses to every replica and over restarts. The
// newest word on each destination stands in a small compacted topic, and each
// replica follows it. It is safe for concurrent use.
type pauses struct {
	topic  *bus.Follower
	stage  *delivery.Stage
	now    func() time.Time
	logger *slog.Logger
}

// word is what an operator said about a destination.
type word struct {
	delivery.HandPause
	Resumed bool `json:"resumed,omitempty"`
}

func newPauses(log bus.Tailer, stage *delivery.Stage, now func() time.Time, logger *slog.Logger) *pauses {
	return &pauses{topic: bus.NewFollower(log, bus.TopicPauses), stage: stage, now: now, logger: logger}
}

// follow carries out what operators say, until ctx ends.
func (p *pauses) follow(ctx context.Context) error { return p.topic.Run(ctx, p.apply) }

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

// say tells every replica, and returns when it has taken effect in this one.
func (p *pauses) say(ctx context.Context, destination string, w word) error {
	w.Since = p.now().UTC()
	value, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("pause of %s: %w", destination, err)
	}
	return p.topic.Write(ctx, &bus.Record{Topic: bus.TopicPauses, Key: []byte(destination), Value: value})
}
