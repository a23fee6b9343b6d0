package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	webhook "weiche/internal/adapters/http"
)

func (e *env) webhookKeys() *cobra.Command {
	var add string
	cmd := &cobra.Command{
		Use:   "webhook-keys FILE [--add KIND]",
		Short: "What a receiver may know of a file with signing secrets",
		Long: `What a receiver may know of a file with signing secrets, the secret_file of an
http destination: of each ed25519 key (whsk_) its public key, which may be given
away openly. An HMAC secret (whsec_) is known to both ends and never shown.

With --add the file gets a new secret beside those in it, and is made where it is
missing. Messages are signed with all of them from then on. Give the new public
key to the receiver, then take the old line out.`,
		Example: `  router webhook-keys data/secrets/bauamt.secret
  router webhook-keys data/secrets/bauamt.secret --add ed25519`,
		Args: args(1, "FILE, a destination's secret_file"),
		RunE: func(_ *cobra.Command, file []string) error {
			switch add {
			case "":
			case "ed25519":
				if err := addLine(file[0], webhook.NewPrivateKey()); err != nil {
					return err
				}
			case "hmac":
				if err := addLine(file[0], webhook.NewSharedSecret()); err != nil {
					return err
				}
			default:
				return usageError{errors.New("--add: ed25519 or hmac is expected")}
			}
			keys, err := webhook.PublicKeys(file[0])
			if err != nil {
				return fmt.Errorf("%s: %w", file[0], err)
			}
			if e.printed(keys) {
				return nil
			}
			e.table("LINE\tKIND\tPUBLIC KEY", func(w io.Writer) {
				for _, k := range keys {
					kind, text := "ed25519", k.Text
					if text == "" {
						kind, text = "HMAC", "none; both ends know the secret"
					}
					fmt.Fprintf(w, "%d\t%s\t%s\n", k.Line, kind, text)
				}
			})
			return nil
		},
	}
	cmd.Flags().StringVar(&add, "add", "", "put a new secret of this kind into the file: ed25519 or hmac")
	return cmd
}

// addLine puts a line at a file's end. A router that reads meanwhile sees the old
// file or the new one.
func addLine(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(old, text+"\n"...))
	if info, serr := os.Stat(path); serr == nil && err == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
