package sftp_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"weiche/internal/adapters/adaptertest"
)

// sshd is OpenSSH's server on loopback, with host keys and one account of the
// test's own. It never runs as root, so that a directory's rights count.
type sshd struct {
	t        *testing.T
	dir      string // not below t.TempDir, where another user does not come
	inbox    string
	port     int
	user     string
	uid, gid int
	keys     []ssh.PublicKey // of the host: ed25519, ecdsa
	client   string          // PEM of the account's key
}

func startSSHD(t *testing.T, lines ...string) *sshd {
	t.Helper()
	return startSSHDWith(t, nil, lines...)
}

// startSSHDWith starts it with these words added to its environment.
func startSSHDWith(t *testing.T, env []string, lines ...string) *sshd {
	t.Helper()
	binary := adaptertest.Program(t, "sshd", "/usr/sbin/sshd")
	dir, err := os.MkdirTemp("", "weiche-sshd-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &sshd{t: t, dir: dir, inbox: filepath.Join(dir, "inbox"), port: freePort(t), uid: os.Getuid(), gid: os.Getgid()}
	u, err := user.Current()
	if s.uid == 0 {
		u, err = user.Lookup("nobody")
	}
	must(t, err)
	s.user = u.Username
	s.uid, err = strconv.Atoi(u.Uid)
	must(t, err)
	s.gid, err = strconv.Atoi(u.Gid)
	must(t, err)
	must(t, os.Mkdir(s.inbox, 0o755))
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nPidFile none\nStrictModes no\nUsePAM yes\nPasswordAuthentication no\nAuthorizedKeysFile %s/authorized\nLogLevel VERBOSE\n", s.port, dir)
	for i, k := range []crypto.Signer{newKey(t), newECKey(t)} {
		pub, private := encode(t, k, "")
		s.keys = append(s.keys, pub)
		name := filepath.Join(dir, fmt.Sprintf("host%d", i))
		must(t, os.WriteFile(name, []byte(private), 0o600))
		config += "HostKey " + name + "\n"
	}
	all := strings.Join(lines, "\n") + "\n"
	if !strings.Contains(all, "Subsystem") {
		all += "Subsystem sftp internal-sftp\n"
	}
	must(t, os.WriteFile(filepath.Join(dir, "config"), []byte(config+all), 0o600))
	key := newKey(t)
	_, s.client = encode(t, key, "")
	s.authorize(key.Public())
	must(t, filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(p, s.uid, s.gid)
	}))
	s.start(binary, env)
	return s
}

func (s *sshd) start(binary string, env []string) {
	t := s.t
	t.Helper()
	cmd := exec.Command(binary, "-D", "-e", "-f", filepath.Join(s.dir, "config"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.gid)} //nolint:gosec // of the system's own list
	}
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), env...)
	log, err := os.Create(filepath.Join(s.dir, "log"))
	must(t, err)
	cmd.Stderr = log
	must(t, cmd.Start())
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		_ = log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("sshd:\n%s", b)
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		select {
		case <-done:
			b, _ := os.ReadFile(log.Name())
			t.Fatalf("sshd ended: %s", b)
		default:
		}
		if c, err := net.Dial("tcp", addr(s.port)); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal("sshd does not listen after a minute")
		}
	}
}

// authorize lets this key in, and no other, from now on.
func (s *sshd) authorize(key crypto.PublicKey) {
	s.t.Helper()
	pub, err := ssh.NewPublicKey(key)
	must(s.t, err)
	replace(s.t, filepath.Join(s.dir, "authorized"), string(ssh.MarshalAuthorizedKey(pub)))
	must(s.t, os.Chmod(filepath.Join(s.dir, "authorized"), 0o644))
}

func (s *sshd) received() []adaptertest.Received {
	t := s.t
	t.Helper()
	var out []adaptertest.Received
	names, err := filepath.Glob(filepath.Join(s.inbox, "*.xml"))
	must(t, err)
	for _, name := range names {
		id := strings.TrimSuffix(filepath.Base(name), ".xml")
		r := adaptertest.Received{ID: id, Message: read(t, name), Beside: map[string]string{"name": filepath.Base(name)}}
		entries, err := os.ReadDir(filepath.Join(s.inbox, id))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			r.Attachments = append(r.Attachments, read(t, filepath.Join(s.inbox, id, e.Name())))
		}
		out = append(out, r)
		if _, err := os.Lstat(filepath.Join(s.inbox, ".weiche", id)); err == nil {
			t.Error("temporary files were left behind")
		}
	}
	return out
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return k
}

func newECKey(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func encode(t *testing.T, k crypto.Signer, passphrase string) (ssh.PublicKey, string) {
	t.Helper()
	pub, err := ssh.NewPublicKey(k.Public())
	must(t, err)
	block, err := ssh.MarshalPrivateKey(k, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(k, "", []byte(passphrase))
	}
	must(t, err)
	return pub, string(pem.EncodeToMemory(block))
}

// relay stands between client and server, counts what crosses, and cuts or stalls.
type relay struct {
	port    int
	up      atomic.Int64 // bytes from the client
	conns   atomic.Int64
	cutAt   atomic.Int64 // bytes of a connection from the client, 0 never
	stallAt atomic.Int64
	stalled chan struct{}
	mu      sync.Mutex
	open    []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &relay{port: l.Addr().(*net.TCPAddr).Port, stalled: make(chan struct{}, 100)}
	var running sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); r.cut(); running.Wait() })
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			r.conns.Add(1)
			r.mu.Lock()
			r.open = append(r.open, client, server)
			r.mu.Unlock()
			running.Go(func() { _, _ = io.Copy(client, server); _ = client.Close(); _ = server.Close() })
			running.Go(func() { r.pass(client, server); _ = client.Close(); _ = server.Close() })
		}
	})
	return r
}

func (r *relay) pass(client, server net.Conn) {
	buf := make([]byte, 16<<10)
	var n int64
	for {
		k, err := client.Read(buf)
		if err != nil {
			return
		}
		n += int64(k)
		if at := r.stallAt.Load(); at > 0 && n > at {
			r.stalled <- struct{}{}
			for { // takes nothing and passes nothing until the client gives up
				one := make([]byte, 1)
				time.Sleep(10 * time.Millisecond)
				if _, err := client.Read(one); err != nil {
					return
				}
			}
		}
		if at := r.cutAt.Load(); at > 0 && n > at {
			return
		}
		r.up.Add(int64(k))
		if _, err := server.Write(buf[:k]); err != nil {
			return
		}
	}
}

// cut ends all connections there are.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open {
		_ = c.Close()
	}
	r.open = nil
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return b
}

func replace(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.WriteFile(name+".new", []byte(content), 0o600))
	must(t, os.Rename(name+".new", name))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
