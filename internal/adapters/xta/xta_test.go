package xta_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/xta"
	"weiche/internal/fault"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

const settings = `management_url: %sManagementPort
send_url: %sSendXtaPort
ca_file: %s
cert_file: cert.pem
key_file: key.pem
author: weiche:08000000
service: urn:de:dienst:{standard}
business_scenario: XBAU_DATA
message_type_list: urn:de:{standard}:nachrichten
message_type_list_version: "{version}"
payload_schema: urn:de:{standard}:{version}:{message}
allow_networks: [loopback]
report_interval: 10ms
`

func open(t *testing.T, deps spec.Deps, url, ca, more string) spec.Adapter {
	t.Helper()
	return adaptertest.Open(t, xta.Kind(), deps, fmt.Sprintf(settings, url, url, ca)+more)
}

// identify puts a client certificate where the settings look for it.
func identify(t *testing.T, dir string, c kafkatest.Certificate) {
	t.Helper()
	for name, file := range map[string]string{"cert.pem": c.CertFile, "key.pem": c.KeyFile} {
		b, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".new"), b, 0o600)
		}
		if err == nil {
			err = os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// at opens an adapter for the peer, with a certificate of its own.
func (p *peer) at(t *testing.T, deps spec.Deps, more string) spec.Adapter {
	t.Helper()
	if deps.DataDir == "" {
		deps.DataDir = t.TempDir()
	}
	if deps.SecretsDir == "" {
		deps.SecretsDir = deps.DataDir
	}
	identify(t, deps.SecretsDir, p.ca.Issue("weiche", time.Now().Add(time.Hour)))
	return open(t, deps, p.url, p.ca.File, more)
}

func TestSuite(t *testing.T) {
	adaptertest.Suite{
		Repeats: true,
		Open: func(t *testing.T, c adaptertest.Condition, deps spec.Deps) adaptertest.Door {
			p := openPeer(t)
			more := ""
			if c == adaptertest.Idle {
				more = "idle_timeout: 200ms\n"
			}
			door := adaptertest.Door{Adapter: p.at(t, deps, more)}
			door.Received = func() []adaptertest.Received {
				var out []adaptertest.Received
				for _, m := range p.messages(t) {
					out = append(out, m.received)
				}
				return out
			}
			key, err := os.ReadFile(filepath.Join(deps.SecretsDir, "key.pem"))
			if err != nil {
				t.Fatal(err)
			}
			door.Secrets = []string{strings.Split(string(key), "\n")[1]}
			switch c {
			case adaptertest.RefusesForGood:
				p.set(t, "sendMessage", "fault:MessageSchemaViolationException:9050")
			case adaptertest.RefusesForNow:
				p.set(t, "sendMessage", "fault:XTAWSTechnicalProblemException:9030")
			case adaptertest.AtFault:
				p.set(t, "createMessageId", "fault:PermissionDeniedException:9011")
			case adaptertest.CutsOff:
				p.set(t, "SendXtaPort", "cut")
			case adaptertest.Slow:
				p.set(t, "sendMessage", "slow")
				t.Cleanup(func() { p.set(t, "sendMessage", "") })
				begun := make(chan struct{})
				ctx, cancel := context.WithCancel(context.Background())
				t.Cleanup(cancel)
				go func() {
					for ctx.Err() == nil && p.calls(t)["sendMessage"] == 0 {
						time.Sleep(20 * time.Millisecond)
					}
					close(begun)
				}()
				door.Begun = begun
			case adaptertest.RotatesSecret:
				door.Rotate = func() {
					c := p.ca.Issue("weiche", time.Now().Add(time.Hour))
					identify(t, deps.SecretsDir, c)
					p.set(t, "serial", serial(t, c))
				}
			}
			return door
		},
	}.Run(t)
}

func serial(t *testing.T, c kafkatest.Certificate) string {
	t.Helper()
	return fmt.Sprintf("%x", c.Pair(t).Leaf.SerialNumber)
}

// step delivers once, with a token; it returns what came of it.
func step(t *testing.T, a spec.Adapter, d *submission.Delivery, token string) (*submission.Pending, *fault.Error) {
	t.Helper()
	again := *d
	again.Token = token
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := a.Deliver(ctx, &again)
	if p, ok := errors.AsType[*submission.Pending](err); ok {
		return p, nil
	}
	return nil, fault.Of(err)
}

// begin gets a message id for d.
func begin(t *testing.T, a spec.Adapter, d *submission.Delivery) string {
	t.Helper()
	p, f := step(t, a, d, "")
	if f != nil || p == nil || p.After != 0 {
		t.Fatalf("at the first step %v, %v; a token was expected, to go on at once", p, f)
	}
	return p.Token
}
