package smtp_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/kafkatest"
)

// exim is a mail server of its own (Exim, of Debian) on loopback: STARTTLS on
// one port, TLS from the first byte on another, and a maildir for bauamt.test.
// What it answers at each step is steered by files, see answer.
type exim struct {
	t              *testing.T
	dir            string
	port, implicit int
	ca             *kafkatest.Authority
}

// The steps of which each has an access list that answers what its file says.
var steps = []string{"connect", "helo", "starttls", "mail", "rcpt", "predata", "data"}

const eximPassword = "Geheimnis-4711 mit Leerzeichen"

type eximOption func(*eximSettings)

type eximSettings struct {
	cert  func(*kafkatest.Authority) kafkatest.Certificate
	lines string
	scram bool
}

// certificate replaces the server's own.
func certificate(make func(*kafkatest.Authority) kafkatest.Certificate) eximOption {
	return func(s *eximSettings) { s.cert = make }
}

// setting adds a line to Exim's main settings.
func setting(line string) eximOption {
	return func(s *eximSettings) { s.lines += line + "\n" }
}

// scram lets the server offer SCRAM too, by Cyrus SASL with a password database.
func scram(s *eximSettings) { s.scram = true }

func startExim(t *testing.T, options ...eximOption) *exim {
	t.Helper()
	binary := adaptertest.Program(t, "exim4", "/usr/sbin/exim4", "exim", "/usr/sbin/exim")
	s := eximSettings{cert: func(a *kafkatest.Authority) kafkatest.Certificate {
		return a.Issue("mail.test", time.Now().Add(24*time.Hour))
	}}
	for _, o := range options {
		o(&s)
	}
	// Not below t.TempDir, where another user does not come.
	dir, err := os.MkdirTemp("", "weiche-exim-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	x := &exim{t: t, dir: dir, port: freePort(t), implicit: freePort(t), ca: kafkatest.NewAuthority(t)}
	cert := s.cert(x.ca)
	for from, to := range map[string]string{binary: "exim", cert.CertFile: "cert.pem", cert.KeyFile: "key.pem"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		x.write(to, string(b))
	}
	// A copy has no set-uid bit: the server runs as whom it is started.
	must(t, os.Chmod(filepath.Join(dir, "exim"), 0o755))
	for _, step := range append([]string{"password", "token"}, steps...) {
		x.write(step, "")
	}
	x.password(eximPassword)
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = mailUser(t)
	}
	conf := x.config(uid, gid) + s.lines + x.rest()
	if s.scram {
		conf += x.scram(binary)
	}
	x.write("conf", conf)
	must(t, os.Mkdir(filepath.Join(dir, "box"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "spool"), 0o700))
	must(t, filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(p, uid, gid)
	}))
	x.start(uid, gid)
	return x
}

const scramAuthenticators = `SCRAM256:
  driver = cyrus_sasl
  public_name = SCRAM-SHA-256
  server_hostname = mail.test
  server_realm = mail.test
  server_set_id = $auth1
SCRAM1:
  driver = cyrus_sasl
  public_name = SCRAM-SHA-1
  server_hostname = mail.test
  server_realm = mail.test
  server_set_id = $auth1
`

// scram makes the password database and returns the authenticators.
func (x *exim) scram(binary string) string {
	tool := adaptertest.Program(x.t, "saslpasswd2", "/usr/sbin/saslpasswd2")
	if about, err := exec.Command(binary, "-bV").CombinedOutput(); err != nil || !strings.Contains(string(about), "cyrus_sasl") {
		adaptertest.Program(x.t, "exim4-daemon-heavy") // which is no program: it skips or fails
	}
	must(x.t, os.Mkdir(filepath.Join(x.dir, "sasl"), 0o755)) //nolint:gosec // the server's user reads it
	x.write("sasl/exim.conf", "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: "+x.dir+"/sasldb\nmech_list: SCRAM-SHA-256 SCRAM-SHA-1\n")
	cmd := exec.Command(tool, "-p", "-c", "-f", filepath.Join(x.dir, "sasldb"), "-u", "mail.test", "router")
	cmd.Stdin = strings.NewReader(eximPassword)
	said, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("saslpasswd2: %v %s", err, said)
	}
	return scramAuthenticators
}

func mailUser(t *testing.T) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup("Debian-exim")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	must(t, err)
	uid, err = strconv.Atoi(u.Uid)
	must(t, err)
	gid, err = strconv.Atoi(u.Gid)
	must(t, err)
	return uid, gid
}

func (x *exim) start(uid, gid int) {
	t := x.t
	t.Helper()
	cmd := exec.Command(filepath.Join(x.dir, "exim"), "-C", filepath.Join(x.dir, "conf"), "-bdf")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)} //nolint:gosec // of the system's own list
	}
	cmd.Dir = x.dir
	cmd.Env = append(os.Environ(), "SASL_CONF_PATH="+filepath.Join(x.dir, "sasl"))
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its children too: one may be waiting
		<-done
		if t.Failed() {
			for _, name := range []string{"log-main", "log-reject", "log-panic"} {
				b, _ := os.ReadFile(filepath.Join(x.dir, name))
				t.Logf("%s:\n%s", name, b)
			}
		}
	})
	x.wait("Exim listens", func() bool {
		select {
		case <-done:
			t.Fatalf("Exim ended: %s", said.String())
		default:
		}
		c, err := net.Dial("tcp", addr(x.port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (x *exim) config(uid, gid int) string {
	return fmt.Sprintf(`exim_path = %[1]s/exim
spool_directory = %[1]s/spool
log_file_path = %[1]s/log-%%s
pid_file_path = %[1]s/pid
daemon_smtp_ports = %[2]d : %[3]d
tls_on_connect_ports = %[3]d
tls_certificate = %[1]s/cert.pem
tls_privatekey = %[1]s/key.pem
local_interfaces = 127.0.0.1
primary_hostname = mail.test
deliver_drop_privilege = true
exim_user = %[4]d
exim_group = %[5]d
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 200
smtp_accept_queue = 200
smtp_accept_queue_per_connection = 0
dsn_advertise_hosts = *
keep_environment = SASL_CONF_PATH
add_environment =
timezone = UTC
`, x.dir, x.port, x.implicit, uid, gid)
}

func (x *exim) rest() string {
	var lists, names strings.Builder
	for _, step := range steps {
		fmt.Fprintf(&names, "acl_smtp_%s = %s\n", step, step)
		file := fmt.Sprintf("${readfile{%s/%s}}", x.dir, step)
		fmt.Fprintf(&lists, "%s:\n", step)
		for verb, digit := range map[string]string{"deny": "5", "defer": "4"} {
			fmt.Fprintf(&lists, "  %s condition = ${if match{%s}{\\N^%s\\N}}\n    message = %s\n", verb, file, digit, file)
		}
		switch step {
		case "mail":
			lists.WriteString("  deny !authenticated = *\n    message = 530 5.7.0 log in first\n")
		case "rcpt":
			lists.WriteString("  deny !domains = bauamt.test\n    message = 550 5.7.1 relaying denied\n" +
				"  deny local_parts = unbekannt\n    message = 550 5.1.1 no such mailbox\n" +
				"  defer local_parts = grau\n    message = 451 4.7.1 greylisted\n")
		case "data":
			fmt.Fprintf(&lists, "  warn condition = ${if match{%s}{wait}}\n    delay = 60s\n", file)
		}
		lists.WriteString("  accept\n")
	}
	return names.String() + `begin acl
` + lists.String() + `begin routers
later:
  driver = redirect
  local_parts = spaeter
  allow_fail
  data = :fail: the mailbox is gone
box:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = ` + x.dir + `/box
  maildir_format
  envelope_to_add
  return_path_add
begin authenticators
PLAIN:
  driver = plaintext
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{router}}{eq{$auth3}{${readfile{` + x.dir + `/password}}}}}}
  server_set_id = $auth2
LOGIN:
  driver = plaintext
  server_prompts = User Name : Password
  server_condition = ${if and{{eq{$auth1}{router}}{eq{$auth2}{${readfile{` + x.dir + `/password}}}}}}
  server_set_id = $auth1
XOAUTH2:
  driver = plaintext
  server_prompts = :
  server_condition = ${if eq{$auth1}{user=router\x01auth=Bearer ${readfile{` + x.dir + `/token}}\x01\x01}}
  server_set_id = router
`
}

// answer makes the server answer so at a step from now on, or "" as it would;
// "wait" after the message delays the answer by a minute.
func (x *exim) answer(step, text string) {
	x.t.Helper()
	if !slices.Contains(steps, step) {
		x.t.Fatalf("no step %q", step)
	}
	x.write(step, text)
}

func (x *exim) password(p string) { x.write("password", p) }

// write replaces a file at once.
func (x *exim) write(name, content string) {
	x.t.Helper()
	path := filepath.Join(x.dir, name)
	must(x.t, os.WriteFile(path+".new", []byte(content), 0o644)) //nolint:gosec // the server's user reads it
	must(x.t, os.Rename(path+".new", path))
}

// files waits until the server has nothing in hand and lists the mailbox's files,
// in the order of their arrival.
func (x *exim) files() []string {
	x.t.Helper()
	x.wait("the queue is empty", func() bool {
		entries, err := os.ReadDir(filepath.Join(x.dir, "spool", "input"))
		return os.IsNotExist(err) || err == nil && len(entries) == 0
	})
	box := filepath.Join(x.dir, "box", "new")
	entries, err := os.ReadDir(box)
	if os.IsNotExist(err) {
		return nil
	}
	must(x.t, err)
	when := func(e os.DirEntry) time.Time {
		info, err := e.Info()
		must(x.t, err)
		return info.ModTime()
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return when(a).Compare(when(b)) })
	var out []string
	for _, e := range entries {
		out = append(out, filepath.Join(box, e.Name()))
	}
	return out
}

// mails are what lies in the mailbox, as Python reads it.
func (x *exim) mails() []parsed { return parse(x.t, x.files()...) }

func (x *exim) received() []adaptertest.Received {
	var out []adaptertest.Received
	for _, m := range x.mails() {
		out = append(out, m.received())
	}
	return out
}

func (x *exim) wait(for_ string, done func() bool) {
	x.t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			x.t.Fatalf("not in a minute: %s", for_)
		}
	}
}

// parsed is a mail as testdata/read.py tells it.
type parsed struct {
	Headers [][2]string
	Type    string
	Parts   []part
	Defects []string
	Longest int
}

type part struct {
	Type, Filename, ID, Purpose, Digest string
	Content                             []byte
}

func parse(t *testing.T, files ...string) []parsed {
	t.Helper()
	if len(files) == 0 {
		return nil
	}
	cmd := exec.Command(adaptertest.Program(t, "python3"), append([]string{"testdata/read.py"}, files...)...)
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	must(t, err)
	var out []parsed
	must(t, json.Unmarshal(b, &out))
	for i, m := range out {
		if len(m.Defects) > 0 {
			t.Errorf("%s is not as a mail should be: %s", files[i], m.Defects)
		}
		if m.Longest > 998 { // RFC 5322 section 2.1.1
			t.Errorf("%s has a line of %d bytes", files[i], m.Longest)
		}
	}
	return out
}

func (m parsed) header(name string) string {
	var out []string
	for _, h := range m.Headers {
		if strings.EqualFold(h[0], name) {
			out = append(out, h[1])
		}
	}
	return strings.Join(out, "\n")
}

// received sorts the parts: words for a person, the XML, the attachments.
func (m parsed) received() adaptertest.Received {
	r := adaptertest.Received{ID: m.header("Weiche-Delivery-Id"), Beside: map[string]string{}}
	for _, h := range m.Headers {
		r.Beside[h[0]] += h[1] + "\n"
	}
	for i, p := range m.Parts {
		switch i {
		case 0:
			r.Beside["text"] = string(p.Content)
		case 1:
			r.Message = p.Content
			r.Beside["name of the XML"] = p.Filename
		default:
			r.Attachments = append(r.Attachments, p.Content)
		}
	}
	return r
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
