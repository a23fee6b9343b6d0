// Command router is Weiche: flags and signals, nothing else.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"weiche/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
