// Package xmljudge asks programs that others wrote whether XML is valid: libxml2
// (xmllint), Xerces, and SchXslt on Saxon for Schematron. It is for tests only;
// the product depends on none of them.
//
// The JVM's jars come from Maven Central, once, into the user's cache. Without
// java, javac, mvn or xmllint a test is skipped by name, except where CI=true is
// set: there it fails.
package xmljudge

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "embed"
)

//go:embed Judge.java
var program []byte

// JVM is one Java process with Xerces 2.12.2, Saxon-HE 12.5 and SchXslt 1.10.1. It
// compiles each schema and each rule file once. It is safe for concurrent use;
// orders run one after another.
type JVM struct {
	mu  sync.Mutex
	in  io.WriteCloser
	out *bufio.Reader
}

// Start starts the JVM; the test's end stops it.
func Start(t testing.TB) *JVM {
	t.Helper()
	java := need(t, "java")
	need(t, "javac")
	lib, err := jars(t)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "Judge.java")
	if err := os.WriteFile(file, program, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(java, "-Xmx512m", "-cp", filepath.Join(lib, "*"), file)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends with its input
		_ = cmd.Wait()
	})
	return &JVM{in: in, out: bufio.NewReaderSize(out, 1<<20)}
}

// Validate asks Xerces for the faults of a message file. The catalog (OASIS XML
// Catalogs) says where imports lie; "" where none is needed.
func (j *JVM) Validate(t testing.TB, schema, catalog, message string) []string {
	t.Helper()
	if catalog == "" {
		catalog = "-"
	} else {
		catalog = absolute(t, catalog)
	}
	return j.ask(t, "xsd", absolute(t, schema), catalog, absolute(t, message))
}

// Schematron asks SchXslt and Saxon for the failed assertions of a message file:
// each with the rule's id and the place.
func (j *JVM) Schematron(t testing.TB, rules, message string) []string {
	t.Helper()
	return j.ask(t, "sch", absolute(t, rules), absolute(t, message))
}

func (j *JVM) ask(t testing.TB, order ...string) []string {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := fmt.Fprintln(j.in, strings.Join(order, "\t")); err != nil {
		t.Fatal(err)
	}
	var faults []string
	for {
		line, err := j.out.ReadString('\n')
		if err != nil {
			t.Fatalf("the judge has ended: %v", err)
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "." {
			return faults
		}
		if strings.HasPrefix(line, "judge: ") {
			t.Fatalf("%s: %s", strings.Join(order, " "), line)
		}
		faults = append(faults, line)
	}
}

// Xmllint asks libxml2 whether a message file is valid; what it says where it
// is not.
func Xmllint(t testing.TB, schema, catalog, message string) (said string, valid bool) {
	t.Helper()
	cmd := exec.Command(need(t, "xmllint"), "--nonet", "--noout", "--schema", absolute(t, schema), absolute(t, message))
	if catalog != "" {
		cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+absolute(t, catalog))
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3 && exit.ExitCode() != 1) { // 1: not well-formed, 3: not valid
		t.Fatalf("xmllint: %v\n%s", err, out)
	}
	return string(out), err == nil
}

// XmllintAll asks libxml2 about many message files at once, which compiles the
// schema once. It returns what it says of each, "" of those that are valid. They
// must not be more than a command line takes.
func XmllintAll(t testing.TB, schema, catalog string, messages []string) map[string]string {
	t.Helper()
	args := append([]string{"--nonet", "--noout", "--schema", absolute(t, schema)}, messages...)
	cmd := exec.Command(need(t, "xmllint"), args...)
	if catalog != "" {
		cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+absolute(t, catalog))
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || bytes.Contains(out, []byte("failed to compile")) {
		t.Fatalf("xmllint: %v\n%.2000s", err, out)
	}
	said := map[string]string{}
	for _, m := range messages {
		said[m] = "is not well-formed"
	}
	about := ""
	for line := range strings.Lines(string(out)) {
		if m, ok := strings.CutSuffix(strings.TrimSpace(line), " validates"); ok {
			said[m] = ""
			continue
		}
		if m, _, ok := strings.Cut(line, ":"); ok && said[m] != "" {
			about = m
		}
		said[about] += "\n" + strings.TrimSuffix(line, "\n")
	}
	return said
}

func absolute(t testing.TB, path string) string {
	t.Helper()
	p, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// need finds a program, or skips the test; under CI it fails it.
func need(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err == nil {
		return p
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI has to ask it", name)
	}
	t.Skipf("needs %s to judge XML", name)
	return ""
}

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>weiche</groupId><artifactId>xml-judges</artifactId><version>1</version><dependencies>
<dependency><groupId>xerces</groupId><artifactId>xercesImpl</artifactId><version>2.12.2</version></dependency>
<dependency><groupId>net.sf.saxon</groupId><artifactId>Saxon-HE</artifactId><version>12.5</version></dependency>
<dependency><groupId>name.dmaus.schxslt</groupId><artifactId>schxslt</artifactId><version>1.10.1</version></dependency>
</dependencies></project>`

// jars returns the directory with the judges' jars. Several test processes may
// ask at once: each fetches aside, the first rename wins.
func jars(t testing.TB) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	root := filepath.Join(cache, "weiche-xml")
	lib := filepath.Join(root, "lib-1")
	if _, err := os.Stat(lib); err == nil {
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
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(pom), 0o600); err != nil {
		return "", err
	}
	t.Logf("fetching Xerces, Saxon-HE and SchXslt into %s", lib)
	cmd := exec.Command(mvn, "-q", "-B", "-f", filepath.Join(work, "pom.xml"), "dependency:copy-dependencies", "-DoutputDirectory="+filepath.Join(work, "lib"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mvn: %w\n%s", err, out)
	}
	err = os.Rename(filepath.Join(work, "lib"), lib)
	if _, e := os.Stat(lib); e == nil {
		err = nil
	}
	return lib, err
}
