package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"weiche/internal/app"
	"weiche/internal/config"
	"weiche/internal/submission"
)

func (e *env) submit() *cobra.Command {
	var portal, key, idempotencyKey, to string
	cmd := &cobra.Command{
		Use:   "submit FILE",
		Short: "Post a submission to the running router, as an example portal",
		Long: `Post a submission (the JSON a portal posts; - reads standard input) to the router
that runs on the data directory, or to --to. The portal is the example portal of
the submission's Land and service unless --portal names one; its key is read from
<data>/example-keys.json unless --key-file names a file.`,
		Example: "  router submit config/services/gewerbeanmeldung/examples/minimal.json",
		Args:    args(1, "a file with the submission, or -"),
		RunE: func(cmd *cobra.Command, a []string) error {
			var body []byte
			var err error
			if a[0] == "-" {
				body, err = io.ReadAll(e.in)
			} else {
				body, err = os.ReadFile(a[0])
			}
			if err != nil {
				return err
			}
			dir, err := e.dataDir()
			if err != nil {
				return err
			}
			if to != "" {
				if u, err := url.Parse(to); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
					return usageError{fmt.Errorf("--to: %q is not an address such as http://127.0.0.1:8080", to)}
				}
			} else {
				addresses, err := app.ReadAddresses(dir)
				if errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("%w on the data directory %s; name another with --data, or an address with --to", errNoRouter, dir)
				}
				if err != nil {
					return err
				}
				to = e.scheme() + "://" + addresses.Public
			}
			token, err := e.portalKey(dir, portal, key, body)
			if err != nil {
				return err
			}
			if idempotencyKey == "" {
				idempotencyKey = uuid.NewString()
			}
			req, err := http.NewRequestWithContext(cmd.Context(), "POST", strings.TrimSuffix(to, "/")+"/v1/submissions", bytes.NewReader(body))
			if err != nil {
				return err
			}
			req.Header.Set("Authorization", "Bearer "+token)
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Idempotency-Key", idempotencyKey)
			client := &http.Client{Timeout: 2 * time.Minute}
			res, err := client.Do(req)
			if errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("%w on %s; start it, or name another address with --to", errNoRouter, to)
			}
			if err != nil {
				return fmt.Errorf("the router does not answer: %w", err)
			}
			defer res.Body.Close()
			answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
			if err != nil {
				return err
			}
			var pretty bytes.Buffer
			if json.Indent(&pretty, answer, "", "  ") == nil {
				answer = pretty.Bytes()
			}
			if res.StatusCode != http.StatusAccepted {
				fmt.Fprintf(e.err, "%s\n%s\n", res.Status, bytes.TrimSpace(answer))
				return exit{1}
			}
			fmt.Fprintf(e.out, "%s\n", bytes.TrimSpace(answer))
			var receipt struct {
				SubmissionID string `json:"submissionId"`
			}
			if json.Unmarshal(answer, &receipt) == nil && receipt.SubmissionID != "" {
				fmt.Fprintln(e.err, "its story: router trace "+receipt.SubmissionID)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&portal, "portal", "", "portal to post as (default: the example portal of the submission's Land and service)")
	f.StringVar(&key, "key-file", "", "file with the portal's API key")
	f.StringVar(&idempotencyKey, "idempotency-key", "", "default: a new UUID")
	f.StringVar(&to, "to", "", "the router's public address, as http://127.0.0.1:8080")
	return cmd
}

// scheme is how the portals' door is spoken to.
func (e *env) scheme() string {
	if cfg, _ := config.Load(e.config, e.environ()); cfg != nil && cfg.Router.TLS != nil {
		return "https"
	}
	return "http"
}

// examplePortal is a portal of the Land that may send the service; one that is
// there for this service comes before one that may send everything.
func examplePortal(cfg *config.Config, keys map[string]string, land submission.Land, s submission.Service) string {
	found := ""
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		p := cfg.Portals[id]
		if p == nil || p.Home != land || !p.Sends(s) {
			continue
		}
		if found == "" || len(p.Services) > 0 {
			found = id
		}
	}
	return found
}

func (e *env) portalKey(dir, portal, file string, body []byte) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		return strings.TrimSpace(string(b)), err
	}
	keys, err := app.ExampleKeys(dir)
	if err != nil {
		return "", fmt.Errorf("no key: %s has no example keys (%w); name a file with --key-file", filepath.Clean(dir), err)
	}
	if portal == "" {
		var s submission.Envelope
		if err := json.Unmarshal(body, &s); err != nil {
			return "", fmt.Errorf("the submission is not JSON: %w", err)
		}
		region, err := submission.ParseRegion(s.Region)
		if err != nil {
			return "", fmt.Errorf("the portal cannot be found by the region (%w); name one with --portal", err)
		}
		service, err := submission.ParseService(s.PublicService.Identifier)
		if err != nil {
			return "", fmt.Errorf("the portal cannot be found by the service (%w); name one with --portal", err)
		}
		cfg, err := e.load(false)
		if err != nil {
			return "", err
		}
		portal = examplePortal(cfg, keys, region.Land(), service)
	}
	if keys[portal] == "" {
		return "", fmt.Errorf("there is no example key for portal %q; name one with --portal or a file with --key-file", portal)
	}
	return keys[portal], nil
}
