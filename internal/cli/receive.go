package cli

import (
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"weiche/internal/app"
	"weiche/internal/receiver"
	"weiche/internal/transform/standard"
)

func (e *env) receive() *cobra.Command {
	var listen, dir, secret, answer string
	var delay, tolerance time.Duration
	var hang, once bool
	cmd := &cobra.Command{
		Use:   "receive --listen ADDRESS",
		Short: "A reference Fachverfahren: check, store and print what the http adapter delivers",
		Long: `A reference Fachverfahren for integrators. It checks the Standard Webhooks
signature, validates against the installed standards, drops duplicates by
delivery id, stores XML and attachments, and prints one line for each message.
It can be told to answer with errors, slowly, or not at all.

The secret file is made where it is missing; the destination's secret_file has to
name the same secret. Or it holds the public keys that ` + "`router webhook-keys`" + `
shows for the destination's.`,
		Example: `  router receive --listen 127.0.0.1:8090 --secret-file data/secrets/receiver.key
  router receive --listen 127.0.0.1:8090 --answer 503x3,204`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answers, err := receiver.ParseAnswers(answer)
			if err != nil {
				return usageError{err}
			}
			data, err := e.dataDir()
			if err != nil {
				return err
			}
			if secret == "" {
				secret = filepath.Join(data, "secrets", "receiver.key")
			}
			if dir == "" {
				dir = filepath.Join(data, "received")
			}
			std, problems := standard.Open(filepath.Join(e.config, "standards"), app.StandardsDir(data))
			if err := problems.Err(); err != nil {
				return err
			}
			return receiver.Run(cmd.Context(), receiver.Options{
				Listen: listen, Dir: dir, SecretFile: secret, Standards: std, Answers: answers,
				Delay: delay, Hang: hang, Once: once, Tolerance: tolerance, Out: e.out,
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:8090", "address, port 0 for any")
	f.StringVar(&dir, "dir", "", "where messages are stored (default: <data>/received)")
	f.StringVar(&secret, "secret-file", "", "signing secrets or public keys, one a line; made where it is missing (default: <data>/secrets/receiver.key)")
	f.StringVar(&answer, "answer", "", "status codes in turn, as 503x3,204 (default: 204 always)")
	f.DurationVar(&delay, "delay", 0, "time between storing and answering")
	f.BoolVar(&hang, "hang", false, "take requests and never answer")
	f.BoolVar(&once, "once", false, "end after the first new message")
	f.DurationVar(&tolerance, "tolerance", receiver.DefaultTolerance, "how old a signature may be")
	return cmd
}
