package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

// job is what a contender's process is told. The harness starts itself again
// with it, so that every contender has a process, a heap and a collector of its
// own, and is measured from outside.
type job struct {
	Contender string
	Brokers   []string
	In        string // topic
	Out       string // topic, or the prefix of the topics that are chosen among
	Group     string
	Config    string // directories of those who read a configuration
	Data      string
	Records   int // that fill accepts, of one shape
	Shape     shape
	// Partitions of the topics.
	Partitions int
	Unchecked  bool // messages are not checked against their schema
}

const jobVariable = "WEICHE_BENCH_JOB"

// processes are run in a process of their own until ctx ends. ready tells the
// harness where they listen, when they take work.
var processes = map[string]func(ctx context.Context, j job, ready func(addresses)) error{
	"raw-sarama":            rawSarama,
	"bus-trivial":           busTrivial,
	"bus-trivial-watermill": busWatermill,
	"watermill-stock":       watermillStock,
	"router":                router,
	"fill":                  fill,
}

// addresses are a router's, with the key its portal posts with.
type addresses struct{ Public, Ops, Key string }

// runChild is the main function of a contender's process; false: this is none.
//
// It obeys lines on its input: "profile FILE" and "stop" begin and end a CPU
// profile; the end of the input ends the process.
func runChild() bool {
	raw := os.Getenv(jobVariable)
	if raw == "" {
		return false
	}
	var j job
	if err := json.Unmarshal([]byte(raw), &j); err != nil {
		fatal(err)
	}
	run := processes[j.Contender]
	if run == nil {
		fatal(fmt.Errorf("no contender %q", j.Contender))
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		obey(os.Stdin)
	}()
	err := run(ctx, j, func(a addresses) {
		b, _ := json.Marshal(a) // strings
		fmt.Printf("%s\n", b)
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		fatal(fmt.Errorf("%s: %w", j.Contender, err))
	}
	return true
}

func obey(in io.Reader) {
	var file *os.File
	stop := func() {
		if file != nil {
			pprof.StopCPUProfile()
			file.Close()
			file = nil
		}
	}
	defer stop()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		stop()
		if path, ok := strings.CutPrefix(lines.Text(), "profile "); ok {
			f, err := os.Create(path)
			if err == nil {
				err = pprof.StartCPUProfile(f)
			}
			if err != nil {
				fatal(err)
			}
			file = f
		}
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// child is a contender's process as the harness sees it.
type child struct {
	addresses
	cmd   *exec.Cmd
	in    io.WriteCloser
	ended chan struct{}
	err   error
	log   string // file with what it wrote to stderr
}

// startChild starts a contender and returns when it takes work.
func startChild(dir string, j job, within time.Duration) (*child, error) {
	raw, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.CreateTemp(dir, j.Contender+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := &child{cmd: exec.Command(exe), ended: make(chan struct{}), log: log.Name()}
	c.cmd.Env = append(os.Environ(), jobVariable+"="+string(raw))
	c.cmd.Stderr = log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	said := make(chan error, 1)
	go func() {
		r := bufio.NewReader(out)
		line, err := r.ReadString('\n')
		if err == nil {
			err = json.Unmarshal([]byte(line), &c.addresses)
		}
		said <- err
		_, _ = io.Copy(io.Discard, r)
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	select {
	case err = <-said:
	case <-time.After(within):
		err = fmt.Errorf("not ready within %s", within)
	}
	if err != nil {
		_ = c.cmd.Process.Kill()
		<-c.ended
		return nil, c.failed(j.Contender, err)
	}
	return c, nil
}

// failed adds the end of the child's log to an error.
func (c *child) failed(name string, err error) error {
	b, _ := os.ReadFile(c.log)
	return fmt.Errorf("%s: %w\n%s", name, err, b[max(0, len(b)-3000):])
}

// tell sends a line; a child that has ended is found out elsewhere.
func (c *child) tell(line string) { _, _ = fmt.Fprintln(c.in, line) }

func (c *child) profile(dir, name string) {
	if dir != "" {
		c.tell("profile " + filepath.Join(dir, name+".pprof"))
	}
}

// stop ends the child and waits for it; one that does not end by itself is
// killed, and that is an error only where it had ended before.
func (c *child) stop() error {
	_ = c.in.Close()
	select {
	case <-c.ended:
	case <-time.After(stopWithin):
		_ = c.cmd.Process.Kill()
		<-c.ended
		return nil
	}
	if c.err != nil {
		return c.failed("a contender", c.err)
	}
	return nil
}

// stopWithin is longer than a router's drain time. What it leaves undone is
// thrown away with its topics.
const stopWithin = time.Minute
