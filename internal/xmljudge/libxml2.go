package xmljudge

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "embed"
)

//go:embed c/libxml2.c
var libxml2Program []byte

// Libxml2 is a process of libxml2 (Debian's libxml2-dev, compiled by gcc) that
// has one schema in memory. It is for benchmarks: what it takes has no part in it
// of calls from Go. It is not safe for concurrent use.
type Libxml2 struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// StartLibxml2 compiles and starts it; the test's end stops it. The catalog is
// as for Xmllint.
func StartLibxml2(t testing.TB, schema, catalog string) *Libxml2 {
	t.Helper()
	gcc, config := need(t, "gcc"), need(t, "xml2-config")
	dir := t.TempDir()
	source, program := filepath.Join(dir, "libxml2.c"), filepath.Join(dir, "libxml2")
	if err := os.WriteFile(source, libxml2Program, 0o600); err != nil {
		t.Fatal(err)
	}
	flags, err := exec.Command(config, "--cflags", "--libs").Output()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, append([]string{"-O2", "-o", program, source}, strings.Fields(string(flags))...)...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	cmd := exec.Command(program, absolute(t, schema))
	cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+absolute(t, catalog))
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
	return &Libxml2{in: in, out: bufio.NewReader(out)}
}

// Time validates a message n times, as a tree or else as a stream of events, and
// returns the CPU time that all of them took.
func (l *Libxml2) Time(t testing.TB, message []byte, tree bool, n int) time.Duration {
	t.Helper()
	mode := "stream"
	if tree {
		mode = "tree"
	}
	if _, err := fmt.Fprintf(l.in, "%s %d %d\n%s", mode, n, len(message), message); err != nil {
		t.Fatal(err)
	}
	var took time.Duration
	var valid int
	if _, err := fmt.Fscan(l.out, &took, &valid); err != nil {
		t.Fatalf("libxml2 has ended: %v", err)
	}
	if valid != 1 {
		t.Fatal("libxml2 finds the message not valid")
	}
	return took
}
