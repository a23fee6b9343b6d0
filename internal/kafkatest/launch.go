package kafkatest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// host is what starting a cluster asks of a test; a benchmark is none.
type host interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Logf(format string, args ...any)
	TempDir() string
	Cleanup(func())
}

// Launch starts a cluster outside of a test, with its files below dir. stop ends
// it; what lies in dir stays. The methods of a launched node end their goroutine
// on a failure, as they end a test.
func Launch(dir string, opts ...Option) (c *Cluster, stop func(), err error) {
	l := &launch{dir: dir}
	done := make(chan struct{})
	go func() { // Fatal has to leave from wherever it is called
		defer close(done)
		c = start(l, opts...)
	}()
	<-done
	if l.err != nil {
		l.stop()
		return nil, nil, l.err
	}
	return c, l.stop, nil
}

type launch struct {
	dir     string
	err     error
	cleanup []func()
}

func (l *launch) Helper() {}

func (l *launch) Fatal(args ...any) {
	if l.err == nil {
		l.err = errors.New(fmt.Sprint(args...))
	}
	runtime.Goexit()
}

func (l *launch) Fatalf(format string, args ...any) { l.Fatal(fmt.Sprintf(format, args...)) }
func (l *launch) Skipf(format string, args ...any)  { l.Fatalf(format, args...) }
func (l *launch) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (l *launch) Cleanup(fn func())                 { l.cleanup = append(l.cleanup, fn) }

func (l *launch) TempDir() string {
	dir, err := os.MkdirTemp(l.dir, "node-")
	if err != nil {
		l.Fatal(err)
	}
	return dir
}

func (l *launch) stop() {
	for i := len(l.cleanup) - 1; i >= 0; i-- {
		l.cleanup[i]()
	}
	l.cleanup = nil
}

// PID is the node's process, for measuring it.
func (n *Node) PID() int { return n.cmd.Process.Pid }
