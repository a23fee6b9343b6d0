// Package kafkatest starts a real Apache Kafka for tests, from Maven Central's
// jars: no container, no root, loopback only. It is imported by tests and by
// nothing else.
//
// The jars (43 MB) are fetched once and kept in the user's cache directory.
// Without java or mvn a test is skipped by name, except where CI=true is set:
// there it fails, so that a green run means the real thing was tried.
package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Version is the Apache Kafka that is started.
const Version = "4.1.1"

const startTimeout = 90 * time.Second

// Cluster is a running cluster; node i is Nodes[i].
type Cluster struct {
	Nodes []*Node
}

// Node is one broker and controller process.
type Node struct {
	Addr string // host:port of the client listener

	listeners map[string]string // of Listener: name → host:port

	t    host
	dir  string
	lib  string
	jvm  []string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended; nil once Stop has seen it
	err  error         // how it ended
}

// Option changes a cluster before its start.
type Option func(*settings)

type settings struct {
	nodes     int
	extra     map[string]string
	listeners []listener
	jvm       []string
	system    []string
	format    []string // arguments of the storage tool
}

type listener struct {
	name, protocol string
	props          map[string]string
	advertised     func(addr string) string // nil: as it is
}

// A test's broker lives for seconds: it shall start fast and be small.
var small = []string{"-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}

// Nodes sets how many broker processes form the cluster; 1 by default.
func Nodes(n int) Option { return func(s *settings) { s.nodes = n } }

// Property sets a broker property, over the ones that are set here.
func Property(name, value string) Option { return func(s *settings) { s.extra[name] = value } }

// JVM sets the flags of the Java machine. By default it is small and compiles
// quickly rather than well, which is no broker to measure with.
func JVM(flags ...string) Option { return func(s *settings) { s.jvm = flags } }

// Listener adds a listener beside the plain one, on a free port of each node.
// The name is of small letters; protocol is SSL, SASL_SSL or SASL_PLAINTEXT;
// props are the listener's own, without the prefix listener.name.<name>.
func Listener(name, protocol string, props map[string]string) Option {
	return func(s *settings) {
		s.listeners = append(s.listeners, listener{name: name, protocol: protocol, props: props})
	}
}

// Proxied adds a listener of that name, without TLS or passwords, that the
// brokers advertise by other addresses: through gets a node's address and
// returns the one that clients are told. What brokers say to each other goes the
// direct way.
func Proxied(name string, through func(addr string) string) Option {
	return func(s *settings) {
		s.listeners = append(s.listeners, listener{name: name, protocol: "PLAINTEXT", advertised: through})
	}
}

// System sets a system property of the Java machine.
func System(name, value string) Option {
	return func(s *settings) { s.system = append(s.system, "-D"+name+"="+value) }
}

// User makes a user with a SCRAM password before the first start.
func User(mechanism, name, password string) Option {
	return func(s *settings) {
		s.format = append(s.format, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, name, password))
	}
}

// Start starts a cluster and stops it when the test ends. It returns when every
// node accepts connections and has joined.
func Start(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	return start(t, opts...)
}

func start(t host, opts ...Option) *Cluster {
	t.Helper()
	s := settings{nodes: 1, extra: map[string]string{}, jvm: small}
	for _, o := range opts {
		o(&s)
	}
	java := need(t, "java")
	lib, err := jars(t)
	if err != nil {
		t.Fatalf("Apache Kafka's jars: %v", err)
	}
	each := 2 + len(s.listeners)
	ports := freePorts(t, each*s.nodes)
	var voters []string
	for i := range s.nodes {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", i+1, ports[each*i+1]))
	}
	id := clusterID()
	c := &Cluster{}
	for i := range s.nodes {
		n := &Node{Addr: fmt.Sprintf("127.0.0.1:%d", ports[each*i]), t: t, dir: t.TempDir(), lib: lib, jvm: slices.Concat(s.jvm, s.system), listeners: map[string]string{}}
		props := map[string]string{
			"process.roles":                            "broker,controller",
			"node.id":                                  strconv.Itoa(i + 1),
			"controller.quorum.voters":                 strings.Join(voters, ","),
			"controller.listener.names":                "CONTROLLER",
			"listeners":                                fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d", n.Addr, ports[each*i+1]),
			"advertised.listeners":                     "PLAINTEXT://" + n.Addr,
			"listener.security.protocol.map":           "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"inter.broker.listener.name":               "PLAINTEXT",
			"log.dirs":                                 filepath.Join(n.dir, "log"),
			"offsets.topic.replication.factor":         strconv.Itoa(min(3, s.nodes)),
			"offsets.topic.num.partitions":             "5",
			"transaction.state.log.replication.factor": strconv.Itoa(min(3, s.nodes)),
			"transaction.state.log.min.isr":            "1",
			"group.initial.rebalance.delay.ms":         "0",
			"auto.create.topics.enable":                "false",
			"num.network.threads":                      "2",
			"num.io.threads":                           "4",
			"log.cleaner.dedupe.buffer.size":           "2097152",
		}
		for j, l := range s.listeners {
			n.listeners[l.name] = fmt.Sprintf("127.0.0.1:%d", ports[each*i+2+j])
			l.add(props, n.listeners[l.name])
		}
		for k, v := range s.extra {
			props[k] = v
		}
		n.write(props)
		args := append([]string{"-cp", filepath.Join(lib, "*"), "kafka.tools.StorageTool", "format", "-t", id, "-c", n.config()}, s.format...)
		out, err := exec.Command(java, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("format Kafka's directory: %v\n%s", err, out)
		}
		c.Nodes = append(c.Nodes, n)
	}
	for _, n := range c.Nodes {
		n.launch()
		t.Cleanup(n.Stop)
	}
	for _, n := range c.Nodes {
		n.await()
	}
	return c
}

func (l listener) add(props map[string]string, addr string) {
	upper := strings.ToUpper(l.name)
	props["listeners"] += "," + upper + "://" + addr
	if l.advertised != nil {
		addr = l.advertised(addr)
	}
	props["advertised.listeners"] += "," + upper + "://" + addr
	props["listener.security.protocol.map"] += "," + upper + ":" + l.protocol
	for k, v := range l.props {
		props["listener.name."+l.name+"."+k] = v
	}
}

// On returns every node's address of a listener that was added.
func (c *Cluster) On(listener string) []string {
	var out []string
	for _, n := range c.Nodes {
		out = append(out, n.listeners[listener])
	}
	return out
}

// Addrs returns every node's client address.
func (c *Cluster) Addrs() []string {
	var out []string
	for _, n := range c.Nodes {
		out = append(out, n.Addr)
	}
	return out
}

func (n *Node) config() string { return filepath.Join(n.dir, "server.properties") }

func (n *Node) write(props map[string]string) {
	var b strings.Builder
	for k, v := range props {
		fmt.Fprintf(&b, "%s=%s\n", k, v)
	}
	if err := os.WriteFile(n.config(), []byte(b.String()), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *Node) launch() {
	log, err := os.OpenFile(filepath.Join(n.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	n.cmd = exec.Command("java", append(slices.Clone(n.jvm), "-cp", filepath.Join(n.lib, "*"),
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "kafka.Kafka", n.config())...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	// The broker goes when the test process is killed.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	_ = log.Close()
	cmd, done := n.cmd, make(chan struct{})
	n.done = done
	go func() {
		n.err = cmd.Wait()
		close(done)
	}()
}

func (n *Node) await() {
	n.t.Helper()
	deadline := time.Now().Add(startTimeout)
	for {
		c, err := net.DialTimeout("tcp", n.Addr, time.Second)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-n.done:
			n.t.Fatalf("Kafka ended before it served: %v\n%s", n.err, n.tail())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("Kafka does not serve %s after %s\n%s", n.Addr, startTimeout, n.tail())
		}
	}
}

func (n *Node) tail() string {
	b, _ := os.ReadFile(filepath.Join(n.dir, "server.log"))
	return string(b[max(0, len(b)-4000):])
}

// Stop asks the node to end, and ends it when it does not within 20 s. It does
// nothing on a node that is stopped.
func (n *Node) Stop() { n.end(syscall.SIGTERM) }

// Kill ends the node at once, as a power cut would.
func (n *Node) Kill() { n.end(syscall.SIGKILL) }

// Suspend stops the node from answering without closing its connections;
// Resume lets it go on.
func (n *Node) Suspend() { n.signal(syscall.SIGSTOP) }

// Resume lets a suspended node go on.
func (n *Node) Resume() { n.signal(syscall.SIGCONT) }

func (n *Node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

func (n *Node) end(s syscall.Signal) {
	if n.done == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGCONT)
	_ = n.cmd.Process.Signal(s)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	select {
	case <-n.done:
	case <-ctx.Done():
		_ = n.cmd.Process.Kill()
		<-n.done
	}
	n.done = nil
}

// Set changes a broker property from the next start on.
func (n *Node) Set(name, value string) {
	n.t.Helper()
	f, err := os.OpenFile(n.config(), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "%s=%s\n", name, value)
	if err := errors.Join(err, f.Close()); err != nil {
		n.t.Fatal(err)
	}
}

// Restart starts a stopped node again, on its port and directory.
func (n *Node) Restart() {
	n.t.Helper()
	n.end(syscall.SIGTERM)
	n.launch()
	n.await()
}

// need finds a program, or skips the test; under CI it fails it.
func need(t host, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err == nil {
		return p
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI has to try the real Kafka", name)
	}
	t.Skipf("needs %s to run a real Apache Kafka", name)
	return ""
}

// jars returns the directory with Kafka's jars. Several test processes may ask
// at once: each fetches aside, the first rename wins.
func jars(t host) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	root := filepath.Join(cache, "weiche-kafka")
	lib := filepath.Join(root, "lib-"+Version)
	if _, err := os.Stat(filepath.Join(lib, "kafka_2.13-"+Version+".jar")); err == nil {
		return lib, nil
	}
	mvn := need(t, "mvn")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(root, "fetch-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	pom := `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>weiche</groupId><artifactId>kafka-jars</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + Version + `</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>`
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(pom), 0o600); err != nil {
		return "", err
	}
	t.Logf("fetching Apache Kafka %s into %s", Version, lib)
	cmd := exec.Command(mvn, "-q", "-B", "-f", filepath.Join(work, "pom.xml"), "dependency:copy-dependencies", "-DoutputDirectory="+filepath.Join(work, "lib"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mvn: %w\n%s", err, out)
	}
	err = os.Rename(filepath.Join(work, "lib"), lib)
	if err != nil {
		if _, e := os.Stat(lib); e == nil {
			err = nil
		}
	}
	return lib, err
}

// freePorts holds all listeners until it has enough, so that no port comes twice.
func freePorts(t host, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(errors.Join(errors.New("no free port"), err))
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func clusterID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ReplaceAll(base64.RawURLEncoding.EncodeToString(b[:]), "-", "A")
}
