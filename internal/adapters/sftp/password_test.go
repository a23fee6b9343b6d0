package sftp_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	psftp "github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/fault"
)

// OpenSSH checks passwords as root only, so here another server does: by the
// password method, or by a question as PAM asks it.
func TestPassword(t *testing.T) {
	for _, asks := range []bool{false, true} {
		t.Run(fmt.Sprintf("asked %v", asks), func(t *testing.T) {
			deps, dir := newDeps(t), t.TempDir()
			var password atomic.Value
			password.Store(passphrase)
			port, host := passwordServer(t, &password, asks)
			file := filepath.Join(deps.WithDefaults().SecretsDir, "password")
			replace(t, file, passphrase+"\n")
			a := open(t, deps, settings{
				"host": "127.0.0.1", "port": fmt.Sprint(port), "user": "weiche", "directory": dir, "password_file": "password",
				"host_keys": fmt.Sprintf("[%q]", ssh.FingerprintSHA256(host)), "allow_networks": "[loopback]",
			})
			must(t, a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a"))))
			password.Store("another")
			// The connection that stands was let in; a new one is not.
			must(t, a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a"))))
			replace(t, file, "falsch")
			err := a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a")))
			mustFault(t, err, fault.Destination, fault.ReasonUnauthorized)
			if strings.Contains(err.Error(), "another") || strings.Contains(err.Error(), passphrase) {
				t.Errorf("a password stands in %v", err)
			}
			replace(t, file, "another")
			must(t, a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a"))))
			if got, _ := filepath.Glob(filepath.Join(dir, "*.xml")); len(got) != 3 {
				t.Errorf("%d messages came out, three went in well", len(got))
			}
			if left, _ := os.ReadDir(filepath.Join(dir, ".weiche")); len(left) != 0 {
				t.Errorf("%d left-overs", len(left))
			}
		})
	}
}

// passwordServer lets one account in, by password or by a question.
func passwordServer(t *testing.T, password *atomic.Value, asks bool) (port int, host ssh.PublicKey) {
	t.Helper()
	signer, err := ssh.NewSignerFromSigner(newKey(t))
	must(t, err)
	refused := errors.New("Kein Einlass")
	conf := &ssh.ServerConfig{}
	if asks {
		conf.KeyboardInteractiveCallback = func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			said, err := ask("", "", []string{"Password: "}, []bool{false})
			if err != nil || len(said) != 1 || said[0] != password.Load() {
				return nil, refused
			}
			_, err = ask("", "", nil, nil)
			return nil, err
		}
	} else {
		conf.PasswordCallback = func(_ ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
			if string(p) != password.Load() {
				return nil, refused
			}
			return nil, nil
		}
	}
	conf.AddHostKey(signer)
	return raw(t, func(c net.Conn) { serveSFTP(c, conf) }), signer.PublicKey()
}

func serveSFTP(c net.Conn, conf *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(c, conf)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, reqs, err := n.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range reqs {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		s, err := psftp.NewServer(ch)
		if err != nil {
			return
		}
		if err := s.Serve(); err != nil && !errors.Is(err, io.EOF) {
			return
		}
		_ = ch.Close()
	}
}
