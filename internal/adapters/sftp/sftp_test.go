package sftp_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/sftp"
	"weiche/internal/adapters/spec"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

const passphrase = "Geheimnis-4711 mit Leerzeichen"

// settings are written as YAML, one line each; a later line replaces an earlier.
type settings map[string]string

func (s settings) with(pairs ...string) settings {
	out := settings{}
	for k, v := range s {
		out[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		if out[pairs[i]] = pairs[i+1]; pairs[i+1] == "" {
			delete(out, pairs[i])
		}
	}
	return out
}

func (s settings) String() string {
	var b strings.Builder
	for k, v := range s {
		fmt.Fprintf(&b, "%s: %s\n", k, v)
	}
	return b.String()
}

func open(t *testing.T, deps spec.Deps, s settings) spec.Adapter {
	t.Helper()
	return adaptertest.Open(t, sftp.Kind(), deps, s.String())
}

// base are settings that work, with the account's key in the secrets' directory.
func (s *sshd) base(deps spec.Deps) settings {
	s.t.Helper()
	replace(s.t, filepath.Join(deps.WithDefaults().SecretsDir, "key"), s.client)
	return settings{
		"host": "127.0.0.1", "port": fmt.Sprint(s.port), "user": s.user, "directory": s.inbox, "key_file": "key",
		"host_keys": fmt.Sprintf("[%q]", ssh.FingerprintSHA256(s.keys[0])), "allow_networks": "[loopback]",
	}
}

func newDeps(t *testing.T) spec.Deps { t.Helper(); return spec.Deps{DataDir: t.TempDir()} }

func TestConformance(t *testing.T) {
	adaptertest.Suite{
		Without: map[adaptertest.Condition]string{adaptertest.RefusesForGood: "a directory judges no message"},
		Open: func(t *testing.T, c adaptertest.Condition, deps spec.Deps) adaptertest.Door {
			var lines []string
			if c == adaptertest.RefusesForNow {
				lines = append(lines, "MaxStartups 1:100:1")
			}
			x := startSSHD(t, lines...)
			set := x.base(deps)
			door := adaptertest.Door{Received: x.received, Secrets: []string{passphrase, "PRIVATE KEY"}}
			large := func() *submission.Delivery { return adaptertest.NewDelivery(make([]byte, 4<<20)) }
			switch c {
			case adaptertest.RefusesForNow:
				takePlace(t, addr(x.port))
			case adaptertest.AtFault:
				x.authorize(newKey(t).Public())
			case adaptertest.Slow:
				r := newRelay(t, addr(x.port))
				r.stallAt.Store(200_000)
				set = set.with("port", fmt.Sprint(r.port))
				door.Begun, door.Delivery = r.stalled, large
			case adaptertest.CutsOff:
				r := newRelay(t, addr(x.port))
				r.cutAt.Store(200_000)
				set, door.Delivery = set.with("port", fmt.Sprint(r.port)), large
			case adaptertest.RotatesSecret:
				set = set.with("passphrase_file", "passphrase")
				rotate := func() {
					key := newKey(t)
					word := fmt.Sprint(passphrase, time.Now().UnixNano())
					_, private := encode(t, key, word)
					replace(t, filepath.Join(deps.SecretsDir, "key"), private)
					replace(t, filepath.Join(deps.SecretsDir, "passphrase"), word+"\n")
					x.authorize(key.Public())
				}
				rotate()
				door.Rotate = rotate
			case adaptertest.Idle:
				set = set.with("idle_timeout", "200ms")
			}
			door.Adapter = open(t, deps, set)
			return door
		},
	}.Run(t)
}

// takePlace is somebody else who has the only place. Whoever asked whether sshd
// listens may still have it for a moment.
func takePlace(t *testing.T, addr string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		if said, _ := bufio.NewReader(conn).ReadString('-'); said == "SSH-" { // else: Exceeded MaxStartups
			return
		}
	}
	t.Fatal("the place is not free within a minute")
}

// A transfer that was cut goes on where it stopped, and what lies there is
// believed as far as it is the same.
func TestResume(t *testing.T) {
	const size = 8 << 20
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	for i, c := range []struct {
		name  string
		spoil func(t *testing.T, partial string)
		most  int64 // bytes that may cross again
	}{
		{"as it was left", func(*testing.T, string) {}, size/2 + 1<<20},
		{"forged from the third block on", func(t *testing.T, p string) {
			f, err := os.OpenFile(p, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt([]byte("forged"), 2<<20+5)
			must(t, err)
			must(t, f.Close())
		}, size*3/4 + 1<<20},
		{"too long", func(t *testing.T, p string) { must(t, os.WriteFile(p, make([]byte, size+5000), 0o644)) }, size + 1<<20},
		{"a hole", func(t *testing.T, p string) { must(t, os.Truncate(p, 0)); must(t, os.Truncate(p, size)) }, size + 1<<20},
		{"others' files beside it", func(t *testing.T, p string) {
			must(t, os.WriteFile(filepath.Join(filepath.Dir(p), "09-stale.pdf"), []byte("stale"), 0o644))
		}, size/2 + 1<<20},
		{"a folder", func(t *testing.T, p string) {
			must(t, os.Remove(p))
			must(t, os.Mkdir(p, 0o777))
			must(t, os.Chmod(p, 0o777))
		}, size + 1<<20},
		{"unreadable", func(t *testing.T, p string) { must(t, os.Chmod(p, 0o200)) }, size + 1<<20},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && i > 1 {
				t.Skip("the first two stand for the others")
			}
			x, deps := startSSHD(t), newDeps(t)
			r := newRelay(t, addr(x.port))
			a := open(t, deps, x.base(deps).with("port", fmt.Sprint(r.port)))
			d := adaptertest.NewDelivery(content)
			r.cutAt.Store(size*3/4 + 1<<19)
			mustFault(t, a.Deliver(t.Context(), d), fault.Retryable, fault.ReasonInterrupted)
			if got := x.received(); len(got) != 0 {
				t.Fatal("half a message came out")
			}
			partials, _ := filepath.Glob(filepath.Join(x.inbox, ".weiche", d.ID, "attachments", "01-*"))
			if len(partials) != 1 {
				t.Fatalf("%d partial files", len(partials))
			}
			// The server may still write what had crossed.
			waitSettled(t, partials[0])
			c.spoil(t, partials[0])
			r.cutAt.Store(0)
			before := r.up.Load()
			must(t, a.Deliver(t.Context(), d))
			sent := r.up.Load() - before
			t.Logf("%d of %d bytes crossed again", sent, size)
			if sent > c.most {
				t.Errorf("%d bytes crossed again, at most %d were expected", sent, c.most)
			}
			got := x.received()
			if len(got) != 1 || len(got[0].Attachments) != 1 || !bytes.Equal(got[0].Attachments[0], content) {
				t.Error("what came out is not what went in")
			}
		})
	}
}

func waitSettled(t *testing.T, name string) {
	t.Helper()
	last := int64(-1)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		info, err := os.Stat(name)
		must(t, err)
		if info.Size() == last {
			return
		}
		last = info.Size()
	}
	t.Fatal("the partial file grows and grows")
}

// A link in the partial file's place must not lead the bytes elsewhere.
func TestLinkIsNotFollowed(t *testing.T) {
	x, deps := startSSHD(t), newDeps(t)
	d := adaptertest.NewDelivery([]byte("Anlage"))
	work := filepath.Join(x.inbox, ".weiche", d.ID)
	must(t, os.MkdirAll(work, 0o755))
	victim := filepath.Join(x.dir, "victim")
	must(t, os.WriteFile(victim, []byte("mine"), 0o666))
	must(t, os.Symlink(victim, filepath.Join(work, "message.xml")))
	for _, p := range []string{filepath.Dir(work), work, victim} {
		must(t, os.Chown(p, x.uid, x.gid))
	}
	must(t, open(t, deps, x.base(deps)).Deliver(t.Context(), d))
	if string(read(t, victim)) != "mine" {
		t.Error("a file outside was written to")
	}
	if got := x.received(); len(got) != 1 || !bytes.Equal(got[0].Message, d.Message) {
		t.Error("the message did not come out")
	}
}

// What lies under the delivery's names and is not it gives way.
func TestForeignFilesGiveWay(t *testing.T) {
	x, deps := startSSHD(t), newDeps(t)
	d := adaptertest.NewDelivery([]byte("eins"), []byte("zwei"))
	folder := filepath.Join(x.inbox, d.ID)
	must(t, os.Mkdir(folder, 0o755))
	must(t, os.WriteFile(filepath.Join(folder, "01-other"), []byte("x"), 0o644))
	must(t, os.WriteFile(folder+".xml", []byte("<other/>"), 0o644))
	must(t, os.Chown(folder, x.uid, x.gid))
	must(t, open(t, deps, x.base(deps)).Deliver(t.Context(), d))
	got := x.received()
	if len(got) != 1 || !bytes.Equal(got[0].Message, d.Message) || len(got[0].Attachments) != 2 || string(got[0].Attachments[1]) != "zwei" {
		t.Error("what came out is not what went in")
	}
}

func TestFaults(t *testing.T) {
	x, deps := startSSHD(t), newDeps(t)
	base := x.base(deps)
	noSFTP := startSSHD(t, "Subsystem other /bin/true")
	full := startSSHD(t, "MaxSessions 0")
	old := startSSHD(t, "Ciphers aes128-cbc")
	closed := freePort(t)
	silent := raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	babble := raw(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 mail\r\n") })
	secrets := deps.WithDefaults().SecretsDir
	_, locked := encode(t, newKey(t), passphrase)
	replace(t, filepath.Join(secrets, "locked"), locked)
	replace(t, filepath.Join(secrets, "wrong"), "falsch")
	replace(t, filepath.Join(secrets, "empty"), "")
	ro := filepath.Join(x.dir, "readonly")
	must(t, os.Mkdir(ro, 0o755))
	must(t, os.Chown(ro, x.uid, x.gid))
	must(t, os.Chmod(ro, 0o555))
	known := func(name string, k ssh.PublicKey, marker string) string {
		replace(t, filepath.Join(secrets, name), marker+knownhosts.Line([]string{knownhosts.HashHostname(knownhosts.Normalize(addr(x.port)))}, k)+"\n")
		return name
	}
	pinned := func(k ssh.PublicKey) string {
		return fmt.Sprintf("[%q]", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))))
	}
	other, _ := encode(t, newKey(t), "")
	at := func(s settings, port int) settings { return s.with("port", fmt.Sprint(port)) }
	for _, c := range []struct {
		name     string
		settings settings
		class    fault.Class
		reason   fault.Reason // "": delivered
	}{
		{"fingerprint", base, 0, ""},
		{"fingerprint of the second kind of key", base.with("host_keys", fmt.Sprintf("[%q]", ssh.FingerprintSHA256(x.keys[1]))), 0, ""},
		{"whole key of the second kind", base.with("host_keys", pinned(x.keys[1])), 0, ""},
		{"a key that is being replaced", base.with("host_keys", fmt.Sprintf("[%q, %q]", ssh.FingerprintSHA256(other), ssh.FingerprintSHA256(x.keys[0]))), 0, ""},
		{"known hosts, hashed", base.with("host_keys", "", "known_hosts_file", known("good", x.keys[1], "")), 0, ""},
		{"known hosts, another key", base.with("host_keys", "", "known_hosts_file", known("bad", other, "")), fault.Destination, fault.ReasonCertificate},
		{"known hosts, malformed", base.with("host_keys", "", "known_hosts_file", "wrong"), fault.Destination, fault.ReasonMisconfigured},
		{"known hosts, missing", base.with("host_keys", "", "known_hosts_file", "nowhere"), fault.Destination, fault.ReasonMisconfigured},
		{"another host key", base.with("host_keys", pinned(other)), fault.Destination, fault.ReasonCertificate},
		{"another fingerprint", base.with("host_keys", fmt.Sprintf("[%q]", ssh.FingerprintSHA256(other))), fault.Destination, fault.ReasonCertificate},
		{"no algorithm in common", at(base, old.port).with("host_keys", pinned(old.keys[0])), fault.Destination, fault.ReasonMisconfigured},
		{"key not known to the server", base.with("key_file", "locked", "passphrase_file", "pass"), fault.Destination, fault.ReasonUnauthorized},
		{"another user", base.with("user", "niemand"), fault.Destination, fault.ReasonUnauthorized},
		{"key needs a passphrase", base.with("key_file", "locked"), fault.Destination, fault.ReasonMisconfigured},
		{"wrong passphrase", base.with("key_file", "locked", "passphrase_file", "wrong"), fault.Destination, fault.ReasonMisconfigured},
		{"key missing", base.with("key_file", "nowhere"), fault.Destination, fault.ReasonMisconfigured},
		{"key empty", base.with("key_file", "empty"), fault.Destination, fault.ReasonMisconfigured},
		{"no password login", base.with("key_file", "", "password_file", "wrong"), fault.Destination, fault.ReasonUnauthorized},
		{"no such directory", base.with("directory", "/nowhere/at/all"), fault.Destination, fault.ReasonStorage},
		{"a file for a directory", base.with("directory", filepath.Join(x.dir, "config")), fault.Destination, fault.ReasonStorage},
		{"no permission", base.with("directory", ro), fault.Destination, fault.ReasonStorage},
		{"not allowed network", base.with("allow_networks", ""), fault.Destination, fault.ReasonMisconfigured},
		{"connection refused", at(base, closed), fault.Destination, fault.ReasonUnreachable},
		{"no such host", base.with("host", "nowhere.invalid"), fault.Destination, fault.ReasonUnreachable},
		{"silent", at(base, silent).with("connect_timeout", "200ms"), fault.Retryable, fault.ReasonTimeout},
		{"no SSH", at(base, babble), fault.Retryable, fault.ReasonInterrupted},
		{"no SFTP", at(noSFTP.base(newDeps(t)), noSFTP.port).with("key_file", keyOf(t, secrets, noSFTP)), fault.Destination, fault.ReasonMisconfigured},
		{"no session", at(full.base(newDeps(t)), full.port).with("key_file", keyOf(t, secrets, full)), fault.Retryable, fault.ReasonUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			replace(t, filepath.Join(secrets, "pass"), passphrase+"\n")
			before := len(x.received())
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := open(t, deps, c.settings).Deliver(ctx, adaptertest.NewDelivery([]byte("Anlage")))
			if c.reason == "" {
				must(t, err)
				return
			}
			mustFault(t, err, c.class, c.reason)
			if len(x.received()) != before {
				t.Error("a message came through all the same")
			}
		})
	}
	// A revoked key is refused even where it is known.
	line := string(read(t, filepath.Join(secrets, known("revoked", x.keys[0], ""))))
	replace(t, filepath.Join(secrets, "revoked"), line+knownhosts.Line([]string{"x"}, x.keys[1])+"\n@revoked "+line)
	err := open(t, deps, base.with("host_keys", "", "known_hosts_file", "revoked")).Deliver(t.Context(), adaptertest.NewDelivery())
	mustFault(t, err, fault.Destination, fault.ReasonCertificate)
}

func keyOf(t *testing.T, secrets string, x *sshd) string {
	t.Helper()
	name := fmt.Sprintf("key-%d", x.port)
	replace(t, filepath.Join(secrets, name), x.client)
	return name
}

// The protocol does not say why a file cannot be written: a trial tells whether
// it is this message's size or the destination's state.
func TestDiskFull(t *testing.T) {
	x, deps := startSSHD(t), newDeps(t)
	if err := syscall.Mount("tmpfs", x.inbox, "tmpfs", 0, fmt.Sprintf("size=2m,uid=%d", x.uid)); err != nil {
		adaptertest.Missing(t, "a file system of two megabytes cannot be mounted: root is needed")
	}
	t.Cleanup(func() { _ = syscall.Unmount(x.inbox, syscall.MNT_DETACH) })
	a := open(t, deps, x.base(deps))
	mustFault(t, a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 5<<20))), fault.Retryable, fault.ReasonStorage)
	must(t, a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 1<<20)))) // others are not held up
	_ = os.WriteFile(filepath.Join(x.inbox, "filler"), make([]byte, 3<<20), 0o644)
	mustFault(t, a.Deliver(t.Context(), adaptertest.NewDelivery()), fault.Destination, fault.ReasonStorage)
	must(t, os.Remove(filepath.Join(x.inbox, "filler")))
	must(t, a.Deliver(t.Context(), adaptertest.NewDelivery()))
	if left, _ := os.ReadDir(filepath.Join(x.inbox, ".weiche")); len(left) != 0 {
		t.Errorf("%d left-overs", len(left))
	}
}

// Connections are used again, bounded in number, and replaced when they broke.
func TestConnections(t *testing.T) {
	x, deps := startSSHD(t), newDeps(t)
	r := newRelay(t, addr(x.port))
	a := open(t, deps, x.base(deps).with("port", fmt.Sprint(r.port), "connections", "2"))
	for range 5 {
		must(t, a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a"))))
	}
	if n := r.conns.Load(); n != 1 {
		t.Errorf("%d connections for five deliveries one after the other", n)
	}
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if err := a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a"))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := r.conns.Load(); n > 2 {
		t.Errorf("%d connections, two are allowed", n)
	}
	r.cut()
	must(t, a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a")))) // costs no attempt
	if n := len(x.received()); n != 18 {
		t.Errorf("%d messages came out, 18 went in", n)
	}
}

// A connection gone dead is given up long before the attempt's deadline.
func TestDeadConnection(t *testing.T) {
	x, deps := startSSHD(t), newDeps(t)
	r := newRelay(t, addr(x.port))
	r.stallAt.Store(300_000)
	a := open(t, deps, x.base(deps).with("port", fmt.Sprint(r.port), "keepalive", "200ms"))
	mustFault(t, a.Deliver(t.Context(), adaptertest.NewDelivery(make([]byte, 4<<20))), fault.Retryable, fault.ReasonTimeout)
}

// Left-overs of deliveries that nobody tried again go after eight days; what is
// younger, or not the router's, stays.
func TestSweep(t *testing.T) {
	x, deps := startSSHD(t), newDeps(t)
	work := filepath.Join(x.inbox, ".weiche")
	make_ := func(name string, age time.Duration) string {
		p := filepath.Join(work, name)
		must(t, os.MkdirAll(filepath.Join(p, "attachments"), 0o755))
		must(t, os.WriteFile(filepath.Join(p, "attachments", "01-a"), []byte("a"), 0o644))
		must(t, filepath.Walk(work, func(p string, _ os.FileInfo, _ error) error { return os.Chown(p, x.uid, x.gid) }))
		must(t, os.Chtimes(p, time.Time{}, time.Now().Add(-age)))
		return p
	}
	const day = 24 * time.Hour
	old := make_(adaptertest.NewDelivery().ID, 9*day)
	young := make_(adaptertest.NewDelivery().ID, 7*day)
	foreign := make_("somebody's", 99*day)
	must(t, open(t, deps, x.base(deps)).Deliver(t.Context(), adaptertest.NewDelivery()))
	for p, want := range map[string]bool{old: false, young: true, foreign: true} {
		if _, err := os.Stat(p); (err == nil) != want {
			t.Errorf("%s: there %v, expected %v", filepath.Base(p), err == nil, want)
		}
	}
}

func TestSettings(t *testing.T) {
	good := settings{"host": "h", "user": "u", "directory": "d", "key_file": "k", "host_keys": `["SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8"]`}
	for _, c := range []struct {
		settings settings
		want     string // "": nothing is wrong
	}{
		{good, ""},
		{good.with("host_keys", "", "known_hosts_file", "f"), ""},
		{good.with("host_keys", ""), "either host_keys or known_hosts_file"},
		{good.with("known_hosts_file", "f"), "either host_keys or known_hosts_file"},
		{good.with("host_keys", "[MD5:aa]"), "neither a fingerprint"},
		{good.with("key_file", ""), "key_file or password_file"},
		{good.with("key_file", "", "password_file", "p", "passphrase_file", "p"), "no key_file"},
		{good.with("port", "70000"), "a port"},
		{good.with("connections", "0"), "1 to 100"},
		{good.with("connect_timeout", "0s"), "silent server"},
		{good.with("allow_networks", "[home]"), "home"},
	} {
		s, err := config.ParseSettings("destinations.yaml", c.settings.String())
		must(t, err)
		_, ps := sftp.Kind().Decode(s)
		if got := fmt.Sprint(ps.Err()); c.want == "" && ps.Failed() || !strings.Contains(got, c.want) {
			t.Errorf("%s: it says %s", c.settings, got)
		}
	}
}

func mustFault(t *testing.T, err error, class fault.Class, reason fault.Reason) {
	t.Helper()
	f := fault.Of(err)
	if f == nil {
		t.Fatalf("no error, %s (%s) was expected", class, reason)
	}
	if f.Class != class || f.Reason != reason {
		t.Errorf("it is %s (%v, %v), %s (%s) was expected", f.Class, f, f.Err, class, reason)
	}
}

// raw is a server that does as it likes.
func raw(t *testing.T, serve func(net.Conn)) (port int) {
	t.Helper()
	return adaptertest.Serve(t, serve).Port
}
