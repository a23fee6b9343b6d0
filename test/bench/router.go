package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"weiche/internal/app"
)

// router is the whole router, as `router serve` starts it.
func router(ctx context.Context, j job, ready func(addresses)) error {
	a, err := app.Start(ctx, app.Options{ConfigDir: j.Config, Data: j.Data, Listen: "127.0.0.1:0", Ops: "127.0.0.1:0",
		Environ: []string{"WEICHE_KAFKA_BROKERS=" + strings.Join(j.Brokers, ","), fmt.Sprintf("WEICHE_KAFKA_PARTITIONS=%d", j.Partitions)}, Log: os.Stderr, Unchecked: j.Unchecked})
	if err != nil {
		return err
	}
	defer a.Stop()
	keys, err := app.ExampleKeys(j.Data)
	if err != nil {
		return err
	}
	public, ops := a.Addresses()
	ready(addresses{Public: "http://" + public, Ops: "http://" + ops, Key: keys[portal]})
	select {
	case <-ctx.Done():
		return nil
	case err := <-a.Failed():
		return err
	}
}
