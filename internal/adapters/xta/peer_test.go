package xta_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/kafkatest"
)

// standard holds the standard's WSDL and schemas, beside the repository.
const standard = "../../../../shared/standards/xta/2.1.1"

const cxf = "4.0.4"

// peer is an XTA server: what Apache CXF generates from the standard's WSDL
// (testdata/Peer.java), one process for all tests of the package. Jars and classes
// are kept in the user's cache directory.
type peer struct {
	ca            *kafkatest.Authority
	url, control  string
	cmd           *exec.Cmd
	receivedFiles string
}

var (
	onePeer  sync.Once
	theOne   *peer
	noPeer   error
	peerDir  string
	errUnfit = errors.New("unfit")
)

func TestMain(m *testing.M) {
	code := m.Run()
	if theOne != nil {
		_ = theOne.cmd.Process.Kill()
		_ = theOne.cmd.Wait()
	}
	_ = os.RemoveAll(peerDir)
	os.Exit(code)
}

// open returns the peer, in its first state.
func openPeer(t *testing.T) *peer {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a Java service")
	}
	onePeer.Do(func() { theOne, noPeer = startPeer(t) })
	switch {
	case errors.Is(noPeer, errUnfit):
		adaptertest.Missing(t, noPeer.Error())
	case noPeer != nil:
		t.Fatal(noPeer)
	}
	theOne.receivedFiles = theOne.ask(t, "/reset")
	return theOne
}

func startPeer(t *testing.T) (*peer, error) {
	classpath, err := buildPeer(t)
	if err != nil {
		return nil, err
	}
	if peerDir, err = os.MkdirTemp("", "xta-peer-"); err != nil {
		return nil, err
	}
	p := &peer{ca: kafkatest.NewAuthority(lasting{t, peerDir})}
	own := p.ca.Issue("xta", time.Now().Add(24*time.Hour))
	for name, file := range map[string]string{"ca.pem": p.ca.File, "cert.pem": own.CertFile, "key.pem": own.KeyFile} {
		b, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(peerDir, name), b, 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	p.url = fmt.Sprintf("https://127.0.0.1:%d/", port)
	wsdl, err := filepath.Abs(filepath.Join(standard, "XTA.wsdl"))
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-Djava.util.logging.config.file="+filepath.Join(peerDir, "logging.properties"), "-cp", classpath, "Peer", peerDir, wsdl, strconv.Itoa(port))
	log, err := os.Create(filepath.Join(peerDir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	p.cmd.Stderr = log
	// It goes when the test process is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	timeout := time.AfterFunc(3*time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer timeout.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if c, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			p.control = "http://127.0.0.1:" + c
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return p, nil
		}
	}
	b, _ := os.ReadFile(log.Name())
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	return nil, fmt.Errorf("the peer ended before it served:\n%s", b[max(0, len(b)-4000):])
}

// lasting is a test whose directories stay until the package's tests have ended.
type lasting struct {
	*testing.T
	dir string
}

// TempDir implements testing.TB.
func (l lasting) TempDir() string {
	dir, err := os.MkdirTemp(l.dir, "ca-")
	if err != nil {
		l.Fatal(err)
	}
	return dir
}

// buildPeer returns the classpath of the built peer. Several test processes may
// build at once: each does so aside, the first rename wins.
func buildPeer(t *testing.T) (string, error) {
	for _, program := range []string{"java", "javac"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%w: needs %s to run the peer that Apache CXF generates", errUnfit, program)
		}
	}
	sum, err := sources()
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: needs the standard's WSDL in %s", errUnfit, standard)
	} else if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	built := filepath.Join(cache, "weiche-xta", "peer-"+cxf+"-"+sum)
	classpath := filepath.Join(built, "classes") + ":" + filepath.Join(built, "lib", "*")
	if _, err := os.Stat(built); err == nil {
		return classpath, nil
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return "", fmt.Errorf("%w: needs mvn to fetch Apache CXF", errUnfit)
	}
	if err := os.MkdirAll(filepath.Dir(built), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(built), "build-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	t.Logf("building the peer with Apache CXF %s in %s", cxf, built)
	if err := compilePeer(work); err != nil {
		return "", err
	}
	if err := os.Rename(work, built); err != nil {
		if _, e := os.Stat(built); e != nil {
			return "", err
		}
	}
	return classpath, nil
}

// sources names what the peer is made of.
func sources() (string, error) {
	files, err := filepath.Glob(filepath.Join(standard, "*"))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fs.ErrNotExist
	}
	h := sha256.New()
	for _, f := range append(files, "testdata/Peer.java") {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(f), len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

func compilePeer(work string) error {
	pom := `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>weiche</groupId><artifactId>xta-peer-jars</artifactId><version>1</version><dependencies>`
	for _, a := range []string{"cxf-tools-wsdlto-frontend-jaxws", "cxf-tools-wsdlto-databinding-jaxb", "cxf-rt-frontend-jaxws", "cxf-rt-transports-http-jetty", "cxf-rt-ws-addr"} {
		pom += "<dependency><groupId>org.apache.cxf</groupId><artifactId>" + a + "</artifactId><version>" + cxf + "</version></dependency>\n"
	}
	pom += `<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>2.0.12</version></dependency></dependencies></project>`
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(pom), 0o600); err != nil {
		return err
	}
	run := func(name string, args ...string) error {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, out[max(0, len(out)-4000):])
		}
		return nil
	}
	lib, gen, classes := filepath.Join(work, "lib"), filepath.Join(work, "gen"), filepath.Join(work, "classes")
	if err := run("mvn", "-q", "-B", "-f", filepath.Join(work, "pom.xml"), "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+lib); err != nil {
		return err
	}
	if err := run("java", "-cp", filepath.Join(lib, "*"), "org.apache.cxf.tools.wsdlto.WSDLToJava",
		"-autoNameResolution", "-noAddressBinding", "-exsh", "true", "-d", gen, filepath.Join(standard, "XTA.wsdl")); err != nil {
		return err
	}
	args := []string{"-nowarn", "-encoding", "UTF-8", "-cp", filepath.Join(lib, "*"), "-d", classes, "testdata/Peer.java"}
	err := filepath.WalkDir(gen, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".java") {
			args = append(args, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	return run("javac", args...)
}

func (p *peer) ask(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get(p.control + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("the peer's control answers %d, %v", resp.StatusCode, err)
	}
	return string(b)
}

// set tells the peer how to behave, see Peer.java.
func (p *peer) set(t *testing.T, name, value string) {
	t.Helper()
	p.ask(t, "/set?"+name+"="+value)
}

// calls counts what has been called since the reset.
func (p *peer) calls(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for line := range strings.Lines(p.ask(t, "/calls")) {
		i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		out[line[:i]], _ = strconv.Atoi(strings.TrimSpace(line[i:]))
	}
	return out
}

// message is what the peer kept of one.
type message struct {
	properties  map[string]string
	attachments []string // content type, file name, id, size
	received    adaptertest.Received
}

func (p *peer) messages(t *testing.T) []message {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(p.receivedFiles, "new-*"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(parts ...string) []byte {
		b, err := os.ReadFile(filepath.Join(parts...))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var out []message
	for _, d := range dirs {
		m := message{properties: map[string]string{}}
		for line := range strings.Lines(string(read(d, "properties"))) {
			k, v, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
			m.properties[k] = v
		}
		for line := range strings.Lines(string(read(d, "attachments"))) {
			m.attachments = append(m.attachments, strings.TrimRight(line, "\n"))
		}
		m.received = adaptertest.Received{ID: m.properties["id"], Message: read(d, "message"), Beside: m.properties}
		files, err := filepath.Glob(filepath.Join(d, "attachment-*"))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(files)
		for _, f := range files {
			m.received.Attachments = append(m.received.Attachments, read(f))
		}
		out = append(out, m)
	}
	return out
}

// faultsOf returns the names of the faults that the WSDL declares for an operation,
// for all where none is named.
func faultsOf(t *testing.T, operation string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(standard, "XTA.wsdl"))
	if errors.Is(err, fs.ErrNotExist) {
		adaptertest.Missing(t, "the standard's WSDL in ../shared is missing")
	} else if err != nil {
		t.Fatal(err)
	}
	var wsdl struct {
		Messages []struct {
			Name  string `xml:"name,attr"`
			Parts []struct {
				Element string `xml:"element,attr"`
			} `xml:"part"`
		} `xml:"message"`
		Ports []struct {
			Operations []struct {
				Name   string `xml:"name,attr"`
				Faults []struct {
					Message string `xml:"message,attr"`
				} `xml:"fault"`
			} `xml:"operation"`
		} `xml:"portType"`
	}
	if err := xml.Unmarshal(b, &wsdl); err != nil {
		t.Fatal(err)
	}
	elements := map[string]string{}
	for _, m := range wsdl.Messages {
		if len(m.Parts) == 1 {
			elements["xta:"+m.Name] = strings.TrimPrefix(m.Parts[0].Element, "xta:")
		}
	}
	var out []string
	for _, p := range wsdl.Ports {
		for _, o := range p.Operations {
			for _, f := range o.Faults {
				if operation != "" && o.Name != operation {
					continue
				}
				out = append(out, elements[f.Message])
			}
		}
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) == 0 {
		t.Fatal("the WSDL declares no faults")
	}
	return out
}
