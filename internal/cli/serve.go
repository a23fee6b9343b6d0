package cli

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"weiche/internal/app"
)

func (e *env) serve() *cobra.Command {
	var listen, ops string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the router",
		Long: `Run the router: the portals' door, dispatch, delivery and the operators' API.

Without kafka.brokers in router.yaml (or WEICHE_KAFKA_BROKERS) it starts a
Kafka-protocol broker inside the process: for trying out, developing and small
tests. SIGTERM stops taking new submissions, drains what is in hand within
'drain', and ends. SIGHUP reads the configuration again.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			a, err := app.Start(cmd.Context(), app.Options{
				ConfigDir: e.config, Environ: e.environ("WEICHE_LISTEN", listen, "WEICHE_OPS", ops), Log: e.err, Out: e.out,
			})
			if err != nil {
				return fmt.Errorf("not started: %w", err)
			}
			for {
				select {
				case <-hup:
					_ = a.Reload() // it logs what is wrong
				case <-cmd.Context().Done():
					a.Stop()
					return nil
				case err := <-a.Failed():
					a.Stop()
					return err
				}
			}
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "public address, port 0 for any (default: router.yaml, WEICHE_LISTEN)")
	cmd.Flags().StringVar(&ops, "ops", "", "operators' address, port 0 for any (default: router.yaml, WEICHE_OPS)")
	return cmd
}
